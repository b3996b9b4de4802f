//! Snapshots of busy file systems: what the driver makes of their journals, and what the kernel does.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use hyper2kvm::chain::OpenOptions;
use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::ext::Ext;
use hyper2kvm::pipeline::{guest, source};
use hyper2kvm::session::Session;

use super::image::Image;
use super::{fill, tree};
use crate::file_disk::FileDisk;

/// A small generator, so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Does `count` random things to the tree, with an fsync now and then. What is open stays open: orphans.
fn work(root: &Path, random: &mut Random, count: u32, open: &mut Vec<File>) {
    for step in 0..count {
        let name = |random: &mut Random| root.join(format!("d{}/f{}", random.below(3), random.below(60)));
        let (a, b) = (name(random), name(random));
        match random.below(12) {
            0..=3 => {
                let len = usize::try_from(random.below(20_000)).unwrap();
                fs::write(&a, fill::noise(u64::from(step), len)).unwrap();
            }
            4 => drop(fs::rename(&a, &b)),
            5 => {
                if let Ok(file) = File::open(&a) {
                    open.push(file);
                }
                drop(fs::remove_file(&a));
            }
            6 => drop(fs::hard_link(&a, &b)),
            7 => drop(symlink("t".repeat(usize::try_from(random.below(100) + 1).unwrap()), &b)),
            8 => drop(rustix::fs::lsetxattr(&a, "user.x", &fill::noise(1, 200), rustix::fs::XattrFlags::empty())),
            9 => {
                if let Ok(file) = File::options().write(true).open(&a) {
                    file.set_len(random.below(30_000)).unwrap();
                    file.write_all_at(b"end", random.below(40_000)).unwrap();
                }
            }
            10 => {
                let dir = root.join(format!("x{}", random.below(20)));
                if fs::create_dir(&dir).is_err() {
                    drop(fs::remove_dir_all(&dir));
                } else {
                    fill::directory(&dir, "many", 30);
                }
            }
            _ => {
                if let Ok(file) = File::open(&a) {
                    rustix::fs::fsync(&file).unwrap();
                }
            }
        }
    }
}

/// Takes snapshots of a file system in use and compares our replay with the kernel's.
fn snapshots(options: &[&str], mount: &str, seed: u64) {
    let image = Image::make(40, options);
    image.mounted("rw", |root| (0..3).for_each(|dir| fs::create_dir(root.join(format!("d{dir}"))).unwrap()));
    let mut random = Random(seed);
    let taken: Vec<Image> = image.mounted(&format!("rw,{mount}"), |root| {
        let mut open = Vec::new();
        let taken = (0..4).map(|_| {
            let count = u32::try_from(random.below(150) + 20).unwrap();
            work(root, &mut random, count, &mut open);
            // A transaction ends here; what follows may be in the journal, or only in memory.
            rustix::fs::fsync(File::open(root.join("d0")).unwrap()).unwrap();
            work(root, &mut random, 10, &mut open);
            image.copy()
        });
        taken.collect()
    });
    for (index, snapshot) in taken.iter().enumerate() {
        eprintln!("{options:?} {mount} seed {seed} snapshot {index}");
        compare(snapshot);
    }
}

fn compare(snapshot: &Image) {
    let theirs = snapshot.copy();
    let kernel = theirs.mounted("rw", tree::of_kernel);
    let read = Ext::open(FileDisk::open(&snapshot.path)).unwrap();
    assert!(read.facts().dirty);
    tree::assert_same(&tree::of_driver(&read), &kernel);
    let fs = Ext::open_mut(FileDisk::open(&snapshot.path)).unwrap();
    assert!(fs.facts().dirty);
    tree::assert_same(&tree::of_driver(&fs), &kernel);
    fs.writer().unwrap().sync().unwrap();
    snapshot.assert_clean();
    assert!(!Ext::open(FileDisk::open(&snapshot.path)).unwrap().facts().dirty);
    // The kernel has nothing to replay: it would refuse to, on a device that cannot be written.
    snapshot.mounted("ro,noload", |root| tree::assert_same(&tree::of_kernel(root), &kernel));
}

#[test]
fn snapshots_are_replayed_as_the_kernel_does() {
    snapshots(&["-t", "ext4", "-b", "4096"], "commit=1", 11);
    snapshots(&["-t", "ext4", "-b", "1024"], "data=journal", 12);
    snapshots(&["-t", "ext4", "-O", "orphan_file,metadata_csum_seed"], "commit=1", 13);
    snapshots(&["-t", "ext4", "-O", "^metadata_csum"], "journal_checksum", 14);
    snapshots(&["-t", "ext4", "-O", "^64bit,^metadata_csum,uninit_bg"], "nodelalloc", 15);
    snapshots(&["-t", "ext4", "-O", "inline_data"], "data=writeback", 16);
    snapshots(&["-t", "ext3"], "commit=1", 17);
    snapshots(&["-t", "ext3", "-b", "1024", "-I", "128"], "data=journal", 18);
}

#[test]
fn fast_commits_are_refused_and_the_disk_stays_as_it_was() {
    let image = Image::make(40, &["-t", "ext4", "-O", "fast_commit"]);
    let snapshot = image.mounted("rw", |root| {
        fs::write(root.join("first"), "committed in full").unwrap();
        rustix::fs::sync();
        for index in 0..5 {
            let file = File::create(root.join(format!("fast-{index}"))).unwrap();
            file.write_all_at(b"fast", 0).unwrap();
            rustix::fs::fsync(&file).unwrap();
        }
        image.copy()
    });
    let before = fs::read(&snapshot.path).unwrap();
    let fs = Ext::open_mut(FileDisk::open(&snapshot.path)).unwrap();
    assert_eq!(fs.writer().unwrap_err().code(), "ext.journal");
    fs.free_ranges(&mut |range| panic!("{range:?} is not free")).unwrap();
    assert!(fs.lookup(fs.root(), b"no such name").unwrap().is_none());
    assert!(fs::read(&snapshot.path).unwrap() == before);
}

#[test]
fn free_space_of_a_disk_that_is_copied_as_it_is_counts_only_when_nothing_is_pending() {
    let image = Image::make(40, &["-t", "ext4"]);
    let free = |image: &Image| {
        let session = Session::with_defaults();
        let options = OpenOptions { format: Some("raw".into()), ..OpenOptions::default() };
        let single = source::open_disk(image.path.to_str().unwrap(), None, &options, &session).unwrap();
        guest::without_free_space(&single.disk, &session).unwrap().describe()
    };
    let fs = Ext::open(FileDisk::open(&image.path)).unwrap();
    let idle: u64 = fs.idle_ranges().unwrap().iter().map(|range| range.end - range.start).sum();
    assert_eq!(free(&image), ("trim", format!("{} bytes free", fs.free().unwrap() + idle)));
    let snapshot = image.mounted("rw", |root| {
        fs::create_dir(root.join("d0")).unwrap();
        rustix::fs::fsync(File::open(root.join("d0")).unwrap()).unwrap();
        image.copy()
    });
    assert_eq!(free(&snapshot), ("trim", "0 bytes free".to_owned()));
}
