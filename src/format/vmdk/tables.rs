//! Reading the directory and the tables of a sparse extent, of whatever subformat.

use std::sync::Arc;

use super::grain;
use super::header::{Header, LEN, SECTOR};
use super::layout::{Grain, Layout, Stored, Table};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::format::pages::{Entries, Pages};
use crate::format::{Place, Run, Unit};
use crate::session::Session;

/// Grain tables that one call of `map` reads at most, so that a call ends soon.
const TABLES_A_CALL: u32 = 64;

/// A sparse extent whose header was read.
#[derive(Debug)]
pub(super) struct Grains {
    file: Arc<dyn Disk>,
    layout: Layout,
    pages: Pages,
    /// Directory entries that are damaged and taken from the redundant copy.
    repaired: u64,
}

impl Grains {
    /// Examines the directory. One of `among` extents of a disk, which share the memory for tables.
    ///
    /// # Errors
    /// `vmdk.directory`, or those of reading.
    pub(super) fn open(file: Arc<dyn Disk>, mut layout: Layout, session: &Session, among: u64) -> Result<Self> {
        let len = layout.tables().saturating_mul(layout.width());
        let fits = |at: u64| at > 0 && at.checked_add(len).is_some_and(|end| end <= file.len());
        let redundant = layout.redundant.filter(|redundant| fits(*redundant));
        let mut repaired = 0;
        if !fits(layout.directory) {
            let bad = || {
                Error::corrupt("vmdk.directory", "the grain directory lies outside of the file")
                    .offset(layout.directory)
                    .expected(format!("{len:#x} bytes inside {:#x}", file.len()))
            };
            layout.directory = redundant.ok_or_else(bad)?;
            repaired = layout.tables();
        }
        layout.redundant = redundant.filter(|redundant| *redundant != layout.directory);
        let pages = Pages::shared(Arc::clone(&file), session, among, beyond);
        let mut grains = Self { file, layout, pages, repaired };
        grains.examine()?;
        if grains.repaired > 0 {
            let file = grains.file.name();
            tracing::warn!(file, tables = grains.repaired, "the grain directory is damaged; using the redundant one");
        }
        Ok(grains)
    }

    /// Counts the tables: a file has no room for more than it can hold, so a walk over all of them is bounded by its length.
    fn examine(&mut self) -> Result<()> {
        let mut walk = self.walk();
        let (mut bytes, mut repaired) = (0_u64, 0_u64);
        for number in 0..self.layout.tables() {
            let own = walk.own_table(number)?;
            if matches!(own, Some(Table::Zero)) {
                continue;
            }
            let table = walk.table(number).unwrap_or(Table::Absent);
            if let Table::At(_) = table {
                bytes = bytes.saturating_add(self.layout.used_entries(number).saturating_mul(self.layout.width()));
                if own != Some(table) {
                    repaired = repaired.saturating_add(1);
                }
            }
        }
        if bytes > self.file.len() {
            return Err(Error::corrupt("vmdk.directory", "the grain tables are larger than the file")
                .offset(self.layout.directory)
                .expected(format!("at most {:#x} bytes", self.file.len()))
                .found(format!("{bytes:#x}")));
        }
        self.repaired = self.repaired.saturating_add(repaired);
        Ok(())
    }

    /// Where things are.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The file.
    pub(super) fn file(&self) -> &dyn Disk {
        &*self.file
    }

    /// What the header itself takes: offsets and lengths.
    pub(super) fn fixed(&self) -> impl Iterator<Item = (u64, u64)> {
        std::iter::once((0, SECTOR)).chain(self.layout.descriptor)
    }

    /// Directory entries taken from the redundant copy.
    pub(super) fn repaired(&self) -> u64 {
        self.repaired
    }

