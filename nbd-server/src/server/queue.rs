//! Requests that wait for a worker of their connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::limits::{MAX_QUEUED, MAX_WORKERS};

/// Requests that wait for a worker, and the number of workers there are. Workers are started as they are needed.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    work: Condvar,
    room: Condvar,
    /// Requests that wait or are being served.
    busy: AtomicUsize,
}

struct State<T> {
    waiting: VecDeque<T>,
    workers: usize,
    idle: usize,
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), workers: 0, idle: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), busy: AtomicUsize::new(0) }
    }
}

impl<T> Queue<T> {
    /// Whether a request waits or is being served.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) > 0
    }

    /// Hands a request over, once there is room for it; `start` starts a worker that calls [`Self::take`] until it ends.
    /// Gives it back if there is no worker to do it.
    pub(super) fn submit(&self, request: T, start: impl FnOnce() -> bool) -> Option<T> {
        let mut state = self.lock();
        while state.waiting.len() >= MAX_QUEUED {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.idle <= state.waiting.len() && state.workers < MAX_WORKERS && start() {
            state.workers += 1;
        }
        if state.workers == 0 {
            return Some(request);
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        state.waiting.push_back(request);
        drop(state);
        self.work.notify_one();
        None
    }

    /// Waits for a request; `None` once the queue is closed and empty. Each is followed by [`Self::done`].
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(request) = state.waiting.pop_front() {
                if state.waiting.len() + 1 == MAX_QUEUED {
                    self.room.notify_one();
                }
                return Some(request);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Tells that a request taken is served.
    pub(super) fn done(&self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    /// No more requests: workers end once they have served those that wait.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
