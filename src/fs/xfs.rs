//! XFS, versions 4 and 5: reading and writing, straight on a flat disk.
//!
//! What a crash left in the log is replayed first: in memory, or into the disk when it can be written. Names of fields are those of the kernel and of "XFS Algorithms & Data Structures". All metadata of version 5 is verified:
//! checksum, place, owner and file system.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::parts::Parts;
use super::{Attributes, DirEntry, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Timestamp};
use crate::disk::bytes::size;
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Kind, Result};
use log::{End, Log, Replay, State};
use store::Store;
use superblock::{Counts, Superblock};
use view::View;
use write::Writer;

mod acl;
mod attr;
mod block;
mod da;
mod dir;
mod features;
mod group;
mod link;
mod log;
mod map;
mod node;
mod store;
mod superblock;
#[cfg(test)]
mod tests;
mod view;
mod write;

/// An XFS file system.
pub struct Xfs {
    state: RwLock<Mounted>,
    facts: FsFacts,
    /// What takes changes, or why nothing may be written.
    target: Result<Arc<dyn DiskMut>>,
    /// Whether the allocation state is that of the newest transaction.
    current: bool,
}

/// The file system as it is after the last change.
#[derive(Debug)]
struct Mounted {
    store: Store,
    sb: Superblock,
    /// Whether a change could not be stored, and may be there by half: nothing can be written any more, and nothing is known to be
    /// free.
    broken: bool,
}

impl Mounted {
    fn check(&self) -> Result<()> {
        if self.broken {
            return Err(Error::failed("xfs.aborted", "a change could not be stored, so nothing can be written"));
        }
        Ok(())
    }
}

