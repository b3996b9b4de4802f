//! A file system that lives in memory: small, complete, readable and writable.
//!
//! It exists for synthetic guests. A distribution's files can be laid out in a few lines, fixed, and compared.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Attributes, DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Timestamp};
use crate::error::{Error, Kind, Result};

const BLOCK: u64 = 4096;
const ROOT: u64 = 2;
const DEFAULT_CAPACITY: u64 = 1 << 30;

/// A file system in memory, with owners, modes, times, links and extended attributes.
#[derive(Debug)]
pub struct MemoryFs {
    facts: FsFacts,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    capacity: u64,
    /// Blocks in use.
    used: u64,
}

#[derive(Debug)]
struct Node {
    stat: Stat,
    body: Body,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug)]
enum Body {
    File(Vec<u8>),
    Directory { entries: BTreeMap<Vec<u8>, Slot>, next_cookie: u64 },
    Link(Vec<u8>),
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    inode: u64,
    cookie: u64,
}

impl Default for MemoryFs {
    fn default() -> Self {
        Self::new("ext4", None, None)
    }
}

impl MemoryFs {
    /// Says that a file has `size` bytes. Reads end where its content does.
    #[cfg(test)]
    pub(crate) fn pretend(&self, inode: Inode, size: u64) {
        self.lock().node_mut(inode).expect("a file").stat.size = size;
    }

    /// An empty file system of 1 GiB that calls itself `kind`.
    #[must_use]
    pub fn new(kind: &'static str, uuid: Option<&str>, label: Option<&str>) -> Self {
        let facts = FsFacts {
            kind,
            uuid: uuid.map(str::to_owned),
            label: label.map(str::to_owned),
            block_size: BLOCK,
            size: DEFAULT_CAPACITY,
            free: Some(DEFAULT_CAPACITY),
            dirty: false,
            features: Vec::new(),
        };
        let root = Node {
            stat: stat(ROOT, FileKind::Directory, &Attributes { mode: 0o755, ..Attributes::default() }, 0),
            body: empty_directory(),
            xattrs: BTreeMap::new(),
        };
        let state =
            State { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, capacity: DEFAULT_CAPACITY, used: 0 };
        Self { facts, state: Mutex::new(state) }
    }

    /// The same with room for `capacity` bytes in all.
    #[must_use]
    pub fn with_capacity(mut self, capacity: u64) -> Self {
        self.facts.size = capacity;
        self.facts.free = Some(capacity);
        self.lock().capacity = capacity;
        self
    }

