//! VHD: fixed, dynamic and differencing disks of Virtual PC, Hyper-V and Azure, by Microsoft's "Virtual Hard Disk Image Format
//! Specification", version 1.0.
//!
//! ```text
//! fixed                      the disk ─► footer
//! dynamic, differencing      copy of the footer ─► header ─► block allocation table ─► (sector bitmap, block) … ─► footer
//! ```
//!
//! The bitmap of a dynamic disk says nothing that a reader needs. That of a differencing disk says for each sector whether it is
//! here or in the parent.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result, escape_bytes};
use crate::session::VhdSize;

use super::bitmap::{self, Order};
use super::pages::Pages;
use super::{Ask, Finding, Head, Layer, Parent, Place, Report, Run, Sample, Severity};

mod dynamic;
mod footer;

use dynamic::Header;
use footer::{DiskType, Footer};

/// An entry of the block allocation table for a block that is not stored.
const UNUSED: u32 = u32::MAX;

/// Whether the file begins with the copy of a footer, or ends with one.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(0, footer::COOKIE) || is_fixed(sample)
}

/// Whether the file is a fixed disk beyond doubt: it ends with a sound footer that fits its length. The disk in it begins like
/// any raw disk.
#[must_use]
pub fn is_fixed(sample: &Sample) -> bool {
    let Some(start) = sample.tail.len().checked_sub(footer::LEN) else { return false };
    let bytes = sample.tail.get(start..).and_then(|tail| tail.first_chunk());
    let Some(footer) = bytes.and_then(|bytes| Footer::parse(bytes, 0).ok()) else { return false };
    let before = sample.len.saturating_sub(512);
    footer.disk_type == DiskType::Fixed && footer.current_size <= before
}

/// Reads the footer and, where there is one, the header.
///
/// # Errors
/// `vhd.*`, or those of reading.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    let name = file.name();
    read(file, ask).map_err(|error| error.at(name))
}

fn read(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    ask.without_snapshots()?;
    let (footer, footer_at, notes) = find_footer(&*file)?;
    let (len, rule) = footer.size(ask.session.policy.vhd_size);
    let mut parent = None;
    let storage = match footer.disk_type {
        DiskType::Fixed => {
            let stored = footer_at;
            if len > stored {
                return Err(truncated(stored).expected(format!("{len:#x} bytes before the footer")));
            }
            Storage::Fixed
        }
        DiskType::Dynamic | DiskType::Differencing => {
            let header = Header::read(&*file, footer.data_offset, len)?;
            if footer.disk_type == DiskType::Differencing {
                parent = Some(parent_of(&header, &*file)?);
            }
            let pages = Pages::new(Arc::clone(&file), ask.session, truncated);
            Storage::Blocks { header, pages }
        }
    };
    let layer = Arc::new(Vhd { files: [file], footer, len, rule, storage, notes });
    Ok(Head { parent, ..Head::complete(layer) })
}

/// The footer at the end, or its copy at the front when that one is damaged; where the data ends; and what is to be said.
fn find_footer(file: &dyn Disk) -> Result<(Footer, u64, Vec<&'static str>)> {
    let Some(start) = file.len().checked_sub(512).filter(|start| *start > 0) else {
        return Err(Error::corrupt("vhd.footer", "the file is too short to hold a disk").found(file.len()));
    };
    let mut last: [u8; footer::LEN] = read_exactly(file, start)?;
    let mut at = start;
    if !last.starts_with(footer::COOKIE) && last.get(1..9) == Some(footer::COOKIE) {
        // Virtual PC before 2004 wrote a footer of 511 bytes.
        last.rotate_left(1);
        last[footer::LEN - 1] = 0;
        at = start.saturating_add(1);
    }
    let error = match Footer::parse(&last, at) {
        Ok(footer) => return Ok((footer, at, Vec::new())),
        Err(error) => error,
    };
    match Footer::parse(&read_exactly(file, 0)?, 0) {
        Ok(footer) if footer.disk_type != DiskType::Fixed => Ok((
            footer,
            file.len(),
            vec!["the footer at the end is damaged or missing; its copy at the front was used"],
        )),
        _ => Err(error.hint("the image was probably cut short; get it again")),
    }
}

