//! A tree as the kernel shows it and as the driver shows it, in one form.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use hyper2kvm::fs::{FileKind, Filesystem, Inode};
use rustix::fs::{lgetxattr, llistxattr};

/// Paths, as bytes without a leading slash, with what is there.
pub(crate) type Tree = BTreeMap<Vec<u8>, Entry>;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) links: u64,
    pub(crate) size: Option<u64>,
    pub(crate) times: [(i64, u32); 2],
    pub(crate) content: Option<blake3::Hash>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a kernel mount shows.
pub(crate) fn of_kernel(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let place = root.join(std::ffi::OsStr::from_bytes(&path));
        let entry = kernel_entry(&place);
        if entry.kind == FileKind::Directory {
            for child in std::fs::read_dir(&place).unwrap() {
                pending.push(join(&path, child.unwrap().file_name().as_bytes()));
            }
        }
        tree.insert(path, entry);
    }
    tree
}

fn kernel_entry(place: &Path) -> Entry {
    let meta = std::fs::symlink_metadata(place).unwrap();
    let file_type = meta.file_type();
    let kind = match () {
        () if file_type.is_file() => FileKind::Regular,
        () if file_type.is_dir() => FileKind::Directory,
        () if file_type.is_symlink() => FileKind::Symlink,
        () if file_type.is_fifo() => FileKind::Fifo,
        () if file_type.is_socket() => FileKind::Socket,
        () if file_type.is_block_device() => FileKind::BlockDevice,
        () => FileKind::CharDevice,
    };
    let time = |seconds, nanoseconds: i64| (seconds, u32::try_from(nanoseconds).unwrap());
    Entry {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        links: meta.nlink(),
        size: (kind != FileKind::Directory).then_some(meta.len()),
        times: [time(meta.mtime(), meta.mtime_nsec()), time(meta.ctime(), meta.ctime_nsec())],
        content: (kind == FileKind::Regular).then(|| {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut std::fs::File::open(place).unwrap(), &mut hasher).unwrap();
            hasher.finalize()
        }),
        target: file_type.is_symlink().then(|| std::fs::read_link(place).unwrap().as_os_str().as_bytes().to_vec()),
        xattrs: kernel_xattrs(place),
    }
}

fn kernel_xattrs(place: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 65536];
    let len = match llistxattr(place, &mut names[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Vec::new(),
        len => len.unwrap(),
    };
    let mut all: Vec<_> = names[..len]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 65536];
            let len = lgetxattr(place, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect();
    all.sort();
    all
}

/// What the driver shows, every entry also found by its name.
pub(crate) fn of_driver(fs: &dyn Filesystem) -> Tree {
    let mut tree = Tree::new();
    let mut pending = vec![(Vec::new(), fs.root())];
    while let Some((path, inode)) = pending.pop() {
        let entry = driver_entry(fs, inode);
        if entry.kind == FileKind::Directory {
            fs.read_dir(inode, 0, &mut |child| {
                assert_eq!(fs.lookup(inode, &child.name).unwrap(), Some(child.inode), "{:?}", child.name);
                if let Some(kind) = child.kind {
                    assert_eq!(fs.stat(child.inode).unwrap().kind, kind);
                }
                pending.push((join(&path, &child.name), child.inode));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(fs.lookup(inode, b"no such name").unwrap(), None);
        }
        tree.insert(path, entry);
    }
    tree
}

fn driver_entry(fs: &dyn Filesystem, inode: Inode) -> Entry {
    let stat = fs.stat(inode).unwrap();
    Entry {
        kind: stat.kind,
        mode: stat.mode,
        owner: (stat.uid, stat.gid),
        links: u64::from(stat.links),
        size: (stat.kind != FileKind::Directory).then_some(stat.size),
        times: [(stat.mtime.seconds, stat.mtime.nanoseconds), (stat.ctime.seconds, stat.ctime.nanoseconds)],
        content: (stat.kind == FileKind::Regular).then(|| {
            let mut hasher = blake3::Hasher::new();
            let mut buf = vec![0; usize::try_from(stat.size).unwrap().clamp(1, 1 << 20)];
            let mut offset = 0;
            loop {
                match fs.read_at(inode, &mut buf, offset).unwrap() {
                    0 => break hasher.finalize(),
                    len => {
                        hasher.update(&buf[..len]);
                        offset += len as u64;
                    }
                }
            }
        }),
        target: (stat.kind == FileKind::Symlink).then(|| fs.read_link(inode).unwrap()),
        xattrs: fs.xattrs(inode).unwrap(),
    }
}

/// Fails with the first few differences.
pub(crate) fn assert_same(ours: &Tree, theirs: &Tree) {
    let mut differences = Vec::new();
    for path in ours.keys().chain(theirs.keys()) {
        let (our, their) = (ours.get(path), theirs.get(path));
        if our != their && differences.len() < 5 {
            differences.push(format!("{}\n  ours   {our:?}\n  theirs {their:?}", String::from_utf8_lossy(path)));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
