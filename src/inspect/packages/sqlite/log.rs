//! Pages that lie beside a database: committed ones in a write-ahead log, original ones in a hot rollback journal
//! (file format, sections 3 and 4).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use crate::disk::bytes::{array, be32, is_at, long, size};
use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::fs::tree::FileReader;
use crate::limits;

const JOURNAL_MAGIC: &[u8] = &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];

/// Pages that replace those of the database file.
#[derive(Debug)]
pub(super) struct Log {
    file: FileReader,
    /// Where in the log each page lies.
    places: BTreeMap<u32, u64>,
    page_size: usize,
    /// Pages of the database with them.
    pages: u32,
}

impl Log {
    /// What lies beside the database at `path`; `None` when nothing there counts.
    pub(super) fn open(tree: &Tree, path: &str) -> Result<Option<Self>> {
        if let Some(file) = tree.open(format!("{path}-wal"))? {
            return Self::write_ahead(file);
        }
        match tree.open(format!("{path}-journal"))? {
            Some(file) => Self::journal(file),
            None => Ok(None),
        }
    }

    /// Fills `page` with the beginning of a page, if it is here.
    pub(super) fn read(&self, number: u32, page: &mut [u8]) -> Result<bool> {
        let Some(offset) = self.places.get(&number) else { return Ok(false) };
        self.file.read_exact_at(page, *offset)?;
        Ok(true)
    }

    pub(super) fn page_size(&self) -> usize {
        self.page_size
    }

    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    /// Frames count up to the last one that ends a transaction, as long as salts and checksums are right.
    fn write_ahead(file: FileReader) -> Result<Option<Self>> {
        let mut header = [0; 32];
        if file.size() < 32 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let magic = be32(&header, 0);
        let page_size = size(u64::from(be32(&header, 8)));
        let mut sums = Sums { big: magic & 1 == 1, first: 0, second: 0 };
        sums.add(header.get(..24).unwrap_or_default());
        let whole = magic & !1 == 0x377f_0682 && sums.are_at(&header, 24) && be32(&header, 4) == 3_007_000;
        if !whole || !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
            return Ok(None);
        }
        let mut log = Self { file, places: BTreeMap::new(), page_size, pages: 0 };
        let mut frame = vec![0; page_size.saturating_add(24)];
        let (mut offset, mut waiting) = (32_u64, Vec::new());
        while offset.saturating_add(long(frame.len())) <= log.file.size() {
            log.file.read_exact_at(&mut frame, offset)?;
            sums.add(frame.get(..8).unwrap_or_default());
            sums.add(frame.get(24..).unwrap_or_default());
            if array::<8>(&frame, 8) != array::<8>(&header, 16) || !sums.are_at(&frame, 16) {
                break;
            }
            waiting.push((be32(&frame, 0), offset.saturating_add(24)));
            if waiting.len().saturating_add(log.places.len()) > limits::MAX_DATABASE_LOG_PAGES {
                return Err(too_long());
            }
            if be32(&frame, 4) != 0 {
                log.pages = be32(&frame, 4);
                log.places.extend(waiting.drain(..));
            }
            offset = offset.saturating_add(long(frame.len()));
        }
        Ok((log.pages != 0).then_some(log))
    }

    /// A journal that begins with its magic belongs to a transaction that did not end: its pages are the right ones.
    fn journal(file: FileReader) -> Result<Option<Self>> {
        let mut log = Self { file, places: BTreeMap::new(), page_size: 0, pages: 0 };
        let mut offset = 0_u64;
        let mut header = [0; 28];
        while offset.saturating_add(28) <= log.file.size() {
            log.file.read_exact_at(&mut header, offset)?;
            if !is_at(&header, 0, JOURNAL_MAGIC) {
                break;
            }
            let (sector, page_size) = (u64::from(be32(&header, 20)), size(u64::from(be32(&header, 24))));
            let first = offset == 0;
            let usable = page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
            if !usable || !sector.is_power_of_two() || !(32..=65_536).contains(&sector) {
                break;
            }
            if first {
                (log.page_size, log.pages) = (page_size, be32(&header, 16));
            } else if page_size != log.page_size {
                break;
            }
            let end = log.records(offset.saturating_add(sector), be32(&header, 8), be32(&header, 12))?;
            let Some(end) = end else { break };
            offset = end.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
        }
        Ok((!log.places.is_empty()).then_some(log))
    }

    /// Takes `count` records from `offset` on; the end of the last one, or `None` when one is not whole.
    fn records(&mut self, mut offset: u64, count: u32, nonce: u32) -> Result<Option<u64>> {
        let mut record = vec![0; self.page_size.saturating_add(8)];
        let mut taken = 0_u32;
        while taken < count {
            if offset.saturating_add(long(record.len())) > self.file.size() {
                return Ok(None);
            }
            self.file.read_exact_at(&mut record, offset)?;
            let (number, page) = (be32(&record, 0), record.get(4..).unwrap_or_default());
            // Every 200th byte, from the end of the page on.
            let sampled = page.get(..self.page_size).unwrap_or_default().iter().skip(self.page_size.wrapping_rem(200));
            let sum = sampled.step_by(200).fold(nonce, |sum, byte| sum.wrapping_add(u32::from(*byte)));
            if number == 0 || sum != be32(page, self.page_size) {
                return Ok(None);
            }
            if number <= self.pages {
                self.places.entry(number).or_insert_with(|| offset.saturating_add(4));
            }
            if self.places.len() > limits::MAX_DATABASE_LOG_PAGES {
                return Err(too_long());
            }
            offset = offset.saturating_add(long(record.len()));
            taken = taken.saturating_add(1);
        }
        Ok(Some(offset))
    }
}

/// The running checksum of a write-ahead log (section 4.2).
struct Sums {
    big: bool,
    first: u32,
    second: u32,
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        let word = |bytes: &[u8], at| match self.big {
            true => be32(bytes, at),
            false => be32(bytes, at).swap_bytes(),
        };
        let (mut first, mut second) = (self.first, self.second);
        for pair in bytes.chunks_exact(8) {
            first = first.wrapping_add(word(pair, 0)).wrapping_add(second);
            second = second.wrapping_add(word(pair, 4)).wrapping_add(first);
        }
        (self.first, self.second) = (first, second);
    }

    fn are_at(&self, bytes: &[u8], at: usize) -> bool {
        be32(bytes, at) == self.first && be32(bytes, at.saturating_add(4)) == self.second
    }
}

fn too_long() -> Error {
    Error::limit("sqlite.log", "a log of more pages than make sense here")
        .expected(format!("at most {}", limits::MAX_DATABASE_LOG_PAGES))
}
