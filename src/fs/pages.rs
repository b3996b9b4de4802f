//! Metadata of a volume in pages, with a bound on what is kept, for drivers whose structures lie at any byte.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;
use crate::disk::bytes::{long, size};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes of a page: a power of two.
pub(super) const PAGE: u64 = 4096;

/// A volume, read in pages.
#[derive(Debug)]
pub(super) struct Pages {
    disk: Arc<dyn Disk>,
    /// The code of errors about what lies outside of the volume.
    code: &'static str,
    cache: Mutex<HashMap<u64, Arc<Vec<u8>>>>,
}

impl Pages {
    pub(super) fn new(disk: Arc<dyn Disk>, code: &'static str) -> Self {
        Self { disk, code, cache: Mutex::default() }
    }

    /// Bytes of the volume.
    pub(super) fn volume_len(&self) -> u64 {
        self.disk.len()
    }

    /// Fills `buf` from `offset`, through the cache.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check(buf.len(), offset)?;
        for (number, within, at) in pieces(offset, buf.len()) {
            let page = self.page(number)?;
            if let (Some(to), Some(from)) = (buf.get_mut(at), page.get(within)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// `len` bytes at `offset`, through the cache. The caller bounds `len`.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.check(len, offset)?;
        let mut bytes = vec![0; len];
        self.read(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Fills `buf` from `offset`, past the cache: content.
    pub(super) fn content(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check(buf.len(), offset)?;
        self.disk.read_at(buf, offset)
    }

    /// Page `number`, of which a part lies in the volume; the last one may be short.
    pub(super) fn page(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        if let Some(page) = self.cached().get(&number) {
            return Ok(Arc::clone(page));
        }
        let start = number.saturating_mul(PAGE);
        let mut bytes = vec![0; size(self.disk.len().saturating_sub(start).min(PAGE))];
        self.disk.read_at(&mut bytes, start)?;
        let page = Arc::new(bytes);
        let mut cache = self.cached();
        if long(cache.len()).saturating_mul(PAGE) >= limits::FS_CACHE {
            cache.clear();
        }
        cache.insert(number, Arc::clone(&page));
        Ok(page)
    }

    /// Forgets `range` of the volume, which changed.
    pub(super) fn forget(&self, range: Range<u64>) {
        let mut cache = self.cached();
        let numbers = range.start / PAGE..range.end.div_ceil(PAGE);
        cache.retain(|number, _| !numbers.contains(number));
    }

    fn check(&self, len: usize, offset: u64) -> Result<()> {
        match offset.checked_add(long(len)) {
            Some(end) if end <= self.disk.len() => Ok(()),
            _ => Err(Error::corrupt(self.code, "a structure lies outside of the volume").offset(offset)),
        }
    }

    fn cached(&self) -> MutexGuard<'_, HashMap<u64, Arc<Vec<u8>>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages that hold `len` bytes at `offset`: the page's number, where in it, and where in the bytes.
pub(super) fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0_usize;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let at = offset.saturating_add(long(done));
        let within = size(at % PAGE);
        let piece = size(PAGE).saturating_sub(within).min(left);
        let start = done;
        done = done.saturating_add(piece);
        Some((at / PAGE, within..within.saturating_add(piece), start..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};
    use crate::testing::noise;

    #[test]
    fn bytes_are_those_of_the_volume_and_nothing_past_its_end() {
        let image = noise(1, 10_000);
        let pages = Pages::new(Checked::wrap(Memory::new(image.clone())), "fat.corrupt");
        for (offset, len) in [(0, 10_000), (4095, 2), (4096, 4096), (9_999, 1), (10_000, 0)] {
            assert_eq!(pages.bytes(offset, len).unwrap(), image[size(offset)..][..len]);
        }
        for (offset, len) in [(9_999, 2), (10_001, 0), (u64::MAX, 1)] {
            assert_eq!(pages.bytes(offset, len).unwrap_err().code(), "fat.corrupt");
        }
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let len = usize::try_from(limits::FS_CACHE * 2).unwrap();
        let pages = Pages::new(Checked::wrap(Memory::new(vec![0; len])), "fat.corrupt");
        for number in 0..limits::FS_CACHE * 2 / PAGE {
            pages.page(number).unwrap();
            assert!(long(pages.cached().len()) * PAGE <= limits::FS_CACHE);
        }
        assert!(!pages.cached().is_empty());
    }
}
