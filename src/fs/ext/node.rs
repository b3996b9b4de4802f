//! Inodes: their fields by the kernel's names, their checksum, and where they are.

use super::checksum::crc32c;
use super::corrupt;
use super::features::{INCOMPAT_64BIT, INCOMPAT_LARGEDIR, RO_COMPAT_HUGE_FILE};
use super::superblock::Superblock;
use super::view::View;
use crate::disk::bytes::{le16, le32, put, put16, put32, size};
use crate::error::{Error, Result};
use crate::fs::{FileKind, Inode, Stat, Timestamp};

pub(super) const FLAG_ENCRYPT: u32 = 0x800;
pub(super) const FLAG_INDEX: u32 = 0x1000;
pub(super) const FLAG_HUGE_FILE: u32 = 0x4_0000;
pub(super) const FLAG_EXTENTS: u32 = 0x8_0000;
pub(super) const FLAG_VERITY: u32 = 0x10_0000;
pub(super) const FLAG_EA_INODE: u32 = 0x20_0000;
pub(super) const FLAG_INLINE: u32 = 0x1000_0000;
pub(super) const FLAG_CASEFOLD: u32 = 0x4000_0000;

/// The map of blocks: `i_block`.
pub(super) const MAP: usize = 0x28;
pub(super) const MAP_LEN: usize = 60;

/// An inode as it is on disk.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) number: u32,
    pub(super) raw: Vec<u8>,
}

impl Node {
    /// A new, empty inode of `kind`, to be filled.
    pub(super) fn new(sb: &Superblock, number: u32, kind: FileKind) -> Self {
        let mut node = Self { number, raw: vec![0; sb.inode_size] };
        put16(&mut node.raw, 0x0, kind_bits(kind) << 12);
        if sb.inode_size > 128 {
            put16(&mut node.raw, 0x80, sb.want_extra_isize());
        }
        node
    }

