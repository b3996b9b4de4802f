//! A whole file tree with everything a migration could lose, and how two differ.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{lgetxattr, llistxattr};

/// A file tree.
pub(crate) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

/// A file, without the times that reading or linking changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// `file`, `folder`, `link`, `block`, `char`, `pipe` or `socket`.
    pub(crate) kind: &'static str,
    /// Permission bits, with set-user-id and its like.
    pub(crate) mode: u32,
    /// Owner and group.
    pub(crate) owner: (u32, u32),
    /// Number of links; of folders too, since it counts their subfolders.
    pub(crate) links: u64,
    /// Size in bytes; none for folders, whose size is the file system's business.
    pub(crate) size: Option<u64>,
    /// Modification time: seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
    /// Device number.
    pub(crate) device: u64,
    /// Target of a symbolic link.
    pub(crate) target: Option<PathBuf>,
    /// BLAKE3 of a file's content.
    pub(crate) content: Option<blake3::Hash>,
    /// Extended attributes.
    pub(crate) attributes: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads a tree. Paths in it are relative to `root`, which is itself the empty path.
    pub(crate) fn read(root: &Path) -> Self {
        let mut nodes = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let place = root.join(&path);
            let node = Node::read(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
            if node.kind == "folder" {
                let entries = fs::read_dir(&place).expect("a folder");
                pending.extend(entries.map(|entry| path.join(entry.expect("an entry").file_name())));
            }
            nodes.insert(path, node);
        }
        Self { nodes }
    }

    /// The file at a path.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(Path::new(path))
    }

    /// How many files there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Every difference to a later state of the tree, by path.
    pub(crate) fn changes<'a>(&'a self, after: &'a Self) -> BTreeMap<&'a Path, Change<'a>> {
        let paths = self.nodes.keys().chain(after.nodes.keys());
        paths
            .map(|path| (path.as_path(), Change { before: self.nodes.get(path), after: after.nodes.get(path) }))
            .filter(|(_, change)| change.before != change.after)
            .collect()
    }
}

impl Node {
    fn read(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        let kind = meta.file_type();
        let is = [
            (kind.is_file(), "file"),
            (kind.is_dir(), "folder"),
            (kind.is_symlink(), "link"),
            (kind.is_block_device(), "block"),
            (kind.is_char_device(), "char"),
            (kind.is_fifo(), "pipe"),
        ];
        Ok(Self {
            kind: is.iter().find(|(is, _)| *is).map_or("socket", |(_, name)| name),
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            links: meta.nlink(),
            size: (!kind.is_dir()).then_some(meta.len()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            target: if kind.is_symlink() { Some(fs::read_link(path)?) } else { None },
            content: if kind.is_file() { Some(digest(path)?) } else { None },
            attributes: attributes(path)?,
        })
    }
}

fn digest(path: &Path) -> io::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(&mut fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize())
}

fn attributes(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = [0; 4096];
    let length = llistxattr(path, &mut names[..])?;
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = [0; 4096];
            let length = lgetxattr(path, name, &mut value[..])?;
            Ok((String::from_utf8_lossy(name).into_owned(), value[..length].to_vec()))
        })
        .collect()
}

/// What became of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    /// The file before, if it was there.
    pub(crate) before: Option<&'a Node>,
    /// The file after, if it is there.
    pub(crate) after: Option<&'a Node>,
}

impl Change<'_> {
    /// A file came or went, so that its folder changed too.
    pub(crate) fn is_structural(&self) -> bool {
        self.before.is_none() || self.after.is_none()
    }

    /// Only the modification time is another, and the count of links that subfolders make.
    pub(crate) fn is_of_times_only(&self) -> bool {
        let timeless = |node: &Node| Node { modified: (0, 0), links: 0, ..node.clone() };
        self.before.map(timeless) == self.after.map(timeless)
    }
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.before, self.after) {
            (Some(before), Some(after)) => write!(f, "\n    {before:?}\n -> {after:?}"),
            (Some(before), None) => write!(f, "\n    removed: {before:?}"),
            (None, Some(after)) => write!(f, "\n    added: {after:?}"),
            (None, None) => f.write_str("nothing"),
        }
    }
}
