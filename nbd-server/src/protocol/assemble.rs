//! The client's side of a reply: takes chunks as they come and says what is wrong with them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

use super::constants::*;
use super::session::Style;
use super::wire::Fields;
use crate::client::{Error, Kind, Result};
use crate::export::{Errno, Status};
use crate::limits::{MAX_CHUNKS, MAX_STATUS_EXTENTS, MAX_STRING};

/// The header of a reply or of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's name.
    pub cookie: u64,
    /// What follows.
    pub body: Body,
}

/// What follows a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing, or the bytes of a read that went well.
    Simple {
        /// 0 if it went well.
        errno: u32,
    },
    /// So many bytes.
    Chunk {
        /// Whether the reply ends with it.
        last: bool,
        /// What they are.
        kind: u16,
        /// How many.
        length: u64,
        /// The offset of the request, with extended headers.
        offset: Option<u64>,
    },
}

impl ReplyHeader {
    /// The most that a header can take.
    pub const MAX: usize = 32;

    /// Bytes of the header that begins with `start`, at least four bytes of it.
    ///
    /// # Errors
    /// If such headers were not agreed on.
    pub fn len(style: Style, start: &[u8]) -> Result<usize> {
        match (Fields(start).u32(), style) {
            (Some(SIMPLE_REPLY_MAGIC), Style::Simple | Style::Structured) => Ok(16),
            (Some(STRUCTURED_REPLY_MAGIC), Style::Structured) => Ok(20),
            (Some(EXTENDED_REPLY_MAGIC), Style::Extended) => Ok(32),
            _ => Err(Error::protocol("a reply does not begin like one")),
        }
    }

    /// Takes a header of [`Self::len`] bytes apart.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let magic = fields.u32()?;
        if magic == SIMPLE_REPLY_MAGIC {
            let errno = fields.u32()?;
            return Some(Self { cookie: fields.u64()?, body: Body::Simple { errno } });
        }
        let (flags, kind, cookie) = (fields.u16()?, fields.u16()?, fields.u64()?);
        let extended = magic == EXTENDED_REPLY_MAGIC;
        let offset = if extended { Some(fields.u64()?) } else { None };
        let length = if extended { fields.u64()? } else { u64::from(fields.u32()?) };
        Some(Self { cookie, body: Body::Chunk { last: flags & REPLY_FLAG_DONE != 0, kind, length, offset } })
    }
}

/// What a request wants to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// That it is done.
    Done,
    /// So many bytes from the offset.
    Data(usize),
    /// Extents of these contexts, in so many bytes from the offset.
    Status(Vec<u32>, u64),
}

/// A reply that is not complete yet.
#[derive(Debug)]
pub struct Assembly {
    offset: u64,
    want: Want,
    /// What has come of the data, in order, not touching.
    covered: Vec<Range<usize>>,
    statuses: Vec<(u32, Vec<Status>)>,
    error: Option<Error>,
    chunks: u32,
}

/// What to do with the bytes that follow a header.
#[derive(Debug, PartialEq, Eq)]
pub enum Take {
    /// There are none.
    Nothing,
    /// All of them are the data.
    All,
    /// Eight bytes of an offset, and so many of data; see [`Assembly::data`].
    Data(usize),
    /// So many, to be given to [`Assembly::digest`].
    Digest(usize),
}

impl Assembly {
    /// A reply to a request at `offset`.
    #[must_use]
    pub const fn new(offset: u64, want: Want) -> Self {
        Self { offset, want, covered: Vec::new(), statuses: Vec::new(), error: None, chunks: 0 }
    }

    /// Bytes of data that the request wants.
    #[must_use]
    pub const fn data_len(&self) -> usize {
        match self.want {
            Want::Data(len) => len,
            _ => 0,
        }
    }

