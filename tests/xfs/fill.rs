//! What XFS has beyond the tree that the ext tests make.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, ioctl_ficlone, lsetxattr};

use crate::ext::fill::{directory, everything, huge, noise};

/// Fills a mounted file system.
pub(crate) fn all(root: &Path) {
    everything(root, true);
    huge(root);
    for (name, count) in [("dir-9", 9), ("dir-40", 40), ("dir-400", 400), ("dir-4000", 4000)] {
        directory(root, name, count);
    }
    removed(root);
    attributes(root);
    extents(root);
    devices(root);
    times(root);
    for len in [100, 200, 300, 400, 800, 1000, 1023] {
        symlink("l".repeat(len), root.join(format!("xfs-link-{len}"))).unwrap();
    }
}

/// A large directory most of whose blocks are gone again.
fn removed(root: &Path) {
    let dir = root.join("emptied");
    fs::create_dir(&dir).unwrap();
    for index in 0..1500 {
        File::create(dir.join(format!("{index:05}-{}", "n".repeat(60)))).unwrap();
    }
    for index in 200..1400 {
        fs::remove_file(dir.join(format!("{index:05}-{}", "n".repeat(60)))).unwrap();
    }
}

fn attributes(root: &Path) {
    let dir = root.join("xfs-xattrs");
    fs::create_dir(&dir).unwrap();
    for count in [1_usize, 5, 30, 200, 900] {
        let path = dir.join(format!("count-{count}"));
        fs::write(&path, "x").unwrap();
        for index in 0..count {
            let name = format!("user.{index}-{}", "a".repeat(index % 20));
            lsetxattr(&path, name, &noise(index as u64, index % 90), XattrFlags::empty()).unwrap();
        }
    }
    for len in [250_u64, 1500, 4000, 5000, 30_000, 65_536] {
        let path = dir.join(format!("value-{len}"));
        fs::write(&path, "x").unwrap();
        lsetxattr(&path, "user.value", &noise(len, usize::try_from(len).unwrap()), XattrFlags::empty()).unwrap();
        lsetxattr(&path, "security.other", b"short", XattrFlags::empty()).unwrap();
    }
}

fn extents(root: &Path) {
    // Written, unwritten and punched in turns, in more extents than an inode has room for.
    let file = File::create(root.join("mixed")).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, 8 << 20).unwrap();
    for index in 0..300_u64 {
        file.write_all_at(&noise(index, 3000), index * 28_000).unwrap();
    }
    file.sync_all().unwrap();
    for index in 0..100_u64 {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, index * 65_536 + 4096, 20_000).unwrap();
    }
    // Every second block of a file: a tree of extents with more than one level where blocks are small.
    let file = File::create(root.join("comb")).unwrap();
    for index in 0..2000_u64 {
        file.write_all_at(&[7; 512], index * 8192).unwrap();
        if index % 100 == 0 {
            file.sync_all().unwrap();
        }
    }
    fs::write(root.join("original"), noise(77, 900_000)).unwrap();
    let (from, to) = (File::open(root.join("original")).unwrap(), File::create(root.join("reflinked")).unwrap());
    if ioctl_ficlone(&to, &from).is_ok() {
        to.write_all_at(b"changed", 500_000).unwrap();
    }
}

fn devices(root: &Path) {
    for (name, mode, major, minor) in
        [("char", 0o20_600, 255, 0x3_ffff), ("block", 0o60_600, 8, 17), ("zero", 0o20_600, 0, 0)]
    {
        let (kind, mode) = (rustix::fs::FileType::from_raw_mode(mode), rustix::fs::Mode::from_raw_mode(mode));
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, root.join(format!("xfs-{name}")), kind, mode, device).unwrap();
    }
}

fn times(root: &Path) {
    for (index, seconds) in
        [-2_000_000_000_i64, -1, 0, 2_147_483_647, 2_147_483_648, 9_000_000_000].into_iter().enumerate()
    {
        let path = root.join(format!("time-{index}"));
        fs::write(&path, "x").unwrap();
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
    }
}
