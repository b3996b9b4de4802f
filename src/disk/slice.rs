//! A range of another disk: a tar member, a partition, a flat extent.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use super::{Disk, DiskMut, Extent, Fingerprint, Hints, HostRange, SectorSize, Visit};
use crate::error::{Error, Result};

/// The bytes `range` of a disk, as a disk; one that may change when the disk may.
#[derive(Clone, Debug)]
pub struct Slice<D: ?Sized = dyn Disk> {
    label: String,
    start: u64,
    len: u64,
    disk: Arc<D>,
    /// The same disk as what it is in any case.
    whole: Arc<dyn Disk>,
}

impl Slice {
    /// The slice of a disk that can only be read; `range` must lie inside `disk`.
    pub fn new(label: impl Into<String>, disk: Arc<dyn Disk>, range: Range<u64>) -> Result<Self> {
        let label = label.into();
        inside(&label, &*disk, &range)?;
        Ok(Self { label, start: range.start, len: range.end - range.start, whole: Arc::clone(&disk), disk })
    }
}

impl Slice<dyn DiskMut> {
    /// The slice of a disk that may change; `range` must lie inside `disk`.
    pub fn new_mut(label: impl Into<String>, disk: Arc<dyn DiskMut>, range: Range<u64>) -> Result<Self> {
        let label = label.into();
        inside(&label, &*disk, &range)?;
        let whole = Arc::clone(&disk) as Arc<dyn Disk>;
        Ok(Self { label, start: range.start, len: range.end - range.start, disk, whole })
    }
}

fn inside<D: Disk + ?Sized>(label: &str, disk: &D, range: &Range<u64>) -> Result<()> {
    if range.start > range.end || range.end > disk.len() {
        return Err(Error::corrupt("disk.range", format!("{label} goes past the end of what holds it"))
            .offset(range.start)
            .expected(format!("an end of at most {:#x}", disk.len()))
            .found(format!("{:#x}", range.end)));
    }
    Ok(())
}

impl<D: Debug + Send + Sync + ?Sized + 'static> Disk for Slice<D> {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.whole.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.whole.read_at(buf, self.start + offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let range = self.start + range.start..self.start + range.end;
        self.whole.extents(range, &mut |extent| {
            let range = extent.range.start - self.start..extent.range.end - self.start;
            visit(Extent { range, ..extent })
        })
    }

    fn homes(&self, range: Range<u64>, visit: &mut dyn FnMut(usize, Range<u64>)) {
        visit(0, self.start + range.start..self.start + range.end);
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        self.whole.host(self.start + range.start..self.start + range.end)
    }

    fn prefetch(&self, range: Range<u64>) {
        self.whole.prefetch(self.start + range.start..self.start + range.end);
    }

    fn hints(&self) -> Hints {
        self.whole.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[&self.whole.fingerprint()?.0, &self.start.to_le_bytes(), &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("slice", self.label.clone())
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.whole)]
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

    fn can_write(&self) -> bool {
        self.disk.can_write()
    }
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