    /// Looks at a header. The second value tells whether the reply ends with it.
    ///
    /// # Errors
    /// If it cannot belong to a reply to this request, or to none at all. The connection is then of no more use.
    pub fn begin(&mut self, style: Style, body: Body) -> Result<(Take, bool)> {
        let (last, kind, length, offset) = match body {
            Body::Simple { errno: 0 } if style == Style::Simple && matches!(self.want, Want::Data(_)) => {
                self.cover(0, self.data_len())?;
                return Ok((Take::All, true));
            }
            Body::Simple { .. } if style != Style::Simple && self.want != Want::Done => {
                return Err(Error::protocol("a simple reply where only a structured one will do"));
            }
            Body::Simple { errno } => {
                self.fail(errno, "")?;
                return Ok((Take::Nothing, true));
            }
            Body::Chunk { last, kind, length, offset } => (last, kind, length, offset),
        };
        self.chunks = self.chunks.saturating_add(1);
        if self.chunks > MAX_CHUNKS {
            return Err(Error::protocol("a reply has no end"));
        }
        if offset.is_some_and(|offset| offset != self.offset) {
            return Err(Error::protocol("a reply has the offset of another request"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let fits =
            |ok: bool| if ok { Ok(()) } else { Err(Error::protocol("a chunk has a length that it cannot have")) };
        let take = match kind {
            REPLY_TYPE_NONE => {
                fits(length == 0 && last)?;
                Take::Nothing
            }
            REPLY_TYPE_OFFSET_DATA => {
                let data = length.checked_sub(8).filter(|&data| data > 0 && data <= self.data_len());
                fits(data.is_some())?;
                Take::Data(data.unwrap_or_default())
            }
            REPLY_TYPE_OFFSET_HOLE => {
                fits(length == 12 && matches!(self.want, Want::Data(_)))?;
                Take::Digest(length)
            }
            REPLY_TYPE_BLOCK_STATUS | REPLY_TYPE_BLOCK_STATUS_EXT => {
                let wide = kind == REPLY_TYPE_BLOCK_STATUS_EXT;
                let (head, each) = if wide { (8, 16) } else { (4, 8) };
                let extents = length.checked_sub(head).filter(|extents: &usize| extents.is_multiple_of(each));
                let count = extents.and_then(|extents| extents.checked_div(each)).unwrap_or_default();
                fits((1..=MAX_STATUS_EXTENTS).contains(&count) && matches!(self.want, Want::Status(..)))?;
                if wide != (style == Style::Extended) {
                    return Err(Error::protocol("block status of a size that was not agreed on"));
                }
                Take::Digest(length)
            }
            kind if kind & REPLY_TYPE_ERROR_BIT != 0 => {
                fits((6..=MAX_STRING.saturating_add(14)).contains(&length))?;
                Take::Digest(length)
            }
            _ => return Err(Error::protocol("a chunk of a kind that nobody asked for")),
        };
        Ok((take, last))
    }

    /// The place of data whose chunk has this offset, in the bytes wanted.
    ///
    /// # Errors
    /// If it lies outside of them, or came before.
    pub fn data(&mut self, offset: u64, len: usize) -> Result<Range<usize>> {
        let at = offset.checked_sub(self.offset).and_then(|at| usize::try_from(at).ok());
        let at = at.ok_or_else(|| Error::protocol("data from before the request"))?;
        self.cover(at, len)
    }

    /// Takes the bytes of a chunk that [`Self::begin`] wanted digested; returns where zeros belong, if it was a hole.
    ///
    /// # Errors
    /// If they make no sense.
    pub fn digest(&mut self, body: Body, bytes: &[u8]) -> Result<Option<Range<usize>>> {
        let Body::Chunk { kind, .. } = body else { return Ok(None) };
        let mut fields = Fields(bytes);
        match kind {
            REPLY_TYPE_OFFSET_HOLE => {
                let (Some(offset), Some(len)) = (fields.u64(), fields.u32()) else { return Err(cut()) };
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                return self.data(offset, len).map(Some);
            }
            REPLY_TYPE_BLOCK_STATUS => {
                let number = fields.u32().ok_or_else(cut)?;
                let extents = std::iter::from_fn(|| Some((u64::from(fields.u32()?), u64::from(fields.u32()?))));
                let extents: Vec<_> = extents.collect();
                self.status(number, extents)?;
            }
            REPLY_TYPE_BLOCK_STATUS_EXT => {
                let (Some(number), Some(count)) = (fields.u32(), fields.u32()) else { return Err(cut()) };
                let extents: Vec<_> = std::iter::from_fn(|| Some((fields.u64()?, fields.u64()?))).collect();
                if usize::try_from(count) != Ok(extents.len()) {
                    return Err(Error::protocol("block status with another number of extents than it says"));
                }
                self.status(number, extents)?;
            }
            _ => self.told_error(kind, fields)?,
        }
        Ok(None)
    }

    fn told_error(&mut self, kind: u16, mut fields: Fields<'_>) -> Result<()> {
        let (Some(errno), Some(len)) = (fields.u32(), fields.u16()) else { return Err(cut()) };
        let message = fields.bytes(len.into()).filter(|message| message.len() <= MAX_STRING);
        let message = String::from_utf8_lossy(message.ok_or_else(cut)?).into_owned();
        if errno == 0 {
            return Err(Error::protocol("an error without a number"));
        }
        if kind == REPLY_TYPE_ERROR_OFFSET {
            let offset = fields.u64().ok_or_else(cut)?;
            let end = self.offset.saturating_add(u64::try_from(self.data_len()).unwrap_or(u64::MAX));
            if matches!(self.want, Want::Data(_)) && !(self.offset..end).contains(&offset) {
                return Err(Error::protocol("an error at a place that was not asked for"));
            }
        }
        self.fail(errno, &message)
    }

    /// The end of the reply: what was wanted is there, or the server's error.
    ///
    /// # Errors
    /// The server's error, or that something is missing.
    pub fn end(&mut self) -> Result<Vec<(u32, Vec<Status>)>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match &self.want {
            Want::Done => {}
            Want::Data(0) => {}
            Want::Data(len) => {
                if self.covered.first() != Some(&(0..*len)) {
                    return Err(Error::protocol("a reply to a read lacks some of the data"));
                }
            }
            Want::Status(wanted, _) => {
                if self.statuses.len() != wanted.len() {
                    return Err(Error::protocol("a block status reply lacks a meta context"));
                }
            }
        }
        Ok(std::mem::take(&mut self.statuses))
    }

    fn fail(&mut self, errno: u32, message: &str) -> Result<()> {
        if errno == 0 {
            return Ok(());
        }
        let errno = Errno::of(errno);
        let said: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let said = if said.is_empty() { said } else { format!(": {said}") };
        let text = format!("the NBD server answers error {} at offset {}{said}", errno.number(), self.offset);
        self.error.get_or_insert(Error::new(Kind::Export(errno), text));
        Ok(())
    }

    /// Notes that data has come.
    fn cover(&mut self, at: usize, len: usize) -> Result<Range<usize>> {
        let end = at.checked_add(len).filter(|&end| len > 0 && end <= self.data_len());
        let new = at..end.ok_or_else(|| Error::protocol("data beyond the end of the request"))?;
        let next = self.covered.partition_point(|old| old.start < new.start);
        let before = next.checked_sub(1).and_then(|before| self.covered.get(before)).cloned();
        let after = self.covered.get(next).cloned();
        let overlaps = before.as_ref().is_some_and(|old| old.end > new.start)
            || after.as_ref().is_some_and(|old| old.start < new.end);
        if overlaps {
            return Err(Error::protocol("the same data twice"));
        }
        let mut joined = new.clone();
        let mut replaced = next..next;
        if let Some(before) = before.filter(|old| old.end == new.start) {
            joined.start = before.start;
            replaced.start = next.saturating_sub(1);
        }
        if let Some(after) = after.filter(|old| old.start == new.end) {
            joined.end = after.end;
            replaced.end = next.saturating_add(1);
        }
        self.covered.splice(replaced, [joined]);
        Ok(new)
    }

    /// Notes that bytes were to come and did not.
    pub fn lose(&mut self, missing: Range<usize>) {
        let kept = |old: Range<usize>| {
            [old.start..old.end.min(missing.start), old.start.max(missing.end)..old.end].into_iter()
        };
        let covered = std::mem::take(&mut self.covered);
        self.covered = covered.into_iter().flat_map(kept).filter(|part| !part.is_empty()).collect();
    }

    /// How many bytes of the data, from the front, have come.
    #[must_use]
    pub fn front(&self) -> usize {
        self.covered.first().filter(|first| first.start == 0).map_or(0, |first| first.end)
    }

    /// Notes extents of a context. The last one is cut at the end of what was asked for.
    fn status(&mut self, number: u32, extents: Vec<(u64, u64)>) -> Result<()> {
        let Want::Status(wanted, length) = &self.want else { return Err(cut()) };
        if !wanted.contains(&number) || self.statuses.iter().any(|(known, _)| *known == number) {
            return Err(Error::protocol("block status of a context twice, or of one that nobody asked for"));
        }
        let mut left = *length;
        let mut told = Vec::new();
        for (length, flags) in extents {
            if length == 0 || left == 0 {
                return Err(Error::protocol("block status with an empty extent, or with one beyond the end"));
            }
            told.push(Status { length: length.min(left), flags });
            left = left.saturating_sub(length);
        }
        self.statuses.push((number, told));
        Ok(())
    }
}

fn cut() -> Error {
    Error::protocol("a chunk is cut short")
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests compute with small numbers"
)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunk(kind: u16, length: u64, last: bool) -> Body {
        Body::Chunk { last, kind, length, offset: None }
    }

    fn read(len: usize) -> Assembly {
        Assembly::new(1000, Want::Data(len))
    }

    const STYLE: Style = Style::Structured;

    fn is_protocol<T: std::fmt::Debug>(result: Result<T>) -> bool {
        result.unwrap_err().kind() == Kind::Protocol
    }

    #[test]
    fn headers_are_those_agreed_on() {
        for (magic, lens) in [
            (SIMPLE_REPLY_MAGIC, [Some(16), Some(16), None]),
            (STRUCTURED_REPLY_MAGIC, [None, Some(20), None]),
            (EXTENDED_REPLY_MAGIC, [None, None, Some(32)]),
            (REQUEST_MAGIC, [None; 3]),
        ] {
            for (style, len) in [Style::Simple, Style::Structured, Style::Extended].into_iter().zip(lens) {
                assert_eq!(ReplyHeader::len(style, &magic.to_be_bytes()).ok(), len);
            }
        }
        assert!(ReplyHeader::len(STYLE, &[]).is_err());
        assert_eq!(ReplyHeader::parse(&SIMPLE_REPLY_MAGIC.to_be_bytes()), None);
    }

    #[test]
    fn data_must_lie_inside_and_come_once() {
        let mut reply = read(100);
        assert_eq!(reply.data(1050, 50).unwrap(), 50..100);
        for (offset, len) in
            [(999, 1), (1100, 1), (1099, 2), (1050, 1), (1040, 11), (1000, 101), (u64::MAX, 1), (1000, 0)]
        {
            assert!(is_protocol(reply.data(offset, len)), "{offset} {len}");
        }
        assert_eq!(reply.data(1000, 50).unwrap(), 0..50);
        assert!(reply.end().is_ok());
    }

    #[test]
    fn what_did_not_come_is_not_counted() {
        let mut reply = read(100);
        for (offset, len) in [(1000, 40), (1060, 40), (1040, 20)] {
            reply.data(offset, len).unwrap();
        }
        assert_eq!(reply.front(), 100);
        reply.lose(50..60);
        assert_eq!((reply.front(), reply.covered.clone()), (50, vec![0..50, 60..100]));
        reply.lose(90..100);
        assert!(is_protocol(reply.end()));
        assert_eq!(reply.data(1050, 10).unwrap(), 50..60);
        assert_eq!(reply.front(), 90);
        reply.lose(0..1);
        assert_eq!(reply.front(), 0);
    }

    #[test]
    fn missing_data_is_noticed() {
        for (offset, len) in [(1000, 99), (1001, 99)] {
            let mut reply = read(100);
            reply.data(offset, len).unwrap();
            assert!(is_protocol(reply.end()));
        }
        assert!(is_protocol(read(1).end()));
    }

    #[test]
    fn holes_are_zeros_somewhere_inside() {
        let hole = |offset: u64, len: u32| [&offset.to_be_bytes()[..], &len.to_be_bytes()].concat();
        let body = chunk(REPLY_TYPE_OFFSET_HOLE, 12, true);
        assert_eq!(read(100).digest(body, &hole(1010, 90)).unwrap(), Some(10..100));
        for (offset, len) in [(1010, 91), (0, 10), (1000, u32::MAX), (1000, 0), (u64::MAX, u32::MAX)] {
            assert!(is_protocol(read(100).digest(body, &hole(offset, len))), "{offset} {len}");
        }
    }

    #[test]
    fn chunks_have_lengths_that_they_can_have() {
        for (kind, length) in [
            (REPLY_TYPE_NONE, 1),
            (REPLY_TYPE_OFFSET_DATA, 8),
            (REPLY_TYPE_OFFSET_DATA, 109),
            (REPLY_TYPE_OFFSET_DATA, u64::MAX),
            (REPLY_TYPE_OFFSET_HOLE, 11),
            (REPLY_TYPE_OFFSET_HOLE, 13),
            (REPLY_TYPE_ERROR, 5),
            (REPLY_TYPE_ERROR, 4096 + 15),
            (REPLY_TYPE_BLOCK_STATUS, 12),
            (77, 0),
        ] {
            assert!(is_protocol(read(100).begin(STYLE, chunk(kind, length, true))), "{kind} {length}");
        }
        let status = |length| {
            Assembly::new(0, Want::Status(vec![1], 1 << 30)).begin(STYLE, chunk(REPLY_TYPE_BLOCK_STATUS, length, true))
        };
        let most = 4 + 8 * MAX_STATUS_EXTENTS as u64;
        for (length, ok) in
            [(4, false), (11, false), (12, true), (13, false), (most - 8, true), (most, true), (most + 8, false)]
        {
            assert_eq!(status(length).is_ok(), ok, "{length}");
        }
        assert!(is_protocol(read(100).begin(STYLE, chunk(REPLY_TYPE_NONE, 0, false))), "nothing, and then more");
    }

    #[test]
    fn replies_have_an_end() {
        let mut reply = read(1 << 20);
        for _ in 0..MAX_CHUNKS {
            reply.begin(STYLE, chunk(REPLY_TYPE_OFFSET_DATA, 9, false)).unwrap();
        }
        assert!(is_protocol(reply.begin(STYLE, chunk(REPLY_TYPE_OFFSET_DATA, 9, false))));
    }

    #[test]
    fn errors_are_told_and_outlive_data() {
        let bytes = |errno: u32, message: &[u8], offset: &[u8]| {
            [&errno.to_be_bytes()[..], &(message.len() as u16).to_be_bytes(), message, offset].concat()
        };
        let plain = chunk(REPLY_TYPE_ERROR, 0, false);
        let placed = chunk(REPLY_TYPE_ERROR_OFFSET, 0, false);
        let mut reply = read(10);
        reply.digest(plain, &bytes(5, b"bad\x1b sector", &[])).unwrap();
        reply.data(1000, 10).unwrap();
        let error = reply.end().unwrap_err();
        assert_eq!(error.kind(), Kind::Export(Errno::Io));
        assert!(error.to_string().ends_with("bad  sector"), "{error}");
        assert!(read(10).digest(placed, &bytes(5, b"", &1009_u64.to_be_bytes())).is_ok());
        for offset in [999_u64, 1010] {
            assert!(is_protocol(read(10).digest(placed, &bytes(5, b"", &offset.to_be_bytes()))));
        }
        assert!(is_protocol(read(10).digest(placed, &bytes(5, b"", &[1]))));
        assert!(is_protocol(read(10).digest(plain, &bytes(0, b"", &[]))));
        let mut long = bytes(5, b"x", &[]);
        long[5] = 9;
        assert!(is_protocol(read(10).digest(plain, &long)), "a message longer than the chunk");
    }

    #[test]
    fn simple_replies_answer_reads_only_if_nothing_better_was_agreed_on() {
        assert_eq!(read(5).begin(Style::Simple, Body::Simple { errno: 0 }).unwrap(), (Take::All, true));
        assert!(is_protocol(read(5).begin(STYLE, Body::Simple { errno: 0 })));
        assert!(is_protocol(read(5).begin(STYLE, Body::Simple { errno: 5 })));
        let mut done = Assembly::new(0, Want::Done);
        done.begin(STYLE, Body::Simple { errno: 28 }).unwrap();
        assert_eq!(done.end().unwrap_err().kind(), Kind::Export(Errno::NoSpc));
    }

    #[test]
    fn extended_headers_repeat_the_offset() {
        let body = |offset| Body::Chunk { last: true, kind: REPLY_TYPE_NONE, length: 0, offset: Some(offset) };
        assert!(Assembly::new(7, Want::Done).begin(Style::Extended, body(7)).is_ok());
        assert!(is_protocol(Assembly::new(7, Want::Done).begin(Style::Extended, body(8))));
    }

    #[test]
    fn extents_are_checked_and_cut() {
        let wide = |number: u32, count: u32, extents: &[(u64, u64)]| {
            let mut bytes = [number.to_be_bytes(), count.to_be_bytes()].concat();
            extents
                .iter()
                .for_each(|(length, flags)| bytes.extend([length.to_be_bytes(), flags.to_be_bytes()].as_flattened()));
            bytes
        };
        let status = || Assembly::new(0, Want::Status(vec![3], 1 << 33));
        let body = chunk(REPLY_TYPE_BLOCK_STATUS_EXT, 0, true);
        let mut reply = status();
        reply.digest(body, &wide(3, 2, &[(1 << 32, 3), (u64::MAX, 0)])).unwrap();
        let told = vec![Status { length: 1 << 32, flags: 3 }, Status { length: 1 << 32, flags: 0 }];
        assert!(is_protocol(reply.digest(body, &wide(3, 1, &[(1, 0)]))), "twice");
        assert_eq!(reply.end().unwrap(), [(3, told)]);
        for (number, count, extents) in [
            (4, 1, &[(1, 0)][..]),
            (3, 2, &[(1, 0)]),
            (3, 1, &[(0, 0)]),
            (3, 2, &[(1 << 33, 0), (1, 0)]),
            (3, 2, &[(u64::MAX, 0), (1, 0)]),
        ] {
            assert!(is_protocol(status().digest(body, &wide(number, count, extents))), "{extents:?}");
        }
        assert!(is_protocol(status().end()), "none came");
        let wrong_size = status().begin(STYLE, chunk(REPLY_TYPE_BLOCK_STATUS_EXT, 24, true));
        assert!(is_protocol(wrong_size));
    }

    proptest! {
        /// Pieces in any order make up the whole; any piece twice does not.
        #[test]
        fn pieces_in_any_order(cuts in prop::collection::btree_set(1_usize..500, 0..20), seed: u64) {
            let cuts: Vec<usize> = std::iter::once(0).chain(cuts).chain([500]).collect();
            let mut pieces: Vec<_> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
            pieces.sort_by_key(|(start, _)| (*start as u64 + 1).wrapping_mul(seed | 1));
            let mut reply = read(500);
            for (at, (start, end)) in pieces.iter().enumerate() {
                prop_assert!(at == 0 || is_protocol(reply.data(1000 + pieces[0].0 as u64, 1)));
                reply.data(1000 + *start as u64, end - start).unwrap();
            }
            prop_assert!(reply.end().is_ok());
        }
    }
}
