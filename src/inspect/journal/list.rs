//! A list of entries as a journal keeps it: one alone, then arrays that are linked. It is sorted by offset and read lazily.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::cell::Cell;

use super::file::JournalFile;
use crate::error::{Error, Result};
use crate::limits;

/// Offsets of entries, ascending.
#[derive(Debug, Default)]
pub(super) struct List {
    first: Option<u64>,
    arrays: Vec<Array>,
    len: u64,
    /// What was found last: the next one is mostly beside it.
    near: Cell<u64>,
}

#[derive(Debug)]
struct Array {
    offset: u64,
    /// The number in the list of its first item.
    start: u64,
}

impl List {
    /// The list of `first` and of `more` items in the arrays from `array` on. Items that an unclean file does not have are left out.
    pub(super) fn read(file: &JournalFile<'_>, first: Option<u64>, array: u64, more: u64) -> Result<Self> {
        let mut list = Self { first, len: u64::from(first.is_some()), ..Self::default() };
        let (mut offset, mut left) = (array, more);
        while offset != 0 && left > 0 {
            if list.arrays.len() >= limits::MAX_JOURNAL_ARRAYS {
                return Err(Error::limit("journal.arrays", "a list of a journal is in more pieces than any real one")
                    .offset(offset));
            }
            let (next, capacity) = file.entry_array(offset)?;
            if next != 0 && next <= offset {
                return Err(file.corrupt("a list of a journal leads back", offset));
            }
            let items = capacity.min(left);
            list.arrays.push(Array { offset, start: list.len });
            list.len = list.len.saturating_add(items);
            left = left.saturating_sub(items);
            offset = next;
        }
        list.cut(file)?;
        Ok(list)
    }

    /// Leaves out zeros at the end, which stand where the writer was interrupted.
    fn cut(&mut self, file: &JournalFile<'_>) -> Result<()> {
        if self.len == 0 || self.get(file, self.len.saturating_sub(1))? != 0 {
            return Ok(());
        }
        self.len = self.partition(|offset| offset != 0, file)?;
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The item `index`, which is below the length.
    pub(super) fn get(&self, file: &JournalFile<'_>, index: u64) -> Result<u64> {
        if let (0, Some(first)) = (index, self.first) {
            return Ok(first);
        }
        let place = self.arrays.partition_point(|array| array.start <= index).checked_sub(1);
        let Some(array) = place.and_then(|place| self.arrays.get(place)) else { return Ok(0) };
        file.array_reference(array.offset, index.saturating_sub(array.start))
    }

    /// The first item that is at least `offset`.
    pub(super) fn next(&self, file: &JournalFile<'_>, offset: u64) -> Result<Option<u64>> {
        let index = self.find(file, offset)?;
        if index >= self.len {
            Ok(None)
        } else {
            self.get(file, index).map(|found| Some(found).filter(|o| *o >= offset))
        }
    }

    /// The last item that is at most `offset`.
    pub(super) fn previous(&self, file: &JournalFile<'_>, offset: u64) -> Result<Option<u64>> {
        let after = match offset.checked_add(1) {
            Some(after) => self.find(file, after)?,
            None => self.len,
        };
        let Some(index) = after.checked_sub(1) else { return Ok(None) };
        self.get(file, index).map(|found| Some(found).filter(|o| *o <= offset))
    }

    /// The number of the first item that is at least `offset`; the length when there is none.
    fn find(&self, file: &JournalFile<'_>, offset: u64) -> Result<u64> {
        let near = self.near.get();
        for index in [near, near.saturating_add(1), near.saturating_sub(1)] {
            if index < self.len
                && self.get(file, index)? >= offset
                && (index == 0 || self.get(file, index.saturating_sub(1))? < offset)
            {
                self.near.set(index);
                return Ok(index);
            }
        }
        let index = self.partition(|item| item < offset, file)?;
        self.near.set(index);
        Ok(index)
    }

    /// How many items at the front fit, by bisection.
    pub(super) fn partition(&self, fits: impl Fn(u64) -> bool, file: &JournalFile<'_>) -> Result<u64> {
        self.try_partition(|offset| Ok(fits(offset)), file)
    }

    /// The same with a question that can fail.
    pub(super) fn try_partition(&self, fits: impl Fn(u64) -> Result<bool>, file: &JournalFile<'_>) -> Result<u64> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low.midpoint(high);
            if fits(self.get(file, middle)?)? {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}
