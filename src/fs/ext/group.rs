//! Block group descriptors: where a group's bitmaps and inode table are, its counters, and their checksum.

use std::ops::Range;

use super::checksum::{crc16, crc32c};
use super::corrupt;
use super::features::{INCOMPAT_64BIT, INCOMPAT_META_BG};
use super::superblock::Superblock;
use super::view::View;
use crate::disk::bytes::{le16, le32, long, put16, size};
use crate::error::{Error, Result};

/// The inode bitmap and table were never written.
pub(super) const INODE_UNINIT: u16 = 1;
/// The block bitmap was never written.
pub(super) const BLOCK_UNINIT: u16 = 2;

/// A descriptor whose checksum is right and whose blocks lie in the file system.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) number: u32,
    raw: Vec<u8>,
}

impl Group {
    fn wide(&self, low: usize, high: usize) -> u64 {
        u64::from(le32(&self.raw, low)) | u64::from(le32(&self.raw, high)) << 32
    }

    fn count(&self, low: usize, high: usize) -> u32 {
        u32::from(le16(&self.raw, low)) | u32::from(le16(&self.raw, high)) << 16
    }

    fn set_count(&mut self, low: usize, high: usize, value: u32) {
        let [a, b, c, d] = value.to_le_bytes();
        put16(&mut self.raw, low, u16::from_le_bytes([a, b]));
        put16(&mut self.raw, high, u16::from_le_bytes([c, d]));
    }

    pub(super) fn block_bitmap(&self) -> u64 {
        self.wide(0x0, 0x20)
    }

    pub(super) fn inode_bitmap(&self) -> u64 {
        self.wide(0x4, 0x24)
    }

    pub(super) fn inode_table(&self) -> u64 {
        self.wide(0x8, 0x28)
    }

    pub(super) fn free_blocks(&self) -> u32 {
        self.count(0xc, 0x2c)
    }

    pub(super) fn set_free_blocks(&mut self, count: u32) {
        self.set_count(0xc, 0x2c, count);
    }

    pub(super) fn free_inodes(&self) -> u32 {
        self.count(0xe, 0x2e)
    }

    pub(super) fn set_free_inodes(&mut self, count: u32) {
        self.set_count(0xe, 0x2e, count);
    }

    pub(super) fn used_dirs(&self) -> u32 {
        self.count(0x10, 0x30)
    }

    pub(super) fn set_used_dirs(&mut self, count: u32) {
        self.set_count(0x10, 0x30, count);
    }

    /// Inodes at the end of the table that were never used.
    pub(super) fn itable_unused(&self) -> u32 {
        self.count(0x1c, 0x32)
    }

    pub(super) fn set_itable_unused(&mut self, count: u32) {
        self.set_count(0x1c, 0x32, count);
    }

    /// Whether `flag` is set and means something.
    pub(super) fn has(&self, sb: &Superblock, flag: u16) -> bool {
        sb.has_group_csum() && le16(&self.raw, 0x12) & flag != 0
    }

    pub(super) fn clear(&mut self, flag: u16) {
        let flags = le16(&self.raw, 0x12) & !flag;
        put16(&mut self.raw, 0x12, flags);
    }

    pub(super) fn block_bitmap_csum(&self) -> u32 {
        self.count(0x18, 0x38)
    }

    pub(super) fn set_block_bitmap_csum(&mut self, sum: u32) {
        self.set_count(0x18, 0x38, sum);
    }

    pub(super) fn inode_bitmap_csum(&self) -> u32 {
        self.count(0x1a, 0x3a)
    }

    pub(super) fn set_inode_bitmap_csum(&mut self, sum: u32) {
        self.set_count(0x1a, 0x3a, sum);
    }

    /// Compares a bitmap's checksum with the stored one, of which short descriptors keep 16 bits.
    pub(super) fn csum_is(&self, stored: u32, computed: u32) -> bool {
        if self.raw.len() >= 64 { stored == computed } else { stored == computed & 0xffff }
    }

    /// The blocks that are in use by the group itself: bitmaps and inode table.
    pub(super) fn own_blocks(&self, sb: &Superblock) -> [Range<u64>; 3] {
        let table = self.inode_table();
        [
            self.block_bitmap()..self.block_bitmap().saturating_add(1),
            self.inode_bitmap()..self.inode_bitmap().saturating_add(1),
            table..table.saturating_add(table_blocks(sb)),
        ]
    }

