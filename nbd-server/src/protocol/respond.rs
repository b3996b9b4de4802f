//! Answers to requests: calls the export and lays the reply out in a buffer, header and payload in one piece.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::constants::*;
use super::session::{Action, Request, Session};
use super::wire::fill;
use crate::export::{Error, Export};
use crate::limits::{MAX_EXTENTS, MAX_STRING, MIN_SPARSE_READ, SMALL_BUFFER};

mod extents;
mod runs;
#[cfg(test)]
mod tests;

use extents::Extents;
use runs::{Run, runs};

/// Bytes of a simple reply's header.
const SIMPLE: usize = 16;
/// Bytes of a chunk's header.
const CHUNK: usize = 20;
/// Bytes of the header of a chunk that holds data: the chunk's, and the offset.
const DATA_CHUNK: usize = 28;
/// Bytes of the header of a chunk that holds extents: the chunk's, and the context.
const STATUS_CHUNK: usize = 24;

/// Where replies go.
pub trait Wire {
    /// Sends all of `bytes`. With `more`, they end in the middle of a reply that cannot be interrupted, and the next call goes
    /// on with it; otherwise replies to other requests may come between.
    fn send(&mut self, bytes: &[u8], more: bool) -> io::Result<()>;
}

/// A buffer in which replies gather until they are sent. It never grows.
#[derive(Debug)]
pub struct Outbox {
    buffer: Vec<u8>,
    used: usize,
}

/// Appends the answer to `request` to `out`, which is sent as often as it is full, and otherwise left for the caller to flush.
///
/// Requests to disconnect have no answer. An error means that the connection cannot go on: the wire failed, or the export
/// did after half of a reply was out.
pub fn respond(
    session: &Session,
    export: &dyn Export,
    request: &Request,
    out: &mut Outbox,
    wire: &mut dyn Wire,
) -> io::Result<()> {
    let mut reply = Reply { structured: session.structured, export, request, out, wire };
    let result = match session.action(request) {
        Action::Disconnect => Ok(()),
        Action::Acknowledge => reply.acknowledge(),
        Action::Cache => reply.cache(),
        Action::BlockStatus { one } => reply.block_status(one),
        Action::Read { .. } if request.length == 0 => reply.acknowledge(),
        Action::Read { fragment: true } => reply.read_in_chunks(),
        Action::Read { fragment: false } => reply.read_in_one(),
        Action::Refuse(errno, why) => Err(Failure::Export(Error::new(errno, why), None)),
    };
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Export(error, offset)) => reply.error(&error, offset),
        Err(Failure::Wire(error)) => Err(error),
    }
}

impl Outbox {
    /// A buffer of `capacity` bytes, at least [`SMALL_BUFFER`].
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity.max(SMALL_BUFFER)], used: 0 }
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    const fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// Whether nothing waits to be sent.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Sends what waits.
    pub fn flush(&mut self, wire: &mut dyn Wire) -> io::Result<()> {
        self.send(wire, false)
    }

    fn send(&mut self, wire: &mut dyn Wire, more: bool) -> io::Result<()> {
        if self.used == 0 {
            return Ok(());
        }
        let used = std::mem::take(&mut self.used);
        wire.send(self.buffer.get(..used).unwrap_or_default(), more)
    }

    /// Room for `len` bytes behind those that wait, after sending them if it is needed. They count once committed.
    fn room(&mut self, len: usize, wire: &mut dyn Wire) -> io::Result<&mut [u8]> {
        if self.buffer.len().saturating_sub(self.used) < len {
            self.send(wire, false)?;
        }
        let free = self.buffer.get_mut(self.used..).unwrap_or_default();
        free.get_mut(..len).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    fn commit(&mut self, len: usize) {
        self.used = self.used.saturating_add(len).min(self.buffer.len());
    }

    fn put(&mut self, fields: &[&[u8]], wire: &mut dyn Wire) -> io::Result<()> {
        let len = fields.iter().map(|field| field.len()).sum();
        fill(self.room(len, wire)?, fields);
        self.commit(len);
        Ok(())
    }
}

