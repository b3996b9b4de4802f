//! Directories: names by their hash and by their place in the listing, extended attributes, and the way into other subvolumes.

use std::ops::ControlFlow;

use super::checksum::name_hash;
use super::inode::Item;
use super::key::{Key, kind};
use super::{Core, corrupt, not_a};
use crate::disk::bytes::{le16, u8_at};
use crate::error::Result;
use crate::fs::{DirEntry, FileKind, Inode};
use crate::limits;

/// Bytes of a `btrfs_dir_item` before its name.
const HEAD: usize = 30;

/// An entry of a directory or an extended attribute (`btrfs_dir_item`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// The inode or subvolume.
    pub(super) location: Key,
    /// `BTRFS_FT_*`.
    pub(super) file_type: u8,
    pub(super) name: &'a [u8],
    /// The value of an attribute.
    pub(super) data: &'a [u8],
}

/// An inode of a subvolume. The directory that stands where another subvolume was when a snapshot was taken is a stub: `inode` is
/// that of the directory that it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) volume: u64,
    pub(super) inode: u64,
    pub(super) is_stub: bool,
}

/// All entries of an item: names whose hashes are the same share one.
pub(super) fn parse(item: &[u8]) -> Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let name_len = usize::from(le16(rest, 27));
        let data_len = usize::from(le16(rest, 25));
        let end = HEAD.saturating_add(name_len);
        let name = rest.get(HEAD..end).filter(|name| !name.is_empty());
        let data = rest.get(end..).and_then(|rest| rest.get(..data_len));
        let (Some(name), Some(data)) = (name, data) else {
            return Err(corrupt("an entry of a directory is cut off"));
        };
        let file_type = u8_at(rest, 29) & 0x7f;
        entries.push(Entry { location: Key::read(rest, 0), file_type, name, data });
        rest = rest.get(end.saturating_add(data_len)..).unwrap_or_default();
    }
    Ok(entries)
}

/// The bytes of an entry.
pub(super) fn encode(location: Key, file_type: u8, name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD.saturating_add(name.len()));
    bytes.extend(location.objectid.to_le_bytes());
    bytes.push(location.kind);
    bytes.extend(location.offset.to_le_bytes());
    bytes.extend([0; 10]);
    bytes.extend(u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
    bytes.push(file_type);
    bytes.extend(name);
    bytes
}

/// The bytes of an entry as they were.
pub(super) fn encode_with(entry: &Entry<'_>) -> Vec<u8> {
    let mut bytes = encode(entry.location, entry.file_type, entry.name);
    crate::disk::bytes::put16(&mut bytes, 25, u16::try_from(entry.data.len()).unwrap_or(0));
    bytes.extend(entry.data);
    bytes
}

/// What an entry says it points to.
pub(super) const fn kind_of(file_type: u8) -> Option<FileKind> {
    Some(match file_type {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::CharDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::Symlink,
        _ => return None,
    })
}

impl Core {
    /// The entry `name` of a directory.
    pub(super) fn enter(&self, dir: Target, name: &[u8]) -> Result<Option<Target>> {
        self.directory(dir)?;
        if dir.is_stub || name.is_empty() || name.len() > 255 {
            return Ok(None);
        }
        let tree = &self.volume(dir.volume)?.tree;
        let item = self.store.get(tree, Key::new(dir.inode, kind::DIR_ITEM, name_hash(name)))?.unwrap_or_default();
        let entries = parse(&item)?;
        let entry = entries.iter().find(|entry| entry.name == name);
        entry.map(|entry| self.target(dir, entry)).transpose()
    }

