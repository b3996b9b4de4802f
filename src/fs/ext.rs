//! ext2, ext3 and ext4: reading, and writing what fixes need, straight on a flat disk.
//!
//! Field names are those of the kernel's documentation (`Documentation/filesystems/ext4`). What a crash left in the journal is
//! replayed first: into the disk when it can be written, else in memory. Writes then go in place, without a journal, since they
//! go to an overlay that is thrown away when anything fails. Each call gathers its changes and stores them at its end, so that
//! one that is refused or runs out of space changes nothing.
//!
//! Times change only as the caller says: a new file has the given time, and with it the directory that it is created in;
//! replacing, appending, renaming, removing, owners and attributes leave all times as they are, so that [`FilesystemMut::set_times`] decides.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError, RwLock};

use super::parts::Parts;
use super::{Attributes, DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Timestamp};
use crate::disk::bytes::{le16, long, size};
use crate::disk::{Disk, DiskMut, read_vec};
use crate::error::{Error, Kind, Result};
use journal::Replay;
use node::{FLAG_ENCRYPT, FLAG_INLINE, FLAG_VERITY, Node};
use superblock::Superblock;
use view::{Blocks, View};

mod acl;
mod alloc;
mod bitmap;
mod checksum;
mod content;
mod create;
mod dir;
mod features;
mod free;
mod group;
mod hash;
mod htree;
mod idle;
mod journal;
mod map;
mod names;
mod node;
mod rename;
mod superblock;
#[cfg(test)]
mod tests;
mod view;
mod xattr;

/// The root directory's inode.
const ROOT: u64 = 2;

/// Whether `volume` carries the magic number of ext2, ext3 and ext4.
///
/// # Errors
/// When the volume cannot be read.
pub fn is_ext(volume: &dyn Disk) -> Result<bool> {
    let end = superblock::OFFSET.saturating_add(long(superblock::LEN));
    Ok(volume.len() >= end && le16(&read_vec(volume, superblock::OFFSET, superblock::LEN)?, 0x38) == 0xef53)
}

/// An ext2, ext3 or ext4 file system.
pub struct Ext {
    blocks: Blocks,
    facts: FsFacts,
    /// Why nothing may be written, if so.
    refusal: Option<Error>,
    /// Whether the allocation state is that of the newest transaction.
    current: bool,
    /// Taken for reading by every call that reads, for writing by every call that writes.
    state: RwLock<Arc<Superblock>>,
}

