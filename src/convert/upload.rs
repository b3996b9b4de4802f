//! An output that is an object of S3: parts in memory until they are full, a few of them on their way at once, and none of it to be
//! seen before the store is told that it is whole.
//!
//! ```text
//! part 1: kept to the end   2   3   4   …      n - 1, n: still open
//! (headers, tables)         on their way       (pieces that are not in order)
//! ```
//!
//! The object appears with all its bytes and is read back then: there is no way to read the parts of what is none yet. If it is not
//! what was read, it is removed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::output::{Output, Surface};
use crate::cache::BlockCache;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::Session;
use crate::source::{Address, Stored, Upload, open_remote};

/// Parts that may still be written to, beside the first one.
const OPEN: u64 = 2;

/// Parts on their way at once, if there is memory for them.
const THREADS: u64 = 4;

/// Smallest part; the store wants 5 MiB.
const PART: u64 = 8 << 20;

/// How long a wait goes on before it looks whether the session was cancelled.
const NAP: Duration = Duration::from_millis(200);

/// An object that is being written.
#[derive(Debug)]
pub(super) struct Object {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    session: Arc<Session>,
    part: u64,
    force: bool,
}

#[derive(Debug)]
struct Shared {
    upload: Upload,
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Parts that are not full, by their position.
    open: BTreeMap<u64, Vec<u8>>,
    /// Parts before this position, but the first one, are on their way.
    sent: u64,
    /// Where the object ends so far.
    len: u64,
    queue: VecDeque<(u32, Bytes)>,
    /// Queued or under way.
    waiting: usize,
    stored: BTreeMap<u32, Stored>,
    error: Option<Error>,
    closed: bool,
    stage: Stage,
}

/// How far the object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Parts,
    /// The store has made it.
    Whole,
    /// It stays.
    Kept,
}

impl Object {
    /// Begins the object at `address` for an image of a disk of `len` bytes.
    pub(super) fn claim(
        address: &Address,
        force: bool,
        source: &dyn Disk,
        len: u64,
        session: &Arc<Session>,
    ) -> Result<Self> {
        if reads_from(source, &address.to_string()) {
            return Err(
                Error::new(Kind::Usage, "output.source", "the object is what the disk is read from").at(address)
            );
        }
        let part = part_len(len)?;
        let room = session.budget.in_flight() / part;
        if room < OPEN + 3 {
            let needed = part * (OPEN + 3) * 4;
            return Err(Error::new(
                Kind::Usage,
                "object.parts",
                "parts of so large a disk do not fit into the memory given",
            )
            .at(address)
            .hint(format!("give --memory {}M", needed.div_ceil(1 << 20))));
        }
        let threads = (room - OPEN - 2).min(THREADS);
        let upload = Upload::begin(address, force, session)?;
        let state = Mutex::new(State { sent: 1, ..State::default() });
        let shared = Arc::new(Shared { upload, state, work: Condvar::new(), done: Condvar::new() });
        let object = Self { shared, threads: Mutex::default(), session: Arc::clone(session), part, force };
        for number in 0..threads {
            let shared = Arc::clone(&object.shared);
            let thread = std::thread::Builder::new().name(format!("upload {number}")).spawn(move || shared.run());
            let thread =
                thread.map_err(|error| Error::failed("convert.thread", "cannot start a thread").because(error))?;
            object.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(object)
    }

    /// The buffer of the part at `position`; those before it are sent, but for the last ones.
    fn open<'a>(&self, mut state: MutexGuard<'a, State>, position: u64) -> Result<MutexGuard<'a, State>> {
        if position != 0 && position < state.sent {
            return Err(Error::failed("output.order", "the format wants to go back in what only goes forward")
                .at(self.name())
                .expected(format!("an offset of at least {:#x}", state.sent * self.part))
                .found(format!("{:#x}", position * self.part)));
        }
        while state.sent + OPEN <= position {
            let next = state.sent;
            state = self.send(state, next, self.part)?;
            state.sent = next + 1;
        }
        state.open.entry(position).or_default();
        Ok(state)
    }

    /// Sends the part at `position`, of `len` bytes: zeros where nothing was written.
    fn send<'a>(&self, mut state: MutexGuard<'a, State>, position: u64, len: u64) -> Result<MutexGuard<'a, State>> {
        let most = self.threads.lock().unwrap_or_else(PoisonError::into_inner).len();
        while state.error.is_none() && state.waiting >= most {
            state = self.wait(state)?;
        }
        if let Some(error) = &state.error {
            return Err(error.clone());
        }
        let mut bytes = state.open.remove(&position).unwrap_or_default();
        bytes.resize(usize::try_from(len).unwrap_or(0), 0);
        let number = u32::try_from(position + 1).unwrap_or(u32::MAX);
        state.queue.push_back((number, bytes.into()));
        state.waiting += 1;
        self.shared.work.notify_one();
        Ok(state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        self.session.check()?;
        Ok(self.shared.done.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Waits until every part that was sent is stored.
    fn drain<'a>(&self, mut state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        while state.error.is_none() && state.waiting > 0 {
            state = self.wait(state)?;
        }
        match &state.error {
            Some(error) => Err(error.clone()),
            None => Ok(state),
        }
    }

    /// Sends what is left, and has the store make the object, once.
    fn assemble(&self) -> Result<()> {
        let mut state = self.shared.lock();
        if state.stage != Stage::Parts {
            return Ok(());
        }
        let (sent, len) = (state.sent, state.len);
        for position in (sent..len.div_ceil(self.part)).chain([0]) {
            let start = position * self.part;
            state = self.send(state, position, (len - start).min(self.part))?;
        }
        let state = self.drain(state)?;
        let parts: Vec<Stored> = state.stored.values().cloned().collect();
        drop(state);
        self.shared.upload.complete(&parts, self.force)?;
        self.shared.lock().stage = Stage::Whole;
        Ok(())
    }
}

