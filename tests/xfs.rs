//! The XFS driver beside the kernel: the same tree, the same replay of the log, and the same free space. Needs root for mounts.

mod busy;
mod edits;
mod fill;
mod image;
mod model;
mod random;
mod shapes;

use image::Image;

use crate::support::{kernel, sequences};

/// Every shape that mkfs offers: name, options of mkfs.xfs.
const SHAPES: &[(&str, &[&str])] = &[
    ("v5", &[]),
    ("v5-1k", &["-b", "size=1024"]),
    ("v5-1k-dir-8k", &["-b", "size=1024", "-n", "size=8192"]),
    ("v5-2k", &["-b", "size=2048", "-i", "size=1024"]),
    ("v5-dir-64k", &["-n", "size=65536"]),
    ("v5-inode-2k", &["-i", "size=2048"]),
    ("v5-plain", &["-m", "crc=1,finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"]),
    ("v5-all", &["-m", "rmapbt=1", "-i", "nrext64=1"]),
    // Blocks larger than a page need Linux 6.12.
    ("v5-16k", &["-b", "size=16384"]),
    ("v5-64k", &["-b", "size=65536", "-m", "rmapbt=1", "-i", "size=2048", "-d", "agcount=2"]),
    ("v5-many-groups", &["-b", "size=1024", "-m", "rmapbt=1", "-d", "agcount=20", "-l", "size=8m"]),
    ("v5-one-group", &["-m", "rmapbt=1", "-d", "agcount=1"]),
    ("v5-sector-4k", &["-s", "size=4096", "-l", "su=32768"]),
    ("v5-exchange", &["-i", "exchange=1"]),
    // What mkfs.xfs 7.2 makes by default.
    ("v5-parent", &["-m", "rmapbt=1", "-i", "nrext64=1,exchange=1", "-n", "parent=1"]),
    ("v5-parent-1k", &["-b", "size=1024", "-i", "size=512", "-n", "parent=1,size=4096", "-d", "agcount=3"]),
    ("v5-meta-uuid", &[]),
];

/// Those that are tried when nothing else is asked for: small and large blocks, directory blocks and inodes, few features and all.
const USUAL: &[&str] = &["v5-1k-dir-8k", "v5-all", "v5-plain", "v5-parent"];

/// The first kernels that know what options of mkfs.xfs make, where there are older ones in use.
const SINCE: &[(&str, (u32, u32))] = &[("nrext64=1", (5, 19)), ("exchange=1", (6, 10)), ("parent=1", (6, 10))];

/// Whether this kernel is new enough for what the options make, so that it can be asked.
fn is_in_kernel(options: &[&str]) -> bool {
    kernel::knows(options, SINCE)
}

/// Runs `work` for every shape whose name is in `XFS_SHAPES` (`all` for each of them), or for the usual ones.
fn each_shape(work: impl Fn(&str, Image) + Sync) {
    let is_wanted = |name: &str| sequences::is_wanted("XFS", name, USUAL.contains(&name));
    let wanted = SHAPES.iter().filter(|(name, options)| is_wanted(name) && is_in_kernel(options));
    sequences::each(wanted, |(name, options)| {
        eprintln!("{name}");
        let image = Image::make(320, options);
        if *name == "v5-meta-uuid" {
            image.set_uuid("5d0d8b0e-92d5-4c0e-8a1c-b1a1f4c2f001");
        }
        work(name, image);
    });
}
