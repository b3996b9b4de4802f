//! xz (The .xz File Format 1.2) around a file: its index, at the end, says where each block is and how much it holds.
//!
//! A block is decoded by itself, as the only one of a stream that is made up around it, so that its check is verified. What the
//! index says is not trusted: a block that holds anything else is an error when it is read.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use liblzma::stream::{Action, CONCATENATED, Status};

use super::packed::input::{Bytes, Chain, Input, Opaque, Part};
use super::packed::{Index, Units};
use crate::disk::{Disk, Stream, read_vec};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Session;

const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// Bytes of a stream's header and of its footer.
const HEADER: u64 = 12;

/// Decodes an xz file, all streams of it.
#[derive(Debug)]
pub(super) struct Unxz {
    input: Input,
    lzma: Opaque<liblzma::stream::Stream>,
    ended: bool,
}

impl Unxz {
    pub(super) fn new(stream: Box<dyn Stream>) -> Result<Self> {
        let memory = u64::from(limits::MAX_DECODE_WINDOW).saturating_add(4 << 20);
        let lzma = liblzma::stream::Stream::new_stream_decoder(memory, CONCATENATED).map_err(|error| {
            Error::failed("packed.corrupt", "a decoder cannot be made").because(std::io::Error::from(error))
        })?;
        Ok(Self { input: Input::new(stream), lzma: Opaque(lzma), ended: false })
    }

    fn failed(&self, error: liblzma::stream::Error) -> Error {
        match error {
            liblzma::stream::Error::MemLimit => {
                Error::limit("packed.limit", "decoding takes too much memory").at(self.input.name())
            }
            liblzma::stream::Error::Options | liblzma::stream::Error::UnsupportedCheck => {
                Error::unsupported("packed.unsupported", "the xz file uses a filter or check that is not known")
                    .at(self.input.name())
            }
            error => self.input.corrupt("the compressed data makes no sense").because(std::io::Error::from(error)),
        }
    }
}

impl Stream for Unxz {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while !self.ended && !buf.is_empty() {
            let bytes = self.input.fill()?;
            let at_end = bytes.is_empty();
            let (before_in, before_out) = (self.lzma.total_in(), self.lzma.total_out());
            let result = self.lzma.process(bytes, buf, if at_end { Action::Finish } else { Action::Run });
            let used = usize::try_from(self.lzma.total_in().saturating_sub(before_in)).unwrap_or(usize::MAX);
            let made = usize::try_from(self.lzma.total_out().saturating_sub(before_out)).unwrap_or(usize::MAX);
            self.input.take(used);
            match result.map_err(|error| self.failed(error))? {
                Status::StreamEnd => self.ended = true,
                _ if at_end && made == 0 => return Err(self.input.truncated()),
                _ => {}
            }
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

/// A block of a file.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// Offset in the file.
    from: u64,
    /// `Unpadded Size`.
    unpadded: u64,
    /// `Uncompressed Size`.
    len: u64,
    /// Its stream's `Stream Flags`.
    flags: [u8; 2],
}

/// Reads the indexes of all streams in `source`, from the last to the first.
///
/// # Errors
/// `packed.*`.
pub(super) fn index(source: &Arc<dyn Disk>, session: &Session) -> Result<Index> {
    let mut streams: Vec<Vec<Block>> = Vec::new();
    let mut count = 0_usize;
    let mut end = source.len();
    while let Some(footer_end) = without_padding(&**source, end)? {
        session.check()?;
        let (start, blocks) = stream(&**source, footer_end)?;
        // Empty streams are counted too, so that a file of nothing else ends.
        count = count.saturating_add(blocks.len()).saturating_add(1);
        if count > limits::MAX_PACKED_UNITS {
            return Err(too_many(&**source));
        }
        streams.push(blocks);
        end = start;
    }
    let mut blocks: Vec<Block> = streams.into_iter().rev().flatten().collect();
    blocks.retain(|block| block.len > 0);
    let (mut starts, mut len) = (Vec::with_capacity(blocks.len()), 0_u64);
    for block in &blocks {
        starts.push(len);
        len = len
            .checked_add(block.len)
            .filter(|len| *len <= limits::MAX_DISK_LEN)
            .ok_or_else(|| Error::limit("packed.limit", "the content is too large").at(source.name()))?;
    }
    Ok(Index { starts, len, units: Box::new(Blocks(blocks)) })
}

fn too_many(source: &dyn Disk) -> Error {
    Error::limit("packed.limit", "the compressed file has too many parts")
        .at(source.name())
        .expected(format!("at most {}", limits::MAX_PACKED_UNITS))
}

fn bad(source: &dyn Disk, what: &str, offset: u64) -> Error {
    Error::corrupt("packed.corrupt", what).at(source.name()).offset(offset)
}

/// The end of the stream that lies before `end` and its padding; `None` at the start of the file.
fn without_padding(source: &dyn Disk, end: u64) -> Result<Option<u64>> {
    const PART: u64 = 4096;
    // Padding is there to fill the last block of a device or tape.
    const MOST: u64 = 1 << 20;
    let mut at = end;
    while at > 0 && end.saturating_sub(at) <= MOST {
        let start = at.saturating_sub(PART);
        let part = read_vec(source, start, usize::try_from(at.saturating_sub(start)).unwrap_or(0))?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            let stop = start.saturating_add(u64::try_from(last).unwrap_or(0)).saturating_add(1);
            let whole = end.saturating_sub(stop).is_multiple_of(4);
            return if whole { Ok(Some(stop)) } else { Err(truncated(source, stop)) };
        }
        at = start;
    }
    if end == 0 { Ok(None) } else { Err(truncated(source, at)) }
}

