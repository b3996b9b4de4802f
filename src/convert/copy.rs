//! The copy engine: chunks are read, searched for zeros, digested and encoded on all threads, and placed and written in order.
//!
//! A file system lets one thread at a time write to a file, and likes it best from front to back: nothing is lost by writing in
//! turn, and the next thread decodes meanwhile.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Bytes;
use super::digest::{self, Collector, Content};
use super::ordered::{self, Steps};
use super::output::Output;
use super::plan::{BLOCK, Blocks, CHUNK, Planner, Task};
use super::progress::{Phase, Progress, Update};
use super::sink::{Encoder, Form, Order, Piece, Shape, Sink, Zeros};
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
    let target = Target { shape: sink.shape(), sink: Mutex::new(sink), output };
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
    shape: Shape,
}

/// Memory of one thread.
struct Scratch {
    /// The chunk's bytes.
    chunk: Vec<u8>,
    encoder: Option<Box<dyn Encoder>>,
    /// What stands for its encoded granules, one after the other.
    encoded: Vec<u8>,
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
        // What is encoded takes as much again, and a little more where it does not become smaller.
        let fit = usize::try_from(session.budget.in_flight() / (2 * CHUNK + CHUNK / 8)).unwrap_or(usize::MAX);
        let order = self.target.as_ref().map_or(Order::Source, |target| target.shape.order);
        let mut planner = Planner::new(self.disk, order);
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
    type Scratch = Scratch;
    type Done = Chunk;

    fn scratch(&self) -> Result<Scratch> {
        let chunk = vec![0; usize::try_from(CHUNK).unwrap_or(0)];
        let encoder = self.target.as_ref().map_or(Ok(None), |target| lock(&target.sink).encoder())?;
        Ok(Scratch { chunk, encoder, encoded: Vec::new() })
    }

    fn work(&self, scratch: &mut Scratch, task: &Task) -> Result<Chunk> {
        let range = task.range(self.disk.len());
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        if self.target.as_ref().is_some_and(|target| scratch.encoder.is_some() || target.needs_zeros()) {
            // Granules take in what is not read.
            scratch.chunk.fill(0);
        }
        let chunk = &mut scratch.chunk[..len];
        let mut read = 0;
        for run in task.blocks.ranges(len) {
            read += run.len() as u64;
            self.disk.read_at(&mut chunk[run.clone()], range.start + run.start as u64)?;
        }
        let (blocks, digest) = digest::chunk(chunk, task.blocks);
        let mut pieces = Vec::new();
        if let Some(target) = &self.target {
            pieces = cut(chunk, blocks, target.shape);
            pieces = scratch.encode(pieces, target.shape.granule, range.start)?;
        }
        Ok(Chunk { digest, read, pieces })
    }

    fn in_turn(&self, scratch: &mut Scratch, task: &Task, mut chunk: Chunk) -> Result<()> {
        if let Some(target) = &self.target {
            lock(&target.sink).place(task.range(self.disk.len()).start, &mut chunk.pieces, target.output)?;
            scratch.write(&chunk.pieces, target.output)?;
        }
        let mut found = lock(&self.found);
        let (collector, update) = &mut *found;
        collector.add(task.chunk, chunk.digest);
        let written: u64 =
            chunk.pieces.iter().filter(|piece| piece.form != Form::Zero).map(|piece| piece.len as u64).sum();
        update.done += chunk.read;
        update.bytes.read += chunk.read;
        update.bytes.written += written;
        update.bytes.zero += chunk.read.saturating_sub(written);
        self.progress.update(update);
        Ok(())
    }
}

impl Target<'_> {
    /// Whether pieces take in blocks that are not read, without being encoded.
    fn needs_zeros(&self) -> bool {
        self.shape.granule > BLOCK || self.shape.zeros == Zeros::Plain
    }
}

