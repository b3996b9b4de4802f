//! Names: files and directories that come, go and move.

use std::ops::ControlFlow;

use super::super::checksum::{extref_hash, name_hash};
use super::super::dir::{self, Target};
use super::super::features::INCOMPAT_EXTENDED_IREF;
use super::super::inode::{self, Item};
use super::super::key::{Key, id, kind};
use super::super::log::names::{Reference, encode, in_size, references, without};
use super::super::{Core, corrupt, limit, not_a};
use super::attributes::PROPERTY;
use crate::disk::bytes::{le64, put, put32};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::{Attributes, FileKind, Timestamp};
use crate::limits;

/// `BTRFS_DIR_START_INDEX`.
const FIRST_INDEX: u64 = 2;
/// Flags that files take over from their directory.
const INHERITED: u64 = inode::NOCOMPRESS | inode::COMPRESS | inode::NODATACOW;
/// Where an inode has its times.
const ATIME: usize = 112;
const CTIME: usize = 124;
const MTIME: usize = 136;
const OTIME: usize = 148;

impl Core {
    /// An inode in a subvolume that may be written.
    pub(super) fn writable(&self, target: Target) -> Result<Item> {
        let volume = self.volume(target.volume)?;
        if volume.is_read_only() {
            return Err(super::super::read_only(format!("subvolume {} may only be read", target.volume)));
        }
        if target.is_stub {
            return Err(super::super::read_only("the place of a subvolume in a snapshot cannot be changed"));
        }
        self.inode(target)
    }

    fn writable_dir(&self, target: Target) -> Result<Item> {
        let item = self.writable(target)?;
        if item.kind() != Some(FileKind::Directory) {
            return Err(not_a(target.inode, "a directory"));
        }
        Ok(item)
    }

    /// Stores an inode that changed.
    pub(super) fn put_inode(&mut self, target: Target, mut item: Item) -> Result<()> {
        let sequence = le64(&item.0, 72).wrapping_add(1);
        put(&mut item.0, 8, &self.transaction().to_le_bytes());
        put(&mut item.0, 72, &sequence.to_le_bytes());
        self.set(target.volume, Key::new(target.inode, kind::INODE_ITEM, 0), Some(item.0))
    }

    /// Creates an inode of `kind` under `name`.
    pub(in super::super) fn create_inode(
        &mut self,
        parent: Target,
        name: &[u8],
        kind: FileKind,
        attributes: &Attributes,
        content: &[u8],
    ) -> Result<Target> {
        let mut dir = self.writable_dir(parent)?;
        let target = Target { inode: self.next_inode(parent.volume)?, ..parent };
        let mut item = new_inode(kind, attributes, self.transaction(), dir.flags());
        self.add_name(parent, &mut dir, name, target, kind)?;
        dir.set_time(MTIME, attributes.time);
        dir.set_time(CTIME, attributes.time);
        self.put_inode(parent, dir)?;
        if !content.is_empty() {
            self.fill_file(target, &mut item, content)?;
        }
        let property = self.inherited_property(parent, &item)?;
        self.set(target.volume, Key::new(target.inode, kind::INODE_ITEM, 0), Some(item.0))?;
        if let Some(value) = property {
            self.set_attribute(target, PROPERTY, Some(value))?;
        }
        for (name, value) in &attributes.xattrs {
            self.set_attribute(target, name, Some(value))?;
        }
        Ok(target)
    }

    fn next_inode(&mut self, volume: u64) -> Result<u64> {
        let tree = self.tree(volume)?;
        let last = self.store.floor(tree, Key::new(id::LAST_FREE, u8::MAX, u64::MAX))?;
        let last = last.map_or(id::FIRST_FREE, |(key, _)| key.objectid);
        let last = last.max(self.writing.inodes.get(&volume).copied().unwrap_or(0)).max(id::FIRST_FREE);
        let next = last.saturating_add(1);
        if next >= id::LAST_FREE {
            return Err(super::full("the subvolume has no inode number left"));
        }
        self.writing.inodes.insert(volume, next);
        Ok(next)
    }

