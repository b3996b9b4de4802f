//! A disk whose provably free ranges are holes, so that convert, serve and verify agree on what is elided.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::{Disk, Extent, ExtentKind, Fingerprint, Hints, HostRange, SectorSize, Visit};
use crate::error::Result;
use crate::limits;

/// What tells its free space: a file system on a volume. The pipeline adapts `fs` to this.
pub trait FreeSpace {
    /// Visits the byte ranges of the volume that are provably free, ascending.
    ///
    /// # Errors
    /// When the allocation state cannot be read. What was visited before is still free.
    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()>;
}

/// Sorted, disjoint, non-empty ranges of a disk, at most [`limits::MAX_FREE_RANGES`] of them.
///
/// When there are more, the shortest are dropped first: not eliding is always safe.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FreeMap {
    ranges: Vec<Range<u64>>,
    /// Ranges below this length are no longer taken; 0 until the bound was reached once.
    shortest: u64,
}

impl FreeMap {
    /// An empty map: nothing is elided.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the free space of a volume that lies at `volume` of the disk. Anything outside of the volume is ignored, and
    /// nothing is added at all when `space` fails.
    ///
    /// # Errors
    /// What `space` returned.
    pub fn add(&mut self, volume: &Range<u64>, space: &dyn FreeSpace) -> Result<()> {
        let mut found = Self { ranges: Vec::new(), shortest: self.shortest };
        space.free_ranges(&mut |range| {
            let start = volume.start.saturating_add(range.start);
            let end = volume.start.saturating_add(range.end).min(volume.end);
            found.insert(start..end);
            ControlFlow::Continue(())
        })?;
        self.shortest = found.shortest;
        self.add_ranges(found.ranges);
        Ok(())
    }

    /// Adds ranges of the disk in whatever order.
    pub fn add_ranges(&mut self, mut ranges: Vec<Range<u64>>) {
        ranges.append(&mut self.ranges);
        ranges.sort_by_key(|range| range.start);
        ranges.into_iter().for_each(|range| self.insert(range));
    }

    /// Total bytes in the map.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add)
    }

    /// The ranges, ascending and disjoint.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Appends `range`, which must not start before the last one does; one that does is dropped.
    fn insert(&mut self, range: Range<u64>) {
        if let Some(last) = self.ranges.last_mut() {
            if range.start < last.start {
                return;
            }
            if range.start <= last.end {
                last.end = last.end.max(range.end);
                return;
            }
        }
        let len = range.end.saturating_sub(range.start);
        if len == 0 || len < self.shortest {
            return;
        }
        self.ranges.push(range);
        while self.ranges.len() > limits::MAX_FREE_RANGES {
            self.shortest = self.shortest.max(4096).saturating_mul(2);
            let shortest = self.shortest;
            self.ranges.retain(|range| range.end.saturating_sub(range.start) >= shortest);
        }
    }

    /// Cuts `range` into pieces that are free and pieces that are not, in order.
    fn cut(&self, range: Range<u64>, mut each: impl FnMut(Range<u64>, bool) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut next = range.start;
        let first = self.ranges.partition_point(|free| free.end <= range.start);
        for free in self.ranges.iter().skip(first).take_while(|free| free.start < range.end) {
            if next < free.start {
                if each(next..free.start, false)?.is_break() {
                    return Ok(());
                }
                next = free.start;
            }
            let end = free.end.min(range.end);
            if each(next..end, true)?.is_break() {
                return Ok(());
            }
            next = end;
        }
        if next < range.end {
            let _ = each(next..range.end, false)?;
        }
        Ok(())
    }
}

impl fmt::Debug for FreeMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FreeMap({} ranges, {} bytes)", self.ranges.len(), self.bytes())
    }
}

/// A disk with the ranges of a [`FreeMap`] as holes: they read as zeros, whatever lies there.
#[derive(Debug)]
pub struct Trimmed {
    disk: Arc<dyn Disk>,
    free: FreeMap,
}

impl Trimmed {
    /// `disk` without what `free` holds.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, free: FreeMap) -> Self {
        Self { disk, free }
    }

    /// What is elided.
    #[must_use]
    pub fn free(&self) -> &FreeMap {
        &self.free
    }
}

