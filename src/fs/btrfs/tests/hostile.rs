//! Damaged on purpose, each at a place with a name.

use super::key::is_subvolume;
use super::*;
use crate::disk::bytes::{put16, put32};

const FS: u64 = id::FS_TREE;

#[test]
fn superblock_without_magic_or_checksum_or_place() {
    let image = image();
    let mut changed = image.clone();
    changed[SUPER + 0x40] = 0;
    assert_eq!(codes(&changed), ["btrfs.corrupt"]);
    let mut changed = image.clone();
    changed[SUPER + 0x70] ^= 1;
    assert_eq!(codes(&changed), ["btrfs.checksum"]);
    assert_eq!(codes(&with_super(&image, |sb| put(sb, 0x30, &0_u64.to_le_bytes()))), ["btrfs.corrupt"]);
    assert_eq!(codes(&with_super(&image, |sb| put16(sb, 0xc4, 4))), ["btrfs.feature"]);
}

#[test]
fn superblock_with_impossible_sizes() {
    for (at, value) in [
        (0x90, 0_u32),
        (0x90, 2048),
        (0x90, 5000),
        (0x94, 0),
        (0x94, 1 << 17),
        (0x94, 2048),
        (0xa0, 2049),
        (0xa0, u32::MAX),
    ] {
        let codes = codes(&with_super(&image(), |sb| put32(sb, at, value)));
        assert!(codes == ["btrfs.geometry"] || codes == ["btrfs.chunk"], "{at:x} {value}: {codes:?}");
    }
    for at in [0xc6, 0xc7, 0xc8] {
        assert_eq!(codes(&with_super(&image(), |sb| sb[at] = 8)), ["btrfs.geometry"], "{at:x}");
    }
    for at in [0x50, 0x58] {
        for value in [0_u64, 1, u64::MAX] {
            assert_eq!(codes(&with_super(&image(), |sb| put(sb, at, &value.to_le_bytes()))), ["btrfs.geometry"]);
        }
        let far = codes(&with_super(&image(), |sb| put(sb, at, &(1_u64 << 60).to_le_bytes())));
        assert_eq!(far, ["btrfs.corrupt"], "an address that no chunk holds");
    }
    for at in [0x70, 0x88, 0xd1] {
        assert_eq!(codes(&with_super(&image(), |sb| put(sb, at, &[0; 8]))), ["btrfs.geometry"]);
    }
}

#[test]
fn features_that_move_things_are_refused_by_name() {
    for (bit, name) in [(12, "zoned"), (13, "extent_tree_v2"), (14, "raid_stripe_tree"), (40, "bit_40")] {
        let old = le64(&image(), SUPER + 0xbc);
        let error = open(&with_super(&image(), |sb| put(sb, 0xbc, &(old | 1_u64 << bit).to_le_bytes()))).unwrap_err();
        assert!(error.code() == "btrfs.feature" && error.to_string().contains(name), "{error}");
    }
}

#[test]
fn list_of_chunks_that_is_damaged() {
    for (at, value) in [(8, 0_u8), (9, 1), (17 + 16, 1), (17 + 24, 0), (17 + 25, 0xff), (17 + 44, 9)] {
        let codes = codes(&with_super(&image(), |sb| sb[0x32b + at] = value));
        assert!(codes.iter().all(|code| code.starts_with("btrfs.")) && !codes.is_empty(), "{at}: {codes:?}");
    }
}

#[test]
fn chunk_that_lies_outside_of_its_device() {
    let image =
        with_items(&image(), id::CHUNK_TREE, kind::CHUNK_ITEM, |_, item| put(item, 56, &(1_u64 << 50).to_le_bytes()));
    assert!(!codes(&image).is_empty());
}

#[test]
fn nodes_that_are_not_what_was_meant() {
    let image = image();
    // fsid, bytenr, generation, owner, level.
    for (at, value) in [(32, 1_u64), (48, 4096), (80, 1 << 40), (88, 2), (100, 7), (100, 1)] {
        let changed = with_nodes(&image, FS, 0, |node| {
            if at == 100 { node[100] = value as u8 } else { put(node, at, &value.to_le_bytes()) }
        });
        assert_eq!(codes(&changed), ["btrfs.corrupt"], "{at}");
    }
    let mut changed = image.clone();
    nodes(&image, FS, 0).into_iter().for_each(|at| changed[at + 200] ^= 1);
    assert_eq!(codes(&changed), ["btrfs.checksum"]);
}

