//! The content of files: blocks that are the file's own are written where they are; shared ones, and holes, get new blocks.

use std::sync::Arc;

use super::fork::{Body, Map, owner_offset};
use super::{Data, Writer};
use crate::disk::bytes::{long, put, size};
use crate::error::{Error, Kind, Result};
use crate::fs::xfs::map::Extent;
use crate::fs::xfs::node::{Fork, Node};

/// Bytes of the longest file.
const LONGEST: u64 = i64::MAX.unsigned_abs();

impl Writer<'_> {
    /// Writes `content` at `offset` and lets the file end there; nothing is between its old end and `offset`. Blocks behind
    /// the end are freed if `truncate`. `node` is not stored.
    pub(super) fn write_content(&mut self, node: &mut Node, offset: u64, content: &[u8], truncate: bool) -> Result<()> {
        let end = offset.checked_add(long(content.len())).filter(|end| *end <= LONGEST);
        let end = end.ok_or_else(|| Error::new(Kind::Usage, "xfs.limit", "a file would be too long"))?;
        let (first, last) = (offset.wrapping_shr(self.sb.blocklog), end.div_ceil(self.sb.block_size()));
        let whole = Arc::new(self.whole_blocks(node, (first, last), offset, content)?);
        let old = self.map_of(node, Fork::Data)?;
        let (kept, dropped) = self.sort_out(node, &old, (first, last), truncate)?;
        let taken = self.fill_holes(node, &kept, (first, last))?;
        for extent in dropped {
            self.drop_extent(node.number, Fork::Data, extent)?;
        }
        let mut all: Vec<Extent> = kept.into_iter().chain(taken).collect();
        all.sort_by_key(|extent| extent.startoff);
        let mut map = Map { tables: old.tables.clone(), ..Map::default() };
        all.into_iter().for_each(|extent| map.push(extent));
        for part in map.extents.iter().filter_map(|extent| extent.clip(first, last)) {
            let place = self.sb.run(part.startblock, part.blockcount)?;
            let start = size(self.sb.bytes(part.startoff.saturating_sub(first)));
            let stop = start.saturating_add(size(self.sb.bytes(part.blockcount)));
            self.data.push(Data { offset: place, bytes: Arc::clone(&whole), range: start..stop });
        }
        if map != old {
            let attr = self.body(node, Fork::Attr)?;
            self.put_bodies(node, Body::Mapped(map), attr)?;
        }
        node.set_size(end);
        Ok(())
    }

    /// The bytes of blocks `first` to `last`: what is before `offset` as it is, zeros behind the content.
    fn whole_blocks(&self, node: &Node, (first, last): (u64, u64), offset: u64, content: &[u8]) -> Result<Vec<u8>> {
        let mut whole = vec![0; size(self.sb.bytes(last.saturating_sub(first)))];
        let skip = size(offset.saturating_sub(self.sb.bytes(first)));
        if let Some(head) = whole.get_mut(..skip) {
            self.view().read_content(node, head, self.sb.bytes(first))?;
        }
        put(&mut whole, skip, content);
        Ok(whole)
    }

    /// The extents that stay, all written between `first` and `last`, and those that go.
    fn sort_out(
        &mut self,
        node: &Node,
        old: &Map,
        (first, last): (u64, u64),
        truncate: bool,
    ) -> Result<(Vec<Extent>, Vec<Extent>)> {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for extent in &old.extents {
            kept.extend(extent.clip(0, first));
            if let Some(part) = extent.clip(first, last) {
                let run = self.run_at(part.startblock, part.blockcount)?;
                let shared = self.shared_parts(run)?;
                let (own, others) = apart(part, run.agbno, &shared);
                dropped.extend(others);
                for own in own {
                    if own.unwritten {
                        let run = self.run_at(own.startblock, own.blockcount)?;
                        self.remove_owner(run, node.number, owner_offset(Fork::Data, own.startoff, true))?;
                        self.add_owner(run, node.number, owner_offset(Fork::Data, own.startoff, false))?;
                    }
                    kept.push(Extent { unwritten: false, ..own });
                }
            }
            let behind = extent.clip(last, u64::MAX);
            if truncate { dropped.extend(behind) } else { kept.extend(behind) }
        }
        Ok((kept, dropped))
    }

    /// New blocks for what `kept` leaves out between `first` and `last`.
    fn fill_holes(&mut self, node: &Node, kept: &[Extent], (first, last): (u64, u64)) -> Result<Vec<Extent>> {
        let mut taken = Vec::new();
        let mut next = first;
        let mut goal = self.goal(node.number);
        let ends = kept.iter().copied().chain([Extent { startoff: last, ..Extent::default() }]);
        for extent in ends {
            let stop = extent.startoff.min(last);
            if next < stop {
                taken.extend(self.fill(node.number, Fork::Data, next, stop.saturating_sub(next), goal)?);
            }
            next = next.max(extent.end());
            goal = extent.startblock.saturating_add(extent.blockcount);
        }
        Ok(taken)
    }
}

/// The parts of `extent`, which begins at block `agbno` of its group, that are not in `shared`, and those that are.
fn apart(extent: Extent, agbno: u32, shared: &[super::Run]) -> (Vec<Extent>, Vec<Extent>) {
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let logical = |at: u32| extent.startoff.saturating_add(u64::from(at.saturating_sub(agbno)));
    let mut next = extent.startoff;
    for run in shared {
        let (start, end) = (logical(run.agbno), logical(run.agbno.saturating_add(run.len)));
        own.extend(extent.clip(next, start));
        others.extend(extent.clip(start, end));
        next = end;
    }
    own.extend(extent.clip(next, u64::MAX));
    (own, others)
}
