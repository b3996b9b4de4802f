//! What no image may do to the driver, on small images that mkfs.xfs makes and the tests damage.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

mod bounds;
mod damage;
mod edits;
mod hostile;
mod replay;

use std::fmt::Write as _;
use std::sync::OnceLock;

use super::node::Fork;
use super::*;
use crate::disk::bytes::{be32, put, put_be32, put_be64};
use crate::disk::{Checked, Memory};
use crate::fs::everything;

/// Runs a program of xfsprogs.
#[allow(clippy::disallowed_methods, reason = "xfsprogs is the second implementation")]
fn run(program: &str, arguments: &[&str]) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = std::process::Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image of 16 MiB in blocks of 1 KiB with a tree that uses most forms of directories and attributes.
#[allow(clippy::disallowed_methods, reason = "the image that mkfs made")]
fn make(options: &[&str], is_v5: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("content"), vec![7; 30_000]).unwrap();
    let mut proto = format!("/dev/null\n0 0\nd--755 0 0\nfile ---644 0 0 {}\n", path("content"));
    // This mkfs writes targets in blocks of their own as version 4 has them, and this xfs_db cannot write long values there.
    let (target, longest) = if is_v5 { (200, 3000) } else { (900, 90) };
    writeln!(proto, "link l--777 0 0 {}\nshort d--755 0 0\none ---644 0 0 /dev/null\n$", "t".repeat(target)).unwrap();
    for (name, count) in [("block", 12), ("leaf", 200), ("node", 600)] {
        writeln!(proto, "{name} d--755 0 0").unwrap();
        (0..count).for_each(|i| writeln!(proto, "{i}-a-name-that-takes-some-room ---644 0 0 /dev/null").unwrap());
        writeln!(proto, "$").unwrap();
    }
    writeln!(proto, "$").unwrap();
    std::fs::write(path("proto"), proto).unwrap();
    std::fs::File::create(path("image")).unwrap().set_len(16 << 20).unwrap();
    let always = ["--unsupported", "-q", "-f", "-b", "size=1024", "-d", "agcount=1", "-p", &path("proto")];
    run("mkfs.xfs", &[&always, options, &[&path("image")]].concat());
    let inode = format!("inode {}", lookup(&opened(&std::fs::read(path("image")).unwrap()), "file").0);
    let mut commands = vec!["-x", "-c", &inode];
    let sets: Vec<String> =
        (1..41).map(|i| format!("attr_set -u -v {} name-{i}", if i == 40 { longest } else { i * 2 })).collect();
    sets.iter().for_each(|set| commands.extend(["-c", set]));
    run("xfs_db", &[&commands[..], &[&path("image")]].concat());
    std::fs::read(path("image")).unwrap()
}

/// Version 4: no checksums, so that what is damaged is parsed.
fn plain() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-m", "crc=0", "-i", "size=256"], false)).clone()
}

/// Version 5.
fn summed() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&[], true)).clone()
}

/// The superblock of a version 4 image.
pub(super) fn superblock() -> Vec<u8> {
    plain()[..512].to_vec()
}

fn disk(bytes: Vec<u8>) -> Arc<Checked<Memory>> {
    Checked::wrap(Memory::new(bytes))
}

fn opened(image: &[u8]) -> Xfs {
    Xfs::open(disk(image.to_vec())).unwrap()
}

fn lookup(fs: &Xfs, path: &str) -> Inode {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap().unwrap())
}

/// Where inode `path` starts in the image.
fn inode_at(image: &[u8], path: &str) -> usize {
    let fs = opened(image);
    let (block, at) = fs.state().sb.inode_place(lookup(&fs, path).0).unwrap();
    block as usize + at
}

/// Where block `logical` of a fork of `path` starts in the image.
fn block_at(image: &[u8], path: &str, fork: Fork, logical: u64) -> usize {
    let fs = opened(image);
    let inode = lookup(&fs, path);
    let place = fs.reading(|view| {
        let piece = view.map(&view.inode(inode)?, fork, logical)?;
        view.sb.run(piece.block.unwrap(), 1)
    });
    place.unwrap() as usize
}

/// Brings the checksum of inode `path` of a version 5 image up to date.
fn seal_inode(image: &mut [u8], at: usize) {
    block::seal(&mut image[at..at + 512], block::INODE_CRC);
}

/// Everything a caller may do, with bounds that a caller has. The first error.
fn exercise(fs: &Xfs) -> Result<()> {
    everything::read(fs, 900, b"7-a-name-that-takes-some-room")
}

/// The code of what goes wrong first; empty if nothing does.
fn code(image: &[u8]) -> &'static str {
    match Xfs::open(disk(image.to_vec())).and_then(|fs| exercise(&fs)) {
        Ok(()) => "",
        Err(error) => error.code(),
    }
}

fn free(image: &[u8]) -> u64 {
    let mut sum = 0;
    opened(image)
        .free_ranges(&mut |range| {
            sum += range.end - range.start;
            ControlFlow::Continue(())
        })
        .unwrap();
    sum
}

#[test]
fn whole_images_are_read_to_the_end() {
    for (image, target, longest) in [(plain(), 900, 90), (summed(), 200, 3000)] {
        assert_eq!(code(&image), "");
        let fs = opened(&image);
        assert!(!fs.facts().dirty);
        assert!(free(&image) > 1 << 20);
        let file = lookup(&fs, "file");
        let values = fs.xattrs(file).unwrap();
        assert_eq!(values.len(), 40);
        assert_eq!(values.iter().find(|(name, _)| name == b"user.name-40").unwrap().1.len(), longest);
        let mut buf = vec![0; 40_000];
        assert_eq!(fs.read_at(file, &mut buf, 0).unwrap(), 30_000);
        assert!(buf[..30_000] == [7; 30_000]);
        assert_eq!(fs.read_link(lookup(&fs, "link")).unwrap(), vec![b't'; target]);
        for (dir, count) in [("short", 1), ("block", 12), ("leaf", 200), ("node", 600)] {
            let (inode, mut names) = (lookup(&fs, dir), Vec::new());
            fs.read_dir(inode, 0, &mut |entry| {
                names.push(entry);
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(names.len(), count, "{dir}");
            names.iter().for_each(|entry| assert_eq!(fs.lookup(inode, &entry.name).unwrap(), Some(entry.inode)));
            assert_eq!(fs.lookup(inode, b"nothing").unwrap(), None);
        }
    }
}
