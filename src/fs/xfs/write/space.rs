//! Free space: taken and given back in both trees, with the counters of group and file system.

use std::ops::{ControlFlow, RangeInclusive};

use super::tree::{Tree, damaged};
use super::{Header, Run, Writer, full};
use crate::disk::bytes::{be32, put_be32};
use crate::error::Result;
use crate::fs::xfs::superblock::Superblock;

const FREE: usize = 52;
const LONGEST: usize = 56;
/// Free runs that are looked at for one of the right alignment.
const TRIES: u32 = 4096;

fn record(start: u32, len: u32) -> Vec<u8> {
    let mut record = vec![0; 8];
    put_be32(&mut record, 0, start);
    put_be32(&mut record, 4, len);
    record
}

/// What group `agno` must not go below, in blocks: some for the trees of free space, and a share for each tree that can grow
/// with the number of files and copies.
pub(in crate::fs::xfs) fn reserve(sb: &Superblock, agno: u32) -> u32 {
    let len = sb.ag_len(agno);
    let share = |wanted: bool, part: u32| if wanted { len.checked_div(part).unwrap_or(0) } else { 0 };
    let shares = [
        share(sb.features.has_rmapbt(), 100),
        share(sb.features.has_reflink(), 200),
        share(sb.features.has_finobt(), 200),
    ];
    shares.into_iter().fold(24, u32::saturating_add)
}

