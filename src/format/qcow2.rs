//! qcow2, versions 2 and 3: qemu's `docs/interop/qcow2.txt`.
//!
//! ```text
//! header ─► L1 table ─► L2 tables ─► clusters: as they are │ compressed │ zeros │ not here (the backing file's)
//!    └────► snapshots ─► L1 tables                  └► or in a data file of their own
//! ```
//!
//! Reading needs no refcounts, so a dirty image reads fine; [`check`] counts them. Tables are read in pages through a bounded cache.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result, escape_bytes};
use crate::format::pages::Pages;
use crate::format::{Ask, Bitmap, Head, Layer, Parent, Place, Report, Run, Sample, Unit};
use crate::session::Session;
use crate::source::{Reference, Role};

mod bitmap;
mod check;
mod decode;
mod entry;
mod extensions;
mod header;
mod snapshot;
mod subcluster;

pub use header::{Compression, Header};
pub use snapshot::Snapshot;

use bitmap::Directory;
use entry::Entry;
use extensions::Extensions;
use header::State;
use subcluster::Extended;

/// Whether the file begins as a qcow2 image of any version does.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(0, &header::MAGIC)
}

/// Opens the image in `file`; its backing file, if it names one, is the head's parent, and its data file the head's extent.
///
/// # Errors
/// `qcow2.*`: a header that contradicts the specification, or a feature that this reader does not handle; `format.snapshot`.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    let label = file.name();
    let layer = Qcow2::read(file, ask).map_err(|error| error.at(label))?;
    let parent = layer.backing().map(Parent::by_name);
    let extents = layer.data_file().into_iter().collect();
    Ok(Head { extents, parent, build: Box::new(|files| Ok(Arc::new(layer.with_data_file(files)))) })
}

/// One opened image.
#[derive(Debug)]
pub struct Qcow2 {
    header: Header,
    extensions: Extensions,
    /// What is read: the current state, or a snapshot.
    state: State,
    /// The snapshot that is read.
    chosen: Option<String>,
    snapshots: snapshot::Table,
    bitmaps: Directory,
    /// The image, and the file with the data where that is another one.
    files: Vec<Arc<dyn Disk>>,
    pages: Pages,
    session: Arc<Session>,
    /// What is odd about parts that reading the disk does not need.
    notes: Vec<Error>,
}

impl Qcow2 {
    /// Reads the header of the image in `file` and nothing else; its data is in the same file.
    ///
    /// # Errors
    /// As [`open`], and `qcow2.data-file`.
    pub fn open(file: Arc<dyn Disk>, session: &Arc<Session>) -> Result<Arc<Self>> {
        let label = file.name();
        let layer = Self::read(file, &Ask::current(session)).and_then(|layer| match layer.data_file() {
            None => Ok(Arc::new(layer)),
            Some(name) => {
                Err(Error::unsupported("qcow2.data-file", "the image keeps its data in another file").found(name))
            }
        });
        layer.map_err(|error| error.at(label))
    }

