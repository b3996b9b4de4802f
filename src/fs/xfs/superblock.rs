//! The superblock ("XFS Algorithms & Data Structures", Superblocks): geometry that cannot be wrong later, and counters.

use super::block;
use super::features::*;
use super::{corrupt, unsupported};
use crate::disk::bytes::{array, be16, be32, be64, long, put, put_be64, size, text, u8_at, uuid};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::fs::FsFacts;
use crate::limits;

pub(super) const MAGIC: u32 = 0x5846_5342;

/// Bytes of the log's largest stripe unit.
const MAX_LOG_UNIT: u32 = 256 << 10;

/// Flags in `sb_qflags` that say that a quota's counts were checked: user, old group or project, group, project.
const QUOTA_CHECKED: u16 = 0x4 | 0x20 | 0x100 | 0x400;

/// A superblock whose geometry is sound.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    /// The whole sector.
    raw: Vec<u8>,
    pub(super) features: Features,
    /// log2 of the block size in bytes: 9 to 16.
    pub(super) blocklog: u32,
    /// log2 of the sector size in bytes: 9 to 15.
    pub(super) sectlog: u32,
    /// log2 of the inode size in bytes: 8 to 11, less than the block size.
    pub(super) inodelog: u32,
    /// log2 of the inodes in a block.
    pub(super) inopblog: u32,
    /// log2 of the blocks of an allocation group, rounded up.
    pub(super) agblklog: u32,
    /// log2 of the blocks in a directory block.
    pub(super) dirblklog: u32,
    /// All blocks.
    pub(super) dblocks: u64,
    /// Blocks of an allocation group; the last may have less.
    pub(super) agblocks: u32,
    /// Allocation groups.
    pub(super) agcount: u32,
    /// What all v5 metadata carries.
    pub(super) meta_uuid: [u8; 16],
}

impl Superblock {
    /// Reads the first superblock of a volume.
    pub(super) fn read(volume: &dyn Disk) -> Result<Self> {
        if volume.len() < 512 {
            return Err(corrupt("too short for an XFS file system").found(volume.len()));
        }
        let head = read_vec(volume, 0, 512)?;
        if be32(&head, 0) != MAGIC {
            return Err(corrupt("not an XFS file system").offset(0));
        }
        let len = match u64::from(be16(&head, 102)) {
            len @ 512..=32768 if len.is_power_of_two() && len <= volume.len() => len,
            other => return Err(geometry("sb_sectsize", other)),
        };
        Self::parse(read_vec(volume, 0, size(len))?, volume.len())
    }

    /// Parses the sector `raw`, which was read from a volume of `volume_len` bytes.
    pub(super) fn parse(raw: Vec<u8>, volume_len: u64) -> Result<Self> {
        let features = features(&raw)?;
        if features.has_crc() && !block::crc_is_right(&raw, block::SUPERBLOCK_CRC) {
            return Err(Error::corrupt("xfs.checksum", "the superblock's checksum is wrong").offset(0));
        }
        let log = |at: usize, of: u64, low: u32, high: u32, field| {
            let log = u32::from(u8_at(&raw, at));
            let right = (low..=high).contains(&log) && 1_u64.checked_shl(log) == Some(of);
            if right { Ok(log) } else { Err(geometry(field, u64::from(log))) }
        };
        let blocklog = log(120, u64::from(be32(&raw, 4)), 9, 16, "sb_blocklog")?;
        let sectlog = log(121, u64::from(be16(&raw, 102)), 9, 15, "sb_sectlog")?;
        let inodelog = log(122, u64::from(be16(&raw, 104)), 8, 11, "sb_inodelog")?;
        let inopblog = log(123, u64::from(be16(&raw, 106)), 0, 8, "sb_inopblog")?;
        if inodelog.checked_add(inopblog) != Some(blocklog)
            || (features.has_crc() && inodelog < 9)
            || sectlog > blocklog
            || long(raw.len()) != u64::from(be16(&raw, 102))
        {
            return Err(geometry("sb_inodelog", u64::from(inodelog)));
        }
        let dirblklog = u32::from(u8_at(&raw, 192));
        if dirblklog.saturating_add(blocklog) > 16 {
            return Err(geometry("sb_dirblklog", u64::from(dirblklog)));
        }
        let (dblocks, agblocks, agcount) = (be64(&raw, 8), be32(&raw, 84), be32(&raw, 88));
        let agblklog = u32::from(u8_at(&raw, 124));
        if agblocks < 64 || agblklog > 31 || u64::from(agblocks).next_power_of_two() != 1_u64.wrapping_shl(agblklog) {
            return Err(geometry("sb_agblocks", u64::from(agblocks)));
        }
        if dblocks.checked_shl(blocklog).is_none_or(|len| len > volume_len || len.wrapping_shr(blocklog) != dblocks) {
            return Err(
                geometry("sb_dblocks", dblocks).expected(format!("at most the {volume_len} bytes that the volume has"))
            );
        }
        if u64::from(agcount) != dblocks.div_ceil(u64::from(agblocks).max(1)) || agcount == 0 {
            return Err(geometry("sb_agcount", u64::from(agcount)));
        }
        if agcount > limits::MAX_XFS_GROUPS {
            return Err(Error::limit("xfs.limit", format!("the file system has {agcount} allocation groups"))
                .expected(format!("at most {}", limits::MAX_XFS_GROUPS)));
        }
        let at = if features.has_crc() && features.incompat & INCOMPAT_META_UUID != 0 { 248 } else { 32 };
        let meta_uuid = array(&raw, at);
        Ok(Self {
            raw,
            features,
            blocklog,
            sectlog,
            inodelog,
            inopblog,
            agblklog,
            dirblklog,
            dblocks,
            agblocks,
            agcount,
            meta_uuid,
        })
    }