/// Bytes of each part of an object that has an image of a disk of `len` bytes: the tables of an image add less than one part in 64.
fn part_len(len: u64) -> Result<u64> {
    let most = len.checked_add(len / 64).and_then(|most| most.checked_add(PART));
    let most = most.ok_or_else(|| Error::limit("disk.too-large", "the disk is too large for an object"))?;
    Ok(most.div_ceil(limits::MAX_UPLOAD_PARTS).next_multiple_of(1 << 20).max(PART))
}

/// Whether anything below `disk` is the object at `address`.
fn reads_from(disk: &dyn Disk, address: &str) -> bool {
    let (kind, label) = disk.describe();
    (kind == "s3" && label == address) || disk.below().iter().any(|below| reads_from(&**below, address))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the end.
    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some((number, bytes)) = state.queue.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let result = self.upload.store(number, &bytes);
            drop(bytes);
            state = self.lock();
            state.waiting -= 1;
            match result {
                Ok(stored) => _ = state.stored.insert(stored.number, stored),
                Err(error) => _ = state.error.get_or_insert(error),
            }
            self.done.notify_all();
        }
    }
}

impl Drop for Object {
    /// What is not to stay is removed, when nobody adds to it any more.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.clear();
        let stage = state.stage;
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
        match stage {
            Stage::Parts => self.shared.upload.abort(),
            Stage::Whole => self.shared.upload.remove(),
            Stage::Kept => {}
        }
    }
}

impl Output for Object {
    fn name(&self) -> String {
        self.shared.upload.address().to_string()
    }

    fn device(&self) -> Option<u64> {
        None
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn surface(&self) -> Surface {
        Surface::Parts
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut state = self.shared.lock();
        let (mut rest, mut at) = (data, offset);
        while !rest.is_empty() {
            let (position, skip) = (at / self.part, usize::try_from(at % self.part).unwrap_or(0));
            state = self.open(state, position)?;
            let room = usize::try_from(self.part).unwrap_or(0) - skip;
            let (now, later) = rest.split_at(rest.len().min(room));
            let buffer = state.open.entry(position).or_default();
            let end = skip + now.len();
            if buffer.len() < end {
                buffer.resize(end, 0);
            }
            if let Some(place) = buffer.get_mut(skip..end) {
                place.copy_from_slice(now);
            }
            at += now.len() as u64;
            state.len = state.len.max(at);
            rest = later;
        }
        Ok(())
    }

    fn written(&self, _range: Range<u64>) {}

    /// What nobody writes up to there are zeros.
    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.shared.lock();
        state.len = state.len.max(len);
        Ok(())
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.drain(self.shared.lock()).map(drop)
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        self.assemble()?;
        let disk = open_remote(self.shared.upload.address(), &self.session)?;
        Ok(BlockCache::wrap(disk, &self.session))
    }

    fn publish(&self, _force: bool) -> Result<PathBuf> {
        self.assemble()?;
        self.shared.lock().stage = Stage::Kept;
        Ok(PathBuf::from(self.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_few_enough_for_any_disk() {
        let most = limits::MAX_UPLOAD_PARTS;
        assert_eq!(part_len(0).unwrap(), PART);
        for len in [1 << 30, PART * (most - 1), PART * most, PART * (most + 1), 60 << 40] {
            let (part, image) = (part_len(len).unwrap(), len + len / 64 + PART);
            assert!(part >= PART && part.is_multiple_of(1 << 20) && image.div_ceil(part) <= most, "{len}");
        }
        assert_eq!(part_len(u64::MAX).unwrap_err().code(), "disk.too-large");
    }
}
