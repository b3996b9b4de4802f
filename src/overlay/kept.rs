//! Copy-on-write into a qcow2 file that stays, and that QEMU opens too: over the same source, which is its backing file.
//!
//! Extended L2 entries (64 KiB clusters with 32 subclusters of 2 KiB) keep what is copied from the base small: nothing, when
//! writes are aligned to 2 KiB. Clusters are appended and never given back, so bytes once written do not move.
//!
//! What a crash leaves is an image without corruption: tables point to clusters only after those and their refcounts are
//! durable, and are written at a flush only. What was written since the last flush may be missing, and its clusters leaked.

use std::collections::HashMap;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};

use crate::disk::{Checked, Disk, DiskMut, Extent, ExtentKind, Fingerprint, Hints, SectorSize, Visit};
use crate::error::{Error, Result};
use crate::session::Session;

mod header;
#[cfg(test)]
mod tests;

pub use header::Backing;
use header::Header;

use super::edges::{Edges, beside};

/// Bytes of a cluster, and of the tables that each take one.
const CLUSTER: u64 = 64 << 10;

/// Bytes of a subcluster, of which a cluster has 32.
const SUBCLUSTER: u64 = CLUSTER / 32;

/// Bytes of an extended L2 entry: the standard entry, and the bitmap of its subclusters.
const L2_ENTRY: usize = 16;

/// Entries of an L2 table.
const L2_ENTRIES: u64 = CLUSTER / 16;

/// Bytes of the disk that an L2 table stands for.
const L2_SPAN: u64 = CLUSTER * L2_ENTRIES;

/// Clusters whose refcounts lie in one block, 16 bits each.
const REFCOUNTS: u64 = CLUSTER / 2;

/// "Refcount is exactly one", bit 63 of L1 and standard L2 entries.
const COPIED: u64 = 1 << 63;

/// Bits 9 to 55 of L1 and L2 entries, and all of a refcount table's: the offset of a cluster in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// A disk that reads as its base until it is written, and keeps what is written in a qcow2 file.
#[derive(Debug)]
pub struct Kept {
    base: Arc<dyn Disk>,
    path: PathBuf,
    file: File,
    len: u64,
    /// L2 tables that stay in memory.
    most_tables: usize,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// Offsets of the L2 tables in the file; 0 where there is none yet.
    l1: Vec<u64>,
    l1_offset: u64,
    /// Offsets of the refcount blocks; 0 where there is none yet.
    refcounts: Vec<u64>,
    refcounts_offset: u64,
    /// L2 tables by their number.
    tables: HashMap<u64, Table>,
    /// Where the next cluster goes.
    end: u64,
    /// Whether anything was written since the last flush.
    dirty: bool,
    /// Grows with each change.
    version: u64,
    /// A flush failed: what the file holds is not known any more.
    broken: bool,
}

#[derive(Debug)]
struct Table {
    entries: Vec<Entry>,
    dirty: bool,
}

/// An extended L2 entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Of the cluster in the file; 0 when it has none.
    offset: u64,
    /// Subclusters that are there, one bit each.
    there: u32,
    /// Subclusters that read as zeros, one bit each; never the same ones.
    zeros: u32,
}

/// Where a run of bytes is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Base,
    /// At this offset of the file.
    File(u64),
    Zeros,
}

impl Kept {
    /// The overlay of `base` in the file at `path`: a new one if there is none, else the one that was made for the same `backing`.
    /// It stays locked, for QEMU too, while the value lives.
    ///
    /// # Errors
    /// `overlay.size`, `overlay.backing`, `overlay.other`, `overlay.locked`, and what reading and writing the file fails with.
    pub fn open(base: Arc<dyn Disk>, path: &Path, backing: &Backing, session: &Session) -> Result<Arc<Checked<Self>>> {
        let most_tables = usize::try_from(session.budget.metadata() / CLUSTER / 2).unwrap_or(16).max(16);
        Self::open_with(base, path, backing, most_tables)
    }

