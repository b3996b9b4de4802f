//! Random changes made by the driver: `xfs_repair` finds nothing, and the kernel sees the tree and goes on writing.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::xfs::Xfs;
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, ioctl_ficlone, lsetxattr};

use super::each_shape;
use super::image::Image;
use super::model::Model;
use super::random::Random;
use crate::ext::fill::{directory, noise};
use crate::ext::tree;
use crate::file_disk::FileDisk;

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

/// One sequence of random changes to a copy of `base`.
fn sequence(base: &Image, seed: u64, kinds: u64) {
    let image = base.copy();
    let mut random = Random::new(seed);
    let expected = {
        let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
        let mut model = Model::new(&driver);
        for _ in 0..random.below(60) + 5 {
            model.step(&mut random, kinds);
        }
        driver.writer().unwrap().sync().unwrap();
        tree::assert_same(&tree::of_driver(&driver), &model.tree);
        model.tree
    };
    if let Ok(place) = std::env::var("XFS_KEEP") {
        fs::copy(&image.path, place).unwrap();
    }
    let again = Xfs::open(FileDisk::open(&image.path)).unwrap();
    assert!(!again.facts().dirty);
    tree::assert_same(&tree::of_driver(&again), &expected);
    drop(again);
    image.assert_clean();
    image.mounted("rw", |root| {
        tree::assert_same(&tree::of_kernel(root), &expected);
        go_on(root, &expected);
    });
    image.assert_clean();
}

/// What a guest does next: files in every directory, names removed, everything changed.
fn go_on(root: &Path, tree: &tree::Tree) {
    use std::os::unix::ffi::OsStrExt;
    for (index, (path, entry)) in tree.iter().enumerate() {
        let place = root.join(std::ffi::OsStr::from_bytes(path));
        match entry.kind {
            hyper2kvm::fs::FileKind::Directory => {
                (0..3).for_each(|number| fs::write(place.join(format!("later-{number}")), "later").unwrap());
            }
            hyper2kvm::fs::FileKind::Regular if index % 5 == 0 => fs::remove_file(&place).unwrap(),
            hyper2kvm::fs::FileKind::Regular if index % 5 == 1 => fs::write(&place, noise(3, 20_000)).unwrap(),
            hyper2kvm::fs::FileKind::Symlink if index % 3 == 0 => fs::remove_file(&place).unwrap(),
            _ => {}
        }
    }
}

/// `XFS_SEQUENCES` for each shape, from `XFS_FIRST_SEED`.
#[test]
fn random_changes_leave_what_the_kernel_and_xfs_repair_like() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (first, count) = (number("XFS_FIRST_SEED").unwrap_or(1), number("XFS_SEQUENCES").unwrap_or(3));
    let kinds = number("XFS_KINDS").unwrap_or(KINDS);
    each_shape(|name, base| {
        if name == "v5-parent" {
            return;
        }
        base.mounted("rw", fill);
        for seed in first..first + count {
            eprintln!("{name} seed {seed}");
            sequence(&base, seed, kinds);
        }
    });
}

/// Version 4, which this kernel does not mount any more: changes to a file system that was empty.
#[test]
fn random_changes_to_version_4_leave_what_xfs_repair_likes() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let (first, count) = (number("XFS_FIRST_SEED").unwrap_or(1), number("XFS_SEQUENCES").unwrap_or(2));
    for options in VERSION_4 {
        for seed in first..first + count {
            eprintln!("{options:?} seed {seed}");
            let image = Image::make(64, options);
            let mut random = Random::new(seed);
            let driver = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
            let mut model = Model::new(&driver);
            for _ in 0..random.below(150) + 5 {
                model.step(&mut random, KINDS);
            }
            driver.writer().unwrap().sync().unwrap();
            let again = Xfs::open(FileDisk::open(&image.path)).unwrap();
            tree::assert_same(&tree::of_driver(&again), &model.tree);
            image.assert_clean();
        }
    }
}

/// Old and young file systems of version 4.
const VERSION_4: [&[&str]; 4] = [
    &["-m", "crc=0", "-l", "size=8m"],
    &["-m", "crc=0", "-b", "size=512", "-i", "size=256", "-n", "size=4096,ftype=0", "-l", "size=4m,version=1"],
    &["-m", "crc=0", "-i", "size=512", "-n", "version=ci", "-l", "size=4m,lazy-count=0", "-d", "agcount=1"],
    &["-m", "crc=0", "-b", "size=1024", "-n", "size=8192", "-i", "size=256,projid32bit=0", "-l", "size=4m"],
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

/// Kinds of changes that there are.
const KINDS: u64 = 16;
