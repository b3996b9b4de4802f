//! The files of a tree with what every reader can tell about them: a name, a kind, the content or a link's target.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hyper2kvm::fs::{FileKind, Filesystem, Inode};

/// Paths, as bytes without a leading slash, with what is there.
pub(crate) type Files = BTreeMap<Vec<u8>, File>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum File {
    Directory,
    Regular(u64, blake3::Hash),
    Link(Vec<u8>),
    Other,
}

/// What lies in a directory of this host.
pub(crate) fn of_host(root: &Path) -> Files {
    let mut files = Files::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        for child in std::fs::read_dir(root.join(std::ffi::OsStr::from_bytes(&path))).unwrap() {
            let child = child.unwrap();
            let (place, path) = (child.path(), join(&path, child.file_name().as_bytes()));
            let kind = child.file_type().unwrap();
            let file = if kind.is_dir() {
                pending.push(path.clone());
                File::Directory
            } else if kind.is_file() {
                let mut hasher = blake3::Hasher::new();
                let len = std::io::copy(&mut std::fs::File::open(place).unwrap(), &mut hasher).unwrap();
                File::Regular(len, hasher.finalize())
            } else if kind.is_symlink() {
                File::Link(std::fs::read_link(place).unwrap().as_os_str().as_bytes().to_vec())
            } else {
                File::Other
            };
            files.insert(path, file);
        }
    }
    files
}

/// What a driver shows; every name that it lists it also finds.
pub(crate) fn of_driver(fs: &dyn Filesystem) -> Files {
    let mut files = Files::new();
    let mut pending = vec![(Vec::new(), fs.root())];
    while let Some((dir, inode)) = pending.pop() {
        let mut children = Vec::new();
        fs.read_dir(inode, 0, &mut |child| {
            children.push(child);
            ControlFlow::Continue(())
        })
        .unwrap();
        for child in children {
            assert_eq!(fs.lookup(inode, &child.name).unwrap(), Some(child.inode), "{:?}", child.name);
            let path = join(&dir, &child.name);
            let stat = fs.stat(child.inode).unwrap();
            assert!(child.kind.is_none_or(|kind| kind == stat.kind));
            let file = match stat.kind {
                FileKind::Directory => {
                    pending.push((path.clone(), child.inode));
                    File::Directory
                }
                FileKind::Regular => {
                    let (len, hash) = content(fs, child.inode);
                    assert_eq!(len, stat.size);
                    File::Regular(len, hash)
                }
                FileKind::Symlink => File::Link(fs.read_link(child.inode).unwrap()),
                _ => File::Other,
            };
            files.insert(path, file);
        }
    }
    files
}

/// The length and the digest of a file's content, read in pieces of an odd size.
fn content(fs: &dyn Filesystem, inode: Inode) -> (u64, blake3::Hash) {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; 1_000_003];
    let mut offset = 0;
    loop {
        match fs.read_at(inode, &mut buf, offset).unwrap() {
            0 => break (offset, hasher.finalize()),
            len => {
                hasher.update(&buf[..len]);
                offset += len as u64;
            }
        }
    }
}

/// Fails with the first few differences.
pub(crate) fn assert_same(ours: &Files, theirs: &Files) {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()) {
        let (our, their) = (ours.get(path), theirs.get(path));
        if our != their && differences.len() < 5 {
            differences.push(format!("{}\n  ours   {our:?}\n  theirs {their:?}", String::from_utf8_lossy(path)));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// `path` below which `name` lies.
pub(crate) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
