//! A hosted sparse extent: a grain directory of grain tables of grains, plain or compressed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::grain;
use super::header::{Header, LEN, SECTOR};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::format::{Place, Run, Unit};
use crate::limits;

/// Grain tables kept in memory, each of up to 2 KiB.
const TABLES_KEPT: usize = 512;

/// Grain tables that one call of `map` reads at most, so that a call ends soon.
const TABLES_A_CALL: u32 = 64;

/// A directory or table entry that means zeros, where the header says that such entries exist.
const ZEROED: u32 = 1;

/// A sparse extent, its header read and its grain directory in memory.
#[derive(Debug)]
pub(super) struct SparseExtent {
    file: Arc<dyn Disk>,
    header: Header,
    /// The grain directory: the sector of each grain table; 0 where no grain of it is stored.
    directory: Vec<u32>,
    tables: Tables,
    /// Directory entries that were damaged and taken from the redundant copy.
    repaired: AtomicU64,
}

/// What the tables say of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grain {
    /// Not in this extent.
    Absent,
    /// Zeros.
    Zero,
    /// Stored at this offset of the file.
    At(u64),
}

/// A grain table, or what stands in for a whole one.
#[derive(Clone, Debug)]
enum Table {
    Absent,
    Zero,
    Entries(Arc<[u32]>),
}

impl SparseExtent {
    /// Reads the header, the footer if there is one, and the directory. At most `tables_left` tables are allowed.
    ///
    /// # Errors
    /// `vmdk.header`, `vmdk.footer`, `vmdk.directory`, or those of reading.
    pub(super) fn open(file: Arc<dyn Disk>, header: Header, tables_left: u64) -> Result<Self> {
        let header = match header.gd {
            Some(_) => header,
            None => with_footer(&*file, header)?,
        };
        let entries = header.tables();
        if entries > tables_left.min(limits::MAX_VMDK_TABLES) {
            return Err(Error::limit("vmdk.directory", "the disk has too many grain tables")
                .expected(format!("at most {}", limits::MAX_VMDK_TABLES))
                .found(entries));
        }
        let directory = read_entries(&*file, header.gd.unwrap_or(0), entries)?;
        let slots = directory.len().min(TABLES_KEPT);
        Ok(Self { file, header, directory, tables: Tables::new(slots), repaired: AtomicU64::new(0) })
    }

    /// The header.
    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Number of grain tables.
    pub(super) fn tables(&self) -> u64 {
        self.header.tables()
    }

    /// Directory entries taken from the redundant copy so far.
    pub(super) fn repaired(&self) -> u64 {
        self.repaired.load(Ordering::Relaxed)
    }

    /// Where the bytes at `offset` of the extent live, as [`crate::format::Layer::map`] says it. The extent begins at `start` of
    /// the layer and its file is number `file` there.
    pub(super) fn map(&self, offset: u64, max: u64, start: u64, file: usize) -> Result<Run> {
        let grain = self.header.grain;
        let index = offset.checked_div(grain).unwrap_or(0);
        let within = offset.checked_rem(grain).unwrap_or(0);
        let mut walk = Walk { extent: self, table: None, reads: 0 };
        let first = walk.grain(index)?;
        if let Grain::At(at) = first
            && self.header.compressed
        {
            let unit = self.unit(&mut walk, index, at, start, file)?;
            return Ok(Run { len: max.min(grain.saturating_sub(within)), place: Place::Encoded(unit) });
        }
        let mut len = grain.saturating_sub(within);
        let mut next = index.saturating_add(1);
        while len < max && walk.reads < TABLES_A_CALL {
            let (same, count) = walk.like(next, first, next.saturating_sub(index))?;
            if !same {
                break;
            }
            len = len.saturating_add(count.saturating_mul(grain));
            next = next.saturating_add(count);
        }
        let place = match first {
            Grain::Absent => Place::Parent,
            Grain::Zero => Place::Zero,
            Grain::At(at) => Place::Data { file, offset: at.saturating_add(within) },
        };
        Ok(Run { len: len.min(max), place })
    }

    /// Decodes the compressed grain that begins at `offset` of the extent and is stored at `at`.
    pub(super) fn decode(&self, offset: u64, at: u64, out: &mut [u8]) -> Result<()> {
        let needed = self.header.capacity.saturating_sub(offset);
        let needed = usize::try_from(needed).unwrap_or(usize::MAX).min(out.len());
        let lba = offset.checked_div(SECTOR).unwrap_or(0);
        grain::read(&*self.file, at, lba, out, needed)
    }

