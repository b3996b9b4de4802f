//! A connection past its handshake: one thread reads requests, and others join when they pile up on a slow export.

use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Instant;

use super::Shared;
use super::buffers::Payload;
use super::inbox::Inbox;
use super::queue::Queue;
use crate::export::{Context, Error, Export, Visit, VisitStatus, Zero};
use crate::limits::{MAX_CONTEXTS, SMALL_BUFFER};
use crate::protocol::constants::{CMD_BLOCK_STATUS, CMD_DISC, CMD_FLAG_FUA, CMD_READ, CMD_WRITE};
use crate::protocol::{Action, Outbox, Request, Session, Wire, conclude, respond};
use crate::stream::Stream;

/// Serving from an export that is slower than this is worth waking another thread for.
const SLOW_NANOS: u64 = 20_000;

/// Requests in a row that must come alone before the reader believes that the client sends one at a time.
const ALONE: u32 = 32;

/// Replies are sent once this much has gathered, or no more requests are at hand.
const BATCH: usize = 32 << 10;

/// Longest payload of a block status request: one that names every context.
const MAX_SELECTION: usize = 8 + 4 * (MAX_CONTEXTS + 1);

/// A request and its payload.
struct Job<'a> {
    request: Request,
    payload: Payload<'a>,
}

/// Serves a connection until the client or the server ends it.
pub(super) fn run(shared: &Shared, stream: &Stream, session: Session, received: &[u8]) {
    let Some(export) = shared.exports.get(session.export) else { return };
    let connection = Connection {
        shared,
        stream,
        session,
        export: Timed { export: &**export, nanos: AtomicU64::new(0) },
        turn: Mutex::new(()),
        queue: Queue::default(),
        failed: AtomicBool::new(false),
    };
    let result = thread::scope(|scope| {
        let _close = CloseAtEnd(&connection.queue);
        connection.read_requests(scope, Inbox::new(session.style, received))
    });
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
    stream.shutdown(Shutdown::Both);
}

struct Connection<'a> {
    shared: &'a Shared,
    stream: &'a Stream,
    session: Session,
    export: Timed<'a>,
    /// Held while a reply is being sent.
    turn: Mutex<()>,
    queue: Queue<Job<'a>>,
    /// The socket is shut down; nothing more can be sent.
    failed: AtomicBool,
}

impl<'a> Connection<'a> {
    fn read_requests<'s>(&'s self, scope: &'s Scope<'s, '_>, mut inbox: Inbox) -> io::Result<()> {
        let mut out = Outbox::new(SMALL_BUFFER);
        let mut depth = Depth::default();
        loop {
            while let Some(request) = inbox.next()? {
                self.shared.counters.count_request();
                if request.command == CMD_DISC {
                    return out.flush(&mut self.wire());
                }
                let piled = depth.observe(inbox.has_more() || self.queue.is_busy());
                match self.take_payload(&request, &mut inbox, &mut out)? {
                    None => self.write_in_pieces(&request, &mut inbox, &mut out)?,
                    Some(payload) if piled && !self.is_quick(&request) => {
                        self.hand_over(scope, Job { request, payload }, &mut out)?;
                    }
                    Some(payload) => self.serve(&request, &payload.bytes, &mut out)?,
                }
                if out.len() >= BATCH {
                    out.flush(&mut self.wire())?;
                }
            }
            out.flush(&mut self.wire())?;
            if self.shared.stopping.load(Ordering::Acquire) || !inbox.fill(|buf| self.stream.receive(buf))? {
                return Ok(());
            }
        }
    }

    /// The payload of a request, if it is of use; `None` if it has no room.
    fn take_payload(&self, request: &Request, inbox: &mut Inbox, out: &mut Outbox) -> io::Result<Option<Payload<'a>>> {
        let len = inbox.payload_len();
        let wanted = match request.command {
            CMD_WRITE => matches!(self.session.action(request, &[]), Action::Write { .. }),
            CMD_BLOCK_STATUS => len <= MAX_SELECTION,
            _ => false,
        };
        if len == 0 || !wanted {
            return Ok(Some(Payload::EMPTY));
        }
        let Some(mut payload) = self.shared.buffers.payload(len) else { return Ok(None) };
        self.receive_payload(&mut payload.bytes, inbox, out)?;
        Ok(Some(payload))
    }

    fn receive_payload(&self, buf: &mut [u8], inbox: &mut Inbox, out: &mut Outbox) -> io::Result<usize> {
        inbox.payload(buf, |rest| {
            out.flush(&mut self.wire())?;
            self.stream.receive(rest)
        })
    }

    /// Serves a write for whose payload there is no room, piece by piece as it comes.
    fn write_in_pieces(&self, request: &Request, inbox: &mut Inbox, out: &mut Outbox) -> io::Result<()> {
        let mut piece = vec![0; SMALL_BUFFER];
        let mut result = Ok(());
        let mut at = request.offset;
        while inbox.payload_len() > 0 {
            let len = self.receive_payload(&mut piece, inbox, out)?;
            if result.is_ok() {
                let part = Request { offset: at, length: len as u64, ..*request };
                result = self.write_piece(&part, piece.get(..len).unwrap_or_default());
            }
            at = at.saturating_add(len as u64);
        }
        conclude(&self.session, &self.export, request, result, out, &mut self.wire())
    }

    fn write_piece(&self, part: &Request, bytes: &[u8]) -> Result<(), Error> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.export.write_at(bytes, part.offset)?;
            if part.flags & CMD_FLAG_FUA != 0 { self.export.persist(part.range()) } else { Ok(()) }
        }));
        written.unwrap_or_else(|_| Err(Error::io("internal error")))
    }

    /// Whether the reader should serve a request itself although others wait.
    fn is_quick(&self, request: &Request) -> bool {
        match self.session.action(request, &[]) {
            Action::Read { .. } => {
                let range = request.range();
                !self.export.is_slow() && (range.is_empty() || self.export.is_quick(range))
            }
            Action::BlockStatus { .. } | Action::Write { .. } => !self.export.is_slow(),
            Action::Flush | Action::Trim { .. } | Action::Zero { .. } => false,
            _ => true,
        }
    }

    fn hand_over<'s>(&'s self, scope: &'s Scope<'s, '_>, job: Job<'a>, out: &mut Outbox) -> io::Result<()> {
        out.flush(&mut self.wire())?;
        let refused = self.queue.submit(job, || {
            let worker = thread::Builder::new().name("nbd-worker".into());
            worker.spawn_scoped(scope, || self.work()).is_ok()
        });
        refused.map_or(Ok(()), |job| self.serve(&job.request, &job.payload.bytes, out))
    }

    fn work(&self) {
        let mut out = Outbox::new(SMALL_BUFFER);
        while let Some(Job { request, payload }) = self.queue.take() {
            if !self.failed.load(Ordering::Relaxed) {
                let served = self.serve(&request, &payload.bytes, &mut out);
                if let Err(error) = served.and_then(|()| out.flush(&mut self.wire())) {
                    tracing::debug!(%error, "reply cut short");
                }
            }
            drop(payload);
            self.queue.done();
        }
    }

    /// Answers a request into `out`, or, if it needs more room, straight to the client.
    fn serve(&self, request: &Request, payload: &[u8], out: &mut Outbox) -> io::Result<()> {
        let mut wire = self.wire();
        let large = request.command == CMD_READ && request.length > SMALL_BUFFER as u64 - 64;
        let result = match large.then(|| self.shared.buffers.take()).flatten() {
            None => respond(&self.session, &self.export, request, payload, out, &mut wire),
            Some(mut large) => out
                .flush(&mut wire)
                .and_then(|()| respond(&self.session, &self.export, request, payload, large.outbox(), &mut wire))
                .and_then(|()| large.outbox().flush(&mut wire)),
        };
        drop(wire);
        if result.is_err() {
            self.fail();
        }
        result
    }

    /// Ends the connection under everyone's feet: a reply is broken off, so nothing that follows would make sense.
    fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        self.stream.shutdown(Shutdown::Both);
    }

    const fn wire(&self) -> SocketWire<'_, 'a> {
        SocketWire { connection: self, turn: None }
    }
}

