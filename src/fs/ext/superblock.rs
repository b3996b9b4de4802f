//! The superblock (kernel documentation, ext4, "Super Block"): geometry that cannot be wrong later, counters and their checksum.

use std::num::{NonZeroU32, NonZeroU64};

use super::checksum::crc32c;
use super::features::{self, *};
use super::{corrupt, unsupported};
use crate::disk::bytes::{array, le16, le32, put16, put32, size, text, u8_at, uuid};
use crate::error::{Error, Result};
use crate::fs::FsFacts;
use crate::limits;

/// Where it starts on the volume, and its length.
pub(super) const OFFSET: u64 = 1024;
pub(super) const LEN: usize = 1024;

const MAGIC: u16 = 0xef53;
const CRC32C: u8 = 1;
const STATE_VALID: u16 = 1;
const STATE_ERRORS: u16 = 2;

/// A superblock whose geometry is sound.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    raw: Vec<u8>,
    /// Bytes; a power of two from 1 KiB to 64 KiB.
    pub(super) block_size: NonZeroU64,
    /// Blocks of the file system, block 0 included.
    pub(super) blocks_count: u64,
    /// The first block of group 0: 1 with blocks of 1 KiB, else 0.
    pub(super) first_data_block: u64,
    /// At most eight times the block size.
    pub(super) blocks_per_group: NonZeroU64,
    /// At most eight times the block size.
    pub(super) inodes_per_group: NonZeroU32,
    /// All inodes.
    pub(super) inodes_count: u32,
    /// Bytes; a power of two from 128 to the block size.
    pub(super) inode_size: usize,
    /// Bytes; 32, or a power of two from 64.
    pub(super) desc_size: usize,
    /// Block groups.
    pub(super) groups: u32,
    /// What all checksums start from.
    pub(super) seed: u32,
}

