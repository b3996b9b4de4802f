//! One connection to a server, used by many threads at once.
//!
//! There is no thread of its own: of the callers that wait for replies, one reads them for all, its own straight to where they belong.
//! When it has its own, another takes over. So a request alone costs two system calls and no change of thread.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::error::{Error, Kind, Result};
use super::watch::Watch;
use crate::export::Status;
use crate::limits::{CLIENT_NAP, FLUSH_PATIENCE, MAX_IN_FLIGHT, SLOWEST};
use crate::protocol::constants::{CMD_DISC, CMD_FLUSH};
use crate::protocol::{Assembly, Body, ReplyHeader, Request, Take, Terms, Want};
use crate::stream::{Stream, is_wait};

/// Payloads up to this length are sent together with their request.
const JOINED: usize = 64 << 10;

/// How long a caller sleeps before it looks whether there is still somebody who reads replies.
const PARKED: Duration = Duration::from_secs(1);

/// Extents of a block status reply, by context.
pub(super) type Statuses = Vec<(u32, Vec<Status>)>;

pub(super) struct Connection {
    stream: Stream,
    pub(super) terms: Terms,
    watch: Watch,
    /// Held while a request is being sent.
    sending: Mutex<Vec<u8>>,
    state: Mutex<State>,
    room: Condvar,
    incoming: Mutex<Incoming>,
    /// A write has been acknowledged that no flush has covered.
    pub(super) unflushed: AtomicBool,
}

struct State {
    slots: HashMap<u64, Slot>,
    next: u64,
    /// Bytes of data in flight, either way.
    bytes: u64,
    /// Somebody reads replies.
    led: bool,
    /// Why nothing more is sent.
    dead: Option<Error>,
    /// Nothing more is received either.
    ended: bool,
}

/// A request in flight.
struct Slot {
    /// Bytes of data, either way.
    bytes: u64,
    /// Elsewhere while a part of the reply is being read.
    assembly: Option<Assembly>,
    /// Data that another thread has read.
    data: Vec<u8>,
    result: Option<Result<Statuses>>,
    /// Who waits, once it does.
    waiter: Option<Thread>,
}

