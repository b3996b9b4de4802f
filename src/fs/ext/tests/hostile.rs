//! Damaged on purpose, each at a place with a name.

use super::*;
use crate::disk::bytes::{le32, put, put_be32, put16, put32};

/// The superblock's fields start here.
const SB: usize = 1024;

fn with16(mut image: Vec<u8>, at: usize, value: u16) -> Vec<u8> {
    put16(&mut image, at, value);
    image
}

fn with32(mut image: Vec<u8>, at: usize, value: u32) -> Vec<u8> {
    put32(&mut image, at, value);
    image
}

#[test]
fn blocks_per_group_of_nothing_or_too_many() {
    for value in [0, 8193, u32::MAX] {
        assert_eq!(code(&with32(plain(), SB + 0x20, value)), "ext.geometry");
    }
}

#[test]
fn inodes_per_group_of_nothing_or_too_many() {
    for value in [0, 8193, u32::MAX] {
        assert_eq!(code(&with32(plain(), SB + 0x28, value)), "ext.geometry");
    }
}

#[test]
fn inode_size_that_is_no_power_of_two_or_larger_than_a_block() {
    for value in [0, 1, 127, 129, 384, 2048, 0xffff] {
        assert_eq!(code(&with16(plain(), SB + 0x58, value)), "ext.geometry");
    }
}

#[test]
fn block_size_out_of_range() {
    for value in [7, 22, 54, u32::MAX] {
        assert_eq!(code(&with32(plain(), SB + 0x18, value)), "ext.geometry");
    }
}

#[test]
fn block_count_of_nothing_or_past_the_end() {
    for value in [0, 1, 4097, u32::MAX] {
        assert_eq!(code(&with32(plain(), SB + 0x4, value)), "ext.geometry");
    }
}

#[test]
fn first_data_block_and_inode_count_that_do_not_fit() {
    for value in [2, 5000, u32::MAX] {
        assert_eq!(code(&with32(plain(), SB + 0x14, value)), "ext.geometry");
        assert_eq!(code(&with32(plain(), SB, value)), "ext.geometry");
    }
}

#[test]
fn descriptor_size_of_wide_groups() {
    let mut image = plain();
    put32(&mut image, SB + 0x60, le32(&plain(), SB + 0x60) | 0x80);
    for value in [0, 32, 63, 65, 2048, 0xffff] {
        assert_eq!(code(&with16(image.clone(), SB + 0xfe, value)), "ext.geometry");
    }
}

#[test]
fn magic_number_and_unknown_features() {
    assert_eq!(code(&with16(plain(), SB + 0x38, 0)), "ext.corrupt");
    for bit in [0x1, 0x8, 0x1000, 0x8000_0000] {
        assert_eq!(code(&with32(plain(), SB + 0x60, le32(&plain(), SB + 0x60) | bit)), "ext.feature");
    }
    for bit in [0x100, 0x200, 0x2000, 0x4000_0000] {
        let image = with32(plain(), SB + 0x64, le32(&plain(), SB + 0x64) | bit);
        let fs = Ext::open_mut(disk(image)).unwrap();
        assert_eq!(fs.writer().unwrap_err().code(), "ext.feature");
    }
}

#[test]
fn group_descriptor_that_points_outside() {
    let image = plain();
    for (at, value) in [(0, u32::MAX), (4, 0), (8, 4095), (8, u32::MAX)] {
        assert_eq!(code(&with32(image.clone(), 2048 + at, value)), "ext.corrupt");
    }
    // The same with a checksum that does not follow.
    assert_eq!(code(&with32(summed(), 2048, 7)), "ext.checksum");
}

#[test]
fn extent_tree_that_leads_to_itself() {
    let mut image = plain();
    let at = inode_at(&image, "sparse") + 0x28;
    let child = le32(&image, at + 16);
    // The child becomes an index node whose only entry is the child itself.
    let node = usize::try_from(child).unwrap() * 1024;
    for depth in [1_u16, 2, 5, 6, 0xffff] {
        put16(&mut image, at + 6, depth);
        for level in 0..depth.min(6) {
            put16(&mut image, node + 2, 1);
            put16(&mut image, node + 6, level);
            put32(&mut image, node + 12, 0);
            put32(&mut image, node + 16, child);
            put16(&mut image, node + 20, 0);
            assert_ne!(code(&image), "none");
        }
    }
}

