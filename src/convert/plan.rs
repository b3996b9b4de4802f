//! What to read: chunks of the disk that have data, window by window, in the source's order within a window.
//!
//! Memory does not depend on the disk: one window's chunks are known at a time.

use std::collections::{BTreeSet, VecDeque};
use std::ops::{ControlFlow, Range};

use super::sink::Order;
use crate::disk::{Disk, Extent};
use crate::error::Result;

/// Bytes of a block: the unit in which zeros are looked for and left out of digests. The default cluster of qcow2.
pub(super) const BLOCK: u64 = 64 << 10;

/// Bytes of a chunk: what one worker reads, digests and writes at a time. No cluster is larger.
pub(super) const CHUNK: u64 = 2 << 20;

/// Bytes of a window: chunks are sorted within it.
pub(super) const WINDOW: u64 = 1 << 30;

/// Blocks of one chunk, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks(u32);

impl Blocks {
    /// Every block.
    pub(super) const ALL: Self = Self(u32::MAX);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a number with bit n set for block n.
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn insert(&mut self, block: u32) {
        self.0 |= 1 << block;
    }

    /// The byte ranges of runs of blocks, within a chunk of `len` bytes.
    pub(super) fn ranges(self, len: usize) -> impl Iterator<Item = Range<usize>> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let first = left.trailing_zeros();
            let count = left.checked_shr(first)?.trailing_ones();
            left &= !(u32::MAX >> (u32::BITS - count) << first);
            let bytes = |block: u32| (block as usize * BLOCK as usize).min(len);
            Some(bytes(first)..bytes(first + count))
        })
    }

    /// The numbers of the blocks.
    pub(super) fn iter(self) -> impl Iterator<Item = u32> {
        let bits = self.0;
        (0..u32::BITS).filter(move |block| bits >> block & 1 == 1)
    }
}

/// A chunk to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// Number of the chunk: its start divided by [`CHUNK`].
    pub(super) chunk: u64,
    /// Blocks that have data by the source's map, never none.
    pub(super) blocks: Blocks,
}

impl Task {
    /// The chunk's bytes on a disk of `len` bytes.
    pub(super) fn range(self, len: u64) -> Range<u64> {
        self.chunk * CHUNK..(self.chunk * CHUNK + CHUNK).min(len)
    }

    /// Bytes to read on a disk of `len` bytes.
    pub(super) fn bytes(self, len: u64) -> u64 {
        let range = self.range(len);
        let chunk_len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        self.blocks.ranges(chunk_len).map(|run| run.len() as u64).sum()
    }
}

/// Walks the map of a disk.
#[derive(Debug)]
pub(super) struct Planner<'a> {
    disk: &'a dyn Disk,
    order: Order,
    /// Where the next window starts.
    next: u64,
    /// Tasks of the current window.
    tasks: VecDeque<Task>,
    /// Data of each chunk of the window that is being read, empty between windows.
    found: Vec<Found>,
}

