//! The copy engine: chunks are read, searched for zeros, digested and encoded on all threads, and placed and written in order.
//!
//! A file system lets one thread at a time write to a file, and likes it best from front to back: nothing is lost by writing in
//! turn, and the next thread decodes meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Bytes;
use super::digest::{self, Collector, Content};
use super::gather::Gather;
use super::journal::{Chunk, Interval, Journal, Records, Scribe};
use super::ordered::{self, Steps};
use super::output::Output;
use super::plan::{BLOCK, Blocks, CHUNK, Planner, Task, WINDOW};
use super::progress::{Phase, Progress, Update};
use super::share::{self, Segment, Sharing};
use super::sink::{Encoder, Form, Order, Piece, Shape, Sink, Zeros};
use crate::disk::{Disk, Latency};
use crate::error::{Error, Result};
use crate::session::Session;

/// Threads beyond one a core: while some wait for the disk or for their turn, the others keep the cores busy.
const SPARE_THREADS: usize = 2;

/// What a pass over a disk found.
#[derive(Debug)]
pub(super) struct Done {
    /// Nothing when some of it was not read.
    pub(super) content: Option<Content>,
    pub(super) bytes: Bytes,
    /// Bytes of the disk that are in the output.
    pub(super) stored: u64,
}

/// A copy to be made.
pub(super) struct Copy<'a> {
    pub(super) source: &'a dyn Disk,
    pub(super) sink: &'a mut dyn Sink,
    pub(super) output: &'a Arc<dyn Output>,
    /// What the output is written over, if it is an increment.
    pub(super) base: Option<&'a dyn Disk>,
    /// What the output can share with the source.
    pub(super) sharing: &'a Sharing,
    /// How many bytes the source's map says are to be read.
    pub(super) total: u64,
    pub(super) rate: Option<NonZeroU64>,
    /// What an earlier run did, and how much may have to be done again.
    pub(super) journal: Option<(Journal, Interval)>,
    /// Where the bytes come from, if not from the source itself.
    pub(super) feed: Option<Gather>,
}

impl Copy<'_> {
    /// Copies what was not copied before. The scribe knows how far the journal is.
    pub(super) fn run(self, session: &Session, progress: &dyn Progress) -> Result<(Done, Option<Scribe>)> {
        let shape = self.sink.shape();
        let mut planner = Planner::new(self.source, shape.order);
        let mut found = Found::new(Update::start(Phase::Copy, self.total));
        progress.update(&found.update);
        let scribe = match self.journal {
            None => None,
            Some((journal, interval)) => {
                let play = Play { sink: &mut *self.sink, output: self.output, found: &mut found, session, progress };
                let (journal, pending) = play.run(journal, &mut planner)?;
                Some(Scribe::new(Arc::clone(self.output), journal, pending, interval))
            }
        };
        let target = Target {
            sink: Mutex::new(self.sink),
            output: &**self.output,
            shape,
            base: self.base,
            sharing: self.sharing,
            scribe: scribe.as_ref(),
        };
        let len = self.source.len();
        let mut feed = self.feed;
        let mut planned = Foresight::new(planner, self.source, session);
        let mut next = || match &mut feed {
            Some(feed) => Ok(feed.next(len)?.map(|(task, bytes)| Work { task, loaded: Some(bytes) })),
            None => Ok(planned.next()?.map(Work::read)),
        };
        let pace = Pace::new(self.rate);
        let pass = Pass { disk: self.source, target: Some(target), pace: &pace, progress, found: Mutex::new(found) };
        let done = match &scribe {
            None => pass.run(&mut next, session)?,
            Some(scribe) => std::thread::scope(|scope| {
                let durable = std::thread::Builder::new().name("sync".to_owned());
                let spawned = durable.spawn_scoped(scope, || scribe.keep_durable());
                let durable =
                    spawned.map_err(|error| Error::failed("convert.thread", "cannot start a thread").because(error))?;
                let stop = StopOnDrop(scribe);
                let done = pass.run(&mut next, session);
                drop(stop);
                let durable = durable.join().unwrap_or(Ok(()));
                done.and_then(|done| durable.map(|()| done))
            })?,
        };
        Ok((done, scribe))
    }
}

