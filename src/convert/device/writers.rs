//! Writes that go on while more of them come: neighbours are put together, and several threads carry them out.
//!
//! No two writes that touch the same block are under way at once, so they take effect as if they had been made in turn. What failed
//! is told at the next call.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::session::Session;

/// Writes under way at most: over a line of 50 ms, so many of 1 MiB fill 2.5 Gbit/s.
const THREADS: usize = 16;

/// Bytes of one write at most, and what its end is a multiple of if more follows.
pub(super) const MERGE: u64 = 1 << 20;

/// Bytes that wait or are under way at most.
const WAITING: u64 = 16 << 20;

/// Zeros between two writes that are written with them: a request of their own takes as long over a slow line.
const SMALL: u64 = 32 << 10;

/// How long a wait goes on before it looks whether the session was cancelled.
const NAP: Duration = Duration::from_millis(200);

/// Where the writes go. Each call returns when it is done.
pub(super) trait Carrier: Debug + Send + Sync + 'static {
    /// Stores `data`.
    fn write(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Makes `range` read as zeros.
    fn zero(&self, range: Range<u64>) -> Result<()>;
}

/// The threads, and what they have to do.
#[derive(Debug)]
pub(super) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    session: Arc<Session>,
    /// Bytes of the unit that no two writes may touch at once.
    block: u64,
}

#[derive(Debug)]
struct Shared {
    carrier: Arc<dyn Carrier>,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// Something was done.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the next write may add to: an offset, and bytes.
    tail: Option<(u64, Vec<u8>)>,
    queue: VecDeque<Job>,
    /// Ends of what is queued or under way, in whole blocks, by their starts.
    pending: BTreeMap<u64, u64>,
    /// Bytes of it.
    bytes: u64,
    error: Option<Error>,
    closed: bool,
}

#[derive(Debug)]
struct Job {
    what: What,
    /// The blocks that it touches.
    blocks: Range<u64>,
}

#[derive(Debug)]
enum What {
    Write(u64, Vec<u8>),
    Zero(Range<u64>),
}

impl What {
    fn bytes(&self) -> u64 {
        match self {
            Self::Write(_, data) => data.len() as u64,
            Self::Zero(_) => 0,
        }
    }
}

impl Writers {
    /// Threads that write to `carrier`, whose blocks have `block` bytes, a power of two of at most 64 KiB.
    pub(super) fn new(carrier: Arc<dyn Carrier>, block: u64, session: &Arc<Session>) -> Result<Self> {
        let shared = Shared { carrier, state: Mutex::default(), work: Condvar::new(), done: Condvar::new() };
        let mut writers = Self { shared: Arc::new(shared), threads: Vec::new(), session: Arc::clone(session), block };
        for _ in 0..THREADS {
            let shared = Arc::clone(&writers.shared);
            let thread = std::thread::Builder::new().name("write".to_owned()).spawn(move || shared.run());
            let thread = thread.map_err(|e| Error::failed("convert.thread", "cannot start a thread").because(e))?;
            writers.threads.push(thread);
        }
        Ok(writers)
    }

    /// Has `data` written.
    pub(super) fn write(&self, mut data: &[u8], mut offset: u64) -> Result<()> {
        let mut state = self.shared.lock();
        while !data.is_empty() {
            let follows = state.tail.as_ref().is_some_and(|(at, tail)| at + tail.len() as u64 == offset);
            if !follows {
                state = self.close(state)?;
            }
            let room = MERGE - offset % MERGE;
            let len = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
            let (part, rest) = data.split_at(len);
            state.tail.get_or_insert_with(|| (offset, Vec::with_capacity(len))).1.extend_from_slice(part);
            (data, offset) = (rest, offset + len as u64);
            if offset.is_multiple_of(MERGE) {
                state = self.close(state)?;
            }
        }
        Ok(())
    }

    /// Writes zeros with what came right before, if they are few; whether it did.
    pub(super) fn pad(&self, range: &Range<u64>) -> Result<bool> {
        let len = range.end - range.start;
        let follows = |(at, tail): &(u64, Vec<u8>)| at + tail.len() as u64 == range.start;
        if len > SMALL || !self.shared.lock().tail.as_ref().is_some_and(follows) {
            return Ok(false);
        }
        self.write(&vec![0; usize::try_from(len).unwrap_or(0)], range.start).map(|()| true)
    }

    /// Has `range`, which is not empty, become zeros.
    pub(super) fn zero(&self, range: Range<u64>) -> Result<()> {
        let state = self.close(self.shared.lock())?;
        self.enqueue(state, What::Zero(range.clone()), range).map(drop)
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// The first one of those that went wrong.
    pub(super) fn drain(&self) -> Result<()> {
        let mut state = self.close(self.shared.lock())?;
        while !state.pending.is_empty() {
            state = self.wait(state)?;
        }
        state.error.clone().map_or(Ok(()), Err)
    }

    /// Lets nothing more be added to the last write.
    fn close<'a>(&self, mut state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        let Some((at, data)) = state.tail.take() else { return Ok(state) };
        let range = at..at + data.len() as u64;
        self.enqueue(state, What::Write(at, data), range)
    }

    fn enqueue<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        what: What,
        range: Range<u64>,
    ) -> Result<MutexGuard<'a, State>> {
        let blocks = range.start - range.start % self.block..range.end.next_multiple_of(self.block);
        let bytes = what.bytes();
        loop {
            if let Some(error) = &state.error {
                return Err(error.clone());
            }
            let before = state.pending.range(..blocks.end).next_back();
            let overlaps = before.is_some_and(|(_, end)| *end > blocks.start);
            if !overlaps && (state.bytes == 0 || state.bytes + bytes <= WAITING) {
                break;
            }
            state = self.wait(state)?;
        }
        state.pending.insert(blocks.start, blocks.end);
        state.bytes += bytes;
        state.queue.push_back(Job { what, blocks });
        self.shared.work.notify_one();
        Ok(state)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        self.session.check()?;
        Ok(self.shared.done.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0)
    }
}

