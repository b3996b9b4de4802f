//! VHDX, the format of Hyper-V since 2012, by [MS-VHDX].
//!
//! ```text
//! file identifier ─► 2 headers ─► 2 region tables ─► log ─► metadata ─► block allocation table ─► blocks
//! ```
//!
//! A log that was not emptied holds changes of metadata that may not be in their place, so it is replayed, in memory, before
//! anything else is read.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::{Checked, Disk, SectorSize, read_vec};
use crate::error::{Error, Result};

use super::bitmap::{self, Order};
use super::pages::Pages;
use super::windows::utf16;
use super::{Ask, Finding, Head, Layer, Parent, Place, Report, Run, Sample, Severity};

mod header;
mod log;
mod metadata;

use header::{Copies, Header, MIB, Regions};
use metadata::{Locator, Metadata};

/// `Signature` of the file identifier.
const SIGNATURE: &[u8] = b"vhdxfile";

/// Whether the file begins as a VHDX does.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(0, SIGNATURE)
}

/// Reads headers, replays the log in memory, and reads the metadata.
///
/// # Errors
/// `vhdx.*`, or those of reading.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    let name = file.name();
    read(file, ask).map_err(|error| error.at(name))
}

fn read(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    ask.without_snapshots()?;
    let identifier = read_vec(&*file, 0, usize::try_from(file.len().min(520)).unwrap_or(0))?;
    if !identifier.starts_with(SIGNATURE) {
        return Err(Error::corrupt("vhdx.header", "there is no file identifier").offset(0).expected("vhdxfile"));
    }
    let (header, headers) = Header::read(&*file)?;
    let (file, replayed): (Arc<dyn Disk>, usize) = if header.log_guid.is_nil() {
        (file, 0)
    } else {
        let replayed = log::replay(&file, &header)?;
        let entries = replayed.entries;
        (Checked::wrap(replayed), entries)
    };
    let (regions, tables) = Regions::read(&*file)?;
    let metadata = Metadata::read(&*file, &regions.metadata)?;
    let bat = Bat::new(&metadata, &regions.bat)?;
    let parent = metadata.parent.as_ref().map(parent_of).transpose()?;
    let layer = Vhdx {
        pages: Pages::new(Arc::clone(&file), ask.session, truncated),
        files: [file],
        creator: utf16(identifier.get(8..).unwrap_or_default(), u16::from_le_bytes),
        header,
        regions,
        metadata,
        bat,
        replayed,
        copies: [headers, tables],
    };
    Ok(Head { parent, ..Head::complete(Arc::new(layer)) })
}

fn parent_of(locator: &Locator) -> Result<Parent> {
    let names = locator.names();
    if names.is_empty() || locator.linkages.is_empty() {
        return Err(Error::corrupt("vhdx.parent", "the differencing disk does not say what its parent is"));
    }
    let expected: Vec<String> = locator.linkages.iter().map(ToString::to_string).collect();
    let accept = move |parent: &dyn Layer| match parent.identity() {
        Some(id) if expected.contains(&id) => Ok(()),
        found => Err(Error::corrupt(
            "vhdx.parent",
            "this is not the parent that the differencing disk was made for, or it was changed since",
        )
        .expected(expected.join(" or "))
        .found(found.unwrap_or_else(|| parent.format().to_owned()))
        .hint(
            "give the right file with --map-path OLD=NEW, or --ignore-parent-id if it is the right one all the same",
        )),
    };
    Ok(Parent { names, accept: Box::new(accept) })
}

fn truncated(offset: u64) -> Error {
    Error::corrupt("vhdx.truncated", "a block or table lies past the end of the file")
        .offset(offset)
        .hint("the image was probably cut short; get it again")
}

/// The layout of the block allocation table: after every `chunk_ratio` payload blocks comes one sector bitmap block.
#[derive(Clone, Debug)]
struct Bat {
    start: u64,
    block_size: u64,
    chunk_ratio: u64,
    /// Payload blocks of the disk.
    blocks: u64,
}

/// The state of a payload block ([MS-VHDX] 2.5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    /// Nothing here: the parent's, or zeros.
    Absent,
    /// Zeros, whatever the parent has.
    Zero,
    /// Here, from this offset.
    Full(u64),
    /// Here as far as the sector bitmap says.
    Partial(u64),
}

impl Bat {
    fn new(metadata: &Metadata, region: &Range<u64>) -> Result<Self> {
        let sector = metadata.sector_size.bytes();
        let chunk_ratio = (sector << 23).checked_div(metadata.block_size).unwrap_or(1).max(1);
        let blocks = metadata.size.div_ceil(metadata.block_size);
        let bat = Self { start: region.start, block_size: metadata.block_size, chunk_ratio, blocks };
        let last = if metadata.parent.is_some() {
            bat.bitmap_index(blocks.saturating_sub(1))
        } else {
            bat.index(blocks.saturating_sub(1))
        };
        let needed = last.saturating_add(1).saturating_mul(8);
        if needed > region.end.saturating_sub(region.start) {
            return Err(Error::corrupt("vhdx.bat", "the block allocation table is too small for the disk")
                .offset(region.start)
                .expected(format!("at least {needed:#x} bytes"))
                .found(format!("{:#x}", region.end.saturating_sub(region.start))));
        }
        Ok(bat)
    }

