//! A guest's directory tree: several file systems at their mount points, addressed by path.
//!
//! Symbolic links are followed inside the guest only: an absolute target starts at the guest's root, `..` stops there, and a
//! walk follows at most [`limits::MAX_GUEST_LINKS`] links. What cannot be reached (dangling, looping, through a file) is
//! simply not there.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::{Attributes, DirEntry, FileKind, Filesystem, Inode, Stat, Timestamp};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::limits;

/// File systems joined at mount points, with a path interface. Paths are bytes, as in the guest.
#[derive(Clone, Debug)]
pub struct Tree {
    mounts: Vec<Mount>,
}

#[derive(Clone, Debug)]
struct Mount {
    at: Vec<u8>,
    /// The directory that it covers.
    over: Option<FileId>,
    fs: Arc<dyn Filesystem>,
}

/// Which file of a tree something is, whatever it is called: hard links share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// The file system, in the order of [`Tree::mounts`].
    pub mount: usize,
    /// The file in it.
    pub inode: Inode,
}

/// A file that a path led to.
#[derive(Clone, Debug)]
pub struct Found {
    /// The path without links, `.` and `..`: absolute, and `/` for the root.
    pub path: Vec<u8>,
    /// Its attributes.
    pub stat: Stat,
    mount: usize,
}

impl Found {
    /// Which file of the tree it is.
    #[must_use]
    pub fn id(&self) -> FileId {
        FileId { mount: self.mount, inode: self.stat.inode }
    }

    /// The canonical path as text, if it is UTF-8 without control characters.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.path).ok().filter(|text| !text.chars().any(char::is_control))
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: Vec<u8>,
    /// What it is; a symbolic link is not followed.
    pub kind: FileKind,
}

impl Listed {
    /// The name as text, if it is UTF-8 without control characters.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok().filter(|text| !text.chars().any(char::is_control))
    }
}

impl Tree {
    /// A tree of one file system.
    #[must_use]
    pub fn new(root: Arc<dyn Filesystem>) -> Self {
        Self { mounts: vec![Mount { at: b"/".to_vec(), over: None, fs: root }] }
    }

    /// Joins `fs` at the directory `at`, which must exist.
    pub fn mount(&mut self, at: impl AsRef<[u8]>, fs: Arc<dyn Filesystem>) -> Result<()> {
        let found = self.require(at.as_ref())?;
        if found.stat.kind != FileKind::Directory {
            return Err(Error::new(Kind::NotFound, "guest.not-a-directory", "a mount point that is not a directory")
                .at(escape_bytes(at.as_ref())));
        }
        self.mounts.push(Mount { over: Some(found.id()), at: found.path, fs });
        Ok(())
    }

    /// The mount points with their file systems, the root first.
    pub fn mounts(&self) -> impl Iterator<Item = (&[u8], &Arc<dyn Filesystem>)> {
        self.mounts.iter().map(|mount| (mount.at.as_slice(), &mount.fs))
    }

    /// Follows `path` to a file, through a link at its end too.
    pub fn find(&self, path: impl AsRef<[u8]>) -> Result<Option<Found>> {
        self.walk(path.as_ref(), true)
    }

    /// Follows `path`, but not a link at its end.
    pub fn find_link(&self, path: impl AsRef<[u8]>) -> Result<Option<Found>> {
        self.walk(path.as_ref(), false)
    }