    fn open_with(
        base: Arc<dyn Disk>,
        path: &Path,
        backing: &Backing,
        most_tables: usize,
    ) -> Result<Arc<Checked<Self>>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR);
        let file = File::from(file.map_err(|e| Error::write("opening the overlay", e.into()).path(path))?);
        // Not `flock`: QEMU's own locks are of this kind.
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            Error::failed("overlay.locked", "another program uses the overlay")
                .path(path)
                .because(std::io::Error::from(e))
        })?;
        let found = file.metadata().map_err(|e| Error::write("looking at the overlay", e).path(path))?.len();
        let header = if found == 0 {
            let header = Header::new(base.len(), backing)?;
            header.create(&file).map_err(|e| Error::write("writing the overlay", e).path(path))?;
            header
        } else {
            Header::read(&file, base.len(), backing).map_err(|e| e.path(path))?
        };
        let failed = |e| Error::write("reading the overlay's tables", e).path(path);
        let state = State {
            l1: offsets(&file, header.l1_offset, header.l1_entries).map_err(failed)?,
            l1_offset: header.l1_offset,
            refcounts: offsets(&file, header.refcounts_offset, header.refcount_blocks).map_err(failed)?,
            refcounts_offset: header.refcounts_offset,
            tables: HashMap::new(),
            end: found.max(header.first_free).next_multiple_of(CLUSTER),
            dirty: false,
            version: 0,
            broken: false,
        };
        let len = base.len();
        Ok(Checked::wrap(Self { base, path: path.to_owned(), file, len, most_tables, state: RwLock::new(state) }))
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a change.
    fn change(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            return Err(Error::failed("overlay.broken", "an earlier flush of the overlay failed").path(&self.path));
        }
        state.dirty = true;
        state.version += 1;
        Ok(state)
    }

    fn failed(&self, what: &str) -> impl Fn(std::io::Error) -> Error {
        move |error| Error::write(format!("{what} the overlay"), error).path(&self.path)
    }

    /// Has the table of `number` in memory; there must be room.
    fn load(&self, state: &mut State, number: u64) -> Result<()> {
        if state.tables.contains_key(&number) {
            return Ok(());
        }
        if state.tables.len() >= self.most_tables {
            self.write_tables(state)?;
            state.tables.clear();
        }
        let offset = state.l1.get(index(number)).copied().unwrap_or(0);
        let mut entries = vec![Entry::default(); index(L2_ENTRIES)];
        if offset != 0 {
            let mut bytes = vec![0; index(CLUSTER)];
            self.file.read_exact_at(&mut bytes, offset).map_err(self.failed("reading"))?;
            for (entry, bytes) in entries.iter_mut().zip(bytes.chunks_exact(L2_ENTRY)) {
                *entry = Entry::parse(bytes).ok_or_else(|| {
                    Error::unsupported(
                        "overlay.other",
                        "the overlay has clusters of a sort that this program does not write",
                    )
                    .path(&self.path)
                    .offset(offset)
                })?;
            }
        }
        state.tables.insert(number, Table { entries, dirty: false });
        Ok(())
    }

    /// Appends a cluster of zeros, with a refcount of one.
    fn allocate(&self, state: &mut State) -> Result<u64> {
        loop {
            let offset = state.end;
            let number = offset / CLUSTER;
            let slot = state.refcounts.get_mut(index(number / REFCOUNTS)).ok_or_else(|| {
                Error::limit("overlay.full", "the overlay's refcount table has no more room").path(&self.path)
            })?;
            // A block of refcounts takes the first cluster that it counts.
            let is_block = *slot == 0;
            if is_block {
                *slot = offset;
                let at = state.refcounts_offset + number / REFCOUNTS * 8;
                self.file.write_all_at(&offset.to_be_bytes(), at).map_err(self.failed("writing"))?;
            }
            let at = *slot + number % REFCOUNTS * 2;
            self.file.write_all_at(&1_u16.to_be_bytes(), at).map_err(self.failed("writing"))?;
            state.end += CLUSTER;
            if !is_block {
                return Ok(offset);
            }
        }
    }

    /// The parts of `range` with their homes, in order.
    fn runs(&self, range: Range<u64>) -> Result<Vec<(Range<u64>, Home)>> {
        let mut runs: Vec<(Range<u64>, Home)> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let number = at / L2_SPAN;
            let state = self.read();
            let end = range.end.min((number + 1) * L2_SPAN);
            match state.tables.get(&number) {
                Some(table) => table.runs(at..end, &mut runs),
                None if state.l1.get(index(number)).is_none_or(|&offset| offset == 0) => {
                    add(&mut runs, at..end, Home::Base);
                }
                None => {
                    drop(state);
                    let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                    self.load(&mut state, number)?;
                    continue;
                }
            }
            at = end;
        }
        Ok(runs)
    }

    /// What `runs` read as. Bytes in the file do not move, so this needs no lock.
    fn read_runs(&self, runs: &[(Range<u64>, Home)], mut buf: &mut [u8], edges: &Edges) -> Result<()> {
        for (range, home) in runs {
            let (part, rest) = buf.split_at_mut(index(range.end - range.start).min(buf.len()));
            match home {
                Home::Base => edges.copy(&*self.base, part, range.start)?,
                Home::File(offset) => read_or_zeros(&self.file, part, *offset).map_err(self.failed("reading"))?,
                Home::Zeros => part.fill(0),
            }
            buf = rest;
        }
        Ok(())
    }

    /// What the base has beside `range` in subclusters that have not changed, so that it need not be read under the lock.
    fn edges(&self, range: &Range<u64>) -> Result<Edges> {
        let mut unchanged = Vec::new();
        for part in beside(range, SUBCLUSTER, self.len) {
            let runs = self.runs(part)?.into_iter();
            unchanged.extend(runs.filter(|(_, home)| *home == Home::Base).map(|(range, _)| range));
        }
        Edges::read(&*self.base, unchanged.into_iter())
    }

    /// Writes `data` at `offset`, both in one cluster.
    fn write_cluster(&self, state: &mut State, data: &[u8], offset: u64, edges: &Edges) -> Result<()> {
        let number = offset / L2_SPAN;
        self.load(state, number)?;
        let mut entry = state.entry(offset);
        if entry.offset == 0 {
            entry.offset = self.allocate(state)?;
        }
        let cluster = offset - offset % CLUSTER;
        let written = offset..offset + data.len() as u64;
        let mask = mask(&(written.start - cluster..written.end - cluster));
        let write = |bytes: &[u8], at: u64| {
            self.file.write_all_at(bytes, entry.offset + (at - cluster)).map_err(self.failed("writing"))
        };
        // What lies beside the data in its first and last subcluster comes along.
        for part in beside(&written, SUBCLUSTER, self.len) {
            let mut runs = Vec::new();
            state.table(number).runs(part.clone(), &mut runs);
            if runs.iter().any(|(_, home)| !matches!(home, Home::File(_))) {
                let mut bytes = vec![0; index(part.end - part.start)];
                self.read_runs(&runs, &mut bytes, edges)?;
                write(&bytes, part.start)?;
            }
        }
        write(data, offset)?;
        entry.there |= mask;
        entry.zeros &= !mask;
        state.set(offset, entry);
        Ok(())
    }

    /// Makes whole subclusters of one cluster read as zeros.
    fn zero_subclusters(&self, state: &mut State, range: &Range<u64>) -> Result<()> {
        self.load(state, range.start / L2_SPAN)?;
        let mut entry = state.entry(range.start);
        let within = range.start % CLUSTER..range.start % CLUSTER + (range.end - range.start);
        let mask = mask(&within);
        entry.zeros |= mask;
        entry.there &= !mask;
        state.set(range.start, entry);
        Ok(())
    }

    /// Makes everything durable. After a failure nobody knows what is, and asking again would be answered with yes.
    fn write_tables(&self, state: &mut State) -> Result<()> {
        let written = self.try_write_tables(state);
        state.broken |= written.is_err();
        state.dirty = written.is_err();
        written
    }

    /// First the clusters and their refcounts, then the tables that point to them.
    fn try_write_tables(&self, state: &mut State) -> Result<()> {
        let mut numbers: Vec<u64> = state.tables.iter().filter(|(_, table)| table.dirty).map(|(&n, _)| n).collect();
        numbers.sort_unstable();
        let mut new = Vec::new();
        for &number in &numbers {
            if state.l1[index(number)] == 0 {
                state.l1[index(number)] = self.allocate(state)?;
                new.push(number);
            }
        }
        let failed = self.failed("flushing");
        self.file.set_len(state.end).and_then(|()| self.file.sync_data()).map_err(&failed)?;
        if numbers.is_empty() {
            return Ok(());
        }
        for &number in &numbers {
            let offset = state.l1[index(number)];
            self.file.write_all_at(&state.table(number).to_bytes(), offset).map_err(&failed)?;
        }
        for &number in &new {
            let entry = state.l1[index(number)] | COPIED;
            self.file.write_all_at(&entry.to_be_bytes(), state.l1_offset + number * 8).map_err(&failed)?;
        }
        self.file.sync_data().map_err(&failed)?;
        for number in numbers {
            if let Some(table) = state.tables.get_mut(&number) {
                table.dirty = false;
            }
        }
        Ok(())
    }
}

