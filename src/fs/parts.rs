//! The parts of a file that are no holes, on their way to who asked for them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};

/// Cuts parts to what was asked for and joins those that touch.
pub(super) struct Parts<'a> {
    within: Range<u64>,
    pending: Range<u64>,
    visit: &'a mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
}

impl<'a> Parts<'a> {
    /// For the bytes `range` of a file of `size` bytes.
    pub(super) fn new(range: &Range<u64>, size: u64, visit: &'a mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Self {
        Self { within: range.start..range.end.min(size), pending: 0..0, visit }
    }

    /// What is left to look at after `at`; nothing behind the end.
    pub(super) fn rest(&self, at: u64) -> Range<u64> {
        at.max(self.within.start)..self.within.end
    }

    /// The next part, which begins behind the last one. It may reach beyond what was asked for.
    pub(super) fn add(&mut self, part: Range<u64>) -> ControlFlow<()> {
        let part = part.start.max(self.within.start)..part.end.min(self.within.end);
        if part.start >= part.end {
            return ControlFlow::Continue(());
        }
        if self.pending.end == part.start && self.pending.start < self.pending.end {
            self.pending.end = part.end;
            return ControlFlow::Continue(());
        }
        let before = std::mem::replace(&mut self.pending, part);
        if before.start < before.end { (self.visit)(before) } else { ControlFlow::Continue(()) }
    }

    /// Hands on what is left.
    pub(super) fn finish(self) {
        if self.pending.start < self.pending.end {
            let _ = (self.visit)(self.pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(range: Range<u64>, size: u64, given: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut found = Vec::new();
        let mut visit = |part| {
            found.push(part);
            ControlFlow::Continue(())
        };
        let mut parts = Parts::new(&range, size, &mut visit);
        for part in given {
            assert!(parts.add(part.clone()).is_continue());
        }
        parts.finish();
        found
    }

    #[test]
    fn parts_are_cut_and_joined() {
        let given = [0..10, 10..20, 30..40, 40..40, 45..60];
        assert_eq!(parts(0..u64::MAX, 55, &given), [0..20, 30..40, 45..55]);
        assert_eq!(parts(5..32, 55, &given), [5..20, 30..32]);
        assert_eq!(parts(20..30, 55, &given), Vec::<Range<u64>>::new());
        assert_eq!(parts(0..9, 0, &given), Vec::<Range<u64>>::new());
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let mut count = 0;
        let mut visit = |_| {
            count += 1;
            ControlFlow::Break(())
        };
        let mut parts = Parts::new(&(0..100), 100, &mut visit);
        assert!(parts.add(0..1).is_continue());
        assert!(parts.add(2..3).is_break());
        assert_eq!(count, 1);
    }
}
