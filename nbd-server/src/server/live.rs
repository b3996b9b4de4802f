//! The connections past their handshake, so that a shutdown can end them.

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stream::Stream;

#[derive(Default)]
pub(super) struct Live {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    streams: HashMap<u64, Arc<Stream>>,
    next: u64,
}

impl Live {
    pub(super) fn add(&self, stream: Arc<Stream>) -> u64 {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.streams.insert(id, stream);
        id
    }

    /// Forgets a connection; returns whether it was the last.
    pub(super) fn remove(&self, id: u64) -> bool {
        let mut state = self.lock();
        state.streams.remove(&id);
        self.changed.notify_all();
        state.streams.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().streams.len()
    }

    /// Lets every connection finish the requests that it has, then ends it: with its requests after `grace`, and without
    /// waiting any longer after twice that.
    pub(super) fn finish(&self, grace: Duration) {
        for how in [Shutdown::Read, Shutdown::Both] {
            for stream in self.lock().streams.values() {
                stream.shutdown(how);
            }
            let end = Instant::now() + grace;
            let mut state = self.lock();
            while !state.streams.is_empty() {
                let Some(left) = end.checked_duration_since(Instant::now()) else { break };
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            if state.streams.is_empty() {
                return;
            }
        }
        tracing::warn!(connections = self.len(), "requests hang in their export; leaving them behind");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
