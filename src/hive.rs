//! Registry hives of Windows (regf 1.2 to 1.6), read in place, with what their transaction logs add applied in memory.
//!
//! A hive is a base block and bins of cells; keys, values, lists of both and data are cells, named by their offset from the first
//! bin. Only what is asked for is read, a block at a time. A hive that was not written out to its end is told from its base block;
//! then its logs ([`log`]) say which sectors are newer than those of the file.
//!
//! Sources: "Windows registry file format specification" (M. Suhanov), whose names of fields are used here.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::HashSet;

use crate::disk::bytes::le32;
use crate::error::{Error, Kind, Result};
use crate::fs::Timestamp;
use crate::limits;

mod base;
mod bytes;
mod cell;
mod export;
mod key;
mod log;
mod marvin;
mod value;

use base::{BaseBlock, FileType};
use bytes::Pages;

pub use bytes::Bytes;
pub use export::export;
pub use key::Key;
pub use value::{Data, Value, type_name};

/// Where the bins begin in a primary file: offsets of cells count from here.
const FIRST_BIN: u64 = 4096;

/// An offset that names no cell.
const NIL: u32 = u32::MAX;

/// A hive that is open.
#[derive(Debug)]
pub struct Hive {
    pages: Pages,
    facts: Facts,
    root: u32,
    /// Bytes of all bins: no cell lies beyond.
    bins: u32,
}

/// What is known about a hive beside its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Minor version of the format: 3 in Windows NT and 2000, 5 since XP, 6 for some files of Windows 10.
    pub minor: u32,
    /// The path that Windows opened it by, or the end of it.
    pub name: String,
    /// When it was written last.
    pub written: Timestamp,
    /// Whether it was complete, and what was done where it was not.
    pub state: State,
}

/// Whether a hive was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything is in the file itself.
    Clean,
    /// The file was not written out to its end; its logs had the rest.
    Recovered {
        /// Sectors of 512 bytes that come from a log.
        sectors: usize,
        /// Entries of the logs that were applied; 1 for the format before Windows 8.1.
        entries: u32,
    },
    /// The file was not written out to its end, and no log fits: it is read as it stands, and may be inconsistent.
    Dirty,
}

/// Whether a walk goes into a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// To its subkeys next.
    In,
    /// Past them.
    Over,
}

impl Hive {
    /// Opens a hive. `logs` are its transaction logs, of which those that are missing are left out: `.LOG1` and `.LOG2`, or `.LOG`.
    /// They are only looked at where the hive needs them.
    ///
    /// # Errors
    /// `hive.signature` for a file that is no hive, `hive.version` for one of a format that is not read, `hive.corrupt` where the
    /// base block is damaged and no log has another.
    pub fn open(file: Box<dyn Bytes>, logs: Vec<Box<dyn Bytes>>) -> Result<Self> {
        let head = bytes::read_up_to(&*file, 0, 512)?;
        if !head.starts_with(b"regf") {
            return Err(Error::corrupt("hive.signature", "this file is no registry hive")
                .expected("regf")
                .found(head.get(..4).unwrap_or_default().escape_ascii()));
        }
        let mut base = BaseBlock::parse(&head);
        let (is_valid, is_dirty) = (base.is_valid(), base.is_dirty());
        if is_valid {
            base.check(FileType::Primary)?;
        }
        let mut pages = Pages::new(file);
        let mut state = State::Clean;
        if is_dirty {
            state = State::Dirty;
            if let Some(found) = log::find(&base, logs)? {
                (base.root, base.bins) = (found.base.root, found.bins);
                (base.minor, base.written) = (found.base.minor, found.base.written);
                state = State::Recovered { sectors: found.sectors.len(), entries: found.entries };
                pages.patch(found);
            } else if !is_valid {
                return Err(Error::corrupt("hive.corrupt", "the hive's base block is damaged, and no log of it fits")
                    .offset(508)
                    .expected(format!("a checksum of {:#010x}", base.computed))
                    .found(format!("{:#010x}", base.checksum)));
            }
        }
        let facts = Facts { minor: base.minor, name: base.name, written: base::time(base.written), state };
        Ok(Self { pages, facts, root: base.root, bins: base.bins })
    }

