//! FAT12, FAT16 and FAT32 with long names: reading, and writing what fixes need, straight on a flat disk.
//!
//! Field names are those of Microsoft's "FAT: General Overview of On-Disk Format" (1.03). What it leaves open is as in the
//! kernel's vfat: times are universal, modes are 0755, or 0555 for what is read-only, names are found whatever their case.
//! An inode is the place of a file's directory entry, in units of 32 bytes; [`Filesystem::root`] has none and is 1.
//!
//! Each call gathers its changes and stores them at its end, so that one that is refused or runs out of space changes nothing.
//! Every copy of the table and FSInfo are kept in step. There is no journal: a volume that was in use when it was copied is
//! written to as it is, and keeps the flag that says so. Owners and permissions of new files are not kept, but for one without
//! any permission to write, which becomes read-only.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::HashMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::clusters::Chain;
use super::pages::Pages;
use super::{Attributes, DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Timestamp, utf16};
use crate::disk::bytes::{long, size};
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Kind, Result};
use crate::limits;
use boot::{Boot, Width};
use view::{Room, View};

mod boot;
mod dir;
mod names;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod write;

/// The root directory.
const ROOT: Inode = Inode(1);

/// The code of what there is too much of.
const LIMIT: &str = "fat.limit";

/// Files whose clusters are kept in memory.
const CHAINS: usize = 64;

/// A FAT file system.
pub struct Fat {
    pages: Pages,
    boot: Boot,
    facts: FsFacts,
    target: Option<Arc<dyn DiskMut>>,
    /// Why nothing may be written, if so.
    refusal: Option<Error>,
    /// The clusters of files that were read, by their first one and their number.
    chains: Mutex<HashMap<(u32, u32), Arc<Chain>>>,
    /// Taken for reading by every call that reads, for writing by every call that writes.
    room: RwLock<Room>,
}

impl Fat {
    /// Opens a volume for reading. A FAT32 volume whose boot sector is damaged is read by its backup.
    ///
    /// # Errors
    /// When it is not a FAT file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        Self::assemble(volume, None, Some(read_only("the volume was opened for reading")))
    }

    /// Opens a volume for reading and writing. One that has only its backup boot sector can be read only.
    ///
    /// # Errors
    /// When it is not a FAT file system, or one that cannot be read.
    pub fn open_mut(volume: Arc<dyn DiskMut>) -> Result<Self> {
        let disk: Arc<dyn Disk> = volume.clone();
        Self::assemble(disk, Some(volume), None)
    }

    fn assemble(volume: Arc<dyn Disk>, target: Option<Arc<dyn DiskMut>>, refusal: Option<Error>) -> Result<Self> {
        let pages = Pages::new(volume, "fat.corrupt");
        let (boot, by_backup) = find_boot(&pages)?;
        let backup = || read_only("the boot sector is damaged, and only its backup could be read");
        let refusal = refusal.or_else(|| by_backup.then(backup));
        let view = View::new(&pages, &boot, Room::default());
        let dirty = by_backup || !view.is_clean()?;
        let label = view.dir(ROOT)?.label().or_else(|| boot.label.clone());
        let told = view.fs_info()?.filter(|(free, _)| !dirty && *free <= boot.clusters);
        let next = view.fs_info()?.map_or(0, |(_, next)| next);
        // What FSInfo says is not believed for changes.
        let room = Room { free: view.room.free, next };
        let facts = FsFacts {
            kind: "vfat",
            uuid: Some(format!("{:04X}-{:04X}", boot.serial >> 16, boot.serial & 0xffff)),
            label,
            block_size: boot.cluster.get(),
            size: boot.size,
            free: told.map(|(free, _)| u64::from(free).saturating_mul(boot.cluster.get())),
            dirty,
            features: vec![boot.width.name().to_owned()],
        };
        Ok(Self { pages, boot, facts, target, refusal, chains: Mutex::default(), room: RwLock::new(room) })
    }

    /// Runs `job` on the file system as it is.
    fn reading<T>(&self, job: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        let room = self.room.read().unwrap_or_else(PoisonError::into_inner);
        job(&View::new(&self.pages, &self.boot, *room))
    }

    /// Runs `job` and stores what it changed, if it succeeds.
    fn writing<T>(&self, job: impl FnOnce(&mut View<'_>) -> Result<T>) -> Result<T> {
        let target = self.target()?;
        let mut room = self.room.write().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::new(&self.pages, &self.boot, *room);
        let value = job(&mut view)?;
        self.chains.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *room = view.commit(&**target)?;
        Ok(value)
    }

    fn target(&self) -> Result<&Arc<dyn DiskMut>> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        self.target.as_ref().ok_or_else(|| read_only("the volume was opened for reading"))
    }

    /// The clusters of a file's content, from memory if they are there.
    fn chain(&self, view: &View<'_>, node: &dir::Node) -> Result<Arc<Chain>> {
        let key = (node.slot.first_cluster(self.boot.width), view.clusters_of(u64::from(node.slot.size())));
        let known = self.chains.lock().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        if let Some(chain) = known {
            return Ok(chain);
        }
        let chain = Arc::new(view.file_chain(node)?);
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let runs: usize = chains.values().map(|chain| chain.runs().len()).sum();
        if chains.len() >= CHAINS || runs.saturating_add(chain.runs().len()) > limits::MAX_FAT_RUNS {
            chains.clear();
        }
        chains.insert(key, Arc::clone(&chain));
        Ok(chain)
    }

    /// Fills `buf` from `offset` of a file that reaches that far.
    fn read_content(&self, chain: &Chain, buf: &mut [u8], offset: u64) -> Result<()> {
        let read = self.boot.heap().read(&self.pages, chain, buf, offset)?;
        read.ok_or_else(|| corrupt("a file has too few clusters"))
    }
}

