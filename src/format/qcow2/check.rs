//! The check of an image: every reference to every cluster of the file is counted and compared with its refcount.
//!
//! Counters for the whole file may be more than the memory budget allows, so the file is taken in windows, and the tables are
//! walked once for each.

use std::ops::{ControlFlow, Range};

use super::entry::{COPIED, Entry, OFFSET};
use super::header::State;
use super::subcluster::Extended;
use super::{Qcow2, beyond, bitmap};
use crate::error::{Error, Result};
use crate::format::{Finding, Report, Severity};
use crate::limits::{MAX_QCOW2_CHECK_ENTRIES, MAX_QCOW2_CHECK_PASSES};

mod count;
mod refcounts;

use count::{Counts, Use};
use refcounts::Refcounts;

/// Bytes of memory for each cluster of a window.
pub(super) const COUNTER: u64 = 4;

/// Checks `layer` with `window` counters, and reports what is wrong until `found` breaks.
pub(super) fn run(layer: &Qcow2, window: u64, found: &mut Report<'_>) -> Result<()> {
    run_within(layer, window, MAX_QCOW2_CHECK_ENTRIES, found)
}

/// The same, looking at no more than `most` L2 entries.
pub(super) fn run_within(layer: &Qcow2, window: u64, most: u64, found: &mut Report<'_>) -> Result<()> {
    let clusters = layer.header.file_len.div_ceil(layer.header.cluster_size.get());
    let window = window.max(1);
    if clusters.div_ceil(window) > MAX_QCOW2_CHECK_PASSES {
        return Err(Error::limit("qcow2.check", "the image is too large to be checked with this much memory")
            .expected(format!("at most {} clusters", window.saturating_mul(MAX_QCOW2_CHECK_PASSES)))
            .found(clusters)
            .hint("give more with --memory"));
    }
    let mut stopped = false;
    let mut check = Check {
        layer,
        refcounts: None,
        counts: Counts::new(0..0, layer.header.cluster_size),
        found: &mut |finding| {
            if !stopped {
                stopped = found(finding).is_break();
            }
            if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
        muted: false,
        left: most,
    };
    let mut start = 0_u64;
    while start < clusters {
        let end = start.saturating_add(window).min(clusters);
        check.counts = Counts::new(start..end, layer.header.cluster_size);
        check.muted = start > 0;
        let flow = match check.window() {
            Err(Stop::Found) => ControlFlow::Break(()),
            Err(Stop::Failed(error)) => return Err(error),
            Ok(()) => ControlFlow::Continue(()),
        };
        if flow.is_break() {
            break;
        }
        start = end;
    }
    Ok(())
}

/// Why a walk ends early.
enum Stop {
    /// Nobody wants to hear more.
    Found,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

type Walk = Result<(), Stop>;

struct Check<'a, 'b> {
    layer: &'a Qcow2,
    /// `None` where the refcount table cannot be used.
    refcounts: Option<Refcounts<'a>>,
    counts: Counts,
    found: &'a mut Report<'b>,
    /// In the second and later passes over the tables, which find nothing new.
    muted: bool,
    /// L2 entries that may still be looked at.
    left: u64,
}

impl Check<'_, '_> {
    /// Counts all references into the window and compares.
    fn window(&mut self) -> Walk {
        let layer = self.layer;
        self.notes()?;
        self.range(0, layer.header.cluster_size.get(), Use::Once, "the header")?;
        self.refcount_structure()?;
        self.state(&layer.header.state, true)?;
        self.snapshots()?;
        self.bitmaps()?;
        self.compare()
    }

    fn notes(&mut self) -> Walk {
        let layer = self.layer;
        for note in &layer.notes {
            self.corruption(note)?;
        }
        if layer.header.is_dirty() {
            self.tell(Severity::Note, "the image was not closed properly, so refcounts may be stale", None)?;
        }
        if layer.extensions.bitmaps.is_some() && !layer.header.has_sound_bitmaps() {
            self.tell(Severity::Note, "a program that does not know the bitmaps has written the image since", None)?;
        }
        for bitmap in layer.bitmaps.bitmaps.iter().filter(|bitmap| bitmap.in_use) {
            let what = format!("bitmap {} was not saved when the image was last written", bitmap.name);
            self.tell(Severity::Note, &what, None)?;
        }
        Ok(())
    }

    /// The refcount table and its blocks.
    fn refcount_structure(&mut self) -> Walk {
        let layer = self.layer;
        let cluster = layer.header.cluster_size.get();
        let offset = layer.header.refcount_table_offset;
        let len = u64::from(layer.header.refcount_table_clusters).saturating_mul(cluster);
        if !offset.is_multiple_of(cluster) || offset.saturating_add(len) > layer.header.file_len {
            return self.tell(Severity::Corruption, "the refcount table lies outside of the file", Some(offset));
        }
        self.range(offset, len, Use::Once, "the refcount table")?;
        let refcounts = Refcounts::new(layer, offset, len);
        self.refcounts = Some(refcounts);
        for index in 0..refcounts.blocks() {
            if index.is_multiple_of(4096) {
                layer.session.check()?;
            }
            match refcounts.block(index) {
                Ok(None) => {}
                Ok(Some(block)) => _ = self.range(block, cluster, Use::Once, "a refcount block")?,
                Err(error) => self.corruption(&error)?,
            }
        }
        Ok(())
    }

    /// One state of the disk: its L1 table, L2 tables and clusters. The flags of the current one say where a refcount is 1.
    fn state(&mut self, state: &State, is_current: bool) -> Walk {
        let layer = self.layer;
        let len = u64::from(state.l1_size).saturating_mul(8);
        self.range(state.l1_table_offset, len, Use::Once, "an L1 table")?;
        // Each table of a state has a cluster of its own in a sound image; this bounds the walk by the length of the file.
        let mut tables_left = layer.header.file_len / layer.header.cluster_size;
        for index in 0..u64::from(state.l1_size) {
            if index.is_multiple_of(4096) {
                layer.session.check()?;
            }
            let at = state.l1_entry_at(index)?;
            let Ok(raw) = layer.pages.entry(at) else { break };
            let raw = u64::from_be_bytes(raw);
            if raw & !(OFFSET | COPIED) != 0 {
                self.tell(Severity::Corruption, "an L1 entry has reserved bits set", Some(at))?;
            }
            let table = raw & OFFSET;
            if table == 0 {
                continue;
            }
            if table % layer.header.cluster_size != 0 {
                self.tell(Severity::Corruption, "an L1 entry's table is not aligned", Some(at))?;
                continue;
            }
            let Some(left) = tables_left.checked_sub(1) else {
                self.tell(Severity::Corruption, "several L1 entries name one L2 table", Some(at))?;
                break;
            };
            tables_left = left;
            if is_current {
                self.copied(raw, table, at, "an L1 entry")?;
            }
            self.l2_table(table, is_current)?;
        }
        Ok(())
    }

    fn l2_table(&mut self, table: u64, is_current: bool) -> Walk {
        let layer = self.layer;
        let cluster = layer.header.cluster_size.get();
        if !self.range(table, cluster, Use::L2, "an L2 table")? {
            return Ok(());
        }
        let mut at = table;
        let end = table.saturating_add(cluster);
        let entries = layer.header.l2_span().get() / layer.header.cluster_size;
        let Some(left) = self.left.checked_sub(entries) else {
            return Err(Error::limit("qcow2.check", "the image has too many tables to be checked")
                .offset(table)
                .into());
        };
        self.left = left;
        layer.session.check()?;
        while at < end {
            // A table that the end of the file cuts off was reported with its place.
            let Ok(entries) = layer.pages.entries(at) else { return Ok(()) };
            let bytes = entries.bytes();
            let most = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let bytes = bytes.get(..most).unwrap_or(bytes);
            if layer.header.has_subclusters() {
                for (raw, at) in bytes.as_chunks::<16>().0.iter().zip((at..).step_by(16)) {
                    let raw = u128::from_be_bytes(*raw);
                    if raw != 0 {
                        let entry = Extended::parse(raw, &layer.header, at).map(|extended| extended.entry);
                        self.l2_entry(u64::try_from(raw >> 64).unwrap_or(0), entry, at, is_current)?;
                    }
                }
            } else {
                for (raw, at) in bytes.as_chunks::<8>().0.iter().zip((at..).step_by(8)) {
                    let raw = u64::from_be_bytes(*raw);
                    if raw != 0 {
                        self.l2_entry(raw, Entry::parse(raw, &layer.header, at), at, is_current)?;
                    }
                }
            }
            at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX).max(1));
        }
        Ok(())
    }

    fn l2_entry(&mut self, raw: u64, entry: Result<Entry>, at: u64, is_current: bool) -> Walk {
        let cluster = self.layer.header.cluster_size.get();
        let host = match entry {
            Err(error) => return self.corruption(&error),
            Ok(Entry::Compressed { offset, stored }) => {
                if raw & COPIED != 0 {
                    let what = "the L2 entry of a compressed cluster says that its refcount is 1";
                    self.tell(Severity::Corruption, what, Some(at))?;
                }
                self.range(offset, stored, Use::Data, "a compressed cluster")?;
                return Ok(());
            }
            Ok(Entry::Data(host)) => host,
            // Zeros can keep their cluster.
            Ok(_) => raw & OFFSET,
        };
        if self.layer.header.has_data_file() {
            let within = matches!(entry, Ok(Entry::Data(_))) && raw & COPIED == 0;
            return if within {
                self.tell(
                    Severity::Corruption,
                    "an L2 entry does not say that its refcount in the data file is 1",
                    Some(at),
                )
            } else {
                Ok(())
            };
        }
        if host == 0 {
            return Ok(());
        }
        if host % self.layer.header.cluster_size != 0 {
            return self.tell(Severity::Corruption, "an L2 entry's cluster is not aligned", Some(at));
        }
        self.range(host, cluster, Use::Data, "a cluster")?;
        if is_current { self.copied(raw, host, at, "an L2 entry") } else { Ok(()) }
    }

    fn snapshots(&mut self) -> Walk {
        let layer = self.layer;
        let table = &layer.snapshots;
        if table.len > 0 {
            self.range(layer.header.snapshots_offset, table.len, Use::Once, "the snapshot table")?;
        }
        for snapshot in &table.snapshots {
            match snapshot.sound_state(&layer.header) {
                Ok(state) => self.state(&state, false)?,
                Err(error) => self.corruption(&error)?,
            }
        }
        Ok(())
    }

    fn bitmaps(&mut self) -> Walk {
        let layer = self.layer;
        let directory = &layer.bitmaps;
        if directory.bitmaps.is_empty() {
            return Ok(());
        }
        self.range(directory.offset, directory.len, Use::Once, "the directory of bitmaps")?;
        for table in &directory.tables {
            self.range(table.offset, u64::from(table.entries).saturating_mul(8), Use::Once, "a bitmap's table")?;
            for index in 0..u64::from(table.entries) {
                let at = table.entry_at(index);
                let raw = u64::from_be_bytes(layer.pages.entry(at)?);
                match bitmap::Bits::parse(raw, &layer.header, at) {
                    Ok(bitmap::Bits::At(bits)) => {
                        self.range(bits, layer.header.cluster_size.get(), Use::Once, "a cluster of a bitmap")?;
                    }
                    Ok(_) => {}
                    Err(error) => self.corruption(&error)?,
                }
            }
        }
        Ok(())
    }

    /// Counts a reference to the clusters that hold `len` bytes at `offset`. Gives whether they lie in the file; the last of them may
    /// be cut.
    fn range(&mut self, offset: u64, len: u64, kind: Use, what: &str) -> Result<bool, Stop> {
        let cluster = self.layer.header.cluster_size.get();
        let file_len = self.layer.header.file_len;
        let end = offset.saturating_add(len);
        if end.saturating_sub(file_len) >= cluster || offset >= file_len {
            self.corruption(&beyond(offset).found(what))?;
            return Ok(false);
        }
        if len > 0 {
            self.counts.add(offset, end, kind);
        }
        Ok(true)
    }

    /// Whether the flag COPIED of the entry at `at` says truly whether the refcount of the cluster at `host` is 1.
    fn copied(&mut self, raw: u64, host: u64, at: u64, what: &str) -> Walk {
        if self.muted {
            return Ok(());
        }
        let Some(refcounts) = self.refcounts else { return Ok(()) };
        let is_one = matches!(refcounts.of(host), Ok(Some(1)));
        if is_one == (raw & COPIED != 0) {
            return Ok(());
        }
        let what = format!("{what} says that its refcount is {}, which is not so", if is_one { "not 1" } else { "1" });
        self.tell(Severity::Corruption, &what, Some(at))
    }

    /// Compares the counters with the refcounts.
    fn compare(&mut self) -> Walk {
        let Range { start, end } = self.counts.clusters();
        let cluster = self.layer.header.cluster_size.get();
        let Some(refcounts) = self.refcounts else { return Ok(()) };
        let mut next = start;
        while next < end {
            self.layer.session.check()?;
            let stored = refcounts.some_from(next, end)?;
            for (number, stored) in (next..end).zip(&stored) {
                let count = self.counts.of(number);
                let at = Some(number.saturating_mul(cluster));
                if count.is_mixed() {
                    let what = "a cluster is used for two things at once";
                    self.always(Severity::Corruption, what, at)?;
                }
                let used = u64::from(count.references());
                if *stored < used {
                    let what = format!("a cluster's refcount is {stored}, and it is used {used} times");
                    self.always(Severity::Corruption, &what, at)?;
                } else if *stored > used {
                    let what = format!("a cluster's refcount is {stored}, and it is used {used} times");
                    self.always(Severity::Leak, &what, at)?;
                }
            }
            next = next.saturating_add(u64::try_from(stored.len()).unwrap_or(u64::MAX).max(1));
        }
        Ok(())
    }

    fn corruption(&mut self, error: &Error) -> Walk {
        self.tell(Severity::Corruption, &error.to_string(), None)
    }

    /// Reports what a walk over the tables finds, once.
    fn tell(&mut self, severity: Severity, what: &str, offset: Option<u64>) -> Walk {
        if self.muted { Ok(()) } else { self.always(severity, what, offset) }
    }

    fn always(&mut self, severity: Severity, what: &str, offset: Option<u64>) -> Walk {
        match (self.found)(Finding { severity, what: what.to_owned(), offset }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Stop::Found),
        }
    }
}
