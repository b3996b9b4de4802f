//! A range of another disk: a tar member, a partition, a flat extent.

use std::ops::Range;
use std::sync::Arc;

use super::{Disk, DiskMut, Extent, Fingerprint, Hints, SectorSize, Visit};
use crate::error::{Error, Result};

/// The bytes `range` of a disk, as a disk.
#[derive(Clone, Debug)]
pub struct Slice<D: ?Sized = dyn Disk> {
    label: String,
    start: u64,
    len: u64,
    disk: Arc<D>,
}

impl<D: Disk + ?Sized> Slice<D> {
    /// The slice; `range` must lie inside `disk`.
    pub fn new(label: impl Into<String>, disk: Arc<D>, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > disk.len() {
            return Err(Error::corrupt("disk.range", format!("{} goes past the end of what holds it", label.into()))
                .offset(range.start)
                .expected(format!("an end of at most {:#x}", disk.len()))
                .found(format!("{:#x}", range.end)));
        }
        Ok(Self { label: label.into(), start: range.start, len: range.end - range.start, disk })
    }
}

impl Disk for Slice<dyn Disk> {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, self.start + offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        extents(&*self.disk, self.start, range, visit)
    }

    fn prefetch(&self, range: Range<u64>) {
        self.disk.prefetch(self.start + range.start..self.start + range.end);
    }

    fn hints(&self) -> Hints {
        self.disk.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[&self.disk.fingerprint()?.0, &self.start.to_le_bytes(), &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("slice", self.label.clone())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.disk)]
    }
}

impl Disk for Slice<dyn DiskMut> {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.disk.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, self.start + offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.disk
            .extents(self.start + range.start..self.start + range.end, &mut |extent| visit(shift(extent, self.start)))
    }

    fn hints(&self) -> Hints {
        self.disk.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[&self.disk.fingerprint()?.0, &self.start.to_le_bytes(), &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("slice", self.label.clone())
    }
}

impl DiskMut for Slice<dyn DiskMut> {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.disk.write_at(data, self.start + offset)
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        self.disk.zero(self.start + range.start..self.start + range.end)
    }

    fn flush(&self) -> Result<()> {
        self.disk.flush()
    }
}

fn extents(disk: &dyn Disk, start: u64, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
    disk.extents(start + range.start..start + range.end, &mut |extent| visit(shift(extent, start)))
}

fn shift(extent: Extent, start: u64) -> Extent {
    Extent { range: extent.range.start - start..extent.range.end - start, ..extent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory, collect_extents};

    #[test]
    fn reads_and_extents_are_shifted() {
        let disk: Arc<dyn Disk> = Checked::wrap(Memory::new((0..=255).collect()));
        let slice = Checked::wrap(Slice::new("part", disk, 16..32).unwrap());
        let mut buf = [0; 2];
        slice.read_at(&mut buf, 3).unwrap();
        assert_eq!(buf, [19, 20]);
        let extents = collect_extents(&*slice, 1..5).unwrap();
        assert_eq!(extents[0].range, 1..5);
        assert_eq!(extents[0].place, Some(17));
    }

    #[test]
    fn a_slice_past_the_end_is_refused() {
        let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![0; 8]));
        assert!(Slice::new("part", Arc::clone(&disk), 4..9).is_err());
        assert!(Slice::new("part", disk, 8..8).is_ok());
    }
}