    pub(super) fn kind(&self) -> Option<FileKind> {
        Some(match le16(&self.raw, 0) >> 12 {
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

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == Some(FileKind::Directory)
    }

    pub(super) fn flags(&self) -> u32 {
        le32(&self.raw, 0x20)
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags() & flag != 0
    }

    pub(super) fn set_flag(&mut self, flag: u32, on: bool) {
        let flags = if on { self.flags() | flag } else { self.flags() & !flag };
        put32(&mut self.raw, 0x20, flags);
    }

    pub(super) fn size(&self, sb: &Superblock) -> u64 {
        let low = u64::from(le32(&self.raw, 0x4));
        let wide = match self.kind() {
            Some(FileKind::Regular) => true,
            Some(FileKind::Directory) => sb.incompat() & INCOMPAT_LARGEDIR != 0,
            _ => false,
        };
        if wide { low | u64::from(le32(&self.raw, 0x6c)) << 32 } else { low }
    }

    pub(super) fn set_size(&mut self, len: u64) {
        let [a, b, c, d, high @ ..] = len.to_le_bytes();
        put(&mut self.raw, 0x4, &[a, b, c, d]);
        put(&mut self.raw, 0x6c, &high);
    }

    pub(super) fn links(&self) -> u16 {
        le16(&self.raw, 0x1a)
    }

    pub(super) fn set_links(&mut self, links: u16) {
        put16(&mut self.raw, 0x1a, links);
    }

    pub(super) fn generation(&self) -> u32 {
        le32(&self.raw, 0x64)
    }

    pub(super) fn set_generation(&mut self, generation: u32) {
        put32(&mut self.raw, 0x64, generation);
    }

    pub(super) fn dtime(&self) -> u32 {
        le32(&self.raw, 0x14)
    }

    pub(super) fn set_dtime(&mut self, time: u32) {
        put32(&mut self.raw, 0x14, time);
    }

    pub(super) fn map(&self) -> &[u8] {
        self.raw.get(MAP..).and_then(|rest| rest.get(..MAP_LEN)).unwrap_or_default()
    }

    pub(super) fn set_map(&mut self, map: &[u8]) {
        put(&mut self.raw, MAP, map);
    }

    /// The block of extended attributes; 0 if there is none.
    pub(super) fn xattr_block(&self, sb: &Superblock) -> u64 {
        let low = u64::from(le32(&self.raw, 0x68));
        if sb.incompat() & INCOMPAT_64BIT == 0 { low } else { low | u64::from(le16(&self.raw, 0x76)) << 32 }
    }

    pub(super) fn set_xattr_block(&mut self, block: u64) {
        let [a, b, c, d, e, f, ..] = block.to_le_bytes();
        put(&mut self.raw, 0x68, &[a, b, c, d]);
        put(&mut self.raw, 0x76, &[e, f]);
    }

    /// The bytes of blocks that the inode holds, in units of 512 or, with `FLAG_HUGE_FILE`, of blocks.
    fn sectors(&self, sb: &Superblock) -> u64 {
        let low = u64::from(le32(&self.raw, 0x1c));
        if sb.ro_compat() & RO_COMPAT_HUGE_FILE == 0 { low } else { low | u64::from(le16(&self.raw, 0x74)) << 32 }
    }

    /// Counts `added` blocks more and `removed` blocks less.
    pub(super) fn count_blocks(&mut self, sb: &Superblock, added: u64, removed: u64) {
        let unit = if self.has(FLAG_HUGE_FILE) { 1 } else { sb.block_size.get() >> 9 };
        let sectors =
            self.sectors(sb).saturating_add(added.saturating_mul(unit)).saturating_sub(removed.saturating_mul(unit));
        let [a, b, c, d, e, f, ..] = sectors.to_le_bytes();
        put(&mut self.raw, 0x1c, &[a, b, c, d]);
        if sb.ro_compat() & RO_COMPAT_HUGE_FILE != 0 {
            put(&mut self.raw, 0x74, &[e, f]);
        }
    }

    /// Bytes of the inode beyond the first 128 that have a meaning.
    pub(super) fn extra_isize(&self) -> usize {
        if self.raw.len() <= 128 {
            return 0;
        }
        let extra = usize::from(le16(&self.raw, 0x80));
        if extra > self.raw.len().saturating_sub(128) || extra & 3 != 0 { 0 } else { extra }
    }

    fn has_field(&self, at: usize) -> bool {
        at.saturating_add(4) <= self.extra_isize().saturating_add(128)
    }

    fn time(&self, at: usize, extra: usize) -> Timestamp {
        let seconds = i64::from(i32::from_le_bytes(le32(&self.raw, at).to_le_bytes()));
        if !self.has_field(extra) {
            return Timestamp { seconds, nanoseconds: 0 };
        }
        let extra = le32(&self.raw, extra);
        Timestamp {
            seconds: seconds.saturating_add(i64::from(extra & 3) << 32),
            nanoseconds: (extra >> 2).min(999_999_999),
        }
    }

    fn set_time(&mut self, at: usize, extra: usize, time: Timestamp) {
        let wide = self.has_field(extra);
        let highest = if wide { (3_i64 << 32) | 0x7fff_ffff } else { 0x7fff_ffff };
        let seconds = time.seconds.clamp(-0x8000_0000, highest);
        let [a, b, c, d, ..] = seconds.to_le_bytes();
        let low = i32::from_le_bytes([a, b, c, d]);
        put(&mut self.raw, at, &low.to_le_bytes());
        if wide {
            let epoch = u32::try_from((seconds.saturating_sub(i64::from(low)) >> 32) & 3).unwrap_or(0);
            put32(&mut self.raw, extra, time.nanoseconds.min(999_999_999) << 2 | epoch);
        }
    }

    pub(super) fn set_atime(&mut self, time: Timestamp) {
        self.set_time(0x8, 0x8c, time);
    }

    pub(super) fn set_mtime(&mut self, time: Timestamp) {
        self.set_time(0x10, 0x88, time);
    }

    pub(super) fn ctime(&self) -> Timestamp {
        self.time(0xc, 0x84)
    }

    pub(super) fn set_ctime(&mut self, time: Timestamp) {
        self.set_time(0xc, 0x84, time);
    }

    pub(super) fn set_crtime(&mut self, time: Timestamp) {
        if self.has_field(0x94) {
            self.set_time(0x90, 0x94, time);
        }
    }

    pub(super) fn set_owner(&mut self, mode: u32, uid: u32, gid: u32) {
        let [mode_low, mode_high, ..] = (mode & 0o7777).to_le_bytes();
        let mode = u16::from_le_bytes([mode_low, mode_high]) | (le16(&self.raw, 0) & 0xf000);
        put16(&mut self.raw, 0, mode);
        for (id, low, high) in [(uid, 0x2, 0x78), (gid, 0x18, 0x7a)] {
            let [a, b, c, d] = id.to_le_bytes();
            put(&mut self.raw, low, &[a, b]);
            put(&mut self.raw, high, &[c, d]);
        }
    }

    pub(super) fn stat(&self, sb: &Superblock) -> Result<Stat> {
        let kind = self.kind().filter(|_| self.links() > 0);
        let kind = kind.ok_or_else(|| corrupt(format!("inode {} is not in use", self.number)))?;
        let id = |low, high| u32::from(le16(&self.raw, low)) | u32::from(le16(&self.raw, high)) << 16;
        Ok(Stat {
            inode: Inode(u64::from(self.number)),
            kind,
            mode: u32::from(le16(&self.raw, 0)) & 0o7777,
            uid: id(0x2, 0x78),
            gid: id(0x18, 0x7a),
            size: self.size(sb),
            allocated: self.sectors(sb).saturating_mul(if self.has(FLAG_HUGE_FILE) {
                sb.block_size.get()
            } else {
                512
            }),
            device: self.device(kind),
            links: u32::from(self.links()),
            atime: self.time(0x8, 0x8c),
            mtime: self.time(0x10, 0x88),
            ctime: self.ctime(),
            btime: self.has_field(0x94).then(|| self.time(0x90, 0x94)),
        })
    }

    /// Device numbers: `i_block[0]` in the old form of 8 and 8 bits, else `i_block[1]` in the new one of 12 and 20.
    fn device(&self, kind: FileKind) -> Option<(u32, u32)> {
        if !matches!(kind, FileKind::BlockDevice | FileKind::CharDevice) {
            return None;
        }
        let (old, new) = (le32(self.map(), 0), le32(self.map(), 4));
        if old != 0 {
            return Some((old >> 8 & 0xff, old & 0xff));
        }
        Some((new >> 8 & 0xfff, new & 0xff | new >> 12 & 0xf_ff00))
    }

    /// What the checksums of everything that belongs to this inode start from.
    pub(super) fn seed(&self, sb: &Superblock) -> u32 {
        let seed = crc32c(sb.seed, &self.number.to_le_bytes());
        crc32c(seed, &self.generation().to_le_bytes())
    }

    fn has_high_csum(&self) -> bool {
        self.extra_isize() >= 4
    }

    fn checksum(&self, sb: &Superblock) -> u32 {
        let mut raw = self.raw.clone();
        put16(&mut raw, 0x7c, 0);
        if self.has_high_csum() {
            put16(&mut raw, 0x82, 0);
        }
        crc32c(self.seed(sb), &raw)
    }

    fn checksum_is_right(&self, sb: &Superblock) -> bool {
        let computed = self.checksum(sb);
        let low = u32::from(le16(&self.raw, 0x7c));
        if self.has_high_csum() {
            computed == low | u32::from(le16(&self.raw, 0x82)) << 16
        } else {
            computed & 0xffff == low
        }
    }

    fn seal(&mut self, sb: &Superblock) {
        if !sb.has_csum() {
            return;
        }
        let [a, b, c, d] = self.checksum(sb).to_le_bytes();
        put(&mut self.raw, 0x7c, &[a, b]);
        if self.has_high_csum() {
            put(&mut self.raw, 0x82, &[c, d]);
        }
    }
}

fn kind_bits(kind: FileKind) -> u16 {
    match kind {
        FileKind::Fifo => 0x1,
        FileKind::CharDevice => 0x2,
        FileKind::Directory => 0x4,
        FileKind::BlockDevice => 0x6,
        FileKind::Regular => 0x8,
        FileKind::Symlink => 0xa,
        FileKind::Socket => 0xc,
    }
}

impl View<'_> {
    /// Inode `number`, its checksum verified.
    pub(super) fn node(&self, number: u32) -> Result<Node> {
        let (block, at) = self.node_place(number)?;
        let bytes = self.block(block)?;
        let raw = bytes.get(at..).and_then(|rest| rest.get(..self.sb.inode_size)).unwrap_or_default().to_vec();
        let node = Node { number, raw };
        if self.sb.has_csum() && !node.checksum_is_right(&self.sb) {
            return Err(Error::corrupt("ext.checksum", format!("the checksum of inode {number} is wrong"))
                .offset(block.saturating_mul(self.sb.block_size.get())));
        }
        Ok(node)
    }

    /// Inode `inode` of the trait.
    pub(super) fn inode(&self, inode: Inode) -> Result<Node> {
        match u32::try_from(inode.0) {
            Ok(number) => self.node(number),
            Err(_) => Err(corrupt(format!("there is no inode {}", inode.0))),
        }
    }

    /// Stores `node` with its checksum.
    pub(super) fn put_node(&mut self, node: &mut Node) -> Result<()> {
        node.seal(&self.sb);
        let (block, at) = self.node_place(node.number)?;
        put(self.edit(block)?, at, &node.raw);
        Ok(())
    }

    /// The block that holds inode `number`, and where in it.
    fn node_place(&self, number: u32) -> Result<(u64, usize)> {
        let index = number.checked_sub(1).filter(|_| number <= self.sb.inodes_count);
        let index = index.ok_or_else(|| corrupt(format!("there is no inode {number}")))?;
        let group = self.group(index / self.sb.inodes_per_group)?;
        let slot = u64::from(index % self.sb.inodes_per_group);
        let byte = slot.saturating_mul(crate::disk::bytes::long(self.sb.inode_size));
        Ok((group.inode_table().saturating_add(byte / self.sb.block_size), size(byte % self.sb.block_size)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(extra: u16) -> Node {
        let mut raw = vec![0; 256];
        put16(&mut raw, 0x80, extra);
        Node { number: 12, raw }
    }

    #[test]
    fn times_beyond_2038_and_before_1970_survive() {
        for seconds in [0, -1, -0x8000_0000, 0x7fff_ffff, 0x8000_0000, 0x1_7fff_ffff, 0x3_7fff_ffff] {
            let time = Timestamp { seconds, nanoseconds: 999_999_999 };
            let mut wide = node(32);
            wide.set_ctime(time);
            assert_eq!(wide.ctime(), time);
        }
        let mut narrow = node(0);
        narrow.set_ctime(Timestamp { seconds: 1 << 40, nanoseconds: 5 });
        assert_eq!(narrow.ctime(), Timestamp { seconds: 0x7fff_ffff, nanoseconds: 0 });
    }

    #[test]
    fn hostile_extra_isize_is_ignored() {
        for extra in [129, 130, 0xffff, 31] {
            assert_eq!(node(extra).extra_isize(), 0);
        }
        assert_eq!(node(128).extra_isize(), 128);
    }
}
