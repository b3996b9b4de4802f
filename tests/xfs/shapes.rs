//! Every shape of file system: the tree that the kernel shows, and the free space that it discards.

use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hyper2kvm::fs::xfs::Xfs;
use hyper2kvm::fs::{FileKind, Filesystem, Inode};

use super::image::Image;
use super::{each_shape, fill};
use crate::ext::fill::noise;
use crate::ext::tree;
use crate::file_disk::FileDisk;
use crate::support::tools;

fn free_ranges(fs: &dyn Filesystem) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    fs.free_ranges(&mut |range| {
        assert!(ranges.last().is_none_or(|last| last.end < range.start), "ascending and joined");
        ranges.push(range);
        ControlFlow::Continue(())
    })
    .unwrap();
    ranges
}

/// What [`tree`] does not compare: device numbers, allocated bytes, access and creation times.
fn assert_same_details(fs: &dyn Filesystem, root: &Path) {
    let mut pending = vec![(root.to_owned(), fs.root())];
    while let Some((path, inode)) = pending.pop() {
        let ours = fs.stat(inode).unwrap();
        let theirs = fs::symlink_metadata(&path).unwrap();
        let device = matches!(ours.kind, FileKind::CharDevice | FileKind::BlockDevice)
            .then(|| (rustix::fs::major(theirs.rdev()), rustix::fs::minor(theirs.rdev())));
        assert_eq!(ours.device, device, "{path:?}");
        assert_eq!(ours.allocated, theirs.blocks() * 512, "{path:?}");
        assert_eq!((ours.atime.seconds, i64::from(ours.atime.nanoseconds)), (theirs.atime(), theirs.atime_nsec()));
        if let Some(btime) = ours.btime {
            let created = theirs.created().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            let expected = (i64::try_from(created.as_secs()).unwrap(), created.subsec_nanos());
            assert_eq!((btime.seconds, btime.nanoseconds), expected, "{path:?}");
        }
        assert_eq!(inode.0, theirs.ino());
        if ours.kind == FileKind::Directory {
            fs.read_dir(inode, 0, &mut |entry| {
                pending.push((path.join(std::ffi::OsStr::from_bytes(&entry.name)), entry.inode));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
    }
}

/// Everything in `ranges` is a hole of the trimmed image, as far as whole pages go.
fn assert_discarded(image: &Image, ranges: &[Range<u64>]) {
    let file = File::open(&image.path).unwrap();
    for range in ranges {
        let (start, end) = (range.start.next_multiple_of(4096), range.end / 4096 * 4096);
        if start < end {
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(start));
            assert!(data.is_err() || data.unwrap() >= end, "{start:x}..{end:x} is in use for the kernel");
        }
    }
}

/// What `xfs_db` lists as free, in blocks, less what each group keeps for its trees.
fn by_xfs_db(image: &Image) -> u64 {
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
    let text = image.edit(&["freesp -s"]);
    let total = number(text.lines().find(|line| line.starts_with("total free blocks")).unwrap());
    let groups = number(image.edit(&["sb 0", "print agcount"]).trim_end());
    let kept: Vec<String> =
        (0..groups).flat_map(|group| [format!("agf {group}"), "print flcount".to_owned()]).collect();
    let kept = image.edit(&kept.iter().map(String::as_str).collect::<Vec<_>>());
    total - kept.lines().map(number).sum::<u64>()
}

/// A large directory is read entry by entry from any cursor.
fn assert_cursors_work(fs: &dyn Filesystem, dir: Inode) {
    let mut all = Vec::new();
    fs.read_dir(dir, 0, &mut |entry| {
        all.push(entry);
        ControlFlow::Continue(())
    })
    .unwrap();
    for index in [0, 1, all.len() / 3, all.len() - 2, all.len() - 1] {
        let mut next = None;
        fs.read_dir(dir, all[index].cursor, &mut |entry| {
            next = Some(entry);
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(next.as_ref(), all.get(index + 1), "{index}");
    }
}

#[test]
fn every_shape_is_read_as_in_the_kernel() {
    each_shape(|_, image| {
        image.mounted("rw", fill::all);
        let fs = Xfs::open(FileDisk::open(&image.path)).unwrap();
        assert!(!fs.facts().dirty, "{:?}", fs.writer().err());
        let ours = tree::of_driver(&fs);
        image.mounted("ro", |root| {
            tree::assert_same(&ours, &tree::of_kernel(root));
            assert_same_details(&fs, root);
        });
        for dir in ["small", "dir-40", "dir-400", "dir-4000", "emptied"] {
            assert_cursors_work(&fs, fs.lookup(fs.root(), dir.as_bytes()).unwrap().unwrap());
        }
        assert_eq!(fs.lookup(fs.root(), b"DIR-400").unwrap(), None);
        assert_eq!(fs.facts().label.as_deref(), Some("a label"));
    });
}

#[test]
fn what_is_free_is_what_fitrim_discards() {
    each_shape(|name, image| {
        image.mounted("rw", |root| {
            crate::ext::fill::everything(root, true);
            let junk = root.join("junk");
            fs::create_dir(&junk).unwrap();
            (0..10).for_each(|i| fs::write(junk.join(i.to_string()), noise(i, 400_000)).unwrap());
            rustix::fs::sync();
            fs::remove_dir_all(&junk).unwrap();
        });
        let fs = Xfs::open(FileDisk::open(&image.path)).unwrap();
        let ranges = free_ranges(&fs);
        let sum: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // This xfs_db does not know all features that the kernel does.
        if !matches!(name, "v5-exchange" | "v5-parent") {
            assert_eq!(sum / fs.facts().block_size, by_xfs_db(&image), "{name}");
        }
        assert!(sum > 0 && sum <= fs.free().unwrap());
        let trimmed = image.full_copy();
        trimmed.mounted("rw", |root| tools::ok("fstrim", [root]));
        assert_discarded(&trimmed, &ranges);
    });
}
