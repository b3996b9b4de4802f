//! The dynamic disk header of dynamic and differencing disks, and the names that it gives to a parent.

use uuid::Uuid;

use super::footer::checksum;
use crate::disk::bytes::{array, be32, be64};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::format::windows::{parents, utf16};
use crate::limits::{MAX_REFERENCE, MAX_VHD_BLOCK};
use crate::source::Reference;

/// Bytes of the header.
pub(super) const LEN: usize = 1024;

const CHECKSUM: usize = 36;

/// A header whose checksum is right and whose fields were checked against each other and the file.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Where it is.
    pub(super) at: u64,
    /// `Table Offset`: the block allocation table.
    pub(super) table_offset: u64,
    /// `Max Table Entries`.
    pub(super) max_table_entries: u32,
    /// `Block Size` in bytes, without the sector bitmap: a power of two.
    pub(super) block_size: u64,
    /// `Parent Unique Id`.
    pub(super) parent_unique_id: Uuid,
    /// `Parent Unicode Name`.
    pub(super) parent_name: String,
    /// `Parent Locator Entry` 1 to 8 that are in use.
    locators: Vec<Locator>,
}

#[derive(Clone, Debug)]
struct Locator {
    /// `Platform Code`.
    code: [u8; 4],
    /// `Platform Data Length` in bytes.
    len: u32,
    /// `Platform Data Offset`.
    offset: u64,
}

impl Header {
    /// Reads the header at `at` of `file`, for a disk of `size` bytes.
    ///
    /// # Errors
    /// `vhd.header`, or those of reading.
    pub(super) fn read(file: &dyn Disk, at: u64, size: u64) -> Result<Self> {
        let bad = |what: &str, field: u64| Error::corrupt("vhd.header", what).offset(at.saturating_add(field));
        if at.checked_add(1024).is_none_or(|end| end > file.len()) {
            return Err(
                Error::corrupt("vhd.header", "the dynamic disk header lies past the end of the file").offset(at)
            );
        }
        let bytes = read_vec(file, at, LEN)?;
        if !bytes.starts_with(b"cxsparse") {
            return Err(bad("there is no dynamic disk header", 0).expected("cxsparse"));
        }
        let (stored, sum) = (be32(&bytes, CHECKSUM), checksum(&bytes, CHECKSUM));
        if stored != sum {
            return Err(bad("the header's checksum is wrong", 36)
                .expected(format!("{sum:#x}"))
                .found(format!("{stored:#x}")));
        }
        if be32(&bytes, 24) >> 16 != 1 {
            return Err(bad("the version is not known", 24).expected("1.0").found(format!("{:#x}", be32(&bytes, 24))));
        }
        let block_size = u64::from(be32(&bytes, 32));
        if !block_size.is_power_of_two() || !(512..=MAX_VHD_BLOCK).contains(&block_size) {
            return Err(bad("the block size is impossible", 32)
                .expected(format!("a power of two from 512 to {MAX_VHD_BLOCK}"))
                .found(block_size));
        }
        let max_table_entries = be32(&bytes, 28);
        let needed = size.div_ceil(block_size);
        if u64::from(max_table_entries) < needed {
            return Err(bad("the block allocation table is too small for the disk", 28)
                .expected(format!("at least {needed} entries"))
                .found(max_table_entries));
        }
        let table_offset = be64(&bytes, 16);
        let table_end = table_offset.checked_add(u64::from(max_table_entries).saturating_mul(4));
        if !table_offset.is_multiple_of(512) || table_end.is_none_or(|end| end > file.len()) {
            return Err(bad("the block allocation table lies outside of the file", 16)
                .expected(format!("within {:#x} bytes", file.len()))
                .found(format!("{table_offset:#x}")));
        }
        Ok(Self {
            at,
            table_offset,
            max_table_entries,
            block_size,
            parent_unique_id: Uuid::from_bytes(array(&bytes, 40)),
            parent_name: utf16(bytes.get(64..576).unwrap_or_default(), u16::from_be_bytes),
            locators: bytes.get(576..768).unwrap_or_default().chunks_exact(24).filter_map(Locator::parse).collect(),
        })
    }

    /// Bytes of the sector bitmap before each block: a bit a sector, in whole sectors.
    pub(super) fn bitmap_len(&self) -> u64 {
        (self.block_size / 512).div_ceil(8).next_multiple_of(512)
    }

    /// Whether these bytes of the file belong to the header or the table.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> bool {
        let table_end = self.table_offset.saturating_add(u64::from(self.max_table_entries).saturating_mul(4));
        let header_end = self.at.saturating_add(1024);
        start < 512 || (start < header_end && end > self.at) || (start < table_end && end > self.table_offset)
    }

    /// The names under which the parent may be found, the best first: beside the disk, then as written.
    ///
    /// # Errors
    /// Those of reading.
    pub(super) fn parent_names(&self, file: &dyn Disk) -> Result<Vec<Reference>> {
        let mut written = Vec::new();
        // Relative names first, since absolute ones are those of the machine that made the disk.
        for code in [b"W2ru", b"W2ku", b"MacX"] {
            for locator in self.locators.iter().filter(|locator| &locator.code == code) {
                written.push(locator.read(file)?);
            }
        }
        written.push(self.parent_name.clone());
        Ok(parents(&written))
    }
}

impl Locator {
    fn parse(entry: &[u8]) -> Option<Self> {
        let code = array(entry, 0);
        (code != [0; 4]).then(|| Self { code, len: be32(entry, 8), offset: be64(entry, 16) })
    }

    /// The name, empty where its place or its length makes no sense: another locator may be sound.
    fn read(&self, file: &dyn Disk) -> Result<String> {
        let len = u64::from(self.len);
        let fits = self.offset.checked_add(len).is_some_and(|end| end <= file.len());
        let (Some(len), true) = (usize::try_from(len).ok().filter(|len| *len <= MAX_REFERENCE), fits) else {
            return Ok(String::new());
        };
        let bytes = read_vec(file, self.offset, len)?;
        Ok(match &self.code {
            b"MacX" => String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned(),
            _ => utf16(&bytes, u16::from_le_bytes),
        })
    }
}
