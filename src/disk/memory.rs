//! A disk in memory, for tests and small synthetic pieces.

use std::ops::Range;
use std::sync::RwLock;

use super::{Disk, DiskMut, ExtentKind, Fingerprint, Visit, whole};
use crate::error::Result;

/// Bytes in a vector.
#[derive(Debug)]
pub struct Memory {
    bytes: RwLock<Vec<u8>>,
}

impl Memory {
    /// A disk that holds `bytes`.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes) }
    }

    /// A copy of what it holds now.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.read().clone()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<u8>> {
        self.bytes.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<u8>> {
        self.bytes.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The caller (`Checked`) has made sure that the range fits in memory.
fn at(offset: u64, len: usize) -> Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    start..start.saturating_add(len)
}

impl Disk for Memory {
    fn len(&self) -> u64 {
        self.read().len() as u64
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let bytes = self.read();
        if let Some(from) = bytes.get(at(offset, buf.len())) {
            buf.copy_from_slice(from);
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let place = range.start;
        whole(range, ExtentKind::Data, Some(place), visit);
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[&self.read()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("memory", format!("{} bytes", self.len()))
    }
}

impl DiskMut for Memory {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        if let Some(to) = self.write().get_mut(at(offset, data.len())) {
            to.copy_from_slice(data);
        }
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        if let Some(to) = self.write().get_mut(at(range.start, len)) {
            to.fill(0);
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}
