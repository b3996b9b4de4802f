//! Failures as an ordinary layer, and the loop that fails the n-th call until a run succeeds.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Disk, DiskMut, Fingerprint, Hints, SectorSize, Visit};
use crate::error::{Error, Kind, Result};

/// Fails one call: the `n`-th read, extent query or write (counted together, from 0), or every read that touches `bad`.
#[derive(Debug)]
pub struct Fault<D: ?Sized = dyn Disk> {
    calls: Arc<AtomicU64>,
    fail_at: Option<u64>,
    bad: Option<Range<u64>>,
    disk: Arc<D>,
    /// The same disk as what it is in any case.
    whole: Arc<dyn Disk>,
}

impl Fault {
    /// Fails call number `n`, counted in `calls`, which several layers may share.
    #[must_use]
    pub fn nth(disk: Arc<dyn Disk>, calls: Arc<AtomicU64>, n: u64) -> Self {
        Self { calls, fail_at: Some(n), bad: None, whole: Arc::clone(&disk), disk }
    }

    /// Fails every read that touches `bad`.
    #[must_use]
    pub fn range(disk: Arc<dyn Disk>, bad: Range<u64>) -> Self {
        Self { calls: Arc::default(), fail_at: None, bad: Some(bad), whole: Arc::clone(&disk), disk }
    }
}

impl Fault<dyn DiskMut> {
    /// [`Fault::nth`] for a disk that may change.
    #[must_use]
    pub fn nth_mut(disk: Arc<dyn DiskMut>, calls: Arc<AtomicU64>, n: u64) -> Self {
        let whole = Arc::clone(&disk) as Arc<dyn Disk>;
        Self { calls, fail_at: Some(n), bad: None, disk, whole }
    }
}

impl<D: ?Sized> Fault<D> {
    fn call(&self, range: &Range<u64>) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let hit = self.bad.as_ref().is_some_and(|bad| range.start < bad.end && bad.start < range.end);
        if hit || self.fail_at == Some(call) {
            return Err(Error::new(Kind::Unreadable, "fault.injected", "injected failure").offset(range.start));
        }
        Ok(())
    }
}

impl<D: Debug + Send + Sync + ?Sized + 'static> Disk for Fault<D> {
    fn len(&self) -> u64 {
        self.whole.len()
    }

    fn sector_size(&self) -> SectorSize {
        self.whole.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.call(&(offset..offset + buf.len() as u64))?;
        self.whole.read_at(buf, offset)
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        self.call(&range)?;
        self.whole.extents(range, visit)
    }

    fn hints(&self) -> Hints {
        self.whole.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        self.whole.fingerprint()
    }

    fn describe(&self) -> (&'static str, String) {
        ("fault", format!("{:?}", self.fail_at))
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.whole)]
    }
}

impl DiskMut for Fault<dyn DiskMut> {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.call(&(offset..offset + data.len() as u64))?;
        self.disk.write_at(data, offset)
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        self.call(&range)?;
        self.disk.zero(range)
    }

    fn flush(&self) -> Result<()> {
        self.call(&(0..0))?;
        self.disk.flush()
    }
}

/// Runs `attempt` with n = 0, 1, 2 … until a run makes fewer than n calls and so succeeds undisturbed. Every earlier run must
/// fail with an error, and `after` checks what it left behind.
///
/// # Errors
/// When an attempt succeeds although its fault was hit, or the count passes `bound`.
pub fn until_it_succeeds(
    bound: u64,
    mut attempt: impl FnMut(u64, &Arc<AtomicU64>) -> Result<()>,
    mut after: impl FnMut(u64),
) -> Result<u64> {
    for n in 0..bound {
        let calls = Arc::new(AtomicU64::new(0));
        let result = attempt(n, &calls);
        let hit = calls.load(Ordering::Relaxed) > n;
        after(n);
        match (hit, result) {
            (true, Err(_)) => {}
            (true, Ok(())) => {
                return Err(Error::failed("fault.injected", format!("the failure of call {n} went unnoticed")));
            }
            (false, result) => return result.map(|()| n),
        }
    }
    Err(Error::failed("fault.injected", format!("no run succeeded within {bound} calls")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn the_loop_ends_when_no_call_is_left_to_fail() {
        let runs = until_it_succeeds(
            10,
            |n, calls| {
                let memory: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![0; 8]));
                let disk = Checked::wrap(Fault::nth(memory, Arc::clone(calls), n));
                (0..3).try_for_each(|_| disk.read_at(&mut [0; 2], 0))
            },
            |_| (),
        );
        assert_eq!(runs.unwrap(), 3);
    }

    #[test]
    fn a_swallowed_error_is_noticed() {
        let result = until_it_succeeds(
            10,
            |n, calls| {
                let memory: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![0; 8]));
                let _ = Fault::nth(memory, Arc::clone(calls), n).read_at(&mut [0; 2], 0);
                Ok(())
            },
            |_| (),
        );
        assert!(result.is_err());
    }
}
