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

/// Kinds of changes that there are.
const KINDS: u64 = 16;
