//! A set of numbers kept as ranges that neither touch nor overlap.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges by their start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// The range that `number` is in.
    pub(crate) fn containing(&self, number: u64) -> Option<Range<u64>> {
        let (start, end) = self.0.range(..=number).next_back()?;
        (number < *end).then_some(*start..*end)
    }

    /// The start of the first range at or after `number`.
    pub(crate) fn next_start(&self, number: u64) -> Option<u64> {
        self.0.range(number..).next().map(|(start, _)| *start)
    }

    /// Adds `range`, merging it with what it touches.
    pub(crate) fn insert(&mut self, mut range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((start, end)) = self.0.range(..=range.end).next_back().map(|(start, end)| (*start, *end)) {
            if end < range.start {
                break;
            }
            self.0.remove(&start);
            range = start.min(range.start)..end.max(range.end);
        }
        self.0.insert(range.start, range.end);
    }

    /// Takes `range` out, cutting what it overlaps.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((start, end)) = self.0.range(..range.end).next_back().map(|(start, end)| (*start, *end)) {
            if end <= range.start {
                break;
            }
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, range.start);
            }
            if end > range.end {
                self.0.insert(range.end, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_vector_of_flags(ops in prop::collection::vec((any::<bool>(), 0_u64..40, 0_u64..12), 1..60)) {
            let mut set = RangeSet::default();
            let mut model = [false; 64];
            for (add, start, len) in ops {
                let range = start..start + len;
                model[usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap()].fill(add);
                if add { set.insert(range) } else { set.remove(range) }
            }
            for (number, expected) in model.iter().enumerate() {
                prop_assert_eq!(set.containing(number as u64).is_some(), *expected);
            }
            let edges = model.windows(2).filter(|pair| !pair[0] && pair[1]).count() + usize::from(model[0]);
            prop_assert_eq!(set.len(), edges);
        }
    }
}
