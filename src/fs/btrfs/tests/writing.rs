//! What writing does to small images, good ones and damaged ones. `tests/btrfs/` has the kernel and the checker look at it.

use super::*;
use crate::disk::bytes::put32;
use crate::fs::Attributes;

fn writable(image: Vec<u8>) -> (Arc<Checked<Memory>>, Btrfs) {
    let disk = Checked::wrap(Memory::new(image));
    let fs = Btrfs::open_mut(disk.clone()).unwrap();
    (disk, fs)
}

fn attributes() -> Attributes {
    Attributes { mode: 0o600, uid: 1, gid: 2, xattrs: vec![(b"user.x".to_vec(), vec![7; 30])], ..Attributes::default() }
}

fn content(fs: &Btrfs, inode: Inode) -> Vec<u8> {
    let mut content = vec![0; fs.stat(inode).unwrap().size as usize];
    assert_eq!(fs.read_at(inode, &mut content, 0).unwrap(), content.len());
    content
}

/// Everything that the driver writes, in one go. The code of what fails first.
fn change(fs: &Btrfs) -> Result<()> {
    let (writer, root) = (fs.writer()?, fs.root());
    let dir = writer.create_dir(root, b"new", &attributes())?;
    let file = writer.create(dir, b"file", &attributes(), &[1; 30_000])?;
    writer.append(file, &[2; 5000])?;
    writer.symlink(dir, b"link", b"target", &Attributes::default())?;
    writer.set_xattr(file, b"user.x", b"y")?;
    if let Some(long) = fs.lookup(root, b"long")? {
        writer.replace(long, &[3; 9000])?;
    }
    writer.rename(dir, b"file", root, b"moved")?;
    if let Some(old) = fs.lookup(root, b"dir")? {
        for index in 0..40 {
            writer.remove(old, format!("{index}-a-name-that-takes-some-room").as_bytes())?;
        }
    }
    writer.sync()
}

#[test]
fn changes_are_seen_at_once_and_stored_by_sync() {
    let (disk, fs) = writable(image());
    assert_eq!(Btrfs::open(disk.clone()).unwrap().writer().unwrap_err().code(), "btrfs.read-only");
    let file = fs.writer().unwrap().create(fs.root(), b"one", &attributes(), b"waits").unwrap();
    assert_eq!(content(&fs, file), b"waits");
    let before = Btrfs::open(disk.clone()).unwrap();
    assert_eq!(before.lookup(before.root(), b"one").unwrap(), None);
    change(&fs).unwrap();
    for fs in [&fs, &Btrfs::open(disk.clone()).unwrap()] {
        let mut codes = Vec::new();
        walk(fs, &mut |error| codes.push(error));
        assert!(codes.is_empty(), "{codes:?}");
        let moved = fs.lookup(fs.root(), b"moved").unwrap().unwrap();
        assert_eq!(content(fs, moved), [vec![1; 30_000], vec![2; 5000]].concat());
        assert_eq!(fs.xattrs(moved).unwrap(), [(b"user.x".to_vec(), b"y".to_vec())]);
        let long = fs.lookup(fs.root(), b"long").unwrap().unwrap();
        assert_eq!(content(fs, long), [3; 9000]);
    }
    let generation = fs.core().store.sb.generation;
    fs.writer().unwrap().sync().unwrap();
    assert_eq!(fs.core().store.sb.generation, generation, "nothing waited");
}

