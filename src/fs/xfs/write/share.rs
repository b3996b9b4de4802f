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
        self.recount(run, &|count| if count == PINNED { PINNED } else { count.saturating_sub(1) })
    }

    /// Gives the blocks of `run` one owner more.
    pub(super) fn share(&mut self, run: Run) -> Result<()> {
        if !self.sb.features.has_reflink() {
            return Err(damaged(run.agno, "blocks were to be shared that cannot be"));
        }
        self.recount(run, &|count| count.saturating_add(1)).map(drop)
    }

    /// Changes the counts of the blocks of `run`, which are 1 where there is no record; gives those that have no owner then.
    fn recount(&mut self, run: Run, change: &dyn Fn(u32) -> u32) -> Result<Vec<Run>> {
        let end = run.agbno.saturating_add(run.len);
        let old = self.shared_around(run)?;
        let mut parts: Vec<Shared> = Vec::new();
        let mut next = run.agbno;
        let single = |start: u32, end: u32| Shared { start, len: end.saturating_sub(start), count: change(1) };
        for shared in &old {
            if shared.count < 2 || shared.len == 0 {
                return Err(damaged(run.agno, "a count of owners is impossible"));
            }
            parts.extend(shared.clip(0, run.agbno));
            if let Some(part) = shared.clip(run.agbno, end) {
                parts.push(single(next, part.start));
                next = part.end();
                parts.push(Shared { count: change(part.count), ..part });
            }
            parts.extend(shared.clip(end, u32::MAX));
        }
        parts.push(single(next, end));
        parts.retain(|part| part.len > 0);
        parts.sort_by_key(|part| part.start);
        let alone = parts.iter().filter(|part| part.count == 0);
        let alone = alone.map(|part| Run { agno: run.agno, agbno: part.start, len: part.len }).collect();
        let mut new: Vec<Shared> = Vec::new();
        for part in parts.into_iter().filter(|part| part.count > 1) {
            match new.last_mut() {
                Some(last) if last.end() == part.start && last.count == part.count => {
                    last.len = last.len.saturating_add(part.len);
                }
                _ => new.push(part),
            }
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

    /// Notes that the blocks of `run` are to become copies.
    pub(super) fn put_staged(&mut self, run: Run) -> Result<()> {
        let record = Shared { start: run.agbno | STAGING, len: run.len, count: 1 };
        self.insert(run.agno, Tree::Refcount, &record.bytes())
    }

    /// Notes that the blocks of `run` are not to become copies any more.
    pub(super) fn cut_staged(&mut self, run: Run) -> Result<()> {
        let (from, to) = (run.agbno | STAGING, run.agbno.saturating_add(run.len) | STAGING);
        let found = self.at_most(run.agno, Tree::Refcount, (u64::from(from), 0, 0))?;
        let found =
            found.map(|record| Shared::parse(&record)).filter(|shared| shared.end() >= to && shared.start <= from);
        let found = found.ok_or_else(|| damaged(run.agno, "blocks are not the copies that they should be"))?;
        self.remove(run.agno, Tree::Refcount, &found.bytes())?;
        for rest in [found.clip(0, from), found.clip(to, u32::MAX)].into_iter().flatten() {
            self.insert(run.agno, Tree::Refcount, &rest.bytes())?;
        }
        Ok(())
    }
}
