//! Answers to requests: calls the export and lays the reply out in a buffer, header and payload in one piece.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::constants::*;
use super::session::{Action, Request, Session, Style};
use super::wire::fill;
use crate::export::{Combine, Errno, Error, Export, Status, Zero};
use crate::limits::{MAX_EXTENTS, MAX_STRING, MAX_WRITTEN_ZEROS, MIN_SPARSE_READ, SMALL_BUFFER};

mod extents;
mod runs;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod write_tests;

use extents::{Extents, Layout};
use runs::{Run, runs};

/// Bytes of a simple reply's header.
const SIMPLE: usize = 16;

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

/// Appends the answer to `request`, whose payload was `payload`, to `out`, which is sent as often as it is full, and otherwise left for
/// the caller to flush.
///
/// Requests to disconnect have no answer. An error means that the connection cannot go on: the wire failed, or the export
/// did after half of a reply was out.
pub fn respond(
    session: &Session,
    export: &dyn Export,
    request: &Request,
    payload: &[u8],
    out: &mut Outbox,
    wire: &mut dyn Wire,
) -> io::Result<()> {
    let mut reply = Reply { style: session.style, export, request, out, wire };
    let range = request.range();
    let result = match session.action(request, payload) {
        Action::Disconnect => Ok(()),
        Action::BlockStatus { one, length, contexts } => reply.block_status(session, one, length, contexts),
        Action::Refuse(errno, why) => Err(Failure::Export(Error::new(errno, why), None)),
        Action::Flush => reply.tell(guarded(|| export.flush())),
        _ if request.length == 0 => reply.tell(Ok(())),
        Action::Cache => reply.tell(guarded(|| {
            export.prefetch(range);
            Ok(())
        })),
        Action::Read { fragment: true } => reply.read_in_chunks(),
        Action::Read { fragment: false } => reply.read_in_one(),
        Action::Write { fua } => {
            let written = guarded(|| export.write_at(payload, request.offset));
            reply.tell(written.and_then(|()| persist(export, range, fua)))
        }
        Action::Zero { how, fua } => {
            reply.tell(zero(export, range.clone(), how).and_then(|()| persist(export, range, fua)))
        }
        Action::Trim { fua } => {
            let trimmed = guarded(|| export.trim(range.clone()));
            reply.tell(trimmed.and_then(|()| persist(export, range, fua)))
        }
    };
    reply.end(result)
}

/// The answer to a request that somebody else has carried out: done, or an error. As [`respond`] otherwise.
pub fn conclude(
    session: &Session,
    export: &dyn Export,
    request: &Request,
    result: Result<(), Error>,
    out: &mut Outbox,
    wire: &mut dyn Wire,
) -> io::Result<()> {
    let mut reply = Reply { style: session.style, export, request, out, wire };
    let result = reply.tell(result);
    reply.end(result)
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
    style: Style,
    export: &'a dyn Export,
    request: &'a Request,
    out: &'a mut Outbox,
    wire: &'a mut dyn Wire,
}

