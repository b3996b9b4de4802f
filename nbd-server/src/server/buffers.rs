//! Large buffers and payloads, shared by all connections of a server and bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::limits::{LARGE_BUFFER, MAX_LARGE_BUFFERS, MAX_PAYLOAD_BYTES};
use crate::protocol::Outbox;

/// Buffers of [`LARGE_BUFFER`] bytes, at most [`MAX_LARGE_BUFFERS`] of them.
#[derive(Default)]
pub(super) struct Buffers {
    state: Mutex<State>,
    /// Bytes of payloads that are held.
    payloads: AtomicUsize,
}

#[derive(Default)]
struct State {
    free: Vec<Outbox>,
    lent: usize,
}

/// An outbox with a large buffer, which goes back when it is dropped.
pub(super) struct Large<'a> {
    outbox: Option<Outbox>,
    home: &'a Buffers,
}

impl Buffers {
    /// One of the buffers, unless all are lent. Never waits.
    pub(super) fn take(&self) -> Option<Large<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lent == MAX_LARGE_BUFFERS {
            return None;
        }
        state.lent += 1;
        let free = state.free.pop();
        drop(state);
        Some(Large { outbox: Some(free.unwrap_or_else(|| Outbox::new(LARGE_BUFFER))), home: self })
    }

    /// A payload of `len` zeros, unless that would be too many bytes in all. Never waits.
    pub(super) fn payload(&self, len: usize) -> Option<Payload<'_>> {
        let room = |held: usize| held.checked_add(len).filter(|&sum| sum <= MAX_PAYLOAD_BYTES);
        self.payloads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Payload { bytes: vec![0; len], home: Some(self) })
    }

    /// Gives the memory of unused buffers back.
    pub(super) fn trim(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).free = Vec::new();
    }
}

impl Large<'_> {
    pub(super) fn outbox(&mut self) -> &mut Outbox {
        self.outbox.get_or_insert_with(|| Outbox::new(LARGE_BUFFER))
    }
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        let mut state = self.home.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lent -= 1;
        state.free.extend(self.outbox.take().filter(Outbox::is_empty));
    }
}

/// The payload of a request.
pub(super) struct Payload<'a> {
    pub(super) bytes: Vec<u8>,
    home: Option<&'a Buffers>,
}

impl Payload<'_> {
    pub(super) const EMPTY: Self = Self { bytes: Vec::new(), home: None };
}

impl Drop for Payload<'_> {
    fn drop(&mut self) {
        if let Some(home) = self.home {
            home.payloads.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_bounded_and_come_back() {
        let buffers = Buffers::default();
        let mut lent: Vec<Large<'_>> = (0..MAX_LARGE_BUFFERS).map_while(|_| buffers.take()).collect();
        assert_eq!(lent.len(), MAX_LARGE_BUFFERS);
        assert!(buffers.take().is_none());
        lent.pop();
        assert!(buffers.take().is_some());
        drop(lent);
        assert_eq!(buffers.state.lock().unwrap().free.len(), MAX_LARGE_BUFFERS);
        buffers.trim();
        assert_eq!(buffers.state.lock().unwrap().free.len(), 0);
        assert!(buffers.take().is_some());
    }
    #[test]
    fn payloads_are_bounded_and_come_back() {
        let buffers = Buffers::default();
        assert!(buffers.payload(MAX_PAYLOAD_BYTES + 1).is_none() && buffers.payload(usize::MAX).is_none());
        let most = buffers.payload(MAX_PAYLOAD_BYTES - 1).unwrap();
        assert!(buffers.payload(2).is_none());
        let last = buffers.payload(1).unwrap();
        assert!(buffers.payload(1).is_none());
        drop((most, last));
        assert!(buffers.payload(MAX_PAYLOAD_BYTES).is_some());
    }
}
