//! Large buffers, shared by all connections of a server and bounded in number.

use std::sync::{Mutex, PoisonError};

use crate::limits::{LARGE_BUFFER, MAX_LARGE_BUFFERS};
use crate::protocol::Outbox;

/// Buffers of [`LARGE_BUFFER`] bytes, at most [`MAX_LARGE_BUFFERS`] of them.
#[derive(Default)]
pub(super) struct Buffers(Mutex<State>);

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
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lent == MAX_LARGE_BUFFERS {
            return None;
        }
        state.lent += 1;
        let free = state.free.pop();
        drop(state);
        Some(Large { outbox: Some(free.unwrap_or_else(|| Outbox::new(LARGE_BUFFER))), home: self })
    }

    /// Gives the memory of unused buffers back.
    pub(super) fn trim(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).free = Vec::new();
    }
}

impl Large<'_> {
    pub(super) fn outbox(&mut self) -> &mut Outbox {
        self.outbox.get_or_insert_with(|| Outbox::new(LARGE_BUFFER))
    }
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        let mut state = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lent -= 1;
        state.free.extend(self.outbox.take().filter(Outbox::is_empty));
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
        assert_eq!(buffers.0.lock().unwrap().free.len(), MAX_LARGE_BUFFERS);
        buffers.trim();
        assert_eq!(buffers.0.lock().unwrap().free.len(), 0);
        assert!(buffers.take().is_some());
    }
}
