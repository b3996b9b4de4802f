//! What the driver writes: `btrfs check` finds nothing, the kernel shows the same tree, and goes on writing.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use hyper2kvm::disk::DiskMut;
use hyper2kvm::fs::btrfs::Btrfs;
use hyper2kvm::fs::{Attributes, Filesystem};
use rustix::fs::IFlags;

use super::image::Image;
use super::model::Model;
use super::shapes::without_stubs;
use super::{Shape, each_shape, fill};
use crate::ext::fill::go_on;
use crate::ext::tree::{self, Tree};
use crate::file_disk::FileDisk;
use crate::support::sequences::Sequences;
use crate::support::{fixtures, tools};

/// Where the first superblock is, where it tells features that matter to writers only, and the one of a tree of block groups.
const SUPERBLOCK: u64 = 64 << 10;
const COMPAT_RO_FLAGS: u64 = 180;
const BLOCK_GROUP_TREE: u8 = 1 << 3;

impl Image {
    /// The driver on all devices, for writing.
    pub(crate) fn open_mut(&self) -> Btrfs {
        let disks = self.devices.iter().map(|device| FileDisk::open(device) as Arc<dyn DiskMut>);
        Btrfs::open_devices_mut(disks.collect()).unwrap()
    }

    /// Has `btrfs check` look at everything.
    pub(crate) fn assert_clean(&self) {
        let mut flags = [0];
        let first = fs::File::open(&self.devices[0]).unwrap();
        first.read_exact_at(&mut flags, SUPERBLOCK + COMPAT_RO_FLAGS).unwrap();
        let is_new = flags[0] & BLOCK_GROUP_TREE != 0;
        let program = if is_new { fixtures::newer("btrfs") } else { "btrfs".to_owned() };
        for mode in ["original", "lowmem"] {
            let options = ["check", "--readonly", "--check-data-csum", "--mode", mode];
            let check = |first: &str| tools::output(&program, options.iter().copied().chain([first]));
            let once = || {
                let output = match &self.devices[..] {
                    [only] => check(only.to_str().unwrap()),
                    _ => self.with_loops(check),
                };
                let [stdout, stderr] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
                (format!("{stdout}{stderr}"), output)
            };
            // It looks for the other devices among all of the machine's, and for no more where another test detaches one meanwhile.
            let is_told = |(said, output): &(String, Output)| output.status.success() || !said.contains("cannot scan");
            let (said, output) = (0..9).map(|_| once()).find(is_told).unwrap_or_else(once);
            assert!(output.status.success(), "{mode}: {said}");
            for bad in ["ERROR", "errors found", "mismatch", "wrong", "incorrect"] {
                let lines = said.lines().filter(|line| line.contains(bad));
                let lines = lines.filter(|line| !line.contains("cannot scan"));
                let lines: Vec<&str> = lines.filter(|line| !line.contains("0 errors")).collect();
                assert!(lines.is_empty(), "{mode}: {said}");
            }
        }
    }
}

/// Changes every shape at random, `BTRFS_SEQUENCES` times.
#[test]
fn every_shape_is_written_as_the_checker_and_the_kernel_like_it() {
    each_shape(|shape, base| {
        if matches!(shape.name, "raid5" | "raid6") {
            base.mounted(shape.mount, fill::all);
            assert_eq!(base.open_mut().writer().unwrap_err().code(), "btrfs.feature");
            return;
        }
        let sequences = Sequences { kind: "BTRFS", shape: shape.name, usual: 1 };
        // What little there is is read soon, again and again.
        base.mounted(shape.mount, if sequences.count() > 1 { fill::little } else { fill::all });
        sequences.run(|| base.copy(), |image, seed| sequence(shape, image, seed), Image::assert_clean);
    });
}

/// One sequence of random changes to `image`, which the kernel then goes on with.
fn sequence(shape: &Shape, image: &Image, seed: u64) {
    let fs = image.open_mut();
    let mut model = Model::new(&fs, 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
    // What stands where a subvolume was has no times of its own.
    let plain = |tree: Tree, model: &Model<'_>| {
        let stubs = model.stubs();
        without_stubs(tree, &stubs.iter().map(String::as_str).collect::<Vec<_>>())
    };
    for _ in 0..3 {
        model.run(80);
        assert_eq!(model.refused, 0);
        let expected = plain(model.tree.clone(), &model);
        tree::assert_same(&plain(tree::of_driver(&fs), &model), &expected);
        fs.writer().unwrap().sync().unwrap();
        tree::assert_same(&plain(tree::of_driver(&fs), &model), &expected);
    }
    image.assert_clean();
    let expected = plain(model.tree.clone(), &model);
    tree::assert_same(&plain(tree::of_driver(&image.open()), &model), &expected);
    image.mounted(shape.mount, |root| {
        tree::assert_same(&expected, &plain(tree::of_kernel(root), &model));
        go_on(root, model.writable(), seed);
    });
}

/// What is new in a folder is compressed, or has no checksums, as the folder says: as what the kernel makes there.
#[test]
fn new_files_take_after_their_folders() {
    let image = Image::make(1, 256, &[]);
    image.mounted("rw", fill::folders);
    let fs = image.open_mut();
    let (writer, none) = (fs.writer().unwrap(), Attributes::default());
    let folders = ["zlib", "lzo", "zstd", "none", "nocow"].map(|name| format!("folder-{name}"));
    for folder in &folders {
        let dir = fs.lookup(fs.root(), folder.as_bytes()).unwrap().unwrap();
        writer.create(dir, b"ours", &none, &fill::text(1, 100_000)).unwrap();
        let inner = writer.create_dir(dir, b"ours-inner", &none).unwrap();
        writer.create(inner, b"ours", &none, b"short").unwrap();
        writer.symlink(dir, b"ours-link", b"ours", &none).unwrap();
    }
    let plain = writer.create(fs.root(), b"plain", &none, b"x").unwrap();
    assert_eq!(writer.set_xattr(plain, b"btrfs.compression", b"lz77").unwrap_err().code(), "btrfs.xattr");
    writer.set_xattr(plain, b"btrfs.compression", b"zstd:3").unwrap();
    writer.sync().unwrap();
    image.assert_clean();
    image.mounted("rw", |root| {
        let of = |path: &Path| {
            let flags = fs::File::open(path).map(|file| rustix::fs::ioctl_getflags(file).unwrap());
            let mut value = [0; 99];
            let len = rustix::fs::lgetxattr(path, "btrfs.compression", &mut value[..]).unwrap_or(0);
            (flags.unwrap(), value[..len].to_vec())
        };
        for folder in &folders {
            let dir = root.join(folder);
            fs::write(dir.join("theirs"), fill::text(1, 100_000)).unwrap();
            fs::create_dir(dir.join("theirs-inner")).unwrap();
            fs::write(dir.join("theirs-inner/theirs"), "short").unwrap();
            std::os::unix::fs::symlink("theirs", dir.join("theirs-link")).unwrap();
            for [ours, theirs] in
                [["ours", "theirs"], ["ours-inner", "theirs-inner"], ["ours-inner/ours", "theirs-inner/theirs"]]
            {
                assert_eq!(of(&dir.join(ours)), of(&dir.join(theirs)), "{folder}/{ours}");
            }
            assert!(rustix::fs::lgetxattr(dir.join("ours-link"), "btrfs.compression", &mut [0; 99][..]).is_err());
        }
        assert_eq!(of(&root.join("plain")), (IFlags::COMPRESSED, b"zstd:3".to_vec()));
    });
    image.assert_clean();
}