impl Xfs {
    /// Opens a volume for reading. What its log holds is replayed in memory; nothing is written.
    ///
    /// # Errors
    /// When it is not an XFS file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        let sb = Superblock::read(&*volume)?;
        let refusal = read_only("the volume was opened for reading");
        match Recovered::of(&volume, &sb) {
            Ok(None) => Ok(Self::assembled(Store::new(volume), sb, false, Err(refusal), true)),
            Ok(Some(mut recovered)) => {
                recovered.finish_what_shows()?;
                Ok(recovered.into_fs(Err(refusal)))
            }
            Err(error) if is_about_content(&error) => {
                Ok(Self::assembled(Store::new(volume), sb, true, Err(error), false))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a volume for reading and writing, after putting what its log holds in place. A log is left that the kernel has
    /// nothing to replay from, at most changes to finish when it mounts the file system. Where the log cannot be replayed or
    /// something is left in it, nothing else is written, and [`Filesystem::writer`] says why.
    ///
    /// # Errors
    /// When it is not an XFS file system, one that cannot be read, or the volume cannot be written.
    pub fn open_mut(volume: Arc<dyn DiskMut>) -> Result<Self> {
        let disk: Arc<dyn Disk> = volume.clone();
        let sb = Superblock::read(&*disk)?;
        let target = || match volume.can_write() {
            true => Ok(Arc::clone(&volume)),
            false => Err(read_only("the volume cannot be written")),
        };
        let mut recovered = match Recovered::of(&disk, &sb) {
            Ok(None) => return Ok(Self::assembled(Store::new(disk), sb, false, target(), true)),
            Ok(Some(recovered)) => recovered,
            Err(error) if is_about_content(&error) => {
                return Ok(Self::assembled(Store::new(disk), sb, true, Err(error), false));
            }
            Err(error) => return Err(error),
        };
        match recovered.put_in_place(&disk, &*volume) {
            Ok(true) => Ok(recovered.into_fs(target())),
            Ok(false) => Ok(recovered.into_fs(Err(unsupported("the log holds something that only the kernel ends")
                .hint("mount and unmount the file system in the guest")))),
            Err(error) if is_about_content(&error) => Ok(recovered.into_fs(Err(error))),
            Err(error) => Err(error),
        }
    }

    fn assembled(store: Store, sb: Superblock, dirty: bool, target: Result<Arc<dyn DiskMut>>, current: bool) -> Self {
        let facts = sb.facts(dirty, sb.free_blocks());
        Self { state: RwLock::new(Mounted { store, sb, broken: false }), facts, target, current }
    }

    fn state(&self) -> RwLockReadGuard<'_, Mounted> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading<T>(&self, work: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        let state = self.state();
        work(&View { store: &state.store, sb: &state.sb })
    }

    /// Makes all of a change, or nothing of it.
    fn writing<T>(&self, work: impl FnOnce(&mut Writer<'_>) -> Result<T>) -> Result<T> {
        let target = self.target.as_ref().map_err(Clone::clone)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.check()?;
        let Mounted { store, sb, broken } = &mut *state;
        let before = sb.clone();
        let mut writer = Writer::new(store, sb);
        let done = work(&mut writer).and_then(|value| writer.prepare().map(|()| value)).and_then(|value| {
            *broken = true;
            writer.commit(&**target)?;
            *broken = false;
            Ok(value)
        });
        if done.is_err() {
            state.store.undo();
            state.sb = before;
        }
        done
    }
}

/// A file system whose log was replayed in memory.
struct Recovered {
    store: Store,
    /// The superblock after the replay.
    sb: Superblock,
    end: End,
    replay: Replay,
    counts: Counts,
    /// Whether what a crash left for later was ended here.
    tidied: bool,
}

impl Recovered {
    /// Replays the log of `sb` on `disk`; none if there is nothing to replay.
    fn of(disk: &Arc<dyn Disk>, sb: &Superblock) -> Result<Option<Self>> {
        if sb.is_in_progress() {
            return Err(unsupported("mkfs did not come to its end"));
        }
        if sb.needs_repair() {
            return Err(corrupt("the file system is marked as in need of repair").hint("run xfs_repair in the guest"));
        }
        let unknown = sb.features.unknown();
        if !unknown.is_empty() {
            return Err(unsupported(format!("the file system has unknown features: {}", unknown.join(" "))));
        }
        let log = Log::new(&**disk, sb)?;
        let State::Dirty(end) = log.state()? else {
            return Ok(None);
        };
        let mut store = Store::new(Arc::clone(disk));
        let replay = log.replay(&end, &mut store, sb)?;
        let mut sector = vec![0; sb.sector_len()];
        store.read(&mut sector, 0)?;
        let newest = Superblock::parse(sector, disk.len())?;
        if newest.geometry() != sb.geometry() {
            return Err(unsupported("the log holds a change of the file system's form")
                .hint("mount and unmount it in the guest"));
        }
        let counts = View { store: &store, sb: &newest }.counts()?;
        Ok(Some(Self { store, sb: newest, end, replay, counts, tidied: false }))
    }

    /// Stores everything on `target`, which is `disk`. Nothing is written if that is not possible. Tells whether nothing is left
    /// for the kernel to do.
    fn put_in_place(&mut self, disk: &Arc<dyn Disk>, target: &dyn DiskMut) -> Result<bool> {
        let mut has_leftovers = View { store: &self.store, sb: &self.sb }.has_leftovers()?;
        if has_leftovers || !self.replay.has_no_intents() {
            has_leftovers &= !self.tidied_up()?;
        }
        let counts = self.sb.features.has_lazy_count().then_some(self.counts);
        let sector = self.sb.settled(counts, self.replay.lost_quotas() || self.tidied);
        let sb = Superblock::parse(sector.clone(), disk.len())?;
        let log = Log::new(&**disk, &self.sb)?;
        let record = log.last_words(&self.end, &self.replay, &sector, has_leftovers)?;
        self.store.change(&sector, 0)?;
        self.store.store(target)?;
        log.settle(&self.end, &record, target)?;
        target.flush()?;
        self.store = Store::new(Arc::clone(disk));
        self.sb = sb;
        Ok(!has_leftovers && self.replay.has_no_intents())
    }

    /// Finishes in memory what was begun when the machine stopped, if files show it.
    fn finish_what_shows(&mut self) -> Result<()> {
        if self.replay.unfinished().is_some() {
            self.tidied_up()?;
        }
        Ok(())
    }

    /// Finishes what was begun when the machine stopped, and ends what a crash left for later. Nothing is done, and the kernel
    /// has to do it, where that is not possible.
    fn tidied_up(&mut self) -> Result<bool> {
        let before = (self.store.saved(), self.sb.clone());
        let intents = match self.replay.to_finish() {
            Ok(Some(intents)) => intents,
            Ok(None) => return Ok(false),
            Err(error) => {
                tracing::debug!(%error, "what was begun is left to the kernel");
                return Ok(false);
            }
        };
        let mut writer = Writer::new(&mut self.store, &mut self.sb);
        match writer.finish_intents(intents).and_then(|()| writer.tidy_up()) {
            Ok(()) => {
                self.replay.forget_intents();
                self.counts = View { store: &self.store, sb: &self.sb }.counts()?;
                self.tidied = true;
                Ok(true)
            }
            Err(error) if is_about_content(&error) || error.kind() == Kind::NoSpace => {
                tracing::debug!(%error, "what a crash left is left to the kernel");
                self.store.restore(before.0);
                self.sb = before.1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn into_fs(self, target: Result<Arc<dyn DiskMut>>) -> Xfs {
        let facts = self.sb.facts(true, self.counts.fdblocks);
        let (target, current) = match self.replay.unfinished() {
            None => (target, true),
            Some(what) => {
                let error = unsupported(format!("the log holds a change that was not finished: {what}"));
                (Err(error.hint("mount and unmount the file system in the guest")), false)
            }
        };
        let state = Mounted { store: self.store, sb: self.sb, broken: false };
        Xfs { state: RwLock::new(state), facts, target, current }
    }
}

impl fmt::Debug for Xfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xfs").field("facts", &self.facts).field("target", &self.target).finish_non_exhaustive()
    }
}

impl Filesystem for Xfs {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(self.state().sb.root())
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        self.reading(|view| view.find(&view.dir(dir)?, name))
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        self.reading(|view| view.inode(inode)?.stat(view.sb))
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.reading(|view| {
            let node = view.regular(inode)?;
            let len = buf.len().min(size(node.size().saturating_sub(offset)));
            view.read_content(&node, buf.get_mut(..len).unwrap_or_default(), offset)?;
            Ok(len)
        })
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.reading(|view| view.regular(inode))?;
        let mut parts = Parts::new(&range, node.size(), visit);
        let mut rest = parts.rest(0);
        while !rest.is_empty() {
            let (part, is_data) = self.reading(|view| view.part(&node, rest.start))?;
            rest.start = part.end;
            if is_data && parts.add(part).is_break() {
                return Ok(());
            }
        }
        parts.finish();
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let mut cursor = cursor;
        // No lock is held while visiting, so that the visitor may use the file system.
        while let Some((entries, next)) = self.reading(|view| view.list(&view.dir(dir)?, cursor))? {
            for entry in entries {
                if visit(entry).is_break() {
                    return Ok(());
                }
            }
            cursor = next;
        }
        Ok(())
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        self.reading(|view| view.target(&view.inode(inode)?))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.reading(|view| view.attributes(&view.inode(inode)?))
    }

    fn free(&self) -> Result<u64> {
        if self.target.is_err() {
            return Ok(self.facts.free.unwrap_or(0));
        }
        let state = self.state();
        Ok(state.sb.bytes(state.sb.free_blocks().min(state.sb.dblocks)))
    }

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        self.state().check()?;
        if self.current { self.reading(|view| view.free_ranges(visit)) } else { Ok(()) }
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        match &self.target {
            Ok(_) => Ok(self),
            Err(refusal) => Err(refusal.clone()),
        }
    }
}

impl FilesystemMut for Xfs {
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()> {
        self.writing(|writer| writer.replace(inode, content))
    }

