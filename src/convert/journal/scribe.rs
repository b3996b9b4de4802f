//! Writes the journal while chunks are copied, and makes the output durable in the background.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::scan::{Journal, Mark};
use super::{Chunk, Record};
use crate::convert::output::Output;
use crate::error::{Error, Result};
use crate::session::Session;

/// How much of the source may have to be read again after a power cut.
#[derive(Clone, Copy, Debug)]
pub(in crate::convert) struct Interval {
    /// Bytes after which what was written is made durable.
    pub(in crate::convert) sync: u64,
    /// Bytes after which reading waits for that.
    pub(in crate::convert) most: u64,
}

impl Default for Interval {
    fn default() -> Self {
        Self { sync: 32 << 20, most: 64 << 20 }
    }
}

/// Longest sleep before cancellation is looked at again.
const NAP: Duration = Duration::from_millis(50);

/// The writer of a journal. Bytes are those that were read of the source, since that is what a resumed run repeats.
#[derive(Debug)]
pub(in crate::convert) struct Scribe {
    output: Arc<dyn Output>,
    interval: Interval,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    journal: Journal,
    /// Bytes of chunks that are being copied or were.
    admitted: u64,
    /// Bytes of chunks that the journal has.
    noted: u64,
    /// Bytes of chunks that are durable.
    durable: u64,
    /// Somebody waits for more of them.
    wanted: bool,
    /// No more will come.
    stopped: bool,
    /// Why the output cannot be trusted beyond what was durable before.
    lost: Option<Error>,
}

impl Scribe {
    /// Goes on with `journal`, whose chunks that are not durable took `pending` bytes.
    pub(in crate::convert) fn new(output: Arc<dyn Output>, journal: Journal, pending: u64, interval: Interval) -> Self {
        let state =
            State { journal, admitted: pending, noted: pending, durable: 0, wanted: false, stopped: false, lost: None };
        Self { output, interval, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until `bytes` more may be read; `false` when nothing more is to be.
    pub(in crate::convert) fn admit(&self, bytes: u64, session: &Session) -> Result<bool> {
        let mut state = self.state();
        while state.lost.is_none()
            && !state.stopped
            && state.admitted > state.durable
            && state.admitted + bytes > state.durable + self.interval.most
        {
            session.check()?;
            state.wanted = true;
            self.changed.notify_all();
            state = self.changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.admitted += bytes;
        state.lost.clone().map_or(Ok(!state.stopped), Err)
    }

    /// Notes that the plan's next chunk is in the file.
    pub(in crate::convert) fn written(&self, chunk: Chunk) -> Result<()> {
        let Some(log) = self.output.log() else { return Ok(()) };
        let mut state = self.state();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        let (read, unread) = (u64::from(chunk.read), u64::from(chunk.unread));
        state.journal.append(log, &Record::Chunk(chunk))?;
        let Journal { chunks, end, .. } = state.journal;
        state.journal.chunks = Mark { count: chunks.count + 1, end };
        state.noted += read;
        // To share it again is nothing that takes time.
        state.admitted = state.admitted.saturating_sub(unread);
        self.output.keep(true);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Makes the output durable again and again, until [`Scribe::stop`].
    ///
    /// # Errors
    /// The first failure; what was not durable before counts as lost.
    pub(in crate::convert) fn keep_durable(&self) -> Result<()> {
        loop {
            let state = self.state();
            let idle = |state: &mut State| {
                let due = if state.wanted { 1 } else { self.interval.sync };
                !state.stopped && state.noted < state.durable + due
            };
            let mut state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            if state.stopped {
                return Ok(());
            }
            state.wanted = false;
            let (mark, noted) = (state.journal.chunks, state.noted);
            drop(state);
            let synced = self.output.sync_data();
            self.synced(synced, mark, noted)?;
        }
    }

    /// Notes whether everything up to `mark` is durable.
    fn synced(&self, synced: Result<()>, mark: Mark, noted: u64) -> Result<()> {
        let Some(log) = self.output.log() else { return synced };
        let durable = synced.and_then(|()| {
            self.state().journal.append(log, &Record::Durable { chunks: mark.count })?;
            log.sync()
        });
        let mut state = self.state();
        if let Err(error) = &durable {
            // The kernel may have dropped what it could not write, and will say that all is well when asked again.
            state.lost = Some(error.clone());
            let before = state.journal.durable;
            let cut = state.journal.cut(log, before);
            self.output.keep(cut.is_ok() && before.count > 0);
        } else {
            (state.journal.durable, state.durable) = (mark, noted);
        }
        drop(state);
        self.changed.notify_all();
        durable
    }

    /// Ends [`Scribe::keep_durable`], and lets nobody wait any more.
    pub(in crate::convert) fn stop(&self) {
        self.state().stopped = true;
        self.changed.notify_all();
    }

    /// Makes all of the output durable, after the last chunk.
    pub(in crate::convert) fn finish(&self) -> Result<()> {
        let synced = self.output.sync();
        let mut state = self.state();
        let (mark, noted) = (state.journal.chunks, state.noted);
        match self.output.log() {
            // The journal need not be durable: at worst, the last chunks are compared once more.
            Some(log) if synced.is_ok() => state.journal.append(log, &Record::Durable { chunks: mark.count }),
            _ => {
                drop(state);
                self.synced(synced, mark, noted)
            }
        }
    }

    /// Notes that the output is about to get its name.
    pub(in crate::convert) fn sealing(&self) -> Result<()> {
        let (Some(log), Some(sealing)) = (self.output.log(), self.output.sealing()?) else { return Ok(()) };
        self.state().journal.append(log, &Record::Sealing(sealing))?;
        log.sync()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