#[test]
fn nodes_whose_items_are_not_possible() {
    for count in [0_u32, 164, 10_000, u32::MAX] {
        assert!(!codes(&with_nodes(&image(), FS, 0, |node| put32(node, 96, count))).is_empty(), "{count}");
    }
    let swapped = with_nodes(&image(), FS, 0, |node| {
        let first = node[101..118].to_vec();
        let second = node[126..143].to_vec();
        put(node, 101, &second);
        put(node, 126, &first);
    });
    assert_eq!(codes(&swapped), ["btrfs.corrupt"]);
    for (at, value) in [(118, u32::MAX), (118, 0), (122, u32::MAX), (122, 0), (118 + 25, 4000)] {
        assert_eq!(codes(&with_nodes(&image(), FS, 0, |node| put32(node, at, value))), ["btrfs.corrupt"], "{at}");
    }
}

#[test]
fn tree_that_leads_to_itself() {
    let image = image();
    let bytenr = |node: &[u8]| le64(node, 48);
    let own = with_nodes(&image, FS, 1, |node| {
        let own = bytenr(node);
        put(node, 101 + 17, &own.to_le_bytes());
    });
    assert_eq!(codes(&own), ["btrfs.corrupt"]);
    // All pointers to one child.
    let same = with_nodes(&image, FS, 1, |node| {
        let first = node[118..134].to_vec();
        (1..le32(node, 96) as usize).for_each(|slot| put(node, 118 + slot * 33, &first));
    });
    assert_eq!(codes(&same), ["btrfs.corrupt"]);
    for pointer in [0_u64, 1, 1 << 60, u64::MAX - 4095] {
        let away = with_nodes(&image, FS, 1, |node| put(node, 118, &pointer.to_le_bytes()));
        assert_eq!(codes(&away), ["btrfs.corrupt"], "{pointer:x}");
    }
}

#[test]
fn items_of_trees_that_are_damaged() {
    for (at, value) in [(176, 0_u64), (176, 1 << 60), (160, 1 << 40)] {
        let changed = with_items(&image(), id::ROOT_TREE, kind::ROOT_ITEM, |tree, item| {
            if is_subvolume(tree) {
                put(item, at, &value.to_le_bytes());
            }
        });
        assert_eq!(codes(&changed), ["btrfs.corrupt"], "{at}");
    }
    let high = with_items(&image(), id::ROOT_TREE, kind::ROOT_ITEM, |_, item| item[238] = 9);
    assert_eq!(codes(&high), ["btrfs.corrupt"]);
    let unused = with_items(&image(), id::ROOT_TREE, kind::ROOT_ITEM, |_, item| put32(item, 216, 0));
    assert_eq!(codes(&unused), ["btrfs.subvolume"]);
}

#[test]
fn names_that_are_none() {
    for (at, value) in [(27, 0_u8), (27, 255), (25, 255), (8, 9), (30, b'/'), (30, 0)] {
        let changed = with_items(&image(), FS, kind::DIR_INDEX, |_, item| item[at] = value);
        assert_eq!(codes(&changed), ["btrfs.corrupt"], "{at} {value}");
    }
    // A name that leads into a subvolume which does not hang there is an empty directory.
    let stub = with_items(&image(), FS, kind::DIR_INDEX, |_, item| item[8] = kind::ROOT_ITEM);
    let fs = open(&stub).unwrap();
    let mut found = None;
    fs.read_dir(fs.root(), 0, &mut |entry| {
        found = Some(entry.inode);
        ControlFlow::Break(())
    })
    .unwrap();
    let stat = fs.stat(found.unwrap()).unwrap();
    assert_eq!((stat.mode, stat.links, stat.size), (0o755, 1, 0));
    fs.read_dir(found.unwrap(), 0, &mut |_| panic!("it is empty")).unwrap();
    assert_eq!(fs.lookup(found.unwrap(), b"x").unwrap(), None);
    assert_eq!(fs.read_at(found.unwrap(), &mut [0], 0).unwrap_err().code(), "btrfs.name");
    assert_eq!(fs.xattrs(found.unwrap()).unwrap(), []);
}

#[test]
fn inodes_of_no_kind_and_links_without_end() {
    let changed = with_items(&image(), FS, kind::INODE_ITEM, |inode, item| {
        if inode > 256 {
            put32(item, 52, 0)
        }
    });
    assert_eq!(codes(&changed), ["btrfs.corrupt"]);
    let long = with_items(&image(), FS, kind::INODE_ITEM, |_, item| put(item, 16, &(1_u64 << 62).to_le_bytes()));
    assert_eq!(codes(&long), ["btrfs.corrupt"], "a link of 4 EiB; files of that size are holes at their ends");
}