fn truncated(source: &dyn Disk, offset: u64) -> Error {
    Error::corrupt("packed.truncated", "the xz file has no footer at its end")
        .at(source.name())
        .offset(offset)
        .hint("the file may be incomplete; get it again")
}

/// The stream that ends at `end`: its start and its blocks (sections 2.1.1, 2.1.2 and 4).
fn stream(source: &dyn Disk, end: u64) -> Result<(u64, Vec<Block>)> {
    let footer_at = end.checked_sub(HEADER).ok_or_else(|| truncated(source, end))?;
    let footer: [u8; 12] = array(source, footer_at)?;
    let [c0, c1, c2, c3, rest @ ..] = footer;
    let [b0, b1, b2, b3, f0, f1, y, z] = rest;
    if [y, z] != *b"YZ" || crc32fast::hash(&[b0, b1, b2, b3, f0, f1]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(truncated(source, footer_at));
    }
    let backward = u64::from(u32::from_le_bytes([b0, b1, b2, b3])).saturating_add(1).saturating_mul(4);
    let index_at = footer_at.checked_sub(backward).ok_or_else(|| bad(source, "the index is too long", footer_at))?;
    if backward > u64::try_from(limits::MAX_XZ_INDEX).unwrap_or(0) {
        return Err(too_many(source));
    }
    let bytes = read_vec(source, index_at, usize::try_from(backward).unwrap_or(0))?;
    let records = records(&bytes).ok_or_else(|| bad(source, "the index makes no sense", index_at))?;
    if records.len() > limits::MAX_PACKED_UNITS {
        return Err(too_many(source));
    }
    let padded = |unpadded: u64| unpadded.checked_next_multiple_of(4);
    let total = records.iter().try_fold(0_u64, |sum, (unpadded, _)| sum.checked_add(padded(*unpadded)?));
    let start = total.and_then(|total| index_at.checked_sub(total)?.checked_sub(HEADER));
    let start = start.ok_or_else(|| bad(source, "the blocks of the index do not fit into the file", index_at))?;
    let header: [u8; 12] = array(source, start)?;
    let [m0, m1, m2, m3, m4, m5, h0, h1, crc @ ..] = header;
    let sound = [m0, m1, m2, m3, m4, m5] == MAGIC && crc32fast::hash(&[h0, h1]) == u32::from_le_bytes(crc);
    if !sound || [h0, h1] != [f0, f1] {
        return Err(bad(source, "header and footer of a stream do not belong together", start));
    }
    let mut from = start.saturating_add(HEADER);
    let mut blocks = Vec::with_capacity(records.len());
    for (unpadded, len) in records {
        blocks.push(Block { from, unpadded, len, flags: [f0, f1] });
        from = from.saturating_add(padded(unpadded).unwrap_or(0));
    }
    Ok((start, blocks))
}

fn array<const N: usize>(source: &dyn Disk, at: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The records of an index: unpadded and uncompressed sizes.
fn records(index: &[u8]) -> Option<Vec<(u64, u64)>> {
    let (body, crc) = index.split_last_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let mut rest = body.strip_prefix(&[0])?;
    let count = usize::try_from(varint(&mut rest)?).ok()?;
    // Two bytes a record at least.
    if count > rest.len() / 2 {
        return None;
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let record = (varint(&mut rest)?, varint(&mut rest)?);
        // A block has a header of at least eight bytes and some data.
        if record.0 < 5 {
            return None;
        }
        records.push(record);
    }
    (rest.len() < 4 && rest.iter().all(|byte| *byte == 0)).then_some(records)
}

/// A number of at most 63 bits (section 1.2).
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return (*byte != 0 || shift == 0).then_some(value);
        }
    }
    None
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// The blocks of a file.
#[derive(Debug)]
struct Blocks(Vec<Block>);

