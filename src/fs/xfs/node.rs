//! Inodes: their fields by the documentation's names, their checksum, and where they are.

use super::superblock::Superblock;
use super::view::View;
use super::{block, corrupt};
use crate::disk::bytes::{array, be16, be32, be64, put, put_be32, put_be64, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::{FileKind, Inode, Stat, Timestamp};

pub(super) const MAGIC: u16 = 0x494e;
/// Bytes of an inode before its forks, in versions 1 and 2, and 3.
const CORE_V2: usize = 100;
const CORE_V3: usize = 176;
/// `di_flags`: the data is on the realtime device.
const FLAG_REALTIME: u16 = 0x1;
/// `di_flags`: what is made in the directory belongs to its project.
const FLAG_PROJECT: u16 = 0x200;
/// `di_flags2`: times are 64 bits of nanoseconds; extent counters are wide; the inode belongs to the file system.
pub(super) const FLAG2_BIGTIME: u64 = 0x8;
pub(super) const FLAG2_NREXT64: u64 = 0x10;
/// Seconds from 1901 to the last time of 64 bits.
const LAST_BIGTIME: u64 = 18_446_744_072;
/// Where an inode has the times of the last access, and of the last changes of content and inode.
pub(super) const ATIME: usize = 32;
pub(super) const MTIME: usize = 40;
pub(super) const CTIME: usize = 48;
/// Where version 3 has the time of creation.
pub(super) const CRTIME: usize = 144;

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

    pub(super) fn links(&self) -> u32 {
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

    /// Bytes for both forks.
    pub(super) fn room(&self) -> usize {
        self.raw.len().saturating_sub(self.core_len())
    }

    /// Where the attribute fork begins, in eights of bytes; 0 if there is none.
    pub(super) fn fork_offset(&self) -> usize {
        usize::from(u8_at(&self.raw, 82))
    }

    pub(super) fn set_fork_offset(&mut self, offset: u8) {
        put(&mut self.raw, 82, &[offset]);
    }

    /// Puts `bytes`, which fit, into a fork and zeros behind them.
    pub(super) fn set_fork(&mut self, fork: Fork, format: Format, bytes: &[u8]) {
        let (at, value) = match fork {
            Fork::Data => (5, format),
            Fork::Attr => (83, format),
        };
        let value = match value {
            Format::Device => 0,
            Format::Local => 1,
            Format::Extents => 2,
            Format::Btree => 3,
        };
        put(&mut self.raw, at, &[value]);
        let range = self.fork_range(fork);
        if let Some(room) = self.raw.get_mut(range) {
            room.fill(0);
            put(room, 0, bytes);
        }
    }

    pub(super) fn set_extents(&mut self, fork: Fork, count: u64) {
        let wide = self.flags2() & FLAG2_NREXT64 != 0;
        let narrow = u32::try_from(count).unwrap_or(u32::MAX);
        match (fork, wide) {
            (Fork::Data, false) => put_be32(&mut self.raw, 76, narrow),
            (Fork::Data, true) => put_be64(&mut self.raw, 24, count),
            (Fork::Attr, false) => put(&mut self.raw, 80, &u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes()),
            (Fork::Attr, true) => put_be32(&mut self.raw, 76, narrow),
        }
    }

    pub(super) fn set_size(&mut self, size: u64) {
        put_be64(&mut self.raw, 56, size);
    }

    /// Blocks of both forks and their trees.
    pub(super) fn set_blocks(&mut self, blocks: u64) {
        put_be64(&mut self.raw, 64, blocks);
    }

    /// Sets the number of names. Version 1 becomes 2, since only that counts so.
    pub(super) fn set_links(&mut self, links: u32) {
        if self.version() == 1 {
            put(&mut self.raw, 4, &[2]);
            put(&mut self.raw, 6, &[0; 2]);
        }
        put_be32(&mut self.raw, 16, links);
    }

    /// Told anew whenever the inode becomes another file, so that what knew the earlier one is not misled.
    pub(super) fn generation(&self) -> u32 {
        be32(&self.raw, 92)
    }

    /// The next inode of its list of unlinked ones.
    pub(super) fn next_unlinked(&self) -> u32 {
        be32(&self.raw, 96)
    }

    /// Makes it a free inode: what remains is its identity and a new generation.
    pub(super) fn clear(&mut self) {
        let flags2 = self.flags2() & (FLAG2_BIGTIME | FLAG2_NREXT64);
        let generation = self.generation().wrapping_add(1);
        self.set_links(0);
        put(&mut self.raw, 2, &[0; 2]);
        put(&mut self.raw, 24, &[0; 8]);
        put(&mut self.raw, 56, &[0; 28]);
        put(&mut self.raw, 83, &[2]);
        put(&mut self.raw, 5, &[2]);
        put(&mut self.raw, 84, &[0; 8]);
        put_be32(&mut self.raw, 92, generation);
        put_be32(&mut self.raw, 96, u32::MAX);
        if self.version() >= 3 {
            put_be64(&mut self.raw, 120, flags2);
            put_be32(&mut self.raw, 128, 0);
        }
        let forks = self.core_len()..;
        if let Some(forks) = self.raw.get_mut(forks) {
            forks.fill(0);
        }
    }

    /// The project that new files in a directory belong to, if it is handed down; and the flags that go with it.
    pub(super) fn inherited_project(&self) -> Option<[u8; 4]> {
        (be16(&self.raw, 90) & FLAG_PROJECT != 0).then(|| array(&self.raw, 20))
    }

    /// Puts the file into a project.
    pub(super) fn set_project(&mut self, project: [u8; 4]) {
        put(&mut self.raw, 20, &project);
        if self.is_dir() {
            let flags = be16(&self.raw, 90) | FLAG_PROJECT;
            put(&mut self.raw, 90, &flags.to_be_bytes());
        }
    }

    /// Counts a change, in version 3.
    pub(super) fn touch(&mut self) {
        let count = be64(&self.raw, 104).wrapping_add(1);
        put_be64(&mut self.raw, 104, count);
    }

    pub(super) fn set_owner(&mut self, mode: u32, uid: u32, gid: u32) {
        let kind = be16(&self.raw, 2) & 0xf000;
        let bits = u16::try_from(mode & 0o7777).unwrap_or(0);
        put(&mut self.raw, 2, &(kind | bits).to_be_bytes());
        put_be32(&mut self.raw, 8, uid);
        put_be32(&mut self.raw, 12, gid);
    }

    /// Sets the time at byte `at`; what cannot be expressed becomes the nearest that can.
    pub(super) fn set_time(&mut self, at: usize, time: Timestamp) {
        if self.flags2() & FLAG2_BIGTIME != 0 {
            let seconds = u64::try_from(time.seconds.saturating_add(1 << 31)).unwrap_or(0).min(LAST_BIGTIME);
            let total = seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(time.nanoseconds));
            put_be64(&mut self.raw, at, total);
            return;
        }
        let seconds = i32::try_from(time.seconds.clamp(i64::from(i32::MIN), i64::from(i32::MAX))).unwrap_or(0);
        put(&mut self.raw, at, &seconds.to_be_bytes());
        put_be32(&mut self.raw, at.saturating_add(4), time.nanoseconds.min(999_999_999));
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

    pub(super) fn time(&self, at: usize) -> Timestamp {
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

/// The mode of a kind of file, without permissions.
pub(super) fn mode_of(kind: FileKind) -> u16 {
    let kind: u16 = match kind {
        FileKind::Fifo => 0x1,
        FileKind::CharDevice => 0x2,
        FileKind::Directory => 0x4,
        FileKind::BlockDevice => 0x6,
        FileKind::Regular => 0x8,
        FileKind::Symlink => 0xa,
        FileKind::Socket => 0xc,
    };
    kind << 12
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
