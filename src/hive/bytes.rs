//! Where a hive's bytes come from: the file, read a block at a time, with sectors of its logs in place of its own.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use super::log::{Place, Recovery, SECTOR};
use super::{FIRST_BIN, log};
use crate::disk::bytes::{long, size};
use crate::error::Result;
use crate::fs::tree::FileReader;
use crate::limits;

/// A file of a guest, or bytes in memory.
pub trait Bytes: Debug + Send + Sync {
    /// Its length.
    fn len(&self) -> u64;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads into `buf` from `offset` on; fewer bytes than asked only at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;
}

impl Bytes for Vec<u8> {
    fn len(&self) -> u64 {
        long(self.as_slice().len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let rest = self.get(size(offset)..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        Ok(count)
    }
}

impl Bytes for FileReader {
    fn len(&self) -> u64 {
        self.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        Self::read_at(self, buf, offset)
    }
}

/// Up to `length` bytes from `offset` on; fewer at the end of the file.
pub(super) fn read_up_to(file: &dyn Bytes, offset: u64, length: usize) -> Result<Vec<u8>> {
    let left = size(file.len().saturating_sub(offset)).min(length);
    let mut bytes = vec![0; left];
    let mut filled = 0_usize;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(long(filled)))? {
            0 => break,
            count => filled = filled.saturating_add(count),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// Bytes that are read and kept together.
const BLOCK: usize = 16 << 10;

/// A hive's bytes. What lies past the end of the file, and in no log, is zero.
#[derive(Debug)]
pub(super) struct Pages {
    file: Box<dyn Bytes>,
    logs: Vec<Box<dyn Bytes>>,
    sectors: HashMap<u32, Place>,
    kept: Mutex<HashMap<u64, Arc<[u8]>>>,
}

impl Pages {
    pub(super) fn new(file: Box<dyn Bytes>) -> Self {
        Self { file, logs: Vec::new(), sectors: HashMap::new(), kept: Mutex::default() }
    }

    /// From now on, what a log has takes the place of what the file has.
    pub(super) fn patch(&mut self, found: Recovery) {
        (self.logs, self.sectors) = (found.logs, found.sectors);
    }

    /// The `length` bytes at `offset`, which a caller has bounded.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        let block = long(BLOCK);
        while bytes.len() < length {
            let at = offset.saturating_add(long(bytes.len()));
            let within = at.checked_rem(block).unwrap_or(0);
            let kept = self.block(at.saturating_sub(within))?;
            let from = kept.get(size(within)..).unwrap_or_default();
            let count = from.len().min(length.saturating_sub(bytes.len()));
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(from.get(..count).unwrap_or_default());
        }
        Ok(bytes)
    }

    fn block(&self, at: u64) -> Result<Arc<[u8]>> {
        if let Some(block) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&at) {
            return Ok(Arc::clone(block));
        }
        let mut bytes = read_up_to(&*self.file, at, BLOCK)?;
        bytes.resize(BLOCK, 0);
        if !self.sectors.is_empty() {
            self.overlay(&mut bytes, at)?;
        }
        let block: Arc<[u8]> = bytes.into();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        // The upper keys of a hive are read again and again, the others once: it is enough to begin anew now and then.
        if kept.len() >= limits::MAX_HIVE_BLOCKS {
            kept.clear();
        }
        kept.insert(at, Arc::clone(&block));
        Ok(block)
    }

    fn overlay(&self, bytes: &mut [u8], at: u64) -> Result<()> {
        let mut offset = at;
        for sector in bytes.chunks_exact_mut(log::SECTOR_SIZE) {
            let number = offset.checked_sub(FIRST_BIN).and_then(|offset| offset.checked_div(SECTOR));
            let place = number.and_then(|number| self.sectors.get(&u32::try_from(number).ok()?));
            if let Some(place) = place
                && let Some(log) = self.logs.get(usize::from(place.log))
            {
                let newer = read_up_to(&**log, u64::from(place.offset), log::SECTOR_SIZE)?;
                if newer.len() == sector.len() {
                    sector.copy_from_slice(&newer);
                }
            }
            offset = offset.saturating_add(SECTOR);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn as_many_blocks_are_kept_as_the_limit() {
        let most = limits::MAX_HIVE_BLOCKS;
        let pages = Pages::new(Box::new(vec![7_u8; (most + 1) * BLOCK]));
        let kept = || pages.kept.lock().unwrap().len();
        for number in 0..most {
            assert_eq!(pages.block(long(number * BLOCK)).unwrap()[..], [7; BLOCK]);
            assert_eq!(kept(), number + 1);
        }
        pages.block(0).unwrap();
        assert_eq!(kept(), most);
        pages.block(long(most * BLOCK)).unwrap();
        assert_eq!(kept(), 1);
    }
}
