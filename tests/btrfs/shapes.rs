//! Every shape of file system: the tree that the kernel shows, the subvolumes that it lists, and the free space that it discards.

use std::fs::{self, File};
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use hyper2kvm::fs::btrfs::Btrfs;
use hyper2kvm::fs::{FileKind, Filesystem, Inode, SubvolumeName};

use super::image::Image;
use super::{each_shape, fill};
use crate::ext::fill::{huge, noise};
use crate::ext::tree::{self, Tree};
use crate::support::mount::unmount_copies;
use crate::support::tools;

/// What [`tree`] does not compare: device numbers, allocated bytes, access and creation times.
fn assert_same_details(fs: &dyn Filesystem, root: &Path) {
    let mut pending = vec![(root.to_owned(), fs.root())];
    let mut seen = std::collections::HashMap::new();
    while let Some((path, inode)) = pending.pop() {
        let ours = fs.stat(inode).unwrap();
        let theirs = fs::symlink_metadata(&path).unwrap();
        let is_device = matches!(ours.kind, FileKind::CharDevice | FileKind::BlockDevice);
        let device = is_device.then(|| (rustix::fs::major(theirs.rdev()), rustix::fs::minor(theirs.rdev())));
        assert_eq!(ours.device, device, "{path:?}");
        assert_eq!(ours.allocated, theirs.blocks() * 512, "{path:?}");
        assert_eq!((ours.atime.seconds, i64::from(ours.atime.nanoseconds)), (theirs.atime(), theirs.atime_nsec()));
        if theirs.ino() != 2 {
            let created = theirs.created().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
            let btime = ours.btime.unwrap();
            assert_eq!(
                (u64::try_from(btime.seconds).unwrap(), btime.nanoseconds),
                (created.as_secs(), created.subsec_nanos())
            );
            assert_eq!(inode.0 & 0xffff_ffff_ffff, theirs.ino(), "{path:?}");
            let other = seen.insert(inode, (theirs.dev(), theirs.ino()));
            assert!(other.is_none_or(|other| other == (theirs.dev(), theirs.ino())), "{path:?} shares its number");
        }
        if ours.kind == FileKind::Directory {
            let mut names = Vec::new();
            fs.read_dir(inode, 0, &mut |entry| {
                names.push(entry.name.clone());
                pending.push((path.join(std::ffi::OsStr::from_bytes(&entry.name)), entry.inode));
                ControlFlow::Continue(())
            })
            .unwrap();
            let kernel = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec());
            assert_eq!(names, kernel.collect::<Vec<_>>(), "the same order in {path:?}");
        }
    }
}

/// Directories where a snapshot has no subvolume: the kernel makes up their times.
pub(crate) fn without_stubs(mut tree: Tree, stubs: &[&str]) -> Tree {
    for stub in stubs {
        let entry = tree.get_mut(stub.as_bytes()).unwrap_or_else(|| panic!("{stub} is missing"));
        entry.times = Default::default();
        entry.owner = (0, 0);
    }
    tree
}

const STUBS: &[&str] = &["@home/dir/snapshot/var", "read-only/var"];

fn assert_same(image: &Image, name: &str) {
    let fs = image.open();
    let ours = without_stubs(tree::of_driver(&fs), STUBS);
    image.mounted("ro", |root| {
        tree::assert_same(&ours, &without_stubs(tree::of_kernel(root), STUBS));
        assert_same_details(&fs, root);
        assert_same_volumes(&fs, root);
        assert_same_usage(&fs, root);
    });
    let facts = fs.facts();
    assert!(!facts.dirty, "{name}");
    let field = |name: &str| super_field(image, name);
    assert_eq!(facts.uuid.as_deref(), Some(field("fsid").as_str()));
    assert_eq!((facts.kind, facts.label.as_deref()), ("btrfs", Some("a label")));
    assert_eq!(facts.block_size.to_string(), field("sectorsize"));
    assert_eq!(facts.size.to_string(), field("total_bytes"));
}

