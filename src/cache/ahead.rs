//! Blocks of a slow source, fetched before they are wanted: by threads that come when there is something to fetch, and as many as
//! bring more.
//!
//! What will be wanted is queued in runs, far ahead. A request takes as much of a run as one can have; less only while there are
//! too few requests under way to keep the line busy, for a run may yet grow. No more is fetched than may wait to be read.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::blocks::{BLOCK, Core, MERGE};

/// Requests at once at first; and never fewer, so that the line is not idle between two answers.
const LEAST: usize = 2;

/// Requests at once at most.
const MOST: usize = 16;

/// Fetches ahead for one source.
#[derive(Debug)]
pub(super) struct Ahead(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    state: Mutex<State>,
    /// Blocks that may be fetched and not yet be read.
    room: usize,
    start: Instant,
}

#[derive(Debug)]
struct State {
    /// Runs of blocks that are to be fetched, in the order in which they will be wanted.
    queue: VecDeque<Range<u64>>,
    /// Blocks that were or are being fetched, and that nobody read yet.
    unread: HashSet<u64>,
    workers: usize,
    /// Requests under way.
    flying: usize,
    depth: Depth,
    /// Where readers that go forward are.
    streams: VecDeque<Stream>,
    /// Whether someone says what will be wanted, so that nothing is guessed.
    told: bool,
}

/// A reader that goes forward.
#[derive(Clone, Copy, Debug)]
struct Stream {
    /// Where it goes on.
    next: u64,
    /// Bytes that it read without a gap.
    run: u64,
    /// The block up to which more was asked for.
    asked: u64,
}

/// Readers that are remembered.
const STREAMS: usize = 8;

/// Bytes that a reader goes forward before it is taken for one that goes on.
const RUN: u64 = 1 << 20;

/// Bytes that are fetched ahead of such a reader at most.
const LEAD: u64 = 8 << 20;

impl Ahead {
    /// For the source of `core`; no more than `budget` bytes are under way.
    pub(super) fn new(core: Arc<Core>, budget: u64) -> Self {
        let most = usize::try_from(budget / (BLOCK * MERGE as u64)).unwrap_or(MOST).clamp(1, MOST);
        let state = State {
            queue: VecDeque::new(),
            unread: HashSet::new(),
            workers: 0,
            flying: 0,
            depth: Depth::new(most),
            streams: VecDeque::new(),
            told: false,
        };
        let room = usize::try_from(budget / BLOCK).unwrap_or(usize::MAX).max(MERGE);
        Self(Arc::new(Shared { core, state: Mutex::new(state), room, start: Instant::now() }))
    }

    /// Has `blocks` fetched, which will be wanted. Returns at once.
    pub(super) fn want(&self, blocks: Range<u64>) {
        self.0.state().told = true;
        self.fetch(blocks);
    }

    /// Has those of `blocks` fetched that are not there.
    fn fetch(&self, blocks: Range<u64>) {
        let shared = &self.0;
        let mut state = shared.state();
        for index in blocks {
            if !shared.core.knows(index) && !state.queue.iter().any(|run| run.contains(&index)) {
                state.push(index);
            }
        }
        shared.staff(&mut state);
    }

    /// The queued blocks from `index` on that one request takes, for a reader that would wait for the first of them anyway. They are
    /// queued no more.
    pub(super) fn take(&self, index: u64) -> Option<Range<u64>> {
        self.0.state().take(index)
    }

    /// Notes that `range` was read, makes up for it, and fetches ahead where that goes on.
    pub(super) fn read(&self, range: &Range<u64>) {
        let mut state = self.0.state();
        for index in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            state.unread.remove(&index);
        }
        if state.told {
            return self.0.staff(&mut state);
        }
        let known = state.streams.iter().position(|stream| stream.next == range.start);
        let before = known.and_then(|position| state.streams.remove(position));
        let mut stream = before.unwrap_or(Stream { next: 0, run: 0, asked: 0 });
        stream.next = range.end;
        stream.run += range.end - range.start;
        let first = range.end.div_ceil(BLOCK).max(stream.asked);
        let end = (range.end + stream.run.min(LEAD)).min(self.0.core.len()) / BLOCK;
        // Small steps would be small requests.
        let wants = before.is_some() && stream.run >= RUN && end >= first + MERGE as u64 / 4;
        if wants {
            stream.asked = end;
        }
        state.streams.push_front(stream);
        state.streams.truncate(STREAMS);
        drop(state);
        if wants {
            self.fetch(first..end);
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.state().clear();
    }
}