    fn append(&self, inode: Inode, content: &[u8]) -> Result<()> {
        self.writing(|writer| writer.append(inode, content))
    }

    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        self.writing(|writer| writer.create(dir, name, attributes, content))
    }

    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.writing(|writer| writer.create_dir(dir, name, attributes))
    }

    fn symlink(&self, dir: Inode, name: &[u8], target: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.writing(|writer| writer.symlink(dir, name, target, attributes))
    }

    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.writing(|writer| writer.remove_file(dir, name))
    }

    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.writing(|writer| writer.remove_empty(dir, name))
    }

    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()> {
        self.writing(|writer| writer.rename(dir, name, new_dir, new_name))
    }

    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        self.writing(|writer| writer.set_owner(inode, mode, uid, gid))
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8]) -> Result<()> {
        self.writing(|writer| writer.change_xattr(inode, name, Some(value)))
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.writing(|writer| writer.change_xattr(inode, name, None))
    }

    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        self.writing(|writer| writer.set_times(inode, atime, mtime))
    }

    fn available(&self) -> Result<u64> {
        let state = self.state();
        let kept = (0..state.sb.agcount).map(|agno| u64::from(write::reserve(&state.sb, agno)));
        let kept = kept.fold(0, u64::saturating_add);
        Ok(state.sb.bytes(state.sb.free_blocks().saturating_sub(kept)))
    }

    fn sync(&self) -> Result<()> {
        self.state().check()?;
        self.target.as_ref().map_err(Clone::clone)?.flush()
    }
}

/// Whether an error says what is on the disk, rather than that the disk failed.
fn is_about_content(error: &Error) -> bool {
    matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported)
}

/// What was read; `None` when its bytes contradict themselves, for callers that can do without.
fn believed<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == Kind::Corrupt => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("xfs.corrupt", what)
}

/// Nothing can be written.
fn read_only(what: impl Into<String>) -> Error {
    Error::refused("xfs.read-only", what)
}

/// Well formed, not handled.
fn unsupported(what: impl Into<String>) -> Error {
    Error::unsupported("xfs.feature", what)
}
