//! Taking blocks and giving them back: one run if there is one near, else the runs that there are.

use std::ops::Range;

use super::bitmap::{ClearRuns, fill, is_set};
use super::view::View;
use super::{believed, corrupt, full};
use crate::error::Result;

/// Groups that are searched for one run before several are taken.
const GROUPS_TRIED: usize = 64;

impl View<'_> {
    /// Takes one block near `goal`.
    pub(super) fn allocate_one(&mut self, goal: u64) -> Result<u64> {
        let runs = self.allocate(goal, 1, self.sb.blocks_count)?;
        runs.first().map(|run| run.start).ok_or_else(|| full("no block is free"))
    }

    /// Takes `count` blocks below `limit` near `goal`, in as few runs as one pass over the groups gives.
    ///
    /// # Errors
    /// `ext.space` when there are not enough.
    pub(super) fn allocate(&mut self, goal: u64, count: u64, limit: u64) -> Result<Vec<Range<u64>>> {
        if count > self.sb.free_blocks() {
            return Err(full(format!("{count} blocks are needed and {} are free", self.sb.free_blocks())));
        }
        let goal = if self.sb.contains(goal, 1) { goal } else { self.sb.first_data_block };
        if let Some(run) = self.whole_run(goal, count, limit)? {
            self.take(&run)?;
            return Ok(vec![run]);
        }
        let mut runs = Vec::new();
        let mut left = count;
        for number in self.groups_from(goal) {
            if left == 0 {
                break;
            }
            for run in self.clear_runs(number, 0, left, limit)? {
                let len = run.end.saturating_sub(run.start).min(left);
                let part = run.start..run.start.saturating_add(len);
                left = left.saturating_sub(len);
                self.take(&part)?;
                runs.push(part);
                if left == 0 {
                    break;
                }
            }
        }
        if left > 0 { Err(full(format!("{left} blocks are missing"))) } else { Ok(runs) }
    }

    /// A free run of `count` blocks: at or after `goal` in its group, else in the groups that follow.
    fn whole_run(&self, goal: u64, count: u64, limit: u64) -> Result<Option<Range<u64>>> {
        if count > self.sb.blocks_per_group.get() {
            return Ok(None);
        }
        let (first, bit) = self.sb.group_of(goal);
        let passes = std::iter::once((first, bit)).chain(self.groups_from(goal).map(|number| (number, 0)));
        let mut tried = 0_usize;
        for (number, from) in passes {
            match believed(self.group(number))? {
                Some(group) if u64::from(group.free_blocks()) >= count => tried = tried.saturating_add(1),
                _ => continue,
            }
            if tried > GROUPS_TRIED {
                break;
            }
            let found = self.clear_runs(number, from, count, limit)?;
            if let Some(run) = found.into_iter().find(|run| run.end.saturating_sub(run.start) >= count) {
                return Ok(Some(run.start..run.start.saturating_add(count)));
            }
        }
        Ok(None)
    }

    fn groups_from(&self, goal: u64) -> impl Iterator<Item = u32> + use<> {
        let (first, _) = self.sb.group_of(goal);
        let groups = self.sb.groups;
        (0..groups).map(move |offset| first.wrapping_add(offset).checked_rem(groups).unwrap_or(0))
    }

    /// The free runs of a group from bit `from` on, below `limit`, up to the first of `enough` blocks. None of a group whose
    /// bitmap cannot be believed.
    fn clear_runs(&self, number: u32, from: u64, enough: u64, limit: u64) -> Result<Vec<Range<u64>>> {
        let group = match believed(self.group(number))? {
            Some(group) if group.free_blocks() > 0 => group,
            _ => return Ok(Vec::new()),
        };
        let Some(bytes) = believed(self.block_bitmap(&group))? else {
            return Ok(Vec::new());
        };
        let start = self.sb.group_start(number);
        let len = self.sb.group_len(number).min(limit.saturating_sub(start));
        let mut runs = Vec::new();
        for run in ClearRuns::new(&bytes, from, len) {
            let found = start.saturating_add(run.start)..start.saturating_add(run.end);
            let stop = found.end.saturating_sub(found.start) >= enough;
            runs.push(found);
            if stop {
                break;
            }
        }
        Ok(runs)
    }

    /// Marks `run`, which lies in one group and is free, as in use.
    fn take(&mut self, run: &Range<u64>) -> Result<()> {
        if self.is_metadata(run)? {
            return Err(corrupt("a bitmap calls metadata free").found(run.start));
        }
        self.mark(run, true)
    }

    /// Gives `len` blocks from `start` back.
    pub(super) fn free(&mut self, start: u64, len: u64) -> Result<()> {
        if !self.sb.contains(start, len) {
            return Err(corrupt("a block to be freed lies outside of the file system").found(start));
        }
        let whole = start..start.saturating_add(len);
        if self.is_metadata(&whole)? {
            return Err(corrupt("a file claims metadata of the file system").found(start));
        }
        self.discard(start, len);
        let mut next = start;
        while next < whole.end {
            let (number, bit) = self.sb.group_of(next);
            let end = whole.end.min(next.saturating_sub(bit).saturating_add(self.sb.blocks_per_group.get()));
            self.mark(&(next..end), false)?;
            next = end;
            debug_assert!(number < self.sb.groups);
        }
        Ok(())
    }

    /// Whether `run` touches a bitmap, an inode table, a superblock or a group descriptor.
    fn is_metadata(&self, run: &Range<u64>) -> Result<bool> {
        let metadata = match self.blocks.metadata.get() {
            Some(metadata) => metadata,
            None => {
                let metadata = self.metadata(false)?;
                self.blocks.metadata.get_or_init(|| metadata)
            }
        };
        let index = metadata.partition_point(|range| range.end <= run.start);
        Ok(metadata.get(index).is_some_and(|range| range.start < run.end))
    }

    /// Changes the bits of `run`, which lies in one group, and the counts.
    fn mark(&mut self, run: &Range<u64>, used: bool) -> Result<()> {
        let (number, bit) = self.sb.group_of(run.start);
        let count = run.end.saturating_sub(run.start);
        let bits = bit..bit.saturating_add(count);
        let mut group = self.group(number)?;
        let mut bytes = self.block_bitmap(&group)?;
        if bits.clone().any(|bit| is_set(&bytes, bit) == used) {
            let what = if used { "a block is taken twice" } else { "a block is freed twice" };
            return Err(corrupt(what).found(run.start));
        }
        fill(&mut bytes, bits, used);
        let delta = u32::try_from(count).unwrap_or(u32::MAX);
        let (in_group, in_all) = (group.free_blocks(), self.sb.free_blocks());
        if used {
            group.set_free_blocks(in_group.saturating_sub(delta));
            self.edit_sb().set_free_blocks(in_all.saturating_sub(count));
        } else {
            group.set_free_blocks(in_group.saturating_add(delta));
            self.edit_sb().set_free_blocks(in_all.saturating_add(count));
        }
        self.put_block_bitmap(&mut group, bytes)
    }
}