/// Why a reply stopped.
enum Failure {
    /// The client can be told, and where.
    Export(Error, Option<u64>),
    /// It cannot.
    Wire(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Wire(error)
    }
}

struct Reply<'a> {
    structured: bool,
    export: &'a dyn Export,
    request: &'a Request,
    out: &'a mut Outbox,
    wire: &'a mut dyn Wire,
}

impl Reply<'_> {
    fn acknowledge(&mut self) -> Result<(), Failure> {
        let (simple, chunk) =
            (simple_header(self.request.cookie, 0), chunk_header(self.request.cookie, REPLY_TYPE_NONE, true, 0));
        let header: &[u8] = if self.structured { &chunk } else { &simple };
        Ok(self.out.put(&[header], self.wire)?)
    }

    fn error(&mut self, error: &Error, offset: Option<u64>) -> io::Result<()> {
        let errno = error.errno().number();
        if !self.structured {
            return self.out.put(&[&simple_header(self.request.cookie, errno)], self.wire);
        }
        let message = error.message();
        let message = message.get(..message.floor_char_boundary(MAX_STRING)).unwrap_or_default().as_bytes();
        let message_len = u16::try_from(message.len()).unwrap_or_default();
        let offset = offset.map(u64::to_be_bytes);
        let offset = offset.as_ref().map(|bytes| &bytes[..]).unwrap_or_default();
        let kind = if offset.is_empty() { REPLY_TYPE_ERROR } else { REPLY_TYPE_ERROR_OFFSET };
        let len = message.len().saturating_add(offset.len()).saturating_add(6);
        let header = chunk_header(self.request.cookie, kind, true, len);
        self.out.put(&[&header, &errno.to_be_bytes(), &message_len.to_be_bytes(), message, offset], self.wire)
    }

    fn cache(&mut self) -> Result<(), Failure> {
        let range = self.range();
        if !range.is_empty() {
            let prefetched = guarded(|| {
                self.export.prefetch(range);
                Ok(())
            });
            prefetched.map_err(|error| Failure::Export(error, None))?;
        }
        self.acknowledge()
    }

    /// A reply that may not be fragmented. If it is larger than the buffer it is streamed; then an error after the first piece
    /// has no way to the client but the end of the connection.
    fn read_in_one(&mut self) -> Result<(), Failure> {
        let header_len = if self.structured { DATA_CHUNK } else { SIMPLE };
        let mut offset = self.request.offset;
        let mut left = usize_of(self.request.length);

        let first = left.min(self.out.capacity().saturating_sub(header_len));
        let (header, payload) = split(self.out.room(header_len.saturating_add(first), self.wire)?, header_len)?;
        read(self.export, payload, offset).map_err(|error| Failure::Export(error, Some(offset)))?;
        if self.structured {
            let chunk = chunk_header(self.request.cookie, REPLY_TYPE_OFFSET_DATA, true, left.saturating_add(8));
            fill(header, &[&chunk, &offset.to_be_bytes()]);
        } else {
            fill(header, &[&simple_header(self.request.cookie, 0)]);
        }
        self.out.commit(header_len.saturating_add(first));

        let mut piece = first;
        while piece < left {
            self.out.send(self.wire, true)?;
            left = left.saturating_sub(piece);
            offset = offset.saturating_add(u64_of(piece));
            piece = left.min(self.out.capacity());
            read(self.export, self.out.room(piece, self.wire)?, offset).map_err(io::Error::other)?;
            self.out.commit(piece);
        }
        if first < usize_of(self.request.length) {
            self.out.flush(self.wire)?;
        }
        Ok(())
    }

    fn read_in_chunks(&mut self) -> Result<(), Failure> {
        let runs = if self.request.length < MIN_SPARSE_READ {
            vec![Run { length: u64::from(self.request.length), zero: false }]
        } else {
            runs(self.export, self.range())
        };
        let mut offset = self.request.offset;
        let mut runs = runs.into_iter().peekable();
        while let Some(run) = runs.next() {
            let last = runs.peek().is_none();
            if run.zero {
                let header = chunk_header(self.request.cookie, REPLY_TYPE_OFFSET_HOLE, last, 12);
                let length = u32::try_from(run.length).unwrap_or(u32::MAX);
                self.out.put(&[&header, &offset.to_be_bytes(), &length.to_be_bytes()], self.wire)?;
            } else {
                self.data_chunks(offset, run.length, last)?;
            }
            offset = offset.saturating_add(run.length);
        }
        Ok(())
    }

    fn data_chunks(&mut self, mut offset: u64, length: u64, last: bool) -> Result<(), Failure> {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        while left > 0 {
            let piece = left.min(self.out.capacity().saturating_sub(DATA_CHUNK));
            left = left.saturating_sub(piece);
            let chunk =
                chunk_header(self.request.cookie, REPLY_TYPE_OFFSET_DATA, last && left == 0, piece.saturating_add(8));
            let (header, payload) = split(self.out.room(piece.saturating_add(DATA_CHUNK), self.wire)?, DATA_CHUNK)?;
            read(self.export, payload, offset).map_err(|error| Failure::Export(error, Some(offset)))?;
            fill(header, &[&chunk, &offset.to_be_bytes()]);
            self.out.commit(piece.saturating_add(DATA_CHUNK));
            offset = offset.saturating_add(u64_of(piece));
        }
        Ok(())
    }

    fn block_status(&mut self, one: bool) -> Result<(), Failure> {
        let range = self.range();
        let most = if one { 1 } else { usize_of(MAX_EXTENTS) };
        let area = self.out.room(most.saturating_mul(8).saturating_add(STATUS_CHUNK), self.wire)?;
        let (header, area) = split(area, STATUS_CHUNK)?;
        let mut extents = Extents::new(&range, area);
        guarded(|| self.export.extents(range, &mut |extent| extents.add(extent)))
            .map_err(|error| Failure::Export(error, None))?;
        let len = extents.finish().saturating_mul(8);
        let chunk = chunk_header(self.request.cookie, REPLY_TYPE_BLOCK_STATUS, true, len.saturating_add(4));
        fill(header, &[&chunk, &Session::ALLOCATION_CONTEXT.to_be_bytes()]);
        self.out.commit(len.saturating_add(STATUS_CHUNK));
        Ok(())
    }

    fn range(&self) -> Range<u64> {
        self.request.offset..self.request.offset.saturating_add(u64::from(self.request.length))
    }
}