fn read_exactly(file: &dyn Disk, at: u64) -> Result<[u8; footer::LEN]> {
    let mut bytes = [0; footer::LEN];
    file.read_at(&mut bytes, at)?;
    Ok(bytes)
}

fn parent_of(header: &Header, file: &dyn Disk) -> Result<Parent> {
    let names = header.parent_names(file)?;
    if names.is_empty() {
        return Err(Error::corrupt("vhd.parent", "the differencing disk does not name its parent"));
    }
    let expected = header.parent_unique_id.to_string();
    let accept = move |parent: &dyn Layer| {
        match parent.identity() {
        Some(id) if id == expected => Ok(()),
        found => Err(Error::corrupt("vhd.parent", "this is not the parent that the differencing disk was made for")
            .expected(&expected)
            .found(found.unwrap_or_else(|| parent.format().to_owned()))
            .hint("give the right file with --map-path OLD=NEW, or --ignore-parent-id if it is the right one all the same")),
    }
    };
    Ok(Parent { names, accept: Box::new(accept) })
}

fn truncated(offset: u64) -> Error {
    Error::corrupt("vhd.truncated", "a block or table lies past the end of the file")
        .offset(offset)
        .hint("the image was probably cut short; get it again")
}

/// One opened disk.
#[derive(Debug)]
struct Vhd {
    files: [Arc<dyn Disk>; 1],
    footer: Footer,
    len: u64,
    rule: VhdSize,
    storage: Storage,
    notes: Vec<&'static str>,
}

#[derive(Debug)]
enum Storage {
    /// Byte for byte from the start of the file.
    Fixed,
    Blocks {
        header: Header,
        pages: Pages,
    },
}

impl Vhd {
    fn file(&self) -> &dyn Disk {
        let [file] = &self.files;
        &**file
    }

    fn is_differencing(&self) -> bool {
        self.footer.disk_type == DiskType::Differencing
    }

    /// The run at `offset` of a disk of blocks.
    fn by_table(&self, header: &Header, pages: &Pages, offset: u64, max: u64) -> Result<Run> {
        let block = offset.checked_div(header.block_size).unwrap_or(0);
        let within = offset.checked_rem(header.block_size).unwrap_or(0);
        let left = header.block_size.saturating_sub(within);
        let entries = pages.entries(header.table_offset.saturating_add(block.saturating_mul(4)))?;
        let mut entries = entries.of().map(u32::from_be_bytes);
        let Some(first) = entries.next() else { return Err(truncated(header.table_offset)) };
        if first == UNUSED {
            let more: u64 = entries.take_while(|entry| *entry == UNUSED).map(|_| header.block_size).sum();
            return Ok(Run { len: left.saturating_add(more).min(max), place: Place::Parent });
        }
        let at = self.block(header, block, first)?;
        let data = at.saturating_add(header.bitmap_len()).saturating_add(within);
        if !self.is_differencing() {
            return Ok(Run { len: left.min(max), place: Place::Data { file: 0, offset: data } });
        }
        let (first, end) = (within / 512, within.saturating_add(left.min(max)).div_ceil(512));
        let (here, sectors) = bitmap::run(pages, at, first, end.saturating_sub(first), Order::Descending)?;
        let len = first.saturating_add(sectors).saturating_mul(512).saturating_sub(within).min(max);
        Ok(Run { len, place: if here { Place::Data { file: 0, offset: data } } else { Place::Parent } })
    }

    /// Where block `number` begins, with its bitmap; all of it that the disk uses lies in the file.
    fn block(&self, header: &Header, number: u64, entry: u32) -> Result<u64> {
        let at = u64::from(entry).saturating_mul(512);
        let used = self.len.saturating_sub(number.saturating_mul(header.block_size)).min(header.block_size);
        let end = at.saturating_add(header.bitmap_len()).saturating_add(used);
        if end > self.file().len() {
            return Err(truncated(at).expected(format!("an end of at most {:#x}", self.file().len())));
        }
        if header.overlaps(at, end) {
            return Err(Error::corrupt("vhd.block", "a block lies where the headers are").offset(at));
        }
        Ok(at)
    }

