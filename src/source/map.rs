//! What the other side told of a file's holes: asked once, and kept as long as it is not too much.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::disk::ExtentKind;
use crate::limits::MAX_MAP_RUNS;

/// Bytes of one kind, as the other side tells of them: not none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) len: u64,
    pub(super) kind: ExtentKind,
}

/// What is known of a file.
#[derive(Debug, Default)]
pub(super) struct Map(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Ends and kinds of runs, by their starts. They do not overlap.
    runs: BTreeMap<u64, (u64, ExtentKind)>,
    /// The other side does not tell: it is all data.
    silent: bool,
}

impl Known {
    fn at(&self, at: u64, len: u64) -> Option<(Range<u64>, ExtentKind)> {
        if self.silent {
            return Some((at..len, ExtentKind::Data));
        }
        let (_, (end, kind)) = self.runs.range(..=at).next_back()?;
        (at < *end).then_some((at..*end, *kind))
    }

    /// Adds runs that begin at `start`: neighbours of one kind as one, and nothing that is known already.
    fn add(&mut self, start: u64, len: u64, runs: Vec<Run>) {
        let mut at = start;
        for Run { len: run, kind } in runs {
            let next = self.runs.range(at..).next().map_or(len, |(next, _)| *next);
            let end = at.saturating_add(run).min(next);
            if end <= at || self.runs.len() >= MAX_MAP_RUNS {
                return;
            }
            let before = self.runs.range(..at).next_back().map(|(start, known)| (*start, *known));
            let from = before.filter(|(_, known)| *known == (at, kind)).map_or(at, |(start, _)| start);
            self.runs.insert(from, (end, kind));
            at = end;
        }
    }
}

impl Map {
    /// The run that has byte `at` of a file of `len` bytes, from there on, if that is known.
    pub(super) fn at(&self, at: u64, len: u64) -> Option<(Range<u64>, ExtentKind)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at(at, len)
    }

    /// Takes what the other side told of the bytes from `at` on, and gives the run that has `at`. Whoever tells nothing at all of
    /// a byte leaves it as data.
    pub(super) fn learn(&self, at: u64, len: u64, runs: Option<Vec<Run>>) -> (Range<u64>, ExtentKind) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match runs {
            None => known.silent = true,
            Some(runs) => {
                if known.runs.len().saturating_add(runs.len()) > MAX_MAP_RUNS {
                    known.runs.clear();
                }
                known.add(at, len, runs);
            }
        }
        known.at(at, len).unwrap_or((at..len, ExtentKind::Data))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests compute with small numbers")]
mod tests {
    use super::*;
    use ExtentKind::{Data, Hole, Zero};
    use proptest::prelude::*;

    fn runs(runs: &[(u64, ExtentKind)]) -> Option<Vec<Run>> {
        Some(runs.iter().map(|&(len, kind)| Run { len, kind }).collect())
    }

    #[test]
    fn what_was_told_is_known() {
        let map = Map::default();
        assert_eq!(map.at(0, 100), None);
        assert_eq!(map.learn(10, 100, runs(&[(5, Hole), (5, Hole), (10, Data), (1000, Zero)])), (10..20, Hole));
        assert_eq!((map.at(9, 100), map.at(12, 100)), (None, Some((12..20, Hole))));
        assert_eq!((map.at(29, 100), map.at(99, 100)), (Some((29..30, Data)), Some((99..100, Zero))));
        assert_eq!(map.at(100, 100), None);
        assert_eq!(map.learn(0, 100, runs(&[(3, Data), (50, Hole)])), (0..3, Data), "what was known stays");
        assert_eq!((map.at(3, 100), map.at(25, 100)), (Some((3..10, Hole)), Some((25..30, Data))));
    }

    #[test]
    fn who_does_not_tell_has_data() {
        let map = Map::default();
        assert_eq!(map.learn(7, 100, runs(&[])), (7..100, Data));
        assert_eq!(map.at(7, 100), None, "and may be asked again");
        assert_eq!(map.learn(7, 100, None), (7..100, Data));
        assert_eq!(map.at(50, 100), Some((50..100, Data)));
    }

    #[test]
    fn it_is_bounded() {
        let len = MAX_MAP_RUNS as u64;
        let many =
            |count: u64| (0..count).map(|n| Run { len: 1, kind: if n % 2 == 0 { Data } else { Hole } }).collect();
        for (count, kept) in [(len - 1, len - 1), (len, len), (len + 1, len)] {
            let map = Map::default();
            assert_eq!(map.learn(0, 1 << 40, Some(many(count))), (0..1, Data));
            assert_eq!(map.0.lock().unwrap().runs.len() as u64, kept);
        }
        let map = Map::default();
        map.learn(0, 1 << 40, Some(many(len)));
        assert_eq!(map.learn(1 << 30, 1 << 40, runs(&[(9, Zero)])), (1 << 30..(1 << 30) + 9, Zero));
        assert_eq!(map.at(0, 1 << 40), None, "the oldest went");
    }

    proptest! {
        #[test]
        fn every_byte_is_as_it_was_told(truth in proptest::collection::vec((1_u64..40, 0_usize..3), 1..20), asked in proptest::collection::vec((0_u64..800, 1_usize..5), 0..20)) {
            let kinds = [Data, Hole, Zero];
            let bytes: Vec<ExtentKind> = truth.iter().flat_map(|&(len, kind)| std::iter::repeat_n(kinds[kind], len as usize)).collect();
            let len = bytes.len() as u64;
            let map = Map::default();
            for (at, count) in asked {
                let at = at % len;
                let rest = &bytes[at as usize..];
                let told = rest.chunk_by(|a, b| a == b).take(count).map(|run| Run { len: run.len() as u64, kind: run[0] });
                let (range, kind) = map.learn(at, len, Some(told.collect()));
                prop_assert!(range.start == at && range.end > at && range.end <= len);
                prop_assert!(bytes[at as usize..range.end as usize].iter().all(|byte| *byte == kind));
            }
            for at in 0..len {
                if let Some((range, kind)) = map.at(at, len) {
                    prop_assert!(range.start == at && range.end > at);
                    prop_assert!(bytes[at as usize..range.end as usize].iter().all(|byte| *byte == kind));
                }
            }
        }
    }
}
