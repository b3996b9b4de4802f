//! SQLite databases as a guest left them: tables are read row by row, nothing is ever written.
//!
//! <https://www.sqlite.org/fileformat2.html>. What a crash left in a write-ahead log or a rollback journal beside the file
//! is laid over its pages in memory, as SQLite itself would do when it opens the database.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::ControlFlow;

use crate::disk::bytes::{be16, be32, is_at, long, size, u8_at};
use crate::error::{Error, Result, escape_bytes};
use crate::fs::Tree;
use crate::fs::tree::FileReader;
use crate::limits;

mod log;
mod record;

use log::Log;
use record::{Fields, varint};
pub(super) use record::{Row, Table};

const MAGIC: &[u8] = b"SQLite format 3\0";
/// The database header, at the start of page 1 (section 1.3).
const HEADER: usize = 100;
/// B-trees have at most this many levels in SQLite itself.
const MAX_DEPTH: usize = 20;
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;

/// An opened database.
#[derive(Debug)]
pub(super) struct Database {
    file: FileReader,
    log: Option<Log>,
    page_size: usize,
    /// Bytes of a page without those that are reserved at its end.
    usable: usize,
    /// Pages of the database, from 1.
    pages: u32,
}

/// Takes the number and the payload of a row.
type Visit<'a> = dyn FnMut(i64, &[u8]) -> Result<ControlFlow<()>> + 'a;

/// What a walk may still read. Both run out only when pages are used twice, which they never are.
struct Budget {
    pages: u32,
    payload: u64,
}

impl Database {
    /// Opens the database at `path`; `None` when there is none, or an empty file.
    pub(super) fn open(tree: &Tree, path: &str) -> Result<Option<Self>> {
        let Some(file) = tree.open(path)? else { return Ok(None) };
        let at = |error: Error| error.at(escape_bytes(path.as_bytes()));
        let log = Log::open(tree, path)?;
        let mut header = [0; HEADER];
        let in_log = match &log {
            Some(log) => log.read(1, &mut header)?,
            None => false,
        };
        if !in_log && file.read_exact_at(&mut header, 0).is_err() {
            return if file.size() == 0 { Ok(None) } else { Err(at(corrupt("a file too short for a header"))) };
        }
        let opened = Self::with_header(file, log, &header).map_err(at)?;
        Ok(Some(opened))
    }

    fn with_header(file: FileReader, log: Option<Log>, header: &[u8; HEADER]) -> Result<Self> {
        if !is_at(header, 0, MAGIC) {
            return Err(corrupt("not a SQLite database").expected("SQLite format 3"));
        }
        let page_size = match be16(header, 16) {
            1 => 65_536,
            size => usize::from(size),
        };
        if !page_size.is_power_of_two() || page_size < 512 {
            return Err(corrupt("an impossible page size").expected("a power of two from 512").found(page_size));
        }
        if u8_at(header, 19) > 2 {
            return Err(unsupported("a newer file format").expected("1 or 2").found(u8_at(header, 19)));
        }
        if be32(header, 56) > 1 {
            return Err(unsupported("text in UTF-16"));
        }
        let usable = page_size.saturating_sub(usize::from(u8_at(header, 20)));
        if usable < 480 {
            return Err(corrupt("too many reserved bytes in a page").found(u8_at(header, 20)));
        }
        let on_disk = u32::try_from(file.size().checked_div(long(page_size)).unwrap_or(0)).unwrap_or(u32::MAX);
        // The size in the header counts only if the last writer knew of it.
        let known = be32(header, 28) != 0 && be32(header, 24) == be32(header, 92);
        let in_header = if known { be32(header, 28) } else { on_disk };
        let pages = match &log {
            Some(log) if log.page_size() != page_size => {
                return Err(corrupt("a log with another page size").expected(page_size).found(log.page_size()));
            }
            Some(log) => log.pages(),
            None => in_header.min(on_disk),
        };
        Ok(Self { file, log, page_size, usable, pages })
    }

