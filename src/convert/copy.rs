//! The copy engine: chunks are read, searched for zeros, digested and written on all threads, and placed in order.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Bytes;
use super::digest::{self, Collector, Content};
use super::ordered::{self, Steps};
use super::output::Output;
use super::plan::{BLOCK, Blocks, CHUNK, Planner, Task};
use super::progress::{Phase, Progress, Update};
use super::sink::{Piece, Sink};
use crate::disk::Disk;
use crate::error::Result;
use crate::session::Session;

/// Threads beyond one a core: while some wait for the disk or for their turn, the others keep the cores busy.
const SPARE_THREADS: usize = 2;

/// What a pass over a disk found.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) content: Content,
    pub(super) bytes: Bytes,
}

/// Copies `source` into `sink`. `total` is how many bytes its map says are to be read.
pub(super) fn copy(
    source: &dyn Disk,
    (sink, output): (&mut dyn Sink, &dyn Output),
    total: u64,
    pace: &Pace,
    session: &Session,
    progress: &dyn Progress,
) -> Result<Done> {
    let granule = usize::try_from(sink.granule()).unwrap_or(usize::MAX);
    let target = Target { sink: Mutex::new(sink), output, granule };
    Pass::new(source, Some(target), pace, progress, Update::start(Phase::Copy, total)).run(session)
}

/// Digests `disk` by its map and writes nothing.
pub(super) fn digest(disk: &dyn Disk, total: u64, session: &Session, progress: &dyn Progress) -> Result<Done> {
    Pass::new(disk, None, &Pace::new(None), progress, Update::start(Phase::Verify, total)).run(session)
}

/// One pass over a disk.
struct Pass<'a> {
    disk: &'a dyn Disk,
    target: Option<Target<'a>>,
    pace: &'a Pace,
    progress: &'a dyn Progress,
    found: Mutex<(Collector, Update)>,
}

/// Where a pass writes to.
struct Target<'a> {
    sink: Mutex<&'a mut dyn Sink>,
    output: &'a dyn Output,
    granule: usize,
}

/// What was found in one chunk.
struct Chunk {
    digest: Option<[u8; 32]>,
    read: u64,
    pieces: Vec<Piece>,
}

impl<'a> Pass<'a> {
    fn new(
        disk: &'a dyn Disk,
        target: Option<Target<'a>>,
        pace: &'a Pace,
        progress: &'a dyn Progress,
        start: Update,
    ) -> Self {
        Self { disk, target, pace, progress, found: Mutex::new((Collector::default(), start)) }
    }

    fn run(self, session: &Session) -> Result<Done> {
        self.progress.update(&lock(&self.found).1);
        let fit = usize::try_from(session.budget.in_flight() / CHUNK).unwrap_or(usize::MAX);
        let mut planner = Planner::new(self.disk);
        let mut next = || {
            let task = planner.next()?;
            self.pace.wait(task.map_or(0, |task| task.bytes(self.disk.len())), session)?;
            Ok(task)
        };
        ordered::run(fit.min(session.jobs + SPARE_THREADS), session, &mut next, &self)?;
        let len = self.disk.len();
        let (collector, update) = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bytes = Bytes { hole: len.saturating_sub(update.bytes.read), ..update.bytes };
        Ok(Done { content: collector.finish(len), bytes })
    }
}

impl Steps for Pass<'_> {
    type Task = Task;
    type Scratch = Vec<u8>;
    type Done = Chunk;
    type Ticket = Vec<Piece>;

    fn scratch(&self) -> Vec<u8> {
        vec![0; usize::try_from(CHUNK).unwrap_or(0)]
    }

    fn work(&self, scratch: &mut Vec<u8>, task: &Task) -> Result<Chunk> {
        let range = task.range(self.disk.len());
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        let chunk = &mut scratch[..len];
        if self.target.as_ref().is_some_and(|target| target.granule as u64 > BLOCK) {
            // A granule takes in blocks that are not read.
            chunk.fill(0);
        }
        let mut read = 0;
        for run in task.blocks.ranges(len) {
            read += run.len() as u64;
            self.disk.read_at(&mut chunk[run.clone()], range.start + run.start as u64)?;
        }
        let (blocks, digest) = digest::chunk(chunk, task.blocks);
        let pieces = self.target.as_ref().map_or_else(Vec::new, |target| pieces(chunk, blocks, target.granule));
        Ok(Chunk { digest, read, pieces })
    }

    fn in_turn(&self, task: &Task, mut chunk: Chunk) -> Result<Vec<Piece>> {
        if let Some(target) = &self.target {
            lock(&target.sink).place(task.range(self.disk.len()).start, &mut chunk.pieces, target.output)?;
        }
        let mut found = lock(&self.found);
        let (collector, update) = &mut *found;
        collector.add(task.chunk, chunk.digest);
        let written: u64 = chunk.pieces.iter().map(|piece| piece.len as u64).sum();
        update.done += chunk.read;
        update.bytes.read += chunk.read;
        update.bytes.written += written;
        update.bytes.zero += chunk.read.saturating_sub(written);
        self.progress.update(update);
        Ok(chunk.pieces)
    }

    fn after(&self, scratch: &mut Vec<u8>, pieces: Vec<Piece>) -> Result<()> {
        let Some(target) = &self.target else { return Ok(()) };
        for piece in pieces {
            target.output.write_at(&scratch[piece.start..piece.start + piece.len], piece.host)?;
            target.output.written(piece.host..piece.host + piece.len as u64);
        }
        Ok(())
    }
}

