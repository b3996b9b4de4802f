//! Names in a log: those of directories (`DIR_INDEX`) and those that inodes carry (`INODE_REF`, `INODE_EXTREF`).

use std::ops::ControlFlow;

use super::super::checksum::{extref_hash, name_hash};
use super::super::key::{Key, kind};
use super::super::{corrupt, dir};
use super::Replay;
use crate::disk::bytes::{le16, le64};
use crate::error::Result;
use crate::fs::FileKind;

/// A name that an inode carries: where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Reference {
    pub(in super::super) parent: u64,
    pub(in super::super) index: u64,
    pub(in super::super) name: Vec<u8>,
}

/// The names in the item at `key`.
pub(in super::super) fn references(key: Key, item: &[u8]) -> Result<Vec<Reference>> {
    let head = if key.kind == kind::INODE_EXTREF { 18 } else { 10 };
    let (mut all, mut rest) = (Vec::new(), item);
    while !rest.is_empty() {
        let (parent, fields) = match head {
            18 => (le64(rest, 0), rest.get(8..).unwrap_or_default()),
            _ => (key.offset, rest),
        };
        let end = usize::from(le16(fields, 8)).saturating_add(head);
        let name = rest.get(head..end).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| corrupt(format!("a name of inode {} is cut off", key.objectid)))?;
        all.push(Reference { parent, index: le64(fields, 0), name: name.to_vec() });
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(all)
}

/// The item at `key` that holds these names.
pub(in super::super) fn encode(key: Key, references: &[Reference]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Reference { parent, index, name } in references {
        if key.kind == kind::INODE_EXTREF {
            bytes.extend(parent.to_le_bytes());
        }
        bytes.extend(index.to_le_bytes());
        bytes.extend(u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
        bytes.extend(name);
    }
    bytes
}

/// What is in a directory under a name or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    location: Key,
    file_type: u8,
}