impl Superblock {
    /// Parses `raw`, which was read from a volume of `volume_len` bytes.
    pub(super) fn parse(raw: &[u8], volume_len: u64) -> Result<Self> {
        if raw.len() != LEN || le16(raw, 0x38) != MAGIC {
            return Err(corrupt("not an ext file system").offset(OFFSET.saturating_add(0x38)));
        }
        let missing = features::unreadable(le32(raw, 0x60));
        if !missing.is_empty() {
            return Err(unsupported(format!(
                "the file system has features that cannot be read: {}",
                missing.join(" ")
            )));
        }
        let has_csum = le32(raw, 0x64) & RO_COMPAT_METADATA_CSUM != 0;
        if has_csum && (u8_at(raw, 0x175) != CRC32C || le32(raw, 0x3fc) != checksum(raw)) {
            return Err(Error::corrupt("ext.checksum", "the superblock's checksum is wrong").offset(OFFSET));
        }
        let wide = le32(raw, 0x60) & INCOMPAT_64BIT != 0;
        let block_size = match le32(raw, 0x18) {
            log @ 0..=6 => 1024_u64.wrapping_shl(log),
            other => return Err(geometry("s_log_block_size", u64::from(other))),
        };
        let per_block = block_size.saturating_mul(8);
        let blocks_per_group = u64::from(le32(raw, 0x20));
        let inodes_per_group = u64::from(le32(raw, 0x28));
        let blocks_count = u64::from(le32(raw, 0x4)) | if wide { u64::from(le32(raw, 0x150)) << 32 } else { 0 };
        let first_data_block = u64::from(le32(raw, 0x14));
        let inode_size = if le32(raw, 0x4c) == 0 { 128 } else { u64::from(le16(raw, 0x58)) };
        let desc_size = if wide { u64::from(le16(raw, 0xfe)) } else { 32 };
        // With bigalloc, a bitmap's bit is a cluster.
        let cluster = if le32(raw, 0x64) & RO_COMPAT_BIGALLOC == 0 {
            1
        } else {
            1_u64.checked_shl(le32(raw, 0x1c).saturating_sub(le32(raw, 0x18))).unwrap_or(0)
        };
        let Some(bpg) =
            NonZeroU64::new(blocks_per_group).filter(|_| blocks_per_group <= per_block.saturating_mul(cluster))
        else {
            return Err(geometry("s_blocks_per_group", blocks_per_group));
        };
        let Some(ipg) = NonZeroU32::new(le32(raw, 0x28)).filter(|_| inodes_per_group <= per_block) else {
            return Err(geometry("s_inodes_per_group", inodes_per_group));
        };
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size > block_size {
            return Err(geometry("s_inode_size", inode_size));
        }
        if wide && (!desc_size.is_power_of_two() || !(64..=1024).contains(&desc_size)) {
            return Err(geometry("s_desc_size", desc_size));
        }
        if first_data_block > 1 || (first_data_block == 1 && block_size != 1024) || first_data_block >= blocks_count {
            return Err(geometry("s_first_data_block", first_data_block));
        }
        let groups = blocks_count.saturating_sub(first_data_block).div_ceil(bpg.get());
        if blocks_count.checked_mul(block_size).is_none_or(|len| len > volume_len) {
            return Err(geometry("s_blocks_count", blocks_count)
                .expected(format!("at most {} bytes, which the volume has", volume_len)));
        }
        let groups = match u32::try_from(groups) {
            Ok(count) if groups <= limits::MAX_EXT_GROUPS => count,
            _ => {
                return Err(Error::limit("ext.limit", format!("the file system has {groups} block groups"))
                    .expected(format!("at most {}", limits::MAX_EXT_GROUPS)));
            }
        };
        let inodes_count = le32(raw, 0x0);
        if u64::from(inodes_count) != u64::from(groups).saturating_mul(inodes_per_group) {
            return Err(geometry("s_inodes_count", u64::from(inodes_count)));
        }
        let seed = if le32(raw, 0x60) & INCOMPAT_CSUM_SEED != 0 {
            le32(raw, 0x270)
        } else {
            crc32c(!0, &array::<16>(raw, 0x68))
        };
        Ok(Self {
            raw: raw.to_vec(),
            block_size: NonZeroU64::new(block_size).unwrap_or(NonZeroU64::MIN),
            blocks_count,
            first_data_block,
            blocks_per_group: bpg,
            inodes_per_group: ipg,
            inodes_count,
            inode_size: size(inode_size),
            desc_size: size(desc_size),
            groups,
            seed,
        })
    }