#[test]
fn extent_tree_whose_entries_share_one_child() {
    let mut image = plain();
    let at = inode_at(&image, "sparse") + 0x28;
    let child = le32(&image, at + 16);
    put16(&mut image, at + 2, 4);
    for (slot, key) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
        put32(&mut image, at + 12 + slot * 12, key);
        put32(&mut image, at + 16 + slot * 12, child);
    }
    assert_eq!(code(&image), "ext.corrupt");
}

#[test]
fn extents_out_of_order_empty_overlapping_or_outside() {
    let image = plain();
    let at = inode_at(&image, "sparse") + 0x28;
    let leaf = usize::try_from(le32(&image, at + 16)).unwrap() * 1024;
    for (field, value) in
        [(12, 9999), (16, 0), (24, 0), (24, u32::MAX), (20, 0x7fff_0000), (20, 0xffff_ffff), (20, 5000)]
    {
        assert_eq!(code(&with32(image.clone(), leaf + field, value)), "ext.corrupt", "{field} {value:x}");
    }
    assert_eq!(code(&with16(image.clone(), leaf + 16, 70)), "ext.corrupt", "an extent that reaches into the next");
    assert_eq!(code(&with16(image.clone(), leaf + 2, 0)), "ext.corrupt", "an empty leaf");
    assert_eq!(code(&with16(image.clone(), leaf + 2, 400)), "ext.corrupt", "more entries than fit");
    assert_eq!(code(&with16(image, leaf, 0)), "ext.corrupt", "no magic number");
}

#[test]
fn indirect_blocks_that_lead_to_themselves() {
    let mut image = mapped();
    let at = inode_at(&image, "sparse");
    let table = le32(&image, at + 0x28 + 48);
    let start = usize::try_from(table).unwrap() * 1024;
    for slot in 0..256 {
        put32(&mut image, start + slot * 4, table);
    }
    for slot in [48, 52, 56] {
        put32(&mut image, at + 0x28 + slot, table);
    }
    // A terabyte of it.
    put32(&mut image, at + 0x6c, 200);
    assert_ne!(code(&image), "none");
    put32(&mut image, start, u32::MAX);
    assert_ne!(code(&image), "none");
}

#[test]
fn directory_entries_of_impossible_length() {
    let image = plain();
    let at = block_at(&image, "", 0);
    for value in [0, 1, 4, 11, 13, 2048, 0xffff] {
        assert_eq!(code(&with16(image.clone(), at + 4, value)), "ext.corrupt", "{value}");
    }
    // A name longer than its entry.
    let mut image = image;
    image[at + 6] = 255;
    assert_eq!(code(&image), "ext.corrupt");
}

#[test]
fn directory_entry_of_an_inode_that_is_not() {
    let image = plain();
    let root = block_at(&image, "", 0);
    let fs = Ext::open(disk(image.clone())).unwrap();
    let place = fs.reading(|view| view.find(&view.node(2)?, b"file")).unwrap().unwrap();
    drop(fs);
    for value in [u32::MAX, 1 << 20, 1000] {
        assert_eq!(code(&with32(image.clone(), root + place.at, value)), "ext.corrupt");
    }
}

#[test]
fn directory_larger_than_the_file_system() {
    let image = plain();
    let at = inode_at(&image, "large");
    assert_eq!(code(&with32(image.clone(), at + 4, 0x7fff_fc00)), "ext.corrupt");
    assert_eq!(code(&with32(image, at + 4, u32::MAX)), "ext.corrupt");
}

#[test]
fn directory_that_is_its_own_child() {
    let image = plain();
    let root = block_at(&image, "", 0);
    let fs = Ext::open(disk(image.clone())).unwrap();
    let place = fs.reading(|view| view.find(&view.node(2)?, b"large")).unwrap().unwrap();
    drop(fs);
    let _ = survive(&with32(image, root + place.at, 2));
}

#[test]
fn index_that_leads_to_its_root_or_nowhere() {
    let image = plain();
    let root = block_at(&image, "large", 0);
    assert_eq!(image[root + 0x1d], 8, "the directory has an index");
    let count = usize::from(u16::from_le_bytes([image[root + 0x22], image[root + 0x23]]));
    for target in [0, 9999, u32::MAX] {
        let mut image = image.clone();
        (0..count).for_each(|slot| put32(&mut image, root + 0x24 + slot * 8, target));
        let _ = survive(&image);
        // A deeper index of which each node is the root.
        image[root + 0x1e] = 1;
        let _ = survive(&image);
        image[root + 0x1e] = 255;
        let _ = survive(&image);
    }
}