    /// Whether `path` leads to anything.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.find(path)?.is_some())
    }

    /// Whether `path` leads to a directory.
    pub fn is_dir(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.find(path)?.is_some_and(|found| found.stat.kind == FileKind::Directory))
    }

    /// Whether `path` leads to a regular file.
    pub fn is_file(&self, path: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.find(path)?.is_some_and(|found| found.stat.kind == FileKind::Regular))
    }

    /// The content of a regular file; `None` when `path` leads to no regular file, an error when it has more than `max`
    /// bytes.
    pub fn read(&self, path: impl AsRef<[u8]>, max: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open(path.as_ref())? else { return Ok(None) };
        file.read_all(max).map(Some).map_err(|error| error.at(escape_bytes(path.as_ref())))
    }

    /// A regular file for reading from its start; `None` when `path` leads to no regular file.
    pub fn open(&self, path: impl AsRef<[u8]>) -> Result<Option<FileReader>> {
        let found = self.find(path)?.filter(|found| found.stat.kind == FileKind::Regular);
        let Some(found) = found else { return Ok(None) };
        let fs = Arc::clone(self.fs(&found)?);
        Ok(Some(FileReader { fs, inode: found.stat.inode, size: found.stat.size, offset: 0 }))
    }

    /// The file that the root's path leads to.
    pub fn root_id(&self) -> Result<FileId> {
        let root = self.mounts.first().ok_or_else(|| absent(b"/"))?;
        Ok(self.topmost(FileId { mount: 0, inode: root.fs.root() }))
    }

    /// The file that is called `name` in the directory `dir`; links are not followed.
    pub fn child(&self, dir: FileId, name: &[u8]) -> Result<Option<FileId>> {
        let inode = self.fs_of(dir)?.lookup(dir.inode, name)?;
        Ok(inode.map(|inode| self.topmost(FileId { mount: dir.mount, inode })))
    }

    /// A file by what it is, not by its path.
    pub fn found(&self, id: FileId) -> Result<Found> {
        Ok(Found { path: Vec::new(), stat: self.fs_of(id)?.stat(id.inode)?, mount: id.mount })
    }

    /// Visits the entries of the directory `dir` from `cursor` on (0 at first), as [`Filesystem::read_dir`] does, each with what
    /// file it is.
    pub fn visit_dir(
        &self,
        dir: FileId,
        cursor: u64,
        visit: &mut dyn FnMut(FileId, DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        self.fs_of(dir)?.read_dir(dir.inode, cursor, &mut |entry| {
            visit(self.topmost(FileId { mount: dir.mount, inode: entry.inode }), entry)
        })
    }

    /// Reads from the regular file `id` into `buf`; fewer bytes than asked only at its end.
    pub fn read_at(&self, id: FileId, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.fs_of(id)?.read_at(id.inode, buf, offset)
    }

    /// What is mounted on `id`, and on that, in the end.
    fn topmost(&self, mut id: FileId) -> FileId {
        for (mount, covering) in self.mounts.iter().enumerate() {
            if covering.over == Some(id) {
                id = FileId { mount, inode: covering.fs.root() };
            }
        }
        id
    }

    fn fs_of(&self, id: FileId) -> Result<&Arc<dyn Filesystem>> {
        self.mounts.get(id.mount).map(|mount| &mount.fs).ok_or_else(|| absent(b"?"))
    }

    /// What the directory `dir` holds, sorted by name, with what is mounted there in place of what it covers. One that cannot be
    /// read is there with its error. At most [`limits::MAX_GUEST_DIR_ENTRIES`]; more are an error.
    pub fn children(&self, dir: &Found) -> Result<Vec<(Vec<u8>, Result<Found>)>> {
        let fs = self.fs(dir)?;
        let mut children = Vec::new();
        for DirEntry { name, inode, .. } in entries(&**fs, dir)? {
            let mut path = if dir.path == b"/" { Vec::new() } else { dir.path.clone() };
            path.push(b'/');
            path.extend_from_slice(&name);
            let id = self.topmost(FileId { mount: dir.mount, inode });
            children.push((name, self.found(id).map(|found| Found { path, ..found })));
        }
        children.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(children)
    }

    /// The regular file `found` for reading from its start.
    pub fn reader(&self, found: &Found) -> Result<FileReader> {
        let fs = Arc::clone(self.fs(found)?);
        Ok(FileReader { fs, inode: found.stat.inode, size: found.stat.size, offset: 0 })
    }

    /// The target of the symbolic link `found`.
    pub fn target(&self, found: &Found) -> Result<Vec<u8>> {
        self.fs(found)?.read_link(found.stat.inode)
    }

    /// The extended attributes of `found`.
    pub fn xattrs_of(&self, found: &Found) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.fs(found)?.xattrs(found.stat.inode)
    }

    /// The target of the symbolic link at `path`; `None` when there is none.
    pub fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
        match self.find_link(path)? {
            Some(found) if found.stat.kind == FileKind::Symlink => {
                Ok(Some(self.fs(&found)?.read_link(found.stat.inode)?))
            }
            _ => Ok(None),
        }
    }

    /// A directory's entries sorted by name; empty when `path` leads to no directory. At most
    /// [`limits::MAX_GUEST_DIR_ENTRIES`]; more are an error.
    pub fn list(&self, path: impl AsRef<[u8]>) -> Result<Vec<Listed>> {
        let found = self.find(path.as_ref())?.filter(|found| found.stat.kind == FileKind::Directory);
        let Some(found) = found else { return Ok(Vec::new()) };
        let fs = self.fs(&found)?;
        let raw = entries(&**fs, &found)?;
        let mut listed = Vec::with_capacity(raw.len());
        for DirEntry { name, inode, kind, .. } in raw {
            let kind = kind.map_or_else(|| fs.stat(inode).map(|stat| stat.kind), Ok)?;
            listed.push(Listed { name, kind });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The extended attributes of the file at `path`; a link at its end is not followed.
    pub fn xattrs(&self, path: impl AsRef<[u8]>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let found = self.require_link(path.as_ref())?;
        self.fs(&found)?.xattrs(found.stat.inode)
    }

    /// Replaces a regular file's content in place: inode, owner, mode, links and extended attributes stay.
    pub fn write(&self, path: impl AsRef<[u8]>, content: &[u8]) -> Result<()> {
        let found = self.require_file(path.as_ref())?;
        self.fs(&found)?.writer()?.replace(found.stat.inode, content)
    }

    /// Appends to a regular file in place.
    pub fn append(&self, path: impl AsRef<[u8]>, content: &[u8]) -> Result<()> {
        let found = self.require_file(path.as_ref())?;
        self.fs(&found)?.writer()?.append(found.stat.inode, content)
    }

    /// Creates a regular file in a directory that exists.
    pub fn create_file(&self, path: impl AsRef<[u8]>, attributes: &Attributes, content: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        self.fs(&dir)?.writer()?.create(dir.stat.inode, name, attributes, content).map(drop)
    }

    /// Creates a directory in a directory that exists.
    pub fn create_dir(&self, path: impl AsRef<[u8]>, attributes: &Attributes) -> Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        self.fs(&dir)?.writer()?.create_dir(dir.stat.inode, name, attributes).map(drop)
    }

    /// Creates a symbolic link in a directory that exists.
    pub fn symlink(&self, path: impl AsRef<[u8]>, target: &[u8], attributes: &Attributes) -> Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        self.fs(&dir)?.writer()?.symlink(dir.stat.inode, name, target, attributes).map(drop)
    }

    /// Removes a file or symbolic link.
    pub fn remove(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        self.fs(&dir)?.writer()?.remove(dir.stat.inode, name)
    }

    /// Removes an empty directory, on which nothing is mounted. A link at the end of `path` is not followed, here and below.
    pub fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        self.check_not_mounted(&dir, name)?;
        self.fs(&dir)?.writer()?.remove_dir(dir.stat.inode, name)
    }

    /// Gives the file, link or directory at `path` the name `new_path`, which must not exist, in the same file system. Nothing
    /// may be mounted on it, or in it.
    pub fn rename(&self, path: impl AsRef<[u8]>, new_path: impl AsRef<[u8]>) -> Result<()> {
        let (dir, name) = self.parent(path.as_ref())?;
        let (new_dir, new_name) = self.parent(new_path.as_ref())?;
        self.check_not_mounted(&dir, name)?;
        if dir.mount != new_dir.mount {
            return Err(mounted(path.as_ref(), "a name that was to move to another file system"));
        }
        self.fs(&dir)?.writer()?.rename(dir.stat.inode, name, new_dir.stat.inode, new_name)
    }

    /// Sets permission bits, owner and group of the file at `path`.
    pub fn set_owner(&self, path: impl AsRef<[u8]>, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let found = self.require_link(path.as_ref())?;
        self.fs(&found)?.writer()?.set_owner(found.stat.inode, mode, uid, gid)
    }

    /// Sets one extended attribute of the file at `path`.
    pub fn set_xattr(&self, path: impl AsRef<[u8]>, name: &[u8], value: &[u8]) -> Result<()> {
        let found = self.require_link(path.as_ref())?;
        self.fs(&found)?.writer()?.set_xattr(found.stat.inode, name, value)
    }

    /// Removes one extended attribute of the file at `path`, if it is there.
    pub fn remove_xattr(&self, path: impl AsRef<[u8]>, name: &[u8]) -> Result<()> {
        let found = self.require_link(path.as_ref())?;
        self.fs(&found)?.writer()?.remove_xattr(found.stat.inode, name)
    }

    /// An error when something is mounted on what is called `name` in `dir`, or below it.
    fn check_not_mounted(&self, dir: &Found, name: &[u8]) -> Result<()> {
        let path = [dir.path.strip_suffix(b"/").unwrap_or(&dir.path), b"/", name].concat();
        let within =
            |mount: &Mount| mount.at.strip_prefix(&path[..]).is_some_and(|rest| matches!(rest, [] | [b'/', ..]));
        if self.mounts.iter().any(within) {
            return Err(mounted(&path, "a directory with a file system mounted on it or in it"));
        }
        Ok(())
    }

    /// Sets access and modification time of the file at `path`.
    pub fn set_times(&self, path: impl AsRef<[u8]>, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        let found = self.require_link(path.as_ref())?;
        self.fs(&found)?.writer()?.set_times(found.stat.inode, atime, mtime)
    }

    /// Bytes that can still be allocated where `path` lies; `path` must exist.
    pub fn available(&self, path: impl AsRef<[u8]>) -> Result<u64> {
        let found = self.require(path.as_ref())?;
        self.fs(&found)?.writer()?.available()
    }

    /// The mount point that `path` lies under; `path` must exist.
    pub fn mount_of(&self, path: impl AsRef<[u8]>) -> Result<&[u8]> {
        let found = self.require(path.as_ref())?;
        self.mounts.get(found.mount).map(|mount| mount.at.as_slice()).ok_or_else(|| absent(path.as_ref()))
    }

    /// Writes every file system out and leaves it clean. One that cannot be written has nothing to write out.
    pub fn sync(&self) -> Result<()> {
        self.mounts.iter().filter_map(|mount| mount.fs.writer().ok()).try_for_each(|writer| writer.sync())
    }

    fn fs(&self, found: &Found) -> Result<&Arc<dyn Filesystem>> {
        self.mounts.get(found.mount).map(|mount| &mount.fs).ok_or_else(|| absent(&found.path))
    }

    fn require(&self, path: &[u8]) -> Result<Found> {
        self.find(path)?.ok_or_else(|| absent(path))
    }

    fn require_link(&self, path: &[u8]) -> Result<Found> {
        self.find_link(path)?.ok_or_else(|| absent(path))
    }

    fn require_file(&self, path: &[u8]) -> Result<Found> {
        let found = self.require(path)?;
        if found.stat.kind == FileKind::Regular {
            return Ok(found);
        }
        Err(Error::new(Kind::NotFound, "guest.not-regular", "not a regular file").at(escape_bytes(path)))
    }

    fn parent<'a>(&self, path: &'a [u8]) -> Result<(Found, &'a [u8])> {
        let (dir, name) = split_name(path).ok_or_else(|| absent(path))?;
        let found = self.require(dir)?;
        Ok((found, name))
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<Option<Found>> {
        if path.len() > limits::MAX_GUEST_PATH {
            return Ok(None);
        }
        let mut walk = Walk { tree: self, trail: Vec::new(), pending: components(path).map(<[u8]>::to_vec).collect() };
        walk.run(follow_last)
    }

    /// The mount at a canonical path. The last one wins, as in a running system.
    fn mounted_at(&self, trail: &[Step]) -> Option<usize> {
        self.mounts.iter().rposition(|mount| {
            components(&mount.at).count() == trail.len()
                && components(&mount.at).zip(trail).all(|(name, step)| name == step.name)
        })
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    trail: Vec<Step>,
    pending: VecDeque<Vec<u8>>,
}

struct Step {
    name: Vec<u8>,
    mount: usize,
    stat: Stat,
}

impl Walk<'_> {
    fn run(&mut self, follow_last: bool) -> Result<Option<Found>> {
        let mut links = 0_usize;
        while let Some(name) = self.pending.pop_front() {
            match name.as_slice() {
                b"." => continue,
                b".." => {
                    self.trail.pop();
                    continue;
                }
                _ => {}
            }
            let Some(step) = self.enter(&name)? else { return Ok(None) };
            let is_last = self.pending.is_empty();
            if step.stat.kind != FileKind::Symlink || (is_last && !follow_last) {
                self.trail.push(step);
                continue;
            }
            links = links.saturating_add(1);
            if links > limits::MAX_GUEST_LINKS || !self.follow(&step)? {
                return Ok(None);
            }
        }
        let (mount, stat) = match self.trail.last() {
            Some(step) => (step.mount, step.stat),
            None => self.top()?,
        };
        Ok(Some(Found { path: self.path(), stat, mount }))
    }

    /// The entry `name` of the directory where the trail ends, with a file system mounted on it in its place.
    fn enter(&mut self, name: &[u8]) -> Result<Option<Step>> {
        let (mount, dir) = match self.trail.last() {
            Some(step) => (step.mount, step.stat),
            None => self.top()?,
        };
        if dir.kind != FileKind::Directory || name.len() > 255 {
            return Ok(None);
        }
        let Some(fs) = self.tree.mounts.get(mount).map(|mount| &mount.fs) else { return Ok(None) };
        let Some(inode) = fs.lookup(dir.inode, name)? else { return Ok(None) };
        let step = Step { name: name.to_vec(), mount, stat: fs.stat(inode)? };
        if step.stat.kind != FileKind::Directory {
            return Ok(Some(step));
        }
        self.trail.push(step);
        let over = self.tree.mounted_at(&self.trail);
        let Some(mut step) = self.trail.pop() else { return Ok(None) };
        if let Some((index, fs)) = over.and_then(|index| Some((index, &self.tree.mounts.get(index)?.fs))) {
            step.mount = index;
            step.stat = fs.stat(fs.root())?;
        }
        Ok(Some(step))
    }

    /// Puts a link's target before what is left to walk. False when the target is no path.
    fn follow(&mut self, link: &Step) -> Result<bool> {
        let Some(fs) = self.tree.mounts.get(link.mount).map(|mount| &mount.fs) else { return Ok(false) };
        let target = fs.read_link(link.stat.inode)?;
        if target.is_empty() || target.len() > limits::MAX_GUEST_PATH || target.contains(&0) {
            return Ok(false);
        }
        if target.starts_with(b"/") {
            self.trail.clear();
        }
        for name in components(&target).rev() {
            self.pending.push_front(name.to_vec());
        }
        Ok(true)
    }

    fn top(&self) -> Result<(usize, Stat)> {
        let index = self.tree.mounted_at(&[]).unwrap_or(0);
        let mount = self.tree.mounts.get(index).ok_or_else(|| absent(b"/"))?;
        Ok((index, mount.fs.stat(mount.fs.root())?))
    }

    fn path(&self) -> Vec<u8> {
        if self.trail.is_empty() {
            return b"/".to_vec();
        }
        self.trail.iter().flat_map(|step| [b"/".as_slice(), &step.name]).flatten().copied().collect()
    }
}