    /// The table `name`, if there is one.
    pub(super) fn table(&self, name: &str) -> Result<Option<Table>> {
        let mut found = None;
        self.rows(&Table::schema(), &mut |row| {
            let is_it = row.text("type") == Some("table") && row.text("name") == Some(name);
            let Some(root) = row.int("rootpage").filter(|_| is_it) else { return Ok(ControlFlow::Continue(())) };
            let root = u32::try_from(root).map_err(|_| corrupt("an impossible root page").found(root))?;
            found = Some(Table::parse(root, row.text("sql").unwrap_or_default()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Visits the rows of a table in the order of their row numbers.
    pub(super) fn rows(&self, table: &Table, visit: &mut dyn FnMut(&Row<'_>) -> Result<ControlFlow<()>>) -> Result<()> {
        let room = long(self.page_size).saturating_mul(u64::from(self.pages));
        let mut budget = Budget { pages: self.pages, payload: room };
        let _ = self.walk(table.root, 0, &mut budget, &mut |rowid, payload| {
            visit(&Row { table, rowid, fields: Fields::parse(payload)? })
        })?;
        Ok(())
    }

    fn walk(&self, number: u32, depth: usize, budget: &mut Budget, visit: &mut Visit<'_>) -> Result<ControlFlow<()>> {
        let Some(left) = budget.pages.checked_sub(1).filter(|_| depth < MAX_DEPTH) else {
            return Err(self.damaged(number, "a tree that uses a page twice"));
        };
        budget.pages = left;
        let page = self.page(number)?;
        let start = if number == 1 { HEADER } else { 0 };
        let kind = u8_at(&page, start);
        let (INTERIOR | LEAF) = kind else {
            return Err(self.damaged(number, "a page that is none of a table").found(kind));
        };
        let cells = start.saturating_add(if kind == LEAF { 8 } else { 12 });
        for index in 0..usize::from(be16(&page, start.saturating_add(3))) {
            let at = cells.saturating_add(index.saturating_mul(2));
            if at.saturating_add(2) > page.len() {
                return Err(self.damaged(number, "more cells than a page holds"));
            }
            let cell = page.get(usize::from(be16(&page, at))..).unwrap_or_default();
            let flow = if kind == INTERIOR {
                self.walk(be32(cell, 0), depth.saturating_add(1), budget, visit)?
            } else {
                self.leaf_cell(number, cell, budget, visit)?
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        if kind == LEAF {
            return Ok(ControlFlow::Continue(()));
        }
        self.walk(be32(&page, start.saturating_add(8)), depth.saturating_add(1), budget, visit)
    }

    /// One row: its payload's length, its number, the payload, and the page that continues it (section 1.6).
    fn leaf_cell(
        &self,
        number: u32,
        cell: &[u8],
        budget: &mut Budget,
        visit: &mut Visit<'_>,
    ) -> Result<ControlFlow<()>> {
        let short = || self.damaged(number, "a row that ends too early");
        let (length, cell) = varint(cell).ok_or_else(short)?;
        let (rowid, cell) = varint(cell).ok_or_else(short)?;
        let length = u64::try_from(length).map_err(|_| short())?;
        budget.payload = budget.payload.checked_sub(length).ok_or_else(short)?;
        if length > limits::MAX_DATABASE_ROW {
            return Err(Error::limit("sqlite.row", "a row that is longer than any that makes sense here")
                .expected(format!("at most {} bytes", limits::MAX_DATABASE_ROW))
                .found(length));
        }
        let length = size(length);
        let local = self.local(length);
        let here = cell.get(..local).ok_or_else(short)?;
        if local == length {
            return visit(rowid, here);
        }
        let mut payload = Vec::with_capacity(length);
        payload.extend_from_slice(here);
        let mut next = be32(cell.get(local..).filter(|rest| rest.len() >= 4).ok_or_else(short)?, 0);
        while let Some(missing) = length.checked_sub(payload.len()).filter(|missing| *missing > 0) {
            let page = self.page(next)?;
            let end = self.usable.min(missing.saturating_add(4));
            payload.extend_from_slice(page.get(4..end).unwrap_or_default());
            next = be32(&page, 0);
        }
        visit(rowid, &payload)
    }

    /// Bytes of a payload that lie in the leaf itself (section 1.6, U, X, M and K).
    fn local(&self, length: usize) -> usize {
        let most = self.usable.saturating_sub(35);
        if length <= most {
            return length;
        }
        let least = self.usable.saturating_sub(12).saturating_mul(32).wrapping_div(255).saturating_sub(23);
        let rest = length.saturating_sub(least).checked_rem(self.usable.saturating_sub(4)).unwrap_or(0);
        let fitting = least.saturating_add(rest);
        if fitting <= most { fitting } else { least }
    }

    /// The usable bytes of a page.
    fn page(&self, number: u32) -> Result<Vec<u8>> {
        let Some(index) = number.checked_sub(1).filter(|_| number <= self.pages) else {
            return Err(corrupt("a page outside the database").expected(format!("1 to {}", self.pages)).found(number));
        };
        let mut page = vec![0; self.page_size];
        let in_log = match &self.log {
            Some(log) => log.read(number, &mut page)?,
            None => false,
        };
        if !in_log {
            let offset = u64::from(index).saturating_mul(long(self.page_size));
            self.file.read_exact_at(&mut page, offset).map_err(|error| error.offset(offset))?;
        }
        page.truncate(self.usable);
        Ok(page)
    }

    fn damaged(&self, page: u32, what: &str) -> Error {
        corrupt(what).offset(u64::from(page).saturating_sub(1).saturating_mul(long(self.page_size)))
    }
}

fn corrupt(what: &str) -> Error {
    Error::corrupt("sqlite.corrupt", what)
}

fn unsupported(what: &str) -> Error {
    Error::unsupported("sqlite.unsupported", what)
}

#[cfg(test)]
mod tests;
