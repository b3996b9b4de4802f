//! What no image may do to the driver, on small images that mke2fs makes and the tests damage.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

mod bounds;
mod edits;
mod hostile;
mod replay;

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::*;
use crate::disk::{Checked, Memory};
use crate::fs::everything;

/// Runs a program of e2fsprogs; e2fsck may say that it changed something.
#[allow(clippy::disallowed_methods, reason = "e2fsprogs is the second implementation")]
fn run(program: &str, arguments: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = std::process::Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let right = output.status.success() || (program == "e2fsck" && output.status.code() == Some(1));
    assert!(right, "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// An image with a tree that uses every kind of map and directory.
fn make(options: &[&str], kib: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fill(&root);
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(kib << 10).unwrap();
    let (image, root) = (image.to_str().unwrap(), root.to_str().unwrap());
    run("mke2fs", &[&["-q", "-F", "-d", root], options, &[image]].concat());
    // Gives large directories an index.
    run("e2fsck", &["-fyD", image]);
    std::fs::OpenOptions::new().read(true).open(image).map(|mut file| read_all(&mut file)).unwrap()
}

fn read_all(file: &mut std::fs::File) -> Vec<u8> {
    use std::io::Read;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn fill(root: &Path) {
    use std::os::unix::fs::FileExt;
    std::fs::create_dir_all(root.join("large")).unwrap();
    for index in 0..200 {
        std::fs::write(root.join(format!("large/{index}-a-name-that-takes-some-room")), "x").unwrap();
    }
    std::fs::write(root.join("file"), vec![7; 30_000]).unwrap();
    std::os::unix::fs::symlink("t".repeat(100), root.join("link")).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    for index in 0..12 {
        sparse.write_all_at(&[index + 1; 4096], u64::from(index) * 65536).unwrap();
    }
}

/// ext4 without checksums, so that what is damaged is parsed.
fn plain() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"], 4096)).clone()
}

/// The same with checksums and wide descriptors.
fn summed() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-t", "ext4", "-b", "1024", "-O", "metadata_csum,64bit"], 4096)).clone()
}

/// ext3: maps of indirect blocks.
fn mapped() -> Vec<u8> {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| make(&["-t", "ext3", "-b", "1024"], 4096)).clone()
}

fn disk(bytes: Vec<u8>) -> Arc<Checked<Memory>> {
    Checked::wrap(Memory::new(bytes))
}

fn lookup(fs: &Ext, path: &str) -> Inode {
    let names = path.split('/').filter(|name| !name.is_empty());
    names.fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap().unwrap())
}

/// Where inode `path` starts in the image.
fn inode_at(image: &[u8], path: &str) -> usize {
    let fs = Ext::open(disk(image.to_vec())).unwrap();
    let number = lookup(&fs, path).0;
    fs.reading(|view| {
        let index = u64::from(u32::try_from(number).unwrap() - 1);
        let ipg = u64::from(view.sb.inodes_per_group.get());
        let group = view.group(u32::try_from(index / ipg).unwrap())?;
        let table = group.inode_table() * view.sb.block_size.get();
        Ok(usize::try_from(table + index % ipg * view.sb.inode_size as u64).unwrap())
    })
    .unwrap()
}

/// Where block `logical` of `path` starts in the image.
fn block_at(image: &[u8], path: &str, logical: u64) -> usize {
    let fs = Ext::open(disk(image.to_vec())).unwrap();
    let inode = lookup(&fs, path);
    fs.reading(|view| {
        let block = view.physical(&view.inode(inode)?, logical)?.unwrap();
        Ok(usize::try_from(block * view.sb.block_size.get()).unwrap())
    })
    .unwrap()
}

/// Everything a caller may do, with bounds that a caller has. The first error.
fn exercise(fs: &Ext) -> Result<()> {
    everything::read(fs, 600, b"7-a-name-that-takes-some-room").and(edit(fs))
}

/// Some of every change. Errors are expected of damaged images.
fn edit(fs: &Ext) -> Result<()> {
    let Ok(writer) = fs.writer() else { return Ok(()) };
    let root = fs.root();
    let attributes =
        Attributes { mode: 0o644, xattrs: vec![(b"user.x".to_vec(), vec![1; 300])], ..Attributes::default() };
    let mut results = Vec::new();
    for name in [&b"file"[..], b"sparse"] {
        if let Ok(Some(inode)) = fs.lookup(root, name) {
            results.push(writer.append(inode, &[1; 5000]));
            results.push(writer.replace(inode, &[2; 9000]));
            results.push(writer.set_xattr(inode, b"user.y", &[3; 100]));
        }
    }
    for name in [&b"large"[..], b""] {
        let dir = if name.is_empty() { Some(root) } else { fs.lookup(root, name).unwrap_or(None) };
        if let Some(dir) = dir {
            for index in 0..40 {
                let name = format!("{index}-created-with-a-name-that-takes-room");
                results.push(writer.create(dir, name.as_bytes(), &attributes, &[4; 2000]).map(drop));
            }
            results.push(writer.remove(dir, b"9-a-name-that-takes-some-room"));
        }
    }
    results.push(writer.create_dir(root, b"new dir", &attributes).map(drop));
    results.push(writer.symlink(root, b"new link", &[b'x'; 200], &attributes).map(drop));
    if let (Ok(Some(large)), Ok(Some(new))) = (fs.lookup(root, b"large"), fs.lookup(root, b"new dir")) {
        results.push(writer.rename(root, b"file", large, b"moved with a name that takes room"));
        results.push(writer.rename(large, b"moved with a name that takes room", root, b"file"));
        results.push(writer.rename(root, b"large", new, b"large"));
        results.push(writer.rename(new, b"large", root, b"large"));
        results.push(writer.rename(root, b"new dir", large, b"inner"));
        results.push(writer.remove_dir(large, b"inner"));
        results.push(writer.set_owner(large, 0o700, 70_000, 1));
        results.push(writer.remove_xattr(large, b"user.x"));
    }
    for name in [&b"file"[..], b"sparse", b"link"] {
        results.push(writer.remove(root, name));
    }
    results.push(writer.sync());
    results.into_iter().filter(|result| !matches!(result, Err(error) if error.code() == "ext.not-found")).collect()
}

/// Opens an image both ways and does everything with it, within a time that no bounded work exceeds. What failed first.
fn survive(bytes: &[u8]) -> Result<()> {
    let start = Instant::now();
    let read = Ext::open(disk(bytes.to_vec())).and_then(|fs| exercise(&fs));
    let written = Ext::open_mut(disk(bytes.to_vec())).and_then(|fs| match &fs.refusal {
        Some(refusal) => exercise(&fs).and(Err(refusal.clone())),
        None => exercise(&fs),
    });
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    read.and(written)
}

/// The code of the first failure.
fn code(bytes: &[u8]) -> &'static str {
    survive(bytes).map_or_else(|error| error.code(), |()| "none")
}

#[test]
fn sound_images_are_sound() {
    for image in [plain(), summed(), mapped()] {
        survive(&image).unwrap();
    }
}
