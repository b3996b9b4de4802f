//! Tables of fixed entries, whose metadata blocks are found through a list of their places: owners and fragments.

use super::codec::Stored;
use super::metadata::BLOCK;
use super::superblock::NONE;
use super::{Squashfs, corrupt};
use crate::disk::bytes::{le32, le64, size};
use crate::error::Result;

/// A block that holds the ends of several files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    pub(super) start: u64,
    pub(super) stored: Stored,
}

impl Squashfs {
    /// An owner's number.
    pub(super) fn id(&self, index: u16) -> Result<u32> {
        if index >= self.sb.no_ids {
            return Err(corrupt("an owner is not in the table").found(index));
        }
        let bytes = self.entry(self.sb.id_table_start, u64::from(index), 4)?;
        Ok(le32(&bytes, 0))
    }

    /// Where a fragment block lies.
    pub(super) fn fragment(&self, index: u32) -> Result<Fragment> {
        if index >= self.sb.fragments || self.sb.fragment_table_start == NONE {
            return Err(corrupt("a fragment is not in the table").found(index));
        }
        let bytes = self.entry(self.sb.fragment_table_start, u64::from(index), 16)?;
        let stored = Stored::data(le32(&bytes, 8)).ok_or_else(|| corrupt("a fragment block is empty").found(index))?;
        Ok(Fragment { start: le64(&bytes, 0), stored })
    }

    /// Entry `index` of a table with `len` bytes an entry.
    pub(super) fn entry(&self, table: u64, index: u64, len: usize) -> Result<Vec<u8>> {
        let per_block = size(BLOCK).checked_div(len).and_then(|count| u64::try_from(count).ok()).unwrap_or(1);
        let slot = index.checked_div(per_block).unwrap_or(0).saturating_mul(8);
        let place = le64(&self.metadata.plain(table.saturating_add(slot), 8)?, 0);
        let within = index.checked_rem(per_block).unwrap_or(0);
        let offset = within.saturating_mul(BLOCK.checked_div(per_block).unwrap_or(0));
        self.metadata.at(place, offset)?.take(len)
    }
}
