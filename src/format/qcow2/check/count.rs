//! How often each cluster of a window of the file is referred to, and as what.

use std::num::NonZeroU64;
use std::ops::Range;

/// What a cluster is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Of metadata that only one thing refers to.
    Once,
    /// An L2 table, which several snapshots can share.
    L2,
    /// A cluster of the disk, or several compressed ones.
    Data,
}

const ONCE: u32 = 1 << 31;
const L2: u32 = 1 << 30;
const DATA: u32 = 1 << 29;
const REFERENCES: u32 = DATA - 1;

/// A counter of references and what they were for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count(u32);

impl Count {
    pub(super) const fn references(self) -> u32 {
        self.0 & REFERENCES
    }

    /// Whether it is two things at once.
    pub(super) const fn is_mixed(self) -> bool {
        let kinds = self.0 & !REFERENCES;
        !(kinds == 0 || kinds.is_power_of_two()) || (kinds == ONCE && self.references() > 1)
    }

    fn add(&mut self, kind: Use) {
        let bit = match kind {
            Use::Once => ONCE,
            Use::L2 => L2,
            Use::Data => DATA,
        };
        let references = self.references().saturating_add(1).min(REFERENCES);
        self.0 = self.0 & !REFERENCES | bit | references;
    }
}

/// The counters of the clusters of a window.
#[derive(Debug)]
pub(super) struct Counts {
    clusters: Range<u64>,
    cluster_size: NonZeroU64,
    counts: Vec<Count>,
}

impl Counts {
    /// For the clusters with these numbers.
    pub(super) fn new(clusters: Range<u64>, cluster_size: NonZeroU64) -> Self {
        let len = usize::try_from(clusters.end.saturating_sub(clusters.start)).unwrap_or(0);
        Self { clusters, cluster_size, counts: vec![Count::default(); len] }
    }

    pub(super) fn clusters(&self) -> Range<u64> {
        self.clusters.clone()
    }

    /// Counts a reference to each cluster that has bytes in `start..end`.
    pub(super) fn add(&mut self, start: u64, end: u64, kind: Use) {
        let first = (start / self.cluster_size).max(self.clusters.start);
        let last = end.div_ceil(self.cluster_size.get()).min(self.clusters.end);
        let [from, to] = [first, last].map(|number| number.saturating_sub(self.clusters.start));
        let [from, to] = [from, to].map(|index| usize::try_from(index).unwrap_or(usize::MAX));
        for count in self.counts.get_mut(from..to.max(from)).unwrap_or_default() {
            count.add(kind);
        }
    }

    /// The counter of the cluster with this number.
    pub(super) fn of(&self, number: u64) -> Count {
        let index = number.checked_sub(self.clusters.start).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.counts.get(index)).copied().unwrap_or_default()
    }
}