    /// The compressed grain `index`, stored at `at`. It ends where the next grain begins, if that follows; else it is as large
    /// as a grain can be.
    fn unit(&self, walk: &mut Walk<'_>, index: u64, at: u64, start: u64, file: usize) -> Result<Unit> {
        let grain = self.header.grain;
        let most = grain::largest_stored(grain).min(self.file.len().saturating_sub(at));
        let next = index.saturating_add(1);
        let stored = match if next < self.header.grains() { walk.peek(next) } else { Grain::Absent } {
            Grain::At(next) if next > at => most.min(next.saturating_sub(at)),
            _ => most,
        };
        Ok(Unit {
            start: start.saturating_add(index.saturating_mul(grain)),
            len: u32::try_from(grain).map_err(|_| self.bad("the grain size is impossible", at))?,
            file,
            offset: at,
            stored: u32::try_from(stored).unwrap_or(u32::MAX),
        })
    }

    /// Grain table number `number`, through the few that are kept.
    fn table(&self, number: u64) -> Result<Table> {
        let slot = usize::try_from(number).unwrap_or(usize::MAX);
        match self.directory.get(slot).copied() {
            None | Some(0) => return Ok(Table::Absent),
            Some(ZEROED) if self.header.zeroed_grains => return Ok(Table::Zero),
            Some(_) => {}
        }
        if let Some(entries) = self.tables.find(number) {
            return Ok(Table::Entries(entries));
        }
        let sector = self.directory.get(slot).copied().unwrap_or(0);
        let used = self.entries_in(number);
        let at = match self.table_fits(sector, used) {
            Some(at) => at,
            None => self.redundant_table(number, sector, used)?,
        };
        let entries: Arc<[u32]> = read_entries(&*self.file, at, used)?.into();
        self.tables.keep(number, Arc::clone(&entries));
        Ok(Table::Entries(entries))
    }

    /// Entries of table `number` that stand for grains of the disk: the last table is not used to its end.
    fn entries_in(&self, number: u64) -> u64 {
        let before = number.saturating_mul(self.header.gtes);
        self.header.grains().saturating_sub(before).min(self.header.gtes)
    }

    /// The offset of a table at `sector`, if it lies inside the file and behind the header.
    fn table_fits(&self, sector: u32, entries: u64) -> Option<u64> {
        let at = u64::from(sector).checked_mul(SECTOR)?;
        let end = at.checked_add(entries.checked_mul(4)?)?;
        (sector > 0 && end <= self.file.len()).then_some(at)
    }

    /// The offset of a table whose directory entry is damaged, by the redundant directory.
    fn redundant_table(&self, number: u64, found: u32, entries: u64) -> Result<u64> {
        let bad = || self.bad("a grain table lies outside of the file", u64::from(found).saturating_mul(SECTOR));
        let rgd = self.header.rgd.filter(|rgd| *rgd != 0).ok_or_else(bad)?;
        let at = rgd.saturating_add(number.saturating_mul(4));
        let entry = read_entries(&*self.file, at, 1)?.first().copied().unwrap_or(0);
        let table = self.table_fits(entry, entries).ok_or_else(bad)?;
        self.repaired.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(table = number, "a grain directory entry is damaged; using the redundant one");
        Ok(table)
    }

    /// What an entry for grain `index` means, checked against the file.
    fn entry(&self, index: u64, entry: u32) -> Result<Grain> {
        match entry {
            0 => return Ok(Grain::Absent),
            ZEROED if self.header.zeroed_grains => return Ok(Grain::Zero),
            _ => {}
        }
        let at = u64::from(entry).saturating_mul(SECTOR);
        let used = self.header.capacity.saturating_sub(index.saturating_mul(self.header.grain)).min(self.header.grain);
        let least = if self.header.compressed { SECTOR.min(used) } else { used };
        if at.saturating_add(least) > self.file.len() {
            return Err(self.bad("a grain lies outside of the file", at));
        }
        Ok(Grain::At(at))
    }

    fn bad(&self, what: &str, at: u64) -> Error {
        Error::corrupt("vmdk.grain", what).offset(at).expected(format!("inside {:#x} bytes", self.file.len()))
    }
}

/// A walk over grains that holds on to the table it is in.
struct Walk<'a> {
    extent: &'a SparseExtent,
    table: Option<(u64, Table)>,
    reads: u32,
}

