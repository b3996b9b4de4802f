//! Inodes (`btrfs_inode_item`), and how those of all subvolumes share one space of numbers.

use super::dir::Target;
use super::key::{Key, kind};
use super::{Core, corrupt};
use crate::disk::bytes::{le32, le64, put, put32};
use crate::error::Result;
use crate::fs::{FileKind, Inode, Stat, Timestamp};

/// Bytes of an inode.
pub(super) const LEN: usize = 160;
/// `BTRFS_INODE_NODATASUM`.
pub(super) const NODATASUM: u64 = 1;
/// `BTRFS_INODE_NODATACOW`: no copy on write, which does without checksums too.
pub(super) const NODATACOW: u64 = 1 << 1;
/// `BTRFS_INODE_NOCOMPRESS` and `BTRFS_INODE_COMPRESS`.
pub(super) const NOCOMPRESS: u64 = 1 << 3;
pub(super) const COMPRESS: u64 = 1 << 11;
/// `BTRFS_INODE_RO_VERITY`, in the upper half.
pub(super) const VERITY: u64 = 1 << 32;
/// Where a number says which subvolume it belongs to, and that it is a stub.
const VOLUME_SHIFT: u32 = 48;
const STUB: u64 = 1 << 47;
/// The number that the kernel gives to a stub (`BTRFS_EMPTY_SUBVOL_DIR_OBJECTID`) tells nothing of where it is.
const MASK: u64 = STUB - 1;

/// An inode's fields, as on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item(pub(super) Vec<u8>);

impl Item {
    pub(super) fn parse(number: u64, bytes: Vec<u8>) -> Result<Self> {
        if bytes.len() < LEN {
            return Err(corrupt(format!("inode {number} is cut off")).found(bytes.len()));
        }
        Ok(Self(bytes))
    }

    pub(super) fn generation(&self) -> u64 {
        le64(&self.0, 0)
    }

    pub(super) fn size(&self) -> u64 {
        le64(&self.0, 16)
    }

    pub(super) fn nbytes(&self) -> u64 {
        le64(&self.0, 24)
    }

    pub(super) fn nlink(&self) -> u32 {
        le32(&self.0, 40)
    }

    pub(super) fn mode(&self) -> u32 {
        le32(&self.0, 52)
    }

    pub(super) fn flags(&self) -> u64 {
        le64(&self.0, 64)
    }

    pub(super) fn set_flags(&mut self, flags: u64) {
        put(&mut self.0, 64, &flags.to_le_bytes());
    }

    pub(super) fn set_generation(&mut self, generation: u64) {
        put(&mut self.0, 0, &generation.to_le_bytes());
    }

    pub(super) fn set_size(&mut self, size: u64) {
        put(&mut self.0, 16, &size.to_le_bytes());
    }

    pub(super) fn set_nbytes(&mut self, nbytes: u64) {
        put(&mut self.0, 24, &nbytes.to_le_bytes());
    }

    pub(super) fn set_nlink(&mut self, nlink: u32) {
        put32(&mut self.0, 40, nlink);
    }

    pub(super) fn kind(&self) -> Option<FileKind> {
        Some(match self.mode() & 0o170_000 {
            0o010_000 => FileKind::Fifo,
            0o020_000 => FileKind::CharDevice,
            0o040_000 => FileKind::Directory,
            0o060_000 => FileKind::BlockDevice,
            0o100_000 => FileKind::Regular,
            0o120_000 => FileKind::Symlink,
            0o140_000 => FileKind::Socket,
            _ => return None,
        })
    }

    fn time(&self, at: usize) -> Timestamp {
        let nanoseconds = le32(&self.0, at.saturating_add(8)).min(999_999_999);
        Timestamp { seconds: le64(&self.0, at).cast_signed(), nanoseconds }
    }

    fn stat(&self, inode: Inode, sectorsize: u32) -> Option<Stat> {
        let kind = self.kind()?;
        // The kernel's own split of a device number in memory.
        let rdev = le64(&self.0, 56);
        let is_device = matches!(kind, FileKind::BlockDevice | FileKind::CharDevice);
        let major = u32::try_from(rdev >> 20 & 0xfff).unwrap_or(0);
        let minor = u32::try_from(rdev & 0xf_ffff).unwrap_or(0);
        Some(Stat {
            inode,
            kind,
            mode: self.mode() & 0o7777,
            uid: le32(&self.0, 44),
            gid: le32(&self.0, 48),
            size: self.size(),
            allocated: self.nbytes().checked_next_multiple_of(u64::from(sectorsize)).unwrap_or(self.nbytes()),
            device: is_device.then_some((major, minor)),
            links: self.nlink(),
            atime: self.time(112),
            mtime: self.time(136),
            ctime: self.time(124),
            btime: Some(self.time(148)),
        })
    }
}

impl Core {
    /// The inode; for a stub, that of the directory that it lies in.
    pub(super) fn inode(&self, target: Target) -> Result<Item> {
        let tree = &self.volume(target.volume)?.tree;
        let item = self.store.get(tree, Key::new(target.inode, kind::INODE_ITEM, 0))?;
        let item = item.ok_or_else(|| corrupt(format!("there is no inode {}", target.inode)))?;
        Item::parse(target.inode, item)
    }

    /// The inode's attributes, under the number that `root` gives it.
    pub(super) fn stat(&self, target: Target, inode: Inode) -> Result<Stat> {
        let item = self.inode(target)?;
        let stat = item.stat(inode, self.store.sb.sectorsize);
        let stat = stat.ok_or_else(|| {
            corrupt(format!("inode {} is of an unknown kind", target.inode)).found(format!("{:o}", item.mode()))
        })?;
        if !target.is_stub {
            return Ok(stat);
        }
        Ok(Stat {
            mode: 0o755,
            size: 0,
            allocated: 0,
            links: 1,
            mtime: stat.mtime,
            ctime: stat.mtime,
            btime: Some(stat.mtime),
            ..stat
        })
    }

    /// The number of an inode in the view whose root is subvolume `root`: there, the kernel's own. Others have their subvolume's
    /// place in the list above it.
    pub(super) fn number(&self, root: u64, target: Target) -> Result<Inode> {
        let too_large =
            || super::limit("an inode number that is too large", usize::try_from(MASK).unwrap_or(usize::MAX));
        let slot = if target.volume == root {
            0
        } else {
            let place = self.order.partition_point(|id| *id < target.volume);
            u64::try_from(place).ok().and_then(|place| place.checked_add(1)).ok_or_else(too_large)?
        };
        if target.inode > MASK || slot >> 16 != 0 {
            return Err(too_large());
        }
        Ok(Inode(slot << VOLUME_SHIFT | if target.is_stub { STUB } else { 0 } | target.inode))
    }

    /// What a number stands for in the view whose root is subvolume `root`.
    pub(super) fn target_of(&self, root: u64, Inode(number): Inode) -> Result<Target> {
        let slot = usize::try_from(number >> VOLUME_SHIFT).unwrap_or(usize::MAX);
        let volume = match slot.checked_sub(1) {
            None => Some(root),
            Some(place) => self.order.get(place).copied(),
        };
        let volume = volume.ok_or_else(|| corrupt(format!("there is no inode {number}")))?;
        Ok(Target { volume, inode: number & MASK, is_stub: number & STUB != 0 })
    }
}