#[test]
fn what_fails_changes_nothing() {
    let (disk, fs) = writable(image());
    let (writer, root, free) = (fs.writer().unwrap(), fs.root(), fs.free().unwrap());
    let large = vec![1; 64 << 20];
    let long = fs.lookup(root, b"long").unwrap().unwrap();
    let dir = fs.lookup(root, b"dir").unwrap().unwrap();
    let before = content(&fs, long);
    let none = Attributes::default();
    for (error, code) in [
        (writer.create(root, b"large", &none, &large).unwrap_err(), "btrfs.space"),
        (writer.replace(long, &large).unwrap_err(), "btrfs.space"),
        (writer.append(long, &large).unwrap_err(), "btrfs.space"),
        (writer.create(root, b"long", &none, b"x").unwrap_err(), "btrfs.exists"),
        (writer.create(root, b"a/b", &none, b"x").unwrap_err(), "btrfs.name"),
        (writer.create(root, b"..", &none, b"x").unwrap_err(), "btrfs.name"),
        (writer.create(root, &[b'x'; 256], &none, b"x").unwrap_err(), "btrfs.name"),
        (writer.create(long, b"x", &none, b"x").unwrap_err(), "btrfs.name"),
        (writer.symlink(root, b"x", b"", &none).unwrap_err(), "btrfs.name"),
        (writer.symlink(root, b"x", &[b'x'; 4000], &none).unwrap_err(), "btrfs.space"),
        (writer.remove(root, b"nothing").unwrap_err(), "btrfs.not-found"),
        (writer.remove(root, b"dir").unwrap_err(), "btrfs.name"),
        (writer.remove_dir(root, b"long").unwrap_err(), "btrfs.name"),
        (writer.remove_dir(root, b"dir").unwrap_err(), "btrfs.not-empty"),
        (writer.rename(root, b"dir", dir, b"inside").unwrap_err(), "btrfs.name"),
        (writer.rename(root, b"long", root, b"dir").unwrap_err(), "btrfs.exists"),
        (writer.rename(root, b"nothing", root, b"x").unwrap_err(), "btrfs.not-found"),
        (writer.set_xattr(long, b"user.x", &[1; 4000]).unwrap_err(), "btrfs.xattr"),
        (writer.set_xattr(long, b"nothing", b"").unwrap_err(), "btrfs.xattr"),
        (writer.replace(dir, b"x").unwrap_err(), "btrfs.name"),
    ] {
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(content(&fs, long), before);
    assert_eq!(fs.free().unwrap(), free);
    assert_eq!(codes(&image()), [""; 0]);
    change(&fs).unwrap();
    let again = Btrfs::open(disk).unwrap();
    assert_eq!(again.lookup(again.root(), b"large").unwrap(), None);
}

#[test]
fn what_cannot_be_written_is_read_and_says_why() {
    let sb = |at: usize, value: u64| with_super(&image(), |sb| put(sb, at, &value.to_le_bytes()));
    let incompat = le64(&image(), SUPER + 0xbc);
    for (image, code) in [
        (sb(0x38, le64(&image(), SUPER + 0x38) | 1 << 2), "btrfs.read-only"),
        (sb(0x88, 2), "btrfs.read-only"),
        (sb(0x38, le64(&image(), SUPER + 0x38) | 1 << 32), "btrfs.read-only"),
        (sb(0x38, le64(&image(), SUPER + 0x38) | 1 << 36), "btrfs.read-only"),
        (sb(0xb4, le64(&image(), SUPER + 0xb4) | 1 << 9), "btrfs.feature"),
        (sb(0xbc, incompat | 1 << 16), "btrfs.feature"),
        (sb(0xbc, incompat & !1), "btrfs.feature"),
    ] {
        let fs = Btrfs::open_mut(Checked::wrap(Memory::new(image))).unwrap();
        assert_eq!(fs.writer().unwrap_err().code(), code);
        let file = fs.lookup(fs.root(), b"long").unwrap().unwrap();
        assert_eq!(content(&fs, file).len(), 160_000);
    }
    // A subvolume that may only be read.
    let image = with_items(&image(), id::ROOT_TREE, kind::ROOT_ITEM, |objectid, item| {
        if objectid == id::FS_TREE {
            put(item, 208, &1_u64.to_le_bytes());
        }
    });
    let (_, fs) = writable(image);
    assert_eq!(change(&fs).unwrap_err().code(), "btrfs.read-only");
}

#[test]
fn a_long_file_that_is_inline_is_not_appended_to() {
    for (len, is_fine) in [((1 << 20) - 1, true), (1 << 20, true), ((1 << 20) + 1, false), (u64::MAX >> 2, false)] {
        let image = with_items(&image(), FS, kind::INODE_ITEM, |_, item| {
            if le64(item, 16) == 6 {
                put(item, 16, &len.to_le_bytes());
            }
        });
        let (_, fs) = writable(image);
        let short = fs.lookup(fs.root(), b"short").unwrap().unwrap();
        let code = fs.writer().unwrap().append(short, b"more").map_err(|error| error.code());
        assert_eq!(code, if is_fine { Ok(()) } else { Err("btrfs.feature") }, "{len}");
    }
}

#[test]
fn trees_that_contradict_each_other_are_not_written() {
    let image = image();
    let no_change = |_: u64, _: &mut [u8]| {};
    let good = with_items(&image, id::EXTENT_TREE, kind::EXTENT_ITEM, no_change);
    change(&writable(good).1).unwrap();
    let extents = |kind, change: fn(&mut [u8])| with_items(&image, id::EXTENT_TREE, kind, |_, item| change(item));
    for (name, damaged) in [
        ("no references", extents(kind::METADATA_ITEM, |item| put(item, 0, &[0; 8]))),
        ("an unknown reference", extents(kind::METADATA_ITEM, |item| put(item, 24, &[0xff]))),
        ("another tree's", extents(kind::METADATA_ITEM, |item| put(item, 25, &[0x77; 8]))),
        ("another file's", extents(kind::EXTENT_ITEM, |item| put(item, 33, &[0x77; 8]))),
        ("a count of nothing", extents(kind::EXTENT_ITEM, |item| put(item, 49, &[0; 4]))),
        ("a group of nothing", extents(kind::BLOCK_GROUP_ITEM, |item| put(item, 0, &[0; 8]))),
        ("a group that is full", extents(kind::BLOCK_GROUP_ITEM, |item| put(item, 0, &[0xff; 8]))),
        ("a group of another kind", extents(kind::BLOCK_GROUP_ITEM, |item| put(item, 16, &[1; 8]))),
        (
            "free space of other lengths",
            with_nodes(&image, id::FREE_SPACE_TREE, 0, |node| {
                for at in (0..le32(node, 96) as usize).map(|slot| 101 + slot * 25) {
                    if node[at + 8] == kind::FREE_SPACE_EXTENT {
                        node[at + 9 + 2] ^= 1;
                    }
                }
            }),
        ),
        (
            "names of files that do not know them",
            with_items(&image, FS, kind::INODE_REF, |_, item| put(item, 10, b"\xff")),
        ),
    ] {
        match Btrfs::open_mut(Checked::wrap(Memory::new(damaged))) {
            Err(error) => assert_eq!(error.kind(), Kind::Corrupt, "{name}: {error}"),
            Ok(fs) => {
                let error = change(&fs).expect_err(name);
                assert!(matches!(error.kind(), Kind::Corrupt | Kind::Failed), "{name}: {error}");
            }
        }
    }
}

const FS: u64 = id::FS_TREE;

/// Whatever four bytes of whatever node are, writing ends, and with an error or with what was asked for.
#[test]
fn damage_anywhere_never_panics() {
    let image = image();
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    let trees = [id::ROOT_TREE, id::EXTENT_TREE, id::CHUNK_TREE, id::DEV_TREE, FS, id::CSUM_TREE, id::FREE_SPACE_TREE];
    for round in 0..140 {
        let tree = trees[round % trees.len()];
        let (at, value) = (80 + next(if round % 3 == 0 { 500 } else { NODE - 84 }), next(1 << 31) as u32);
        let value = if round % 2 == 0 { value % 300 } else { value };
        let damaged = with_nodes(&image, tree, 0, |node| put32(node, at, value));
        if let Ok(fs) = Btrfs::open_mut(Checked::wrap(Memory::new(damaged)))
            && change(&fs).is_ok()
        {
            let moved = fs.lookup(fs.root(), b"moved").unwrap().unwrap();
            assert_eq!(content(&fs, moved).len(), 35_000);
        }
    }
}

#[test]
fn what_waits_is_stored_before_it_becomes_too_much() {
    let (_, fs) = writable(image());
    let generation = || fs.core().store.sb.generation;
    let (first, mut last) = (generation(), 0);
    let value = vec![5; 3000];
    let long = fs.lookup(fs.root(), b"long").unwrap().unwrap();
    for round in 0..4000 {
        fs.writer().unwrap().set_xattr(long, b"user.x", &value).unwrap();
        if generation() > first {
            last = round;
            break;
        }
    }
    let each = value.len() + 400;
    assert!(
        last * 3000 < crate::limits::BTRFS_PENDING && last * each > crate::limits::BTRFS_PENDING * 9 / 10,
        "{last}"
    );
}