/// A regular file of a guest, read in order.
#[derive(Debug)]
pub struct FileReader {
    fs: Arc<dyn Filesystem>,
    inode: Inode,
    size: u64,
    offset: u64,
}

impl FileReader {
    /// The file's length in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Reads into `buf` from `offset` on, wherever reading in order has come to; fewer bytes than asked only at the end.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.fs.read_at(self.inode, buf, offset)
    }

    /// Visits the parts of `range` that may hold something else than zeros, as [`Filesystem::data_ranges`] does.
    pub fn data_ranges(&self, range: Range<u64>, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        self.fs.data_ranges(self.inode, range, visit)
    }

    /// Fills `buf` from `offset` on, wherever reading in order has come to. A file that ends before is an error.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut filled = 0_usize;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match self.read_at(rest, at)? {
                0 => {
                    return Err(Error::corrupt("guest.short-file", "a guest file ends too early")
                        .offset(at)
                        .found(format!("a file of {} bytes", self.size)));
                }
                count => filled = filled.saturating_add(count),
            }
        }
        Ok(())
    }

    /// Everything, or an error when that is more than `max` bytes.
    pub fn read_all(&mut self, max: u64) -> Result<Vec<u8>> {
        let too_long = || {
            Error::limit("guest.file-size", "a guest file is larger than any that makes sense here")
                .expected(format!("at most {max} bytes"))
                .found(self.size)
        };
        if self.size > max {
            return Err(too_long());
        }
        let mut content = vec![0; usize::try_from(self.size).map_err(|_| too_long())?];
        let mut filled = 0_usize;
        while let Some(rest) = content.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let offset = u64::try_from(filled).unwrap_or(u64::MAX);
            match self.fs.read_at(self.inode, rest, offset)? {
                0 => break,
                count => filled = filled.saturating_add(count),
            }
        }
        content.truncate(filled);
        Ok(content)
    }
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.fs.read_at(self.inode, buf, self.offset).map_err(io::Error::other)?;
        self.offset = self.offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}

