//! gzip (RFC 1952) around a file: decoded forward, and from access points once a pass over all of it has found them.
//!
//! A gzip file says nowhere how long its content is (the trailer has it modulo 2^32) and has no index. Whoever wants to read here
//! and there pays one pass, in which every checksum is verified; at ends of deflate blocks the last 32 KiB of content are kept,
//! so that decoding can begin there later, on any thread.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress};

use super::packed::input::{Input, Opaque, Part};
use super::packed::{Index, Units};
use crate::disk::{Disk, Stream};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Session;

/// How far back deflate can point.
const WINDOW: usize = 32 << 10;

/// Decoded bytes at a time, beside the window.
const OUTPUT: usize = 256 << 10;

/// Content between two access points at first; doubled whenever they take too much memory.
const SPACING: u64 = 1 << 20;

/// Bytes counted for an access point beside its window.
const POINT: u64 = 64;

/// What [`Gunzip::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// There is more content.
    Data,
    /// A deflate block ended, and another one follows.
    Boundary,
    /// A member begins here.
    Member,
    /// The file ends.
    End,
}

/// Decodes a gzip file, all members of it.
#[derive(Debug)]
pub(super) struct Gunzip {
    input: Input,
    inflate: Inflate,
    in_member: bool,
    /// Of the member's content so far; `None` when its beginning was not seen.
    check: Option<(crc32fast::Hasher, u32)>,
    members: u64,
}

impl Gunzip {
    /// From the start of a file.
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self { input: Input::new(stream), inflate: Inflate::new(), in_member: false, check: None, members: 0 }
    }

    /// From inside of a member.
    fn resumed(stream: Box<dyn Stream>, inflate: Inflate) -> Self {
        Self { input: Input::new(stream), inflate, in_member: true, check: None, members: 1 }
    }

    /// Decodes a bit more. What was decoded before must have been taken.
    fn advance(&mut self) -> Result<Event> {
        if !self.in_member {
            if !self.begin()? {
                return Ok(Event::End);
            }
            return Ok(Event::Member);
        }
        match self.inflate.decode(&mut self.input)? {
            Step::Done => {
                self.count();
                self.end()?;
                Ok(Event::Data)
            }
            step => {
                self.count();
                Ok(if step == Step::Boundary { Event::Boundary } else { Event::Data })
            }
        }
    }

    fn count(&mut self) {
        if let Some((crc, len)) = &mut self.check {
            let fresh = self.inflate.fresh();
            crc.update(fresh);
            // ISIZE is the length modulo 2^32.
            *len = len.wrapping_add(u32::try_from(fresh.len()).unwrap_or(0));
        }
    }

    /// The header of the next member (RFC 1952, section 2.3); false at the end of the file.
    fn begin(&mut self) -> Result<bool> {
        if self.input.fill()?.is_empty() {
            return if self.members == 0 { Err(self.input.truncated()) } else { Ok(false) };
        }
        if self.members > 0 && self.input.fill()?.first() == Some(&0) {
            return self.padding().map(|()| false);
        }
        let [id1, id2, cm, flags, ..] = self.input.array::<10>()?;
        if [id1, id2, cm] != [0x1f, 0x8b, 8] || flags & 0xe0 != 0 {
            let what = if self.members == 0 { "this is no gzip file" } else { "there is something behind its end" };
            return Err(self.input.corrupt(what));
        }
        if flags & 4 != 0 {
            let len = u16::from_le_bytes(self.input.array()?);
            self.input.skip(u64::from(len))?;
        }
        for flag in [8, 16] {
            let mut left = limits::MAX_REFERENCE;
            while flags & flag != 0 && self.input.byte()? != 0 {
                left = left.checked_sub(1).ok_or_else(|| self.input.corrupt("a name in the header is too long"))?;
            }
        }
        if flags & 2 != 0 {
            self.input.array::<2>()?;
        }
        self.members = self.members.saturating_add(1);
        self.in_member = true;
        self.inflate = Inflate::new();
        self.check = Some((crc32fast::Hasher::new(), 0));
        Ok(true)
    }

    /// Zeros up to the end, as tapes and block devices have them.
    fn padding(&mut self) -> Result<()> {
        loop {
            let bytes = self.input.fill()?;
            if bytes.is_empty() {
                return Ok(());
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Err(self.input.corrupt("there is something behind its end"));
            }
            let len = bytes.len();
            self.input.take(len);
        }
    }

    /// The trailer of a member.
    fn end(&mut self) -> Result<()> {
        self.in_member = false;
        let (crc, isize) = (u32::from_le_bytes(self.input.array()?), u32::from_le_bytes(self.input.array()?));
        let Some((found, len)) = self.check.take() else { return Ok(()) };
        let found = found.finalize();
        if found != crc || len != isize {
            return Err(self
                .input
                .corrupt("the content is not what was compressed")
                .expected(format!("CRC-32 {crc:08x}, length {isize} modulo 2^32"))
                .found(format!("CRC-32 {found:08x}, length {len} modulo 2^32")));
        }
        Ok(())
    }
}

