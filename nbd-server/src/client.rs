//! The client: an export of some server as bytes that many threads read and write at once.
//!
//! ```no_run
//! use hyper2kvm_nbd::client::Client;
//!
//! let client = Client::connect("nbd://localhost/disk")?;
//! let mut sector = [0; 512];
//! client.read_at(&mut sector, client.size() - 512)?;
//! # Ok::<(), hyper2kvm_nbd::client::Error>(())
//! ```
//!
//! Calls block. Each thread has one request in flight, so depth comes from threads; they share connections, and further
//! connections are opened as there are threads to use them, if the server allows several. Whatever the server answers is checked:
//! that it answers a request that was made, with all of its bytes once, none from elsewhere, within bounds and in time.
//!
//! A connection that breaks is replaced, and its requests are made again, for [`Options::retry_for`]. What was written and not flushed
//! may then be lost with the server's cache, which the next [`Client::flush`] says.

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

mod connect;
mod connection;
mod error;
mod uri;
mod watch;

pub use crate::protocol::{Listed, Style};
pub use error::{Error, Kind, Result};
pub use uri::{DEFAULT_PORT, Transport, Uri};
pub use watch::Stop;

use crate::export::{self, Allocation, Errno, Export, Extent, Status, Visit, VisitStatus, Zero};
use crate::limits::{MAX_CLIENT_CONNECTIONS, MAX_CONTEXTS, MAX_STRING};
use crate::protocol::constants::*;
use crate::protocol::{Request, Terms, Want, Wishes};
use crate::tls::TlsClient;
use connect::Route;
use connection::{Connection, Statuses};
use watch::Watch;

/// First and longest pause between attempts to connect again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));

/// The longest range that a compact request can name, in whole 64 KiB.
const LONGEST_COMPACT: u64 = u32::MAX as u64 & !0xffff;

/// The longest range that one extended request names: far beyond every disk, and not at the edge of anybody's arithmetic.
const LONGEST_EXTENDED: u64 = 1 << 60;

/// How to use a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Meta contexts to ask for, by name; `base:allocation` by default.
    pub contexts: Vec<String>,
    /// Connections at most, if the server allows several; 4 by default.
    pub connections: usize,
    /// Certificates, if not those of the URI's `tls-certificates`. Only `nbds` URIs use them.
    pub tls: Option<TlsClient>,
    /// How long to wait for a server that is not there yet; not at all by default.
    pub wait_for: Duration,
    /// How long to try again when a connection breaks; 60 seconds by default.
    pub retry_for: Duration,
    /// How long a connection may take, the name's address found included; 60 seconds by default.
    pub connect_within: Duration,
    /// How long the server may be silent while it owes a reply; 60 seconds by default. Flushes may take twenty times that.
    pub patience: Duration,
    /// Ends whatever waits, with [`Kind::Stopped`].
    pub stop: Option<Stop>,
    /// The most to ask for; extended headers by default.
    pub style: Style,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            contexts: vec!["base:allocation".into()],
            connections: 4,
            tls: None,
            wait_for: Duration::ZERO,
            retry_for: Duration::from_secs(60),
            connect_within: Duration::from_secs(60),
            patience: Duration::from_secs(60),
            stop: None,
            style: Style::Extended,
        }
    }
}

/// An export of some server.
pub struct Client {
    route: Route,
    retry_for: Duration,
    /// Of the first connection; those of others are the same in what counts.
    terms: Terms,
    connections: Vec<Mutex<Seat>>,
    /// Connections that may be used.
    open: AtomicUsize,
    /// A connection broke with writes that no flush had covered.
    unflushed: AtomicBool,
}

/// The place of a connection.
#[derive(Default)]
struct Seat {
    connection: Option<Arc<Connection>>,
    /// When and why the last attempt to connect failed: the answer for all who waited for it.
    failed: Option<(Instant, Error)>,
}

