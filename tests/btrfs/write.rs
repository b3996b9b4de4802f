//! What the driver writes: `btrfs check` finds nothing, the kernel shows the same tree, and goes on writing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hyper2kvm::disk::DiskMut;
use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::btrfs::Btrfs;

use super::image::Image;
use super::model::Model;
use super::shapes::without_stubs;
use super::{each_shape, fill};
use crate::ext::fill::directory;
use crate::ext::tree;
use crate::file_disk::FileDisk;
use crate::support::tools;

impl Image {
    /// The driver on all devices, for writing.
    pub(crate) fn open_mut(&self) -> Btrfs {
        let disks = self.devices.iter().map(|device| FileDisk::open(device) as Arc<dyn DiskMut>);
        Btrfs::open_devices_mut(disks.collect()).unwrap()
    }

    /// Has `btrfs check` look at everything.
    pub(crate) fn assert_clean(&self) {
        for mode in ["original", "lowmem"] {
            let options = ["check", "--readonly", "--check-data-csum", "--mode", mode];
            let output = self.with_loops(|first| tools::output("btrfs", options.iter().copied().chain([first])));
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{mode}: {said}");
            for bad in ["ERROR", "errors found", "mismatch", "wrong", "incorrect"] {
                let lines = said.lines().filter(|line| line.contains(bad));
                // It looks for the other devices among all of the machine's, where other tests attach and detach theirs.
                let lines = lines.filter(|line| !line.contains("cannot scan"));
                let lines: Vec<&str> = lines.filter(|line| !line.contains("0 errors")).collect();
                assert!(lines.is_empty(), "{mode}: {said}");
            }
        }
    }
}

fn kernel_writes(root: &Path) {
    fs::create_dir(root.join("from the kernel")).unwrap();
    directory(root, "from the kernel/more", 300);
    fs::write(root.join("from the kernel/large"), fill::text(9, 3_000_000)).unwrap();
}

/// Changes every shape at random, `BTRFS_SEQUENCES` times.
#[test]
fn every_shape_is_written_as_the_checker_and_the_kernel_like_it() {
    let sequences = std::env::var("BTRFS_SEQUENCES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_u64);
    each_shape(|shape, image| {
        image.mounted(shape.mount, fill::all);
        if shape.name.starts_with("raid5") || shape.name.starts_with("raid6") {
            assert_eq!(image.open_mut().writer().unwrap_err().code(), "btrfs.feature");
            return;
        }
        for number in 1..=sequences {
            change(&image.copy(), 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number));
        }
    });
}

fn change(image: &Image, seed: u64) {
    let fs = image.open_mut();
    let mut model = Model::new(&fs, seed);
    for _ in 0..3 {
        model.run(80);
        assert_eq!(model.refused, 0);
        tree::assert_same(&tree::of_driver(&fs), &model.tree);
        fs.writer().unwrap().sync().unwrap();
        tree::assert_same(&tree::of_driver(&fs), &model.tree);
    }
    image.assert_clean();
    tree::assert_same(&tree::of_driver(&image.open()), &model.tree);
    let stubs = model.stubs();
    let stubs: Vec<&str> = stubs.iter().map(String::as_str).collect();
    let expected = without_stubs(model.tree.clone(), &stubs);
    image.mounted("ro", |root| tree::assert_same(&expected, &without_stubs(tree::of_kernel(root), &stubs)));
    image.mounted("rw", kernel_writes);
    image.assert_clean();
}
