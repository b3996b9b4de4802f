//! Copies of a mounted file system, taken between two transactions: what was synced is in the log tree, and the driver shows what
//! the kernel shows after its own replay of another copy.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper2kvm::fs::{Attributes, Filesystem};
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, fsync, ioctl_ficlone, lremovexattr, lsetxattr};

use super::fill;
use super::image::Image;
use crate::ext::fill::noise;
use crate::ext::tree::{self, Tree};

/// Compares a crash image with what the kernel makes of it.
fn assert_replayed(image: &Image, since: SystemTime, name: &str) {
    let fs = image.open();
    assert!(fs.facts().dirty, "{name}: nothing is in the log");
    fs.free_ranges(&mut |range| panic!("{name}: {range:?} is free though there is a log")).unwrap();
    let mut ours = tree::of_driver(&fs);
    assert_put_in_place(&image.copy(), &ours);
    let mut theirs = image.copy().mounted("rw", tree::of_kernel);
    mask_replay_times(&mut ours, &mut theirs, since);
    eprintln!("{name}: {} files", ours.len());
    tree::assert_same(&ours, &theirs);
}

/// Has the driver put the log in place, which leaves the tree that it showed before, a volume that the checker likes, and one that the
/// driver and the kernel write to.
fn assert_put_in_place(image: &Image, expected: &Tree) {
    let fs = image.open_mut();
    assert!(fs.facts().dirty);
    tree::assert_same(&tree::of_driver(&fs), expected);
    image.assert_clean();
    let new = image.open();
    assert!(!new.facts().dirty);
    tree::assert_same(&tree::of_driver(&new), expected);
    let writer = fs.writer().unwrap();
    writer.create(fs.root(), b"after the log", &Attributes::default(), &noise(1, 300_000)).unwrap();
    writer.sync().unwrap();
    let expected = tree::of_driver(&fs);
    image.assert_clean();
    image.mounted("rw", |root| {
        tree::assert_same(&expected, &tree::of_kernel(root));
        fs::write(root.join("more"), noise(2, 300_000)).unwrap();
    });
    image.assert_clean();
}