    /// What is known about the hive itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The root key.
    pub fn root(&self) -> Result<Key<'_>> {
        Key::read(self, self.root)
    }

    /// The key that `path` leads to from the root, names apart by `\`; the root itself for an empty path. Names are the same
    /// whatever their case.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>> {
        let mut key = self.root()?;
        for name in path.split('\\').filter(|name| !name.is_empty()) {
            match key.subkey(name)? {
                Some(found) => key = found,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// The value `name` of the key at `path`; the default value for an empty name.
    pub fn value(&self, path: &str, name: &str) -> Result<Option<Value<'_>>> {
        self.key(path)?.map_or(Ok(None), |key| key.value(name))
    }

    /// Visits `from` and every key below it, parents first, in the order of the hive's own lists, each with how deep it lies below
    /// `from`. A key that cannot be read is visited as the error.
    ///
    /// # Errors
    /// `hive.limit` below [`limits::MAX_HIVE_DEPTH`] levels or after [`limits::MAX_HIVE_KEYS`] keys, and whatever `visit` gives.
    pub fn walk<'a>(
        &'a self,
        from: Key<'a>,
        visit: &mut dyn FnMut(Result<&Key<'a>>, usize) -> Result<Step>,
    ) -> Result<()> {
        self.walk_at_most(limits::MAX_HIVE_KEYS, from, visit)
    }

    fn walk_at_most<'a>(
        &'a self,
        most: usize,
        from: Key<'a>,
        visit: &mut dyn FnMut(Result<&Key<'a>>, usize) -> Result<Step>,
    ) -> Result<()> {
        let mut seen = HashSet::from([from.offset()]);
        if visit(Ok(&from), 0)? == Step::Over {
            return Ok(());
        }
        let mut trail = vec![subkeys(&from, 0, visit)?];
        while let Some(children) = trail.last_mut() {
            let Some(offset) = children.next() else {
                trail.pop();
                continue;
            };
            let depth = trail.len();
            let key = match seen.insert(offset) {
                true => Key::read(self, offset),
                false => Err(corrupt("a key lies in two places", offset)),
            };
            if seen.len() > most || depth > limits::MAX_HIVE_DEPTH {
                return Err(Error::limit(
                    "hive.limit",
                    "the hive has more keys, or deeper ones, than this program walks",
                )
                .expected(format!("{most} keys, {} levels", limits::MAX_HIVE_DEPTH)));
            }
            let step = visit(key.as_ref().map_err(Clone::clone), depth)?;
            if let (Ok(key), Step::In) = (&key, step) {
                trail.push(subkeys(key, depth, visit)?);
            }
        }
        Ok(())
    }

    /// Up to `most` bytes of the cell at `offset`, without its size.
    fn cell(&self, offset: u32, most: usize) -> Result<Vec<u8>> {
        let at = FIRST_BIN.saturating_add(u64::from(offset));
        if offset == NIL || !offset.is_multiple_of(8) || offset >= self.bins {
            return Err(corrupt("something points to a cell where there can be none", offset));
        }
        let raw = le32(&self.pages.read(at, 4)?, 0);
        let size = raw.wrapping_neg();
        let room = self.bins.saturating_sub(offset);
        if raw >> 31 == 0 || size < 8 || size > room {
            return Err(corrupt("a cell that is in use has no possible size", offset)
                .expected(format!("-8 to -{room}"))
                .found(raw.cast_signed()));
        }
        let content = usize::try_from(size).unwrap_or(usize::MAX).saturating_sub(4);
        self.pages.read(at.saturating_add(4), content.min(most))
    }
}

/// A key's subkeys for a walk; a list that cannot be read is visited as an error where the first of them would be.
fn subkeys<'a>(
    key: &Key<'a>,
    depth: usize,
    visit: &mut dyn FnMut(Result<&Key<'a>>, usize) -> Result<Step>,
) -> Result<std::vec::IntoIter<u32>> {
    let offsets = match key.subkey_offsets() {
        Ok(offsets) => offsets,
        Err(error) => {
            visit(Err(error), depth.saturating_add(1))?;
            Vec::new()
        }
    };
    Ok(offsets.into_iter())
}

/// An error about the cell at `offset`.
fn corrupt(what: &str, offset: u32) -> Error {
    Error::corrupt("hive.corrupt", what).offset(FIRST_BIN.saturating_add(u64::from(offset)))
}

/// An error that says that a key is not there.
#[must_use]
pub fn absent(path: &str) -> Error {
    Error::new(Kind::NotFound, "hive.absent", "there is no such key or value in the hive").at(path)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
