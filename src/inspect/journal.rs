//! The guest's systemd journal, read from its files: every layout (regular and compact, keyed and plain hashes) and compression
//! (XZ, LZ4, Zstandard), closed or not.
//!
//! [`Journal::open`] finds the files, [`Journal::walk`] gives the entries that fit a [`Filter`] in the order in which
//! `journalctl` shows them, by the indexes that the files keep, and [`show`] writes them in its formats. The format is described
//! in "Journal File Format" of systemd's documentation. A file that is damaged gives what it still holds, and a note.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result, escape_bytes};
use crate::fs::{FileKind, Tree};
use crate::limits;

pub mod show;

mod file;
mod filter;
mod hash;
mod layout;
mod list;
mod payload;
mod verify;
mod walk;

pub use file::{Entry, JournalFile};
pub use filter::Filter;
pub use layout::{Id, State};
pub use verify::Verdict;
pub use walk::{Direction, Span, Walk};

use layout::Data;

/// All journal files of a guest.
#[derive(Debug)]
pub struct Journal<'a> {
    files: Vec<JournalFile<'a>>,
    notes: Vec<String>,
}

/// One start of the machine, as far as the journal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// Its identifier.
    pub boot_id: Id,
    /// When its first entry was logged, in microseconds since the epoch.
    pub first: u64,
    /// When its last entry was logged.
    pub last: u64,
}

/// Where the service writes them: what stays, and what a reboot loses.
const FOLDERS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

impl<'a> Journal<'a> {
    /// Opens the guest's journal files. One that cannot be opened is noted and left out.
    pub fn open(tree: &'a Tree) -> Result<Self> {
        let mut journal = Self { files: Vec::new(), notes: Vec::new() };
        for folder in FOLDERS {
            journal.add_folder(tree, folder)?;
        }
        Ok(journal)
    }

    /// Opens the journal files in a folder of the guest, and in its subfolders that are named after a machine.
    pub fn open_folder(tree: &'a Tree, folder: &str) -> Result<Self> {
        let mut journal = Self { files: Vec::new(), notes: Vec::new() };
        journal.add_folder(tree, folder)?;
        Ok(journal)
    }

    fn add_folder(&mut self, tree: &'a Tree, folder: &str) -> Result<()> {
        self.add_files(tree, folder.as_bytes())?;
        for listed in tree.list(folder)? {
            let machine = listed.text().and_then(|name| name.split('.').next());
            if machine.and_then(Id::parse).is_some() {
                self.add_files(tree, &[folder.as_bytes(), b"/", &listed.name].concat())?;
            }
        }
        Ok(())
    }

