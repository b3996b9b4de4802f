//! Zstandard (RFC 8878) around a file: its frames are independent, and a walk over the headers of their blocks finds them.
//!
//! A seekable file (zstd's `contrib/seekable_format`) lists its frames at its end. Neither that nor the content size that a
//! frame's header gives is trusted: a frame that holds anything else is an error when it is read.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;
use std::sync::Arc;

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::packed::input::{Input, Opaque, Part};
use super::packed::{Index, Units};
use crate::disk::{Disk, Stream, read_vec};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Session;

const MAGIC: u32 = 0xfd2f_b528;

/// `Seekable_Magic_Number`, the file's last bytes.
const SEEKABLE: u32 = 0x8f92_eab1;

/// Frames are decoded together until they hold as much.
const GROUP: u64 = 1 << 20;

/// Decodes a zstd file, all frames of it.
#[derive(Debug)]
pub(super) struct Unzstd {
    input: Input,
    context: Opaque<DCtx<'static>>,
    in_frame: bool,
    frames: u64,
}

impl Unzstd {
    pub(super) fn new(stream: Box<dyn Stream>) -> Result<Self> {
        let failed = || Error::failed("packed.corrupt", "a decoder cannot be made");
        let mut context = DCtx::try_create().ok_or_else(failed)?;
        context
            .set_parameter(DParameter::WindowLogMax(limits::MAX_DECODE_WINDOW.ilog2()))
            .map_err(|code| failed().found(get_error_name(code)))?;
        Ok(Self { input: Input::new(stream), context: Opaque(context), in_frame: false, frames: 0 })
    }
}

impl Stream for Unzstd {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while !buf.is_empty() {
            let bytes = self.input.fill()?;
            if bytes.is_empty() && (self.in_frame || self.frames == 0) {
                return Err(self.input.truncated());
            }
            if bytes.is_empty() {
                return Ok(0);
            }
            let mut from = InBuffer::around(bytes);
            let mut to = OutBuffer::around(buf);
            let result = self.context.decompress_stream(&mut to, &mut from);
            let (used, made) = (from.pos(), to.pos());
            match result {
                Ok(left) => {
                    self.in_frame = left != 0;
                    self.frames = self.frames.saturating_add(u64::from(left == 0));
                }
                Err(code) => {
                    let reason = get_error_name(code);
                    return Err(if reason.contains("too much memory") {
                        Error::limit("packed.limit", "decoding takes too much memory").at(self.input.name())
                    } else {
                        self.input.corrupt("the compressed data makes no sense").found(reason)
                    });
                }
            }
            self.input.take(used);
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }

    fn name(&self) -> String {
        self.input.name()
    }
}

/// A frame of a file.
#[derive(Clone, Debug)]
struct Frame {
    /// Its bytes in the file.
    range: Range<u64>,
    /// Bytes of content, where the header gives it.
    len: Option<u64>,
}

/// Finds the frames of `source`, and decodes those whose size is not told.
///
/// # Errors
/// `packed.*`, and interruption.
pub(super) fn index(source: &Arc<dyn Disk>, session: &Session) -> Result<Index> {
    let frames = match seek_table(&**source)? {
        Some(frames) => frames,
        None => walk(&**source, session, limits::MAX_PACKED_UNITS)?,
    };
    let (mut starts, mut ranges, mut len, mut open) = (Vec::new(), Vec::<Range<u64>>::new(), 0_u64, 0_u64);
    for frame in frames {
        let size = match frame.len {
            Some(size) => size,
            None => measure(source, frame.range.clone(), session)?,
        };
        let grouped = open.checked_add(size).filter(|sum| *sum <= GROUP);
        match ranges.last_mut().zip(grouped) {
            Some((last, grouped)) => {
                last.end = frame.range.end;
                open = grouped;
            }
            None if size == 0 => continue,
            None => {
                starts.push(len);
                ranges.push(frame.range);
                open = size;
            }
        }
        len = len
            .checked_add(size)
            .filter(|len| *len <= limits::MAX_DISK_LEN)
            .ok_or_else(|| Error::limit("packed.limit", "the content is too large").at(source.name()))?;
    }
    Ok(Index { starts, len, units: Box::new(Frames(ranges)) })
}