impl Stream for Gunzip {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let count = self.inflate.take(buf);
            if count > 0 || buf.is_empty() {
                return Ok(count);
            }
            if self.advance()? == Event::End {
                return Ok(0);
            }
        }
    }

    fn name(&self) -> String {
        self.input.name()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Some,
    Boundary,
    Done,
}

/// A deflate decoder with its window.
#[derive(Debug)]
struct Inflate {
    core: Opaque<Box<DecompressorOxide>>,
    /// The window, then what was decoded.
    buf: Vec<u8>,
    /// End of what was decoded.
    pos: usize,
    /// Where what the last call decoded begins.
    start: usize,
    /// End of what was taken.
    taken: usize,
}

impl Inflate {
    fn new() -> Self {
        Self::at(DecompressorOxide::new(), &[])
    }

    fn at(core: DecompressorOxide, window: &[u8]) -> Self {
        let mut buf = window.to_vec();
        let pos = buf.len();
        buf.resize(WINDOW.saturating_add(OUTPUT), 0);
        Self { core: Opaque(Box::new(core)), buf, pos, start: pos, taken: pos }
    }

    fn decode(&mut self, input: &mut Input) -> Result<Step> {
        if self.pos == self.buf.len() {
            self.buf.copy_within(self.pos.saturating_sub(WINDOW).., 0);
            self.pos = WINDOW;
        }
        (self.start, self.taken) = (self.pos, self.pos);
        let bytes = input.fill()?;
        let more = if bytes.is_empty() { 0 } else { TINFL_FLAG_HAS_MORE_INPUT };
        let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY | more;
        let (status, used, made) = decompress(&mut self.core, bytes, &mut self.buf, self.pos, flags);
        input.take(used);
        self.pos = self.pos.saturating_add(made);
        match status {
            TINFLStatus::Done => Ok(Step::Done),
            TINFLStatus::BlockBoundary => Ok(Step::Boundary),
            TINFLStatus::HasMoreOutput => Ok(Step::Some),
            TINFLStatus::NeedsMoreInput if more != 0 => Ok(Step::Some),
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => Err(input.truncated()),
            _ => Err(input.corrupt("the compressed data makes no sense")),
        }
    }

    /// What the last call decoded.
    fn fresh(&self) -> &[u8] {
        self.buf.get(self.start..self.pos).unwrap_or_default()
    }

    fn take(&mut self, out: &mut [u8]) -> usize {
        let left = self.buf.get(self.taken..self.pos).unwrap_or_default();
        let count = left.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..count), left.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken = self.taken.saturating_add(count);
        count
    }

    /// How to begin here again, at the boundary of a block.
    fn state(&self) -> Option<Start> {
        let window = self.buf.get(self.pos.saturating_sub(WINDOW)..self.pos)?;
        let state = self.core.block_boundary_state()?;
        let window = lz4_flex::block::compress_prepend_size(window).into();
        Some(Start::Block { bits: state.num_bits, bit_buf: state.bit_buf, window })
    }
}

/// Where decoding can begin.
#[derive(Debug)]
struct Point {
    /// Offset in the content.
    at: u64,
    /// Offset in the file.
    from: u64,
    start: Start,
}

