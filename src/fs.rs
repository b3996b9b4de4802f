//! What a file system driver is: one trait for reading, one for writing, by inode, with names as bytes.
//!
//! Drivers are `&self` and thread-safe. A driver that cannot write says so with a typed refusal ([`Filesystem::writer`]).

use std::fmt::Debug;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::error::Result;

mod bits;
pub mod btrfs;
mod calendar;
mod clusters;
mod dos_time;
#[cfg(test)]
mod everything;
pub mod exfat;
pub mod ext;
pub mod fat;
mod flags;
pub mod iso;
mod known;
pub(crate) mod lzo;
mod memory;
pub mod ntfs;
pub mod open;
mod pages;
mod parts;
pub mod squashfs;
pub mod tree;
pub mod udf;
mod utf16;
pub mod xfs;

pub use memory::MemoryFs;
pub use tree::Tree;

/// A mounted file system, read through the flat disk; nothing is mounted on the host.
pub trait Filesystem: Debug + Send + Sync {
    /// What the superblock says.
    fn facts(&self) -> &FsFacts;

    /// The root directory.
    fn root(&self) -> Inode;

    /// The entry `name` of a directory; `None` when there is no such entry.
    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>>;

    /// A file's attributes.
    fn stat(&self, inode: Inode) -> Result<Stat>;

    /// Reads from a regular file into `buf`; fewer bytes than asked only at the end of the file.
    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize>;

    /// Visits the parts of `range` of a regular file that may hold something else than zeros, ascending, no two of them touching:
    /// all that is no hole. A driver that knows of no holes visits all of it, up to the file's end.
    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut parts = parts::Parts::new(&range, self.stat(inode)?.size, visit);
        if parts.add(range).is_continue() {
            parts.finish();
        }
        Ok(())
    }

    /// Visits a directory's entries from `cursor` (0 at first), `.` and `..` left out. Each entry carries the cursor that
    /// continues after it.
    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()>;

    /// A symbolic link's target.
    fn read_link(&self, inode: Inode) -> Result<Vec<u8>>;

    /// All extended attributes, full name (`security.selinux`) and value, sorted by name.
    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Bytes free. Where they have to be counted, this reads what it takes.
    fn free(&self) -> Result<u64> {
        Ok(self.facts().free.unwrap_or(0))
    }

    /// Visits the byte ranges of the volume that are provably free, ascending. A driver that cannot prove anything visits
    /// nothing.
    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()>;

    /// The byte ranges of the volume that are in use and may provably read as zeros instead, since nobody reads what is there:
    /// inodes that never were, an empty log. Ascending and apart.
    ///
    /// # Errors
    /// Those of reading the volume.
    fn idle_ranges(&self) -> Result<Vec<Range<u64>>> {
        Ok(Vec::new())
    }

    /// The writing half, or a refusal that says why there is none.
    fn writer(&self) -> Result<&dyn FilesystemMut>;

    /// The subvolumes, snapshots included; none for a file system that has no such thing.
    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        Ok(Vec::new())
    }

    /// The number of the subvolume that is the root here; `None` for a file system that has no such thing.
    fn subvolume_id(&self) -> Option<u64> {
        None
    }

    /// The same file system with a subvolume as its root; `None` when there is no such subvolume.
    fn subvolume(&self, _name: &SubvolumeName) -> Result<Option<Arc<dyn Filesystem>>> {
        Ok(None)
    }
}

/// The writing half. Every change is complete when the call returns; [`FilesystemMut::sync`] leaves a clean file system.
pub trait FilesystemMut: Filesystem {
    /// Replaces the whole content of a regular file; inode, owner, mode, links and extended attributes stay.
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()>;

    /// Appends to a regular file; everything else stays.
    fn append(&self, inode: Inode, content: &[u8]) -> Result<()>;

    /// Creates a regular file with `content`. `name` must not exist.
    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode>;

    /// Creates a directory. `name` must not exist.
    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode>;

    /// Creates a symbolic link. `name` must not exist.
    fn symlink(&self, dir: Inode, name: &[u8], target: &[u8], attributes: &Attributes) -> Result<Inode>;

    /// Removes a file or symbolic link.
    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()>;

    /// Gives a file, link or directory another name, in the same or another directory. `new_name` must not exist there.
    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()>;

    /// Sets permission bits (`07777`), owner and group.
    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()>;

    /// Sets one extended attribute by its full name.
    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8]) -> Result<()>;

    /// Removes one extended attribute by its full name. Nothing happens when there is none of that name.
    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()>;

    /// Sets access and modification time.
    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()>;

    /// Bytes that can still be allocated.
    fn available(&self) -> Result<u64>;

    /// Writes everything out and leaves the file system clean.
    fn sync(&self) -> Result<()>;
}

/// An inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode(pub u64);

/// A part of a file system that can be mounted by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number; btrfs calls the top-level one 5 and begins with 256 for others.
    pub id: u64,
    /// Where it is, from the top-level one, without a slash at the front; empty for the top-level one itself. `None` when no
    /// directory leads to it.
    pub path: Option<Vec<u8>>,
    /// The number of the subvolume that it lies in; 0 for one that lies in none.
    pub parent: u64,
    /// Its UUID, where it has one.
    pub uuid: Option<uuid::Uuid>,
    /// The UUID of what it was made from, if it is a snapshot.
    pub parent_uuid: Option<uuid::Uuid>,
    /// Whether it may not be written.
    pub read_only: bool,
    /// The transaction that changed it last.
    pub generation: u64,
}

/// What names a subvolume in mount options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubvolumeName {
    /// What is mounted when nothing is said.
    Default,
    /// `subvolid=`; 0 is the top-level one too.
    Id(u64),
    /// `subvol=`: a path from the top-level one, with or without a slash at the front.
    Path(Vec<u8>),
}

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Block device.
    BlockDevice,
    /// Character device.
    CharDevice,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
    /// Regular file.
    Regular,
    /// Socket.
    Socket,
    /// Symbolic link.
    Symlink,
}

/// A file's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The inode itself.
    pub inode: Inode,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes that are allocated to it, as `st_blocks` counts them.
    pub allocated: u64,
    /// Major and minor number of a device file.
    pub device: Option<(u32, u32)>,
    /// Names that point here.
    pub links: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, where the file system keeps it.
    pub btime: Option<Timestamp>,
}

/// Seconds since the epoch, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// What a new file gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// All three times.
    pub time: Timestamp,
    /// Extended attributes by full name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without a slash or NUL.
    pub name: Vec<u8>,
    /// What it points to.
    pub inode: Inode,
    /// What that is, if the directory says.
    pub kind: Option<FileKind>,
    /// Continues after this entry.
    pub cursor: u64,
}

/// What the superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsFacts {
    /// `ext4`, `xfs` …, as in fstab.
    pub kind: &'static str,
    /// The UUID as fstab writes it.
    pub uuid: Option<String>,
    /// The label.
    pub label: Option<String>,
    /// Allocation unit in bytes.
    pub block_size: u64,
    /// Bytes that the file system covers, from the start of the volume.
    pub size: u64,
    /// Bytes free, where that is written down; [`Filesystem::free`] counts them where it is not.
    pub free: Option<u64>,
    /// Whether there was something to replay, to finish or to check when it was opened.
    pub dirty: bool,
    /// Feature names, in the format's own terms.
    pub features: Vec<String>,
}
