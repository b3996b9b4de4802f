//! Free space that can be proved: where no chunk lies, and within chunks what the extent tree leaves.

use std::ops::{ControlFlow, Range};

use super::chunk::{Chunk, Profile};
use super::key::{Key, id, kind};
use super::superblock::OFFSETS;
use super::tree::Tree;
use super::{Core, corrupt, features, used};
use crate::disk::bytes::le64;
use crate::disk::ranges::RangeSet;
use crate::error::{Kind, Result};
use crate::limits;

/// What the kernel leaves alone at the front of every device (`BTRFS_DEVICE_RANGE_RESERVED`).
pub(super) const RESERVED: u64 = 1 << 20;
/// What it leaves alone around each superblock within a chunk.
pub(super) const SUPERBLOCK: u64 = 64 << 10;

/// Free ranges, the longest ones when there are too many.
#[derive(Default)]
struct Free {
    set: RangeSet,
    shortest: u64,
}

impl Free {
    fn insert(&mut self, range: Range<u64>) {
        if range.end.saturating_sub(range.start) < self.shortest {
            return;
        }
        self.set.insert(range);
        while self.set.len() > limits::MAX_FREE_RANGES {
            self.shortest = self.shortest.max(4096).saturating_mul(2);
            let short = |range: &Range<u64>| range.end.saturating_sub(range.start) < self.shortest;
            let dropped: Vec<_> = self.set.iter().filter(short).collect();
            dropped.into_iter().for_each(|range| self.set.remove(range));
        }
    }
}

impl Core {
    /// Visits the free byte ranges of the volume, ascending; none when anything about them contradicts itself.
    pub(super) fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        let log = (self.store.sb.log_root.bytenr != 0).then_some("there is a log to replay");
        if let Some(why) = self.unproved.or(log) {
            tracing::debug!(why, "free space cannot be proved");
            return Ok(());
        }
        let free = match self.prove() {
            Err(error) if error.kind() == Kind::Corrupt => {
                tracing::debug!(%error, "the allocation state is not believed");
                return Ok(());
            }
            other => other?,
        };
        for range in free.set.iter() {
            if visit(range).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn prove(&self) -> Result<Free> {
        let mut free = self.outside_of_chunks()?;
        let sb = &self.store.sb;
        let no_tree = || corrupt("there is no tree of extents");
        let extents = self.store.find_tree(id::EXTENT_TREE)?.ok_or_else(no_tree)?;
        let groups = if sb.compat_ro & features::COMPAT_RO_BLOCK_GROUP_TREE == 0 {
            extents.clone()
        } else {
            self.store.find_tree(id::BLOCK_GROUP_TREE)?.ok_or_else(no_tree)?
        };
        for chunk in self.store.chunks.iter() {
            let item = self.store.get(&groups, Key::new(chunk.start, kind::BLOCK_GROUP_ITEM, chunk.len))?;
            let item = item.ok_or_else(|| corrupt("a chunk without a block group").offset(chunk.start))?;
            self.inside_of(chunk, &extents, used(&item), &mut free)?;
        }
        free.set.remove(0..RESERVED);
        OFFSETS.iter().for_each(|at| free.set.remove(*at..at.saturating_add(SUPERBLOCK)));
        Ok(free)
    }

    /// What lies in no chunk, if the chunk tree and the device tree agree on that.
    fn outside_of_chunks(&self) -> Result<Free> {
        let (sb, store) = (&self.store.sb, &self.store);
        let disk_len = store.devices.iter().map(|device| device.disk.len()).min().unwrap_or(0);
        let len = self.device_lens.get(&sb.devid).copied().unwrap_or(0).min(sb.device_len).min(disk_len);
        let mut free = Free::default();
        free.insert(RESERVED..len.max(RESERVED));
        let mut taken = RangeSet::default();
        let mut expected = Vec::new();
        for chunk in store.chunks.iter() {
            for stripe in &chunk.stripes {
                let range = stripe.offset..stripe.offset.saturating_add(chunk.stripe_len());
                let crosses = taken.containing(range.start).is_some()
                    || taken.next_start(range.start).is_some_and(|start| start < range.end);
                if stripe.devid != sb.devid || range.end > len || crosses {
                    return Err(corrupt("two chunks share their place, or one lies outside").offset(range.start));
                }
                expected.push((range.start, chunk.stripe_len(), chunk.start));
                free.set.remove(range.clone());
                taken.insert(range);
            }
        }
        expected.sort_unstable();
        let mut found = Vec::new();
        let tree = store.find_tree(id::DEV_TREE)?.ok_or_else(|| corrupt("there is no tree of devices"))?;
        store.scan_kind(&tree, (sb.devid, kind::DEV_EXTENT, 0), &mut |offset, item| {
            found.push((offset, le64(item, 24), le64(item, 16)));
            let more = found.len() <= expected.len();
            Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if found != expected {
            return Err(corrupt("the trees of chunks and devices contradict each other"));
        }
        Ok(free)
    }

    /// What the extent tree leaves of a chunk, if it comes to what the block group says.
    fn inside_of(&self, chunk: &Chunk, extents: &Tree, used: u64, free: &mut Free) -> Result<()> {
        let nodesize = u64::from(self.store.sb.nodesize);
        let (mut next, mut counted) = (chunk.start, 0_u64);
        let mut copies = Vec::new();
        // Copies that alternate between places have no free range that is of any use.
        if !matches!(chunk.profile, Profile::Raid10 | Profile::Raid5 | Profile::Raid6)
            && (chunk.profile != Profile::Raid0 || chunk.stripes.len() == 1)
        {
            copies.extend(chunk.stripes.iter().map(|stripe| stripe.offset));
        }
        let mut gaps = Free::default();
        let mut gap = |range: Range<u64>| gaps.insert(range);
        self.store.scan(extents, Key::new(chunk.start, 0, 0), &mut |key, _| {
            if key.objectid >= chunk.end() {
                return Ok(ControlFlow::Break(()));
            }
            let len = match key.kind {
                kind::EXTENT_ITEM => key.offset,
                kind::METADATA_ITEM => nodesize,
                _ => return Ok(ControlFlow::Continue(())),
            };
            let end = key.objectid.checked_add(len).filter(|end| *end <= chunk.end() && len > 0);
            let end = end.filter(|_| key.objectid >= next);
            let end =
                end.ok_or_else(|| corrupt("two extents overlap, or one leaves its chunk").offset(key.objectid))?;
            if next < key.objectid {
                gap(next..key.objectid);
            }
            counted = counted.saturating_add(len);
            next = end;
            Ok(ControlFlow::Continue(()))
        })?;
        if next < chunk.end() {
            gap(next..chunk.end());
        }
        if counted != used {
            return Err(corrupt("a block group does not say what its extents do").expected(used).found(counted));
        }
        // Where one copy would cover a superblock, the kernel uses none.
        for (copy, at) in copies.iter().flat_map(|copy| OFFSETS.map(|at| (copy, at))) {
            if let Some(at) = at.checked_sub(*copy).and_then(|offset| chunk.start.checked_add(offset)) {
                gaps.set.remove(at..at.saturating_add(SUPERBLOCK));
            }
        }
        for (copy, range) in copies.iter().flat_map(|copy| gaps.set.iter().map(move |range| (copy, range))) {
            let place = |at: u64| copy.saturating_add(at.saturating_sub(chunk.start));
            free.insert(place(range.start)..place(range.end));
        }
        Ok(())
    }
}
