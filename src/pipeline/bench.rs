//! How fast a source answers: requests one at a time and several at once, past every cache, for bytes that were not asked for before
//! as long as there are such.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::session::Session;

/// Bytes that come along when a source is opened on another machine, and are not asked for again.
const FRONT: u64 = 1 << 20;

/// What is measured at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Requests at once.
    pub depth: u16,
    /// Bytes of each.
    pub request: u64,
    /// For how long new ones are made.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What was asked for.
    pub load: Load,
    /// Reads, which are requests to the source but for those that were made again.
    pub requests: u64,
    /// Requests that were made because another failed.
    pub retries: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// How long all of it took.
    pub elapsed: Duration,
    /// How long each read took, the shortest first.
    latencies: Vec<Duration>,
}

impl Figures {
    /// Bytes a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let nanoseconds = self.elapsed.as_nanos().max(1);
        u64::try_from(u128::from(self.bytes) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
    }

    /// The latency that `percent` of the reads did not exceed; that of the fastest for 0.
    #[must_use]
    pub fn latency(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies.get(rank - 1).copied().unwrap_or_default()
    }
}

/// Reads `disk` with each of `loads` in turn.
///
/// # Errors
/// The first one of reading; `bench.source` for a source that has too few bytes to measure anything.
pub fn measure(
    disk: &Arc<dyn Disk>,
    loads: &[Load],
    session: &Session,
    each: &mut dyn FnMut(&Figures),
) -> Result<Vec<Figures>> {
    let mut all = Vec::new();
    let next = AtomicU64::new(0);
    for load in loads {
        let figures = one(disk, *load, &next, session)?;
        each(&figures);
        all.push(figures);
    }
    Ok(all)
}

fn one(disk: &Arc<dyn Disk>, load: Load, next: &AtomicU64, session: &Session) -> Result<Figures> {
    let room = disk.len().checked_sub(FRONT).filter(|room| *room >= load.request);
    let room = room.ok_or_else(|| {
        Error::unsupported("bench.source", "the source is too short to measure anything")
            .expected(format!("at least {} bytes", FRONT + load.request))
            .found(disk.len())
    })?;
    let retries = || disk.traffic().map_or(0, |traffic| traffic.retries);
    let (before, began) = (retries(), Instant::now());
    let reader = || {
        let mut buf = vec![0; usize::try_from(load.request).unwrap_or(0)];
        let mut latencies = Vec::new();
        while began.elapsed() < load.time || latencies.is_empty() {
            session.check()?;
            // Round and round, if there are fewer bytes than there is time.
            let at = next.fetch_add(load.request, Ordering::Relaxed) % (room - load.request + 1);
            let asked = Instant::now();
            disk.read_at(&mut buf, FRONT + at)?;
            latencies.push(asked.elapsed());
        }
        Ok(latencies)
    };
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..load.depth).map(|_| scope.spawn(reader)).collect();
        let panicked = || Err(Error::failed("bench.thread", "a thread of the measurement ended by itself"));
        let read = readers.into_iter().map(|reader| reader.join().unwrap_or_else(|_| panicked()));
        read.collect::<Result<Vec<_>>>().map(|parts| parts.concat())
    })?;
    let elapsed = began.elapsed();
    latencies.sort_unstable();
    let requests = latencies.len() as u64;
    Ok(Figures { load, requests, retries: retries() - before, bytes: requests * load.request, elapsed, latencies })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Fault, Memory};

    fn load(depth: u16, request: u64) -> Load {
        Load { depth, request, time: Duration::ZERO }
    }

    #[test]
    fn every_reader_reads_and_is_counted() {
        let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(vec![7; 3 << 20]));
        let session = Session::with_defaults();
        let mut told = 0;
        let loads = [load(1, 4096), load(8, 1 << 20)];
        let all = measure(&disk, &loads, &session, &mut |_| told += 1).unwrap();
        assert_eq!((told, all[0].requests, all[1].requests, all[1].bytes), (2, 1, 8, 8 << 20));
        assert!(all[1].latency(0) <= all[1].latency(50) && all[1].latency(50) <= all[1].latency(100));
        assert!(all.iter().all(|figures| figures.rate() > 0 && figures.retries == 0));
    }

    #[test]
    fn short_broken_and_cancelled_sources_end_it() {
        let session = Session::with_defaults();
        let of = |disk: Arc<dyn Disk>| measure(&disk, &[load(2, 1 << 20)], &session, &mut |_| {}).unwrap_err().code();
        assert_eq!(of(Checked::wrap(Memory::new(vec![0; (2 << 20) - 1]))), "bench.source");
        let memory = || -> Arc<dyn Disk> { Checked::wrap(Memory::new(vec![0; 2 << 20])) };
        assert_eq!(of(Checked::wrap(Fault::nth(memory(), Arc::default(), 1))), "fault.injected");
        session.cancel();
        assert_eq!(of(memory()), "session.interrupted");
    }

    #[test]
    fn percentiles_are_those_of_nearest_rank() {
        let latencies = (1..=10).map(Duration::from_secs).collect();
        let figures = Figures {
            load: load(1, 1),
            requests: 10,
            retries: 0,
            bytes: 10,
            elapsed: Duration::from_secs(5),
            latencies,
        };
        let seconds = [0, 50, 90, 99, 100].map(|percent| figures.latency(percent).as_secs());
        assert_eq!(seconds, [1, 5, 9, 10, 10]);
        assert_eq!(figures.rate(), 2);
    }
}