    fn read(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Self> {
        let header = Header::parse(&head(&*file, header::LONGEST)?, file.len())?;
        let extensions = Extensions::parse(&head(&*file, header.cluster_size.get())?, &header)?;
        header.refuse_unhandled(&extensions)?;
        let mut notes = Vec::new();
        let snapshots = snapshot::Table::read(&*file, &header);
        let mut state = header.state;
        let mut chosen = None;
        let snapshots = match (snapshots, ask.snapshot) {
            (Ok(snapshots), Some(wanted)) => {
                let found = snapshots.find(wanted).ok_or_else(|| no_snapshot(wanted, &snapshots))?;
                state = found.sound_state(&header)?;
                chosen = Some(format!("{} ({})", found.id, found.name));
                snapshots
            }
            (Err(error), Some(_)) => return Err(error),
            (Ok(snapshots), None) => snapshots,
            (Err(error), None) => {
                notes.push(error);
                snapshot::Table::default()
            }
        };
        let bitmaps = match extensions.bitmaps.filter(|_| header.has_sound_bitmaps()) {
            None => Directory::default(),
            Some(extension) => Directory::read(&*file, &header, &extension).unwrap_or_else(|error| {
                notes.push(error);
                Directory::default()
            }),
        };
        let pages = Pages::new(Arc::clone(&file), ask.session, beyond);
        let session = Arc::clone(ask.session);
        Ok(Self { header, extensions, state, chosen, snapshots, bitmaps, files: vec![file], pages, session, notes })
    }

    /// With the data file, if the image has one, as the last of the files.
    fn with_data_file(mut self, files: Vec<Arc<dyn Disk>>) -> Self {
        self.files.extend(files);
        self
    }

    /// The file with the data as the image names it, if that is another one.
    fn data_file(&self) -> Option<Reference> {
        let name = self.extensions.data_file.clone().filter(|_| self.header.has_data_file())?;
        Some(Reference { name, role: Role::Extent, format: Some("raw".to_owned()) })
    }

    /// The image itself.
    fn file(&self) -> Result<&Arc<dyn Disk>> {
        self.files.first().ok_or_else(|| beyond(0))
    }

    /// The internal snapshots, in the order of the table.
    #[must_use]
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots.snapshots
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
        let at = self.state.l1_entry_at(offset / self.header.l2_span())?;
        let raw = u64::from_be_bytes(self.pages.entry(at)?);
        entry::l2_table(raw, &self.header, at)
    }

    /// The run at `offset` when the L1 table has no L2 table for it: goes on while the following entries have none either.
    fn without_l2(&self, offset: u64, max: u64) -> Result<Run> {
        let span = self.header.l2_span();
        let mut len = span.get().saturating_sub(offset % span);
        let entries = self.pages.entries(self.state.l1_entry_at(offset / span)?)?;
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
        let at = index.checked_mul(self.header.l2_entry_size()).and_then(|bytes| table.checked_add(bytes));
        let at = at.ok_or_else(|| beyond(table))?;
        // Behind the table's last entry, in the same page, lies something else.
        let max = max.min(self.header.l2_span().get().saturating_sub(within));
        let (first, len) = if self.header.has_subclusters() {
            self.by_subclusters(at, offset, max)?
        } else {
            self.by_clusters(at, offset, max)?
        };
        self.run(first, offset, len.min(max))
    }

    /// What is at `offset`, whose L2 entry lies `at`, and how far that goes on, in the page of the table.
    fn by_clusters(&self, at: u64, offset: u64, max: u64) -> Result<(Entry, u64)> {
        let entries = self.pages.entries(at)?;
        let mut entries = entries.of().map(u64::from_be_bytes);
        let first = Entry::parse(entries.next().ok_or_else(|| beyond(at))?, &self.header, at)?;
        let mut len = self.to_cluster_end(offset);
        let mut last = first;
        for raw in entries {
            // An invalid entry ends the run; the call that asks for it fails.
            let Ok(next) = Entry::parse(raw, &self.header, at) else { break };
            if len >= max || !last.continues_with(next, self.header.cluster_size) {
                break;
            }
            len = len.saturating_add(self.header.cluster_size.get());
            last = next;
        }
        Ok((first, len))
    }

    /// As [`Qcow2::by_clusters`], for entries with subclusters.
    fn by_subclusters(&self, at: u64, offset: u64, max: u64) -> Result<(Entry, u64)> {
        let cluster = self.header.cluster_size;
        let entries = self.pages.entries(at)?;
        let mut entries = entries.of().map(u128::from_be_bytes);
        let first = Extended::parse(entries.next().ok_or_else(|| beyond(at))?, &self.header, at)?;
        let (first, mut len) = first.run(offset % cluster, cluster);
        let mut last = first;
        for raw in entries {
            let to_end = cluster.get().saturating_sub(offset.saturating_add(len) % cluster);
            if len >= max || to_end != cluster.get() {
                break;
            }
            let Ok(next) = Extended::parse(raw, &self.header, at) else { break };
            let (next, more) = next.run(0, cluster);
            if !last.continues_with(next, cluster) {
                break;
            }
            len = len.saturating_add(more);
            last = next;
        }
        Ok((first, len))
    }

