//! What a crash leaves for later, and the kernel ends when it replays the log: inodes that were open when their last name was
//! removed, and blocks that were to become copies of shared ones.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::reverse::OWNER_COW;
use super::share::STAGING;
use super::tree::{Tree, damaged};
use super::{Header, Run, Writer};
use crate::disk::bytes::be32;
use crate::error::Result;
use crate::fs::Inode;

const LISTS: usize = 40;
const COUNT: usize = 64;
const NO_INODE: u32 = u32::MAX;

impl Writer<'_> {
    /// Ends all that, in all groups.
    pub(in crate::fs::xfs) fn tidy_up(&mut self) -> Result<()> {
        for agno in 0..self.sb.agcount {
            for list in 0..COUNT {
                self.free_unlinked(agno, LISTS.saturating_add(list.saturating_mul(4)))?;
            }
            if self.sb.features.has_reflink() {
                self.free_staged(agno)?;
            }
        }
        Ok(())
    }

    /// Frees the inodes of the list that begins at byte `at` of a header.
    fn free_unlinked(&mut self, agno: u32, at: usize) -> Result<()> {
        let mut next = self.field(agno, Header::Agi, at)?;
        let mut seen = HashSet::new();
        while next != NO_INODE {
            if !seen.insert(next) {
                return Err(damaged(agno, "a list of unlinked inodes goes round in a circle"));
            }
            let node = self.view().inode(Inode(self.inode_number(agno, next)))?;
            if node.links() != 0 {
                return Err(damaged(agno, "an inode with a name is unlinked"));
            }
            next = node.next_unlinked();
            self.free_node(node)?;
        }
        if !seen.is_empty() {
            self.set_field(agno, Header::Agi, at, NO_INODE)?;
        }
        Ok(())
    }

    /// Frees the blocks of a group that were to become copies.
    fn free_staged(&mut self, agno: u32) -> Result<()> {
        let mut records = Vec::new();
        self.walk(agno, Tree::Refcount, (u64::from(STAGING), 0, 0), &mut |record| {
            if be32(record, 0) & STAGING != 0 {
                records.push(record.to_vec());
            }
            ControlFlow::Continue(())
        })?;
        for record in records {
            self.remove(agno, Tree::Refcount, &record)?;
            let run = Run { agno, agbno: be32(&record, 0) & !STAGING, len: be32(&record, 4) };
            self.remove_owner(run, OWNER_COW, 0)?;
            self.release(run)?;
        }
        Ok(())
    }
}
