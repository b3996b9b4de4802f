//! Random changes made by the driver: `xfs_repair` finds nothing, and the kernel sees the tree and goes on writing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::xfs::Xfs;
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, ioctl_ficlone, lsetxattr};

use super::image::Image;
use super::model::Model;
use super::random::Random;
use super::{each_shape, is_in_kernel};
use crate::ext::fill::{directory, go_on, noise};
use crate::ext::tree::{self, Tree};
use crate::file_disk::FileDisk;
use crate::support::sequences::{self, Sequences};

/// A tree that has some of everything, and is small.
fn fill(root: &Path) {
    for (name, count) in [("small", 3), ("block", 30), ("leaf", 150), ("node", 700)] {
        directory(root, name, count);
    }
    fs::create_dir(root.join("empty")).unwrap();
    for (index, len) in [0, 10, 4096, 70_000, 300_000].into_iter().enumerate() {
        fs::write(root.join(format!("file-{index}")), noise(index as u64, len)).unwrap();
    }
    let comb = File::create(root.join("comb")).unwrap();
    for index in 0..200_u64 {
        comb.write_all_at(&[7; 512], index * 8192).unwrap();
    }
    let planned = File::create(root.join("planned")).unwrap();
    fallocate(&planned, FallocateFlags::empty(), 0, 200_000).unwrap();
    planned.write_all_at(&noise(5, 9000), 50_000).unwrap();
    fs::write(root.join("original"), noise(77, 200_000)).unwrap();
    for name in ["clone-1", "clone-2"] {
        let (from, to) = (File::open(root.join("original")).unwrap(), File::create(root.join(name)).unwrap());
        if ioctl_ficlone(&to, &from).is_ok() {
            to.write_all_at(b"changed", 50_000).unwrap();
        }
    }
    fs::write(root.join("one"), "linked").unwrap();
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    for (name, len) in [("short", 20), ("long", 900)] {
        std::os::unix::fs::symlink("l".repeat(len), root.join(name)).unwrap();
    }
    for (file, count, len) in [("file-0", 2, 20), ("file-1", 20, 80), ("file-2", 3, 9000), ("small", 2, 60)] {
        for index in 0..count {
            let value = noise(index, usize::try_from(len).unwrap());
            lsetxattr(root.join(file), format!("user.{index}"), &value, XattrFlags::empty()).unwrap();
        }
    }
}

/// One sequence of random changes to `image`, which the kernel then goes on with.
fn sequence(image: &Image, seed: u64) {
    let expected = change(image, seed, 60);
    image.assert_clean();
    image.mounted("rw", |root| {
        tree::assert_same(&tree::of_kernel(root), &expected);
        go_on(root, expected.keys(), seed);
    });
}

/// Makes some changes through the driver, at most `most`, and gives the tree that they lead to.
fn change(image: &Image, seed: u64, most: u64) -> Tree {
    let mut random = Random::new(seed);
    let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
    let mut model = Model::new(&driver);
    let kinds = sequences::number("XFS_KINDS").unwrap_or(KINDS);
    for _ in 0..random.below(most) + 5 {
        model.step(&mut random, kinds);
    }
    driver.writer().unwrap().sync().unwrap();
    tree::assert_same(&tree::of_driver(&driver), &model.tree);
    if let Ok(place) = std::env::var("XFS_KEEP") {
        fs::copy(&image.path, place).unwrap();
    }
    let again = Xfs::open(FileDisk::open(&image.path)).unwrap();
    assert!(!again.facts().dirty);
    tree::assert_same(&tree::of_driver(&again), &model.tree);
    model.tree
}

/// `XFS_SEQUENCES` for each shape, from `XFS_FIRST_SEED`.
#[test]
fn random_changes_leave_what_the_kernel_and_xfs_repair_like() {
    each_shape(|shape, base| {
        base.mounted("rw", fill);
        Sequences { kind: "XFS", shape, usual: 3 }.run(|| base.copy(), sequence, Image::assert_clean);
    });
}

/// Version 4, which this kernel does not mount any more: changes to a file system that was empty.
#[test]
fn random_changes_to_version_4_leave_what_xfs_repair_likes() {
    let wanted = VERSION_4.iter().filter(|(shape, _)| sequences::is_wanted("XFS", shape, true));
    sequences::each(wanted, |(shape, options)| {
        let base = Image::make(64, options);
        let sequence = |image: &Image, seed| {
            change(image, seed, 150);
            image.assert_clean();
        };
        Sequences { kind: "XFS", shape, usual: 2 }.run(|| base.copy(), sequence, |_| ());
    });
}

/// Old and young file systems of version 4: name, options of mkfs.xfs.
const VERSION_4: [(&str, &[&str]); 4] = [
    ("v4", &["-m", "crc=0", "-l", "size=8m"]),
    (
        "v4-old",
        &["-m", "crc=0", "-b", "size=512", "-i", "size=256", "-n", "size=4096,ftype=0", "-l", "size=4m,version=1"],
    ),
    (
        "v4-any-case",
        &["-m", "crc=0", "-i", "size=512", "-n", "version=ci", "-l", "size=4m,lazy-count=0", "-d", "agcount=1"],
    ),
    (
        "v4-1k-dir-8k",
        &["-m", "crc=0", "-b", "size=1024", "-n", "size=8192", "-i", "size=256,projid32bit=0", "-l", "size=4m"],
    ),
];