/// The granules of `chunk` that are not all zeros, neighbours joined. Only `blocks` have anything else than zeros.
fn pieces(chunk: &[u8], blocks: Blocks, granule: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut add = |start: usize, end: usize| match pieces.last_mut() {
        Some(last) if start <= last.start + last.len => last.len = end - last.start,
        _ => pieces.push(Piece { start, len: end - start, host: 0 }),
    };
    for run in blocks.ranges(chunk.len()) {
        if granule as u64 >= BLOCK {
            add(run.start / granule * granule, run.end.next_multiple_of(granule).min(chunk.len()));
            continue;
        }
        for start in run.clone().step_by(granule) {
            let end = (start + granule).min(run.end);
            if !digest::is_zero(&chunk[start..end]) {
                add(start, end);
            }
        }
    }
    pieces
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds reading back to a rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: Option<NonZeroU64>,
    start: Instant,
    /// Bytes that were let through.
    spent: AtomicU64,
}

impl Pace {
    /// Longest sleep before cancellation is looked at again.
    const NAP: Duration = Duration::from_millis(100);

    /// `rate` bytes in a second from now on, or no limit.
    pub(super) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { rate, start: Instant::now(), spent: AtomicU64::new(0) }
    }

    /// Waits until what was let through before is paid for, then lets `bytes` through.
    fn wait(&self, bytes: u64, session: &Session) -> Result<()> {
        let Some(rate) = self.rate else { return Ok(()) };
        let spent = self.spent.fetch_add(bytes, Ordering::Relaxed);
        let due = Duration::from_millis(spent.saturating_mul(1000) / rate);
        while let Some(left) = due.checked_sub(self.start.elapsed()).filter(|left| !left.is_zero()) {
            session.check()?;
            std::thread::sleep(left.min(Self::NAP));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(chunk: &[u8], granule: usize) -> Vec<(usize, usize)> {
        let mut all = Blocks::default();
        (0..u32::try_from(chunk.len().div_ceil(BLOCK as usize)).unwrap()).for_each(|block| all.insert(block));
        let (blocks, _) = digest::chunk(chunk, all);
        pieces(chunk, blocks, granule).into_iter().map(|piece| (piece.start, piece.len)).collect()
    }

    #[test]
    fn pieces_are_whole_granules_and_joined() {
        let block = BLOCK as usize;
        let mut chunk = vec![0; 10 * block + 100];
        for at in [0, 2 * block, 2 * block + 5000, 3 * block, 10 * block + 99] {
            chunk[at] = 1;
        }
        assert_eq!(found(&chunk, block), [(0, block), (2 * block, 2 * block), (10 * block, 100)]);
        assert_eq!(found(&chunk, 4 * block), [(0, 4 * block), (8 * block, 2 * block + 100)]);
        let fine = [(0, 4096), (2 * block, 8192), (3 * block, 4096), (10 * block, 100)];
        assert_eq!(found(&chunk, 4096), fine);
        assert_eq!(found(&[0; 9], 4096), []);
    }

    #[test]
    fn the_pace_is_kept_and_can_be_interrupted() {
        let session = Session::with_defaults();
        let pace = Pace::new(NonZeroU64::new(1000));
        let start = Instant::now();
        (0..4).for_each(|_| pace.wait(10, &session).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(30));
        pace.wait(1_000_000, &session).unwrap();
        session.cancel();
        assert_eq!(pace.wait(1, &session).unwrap_err().code(), "session.interrupted");
    }
}
