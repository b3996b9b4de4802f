//! Logs made by hand: what is replayed, what is not, and what no log may do.

use super::*;
use crate::disk::bytes::be64;
use crate::fs::xfs::log::testing::{Builder, START, op};

const TRANSACTION: u32 = 0x5452_414e;

/// The description of a buffer: its type, place and length in basic blocks, and which chunks were logged.
fn buffer(flags: u16, block: u64, len: u16, map: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let regions = 1 + u16::from(map != 0);
    [0x123c, regions, flags, len].iter().for_each(|half| out.extend(half.to_le_bytes()));
    out.extend(block.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend(map.to_le_bytes());
    out
}

/// A superblock whose label is `label`, as it would be logged.
fn labelled(image: &[u8], label: &[u8]) -> Vec<u8> {
    let mut raw = image[..384].to_vec();
    put(&mut raw, 108, &[0; 12]);
    put(&mut raw, 108, label);
    raw
}

/// The operations of a transaction with `regions`.
fn transaction(number: u32, regions: &[Vec<u8>]) -> Vec<(u32, u8, Vec<u8>)> {
    let header: Vec<u8> = [TRANSACTION, 40, number, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut out = vec![op(number, START, &[]), op(number, 0, &header)];
    out.extend(regions.iter().map(|region| op(number, 0, region)));
    out.push(op(number, 2, &[]));
    out
}

fn relabel(image: &[u8], number: u32, label: &[u8]) -> Vec<(u32, u8, Vec<u8>)> {
    transaction(number, &[buffer(18 << 11, 0, 1, 0b111), labelled(image, label)])
}

fn label(image: &[u8]) -> Option<String> {
    opened(image).facts().label.clone()
}

/// What opening for writing leaves of an image.
fn settled(image: &[u8]) -> Vec<u8> {
    let disk = disk(image.to_vec());
    drop(Xfs::open_mut(disk.clone()).unwrap());
    disk.inner().snapshot()
}

#[test]
fn what_was_committed_counts() {
    for image in [plain(), summed()] {
        let mut log = Builder::new(&image);
        log.record(&relabel(&image, 7, b"first"));
        log.record(&relabel(&image, 8, b"second"));
        // Begun, not committed.
        let mut open = relabel(&image, 9, b"third");
        open.pop();
        log.record(&open);
        let dirty = log.image();
        assert_eq!(label(&dirty).as_deref(), Some("second"));
        assert!(opened(&dirty).facts().dirty && !opened(&settled(&dirty)).facts().dirty);
        assert_eq!(label(&settled(&dirty)).as_deref(), Some("second"));
        assert_eq!((code(&dirty), code(&settled(&dirty))), ("", ""));
        assert_eq!(free(&dirty), free(&image));
        assert_eq!(settled(&settled(&dirty)), settled(&dirty));
    }
}

#[test]
fn a_record_that_did_not_arrive_whole_does_not_count() {
    let image = summed();
    let mut log = Builder::new(&image);
    log.record(&relabel(&image, 7, b"first"));
    let at = log.next();
    log.record(&relabel(&image, 8, b"second"));
    for hole in [700, 600] {
        let mut torn = log.image();
        torn[at + hole] ^= 1;
        assert_eq!(label(&torn).as_deref(), Some("first"));
        let settled = settled(&torn);
        assert_eq!((label(&settled).as_deref(), opened(&settled).facts().dirty), (Some("first"), false));
    }
}

#[test]
fn records_go_around_the_end_of_the_ring() {
    for distance in 1..6 {
        let image = summed();
        let mut log = Builder::near_the_end(&image, distance);
        log.record(&relabel(&image, 7, b"first"));
        log.record(&relabel(&image, 8, b"second"));
        let dirty = log.image();
        assert_eq!(label(&dirty).as_deref(), Some("second"), "{distance}");
        let clean = settled(&dirty);
        assert_eq!((label(&clean).as_deref(), opened(&clean).facts().dirty), (Some("second"), false), "{distance}");
    }
}

#[test]
fn regions_go_on_in_the_next_record() {
    let image = summed();
    let all = relabel(&image, 7, b"split");
    let (number, _, last) = all[3].clone();
    let mut log = Builder::new(&image);
    log.record(&[&all[..3], &[op(number, 4, &last[..100])]].concat());
    log.record(&[op(number, 4 | 8, &last[100..300])]);
    log.record(&[op(number, 8 | 16, &last[300..]), all[4].clone()]);
    assert_eq!(label(&log.image()).as_deref(), Some("split"));
}

#[test]
fn freed_buffers_are_not_replayed() {
    let image = summed();
    let mut log = Builder::new(&image);
    log.record(&relabel(&image, 7, b"before"));
    log.record(&transaction(8, &[buffer(2, 0, 1, 0)]));
    assert_eq!(label(&log.image()), None);
    log.record(&relabel(&image, 9, b"after"));
    assert_eq!(label(&log.image()).as_deref(), Some("after"));
}

#[test]
fn what_is_newer_on_disk_stays() {
    let mut image = summed();
    put_be64(&mut image, 240, 99 << 32);
    block::seal(&mut image[..512], block::SUPERBLOCK_CRC);
    let mut log = Builder::new(&image);
    log.record(&relabel(&image, 7, b"older"));
    assert_eq!(label(&log.image()), None);
    assert!(opened(&log.image()).facts().dirty);
}

#[test]
fn what_was_not_finished_is_left_to_the_kernel() {
    let image = summed();
    // Extents to free, mappings to make: type, regions, count, identifier.
    for (kind, is_visible) in
        [(0x1236_u16, false), (0x1240, false), (0x1242, false), (0x1244, true), (0x1246, true), (0x1248, true)]
    {
        let intent =
            |kind: u16| [&kind.to_le_bytes()[..], &[1, 0, 1, 0, 0, 0], &77_u64.to_le_bytes(), &[0; 40]].concat();
        let mut log = Builder::new(&image);
        log.record(&transaction(7, &[intent(kind)]));
        let dirty = log.image();
        let fs = opened(&dirty);
        assert_eq!(fs.writer().unwrap_err().code(), if is_visible { "xfs.feature" } else { "xfs.read-only" });
        assert_eq!(free(&dirty) == 0, is_visible);
        // It is still to be done after the log was replayed into the disk, however often.
        let once = settled(&dirty);
        assert!(opened(&once).facts().dirty);
        assert_eq!(opened(&settled(&once)).writer().unwrap_err().code(), fs.writer().unwrap_err().code());
        log.record(&transaction(8, &[intent(kind + 1)]));
        assert!(free(&log.image()) > 0 && !opened(&settled(&log.image())).facts().dirty);
    }
}

#[test]
fn what_files_were_learning_of_their_names_is_known() {
    let mut image = summed();
    let features = be32(&image, 216) | 0x80;
    put_be32(&mut image, 216, features);
    block::seal(&mut image[..512], block::SUPERBLOCK_CRC);
    let file = lookup(&opened(&image), "file");
    let generation = be32(&image, inode_at(&image, "file") + 92);
    let pointer = |dir: u8| [[0; 7].as_slice(), &[dir, 0, 0, 0, 9]].concat();
    // What is done: 4 sets, 5 removes, 6 replaces a name; then the lengths of names.
    let begun = |generation: u32, op: u32, lengths: [u16; 2], regions: &[Vec<u8>]| {
        let mut description = [0x1246, 1 + regions.len() as u16].map(u16::to_le_bytes).concat();
        description.extend(generation.to_le_bytes());
        [77, file.0].iter().for_each(|word| description.extend(word.to_le_bytes()));
        description.extend(op.to_le_bytes());
        lengths.iter().for_each(|len| description.extend(len.to_le_bytes()));
        description.extend([12, 0, 0, 0, 8, 0, 0, 0]);
        transaction(7, &[&[description], regions].concat())
    };
    let after = |image: &[u8], operations: &[(u32, u8, Vec<u8>)]| {
        let mut log = Builder::new(image);
        log.record(operations);
        settled(&log.image())
    };
    let known = |image: &[u8]| {
        let fs = opened(image);
        assert!(!fs.facts().dirty && fs.xattrs(file).unwrap().len() == 40);
        let all = fs.reading(|view| view.raw_attributes(&view.inode(file)?)).unwrap();
        let pointers = all.into_iter().filter(|raw| raw.flags == attr::PARENT);
        pointers.map(|raw| (raw.name, raw.value)).collect::<Vec<_>>()
    };
    let word = |name: &[u8]| [name, &[0; 3]].concat()[..name.len().next_multiple_of(4)].to_vec();
    let learnt = after(&image, &begun(generation, 4, [4, 0], &[word(b"file"), pointer(1)]));
    assert_eq!(known(&learnt), [(b"file".to_vec(), pointer(1))]);
    let regions = [word(b"file"), word(b"later"), pointer(1), pointer(2)];
    let other = after(&learnt, &begun(generation, 6, [4, 5], &regions));
    assert_eq!(known(&other), [(b"later".to_vec(), pointer(2))]);
    // Half of it may have been done.
    assert_eq!(known(&after(&other, &begun(generation, 6, [4, 5], &regions))), known(&other));
    assert_eq!(known(&after(&other, &begun(generation, 5, [5, 0], &[word(b"later"), pointer(2)]))), []);
    // Another file has the inode now.
    let left = after(&learnt, &begun(generation + 1, 4, [4, 0], &[word(b"file"), pointer(2)]));
    assert_eq!(opened(&left).writer().unwrap_err().code(), "xfs.feature");
}

#[test]
fn blocks_that_a_file_was_losing_are_gone_for_readers_too() {
    let image = summed();
    let file = lookup(&opened(&image), "file");
    let start = u64::try_from(block_at(&image, "file", Fork::Data, 4)).unwrap() / 1024;
    // Three blocks from the fourth on are to be unmapped: inode, first block, offset, count and kind.
    let part =
        [&file.0.to_le_bytes()[..], &start.to_le_bytes(), &4_u64.to_le_bytes(), &[3, 0, 0, 0, 2, 0, 0, 0]].concat();
    let intent = [&0x1244_u16.to_le_bytes()[..], &[1, 0, 1, 0, 0, 0], &77_u64.to_le_bytes(), &part].concat();
    let mut log = Builder::new(&image);
    log.record(&transaction(7, &[intent]));
    let expected = [vec![7; 4096], vec![0; 3072], vec![7; 30_000 - 7168]].concat();
    let content = |fs: &Xfs| {
        let mut bytes = vec![0; 30_000];
        fs.read_at(file, &mut bytes, 0).unwrap();
        bytes
    };
    let fs = opened(&log.image());
    assert_eq!(fs.writer().unwrap_err().code(), "xfs.read-only");
    assert!(fs.facts().dirty && content(&fs) == expected);
    let fs = opened(&settled(&log.image()));
    assert!(!fs.facts().dirty && content(&fs) == expected);
}

#[test]
fn logs_that_contradict_themselves() {
    let image = summed();
    let good = relabel(&image, 7, b"never");
    let with = |index: usize, region: &[u8]| {
        let mut operations = good.clone();
        operations[index].2 = region.to_vec();
        operations
    };
    let flags = |index: usize, flags: u8| {
        let mut operations = good.clone();
        operations[index].1 = flags;
        operations
    };
    let unknown = transaction(7, &[[&0x1299_u16.to_le_bytes()[..], &[1, 0], &[0; 20]].concat()]);
    let created = |blocks: u32, number: u32| {
        let words = [0, number, blocks * 2, 512, blocks, 1];
        let fields: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
        transaction(7, &[[&0x123f_u16.to_le_bytes()[..], &[1, 0], &fields].concat()])
    };
    let inode = |block: u64, offset: u32| {
        let mut form = vec![0; 56];
        put(&mut form, 0, &[0x3b, 0x12, 2, 0, 1]);
        put(&mut form, 40, &block.to_le_bytes());
        put(&mut form, 48, &[16]);
        put(&mut form, 52, &offset.to_le_bytes());
        let mut core = vec![0; 176];
        put(&mut core, 0, b"NI");
        put(&mut core, 4, &[3]);
        transaction(7, &[form, core])
    };
    let cases = [
        ("no header", with(1, &[0; 16])),
        ("a header that is cut short", with(1, &TRANSACTION.to_le_bytes())),
        ("no regions", with(2, &[0x3c, 0x12, 0, 0, 0, 0, 1, 0])),
        ("too many regions", with(2, &[0x3c, 0x12, 0xff, 0xff, 0, 0, 1, 0])),
        ("a buffer of nothing", with(2, &buffer(18 << 11, 0, 0, 0b111))),
        ("a buffer that is too long", with(2, &buffer(18 << 11, 0, 129, 0b111))),
        ("a buffer outside", with(2, &buffer(18 << 11, 1 << 40, 1, 0b111))),
        ("a buffer far outside", with(2, &buffer(18 << 11, u64::MAX, 1, 0b111))),
        ("chunks outside of their buffer", with(2, &buffer(18 << 11, 0, 1, 0b1111_1000))),
        ("chunks that were not logged", with(2, &buffer(18 << 11, 0, 1, 0b1011))),
        ("a region that is too short", with(3, &[1; 100])),
        ("a superblock of zeros", with(3, &[0; 384])),
        ("unknown flags", flags(3, 0x40)),
        ("a beginning in the middle", flags(3, START)),
        ("an unknown item", unknown),
        ("new inodes outside", created(4, 20_000)),
        ("too many new inodes", created(2000, 200)),
        ("an inode outside", inode(1 << 40, 0)),
        ("an inode outside of its buffer", inode(128, 1 << 20)),
        ("an inode that is none", inode(0, 0)),
    ];
    for (what, operations) in cases {
        let mut log = Builder::new(&image);
        log.record(&operations);
        let dirty = log.image();
        let fs = opened(&dirty);
        assert!(fs.facts().dirty, "{what}");
        let code = fs.writer().unwrap_err().code();
        assert!(["xfs.log", "xfs.feature", "xfs.corrupt"].contains(&code), "{what}: {code}");
        exercise(&fs).unwrap();
        assert_eq!(free(&dirty), 0, "{what}");
        assert!(settled(&dirty) == dirty, "{what}: nothing is written");
    }
}

#[test]
fn rings_that_contradict_themselves() {
    let image = summed();
    let place = |image: &[u8]| (be64(image, 48) as usize * 1024, be32(image, 96) as usize * 1024);
    let (start, len) = place(&image);
    let mut log = Builder::new(&image);
    log.record(&relabel(&image, 7, b"first"));
    let dirty = log.image();
    let first = log.first();
    let mut cases: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut [u8])| {
        let mut image = dirty.clone();
        change(&mut image);
        cases.push((what, image));
    };
    add("noise", &|image| {
        blake3::Hasher::new().finalize_xof().fill(&mut image[start..start + len]);
    });
    add("one turn and no record", &|image| {
        image[start..start + len].chunks_mut(512).for_each(|block| {
            block.fill(0);
            put_be32(block, 0, 5);
        });
    });
    add("headers only", &|image| {
        image[start..start + len].chunks_mut(512).for_each(|block| put_be32(block, 0, 0xfeed_babe));
    });
    add("a tail in the future", &|image| put(image, first + 24, &[0xff; 8]));
    add("a tail outside", &|image| put(image, first + 28, &[0x7f, 0, 0, 0]));
    add("data of other endianness", &|image| put(image, first + 300, &[0, 0, 0, 2]));
    add("an outside log", &|image| {
        put_be64(image, 48, 1 << 40);
        block::seal(&mut image[..512], block::SUPERBLOCK_CRC);
    });
    add("no log here", &|image| {
        put_be64(image, 48, 0);
        block::seal(&mut image[..512], block::SUPERBLOCK_CRC);
    });
    add("a short log", &|image| {
        put_be32(image, 96, 1);
        block::seal(&mut image[..512], block::SUPERBLOCK_CRC);
    });
    for (what, image) in cases {
        let fs = opened(&image);
        exercise(&fs).unwrap();
        if fs.facts().dirty {
            assert_eq!(free(&image), 0, "{what}");
            assert!(settled(&image) == image, "{what}");
        } else {
            // What was there is taken for something that did not arrive whole.
            assert!(["a tail in the future", "a tail outside", "data of other endianness"].contains(&what), "{what}");
        }
    }
}
