//! Where the log ends and begins: found from the turns that its blocks carry, whatever order the last writes came in.

use std::ops::Range;

use super::record::Header;
use super::{Log, State, cycle_of, damaged, parts};
use crate::disk::bytes::{be32, u8_at};
use crate::error::Result;

/// Records that may be under way to the disk at once.
const IN_FLIGHT: u32 = 8;
/// Basic blocks of the largest record.
const LARGEST: u32 = 520;
/// Basic blocks that are read at once.
const STEP: u32 = 128;
/// The flag of an operation that says that the file system was unmounted.
const UNMOUNT: u8 = 0x20;

/// Where the active part of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs::xfs) struct End {
    /// The block of the first record to be replayed.
    pub(super) tail: u32,
    /// The block after the last.
    pub(super) head: u32,
    /// The turn of what is written at the head.
    pub(super) cycle: u32,
    /// The block of the last record.
    pub(super) last: u32,
}

impl Log<'_> {
    /// Finds head and tail.
    pub(in crate::fs::xfs) fn state(&self) -> Result<State> {
        let Some(mut head) = self.head()? else {
            return Ok(State::Clean);
        };
        let mut last = self.previous(head)?.ok_or_else(|| damaged("it has no record before its head"))?;
        if self.is_unmounted(&last, head)? {
            return Ok(State::Clean);
        }
        if let Some(torn) = self.first_torn(&last, head)? {
            head = torn.block;
            last = self.previous(head)?.ok_or_else(|| damaged("none of its records is whole"))?;
            if self.is_unmounted(&last, head)? {
                return Ok(State::Clean);
            }
        }
        if self.after(last.block, last.blocks()) != head {
            return Err(damaged("there is a gap before its head"));
        }
        let (tail_cycle, tail) = parts(last.tail_lsn);
        if tail >= self.blocks || last.tail_lsn > last.lsn || last.cycle.saturating_sub(tail_cycle) > 1 {
            return Err(damaged("its tail is impossible").found(last.tail_lsn));
        }
        let cycle = last.cycle.saturating_add(u32::from(head <= last.block));
        let end = End { tail, head, cycle, last: last.block };
        Ok(State::Dirty(End { tail: self.whole_tail(&end)?, ..end }))
    }

    /// The block where the next record would be written; none in a log that was never written to.
    pub(super) fn head(&self) -> Result<Option<u32>> {
        let (first, last) = (self.cycle(0)?, self.cycle(self.blocks.saturating_sub(1))?);
        if first == 0 {
            return Ok(None);
        }
        if last == 0 && first != 1 {
            return Err(damaged("its first turn is not the first"));
        }
        let window = self.window();
        // An index of blocks that may be the length: the math is right, and it is the same place as 0.
        let (mut head, stop) =
            if first == last { (self.blocks, last.wrapping_sub(1)) } else { (self.first_of_turn(last)?, last) };
        // Blocks of an earlier turn before that place are holes that were never written.
        if head >= window {
            head = self.first_with(head.saturating_sub(window)..head, stop)?.unwrap_or(head);
        } else {
            let rest = self.blocks.saturating_sub(window.saturating_sub(head))..self.blocks;
            let hole = if last == 0 { None } else { self.first_with(rest, stop.wrapping_sub(1))? };
            head = match hole {
                Some(hole) => hole,
                None => self.first_with(0..head, stop)?.unwrap_or(head),
            };
        }
        self.without_partial(self.after(head, 0), last == 0).map(Some)
    }

    /// The first block of turn `cycle`, where all blocks from there to the end are of that turn.
    fn first_of_turn(&self, cycle: u32) -> Result<u32> {
        let (mut other, mut found) = (0, self.blocks.saturating_sub(1));
        while found.saturating_sub(other) > 1 {
            let middle = other.midpoint(found);
            if self.cycle(middle)? == cycle { found = middle } else { other = middle }
        }
        Ok(found)
    }

    /// The first block of `range` that was written in turn `cycle`.
    fn first_with(&self, range: Range<u32>, cycle: u32) -> Result<Option<u32>> {
        let mut at = range.start;
        while at < range.end {
            let count = STEP.min(range.end.saturating_sub(at));
            let bytes = self.read(at, count)?;
            if let Some(index) = bytes.chunks(512).position(|block| cycle_of(block) == cycle) {
                return Ok(u32::try_from(index).ok().map(|index| at.saturating_add(index)));
            }
            at = at.saturating_add(count);
        }
        Ok(None)
    }

    /// The head, moved before a record that was not written to its end.
    fn without_partial(&self, head: u32, only_before: bool) -> Result<u32> {
        let most = if only_before { head } else { self.blocks };
        for distance in 1..=LARGEST.min(most) {
            let block = self.before(head, distance);
            let bytes = self.read(block, 1)?;
            if be32(&bytes, 0) == super::record::MAGIC {
                let whole = self.parse(block, &bytes).is_some_and(|header| header.blocks() == distance);
                return Ok(if whole { head } else { block });
            }
        }
        Err(damaged("no record is before its head"))
    }

    /// The record that ends nearest before `block`.
    pub(super) fn previous(&self, block: u32) -> Result<Option<Header>> {
        for distance in 1..=LARGEST.min(self.blocks) {
            let place = self.before(block, distance);
            let bytes = self.read(place, 1)?;
            if be32(&bytes, 0) == super::record::MAGIC {
                return Ok(self.parse(place, &bytes));
            }
        }
        Ok(None)
    }

    /// Whether `last`, which ends at `head`, says that the file system was unmounted.
    fn is_unmounted(&self, last: &Header, head: u32) -> Result<bool> {
        if last.operations != 1 || self.after(last.block, last.blocks()) != head {
            return Ok(false);
        }
        let first = self.read(self.after(last.block, last.header_blocks()), 1)?;
        Ok(u8_at(&first, 9) & UNMOUNT != 0)
    }

    /// The first of the last records that is not whole: writes may come to the disk in any order.
    fn first_torn(&self, last: &Header, head: u32) -> Result<Option<Header>> {
        let mut torn = None;
        let mut record = last.clone();
        let mut walked = self.distance(record.block, head);
        let (_, tail) = parts(last.tail_lsn);
        for _ in 0..IN_FLIGHT {
            if !self.is_whole(&record)? {
                torn = Some(record.clone());
            }
            if record.block == tail {
                break;
            }
            let Some(before) = self.previous(record.block)? else { break };
            walked = walked.saturating_add(self.distance(before.block, record.block));
            if walked >= self.blocks || before.lsn > record.lsn {
                break;
            }
            record = before;
        }
        Ok(torn)
    }

    /// The tail, moved after records that a write which did not come to its end has destroyed already.
    fn whole_tail(&self, end: &End) -> Result<u32> {
        let reach = self.window().min(self.distance(end.tail, end.head));
        for distance in 0..reach {
            let block = self.after(end.tail, distance);
            if let Some(header) = self.header(block)?
                && self.is_whole(&header)?
            {
                return Ok(block);
            }
            if !self.has_crc {
                break;
            }
        }
        Err(damaged("there is no record at its tail").found(end.tail))
    }

    fn cycle(&self, block: u32) -> Result<u32> {
        Ok(cycle_of(&self.read(block, 1)?))
    }
}