    fn run(&self, first: Entry, offset: u64, len: u64) -> Result<Run> {
        let place = match first {
            Entry::Data(cluster) => self.data(cluster, offset, len)?,
            Entry::Zero => Place::Zero,
            Entry::Unallocated => Place::Parent,
            Entry::Compressed { offset: stored_at, stored } => Place::Encoded(self.unit(offset, stored_at, stored)?),
        };
        Ok(Run { len, place })
    }

    /// The place of `len` bytes that begin inside the host cluster at `cluster`; all of them lie in the file.
    fn data(&self, cluster: u64, offset: u64, len: u64) -> Result<Place> {
        let offset = cluster.checked_add(offset % self.header.cluster_size).ok_or_else(|| beyond(cluster))?;
        let file = self.files.len().saturating_sub(1);
        let file_len = self.files.get(file).map_or(0, |file| file.len());
        match offset.checked_add(len) {
            Some(end) if end <= file_len => Ok(Place::Data { file, offset }),
            _ => Err(beyond(offset).expected(format!("at most {file_len:#x}"))),
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
        self.state.size
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
        let file = self.file()?;
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
        if let Some(name) = self.data_file() {
            facts.push(("data_file", name.to_string()));
            facts.push(("data_file_raw", header.is_data_file_raw().to_string()));
        }
        if header.has_subclusters() {
            facts.push(("extended_l2", "true".to_owned()));
        }
        if header.nb_snapshots > 0 {
            facts.push(("snapshots", self.snapshots.list()));
        }
        if let Some(chosen) = &self.chosen {
            facts.push(("snapshot", chosen.clone()));
        }
        if !self.bitmaps.bitmaps.is_empty() {
            facts.push(("bitmaps", list(&self.bitmaps.bitmaps)));
        }
        if header.is_dirty() {
            facts.push(("dirty", "refcounts may be stale; the data is not affected".to_owned()));
        }
        facts.extend(self.notes.iter().map(|note| ("note", note.to_string())));
        facts
    }

    fn bitmaps(&self) -> &[Bitmap] {
        &self.bitmaps.bitmaps
    }

    fn dirty(&self, bitmap: usize, from: u64, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        self.visit_dirty(bitmap, from, visit)
    }

    fn in_source_order(&self) -> bool {
        false
    }

    fn check(&self, found: &mut Report<'_>) -> Result<()> {
        check::run(self, self.session.budget.in_flight() / check::COUNTER, found)
    }
}

/// The bitmaps, for `info`.
fn list(bitmaps: &[Bitmap]) -> String {
    const MOST: usize = 32;
    let one = |bitmap: &Bitmap| {
        let state = match (bitmap.in_use, bitmap.auto) {
            (true, _) => "in use",
            (false, true) => "enabled",
            (false, false) => "disabled",
        };
        format!("{} (granularity {}, {state})", bitmap.name, bitmap.granularity)
    };
    let more = bitmaps.len().saturating_sub(MOST);
    let more = (more > 0).then(|| format!("{more} more"));
    bitmaps.iter().take(MOST).map(one).chain(more).collect::<Vec<_>>().join(", ")
}

fn no_snapshot(wanted: &str, snapshots: &snapshot::Table) -> Error {
    Error::unsupported("format.snapshot", "the image has no such snapshot").found(wanted).expected(
        if snapshots.snapshots.is_empty() { "no snapshot, since it has none".to_owned() } else { snapshots.list() },
    )
}

/// `len` bytes at `at`, which lie in the file. The caller bounds `len`.
fn bytes_at(file: &dyn Disk, at: u64, len: u64) -> Result<Vec<u8>> {
    if at.checked_add(len).is_none_or(|end| end > file.len()) {
        return Err(beyond(at));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| beyond(at))?];
    file.read_at(&mut bytes, at)?;
    Ok(bytes)
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
