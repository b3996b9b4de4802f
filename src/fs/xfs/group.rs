//! Allocation groups ("Allocation Groups"): their headers, and the free space that can be proved from the tree by block.

use std::ops::{ControlFlow, Range};

use super::store::Block;
use super::superblock::{Counts, Superblock};
use super::view::View;
use super::{believed, block, corrupt};
use crate::disk::bytes::{be16, be32};
use crate::error::{Error, Result};
use crate::limits;

/// Sectors at the start of a group: superblock, AGF, AGI, AGFL.
const HEADERS: u64 = 4;
const NO_INODE: u32 = u32::MAX;
/// Set in the first block of a record of reference counts whose blocks are to become a copy.
const STAGING: u32 = 1 << 31;
/// Lists of unlinked inodes.
const UNLINKED: usize = 64;

/// The header of a group's free space.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agf {
    bno_root: u32,
    bno_level: u32,
    freeblks: u32,
    flcount: u32,
    btreeblks: u32,
    refcount_root: u32,
    refcount_level: u32,
}

/// The header of a group's inodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agi {
    count: u32,
    freecount: u32,
    /// Whether inodes wait there to be removed.
    pub(super) has_unlinked: bool,
}

/// What a visitor of free runs gets: first block and count.
type VisitRun<'a> = dyn FnMut(u32, u32) -> ControlFlow<()> + 'a;

/// A walk through a tree of free space.
struct Walk<'a> {
    agno: u32,
    len: u32,
    /// The first block that was not visited.
    next: u64,
    visit: &'a mut VisitRun<'a>,
}