/// Stops the thread that makes the output durable, also when a panic passes by.
struct StopOnDrop<'a>(&'a Scribe);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Digests `disk` by its map and writes nothing.
pub(super) fn digest(disk: &dyn Disk, total: u64, session: &Session, progress: &dyn Progress) -> Result<Done> {
    let found = Found::new(Update::start(Phase::Verify, total));
    progress.update(&found.update);
    let pass = Pass { disk, target: None, pace: &Pace::new(None), progress, found: Mutex::new(found) };
    let mut planned = Foresight::new(Planner::new(disk, Order::Source), disk, session);
    pass.run(&mut || Ok(planned.next()?.map(Work::read)), session)
}

/// Tells a source that answers slowly what will be read, some way ahead.
struct Foresight<'a> {
    planner: Planner<'a>,
    disk: &'a dyn Disk,
    /// Tasks that the disk was told of, and their bytes.
    told: VecDeque<Task>,
    bytes: u64,
    /// How far to look ahead, in bytes of the disk, which may be few of the source; not at all for a source that is near.
    lead: u64,
}

impl<'a> Foresight<'a> {
    fn new(planner: Planner<'a>, disk: &'a dyn Disk, session: &Session) -> Self {
        let slow = disk.hints().latency == Latency::Remote;
        let lead = if slow { session.budget.cache() } else { 0 };
        Self { planner, disk, told: VecDeque::new(), bytes: 0, lead }
    }

    fn next(&mut self) -> Result<Option<Task>> {
        let len = self.disk.len();
        while self.bytes < self.lead
            && let Some(task) = self.planner.next()?
        {
            let range = task.range(len);
            let in_chunk = usize::try_from(range.end - range.start).unwrap_or(0);
            for run in task.blocks.ranges(in_chunk).filter(|run| !run.is_empty()) {
                self.disk.prefetch(range.start + run.start as u64..range.start + run.end as u64);
            }
            self.bytes += task.bytes(len);
            self.told.push_back(task);
        }
        let Some(task) = self.told.pop_front() else { return self.planner.next() };
        self.bytes -= task.bytes(len);
        Ok(Some(task))
    }
}

/// A chunk to copy.
struct Work {
    task: Task,
    /// Its bytes, whole, where they did not wait to be read.
    loaded: Option<Vec<u8>>,
}

impl Work {
    const fn read(task: Task) -> Self {
        Self { task, loaded: None }
    }
}

/// Gives the next chunk to copy, in the order in which they go out.
type Next<'a> = dyn FnMut() -> Result<Option<Work>> + Send + 'a;

/// One pass over a disk.
struct Pass<'a> {
    disk: &'a dyn Disk,
    target: Option<Target<'a>>,
    pace: &'a Pace,
    progress: &'a dyn Progress,
    found: Mutex<Found>,
}

/// Where a pass writes to.
struct Target<'a> {
    sink: Mutex<&'a mut dyn Sink>,
    output: &'a dyn Output,
    shape: Shape,
    base: Option<&'a dyn Disk>,
    sharing: &'a Sharing,
    scribe: Option<&'a Scribe>,
}

/// What is known of the disk so far.
struct Found {
    collector: Collector,
    update: Update,
    stored: u64,
    /// Bytes that were shared and never read.
    unread: u64,
}

impl Found {
    fn new(update: Update) -> Self {
        Self { collector: Collector::default(), update, stored: 0, unread: 0 }
    }

    /// Adds the plan's next chunk, read now or by an earlier run.
    fn add(&mut self, chunk: &Chunk, resumed: bool) {
        self.collector.add(chunk.chunk, chunk.digest);
        let [read, unread, shared] = [chunk.read, chunk.unread, chunk.shared].map(u64::from);
        let stored: u64 =
            chunk.pieces.iter().filter(|piece| piece.form != Form::Zero).map(|piece| piece.len as u64).sum();
        self.stored += stored;
        self.update.done += read + unread;
        self.unread += unread;
        let bytes = &mut self.update.bytes;
        bytes.shared += shared;
        if resumed {
            bytes.resumed += read;
        } else {
            bytes.read += read;
            bytes.written += stored.saturating_sub(shared);
            bytes.zero += read.saturating_sub(stored);
        }
    }
}

/// Memory of one thread.
struct Scratch {
    /// The chunk's bytes.
    chunk: Vec<u8>,
    /// The same bytes of the backing file, if there is one.
    base: Vec<u8>,
    encoder: Option<Box<dyn Encoder>>,
    /// What stands for its encoded granules, one after the other.
    encoded: Vec<u8>,
}