impl Writer<'_> {
    /// Takes up to `wanted` blocks, preferably directly at block `goal` or else in its group.
    pub(super) fn allocate(&mut self, goal: u64, wanted: u64) -> Result<Run> {
        let wanted = u32::try_from(wanted.min(u64::from(self.sb.agblocks)).min(super::fork::MAX_EXTENT)).unwrap_or(1);
        let (near, agbno) = self.sb.ag_of(goal).unwrap_or((0, 0));
        if let Some(run) = self.free_at(near, agbno, wanted)? {
            return self.take_checked(run);
        }
        let mut best: Option<Run> = None;
        for index in 0..self.sb.agcount {
            let agno = near.saturating_add(index).checked_rem(self.sb.agcount).unwrap_or(0);
            let room = self.room(agno)?;
            let least = wanted.min(room);
            if least == 0 {
                continue;
            }
            // The smallest run that is large enough, or the largest.
            let found = match self.at_least(agno, Tree::Cnt, (u64::from(least), 0, 0))? {
                Some(found) => Some(found),
                None => self.at_most(agno, Tree::Cnt, (u64::MAX, 0, 0))?,
            };
            let Some(found) = found else { continue };
            let run = Run { agno, agbno: be32(&found, 0), len: be32(&found, 4).min(least) };
            if best.is_none_or(|best| best.len < run.len) {
                best = Some(run);
            }
            if run.len == wanted {
                break;
            }
        }
        let best = best.ok_or_else(|| full("the file system has no room left"))?;
        self.take_checked(best)
    }

    /// The free run at `agbno`, if there is one and the group can spare it.
    fn free_at(&self, agno: u32, agbno: u32, wanted: u32) -> Result<Option<Run>> {
        if agbno == 0 {
            return Ok(None);
        }
        let Some(found) = self.at_most(agno, Tree::Bno, (u64::from(agbno), 0, 0))? else { return Ok(None) };
        let end = be32(&found, 0).saturating_add(be32(&found, 4));
        let len = end.saturating_sub(agbno).min(wanted).min(self.room(agno)?);
        Ok((len > 0).then_some(Run { agno, agbno, len }))
    }

    /// Takes `len` blocks in group `agno` only.
    pub(super) fn allocate_in(&mut self, agno: u32, len: u32) -> Result<Run> {
        let found = self.at_least(agno, Tree::Cnt, (u64::from(len), 0, 0))?;
        let found = found.ok_or_else(|| full(format!("allocation group {agno} has no room left")))?;
        self.take_checked(Run { agno, agbno: be32(&found, 0), len })
    }

    /// Takes `len` blocks in group `agno` that begin at a multiple of `alignment` in `range`; none if there are none.
    pub(super) fn allocate_aligned(
        &mut self,
        agno: u32,
        len: u32,
        alignment: u32,
        range: RangeInclusive<u32>,
    ) -> Result<Option<Run>> {
        if self.room(agno)? < len {
            return Ok(None);
        }
        let (mut found, mut left) = (None, TRIES);
        self.walk(agno, Tree::Cnt, (u64::from(len), 0, 0), &mut |record| {
            let (start, count) = (be32(record, 0), be32(record, 4));
            let aligned = start.max(*range.start()).checked_next_multiple_of(alignment.max(1));
            let aligned = aligned.filter(|at| range.contains(at));
            found = aligned.filter(|at| at.saturating_sub(start).saturating_add(len) <= count);
            left = left.saturating_sub(1);
            if found.is_some() || left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match found {
            Some(agbno) => self.take_checked(Run { agno, agbno, len }).map(Some),
            None => Ok(None),
        }
    }

    fn take_checked(&mut self, run: Run) -> Result<Run> {
        self.take(run)?;
        self.fill_list(run.agno)?;
        Ok(run)
    }

    /// Blocks of a group that may be taken: all but what the kernel keeps for its trees to grow.
    fn room(&self, agno: u32) -> Result<u32> {
        Ok(self.field(agno, Header::Agf, FREE)?.saturating_sub(reserve(self.sb, agno)))
    }

    /// Takes `run` out of the free space, in which it must be.
    pub(super) fn take(&mut self, run: Run) -> Result<()> {
        let Run { agno, agbno, len } = run;
        let missing = || damaged(agno, "a block that should be free is not");
        let found = self.at_most(agno, Tree::Bno, (u64::from(agbno), 0, 0))?.ok_or_else(missing)?;
        let (start, count) = (be32(&found, 0), be32(&found, 4));
        let (end, stop) = (agbno.saturating_add(len), start.saturating_add(count));
        if len == 0 || stop < end {
            return Err(missing());
        }
        self.remove(agno, Tree::Cnt, &found)?;
        let (before, after) = (agbno.saturating_sub(start), stop.saturating_sub(end));
        if before > 0 {
            self.update(agno, Tree::Bno, &record(start, before))?;
            self.insert(agno, Tree::Cnt, &record(start, before))?;
        } else {
            self.remove(agno, Tree::Bno, &found)?;
        }
        if after > 0 {
            self.insert(agno, Tree::Bno, &record(end, after))?;
            self.insert(agno, Tree::Cnt, &record(end, after))?;
        }
        self.count_free(agno, i64::from(len).saturating_neg())
    }

    /// Puts `run` into the free space, together with what is free beside it. Nobody owns it any more.
    pub(super) fn give(&mut self, run: Run) -> Result<()> {
        let Run { agno, agbno, len } = run;
        let (mut start, mut count) = (agbno, len);
        if let Some(before) = self.at_most(agno, Tree::Bno, (u64::from(agbno), 0, 0))? {
            let end = be32(&before, 0).saturating_add(be32(&before, 4));
            if end > agbno {
                return Err(damaged(agno, "a block in use is free"));
            }
            if end == agbno {
                self.remove(agno, Tree::Cnt, &before)?;
                self.remove(agno, Tree::Bno, &before)?;
                start = be32(&before, 0);
                count = count.saturating_add(be32(&before, 4));
            }
        }
        let end = agbno.saturating_add(len);
        if let Some(after) = self.at_least(agno, Tree::Bno, (u64::from(agbno), 0, 0))? {
            if be32(&after, 0) < end {
                return Err(damaged(agno, "a block in use is free"));
            }
            if be32(&after, 0) == end {
                self.remove(agno, Tree::Cnt, &after)?;
                self.remove(agno, Tree::Bno, &after)?;
                count = count.saturating_add(be32(&after, 4));
            }
        }
        self.insert(agno, Tree::Bno, &record(start, count))?;
        self.insert(agno, Tree::Cnt, &record(start, count))?;
        self.count_free(agno, i64::from(len))?;
        // What is not in use any more need not be stored.
        self.store.forget(self.sb.place(agno, agbno), self.sb.bytes(u64::from(len)));
        Ok(())
    }

    fn count_free(&mut self, agno: u32, delta: i64) -> Result<()> {
        self.count(agno, Header::Agf, FREE, delta)?;
        self.sb.count_free(delta);
        let longest = self.at_most(agno, Tree::Cnt, (u64::MAX, 0, 0))?.map_or(0, |record| be32(&record, 4));
        self.set_field(agno, Header::Agf, LONGEST, longest)
    }
}