impl State {
    /// The table of `number`, which was loaded.
    fn table(&self, number: u64) -> &Table {
        static NONE: Table = Table { entries: Vec::new(), dirty: false };
        self.tables.get(&number).unwrap_or(&NONE)
    }

    /// The entry of the cluster at `offset`, whose table was loaded.
    fn entry(&self, offset: u64) -> Entry {
        let entries = &self.table(offset / L2_SPAN).entries;
        entries.get(index(offset % L2_SPAN / CLUSTER)).copied().unwrap_or_default()
    }

    fn set(&mut self, offset: u64, entry: Entry) {
        if let Some(table) = self.tables.get_mut(&(offset / L2_SPAN)) {
            table.entries[index(offset % L2_SPAN / CLUSTER)] = entry;
            table.dirty = true;
        }
    }
}

impl Table {
    /// Adds the parts of `range`, which lies in this table's span.
    fn runs(&self, range: Range<u64>, runs: &mut Vec<(Range<u64>, Home)>) {
        let mut at = range.start;
        while at < range.end {
            let entry = self.entries.get(index(at % L2_SPAN / CLUSTER)).copied().unwrap_or_default();
            let cluster = at - at % CLUSTER;
            if entry == Entry::default() {
                let end = range.end.min(cluster + CLUSTER);
                add(runs, at..end, Home::Base);
                at = end;
                continue;
            }
            let end = range.end.min(at - at % SUBCLUSTER + SUBCLUSTER);
            let bit = 1_u32 << (at % CLUSTER / SUBCLUSTER);
            let home = if entry.there & bit != 0 {
                Home::File(entry.offset + at % CLUSTER)
            } else if entry.zeros & bit != 0 {
                Home::Zeros
            } else {
                Home::Base
            };
            add(runs, at..end, home);
            at = end;
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(index(CLUSTER));
        for entry in &self.entries {
            let standard = if entry.offset == 0 { 0 } else { entry.offset | COPIED };
            bytes.extend(standard.to_be_bytes());
            bytes.extend(entry.zeros.to_be_bytes());
            bytes.extend(entry.there.to_be_bytes());
        }
        bytes
    }
}

impl Entry {
    /// The entry in 16 bytes; `None` for a compressed cluster, or one that another cluster shares.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (standard, bitmap) = bytes.split_first_chunk::<8>()?;
        let (zeros, there) = bitmap.split_first_chunk::<4>()?;
        let standard = u64::from_be_bytes(*standard);
        let entry = Self {
            offset: standard & OFFSET,
            zeros: u32::from_be_bytes(*zeros),
            there: u32::from_be_bytes(there.try_into().ok()?),
        };
        let is_own = entry.offset == 0 || standard & COPIED != 0;
        let is_plain = standard & !(OFFSET | COPIED) == 0 && entry.offset.is_multiple_of(CLUSTER);
        let is_sound = entry.there & entry.zeros == 0 && (entry.offset != 0 || entry.there == 0);
        (is_own && is_plain && is_sound).then_some(entry)
    }
}

