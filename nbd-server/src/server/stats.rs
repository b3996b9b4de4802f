//! What a server has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sockets accepted.
    pub accepted: u64,
    /// Connections that are past their handshake now.
    pub connections: usize,
    /// Requests received.
    pub requests: u64,
    /// Bytes sent after handshakes, headers included.
    pub bytes_sent: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    requests: AtomicU64,
    bytes_sent: AtomicU64,
}

impl Counters {
    pub(super) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self, bytes: usize) {
        self.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn stats(&self, connections: usize) -> Stats {
        Stats {
            accepted: self.accepted.load(Ordering::Relaxed),
            connections,
            requests: self.requests.load(Ordering::Relaxed),
            bytes_sent: self.bytes_sent.load(Ordering::Relaxed),
        }
    }
}
