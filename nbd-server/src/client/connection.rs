//! One connection to a server, used by many threads at once.
//!
//! There is no thread of its own: of the callers that wait for replies, one reads them for all, its own straight to where they belong.
//! When it has its own, another takes over. So a request alone costs two system calls and no change of thread.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::error::{Error, Kind, Result};
use crate::export::Status;
use crate::limits::MAX_IN_FLIGHT;
use crate::protocol::constants::CMD_DISC;
use crate::protocol::{Assembly, Body, ReplyHeader, Request, Take, Terms, Want};
use crate::stream::Stream;

/// Payloads up to this length are sent together with their request.
const JOINED: usize = 64 << 10;

/// How long a caller sleeps before it looks whether there is still somebody who reads replies.
const PARKED: Duration = Duration::from_secs(1);

/// Extents of a block status reply, by context.
pub(super) type Statuses = Vec<(u32, Vec<Status>)>;

pub(super) struct Connection {
    stream: Stream,
    pub(super) terms: Terms,
    /// Longest time that a reply may take.
    patience: Duration,
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
    /// Somebody reads replies.
    led: bool,
    dead: Option<Error>,
}

/// A request in flight.
struct Slot {
    /// Elsewhere while a part of the reply is being read.
    assembly: Option<Assembly>,
    /// Data that another thread has read.
    data: Vec<u8>,
    result: Option<Result<Statuses>>,
    /// Who waits, once it does.
    waiter: Option<Thread>,
}

impl Connection {
    pub(super) fn new(stream: Stream, terms: Terms, patience: Duration) -> Self {
        Self {
            stream,
            terms,
            patience,
            sending: Mutex::default(),
            state: Mutex::new(State { slots: HashMap::new(), next: 0, led: false, dead: None }),
            room: Condvar::new(),
            incoming: Mutex::new(Incoming { buffer: vec![0; 64 << 10], start: 0, end: 0 }),
            unflushed: AtomicBool::new(false),
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        lock(&self.state).dead.is_some()
    }

    /// Requests in flight.
    pub(super) fn load(&self) -> usize {
        lock(&self.state).slots.len()
    }

    /// Sends a request and waits for its reply; data goes to `buf`, which has just the right length.
    pub(super) fn call(&self, mut request: Request, payload: &[u8], want: Want, buf: &mut [u8]) -> Result<Statuses> {
        let deadline = Instant::now() + self.patience;
        request.cookie = self.register(Assembly::new(request.offset, want))?;
        let sent = self.send(&request, payload);
        if let Err(error) = sent {
            self.kill(error.into());
        }
        self.wait(request.cookie, buf, deadline)
    }

    /// Tells the server that nothing more comes.
    pub(super) fn say_goodbye(&self) {
        let request = Request { flags: 0, command: CMD_DISC, cookie: 0, offset: 0, length: 0 };
        if !self.is_dead() && self.load() == 0 {
            let _ = self.send(&request, &[]);
        }
        self.kill(Error::new(Kind::Lost, "the connection is closed"));
    }

    fn register(&self, assembly: Assembly) -> Result<u64> {
        let mut state = lock(&self.state);
        while state.slots.len() >= MAX_IN_FLIGHT && state.dead.is_none() {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &state.dead {
            return Err(error.clone());
        }
        let cookie = state.next;
        state.next += 1;
        state.slots.insert(cookie, Slot { assembly: Some(assembly), data: Vec::new(), result: None, waiter: None });
        Ok(cookie)
    }

    fn send(&self, request: &Request, payload: &[u8]) -> io::Result<()> {
        let mut bytes = lock(&self.sending);
        bytes.clear();
        request.append_to(self.terms.style, &mut bytes);
        if payload.len() <= JOINED {
            bytes.extend_from_slice(payload);
            return self.stream.send(&bytes);
        }
        self.stream.send(&bytes)?;
        self.stream.send(payload)
    }

    fn wait(&self, cookie: u64, buf: &mut [u8], deadline: Instant) -> Result<Statuses> {
        loop {
            let mut state = lock(&self.state);
            let (dead, led) = (state.dead.clone(), state.led);
            let Some(slot) = state.slots.get_mut(&cookie) else { return Err(lost()) };
            let result = slot.result.take().or_else(|| dead.map(Err));
            if let Some(result) = result {
                // If it was us who read it, the data is in place already.
                if let Some(slot) = state.slots.remove(&cookie)
                    && result.is_ok()
                    && slot.data.len() == buf.len()
                {
                    buf.copy_from_slice(&slot.data);
                }
                self.room.notify_one();
                let next = if state.led { None } else { state.next_waiter() };
                drop(state);
                next.inspect(Thread::unpark);
                return result;
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
            let led = self.lead(cookie, buf, deadline);
            if let Err(error) = led {
                self.kill(error);
            }
            drop(lead);
        }
    }

    /// Reads replies until that of `own` is complete.
    fn lead(&self, own: u64, buf: &mut [u8], deadline: Instant) -> Result<()> {
        let mut incoming = lock(&self.incoming);
        let mut source = Source { incoming: &mut incoming, stream: &self.stream, deadline };
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
            let last = source.body(self.terms.style, &mut assembly, header.body, target)?;
            let mut state = lock(&self.state);
            let Some(slot) = state.slots.get_mut(&header.cookie) else { return Err(lost()) };
            if !last {
                slot.assembly = Some(assembly);
                slot.data = data;
                continue;
            }
            slot.data = data;
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

    /// Ends the connection for everyone.
    fn kill(&self, error: Error) {
        let mut state = lock(&self.state);
        state.dead.get_or_insert(error);
        for slot in state.slots.values() {
            slot.waiter.as_ref().inspect(|waiter| waiter.unpark());
        }
        drop(state);
        self.room.notify_all();
        self.stream.shutdown(Shutdown::Both);
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

/// Where replies come from.
struct Source<'a> {
    incoming: &'a mut Incoming,
    stream: &'a Stream,
    deadline: Instant,
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
            Take::All => self.fill(data)?,
            Take::Data(len) => {
                let mut offset = [0; 8];
                self.fill(&mut offset)?;
                let place = assembly.data(u64::from_be_bytes(offset), len)?;
                self.fill(data.get_mut(place).ok_or_else(lost)?)?;
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

    fn fill(&mut self, mut buf: &mut [u8]) -> Result<()> {
        while !buf.is_empty() {
            let at_hand = &self.incoming.buffer[self.incoming.start..self.incoming.end];
            let len = if !at_hand.is_empty() {
                let len = at_hand.len().min(buf.len());
                buf[..len].copy_from_slice(&at_hand[..len]);
                self.incoming.start += len;
                len
            } else if buf.len() >= self.incoming.buffer.len() {
                self.receive(buf)?
            } else {
                let mut buffer = std::mem::take(&mut self.incoming.buffer);
                let received = self.receive(&mut buffer);
                self.incoming.buffer = buffer;
                (self.incoming.start, self.incoming.end) = (0, received?);
                continue;
            };
            buf = &mut buf[len..];
        }
        Ok(())
    }

    /// Waits for bytes, though not for ever.
    fn receive(&self, buf: &mut [u8]) -> Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        match self.stream.receive(buf)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            len => Ok(len),
        }
    }
}

fn lost() -> Error {
    Error::new(Kind::Lost, "the connection to the NBD server broke")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