impl Connection {
    /// # Errors
    /// If the socket takes no settings any more.
    pub(super) fn new(stream: Stream, terms: Terms, watch: Watch) -> Result<Self> {
        stream.set_wait(watch.patience.min(CLIENT_NAP))?;
        Ok(Self {
            stream,
            terms,
            watch,
            sending: Mutex::default(),
            state: Mutex::new(State { slots: HashMap::new(), next: 0, bytes: 0, led: false, dead: None, ended: false }),
            room: Condvar::new(),
            incoming: Mutex::new(Incoming { buffer: vec![0; 64 << 10], start: 0, end: 0 }),
            unflushed: AtomicBool::new(false),
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        lock(&self.state).dead.is_some()
    }

    fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    /// Requests in flight.
    pub(super) fn load(&self) -> usize {
        lock(&self.state).slots.len()
    }

    /// Sends a request and waits for its reply; data goes to `buf`, which has just the right length.
    pub(super) fn call(&self, request: Request, payload: &[u8], want: Want, buf: &mut [u8]) -> Result<Statuses> {
        self.call_partly(request, payload, want, buf).1
    }

    /// As [`Self::call`]; after an error, tells how many bytes from the front of `buf` came before it.
    pub(super) fn call_partly(
        &self,
        mut request: Request,
        payload: &[u8],
        want: Want,
        buf: &mut [u8],
    ) -> (usize, Result<Statuses>) {
        let patience = match request.command {
            CMD_FLUSH => self.watch.patience.saturating_mul(FLUSH_PATIENCE),
            _ => self.watch.patience,
        };
        let bytes = (payload.len() + buf.len()) as u64;
        let (cookie, in_flight) = match self.register(Assembly::new(request.offset, want), bytes) {
            Ok(registered) => registered,
            Err(error) => return (0, Err(error)),
        };
        request.cookie = cookie;
        let deadline = Instant::now() + patience + Duration::from_secs(in_flight / SLOWEST);
        if let Err(error) = self.send(&request, payload) {
            self.close(error.into());
        }
        self.wait(cookie, buf, &Limits { deadline, patience })
    }

    /// Tells the server that nothing more comes.
    pub(super) fn say_goodbye(&self) {
        let request = Request { flags: 0, command: CMD_DISC, cookie: 0, offset: 0, length: 0 };
        if !self.is_dead() && self.load() == 0 {
            let _ = self.send(&request, &[]);
        }
        self.kill(Error::new(Kind::Lost, "the connection is closed"));
    }

    /// Gives the request's name, and the bytes of data in flight with its own.
    fn register(&self, assembly: Assembly, bytes: u64) -> Result<(u64, u64)> {
        let mut state = lock(&self.state);
        while state.slots.len() >= MAX_IN_FLIGHT && state.dead.is_none() {
            let waited = self.room.wait_timeout(state, CLIENT_NAP).unwrap_or_else(PoisonError::into_inner);
            state = waited.0;
            self.watch.check_stop()?;
        }
        if let Some(error) = &state.dead {
            return Err(error.clone());
        }
        let cookie = state.next;
        state.next += 1;
        state.bytes += bytes;
        let slot = Slot { bytes, assembly: Some(assembly), data: Vec::new(), result: None, waiter: None };
        state.slots.insert(cookie, slot);
        Ok((cookie, state.bytes))
    }

    fn send(&self, request: &Request, payload: &[u8]) -> io::Result<()> {
        let mut bytes = lock(&self.sending);
        bytes.clear();
        request.append_to(self.terms.style, &mut bytes);
        let patient =
            |since| self.watch.check(since, self.watch.patience).map_err(|error| io::Error::other(error.clone()));
        if payload.len() <= JOINED {
            bytes.extend_from_slice(payload);
            return self.stream.send_while(&bytes, &patient);
        }
        self.stream.send_while(&bytes, &patient)?;
        self.stream.send_while(payload, &patient)
    }

    fn wait(&self, cookie: u64, buf: &mut [u8], limits: &Limits) -> (usize, Result<Statuses>) {
        loop {
            let mut state = lock(&self.state);
            let (dead, led) = (state.dead.clone().filter(|_| state.ended), state.led);
            let Some(slot) = state.slots.get_mut(&cookie) else { return (0, Err(lost())) };
            // Whoever reads replies may be at this one, and gives it back at once.
            let result = slot.result.take().or_else(|| dead.filter(|_| !led).map(Err));
            if let Some(result) = result {
                let mut came = buf.len();
                if let Some(slot) = state.slots.remove(&cookie) {
                    if result.is_err() {
                        came = slot.assembly.as_ref().map_or(0, Assembly::front).min(buf.len());
                    }
                    // If it was us who read it, the data is in place already.
                    if slot.data.len() == buf.len() {
                        buf[..came].copy_from_slice(&slot.data[..came]);
                    }
                    state.bytes = state.bytes.saturating_sub(slot.bytes);
                }
                self.room.notify_one();
                let next = if state.led { None } else { state.next_waiter() };
                drop(state);
                next.inspect(Thread::unpark);
                return (came, result);
            }
            if led {
                slot.waiter.get_or_insert_with(thread::current);
                drop(state);
                thread::park_timeout(PARKED);
                continue;
            }
            slot.waiter = None;
            state.led = true;
            drop(state);
            let lead = Lead(self);
            let led = self.lead(cookie, buf, limits);
            if let Err(error) = led {
                self.kill(error);
            }
            drop(lead);
            // Those who saw that the connection has ended and waited for us to stop.
            if self.has_ended() {
                self.wake_all();
            }
        }
    }

    /// Reads replies until that of `own` is complete.
    fn lead(&self, own: u64, buf: &mut [u8], limits: &Limits) -> Result<()> {
        let mut incoming = lock(&self.incoming);
        let (stream, watch) = (&self.stream, &self.watch);
        let mut source = Source { incoming: &mut incoming, stream, watch, limits, heard: Instant::now() };
        loop {
            let header = source.header(&self.terms)?;
            let (mut assembly, mut data) = {
                let mut state = lock(&self.state);
                let slot = state.slots.get_mut(&header.cookie).filter(|slot| slot.result.is_none());
                let slot = slot.ok_or_else(|| Error::protocol("a reply to nothing"))?;
                let assembly = slot.assembly.take().ok_or_else(|| Error::protocol("a reply to nothing"))?;
                (assembly, std::mem::take(&mut slot.data))
            };
            let is_own = header.cookie == own;
            // What another leader began goes on where it began.
            let direct = is_own && data.is_empty();
            if !direct && data.is_empty() {
                data.resize(assembly.data_len(), 0);
            }
            let target = if direct { &mut *buf } else { &mut data[..] };
            let last = source.body(self.terms.style, &mut assembly, header.body, target);
            let mut state = lock(&self.state);
            let Some(slot) = state.slots.get_mut(&header.cookie) else { return Err(lost()) };
            slot.data = data;
            if !matches!(last, Ok(true)) {
                slot.assembly = Some(assembly);
                drop(state);
                last?;
                continue;
            }
            let result = assembly.end();
            let violation = result.as_ref().err().filter(|error| error.kind() == Kind::Protocol).cloned();
            slot.result = Some(result);
            if let Some(waiter) = &slot.waiter {
                waiter.unpark();
            }
            drop(state);
            if let Some(error) = violation {
                return Err(error);
            }
            if is_own {
                return Ok(());
            }
        }
    }

    /// Sends no more, because of `error`. A server that is gone may have answered before: what is on its way still comes.
    fn close(&self, error: Error) {
        if error.kind() != Kind::Lost {
            return self.kill(error);
        }
        lock(&self.state).dead.get_or_insert(error);
        self.room.notify_all();
        self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection for everyone.
    fn kill(&self, error: Error) {
        let mut state = lock(&self.state);
        state.dead.get_or_insert(error);
        state.ended = true;
        drop(state);
        self.wake_all();
        self.stream.shutdown(Shutdown::Both);
    }

    fn wake_all(&self) {
        let state = lock(&self.state);
        for slot in state.slots.values() {
            slot.waiter.as_ref().inspect(|waiter| waiter.unpark());
        }
        drop(state);
        self.room.notify_all();
    }
}

impl State {
    /// Somebody who waits and can read replies from now on.
    fn next_waiter(&self) -> Option<Thread> {
        self.slots.values().filter(|slot| slot.result.is_none()).find_map(|slot| slot.waiter.clone())
    }
}

/// Whoever reads replies for all; lets another do it at the end.
struct Lead<'a>(&'a Connection);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).led = false;
    }
}

