//! The list of blocks that a group keeps for the trees of its free space and owners ("AG Free List"), a ring in a sector.

use super::reverse::OWNER_AG;
use super::tree::{Tree, damaged};
use super::{Header, Run, Writer};
use crate::disk::bytes::{be32, put_be32, size};
use crate::error::Result;

const FIRST: usize = 40;
const LAST: usize = 44;
const COUNT: usize = 48;
/// Blocks that the list has beside two for each level of the trees.
const SPARE: u32 = 6;
/// Blocks by which it may be longer than needed.
const TOO_LONG: u32 = 24;

impl Writer<'_> {
    /// Brings a group's list to a length with which the next change cannot fail for want of blocks.
    pub(super) fn fill_list(&mut self, agno: u32) -> Result<()> {
        let mut levels =
            u32::from(self.root(agno, Tree::Bno)?.1).saturating_add(u32::from(self.root(agno, Tree::Cnt)?.1));
        if self.sb.features.has_rmapbt() {
            levels = levels.saturating_add(u32::from(self.root(agno, Tree::Rmap)?.1));
        }
        let wanted = levels.saturating_mul(2).saturating_add(SPARE);
        while self.field(agno, Header::Agf, COUNT)? < wanted {
            let Some(record) = self.at_least(agno, Tree::Cnt, (1, 0, 0))? else { break };
            let run = Run { agno, agbno: be32(&record, 0), len: 1 };
            self.take(run)?;
            self.give_to_list(agno, run.agbno)?;
            self.add_owner(run, OWNER_AG, 0)?;
        }
        while self.field(agno, Header::Agf, COUNT)? > wanted.saturating_add(TOO_LONG) {
            let run = Run { agno, agbno: self.take_from_list(agno)?, len: 1 };
            self.remove_owner(run, OWNER_AG, 0)?;
            self.give(run)?;
        }
        Ok(())
    }

    /// Takes the first block of the list.
    pub(super) fn take_from_list(&mut self, agno: u32) -> Result<u32> {
        let mut list = self.list(agno)?;
        if list.is_empty() {
            return Err(super::full(format!("allocation group {agno} has no block left for its trees")));
        }
        let agbno = list.remove(0);
        if agbno == 0 || agbno >= self.sb.ag_len(agno) {
            return Err(damaged(agno, "its list of free blocks is impossible"));
        }
        self.put_list(agno, &list)?;
        self.sb.count_free(-1);
        Ok(agbno)
    }

    /// Puts a block at the end of the list.
    pub(super) fn give_to_list(&mut self, agno: u32, agbno: u32) -> Result<()> {
        let mut list = self.list(agno)?;
        list.push(agbno);
        self.put_list(agno, &list)?;
        self.sb.count_free(1);
        Ok(())
    }

    /// The blocks of the list. Some kernels before 4.5 take the ring of version 5 for one place shorter than it is.
    fn list(&self, agno: u32) -> Result<Vec<u32>> {
        let (len, start) = self.ring();
        let [first, last, count] = [FIRST, LAST, COUNT].map(|at| self.field(agno, Header::Agf, at));
        let (first, last, count) = (first?, last?, count?);
        let fits = |len: &u32| {
            let reached = last.saturating_add(*len).saturating_sub(first).checked_rem(*len);
            first < *len && last < *len && reached.is_some_and(|reached| reached.saturating_add(1) == count)
        };
        if count == 0 {
            return Ok(Vec::new());
        }
        let len = [len, len.saturating_sub(u32::from(self.sb.has_crc()))].into_iter().find(fits);
        let len = len.ok_or_else(|| damaged(agno, "its list of free blocks contradicts itself"))?;
        let list = self.header(agno, Header::Agfl)?;
        let places = (first..first.saturating_add(count)).map(|place| place.checked_rem(len).unwrap_or(0));
        Ok(places.map(|place| be32(&list, slot(start, place))).collect())
    }

    /// Stores the list from the first place on, so that it does not matter how long the ring is.
    fn put_list(&mut self, agno: u32, blocks: &[u32]) -> Result<()> {
        let (len, start) = self.ring();
        let count = u32::try_from(blocks.len()).unwrap_or(u32::MAX);
        if count >= len {
            return Err(damaged(agno, "its list of free blocks is too long"));
        }
        let mut list = self.header(agno, Header::Agfl)?.to_vec();
        for (place, agbno) in (0..).zip(blocks) {
            put_be32(&mut list, slot(start, place), *agbno);
        }
        let offset = self.place_of(agno, Header::Agfl);
        // Version 4 has no header there.
        if self.sb.has_crc() {
            self.put(offset, list)?
        } else {
            self.store.change(&list, offset)?
        }
        // An empty one ends before it begins.
        self.set_field(agno, Header::Agf, FIRST, u32::from(count == 0))?;
        self.set_field(agno, Header::Agf, LAST, count.saturating_sub(1))?;
        self.set_field(agno, Header::Agf, COUNT, count)
    }

    /// The places of the ring, and where it starts in its sector.
    fn ring(&self) -> (u32, usize) {
        let start = if self.sb.has_crc() { 36 } else { 0 };
        let len = self.sb.sector_len().saturating_sub(start) / 4;
        (u32::try_from(len).unwrap_or(0), start)
    }
}

fn slot(start: usize, index: u32) -> usize {
    start.saturating_add(size(u64::from(index)).saturating_mul(4))
}