/// Reads all of `buf`. Tests find bytes that the export did not fill, since debug builds poison them.
fn read(export: &dyn Export, buf: &mut [u8], offset: u64) -> Result<(), Error> {
    if buf.is_empty() {
        return Ok(());
    }
    if cfg!(debug_assertions) {
        buf.fill(0xa5);
    }
    guarded(|| export.read_at(buf, offset))
}

/// Calls the export. A panic there is an error of this request and of no other.
fn guarded(call: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| Err(Error::io("internal error")))
}

fn simple_header(cookie: u64, errno: u32) -> [u8; SIMPLE] {
    let mut header = [0; SIMPLE];
    fill(&mut header, &[&SIMPLE_REPLY_MAGIC.to_be_bytes(), &errno.to_be_bytes(), &cookie.to_be_bytes()]);
    header
}

/// The header of a chunk with `len` bytes after it.
fn chunk_header(cookie: u64, kind: u16, last: bool, len: usize) -> [u8; CHUNK] {
    let mut header = [0; CHUNK];
    let flags = if last { REPLY_FLAG_DONE } else { 0 };
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let (flags, kind, cookie, len) = (flags.to_be_bytes(), kind.to_be_bytes(), cookie.to_be_bytes(), len.to_be_bytes());
    fill(&mut header, &[&STRUCTURED_REPLY_MAGIC.to_be_bytes(), &flags, &kind, &cookie, &len]);
    header
}

fn split(area: &mut [u8], at: usize) -> io::Result<(&mut [u8], &mut [u8])> {
    area.split_at_mut_checked(at).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn usize_of(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn u64_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