    /// What `fs` tells of it. `free` is in blocks.
    pub(super) fn facts(&self, dirty: bool, free: u64) -> FsFacts {
        FsFacts {
            kind: "xfs",
            uuid: uuid(&self.raw, 32),
            label: text(&array::<12>(&self.raw, 108)),
            block_size: self.block_size(),
            size: self.bytes(self.dblocks),
            free: Some(self.bytes(free.min(self.dblocks))),
            dirty,
            features: self.features.names(),
        }
    }

    /// Bytes of a block.
    pub(super) fn block_size(&self) -> u64 {
        1_u64.wrapping_shl(self.blocklog)
    }

    /// The same as a length in memory.
    pub(super) fn block_len(&self) -> usize {
        1_usize.wrapping_shl(self.blocklog)
    }

    /// Bytes of a sector as a length in memory.
    pub(super) fn sector_len(&self) -> usize {
        1_usize.wrapping_shl(self.sectlog)
    }

    /// Bytes of an inode as a length in memory.
    pub(super) fn inode_len(&self) -> usize {
        1_usize.wrapping_shl(self.inodelog)
    }

    /// Bytes of a directory block as a length in memory.
    pub(super) fn dir_block_len(&self) -> usize {
        self.block_len().wrapping_shl(self.dirblklog)
    }