#[test]
fn extents_that_are_damaged() {
    let change = |at: usize, value: u64| {
        codes(&with_items(&image(), FS, kind::EXTENT_DATA, |_, item| {
            if item.len() == 53 {
                put(item, at, &value.to_le_bytes());
            }
        }))
    };
    for (at, value) in
        [(21, 1), (21, 1 << 60), (21, u64::MAX - 4095), (37, 1), (37, 1 << 40), (45, 0), (45, 1 << 50), (45, u64::MAX)]
    {
        assert_eq!(change(at, value), ["btrfs.corrupt"], "{at} {value:x}");
    }
    for (at, value, code) in
        [(16, 4, "btrfs.feature"), (16, 1, "btrfs.corrupt"), (17, 1, "btrfs.feature"), (20, 3, "btrfs.corrupt")]
    {
        let changed = with_items(&image(), FS, kind::EXTENT_DATA, |_, item| {
            if item.len() == 53 {
                item[at] = value;
            }
        });
        assert!(codes(&changed).contains(&code) || codes(&changed).contains(&"btrfs.limit"), "{at} {value}");
    }
}

#[test]
fn data_that_is_damaged_or_has_no_checksum() {
    let image = image();
    let word = 12_345_u32.to_le_bytes();
    let at = image.windows(8).position(|bytes| bytes[..4] == word && bytes[4..] == 12_346_u32.to_le_bytes()).unwrap();
    let mut changed = image.clone();
    changed[at] ^= 1;
    let fs = open(&changed).unwrap();
    let file = fs.lookup(fs.root(), b"long").unwrap().unwrap();
    let mut content = vec![0; 160_000];
    assert_eq!(fs.read_at(file, &mut content, 0).unwrap_err().code(), "btrfs.checksum");
    assert_eq!(fs.read_at(file, &mut content[..4096], 0).unwrap(), 4096, "the sectors beside it are right");
    // The same in a file that asks for no checksums.
    let open = with_items(&changed, FS, kind::INODE_ITEM, |_, item| item[64] |= 1);
    assert_eq!(codes(&open), [""; 0]);
    let sums = with_items(&image, id::CSUM_TREE, kind::EXTENT_CSUM, |_, item| item.fill(0));
    assert_eq!(codes(&sums), ["btrfs.checksum"]);
}

#[test]
fn damaged_allocation_proves_nothing() {
    let good = open(&image()).unwrap();
    assert!(free_bytes(&good) > 0);
    let groups = with_items(&image(), id::EXTENT_TREE, kind::BLOCK_GROUP_ITEM, |_, item| put(item, 0, &[0; 8]));
    let flags = with_items(&image(), id::EXTENT_TREE, kind::BLOCK_GROUP_ITEM, |_, item| put(item, 16, &[0; 8]));
    let devices = with_items(&image(), id::DEV_TREE, kind::DEV_EXTENT, |_, item| put(item, 24, &[0; 8]));
    let errors = with_super(&image(), |sb| put(sb, 0x38, &5_u64.to_le_bytes()));
    let unknown = with_super(&image(), |sb| put(sb, 0xb4, &(1_u64 << 50).to_le_bytes()));
    for image in [groups, devices, errors, unknown] {
        assert_eq!(free_bytes(&open(&image).unwrap()), 0);
    }
    assert!(open(&flags).unwrap().facts().dirty);
}

#[test]
fn log_that_is_damaged_changes_nothing() {
    let image = image();
    let log = |place: u64| with_super(&image, |sb| put(sb, 0x60, &place.to_le_bytes()));
    let somewhere = le64(&image, SUPER + 0x50);
    for place in [somewhere, 1 << 60, 4096] {
        let fs = open(&log(place)).unwrap();
        assert!(fs.facts().dirty);
        assert_eq!(free_bytes(&fs), 0);
        assert!(fs.lookup(fs.root(), b"long").unwrap().is_some());
    }
    assert_eq!(codes(&log(1)), ["btrfs.geometry"]);
}

/// Damage at random places of metadata, with checksums that are right: whatever comes of it, it ends.
#[test]
fn damage_anywhere_ends() {
    let image = image();
    let mut state = 7_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let places: Vec<usize> = (1..12)
        .flat_map(|tree| (0..3).flat_map(move |level| [(tree, level)]))
        .flat_map(|(tree, level)| nodes(&image, tree, level))
        .collect();
    for _ in 0..300 {
        let mut damaged = image.clone();
        let at = places[random(places.len())];
        let node = &mut damaged[at..at + NODE];
        for _ in 0..4 {
            let offset = 32 + random(NODE - 32);
            node[offset] = [0, 1, 0x7f, 0xff][random(4)];
        }
        seal(node);
        codes(&damaged);
    }
}