/// The header of a simple reply or of a chunk.
struct Header {
    bytes: [u8; 32],
    len: usize,
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// The header of a simple reply.
fn simple(request: &Request, errno: u32) -> Header {
    let mut bytes = [0; 32];
    fill(&mut bytes, &[&SIMPLE_REPLY_MAGIC.to_be_bytes(), &errno.to_be_bytes(), &request.cookie.to_be_bytes()]);
    Header { bytes, len: SIMPLE }
}

/// The header of a chunk with `len` bytes after it.
fn chunk(style: Style, request: &Request, kind: u16, last: bool, len: usize) -> Header {
    let mut bytes = [0; 32];
    let flags = if last { REPLY_FLAG_DONE } else { 0 };
    let (flags, kind, cookie) = (flags.to_be_bytes(), kind.to_be_bytes(), request.cookie.to_be_bytes());
    if style == Style::Extended {
        let (offset, len) = (request.offset.to_be_bytes(), u64_of(len).to_be_bytes());
        fill(&mut bytes, &[&EXTENDED_REPLY_MAGIC.to_be_bytes(), &flags, &kind, &cookie, &offset, &len]);
        return Header { bytes, len: 32 };
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    fill(&mut bytes, &[&STRUCTURED_REPLY_MAGIC.to_be_bytes(), &flags, &kind, &cookie, &len]);
    Header { bytes, len: 20 }
}

impl Reply<'_> {
    fn tell(&mut self, result: Result<(), Error>) -> Result<(), Failure> {
        result.map_err(|error| Failure::Export(error, None))?;
        let header = match self.style {
            Style::Simple => simple(self.request, 0),
            style => chunk(style, self.request, REPLY_TYPE_NONE, true, 0),
        };
        Ok(self.out.put(&[header.as_ref()], self.wire)?)
    }

    fn end(&mut self, result: Result<(), Failure>) -> io::Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(Failure::Export(error, offset)) => self.error(&error, offset),
            Err(Failure::Wire(error)) => Err(error),
        }
    }

    fn error(&mut self, error: &Error, offset: Option<u64>) -> io::Result<()> {
        let errno = error.errno().number();
        if self.style == Style::Simple {
            return self.out.put(&[simple(self.request, errno).as_ref()], self.wire);
        }
        let message = error.message();
        let message = message.get(..message.floor_char_boundary(MAX_STRING)).unwrap_or_default().as_bytes();
        let message_len = u16::try_from(message.len()).unwrap_or_default();
        let offset = offset.map(u64::to_be_bytes);
        let offset = offset.as_ref().map(|bytes| &bytes[..]).unwrap_or_default();
        let kind = if offset.is_empty() { REPLY_TYPE_ERROR } else { REPLY_TYPE_ERROR_OFFSET };
        let len = message.len().saturating_add(offset.len()).saturating_add(6);
        let header = chunk(self.style, self.request, kind, true, len);
        let fields = [header.as_ref(), &errno.to_be_bytes(), &message_len.to_be_bytes(), message, offset];
        self.out.put(&fields, self.wire)
    }

    /// Bytes of a chunk's header.
    const fn chunk_len(&self) -> usize {
        match self.style {
            Style::Extended => 32,
            _ => 20,
        }
    }

    /// Bytes of the header of a chunk that holds data: the chunk's, and the offset.
    const fn data_header_len(&self) -> usize {
        self.chunk_len().saturating_add(8)
    }

    /// A reply that may not be fragmented. If it is larger than the buffer it is streamed; then an error after the first piece
    /// has no way to the client but the end of the connection.
    fn read_in_one(&mut self) -> Result<(), Failure> {
        let header_len = if self.style == Style::Simple { SIMPLE } else { self.data_header_len() };
        let mut offset = self.request.offset;
        let mut left = usize_of(self.request.length);
        let whole = match self.style {
            Style::Simple => simple(self.request, 0),
            style => chunk(style, self.request, REPLY_TYPE_OFFSET_DATA, true, left.saturating_add(8)),
        };

        let first = left.min(self.out.capacity().saturating_sub(header_len));
        let (header, payload) = split(self.out.room(header_len.saturating_add(first), self.wire)?, header_len)?;
        read(self.export, payload, offset).map_err(|error| Failure::Export(error, Some(offset)))?;
        fill(header, &[whole.as_ref(), &offset.to_be_bytes()]);
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
        let runs = if self.request.length < u64::from(MIN_SPARSE_READ) {
            vec![Run { length: self.request.length, zero: false }]
        } else {
            runs(self.export, self.request.range())
        };
        let mut offset = self.request.offset;
        let mut runs = runs.into_iter().peekable();
        while let Some(run) = runs.next() {
            let last = runs.peek().is_none();
            if run.zero {
                let header = chunk(self.style, self.request, REPLY_TYPE_OFFSET_HOLE, last, 12);
                let length = u32::try_from(run.length).unwrap_or(u32::MAX);
                self.out.put(&[header.as_ref(), &offset.to_be_bytes(), &length.to_be_bytes()], self.wire)?;
            } else {
                self.data_chunks(offset, run.length, last)?;
            }
            offset = offset.saturating_add(run.length);
        }
        Ok(())
    }

    fn data_chunks(&mut self, mut offset: u64, length: u64, last: bool) -> Result<(), Failure> {
        let header_len = self.data_header_len();
        let mut left = usize_of(length);
        while left > 0 {
            let piece = left.min(self.out.capacity().saturating_sub(header_len));
            left = left.saturating_sub(piece);
            let chunk =
                chunk(self.style, self.request, REPLY_TYPE_OFFSET_DATA, last && left == 0, piece.saturating_add(8));
            let all = piece.saturating_add(header_len);
            let (header, payload) = split(self.out.room(all, self.wire)?, header_len)?;
            read(self.export, payload, offset).map_err(|error| Failure::Export(error, Some(offset)))?;
            fill(header, &[chunk.as_ref(), &offset.to_be_bytes()]);
            self.out.commit(all);
            offset = offset.saturating_add(u64_of(piece));
        }
        Ok(())
    }

    /// One chunk for each context. An error after the first ends the reply just as well.
    fn block_status(&mut self, session: &Session, one: bool, length: u64, contexts: u64) -> Result<(), Failure> {
        let range = self.request.offset..self.request.offset.saturating_add(length);
        let own = if contexts > 1 { catch_unwind(AssertUnwindSafe(|| self.export.contexts())).ok() } else { None };
        let own = own.unwrap_or_default();
        let mut left = contexts.count_ones();
        for (number, index) in Session::numbers(contexts) {
            left = left.saturating_sub(1);
            let combine = index.map_or(Combine::All, |at| own.get(at).map_or(Combine::Any, |context| context.combine));
            let max = if one { 1 } else { usize_of(u64::from(MAX_EXTENTS)) };
            let layout = Layout { wide: self.style == Style::Extended, block: session.minimum_block, combine };
            self.status_chunk(range.clone(), (number, index), max, layout, left == 0)?;
        }
        Ok(())
    }

    fn status_chunk(
        &mut self,
        range: Range<u64>,
        (number, index): (u32, Option<usize>),
        max: usize,
        layout: Layout,
        last: bool,
    ) -> Result<(), Failure> {
        // The chunk's header, the number of the context, and with extended headers the number of extents.
        let counted = if layout.wide { 8 } else { 4 };
        let header_len = self.chunk_len().saturating_add(counted);
        let size = layout.extent_size();
        let area = self.out.room(max.saturating_mul(size).saturating_add(header_len), self.wire)?;
        let (header, area) = split(area, header_len)?;
        let mut extents = Extents::new(&range, area, layout);
        let (style, request, export) = (self.style, self.request, self.export);
        let told = guarded(|| match index {
            None => export.extents(range, &mut |extent| {
                extents.add(Status { length: extent.length, flags: u64::from(extent.kind.flags()) })
            }),
            Some(index) => export.status(index, range, &mut |status| extents.add(status)),
        });
        told.map_err(|error| Failure::Export(error, None))?;
        let count = extents.finish();
        let len = count.saturating_mul(size);
        let count = u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes();
        let kind = if layout.wide { REPLY_TYPE_BLOCK_STATUS_EXT } else { REPLY_TYPE_BLOCK_STATUS };
        let number = number.to_be_bytes();
        let count: &[u8] = if layout.wide { &count } else { &[] };
        let chunk = chunk(style, request, kind, last, len.saturating_add(counted));
        fill(header, &[chunk.as_ref(), &number, count]);
        self.out.commit(len.saturating_add(header_len));
        Ok(())
    }
}