impl State {
    fn push(&mut self, index: u64) {
        match self.queue.back_mut() {
            Some(run) if run.end == index => run.end += 1,
            _ => self.queue.push_back(index..index + 1),
        }
    }

    /// The next blocks for one request, if it is time for one.
    fn pop(&mut self, room: usize) -> Option<Range<u64>> {
        self.is_ready(room)
            .then(|| self.queue.front().map(|run| run.start))
            .flatten()
            .and_then(|start| self.take(start))
    }

    /// Whether it is time for one more request.
    fn is_ready(&self, room: usize) -> bool {
        let Some(run) = self.queue.front() else { return false };
        let len = usize::try_from(run.end - run.start).unwrap_or(MERGE).min(MERGE);
        let grows = len < MERGE && self.queue.len() == 1;
        self.unread.len() + len <= room && !(grows && self.flying >= LEAST)
    }

    /// Takes the blocks from `index` on for one request out of the queue.
    fn take(&mut self, index: u64) -> Option<Range<u64>> {
        let position = self.queue.iter().position(|run| run.contains(&index))?;
        let run = self.queue.remove(position)?;
        let piece = index..run.end.min(index + MERGE as u64);
        for rest in [piece.end..run.end, run.start..index] {
            if !rest.is_empty() {
                self.queue.insert(position, rest);
            }
        }
        self.unread.extend(piece.clone());
        Some(piece)
    }

    fn clear(&mut self) {
        self.queue.clear();
        self.unread.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has one more thread at work if one more request can be made. That one sees to the next.
    fn staff(self: &Arc<Self>, state: &mut State) {
        let starts = state.workers > state.flying;
        if starts || state.workers >= state.depth.now || !state.is_ready(self.room) {
            return;
        }
        let shared = Arc::clone(self);
        let worker = std::thread::Builder::new().name("read ahead".to_owned());
        // Without it, whoever wants the blocks fetches them.
        if worker.spawn(move || shared.work()).is_ok() {
            state.workers += 1;
        }
    }

    /// Fetches until there is nothing more to fetch, no room, or there are more that do.
    fn work(self: &Arc<Self>) {
        let mut left = Left { shared: self, counted: true };
        loop {
            let piece = {
                let mut state = self.state();
                let more = if state.workers > state.depth.now { None } else { state.pop(self.room) };
                let Some(piece) = more else {
                    // While the lock is held: who adds to the queue then sees that nobody works on it.
                    state.workers -= 1;
                    left.counted = false;
                    return;
                };
                state.flying += 1;
                self.staff(&mut state);
                piece
            };
            let fetched = self.core.fetch_ahead(piece);
            let mut state = self.state();
            state.flying -= 1;
            match fetched {
                Ok(bytes) => state.depth.completed(self.start.elapsed(), bytes),
                // Whoever wants the blocks asks again, and gets the error if there still is one.
                Err(_) => return state.clear(),
            }
        }
    }
}

/// Counts a worker that ends, however it does.
struct Left<'a> {
    shared: &'a Shared,
    /// Whether that is still to be done.
    counted: bool,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.shared.state().workers -= 1;
        }
    }
}

/// How many requests there are at once: more as long as more brings more.
#[derive(Debug)]
struct Depth {
    now: usize,
    /// How many there were when the rate was the best.
    before: usize,
    most: usize,
    climbing: bool,
    /// The best rate so far, in bytes a second.
    best: u64,
    /// When the rate was looked at last, and what came since.
    since: Duration,
    bytes: u64,
    count: usize,
}

impl Depth {
    fn new(most: usize) -> Self {
        let now = LEAST.min(most);
        Self { now, before: now, most, climbing: true, best: 0, since: Duration::ZERO, bytes: 0, count: 0 }
    }