    /// Makes a directory and those above it; one that exists already stays as it is.
    pub fn add_dir(&self, path: &str) -> Result<Inode> {
        let mut at = self.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match self.lookup(at, name.as_bytes())? {
                Some(inode) => inode,
                None => self.create_dir(at, name.as_bytes(), &Attributes { mode: 0o755, ..Attributes::default() })?,
            };
        }
        Ok(at)
    }

    /// Makes a file of mode 0644, owned by root, and the directories above it; replaces an older one's content.
    pub fn add_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<Inode> {
        self.add_file_with(path, &Attributes { mode: 0o644, ..Attributes::default() }, content)
    }

    /// [`MemoryFs::add_file`] with the given attributes.
    pub fn add_file_with(&self, path: &str, attributes: &Attributes, content: impl AsRef<[u8]>) -> Result<Inode> {
        let (dir, name) = self.parent(path)?;
        if let Some(inode) = self.lookup(dir, name)? {
            self.replace(inode, content.as_ref())?;
            return Ok(inode);
        }
        self.create(dir, name, attributes, content.as_ref())
    }

    /// Makes a symbolic link and the directories above it.
    pub fn add_link(&self, path: &str, target: &str) -> Result<Inode> {
        let (dir, name) = self.parent(path)?;
        self.symlink(dir, name, target.as_bytes(), &Attributes { mode: 0o777, ..Attributes::default() })
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(Inode, &'a [u8])> {
        let (dir, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
        Ok((self.add_dir(dir)?, name.as_bytes()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn node(&self, inode: Inode) -> Result<&Node> {
        self.nodes.get(&inode.0).ok_or_else(|| missing(format!("inode {}", inode.0)))
    }

    fn node_mut(&mut self, inode: Inode) -> Result<&mut Node> {
        self.nodes.get_mut(&inode.0).ok_or_else(|| missing(format!("inode {}", inode.0)))
    }

    fn entries(&self, dir: Inode) -> Result<&BTreeMap<Vec<u8>, Slot>> {
        match &self.node(dir)?.body {
            Body::Directory { entries, .. } => Ok(entries),
            _ => Err(Error::new(Kind::NotFound, "guest.not-a-directory", "not a directory")),
        }
    }

    fn available(&self) -> u64 {
        self.capacity.saturating_sub(self.used.saturating_mul(BLOCK))
    }

    /// Counts a file of `old` bytes as one of `new` bytes, if there is room.
    fn resize(&mut self, old: u64, new: u64) -> Result<()> {
        let needed = blocks(new).saturating_sub(blocks(old)).saturating_mul(BLOCK);
        if needed > self.available() {
            return Err(Error::new(Kind::NoSpace, "guest.full", "the guest's file system has no room left")
                .expected(format!("{needed} bytes free"))
                .found(self.available()));
        }
        self.used = self.used.saturating_sub(blocks(old)).saturating_add(blocks(new));
        Ok(())
    }

    fn set_content(&mut self, inode: Inode, content: Vec<u8>) -> Result<()> {
        let (old, new) = (self.node(inode)?.stat.size, length(&content));
        if !matches!(self.node(inode)?.body, Body::File(_)) {
            return Err(not_regular());
        }
        self.resize(old, new)?;
        let node = self.node_mut(inode)?;
        node.body = Body::File(content);
        node.stat.size = new;
        Ok(())
    }

    fn add(&mut self, dir: Inode, name: &[u8], kind: FileKind, body: Body, attributes: &Attributes) -> Result<Inode> {
        self.check_new(dir, name)?;
        let size = match &body {
            Body::File(content) | Body::Link(content) => length(content),
            Body::Directory { .. } => BLOCK,
        };
        self.resize(0, size)?;
        let inode = self.next;
        self.next = self.next.saturating_add(1);
        let xattrs = attributes.xattrs.iter().cloned().collect();
        self.nodes.insert(inode, Node { stat: stat(inode, kind, attributes, size), body, xattrs });
        self.link(dir, name, inode)?;
        Ok(Inode(inode))
    }

    /// What is called `name` in `dir`.
    fn named(&self, dir: Inode, name: &[u8]) -> Result<&Node> {
        let slot = self.entries(dir)?.get(name).ok_or_else(|| missing(crate::error::escape_bytes(name)))?;
        self.node(Inode(slot.inode))
    }

    /// An error for what cannot become a name in `dir`.
    fn check_new(&self, dir: Inode, name: &[u8]) -> Result<()> {
        if name.is_empty() || name.len() > 255 || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(Error::new(Kind::Failed, "guest.name", "not a file name"));
        }
        if self.entries(dir)?.contains_key(name) {
            return Err(Error::new(Kind::Exists, "guest.exists", "the name exists already")
                .at(crate::error::escape_bytes(name)));
        }
        Ok(())
    }

    /// Whether `inode` is `above`, or lies somewhere below it.
    fn is_below(&self, inode: Inode, above: Inode) -> bool {
        let below = |slot: &Slot| self.is_below(inode, Inode(slot.inode));
        let node = self.nodes.get(&above.0).map(|node| &node.body);
        inode == above || matches!(node, Some(Body::Directory { entries, .. }) if entries.values().any(below))
    }

    fn link(&mut self, dir: Inode, name: &[u8], inode: u64) -> Result<()> {
        let is_dir = self.node(Inode(inode))?.stat.kind == FileKind::Directory;
        let parent = self.node_mut(dir)?;
        if is_dir {
            parent.stat.links = parent.stat.links.saturating_add(1);
        }
        if let Body::Directory { entries, next_cookie } = &mut parent.body {
            entries.insert(name.to_vec(), Slot { inode, cookie: *next_cookie });
            *next_cookie = next_cookie.saturating_add(1);
        }
        Ok(())
    }

    fn unlink(&mut self, dir: Inode, name: &[u8]) -> Result<u64> {
        let Stat { inode, kind, .. } = self.named(dir, name)?.stat;
        let parent = self.node_mut(dir)?;
        if kind == FileKind::Directory {
            parent.stat.links = parent.stat.links.saturating_sub(1);
        }
        if let Body::Directory { entries, .. } = &mut parent.body {
            entries.remove(name);
        }
        Ok(inode.0)
    }

    fn erase(&mut self, dir: Inode, name: &[u8]) -> Result<()> {
        let inode = self.unlink(dir, name)?;
        if let Some(node) = self.nodes.remove(&inode) {
            self.used = self.used.saturating_sub(blocks(node.stat.size));
        }
        Ok(())
    }
}

impl Filesystem for MemoryFs {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(ROOT)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        Ok(self.lock().entries(dir)?.get(name).map(|slot| Inode(slot.inode)))
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        Ok(self.lock().node(inode)?.stat)
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let state = self.lock();
        let Body::File(content) = &state.node(inode)?.body else { return Err(not_regular()) };
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let mut entries = Vec::new();
        {
            let state = self.lock();
            for (name, slot) in state.entries(dir)?.iter().filter(|(_, slot)| slot.cookie > cursor) {
                let inode = Inode(slot.inode);
                let kind = Some(state.node(inode)?.stat.kind);
                entries.push(DirEntry { name: name.clone(), inode, kind, cursor: slot.cookie });
            }
        }
        entries.sort_by_key(|entry| entry.cursor);
        for entry in entries {
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        match &self.lock().node(inode)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(Error::new(Kind::NotFound, "guest.not-regular", "not a symbolic link")),
        }
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let state = self.lock();
        Ok(state.node(inode)?.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn free_ranges(&self, _visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Ok(self)
    }
}

impl FilesystemMut for MemoryFs {
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()> {
        self.lock().set_content(inode, content.to_vec())
    }

    fn append(&self, inode: Inode, content: &[u8]) -> Result<()> {
        let mut state = self.lock();
        let Body::File(old) = &state.node(inode)?.body else { return Err(not_regular()) };
        let joined = [old.as_slice(), content].concat();
        state.set_content(inode, joined)
    }

    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        self.lock().add(dir, name, FileKind::Regular, Body::File(content.to_vec()), attributes)
    }

    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.lock().add(dir, name, FileKind::Directory, empty_directory(), attributes)
    }

    fn symlink(&self, dir: Inode, name: &[u8], target: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.lock().add(dir, name, FileKind::Symlink, Body::Link(target.to_vec()), attributes)
    }

    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()> {
        let mut state = self.lock();
        if matches!(state.named(dir, name)?.body, Body::Directory { .. }) {
            return Err(not_regular());
        }
        state.erase(dir, name)
    }

    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()> {
        let mut state = self.lock();
        match &state.named(dir, name)?.body {
            Body::Directory { entries, .. } if entries.is_empty() => {}
            Body::Directory { .. } => {
                return Err(Error::failed("guest.not-empty", "a directory that is not empty")
                    .at(crate::error::escape_bytes(name)));
            }
            _ => return Err(Error::new(Kind::NotFound, "guest.not-a-directory", "not a directory")),
        }
        state.erase(dir, name)
    }

    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()> {
        let mut state = self.lock();
        let moved = state.named(dir, name)?.stat;
        state.check_new(new_dir, new_name)?;
        if moved.kind == FileKind::Directory && state.is_below(new_dir, moved.inode) {
            return Err(Error::failed("guest.name", "a directory cannot be moved into itself"));
        }
        state.unlink(dir, name)?;
        state.link(new_dir, new_name, moved.inode.0)
    }

    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let mut state = self.lock();
        let stat = &mut state.node_mut(inode)?.stat;
        (stat.mode, stat.uid, stat.gid) = (mode & 0o7777, uid, gid);
        Ok(())
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.lock().node_mut(inode)?.xattrs.remove(name);
        Ok(())
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8]) -> Result<()> {
        self.lock().node_mut(inode)?.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        let mut state = self.lock();
        let stat = &mut state.node_mut(inode)?.stat;
        stat.atime = atime;
        stat.mtime = mtime;
        Ok(())
    }

    fn available(&self) -> Result<u64> {
        Ok(self.lock().available())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn stat(inode: u64, kind: FileKind, attributes: &Attributes, size: u64) -> Stat {
    Stat {
        inode: Inode(inode),
        kind,
        mode: attributes.mode & 0o7777,
        uid: attributes.uid,
        gid: attributes.gid,
        size,
        allocated: blocks(size).saturating_mul(BLOCK),
        device: None,
        links: if kind == FileKind::Directory { 2 } else { 1 },
        atime: attributes.time,
        mtime: attributes.time,
        ctime: attributes.time,
        btime: None,
    }
}

fn empty_directory() -> Body {
    Body::Directory { entries: BTreeMap::new(), next_cookie: 1 }
}

fn length(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

fn missing(what: String) -> Error {
    Error::new(Kind::NotFound, "guest.not-found", "no such file").at(what)
}

fn not_regular() -> Error {
    Error::new(Kind::NotFound, "guest.not-regular", "not a regular file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(fs: &MemoryFs, dir: Inode, cursor: u64) -> Vec<String> {
        let mut names = Vec::new();
        fs.read_dir(dir, cursor, &mut |entry| {
            names.push(String::from_utf8(entry.name).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        names
    }

    #[test]
    fn a_file_keeps_its_attributes_when_replaced() {
        let fs = MemoryFs::default();
        let attributes = Attributes {
            mode: 0o600,
            uid: 7,
            gid: 8,
            time: Timestamp { seconds: 5, nanoseconds: 6 },
            xattrs: vec![(b"security.selinux".to_vec(), b"x".to_vec())],
        };
        let inode = fs.add_file_with("/etc/shadow", &attributes, "old").unwrap();
        fs.replace(inode, b"newer").unwrap();
        fs.append(inode, b"!").unwrap();
        let stat = fs.stat(inode).unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid, stat.size, stat.links), (0o600, 7, 8, 6, 1));
        assert_eq!(fs.xattrs(inode).unwrap(), attributes.xattrs);
        let mut buf = [0; 9];
        assert_eq!(fs.read_at(inode, &mut buf, 2).unwrap(), 4);
        assert_eq!(&buf[..4], b"wer!");
        assert_eq!(fs.read_at(inode, &mut buf, u64::MAX).unwrap(), 0);
    }

    #[test]
    fn a_listing_continues_after_any_entry_even_when_it_was_removed() {
        let fs = MemoryFs::default();
        for name in ["/d/c", "/d/a", "/d/b"] {
            fs.add_file(name, "").unwrap();
        }
        let dir = fs.add_dir("/d").unwrap();
        assert_eq!(names(&fs, dir, 0), ["c", "a", "b"]);
        fs.remove(dir, b"c").unwrap();
        assert_eq!(names(&fs, dir, 1), ["a", "b"]);
        assert_eq!(names(&fs, dir, 3), [""; 0]);
    }

    #[test]
    fn refuses_what_a_file_system_refuses() {
        let fs = MemoryFs::default().with_capacity(3 * BLOCK);
        let root = fs.root();
        let file = fs.add_file("/a", "1").unwrap();
        let none = Attributes::default();
        assert_eq!(fs.create(root, b"a", &none, b"").unwrap_err().kind(), Kind::Exists);
        assert_eq!(fs.create(root, b"a/b", &none, b"").unwrap_err().code(), "guest.name");
        assert_eq!(fs.create(root, b"..", &none, b"").unwrap_err().code(), "guest.name");
        assert_eq!(fs.create(file, b"b", &none, b"").unwrap_err().code(), "guest.not-a-directory");
        assert_eq!(fs.remove(root, b"zz").unwrap_err().code(), "guest.not-found");
        assert_eq!(fs.read_link(file).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(fs.append(file, &[0; 20000]).unwrap_err().kind(), Kind::NoSpace);
        assert_eq!(fs.available().unwrap(), 2 * BLOCK);
        fs.append(file, &[0; 8000]).unwrap();
        assert_eq!(fs.available().unwrap(), BLOCK);
    }

    #[test]
    fn names_move_and_empty_directories_go() {
        let fs = MemoryFs::default();
        let file = fs.add_file("/a/b/file", "1").unwrap();
        let (root, a, b) = (fs.root(), fs.add_dir("/a").unwrap(), fs.add_dir("/a/b").unwrap());
        assert_eq!(fs.remove_dir(root, b"a").unwrap_err().code(), "guest.not-empty");
        assert_eq!(fs.remove_dir(b, b"file").unwrap_err().code(), "guest.not-a-directory");
        assert_eq!(fs.rename(root, b"a", b, b"x").unwrap_err().code(), "guest.name");
        assert_eq!(fs.rename(root, b"a", root, b"a").unwrap_err().code(), "guest.exists");
        assert_eq!(fs.rename(root, b"none", root, b"x").unwrap_err().code(), "guest.not-found");
        fs.rename(a, b"b", root, b"c").unwrap();
        assert_eq!((fs.stat(root).unwrap().links, fs.stat(a).unwrap().links), (4, 2));
        assert_eq!(fs.lookup(b, b"file").unwrap(), Some(file));
        fs.remove_dir(root, b"a").unwrap();
        assert_eq!(fs.stat(root).unwrap().links, 3);
        fs.set_owner(file, 0o100_600, 5, 6).unwrap();
        let stat = fs.stat(file).unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid), (0o600, 5, 6));
        fs.set_xattr(file, b"user.x", b"1").unwrap();
        fs.remove_xattr(file, b"user.x").unwrap();
        fs.remove_xattr(file, b"user.x").unwrap();
        assert_eq!(fs.xattrs(file).unwrap(), []);
    }
}
