//! Damaged on purpose, each at a place with a name.

use super::*;
use crate::disk::bytes::{be64, put16};

fn with(mut image: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    put(&mut image, at, bytes);
    image
}

fn with32(image: Vec<u8>, at: usize, value: u32) -> Vec<u8> {
    with(image, at, &value.to_be_bytes())
}

/// A version 5 image whose superblock was changed by somebody who knows checksums.
fn with_super(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = with(summed(), at, bytes);
    block::seal(&mut image[..512], block::SUPERBLOCK_CRC);
    image
}

#[test]
fn sizes_that_contradict_each_other() {
    for (at, values) in [(4, [0, 512, 4096, u32::MAX]), (84, [0, 1, 63, u32::MAX]), (88, [0, 2, 1 << 21, u32::MAX])] {
        for value in values {
            assert_eq!(code(&with32(plain(), at, value)), "xfs.geometry", "{at} {value}");
        }
    }
    for at in [120, 121, 122, 123, 124, 192] {
        for value in [31, 64, 255] {
            assert_eq!(code(&with(plain(), at, &[value])), "xfs.geometry", "{at} {value}");
        }
    }
    for at in [102, 104, 106] {
        for value in [0, 1, 513, 0xffff_u16] {
            assert_eq!(code(&with(plain(), at, &value.to_be_bytes())), "xfs.geometry", "{at} {value}");
        }
    }
}

#[test]
fn more_blocks_than_the_volume_has() {
    for value in [0, 1 << 15, 1 << 54, u64::MAX] {
        assert_eq!(code(&with(plain(), 8, &value.to_be_bytes())), "xfs.geometry", "{value}");
    }
    assert_eq!(code(&plain()[..8 << 20]), "xfs.geometry");
    assert_eq!(code(&plain()[..100]), "xfs.corrupt");
}

#[test]
fn versions_and_features_that_nobody_knows() {
    assert_eq!(code(&with32(plain(), 0, 0)), "xfs.corrupt");
    for version in [0_u16, 3, 6, 15] {
        assert_eq!(code(&with(plain(), 100, &(0xb4a0 | version).to_be_bytes())), "xfs.feature", "{version}");
    }
    for bit in [0x100, 0x200, 0x8000_0000] {
        assert_eq!(code(&with_super(216, &(be32(&summed(), 216) | bit).to_be_bytes())), "xfs.feature");
    }
    for (at, bit) in [(212, 0x10), (220, 2), (216, 0x10)] {
        let fs = opened(&with_super(at, &(be32(&summed(), at) | bit).to_be_bytes()));
        assert!(fs.facts().dirty && fs.writer().is_err());
        exercise(&fs).unwrap();
        fs.free_ranges(&mut |range| panic!("{range:?} is not free")).unwrap();
    }
    assert!(opened(&with(plain(), 126, &[1])).facts().dirty);
}

#[test]
fn a_flipped_bit_anywhere_in_metadata_of_version_5() {
    let places = [
        (100, true),
        (inode_at(&summed(), "file") + 60, true),
        (inode_at(&summed(), "node") + 180, true),
        (block_at(&summed(), "leaf", Fork::Data, 0) + 90, true),
        (block_at(&summed(), "node", Fork::Data, 1 << 25) + 70, true),
        (block_at(&summed(), "file", Fork::Attr, 0) + 90, true),
        (512 + 20, false),
        (1024 + 20, false),
    ];
    for (at, is_read) in places {
        let mut image = summed();
        image[at] ^= 4;
        assert_eq!(code(&image), if is_read { "xfs.checksum" } else { "" }, "{at}");
    }
    let mut image = summed();
    image[512 + 30] ^= 4;
    assert_eq!(free(&image), 0);
}

#[test]
fn metadata_of_another_file_system_or_place() {
    let (one, other) = (inode_at(&summed(), "file"), inode_at(&summed(), "link"));
    let mut image = summed();
    image.copy_within(other..other + 512, one);
    assert_eq!(code(&image), "xfs.corrupt");
    let mut image = summed();
    put(&mut image[one..], 160, &[9; 16]);
    seal_inode(&mut image, one);
    assert_eq!(code(&image), "xfs.corrupt");
}

#[test]
fn extents_without_room_or_outside() {
    let at = inode_at(&plain(), "file");
    for count in [9, 1000, u32::MAX] {
        assert_eq!(code(&with32(plain(), at + 76, count)), "xfs.corrupt");
    }
    // Its first extent: to the end of all blocks there can be, and many of them.
    for word in [u64::MAX, 1 << 40 | 5] {
        assert_eq!(code(&with(plain(), at + 100 + 8, &word.to_be_bytes())), "xfs.corrupt");
    }
    assert_eq!(code(&with(plain(), at + 5, &[9])), "xfs.corrupt");
    assert_eq!(code(&with(plain(), at + 56, &[0xff; 8])), "xfs.corrupt");
}