/// Sends replies, each in its turn.
struct SocketWire<'w, 'a> {
    connection: &'w Connection<'a>,
    turn: Option<MutexGuard<'w, ()>>,
}

impl Wire for SocketWire<'_, '_> {
    fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<()> {
        let connection = self.connection;
        let turn = self.turn.take();
        let turn = turn.unwrap_or_else(|| connection.turn.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = connection.stream.send(bytes) {
            connection.fail();
            return Err(error);
        }
        connection.shared.counters.count_sent(bytes.len());
        if more {
            self.turn = Some(turn);
        }
        Ok(())
    }
}

/// An export that measures how long its answers take.
struct Timed<'a> {
    export: &'a dyn Export,
    /// A moving average.
    nanos: AtomicU64,
}

impl Timed<'_> {
    fn is_slow(&self) -> bool {
        self.nanos.load(Ordering::Relaxed) > SLOW_NANOS
    }

    fn measured<T>(&self, call: impl FnOnce(&dyn Export) -> T) -> T {
        let started = Instant::now();
        let result = call(self.export);
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let average = self.nanos.load(Ordering::Relaxed);
        self.nanos.store(average - average / 8 + nanos / 8, Ordering::Relaxed);
        result
    }
}

/// Only what is called after the handshake counts, and only what happens often is measured.
impl Export for Timed<'_> {
    fn size(&self) -> u64 {
        self.export.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        self.measured(|export| export.read_at(buf, offset))
    }
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        self.measured(|export| export.extents(range, visit))
    }
    fn prefetch(&self, range: Range<u64>) {
        self.export.prefetch(range);
    }
    fn is_quick(&self, range: Range<u64>) -> bool {
        self.export.is_quick(range)
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> Result<(), Error> {
        self.measured(|export| export.write_at(buf, offset))
    }
    fn zero(&self, range: Range<u64>, how: Zero) -> Result<(), Error> {
        self.export.zero(range, how)
    }
    fn trim(&self, range: Range<u64>) -> Result<(), Error> {
        self.export.trim(range)
    }
    fn flush(&self) -> Result<(), Error> {
        self.export.flush()
    }
    fn persist(&self, range: Range<u64>) -> Result<(), Error> {
        self.export.persist(range)
    }
    fn contexts(&self) -> Vec<Context> {
        self.export.contexts()
    }
    fn status(&self, context: usize, range: Range<u64>, visit: &mut VisitStatus<'_>) -> Result<(), Error> {
        self.export.status(context, range, visit)
    }
}

/// Whether a client sends requests without waiting for each reply.
#[derive(Default)]
struct Depth {
    /// Requests that must yet come alone before the answer changes to no.
    left: u32,
}

impl Depth {
    fn observe(&mut self, others: bool) -> bool {
        self.left = if others { ALONE } else { self.left.saturating_sub(1) };
        self.left > 0
    }
}

/// Lets the workers end, whichever way the reader does.
struct CloseAtEnd<'a, T>(&'a Queue<T>);

impl<T> Drop for CloseAtEnd<'_, T> {
    fn drop(&mut self) {
        self.0.close();
    }
}