/// Zeros a range, by writing if the export knows no better way and the client agrees.
fn zero(export: &dyn Export, range: Range<u64>, how: Zero) -> Result<(), Error> {
    match guarded(|| export.zero(range.clone(), how)) {
        Err(error) if error.errno() == Errno::NotSup && !how.fast => write_zeros(export, range),
        result => result,
    }
}

fn write_zeros(export: &dyn Export, range: Range<u64>) -> Result<(), Error> {
    if range.end.saturating_sub(range.start) > MAX_WRITTEN_ZEROS {
        return Err(Error::new(Errno::Overflow, "too many zeros to write at once"));
    }
    let zeros = [0; SMALL_BUFFER];
    let mut at = range.start;
    while at < range.end {
        let len = zeros.len().min(usize_of(range.end.saturating_sub(at)));
        guarded(|| export.write_at(zeros.get(..len).unwrap_or_default(), at))?;
        at = at.saturating_add(u64_of(len));
    }
    Ok(())
}

fn persist(export: &dyn Export, range: Range<u64>, fua: bool) -> Result<(), Error> {
    if fua { guarded(|| export.persist(range)) } else { Ok(()) }
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

fn split(area: &mut [u8], at: usize) -> io::Result<(&mut [u8], &mut [u8])> {
    area.split_at_mut_checked(at).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn usize_of(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn u64_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