/// The frames that a seekable file lists, if it is one.
fn seek_table(source: &dyn Disk) -> Result<Option<Vec<Frame>>> {
    let Some(footer_at) = source.len().checked_sub(9) else { return Ok(None) };
    let footer = read_vec(source, footer_at, 9)?;
    let [n0, n1, n2, n3, descriptor, magic @ ..] = footer.as_slice() else { return Ok(None) };
    if magic != SEEKABLE.to_le_bytes() || descriptor & 0x7c != 0 {
        return Ok(None);
    }
    let count = usize::try_from(u32::from_le_bytes([*n0, *n1, *n2, *n3])).unwrap_or(usize::MAX);
    let entry = if descriptor & 0x80 == 0 { 8_usize } else { 12 };
    if count > limits::MAX_PACKED_UNITS {
        return Ok(None);
    }
    let table = u64::try_from(count.saturating_mul(entry)).unwrap_or(u64::MAX);
    let Some(start) = footer_at.checked_sub(table).and_then(|at| at.checked_sub(8)) else { return Ok(None) };
    let bytes = read_vec(source, start.saturating_add(8), count.saturating_mul(entry))?;
    let (mut frames, mut at) = (Vec::with_capacity(count), 0_u64);
    for record in bytes.chunks_exact(entry) {
        let Some(([c0, c1, c2, c3, d0, d1, d2, d3], _)) = record.split_first_chunk::<8>() else { return Ok(None) };
        let end = at.saturating_add(u64::from(u32::from_le_bytes([*c0, *c1, *c2, *c3])));
        frames.push(Frame { range: at..end, len: Some(u64::from(u32::from_le_bytes([*d0, *d1, *d2, *d3]))) });
        at = end;
    }
    // A table that does not cover the file is none.
    Ok((at == start).then_some(frames))
}

/// Walks over the headers of all frames, of which there may be `most`, and their blocks (RFC 8878, section 3.1).
fn walk(source: &dyn Disk, session: &Session, most: usize) -> Result<Vec<Frame>> {
    let mut walker = Walker { source, at: 0, steps: 0 };
    let mut frames = Vec::new();
    while walker.at < source.len() {
        if let Some(frame) = walker.frame(session)? {
            if frames.len() >= most {
                return Err(Error::limit("packed.limit", "the compressed file has too many parts")
                    .at(source.name())
                    .expected(format!("at most {most}")));
            }
            frames.push(frame);
        }
    }
    Ok(frames)
}

struct Walker<'a> {
    source: &'a dyn Disk,
    at: u64,
    steps: u64,
}