impl Drop for Writers {
    /// What waits is left undone.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.clear();
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a thread does until the end.
    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some(job) = state.queue.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let result = match &job.what {
                What::Write(offset, data) => self.carrier.write(data, *offset),
                What::Zero(range) => self.carrier.zero(range.clone()),
            };
            state = self.lock();
            state.pending.remove(&job.blocks.start);
            state.bytes = state.bytes.saturating_sub(job.what.bytes());
            if let Err(error) = result {
                state.error.get_or_insert(error);
                state.queue.clear();
                state.pending.clear();
            }
            self.done.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Memory whose writes take their time, and that notices when two of them meet.
    #[derive(Debug)]
    struct Slow {
        bytes: Mutex<Vec<u8>>,
        active: Mutex<Vec<Range<u64>>>,
        block: u64,
        calls: Mutex<usize>,
        /// Fails at this call.
        fails: Option<usize>,
    }

    impl Slow {
        fn new(len: usize, block: u64, fails: Option<usize>) -> Arc<Self> {
            let (bytes, active, calls) = (Mutex::new(vec![0xee; len]), Mutex::default(), Mutex::default());
            Arc::new(Self { bytes, active, block, calls, fails })
        }

        fn change(&self, range: Range<u64>, data: &[u8]) -> Result<()> {
            let blocks = range.start / self.block..range.end.div_ceil(self.block);
            {
                let mut active = self.active.lock().unwrap();
                assert!(active.iter().all(|other| other.end <= blocks.start || other.start >= blocks.end));
                active.push(blocks.clone());
                let mut calls = self.calls.lock().unwrap();
                *calls += 1;
                if Some(*calls) == self.fails {
                    return Err(Error::failed("output.write", "no"));
                }
            }
            std::thread::yield_now();
            self.bytes.lock().unwrap()[range.start as usize..range.end as usize].copy_from_slice(data);
            self.active.lock().unwrap().retain(|other| *other != blocks);
            Ok(())
        }
    }

    impl Carrier for Slow {
        fn write(&self, data: &[u8], offset: u64) -> Result<()> {
            self.change(offset..offset + data.len() as u64, data)
        }

        fn zero(&self, range: Range<u64>) -> Result<()> {
            let zeros = vec![0; (range.end - range.start) as usize];
            self.change(range, &zeros)
        }
    }

    fn writers(carrier: &Arc<Slow>) -> Writers {
        Writers::new(Arc::clone(carrier) as Arc<dyn Carrier>, carrier.block, &Session::with_defaults()).unwrap()
    }

    #[test]
    fn neighbours_are_written_together() {
        let slow = Slow::new(4 << 20, 512, None);
        let writers = writers(&slow);
        for at in (0..2 << 20).step_by(64 << 10) {
            writers.write(&vec![1; 48 << 10], at).unwrap();
            assert!(writers.pad(&(at + (48 << 10)..at + (64 << 10))).unwrap());
        }
        assert!(!writers.pad(&(3 << 20..(3 << 20) + 1)).unwrap(), "it does not follow");
        writers.drain().unwrap();
        assert_eq!(*slow.calls.lock().unwrap(), 2);
        assert!(!writers.pad(&(2 << 20..(2 << 20) + 1)).unwrap(), "nothing is open");
        assert_eq!(slow.bytes.lock().unwrap()[(48 << 10) - 1..(48 << 10) + 1], [1, 0]);
    }

    #[test]
    fn what_failed_is_told_and_the_rest_left_undone() {
        let slow = Slow::new(64 << 20, 512, Some(3));
        let writers = writers(&slow);
        let results: Vec<_> = (0..64).map(|n| writers.write(&[1; 1 << 20], n << 20)).collect();
        assert_eq!(writers.drain().unwrap_err().code(), "output.write");
        assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| error.code() == "output.write"));
        assert_eq!(writers.write(&[1; 2 << 20], 0).unwrap_err().code(), "output.write");
    }

    #[test]
    fn waits_end_with_the_session() {
        let slow = Slow::new(1 << 20, 512, None);
        let session = Session::with_defaults();
        let writers = Writers::new(Arc::clone(&slow) as Arc<dyn Carrier>, 512, &session).unwrap();
        let busy = slow.bytes.lock().unwrap();
        writers.write(&[1; 512], 0).unwrap();
        session.cancel();
        assert_eq!(writers.drain().unwrap_err().code(), "session.interrupted");
        drop(busy);
    }

    proptest! {
        #[test]
        fn it_is_as_if_written_in_turn(ops in proptest::collection::vec((0_u64..200_000, 1_u64..9000, any::<u8>(), 0..3), 0..80), block in 0_u32..4) {
            let slow = Slow::new(256 << 10, 512 << (2 * block), None);
            let writers = writers(&slow);
            let mut model = vec![0xee; 256 << 10];
            for (at, len, byte, what) in ops {
                let range = at..at + len;
                let byte = if what == 0 { byte } else { 0 };
                match what {
                    0 => writers.write(&vec![byte; len as usize], at).unwrap(),
                    1 if writers.pad(&range).unwrap() => {}
                    _ => writers.zero(range.clone()).unwrap(),
                }
                model[range.start as usize..range.end as usize].fill(byte);
            }
            writers.drain().unwrap();
            prop_assert!(*slow.bytes.lock().unwrap() == model);
        }
    }
}