/// A chunk that can be placed.
struct Ready {
    chunk: Chunk,
    /// What of it can be shared.
    segments: Vec<Segment>,
}

/// What an earlier run wrote to its journal, played back.
struct Play<'a> {
    sink: &'a mut dyn Sink,
    output: &'a Arc<dyn Output>,
    found: &'a mut Found,
    session: &'a Session,
    progress: &'a dyn Progress,
}

impl Play<'_> {
    /// Brings the sink to where the journal ends, and the planner behind that. Gives the journal without what is not in the file,
    /// and how many bytes of its chunks are not durable.
    fn run(mut self, mut journal: Journal, planner: &mut Planner<'_>) -> Result<(Journal, u64)> {
        let Some(log) = self.output.log() else { return Ok((journal, 0)) };
        if journal.chunks.count == 0 {
            return Ok((journal, 0));
        }
        self.output.keep(true);
        let mut records = Records::new(log);
        let mut played = journal.durable;
        let (mut count, mut back, mut pending) = (0, None, 0);
        let (mut window, mut in_window) = (0, BTreeSet::new());
        while count < journal.chunks.count
            && let Some(chunk) = records.next_chunk()?
        {
            self.session.check()?;
            if count >= journal.durable.count {
                if !is_in_file(&chunk, planner.len(), &mut back, &**self.output) {
                    tracing::info!(chunk = chunk.chunk, "what was not durable got lost, and is copied again");
                    break;
                }
                pending += u64::from(chunk.read);
                played.end = records.at;
            }
            self.place(&chunk)?;
            if window != chunk.chunk * CHUNK / WINDOW {
                window = chunk.chunk * CHUNK / WINDOW;
                in_window.clear();
            }
            in_window.insert(chunk.chunk);
            self.found.add(&chunk, true);
            self.progress.update(&self.found.update);
            count += 1;
        }
        if count > 0 {
            planner.skip(window, &in_window)?;
        }
        if count < journal.chunks.count {
            played.count = count;
            journal.cut(log, played)?;
        }
        Ok((journal, pending))
    }

    /// Has the sink find the places that it found in the earlier run.
    fn place(&mut self, chunk: &Chunk) -> Result<()> {
        let unplaced = |piece: &Piece| Piece { host: 0, ..*piece };
        let mut pieces: Vec<Piece> = chunk.pieces.iter().map(unplaced).collect();
        self.sink.place(chunk.chunk * CHUNK, &mut pieces, &**self.output)?;
        if pieces == chunk.pieces {
            return Ok(());
        }
        Err(Error::failed("resume.journal", "the journal does not fit the output")
            .at(self.output.name())
            .hint("begin again with --restart"))
    }
}

/// Whether the output holds a chunk of a disk of `len` bytes, as far as it can be read.
fn is_in_file(chunk: &Chunk, len: u64, back: &mut Option<Arc<dyn Disk>>, output: &dyn Output) -> bool {
    if chunk.pieces.iter().all(|piece| piece.form == Form::Zero) {
        return chunk.digest.is_none();
    }
    if back.is_none() {
        *back = output.reopen().ok();
    }
    let Some(back) = back else { return false };
    let mut bytes = vec![0; usize::try_from(CHUNK.min(len.saturating_sub(chunk.chunk * CHUNK))).unwrap_or(0)];
    let (mut encoded, mut stored) = (Vec::new(), blake3::Hasher::new());
    for piece in chunk.pieces.iter().filter(|piece| piece.form != Form::Zero) {
        let part = match piece.form {
            Form::Encoded(len) => {
                encoded.resize(len as usize, 0);
                Some(&mut encoded[..])
            }
            _ => bytes.get_mut(piece.start..piece.start + piece.len),
        };
        let end = piece.host.checked_add(piece.stored());
        let (Some(part), true) = (part, end.is_some_and(|end| end <= back.len())) else { return false };
        if back.read_at(part, piece.host).is_err() {
            return false;
        }
        stored.update(part);
    }
    match chunk.stored {
        Some(digest) => stored.finalize() == digest,
        None => digest::chunk(&bytes, Blocks::ALL).1 == chunk.digest,
    }
}

