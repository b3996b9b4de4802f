//! XFS, versions 4 and 5: reading, straight on a flat disk.
//!
//! What a crash left in the log is replayed first: in memory, or into the disk when it can be written. Names of fields are those of the kernel and of "XFS Algorithms & Data Structures". All metadata of version 5 is verified:
//! checksum, place, owner and file system.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::parts::Parts;
use super::{DirEntry, Filesystem, FilesystemMut, FsFacts, Inode, Stat};
use crate::disk::bytes::size;
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Kind, Result};
use log::{End, Log, Replay, State};
use store::Store;
use superblock::{Counts, Superblock};
use view::View;

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

/// An XFS file system.
pub struct Xfs {
    store: Store,
    sb: Superblock,
    facts: FsFacts,
    /// Why nothing may be written.
    refusal: Error,
    /// Whether the allocation state is that of the newest transaction.
    current: bool,
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
            Ok(None) => Ok(Self::assembled(Store::new(volume), sb, false, refusal, true)),
            Ok(Some(recovered)) => Ok(recovered.into_fs(refusal)),
            Err(error) if is_about_content(&error) => Ok(Self::assembled(Store::new(volume), sb, true, error, false)),
            Err(error) => Err(error),
        }
    }

    /// Opens a volume for reading, after putting what its log holds in place. A log is left that the kernel has nothing to
    /// replay from, at most inodes to remove and changes to finish when it mounts the file system. Where the log cannot be
    /// replayed, nothing is written, and [`Filesystem::writer`] says why.
    ///
    /// # Errors
    /// When it is not an XFS file system, one that cannot be read, or the volume cannot be written.
    pub fn open_mut(volume: Arc<dyn DiskMut>) -> Result<Self> {
        let disk: Arc<dyn Disk> = volume.clone();
        let sb = Superblock::read(&*disk)?;
        let refusal = read_only("files of an XFS file system cannot be changed");
        let mut recovered = match Recovered::of(&disk, &sb) {
            Ok(None) => return Ok(Self::assembled(Store::new(disk), sb, false, refusal, true)),
            Ok(Some(recovered)) => recovered,
            Err(error) if is_about_content(&error) => {
                return Ok(Self::assembled(Store::new(disk), sb, true, error, false));
            }
            Err(error) => return Err(error),
        };
        match recovered.put_in_place(&disk, &*volume) {
            Ok(()) => Ok(recovered.into_fs(refusal)),
            Err(error) if is_about_content(&error) => Ok(recovered.into_fs(error)),
            Err(error) => Err(error),
        }
    }

    fn assembled(store: Store, sb: Superblock, dirty: bool, refusal: Error, current: bool) -> Self {
        let facts = sb.facts(dirty, sb.free_blocks());
        Self { store, sb, facts, refusal, current }
    }

    fn view(&self) -> View<'_> {
        View { store: &self.store, sb: &self.sb }
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
        Ok(Some(Self { store, sb: newest, end, replay, counts }))
    }

    /// Stores everything on `target`, which is `disk`. Nothing is written if that is not possible.
    fn put_in_place(&mut self, disk: &Arc<dyn Disk>, target: &dyn DiskMut) -> Result<()> {
        let counts = self.sb.features.has_lazy_count().then_some(self.counts);
        let sector = self.sb.settled(counts, self.replay.lost_quotas());
        let sb = Superblock::parse(sector.clone(), disk.len())?;
        let has_leftovers = View { store: &self.store, sb: &self.sb }.has_leftovers()?;
        let log = Log::new(&**disk, &self.sb)?;
        let record = log.last_words(&self.end, &self.replay, &sector, has_leftovers)?;
        self.store.change(&sector, 0)?;
        self.store.store(target)?;
        log.settle(&self.end, &record, target)?;
        target.flush()?;
        self.store = Store::new(Arc::clone(disk));
        self.sb = sb;
        Ok(())
    }

    fn into_fs(self, refusal: Error) -> Xfs {
        let facts = self.sb.facts(true, self.counts.fdblocks);
        let (refusal, current) = match self.replay.unfinished() {
            None => (refusal, true),
            Some(what) => {
                let error = unsupported(format!("the log holds a change that was not finished: {what}"));
                (error.hint("mount and unmount the file system in the guest"), false)
            }
        };
        Xfs { store: self.store, sb: self.sb, facts, refusal, current }
    }
}

impl fmt::Debug for Xfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xfs").field("facts", &self.facts).field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

impl Filesystem for Xfs {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(self.sb.root())
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let view = self.view();
        view.find(&view.dir(dir)?, name)
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        self.view().inode(inode)?.stat(&self.sb)
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let view = self.view();
        let node = view.regular(inode)?;
        let len = buf.len().min(size(node.size().saturating_sub(offset)));
        view.read_content(&node, buf.get_mut(..len).unwrap_or_default(), offset)?;
        Ok(len)
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let view = self.view();
        let node = view.regular(inode)?;
        let mut parts = Parts::new(&range, node.size(), visit);
        let mut rest = parts.rest(0);
        while !rest.is_empty() {
            let (part, is_data) = view.part(&node, rest.start)?;
            rest.start = part.end;
            if is_data && parts.add(part).is_break() {
                return Ok(());
            }
        }
        parts.finish();
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let view = self.view();
        let node = view.dir(dir)?;
        let mut cursor = cursor;
        while let Some((entries, next)) = view.list(&node, cursor)? {
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
        let view = self.view();
        view.target(&view.inode(inode)?)
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let view = self.view();
        view.attributes(&view.inode(inode)?)
    }

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        if self.current { self.view().free_ranges(visit) } else { Ok(()) }
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Err(self.refusal.clone())
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
