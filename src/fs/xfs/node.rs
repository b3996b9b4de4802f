//! Inodes: their fields by the documentation's names, their checksum, and where they are.

use super::superblock::Superblock;
use super::view::View;
use super::{block, corrupt};
use crate::disk::bytes::{array, be16, be32, be64, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::{FileKind, Inode, Stat, Timestamp};

pub(super) const MAGIC: u16 = 0x494e;
/// Bytes of an inode before its forks, in versions 1 and 2, and 3.
const CORE_V2: usize = 100;
const CORE_V3: usize = 176;
/// `di_flags`: the data is on the realtime device.
const FLAG_REALTIME: u16 = 0x1;
/// `di_flags2`: times are 64 bits of nanoseconds; extent counters are wide; the inode belongs to the file system.
const FLAG2_BIGTIME: u64 = 0x8;
const FLAG2_NREXT64: u64 = 0x10;

/// What a fork holds (`di_format`, `di_aformat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Device,
    Local,
    Extents,
    Btree,
}

/// One of an inode's two forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fork {
    Data,
    Attr,
}

/// An inode as it is on disk.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) number: u64,
    pub(super) raw: Vec<u8>,
}

impl Node {
    pub(super) fn kind(&self) -> Option<FileKind> {
        kind_of(be16(&self.raw, 2))
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == Some(FileKind::Directory)
    }

    /// 1, 2 or 3.
    fn version(&self) -> u8 {
        u8_at(&self.raw, 4)
    }

    pub(super) fn size(&self) -> u64 {
        be64(&self.raw, 56)
    }

    pub(super) fn is_realtime(&self) -> bool {
        be16(&self.raw, 90) & FLAG_REALTIME != 0
    }

    fn links(&self) -> u32 {
        if self.version() == 1 { u32::from(be16(&self.raw, 6)) } else { be32(&self.raw, 16) }
    }

    fn flags2(&self) -> u64 {
        if self.version() >= 3 { be64(&self.raw, 120) } else { 0 }
    }

    fn core_len(&self) -> usize {
        core_len(self.version())
    }

    /// Where a fork's bytes are in the inode; empty if there is no such fork.
    pub(super) fn fork_range(&self, fork: Fork) -> std::ops::Range<usize> {
        fork_range(&self.raw, fork)
    }

    pub(super) fn fork(&self, fork: Fork) -> &[u8] {
        self.raw.get(self.fork_range(fork)).unwrap_or_default()
    }

    pub(super) fn format(&self, fork: Fork) -> Result<Format> {
        let at = match fork {
            Fork::Data => 5,
            Fork::Attr => 83,
        };
        match u8_at(&self.raw, at) {
            0 if fork == Fork::Data => Ok(Format::Device),
            1 => Ok(Format::Local),
            2 => Ok(Format::Extents),
            3 => Ok(Format::Btree),
            other => Err(corrupt(format!("a fork of inode {} has an unknown format", self.number)).found(other)),
        }
    }

    /// Extents of a fork, as the inode counts them.
    pub(super) fn extents(&self, fork: Fork) -> u64 {
        let wide = self.flags2() & FLAG2_NREXT64 != 0;
        match (fork, wide) {
            (Fork::Data, false) => u64::from(be32(&self.raw, 76)),
            (Fork::Data, true) => be64(&self.raw, 24),
            (Fork::Attr, false) => u64::from(be16(&self.raw, 80)),
            (Fork::Attr, true) => u64::from(be32(&self.raw, 76)),
        }
    }

    pub(super) fn stat(&self, sb: &Superblock) -> Result<Stat> {
        let kind = self.kind().ok_or_else(|| corrupt(format!("inode {} is not in use", self.number)))?;
        let device = matches!(kind, FileKind::BlockDevice | FileKind::CharDevice).then(|| {
            let device = be32(self.fork(Fork::Data), 0);
            (device >> 18 & 0x1ff, device & 0x3_ffff)
        });
        Ok(Stat {
            inode: Inode(self.number),
            kind,
            mode: u32::from(be16(&self.raw, 2)) & 0o7777,
            uid: be32(&self.raw, 8),
            gid: be32(&self.raw, 12),
            size: self.size(),
            allocated: sb.bytes(be64(&self.raw, 64)),
            device,
            links: self.links(),
            atime: self.time(32),
            mtime: self.time(40),
            ctime: self.time(48),
            btime: (self.version() >= 3).then(|| self.time(144)),
        })
    }

    fn time(&self, at: usize) -> Timestamp {
        if self.flags2() & FLAG2_BIGTIME != 0 {
            let total = be64(&self.raw, at);
            let seconds = i64::try_from(total / 1_000_000_000).unwrap_or(i64::MAX).saturating_sub(1 << 31);
            let nanoseconds = u32::try_from(total % 1_000_000_000).unwrap_or(0);
            return Timestamp { seconds, nanoseconds };
        }
        let seconds = i64::from(i32::from_be_bytes(array(&self.raw, at)));
        let nanoseconds = be32(&self.raw, at.saturating_add(4)).min(999_999_999);
        Timestamp { seconds, nanoseconds }
    }
}

/// Bytes of an inode of `version` before its forks.
pub(super) fn core_len(version: u8) -> usize {
    if version >= 3 { CORE_V3 } else { CORE_V2 }
}