impl Client {
    /// Connects to a URI with default [`Options`].
    ///
    /// # Errors
    /// If there is no such server, or no such export.
    pub fn connect(uri: &str) -> Result<Self> {
        Self::with_options(uri.parse()?, Options::default())
    }

    /// Connects.
    ///
    /// # Errors
    /// If there is no such server, or no such export.
    pub fn with_options(uri: Uri, options: Options) -> Result<Self> {
        let wrong =
            options.contexts.len() > MAX_CONTEXTS || options.contexts.iter().any(|name| name.len() > MAX_STRING);
        if wrong || options.patience.is_zero() {
            return Err(Error::new(
                Kind::Unsupported,
                "too many meta contexts, or names that are too long, or no patience",
            ));
        }
        let wishes = Wishes { export: uri.export.clone(), contexts: options.contexts, style: options.style };
        let watch = Watch { patience: options.patience, stop: options.stop };
        let route = Route { uri, tls: options.tls, wishes, watch, connect_within: options.connect_within };
        let first = retrying(options.wait_for, || route.connect())?;
        let terms = first.terms.clone();
        let several = terms.flags & FLAG_CAN_MULTI_CONN != 0;
        let most = if several { options.connections.clamp(1, MAX_CLIENT_CONNECTIONS) } else { 1 };
        let connections: Vec<_> = (0..most).map(|_| Mutex::new(Seat::default())).collect();
        lock(&connections[0]).connection = Some(Arc::new(first));
        let (open, unflushed) = (AtomicUsize::new(most), AtomicBool::new(false));
        Ok(Self { route, retry_for: options.retry_for, terms, connections, open, unflushed })
    }

    /// The exports of a server.
    ///
    /// # Errors
    /// If there is no such server, or if it does not list them.
    pub fn list(uri: Uri, tls: Option<TlsClient>) -> Result<Vec<Listed>> {
        Self::list_with(uri, Options { tls, ..Options::default() })
    }