    /// The index of a payload block's entry.
    fn index(&self, block: u64) -> u64 {
        block.saturating_add(block.checked_div(self.chunk_ratio).unwrap_or(0))
    }

    /// The index of the entry for the sector bitmap that a payload block is in.
    fn bitmap_index(&self, block: u64) -> u64 {
        let chunk = block.checked_div(self.chunk_ratio).unwrap_or(0);
        chunk.saturating_mul(self.chunk_ratio.saturating_add(1)).saturating_add(self.chunk_ratio)
    }

    /// The offset of an entry.
    fn entry(&self, index: u64) -> u64 {
        self.start.saturating_add(index.saturating_mul(8))
    }
}

/// One opened disk.
#[derive(Debug)]
struct Vhdx {
    /// With the log replayed.
    files: [Arc<dyn Disk>; 1],
    pages: Pages,
    creator: String,
    header: Header,
    regions: Regions,
    metadata: Metadata,
    bat: Bat,
    /// Entries of the log that were replayed.
    replayed: usize,
    /// Which copies of the headers and of the region tables are sound.
    copies: [Copies; 2],
}

impl Vhdx {
    fn file(&self) -> &dyn Disk {
        let [file] = &self.files;
        &**file
    }

    /// What an entry says of payload block `block`.
    fn block(&self, block: u64, entry: u64) -> Result<Block> {
        let bad = |what: &str| {
            Error::corrupt("vhdx.bat", what).offset(self.bat.entry(self.bat.index(block))).found(format!("{entry:#x}"))
        };
        match entry & 7 {
            0 => Ok(Block::Absent),
            // PAYLOAD_BLOCK_UNDEFINED may read as anything; 5 is what UNMAPPED was before the format was final.
            1 | 2 | 3 | 5 => Ok(Block::Zero),
            6 => self.place(block, entry).map(Block::Full),
            7 if self.metadata.parent.is_some() => self.place(block, entry).map(Block::Partial),
            _ => Err(bad("a block is in a state that is not possible")),
        }
    }

    /// Where a stored block begins; all of it that the disk uses lies in the file and apart from the tables.
    fn place(&self, block: u64, entry: u64) -> Result<u64> {
        let at = entry & !(MIB.saturating_sub(1));
        let used =
            self.metadata.size.saturating_sub(block.saturating_mul(self.bat.block_size)).min(self.bat.block_size);
        let end = at.checked_add(used).filter(|end| *end <= self.file().len()).ok_or_else(|| truncated(at))?;
        let overlaps = |range: &Range<u64>| range.start < end && at < range.end;
        if at < MIB || overlaps(&self.regions.bat) || overlaps(&self.regions.metadata) {
            return Err(Error::corrupt("vhdx.bat", "a block lies where headers or tables are").offset(at));
        }
        Ok(at)
    }

    /// The entries of payload blocks from `block` to the end of a page of the table, those of sector bitmaps left out.
    fn entries(&self, block: u64) -> Result<impl Iterator<Item = u64>> {
        let index = self.bat.index(block);
        let cycle = self.bat.chunk_ratio.saturating_add(1);
        let entries = self.pages.entries(self.bat.entry(index))?;
        let bytes: Vec<u64> = entries.of().map(u64::from_le_bytes).collect();
        let payload = move |(index, entry): (u64, u64)| {
            (index.checked_rem(cycle) != Some(cycle.saturating_sub(1))).then_some(entry)
        };
        Ok((index..).zip(bytes).filter_map(payload))
    }

    /// The run at `within` of the partially present `block` that begins at `at`.
    fn partial(&self, block: u64, at: u64, within: u64, max: u64) -> Result<Run> {
        let [entry] = [self.bat.entry(self.bat.bitmap_index(block))];
        let bitmap = u64::from_le_bytes(self.pages.entry(entry)?);
        if bitmap & 7 != 6 {
            return Err(Error::corrupt("vhdx.bat", "a partially present block has no sector bitmap")
                .offset(entry)
                .found(format!("{bitmap:#x}")));
        }
        let bitmap = bitmap & !(MIB.saturating_sub(1));
        let sector = self.metadata.sector_size.bytes();
        let before = block.checked_rem(self.bat.chunk_ratio).unwrap_or(0).saturating_mul(self.bat.block_size);
        let first = before.saturating_add(within).checked_div(sector).unwrap_or(0);
        let end = before.saturating_add(within).saturating_add(max).div_ceil(sector);
        let (here, count) = bitmap::run(&self.pages, bitmap, first, end.saturating_sub(first), Order::Ascending)?;
        let len =
            first.saturating_add(count).saturating_mul(sector).saturating_sub(before).saturating_sub(within).min(max);
        let place = if here { Place::Data { file: 0, offset: at.saturating_add(within) } } else { Place::Parent };
        Ok(Run { len, place })
    }