/// Where the bytes of `fork` are in `raw`, an inode; empty if there is no such fork.
pub(super) fn fork_range(raw: &[u8], fork: Fork) -> std::ops::Range<usize> {
    let start = core_len(u8_at(raw, 4)).min(raw.len());
    let offset = usize::from(u8_at(raw, 82)).saturating_mul(8);
    let middle = start.saturating_add(offset).min(raw.len());
    match fork {
        Fork::Data if offset == 0 => start..raw.len(),
        Fork::Data => start..middle,
        Fork::Attr if offset == 0 => raw.len()..raw.len(),
        Fork::Attr => middle..raw.len(),
    }
}

/// The kind of file that a mode says.
pub(super) fn kind_of(mode: u16) -> Option<FileKind> {
    Some(match mode >> 12 {
        0x1 => FileKind::Fifo,
        0x2 => FileKind::CharDevice,
        0x4 => FileKind::Directory,
        0x6 => FileKind::BlockDevice,
        0x8 => FileKind::Regular,
        0xa => FileKind::Symlink,
        0xc => FileKind::Socket,
        _ => return None,
    })
}

impl View<'_> {
    /// Inode `number`, verified and in use.
    pub(super) fn inode(&self, number: Inode) -> Result<Node> {
        let number = number.0;
        let missing = || corrupt(format!("there is no inode {number}"));
        let (block, at) = self.sb.inode_place(number).ok_or_else(missing)?;
        let bytes = self.store.block(block, self.sb.block_len())?;
        let raw = bytes.get(at..).and_then(|rest| rest.get(..self.sb.inode_len())).ok_or_else(missing)?.to_vec();
        let offset = block.saturating_add(crate::disk::bytes::long(at));
        let node = Node { number, raw };
        self.check_inode(&node).map_err(|error| error.offset(offset))?;
        Ok(node)
    }

    fn check_inode(&self, node: &Node) -> Result<()> {
        let number = node.number;
        if be16(&node.raw, 0) != MAGIC {
            return Err(corrupt(format!("there is no inode {number}")));
        }
        let versions = if self.sb.has_crc() { 3..=3 } else { 1..=2 };
        if !versions.contains(&node.version()) {
            return Err(corrupt(format!("inode {number} has an impossible version")).found(node.version()));
        }
        if self.sb.has_crc() {
            if !block::crc_is_right(&node.raw, block::INODE_CRC) {
                return Err(Error::corrupt("xfs.checksum", format!("the checksum of inode {number} is wrong")));
            }
            if be64(&node.raw, 152) != number || array::<16>(&node.raw, 160) != self.sb.meta_uuid {
                return Err(corrupt(format!("inode {number} belongs elsewhere")));
            }
        }
        if node.kind().is_none() {
            return Err(corrupt(format!("inode {number} is not in use")));
        }
        let end = node.core_len().saturating_add(usize::from(u8_at(&node.raw, 82)).saturating_mul(8));
        if node.size() > i64::MAX.unsigned_abs() || end > node.raw.len() {
            return Err(corrupt(format!("inode {number} contradicts itself")));
        }
        Ok(())
    }

    /// A regular file whose content can be read.
    pub(super) fn regular(&self, inode: Inode) -> Result<Node> {
        let node = self.inode(inode)?;
        if node.kind() != Some(FileKind::Regular) {
            return Err(Error::failed("xfs.name", format!("inode {} is not a regular file", inode.0)));
        }
        if node.is_realtime() {
            return Err(super::unsupported(format!("the data of inode {} is on a realtime device", inode.0)));
        }
        Ok(node)
    }

    /// The content of a local fork: `len` bytes of it.
    pub(super) fn local<'n>(&self, node: &'n Node, fork: Fork, len: u64) -> Result<&'n [u8]> {
        node.fork(fork)
            .get(..size(len))
            .ok_or_else(|| corrupt(format!("a fork of inode {} is longer than the inode", node.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::bytes::{put, put_be64};

    fn node(version: u8, forkoff: u8) -> Node {
        let mut raw = vec![0; 512];
        put(&mut raw, 4, &[version]);
        put(&mut raw, 82, &[forkoff]);
        Node { number: 1, raw }
    }

    #[test]
    fn forks_share_what_the_core_leaves() {
        assert_eq!(node(3, 0).fork_range(Fork::Data), 176..512);
        assert!(node(3, 0).fork(Fork::Attr).is_empty());
        assert_eq!(node(2, 10).fork_range(Fork::Data), 100..180);
        assert_eq!(node(2, 10).fork_range(Fork::Attr), 180..512);
        assert_eq!(node(3, 255).fork_range(Fork::Data), 176..512);
    }

    #[test]
    fn both_forms_of_time() {
        let mut old = node(2, 0);
        put(&mut old.raw, 40, &[0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 7]);
        assert_eq!(old.time(40), Timestamp { seconds: -2, nanoseconds: 7 });
        let mut new = node(3, 0);
        put_be64(&mut new.raw, 120, FLAG2_BIGTIME);
        put_be64(&mut new.raw, 40, ((1 << 31) - 2) * 1_000_000_000 + 7);
        assert_eq!(new.time(40), Timestamp { seconds: -2, nanoseconds: 7 });
        put_be64(&mut new.raw, 40, u64::MAX);
        assert_eq!(new.time(40).seconds, 16_299_260_425);
    }
}