impl Walker<'_> {
    /// The frame here; nothing for one that is to be skipped.
    fn frame(&mut self, session: &Session) -> Result<Option<Frame>> {
        let start = self.at;
        let magic = self.number(4)?;
        if magic & 0xffff_fff0 == 0x184d_2a50 {
            let len = self.number(4)?;
            self.skip(len)?;
            self.count(session)?;
            return Ok(None);
        }
        if magic != u64::from(MAGIC) {
            return Err(self.bad("there is something that is no frame", start));
        }
        let descriptor = self.number(1)?;
        let single = descriptor & 0x20 != 0;
        if descriptor & 0x08 != 0 {
            return Err(self.bad("a frame's header makes no sense", start));
        }
        if !single {
            self.skip(1)?;
        }
        let dictionary = [0, 1, 2, 4].get(usize::try_from(descriptor & 3).unwrap_or(0)).copied().unwrap_or(0);
        if self.number(dictionary)? != 0 {
            return Err(
                Error::unsupported("packed.unsupported", "the zstd file needs a dictionary").at(self.source.name())
            );
        }
        let len = match (descriptor >> 6, single) {
            (0, false) => None,
            (0, true) => Some(self.number(1)?),
            (1, _) => Some(self.number(2)?.saturating_add(256)),
            (2, _) => Some(self.number(4)?),
            _ => Some(self.number(8)?),
        };
        while !self.block(session)? {}
        if descriptor & 0x04 != 0 {
            self.skip(4)?;
        }
        Ok(Some(Frame { range: start..self.at, len }))
    }

    /// Passes over a block; true for the last one.
    fn block(&mut self, session: &Session) -> Result<bool> {
        let at = self.at;
        let header = self.number(3)?;
        let size = header >> 3;
        match header >> 1 & 3 {
            0 | 2 if size <= 128 << 10 => self.skip(size)?,
            1 => self.skip(1)?,
            _ => return Err(self.bad("a block's header makes no sense", at)),
        }
        self.count(session)?;
        Ok(header & 1 != 0)
    }

    fn count(&mut self, session: &Session) -> Result<()> {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(1024) { session.check() } else { Ok(()) }
    }

    /// A little-endian number of `len` bytes.
    fn number(&mut self, len: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        let start = self.at;
        self.skip(len)?;
        let part = bytes.get_mut(..usize::try_from(len).unwrap_or(0)).unwrap_or_default();
        self.source.read_at(part, start)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.source.len()).ok_or_else(|| {
            Error::corrupt("packed.truncated", "the compressed file ends too early")
                .at(self.source.name())
                .offset(self.at)
                .hint("the file may be incomplete; get it again")
        })?;
        self.at = end;
        Ok(())
    }

    fn bad(&self, what: &str, offset: u64) -> Error {
        Error::corrupt("packed.corrupt", what).at(self.source.name()).offset(offset)
    }
}

/// Decodes a frame to see how much it holds.
fn measure(source: &Arc<dyn Disk>, range: Range<u64>, session: &Session) -> Result<u64> {
    let mut stream = Unzstd::new(Box::new(Part::new(source, range)))?;
    let (mut buf, mut len) = (vec![0; 128 << 10], 0_u64);
    loop {
        session.check()?;
        match stream.read(&mut buf)? {
            0 => return Ok(len),
            count => len = len.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)),
        }
    }
}

/// The frames of a file, small ones together.
#[derive(Debug)]
struct Frames(Vec<Range<u64>>);

impl Units for Frames {
    fn open(&self, unit: usize, source: &Arc<dyn Disk>) -> Result<Box<dyn Stream>> {
        let range = self.0.get(unit).ok_or_else(|| Error::failed("packed.corrupt", "a frame got lost"))?;
        Ok(Box::new(Unzstd::new(Box::new(Part::new(source, range.clone())))?))
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn a_seek_table_is_as_long_as_the_limit() {
        let most = limits::MAX_PACKED_UNITS;
        for (count, taken) in [(most - 1, true), (most, true), (most + 1, false)] {
            let mut bytes = vec![0; 8 + count * 8];
            bytes.extend(u32::try_from(count).unwrap().to_le_bytes());
            bytes.push(0);
            bytes.extend(SEEKABLE.to_le_bytes());
            let frames = seek_table(&*Checked::wrap(Memory::new(bytes))).unwrap();
            assert_eq!(frames.map(|frames| frames.len()), taken.then_some(count));
        }
    }

    #[test]
    fn as_many_frames_are_found_as_the_limit() {
        let disk = Checked::wrap(Memory::new([40, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0].repeat(3)));
        let walk = |most| walk(&*disk, &Session::with_defaults(), most).map_or_else(|error| error.code(), |_| "ok");
        assert_eq!((walk(4), walk(3), walk(2)), ("ok", "ok", "packed.limit"));
        assert_eq!(walk(limits::MAX_PACKED_UNITS), "ok");
    }
}
