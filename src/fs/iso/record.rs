//! Directory records (ECMA-119, 9.1): what lies in a directory.

use super::corrupt;
use super::volume::{SECTOR, both32, short_date};
use crate::disk::bytes::{array, le16, long, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::pages::Pages;
use crate::fs::{Timestamp, utf16};

/// The shortest record.
const SHORTEST: usize = 34;

const FLAG_DIRECTORY: u8 = 2;
const FLAG_ASSOCIATED: u8 = 4;
const FLAG_CONTINUES: u8 = 0x80;

/// A record.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Where it lies on the volume.
    pub(super) place: u64,
    /// Where the next one may lie.
    pub(super) next: u64,
    /// The block at which its extent begins, after its extended attributes.
    pub(super) extent: u64,
    /// Bytes of its extent.
    pub(super) len: u64,
    pub(super) time: Timestamp,
    flags: u8,
    /// Whether its blocks lie between those of another file.
    pub(super) interleaved: bool,
    pub(super) name: Vec<u8>,
    /// What follows the name: the system use area.
    pub(super) system: Vec<u8>,
}

impl Record {
    /// Reads the record at `place`, which does not reach into another sector.
    pub(super) fn read(pages: &Pages, place: u64) -> Result<Option<Self>> {
        let len = usize::from(u8_at(&pages.bytes(place, 1)?, 0));
        if len == 0 {
            return Ok(None);
        }
        let left = size(SECTOR.saturating_sub(place % SECTOR));
        if len < SHORTEST || len > left {
            return Err(corrupt("a directory record has an impossible length").offset(place).found(len));
        }
        Self::parse(&pages.bytes(place, len)?, place).map(Some)
    }

    fn parse(bytes: &[u8], place: u64) -> Result<Self> {
        let name_len = usize::from(u8_at(bytes, 32));
        let end = name_len.saturating_add(33);
        let name = bytes.get(33..end).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| corrupt("a name reaches out of its record").offset(place).found(name_len))?;
        // Records have an even length, and so has what comes before the system use area.
        let system = bytes.get(end.checked_next_multiple_of(2).unwrap_or(end)..).unwrap_or_default();
        Ok(Self {
            place,
            next: place.saturating_add(long(bytes.len())),
            extent: u64::from(both32(bytes, 2)).saturating_add(u64::from(u8_at(bytes, 1))),
            len: u64::from(both32(bytes, 10)),
            time: short_date(array(bytes, 18)),
            flags: u8_at(bytes, 25),
            interleaved: le16(bytes, 26) != 0,
            name: name.to_vec(),
            system: system.to_vec(),
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.flags & FLAG_DIRECTORY != 0
    }

    /// Whether more extents of the same file follow in the next record.
    pub(super) fn continues(&self) -> bool {
        self.flags & FLAG_CONTINUES != 0
    }

    /// Whether it is the directory itself or the one above, or something that belongs to another file.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(self.name.as_slice(), [0 | 1]) || self.flags & FLAG_ASSOCIATED != 0
    }

    /// The name as Joliet has it: UCS-2, without its version.
    pub(super) fn joliet_name(&self) -> Vec<u16> {
        let units: Vec<u16> = self.name.chunks_exact(2).map(|pair| u16::from_be_bytes(array(pair, 0))).collect();
        let mut name = units.as_slice();
        if let [rest @ .., 0x3b, 0x31] = name {
            name = rest;
        }
        while let [rest @ .., 0x2e] = name {
            name = rest;
        }
        name.to_vec()
    }

    /// The name as the kernel shows it where there is no other: in lower case, without its version.
    pub(super) fn plain_name(&self) -> Vec<u8> {
        let mut name = self.name.to_ascii_lowercase();
        for end in [&b".;1"[..], b";1"] {
            if let Some(rest) = name.strip_suffix(end) {
                name = rest.to_vec();
                break;
            }
        }
        name.iter_mut().filter(|byte| matches!(byte, b';' | b'/')).for_each(|byte| *byte = b'.');
        name
    }
}

/// The records of a directory whose content lies at `start` and has `len` bytes.
#[derive(Debug)]
pub(super) struct Records<'a> {
    pub(super) pages: &'a Pages,
    pub(super) start: u64,
    pub(super) len: u64,
    /// Bytes of the directory that were looked at.
    pub(super) at: u64,
}

impl Records<'_> {
    /// The next record, and what follows it.
    pub(super) fn next(&mut self) -> Result<Option<Record>> {
        while self.at < self.len {
            let place = self.start.saturating_add(self.at);
            match Record::read(self.pages, place)? {
                Some(record) => {
                    self.at = record.next.saturating_sub(self.start);
                    return Ok(Some(record));
                }
                // The rest of the sector is empty.
                None => self.at = self.at.saturating_add(SECTOR.saturating_sub(place % SECTOR)),
            }
        }
        Ok(None)
    }
}

/// Whether a name can be shown.
pub(super) fn checked(name: Vec<u8>, place: u64) -> Result<Vec<u8>> {
    if utf16::is_name(&name) {
        return Ok(name);
    }
    Err(Error::corrupt("iso.corrupt", "a name that no file can have").offset(place))
}