impl Walk<'_> {
    fn table(&mut self, number: u64) -> Result<&Table> {
        if self.table.as_ref().is_none_or(|(current, _)| *current != number) {
            let table = self.extent.table(number)?;
            if matches!(table, Table::Entries(_)) {
                self.reads = self.reads.saturating_add(1);
            }
            self.table = Some((number, table));
        }
        Ok(self.table.as_ref().map_or(&Table::Absent, |(_, table)| table))
    }

    fn grain(&mut self, index: u64) -> Result<Grain> {
        let gtes = self.extent.header.gtes;
        let within = usize::try_from(index.checked_rem(gtes).unwrap_or(0)).unwrap_or(0);
        let extent = self.extent;
        match self.table(index.checked_div(gtes).unwrap_or(0))? {
            Table::Absent => Ok(Grain::Absent),
            Table::Zero => Ok(Grain::Zero),
            Table::Entries(entries) => extent.entry(index, entries.get(within).copied().unwrap_or(0)),
        }
    }

    /// [`Walk::grain`] of a neighbour, for which an error is no answer, and no table is read.
    fn peek(&mut self, index: u64) -> Grain {
        let number = index.checked_div(self.extent.header.gtes).unwrap_or(0);
        match &self.table {
            Some((current, _)) if *current == number => self.grain(index).unwrap_or(Grain::Absent),
            _ => Grain::Absent,
        }
    }

    /// Whether grain `index` continues a run that began `distance` grains before with `first`, and for how many grains.
    fn like(&mut self, index: u64, first: Grain, distance: u64) -> Result<(bool, u64)> {
        let extent = self.extent;
        let grains = extent.header.grains();
        if index >= grains {
            return Ok((false, 0));
        }
        let gtes = extent.header.gtes;
        let (number, within) = (index.checked_div(gtes).unwrap_or(0), index.checked_rem(gtes).unwrap_or(0));
        let whole = gtes.saturating_sub(within).min(grains.saturating_sub(index));
        let next = match self.table(number)? {
            Table::Absent => return Ok((first == Grain::Absent, whole)),
            Table::Zero => return Ok((first == Grain::Zero, whole)),
            Table::Entries(_) => match self.grain(index) {
                Ok(next) => next,
                // The run before it is good; whoever reads on meets the error.
                Err(_) => return Ok((false, 0)),
            },
        };
        let expected = match first {
            Grain::At(at) => Grain::At(at.saturating_add(distance.saturating_mul(extent.header.grain))),
            other => other,
        };
        Ok((next == expected, 1))
    }
}

/// A few grain tables by number: each has one slot that it may occupy.
#[derive(Debug)]
struct Tables(Vec<Mutex<Kept>>);

/// A table's number and its entries.
type Kept = Option<(u64, Arc<[u32]>)>;

impl Tables {
    fn new(slots: usize) -> Self {
        Self((0..slots.max(1)).map(|_| Mutex::default()).collect())
    }

    fn slot(&self, number: u64) -> Option<MutexGuard<'_, Kept>> {
        let slots = u64::try_from(self.0.len()).unwrap_or(1);
        let slot = usize::try_from(number.checked_rem(slots)?).ok()?;
        Some(self.0.get(slot)?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, number: u64) -> Option<Arc<[u32]>> {
        let slot = self.slot(number)?;
        slot.as_ref().filter(|(kept, _)| *kept == number).map(|(_, entries)| Arc::clone(entries))
    }

    fn keep(&self, number: u64, entries: Arc<[u32]>) {
        if let Some(mut slot) = self.slot(number) {
            *slot = Some((number, entries));
        }
    }
}

/// Finds the footer: before the end-of-stream marker, which is the last sector, and behind a marker of its own.
fn with_footer(file: &dyn Disk, header: Header) -> Result<Header> {
    const FOOTER: u32 = 3;
    let cut = |what: &str| {
        Error::corrupt("vmdk.footer", what).hint("the file may be incomplete; get it again").offset(file.len())
    };
    let start = file.len().checked_sub(3 * SECTOR).ok_or_else(|| cut("the file has no footer"))?;
    let bytes = read_vec(file, start, 3 * LEN)?;
    let (chunks, _) = bytes.as_chunks::<LEN>();
    let [marker, footer, end] = chunks else { return Err(cut("the file has no footer")) };
    let kind = |marker: &[u8], kind: u32| {
        marker.get(8..12) == Some(&[0; 4]) && marker.get(12..16) == Some(kind.to_le_bytes().as_slice())
    };
    if !kind(marker, FOOTER) || !footer.starts_with(b"KDMV") || !kind(end, 0) {
        return Err(cut("the file does not end with a footer and an end-of-stream marker"));
    }
    let footer = Header::parse(footer).map_err(|error| error.at("footer"))?;
    header.with_footer(&footer)
}

/// Reads `count` little-endian u32 entries at `at`.
fn read_entries(file: &dyn Disk, at: u64, count: u64) -> Result<Vec<u32>> {
    let range = byte_range(at, count).filter(|range| range.start > 0 && range.end <= file.len()).ok_or_else(|| {
        Error::corrupt("vmdk.directory", "a grain directory or table lies outside of the file")
            .offset(at)
            .expected(format!("{count} entries inside {:#x} bytes", file.len()))
    })?;
    let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
    let bytes = read_vec(file, range.start, len)?;
    Ok(bytes.as_chunks().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect())
}

fn byte_range(at: u64, count: u64) -> Option<Range<u64>> {
    Some(at..at.checked_add(count.checked_mul(4)?)?)
}