    /// What `fs` tells of it.
    pub(super) fn facts(&self, dirty: bool) -> FsFacts {
        let later = self.incompat() & !0x16 != 0 || self.ro_compat() & !0x7 != 0;
        let kind = match (later, self.has_journal()) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        };
        FsFacts {
            kind,
            uuid: uuid(&self.raw, 0x68),
            label: text(&array::<16>(&self.raw, 0x78)),
            block_size: self.block_size.get(),
            size: self.blocks_count.saturating_mul(self.block_size.get()),
            free: Some(self.free_blocks().saturating_mul(self.block_size.get())),
            dirty,
            features: features::names(self.compat(), self.incompat(), self.ro_compat()),
        }
    }

    /// The block that holds it.
    pub(super) fn block(&self) -> u64 {
        OFFSET / self.block_size
    }

    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The block size as a length in memory.
    pub(super) fn block_len(&self) -> usize {
        size(self.block_size.get())
    }

    pub(super) fn compat(&self) -> u32 {
        le32(&self.raw, 0x5c)
    }

    pub(super) fn incompat(&self) -> u32 {
        le32(&self.raw, 0x60)
    }

    pub(super) fn ro_compat(&self) -> u32 {
        le32(&self.raw, 0x64)
    }

    pub(super) fn has_csum(&self) -> bool {
        self.ro_compat() & RO_COMPAT_METADATA_CSUM != 0
    }

    /// Whether group descriptors carry a checksum, and with it the UNINIT flags a meaning.
    pub(super) fn has_group_csum(&self) -> bool {
        self.ro_compat() & (RO_COMPAT_METADATA_CSUM | RO_COMPAT_GDT_CSUM) != 0
    }

    pub(super) fn has_journal(&self) -> bool {
        self.compat() & COMPAT_HAS_JOURNAL != 0
    }

    pub(super) fn is_bigalloc(&self) -> bool {
        self.ro_compat() & RO_COMPAT_BIGALLOC != 0
    }

    pub(super) fn needs_recovery(&self) -> bool {
        self.incompat() & INCOMPAT_RECOVER != 0
    }

    /// Whether the allocation state can be believed: unmounted or journalled, and no error was ever noted.
    pub(super) fn is_sound(&self) -> bool {
        let state = le16(&self.raw, 0x3a);
        state & STATE_ERRORS == 0 && (self.has_journal() || state & STATE_VALID != 0)
    }

    pub(super) fn journal_inode(&self) -> u32 {
        le32(&self.raw, 0xe0)
    }

    pub(super) fn uuid_bytes(&self) -> [u8; 16] {
        array(&self.raw, 0x68)
    }

    /// Where the space for metadata checksums of a block is reckoned from.
    pub(super) fn hash_seed(&self) -> [u32; 4] {
        [0xec, 0xf0, 0xf4, 0xf8].map(|at| le32(&self.raw, at))
    }

    /// Whether the directory hashes treat characters as unsigned.
    pub(super) fn hash_is_unsigned(&self) -> bool {
        le32(&self.raw, 0x160) & 2 != 0
    }

    pub(super) fn first_meta_bg(&self) -> u32 {
        le32(&self.raw, 0x104)
    }

    pub(super) fn reserved_gdt_blocks(&self) -> u64 {
        u64::from(le16(&self.raw, 0xce))
    }

    /// The two groups that hold backups with sparse_super2.
    pub(super) fn backup_groups(&self) -> [u32; 2] {
        [le32(&self.raw, 0x24c), le32(&self.raw, 0x250)]
    }

    pub(super) fn first_inode(&self) -> u32 {
        if le32(&self.raw, 0x4c) == 0 { 11 } else { le32(&self.raw, 0x54).max(11) }
    }

    /// Bytes of an inode beyond 128 that new inodes use.
    pub(super) fn want_extra_isize(&self) -> u16 {
        let room = u16::try_from(self.inode_size.saturating_sub(128)).unwrap_or(u16::MAX);
        let wanted = le16(&self.raw, 0x15c).max(le16(&self.raw, 0x15e)).max(32) & !3;
        wanted.min(room)
    }

    pub(super) fn last_orphan(&self) -> u32 {
        le32(&self.raw, 0xe8)
    }

    pub(super) fn orphan_file(&self) -> Option<u32> {
        let present = self.compat() & COMPAT_ORPHAN_FILE != 0 && self.ro_compat() & RO_COMPAT_ORPHAN_PRESENT != 0;
        present.then(|| le32(&self.raw, 0x280))
    }

    /// When it was last written, in seconds since the epoch.
    pub(super) fn wtime(&self) -> u32 {
        le32(&self.raw, 0x30)
    }

    pub(super) fn free_blocks(&self) -> u64 {
        let high = if self.incompat() & INCOMPAT_64BIT != 0 { u64::from(le32(&self.raw, 0x158)) << 32 } else { 0 };
        u64::from(le32(&self.raw, 0xc)) | high
    }

    /// Blocks kept for the superuser.
    pub(super) fn reserved_blocks(&self) -> u64 {
        let high = if self.incompat() & INCOMPAT_64BIT != 0 { u64::from(le32(&self.raw, 0x154)) << 32 } else { 0 };
        u64::from(le32(&self.raw, 0x8)) | high
    }

    pub(super) fn free_inodes(&self) -> u32 {
        le32(&self.raw, 0x10)
    }

    pub(super) fn set_free_blocks(&mut self, count: u64) {
        let [a, b, c, d, high @ ..] = count.to_le_bytes();
        put32(&mut self.raw, 0xc, u32::from_le_bytes([a, b, c, d]));
        if self.incompat() & INCOMPAT_64BIT != 0 {
            put32(&mut self.raw, 0x158, u32::from_le_bytes(high));
        }
    }

    pub(super) fn set_free_inodes(&mut self, count: u32) {
        put32(&mut self.raw, 0x10, count);
    }

    pub(super) fn set_last_orphan(&mut self, inode: u32) {
        put32(&mut self.raw, 0xe8, inode);
    }

    pub(super) fn set_recovered(&mut self) {
        let incompat = self.incompat() & !INCOMPAT_RECOVER;
        put32(&mut self.raw, 0x60, incompat);
    }

    /// Notes that an error was recorded in the journal.
    pub(super) fn set_errors(&mut self) {
        let state = le16(&self.raw, 0x3a) | STATE_ERRORS;
        put16(&mut self.raw, 0x3a, state);
    }

    pub(super) fn add_compat(&mut self, bit: u32) {
        let compat = self.compat() | bit;
        put32(&mut self.raw, 0x5c, compat);
    }

    pub(super) fn add_ro_compat(&mut self, bit: u32) {
        let ro_compat = self.ro_compat() | bit;
        put32(&mut self.raw, 0x64, ro_compat);
    }

    pub(super) fn clear_ro_compat(&mut self, bit: u32) {
        let ro_compat = self.ro_compat() & !bit;
        put32(&mut self.raw, 0x64, ro_compat);
    }

    /// Brings the checksum up to date.
    pub(super) fn seal(&mut self) {
        if self.has_csum() {
            let sum = checksum(&self.raw);
            put32(&mut self.raw, 0x3fc, sum);
        }
    }

    /// Whether `group` holds a copy of the superblock and the group descriptors.
    pub(super) fn group_has_super(&self, group: u32) -> bool {
        if group == 0 {
            return true;
        }
        if self.compat() & COMPAT_SPARSE_SUPER2 != 0 {
            return self.backup_groups().contains(&group);
        }
        group == 1
            || self.ro_compat() & RO_COMPAT_SPARSE_SUPER == 0
            || [3, 5, 7].into_iter().any(|base| is_power(group, base))
    }

    /// The first block of `group`.
    pub(super) fn group_start(&self, group: u32) -> u64 {
        u64::from(group).saturating_mul(self.blocks_per_group.get()).saturating_add(self.first_data_block)
    }

    /// Blocks in `group`; the last one may be shorter.
    pub(super) fn group_len(&self, group: u32) -> u64 {
        self.blocks_count.saturating_sub(self.group_start(group)).min(self.blocks_per_group.get())
    }

    /// The group of `block`, and the block's number in it.
    pub(super) fn group_of(&self, block: u64) -> (u32, u64) {
        let relative = block.saturating_sub(self.first_data_block);
        let group = u32::try_from(relative / self.blocks_per_group).unwrap_or(u32::MAX);
        (group, relative % self.blocks_per_group)
    }

    /// Group descriptors in one block.
    pub(super) fn descs_per_block(&self) -> NonZeroU32 {
        let count = self.block_len().checked_div(self.desc_size).and_then(|count| u32::try_from(count).ok());
        count.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
    }

    /// Whether the `len` blocks from `start` are blocks of this file system that can hold something.
    pub(super) fn contains(&self, start: u64, len: u64) -> bool {
        start > 0
            && start >= self.first_data_block
            && start.checked_add(len).is_some_and(|end| end <= self.blocks_count)
    }
}

fn is_power(mut number: u32, base: u32) -> bool {
    while number > 1 && number.checked_rem(base) == Some(0) {
        number = number.checked_div(base).unwrap_or(0);
    }
    number == 1
}

fn checksum(raw: &[u8]) -> u32 {
    crc32c(!0, raw.get(..0x3fc).unwrap_or_default())
}

fn geometry(field: &str, found: u64) -> Error {
    Error::corrupt("ext.geometry", format!("the superblock's {field} is impossible")).offset(OFFSET).found(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_lie_in_powers_of_three_five_and_seven() {
        let groups: Vec<u32> =
            (2..130).filter(|group| [3, 5, 7].into_iter().any(|base| is_power(*group, base))).collect();
        assert_eq!(groups, [3, 5, 7, 9, 25, 27, 49, 81, 125]);
    }
}
