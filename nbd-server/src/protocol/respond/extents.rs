//! The extents of a block status reply.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};
use std::slice::ChunksExactMut;

use super::super::wire::fill;
use crate::export::{Allocation, Extent};

/// What extents are multiples of, but for the ends of the request.
const SECTOR: u64 = 512;

/// Extents on their way into a block status chunk. Equal neighbours become one, and what the export leaves out is data.
///
/// Extents end where sectors end, since qemu-img counts in sectors and would take a sector for zeros that only begins with
/// them. A sector of several kinds has that which promises least.
pub(super) struct Extents<'a> {
    slots: ChunksExactMut<'a, u8>,
    count: usize,
    /// Where the next extent starts, in the export.
    at: u64,
    /// The extent that may still grow.
    last: Option<(u64, Allocation)>,
    /// The start of a sector whose end the export has not told about yet.
    partial: Option<(u64, Allocation)>,
    /// Bytes of the request that the export has not told about yet.
    left: u64,
    full: bool,
}

impl<'a> Extents<'a> {
    pub(super) fn new(range: &Range<u64>, area: &'a mut [u8]) -> Self {
        let left = range.end.saturating_sub(range.start);
        let slots = area.chunks_exact_mut(8);
        Self { slots, count: 0, at: range.start, last: None, partial: None, left, full: false }
    }

    pub(super) fn add(&mut self, extent: Extent) -> ControlFlow<()> {
        let mut length = extent.length.min(self.left);
        self.left = self.left.saturating_sub(length);
        if length > 0
            && let Some((told, kind)) = self.partial.take()
        {
            let sector_end = self.at.saturating_add(told).next_multiple_of(SECTOR);
            let total = told.saturating_add(length).min(sector_end.saturating_sub(self.at));
            let kind = weaker(kind, extent.kind);
            length = length.saturating_sub(total.saturating_sub(told));
            if self.at.saturating_add(total) == sector_end {
                self.emit(total, kind);
            } else {
                self.partial = Some((total, kind));
            }
        }
        let tail = length.min(self.at.saturating_add(length) % SECTOR);
        self.emit(length.saturating_sub(tail), extent.kind);
        if tail > 0 {
            self.partial = Some((tail, extent.kind));
        }
        if self.full || self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn emit(&mut self, length: u64, kind: Allocation) {
        if length == 0 || self.full {
            return;
        }
        self.at = self.at.saturating_add(length);
        match &mut self.last {
            Some((total, last)) if *last == kind => *total = total.saturating_add(length),
            Some(_) if self.slots.len() <= 1 => self.full = true,
            _ => {
                self.settle();
                self.last = Some((length, kind));
            }
        }
    }

    fn settle(&mut self) {
        if let Some((length, kind)) = self.last.take()
            && let Some(slot) = self.slots.next()
        {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            fill(slot, &[&length.to_be_bytes(), &kind.flags().to_be_bytes()]);
            self.count = self.count.saturating_add(1);
        }
    }

    /// Ends the extents; returns how many there are.
    pub(super) fn finish(mut self) -> usize {
        let _ = self.add(Extent { length: self.left, kind: Allocation::Data });
        if let Some((length, kind)) = self.partial.take() {
            self.emit(length, kind);
        }
        self.settle();
        self.count
    }
}

/// The kind of something of both kinds: that which promises less.
pub(super) const fn weaker(a: Allocation, b: Allocation) -> Allocation {
    match (a, b) {
        (Allocation::Hole, Allocation::Hole) => Allocation::Hole,
        (Allocation::Data, _) | (_, Allocation::Data) => Allocation::Data,
        _ => Allocation::Zero,
    }
}