impl Ext {
    /// Opens a volume for reading. What its journal holds is read from there; nothing is written.
    ///
    /// # Errors
    /// When it is not an ext file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        let sb = Self::superblock(&*volume)?;
        let blocks = Blocks::new(Arc::clone(&volume), None, &sb);
        let refusal = read_only("the volume was opened for reading");
        if !sb.needs_recovery() {
            let dirty = is_dirty(&sb);
            return Ok(Self::assembled(blocks, sb, dirty, Some(refusal), true));
        }
        match journal::read(&blocks, &sb).and_then(|replay| replayed(volume, &sb, replay)) {
            Ok((blocks, newest)) => Ok(Self::assembled(blocks, newest, true, Some(refusal), true)),
            Err(error) if is_about_content(&error) => Ok(Self::assembled(blocks, sb, true, Some(error), false)),
            Err(error) => Err(error),
        }
    }

    /// Opens a volume for reading and writing. What its journal holds is put in place first, and what a crash left half
    /// removed is finished. A journal that cannot be replayed leaves a file system that can be read only.
    ///
    /// # Errors
    /// When it is not an ext file system, or one that cannot be read.
    pub fn open_mut(volume: Arc<dyn DiskMut>) -> Result<Self> {
        let sb = Self::superblock(&*volume)?;
        let disk: Arc<dyn Disk> = volume.clone();
        let blocks = Blocks::new(Arc::clone(&disk), Some(volume), &sb);
        let dirty = is_dirty(&sb);
        let unwritable = features::unwritable(sb.ro_compat());
        if !unwritable.is_empty() {
            let what = format!("the file system has features that cannot be written: {}", unwritable.join(" "));
            let mut fs = Self::open(disk)?;
            fs.refusal = Some(unsupported(what));
            return Ok(fs);
        }
        match recover(&disk, &blocks, &sb) {
            Ok(newest) => Ok(Self::assembled(blocks, newest, dirty, None, true)),
            Err(error) if is_about_content(&error) => {
                let mut fs = Self::open(disk)?;
                fs.refusal = Some(error);
                Ok(fs)
            }
            Err(error) => Err(error),
        }
    }

    fn superblock(volume: &dyn Disk) -> Result<Superblock> {
        if volume.len() < superblock::OFFSET.saturating_add(long(superblock::LEN)) {
            return Err(corrupt("too short for an ext file system").found(volume.len()));
        }
        Superblock::parse(&read_vec(volume, superblock::OFFSET, superblock::LEN)?, volume.len())
    }

    fn assembled(blocks: Blocks, sb: Superblock, dirty: bool, refusal: Option<Error>, current: bool) -> Self {
        Self { facts: sb.facts(dirty), blocks, refusal, current, state: RwLock::new(Arc::new(sb)) }
    }

    /// Runs `job` on the file system as it is.
    fn reading<T>(&self, job: impl FnOnce(&View<'_>) -> Result<T>) -> Result<T> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        job(&View::new(&self.blocks, Arc::clone(&state)))
    }

    /// Runs `job` and stores what it changed, if it succeeds.
    fn writing<T>(&self, job: impl FnOnce(&mut View<'_>) -> Result<T>) -> Result<T> {
        self.writer()?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::new(&self.blocks, Arc::clone(&state));
        let value = job(&mut view)?;
        *state = view.commit()?;
        Ok(value)
    }

    /// Changes an inode that is in use.
    fn change(&self, inode: Inode, job: impl FnOnce(&mut View<'_>, &mut Node) -> Result<()>) -> Result<()> {
        self.writing(|view| {
            let mut node = view.inode(inode)?;
            node.stat(&view.sb)?;
            job(view, &mut node)?;
            view.put_node(&mut node)
        })
    }
}

impl fmt::Debug for Ext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ext").field("facts", &self.facts).field("refusal", &self.refusal).finish_non_exhaustive()
    }
}

/// The volume and its superblock as they are after a replay of `replay`, in memory.
fn replayed(volume: Arc<dyn Disk>, sb: &Superblock, replay: Replay) -> Result<(Blocks, Superblock)> {
    let mut blocks = Blocks::new(volume, None, sb);
    blocks.overlay(replay.blocks);
    let newest = Superblock::parse(&blocks.superblock()?, blocks.volume_len())?;
    let facts =
        |sb: &Superblock| (sb.block_size, sb.blocks_count, sb.blocks_per_group, sb.inodes_per_group, sb.inode_size);
    if facts(sb) == facts(&newest) {
        return Ok((blocks, newest));
    }
    Err(unsupported("the journal holds a change of the file system's size").hint("mount and unmount it in the guest"))
}

/// Puts what the journal holds in place, empties it, finishes what was interrupted and counts anew. The new superblock.
fn recover(disk: &Arc<dyn Disk>, blocks: &Blocks, sb: &Superblock) -> Result<Superblock> {
    let mut view = View::new(blocks, Arc::new(sb.clone()));
    if sb.needs_recovery() {
        let replay = journal::read(blocks, sb)?;
        // Nothing is written before it is known that the result can be read.
        let (_, newest) = replayed(Arc::clone(disk), sb, replay.clone())?;
        for (block, copy) in &replay.blocks {
            blocks.write(&blocks.journalled_copy(*copy)?, *block, 0)?;
        }
        if let Some((at, bytes)) = &replay.emptied {
            blocks.write(bytes, *at, 0)?;
        }
        view = View::new(blocks, Arc::new(newest));
        view.edit_sb().set_recovered();
        if replay.errors {
            view.edit_sb().set_errors();
        }
        view.count_free()?;
    }
    if view.sb.last_orphan() != 0 || view.sb.orphan_file().is_some() {
        view.settle_orphans()?;
    }
    let newest = view.commit()?;
    Ok(Superblock::clone(&newest))
}