    /// As [`Self::list`], with the patience and certificates of `options`.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn list_with(uri: Uri, options: Options) -> Result<Vec<Listed>> {
        let watch = Watch { patience: options.patience, stop: options.stop };
        let (tls, connect_within) = (options.tls, options.connect_within);
        Route { uri, tls, wishes: Wishes::default(), watch, connect_within }.list()
    }

    /// In bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.terms.size
    }

    /// What server and client have agreed on.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether the export takes no writes.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.terms.flags & FLAG_READ_ONLY != 0
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections
            .iter()
            .filter(|seat| lock(seat).connection.as_ref().is_some_and(|connection| !connection.is_dead()))
            .count()
    }

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// If the range is not inside, or if the server cannot be made to answer in time.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.check(offset, buf.len() as u64, true)?;
        let block = u64::from(self.terms.minimum_block);
        let end = offset + buf.len() as u64;
        if !offset.is_multiple_of(block) || !end.is_multiple_of(block) {
            return self.read_unaligned(buf, offset, block);
        }
        let mut at = offset;
        for piece in buf.chunks_mut(self.terms.maximum_block as usize) {
            let request = request(CMD_READ, 0, at, piece.len() as u64);
            self.call(request, &[], &Want::Data(piece.len()), piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// As [`Self::read_at`], without a second attempt: gives how many bytes from the front of `buf` came, and why not all of them did.
    pub fn read_front(&self, buf: &mut [u8], offset: u64) -> (usize, Result<()>) {
        if let Err(error) = self.check(offset, buf.len() as u64, false) {
            return (0, Err(error));
        }
        let mut done = 0;
        for piece in buf.chunks_mut(self.terms.maximum_block as usize) {
            let request = request(CMD_READ, 0, offset + done as u64, piece.len() as u64);
            let connection = match self.pick() {
                Ok(connection) => connection,
                Err(error) => return (done, Err(error)),
            };
            let (came, result) = connection.call_partly(request, &[], Want::Data(piece.len()), piece);
            done += came;
            if let Err(error) = result {
                return (done, Err(error));
            }
        }
        (done, Ok(()))
    }

    /// Reads the blocks around a range.
    fn read_unaligned(&self, buf: &mut [u8], offset: u64, block: u64) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let start = at - at % block;
            let end = (offset + buf.len() as u64).next_multiple_of(block).min(start + (1 << 20));
            let mut blocks = vec![0; (end - start) as usize];
            self.read_at(&mut blocks, start)?;
            let skipped = &blocks[(at - start) as usize..];
            let len = skipped.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&skipped[..len]);
            done += len;
        }
        Ok(())
    }

    /// Writes all of `buf` at `offset`; with `fua` returns when it is on stable storage.
    ///
    /// # Errors
    /// If the range is not inside or not aligned, if the export takes no writes, or as [`Self::read_at`].
    pub fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> Result<()> {
        self.check(offset, buf.len() as u64, false)?;
        let mut at = offset;
        for piece in buf.chunks(self.terms.maximum_block as usize) {
            self.change(request(CMD_WRITE, 0, at, piece.len() as u64), piece, fua)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes a range read as zeros. With [`Zero::fast`], fails with [`Errno::NotSup`] if the server would have to write them.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if the server cannot; otherwise as [`Self::write_at`].
    pub fn zero(&self, range: Range<u64>, how: Zero, fua: bool) -> Result<()> {
        self.need(FLAG_SEND_WRITE_ZEROES, "zero ranges")?;
        if how.fast {
            self.need(FLAG_SEND_FAST_ZERO, "tell whether zeroing is fast")?;
        }
        let flags = if how.may_punch { 0 } else { CMD_FLAG_NO_HOLE } | if how.fast { CMD_FLAG_FAST_ZERO } else { 0 };
        self.over(range, |at, length| self.change(request(CMD_WRITE_ZEROES, flags, at, length), &[], fua))
    }

    /// Tells the server that a range is of no more use.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if the server cannot; otherwise as [`Self::write_at`].
    pub fn trim(&self, range: Range<u64>, fua: bool) -> Result<()> {
        self.need(FLAG_SEND_TRIM, "trim")?;
        self.over(range, |at, length| self.change(request(CMD_TRIM, 0, at, length), &[], fua))
    }

    /// Tells the server that a range will be read soon; does nothing if it does not want to know.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn cache(&self, range: Range<u64>) -> Result<()> {
        if self.terms.flags & FLAG_SEND_CACHE == 0 {
            return Ok(());
        }
        self.over(range, |at, length| self.call(request(CMD_CACHE, 0, at, length), &[], &Want::Done, &mut []).map(drop))
    }

    /// Returns when everything whose writing has returned before is on stable storage.
    ///
    /// # Errors
    /// [`Kind::Unflushed`] once, if a connection broke after a write: nobody knows whether it reached the storage. Otherwise as
    /// [`Self::read_at`].
    pub fn flush(&self) -> Result<()> {
        if self.terms.flags & FLAG_SEND_FLUSH != 0 {
            let covered: Vec<_> = self.connections.iter().filter_map(|seat| lock(seat).connection.clone()).collect();
            let had: Vec<bool> = covered.iter().map(|c| c.unflushed.swap(false, Ordering::SeqCst)).collect();
            let flushed = self.call(request(CMD_FLUSH, 0, 0, 0), &[], &Want::Done, &mut []);
            for (connection, had) in covered.iter().zip(had) {
                let lost = had && (flushed.is_err() || connection.is_dead());
                if lost && connection.is_dead() {
                    self.unflushed.store(true, Ordering::SeqCst);
                } else if lost {
                    connection.unflushed.store(true, Ordering::SeqCst);
                }
            }
            flushed?;
        }
        if self.unflushed.swap(false, Ordering::SeqCst) {
            let why = "a connection to the NBD server broke after writes and before a flush: they may be lost";
            return Err(Error::new(Kind::Unflushed, why));
        }
        Ok(())
    }

    /// Tells what a range consists of by the context `base:allocation`; all data if the server does not tell. Stops when `visit`
    /// breaks.
    ///
    /// # Errors
    /// As [`Self::read_at`].
    pub fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        if !self.has_context("base:allocation") {
            let _ = visit(Extent { length: range.end.saturating_sub(range.start), kind: Allocation::Data });
            return Ok(());
        }
        self.status("base:allocation", range, &mut |status| {
            visit(Extent { length: status.length, kind: Allocation::of(status.flags) })
        })
    }

    /// As [`Self::extents`], with what the server tells in one answer: of all of the range or a part from its start.
    ///
    /// # Errors
    /// As [`Self::extents`].
    pub fn extents_once(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let answer = range.start..range.end.min(range.start.saturating_add(self.longest()));
        if !self.has_context("base:allocation") || answer.is_empty() {
            return self.extents(answer, visit);
        }
        self.check(answer.start, answer.end - answer.start, true)?;
        let block = u64::from(self.terms.minimum_block);
        let mut at = answer.start - answer.start % block;
        for told in self.ask_status("base:allocation", at, (answer.end - at).next_multiple_of(block))? {
            let end = at + told.length;
            let length = end.min(answer.end).saturating_sub(at.max(answer.start));
            at = end;
            if length > 0 && visit(Extent { length, kind: Allocation::of(told.flags) }).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether the server has a meta context, of those that were asked for.
    #[must_use]
    pub fn has_context(&self, name: &str) -> bool {
        self.terms.contexts.iter().any(|(_, known)| known == name)
    }

    /// Tells what a range consists of in a meta context: lengths in order and flags. Neighbours may have equal ones. Stops when
    /// `visit` breaks.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] if the context was not agreed on; otherwise as [`Self::read_at`].
    pub fn status(&self, context: &str, range: Range<u64>, visit: &mut VisitStatus<'_>) -> Result<()> {
        if !self.has_context(context) {
            return Err(Error::new(Kind::Unsupported, format!("the NBD server has no meta context {context:?}")));
        }
        self.check(range.start, range.end.saturating_sub(range.start), true)?;
        let block = u64::from(self.terms.minimum_block);
        let mut at = range.start - range.start % block;
        while at < range.end {
            let length = (range.end - at).min(self.longest()).next_multiple_of(block);
            for told in self.ask_status(context, at, length)? {
                let end = at + told.length;
                let seen = end.min(range.end).saturating_sub(at.max(range.start));
                at = end;
                if seen > 0 && visit(Status { length: seen, flags: told.flags }) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One request. Numbers of contexts differ between connections, so it is made for each attempt anew.
    fn ask_status(&self, context: &str, at: u64, length: u64) -> Result<Vec<Status>> {
        retrying(self.retry_for, || {
            let connection = self.pick()?;
            let terms = &connection.terms;
            let number = terms.contexts.iter().find(|(_, name)| name == context).map(|(number, _)| *number);
            let number = number.ok_or_else(changed)?;
            let chosen = terms.flags & FLAG_BLOCK_STATUS_PAYLOAD != 0 && terms.style == Style::Extended;
            let (mut request, mut payload, mut expected) = (
                request(CMD_BLOCK_STATUS, 0, at, length),
                Vec::new(),
                terms.contexts.iter().map(|(n, _)| *n).collect(),
            );
            if chosen {
                payload = [&length.to_be_bytes()[..], &number.to_be_bytes()].concat();
                (request.flags, request.length) = (CMD_FLAG_PAYLOAD_LEN, payload.len() as u64);
                expected = vec![number];
            }
            let told = connection.call(request, &payload, Want::Status(expected, length), &mut [])?;
            Ok(told.into_iter().find(|(n, _)| *n == number).map(|(_, told)| told).unwrap_or_default())
        })
    }

    /// Carries out something that writes.
    fn change(&self, mut request: Request, payload: &[u8], fua: bool) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::new(Kind::Unsupported, "the export of the NBD server is read-only"));
        }
        let has_fua = self.terms.flags & FLAG_SEND_FUA != 0;
        if fua && has_fua {
            request.flags |= CMD_FLAG_FUA;
        }
        retrying(self.retry_for, || {
            let connection = self.pick()?;
            let mut request = request;
            if request.command == CMD_WRITE && connection.terms.style == Style::Extended {
                request.flags |= CMD_FLAG_PAYLOAD_LEN;
            }
            connection.call(request, payload, Want::Done, &mut [])?;
            if !(fua && has_fua) {
                connection.unflushed.store(true, Ordering::SeqCst);
                if connection.is_dead() {
                    self.unflushed.store(true, Ordering::SeqCst);
                }
            }
            Ok(())
        })?;
        if fua && !has_fua { self.flush() } else { Ok(()) }
    }

    fn call(&self, request: Request, payload: &[u8], want: &Want, buf: &mut [u8]) -> Result<Statuses> {
        retrying(self.retry_for, || self.pick()?.call(request, payload, want.clone(), buf))
    }

    /// The connection with the least to do. A further one is opened when all are busy, and broken ones are replaced.
    fn pick(&self) -> Result<Arc<Connection>> {
        let asked = Instant::now();
        let mut best: Option<(usize, Arc<Connection>)> = None;
        let open = self.open.load(Ordering::Relaxed);
        for (index, seat) in self.connections.iter().enumerate().take(open) {
            let mut seat = match (seat.try_lock(), &best) {
                (Ok(seat), _) => seat,
                // Somebody is about to connect there, which takes a while.
                (Err(TryLockError::WouldBlock), Some(_)) => continue,
                (Err(_), _) => lock(seat),
            };
            if let Some(broken) = seat.connection.take_if(|connection| connection.is_dead())
                && broken.unflushed.load(Ordering::SeqCst)
            {
                self.unflushed.store(true, Ordering::SeqCst);
            }
            if let Some(connection) = &seat.connection {
                let load = connection.load();
                if load == 0 {
                    return Ok(Arc::clone(connection));
                }
                if best.as_ref().is_none_or(|(least, _)| load < *least) {
                    best = Some((load, Arc::clone(connection)));
                }
                continue;
            }
            let connected = match &seat.failed {
                Some((when, error)) if *when >= asked => Err(error.clone()),
                _ => self.reconnect(),
            };
            match (connected, &best) {
                (Ok(new), _) => {
                    let new = Arc::new(new);
                    *seat = Seat { connection: Some(Arc::clone(&new)), failed: None };
                    return Ok(new);
                }
                // The server may allow fewer connections than it could.
                (Err(error), Some((_, best))) if !matches!(error.kind(), Kind::Changed | Kind::Stopped) => {
                    tracing::debug!(%error, "no further connection");
                    self.open.store(index.max(1), Ordering::Relaxed);
                    return Ok(Arc::clone(best));
                }
                (Err(error), _) => {
                    seat.failed = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            }
        }
        best.map(|(_, connection)| connection)
            .ok_or_else(|| Error::new(Kind::Lost, "the connection to the NBD server broke"))
    }

    fn reconnect(&self) -> Result<Connection> {
        let new = self.route.connect()?;
        let (ours, theirs) = (&self.terms, &new.terms);
        let names = |terms: &Terms| terms.contexts.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
        let same = ours.size == theirs.size
            && (ours.flags, ours.style) == (theirs.flags, theirs.style)
            && (ours.minimum_block, ours.maximum_block) == (theirs.minimum_block, theirs.maximum_block)
            && names(ours).iter().all(|name| names(theirs).contains(name));
        if same { Ok(new) } else { Err(changed()) }
    }

    fn need(&self, flag: u16, what: &str) -> Result<()> {
        if self.terms.flags & flag == 0 {
            return Err(Error::new(Kind::Unsupported, format!("the NBD server cannot {what}")));
        }
        Ok(())
    }

    const fn longest(&self) -> u64 {
        match self.terms.style {
            Style::Extended => LONGEST_EXTENDED,
            _ => LONGEST_COMPACT,
        }
    }

    /// Calls with parts of a range that fit requests.
    fn over(&self, range: Range<u64>, mut each: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        self.check(range.start, range.end.saturating_sub(range.start), false)?;
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(self.longest());
            each(at, length)?;
            at += length;
        }
        Ok(())
    }

    fn check(&self, offset: u64, length: u64, unaligned: bool) -> Result<()> {
        let wrong = |why: &str| Err(Error::new(Kind::Unsupported, why));
        if offset.checked_add(length).is_none_or(|end| end > self.size()) {
            return wrong("the range reaches beyond the end of the NBD export");
        }
        let block = u64::from(self.terms.minimum_block);
        let aligned = offset.is_multiple_of(block) && length.is_multiple_of(block);
        if !(unaligned || aligned) {
            return wrong("the range is not aligned to the minimum block size of the NBD export");
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for slot in &self.connections {
            if let Some(connection) = lock(slot).connection.take() {
                connection.say_goodbye();
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("uri", &self.route.uri).field("terms", &self.terms).finish_non_exhaustive()
    }
}

/// An export can be served on.
impl Export for Client {
    fn size(&self) -> u64 {
        self.size()
    }
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::result::Result<(), export::Error> {
        Ok(self.read_at(buf, offset)?)
    }
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> std::result::Result<(), export::Error> {
        Ok(self.extents(range, visit)?)
    }
    fn is_quick(&self, _range: Range<u64>) -> bool {
        false
    }
    fn preferred_block(&self) -> u32 {
        self.terms.preferred_block
    }
    fn minimum_block(&self) -> u32 {
        self.terms.minimum_block
    }
    fn description(&self) -> String {
        self.terms.description.clone()
    }
    fn is_writable(&self) -> bool {
        !self.is_read_only()
    }
    fn write_at(&self, buf: &[u8], offset: u64) -> std::result::Result<(), export::Error> {
        Ok(self.write_at(buf, offset, false)?)
    }
    fn zero(&self, range: Range<u64>, how: Zero) -> std::result::Result<(), export::Error> {
        Ok(self.zero(range, how, false)?)
    }
    fn can_trim(&self) -> bool {
        self.terms.flags & FLAG_SEND_TRIM != 0
    }
    fn trim(&self, range: Range<u64>) -> std::result::Result<(), export::Error> {
        Ok(self.trim(range, false)?)
    }
    fn flush(&self) -> std::result::Result<(), export::Error> {
        Ok(self.flush()?)
    }
}

impl From<Error> for export::Error {
    fn from(error: Error) -> Self {
        let errno = match error.kind() {
            Kind::Export(errno) => errno,
            Kind::Unsupported => Errno::NotSup,
            _ => Errno::Io,
        };
        Self::new(errno, error.to_string())
    }
}

const fn request(command: u16, flags: u16, offset: u64, length: u64) -> Request {
    Request { flags, command, cookie: 0, offset, length }
}

fn changed() -> Error {
    Error::new(Kind::Changed, "the NBD server is back, but with another export: its size or what it can do has changed")
}

/// Tries until it works, fails for good, or `most` has passed.
fn retrying<T>(most: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let (mut pause, longest) = PAUSES;
    loop {
        match attempt() {
            Err(error) if error.is_transient() && started.elapsed() + pause <= most => {
                tracing::debug!(%error, ?pause, "trying again");
                thread::sleep(pause);
                pause = (pause * 2).min(longest);
            }
            result => return result,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