    /// Bytes of `blocks`, of which there are no more than on the volume.
    pub(super) fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(self.block_size())
    }

    /// What no replay may change under a driver's feet.
    pub(super) fn geometry(&self) -> (u64, [u32; 8], Option<(u64, u32)>) {
        let logs = [self.blocklog, self.sectlog, self.inodelog, self.inopblog, self.agblklog, self.dirblklog];
        let [a, b, c, d, e, f] = logs;
        (self.dblocks, [a, b, c, d, e, f, self.agblocks, self.agcount], self.log())
    }

    pub(super) fn has_crc(&self) -> bool {
        self.features.has_crc()
    }

    pub(super) fn root(&self) -> u64 {
        be64(&self.raw, 56)
    }

    pub(super) fn uuid(&self) -> [u8; 16] {
        array(&self.raw, 32)
    }

    /// The log's first block and its length in blocks; none on this volume with an external log.
    pub(super) fn log(&self) -> Option<(u64, u32)> {
        let start = be64(&self.raw, 48);
        (start != 0).then(|| (start, be32(&self.raw, 96)))
    }

    /// Bytes that every record of the log begins at a multiple of: the log's stripe unit, or a sector.
    pub(super) fn log_unit(&self) -> u32 {
        let sector = match u32::from(be16(&self.raw, 194)) {
            sector @ 512..=32768 if sector.is_power_of_two() => sector,
            _ => 512,
        };
        match be32(&self.raw, 196) {
            unit @ 1024..=MAX_LOG_UNIT if unit.is_multiple_of(sector) => unit,
            _ => sector,
        }
    }

    /// Blocks that inode clusters are aligned to.
    pub(super) fn inoalignmt(&self) -> u32 {
        be32(&self.raw, 180)
    }

    /// Blocks of a part of a chunk of inodes, which are aligned to as many; 0 if chunks are whole.
    pub(super) fn spino_align(&self) -> u32 {
        if self.features.has_sparse_inodes() { be32(&self.raw, 228) } else { 0 }
    }

    pub(super) fn is_in_progress(&self) -> bool {
        u8_at(&self.raw, 126) != 0
    }

    pub(super) fn needs_repair(&self) -> bool {
        self.has_crc() && self.features.incompat & INCOMPAT_NEEDSREPAIR != 0
    }

    pub(super) fn free_blocks(&self) -> u64 {
        be64(&self.raw, 144)
    }

    /// The sector, its counters and checksum brought up to date. Quotas are to be counted anew if `recount_quotas`.
    pub(super) fn settled(&self, counts: Option<Counts>, recount_quotas: bool) -> Vec<u8> {
        let mut raw = self.raw.clone();
        if let Some(counts) = counts {
            put_be64(&mut raw, 128, counts.icount);
            put_be64(&mut raw, 136, counts.ifree);
            put_be64(&mut raw, 144, counts.fdblocks);
        }
        if recount_quotas && self.features.version & VERSION_QUOTA != 0 {
            put(&mut raw, 176, &(be16(&self.raw, 176) & !QUOTA_CHECKED).to_be_bytes());
        }
        if self.has_crc() {
            block::seal(&mut raw, block::SUPERBLOCK_CRC);
        }
        raw
    }

    /// Adds to the counter of free blocks.
    pub(super) fn count_free(&mut self, delta: i64) {
        self.add(144, delta);
    }

    /// Adds to the counters of inodes, and of free ones.
    pub(super) fn count_inodes(&mut self, all: i64, free: i64) {
        self.add(128, all);
        self.add(136, free);
    }

    /// Notes in version 4 that there are extended attributes.
    pub(super) fn note_attributes(&mut self) {
        self.features.version |= VERSION_ATTR;
        put(&mut self.raw, 100, &self.features.version.to_be_bytes());
    }

    fn add(&mut self, at: usize, delta: i64) {
        let value = be64(&self.raw, at).saturating_add_signed(delta);
        put_be64(&mut self.raw, at, value);
    }

    /// Notes that quotas are to be counted anew.
    pub(super) fn forget_quotas(&mut self) {
        if self.features.version & VERSION_QUOTA != 0 {
            let flags = be16(&self.raw, 176) & !QUOTA_CHECKED;
            put(&mut self.raw, 176, &flags.to_be_bytes());
        }
    }

    /// The sector with its checksum.
    pub(super) fn sealed(&self) -> Vec<u8> {
        let mut raw = self.raw.clone();
        if self.has_crc() {
            block::seal(&mut raw, block::SUPERBLOCK_CRC);
        }
        raw
    }

    /// Blocks in allocation group `agno`.
    pub(super) fn ag_len(&self, agno: u32) -> u32 {
        let start = u64::from(agno).saturating_mul(u64::from(self.agblocks));
        let left = self.dblocks.saturating_sub(start).min(u64::from(self.agblocks));
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// The allocation group of block `fsbno`, and the block's number in it; none if there is no such block.
    pub(super) fn ag_of(&self, fsbno: u64) -> Option<(u32, u32)> {
        let agno = u32::try_from(fsbno.wrapping_shr(self.agblklog)).ok().filter(|agno| *agno < self.agcount)?;
        let mask = 1_u64.wrapping_shl(self.agblklog).wrapping_sub(1);
        let agbno = u32::try_from(fsbno & mask).ok()?;
        (agbno < self.ag_len(agno)).then_some((agno, agbno))
    }

    /// Where block `agbno` of allocation group `agno` starts, in bytes.
    pub(super) fn place(&self, agno: u32, agbno: u32) -> u64 {
        let block = u64::from(agno).saturating_mul(u64::from(self.agblocks)).saturating_add(u64::from(agbno));
        self.bytes(block)
    }

    /// Where the `count` blocks from `fsbno` start, in bytes; an error if they are not all in one allocation group.
    pub(super) fn run(&self, fsbno: u64, count: u64) -> Result<u64> {
        let end = |(agno, agbno): (u32, u32)| {
            let end = u64::from(agbno).checked_add(count)?;
            (end <= u64::from(self.ag_len(agno))).then(|| self.place(agno, agbno))
        };
        self.ag_of(fsbno)
            .and_then(end)
            .ok_or_else(|| corrupt(format!("{count} blocks at {fsbno:#x} lie outside of the file system")))
    }

    /// Where inode `number` lies: its block and the byte in it.
    pub(super) fn inode_place(&self, number: u64) -> Option<(u64, usize)> {
        let (agno, agbno) = self.ag_of(number.wrapping_shr(self.inopblog))?;
        let mask = 1_u64.wrapping_shl(self.inopblog).wrapping_sub(1);
        let at = size(number & mask).wrapping_shl(self.inodelog);
        Some((self.place(agno, agbno), at))
    }
}

/// What a superblock counts, taken from the allocation groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) icount: u64,
    pub(super) ifree: u64,
    pub(super) fdblocks: u64,
}

/// Gives `raw`, a superblock's sector, the LSN `lsn` and its checksum.
pub(super) fn stamp(raw: &mut [u8], lsn: u64) {
    put_be64(raw, 240, lsn);
    block::seal(raw, block::SUPERBLOCK_CRC);
}

fn features(raw: &[u8]) -> Result<Features> {
    if be32(raw, 0) != MAGIC {
        return Err(corrupt("not an XFS file system").offset(0));
    }
    let features = Features {
        version: be16(raw, 100),
        features2: be32(raw, 200) | be32(raw, 204),
        ro_compat: be32(raw, 212),
        incompat: be32(raw, 216),
        log_incompat: be32(raw, 220),
    };
    match features.version & VERSION_NUMBITS {
        4 | 5 => {}
        other => return Err(unsupported(format!("version {other} of XFS")).expected("version 4 or 5")),
    }
    if !features.has_crc() && features.version & VERSION_DIRV2 == 0 {
        return Err(unsupported("the file system has directories of version 1"));
    }
    let missing = features.unreadable();
    if missing.is_empty() {
        Ok(features)
    } else {
        Err(unsupported(format!("the file system has features that cannot be read: {}", missing.join(" "))))
    }
}

fn geometry(field: &str, found: u64) -> Error {
    Error::corrupt("xfs.geometry", format!("the superblock's {field} is impossible")).offset(0).found(found)
}
