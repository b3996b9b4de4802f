//! What a mount shows: the traits that its user implements.

use std::ffi::OsStr;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

/// Extended attributes: full names (`user.x`) and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// A name for a file or directory of a [`Tree`], as an inode number is one. Stable while the tree lives; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(pub u64);

impl Node {
    /// The top directory of every tree.
    pub const ROOT: Self = Self(1);
}

/// Directories and files whose names and lengths never change while they are mounted. Many threads call it at once.
pub trait Tree: Send + Sync + 'static {
    /// The entry `name` of the directory `dir`. Never asked for `.` and `..`.
    fn lookup(&self, dir: Node, name: &OsStr) -> Result<Node, Failure>;

    /// What `stat` shows of `node`.
    fn attributes(&self, node: Node) -> Result<Attributes, Failure>;

    /// Calls `visit` with the entries of `dir`, without `.` and `..`, beginning behind the entry whose [`Listed::next`] was
    /// `after`, or at the first for 0; stops when `visit` returns false.
    fn list(&self, dir: Node, after: u64, visit: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<(), Failure>;

    /// The target of the symbolic link `node`.
    fn read_link(&self, _node: Node) -> Result<Vec<u8>, Failure> {
        Err(Failure::Invalid)
    }

    /// The extended attributes of `node` by their full names; nothing where the tree has no notion of them.
    fn xattrs(&self, _node: Node) -> Result<Option<Xattrs>, Failure> {
        Ok(None)
    }

    /// The bytes of the regular file `node`.
    fn open(&self, node: Node) -> Result<Arc<dyn File>, Failure>;

    /// Bytes that all files have together, and how many there are, for `statfs`.
    fn totals(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// A fixed number of bytes that many threads may read, and write if it says so, at once.
pub trait File: Send + Sync + 'static {
    /// Length in bytes; constant while the value lives.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills all of `buf` from `offset`, or fails. The range lies inside the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Failure>;

    /// The first offset at or behind `offset` (which lies inside the file) that may hold data; `None` when only holes follow.
    fn next_data(&self, offset: u64) -> Result<Option<u64>, Failure> {
        Ok(Some(offset))
    }

    /// The first offset at or behind `offset` (which lies inside the file) that lies in a hole, at most the length.
    fn next_hole(&self, _offset: u64) -> Result<u64, Failure> {
        Ok(self.len())
    }

    /// A regular file of this host whose bytes are these, from its first to its last. The kernel then reads it without asking,
    /// where it and the privileges of this process allow that, unless who reads wants direct I/O. Asked for once.
    fn backing(&self) -> Option<Arc<std::fs::File>> {
        None
    }

    /// Whether it takes writes, on a mount that is [`crate::Options::writable`]. The methods below are called only if so.
    fn is_writable(&self) -> bool {
        false
    }

    /// Writes all of `buf` at `offset`, inside the file, or fails. It may lie in a cache until [`File::flush`].
    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<(), Failure> {
        Err(Failure::ReadOnly)
    }

    /// Makes `range`, which lies inside the file and is not empty, read as zeros, by whatever is cheapest.
    fn zero(&self, _range: Range<u64>) -> Result<(), Failure> {
        Err(Failure::ReadOnly)
    }

    /// Returns once everything whose writing has returned before is on stable storage.
    fn flush(&self) -> Result<(), Failure> {
        Ok(())
    }
}

/// What `stat` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// File or directory.
    pub kind: Kind,
    /// Length in bytes.
    pub len: u64,
    /// Bytes that take up space; programs take a file where it is less than `len` for a sparse one.
    pub allocated: u64,
    /// Permission bits. On a read-only mount no one can write whatever they say.
    pub mode: u16,
    /// Links to it; at least 1.
    pub links: u32,
    /// Owner; `None` shows the user who mounted.
    pub owner: Option<(u32, u32)>,
    /// Last access.
    pub accessed: SystemTime,
    /// Last change of the content.
    pub modified: SystemTime,
    /// Last change of anything.
    pub changed: SystemTime,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

impl Attributes {
    /// Something with `len` bytes, all of which take up space, that belongs to who mounted, has one link, and was changed at `time`.
    #[must_use]
    pub fn new(kind: Kind, len: u64, mode: u16, time: SystemTime) -> Self {
        Self {
            kind,
            len,
            allocated: len,
            mode,
            links: 1,
            owner: None,
            accessed: time,
            modified: time,
            changed: time,
            device: (0, 0),
        }
    }
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A block device; the mount lets nobody use it.
    BlockDevice,
    /// A character device; the mount lets nobody use it.
    CharDevice,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
    /// A symbolic link.
    Symlink,
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// The name: any bytes but `/` and NUL.
    pub name: &'a OsStr,
    /// What it names.
    pub node: Node,
    /// What that is.
    pub kind: Kind,
    /// Where a listing goes on behind this entry: not 0, and less than 2^63.
    pub next: u64,
}

/// Why a tree could not answer. The reader sees the matching `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// `EINTR`: the work was asked to stop.
    Interrupted,
    /// `EINVAL`: it is not of the kind that was asked for.
    Invalid,
    /// `EIO`: the bytes cannot be had. Whoever fails this way logs why, since nothing else reaches the user.
    Io,
    /// `EISDIR`: it is a directory, and bytes were asked for.
    IsDirectory,
    /// `ENOTDIR`: it is no directory.
    NotDirectory,
    /// `ENOSPC`: there is no room for what is written.
    NoSpace,
    /// `ENOENT`: there is no such name or node.
    NotFound,
    /// `EROFS`: it takes no writes.
    ReadOnly,
}
