//! Block and inode bitmaps: verified when read, made from nothing for groups that never wrote theirs.

use std::ops::Range;

use super::checksum::crc32c;
use super::group::{BLOCK_UNINIT, Group, INODE_UNINIT, base_blocks};
use super::view::View;
use super::{believed, corrupt};
use crate::disk::bytes::size;
use crate::error::Result;

/// The bits that are clear among the first `len`, as ranges in order.
pub(super) struct ClearRuns<'a> {
    bytes: &'a [u8],
    next: u64,
    len: u64,
}

impl<'a> ClearRuns<'a> {
    pub(super) fn new(bytes: &'a [u8], from: u64, len: u64) -> Self {
        Self { bytes, next: from, len }
    }

    /// The first bit from `from` on whose value is `value`, or the end.
    fn seek(&self, from: u64, value: bool) -> u64 {
        let skip = if value { 0x00 } else { 0xff };
        let mut at = from;
        while at < self.len {
            let byte = self.bytes.get(size(at >> 3)).copied().unwrap_or(0xff);
            if at & 7 == 0 && byte == skip {
                at = at.saturating_add(8);
            } else if (byte & mask(at) != 0) == value {
                return at;
            } else {
                at = at.saturating_add(1);
            }
        }
        self.len
    }
}

impl Iterator for ClearRuns<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        let start = self.seek(self.next, false);
        if start >= self.len {
            return None;
        }
        self.next = self.seek(start, true);
        Some(start..self.next)
    }
}

fn mask(bit: u64) -> u8 {
    1_u8.wrapping_shl(u32::try_from(bit & 7).unwrap_or(0))
}

/// Whether `bit` is set; bits past the end are.
pub(super) fn is_set(bytes: &[u8], bit: u64) -> bool {
    bytes.get(size(bit >> 3)).is_none_or(|byte| byte & mask(bit) != 0)
}

/// Sets or clears all bits in `range`.
pub(super) fn fill(bytes: &mut [u8], range: Range<u64>, value: bool) {
    for bit in range {
        if let Some(byte) = bytes.get_mut(size(bit >> 3)) {
            *byte = if value { *byte | mask(bit) } else { *byte & !mask(bit) };
        }
    }
}

/// The part of `range` that lies in the group starting at `start` with `len` blocks, counted from the group's start.
pub(super) fn within(range: &Range<u64>, start: u64, len: u64) -> Range<u64> {
    let from = range.start.max(start).saturating_sub(start).min(len);
    let to = range.end.max(start).saturating_sub(start).min(len);
    from..to
}