impl fmt::Debug for Fat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fat").field("facts", &self.facts).field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

/// The boot sector, or its backup where the first one is damaged; whether it is the backup.
fn find_boot(pages: &Pages) -> Result<(Boot, bool)> {
    let volume = pages.volume_len();
    let first = pages.bytes(0, boot::LEN).and_then(|bytes| Boot::parse(&bytes, volume));
    let Err(error) = first else { return first.map(|boot| (boot, false)) };
    if error.kind() != Kind::Corrupt {
        return Err(error);
    }
    // In sector 6, however large sectors are.
    for sector in [512_u64, 1024, 2048, 4096] {
        let backup = pages.bytes(sector.saturating_mul(6), boot::LEN).and_then(|bytes| Boot::parse(&bytes, volume));
        if let Ok(boot) = backup
            && boot.width == Width::Fat32
            && boot.sector.get() == sector
        {
            return Ok((boot, true));
        }
    }
    Err(error)
}

impl Filesystem for Fat {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        ROOT
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        self.reading(|view| Ok(view.dir(dir)?.find(name).map(|entry| entry.node.inode())))
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        self.reading(|view| view.stat(inode))
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.reading(|view| {
            let node = view.regular(inode)?;
            let left = u64::from(node.slot.size()).saturating_sub(offset);
            let len = buf.len().min(size(left));
            if len > 0 {
                self.read_content(&*self.chain(view, &node)?, buf.get_mut(..len).unwrap_or_default(), offset)?;
            }
            Ok(len)
        })
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        // No lock is held while visiting, so that the visitor may use the file system.
        let entries = self.reading(|view| Ok(view.dir(dir)?.entries(size(cursor))))?;
        for entry in entries {
            let listed = DirEntry {
                name: utf16::to_bytes(&entry.name),
                inode: entry.node.inode(),
                kind: Some(entry.node.kind()),
                cursor: long(entry.last).saturating_add(1),
            };
            if visit(listed).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        Err(Error::new(Kind::NotFound, "fat.name", "not a symbolic link").at(format!("inode {}", inode.0)))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.reading(|view| view.node(inode).map(|_| Vec::new()))
    }

    fn free(&self) -> Result<u64> {
        self.facts.free.map_or_else(|| self.available(), Ok)
    }

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        if self.facts.dirty {
            return Ok(());
        }
        self.reading(|view| {
            if !view.tables_agree()? {
                return Ok(());
            }
            view.free_runs(&mut |run| visit(self.boot.place(run.start)..self.boot.place(run.end)))
        })
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        self.target()?;
        Ok(self)
    }
}

impl FilesystemMut for Fat {
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()> {
        self.writing(|view| {
            let mut node = view.regular(inode)?;
            view.fill(&mut node, content, false)
        })
    }

    fn append(&self, inode: Inode, content: &[u8]) -> Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        self.writing(|view| {
            let mut node = view.regular(inode)?;
            view.fill(&mut node, content, true)
        })
    }

    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        self.writing(|view| {
            let (_, mut node) = view.create(dir, name, FileKind::Regular, attributes)?;
            view.fill(&mut node, content, false)?;
            Ok(node.inode())
        })
    }

    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.writing(|view| {
            let (parent, mut node) = view.create(dir, name, FileKind::Directory, attributes)?;
            view.make_dir(&parent, &mut node)?;
            Ok(node.inode())
        })
    }

    fn symlink(&self, _dir: Inode, _name: &[u8], _target: &[u8], _attributes: &Attributes) -> Result<Inode> {
        Err(Error::unsupported("fat.feature", "a FAT file system keeps no symbolic links"))
    }

    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.writing(|view| view.remove(dir, name, false))
    }

    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.writing(|view| view.remove(dir, name, true))
    }

    /// The inode is another one then, since it is where the name is.
    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()> {
        self.writing(|view| view.rename(dir, name, new_dir, new_name))
    }

    /// A file that nobody may write becomes read-only, every other one writable. There is no owner but root.
    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        if (uid, gid) != (0, 0) {
            return Err(Error::unsupported("fat.feature", "a FAT file system keeps no owners").found(uid));
        }
        self.writing(|view| {
            let mut node = view.node(inode)?;
            node.slot.set_read_only(mode & 0o222 == 0);
            view.put_node(&node)
        })
    }

    fn set_xattr(&self, _inode: Inode, _name: &[u8], _value: &[u8]) -> Result<()> {
        Err(Error::unsupported("fat.feature", "a FAT file system keeps no extended attributes"))
    }

    fn remove_xattr(&self, inode: Inode, _name: &[u8]) -> Result<()> {
        // There is none.
        self.reading(|view| view.node(inode).map(drop))
    }

    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        self.writing(|view| {
            let mut node = view.node(inode)?;
            node.slot.set_atime(atime);
            node.slot.set_mtime(mtime);
            view.put_node(&node)
        })
    }

    fn available(&self) -> Result<u64> {
        let mut room = self.room.write().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::new(&self.pages, &self.boot, *room);
        let free = view.count()?;
        room.free = Some(free);
        Ok(u64::from(free).saturating_mul(self.boot.cluster.get()))
    }

    fn sync(&self) -> Result<()> {
        self.target()?.flush()
    }
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("fat.corrupt", what)
}

/// The file system has no room.
fn full(what: impl Into<String>) -> Error {
    Error::failed("fat.space", what)
}

/// Nothing can be written.
fn read_only(what: impl Into<String>) -> Error {
    Error::refused("fat.read-only", what)
}