/// Adds a run, as part of the one before it where it goes on.
fn add(runs: &mut Vec<(Range<u64>, Home)>, range: Range<u64>, home: Home) {
    if let Some((last, before)) = runs.last_mut() {
        let goes_on = match (*before, home) {
            (Home::File(a), Home::File(b)) => b.checked_sub(a) == Some(last.end - last.start),
            (a, b) => a == b,
        };
        if goes_on && last.end == range.start {
            last.end = range.end;
            return;
        }
    }
    runs.push((range, home));
}

/// The bits of the subclusters that a range of a cluster touches; it is not empty.
fn mask(within: &Range<u64>) -> u32 {
    let (first, end) = (within.start / SUBCLUSTER, within.end.div_ceil(SUBCLUSTER));
    let bits = (1_u64 << end) - (1_u64 << first);
    u32::try_from(bits).unwrap_or(u32::MAX)
}

/// A number that is bounded by a table or a buffer.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Offsets of clusters in a table of the file.
fn offsets(file: &File, at: u64, count: u64) -> std::io::Result<Vec<u64>> {
    let mut bytes = vec![0; index(count * 8)];
    file.read_exact_at(&mut bytes, at)?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or(0) & OFFSET;
    Ok(bytes.chunks_exact(8).map(number).collect())
}

