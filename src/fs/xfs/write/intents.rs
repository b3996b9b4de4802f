//! Finishes what was begun when the machine stopped, in the order of the log, as the kernel does when it has replayed it.

use super::fork::{Body, Map, owner_offset};
use super::reverse::{ATTR_FORK, OWNER_COW};
use super::tree::{BMBT, UNWRITTEN, damaged};
use super::{Run, Writer};
use crate::error::{Error, Result};
use crate::fs::Inode;
use crate::fs::xfs::corrupt;
use crate::fs::xfs::log::{Intent, Part};
use crate::fs::xfs::map::Extent;
use crate::fs::xfs::node::{Fork, Node};

impl Writer<'_> {
    /// Finishes all of `intents`.
    pub(in crate::fs::xfs) fn finish_intents(&mut self, intents: Vec<Intent>) -> Result<()> {
        for intent in intents {
            self.finish_intent(intent)?;
        }
        Ok(())
    }

    fn finish_intent(&mut self, intent: Intent) -> Result<()> {
        match intent {
            Intent::Free(part) => {
                let run = self.run_of(part)?;
                self.remove_any_owner(run)?;
                self.release(run)
            }
            Intent::AddOwner(part) => {
                let run = self.run_of(part)?;
                self.add_owner(run, part.owner, offset_of(part))?;
                self.fill_list(run.agno)
            }
            Intent::RemoveOwner(part) => {
                let run = self.run_of(part)?;
                self.remove_owner(run, part.owner, offset_of(part))?;
                self.fill_list(run.agno)
            }
            Intent::Convert(part) => {
                let run = self.run_of(part)?;
                self.remove_owner(run, part.owner, offset_of(part) ^ UNWRITTEN)?;
                self.add_owner(run, part.owner, offset_of(part))?;
                self.fill_list(run.agno)
            }
            Intent::Share(part) => {
                let run = self.run_of(part)?;
                self.share(run)
            }
            Intent::Unshare(part) => {
                let run = self.run_of(part)?;
                self.unshare(run)?.into_iter().try_for_each(|alone| self.release(alone))
            }
            Intent::Stage(part) => {
                let run = self.run_of(part)?;
                self.stage(run)
            }
            Intent::Unstage(part) => {
                let run = self.run_of(part)?;
                self.unstage(run)
            }
            Intent::Map(part) => self.remap(part, Self::map_part),
            Intent::Unmap(part) => self.remap(part, Self::unmap_part),
            Intent::Rename(pointers) => self.finish_pointers(pointers),
        }
    }

    fn run_of(&self, part: Part) -> Result<Run> {
        if part.len == 0 {
            Err(corrupt("something was begun with no blocks"))
        } else {
            self.run_at(part.start, part.len)
        }
    }

    /// Changes the blocks of the inode that a part names.
    fn remap(&mut self, part: Part, work: impl FnOnce(&mut Self, &Node, Part, &mut Map) -> Result<()>) -> Result<()> {
        let mut node = self.view().inode(Inode(part.owner))?;
        if node.is_realtime() {
            return Err(crate::fs::xfs::unsupported("the log holds a change of a file on a realtime device"));
        }
        let mut map = self.map_of(&node, fork_of(part))?;
        work(self, &node, part, &mut map)?;
        let (data, attr) = match fork_of(part) {
            Fork::Data => (Body::Mapped(map), self.body(&node, Fork::Attr)?),
            Fork::Attr => (self.body(&node, Fork::Data)?, Body::Mapped(map)),
        };
        self.put_bodies(&mut node, data, attr)?;
        self.put_node(&mut node)
    }

    fn map_part(&mut self, node: &Node, part: Part, map: &mut Map) -> Result<()> {
        let run = self.run_of(part)?;
        let end = part.offset.saturating_add(part.len);
        if map.extents.iter().any(|extent| extent.clip(part.offset, end).is_some()) {
            return Err(other_than_said(node));
        }
        self.add_owner(run, node.number, owner_offset(fork_of(part), part.offset, part.is_unwritten))?;
        self.fill_list(run.agno)?;
        let new = Extent {
            startoff: part.offset,
            startblock: part.start,
            blockcount: part.len,
            unwritten: part.is_unwritten,
        };
        let mut all: Vec<Extent> = map.extents.drain(..).chain([new]).collect();
        all.sort_by_key(|extent| extent.startoff);
        all.into_iter().for_each(|extent| map.push(extent));
        Ok(())
    }

    /// Takes from the inode what it still has of a part.
    fn unmap_part(&mut self, node: &Node, part: Part, map: &mut Map) -> Result<()> {
        let end = part.offset.saturating_add(part.len);
        for extent in std::mem::take(&mut map.extents) {
            if let Some(gone) = extent.clip(part.offset, end) {
                if gone.startblock != part.start.saturating_add(gone.startoff.saturating_sub(part.offset)) {
                    return Err(other_than_said(node));
                }
                let run = self.run_at(gone.startblock, gone.blockcount)?;
                self.remove_owner(run, node.number, owner_offset(fork_of(part), gone.startoff, gone.unwritten))?;
                self.fill_list(run.agno)?;
            }
            let rest = extent.clip(0, part.offset).into_iter().chain(extent.clip(end, u64::MAX));
            rest.for_each(|extent| map.push(extent));
        }
        Ok(())
    }

    /// Removes the owner of blocks, if they have one still.
    fn remove_any_owner(&mut self, run: Run) -> Result<()> {
        if !self.sb.features.has_rmapbt() {
            return Ok(());
        }
        match &self.owners_of(run)?[..] {
            [] => Ok(()),
            [(owner, offset)] => self.remove_owner(run, *owner, *offset),
            _ => Err(damaged(run.agno, "a block that was to be freed has several owners")),
        }
    }

    fn stage(&mut self, run: Run) -> Result<()> {
        self.put_staged(run)?;
        self.fill_list(run.agno)
    }

    fn unstage(&mut self, run: Run) -> Result<()> {
        self.cut_staged(run)?;
        self.fill_list(run.agno)
    }
}

fn fork_of(part: Part) -> Fork {
    if part.is_attr { Fork::Attr } else { Fork::Data }
}

/// The offset in a reverse mapping, with its flags. What is no inode's has none.
fn offset_of(part: Part) -> u64 {
    if part.owner >= OWNER_COW {
        return 0;
    }
    let flag = |is: bool, flag: u64| if is { flag } else { 0 };
    part.offset | flag(part.is_attr, ATTR_FORK) | flag(part.is_bmbt, BMBT) | flag(part.is_unwritten, UNWRITTEN)
}

fn other_than_said(node: &Node) -> Error {
    corrupt(format!("inode {} has other blocks than the log says", node.number))
}