impl<'a> Pass<'a> {
    fn run(self, next: &mut Next<'_>, session: &Session) -> Result<Done> {
        // What is encoded takes as much again, and a little more where it does not become smaller.
        let fit = usize::try_from(session.budget.in_flight() / (2 * CHUNK + CHUNK / 8)).unwrap_or(usize::MAX);
        let mut next = || {
            let work = next()?;
            let bytes = work.as_ref().map_or(0, |work| work.task.bytes(self.disk.len()));
            if let Some(scribe) = self.scribe()
                && !scribe.admit(bytes, session)?
            {
                return Ok(None);
            }
            self.pace.wait(bytes, session)?;
            Ok(work)
        };
        ordered::run(fit.min(session.jobs + SPARE_THREADS), session, &mut next, &self)?;
        let len = self.disk.len();
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bytes = found.update.bytes;
        let bytes = Bytes { hole: len.saturating_sub(bytes.read + bytes.resumed + found.unread), ..bytes };
        let content = (found.unread == 0).then(|| found.collector.finish(len));
        Ok(Done { content, bytes, stored: found.stored })
    }

    fn scribe(&self) -> Option<&'a Scribe> {
        self.target.as_ref()?.scribe
    }

    /// Lets nobody wait for what will not come after an error.
    fn noticed<T>(&self, result: Result<T>) -> Result<T> {
        if let (Err(_), Some(scribe)) = (&result, self.scribe()) {
            scribe.stop();
        }
        result
    }

    /// Stores what `chunk` has, none of it encoded, by sharing where that can be; how many bytes that were.
    fn share(
        &self,
        scratch: &mut Scratch,
        start: u64,
        chunk: &Chunk,
        segments: &[Segment],
        output: &dyn Output,
    ) -> Result<usize> {
        let mut shared = 0;
        for piece in chunk.pieces.iter().filter(|piece| piece.form == Form::Plain) {
            for part in share::parts(piece, segments) {
                let len = part.range.len();
                if let Some((file, offset)) = part.from
                    && output.share(file, offset, part.host, len as u64)?
                {
                    shared += len;
                    continue;
                }
                let bytes = &mut scratch.chunk[part.range.clone()];
                if chunk.unread > 0 {
                    self.disk.read_at(bytes, start + part.range.start as u64)?;
                }
                Pending { bytes, host: part.host }.flush(output)?;
            }
        }
        Ok(shared)
    }

    fn read(&self, scratch: &mut Scratch, work: &Work) -> Result<Ready> {
        let task = &work.task;
        let range = task.range(self.disk.len());
        let len = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut segments = Vec::new();
        if let Some(target) = &self.target {
            let all;
            (segments, all) = target.sharing.segments(self.disk, task, range.start, len)?;
            if all && target.sharing.unread {
                return Ok(Ready { chunk: unread(task, len), segments });
            }
        }
        if self.target.as_ref().is_some_and(|target| scratch.encoder.is_some() || target.needs_zeros()) {
            // Granules take in what is not read.
            scratch.chunk.fill(0);
        }
        let chunk = &mut scratch.chunk[..len];
        let mut read = 0;
        for run in task.blocks.ranges(len) {
            read += run.len() as u64;
            match &work.loaded {
                Some(bytes) => chunk[run.clone()].copy_from_slice(&bytes[run]),
                None => self.disk.read_at(&mut chunk[run.clone()], range.start + run.start as u64)?,
            }
        }
        let (blocks, digest) = digest::chunk(chunk, task.blocks);
        let (mut pieces, mut stored) = (Vec::new(), None);
        if let Some(target) = &self.target {
            pieces = match target.base {
                None => cut(chunk, blocks, target.shape),
                Some(base) => {
                    read_base(base, &mut scratch.base, task, range.start)?;
                    differences(chunk, &scratch.base, task.blocks, target.shape.granule)
                }
            };
            pieces = scratch.encode(pieces, target.shape.granule, range.start)?;
            stored = target.scribe.and_then(|_| scratch.digest(&pieces));
        }
        let read = u32::try_from(read).unwrap_or(u32::MAX);
        let chunk = Chunk { chunk: task.chunk, read, unread: 0, shared: 0, digest, stored, pieces };
        Ok(Ready { chunk, segments })
    }

    fn write(&self, scratch: &mut Scratch, task: &Task, ready: Ready) -> Result<()> {
        let Ready { mut chunk, segments } = ready;
        if let Some(target) = &self.target {
            let start = task.range(self.disk.len()).start;
            lock(&target.sink).place(start, &mut chunk.pieces, target.output)?;
            if segments.is_empty() {
                scratch.write(&chunk.pieces, target.output)?;
            } else {
                let shared = self.share(scratch, start, &chunk, &segments, target.output)?;
                chunk.shared = u32::try_from(shared).unwrap_or(u32::MAX);
                self.pace.give_back(u64::from(chunk.unread));
            }
        }
        let mut found = lock(&self.found);
        found.add(&chunk, false);
        self.progress.update(&found.update);
        drop(found);
        self.scribe().map_or(Ok(()), |scribe| scribe.written(chunk))
    }
}