impl Seek for FileReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => self.size.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.offset.checked_add_signed(delta),
        };
        self.offset = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.offset)
    }
}

/// The [`Error`] that an [`io::Error`] of a [`FileReader`] carries; for one that carries none, what `otherwise` makes of it.
pub fn cause(error: io::Error, otherwise: impl FnOnce(io::Error) -> Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => inner.clone(),
        None => otherwise(error),
    }
}

/// The entries of the directory `dir` of `fs`, as they come.
fn entries(fs: &dyn Filesystem, dir: &Found) -> Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    fs.read_dir(dir.stat.inode, 0, &mut |entry| {
        entries.push(entry);
        if entries.len() > limits::MAX_GUEST_DIR_ENTRIES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if entries.len() > limits::MAX_GUEST_DIR_ENTRIES {
        return Err(Error::limit("guest.directory-size", "a directory with too many entries")
            .at(escape_bytes(&dir.path))
            .expected(format!("at most {}", limits::MAX_GUEST_DIR_ENTRIES)));
    }
    Ok(entries)
}

/// A path's directory and last name; `None` for a path without a usable name.
#[must_use]
pub fn split_name(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    let (dir, rest) = path.split_at_checked(at)?;
    let name = rest.get(1..)?;
    if name.is_empty() || name == b"." || name == b".." {
        return None;
    }
    Some((if dir.is_empty() { b"/" } else { dir }, name))
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}

fn mounted(path: &[u8], what: &str) -> Error {
    Error::failed("guest.mounted", what).at(escape_bytes(path))
}

fn absent(path: &[u8]) -> Error {
    Error::new(Kind::NotFound, "guest.not-found", "no such file in the guest").at(escape_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFs;

    fn tree() -> Tree {
        let root = MemoryFs::default();
        root.add_file("/usr/bin/sh", "elf").unwrap();
        root.add_file("/etc/os-release", "ID=x\n").unwrap();
        root.add_link("/bin", "usr/bin").unwrap();
        root.add_link("/abs", "/usr/bin/sh").unwrap();
        root.add_link("/etc/up", "../../../../etc/os-release").unwrap();
        root.add_link("/loop", "loop").unwrap();
        root.add_link("/a", "b").unwrap();
        root.add_link("/b", "a").unwrap();
        root.add_link("/dangling", "nowhere").unwrap();
        root.add_link("/empty", "").unwrap();
        root.add_dir("/boot").unwrap();
        let boot = MemoryFs::default();
        boot.add_file("/vmlinuz", "kernel").unwrap();
        boot.add_link("/back", "../etc/os-release").unwrap();
        let mut tree = Tree::new(Arc::new(root));
        tree.mount("/boot", Arc::new(boot)).unwrap();
        tree
    }

    fn canonical(tree: &Tree, path: &str) -> Option<String> {
        tree.find(path).unwrap().map(|found| String::from_utf8(found.path).unwrap())
    }

    #[test]
    fn links_stay_inside_the_guest() {
        let tree = tree();
        for (path, to) in [
            ("/bin/sh", Some("/usr/bin/sh")),
            ("//bin/./sh", Some("/usr/bin/sh")),
            ("/abs", Some("/usr/bin/sh")),
            ("/etc/up", Some("/etc/os-release")),
            ("/../../..", Some("/")),
            ("", Some("/")),
            ("/boot/back", Some("/etc/os-release")),
            ("/boot/vmlinuz", Some("/boot/vmlinuz")),
            ("/boot/../bin", Some("/usr/bin")),
            ("/loop", None),
            ("/a", None),
            ("/dangling", None),
            ("/empty", None),
            ("/etc/os-release/x", None),
        ] {
            assert_eq!(canonical(&tree, path).as_deref(), to, "{path}");
        }
    }

    #[test]
    fn follows_as_many_links_as_the_limit_and_no_more() {
        for (count, reached) in
            [(limits::MAX_GUEST_LINKS - 1, true), (limits::MAX_GUEST_LINKS, true), (limits::MAX_GUEST_LINKS + 1, false)]
        {
            let fs = MemoryFs::default();
            fs.add_file("/0", "").unwrap();
            for index in 1..=count {
                fs.add_link(&format!("/{index}"), &format!("{}", index - 1)).unwrap();
            }
            let tree = Tree::new(Arc::new(fs));
            assert_eq!(tree.exists(format!("/{count}")).unwrap(), reached, "{count}");
        }
    }

    #[test]
    fn a_path_has_a_longest_length() {
        let tree = tree();
        for (length, reached) in
            [(limits::MAX_GUEST_PATH - 1, true), (limits::MAX_GUEST_PATH, true), (limits::MAX_GUEST_PATH + 1, false)]
        {
            let path = format!("{}bin", "/".repeat(length - 3));
            assert_eq!(tree.exists(path).unwrap(), reached, "{length}");
        }
    }

    #[test]
    fn a_read_is_bounded() {
        let tree = tree();
        assert_eq!(tree.read("/bin/sh", 3).unwrap().unwrap(), b"elf");
        assert_eq!(tree.read("/bin/sh", 2).unwrap_err().code(), "guest.file-size");
        assert!(tree.read("/bin", 9).unwrap().is_none());
        assert!(tree.read("/none", 9).unwrap().is_none());
    }

    #[test]
    fn writes_go_to_the_file_system_that_holds_the_path() {
        let tree = tree();
        tree.write("/etc/up", b"ID=y\n").unwrap();
        assert_eq!(tree.read("/etc/os-release", 99).unwrap().unwrap(), b"ID=y\n");
        tree.create_file("/boot/new", &Attributes::default(), b"1").unwrap();
        tree.append("/boot/new", b"2").unwrap();
        let boot: Vec<_> = tree.list("/boot").unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(boot, [b"back".to_vec(), b"new".to_vec(), b"vmlinuz".to_vec()]);
        assert_eq!(tree.read("/boot/new", 9).unwrap().unwrap(), b"12");
        assert_eq!(tree.mount_of("/boot/new").unwrap(), b"/boot");
        tree.remove("/boot/new").unwrap();
        assert!(!tree.exists("/boot/new").unwrap());
        assert_eq!(tree.create_file("/nowhere/x", &Attributes::default(), b"").unwrap_err().code(), "guest.not-found");
        assert_eq!(tree.write("/etc", b"").unwrap_err().code(), "guest.not-regular");
    }

    #[test]
    fn names_move_within_a_file_system_and_not_where_one_is_mounted() {
        let tree = tree();
        tree.rename("/bin/sh", "/etc/sh").unwrap();
        assert!(tree.exists("/etc/sh").unwrap() && !tree.exists("/usr/bin/sh").unwrap());
        // The link, not what it leads to.
        tree.rename("/bin", "/link").unwrap();
        assert_eq!(tree.read_link("/link").unwrap().unwrap(), b"usr/bin");
        assert_eq!(tree.rename("/etc/sh", "/boot/sh").unwrap_err().code(), "guest.mounted");
        assert_eq!(tree.rename("/boot", "/other").unwrap_err().code(), "guest.mounted");
        assert_eq!(tree.remove_dir("/boot").unwrap_err().code(), "guest.mounted");
        assert_eq!(tree.remove_dir("/etc").unwrap_err().code(), "guest.not-empty");
        tree.remove_dir("/usr/bin").unwrap();
        assert!(!tree.exists("/usr/bin").unwrap());
        tree.set_owner("/dangling", 0o777, 5, 6).unwrap();
        assert_eq!(tree.find_link("/dangling").unwrap().unwrap().stat.uid, 5);
        tree.set_xattr("/etc/sh", b"user.x", b"1").unwrap();
        assert_eq!(tree.xattrs("/etc/sh").unwrap(), [(b"user.x".to_vec(), b"1".to_vec())]);
        tree.remove_xattr("/etc/sh", b"user.x").unwrap();
        assert_eq!(tree.xattrs("/etc/sh").unwrap(), []);
        assert_eq!(tree.set_owner("/none", 0, 0, 0).unwrap_err().code(), "guest.not-found");
    }

    #[test]
    fn a_link_at_the_end_is_itself_when_asked() {
        let tree = tree();
        assert_eq!(tree.read_link("/bin").unwrap().unwrap(), b"usr/bin");
        assert!(tree.read_link("/usr/bin").unwrap().is_none());
        assert_eq!(tree.find_link("/loop").unwrap().unwrap().stat.kind, FileKind::Symlink);
    }

    #[test]
    fn a_directory_has_as_many_entries_as_the_limit() {
        let limit = limits::MAX_GUEST_DIR_ENTRIES;
        let fs = Arc::new(MemoryFs::default().with_capacity(1 << 40));
        let (root, attributes) = (fs.root(), Attributes::default());
        let tree = Tree::new(fs.clone());
        let writer = fs.writer().unwrap();
        for index in 0..=limit {
            if index.saturating_add(1) >= limit {
                assert_eq!(tree.list("/").unwrap().len(), index);
            }
            writer.symlink(root, index.to_string().as_bytes(), b"x", &attributes).unwrap();
        }
        assert_eq!(tree.list("/").unwrap_err().code(), "guest.directory-size");
    }

    #[test]
    fn splits_the_last_name() {
        assert_eq!(split_name(b"/etc/fstab"), Some((b"/etc".as_slice(), b"fstab".as_slice())));
        assert_eq!(split_name(b"/etc"), Some((b"/".as_slice(), b"etc".as_slice())));
        for bad in ["", "/", "etc", "/etc/", "/etc/.."] {
            assert_eq!(split_name(bad.as_bytes()), None, "{bad}");
        }
    }
}