#[test]
fn index_with_impossible_counts_falls_back_to_the_list() {
    let image = plain();
    let root = block_at(&image, "large", 0);
    for (at, value) in [(0x20, 0), (0x20, 0xffff), (0x22, 0), (0x22, 0xffff), (0x1c, 0x00ff)] {
        let fs = Ext::open(disk(with16(image.clone(), root + at, value))).unwrap();
        assert!(fs.lookup(lookup(&fs, "large"), b"42-a-name-that-takes-some-room").unwrap().is_some());
        drop(fs);
        assert_eq!(code(&with16(image.clone(), root + at, value)), "ext.corrupt");
    }
}

#[test]
fn attributes_that_reach_outside() {
    let mut image = plain();
    let at = inode_at(&image, "file");
    put16(&mut image, at + 0x80, 32);
    put32(&mut image, at + 160, 0xea02_0000);
    put(&mut image, at + 164, &[4, 1, 0, 0]);
    for (value_at, len) in [(0_u16, 200_u32), (0xffff, 4), (92, 1), (0, u32::MAX)] {
        put16(&mut image, at + 166, value_at);
        put32(&mut image, at + 172, len);
        assert_eq!(code(&image), "ext.corrupt");
    }
    // A name that runs out of the inode.
    image[at + 164] = 255;
    assert_eq!(code(&image), "ext.corrupt");
    // A value in an inode that holds none.
    image[at + 164] = 4;
    put32(&mut image, at + 168, 2);
    assert_eq!(code(&image), "ext.corrupt");
}

#[test]
fn attribute_block_that_is_none_or_outside() {
    let image = plain();
    let at = inode_at(&image, "file") + 0x68;
    for block in [1, 100, 5000, u32::MAX] {
        assert_eq!(code(&with32(image.clone(), at, block)), "ext.corrupt");
    }
}

#[test]
fn orphans_in_a_loop_are_not_settled() {
    let mut image = plain();
    let fs = Ext::open(disk(image.clone())).unwrap();
    let number = u32::try_from(lookup(&fs, "file").0).unwrap();
    drop(fs);
    let at = inode_at(&image, "file");
    put32(&mut image, SB + 0xe8, number);
    put32(&mut image, at + 0x14, number);
    let fs = Ext::open_mut(disk(image.clone())).unwrap();
    assert_eq!(fs.writer().unwrap_err().code(), "ext.corrupt");
    assert!(fs.facts().dirty && Ext::open(disk(image.clone())).unwrap().facts().dirty);
    put32(&mut image, SB + 0xe8, 7);
    assert_eq!(Ext::open_mut(disk(image.clone())).unwrap().writer().unwrap_err().code(), "ext.corrupt");
    put32(&mut image, SB + 0xe8, u32::MAX);
    assert_eq!(Ext::open_mut(disk(image)).unwrap().writer().unwrap_err().code(), "ext.corrupt");
}

#[test]
fn link_and_inline_file_larger_than_what_they_hold() {
    let image = plain();
    let at = inode_at(&image, "link");
    for len in [0, 4097, u32::MAX] {
        assert_eq!(code(&with32(image.clone(), at + 4, len)), "ext.corrupt");
    }
    let mut image = image;
    let at = inode_at(&image, "file");
    put32(&mut image, at + 0x20, 0x1000_0000);
    for len in [60, 61, 30_000, u32::MAX] {
        put32(&mut image, at + 4, len);
        let _ = survive(&image);
    }
}

#[test]
fn bitmap_that_calls_metadata_free_gives_nothing_away() {
    let mut image = plain();
    let fs = Ext::open(disk(image.clone())).unwrap();
    let bitmap = fs.reading(|view| Ok(view.group(0)?.block_bitmap())).unwrap();
    drop(fs);
    let at = usize::try_from(bitmap).unwrap() * 1024;
    image[at..at + 16].fill(0);
    let fs = Ext::open(disk(image.clone())).unwrap();
    fs.free_ranges(&mut |range| panic!("{range:?} is not free")).unwrap();
    drop(fs);
    assert_ne!(code(&image), "none", "and nothing is taken from there");
}

