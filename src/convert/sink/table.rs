//! A table of blocks as it is being written: entries ascend window by window, so only those of one window are in memory.

use std::ops::Range;

use super::Output;
use crate::disk::{Disk, read_vec};
use crate::error::Result;

/// Bytes of the table that are written or read at a time.
const PART: usize = 64 << 10;

/// The table, from its first entry that is not in the file yet.
#[derive(Debug)]
pub(super) struct BlockTable {
    /// Where it is in the file.
    at: u64,
    /// Bytes of an entry.
    width: usize,
    /// What the bytes of an entry are for a block that is not stored.
    empty: u8,
    /// Entries that are in the file.
    closed: u64,
    /// The bytes of those after them, as far as any is set.
    open: Vec<u8>,
    /// Of all bytes that are in the file.
    digest: blake3::Hasher,
}

impl BlockTable {
    /// A table at `at`; entries of `width` bytes, all of which are `empty` for a block that is not stored.
    pub(super) fn new(at: u64, width: usize, empty: u8) -> Self {
        Self { at, width, empty, closed: 0, open: Vec::new(), digest: blake3::Hasher::new() }
    }

    /// The entry `index`, if it was set and is not in the file yet.
    pub(super) fn get(&self, index: u64) -> Option<&[u8]> {
        let entry = self.open.get(self.place(index)?)?;
        entry.iter().any(|byte| *byte != self.empty).then_some(entry)
    }

    /// Sets the entry `index`, which must not be in the file yet.
    pub(super) fn set(&mut self, index: u64, entry: &[u8]) {
        let Some(place) = self.place(index) else { return };
        if self.open.len() < place.end {
            self.open.resize(place.end, self.empty);
        }
        if let Some(slot) = self.open.get_mut(place) {
            slot.copy_from_slice(entry);
        }
    }

    /// Writes all entries before `index`. Nothing of them changes any more.
    pub(super) fn close(&mut self, index: u64, output: &dyn Output) -> Result<()> {
        while self.closed < index {
            let most = (PART / self.width) as u64;
            let count = (index - self.closed).min(most);
            let len = usize::try_from(count).unwrap_or(0) * self.width;
            let mut part: Vec<u8> = self.open.drain(..len.min(self.open.len())).collect();
            part.resize(len, self.empty);
            output.write_at(&part, self.at + self.closed * self.width as u64)?;
            self.digest.update(&part);
            self.closed += count;
        }
        Ok(())
    }

    /// Whether `file` has all entries as they were written; each that is stored is shown to `check` as well.
    pub(super) fn is_intact(&self, file: &dyn Disk, check: &mut dyn FnMut(&[u8]) -> Result<bool>) -> Result<bool> {
        let mut digest = blake3::Hasher::new();
        let mut at = self.at;
        let end = self.at + self.closed * self.width as u64;
        while at < end {
            let part = read_vec(file, at, usize::try_from(end - at).unwrap_or(PART).min(PART))?;
            digest.update(&part);
            for entry in part.chunks_exact(self.width).filter(|entry| entry.iter().any(|byte| *byte != self.empty)) {
                if !check(entry)? {
                    return Ok(false);
                }
            }
            at += part.len() as u64;
        }
        Ok(digest.finalize() == self.digest.finalize())
    }

    /// Where an entry is among the open bytes.
    fn place(&self, index: u64) -> Option<Range<usize>> {
        let start = usize::try_from(index.checked_sub(self.closed)?).ok()? * self.width;
        Some(start..start + self.width)
    }
}