/// `btrfs subvolume list` shows the same, and each is a root of its own.
fn assert_same_volumes(fs: &Btrfs, root: &Path) {
    let listed = fill::btrfs(&["subvolume", "list", "-a", "-p", "-u", "-q"], &[root]);
    let read_only = fill::btrfs(&["subvolume", "list", "-r"], &[root]);
    let mut theirs: Vec<String> = listed
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words[words.iter().position(|known| *known == word).unwrap() + 1];
            let path = after("path").trim_start_matches("<FS_TREE>/");
            let is_read_only = read_only.lines().any(|line| line.starts_with(&format!("ID {} ", after("ID"))));
            let words = ["ID", "gen", "parent", "parent_uuid", "uuid"].map(after).join(" ");
            format!("{words} {path} {is_read_only}")
        })
        .collect();
    let volumes = fs.subvolumes().unwrap();
    assert_eq!((volumes[0].id, volumes[0].path.as_deref(), volumes[0].parent), (5, Some(&b""[..]), 0));
    let mut ours: Vec<String> = volumes[1..]
        .iter()
        .map(|volume| {
            let uuid = |uuid: Option<uuid::Uuid>| uuid.map_or("-".to_owned(), |uuid| uuid.to_string());
            let path = String::from_utf8(volume.path.clone().unwrap()).unwrap();
            let uuids = format!("{} {}", uuid(volume.parent_uuid), uuid(volume.uuid));
            format!("{} {} {} {uuids} {path} {}", volume.id, volume.generation, volume.parent, volume.read_only)
        })
        .collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    for volume in &volumes {
        let path = volume.path.clone().unwrap();
        let by_id = fs.subvolume(&SubvolumeName::Id(volume.id)).unwrap().unwrap();
        let by_path = fs.subvolume(&SubvolumeName::Path(path.clone())).unwrap().unwrap();
        let place = root.join(std::ffi::OsStr::from_bytes(&path));
        let file = place.join("file");
        for fs in [by_id, by_path] {
            assert_eq!(fs.root(), Inode(256));
            let ours = fs.lookup(fs.root(), b"file").unwrap();
            assert_eq!(ours.is_some(), file.exists(), "{path:?}");
            if let Some(inode) = ours {
                let mut content = vec![0; 100];
                let len = fs.read_at(inode, &mut content, 0).unwrap();
                assert_eq!(content[..len], fs::read(&file).unwrap());
                assert_eq!(inode.0, fs::metadata(&file).unwrap().ino());
            }
        }
    }
    for path in ["nowhere", "@/dir", "@/file", "gone", "read-only/var"] {
        assert!(fs.subvolume(&SubvolumeName::Path(path.into())).unwrap().is_none(), "{path}");
    }
    assert!(fs.subvolume(&SubvolumeName::Path(b"/@/var".to_vec())).unwrap().is_some());
    assert!(fs.subvolume(&SubvolumeName::Id(99_999)).unwrap().is_none());
    assert!(fs.subvolume(&SubvolumeName::Id(0)).unwrap().is_some());
}

/// `btrfs filesystem df` shows the same.
fn assert_same_usage(fs: &Btrfs, root: &Path) {
    let text = fill::btrfs(&["filesystem", "df", "--raw"], &[root]);
    let theirs: Vec<&str> = text.lines().filter(|line| !line.starts_with("GlobalReserve")).collect();
    let mut ours: Vec<String> = fs
        .usage()
        .unwrap()
        .iter()
        .map(|usage| format!("{}, {}: total={}, used={}", usage.kind, usage.profile, usage.total, usage.used))
        .collect();
    ours.sort();
    let mut theirs: Vec<String> = theirs.into_iter().map(str::to_owned).collect();
    theirs.sort();
    assert_eq!(ours, theirs);
}

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