/// What the driver fills to the last block, it can still change, and the kernel goes on with it.
#[test]
fn a_full_file_system_stays_sound() {
    for options in FULL {
        let image = Image::make(64, options);
        let mut random = Random::new(7);
        let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
        let mut files = Vec::new();
        for round in 0..3 {
            let mut refused = 0;
            while refused < 25 {
                let number = format!("{round}-{}", files.len() + refused);
                let most = if refused == 0 { 900_000 } else { 40_000 };
                let content = noise(files.len() as u64, usize::try_from(random.below(most)).unwrap());
                let attributes = hyper2kvm::fs::Attributes { mode: 0o644, ..Default::default() };
                let writer = driver.writer().unwrap();
                let before = writer.available().unwrap();
                let done = writer.create(driver.root(), number.as_bytes(), &attributes, &content);
                match done {
                    Ok(inode) => files.push((number, inode, content)),
                    Err(error) => {
                        assert_eq!(error.code(), "xfs.space", "{error}");
                        assert_eq!(writer.available().unwrap(), before);
                        refused += 1;
                    }
                }
            }
            assert!(driver.writer().unwrap().available().unwrap() < 1 << 20);
            for index in (0..files.len()).rev().filter(|_| random.below(3) != 0).collect::<Vec<_>>() {
                match random.below(3) {
                    0 => {
                        let (_, inode, content) = &mut files[index];
                        if driver.writer().unwrap().append(*inode, b"a little more").is_ok() {
                            content.extend(b"a little more");
                        }
                    }
                    _ if round < 2 => {
                        let (name, ..) = files.swap_remove(index);
                        driver.writer().unwrap().remove(driver.root(), name.as_bytes()).unwrap();
                    }
                    _ => {}
                }
            }
        }
        driver.writer().unwrap().sync().unwrap();
        drop(driver);
        image.assert_clean();
        image.mounted("rw", |root| {
            assert_eq!(fs::read_dir(root).unwrap().count(), files.len());
            for (index, (name, _, content)) in files.iter().enumerate() {
                assert!(fs::read(root.join(name)).unwrap() == *content, "{name}");
                if index % 2 == 0 {
                    fs::remove_file(root.join(name)).unwrap();
                }
            }
            directory(root, "more", 300);
        });
        image.assert_clean();
    }
}

/// Small file systems with all trees, and with small blocks and few groups.
const FULL: [&[&str]; 2] =
    [&["-m", "rmapbt=1", "-l", "size=14m"], &["-b", "size=1024", "-l", "size=14m", "-d", "agcount=3"]];

/// A directory whose list of free space takes three blocks, of which the kernel cuts the first short and frees the second.
#[test]
fn lists_of_free_space_with_gaps_are_read_as_they_are() {
    const EACH: usize = 15;
    const LIST: usize = 2016;
    let image = Image::make(320, &["-b", "size=4096"]);
    let name = |index: usize| format!("{index:0244}");
    let gone = LIST * EACH - 500..2 * LIST * EACH + 500;
    let last = 2 * LIST * EACH + 1000;
    image.mounted("rw", |root| {
        fs::write(root.join("file"), "linked").unwrap();
        fs::create_dir(root.join("dir")).unwrap();
        (0..last).for_each(|index| fs::hard_link(root.join("file"), root.join("dir").join(name(index))).unwrap());
        gone.clone().for_each(|index| fs::remove_file(root.join("dir").join(name(index))).unwrap());
    });
    let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
    let (writer, dir) = (driver.writer().unwrap(), driver.lookup(driver.root(), b"dir").unwrap().unwrap());
    let attributes = hyper2kvm::fs::Attributes { mode: 0o644, ..Default::default() };
    (0..40).for_each(|index| {
        writer.create(dir, format!("{index:0200}").as_bytes(), &attributes, b"new").unwrap();
        writer.remove(dir, name(last - 1 - index).as_bytes()).unwrap();
    });
    drop(driver);
    image.assert_clean();
    image.mounted("rw", |root| {
        let left = gone.start + last - gone.end;
        assert_eq!(fs::read_dir(root.join("dir")).unwrap().count(), left);
        gone.clone().take(200).for_each(|index| fs::write(root.join("dir").join(name(index)), "again").unwrap());
    });
    image.assert_clean();
}

