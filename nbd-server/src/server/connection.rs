//! A connection past its handshake: one thread reads requests, and others join when they pile up on a slow export.

use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};
use std::time::Instant;

use super::Shared;
use super::inbox::Inbox;
use super::queue::Queue;
use super::stream::Stream;
use crate::export::{Error, Export, Visit};
use crate::limits::SMALL_BUFFER;
use crate::protocol::constants::{CMD_DISC, CMD_READ};
use crate::protocol::{Action, Outbox, Request, Session, Wire, respond};

/// Serving from an export that is slower than this is worth waking another thread for.
const SLOW_NANOS: u64 = 20_000;

/// Requests in a row that must come alone before the reader believes that the client sends one at a time.
const ALONE: u32 = 32;

/// Replies are sent once this much has gathered, or no more requests are at hand.
const BATCH: usize = 32 << 10;

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
        connection.read_requests(scope, Inbox::new(received))
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
    queue: Queue,
    /// The socket is shut down; nothing more can be sent.
    failed: AtomicBool,
}

impl Connection<'_> {
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
                if !(piled && !self.is_quick(&request) && self.hand_over(scope, request, &mut out)?) {
                    self.serve(&request, &mut out)?;
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

    /// Whether the reader should serve a request itself although others wait.
    fn is_quick(&self, request: &Request) -> bool {
        match self.session.action(request) {
            Action::Read { .. } => {
                let range = request.offset..request.offset.saturating_add(request.length.into());
                !self.export.is_slow() && (range.is_empty() || self.export.is_quick(range))
            }
            Action::BlockStatus { .. } => !self.export.is_slow(),
            _ => true,
        }
    }

    fn hand_over<'s>(&'s self, scope: &'s Scope<'s, '_>, request: Request, out: &mut Outbox) -> io::Result<bool> {
        out.flush(&mut self.wire())?;
        Ok(self.queue.submit(request, || {
            let worker = thread::Builder::new().name("nbd-worker".into());
            worker.spawn_scoped(scope, || self.work()).is_ok()
        }))
    }

    fn work(&self) {
        let mut out = Outbox::new(SMALL_BUFFER);
        while let Some(request) = self.queue.take() {
            if !self.failed.load(Ordering::Relaxed) {
                let served = self.serve(&request, &mut out).and_then(|()| out.flush(&mut self.wire()));
                if let Err(error) = served {
                    tracing::debug!(%error, "reply cut short");
                }
            }
            self.queue.done();
        }
    }

    /// Answers a request into `out`, or, if it needs more room, straight to the client.
    fn serve(&self, request: &Request, out: &mut Outbox) -> io::Result<()> {
        let mut wire = self.wire();
        let large = request.command == CMD_READ && request.length as usize + 64 > SMALL_BUFFER;
        let result = match large.then(|| self.shared.buffers.take()).flatten() {
            None => respond(&self.session, &self.export, request, out, &mut wire),
            Some(mut large) => out
                .flush(&mut wire)
                .and_then(|()| respond(&self.session, &self.export, request, large.outbox(), &mut wire))
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

    const fn wire(&self) -> SocketWire<'_> {
        SocketWire { connection: self, turn: None }
    }
}

/// Sends replies, each in its turn.
struct SocketWire<'a> {
    connection: &'a Connection<'a>,
    turn: Option<MutexGuard<'a, ()>>,
}

impl Wire for SocketWire<'_> {
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

    fn observe(&self, started: Instant) {
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let average = self.nanos.load(Ordering::Relaxed);
        self.nanos.store(average - average / 8 + nanos / 8, Ordering::Relaxed);
    }
}

impl Export for Timed<'_> {
    fn size(&self) -> u64 {
        self.export.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error> {
        let started = Instant::now();
        let result = self.export.read_at(buf, offset);
        self.observe(started);
        result
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let started = Instant::now();
        let result = self.export.extents(range, visit);
        self.observe(started);
        result
    }

    fn is_quick(&self, range: Range<u64>) -> bool {
        self.export.is_quick(range)
    }

    fn prefetch(&self, range: Range<u64>) {
        self.export.prefetch(range);
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
struct CloseAtEnd<'a>(&'a Queue);

impl Drop for CloseAtEnd<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
