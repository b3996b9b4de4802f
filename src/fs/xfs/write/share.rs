//! Shared blocks ("Reference Count B+tree"): records of runs that more than one file has, with how many.

use std::ops::ControlFlow;

use super::tree::{Tree, damaged};
use super::{Run, Writer};
use crate::disk::bytes::{be32, put_be32};
use crate::error::Result;

/// Set in the first block of a record of blocks that are to become a copy.
pub(super) const STAGING: u32 = 1 << 31;
/// A count that the kernel never changes again.
const PINNED: u32 = u32::MAX;

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shared {
    start: u32,
    len: u32,
    count: u32,
}

impl Shared {
    fn parse(record: &[u8]) -> Self {
        Self { start: be32(record, 0), len: be32(record, 4), count: be32(record, 8) }
    }

    fn bytes(self) -> Vec<u8> {
        let mut record = vec![0; 12];
        put_be32(&mut record, 0, self.start);
        put_be32(&mut record, 4, self.len);
        put_be32(&mut record, 8, self.count);
        record
    }

    fn end(self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// The part of it from `from` to `to`.
    fn clip(self, from: u32, to: u32) -> Option<Self> {
        let (start, end) = (self.start.max(from), self.end().min(to));
        (start < end).then(|| Self { start, len: end.saturating_sub(start), ..self })
    }
}

impl Writer<'_> {
    /// Records that overlap `run` or touch it.
    fn shared_around(&self, run: Run) -> Result<Vec<Shared>> {
        let mut found = Vec::new();
        if !self.sb.features.has_reflink() {
            return Ok(found);
        }
        let end = run.agbno.saturating_add(run.len);
        self.walk(run.agno, Tree::Refcount, (u64::from(run.agbno.saturating_sub(1)), 0, 0), &mut |record| {
            let shared = Shared::parse(record);
            if shared.start > end || shared.start & STAGING != 0 {
                return ControlFlow::Break(());
            }
            if shared.end() >= run.agbno {
                found.push(shared);
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// The parts of `run` that more than one file has.
    pub(super) fn shared_parts(&self, run: Run) -> Result<Vec<Run>> {
        let end = run.agbno.saturating_add(run.len);
        let parts = self.shared_around(run)?.into_iter().filter_map(|shared| shared.clip(run.agbno, end));
        Ok(parts.map(|part| Run { agno: run.agno, agbno: part.start, len: part.len }).collect())
    }

    /// Takes one owner from the blocks of `run`; gives those that nobody else has.
    pub(super) fn unshare(&mut self, run: Run) -> Result<Vec<Run>> {
        let end = run.agbno.saturating_add(run.len);
        let old = self.shared_around(run)?;
        let mut new: Vec<Shared> = Vec::new();
        let mut alone = Vec::new();
        let mut next = run.agbno;
        for shared in &old {
            if shared.count < 2 || shared.len == 0 {
                return Err(damaged(run.agno, "a count of owners is impossible"));
            }
            let pieces = [shared.clip(0, run.agbno), shared.clip(run.agbno, end), shared.clip(end, u32::MAX)];
            let [before, inside, after] = pieces;
            let fewer = inside.map(|part| match part.count {
                PINNED => part,
                count => Shared { count: count.saturating_sub(1), ..part },
            });
            if let Some(part) = inside {
                if part.start > next {
                    alone.push(Run { agno: run.agno, agbno: next, len: part.start.saturating_sub(next) });
                }
                next = part.end();
            }
            for part in [before, fewer.filter(|part| part.count > 1), after].into_iter().flatten() {
                match new.last_mut() {
                    Some(last) if last.end() == part.start && last.count == part.count => {
                        last.len = last.len.saturating_add(part.len);
                    }
                    _ => new.push(part),
                }
            }
        }
        if next < end {
            alone.push(Run { agno: run.agno, agbno: next, len: end.saturating_sub(next) });
        }
        if new != old {
            for shared in &old {
                self.remove(run.agno, Tree::Refcount, &shared.bytes())?;
            }
            for shared in &new {
                self.insert(run.agno, Tree::Refcount, &shared.bytes())?;
            }
        }
        Ok(alone)
    }
}
