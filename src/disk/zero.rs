//! A disk of zeros of any length.

use std::ops::Range;

use super::{Disk, ExtentKind, Fingerprint, Visit, whole};
use crate::error::Result;

/// `len` zero bytes that take no memory.
#[derive(Clone, Copy, Debug)]
pub struct Zero {
    /// Length in bytes.
    pub len: u64,
}

impl Disk for Zero {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], _offset: u64) -> Result<()> {
        buf.fill(0);
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        whole(range, ExtentKind::Hole, None, visit);
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[b"zero", &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("zero", format!("{} bytes", self.len))
    }
}