    /// Adds a name to a directory, whose inode the caller stores.
    fn add_name(&mut self, parent: Target, dir: &mut Item, name: &[u8], target: Target, kind: FileKind) -> Result<()> {
        let is_name = !name.is_empty() && name.len() <= 255 && name != b"." && name != b"..";
        if !is_name || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Error::new(Kind::Usage, "btrfs.name", format!("`{}` is not a file name", escape_bytes(name))));
        }
        let max = self.max_item()?;
        let tree = self.tree(parent.volume)?;
        let by_name = Key::new(parent.inode, kind::DIR_ITEM, name_hash(name));
        let mut item = self.store.get(tree, by_name)?.unwrap_or_default();
        if dir::parse(&item)?.iter().any(|entry| entry.name == name) {
            return Err(Error::failed("btrfs.exists", format!("`{}` exists already", escape_bytes(name))));
        }
        let index = self.next_index(parent)?;
        let mut entry = dir::encode(Key::new(target.inode, kind::INODE_ITEM, 0), file_type(kind), name);
        put(&mut entry, 17, &self.transaction().to_le_bytes());
        item.extend(&entry);
        if item.len() > max {
            return Err(super::full("too many names of a directory have the same hash"));
        }
        let (key, reference) = self.new_reference(parent, target, name, index)?;
        self.set(parent.volume, by_name, Some(item))?;
        self.set(parent.volume, Key::new(parent.inode, kind::DIR_INDEX, index), Some(entry))?;
        self.set(parent.volume, key, Some(reference))?;
        dir.set_size(dir.size().saturating_add(in_size(name)));
        Ok(())
    }

    /// The item of an inode that gets a name, with that name in it.
    fn new_reference(&self, parent: Target, target: Target, name: &[u8], index: u64) -> Result<(Key, Vec<u8>)> {
        let tree = self.tree(parent.volume)?;
        let mut keys = vec![Key::new(target.inode, kind::INODE_REF, parent.inode)];
        if self.store.sb.incompat & INCOMPAT_EXTENDED_IREF != 0 {
            keys.push(Key::new(target.inode, kind::INODE_EXTREF, extref_hash(parent.inode, name)));
        }
        for key in keys {
            let mut all = references(key, &self.store.get(tree, key)?.unwrap_or_default())?;
            all.push(Reference { parent: parent.inode, index, name: name.to_vec() });
            let item = encode(key, &all);
            if item.len() <= self.max_item()? {
                return Ok((key, item));
            }
        }
        Err(super::full(format!("inode {} has too many names", target.inode)))
    }

    fn next_index(&self, dir: Target) -> Result<u64> {
        let last = self.store.floor(self.tree(dir.volume)?, Key::new(dir.inode, kind::DIR_INDEX, u64::MAX))?;
        let last = last.filter(|(key, _)| key.is(dir.inode, kind::DIR_INDEX)).map(|(key, _)| key.offset);
        let next = last.map_or(Some(FIRST_INDEX), |last| last.checked_add(1)).map(|next| next.max(FIRST_INDEX));
        next.filter(|next| *next < u64::MAX).ok_or_else(|| super::full("the directory has no place for a name left"))
    }

    /// What `name` is in a directory that may be written. It has to be in the same subvolume.
    fn named(&self, parent: Target, name: &[u8]) -> Result<Target> {
        let found = self.enter(parent, name)?;
        let found = found.ok_or_else(|| {
            Error::new(Kind::NotFound, "btrfs.not-found", format!("there is no `{}`", escape_bytes(name)))
        })?;
        if found.is_stub || found.volume != parent.volume {
            let what = format!("`{}` is a subvolume, which is not changed as a file is", escape_bytes(name));
            return Err(Error::unsupported("btrfs.feature", what));
        }
        Ok(found)
    }

    /// Takes a name from a directory, whose inode the caller stores, and from the inode that has it.
    fn remove_name(&mut self, parent: Target, dir: &mut Item, name: &[u8], target: Target) -> Result<()> {
        let gone = || corrupt(format!("inode {} does not know a name that it has", target.inode));
        let tree = self.tree(parent.volume)?;
        let by_name = Key::new(parent.inode, kind::DIR_ITEM, name_hash(name));
        let left = without(&self.store.get(tree, by_name)?.ok_or_else(gone)?, name)?;
        let mut found = None;
        for key in [
            Key::new(target.inode, kind::INODE_REF, parent.inode),
            Key::new(target.inode, kind::INODE_EXTREF, extref_hash(parent.inode, name)),
        ] {
            let mut all = references(key, &self.store.get(tree, key)?.unwrap_or_default())?;
            let at = all.iter().position(|one| one.parent == parent.inode && one.name == name);
            if let Some(at) = at {
                let index = all.remove(at).index;
                found = Some((key, (!all.is_empty()).then(|| encode(key, &all)), index));
                break;
            }
        }
        let (key, references, index) = found.ok_or_else(gone)?;
        let by_index = Key::new(parent.inode, kind::DIR_INDEX, index);
        let item = self.store.get(tree, by_index)?.ok_or_else(gone)?;
        if !dir::parse(&item)?.iter().all(|entry| entry.name == name) {
            return Err(gone());
        }
        self.set(parent.volume, by_name, left)?;
        self.set(parent.volume, by_index, None)?;
        self.set(parent.volume, key, references)?;
        dir.set_size(dir.size().saturating_sub(in_size(name)));
        Ok(())
    }

    /// Removes a file or link, or an empty directory, and the inode with its last name.
    pub(in super::super) fn remove_entry(&mut self, parent: Target, name: &[u8], is_dir: bool) -> Result<()> {
        let mut dir = self.writable_dir(parent)?;
        let target = self.named(parent, name)?;
        let mut item = self.inode(target)?;
        if (item.kind() == Some(FileKind::Directory)) != is_dir {
            let what = if is_dir { "a directory" } else { "a file or link" };
            return Err(Error::failed("btrfs.name", format!("`{}` is not {what}", escape_bytes(name))));
        }
        if is_dir && !self.is_empty(target)? {
            return Err(Error::failed("btrfs.not-empty", format!("`{}` is not empty", escape_bytes(name))));
        }
        self.remove_name(parent, &mut dir, name, target)?;
        self.put_inode(parent, dir)?;
        item.set_nlink(item.nlink().saturating_sub(1));
        if item.nlink() == 0 || is_dir {
            return self.remove_inode(target);
        }
        self.put_inode(target, item)
    }

    fn is_empty(&self, dir: Target) -> Result<bool> {
        let mut empty = true;
        self.list(dir, 0, &mut |_, _, _| {
            empty = false;
            ControlFlow::Break(())
        })?;
        Ok(empty)
    }

    /// Removes all items of an inode that has no name.
    pub(super) fn remove_inode(&mut self, target: Target) -> Result<()> {
        let mut keys = Vec::new();
        self.store.scan(self.tree(target.volume)?, Key::new(target.inode, 0, 0), &mut |key, _| {
            if key.objectid != target.inode {
                return Ok(ControlFlow::Break(()));
            }
            add_item(&mut keys, key)?;
            Ok(ControlFlow::Continue(()))
        })?;
        keys.into_iter().try_for_each(|key| self.set(target.volume, key, None))
    }

    /// Gives what is at `name` another name.
    pub(in super::super) fn move_entry(
        &mut self,
        from: Target,
        name: &[u8],
        to: Target,
        new_name: &[u8],
    ) -> Result<()> {
        let mut old_dir = self.writable_dir(from)?;
        let mut new_dir = self.writable_dir(to)?;
        if from.volume != to.volume {
            return Err(Error::unsupported("btrfs.feature", "a file cannot be moved to another subvolume"));
        }
        let target = self.named(from, name)?;
        let item = self.inode(target)?;
        let kind = item.kind().ok_or_else(|| corrupt(format!("inode {} is of an unknown kind", target.inode)))?;
        if kind == FileKind::Directory && self.is_inside(to, target)? {
            let what = format!("`{}` cannot be moved into itself", escape_bytes(name));
            return Err(Error::new(Kind::Usage, "btrfs.name", what));
        }
        if from == to {
            self.add_name(to, &mut old_dir, new_name, target, kind)?;
        } else {
            self.add_name(to, &mut new_dir, new_name, target, kind)?;
            self.put_inode(to, new_dir)?;
        }
        self.remove_name(from, &mut old_dir, name, target)?;
        self.put_inode(from, old_dir)?;
        self.put_inode(target, item)
    }

    /// Whether a directory is `outer` or lies in it.
    fn is_inside(&self, dir: Target, outer: Target) -> Result<bool> {
        let volume = self.volume(dir.volume)?;
        let mut at = dir.inode;
        for _ in 0..limits::MAX_GUEST_PATH {
            if at == outer.inode {
                return Ok(true);
            }
            if at == volume.directory {
                return Ok(false);
            }
            let parent = self.parent_of(&volume.tree, at)?;
            at = parent.ok_or_else(|| corrupt(format!("directory {at} is nowhere")))?.0;
        }
        Err(corrupt(format!("directory {} is in itself", dir.inode)))
    }
}

