//! Free space beside what the kernel discards: nothing may be free for us that is not free for FITRIM.

use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::Path;

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::ext::Ext;

use super::image::Image;
use super::{each_shape, fill};
use crate::file_disk::FileDisk;
use crate::support::{idle, tools};

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

/// Everything in `ranges` is a hole of the trimmed image. The kernel discards group by group and whole pages only, so pages
/// that reach over the end of a range or a group stay.
fn assert_discarded(image: &Image, ranges: &[Range<u64>], groups: &Range<u64>) {
    let file = File::open(&image.path).unwrap();
    let group = |byte: u64| (byte - groups.start) / (groups.end - groups.start);
    for page in
        ranges.iter().flat_map(|range| (range.start.next_multiple_of(4096)..range.end / 4096 * 4096).step_by(4096))
    {
        if group(page) == group(page + 4095) {
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(page));
            assert!(data.is_err() || data.unwrap() >= page + 4096, "page {page:x} is in use for the kernel");
        }
    }
}

/// What `dumpe2fs` lists as free, in bytes, and the bytes of the first group.
fn by_dumpe2fs(image: &Image, block_size: u64) -> (Vec<Range<u64>>, Range<u64>) {
    let text = tools::ok("dumpe2fs", [&image.path]);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut first = None;
    for line in text.lines() {
        if let (None, Some(blocks)) = (&first, line.strip_prefix("Group 0: (Blocks ")) {
            let (from, to) = blocks.split([')', ' ']).next().unwrap().split_once('-').unwrap();
            first = Some(from.parse::<u64>().unwrap() * block_size..(to.parse::<u64>().unwrap() + 1) * block_size);
        }
        let Some(list) = line.strip_prefix("  Free blocks: ") else { continue };
        for run in list.split(", ").filter(|run| !run.is_empty()) {
            let (from, to) = run.split_once('-').unwrap_or((run, run));
            let run = from.parse::<u64>().unwrap() * block_size..(to.parse::<u64>().unwrap() + 1) * block_size;
            match ranges.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => ranges.push(run),
            }
        }
    }
    (ranges, first.unwrap())
}

/// Every file below `root`, and what is in it.
fn tree(root: &Path) -> String {
    let list = "cd \"$0\" && find . -printf '%i %m %U %G %s %T@ %p %l\\n' && find . -type f -exec sha256sum {} +";
    tools::ok("sh", ["-c".as_ref(), list.as_ref(), root.as_os_str()])
}

#[test]
fn what_is_idle_may_read_as_zeros() {
    each_shape(|name, image, large| {
        image.mounted("rw", |root| fill::everything(root, large));
        let fs = Ext::open(FileDisk::open(&image.path)).unwrap();
        let idle = fs.idle_ranges().unwrap();
        assert_eq!(idle, idle::idle(&image.path, 0), "{name}");
        let before = image.mounted("ro", tree);
        let copy = image.full_copy();
        let file = File::options().write(true).open(&copy.path).unwrap();
        for range in idle {
            file.write_all_at(&vec![0; usize::try_from(range.end - range.start).unwrap()], range.start).unwrap();
        }
        drop(file);
        copy.assert_clean();
        assert_eq!(copy.mounted("ro", tree), before, "{name}");
        // Of the inodes that never were, some are taken now, and the log is used.
        copy.mounted("rw", |root| {
            let many = root.join("many");
            fs::create_dir(&many).unwrap();
            (0..500).for_each(|i| fs::write(many.join(i.to_string()), "").unwrap());
            rustix::fs::sync();
        });
        copy.assert_clean();
    });
}

#[test]
fn what_is_free_is_what_fitrim_discards() {
    each_shape(|name, image, large| {
        image.mounted("rw", |root| {
            fill::everything(root, large);
            let junk = root.join("junk");
            fs::create_dir(&junk).unwrap();
            (0..10).for_each(|i| fs::write(junk.join(i.to_string()), fill::noise(i, 400_000)).unwrap());
            rustix::fs::sync();
            fs::remove_dir_all(&junk).unwrap();
        });
        let fs = Ext::open(FileDisk::open(&image.path)).unwrap();
        let ranges = free_ranges(&fs);
        if name == "ext4-sparse-super2" {
            return assert_eq!(ranges, [], "where copies of metadata lie is not believed");
        }
        let (expected, groups) = by_dumpe2fs(&image, fs.facts().block_size);
        assert_eq!(ranges, expected, "{name}");
        assert_eq!(ranges.iter().map(|range| range.end - range.start).sum::<u64>(), fs.free().unwrap(), "{name}");
        let trimmed = image.full_copy();
        trimmed.mounted("rw", |root| tools::ok("fstrim", [root]));
        assert_discarded(&trimmed, &ranges, &groups);
    });
}