/// Whether something has to be replayed, finished or checked.
fn is_dirty(sb: &Superblock) -> bool {
    sb.needs_recovery() || !sb.is_sound() || sb.last_orphan() != 0 || sb.orphan_file().is_some()
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

impl View<'_> {
    /// Takes the superblock's counters from the groups.
    fn count_free(&mut self) -> Result<()> {
        let (mut blocks, mut inodes) = (0_u64, 0_u32);
        for number in 0..self.sb.groups {
            let group = self.group(number)?;
            blocks = blocks.saturating_add(u64::from(group.free_blocks()));
            inodes = inodes.saturating_add(group.free_inodes());
        }
        self.edit_sb().set_free_blocks(blocks);
        self.edit_sb().set_free_inodes(inodes);
        Ok(())
    }

    /// A regular file whose content can be read and, if `to_write`, changed.
    fn regular(&self, inode: Inode, to_write: bool) -> Result<Node> {
        let node = self.inode(inode)?;
        if node.kind() != Some(FileKind::Regular) || node.links() == 0 {
            return Err(Error::failed("ext.name", format!("inode {} is not a regular file", inode.0)));
        }
        if node.has(FLAG_ENCRYPT) {
            return Err(unsupported(format!("inode {} is encrypted", inode.0)));
        }
        if to_write && node.has(FLAG_VERITY) {
            return Err(unsupported(format!("inode {} is sealed by verity", inode.0)));
        }
        Ok(node)
    }

    /// Moves the content of an inline file out of the inode.
    fn unfold_file(&mut self, node: &mut Node) -> Result<Vec<u8>> {
        let mut content = vec![0; size(node.size(&self.sb)).min(crate::limits::MAX_EXT_INLINE)];
        self.read_inline(node, &mut content, 0)?;
        self.drop_inline_rest(node)?;
        node.set_flag(FLAG_INLINE, false);
        self.init_map(node);
        node.set_size(0);
        Ok(content)
    }
}

impl Filesystem for Ext {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(ROOT)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        self.reading(|view| {
            let found = view.find(&view.inode(dir)?, name)?;
            Ok(found.map(|place| Inode(u64::from(place.inode))))
        })
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        self.reading(|view| view.inode(inode)?.stat(&view.sb))
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.reading(|view| {
            let node = view.regular(inode, false)?;
            let left = node.size(&view.sb).saturating_sub(offset);
            let len = buf.len().min(size(left));
            let buf = buf.get_mut(..len).unwrap_or_default();
            if node.has(FLAG_INLINE) {
                view.read_inline(&node, buf, offset)?;
            } else {
                view.read_content(&node, buf, offset)?;
            }
            Ok(len)
        })
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let size = self.stat(inode)?.size;
        let mut parts = Parts::new(&range, size, visit);
        let mut at = range.start;
        // No lock is held while visiting, so that the visitor may use the file system.
        while let Some(found) =
            self.reading(|view| view.regular(inode, false).and_then(|node| view.data(&node, parts.rest(at))))?
        {
            for part in found {
                at = part.end;
                if parts.add(part).is_break() {
                    return Ok(());
                }
            }
        }
        parts.finish();
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let mut cursor = cursor;
        // No lock is held while visiting, so that the visitor may use the file system.
        while let Some((entries, next)) = self.reading(|view| view.list(&view.inode(dir)?, cursor))? {
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

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        if !self.current {
            return Ok(());
        }
        self.reading(|view| view.free_ranges(visit))
    }