impl Item {
    fn set_time(&mut self, at: usize, time: Timestamp) {
        put(&mut self.0, at, &time.seconds.to_le_bytes());
        put32(&mut self.0, at.saturating_add(8), time.nanoseconds);
    }

    /// Access and modification time; that of the inode's change never lies before the latter.
    pub(super) fn set_times(&mut self, atime: Timestamp, mtime: Timestamp) {
        self.set_time(ATIME, atime);
        self.set_time(MTIME, mtime);
        let ctime = Timestamp {
            seconds: le64(&self.0, CTIME).cast_signed(),
            nanoseconds: crate::disk::bytes::le32(&self.0, CTIME.saturating_add(8)),
        };
        if ctime < mtime {
            self.set_time(CTIME, mtime);
        }
    }

    pub(super) fn set_owner(&mut self, mode: u32, uid: u32, gid: u32) {
        put32(&mut self.0, 44, uid);
        put32(&mut self.0, 48, gid);
        let kind = self.mode() & 0o170_000;
        put32(&mut self.0, 52, kind | (mode & 0o7777));
    }
}

fn new_inode(kind: FileKind, attributes: &Attributes, transaction: u64, dir_flags: u64) -> Item {
    let mut item = Item(vec![0; inode::LEN]);
    let bits = match kind {
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        _ => 0o100_000,
    };
    let mut flags = dir_flags & INHERITED;
    if flags & inode::NODATACOW != 0 && kind == FileKind::Regular {
        flags |= inode::NODATASUM;
    }
    item.set_generation(transaction);
    put(&mut item.0, 8, &transaction.to_le_bytes());
    item.set_flags(flags);
    put32(&mut item.0, 52, bits);
    item.set_nlink(1);
    item.set_owner(attributes.mode, attributes.uid, attributes.gid);
    [ATIME, CTIME, MTIME, OTIME].into_iter().for_each(|at| item.set_time(at, attributes.time));
    item
}

const fn file_type(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
    }
}

/// Notes an item that is to go, as long as there are not too many.
fn add_item(keys: &mut Vec<Key>, key: Key) -> Result<()> {
    keys.push(key);
    if keys.len() > limits::MAX_BTRFS_ITEMS {
        return Err(limit("a file in too many pieces", limits::MAX_BTRFS_ITEMS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_as_many_items_as_the_limit() {
        let mut keys = Vec::new();
        for _ in 0..limits::MAX_BTRFS_ITEMS {
            add_item(&mut keys, Key::new(257, 0, 0)).unwrap();
        }
        assert_eq!(add_item(&mut keys, Key::new(257, 0, 0)).unwrap_err().code(), "btrfs.limit");
    }
}
