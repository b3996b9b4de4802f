//! What no image may do to the driver, on small images that mkfs.btrfs makes and the tests damage.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

mod bounds;
mod cut;
mod growth;
mod hostile;
mod writing;

use std::path::Path;
use std::sync::OnceLock;

use super::checksum::Checksum;
use super::*;
use crate::disk::bytes::{le32, put};
use crate::disk::{Checked, Memory};

/// Nodes are as small as sectors, so that trees have levels.
const NODE: usize = 4096;
const SUPER: usize = 64 << 10;

/// A small image with a tree of directories, a long and a short file, attributes and a link.
fn image() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(make).clone()
}

#[allow(clippy::disallowed_methods, reason = "btrfs-progs is the second implementation")]
fn make() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let (root, image) = (folder.path().join("root"), folder.path().join("image"));
    fill(&root);
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let options = ["-M", "-n", "4096", "-m", "single", "-d", "single", "-L", "label", "--shrink", "--rootdir"];
    mkfs(options.map(Path::new).into_iter().chain([&*root, &*image]));
    std::fs::read(image).unwrap()
}

#[allow(clippy::disallowed_methods, reason = "btrfs-progs is the second implementation")]
fn mkfs<'a>(options: impl Iterator<Item = &'a Path>) {
    let mkfs =
        std::process::Command::new("mkfs.btrfs").args(["-q", "-f"]).args(options).env("PATH", search_path()).output();
    let output = mkfs.unwrap_or_else(|error| panic!("mkfs.btrfs is needed: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where programs are.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

#[allow(clippy::disallowed_methods, reason = "a tree for mkfs.btrfs")]
fn fill(root: &Path) {
    std::fs::create_dir_all(root.join("dir")).unwrap();
    for index in 0..120 {
        std::fs::write(root.join(format!("dir/{index}-a-name-that-takes-some-room")), "x").unwrap();
    }
    let long: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(root.join("long"), long).unwrap();
    std::fs::write(root.join("short"), "inline").unwrap();
    std::os::unix::fs::symlink("target", root.join("link")).unwrap();
}

/// Has `btrfs check` look at everything in an image.
#[allow(clippy::disallowed_methods, reason = "btrfs-progs is the second implementation")]
fn assert_clean(image: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, image).unwrap();
    let check = std::process::Command::new("btrfs")
        .args(["check", "--readonly", "--force", "--check-data-csum"])
        .arg(&path)
        .env("PATH", search_path())
        .output();
    let output = check.unwrap_or_else(|error| panic!("btrfs is needed: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

fn disk(image: Vec<u8>) -> Arc<dyn Disk> {
    Checked::wrap(Memory::new(image))
}

fn open(image: &[u8]) -> Result<Btrfs> {
    Btrfs::open(disk(image.to_vec()))
}

/// Changes the superblock and makes its checksum right.
fn with_super(image: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut image = image.to_vec();
    let bytes = &mut image[SUPER..SUPER + superblock::LEN];
    change(bytes);
    seal(bytes);
    image
}

fn seal(bytes: &mut [u8]) {
    let sum = Checksum::Crc32c.of(&bytes[32..]);
    put(bytes, 0, &sum);
}

/// Where the nodes of a tree at one level are on the device, those in use.
fn nodes(image: &[u8], tree: u64, level: u8) -> Vec<usize> {
    let fsid = &image[SUPER + 0x20..SUPER + 0x30];
    let newest = |bytes: &[u8]| le64(bytes, 80);
    let is_it = |at: &usize| {
        let bytes = &image[*at..*at + NODE];
        *at >= 1 << 20 && &bytes[32..48] == fsid && le64(bytes, 88) == tree && bytes[100] == level
    };
    let all: Vec<usize> = (0..image.len() / NODE).map(|index| index * NODE).filter(is_it).collect();
    let generation = all.iter().map(|at| newest(&image[*at..])).max().unwrap_or(0);
    all.into_iter().filter(|at| newest(&image[*at..]) == generation).collect()
}

/// Changes every node of a tree at one level and makes the checksums right.
fn with_nodes(image: &[u8], tree: u64, level: u8, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let places = nodes(image, tree, level);
    assert!(!places.is_empty(), "tree {tree} has no node of level {level}");
    let mut image = image.to_vec();
    for at in places {
        let bytes = &mut image[at..at + NODE];
        change(bytes);
        seal(bytes);
    }
    image
}

/// Changes every item of a kind in a tree.
fn with_items(image: &[u8], tree: u64, kind: u8, change: impl Fn(u64, &mut [u8])) -> Vec<u8> {
    with_nodes(image, tree, 0, |bytes| {
        for slot in 0..le32(bytes, 96) as usize {
            let at = 101 + slot * 25;
            let key = Key::read(bytes, at);
            let (offset, len) = (le32(bytes, at + 17) as usize, le32(bytes, at + 21) as usize);
            if key.kind == kind {
                change(key.objectid, &mut bytes[101 + offset..101 + offset + len]);
            }
        }
    })
}

/// Opens an image and reads everything in it; the codes of all errors.
fn codes(image: &[u8]) -> Vec<&'static str> {
    let fs = match open(image) {
        Ok(fs) => fs,
        Err(error) => return vec![error.code()],
    };
    let mut codes = Vec::new();
    walk(&fs, &mut |error| codes.push(error.code()));
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Reads everything, within a caller's bounds.
fn walk(fs: &Btrfs, fail: &mut dyn FnMut(Error)) {
    let (mut pending, mut left) = (vec![fs.root()], 300);
    while let Some(inode) = pending.pop().filter(|_| left > 0) {
        left -= 1;
        match fs.stat(inode) {
            Err(error) => fail(error),
            Ok(stat) if stat.kind == super::super::FileKind::Directory => {
                let listed = fs.read_dir(inode, 0, &mut |entry| {
                    assert!(!entry.name.contains(&b'/'));
                    match fs.lookup(inode, &entry.name) {
                        Ok(_) => pending.push(entry.inode),
                        Err(error) => fail(error),
                    }
                    if pending.len() > 500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                let _ = listed.map_err(&mut *fail);
            }
            Ok(stat) if stat.kind == super::super::FileKind::Symlink => drop(fs.read_link(inode).map_err(&mut *fail)),
            Ok(_) => {
                for offset in [0, 100_000] {
                    let _ = fs.read_at(inode, &mut [0; 100_000], offset).map_err(&mut *fail);
                }
            }
        }
        let _ = fs.xattrs(inode).map_err(&mut *fail);
    }
    let _ = fs.subvolumes().map_err(&mut *fail);
    let _ = fs.usage().map_err(&mut *fail);
    let mut last = 0;
    let free = fs.free_ranges(&mut |range| {
        assert!(last <= range.start && range.start < range.end && range.end <= fs.facts().size);
        last = range.end;
        ControlFlow::Continue(())
    });
    let _ = free.map_err(&mut *fail);
}

fn free_bytes(fs: &Btrfs) -> u64 {
    let mut bytes = 0;
    fs.free_ranges(&mut |range| {
        bytes += range.end - range.start;
        ControlFlow::Continue(())
    })
    .unwrap();
    bytes
}

#[test]
fn a_good_image_reads_well() {
    let fs = open(&image()).unwrap();
    assert_eq!(codes(&image()), [""; 0]);
    assert_eq!(fs.facts().label.as_deref(), Some("label"));
    assert!(!fs.facts().dirty && free_bytes(&fs) > 5 << 20);
    let file = fs.lookup(fs.root(), b"long").unwrap().unwrap();
    let mut content = vec![0; 200_000];
    assert_eq!(fs.read_at(file, &mut content, 4001).unwrap(), 155_999);
    assert!(content[3..155_999].chunks_exact(4).enumerate().all(|(index, word)| le32(word, 0) == index as u32 + 1001));
    assert_eq!(fs.read_at(file, &mut content, 160_000).unwrap(), 0);
    let link = fs.lookup(fs.root(), b"link").unwrap().unwrap();
    assert_eq!(fs.read_link(link).unwrap(), b"target");
    assert_eq!(fs.read_link(file).unwrap_err().code(), "btrfs.name");
    assert_eq!(fs.read_at(link, &mut content, 0).unwrap_err().code(), "btrfs.name");
    assert_eq!(fs.lookup(file, b"x").unwrap_err().code(), "btrfs.name");
    assert_eq!(fs.writer().unwrap_err().code(), "btrfs.read-only");
    assert_eq!(fs.stat(Inode(u64::MAX)).unwrap_err().code(), "btrfs.corrupt");
    assert_eq!(fs.stat(Inode(999_999)).unwrap_err().code(), "btrfs.corrupt");
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let fs = open(&image()).unwrap();
    let dir = fs.lookup(fs.root(), b"dir").unwrap().unwrap();
    let (mut names, mut cursor) = (Vec::new(), 0);
    loop {
        let before = names.len();
        fs.read_dir(dir, cursor, &mut |entry| {
            cursor = entry.cursor;
            names.push(entry.name);
            if names.len() % 7 == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        if names.len() == before {
            break;
        }
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 120);
}
