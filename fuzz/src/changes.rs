//! Random changes to the files of a small image, and what is then read of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use hyper2kvm::fs::{Attributes, Filesystem, FilesystemMut, Inode, Timestamp};

/// What changes are about: files and folders that the images have, and others.
const NAMES: [&[u8]; 8] =
    [b"file", b"link", b"large", b"short", b"a-longer-name-9", b"a-longer-name-10", b"new", b"other"];

/// Makes the changes that `choices` tell of, four bytes each, as far as they can be made.
pub fn make(fs: &dyn Filesystem, choices: &[u8]) {
    let Ok(writer) = fs.writer() else { return };
    for choice in choices.chunks_exact(4).take(40) {
        let [kind, from, to, amount] = [0, 1, 2, 3].map(|at| choice[at]);
        let _ = change(fs, writer, kind, [from, to].map(|byte| place(fs, byte)), usize::from(amount));
    }
    let _ = (writer.sync(), writer.available());
}

/// A folder and a name in it, of which there may be none.
fn place(fs: &dyn Filesystem, byte: u8) -> (Inode, &'static [u8]) {
    let folders: [&[&[u8]]; 4] = [&[], &[b"large"], &[b"new"], &[b"large", b"other"]];
    let enter = |dir, name: &&[u8]| fs.lookup(dir, name).ok().flatten().unwrap_or(dir);
    (folders[usize::from(byte >> 3) % 4].iter().fold(fs.root(), enter), NAMES[usize::from(byte) % 8])
}

fn change(
    fs: &dyn Filesystem,
    writer: &dyn FilesystemMut,
    kind: u8,
    [(dir, name), (other, new)]: [(Inode, &[u8]); 2],
    amount: usize,
) -> hyper2kvm::error::Result<()> {
    let content = vec![kind; amount * amount];
    let time = Timestamp { seconds: 1_700_000_000 + i64::from(kind), nanoseconds: 5 };
    let with = Attributes { mode: 0o644, time, ..Attributes::default() };
    let inode = fs.lookup(dir, name)?.unwrap_or(dir);
    match kind % 14 {
        0 => writer.create(other, new, &with, &content).map(drop),
        1 => writer.create_dir(other, new, &with).map(drop),
        2 => writer.symlink(other, new, &content[..content.len().min(1500)], &with).map(drop),
        3 => writer.replace(inode, &content),
        4 => writer.append(inode, &content),
        5 => writer.remove(dir, name),
        6 => writer.remove_dir(dir, name),
        7 => writer.rename(dir, name, other, new),
        8 => writer.set_owner(inode, 0o1751, 70_000, u32::from(kind)),
        9 => writer.set_xattr(inode, b"user.x", &content[..content.len().min(3000)]),
        10 => writer.set_xattr(inode, format!("security.{}", amount % 40).as_bytes(), &content[..amount]),
        11 => writer.remove_xattr(inode, b"user.x"),
        12 => writer.set_times(inode, time, time),
        // Many at once: folders and trees grow.
        _ => (0..amount).try_for_each(|number| {
            writer.create(other, format!("{number}-a-new-name").as_bytes(), &with, &content[..number % 90]).map(drop)
        }),
    }
}

/// All that is read of a file.
type Told = (hyper2kvm::fs::Stat, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>, Vec<u8>);

/// What is read of all files, by path.
pub fn told(fs: &dyn Filesystem) -> BTreeMap<Vec<u8>, Told> {
    let (mut all, mut pending) = (BTreeMap::new(), vec![(Vec::new(), fs.root())]);
    while let Some((path, inode)) = pending.pop() {
        let mut content = vec![0; 70_000];
        let len = fs.read_at(inode, &mut content, 0).unwrap_or(0);
        content.truncate(len);
        let target = fs.read_link(inode).unwrap_or_default();
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            pending.push(([&path, &b"/"[..], &entry.name].concat(), entry.inode));
            ControlFlow::Continue(())
        });
        all.insert(path, (fs.stat(inode).unwrap(), fs.xattrs(inode).unwrap(), target, content));
    }
    all
}