/// Takes all of the free space, and gives back a quarter in pieces of seven blocks.
fn leave_pieces(root: &Path) {
    const PIECE: u64 = 7 * 4096;
    let file = File::create(root.join("all")).unwrap();
    let mut len = 0;
    for step in [1 << 20, 64 << 10, 4096] {
        while fallocate(&file, FallocateFlags::empty(), len, step).is_ok() {
            len += step;
        }
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    (0..len).step_by(4 * 7 * 4096).for_each(|at| fallocate(&file, flags, at, PIECE).unwrap());
}

/// How many inodes there are room for, and whether a chunk lacks some of its own, as `xfs_db` tells it.
fn inodes(image: &Image) -> (u64, bool) {
    let count = image.edit(&["agi 0", "print count"]);
    let records = image.edit(&["agi 0", "addr root", "print recs"]);
    let is_part = |record: &str| record.split([',', '[']).nth(2).is_some_and(|mask| mask.starts_with("0x"));
    let parts = records.split_whitespace().filter(|word| word.contains(":[")).any(is_part);
    (count.trim().rsplit(' ').next().unwrap().parse().unwrap(), parts)
}

/// Where free space is in pieces, chunks of inodes lack a part: those of the kernel are used, and others are made.
#[test]
fn chunks_of_inodes_in_parts_are_used_and_made() {
    for options in [&["-d", "agcount=1"][..], &["-m", "rmapbt=1,finobt=0", "-d", "agcount=1"]] {
        let image = Image::make(64, options);
        image.mounted("rw", leave_pieces);
        // A whole chunk takes eight blocks, of which there are enough together in what the kernel kept for itself until now.
        let rounds = (0..8).take_while(|round| {
            image.mounted("rw", |root| directory(root, &format!("kernel-{round}"), 2500));
            !inodes(&image).1
        });
        assert!(rounds.count() < 8, "{options:?}");
        let before = inodes(&image).0;
        let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
        let (writer, attributes) =
            (driver.writer().unwrap(), hyper2kvm::fs::Attributes { mode: 0o644, ..Default::default() });
        let dir = writer.create_dir(driver.root(), b"ours", &attributes).unwrap();
        let name = |index: u64| format!("{index}");
        for index in 0..2500 {
            writer.create(dir, name(index).as_bytes(), &attributes, b"").unwrap();
        }
        (0..2500).step_by(3).for_each(|index| writer.remove(dir, name(index).as_bytes()).unwrap());
        writer.sync().unwrap();
        let expected = tree::of_driver(&driver);
        drop(driver);
        image.assert_clean();
        assert!(inodes(&image).0 >= before + 400, "{options:?}");
        image.mounted("rw", |root| {
            tree::assert_same(&tree::of_kernel(root), &expected);
            fs::remove_dir_all(root.join("ours")).unwrap();
            directory(root, "later", 400);
        });
        image.assert_clean();
    }
}

/// Where files know their names, those of a file with so many that they fill a tree follow what is done to them, and the kernel goes on.
#[test]
fn files_know_the_names_that_they_are_given() {
    let shapes = [&["-n", "parent=1"][..], &["-b", "size=1024", "-n", "parent=1"]];
    for options in shapes.into_iter().filter(|options| is_in_kernel(options)) {
        let image = Image::make(320, options);
        let name = |index: usize| format!("{index}-{}", "x".repeat(index % 200));
        image.mounted("rw", |root| {
            fill(root);
            fs::write(root.join("many"), "content").unwrap();
            (0..600).for_each(|index| fs::hard_link(root.join("many"), root.join("node").join(name(index))).unwrap());
        });
        let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
        let (writer, root) = (driver.writer().unwrap(), driver.root());
        let attributes = hyper2kvm::fs::Attributes::default();
        let dir = driver.lookup(root, b"node").unwrap().unwrap();
        let moved = writer.create_dir(root, b"moved", &attributes).unwrap();
        for index in (0..600).step_by(3) {
            writer.remove(dir, name(index).as_bytes()).unwrap();
            writer.rename(dir, name(index + 1).as_bytes(), moved, name(index).as_bytes()).unwrap();
        }
        writer.rename(root, b"moved", dir, b"moved").unwrap();
        writer.rename(root, b"small", moved, b"small").unwrap();
        writer.rename(root, b"long", root, b"longer").unwrap();
        writer.sync().unwrap();
        let expected = tree::of_driver(&driver);
        drop(driver);
        image.assert_clean();
        image.mounted("rw", |root| {
            tree::assert_same(&tree::of_kernel(root), &expected);
            go_on(root, expected.keys().filter(|path| !path.starts_with(b"node/")), 1);
            (2..600).step_by(3).for_each(|index| fs::remove_file(root.join("node").join(name(index))).unwrap());
        });
        image.assert_clean();
        // What the kernel made fewer fits in the inode again.
        let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
        let writer = driver.writer().unwrap();
        let moved = driver.lookup(driver.lookup(driver.root(), b"node").unwrap().unwrap(), b"moved").unwrap().unwrap();
        (3..600).step_by(3).for_each(|index| writer.remove(moved, name(index).as_bytes()).unwrap());
        writer.sync().unwrap();
        image.assert_clean();
        image.mounted("rw", |root| {
            fs::rename(root.join("node/moved").join(name(0)), root.join("many")).unwrap();
            assert_eq!(fs::read(root.join("many")).unwrap(), b"content");
        });
        image.assert_clean();
    }
}

/// Kinds of changes that there are.
const KINDS: u64 = 16;
