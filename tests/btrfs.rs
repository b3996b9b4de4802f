//! The btrfs driver beside the kernel: the same tree, the same subvolumes, the same free space. Needs root for mounts.

mod busy;
mod fill;
mod full;
mod image;
mod model;
mod roots;
mod shapes;
mod write;

use image::Image;

use crate::support::{kernel, sequences, tools};

/// A way to make a file system, and to mount it while it is filled.
struct Shape {
    name: &'static str,
    devices: usize,
    options: &'static [&'static str],
    mount: &'static str,
}

const fn shape(name: &'static str, devices: usize, options: &'static [&'static str], mount: &'static str) -> Shape {
    Shape { name, devices, options, mount }
}

const SHAPES: &[Shape] = &[
    shape("default", 1, &[], "rw"),
    shape("zlib", 1, &[], "rw,compress-force=zlib"),
    shape("lzo", 1, &[], "rw,compress-force=lzo"),
    shape("zstd", 1, &[], "rw,compress-force=zstd"),
    shape("node-4k", 1, &["-n", "4k"], "rw,compress=lzo"),
    shape("node-64k", 1, &["-n", "64k"], "rw"),
    shape("mixed", 1, &["-M"], "rw"),
    shape("xxhash", 1, &["--csum", "xxhash"], "rw"),
    shape("sha256", 1, &["--csum", "sha256"], "rw"),
    shape("blake2", 1, &["--csum", "blake2"], "rw"),
    // What mkfs.btrfs 7.3 makes by default.
    shape("group-tree", 1, &["-O", "block-group-tree"], "rw"),
    shape("no-features", 1, &["-O", "^no-holes,^skinny-metadata,^extref", "-R", "^free-space-tree"], "rw"),
    shape("space-cache", 1, &["-R", "^free-space-tree"], "rw,space_cache=v1"),
    shape("meta-uuid", 1, &[], "rw"),
    shape("quota", 1, &["-R", "quota"], "rw"),
    shape("dup", 1, &["-m", "dup", "-d", "dup"], "rw"),
    shape("single", 1, &["-m", "single", "-d", "single"], "rw,nodatasum"),
    shape("raid0", 2, &["-m", "raid0", "-d", "raid0"], "rw"),
    shape("raid1", 2, &["-m", "raid1", "-d", "raid1"], "rw"),
    shape("raid1c34", 4, &["-m", "raid1c4", "-d", "raid1c3"], "rw"),
    shape("raid10", 4, &["-m", "raid10", "-d", "raid10"], "rw"),
    shape("raid5", 3, &["-m", "raid1", "-d", "raid5"], "rw"),
    shape("raid6", 4, &["-m", "raid1c3", "-d", "raid6"], "rw"),
];

/// The first kernels that know what options of mkfs.btrfs make, where there are older ones in use.
const SINCE: &[(&str, (u32, u32))] = &[("block-group-tree", (6, 1))];

/// Runs `work` for every shape whose name is in `BTRFS_SHAPES`, or for all when there is none or it is `all`.
fn each_shape(work: impl Fn(&Shape, Image) + Sync) {
    let is_wanted = |shape: &&Shape| sequences::is_wanted("BTRFS", shape.name, true);
    let wanted = SHAPES.iter().filter(is_wanted).filter(|shape| kernel::knows(shape.options, SINCE));
    sequences::each(wanted, |shape| {
        eprintln!("{}", shape.name);
        let image = Image::make(shape.devices, 256, shape.options);
        if shape.name == "meta-uuid" {
            tools::ok("btrfstune", ["-m".as_ref(), image.devices[0].as_path()]);
        }
        work(shape, image);
    });
}