/// Received bytes that have not been looked at.
struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// How long a request may take.
struct Limits {
    /// All of it.
    deadline: Instant,
    /// Silence of the server.
    patience: Duration,
}

/// Where replies come from.
struct Source<'a> {
    incoming: &'a mut Incoming,
    stream: &'a Stream,
    watch: &'a Watch,
    limits: &'a Limits,
    /// When something came, or the wait began.
    heard: Instant,
}

impl Source<'_> {
    fn header(&mut self, terms: &Terms) -> Result<ReplyHeader> {
        let mut header = [0; ReplyHeader::MAX];
        self.fill(&mut header[..16])?;
        let len = ReplyHeader::len(terms.style, &header)?;
        self.fill(&mut header[16..len])?;
        ReplyHeader::parse(&header[..len]).ok_or_else(|| Error::protocol("a reply does not begin like one"))
    }

    /// Takes what follows a header; returns whether the reply ends with it.
    fn body(
        &mut self,
        style: crate::protocol::Style,
        assembly: &mut Assembly,
        body: Body,
        data: &mut [u8],
    ) -> Result<bool> {
        let (take, last) = assembly.begin(style, body)?;
        match take {
            Take::Nothing => {}
            Take::All => self.place(assembly, 0..data.len(), data)?,
            Take::Data(len) => {
                let mut offset = [0; 8];
                self.fill(&mut offset)?;
                let place = assembly.data(u64::from_be_bytes(offset), len)?;
                self.place(assembly, place, data)?;
            }
            Take::Digest(len) => {
                let mut bytes = vec![0; len];
                self.fill(&mut bytes)?;
                if let Some(hole) = assembly.digest(body, &bytes)? {
                    data.get_mut(hole).ok_or_else(lost)?.fill(0);
                }
            }
        }
        Ok(last)
    }

    /// Fills a part of a read's data; what does not come is not counted as come.
    fn place(&mut self, assembly: &mut Assembly, place: Range<usize>, data: &mut [u8]) -> Result<()> {
        let part = data.get_mut(place.clone()).ok_or_else(lost)?;
        let (filled, result) = self.fill_partly(part);
        if result.is_err() {
            assembly.lose(place.start + filled..place.end);
        }
        result
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<()> {
        self.fill_partly(buf).1
    }

    /// Fills `buf`, and says how much of it.
    fn fill_partly(&mut self, buf: &mut [u8]) -> (usize, Result<()>) {
        let mut filled = 0;
        while filled < buf.len() {
            match self.next(&mut buf[filled..]) {
                Ok(len) => filled += len,
                Err(error) => return (filled, Err(error)),
            }
        }
        (filled, Ok(()))
    }

    /// Some more bytes.
    fn next(&mut self, buf: &mut [u8]) -> Result<usize> {
        if self.incoming.start == self.incoming.end {
            if buf.len() >= self.incoming.buffer.len() {
                return self.receive(buf);
            }
            let mut buffer = std::mem::take(&mut self.incoming.buffer);
            let received = self.receive(&mut buffer);
            self.incoming.buffer = buffer;
            (self.incoming.start, self.incoming.end) = (0, received?);
        }
        let at_hand = &self.incoming.buffer[self.incoming.start..self.incoming.end];
        let len = at_hand.len().min(buf.len());
        buf[..len].copy_from_slice(&at_hand[..len]);
        self.incoming.start += len;
        Ok(len)
    }

    /// Waits for bytes, though not for ever.
    fn receive(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            if Instant::now() >= self.limits.deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            match self.stream.receive(buf) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok(len) => {
                    self.heard = Instant::now();
                    return Ok(len);
                }
                Err(error) if is_wait(&error) => self.watch.check(self.heard, self.limits.patience)?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn lost() -> Error {
    Error::new(Kind::Lost, "the connection to the NBD server broke")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