#[test]
fn inodes_that_a_bitmap_has_in_use_are_not_idle() {
    let mut image = summed();
    let fs = Ext::open(disk(image.clone())).unwrap();
    let (bitmap, last, unused) = fs
        .reading(|view| {
            let group = view.group(0)?;
            let [_, _, table] = group.own_blocks(&view.sb);
            Ok((group.inode_bitmap(), table.end * 1024 - 1, group.itable_unused()))
        })
        .unwrap();
    let is_idle = |fs: &Ext| fs.idle_ranges().unwrap().iter().any(|range| range.contains(&last));
    assert!(unused > 8 && is_idle(&fs));
    drop(fs);
    // Its checksum no longer fits either.
    let inodes = le32(&image, SB + 0x28);
    let at = usize::try_from(bitmap * 1024 + u64::from((inodes - 1) / 8)).unwrap();
    image[at] |= 1 << ((inodes - 1) % 8);
    assert!(!is_idle(&Ext::open(disk(image)).unwrap()));
    // Without checksums, nobody says which inodes never were.
    assert_eq!(Ext::open(disk(make(&["-t", "ext2"], 8192))).unwrap().idle_ranges().unwrap(), []);
}

#[test]
fn a_log_with_something_in_it_is_not_idle() {
    let image = make(&["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit,uninit_bg"], 8192);
    let fs = Ext::open(disk(image.clone())).unwrap();
    let before = fs.idle_ranges().unwrap();
    let node = fs.reading(|view| view.runs(&view.node(8)?, 0..map::END)).unwrap();
    let header = usize::try_from(node[0].physical * fs.facts().block_size).unwrap();
    drop(fs);
    let len = |ranges: &[std::ops::Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    let log = node.iter().map(|run| run.len).sum::<u64>() - 1;
    for (what, at, value) in
        [("a start", 0x1c, 1), ("no magic number", 0, 0), ("a first block outside", 0x14, u32::MAX)]
    {
        let mut image = image.clone();
        put_be32(&mut image, header + at, value);
        let fs = Ext::open(disk(image)).unwrap();
        let after = fs.idle_ranges().unwrap();
        assert_eq!(len(&before) - len(&after), log * fs.facts().block_size, "{what}");
    }
    let mut image = image;
    put16(&mut image, SB + 0x3a, 3);
    assert_eq!(Ext::open(disk(image)).unwrap().idle_ranges().unwrap(), [], "errors were noted");
}

#[test]
fn checksums_cover_every_structure() {
    let image = summed();
    let fs = Ext::open(disk(image.clone())).unwrap();
    let bitmap = fs.reading(|view| Ok(view.group(0)?.block_bitmap())).unwrap();
    drop(fs);
    let sparse = inode_at(&image, "sparse");
    let leaf = usize::try_from(le32(&image, sparse + 0x28 + 16)).unwrap() * 1024;
    let places = [
        ("superblock", SB + 0x30),
        ("group", 2048 + 12),
        ("inode", inode_at(&image, "file") + 0x10),
        ("extents", leaf + 13 * 12 - 4),
        ("directory", block_at(&image, "", 0) + 60),
        ("leaf", block_at(&image, "large", 3) + 100),
    ];
    for (name, at) in places {
        let mut image = image.clone();
        image[at] ^= 1;
        assert_eq!(code(&image), "ext.checksum", "{name}");
    }
    let mut image = image;
    image[usize::try_from(bitmap).unwrap() * 1024 + 1000] ^= 1;
    let fs = Ext::open(disk(image)).unwrap();
    fs.free_ranges(&mut |range| panic!("{range:?} is not free")).unwrap();
}

#[test]
fn an_image_cut_short_anywhere_is_refused() {
    let image = plain();
    for len in (0..2100).step_by(50).chain([4096, 100_000, image.len() - 1024]) {
        assert!(Ext::open(disk(image[..len].to_vec())).is_err(), "{len}");
        assert!(Ext::open_mut(disk(image[..len].to_vec())).is_err(), "{len}");
    }
}

#[test]
fn random_damage_is_survived() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    for base in [plain(), mapped()] {
        // Superblock, descriptors, bitmaps and the first inode tables; and the blocks of the tree.
        let inodes = inode_at(&base, "") & !1023;
        let tree = block_at(&base, "", 0);
        for _ in 0..60 {
            let mut image = base.clone();
            for _ in 0..=next(8) {
                let area = [SB..3072, inodes..inodes + 70_000, tree..tree + 20_000][next(3)].clone();
                let at = area.start + next(area.len());
                image[at] = [0, 1, 0x7f, 0x80, 0xff, image[at] ^ 1][next(6)];
            }
            let _ = survive(&image);
        }
    }
}
