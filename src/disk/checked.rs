//! The wrapper that every box wears: range checks, byte counts, latency and tracing, written once.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Disk, DiskMut, Extent, Fingerprint, Hints, HostRange, SectorSize, Visit};
use crate::error::{Error, Result};

/// Bytes and calls that went through one box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes handed out.
    pub bytes: u64,
    /// Calls of `read_at`.
    pub reads: u64,
    /// Time spent in them, in nanoseconds, all threads together.
    pub nanoseconds: u64,
}

/// What went over the network for one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests that were sent.
    pub requests: u64,
    /// Bytes of content that came.
    pub bytes: u64,
    /// Requests that were sent because the one before failed.
    pub retries: u64,
    /// Time that requests took, in nanoseconds, all of them together.
    pub nanoseconds: u64,
    /// Time until the first byte of each came, in nanoseconds, all of them together.
    pub waited: u64,
}

/// A disk whose preconditions hold and whose use is counted. [`Checked::wrap`] is the only way to make one.
#[derive(Debug)]
pub struct Checked<D> {
    inner: D,
    len: u64,
    bytes: AtomicU64,
    reads: AtomicU64,
    nanoseconds: AtomicU64,
}

impl<D: Disk> Checked<D> {
    /// Puts the wrapper around `inner`.
    #[must_use]
    pub fn wrap(inner: D) -> Arc<Self> {
        Arc::new(Self {
            len: inner.len(),
            inner,
            bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
        })
    }

    /// The box inside.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn inside(&self, offset: u64, len: u64) -> Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(self.outside(offset, len)),
        }
    }

    #[cold]
    fn outside(&self, offset: u64, len: u64) -> Error {
        let (kind, label) = self.inner.describe();
        Error::corrupt("disk.range", format!("{len} bytes go past the end"))
            .at(format!("{kind} {label}"))
            .offset(offset)
            .expected(format!("at most {:#x}", self.len))
    }
}

impl<D: Disk> Disk for Checked<D> {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.inner.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let len = buf.len() as u64;
        self.inside(offset, len)?;
        let start = Instant::now();
        let result = self.inner.read_at(buf, offset);
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(len, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        tracing::trace!(kind = self.inner.describe().0, offset, len, nanoseconds, ok = result.is_ok(), "read");
        result
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.inside(range.start, range.end - range.start)?;
        let mut next = range.start;
        self.inner.extents(range.clone(), &mut |extent: Extent| {
            debug_assert_eq!(extent.range.start, next, "extents must be contiguous");
            debug_assert!(extent.range.end > extent.range.start && extent.range.end <= range.end);
            next = extent.range.end;
            match visit(extent) {
                ControlFlow::Break(()) => {
                    next = range.end;
                    ControlFlow::Break(())
                }
                go_on => go_on,
            }
        })?;
        debug_assert_eq!(next, range.end, "extents must cover the range");
        Ok(())
    }

    fn homes(&self, range: Range<u64>, visit: &mut dyn FnMut(usize, Range<u64>)) {
        if range.start < range.end && range.end <= self.len {
            self.inner.homes(range, visit);
        }
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        if range.is_empty() {
            return Ok(None);
        }
        self.inside(range.start, range.end - range.start)?;
        let found = self.inner.host(range.clone())?;
        debug_assert!(found.as_ref().is_none_or(|host| host.len > 0 && host.len <= range.end - range.start));
        Ok(found)
    }

    fn prefetch(&self, range: Range<u64>) {
        let end = range.end.min(self.len);
        if range.start < end {
            self.inner.prefetch(range.start..end);
        }
    }

    fn hints(&self) -> Hints {
        self.inner.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        self.inner.fingerprint()
    }

    fn describe(&self) -> (&'static str, String) {
        self.inner.describe()
    }

    fn name(&self) -> String {
        self.inner.name()
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        self.inner.below()
    }

    fn stats(&self) -> Option<Stats> {
        Some(Stats {
            bytes: self.bytes.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            nanoseconds: self.nanoseconds.load(Ordering::Relaxed),
        })
    }

    fn origin(&self) -> Option<Fingerprint> {
        self.inner.origin()
    }

    fn traffic(&self) -> Option<Traffic> {
        self.inner.traffic()
    }
}

impl<D: DiskMut> DiskMut for Checked<D> {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let len = data.len() as u64;
        self.inside(offset, len)?;
        let result = self.inner.write_at(data, offset);
        tracing::trace!(kind = self.inner.describe().0, offset, len, ok = result.is_ok(), "write");
        result
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        self.inside(range.start, range.end - range.start)?;
        self.inner.zero(range)
    }

    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    fn can_write(&self) -> bool {
        self.inner.can_write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Memory;

    #[test]
    fn writes_are_checked_like_reads() {
        let disk = Checked::wrap(Memory::new(vec![7; 10]));
        assert!(disk.write_at(&[1; 4], 6).is_ok());
        assert!(disk.write_at(&[1; 4], 7).is_err());
        assert!(disk.zero(0..11).is_err());
        assert!(disk.zero(0..2).is_ok());
        assert_eq!(disk.inner().snapshot(), [0, 0, 7, 7, 7, 7, 1, 1, 1, 1]);
    }

    #[test]
    fn ranges_are_checked_before_the_box_sees_them() {
        let disk = Checked::wrap(Memory::new(vec![7; 10]));
        let mut buf = [0; 4];
        assert!(disk.read_at(&mut buf, 6).is_ok());
        assert!(disk.read_at(&mut buf, 7).is_err());
        assert!(disk.read_at(&mut buf, u64::MAX - 1).is_err());
        assert!(disk.read_at(&mut [], u64::MAX).is_ok());
    }

    #[test]
    fn bytes_and_reads_are_counted() {
        let disk = Checked::wrap(Memory::new(vec![7; 10]));
        disk.read_at(&mut [0; 4], 0).unwrap();
        disk.read_at(&mut [0; 3], 2).unwrap();
        let stats = disk.stats().unwrap();
        assert_eq!((stats.bytes, stats.reads), (7, 2));
    }
}