/// Reads, with zeros behind the end of the file: a cluster at its end may be there in part.
fn read_or_zeros(file: &File, mut buf: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => {
                buf.fill(0);
                return Ok(());
            }
            Ok(count) => {
                buf = buf.split_at_mut(count).1;
                offset += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The parts of `range` that lie in one unit each.
fn split(range: Range<u64>, unit: u64) -> impl Iterator<Item = Range<u64>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let part = at..range.end.min((at / unit + 1) * unit);
        at = part.end;
        (!part.is_empty()).then_some(part)
    })
}

impl Disk for Kept {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.base.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let runs = self.runs(offset..offset + buf.len() as u64)?;
        self.read_runs(&runs, buf, &Edges::default())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        for span in split(range, L2_SPAN) {
            for (range, home) in self.runs(span)? {
                let mut flow = ControlFlow::Continue(());
                let kind = match home {
                    Home::File(_) => ExtentKind::Data,
                    Home::Zeros => ExtentKind::Zero,
                    Home::Base => {
                        self.base.extents(range, &mut |extent| {
                            flow = visit(Extent { depth: extent.depth.saturating_add(1), ..extent });
                            flow
                        })?;
                        if flow.is_break() {
                            return Ok(());
                        }
                        continue;
                    }
                };
                if visit(Extent { range, kind, depth: 0, place: None }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn prefetch(&self, range: Range<u64>) {
        self.base.prefetch(range);
    }

    fn hints(&self) -> Hints {
        self.base.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let base = self.base.fingerprint()?;
        let name = self.path.as_os_str().as_encoded_bytes();
        Ok(Fingerprint::of(&[b"kept overlay", &base.0, name, &self.read().version.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("overlay", self.path.display().to_string())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.base)]
    }
}

impl DiskMut for Kept {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let edges = self.edges(&(offset..offset + data.len() as u64))?;
        let mut state = self.change()?;
        let mut rest = data;
        for part in split(offset..offset + data.len() as u64, CLUSTER) {
            let (now, after) = rest.split_at(index(part.end - part.start).min(rest.len()));
            self.write_cluster(&mut state, now, part.start, &edges)?;
            rest = after;
        }
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let edges = self.edges(&range)?;
        let mut state = self.change()?;
        for part in split(range, CLUSTER) {
            // The last subcluster of the disk counts as whole.
            let end = if part.end == self.len { part.end.next_multiple_of(SUBCLUSTER) } else { part.end };
            let whole = part.start.next_multiple_of(SUBCLUSTER)..end / SUBCLUSTER * SUBCLUSTER;
            let partial =
                if whole.is_empty() { [part.clone(), 0..0] } else { [part.start..whole.start, whole.end..part.end] };
            for edge in partial.into_iter().filter(|edge| !edge.is_empty()) {
                self.write_cluster(&mut state, &vec![0; index(edge.end - edge.start)], edge.start, &edges)?;
            }
            if !whole.is_empty() {
                self.zero_subclusters(&mut state, &whole)?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        let mut state = self.change()?;
        self.write_tables(&mut state)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let dirty = self.read().dirty;
        if dirty && let Err(error) = self.flush() {
            tracing::error!(%error, "what was written last did not reach the overlay");
        }
    }
}
