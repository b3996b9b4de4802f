//! Free space that can be proved: from bitmaps whose checksum, count and place all agree.

use std::ops::{ControlFlow, Range};

use super::believed;
use super::bitmap::{ClearRuns, is_set, within};
use super::features::{COMPAT_SPARSE_SUPER2, RO_COMPAT_SHARED_BLOCKS};
use super::group::BLOCK_UNINIT;
use super::view::View;
use crate::error::Result;

impl View<'_> {
    /// Visits the free byte ranges of the volume, ascending. A group of which anything is wrong has none; neither has a file
    /// system whose allocation state cannot be believed.
    pub(super) fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        let strange = self.sb.is_bigalloc()
            || self.sb.compat() & COMPAT_SPARSE_SUPER2 != 0
            || self.sb.ro_compat() & RO_COMPAT_SHARED_BLOCKS != 0;
        if strange || !self.sb.is_sound() {
            return Ok(());
        }
        // A group whose descriptor is damaged hides where metadata lies, which may be in any group.
        let Some(metadata) = believed(self.metadata(true))? else {
            return Ok(());
        };
        let bs = self.sb.block_size;
        let mut pending: Option<Range<u64>> = None;
        for number in 0..self.sb.groups {
            for run in self.free_of_group(number, &metadata)? {
                match &mut pending {
                    Some(last) if last.end == run.start => last.end = run.end,
                    _ => {
                        if let Some(last) = pending.replace(run)
                            && visit(last.start.saturating_mul(bs.get())..last.end.saturating_mul(bs.get())).is_break()
                        {
                            return Ok(());
                        }
                    }
                }
            }
        }
        if let Some(last) = pending {
            let _ = visit(last.start.saturating_mul(bs.get())..last.end.saturating_mul(bs.get()));
        }
        Ok(())
    }

    /// The free blocks of one group; none if its bitmap contradicts its checksum, its count or the place of metadata.
    fn free_of_group(&self, number: u32, metadata: &[Range<u64>]) -> Result<Vec<Range<u64>>> {
        let (start, len) = (self.sb.group_start(number), self.sb.group_len(number));
        let read = self.group(number).and_then(|group| self.block_bitmap(&group).map(|bytes| (group, bytes)));
        let Some((group, bytes)) = believed(read)? else {
            return Ok(Vec::new());
        };
        let runs: Vec<Range<u64>> = ClearRuns::new(&bytes, 0, len).collect();
        let count = runs.iter().map(|run| run.end.saturating_sub(run.start)).fold(0, u64::saturating_add);
        let first = metadata.partition_point(|range| range.end <= start);
        let end = start.saturating_add(len);
        let own = metadata.iter().skip(first).take_while(|range| range.start < end);
        let all_used = own.map(|range| within(range, start, len)).all(|mut bits| bits.all(|bit| is_set(&bytes, bit)));
        // The bitmap of a group that never wrote one is made from where its own metadata lies. Other groups' metadata may be
        // there only if a bitmap says so.
        let agrees = count == u64::from(group.free_blocks());
        if !all_used || !agrees {
            tracing::debug!(
                group = number,
                uninit = group.has(&self.sb, BLOCK_UNINIT),
                "the block bitmap is not believed"
            );
            return Ok(Vec::new());
        }
        Ok(runs.into_iter().map(|run| start.saturating_add(run.start)..start.saturating_add(run.end)).collect())
    }
}