    fn add_files(&mut self, tree: &'a Tree, folder: &[u8]) -> Result<()> {
        for listed in tree.list(folder)? {
            if !(listed.name.ends_with(b".journal") || listed.name.ends_with(b".journal~")) {
                continue;
            }
            let path = [folder, b"/", &listed.name].concat();
            let Some(found) = tree.find(&path)?.filter(|found| found.stat.kind == FileKind::Regular) else { continue };
            if self.files.len() >= limits::MAX_JOURNAL_FILES {
                return Err(Error::limit("journal.files", "the guest has more journal files than any real one")
                    .at(escape_bytes(folder))
                    .expected(format!("at most {}", limits::MAX_JOURNAL_FILES)));
            }
            match JournalFile::open(tree, &found) {
                Ok(file) => self.files.push(file),
                Err(error) => self.notes.push(error.to_string()),
            }
        }
        Ok(())
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[JournalFile<'a>] {
        &self.files
    }

    /// What could not be opened, and why.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Bytes that the files take.
    #[must_use]
    pub fn disk_usage(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.allocated))
    }

    /// The entries that fit `filter` and lie in `span`.
    #[must_use]
    pub fn walk(&self, filter: &Filter, span: Span, direction: Direction) -> Walk<'_> {
        Walk::new(self, filter, span, direction)
    }

    /// Visits the fields of an entry, `FIELD=value`, in its order. What is damaged is left out.
    pub fn visit(&self, entry: &Entry, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Some(file) = self.files.get(entry.file) else { return Ok(()) };
        let mut payload = Vec::new();
        for offset in file.items(entry)? {
            let read = file.data(offset).and_then(|data| file.payload(&data.object, &mut payload));
            if read.is_ok() && payload.contains(&b'=') {
                visit(&payload)?;
            }
        }
        Ok(())
    }

    /// The first value of a field of an entry.
    pub fn value(&self, entry: &Entry, name: &str) -> Result<Option<Vec<u8>>> {
        let mut value = None;
        self.visit(entry, &mut |field| {
            if value.is_none() {
                value = value_of(field, name).map(<[u8]>::to_vec);
            }
            Ok(())
        })?;
        Ok(value)
    }

    /// The names of all fields that any entry has, sorted.
    pub fn fields(&self) -> Result<Vec<Vec<u8>>> {
        let mut names = BTreeMap::new();
        for file in &self.files {
            file.visit_fields(&mut |name| {
                bounded(&mut names, name, ())?;
                Ok(())
            })?;
        }
        Ok(names.into_keys().collect())
    }

    /// All values that a field has, sorted.
    pub fn values(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        let mut values = BTreeMap::new();
        self.visit_values(name, &mut |_, value, _| {
            bounded(&mut values, value, ())?;
            Ok(())
        })?;
        Ok(values.into_keys().collect())
    }

    fn visit_values(&self, name: &str, visit: &mut VisitValue<'_>) -> Result<()> {
        let mut payload = Vec::new();
        for file in &self.files {
            file.visit_values(name.as_bytes(), &mut |data| {
                file.payload(&data.object, &mut payload)?;
                value_of(&payload, name).map_or(Ok(()), |value| visit(file, value, data))
            })?;
        }
        Ok(())
    }

    /// The machine's starts, the oldest first.
    pub fn boots(&self) -> Result<Vec<Boot>> {
        let mut spans: BTreeMap<Vec<u8>, (u64, u64)> = BTreeMap::new();
        self.visit_values("_BOOT_ID", &mut |file, value, data| {
            let entries = file.entries_of(data)?;
            let Some(last) = entries.len().checked_sub(1) else { return Ok(()) };
            let first = file.entry(0, entries.get(file, 0)?)?.realtime;
            let last = file.entry(0, entries.get(file, last)?)?.realtime;
            let span = bounded(&mut spans, value, (first, last))?;
            *span = (span.0.min(first), span.1.max(last));
            Ok(())
        })?;
        let boot = |(id, (first, last)): (Vec<u8>, (u64, u64))| {
            let boot_id = std::str::from_utf8(&id).ok().and_then(Id::parse)?;
            Some(Boot { boot_id, first, last })
        };
        let mut boots: Vec<Boot> = spans.into_iter().filter_map(boot).collect();
        boots.sort_by_key(|boot| (boot.first, boot.last));
        Ok(boots)
    }

    /// Checks every file: structure, hashes, indexes, order.
    pub fn verify(&self, check: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Verdict>> {
        self.files.iter().map(|file| verify::verify(file, check)).collect()
    }
}

/// Gets a file, a value and the data object that holds it.
type VisitValue<'v> = dyn FnMut(&JournalFile<'_>, &[u8], &Data) -> Result<()> + 'v;

fn value_of<'f>(field: &'f [u8], name: &str) -> Option<&'f [u8]> {
    field.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The value for `key`, which is added when it is new, within bounds.
fn bounded<'m, T>(map: &'m mut BTreeMap<Vec<u8>, T>, key: &[u8], value: T) -> Result<&'m mut T> {
    if map.len() >= limits::MAX_JOURNAL_VALUES && !map.contains_key(key) {
        return Err(Error::limit("journal.values", "a field of the journal has more values than can be listed")
            .expected(format!("at most {}", limits::MAX_JOURNAL_VALUES)));
    }
    Ok(map.entry(key.to_vec()).or_insert(value))
}

#[cfg(test)]
mod tests;