#[test]
fn a_tree_of_extents_that_goes_round_in_a_circle() {
    let (at, block) = (inode_at(&plain(), "file"), block_at(&plain(), "file", Fork::Data, 0));
    let mut image = with(plain(), at + 5, &[3]);
    let fsbno = block as u64 / 1024;
    // A node that is its own child.
    image[block..block + 1024].fill(0);
    put_be32(&mut image, block, block::BMAP_V4);
    put(&mut image, block + 4, &[0, 1, 0, 1]);
    put_be64(&mut image, block + 24 + 1000 / 16 * 8, fsbno);
    for (level, count) in [(1_u16, 1_u16), (2, 1), (9, 1), (10, 1), (0, 1), (2, 0), (2, 1000)] {
        let mut image = image.clone();
        put(&mut image, at + 100, &level.to_be_bytes());
        put(&mut image, at + 102, &count.to_be_bytes());
        let fs = opened(&plain());
        let room = fs.reading(|view| view.inode(lookup(&fs, "file"))).unwrap().fork(Fork::Data).len();
        put_be64(&mut image, at + 104, 0);
        put_be64(&mut image, at + 104 + (room - 4) / 16 * 8, fsbno);
        assert_eq!(code(&image), "xfs.corrupt", "{level} {count}");
    }
}

#[test]
fn names_and_lengths_of_entries() {
    let block = block_at(&plain(), "block", Fork::Data, 0);
    // After `.` and `..`, the first name: a slash, a NUL, no length, too long.
    let name = block + 16 + 32 + 9;
    for byte in [b"/", b"\0"] {
        assert_eq!(code(&with(plain(), name, byte)), "xfs.corrupt");
    }
    for len in [0, 255] {
        assert_eq!(code(&with(plain(), name - 1, &[len])), "xfs.corrupt");
    }
    for len in [0_u16, 1, 7, 9, 0xfff8] {
        let mut image = with(plain(), name - 9, &[0xff, 0xff]);
        put(&mut image, name - 7, &len.to_be_bytes());
        assert_eq!(code(&image), "xfs.corrupt");
    }
    for count in [512, 1 << 29, u32::MAX] {
        assert_eq!(code(&with32(plain(), block + 4096 - 8, count)), "xfs.corrupt");
    }
    let short = inode_at(&plain(), "short") + 100;
    for count in [2, 255] {
        assert_eq!(code(&with(plain(), short, &[count])), "xfs.corrupt");
    }
}

#[test]
fn an_index_of_names_that_leads_nowhere() {
    let root = block_at(&plain(), "node", Fork::Data, 1 << 25);
    assert_eq!(crate::disk::bytes::be16(&plain(), root + 8), block::NODE_V4);
    // Its children: itself, a block of entries, a hole.
    for child in [1 << 25, 0, 5_000_000] {
        let mut image = plain();
        (0..20).for_each(|index| put_be32(&mut image, root + 16 + index * 8 + 4, child));
        assert_eq!(code(&image), "xfs.corrupt", "{child}");
    }
    for (at, value) in [(12, 0), (12, 0xffff), (14, 0), (14, 0xffff_u16)] {
        assert_eq!(code(&with(plain(), root + at, &value.to_be_bytes())), "xfs.corrupt");
    }
    let leaf = block_at(&plain(), "leaf", Fork::Data, 1 << 25);
    for address in [0x7fff, 0xffff, 0xffff_ffff] {
        let mut image = plain();
        (0..200).for_each(|index| put_be32(&mut image, leaf + 16 + index * 8 + 4, address));
        assert_eq!(code(&image), "xfs.corrupt", "{address}");
    }
}

#[test]
fn leaves_with_one_hash_that_follow_each_other_for_ever() {
    let mut image = plain();
    let root = block_at(&image, "node", Fork::Data, 1 << 25);
    let first = be32(&image, root + 16 + 4);
    let leaf = block_at(&image, "node", Fork::Data, u64::from(first));
    let count = usize::from(crate::disk::bytes::be16(&image, leaf + 12));
    let wanted = da::hash(b"7-a-name-that-takes-some-room");
    put_be32(&mut image, leaf, first);
    for index in 0..count {
        put_be32(&mut image, leaf + 16 + index * 8, wanted);
        put_be32(&mut image, leaf + 16 + index * 8 + 4, 0);
    }
    (0..20).for_each(|index| put_be32(&mut image, root + 16 + index * 8 + 4, first));
    assert_eq!(code(&image), "xfs.limit");
}

