//! Blocks that are in use and of which nobody reads anything: inodes that were never used, and the log of an empty journal.

use std::ops::Range;

use super::believed;
use super::bitmap::{is_set, merged};
use super::features::RO_COMPAT_SHARED_BLOCKS;
use super::group::{Group, table_blocks};
use super::journal;
use super::view::View;
use crate::disk::bytes::long;
use crate::error::Result;

impl View<'_> {
    /// The byte ranges that may as well read as zeros, ascending. What is not as it should be has none.
    pub(super) fn idle_ranges(&self) -> Result<Vec<Range<u64>>> {
        if self.sb.ro_compat() & RO_COMPAT_SHARED_BLOCKS != 0 || !self.sb.is_sound() {
            return Ok(Vec::new());
        }
        let Some(metadata) = believed(self.metadata(true))? else {
            return Ok(Vec::new());
        };
        let mut idle = self.idle_log(&metadata)?;
        for number in 0..self.sb.groups {
            idle.extend(believed(self.group(number).and_then(|group| self.idle_inodes(&group)))?.flatten());
        }
        let bs = self.sb.block_size.get();
        let bytes = |range: Range<u64>| range.start.saturating_mul(bs)..range.end.saturating_mul(bs);
        Ok(merged(idle).into_iter().map(bytes).collect())
    }

    /// The log, where it is empty and none of it lies where metadata does.
    fn idle_log(&self, metadata: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let log = believed(journal::idle(self.blocks, &self.sb))?.unwrap_or_default();
        let is_apart = |run: &Range<u64>| {
            let next = metadata.partition_point(|range| range.end <= run.start);
            metadata.get(next).is_none_or(|range| run.end <= range.start)
        };
        Ok(if log.iter().all(is_apart) { log } else { Vec::new() })
    }

    /// The whole blocks at the end of a group's table that hold no inode that was ever used, where the bitmap says so too.
    fn idle_inodes(&self, group: &Group) -> Result<Option<Range<u64>>> {
        if !self.sb.has_group_csum() {
            return Ok(None);
        }
        let inodes = self.sb.inodes_per_group.get();
        let used = inodes.saturating_sub(group.itable_unused());
        let bitmap = self.inode_bitmap(group)?;
        if (u64::from(used)..u64::from(inodes)).any(|bit| is_set(&bitmap, bit)) {
            return Ok(None);
        }
        let bytes = u64::from(used).saturating_mul(long(self.sb.inode_size));
        let table = group.inode_table();
        let first = table.saturating_add(bytes.div_ceil(self.sb.block_size.get()));
        Ok(Some(first..table.saturating_add(table_blocks(&self.sb))))
    }
}