impl View<'_> {
    /// The block bitmap of `group`.
    ///
    /// # Errors
    /// When its checksum is wrong.
    pub(super) fn block_bitmap(&self, group: &Group) -> Result<Vec<u8>> {
        if group.has(&self.sb, BLOCK_UNINIT) {
            return Ok(self.fresh_block_bitmap(group));
        }
        let bytes = self.block(group.block_bitmap())?.to_vec();
        if self.sb.has_csum() && !group.csum_is(group.block_bitmap_csum(), self.block_bitmap_sum(&bytes)) {
            return Err(self.bad_checksum(group.block_bitmap(), &format!("the block bitmap of group {}", group.number)));
        }
        Ok(bytes)
    }

    /// The bitmap of a group in which only its own metadata is in use.
    fn fresh_block_bitmap(&self, group: &Group) -> Vec<u8> {
        let mut bytes = vec![0; self.sb.block_len()];
        let (start, len) = (self.sb.group_start(group.number), self.sb.group_len(group.number));
        let end = u64::from(u32::try_from(bytes.len()).unwrap_or(0)).saturating_mul(8);
        fill(&mut bytes, len..end, true);
        fill(&mut bytes, within(&base_blocks(&self.sb, group.number), start, len), true);
        for range in group.own_blocks(&self.sb) {
            fill(&mut bytes, within(&range, start, len), true);
        }
        bytes
    }

    fn block_bitmap_sum(&self, bytes: &[u8]) -> u32 {
        let covered = size(self.sb.blocks_per_group.get() / 8);
        crc32c(self.sb.seed, bytes.get(..covered).unwrap_or_default())
    }

    /// Stores the block bitmap of `group` and `group` itself.
    pub(super) fn put_block_bitmap(&mut self, group: &mut Group, bytes: Vec<u8>) -> Result<()> {
        if self.sb.has_csum() {
            group.set_block_bitmap_csum(self.block_bitmap_sum(&bytes));
        }
        group.clear(if self.sb.has_group_csum() { BLOCK_UNINIT } else { 0 });
        self.put(group.block_bitmap(), bytes);
        self.put_group(group)
    }

    /// The inode bitmap of `group`.
    ///
    /// # Errors
    /// When its checksum is wrong.
    pub(super) fn inode_bitmap(&self, group: &Group) -> Result<Vec<u8>> {
        let inodes = u64::from(self.sb.inodes_per_group.get());
        if group.has(&self.sb, INODE_UNINIT) {
            let mut bytes = vec![0xff; self.sb.block_len()];
            fill(&mut bytes, 0..inodes, false);
            return Ok(bytes);
        }
        let bytes = self.block(group.inode_bitmap())?.to_vec();
        if self.sb.has_csum() && !group.csum_is(group.inode_bitmap_csum(), self.inode_bitmap_sum(&bytes)) {
            return Err(self.bad_checksum(group.inode_bitmap(), &format!("the inode bitmap of group {}", group.number)));
        }
        Ok(bytes)
    }

    fn inode_bitmap_sum(&self, bytes: &[u8]) -> u32 {
        let covered = size(u64::from(self.sb.inodes_per_group.get() / 8));
        crc32c(self.sb.seed, bytes.get(..covered).unwrap_or_default())
    }

    fn put_inode_bitmap(&mut self, group: &mut Group, bytes: Vec<u8>) -> Result<()> {
        if self.sb.has_csum() {
            group.set_inode_bitmap_csum(self.inode_bitmap_sum(&bytes));
        }
        group.clear(if self.sb.has_group_csum() { INODE_UNINIT } else { 0 });
        self.put(group.inode_bitmap(), bytes);
        self.put_group(group)
    }

    /// The group of inode `number`.
    pub(super) fn group_of_node(&self, number: u32) -> u32 {
        number.saturating_sub(1) / self.sb.inodes_per_group
    }

    /// Takes a free inode, near `parent`.
    pub(super) fn allocate_inode(&mut self, parent: u32, is_dir: bool) -> Result<u32> {
        let first = self.group_of_node(parent);
        for offset in 0..self.sb.groups {
            let number = first.wrapping_add(offset).checked_rem(self.sb.groups).unwrap_or(0);
            let Some(mut group) = believed(self.group(number))? else { continue };
            if group.free_inodes() == 0 {
                continue;
            }
            let Some(mut bytes) = believed(self.inode_bitmap(&group))? else { continue };
            let reserved = if number == 0 { u64::from(self.sb.first_inode()).saturating_sub(1) } else { 0 };
            let inodes = u64::from(self.sb.inodes_per_group.get());
            let Some(free) = ClearRuns::new(&bytes, reserved, inodes).next() else { continue };
            fill(&mut bytes, free.start..free.start.saturating_add(1), true);
            // As the kernel does: a group whose inodes are in use has a block bitmap.
            if group.has(&self.sb, BLOCK_UNINIT) {
                let blocks = self.fresh_block_bitmap(&group);
                self.put_block_bitmap(&mut group, blocks)?;
            }
            group.set_free_inodes(group.free_inodes().saturating_sub(1));
            if is_dir {
                group.set_used_dirs(group.used_dirs().saturating_add(1));
            }
            if self.sb.has_group_csum() {
                let used = u32::try_from(free.start).unwrap_or(0).saturating_add(1);
                let unused = self.sb.inodes_per_group.get().saturating_sub(used);
                let before = if group.has(&self.sb, INODE_UNINIT) { u32::MAX } else { group.itable_unused() };
                group.set_itable_unused(before.min(unused));
            }
            self.put_inode_bitmap(&mut group, bytes)?;
            let left = self.sb.free_inodes().saturating_sub(1);
            self.edit_sb().set_free_inodes(left);
            let base = number.saturating_mul(self.sb.inodes_per_group.get());
            return Ok(base.saturating_add(u32::try_from(free.start).unwrap_or(0)).saturating_add(1));
        }
        Err(super::full("no inode is free"))
    }

    /// Gives inode `number` back.
    pub(super) fn release_inode(&mut self, number: u32, is_dir: bool) -> Result<()> {
        let mut group = self.group(self.group_of_node(number))?;
        let mut bytes = self.inode_bitmap(&group)?;
        let bit = u64::from(number.saturating_sub(1) % self.sb.inodes_per_group);
        if !is_set(&bytes, bit) || number < self.sb.first_inode() {
            return Err(corrupt(format!("inode {number} cannot be freed")));
        }
        fill(&mut bytes, bit..bit.saturating_add(1), false);
        group.set_free_inodes(group.free_inodes().saturating_add(1));
        if is_dir {
            group.set_used_dirs(group.used_dirs().saturating_sub(1));
        }
        self.put_inode_bitmap(&mut group, bytes)?;
        let left = self.sb.free_inodes().saturating_add(1);
        self.edit_sb().set_free_inodes(left);
        Ok(())
    }

    /// Metadata of all groups as sorted, disjoint ranges: what no bitmap may call free.
    ///
    /// # Errors
    /// When a descriptor cannot be believed and `strict`; else its group is left out.
    pub(super) fn metadata(&self, strict: bool) -> Result<Vec<Range<u64>>> {
        let mut ranges = Vec::new();
        for number in 0..self.sb.groups {
            ranges.push(base_blocks(&self.sb, number));
            let group = if strict { Some(self.group(number)?) } else { believed(self.group(number))? };
            ranges.extend(group.iter().flat_map(|group| group.own_blocks(&self.sb)));
        }
        Ok(merged(ranges))
    }
}

/// The same blocks as sorted ranges that are apart and not empty.
pub(super) fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn clear_runs_agree_with_single_bits(bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(0xff), any::<u8>()], 0..12), from in 0_u64..100, len in 0_u64..100) {
            let runs: Vec<u64> = ClearRuns::new(&bytes, from, len).flatten().collect();
            let bits: Vec<u64> = (from..len).filter(|bit| !is_set(&bytes, *bit)).collect();
            prop_assert_eq!(runs, bits);
        }
    }

    #[test]
    fn ranges_are_cut_to_a_group() {
        assert_eq!(within(&(5..15), 10, 20), 0..5);
        assert_eq!(within(&(0..5), 10, 20), 0..0);
        assert_eq!(within(&(25..99), 10, 20), 15..20);
        assert_eq!(within(&(40..99), 10, 20), 20..20);
    }
}