#[derive(Debug)]
enum Start {
    /// At the header of a member.
    Member,
    /// Between two deflate blocks: bits left of the byte before, and the window, compressed.
    Block { bits: u8, bit_buf: u8, window: Box<[u8]> },
}

impl Point {
    fn memory(&self) -> u64 {
        match &self.start {
            Start::Member => POINT,
            Start::Block { window, .. } => POINT.saturating_add(u64::try_from(window.len()).unwrap_or(u64::MAX)),
        }
    }
}

/// Reads all of `source` once and finds out how long its content is, whether it is sound, and where decoding can begin.
///
/// # Errors
/// `packed.*`, and interruption.
pub(super) fn index(source: &Arc<dyn Disk>, session: &Session) -> Result<Index> {
    let most = session.budget.metadata() / 2;
    let mut gunzip = Gunzip::new(Box::new(Part::new(source, 0..source.len())));
    let mut points: Vec<Point> = Vec::new();
    let (mut len, mut memory, mut spacing, mut seen) = (0_u64, 0_u64, SPACING, 0_u32);
    loop {
        let before = gunzip.input.offset();
        let event = gunzip.advance()?;
        let fresh = if matches!(event, Event::Data | Event::Boundary) { gunzip.inflate.fresh().len() } else { 0 };
        len = len.saturating_add(u64::try_from(fresh).unwrap_or(u64::MAX));
        if len > limits::MAX_DISK_LEN {
            return Err(Error::limit("packed.limit", "the content is too large").at(source.name()));
        }
        seen = seen.wrapping_add(1);
        if seen.is_multiple_of(8) {
            session.check()?;
        }
        let start = match event {
            Event::End => break,
            Event::Data => None,
            Event::Member if is_far(&points, len, spacing) => Some((before, Start::Member)),
            Event::Boundary if is_far(&points, len, spacing) => {
                gunzip.inflate.state().map(|start| (gunzip.input.offset(), start))
            }
            Event::Member | Event::Boundary => None,
        };
        if let Some((from, start)) = start {
            let point = Point { at: len, from, start };
            memory = memory.saturating_add(point.memory());
            points.push(point);
        }
        while memory > most && points.len() > 2 {
            spacing = spacing.saturating_mul(2);
            thin(&mut points, spacing);
            memory = points.iter().map(Point::memory).fold(0, u64::saturating_add);
        }
    }
    let starts = points.iter().map(|point| point.at).collect();
    Ok(Index { starts, len, units: Box::new(Points(points)) })
}

fn is_far(points: &[Point], at: u64, spacing: u64) -> bool {
    points.last().is_none_or(|last| at.saturating_sub(last.at) >= spacing)
}

/// Keeps the first point and those that are at least `spacing` behind the one before.
fn thin(points: &mut Vec<Point>, spacing: u64) {
    let mut last: Option<u64> = None;
    points.retain(|point| {
        let keep = last.is_none_or(|last| point.at.saturating_sub(last) >= spacing);
        if keep {
            last = Some(point.at);
        }
        keep
    });
}

/// The access points of a file.
#[derive(Debug)]
struct Points(Vec<Point>);

impl Units for Points {
    fn open(&self, unit: usize, source: &Arc<dyn Disk>) -> Result<Box<dyn Stream>> {
        let missing = || Error::failed("packed.corrupt", "an access point got lost");
        let point = self.0.get(unit).ok_or_else(missing)?;
        let part = Box::new(Part::new(source, point.from..source.len()));
        match &point.start {
            Start::Member => Ok(Box::new(Gunzip::new(part))),
            Start::Block { bits, bit_buf, window } => {
                let window = lz4_flex::block::decompress_size_prepended(window)
                    .map_err(|error| missing().because(std::io::Error::other(error)))?;
                let state = BlockBoundaryState { num_bits: *bits, bit_buf: *bit_buf, ..BlockBoundaryState::default() };
                let core = DecompressorOxide::from_block_boundary_state(&state);
                Ok(Box::new(Gunzip::resumed(part, Inflate::at(core, &window))))
            }
        }
    }
}
