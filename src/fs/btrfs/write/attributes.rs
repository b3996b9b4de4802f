//! Extended attributes, owners and times.

use super::super::Core;
use super::super::checksum::name_hash;
use super::super::dir::{self, Target};
use super::super::inode::{COMPRESS, Item, NOCOMPRESS, NODATACOW, NODATASUM};
use super::super::key::{Key, kind};
use crate::disk::bytes::{put, put16};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::{FileKind, Timestamp};

/// `BTRFS_FT_XATTR`.
const XATTR: u8 = 8;
/// The attribute that says how the kernel is to compress a file, or the new ones of a directory.
pub(super) const PROPERTY: &[u8] = b"btrfs.compression";
/// Values of it, before a level that may follow; and those that say not to.
const COMPRESSIONS: [&[u8]; 3] = [b"zlib", b"lzo", b"zstd"];
const NONE: [&[u8]; 2] = [b"none", b"no"];

impl Core {
    /// Sets an extended attribute, or removes it if there is no value.
    pub(in super::super) fn set_attribute(&mut self, of: Target, name: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut item = self.writable(of)?;
        if name == PROPERTY {
            item.set_compression(value)?;
        }
        if name.is_empty() || name.len() > 255 || name.contains(&0) || !name.contains(&b'.') {
            let what = format!("`{}` is not the name of an attribute", escape_bytes(name));
            return Err(Error::new(Kind::Usage, "btrfs.xattr", what));
        }
        let key = Key::new(of.inode, kind::XATTR_ITEM, name_hash(name));
        let old = self.store.get(self.tree(of.volume)?, key)?.unwrap_or_default();
        let entries = dir::parse(&old)?;
        let is_there = entries.iter().any(|entry| entry.name == name);
        let mut new: Vec<u8> = Vec::new();
        let mut entry = value.map(|value| self.attribute(name, value)).transpose()?;
        for known in &entries {
            if known.name != name {
                new.extend(self.kept(known));
            } else if let Some(entry) = entry.take() {
                new.extend(entry);
            }
        }
        new.extend(entry.unwrap_or_default());
        if value.is_none() && !is_there {
            return Ok(());
        }
        if new.len() > self.max_item()? {
            let what = format!("the attribute `{}` is too long for the file system", escape_bytes(name));
            return Err(Error::unsupported("btrfs.xattr", what).found(value.map_or(0, <[u8]>::len)));
        }
        self.set(of.volume, key, (!new.is_empty()).then_some(new))?;
        self.put_inode(of, item)
    }

    /// How what is new in a directory is to be compressed: as the directory says, as far as that can be, as in the kernel's
    /// `inherit_props`.
    pub(super) fn inherited_property(&self, parent: Target, item: &Item) -> Result<Option<&'static [u8]>> {
        let is_apt = matches!(item.kind(), Some(FileKind::Regular | FileKind::Directory));
        if !is_apt || !item.can_be_compressed() {
            return Ok(None);
        }
        let key = Key::new(parent.inode, kind::XATTR_ITEM, name_hash(PROPERTY));
        let all = self.store.get(self.tree(parent.volume)?, key)?.unwrap_or_default();
        let entries = dir::parse(&all)?;
        let property = entries.iter().find(|entry| entry.name == PROPERTY);
        Ok(property.and_then(|entry| COMPRESSIONS.into_iter().find(|name| entry.data.starts_with(name))))
    }

    fn attribute(&self, name: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        let len = u16::try_from(value.len()).map_err(|_| {
            Error::unsupported("btrfs.xattr", "the value of an attribute is too long").found(value.len())
        })?;
        let mut entry = dir::encode(Key::new(0, 0, 0), XATTR, name);
        put(&mut entry, 17, &self.transaction().to_le_bytes());
        put16(&mut entry, 25, len);
        entry.extend_from_slice(value);
        Ok(entry)
    }

    /// An attribute that shares the hash, as it was.
    fn kept(&self, entry: &dir::Entry<'_>) -> Vec<u8> {
        let mut bytes = dir::encode_with(entry);
        put(&mut bytes, 17, &self.transaction().to_le_bytes());
        bytes
    }

    pub(in super::super) fn change_owner(&mut self, of: Target, mode: u32, uid: u32, gid: u32) -> Result<()> {
        let mut item = self.writable(of)?;
        item.set_owner(mode, uid, gid);
        self.put_inode(of, item)
    }

    pub(in super::super) fn change_times(&mut self, of: Target, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        let mut item = self.writable(of)?;
        item.set_times(atime, mtime);
        self.put_inode(of, item)
    }
}

impl Item {
    /// What has no checksums cannot be compressed.
    fn can_be_compressed(&self) -> bool {
        self.flags() & (NODATACOW | NODATASUM) == 0
    }

    /// Sets the flags that go with a value of [`PROPERTY`], or with none.
    fn set_compression(&mut self, value: Option<&[u8]>) -> Result<()> {
        let flag = match value {
            None | Some([]) => 0,
            Some(value) if NONE.contains(&value) => NOCOMPRESS,
            Some(value) if COMPRESSIONS.iter().any(|name| value.starts_with(name)) && self.can_be_compressed() => {
                COMPRESS
            }
            Some(value) => {
                let what = format!("a file cannot be given the compression `{}`", escape_bytes(value));
                return Err(Error::new(Kind::Usage, "btrfs.xattr", what));
            }
        };
        self.set_flags(self.flags() & !(COMPRESS | NOCOMPRESS) | flag);
        Ok(())
    }
}