impl Replay<'_> {
    /// A name of a directory. It is added here only if the inode does not bring it itself.
    pub(super) fn name(&mut self, key: Key, item: &[u8]) -> Result<()> {
        self.require(key.objectid)?;
        let entries = dir::parse(item)?;
        let [entry] = entries.as_slice() else {
            return Err(corrupt("a log has several names in one place"));
        };
        let (location, name) = (entry.location, entry.name);
        if location.kind != kind::INODE_ITEM {
            return Err(corrupt("a log adds a subvolume"));
        }
        let exists = self.find(location.objectid)?.is_some();
        let new = Named { location, file_type: entry.file_type };
        let by_name = self.by_name(key.objectid, name)?;
        let name_matches = self.drop_conflict(key.objectid, name, by_name, &new, exists)?;
        let by_index = self.by_index(key.objectid, key.offset, name)?;
        let index_matches = self.drop_conflict(key.objectid, name, by_index, &new, exists)?;
        if name_matches && index_matches {
            return Ok(());
        }
        if self.is_logged(location.objectid, key.objectid, name)? || !exists {
            return Ok(());
        }
        let is_taken = self.store.get(&self.tree, key)?.is_some() || self.by_name(key.objectid, name)?.is_some();
        if is_taken {
            return Ok(());
        }
        self.link(key.objectid, location.objectid, name, key.offset)?;
        let reference = Reference { parent: key.objectid, index: key.offset, name: name.to_vec() };
        let place = Key::new(location.objectid, kind::INODE_REF, key.objectid);
        let mut all = references(place, &self.store.get(&self.tree, place)?.unwrap_or_default())?;
        all.push(reference);
        self.put(place, encode(place, &all));
        if entry.file_type != 2 {
            self.fixup(location.objectid)?;
        }
        Ok(())
    }

    /// Whether `old` is what is wanted; anything else makes room, if the new inode is there.
    fn drop_conflict(&mut self, dir: u64, name: &[u8], old: Option<Named>, new: &Named, exists: bool) -> Result<bool> {
        let Some(old) = old else { return Ok(false) };
        if old == *new {
            return Ok(true);
        }
        if exists {
            self.drop_name(dir, name, &old)?;
        }
        Ok(false)
    }

    fn drop_name(&mut self, dir: u64, name: &[u8], old: &Named) -> Result<()> {
        if old.location.kind != kind::INODE_ITEM {
            return Err(corrupt("a log replaces a subvolume"));
        }
        self.fixup(old.location.objectid)?;
        self.unlink(dir, old.location.objectid, name)
    }

    /// The names that an inode carries in the log.
    pub(super) fn reference(&mut self, key: Key, item: &[u8]) -> Result<()> {
        let wanted = references(key, item)?;
        let inode = key.objectid;
        // The root directory names itself.
        if key.kind == kind::INODE_REF && key.offset == inode {
            self.put(key, item.to_vec());
            return Ok(());
        }
        let Some(first) = wanted.first() else { return Ok(()) };
        if self.find(first.parent)?.is_none() {
            // The directory was not logged; counting the links takes care of the rest.
            return Ok(());
        }
        self.require(inode)?;
        for Reference { parent, index, name } in &wanted {
            if self.find(*parent)?.is_none() {
                continue;
            }
            if self.is_in_place(*parent, inode, *index, name)? {
                continue;
            }
            self.drop_old_references(inode, *parent, name)?;
            if let Some(old) = self.by_index(*parent, *index, name)? {
                self.drop_name(*parent, name, &old)?;
            }
            if let Some(old) = self.by_name(*parent, name)? {
                self.drop_name(*parent, name, &old)?;
            }
            self.link(*parent, inode, name, *index)?;
        }
        let old = references(key, &self.store.get(&self.tree, key)?.unwrap_or_default())?;
        for Reference { parent, name, .. } in old {
            if !wanted.iter().any(|reference| reference.parent == parent && reference.name == name) {
                self.unlink(parent, inode, &name)?;
            }
        }
        self.put(key, item.to_vec());
        Ok(())
    }

    /// Removes the names that an inode has in a directory and that the log does not have, as far as they share an item with
    /// `name`.
    fn drop_old_references(&mut self, inode: u64, parent: u64, name: &[u8]) -> Result<()> {
        for key in
            [Key::new(inode, kind::INODE_REF, parent), Key::new(inode, kind::INODE_EXTREF, extref_hash(parent, name))]
        {
            let old = references(key, &self.store.get(&self.tree, key)?.unwrap_or_default())?;
            for reference in old.iter().filter(|reference| reference.parent == parent) {
                let is_logged = self.is_logged_in(key.kind, inode, parent, &reference.name)?;
                if !is_logged {
                    self.unlink(parent, inode, &reference.name)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the log has this name of the inode.
    fn is_logged(&self, inode: u64, parent: u64, name: &[u8]) -> Result<bool> {
        Ok(self.is_logged_in(kind::INODE_REF, inode, parent, name)?
            || self.is_logged_in(kind::INODE_EXTREF, inode, parent, name)?)
    }

    fn is_logged_in(&self, kind: u8, inode: u64, parent: u64, name: &[u8]) -> Result<bool> {
        let offset = if kind == kind::INODE_EXTREF { extref_hash(parent, name) } else { parent };
        let key = Key::new(inode, kind, offset);
        let logged = references(key, self.log.get(&key).map_or(&[][..], Vec::as_slice))?;
        Ok(logged.iter().any(|reference| reference.parent == parent && reference.name == name))
    }

    /// Whether a directory has the name for this inode, by both of its keys.
    fn is_in_place(&self, dir: u64, inode: u64, index: u64, name: &[u8]) -> Result<bool> {
        let is_it = |named: Option<Named>| named.is_some_and(|named| named.location.objectid == inode);
        Ok(is_it(self.by_index(dir, index, name)?) && is_it(self.by_name(dir, name)?))
    }

    fn by_name(&self, dir: u64, name: &[u8]) -> Result<Option<Named>> {
        self.named(Key::new(dir, kind::DIR_ITEM, name_hash(name)), name)
    }

    fn by_index(&self, dir: u64, index: u64, name: &[u8]) -> Result<Option<Named>> {
        self.named(Key::new(dir, kind::DIR_INDEX, index), name)
    }

    fn named(&self, key: Key, name: &[u8]) -> Result<Option<Named>> {
        let item = self.store.get(&self.tree, key)?.unwrap_or_default();
        let entries = dir::parse(&item)?;
        let entry = entries.iter().find(|entry| entry.name == name);
        Ok(entry.map(|entry| Named { location: entry.location, file_type: entry.file_type }))
    }

    /// Adds a name to a directory.
    fn link(&mut self, parent: u64, inode: u64, name: &[u8], index: u64) -> Result<()> {
        let file_type = match self.require(inode)?.kind() {
            Some(FileKind::Regular) => 1,
            Some(FileKind::Directory) => 2,
            Some(FileKind::CharDevice) => 3,
            Some(FileKind::BlockDevice) => 4,
            Some(FileKind::Fifo) => 5,
            Some(FileKind::Socket) => 6,
            Some(FileKind::Symlink) => 7,
            None => 0,
        };
        let entry = dir::encode(Key::new(inode, kind::INODE_ITEM, 0), file_type, name);
        let by_name = Key::new(parent, kind::DIR_ITEM, name_hash(name));
        let mut item = self.store.get(&self.tree, by_name)?.unwrap_or_default();
        item.extend(&entry);
        self.put(by_name, item);
        let by_index = Key::new(parent, kind::DIR_INDEX, index);
        if self.store.get(&self.tree, by_index)?.is_some() {
            return Err(corrupt(format!("a log adds a name to inode {parent} where another one is")));
        }
        self.put(by_index, entry);
        self.edit(parent, |dir| dir.set_size(dir.size().saturating_add(in_size(name))))
    }

    /// Removes a name from a directory, with the inode's reference to it.
    pub(super) fn unlink(&mut self, parent: u64, inode: u64, name: &[u8]) -> Result<()> {
        let gone = || corrupt(format!("a log removes a name of inode {inode} that is not there"));
        let by_name = Key::new(parent, kind::DIR_ITEM, name_hash(name));
        let item = self.store.get(&self.tree, by_name)?.ok_or_else(gone)?;
        self.set(by_name, without(&item, name)?);
        let mut index = None;
        for key in
            [Key::new(inode, kind::INODE_REF, parent), Key::new(inode, kind::INODE_EXTREF, extref_hash(parent, name))]
        {
            let mut all = references(key, &self.store.get(&self.tree, key)?.unwrap_or_default())?;
            let at = all.iter().position(|reference| reference.parent == parent && reference.name == name);
            if let Some(at) = at {
                index = Some(all.remove(at).index);
                self.set(key, (!all.is_empty()).then(|| encode(key, &all)));
                break;
            }
        }
        let by_index = Key::new(parent, kind::DIR_INDEX, index.ok_or_else(gone)?);
        if let Some(item) = self.store.get(&self.tree, by_index)? {
            self.set(by_index, without(&item, name)?);
        }
        self.edit(parent, |dir| dir.set_size(dir.size().saturating_sub(in_size(name))))?;
        self.edit(inode, |inode| inode.set_nlink(inode.nlink().saturating_sub(1)))
    }

    /// How many names an inode carries.
    pub(super) fn references(&self, inode: u64) -> Result<usize> {
        let mut count = 0_usize;
        for kind in [kind::INODE_REF, kind::INODE_EXTREF] {
            self.store.scan_kind(&self.tree, (inode, kind, 0), &mut |offset, item| {
                count = count.saturating_add(references(Key::new(inode, kind, offset), item)?.len());
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(count)
    }
}

/// What a name adds to the size of its directory.
pub(in super::super) fn in_size(name: &[u8]) -> u64 {
    crate::disk::bytes::long(name.len()).saturating_mul(2)
}

/// An item of a directory without one name; `None` when that was all.
pub(in super::super) fn without(item: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>> {
    let entries = dir::parse(item)?;
    let left = entries.iter().filter(|entry| entry.name != name);
    let left: Vec<u8> = left.flat_map(dir::encode_with).collect();
    Ok((!left.is_empty()).then_some(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_written_and_cuts_are_seen() {
        for kind in [kind::INODE_REF, kind::INODE_EXTREF] {
            let key = Key::new(300, kind, 256);
            let of = |index: u64, name: &[u8]| Reference { parent: 256, index, name: name.to_vec() };
            let all = [of(2, b"first"), of(9, b"x")];
            let bytes = encode(key, &all);
            assert_eq!(references(key, &bytes).unwrap(), all);
            let first = encode(key, &all[..1]).len();
            for len in (1..bytes.len()).filter(|len| *len != first) {
                assert!(references(key, &bytes[..len]).is_err(), "{len}");
            }
        }
    }
}
