//! qcow2, versions 2 and 3: qemu's `docs/interop/qcow2.txt`.
//!
//! ```text
//! header ─► L1 table ─► L2 tables ─► clusters: as they are │ compressed │ zeros │ not here (the backing file's)
//! ```
//!
//! Reading needs no refcounts, so a dirty image reads fine. Both tables are read in pages through a bounded cache.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result, escape_bytes};
use crate::format::pages::Pages;
use crate::format::{Ask, Finding, Head, Layer, Parent, Place, Report, Run, Sample, Severity, Unit};
use crate::session::Session;
use crate::source::{Reference, Role};

mod decode;
mod entry;
mod header;

pub use header::{Compression, Header};

use entry::Entry;
use header::Extensions;

/// Whether the file begins as a qcow2 image of any version does.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(0, &header::MAGIC)
}

/// Opens the image in `file`; its backing file, if it names one, is the head's parent.
///
/// # Errors
/// As [`Qcow2::open`].
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    let layer = Qcow2::open(file, ask.session)?;
    let parent = layer.backing().map(Parent::by_name);
    Ok(Head { parent, ..Head::complete(layer) })
}

/// One opened image.
#[derive(Debug)]
pub struct Qcow2 {
    header: Header,
    extensions: Extensions,
    files: [Arc<dyn Disk>; 1],
    pages: Pages,
}

impl Qcow2 {
    /// Reads the header of the image in `file` and nothing else.
    ///
    /// # Errors
    /// `qcow2.*`: a header that contradicts the specification, or a feature that this reader does not handle.
    pub fn open(file: Arc<dyn Disk>, session: &Session) -> Result<Arc<Self>> {
        let label = file.name();
        Self::read_head(file, session).map(Arc::new).map_err(|error| error.at(label))
    }

    fn read_head(file: Arc<dyn Disk>, session: &Session) -> Result<Self> {
        let header = Header::parse(&head(&*file, header::LONGEST)?, file.len())?;
        let extensions = Extensions::parse(&head(&*file, header.cluster_size.get())?, &header)?;
        header.refuse_unhandled(&extensions)?;
        let pages = Pages::new(Arc::clone(&file), session, beyond);
        Ok(Self { header, extensions, files: [file], pages })
    }

    /// What the header says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The backing file as the image names it.
    #[must_use]
    pub fn backing(&self) -> Option<Reference> {
        let name = self.extensions.backing_file.clone()?;
        Some(Reference { name, role: Role::Parent, format: self.extensions.backing_format.clone() })
    }

    /// Bytes of the virtual disk from `offset` to the end of the cluster that it is in.
    fn to_cluster_end(&self, offset: u64) -> u64 {
        let cluster = self.header.cluster_size;
        cluster.get().saturating_sub(offset % cluster)
    }

    /// Where the L2 table lies that maps `offset`, if there is one.
    fn l2_table_of(&self, offset: u64) -> Result<Option<u64>> {
        let at = self.header.l1_entry_at(offset / self.header.l2_span())?;
        let raw = u64::from_be_bytes(self.pages.entry(at)?);
        entry::l2_table(raw, &self.header, at)
    }

    /// The run at `offset` when the L1 table has no L2 table for it: goes on while the following entries have none either.
    fn without_l2(&self, offset: u64, max: u64) -> Result<Run> {
        let span = self.header.l2_span();
        let mut len = span.get().saturating_sub(offset % span);
        let entries = self.pages.entries(self.header.l1_entry_at(offset / span)?)?;
        for entry in entries.of().map(u64::from_be_bytes).skip(1) {
            if len >= max || entry & !entry::COPIED != 0 {
                break;
            }
            len = len.saturating_add(span.get());
        }
        Ok(Run { len: len.min(max), place: Place::Parent })
    }

    /// The run at `offset` by the L2 table at `table`.
    fn by_l2(&self, table: u64, offset: u64, max: u64) -> Result<Run> {
        let cluster = self.header.cluster_size;
        let within = offset % self.header.l2_span();
        let index = within / cluster;
        // Behind the table's last entry, in the same page, lies something else.
        let max = max.min(self.header.l2_span().get().saturating_sub(within));
        let at = index.checked_mul(8).and_then(|bytes| table.checked_add(bytes)).ok_or_else(|| beyond(table))?;
        let entries = self.pages.entries(at)?;
        let mut entries = entries.of().map(u64::from_be_bytes);
        let first = Entry::parse(entries.next().ok_or_else(|| beyond(at))?, &self.header, at)?;
        let mut len = self.to_cluster_end(offset);
        if let Entry::Compressed { offset: stored_at, stored } = first {
            let unit = self.unit(offset, stored_at, stored)?;
            return Ok(Run { len: len.min(max), place: Place::Encoded(unit) });
        }
        let mut last = first;
        for raw in entries {
            // An invalid entry ends the run; the call that asks for it fails.
            let Ok(next) = Entry::parse(raw, &self.header, at) else { break };
            if len >= max || !last.continues_with(next, cluster) {
                break;
            }
            len = len.saturating_add(cluster.get());
            last = next;
        }
        self.run(first, offset, len.min(max))
    }