/// What is known of a chunk while the map is walked.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    blocks: Blocks,
    /// Where its first data lies: layer, then offset in the layer's source.
    place: Option<(u32, u64)>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(disk: &'a dyn Disk, order: Order) -> Self {
        Self { disk, order, next: 0, tasks: VecDeque::new(), found: Vec::new() }
    }

    /// The next chunk to read. Windows ascend; within a window, chunks ascend or are in the order in which the source holds them.
    pub(super) fn next(&mut self) -> Result<Option<Task>> {
        while self.tasks.is_empty() && self.next < self.disk.len() {
            self.walk_window()?;
        }
        Ok(self.tasks.pop_front())
    }

    /// Length of the disk in bytes.
    pub(super) fn len(&self) -> u64 {
        self.disk.len()
    }

    /// Leaves out the windows before number `window`, and of that the chunks that are `done`.
    pub(super) fn skip(&mut self, window: u64, done: &BTreeSet<u64>) -> Result<()> {
        self.next = window * WINDOW;
        if self.next < self.disk.len() {
            self.walk_window()?;
        }
        self.tasks.retain(|task| !done.contains(&task.chunk));
        Ok(())
    }

    fn walk_window(&mut self) -> Result<()> {
        let window = self.next..(self.next + WINDOW).min(self.disk.len());
        self.found.clear();
        self.found.resize(chunks_in(&window), Found::default());
        let mut next = window.end;
        // The map is asked beyond the window so that one answer can skip an empty terabyte.
        self.disk.extents(window.start..self.disk.len(), &mut |extent| {
            if extent.range.start >= window.end {
                return ControlFlow::Break(());
            }
            if !extent.kind.is_zero() {
                mark(&mut self.found, &window, &extent);
            } else if extent.range.end >= self.disk.len() {
                next = self.disk.len();
            } else {
                next = next.max(extent.range.end / WINDOW * WINDOW);
            }
            if extent.range.end >= window.end { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        self.next = next;
        self.tasks.extend(in_order(&self.found, window.start / CHUNK, self.order));
        Ok(())
    }
}

fn chunks_in(window: &Range<u64>) -> usize {
    usize::try_from((window.end - window.start).div_ceil(CHUNK)).unwrap_or(usize::MAX)
}

/// Notes the blocks of a data extent that lie in `window`.
fn mark(found: &mut [Found], window: &Range<u64>, extent: &Extent) {
    let start = extent.range.start - window.start;
    let end = extent.range.end.min(window.end) - window.start;
    for block in start / BLOCK..end.div_ceil(BLOCK) {
        let (chunk, block) = (block / (CHUNK / BLOCK), block % (CHUNK / BLOCK));
        let Some(found) = usize::try_from(chunk).ok().and_then(|chunk| found.get_mut(chunk)) else { return };
        found.blocks.insert(u32::try_from(block).unwrap_or(0));
        if found.place.is_none() {
            let skipped = (window.start + chunk * CHUNK).saturating_sub(extent.range.start);
            found.place = extent.place.map(|place| (extent.depth, place.saturating_add(skipped)));
        }
    }
}

/// The chunks that have data, ascending or by where that lies in the source. What has no place there (an overlay's data) goes
/// with the chunk before it.
fn in_order(found: &[Found], first: u64, order: Order) -> Vec<Task> {
    let mut place = (0, 0);
    let mut tasks = Vec::new();
    for (chunk, found) in (first..).zip(found).filter(|(_, found)| !found.blocks.is_empty()) {
        place = found.place.unwrap_or(place);
        tasks.push((place, Task { chunk, blocks: found.blocks }));
    }
    if order == Order::Source {
        tasks.sort_by_key(|(place, _)| *place);
    }
    tasks.into_iter().map(|(_, task)| task).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{ExtentKind, Fingerprint, Visit, Zero};

    /// A disk that has nothing but a map.
    #[derive(Debug)]
    struct Map {
        len: u64,
        data: Vec<(Range<u64>, Option<u64>)>,
    }

    impl Disk for Map {
        fn len(&self) -> u64 {
            self.len
        }

        fn read_at(&self, _buf: &mut [u8], _offset: u64) -> Result<()> {
            Ok(())
        }

        fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
            let mut at = range.start;
            let data = self.data.iter().map(|(data, place)| (data.clone(), ExtentKind::Data, *place));
            for (data, kind, place) in data.chain([(range.end..range.end, ExtentKind::Data, None)]) {
                let (start, end) = (data.start.clamp(at, range.end), data.end.clamp(at, range.end));
                let hole = Extent { range: at..start, kind: ExtentKind::Hole, depth: 0, place: None };
                if start > at && visit(hole).is_break() {
                    return Ok(());
                }
                let place = place.map(|place| place + start - data.start);
                if end > start && visit(Extent { range: start..end, kind, depth: 0, place }).is_break() {
                    return Ok(());
                }
                at = end.max(start);
            }
            Ok(())
        }

        fn fingerprint(&self) -> Result<Fingerprint> {
            Ok(Fingerprint::of(&[]))
        }

        fn describe(&self) -> (&'static str, String) {
            ("map", String::new())
        }
    }

    fn plan(disk: &dyn Disk) -> Vec<(u64, u32)> {
        let mut planner = Planner::new(disk, Order::Source);
        let tasks = std::iter::from_fn(|| planner.next().unwrap());
        tasks.map(|task| (task.chunk, task.blocks.bits())).collect()
    }

    #[test]
    fn blocks_that_are_touched_are_read() {
        let data = vec![(1..2, None), (BLOCK * 3 - 1..BLOCK * 3 + 1, None), (CHUNK - 1..CHUNK + 1, None)];
        let disk = Map { len: CHUNK * 5 + 700, data };
        assert_eq!(plan(&disk), [(0, 1 << 31 | 0b1101), (1, 1)]);
        let end = Map { len: CHUNK * 5 + 700, data: vec![(CHUNK * 5..CHUNK * 5 + 700, None)] };
        assert_eq!(plan(&end), [(5, 1)]);
        let task = Planner::new(&end, Order::Source).next().unwrap().unwrap();
        assert_eq!((task.range(end.len).end, task.bytes(end.len)), (end.len, 700));
    }

    #[test]
    fn chunks_of_a_window_are_in_the_sources_order() {
        let chunk = |n: u64, place| (n * CHUNK..n * CHUNK + 1, place);
        let per_window = WINDOW / CHUNK;
        let data = vec![
            chunk(0, Some(900)),
            chunk(1, None),
            chunk(3, Some(100)),
            chunk(4, Some(500)),
            chunk(per_window, Some(1)),
        ];
        let disk = Map { len: 3 * WINDOW, data };
        let order: Vec<u64> = plan(&disk).into_iter().map(|(chunk, _)| chunk).collect();
        assert_eq!(order, [3, 4, 0, 1, per_window]);
        let mut ascending = Planner::new(&disk, Order::Disk);
        let order: Vec<u64> = std::iter::from_fn(|| ascending.next().unwrap()).map(|task| task.chunk).collect();
        assert_eq!(order, [0, 1, 3, 4, per_window]);
    }

    #[test]
    fn one_extent_over_many_windows_is_in_every_one() {
        let disk = Map { len: 3 * WINDOW, data: vec![(WINDOW - 1..2 * WINDOW + 1, Some(7))] };
        let tasks = plan(&disk);
        assert_eq!(tasks.len() as u64, 1 + WINDOW / CHUNK + 1);
        assert!(tasks.is_sorted());
        assert!(tasks[1..tasks.len() - 1].iter().all(|(_, blocks)| *blocks == u32::MAX));
    }

    #[test]
    fn emptiness_is_skipped_at_once() {
        let mut planner = Planner::new(&Zero { len: 64 << 50 }, Order::Source);
        assert_eq!(planner.next().unwrap(), None);
        let far = (60 << 50) + 5 * BLOCK;
        let disk = Map { len: 64 << 50, data: vec![(0..1, None), (far..far + 1, None)] };
        assert_eq!(plan(&disk), [(0, 1), ((60 << 50) / CHUNK, 1 << 5)]);
    }

    #[test]
    fn ranges_of_blocks() {
        let ranges = |bits, len| Blocks(bits).ranges(len).map(|run| (run.start, run.end)).collect::<Vec<_>>();
        assert_eq!(ranges(0, 9), []);
        assert_eq!(ranges(u32::MAX, 2 << 20), [(0, 2 << 20)]);
        assert_eq!(ranges(1 << 31 | 0b110, 2 << 20), [(65_536, 196_608), (31 << 16, 2 << 20)]);
        assert_eq!(ranges(0b11, 65_540), [(0, 65_540)]);
        assert_eq!(Blocks(0b1010).iter().collect::<Vec<_>>(), [1, 3]);
    }
}