    /// A walk over tables and grains.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk { grains: self, directory: Held::default(), table: Held::default(), current: None, visited: 0 }
    }

    /// Where the bytes at `offset` of the extent live, as [`crate::format::Layer::map`] says it. The extent begins at `start` of
    /// the layer and its file is number `file` there.
    pub(super) fn map(&self, offset: u64, max: u64, start: u64, file: usize) -> Result<Run> {
        let grain = self.layout.grain;
        let index = offset.checked_div(grain).unwrap_or(0);
        let within = offset.checked_rem(grain).unwrap_or(0);
        let mut walk = self.walk();
        let first = walk.grain(index)?;
        if let Grain::At(at) = first
            && self.layout.stored() != Stored::Plain
        {
            let unit = self.unit(&mut walk, index, at, start, file)?;
            return Ok(Run { len: max.min(grain.saturating_sub(within)), place: Place::Encoded(unit) });
        }
        let mut len = grain.saturating_sub(within);
        let mut next = index.saturating_add(1);
        while len < max && walk.visited < TABLES_A_CALL {
            let same = walk.like(next, first, next.saturating_sub(index));
            if same == 0 {
                break;
            }
            len = len.saturating_add(same.saturating_mul(grain));
            next = next.saturating_add(same);
        }
        let place = match first {
            Grain::Absent => Place::Parent,
            Grain::Zero => Place::Zero,
            Grain::At(at) => Place::Data { file, offset: at.saturating_add(within) },
        };
        Ok(Run { len: len.min(max), place })
    }

    /// Decodes the compressed grain that begins at `offset` of the extent and is stored at `at`.
    pub(super) fn decode(&self, offset: u64, at: u64, stored: u32, out: &mut [u8]) -> Result<()> {
        let needed = self.layout.capacity.saturating_sub(offset);
        let needed = usize::try_from(needed).unwrap_or(usize::MAX).min(out.len());
        match self.layout.stored() {
            Stored::Bare => grain::read_bare(&*self.file, at, stored, out, needed),
            _ => grain::read(&*self.file, at, offset.checked_div(SECTOR).unwrap_or(0), out, needed),
        }
    }

    /// The compressed grain `index`, stored at `at`. It ends where the next grain begins, if that follows; else it is as large
    /// as a grain can be.
    fn unit(&self, walk: &mut Walk<'_>, index: u64, at: u64, start: u64, file: usize) -> Result<Unit> {
        let grain = self.layout.grain;
        let most = grain::largest_stored(grain).min(self.file.len().saturating_sub(at));
        let stored = match walk.peek(index.saturating_add(1)) {
            Grain::At(next) if next > at => most.min(next.saturating_sub(at)),
            _ => most,
        };
        Ok(Unit {
            start: start.saturating_add(index.saturating_mul(grain)),
            len: u32::try_from(grain).map_err(|_| self.outside("the grain size is impossible", at))?,
            file,
            offset: at,
            stored: u32::try_from(stored).unwrap_or(u32::MAX),
        })
    }

    fn outside(&self, what: &str, entry: u64) -> Error {
        Error::corrupt("vmdk.grain", what)
            .expected(format!("a place inside {:#x} bytes", self.file.len()))
            .found(format!("{entry:#x}"))
    }
}

fn beyond(offset: u64) -> Error {
    Error::corrupt("vmdk.directory", "a grain table lies outside of the file").offset(offset)
}

/// A walk over grains that holds on to the pages it is in.
pub(super) struct Walk<'a> {
    grains: &'a Grains,
    directory: Held,
    table: Held,
    current: Option<(u64, Table)>,
    /// Tables that were come to.
    visited: u32,
}