/// Removing a name sets times to those of the replay.
fn mask_replay_times(ours: &mut Tree, theirs: &mut Tree, since: SystemTime) {
    let since = i64::try_from(since.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    for (path, entry) in theirs {
        if entry.times.iter().any(|(seconds, _)| *seconds > since) {
            entry.times = Default::default();
            if let Some(entry) = ours.get_mut(path) {
                entry.times = Default::default();
            }
        }
    }
}

/// Lets `before` fill the file system, syncs it, lets `after` change and sync parts of it, and takes a copy.
fn crash(options: &[&str], mount: &str, before: impl FnOnce(&Path), after: impl FnOnce(&Path)) -> (Image, SystemTime) {
    let image = Image::make(1, 256, options);
    let copy = image.mounted(&format!("{mount},commit=300"), |root| {
        before(root);
        rustix::fs::syncfs(File::open(root).unwrap()).unwrap();
        after(root);
        copy_between_transactions(&image)
    });
    let since = SystemTime::now();
    // The replay's times are of another second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    (copy, since)
}

/// A copy that no transaction came into.
fn copy_between_transactions(image: &Image) -> Image {
    let superblock = || {
        let mut bytes = vec![0; 4096];
        File::open(&image.devices[0]).unwrap().read_exact_at(&mut bytes, 64 << 10).unwrap();
        bytes
    };
    loop {
        let (before, copy) = (superblock(), image.copy());
        if superblock() == before {
            return copy;
        }
    }
}

fn sync(path: &Path) {
    fsync(File::open(path).unwrap()).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    let file = File::options().append(true).create(true).open(path).unwrap();
    std::io::Write::write_all(&mut &file, bytes).unwrap();
}

#[test]
fn what_was_synced_is_there() {
    let before = |root: &Path| {
        for dir in ["a", "b", "gone", "kept"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        for index in 0..30 {
            fs::write(root.join(format!("a/{index}")), noise(index, 3000 + usize::try_from(index).unwrap() * 997))
                .unwrap();
            lsetxattr(root.join(format!("a/{index}")), "user.old", b"old", XattrFlags::empty()).unwrap();
        }
        fs::write(root.join("gone/file"), "x").unwrap();
        fs::write(root.join("inline"), "short").unwrap();
        fs::write(root.join("big"), noise(77, 2 << 20)).unwrap();
        fs::hard_link(root.join("a/9"), root.join("b/linked")).unwrap();
        fill::btrfs(&["subvolume", "create"], &[&root.join("volume")]);
        fs::write(root.join("volume/file"), "in a subvolume").unwrap();
    };
    let after = |root: &Path| {
        let at = |name: &str| root.join(name);
        fs::write(at("new"), noise(1, 50_000)).unwrap();
        sync(&at("new"));
        append(&at("a/1"), &noise(2, 100_000));
        sync(&at("a/1"));
        let file = File::options().write(true).open(at("big")).unwrap();
        file.write_all_at(&noise(3, 40_000), 1_000_001).unwrap();
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4096, 200_000).unwrap();
        file.set_len(1_500_000).unwrap();
        fsync(&file).unwrap();
        fs::rename(at("a/2"), at("b/renamed")).unwrap();
        sync(&at("b/renamed"));
        fs::remove_file(at("a/3")).unwrap();
        fs::rename(at("a/4"), at("a/5")).unwrap();
        sync(&at("a"));
        lremovexattr(at("a/6"), "user.old").unwrap();
        lsetxattr(at("a/6"), "user.new", b"new", XattrFlags::empty()).unwrap();
        sync(&at("a/6"));
        fs::hard_link(at("a/7"), at("b/second")).unwrap();
        sync(&at("a/7"));
        append(&at("inline"), &noise(4, 5000));
        sync(&at("inline"));
        fs::create_dir_all(at("deep/er")).unwrap();
        fs::write(at("deep/er/file"), "x").unwrap();
        sync(&at("deep/er/file"));
        fs::write(at("volume/file"), "changed").unwrap();
        fs::write(at("volume/other"), noise(5, 9000)).unwrap();
        sync(&at("volume/file"));
        sync(&at("volume/other"));
        let prealloc = File::create(at("prealloc")).unwrap();
        fallocate(&prealloc, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
        prealloc.write_all_at(&noise(6, 10_000), 4096).unwrap();
        fsync(&prealloc).unwrap();
        // Not synced, and so not there.
        fs::write(at("lost"), "x").unwrap();
    };
    for (name, options, mount) in [
        ("default", &[][..], "rw"),
        ("zstd", &[], "rw,compress-force=zstd"),
        ("holes", &["-O", "^no-holes"], "rw"),
        ("nodatasum", &["-n", "4k"], "rw,nodatasum"),
        ("mixed", &["-M", "--csum", "sha256"], "rw"),
    ] {
        // A `sync` of a program beside this one ends the transaction, and with it the log.
        let mut images = (0..50).map(|_| crash(options, mount, before, after));
        let (image, since) = images.find(|(image, _)| image.open().facts().dirty).expect("a log");
        assert_replayed(&image, since, name);
    }
}

/// Numbers that look random and depend only on the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One change of a tree of a few names; what cannot be done is not.
fn change(root: &Path, random: &mut Random) {
    let dirs = ["", "d0", "d1", "d2", "d0/e0", "d1/e1"];
    let mut path = || -> PathBuf {
        let dir = dirs[usize::try_from(random.below(6)).unwrap()];
        root.join(dir).join(format!("f{}", random.below(12)))
    };
    let (one, other) = (path(), path());
    let number = random.below(1 << 20);
    let len = usize::try_from(number % 70_000).unwrap();
    match random.below(20) {
        0..3 => drop(fs::write(&one, noise(number, len))),
        3 => drop(fs::write(&one, noise(number, len % 2000))),
        4 if one.is_file() => append(&one, &noise(number, len)),
        5 => drop(fs::rename(&one, &other)),
        6 => drop(fs::remove_file(&one)),
        7 => drop(fs::hard_link(&one, &other)),
        8 => drop(symlink(format!("to-{number}"), &one)),
        9 => drop(lsetxattr(&one, format!("user.{}", number % 3), &noise(number, 40)[..], XattrFlags::empty())),
        10 => drop(lremovexattr(&one, format!("user.{}", number % 3))),
        11 => drop(fs::create_dir(root.join(dirs[1 + usize::try_from(number % 5).unwrap()]))),
        12 => drop(fs::remove_dir(root.join(dirs[1 + usize::try_from(number % 5).unwrap()]))),
        13 | 14 => {
            if let Ok(file) = File::options().write(true).open(&one) {
                match number % 5 {
                    0 => drop(file.set_len(number % 100_000)),
                    1 => drop(fallocate(
                        &file,
                        FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                        number % 50_000,
                        20_000,
                    )),
                    2 => drop(fallocate(&file, FallocateFlags::KEEP_SIZE, number % 50_000, 60_000)),
                    3 => drop(file.write_all_at(&noise(number, 9000), number % 90_000)),
                    _ => drop(File::open(&other).map(|from| ioctl_ficlone(&file, &from))),
                }
            }
        }
        15 => drop(fs::rename(root.join("d0"), root.join(format!("d0/{}", number % 3)))),
        16..18 => drop(File::open(root.join(dirs[usize::try_from(number % 6).unwrap()])).map(|dir| fsync(&dir))),
        _ => drop(File::open(&one).map(|file| fsync(&file))),
    }
}

#[test]
fn random_changes_are_replayed_as_in_the_kernel() {
    let count = std::env::var("BTRFS_CRASHES").ok().and_then(|count| count.parse().ok()).unwrap_or(6);
    let (mut replayed, mut seed) = (0, 0);
    // Some changes make the kernel end the transaction, and so does a `sync` of a program beside this one.
    while replayed < count {
        assert!(seed < count * 30, "only {replayed} of {seed} had a log");
        seed += 1;
        let mut random = Random(seed * 7919 + 1);
        let mount = ["rw", "rw,compress-force=lzo"][usize::try_from(seed % 2).unwrap()];
        let (mut early, mut late) = (Random(seed), Random(seed + 1000));
        let changes = random.below(120) + 10;
        let (image, since) = crash(
            &[],
            mount,
            |root| (0..150).for_each(|_| change(root, &mut early)),
            |root| (0..changes).for_each(|_| change(root, &mut late)),
        );
        if image.open().facts().dirty {
            assert_replayed(&image, since, &format!("seed {seed}"));
            replayed += 1;
        }
    }
}