    /// The entries of a directory from `cursor` on, as they were made. Each comes with its place.
    pub(super) fn list(
        &self,
        dir: Target,
        cursor: u64,
        visit: &mut dyn FnMut(u64, &Entry<'_>, Target) -> ControlFlow<()>,
    ) -> Result<()> {
        self.directory(dir)?;
        if dir.is_stub {
            return Ok(());
        }
        let tree = &self.volume(dir.volume)?.tree;
        self.store.scan_kind(tree, (dir.inode, kind::DIR_INDEX, cursor), &mut |index, item| {
            for entry in parse(item)? {
                let name = entry.name;
                let is_name = name.len() <= 255 && !name.contains(&b'/') && !name.contains(&0);
                if !is_name || name == b"." || name == b".." || index == u64::MAX {
                    return Err(corrupt(format!("inode {} has an entry that is no name", dir.inode)));
                }
                let target = self.target(dir, &entry)?;
                if visit(index, &entry, target).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Some entries of a directory, and how the listing ended.
    pub(super) fn batch(&self, root: u64, dir: Inode, cursor: u64) -> (Vec<DirEntry>, Result<()>) {
        let mut entries = Vec::new();
        let mut failed = Ok(());
        let mut add = |index: u64, entry: &Entry<'_>, target: Target| match self.number(root, target) {
            Ok(inode) => {
                let (name, kind) = (entry.name.to_vec(), kind_of(entry.file_type));
                entries.push(DirEntry { name, inode, kind, cursor: index.saturating_add(1) });
                if entries.len() < super::BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
            Err(error) => {
                failed = Err(error);
                ControlFlow::Break(())
            }
        };
        let listed = self.target_of(root, dir).and_then(|dir| self.list(dir, cursor, &mut add));
        (entries, listed.and(failed))
    }

    /// Where an entry of `dir` leads: into another subvolume if that hangs there.
    fn target(&self, dir: Target, entry: &Entry<'_>) -> Result<Target> {
        match entry.location.kind {
            kind::INODE_ITEM => Ok(Target { inode: entry.location.objectid, ..dir }),
            kind::ROOT_ITEM => {
                let child = entry.location.objectid;
                let attached = self.store.is_attached(dir.volume, dir.inode, entry.name, child)?;
                match self.volumes.get(&child).filter(|_| attached) {
                    Some(volume) => Ok(Target { volume: child, inode: volume.directory, is_stub: false }),
                    None => Ok(Target { is_stub: true, ..dir }),
                }
            }
            _ => Err(corrupt(format!("inode {} has an entry that leads nowhere", dir.inode))),
        }
    }

    /// Makes sure that `dir` is a directory.
    fn directory(&self, dir: Target) -> Result<Item> {
        let item = self.inode(dir)?;
        if item.kind() == Some(FileKind::Directory) { Ok(item) } else { Err(not_a(dir.inode, "a directory")) }
    }

    /// All extended attributes, sorted by name.
    pub(super) fn attributes(&self, of: Target) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inode(of)?;
        let mut all: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        if of.is_stub {
            return Ok(all);
        }
        let (tree, mut bytes) = (&self.volume(of.volume)?.tree, 0_usize);
        self.store.scan_kind(tree, (of.inode, kind::XATTR_ITEM, 0), &mut |_, item| {
            bytes = bytes.saturating_add(item.len());
            if bytes > limits::MAX_BTRFS_XATTRS {
                return Err(super::limit("a file has too many extended attributes", limits::MAX_BTRFS_XATTRS));
            }
            all.extend(parse(item)?.iter().map(|entry| (entry.name.to_vec(), entry.data.to_vec())));
            Ok(ControlFlow::Continue(()))
        })?;
        all.sort();
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_parsed_and_cuts_are_seen() {
        let location = Key::new(257, kind::INODE_ITEM, 0);
        let mut item = encode(location, 1, b"name");
        item.extend(encode(Key::new(258, kind::ROOT_ITEM, u64::MAX), 2, b"other"));
        let entries = parse(&item).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!((entries[0].location, entries[0].file_type, entries[0].name), (location, 1, &b"name"[..]));
        assert_eq!(entries[1].name, b"other");
        for len in (1..item.len()).filter(|len| *len != 34) {
            assert_eq!(parse(&item[..len]).unwrap_err().code(), "btrfs.corrupt", "{len}");
        }
        for at in 0..item.len() {
            let mut bytes = item.clone();
            bytes[at] = 0xff;
            let _ = parse(&bytes);
        }
    }
}
