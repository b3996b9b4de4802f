//! Checksums of data: items that cover any number of sectors.

use std::ops::{ControlFlow, Range};

use super::super::Core;
use super::super::key::{Key, id, kind};
use super::super::node::ITEM;
use crate::disk::bytes::{long, size};
use crate::error::Result;

impl Core {
    /// Removes the checksums of `range`.
    pub(super) fn remove_sums(&mut self, range: Range<u64>) -> Result<()> {
        let Some(tree) = self.sum_tree.as_ref() else { return Ok(()) };
        let (sector, len) = (u64::from(self.store.sb.sectorsize), self.store.sb.checksum.len());
        let key = |at| Key::new(id::EXTENT_CSUM, kind::EXTENT_CSUM, at);
        let before = self.store.floor(tree, key(range.start))?;
        let from = before.filter(|(found, _)| found.is(id::EXTENT_CSUM, kind::EXTENT_CSUM));
        let from = from.map_or(range.start, |(found, _)| found.offset);
        let mut edits = Vec::new();
        self.store.scan_kind(tree, (id::EXTENT_CSUM, kind::EXTENT_CSUM, from), &mut |start, item| {
            if start >= range.end {
                return Ok(ControlFlow::Break(()));
            }
            let sectors = long(item.len().checked_div(len).unwrap_or(0));
            let end = start.saturating_add(sectors.saturating_mul(sector));
            if end <= range.start {
                return Ok(ControlFlow::Continue(()));
            }
            edits.push((key(start), None));
            let index = |at: u64| size(at.saturating_sub(start).checked_div(sector).unwrap_or(0)).saturating_mul(len);
            if start < range.start {
                edits.push((key(start), item.get(..index(range.start)).map(<[u8]>::to_vec)));
            }
            if range.end < end {
                edits.push((key(range.end), item.get(index(range.end)..).map(<[u8]>::to_vec)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        edits.into_iter().try_for_each(|(key, item)| self.set(id::CSUM_TREE, key, item))
    }

    /// Stores the checksums of sectors that lie together from `start` on.
    pub(super) fn put_sums(&mut self, start: u64, sums: &[u8]) -> Result<()> {
        let (sector, len) = (u64::from(self.store.sb.sectorsize), self.store.sb.checksum.len());
        let sectors = long(sums.len().checked_div(len).unwrap_or(0));
        self.remove_sums(start..start.saturating_add(sectors.saturating_mul(sector)))?;
        // As the kernel bounds it: two items' heads stay free in a leaf.
        let room = self.writing.mold()?.room().saturating_sub(ITEM.saturating_mul(2));
        let most = room.checked_div(len).unwrap_or(0).saturating_sub(1).max(1);
        let mut at = start;
        for part in sums.chunks(most.saturating_mul(len)) {
            self.set(id::CSUM_TREE, Key::new(id::EXTENT_CSUM, kind::EXTENT_CSUM, at), Some(part.to_vec()))?;
            at = at.saturating_add(long(part.len().checked_div(len).unwrap_or(0)).saturating_mul(sector));
        }
        Ok(())
    }
}