impl Units for Blocks {
    fn open(&self, unit: usize, source: &Arc<dyn Disk>) -> Result<Box<dyn Stream>> {
        let block = self.0.get(unit).ok_or_else(|| Error::failed("packed.corrupt", "a block got lost"))?;
        let padded = block.unpadded.checked_next_multiple_of(4).unwrap_or(u64::MAX);
        let name = source.name();
        let parts: Vec<Box<dyn Stream>> = vec![
            Box::new(Bytes::new(name.clone(), header(block.flags))),
            Box::new(Part::new(source, block.from..block.from.saturating_add(padded))),
            Box::new(Bytes::new(name.clone(), tail(block))),
        ];
        Ok(Box::new(Unxz::new(Box::new(Chain::new(name, parts)))?))
    }
}

fn header(flags: [u8; 2]) -> Vec<u8> {
    [&MAGIC[..], &flags, &crc32fast::hash(&flags).to_le_bytes()].concat()
}

/// The index and the footer of a stream of one block.
fn tail(block: &Block) -> Vec<u8> {
    let mut index = vec![0, 1];
    push_varint(&mut index, block.unpadded);
    push_varint(&mut index, block.len);
    index.resize(index.len().next_multiple_of(4), 0);
    let crc = crc32fast::hash(&index);
    index.extend(crc.to_le_bytes());
    let backward = u32::try_from(index.len() / 4).unwrap_or(1).saturating_sub(1);
    let fields = [&backward.to_le_bytes()[..], &block.flags].concat();
    index.extend(crc32fast::hash(&fields).to_le_bytes());
    index.extend(fields);
    index.extend(b"YZ");
    index
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
pub(super) mod tests {
    use super::*;

    /// Index and footer that say of the only block what is not so.
    pub(in crate::container) fn tail(unpadded: u64, len: u64) -> Vec<u8> {
        super::tail(&Block { from: 0, unpadded, len, flags: [0, 1] })
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for value in [0, 1, 0x7f, 0x80, 300, u64::from(u32::MAX), (1 << 62) + 5, (1 << 63) - 1] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!((varint(&mut rest), rest.len()), (Some(value), 0));
        }
        for bad in [&[0x80, 0][..], &[0xff; 10], &[0x80]] {
            assert_eq!(varint(&mut &*bad), None);
        }
    }

    /// A file of one stream with this index.
    fn file(blocks: usize, index: &[u8]) -> Vec<u8> {
        let flags = [0, 1];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(flags);
        bytes.extend(crc32fast::hash(&flags).to_le_bytes());
        bytes.resize(bytes.len() + blocks * 8, 0);
        bytes.extend(index);
        let mut fields = u32::try_from(index.len() / 4 - 1).unwrap().to_le_bytes().to_vec();
        fields.extend(flags);
        bytes.extend(crc32fast::hash(&fields).to_le_bytes());
        bytes.extend(fields);
        bytes.extend(b"YZ");
        bytes
    }

    fn index_of(bytes: Vec<u8>) -> Result<Index> {
        let source: Arc<dyn Disk> = crate::disk::Checked::wrap(crate::disk::Memory::new(bytes));
        super::index(&source, &Session::with_defaults())
    }

    #[test]
    fn as_many_blocks_as_the_limit() {
        // The stream itself is counted too.
        let most = limits::MAX_PACKED_UNITS - 1;
        for (count, fits) in [(most - 1, true), (most, true), (most + 1, false)] {
            let mut index = vec![0];
            push_varint(&mut index, u64::try_from(count).unwrap());
            (0..count).for_each(|_| index.extend([5, 1]));
            index.resize(index.len().next_multiple_of(4), 0);
            index.extend(crc32fast::hash(&index).to_le_bytes());
            let found = index_of(file(count, &index)).map(|index| index.starts.len()).map_err(|error| error.code());
            assert_eq!(found, if fits { Ok(count) } else { Err("packed.limit") }, "{count}");
        }
    }

    #[test]
    fn an_index_is_as_long_as_the_limit() {
        for (len, code) in [(limits::MAX_XZ_INDEX, "packed.corrupt"), (limits::MAX_XZ_INDEX + 4, "packed.limit")] {
            assert_eq!(index_of(file(0, &vec![0; len])).unwrap_err().code(), code, "{len}");
        }
    }
}
