//! Reverse mappings ("Reverse-Mapping B+tree"): who owns which blocks. What continues is always one record.

use super::tree::{BMBT, Tree, damaged};
use super::{Run, Writer};
use crate::disk::bytes::{be32, be64, put_be32, put_be64};
use crate::error::Result;

/// Owners that are no inodes.
pub(super) const OWNER_AG: u64 = u64::MAX - 4;
pub(super) const OWNER_INOBT: u64 = u64::MAX - 5;
pub(super) const OWNER_INODES: u64 = u64::MAX - 6;
pub(super) const OWNER_REFCOUNT: u64 = u64::MAX - 7;
pub(super) const OWNER_COW: u64 = u64::MAX - 8;
/// Set in the offset: the extent belongs to the attribute fork.
pub(super) const ATTR_FORK: u64 = 1 << 63;
const FLAGS: u64 = 7 << 61;

/// Whether the offset of a mapping says nothing about the place in a file.
pub(super) fn is_without_offset(owner: u64, offset: u64) -> bool {
    owner >> 63 != 0 || offset & BMBT != 0
}

/// A record's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: u32,
    len: u32,
    owner: u64,
    /// With flags.
    offset: u64,
}

impl Mapping {
    fn parse(record: &[u8]) -> Self {
        Self { start: be32(record, 0), len: be32(record, 4), owner: be64(record, 8), offset: be64(record, 16) }
    }

    fn bytes(self) -> Vec<u8> {
        let mut record = vec![0; 24];
        put_be32(&mut record, 0, self.start);
        put_be32(&mut record, 4, self.len);
        put_be64(&mut record, 8, self.owner);
        put_be64(&mut record, 16, self.offset);
        record
    }

    fn end(self) -> u32 {
        self.start.saturating_add(self.len)
    }

    /// The offset of the block at `agbno`, which lies in it or directly behind it.
    fn offset_at(self, agbno: u32) -> u64 {
        if is_without_offset(self.owner, self.offset) {
            return self.offset;
        }
        self.offset.saturating_add(u64::from(agbno.saturating_sub(self.start)))
    }

    /// Whether `next` goes on where this ends.
    fn goes_on_in(self, next: Self) -> bool {
        self.end() == next.start
            && self.owner == next.owner
            && self.offset & FLAGS == next.offset & FLAGS
            && self.offset_at(next.start) == next.offset
    }
}

impl Writer<'_> {
    /// Notes that `run` belongs to `owner`, from `offset` (with flags) of it on.
    pub(super) fn add_owner(&mut self, run: Run, owner: u64, offset: u64) -> Result<()> {
        if !self.sb.features.has_rmapbt() || run.len == 0 {
            return Ok(());
        }
        let mut new = Mapping { start: run.agbno, len: run.len, owner, offset };
        let around = self.owners(run.agno, new.start.saturating_sub(1), new.end())?;
        for near in around.iter().map(|record| Mapping::parse(record)) {
            if near.goes_on_in(new) {
                self.remove(run.agno, Tree::Rmap, &near.bytes())?;
                new = Mapping { start: near.start, len: near.len.saturating_add(new.len), ..near };
            } else if new.goes_on_in(near) {
                self.remove(run.agno, Tree::Rmap, &near.bytes())?;
                new.len = new.len.saturating_add(near.len);
            }
        }
        self.insert(run.agno, Tree::Rmap, &new.bytes())
    }

    /// Notes that `run` no longer belongs to `owner`.
    pub(super) fn remove_owner(&mut self, run: Run, owner: u64, offset: u64) -> Result<()> {
        if !self.sb.features.has_rmapbt() || run.len == 0 {
            return Ok(());
        }
        let end = run.agbno.saturating_add(run.len);
        let records = self.owners(run.agno, run.agbno, run.agbno)?;
        let found = records.iter().map(|record| Mapping::parse(record)).find(|mapping| {
            mapping.owner == owner
                && mapping.offset & FLAGS == offset & FLAGS
                && mapping.end() >= end
                && mapping.offset_at(run.agbno) == offset
        });
        let found = found.ok_or_else(|| damaged(run.agno, "a block does not belong to whom it should"))?;
        self.remove(run.agno, Tree::Rmap, &found.bytes())?;
        let before = Mapping { len: run.agbno.saturating_sub(found.start), ..found };
        let after = Mapping { start: end, len: found.end().saturating_sub(end), offset: found.offset_at(end), ..found };
        for rest in [before, after].iter().filter(|rest| rest.len > 0) {
            self.insert(run.agno, Tree::Rmap, &rest.bytes())?;
        }
        Ok(())
    }

    /// Owners of all of `run`, with the offset that its first block has for each.
    pub(super) fn owners_of(&self, run: Run) -> Result<Vec<(u64, u64)>> {
        let end = run.agbno.saturating_add(run.len);
        let records = self.owners(run.agno, run.agbno, end.saturating_sub(1))?;
        let owner = |mapping: Mapping| {
            let has_all = mapping.start <= run.agbno && mapping.end() >= end;
            let part = || damaged(run.agno, "only a part of some blocks has an owner");
            if has_all { Ok((mapping.owner, mapping.offset_at(run.agbno))) } else { Err(part()) }
        };
        records.iter().map(|record| owner(Mapping::parse(record))).collect()
    }
}