    /// Reports every cluster of `range`, which one L2 table maps, that cannot be mapped.
    fn check_table(&self, range: Range<u64>, found: &mut Report<'_>) -> ControlFlow<()> {
        let mut at = range.start;
        while at < range.end {
            let step = match self.map(at, range.end.saturating_sub(at)) {
                Ok(run) => run.len,
                Err(error) => {
                    found(Finding::new(Severity::Corruption, error.to_string()))?;
                    self.to_cluster_end(at)
                }
            };
            at = at.saturating_add(step);
        }
        ControlFlow::Continue(())
    }

    fn run(&self, first: Entry, offset: u64, len: u64) -> Result<Run> {
        let place = match first {
            Entry::Data(cluster) => self.data(cluster, offset, len)?,
            Entry::Zero => Place::Zero,
            Entry::Unallocated | Entry::Compressed { .. } => Place::Parent,
        };
        Ok(Run { len, place })
    }

    /// The place of `len` bytes that begin inside the host cluster at `cluster`; all of them lie in the file.
    fn data(&self, cluster: u64, offset: u64, len: u64) -> Result<Place> {
        let offset = cluster.checked_add(offset % self.header.cluster_size).ok_or_else(|| beyond(cluster))?;
        match offset.checked_add(len) {
            Some(end) if end <= self.header.file_len => Ok(Place::Data { file: 0, offset }),
            _ => Err(beyond(offset).expected(format!("at most {:#x}", self.header.file_len))),
        }
    }

    fn unit(&self, offset: u64, stored_at: u64, stored: u64) -> Result<Unit> {
        let left = self.header.file_len.checked_sub(stored_at).filter(|left| *left > 0);
        // The count of sectors is an upper bound: the last one need not be full.
        let stored = left.ok_or_else(|| beyond(stored_at))?.min(stored);
        Ok(Unit {
            start: offset.saturating_sub(offset % self.header.cluster_size),
            len: u32::try_from(self.header.cluster_size.get()).unwrap_or(u32::MAX),
            file: 0,
            offset: stored_at,
            stored: u32::try_from(stored).unwrap_or(u32::MAX),
        })
    }
}

impl Layer for Qcow2 {
    fn format(&self) -> &'static str {
        "qcow2"
    }

    fn len(&self) -> u64 {
        self.header.size
    }

    fn unit_size(&self) -> u64 {
        self.header.cluster_size.get()
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        match self.l2_table_of(offset)? {
            None => self.without_l2(offset, max),
            Some(table) => self.by_l2(table, offset, max),
        }
    }

    fn decode(&self, unit: &Unit, out: &mut [u8]) -> Result<()> {
        let [file] = &self.files;
        let mut stored = vec![0; usize::try_from(unit.stored).unwrap_or(usize::MAX).min(decode::LONGEST)];
        file.read_at(&mut stored, unit.offset)?;
        decode::cluster(self.header.compression, &stored, out)
            .map_err(|error| error.at(file.name()).offset(unit.offset))
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let header = &self.header;
        let mut facts = vec![
            ("version", header.version.to_string()),
            ("cluster_size", header.cluster_size.to_string()),
            ("compression", header.compression.name().to_owned()),
        ];
        if let Some(name) = &self.extensions.backing_file {
            facts.push(("backing_file", escape_bytes(name)));
        }
        if let Some(format) = &self.extensions.backing_format {
            facts.push(("backing_format", format.clone()));
        }
        if header.nb_snapshots > 0 {
            facts.push(("snapshots", header.nb_snapshots.to_string()));
        }
        if header.is_dirty() {
            facts.push(("dirty", "refcounts may be stale; the data is not affected".to_owned()));
        }
        facts
    }

    fn in_source_order(&self) -> bool {
        false
    }

    fn check(&self, found: &mut Report<'_>) -> Result<()> {
        let span = self.header.l2_span().get();
        // Each table has a cluster of its own in a sound image; this bounds the walk by the length of the file.
        let mut tables_left = self.header.file_len / self.header.cluster_size;
        let mut at = 0_u64;
        while at < self.header.size {
            let range = at..at.saturating_add(span).min(self.header.size);
            at = range.end;
            if matches!(self.l2_table_of(range.start), Ok(None)) {
                continue;
            }
            let Some(left) = tables_left.checked_sub(1) else {
                let _ = found(Finding::new(Severity::Corruption, "several L1 entries name one L2 table"));
                break;
            };
            tables_left = left;
            if self.check_table(range, found).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The first bytes of `file`, at most `max`.
fn head(file: &dyn Disk, max: u64) -> Result<Vec<u8>> {
    let mut head = vec![0; usize::try_from(file.len().min(max)).unwrap_or(0)];
    file.read_at(&mut head, 0)?;
    Ok(head)
}

/// Something the tables name lies outside of the file.
fn beyond(offset: u64) -> Error {
    Error::corrupt("qcow2.truncated", "a table or cluster lies past the end of the file")
        .offset(offset)
        .hint("the image was probably cut short; get it again")
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests;