impl Walk<'_> {
    /// What the directory says of table `number`, whatever its copy says; `None` when that is impossible.
    pub(super) fn own_table(&mut self, number: u64) -> Result<Option<Table>> {
        self.table_in(self.grains.layout.directory, number)
    }

    /// What the redundant directory says of table `number`, if there is one.
    pub(super) fn copied_table(&mut self, number: u64) -> Result<Option<Table>> {
        match self.grains.layout.redundant {
            Some(redundant) => self.table_in(redundant, number),
            None => Ok(None),
        }
    }

    fn table_in(&mut self, directory: u64, number: u64) -> Result<Option<Table>> {
        let Grains { layout, pages, file, .. } = self.grains;
        let at = directory.saturating_add(number.saturating_mul(layout.width()));
        let entry = self.directory.entry(pages, at, layout.width())?;
        Ok(layout.table(number, entry, file.len()))
    }

    /// What is known of table `number`: what the directory says or, where that is damaged or says nothing, its copy. Both are
    /// always written together.
    pub(super) fn table(&mut self, number: u64) -> Result<Table> {
        if let Some((current, table)) = self.current
            && current == number
        {
            return Ok(table);
        }
        let own = self.own_table(number)?;
        let table = match own {
            Some(table @ (Table::At(_) | Table::Zero)) => table,
            other => match self.copied_table(number)? {
                Some(copy @ Table::At(_)) => copy,
                _ => other.ok_or_else(|| self.grains.outside("a grain table lies outside of the file", number))?,
            },
        };
        if matches!(table, Table::At(_)) {
            self.visited = self.visited.saturating_add(1);
        }
        self.current = Some((number, table));
        Ok(table)
    }

    /// What is known of grain `index`.
    pub(super) fn grain(&mut self, index: u64) -> Result<Grain> {
        let per_table = self.grains.layout.per_table;
        let (number, within) = (index.checked_div(per_table).unwrap_or(0), index.checked_rem(per_table).unwrap_or(0));
        let at = match self.table(number)? {
            Table::Absent => return Ok(Grain::Absent),
            Table::Zero => return Ok(Grain::Zero),
            Table::At(at) => at,
        };
        let (entry, grain) = self.grain_in(at, index, within)?;
        if let Some(grain) = grain {
            return Ok(grain);
        }
        if let Some(Table::At(copy)) = self.copied_table(number)?
            && let (_, Some(grain)) = self.grain_in(copy, index, within)?
        {
            return Ok(grain);
        }
        Err(self.grains.outside("a grain lies outside of the file", entry).offset(self.entry_at(at, within)))
    }

    /// The entry for grain `index`, which is number `within` of the table at `table`, and what it means.
    pub(super) fn grain_in(&mut self, table: u64, index: u64, within: u64) -> Result<(u64, Option<Grain>)> {
        let at = self.entry_at(table, within);
        let Grains { layout, pages, file, .. } = self.grains;
        let entry = self.table.entry(pages, at, layout.width())?;
        Ok((entry, layout.grain(index, entry, file.len())))
    }

    fn entry_at(&self, table: u64, within: u64) -> u64 {
        table.saturating_add(within.saturating_mul(self.grains.layout.width()))
    }

    /// [`Walk::grain`] of a neighbour, for which an error is no answer, and no other table is read.
    fn peek(&mut self, index: u64) -> Grain {
        let layout = &self.grains.layout;
        let number = index.checked_div(layout.per_table).unwrap_or(0);
        match self.current {
            Some((current, _)) if current == number && index < layout.grains() => {
                self.grain(index).unwrap_or(Grain::Absent)
            }
            _ => Grain::Absent,
        }
    }

    /// For how many grains from `index` on a run continues that began `distance` grains before with `first`: a whole table where
    /// none is stored. The run before a bad entry is good; whoever reads on meets the error.
    fn like(&mut self, index: u64, first: Grain, distance: u64) -> u64 {
        let layout = &self.grains.layout;
        let grains = layout.grains();
        if index >= grains {
            return 0;
        }
        let number = index.checked_div(layout.per_table).unwrap_or(0);
        let within = index.checked_rem(layout.per_table).unwrap_or(0);
        let whole = layout.per_table.saturating_sub(within).min(grains.saturating_sub(index));
        let expected = match first {
            Grain::At(at) => Grain::At(at.saturating_add(distance.saturating_mul(layout.grain))),
            other => other,
        };
        match self.table(number) {
            Ok(Table::Absent) if first == Grain::Absent => whole,
            Ok(Table::Zero) if first == Grain::Zero => whole,
            Ok(Table::At(_)) if self.grain(index).is_ok_and(|next| next == expected) => 1,
            _ => 0,
        }
    }
}

/// The page that the last entry came from.
#[derive(Default)]
struct Held(Option<(u64, Entries)>);

impl Held {
    /// The entry of `width` bytes at `at`.
    fn entry(&mut self, pages: &Pages, at: u64, width: u64) -> Result<u64> {
        let width = usize::try_from(width).unwrap_or(8);
        if let Some(entry) = self.held(at, width) {
            return Ok(entry);
        }
        self.0 = Some((at, pages.entries(at)?));
        self.held(at, width).ok_or_else(|| beyond(at))
    }

    fn held(&self, at: u64, width: usize) -> Option<u64> {
        let (from, entries) = self.0.as_ref()?;
        let rest = entries.bytes().get(usize::try_from(at.checked_sub(*from)?).ok()?..)?;
        match width {
            4 => Some(u64::from(u32::from_le_bytes(*rest.first_chunk()?))),
            _ => Some(u64::from_le_bytes(*rest.first_chunk()?)),
        }
    }
}

/// Finds the footer: before the end-of-stream marker, which is the last sector, and behind a marker of its own.
///
/// # Errors
/// `vmdk.footer`, or those of reading.
pub(super) fn with_footer(file: &dyn Disk, header: Header) -> Result<Header> {
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