impl View<'_> {
    /// The header of a group in its sector number `sector`, and its place.
    pub(super) fn header(&self, agno: u32, sector: u32, magic: u32) -> Result<(Block, u64)> {
        let len = self.sb.sector_len();
        let offset = self.sb.place(agno, 0).saturating_add(u64::from(sector).wrapping_shl(self.sb.sectlog));
        let bytes = self.metadata(offset, len, None)?;
        if be32(&bytes, 0) != magic || be32(&bytes, 8) != agno || be32(&bytes, 12) != self.sb.ag_len(agno) {
            return Err(damaged(agno, "a header is not its own").offset(offset));
        }
        Ok((bytes, offset))
    }

    pub(super) fn agf(&self, agno: u32) -> Result<Agf> {
        let (bytes, offset) = self.header(agno, 1, block::AGF)?;
        let agf = Agf {
            bno_root: be32(&bytes, 16),
            bno_level: be32(&bytes, 28),
            flcount: be32(&bytes, 48),
            freeblks: be32(&bytes, 52),
            btreeblks: be32(&bytes, 60),
            refcount_root: be32(&bytes, 88),
            refcount_level: be32(&bytes, 92),
        };
        let sum = u64::from(agf.freeblks).saturating_add(u64::from(agf.flcount));
        if sum > u64::from(self.sb.ag_len(agno)) || agf.btreeblks > self.sb.ag_len(agno) {
            return Err(damaged(agno, "it has more free blocks than blocks").offset(offset));
        }
        Ok(agf)
    }

    pub(super) fn agi(&self, agno: u32) -> Result<Agi> {
        let (bytes, offset) = self.header(agno, 2, block::AGI)?;
        let list = bytes.get(40..).and_then(|rest| rest.get(..UNLINKED.saturating_mul(4))).unwrap_or_default();
        let has_unlinked = list.as_chunks::<4>().0.iter().any(|head| u32::from_be_bytes(*head) != NO_INODE);
        let agi = Agi { count: be32(&bytes, 16), freecount: be32(&bytes, 28), has_unlinked };
        if agi.freecount > agi.count {
            return Err(damaged(agno, "it has more free inodes than inodes").offset(offset));
        }
        Ok(agi)
    }

    /// What the superblock counts, from all groups.
    pub(super) fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for agno in 0..self.sb.agcount {
            let (agf, agi) = (self.agf(agno)?, self.agi(agno)?);
            counts.icount = counts.icount.saturating_add(u64::from(agi.count));
            counts.ifree = counts.ifree.saturating_add(u64::from(agi.freecount));
            for blocks in [agf.freeblks, agf.flcount, agf.btreeblks] {
                counts.fdblocks = counts.fdblocks.saturating_add(u64::from(blocks));
            }
        }
        Ok(counts)
    }

    /// Whether the kernel has something to tidy up: inodes that were removed while they were open, or blocks for copies of
    /// shared ones that were never made.
    pub(super) fn has_leftovers(&self) -> Result<bool> {
        for agno in 0..self.sb.agcount {
            if self.agi(agno)?.has_unlinked || self.has_staging(agno)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the last record of a group's reference counts is one of blocks that are to become a copy: those sort last.
    fn has_staging(&self, agno: u32) -> Result<bool> {
        if !self.sb.features.has_reflink() {
            return Ok(false);
        }
        let agf = self.agf(agno)?;
        let mut agbno = agf.refcount_root;
        if agf.refcount_level == 0 || agf.refcount_level > u32::from(limits::MAX_XFS_LEVELS) {
            return Err(damaged(agno, "its reference counts have an impossible number of levels"));
        }
        for level in (0..agf.refcount_level).rev() {
            let bytes = self.group_block(agno, agbno)?;
            let area = bytes.get(56..).unwrap_or_default();
            let (count, max) =
                (usize::from(be16(&bytes, 6)), if level == 0 { area.len() / 12 } else { area.len() / 8 });
            let right = be32(&bytes, 0) == block::REFCOUNT && u32::from(be16(&bytes, 4)) == level && count <= max;
            let Some(last) = count.checked_sub(1).filter(|_| right) else {
                return if right {
                    Ok(false)
                } else {
                    Err(damaged(agno, "its reference counts contradict themselves"))
                };
            };
            if level == 0 {
                return Ok(be32(area, last.saturating_mul(12)) & STAGING != 0);
            }
            agbno = be32(area, max.saturating_add(last).saturating_mul(4));
        }
        Ok(false)
    }

    /// Block `agbno` of a group, which is part of one of its trees.
    pub(super) fn group_block(&self, agno: u32, agbno: u32) -> Result<Block> {
        if agbno == 0 || agbno >= self.sb.ag_len(agno) {
            return Err(damaged(agno, "a tree points outside"));
        }
        self.metadata(self.sb.place(agno, agbno), self.sb.block_len(), Some(u64::from(agno)))
    }

    /// Visits the free byte ranges of the volume, ascending. A group of which anything is wrong has none.
    pub(super) fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        for agno in 0..self.sb.agcount {
            let Some(agf) = believed(self.agf(agno).and_then(|agf| self.prove(agno, &agf).map(|()| agf)))? else {
                tracing::debug!(group = agno, "the free space is not believed");
                continue;
            };
            let mut stopped = false;
            self.free_runs(agno, &agf, &mut |start, count| {
                let start = self.sb.place(agno, start);
                let end = start.saturating_add(self.sb.bytes(u64::from(count)));
                let flow = visit(start..end);
                stopped = flow.is_break();
                flow
            })?;
            if stopped {
                break;
            }
        }
        Ok(())
    }

    /// Makes sure that a group's free runs are as many blocks as it counts, and none of them is known to be in use.
    pub(super) fn prove(&self, agno: u32, agf: &Agf) -> Result<()> {
        let used = used_ranges(self.sb, agno);
        let (mut sum, mut overlaps) = (0_u64, false);
        self.free_runs(agno, agf, &mut |start, count| {
            sum = sum.saturating_add(u64::from(count));
            let run = u64::from(start)..u64::from(start).saturating_add(u64::from(count));
            overlaps |= used.iter().any(|used| used.start < run.end && run.start < used.end);
            overlaps |= run.contains(&u64::from(agf.bno_root));
            if overlaps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if overlaps {
            return Err(damaged(agno, "metadata lies in free space"));
        }
        if sum != u64::from(agf.freeblks) {
            return Err(damaged(agno, "its free blocks are not as many as it says").expected(agf.freeblks).found(sum));
        }
        Ok(())
    }

    fn free_runs(&self, agno: u32, agf: &Agf, visit: &mut VisitRun<'_>) -> Result<()> {
        if agf.bno_level == 0 || agf.bno_level > u32::from(limits::MAX_XFS_LEVELS) {
            return Err(damaged(agno, "its free space has an impossible number of levels").found(agf.bno_level));
        }
        let mut walk =
            Walk { agno, len: self.sb.ag_len(agno), next: 0, visit: &mut |start, count| visit(start, count) };
        self.walk_free(&mut walk, agf.bno_root, agf.bno_level.saturating_sub(1)).map(drop)
    }

    /// Visits the records below block `agbno`, which is at `level`. Records ascend, so no block can be visited twice for long.
    fn walk_free(&self, walk: &mut Walk<'_>, agbno: u32, level: u32) -> Result<ControlFlow<()>> {
        let bytes = self.group_block(walk.agno, agbno)?;
        let offset = self.sb.place(walk.agno, agbno);
        let (magic, header) = if self.sb.has_crc() { (block::BNO_V5, 56) } else { (block::BNO_V4, 16) };
        let area = bytes.get(header..).unwrap_or_default();
        let count = usize::from(be16(&bytes, 6));
        let max = if level == 0 { area.len() / 8 } else { area.len() / 12 };
        // Only the root of an empty tree has no records.
        if be32(&bytes, 0) != magic || u32::from(be16(&bytes, 4)) != level || count > max || (count == 0 && level > 0) {
            return Err(damaged(walk.agno, "its free space contradicts itself").offset(offset));
        }
        for index in 0..count {
            let at = index.saturating_mul(8);
            let start = be32(area, at);
            if u64::from(start) < walk.next {
                return Err(damaged(walk.agno, "its free space is not in order").offset(offset));
            }
            let flow = if level == 0 {
                let len = be32(area, at.saturating_add(4));
                let end = u64::from(start).saturating_add(u64::from(len));
                if len == 0 || end > u64::from(walk.len) {
                    return Err(damaged(walk.agno, "a free run is impossible").offset(offset));
                }
                walk.next = end.saturating_add(1);
                (walk.visit)(start, len)
            } else {
                let before = walk.next;
                let child = be32(area, max.saturating_mul(8).saturating_add(index.saturating_mul(4)));
                let flow = self.walk_free(walk, child, level.saturating_sub(1))?;
                if flow.is_continue() && walk.next <= before {
                    return Err(damaged(walk.agno, "a leaf of its free space is empty").offset(offset));
                }
                flow
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Blocks of a group that are in use whatever its trees say: headers, and the log if it is there.
fn used_ranges(sb: &Superblock, agno: u32) -> Vec<Range<u64>> {
    let headers = HEADERS.wrapping_shl(sb.sectlog).div_ceil(sb.block_size());
    let log = sb.log().and_then(|(start, len)| Some((sb.ag_of(start)?, len)));
    let log = log
        .filter(|((ag, _), _)| *ag == agno)
        .map(|((_, first), len)| u64::from(first)..u64::from(first).saturating_add(u64::from(len)));
    std::iter::once(0..headers).chain(log).collect()
}

fn damaged(agno: u32, what: &str) -> Error {
    corrupt(format!("allocation group {agno} is damaged: {what}"))
}