/// A chunk of `len` bytes that is to be shared as it is.
fn unread(task: &Task, len: usize) -> Chunk {
    let mut pieces = Vec::new();
    task.blocks.ranges(len).for_each(|run| join(&mut pieces, run));
    let bytes: usize = pieces.iter().map(|piece| piece.len).sum();
    let unread = u32::try_from(bytes).unwrap_or(u32::MAX);
    Chunk { chunk: task.chunk, read: 0, unread, shared: 0, digest: None, stored: None, pieces }
}

impl Steps for Pass<'_> {
    type Task = Work;
    type Scratch = Scratch;
    type Done = Ready;

    fn scratch(&self) -> Result<Scratch> {
        let chunk = vec![0; usize::try_from(CHUNK).unwrap_or(0)];
        let encoder = self.target.as_ref().map_or(Ok(None), |target| lock(&target.sink).encoder());
        Ok(Scratch { chunk, base: Vec::new(), encoder: self.noticed(encoder)?, encoded: Vec::new() })
    }

    fn work(&self, scratch: &mut Scratch, work: &Work) -> Result<Ready> {
        self.noticed(self.read(scratch, work))
    }

    fn in_turn(&self, scratch: &mut Scratch, work: &Work, ready: Ready) -> Result<()> {
        self.noticed(self.write(scratch, &work.task, ready))
    }
}

impl Target<'_> {
    /// Whether pieces take in blocks that are not read, without being encoded.
    fn needs_zeros(&self) -> bool {
        self.shape.granule > BLOCK || self.shape.zeros != Zeros::Skip
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
            if piece.form == Form::Zero {
                forms.push(piece);
                continue;
            }
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

    /// A digest of what stands for `pieces`, if any of them is encoded.
    fn digest(&self, pieces: &[Piece]) -> Option<[u8; 32]> {
        let mut hasher = pieces.iter().any(|piece| matches!(piece.form, Form::Encoded(_))).then(blake3::Hasher::new)?;
        let mut encoded = 0;
        for piece in pieces {
            match piece.form {
                Form::Plain => hasher.update(&self.chunk[piece.start..piece.start + piece.len]),
                Form::Encoded(len) => {
                    encoded += len as usize;
                    hasher.update(&self.encoded[encoded - len as usize..encoded])
                }
                Form::Zero => &mut hasher,
            };
        }
        Some(*hasher.finalize().as_bytes())
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

/// Reads the blocks of a task, which starts at `start`, from a backing file. Behind its end are zeros.
fn read_base(base: &dyn Disk, bytes: &mut Vec<u8>, task: &Task, start: u64) -> Result<()> {
    let len = usize::try_from(CHUNK).unwrap_or(0);
    bytes.clear();
    bytes.resize(len, 0);
    let shared = usize::try_from(base.len().saturating_sub(start).min(CHUNK)).unwrap_or(0);
    for run in task.blocks.ranges(shared).filter(|run| !run.is_empty()) {
        base.read_at(&mut bytes[run.clone()], start + run.start as u64)?;
    }
    Ok(())
}

/// The granules of `chunk` that are not what `base` has there. Only in `blocks` may either have anything else than zeros.
fn differences(chunk: &[u8], base: &[u8], blocks: Blocks, granule: u64) -> Vec<Piece> {
    let granule = usize::try_from(granule).unwrap_or(usize::MAX);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut next = 0;
    for run in blocks.ranges(chunk.len()) {
        let first = (run.start / granule * granule).max(next);
        for start in (first..run.end).step_by(granule) {
            let end = (start + granule).min(chunk.len());
            next = end;
            if chunk[start..end] == base[start..end] {
                continue;
            }
            if digest::is_zero(&chunk[start..end]) {
                pieces.push(Piece { start, len: end - start, form: Form::Zero, host: 0 });
            } else {
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

    /// Takes back bytes that were let through and not read.
    fn give_back(&self, bytes: u64) {
        if self.rate.is_some() {
            self.spent.fetch_sub(bytes, Ordering::Relaxed);
        }
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