    fn checksum(&self, sb: &Superblock) -> u16 {
        let number = self.number.to_le_bytes();
        let (head, tail) = self.raw.split_at_checked(0x1e).unwrap_or_default();
        let rest = tail.get(2..).unwrap_or_default();
        if sb.has_csum() {
            let sum = [&number[..], head, &[0, 0], rest].into_iter().fold(sb.seed, crc32c);
            return u16::try_from(sum & 0xffff).unwrap_or(0);
        }
        let rest = if sb.incompat() & INCOMPAT_64BIT != 0 { rest } else { &[] };
        [&sb.uuid_bytes()[..], &number, head, rest].into_iter().fold(!0, crc16)
    }
}

/// Blocks of one group's inode table.
pub(super) fn table_blocks(sb: &Superblock) -> u64 {
    let bytes = u64::from(sb.inodes_per_group.get()).saturating_mul(long(sb.inode_size));
    bytes.div_ceil(sb.block_size.get())
}

/// The block that holds the descriptor of `group`, and where in it.
fn place(sb: &Superblock, group: u32) -> (u64, usize) {
    let per_block = sb.descs_per_block();
    let (index, slot) = (group / per_block, group % per_block);
    let at = size(u64::from(slot)).saturating_mul(sb.desc_size);
    if sb.incompat() & INCOMPAT_META_BG == 0 || index < sb.first_meta_bg() {
        return (sb.block().saturating_add(1).saturating_add(u64::from(index)), at);
    }
    let first = index.saturating_mul(per_block.get());
    let mut block = sb.group_start(first);
    if sb.group_has_super(first) {
        block = block.saturating_add(1);
    }
    // With bigalloc and blocks of 1 KiB, group 0 starts with the boot block.
    if first == 0 {
        block = block.max(sb.block().saturating_add(1));
    }
    (block, at)
}

/// The blocks at the start of `group` that hold the superblock, group descriptors, and room for more of them.
pub(super) fn base_blocks(sb: &Superblock, group: u32) -> Range<u64> {
    let start = sb.group_start(group);
    let per_block = sb.descs_per_block();
    let meta_bg = sb.incompat() & INCOMPAT_META_BG != 0;
    let mut len = u64::from(sb.group_has_super(group));
    if !meta_bg || group / per_block < sb.first_meta_bg() {
        if len > 0 {
            let all = sb.groups.div_ceil(per_block.get());
            let blocks = if meta_bg { all.min(sb.first_meta_bg()) } else { all };
            len = len.saturating_add(u64::from(blocks)).saturating_add(sb.reserved_gdt_blocks());
        }
    } else {
        // The descriptors of a meta group are in its first, second and last group.
        let slot = group % per_block;
        len = len.saturating_add(u64::from(slot <= 1 || slot == per_block.get().saturating_sub(1)));
    }
    // Group 0 of a file system with blocks of more than 1 KiB holds the boot sector and the superblock in block 0.
    start..start.saturating_add(len)
}

impl View<'_> {
    /// The descriptor of group `number`.
    pub(super) fn group(&self, number: u32) -> Result<Group> {
        if number >= self.sb.groups {
            return Err(corrupt(format!("there is no block group {number}")));
        }
        let (block, at) = place(&self.sb, number);
        let bytes = self.block(block)?;
        let raw = bytes.get(at..).and_then(|rest| rest.get(..self.sb.desc_size)).unwrap_or_default();
        // Short descriptors read as long ones whose upper halves are zero, except for the length.
        let group = Group { number, raw: raw.to_vec() };
        if self.sb.has_group_csum() && le16(&group.raw, 0x1e) != group.checksum(&self.sb) {
            return Err(Error::corrupt("ext.checksum", format!("the checksum of block group {number} is wrong"))
                .offset(block.saturating_mul(self.sb.block_size.get())));
        }
        for range in group.own_blocks(&self.sb) {
            if !self.sb.contains(range.start, range.end.saturating_sub(range.start)) {
                return Err(corrupt(format!("block group {number} points out of the file system")).found(range.start));
            }
        }
        Ok(group)
    }

    /// Stores a changed descriptor.
    pub(super) fn put_group(&mut self, group: &mut Group) -> Result<()> {
        if self.sb.has_group_csum() {
            let sum = group.checksum(&self.sb);
            put16(&mut group.raw, 0x1e, sum);
        }
        let (block, at) = place(&self.sb, group.number);
        crate::disk::bytes::put(self.edit(block)?, at, &group.raw);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_descriptors_have_no_upper_halves() {
        let mut group = Group { number: 0, raw: vec![0xff; 32] };
        assert_eq!(group.block_bitmap(), 0xffff_ffff);
        group.set_free_blocks(7);
        assert_eq!(group.free_blocks(), 7);
        assert!(group.csum_is(0x1234, 0xabcd_1234));
    }
}