impl Scratch {
    /// Encodes `pieces` of the chunk that starts at `start` on the disk, if there is an encoder: each granule becomes a piece of
    /// its own, but for those that are better left as they are.
    fn encode(&mut self, pieces: Vec<Piece>, granule: u64, start: u64) -> Result<Vec<Piece>> {
        let Some(encoder) = &mut self.encoder else { return Ok(pieces) };
        let granule = usize::try_from(granule).unwrap_or(usize::MAX);
        self.encoded.clear();
        let mut forms = Vec::new();
        for piece in pieces {
            for at in (piece.start..piece.start + piece.len).step_by(granule) {
                let before = self.encoded.len();
                let len = granule.min(piece.start + piece.len - at);
                let whole = &self.chunk[at..at + granule];
                if encoder.encode(start + at as u64, whole, &mut self.encoded)? {
                    let stored = u32::try_from(self.encoded.len() - before).unwrap_or(u32::MAX);
                    forms.push(Piece { start: at, len, form: Form::Encoded(stored), host: 0 });
                } else {
                    self.encoded.truncate(before);
                    join(&mut forms, at..at + len);
                }
            }
        }
        Ok(forms)
    }

    /// Writes what stands for `pieces` where they were placed.
    fn write(&self, pieces: &[Piece], output: &dyn Output) -> Result<()> {
        let mut encoded = 0;
        let mut pending = Pending { bytes: &[], host: 0 };
        for piece in pieces {
            match piece.form {
                Form::Plain => {
                    pending.flush(output)?;
                    let bytes = &self.chunk[piece.start..piece.start + piece.len];
                    Pending { bytes, host: piece.host }.flush(output)?;
                }
                Form::Encoded(len) => {
                    let end = encoded + len as usize;
                    if pending.bytes.is_empty() || piece.host != pending.host + pending.bytes.len() as u64 {
                        pending.flush(output)?;
                        pending = Pending { bytes: &self.encoded[encoded..end], host: piece.host };
                    } else {
                        // They follow each other in memory and in the file.
                        pending.bytes = &self.encoded[encoded - pending.bytes.len()..end];
                    }
                    encoded = end;
                }
                Form::Zero => {}
            }
        }
        pending.flush(output)
    }
}

/// Bytes on their way to one place.
struct Pending<'a> {
    bytes: &'a [u8],
    host: u64,
}

impl Pending<'_> {
    fn flush(&mut self, output: &dyn Output) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        output.write_at(bytes, self.host)?;
        output.written(self.host..self.host + bytes.len() as u64);
        Ok(())
    }
}

/// The pieces of `chunk` for `shape`, none encoded. Only `blocks` have anything else than zeros.
fn cut(chunk: &[u8], blocks: Blocks, shape: Shape) -> Vec<Piece> {
    let granule = usize::try_from(shape.granule).unwrap_or(usize::MAX);
    let mut pieces: Vec<Piece> = Vec::new();
    if shape.zeros == Zeros::Plain {
        join(&mut pieces, 0..chunk.len());
        return pieces;
    }
    for run in blocks.ranges(chunk.len()) {
        if shape.granule >= BLOCK {
            join(&mut pieces, run.start / granule * granule..run.end.next_multiple_of(granule).min(chunk.len()));
            continue;
        }
        for start in run.clone().step_by(granule) {
            let end = (start + granule).min(run.end);
            if !digest::is_zero(&chunk[start..end]) {
                join(&mut pieces, start..end);
            }
        }
    }
    pieces
}

/// Adds plain bytes, to the last piece if that is plain and touches them.
fn join(pieces: &mut Vec<Piece>, bytes: Range<usize>) {
    match pieces.last_mut() {
        Some(last) if last.form == Form::Plain && bytes.start <= last.start + last.len => {
            last.len = bytes.end - last.start;
        }
        _ => pieces.push(Piece { start: bytes.start, len: bytes.len(), form: Form::Plain, host: 0 }),
    }
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
        cut(chunk, blocks, Shape::of(granule as u64)).into_iter().map(|piece| (piece.start, piece.len)).collect()
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