/// Makes sure that the kernel discards everything in `ranges`. What it holds for a moment while it is asked to it lets go the next
/// time; what is in use it never does.
fn assert_discarded(image: &Image, ranges: &[Range<u64>]) {
    let trimmed = image.full_copy();
    let mut kept = None;
    for _ in 0..10 {
        trimmed.mounted("rw", |root| tools::ok("fstrim", [root]));
        kept = first_kept(image, &trimmed, ranges);
        if kept.is_none() {
            return;
        }
    }
    panic!("{kept:x?} is in use for the kernel");
}

/// What of `ranges` is no hole of the trimmed image, and does not lie in a node that was written since: the kernel makes new trees
/// when it mounts and unmounts.
fn first_kept(image: &Image, trimmed: &Image, ranges: &[Range<u64>]) -> Option<(u64, Range<u64>)> {
    let [before, after] = [image, trimmed].map(|image| File::open(&image.devices[0]).unwrap());
    let nodesize: u64 = super_field(image, "nodesize").parse().unwrap();
    for range in ranges {
        let mut page = range.start.next_multiple_of(4096);
        while page + 4096 <= range.end {
            page = rustix::fs::seek(&after, rustix::fs::SeekFrom::Data(page)).unwrap_or(u64::MAX);
            if page >= range.end / 4096 * 4096 {
                break;
            }
            let node = page / nodesize * nodesize;
            let [old, new] = [&before, &after].map(|file| {
                let mut bytes = vec![0; usize::try_from(nodesize).unwrap()];
                file.read_exact_at(&mut bytes, node).unwrap();
                bytes
            });
            if old == new {
                return Some((page, range.clone()));
            }
            page += 4096;
        }
    }
    None
}

