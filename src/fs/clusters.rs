//! Clusters as FAT and exFAT count them, from 2, and the chains that they form.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::num::NonZeroU64;
use std::ops::Range;

use super::pages::Pages;
use crate::disk::bytes::{long, size};
use crate::error::{Error, Result};
use crate::limits;

/// The number of the first cluster.
pub(super) const FIRST: u32 = 2;

/// Clusters that lie one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Clusters of the chain before it.
    pub(super) before: u32,
    pub(super) first: u32,
    pub(super) len: u32,
}

/// The clusters of a file or directory, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    runs: Vec<Run>,
}

impl Chain {
    /// `len` clusters from `first` on.
    pub(super) fn straight(first: u32, len: u32) -> Self {
        Self { runs: (len > 0).then_some(Run { before: 0, first, len }).into_iter().collect() }
    }

    /// Number of clusters.
    pub(super) fn len(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.before.saturating_add(run.len))
    }

    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The first cluster; 0 without one, as directory entries have it.
    pub(super) fn first(&self) -> u32 {
        self.runs.first().map_or(0, |run| run.first)
    }

    /// The cluster at `index`, and how many lie in one piece from there.
    pub(super) fn at(&self, index: u32) -> Option<(u32, u32)> {
        let after = self.runs.partition_point(|run| run.before <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let within = index.checked_sub(run.before).filter(|within| *within < run.len)?;
        Some((run.first.saturating_add(within), run.len.saturating_sub(within)))
    }

    /// Every cluster from `index` on.
    pub(super) fn from(&self, index: u32) -> impl Iterator<Item = u32> + '_ {
        (index..self.len()).filter_map(|index| self.at(index).map(|(cluster, _)| cluster))
    }

    /// Adds a cluster; too many pieces are an error with `code`.
    pub(super) fn push(&mut self, cluster: u32, code: &'static str) -> Result<()> {
        let (before, pieces) = (self.len(), self.runs.len());
        match self.runs.last_mut() {
            Some(run) if run.first.saturating_add(run.len) == cluster => run.len = run.len.saturating_add(1),
            _ if pieces >= limits::MAX_FAT_RUNS => {
                return Err(Error::limit(code, "a file is in too many pieces").found(pieces));
            }
            _ => self.runs.push(Run { before, first: cluster, len: 1 }),
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, len: u32) {
        self.runs.retain(|run| run.before < len);
        if let Some(run) = self.runs.last_mut() {
            run.len = run.len.min(len.saturating_sub(run.before));
        }
    }

    /// Whether no cluster is in it twice.
    pub(super) fn is_straight(&self) -> bool {
        let mut ranges: Vec<Range<u32>> =
            self.runs.iter().map(|run| run.first..run.first.saturating_add(run.len)).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.windows(2).all(|pair| matches!(pair, [a, b] if a.end <= b.start))
    }
}

/// Where clusters lie on a volume.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heap {
    /// Where the first one begins.
    pub(super) start: u64,
    /// Bytes of one.
    pub(super) cluster: NonZeroU64,
}

impl Heap {
    /// Where a cluster lies.
    pub(super) fn place(self, cluster: u32) -> u64 {
        let index = u64::from(cluster.saturating_sub(FIRST));
        self.start.saturating_add(index.saturating_mul(self.cluster.get()))
    }

    /// Fills `buf` from `offset` of the content that `chain` holds. `None` when it does not reach that far.
    pub(super) fn read(self, pages: &Pages, chain: &Chain, buf: &mut [u8], offset: u64) -> Result<Option<()>> {
        let mut done = 0_usize;
        while done < buf.len() {
            let at = offset.saturating_add(long(done));
            let index = u32::try_from(at / self.cluster).unwrap_or(u32::MAX);
            let Some((first, len)) = chain.at(index) else { return Ok(None) };
            let room = u64::from(len).saturating_mul(self.cluster.get()).saturating_sub(at % self.cluster);
            let end = done.saturating_add(size(room)).min(buf.len());
            let piece = buf.get_mut(done..end).unwrap_or_default();
            pages.content(piece, self.place(first).saturating_add(at % self.cluster))?;
            done = end;
        }
        Ok(Some(()))
    }
}