    /// Reports blocks that cannot be where they are said to be, and blocks that share bytes.
    fn check_blocks(&self, found: &mut Report<'_>) -> Result<()> {
        let mut used: Vec<u64> = Vec::new();
        let mut block = 0_u64;
        while block < self.bat.blocks {
            for entry in self.entries(block)? {
                if block >= self.bat.blocks {
                    break;
                }
                match self.block(block, entry) {
                    Ok(Block::Full(at) | Block::Partial(at)) => used.push(at),
                    Ok(Block::Absent | Block::Zero) => {}
                    Err(error) if found(Finding::new(Severity::Corruption, error.to_string())).is_break() => {
                        return Ok(());
                    }
                    Err(_) => {}
                }
                block = block.saturating_add(1);
            }
        }
        used.sort_unstable();
        for pair in used.windows(2) {
            if let [before, after] = *pair
                && before.saturating_add(self.bat.block_size) > after
                && found(Finding::new(Severity::Corruption, "two blocks share bytes of the file").offset(after))
                    .is_break()
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Layer for Vhdx {
    fn format(&self) -> &'static str {
        "vhdx"
    }

    fn identity(&self) -> Option<String> {
        Some(self.header.data_write_guid.to_string())
    }

    fn len(&self) -> u64 {
        self.metadata.size
    }

    fn sector_size(&self) -> SectorSize {
        self.metadata.sector_size
    }

    fn unit_size(&self) -> u64 {
        self.bat.block_size
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        let size = self.bat.block_size;
        let number = offset.checked_div(size).unwrap_or(0);
        let within = offset.checked_rem(size).unwrap_or(0);
        let mut entries = self.entries(number)?;
        let first = self.block(number, entries.next().ok_or_else(|| truncated(self.bat.start))?)?;
        let mut len = size.saturating_sub(within);
        if let Block::Partial(at) = first {
            return self.partial(number, at, within, len.min(max));
        }
        for (next, entry) in (number.saturating_add(1)..).zip(entries) {
            // A bad entry ends the run; the call that asks for it fails.
            let same = len < max
                && next < self.bat.blocks
                && match (first, self.block(next, entry)) {
                    (Block::Full(at), Ok(Block::Full(next))) => at.saturating_add(within).saturating_add(len) == next,
                    (first, Ok(next)) => first == next && !matches!(next, Block::Partial(_)),
                    _ => false,
                };
            if !same {
                break;
            }
            len = len.saturating_add(size);
        }
        let place = match first {
            Block::Absent => Place::Parent,
            Block::Zero => Place::Zero,
            Block::Full(at) | Block::Partial(at) => Place::Data { file: 0, offset: at.saturating_add(within) },
        };
        Ok(Run { len: len.min(max), place })
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let metadata = &self.metadata;
        let disk_type = match (&metadata.parent, metadata.leave_block_allocated) {
            (Some(_), _) => "differencing",
            (None, true) => "fixed",
            (None, false) => "dynamic",
        };
        let log = match self.replayed {
            0 => "empty".to_owned(),
            1 => "1 entry, replayed in memory".to_owned(),
            entries => format!("{entries} entries, replayed in memory"),
        };
        let mut facts = vec![
            ("disk_type", disk_type.to_owned()),
            ("creator", self.creator.clone()),
            ("block_size", metadata.block_size.to_string()),
            ("logical_sector_size", metadata.sector_size.bytes().to_string()),
            ("physical_sector_size", metadata.physical_sector_size.to_string()),
            ("data_write_guid", self.header.data_write_guid.to_string()),
            ("log", log),
        ];
        facts.extend(metadata.id.map(|id| ("virtual_disk_id", id.to_string())));
        for path in metadata.parent.iter().flat_map(|parent| &parent.paths) {
            facts.push(("parent", path.clone()));
        }
        facts
    }

    fn check(&self, found: &mut Report<'_>) -> Result<()> {
        let mut note = |what: &str| found(Finding::new(Severity::Note, what));
        let [headers, tables] = self.copies;
        let mut flow = ControlFlow::Continue(());
        if headers.0 != [true; 2] {
            flow = note("one of the two headers is damaged");
        }
        if flow.is_continue() && tables.0 != [true; 2] {
            flow = note("one of the two region tables is damaged");
        }
        if flow.is_continue() && self.replayed > 0 {
            flow = note("the log was not emptied; it is replayed in memory for reading");
        }
        if flow.is_continue() { self.check_blocks(found) } else { Ok(()) }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests;