/// What `dump-super` says of a field.
fn super_field(image: &Image, name: &str) -> String {
    let text = tools::ok("btrfs", ["inspect-internal".as_ref(), "dump-super".as_ref(), image.devices[0].as_os_str()]);
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn every_shape_is_read_as_in_the_kernel() {
    each_shape(|shape, image| {
        image.mounted(shape.mount, |root| {
            fill::all(root);
            if shape.name == "default" {
                huge(root);
            }
        });
        assert_same(&image, shape.name);
        let fs = image.open();
        let ranges = free_ranges(&fs);
        if image.devices.len() > 1 {
            return assert_eq!(ranges, [], "{}", shape.name);
        }
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // What is reserved, and what lies around superblocks, is not free.
        assert!(bytes <= fs.free().unwrap() && bytes + (2 << 20) > fs.free().unwrap(), "{}: {bytes}", shape.name);
        assert_discarded(&image, &ranges);
    });
}

#[test]
fn one_copy_is_enough() {
    for (profile, devices) in [("raid1", 2), ("raid1c3", 3), ("raid10", 4), ("raid5", 3), ("raid6", 4)] {
        let image = Image::make(devices, 256, &["-m", profile, "-d", profile]);
        image.mounted("rw", |root| {
            fs::write(root.join("file"), noise(1, 3 << 20)).unwrap();
            fs::write(root.join("other"), fill::text(1, 300_000)).unwrap();
        });
        let whole = tree::of_driver(&image.open());
        for missing in 0..devices {
            let mut disks = image.disks();
            disks.remove(missing);
            let fs = Btrfs::open_devices(disks).unwrap();
            assert!(fs.facts().dirty);
            tree::assert_same(&tree::of_driver(&fs), &whole);
            // The same where the device is there, and nothing on it is right.
            let damaged = image.copy();
            let file = File::options().write(true).open(&damaged.devices[missing]).unwrap();
            let junk = noise(4, 1 << 20);
            for at in 1..256_u64 {
                // Superblocks stay.
                if at != 64 {
                    file.write_all_at(&junk, at << 20).unwrap();
                }
            }
            tree::assert_same(&tree::of_driver(&damaged.open()), &whole);
        }
    }
    let image = Image::make(2, 256, &["-m", "raid1", "-d", "raid0"]);
    image.mounted("rw", |root| fs::write(root.join("file"), noise(1, 3 << 20)).unwrap());
    let fs = Btrfs::open(image.disks().remove(0)).unwrap();
    let file = fs.lookup(fs.root(), b"file").unwrap().unwrap();
    assert_eq!(fs.read_at(file, &mut vec![0; 3 << 20], 0).unwrap_err().code(), "btrfs.device");
    let twice = [image.disks().remove(0), image.disks().remove(0)];
    assert_eq!(Btrfs::open_devices(twice.into()).unwrap_err().code(), "btrfs.device");
    let other = Image::make(1, 256, &[]);
    let mixed = [image.disks().remove(0), other.disks().remove(0)];
    assert_eq!(Btrfs::open_devices(mixed.into()).unwrap_err().code(), "btrfs.device");
}

#[test]
fn the_default_subvolume_is_the_root() {
    let image = Image::make(1, 256, &[]);
    image.mounted("rw", |root| {
        fill::btrfs(&["subvolume", "create"], &[&root.join("@")]);
        fs::write(root.join("@/inside"), "x").unwrap();
        fill::btrfs(&["subvolume", "set-default"], &[&root.join("@")]);
    });
    let fs = image.open();
    assert!(fs.lookup(fs.root(), b"inside").unwrap().is_some());
    assert_eq!(fs.root_subvolume(), 256);
    image.mounted("ro", |root| tree::assert_same(&tree::of_driver(&fs), &tree::of_kernel(root)));
    let top = fs.subvolume(&SubvolumeName::Path(b"/".to_vec())).unwrap().unwrap();
    image.mounted("ro,subvolid=5", |root| tree::assert_same(&tree::of_driver(&*top), &tree::of_kernel(root)));
}

#[test]
fn what_was_converted_from_ext4_is_read_as_in_the_kernel() {
    let image = Image::make(1, 256, &[]);
    let path = &image.devices[0];
    tools::ok("mke2fs", ["-q", "-F", "-t", "ext4", "-b", "4096"].map(Path::new).into_iter().chain([path.as_path()]));
    let point = path.with_file_name("mounted");
    tools::ok("mount", ["-o", "loop"].map(Path::new).into_iter().chain([path.as_path(), &point]));
    crate::ext::fill::everything(&point, true);
    tools::ok("umount", [&point]);
    unmount_copies(&point);
    tools::ok("btrfs-convert", [path]);
    let fs = image.open();
    let ours = tree::of_driver(&fs);
    assert!(ours.contains_key(&b"ext2_saved/image"[..]));
    image.mounted("ro", |root| {
        tree::assert_same(&ours, &tree::of_kernel(root));
        assert_same_details(&fs, root);
        assert_same_usage(&fs, root);
    });
    // The kernel writes so much at the first mount that it keeps free space for itself, which FITRIM then leaves alone.
    assert!(free_ranges(&fs).iter().map(|range| range.end - range.start).sum::<u64>() <= fs.free().unwrap());
}

#[test]
fn another_superblock_counts_where_the_first_is_damaged() {
    let image = Image::make(1, 256, &[]);
    image.mounted("rw", |root| fs::write(root.join("file"), noise(1, 100_000)).unwrap());
    let whole = image.open();
    assert!(!whole.facts().dirty && !free_ranges(&whole).is_empty());
    let damaged = |at: u64| {
        let copy = image.copy();
        File::options().write(true).open(&copy.devices[0]).unwrap().write_all_at(&[1], at).unwrap();
        copy
    };
    // A byte of the first, of the second; in a place that only the checksum sees.
    for at in [(64 << 10) + 4000, (64 << 20) + 4000] {
        let copy = damaged(at);
        let fs = copy.open();
        assert!(fs.facts().dirty);
        assert_eq!(free_ranges(&fs), []);
        tree::assert_same(&tree::of_driver(&fs), &tree::of_driver(&whole));
    }
}
