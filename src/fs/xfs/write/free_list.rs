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
        let (len, start) = self.ring();
        let (first, count) = (self.field(agno, Header::Agf, FIRST)?, self.field(agno, Header::Agf, COUNT)?);
        if count == 0 || count > len || first >= len {
            return Err(super::full(format!("allocation group {agno} has no block left for its trees")));
        }
        let list = self.header(agno, Header::Agfl)?;
        let agbno = be32(&list, slot(start, first));
        if agbno == 0 || agbno >= self.sb.ag_len(agno) {
            return Err(damaged(agno, "its list of free blocks is impossible"));
        }
        self.set_field(agno, Header::Agf, FIRST, next(first, len))?;
        self.count(agno, Header::Agf, COUNT, -1)?;
        self.sb.count_free(-1);
        Ok(agbno)
    }

    /// Puts a block at the end of the list.
    pub(super) fn give_to_list(&mut self, agno: u32, agbno: u32) -> Result<()> {
        let (len, start) = self.ring();
        let (last, count) = (self.field(agno, Header::Agf, LAST)?, self.field(agno, Header::Agf, COUNT)?);
        if count >= len || last >= len {
            return Err(damaged(agno, "its list of free blocks is too long"));
        }
        let place = next(last, len);
        let mut list = self.header(agno, Header::Agfl)?.to_vec();
        put_be32(&mut list, slot(start, place), agbno);
        let offset = self.place_of(agno, Header::Agfl);
        // Version 4 has no header there.
        if self.sb.has_crc() {
            self.put(offset, list)?
        } else {
            self.store.change(&list, offset)?
        }
        self.set_field(agno, Header::Agf, LAST, place)?;
        self.count(agno, Header::Agf, COUNT, 1)?;
        self.sb.count_free(1);
        Ok(())
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

fn next(index: u32, len: u32) -> u32 {
    let next = index.saturating_add(1);
    if next >= len { 0 } else { next }
}