    /// Notes that a request brought `bytes` at the moment `time`.
    fn completed(&mut self, time: Duration, bytes: u64) {
        const LONG_ENOUGH: Duration = Duration::from_millis(200);
        self.bytes += bytes;
        self.count += 1;
        let elapsed = time.saturating_sub(self.since);
        if self.count < 2 * self.now || elapsed < LONG_ENOUGH {
            return;
        }
        let rate = self.bytes.saturating_mul(1000) / u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        if self.climbing && rate > self.best + self.best / 10 {
            // By half, so that a step that helps is told from noise however many there are already.
            (self.best, self.before, self.now) = (rate, self.now, (self.now + self.now.div_ceil(2)).min(self.most));
        } else if self.climbing {
            (self.climbing, self.now) = (false, self.before);
        } else if rate < self.best / 2 {
            // It is another line now.
            (self.climbing, self.best) = (true, rate);
        } else {
            self.best = self.best.max(rate);
        }
        (self.since, self.bytes, self.count) = (time, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a depth on a line on which `count` requests at once bring `rate(count)` bytes a second.
    fn settled(most: usize, rate: impl Fn(usize) -> u64) -> usize {
        let mut depth = Depth::new(most);
        let mut time = Duration::ZERO;
        for _ in 0..2000 {
            let bytes = 4 << 20;
            time += Duration::from_nanos(bytes * 1_000_000_000 / rate(depth.now).max(1));
            depth.completed(time, bytes);
        }
        depth.now
    }

    #[test]
    fn there_are_as_many_requests_as_bring_more() {
        assert_eq!(settled(16, |count| count as u64 * 5_000_000), 16, "each connection has its own limit");
        assert!(settled(16, |_| 25_000_000) <= 3, "the line is full");
        assert!((6..=9).contains(&settled(16, |count| (count as u64).min(8) * 2_000_000)));
        assert_eq!(settled(1, |count| count as u64 * 1_000_000), 1);
        assert_eq!(settled(4, |count| count as u64 * 1_000_000), 4);
    }

    fn idle() -> State {
        State {
            queue: VecDeque::new(),
            unread: HashSet::new(),
            workers: 0,
            flying: 0,
            depth: Depth::new(1),
            streams: VecDeque::new(),
            told: false,
        }
    }

    #[test]
    fn runs_are_joined_and_cut_to_requests() {
        let mut state = idle();
        (0..20).chain(30..31).for_each(|index| state.push(index));
        let pieces: Vec<_> = std::iter::from_fn(|| state.pop(100)).collect();
        assert_eq!(pieces, [0..16, 16..20, 30..31]);
    }

    #[test]
    fn a_run_that_may_grow_waits_while_the_line_is_busy() {
        let mut state = idle();
        (0..18).for_each(|index| state.push(index));
        state.flying = LEAST;
        assert_eq!(state.pop(100), Some(0..16));
        assert_eq!(state.pop(100), None, "two blocks are few");
        (18..32).for_each(|index| state.push(index));
        assert_eq!(state.pop(100), Some(16..32));
        state.push(40);
        state.flying = LEAST - 1;
        assert_eq!(state.pop(100), Some(40..41), "better than an idle line");
    }

    #[test]
    fn no_more_is_fetched_than_may_wait() {
        let mut state = idle();
        (0..48).for_each(|index| state.push(index));
        assert_eq!((state.pop(40), state.pop(40), state.pop(40)), (Some(0..16), Some(16..32), None));
        state.unread.retain(|index| *index >= 8);
        assert_eq!(state.pop(40), Some(32..48));
    }

    #[test]
    fn a_reader_takes_what_it_would_wait_for() {
        let mut state = idle();
        (0..40).for_each(|index| state.push(index));
        assert_eq!(state.take(10), Some(10..26));
        assert_eq!(state.queue, [0..10, 26..40]);
        assert_eq!((state.take(10), state.take(50)), (None, None));
        assert_eq!(state.pop(100), Some(0..10), "others are queued behind it");
    }
}