    /// The blocks that are stored, by number and entry.
    fn stored(&self, header: &Header, pages: &Pages, each: &mut dyn FnMut(u64, u32) -> Result<bool>) -> Result<()> {
        let blocks = self.len.div_ceil(header.block_size);
        let mut block = 0_u64;
        while block < blocks {
            let entries = pages.entries(header.table_offset.saturating_add(block.saturating_mul(4)))?;
            for entry in entries.of().map(u32::from_be_bytes) {
                if block >= blocks {
                    break;
                }
                if entry != UNUSED && !each(block, entry)? {
                    return Ok(());
                }
                block = block.saturating_add(1);
            }
        }
        Ok(())
    }

    /// Reports blocks that overlap or lie outside of the file.
    fn check_blocks(&self, header: &Header, pages: &Pages, found: &mut Report<'_>) -> Result<()> {
        let mut used: Vec<Range<u64>> = Vec::new();
        let mut stopped = false;
        self.stored(header, pages, &mut |block, entry| {
            match self.block(header, block, entry) {
                Ok(at) => {
                    let end = at.saturating_add(header.bitmap_len()).saturating_add(header.block_size);
                    used.push(at..end);
                }
                Err(error) => stopped = found(finding(&error)).is_break(),
            }
            Ok(!stopped)
        })?;
        if stopped {
            return Ok(());
        }
        used.sort_by_key(|range| range.start);
        for pair in used.windows(2) {
            if let [before, after] = pair
                && before.end > after.start
                && found(Finding::new(Severity::Corruption, "two blocks share bytes of the file").offset(after.start))
                    .is_break()
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn finding(error: &Error) -> Finding {
    Finding::new(Severity::Corruption, error.to_string())
}

impl Layer for Vhd {
    fn format(&self) -> &'static str {
        "vhd"
    }

    fn identity(&self) -> Option<String> {
        Some(self.footer.unique_id.to_string())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn unit_size(&self) -> u64 {
        match &self.storage {
            Storage::Fixed => 512,
            Storage::Blocks { header, .. } => header.block_size,
        }
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        match &self.storage {
            Storage::Fixed => Ok(Run { len: max, place: Place::Data { file: 0, offset } }),
            Storage::Blocks { header, pages } => self.by_table(header, pages, offset, max),
        }
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let footer = &self.footer;
        let (cylinders, heads, sectors) = footer.geometry;
        let mut facts = vec![
            ("disk_type", footer.disk_type.name().to_owned()),
            ("unique_id", footer.unique_id.to_string()),
            (
                "creator_application",
                format!(
                    "{} {}.{}",
                    escape_bytes(&footer.creator).trim_end(),
                    footer.creator_version.0,
                    footer.creator_version.1
                ),
            ),
            ("disk_geometry", format!("{cylinders}/{heads}/{sectors}")),
            ("current_size", footer.current_size.to_string()),
            ("size_by", self.rule.name().to_owned()),
        ];
        if let Storage::Blocks { header, .. } = &self.storage {
            facts.push(("block_size", header.block_size.to_string()));
            if self.is_differencing() {
                facts.push(("parent_unique_id", header.parent_unique_id.to_string()));
                facts.push(("parent_name", header.parent_name.clone()));
            }
        }
        if footer.saved_state {
            facts.push(("saved_state", "the machine was suspended, so its file systems are in use".to_owned()));
        }
        facts.extend(self.notes.iter().map(|note| ("note", (*note).to_owned())));
        facts
    }

    fn check(&self, found: &mut Report<'_>) -> Result<()> {
        for note in &self.notes {
            if found(Finding::new(Severity::Note, *note)).is_break() {
                return Ok(());
            }
        }
        let Storage::Blocks { header, pages } = &self.storage else { return Ok(()) };
        let copy = read_vec(self.file(), 0, footer::LEN)?;
        let sound =
            copy.first_chunk().is_some_and(|bytes| Footer::parse(bytes, 0).is_ok_and(|copy| copy == self.footer));
        if !sound && found(Finding::new(Severity::Note, "the copy of the footer differs from it").offset(0)).is_break()
        {
            return Ok(());
        }
        self.check_blocks(header, pages, found)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests;