    fn idle_ranges(&self) -> Result<Vec<Range<u64>>> {
        if self.current { self.reading(|view| view.idle_ranges()) } else { Ok(Vec::new()) }
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        match &self.refusal {
            None => Ok(self),
            Some(refusal) => Err(refusal.clone()),
        }
    }
}

impl FilesystemMut for Ext {
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()> {
        self.writing(|view| {
            let mut node = view.regular(inode, true)?;
            if node.has(FLAG_INLINE) {
                view.unfold_file(&mut node)?;
            }
            view.write_content(&mut node, 0, content, true)?;
            view.put_node(&mut node)
        })
    }

    fn append(&self, inode: Inode, content: &[u8]) -> Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        self.writing(|view| {
            let mut node = view.regular(inode, true)?;
            if node.has(FLAG_INLINE) {
                let mut whole = view.unfold_file(&mut node)?;
                whole.extend_from_slice(content);
                view.write_content(&mut node, 0, &whole, true)?;
            } else {
                let end = node.size(&view.sb);
                view.write_content(&mut node, end, content, false)?;
            }
            view.put_node(&mut node)
        })
    }

    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        self.writing(|view| {
            let parent = view.inode(dir)?.number;
            let mut node = view.create(parent, name, FileKind::Regular, attributes)?;
            view.write_content(&mut node, 0, content, true)?;
            view.put_node(&mut node)?;
            Ok(Inode(u64::from(node.number)))
        })
    }

    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.writing(|view| {
            let parent = view.inode(dir)?.number;
            let mut node = view.create(parent, name, FileKind::Directory, attributes)?;
            view.put_node(&mut node)?;
            Ok(Inode(u64::from(node.number)))
        })
    }

    fn symlink(&self, dir: Inode, name: &[u8], target: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.writing(|view| {
            let parent = view.inode(dir)?.number;
            let mut node = view.create(parent, name, FileKind::Symlink, attributes)?;
            view.set_target(&mut node, target)?;
            view.put_node(&mut node)?;
            Ok(Inode(u64::from(node.number)))
        })
    }

    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.writing(|view| {
            let parent = view.inode(dir)?.number;
            view.remove(parent, name)
        })
    }

    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.writing(|view| {
            let parent = view.inode(dir)?.number;
            view.remove_dir(parent, name)
        })
    }

    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()> {
        self.writing(|view| {
            let (from, to) = (view.inode(dir)?.number, view.inode(new_dir)?.number);
            view.rename(from, name, to, new_name)
        })
    }

    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        self.change(inode, |_, node| {
            node.set_owner(mode, uid, gid);
            Ok(())
        })
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8]) -> Result<()> {
        self.change(inode, |view, node| view.set_attribute(node, name, Some(value)))
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.change(inode, |view, node| view.set_attribute(node, name, None))
    }

    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        self.change(inode, |_, node| {
            node.set_atime(atime);
            node.set_mtime(mtime);
            if node.ctime() < mtime {
                node.set_ctime(mtime);
            }
            Ok(())
        })
    }

    fn available(&self) -> Result<u64> {
        self.reading(|view| {
            let blocks = view.sb.free_blocks().saturating_sub(view.sb.reserved_blocks());
            Ok(blocks.saturating_mul(view.sb.block_size.get()))
        })
    }

    fn sync(&self) -> Result<()> {
        self.writer()?;
        self.blocks.flush()
    }
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("ext.corrupt", what)
}

/// The file system has no room.
fn full(what: impl Into<String>) -> Error {
    Error::failed("ext.space", what)
}

/// Nothing can be written.
fn read_only(what: impl Into<String>) -> Error {
    Error::refused("ext.read-only", what)
}

/// Well formed, not handled.
fn unsupported(what: impl Into<String>) -> Error {
    Error::unsupported("ext.feature", what)
}