#[test]
fn attributes_outside_of_their_leaf() {
    let leaf = block_at(&plain(), "file", Fork::Attr, 0);
    let node = crate::disk::bytes::be16(&plain(), leaf + 8) == block::NODE_V4;
    let leaf = if node {
        let first = be32(&plain(), leaf + 16 + 4);
        block_at(&plain(), "file", Fork::Attr, u64::from(first))
    } else {
        leaf
    };
    for place in [1023_u16, 0xffff] {
        assert_eq!(code(&with(plain(), leaf + 32 + 4, &place.to_be_bytes())), "xfs.corrupt");
    }
    assert_eq!(code(&with(plain(), leaf + 12, &[0xff, 0xff])), "xfs.corrupt");
    // All of them far away, with values that are too long.
    let mut image = plain();
    let count = usize::from(crate::disk::bytes::be16(&image, leaf + 12));
    for index in 0..count {
        image[leaf + 32 + index * 8 + 6] &= !1;
        let place = usize::from(crate::disk::bytes::be16(&image, leaf + 32 + index * 8 + 4));
        put_be32(&mut image, leaf + place + 4, u32::MAX);
    }
    assert_eq!(code(&image), "xfs.corrupt");
    // Leaves in a circle.
    let mut image = plain();
    let next = be32(&image, leaf);
    if next != 0 {
        let second = block_at(&image, "file", Fork::Attr, u64::from(next));
        put_be32(&mut image, second, next);
        assert_eq!(code(&image), "xfs.corrupt");
    }
}

#[test]
fn a_link_that_is_too_long() {
    let at = inode_at(&plain(), "link");
    for size in [1025, 1 << 40] {
        assert_eq!(code(&with(plain(), at + 56, &u64::to_be_bytes(size))), "xfs.corrupt");
    }
    let at = inode_at(&summed(), "link");
    let mut image = with(summed(), at + 56, &u64::to_be_bytes(700));
    seal_inode(&mut image, at);
    assert_eq!(code(&image), "xfs.corrupt");
}

#[test]
fn free_space_that_cannot_be_believed() {
    let agf = 512;
    assert!(free(&plain()) > 0);
    // Root, levels, free blocks, length, magic number.
    for (at, values) in [(16, [0, u32::MAX]), (28, [0, 200]), (52, [0, 1]), (12, [0, 7]), (0, [0, 1])] {
        for value in values {
            assert_eq!(free(&with32(plain(), agf + at, value)), 0, "{at} {value}");
        }
    }
    let root = be32(&plain(), agf + 16) as usize * 1024;
    // Records: over the headers, over the end, of no blocks.
    for (start, len) in [(0, 5), (1, 0), (100, u32::MAX), (u32::MAX, 1)] {
        let mut image = with32(plain(), root + 16, start);
        put_be32(&mut image, root + 20, len);
        assert_eq!(free(&image), 0, "{start} {len}");
    }
    assert_eq!(free(&with(plain(), root + 6, &[0xff, 0xff])), 0);
    assert_eq!(free(&with(plain(), root + 4, &[0, 1])), 0);
    // A tree whose only node is its own child.
    let mut image = with32(plain(), agf + 28, 2);
    put(&mut image, root + 4, &[0, 1]);
    (0..100).for_each(|index| put_be32(&mut image, root + 16 + (1008 / 12) * 8 + index * 4, (root / 1024) as u32));
    assert_eq!(free(&image), 0);
}

#[test]
fn random_damage_ends_in_an_error_or_not_at_all() {
    let metadata: Vec<usize> = ["file", "link", "short", "block", "leaf", "node", ""]
        .into_iter()
        .map(|path| inode_at(&plain(), path))
        .chain([0, 512, 1024])
        .chain([block_at(&plain(), "node", Fork::Data, 0), block_at(&plain(), "node", Fork::Data, 1 << 25)])
        .collect();
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % bound
    };
    for _ in 0..60 {
        let mut image = plain();
        for _ in 0..3 {
            let at = metadata[next(metadata.len())] + next(256);
            put16(&mut image, at, next(1 << 16) as u16);
        }
        let _ = code(&image);
        let _ = Xfs::open_mut(disk(image)).map(|fs| exercise(&fs));
    }
    assert_eq!(be64(&plain(), 8), 16384);
}