impl Disk for Trimmed {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> SectorSize {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        let mut rest = buf;
        self.free.cut(offset..offset.saturating_add(len), |range, free| {
            let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
            if let Some((head, tail)) = std::mem::take(&mut rest).split_at_mut_checked(len) {
                rest = tail;
                if free {
                    head.fill(0);
                } else {
                    self.disk.read_at(head, range.start)?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.free.cut(range, |range, free| {
            if free {
                return Ok(visit(Extent { range, kind: ExtentKind::Hole, depth: 0, place: None }));
            }
            let mut flow = ControlFlow::Continue(());
            self.disk.extents(range, &mut |extent| {
                flow = visit(extent);
                flow
            })?;
            Ok(flow)
        })
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let mut found = None;
        self.free.cut(range, |range, free| {
            if !free {
                found = self.disk.host(range)?;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn prefetch(&self, range: Range<u64>) {
        let _ = self.free.cut(range, |range, free| {
            if !free {
                self.disk.prefetch(range);
            }
            Ok(ControlFlow::Continue(()))
        });
    }

    fn hints(&self) -> Hints {
        self.disk.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let mut hasher = blake3::Hasher::new();
        for range in self.free.ranges() {
            hasher.update(&range.start.to_le_bytes());
            hasher.update(&range.end.to_le_bytes());
        }
        Ok(Fingerprint::of(&[&self.disk.fingerprint()?.0, hasher.finalize().as_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("trim", format!("{} bytes free", self.free.bytes()))
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.disk)]
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Checked, Memory, collect_extents};
    use crate::error::Error;

    struct List(Vec<Range<u64>>, bool);

    impl FreeSpace for List {
        fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
            for range in &self.0 {
                if visit(range.clone()).is_break() {
                    break;
                }
            }
            if self.1 { Err(Error::corrupt("ext.corrupt", "half way")) } else { Ok(()) }
        }
    }

    #[test]
    fn ranges_are_shifted_clipped_and_merged() {
        let mut map = FreeMap::new();
        map.add(&(100..200), &List(vec![0..10, 10..20, 50..500, 600..700], false)).unwrap();
        map.add(&(0..50), &List(vec![5..10, 3..4], false)).unwrap();
        assert_eq!(map.ranges(), [5..10, 100..120, 150..200]);
        assert_eq!(map.bytes(), 75);
    }

    #[test]
    fn ranges_in_any_order_are_merged() {
        let mut map = FreeMap::new();
        map.add_ranges(vec![50..60, 10..20, 0..5]);
        map.add_ranges(vec![60..70, 4..12, 90..90]);
        assert_eq!(map.ranges(), [0..20, 50..70]);
    }

    #[test]
    fn a_volume_that_fails_half_way_elides_nothing() {
        let mut map = FreeMap::new();
        assert!(map.add(&(0..100), &List(vec![0..10, 20..30], true)).is_err());
        assert_eq!(map.ranges(), []);
    }

    #[test]
    fn the_number_of_ranges_is_bounded_and_the_short_ones_go_first() {
        let bound = u64::try_from(limits::MAX_FREE_RANGES).unwrap();
        for (count, dropped) in [(bound - 1, false), (bound, false), (bound + 1, true)] {
            let mut many: Vec<_> = (0..count).map(|i| i * 8192..i * 8192 + 1).collect();
            let mut map = FreeMap::new();
            many.push(count * 8192..count * 8192);
            map.add(&(0..u64::MAX), &List(many, false)).unwrap();
            assert_eq!(map.ranges().len() < limits::MAX_FREE_RANGES - 1, dropped, "{count}");
        }
        let long = (0..bound + 1).map(|i| i * (1 << 20)..i * (1 << 20) + if i % 2 == 0 { 4096 } else { 65536 });
        let mut map = FreeMap::new();
        map.add(&(0..u64::MAX), &List(long.collect(), false)).unwrap();
        assert_eq!(map.bytes(), bound / 2 * 65536);
    }

    proptest! {
        #[test]
        fn reads_and_extents_agree_with_a_model(cuts in proptest::collection::vec(0_u64..256, 0..12), ask in (0_u64..256, 0_u64..256)) {
            let mut sorted = cuts;
            sorted.sort_unstable();
            let list: Vec<Range<u64>> = sorted.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect();
            let mut model: Vec<u8> = (0..=255).map(|byte: u8| byte | 1).collect();
            for range in &list {
                model[range.start as usize..range.end as usize].fill(0);
            }
            let mut map = FreeMap::new();
            map.add(&(0..256), &List(list, false)).unwrap();
            let disk: Arc<dyn Disk> = Checked::wrap(Memory::new((0..=255).map(|byte: u8| byte | 1).collect()));
            let trimmed = Checked::wrap(Trimmed::new(disk, map));
            let (start, end) = (ask.0.min(ask.1), ask.0.max(ask.1));
            let mut buf = vec![9; (end - start) as usize];
            trimmed.read_at(&mut buf, start).unwrap();
            prop_assert_eq!(&buf, &model[start as usize..end as usize]);
            for extent in collect_extents(&*trimmed, start..end).unwrap() {
                let zeros = model[extent.range.start as usize..extent.range.end as usize].iter().all(|byte| *byte == 0);
                prop_assert_eq!(zeros, extent.kind == ExtentKind::Hole);
            }
        }
    }
}
