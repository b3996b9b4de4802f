//! The extents of a block status reply.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};
use std::slice::ChunksExactMut;

use super::super::wire::fill;
use crate::export::{Combine, Status};

/// What extents are multiples of at least, but for the ends of the request.
const SECTOR: u64 = 512;

/// How extents are laid out, and what they are multiples of.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Whether lengths and flags have 64 bits.
    pub(super) wide: bool,
    /// The export's minimum block size.
    pub(super) block: u32,
    /// What becomes of blocks of several kinds.
    pub(super) combine: Combine,
}

impl Layout {
    /// Bytes of an extent.
    pub(super) const fn extent_size(self) -> usize {
        if self.wide { 16 } else { 8 }
    }
}

/// Extents on their way into a block status chunk. Equal neighbours become one, and what the export leaves out has flags of 0.
///
/// Extents end where sectors end, since qemu-img counts in sectors and would take a sector for zeros that only begins with
/// them. What a sector of several kinds is, the context says.
pub(super) struct Extents<'a> {
    slots: ChunksExactMut<'a, u8>,
    layout: Layout,
    block: u64,
    count: usize,
    /// Where the next extent starts, in the export.
    at: u64,
    /// The extent that may still grow.
    last: Option<(u64, u64)>,
    /// The start of a sector whose end the export has not told about yet.
    partial: Option<(u64, u64)>,
    /// Bytes of the request that the export has not told about yet.
    left: u64,
    full: bool,
}

impl<'a> Extents<'a> {
    pub(super) fn new(range: &Range<u64>, area: &'a mut [u8], layout: Layout) -> Self {
        Self {
            slots: area.chunks_exact_mut(layout.extent_size()),
            layout,
            block: u64::from(layout.block).max(SECTOR),
            count: 0,
            at: range.start,
            last: None,
            partial: None,
            left: range.end.saturating_sub(range.start),
            full: false,
        }
    }

    pub(super) fn add(&mut self, extent: Status) -> ControlFlow<()> {
        let mut length = extent.length.min(self.left);
        self.left = self.left.saturating_sub(length);
        if length > 0
            && let Some((told, flags)) = self.partial.take()
        {
            let block_end = self.at.saturating_add(told).checked_next_multiple_of(self.block).unwrap_or(u64::MAX);
            let total = told.saturating_add(length).min(block_end.saturating_sub(self.at));
            let flags = self.layout.combine.apply(flags, extent.flags);
            length = length.saturating_sub(total.saturating_sub(told));
            if self.at.saturating_add(total) == block_end {
                self.emit(total, flags);
            } else {
                self.partial = Some((total, flags));
            }
        }
        let over = self.at.saturating_add(length).checked_rem(self.block).unwrap_or(0);
        let tail = length.min(over);
        self.emit(length.saturating_sub(tail), extent.flags);
        if tail > 0 {
            self.partial = Some((tail, extent.flags));
        }
        if self.full || self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn emit(&mut self, length: u64, flags: u64) {
        if length == 0 || self.full {
            return;
        }
        self.at = self.at.saturating_add(length);
        match &mut self.last {
            Some((total, last)) if *last == flags => *total = total.saturating_add(length),
            Some(_) if self.slots.len() <= 1 => self.full = true,
            _ => {
                self.settle();
                self.last = Some((length, flags));
            }
        }
    }

    fn settle(&mut self) {
        if let Some((length, flags)) = self.last.take()
            && let Some(slot) = self.slots.next()
        {
            if self.layout.wide {
                fill(slot, &[&length.to_be_bytes(), &flags.to_be_bytes()]);
            } else {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                let flags = u32::try_from(flags & u64::from(u32::MAX)).unwrap_or(0);
                fill(slot, &[&length.to_be_bytes(), &flags.to_be_bytes()]);
            }
            self.count = self.count.saturating_add(1);
        }
    }

    /// Ends the extents; returns how many there are.
    pub(super) fn finish(mut self) -> usize {
        let _ = self.add(Status { length: self.left, flags: 0 });
        if let Some((length, flags)) = self.partial.take() {
            self.emit(length, flags);
        }
        self.settle();
        self.count
    }
}
