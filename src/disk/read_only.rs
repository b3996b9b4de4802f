//! A disk that only can be read, where one that may change is wanted.

use std::ops::Range;
use std::sync::Arc;

use super::{Disk, DiskMut, Extent, Fingerprint, Hints, HostRange, SectorSize, Visit};
use crate::error::{Error, Result};

/// Passes reads on and refuses every write. It says nothing about where its bytes live: what is not written is not freed either.
#[derive(Debug)]
pub struct ReadOnly {
    disk: Arc<dyn Disk>,
    why: String,
}

impl ReadOnly {
    /// `disk`, which is not written because of `why`: one clause.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, why: impl Into<String>) -> Self {
        Self { disk, why: why.into() }
    }

    fn refused(&self) -> Error {
        Error::refused("disk.read-only", &self.why).at(self.disk.name())
    }
}

impl Disk for ReadOnly {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn sector_size(&self) -> SectorSize {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.disk.extents(range, &mut |extent: Extent| visit(extent))
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        self.disk.host(range)
    }

    fn prefetch(&self, range: Range<u64>) {
        self.disk.prefetch(range);
    }

    fn hints(&self) -> Hints {
        self.disk.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        self.disk.fingerprint()
    }

    fn describe(&self) -> (&'static str, String) {
        ("read-only", self.disk.name())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.disk)]
    }
}

impl DiskMut for ReadOnly {
    fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        Err(self.refused())
    }

    fn zero(&self, _range: Range<u64>) -> Result<()> {
        Err(self.refused())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn can_write(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory, collect_extents};

    #[test]
    fn reads_pass_and_writes_do_not() {
        let disk: Arc<dyn Disk> = Checked::wrap(Memory::new((0..64).collect()));
        let sealed = Checked::wrap(ReadOnly::new(disk, "the source is never written"));
        let mut buf = [0; 2];
        sealed.read_at(&mut buf, 5).unwrap();
        assert_eq!(buf, [5, 6]);
        assert_eq!(collect_extents(&*sealed, 3..9).unwrap()[0].place, Some(3));
        assert_eq!(sealed.write_at(&[1], 0).unwrap_err().code(), "disk.read-only");
        assert_eq!(sealed.zero(0..1).unwrap_err().code(), "disk.read-only");
        sealed.flush().unwrap();
        assert!(!sealed.can_write());
    }
}
