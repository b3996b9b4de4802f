//! bzip2 around a file: its blocks begin at any bit with a mark of 48 bits, and each can be decoded by itself.
//!
//! Nothing says how much a block holds, so whoever wants to read here and there pays one pass over all of it, on all threads.
//! A block is decoded as the only one of a file that is made up around it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bzip2::{Decompress, Status};

use super::packed::input::{Bytes, Input, Opaque, Part};
use super::packed::{Index, Units};
use crate::disk::{Disk, Stream, read_vec};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Session;

/// What a block begins with: π in decimal.
const BLOCK: u64 = 0x3141_5926_5359;

/// What the end of a stream begins with: √π in decimal.
const END: u64 = 0x1772_4538_5090;

const MARK_BITS: u64 = 48;

/// Bits of a compressed block, which holds at most 900 kB and so never takes much more.
const MOST_BITS: u64 = 8 * (2 << 20);

/// Decodes a bzip2 file, all streams of it.
#[derive(Debug)]
pub(super) struct Bunzip {
    input: Input,
    decoder: Opaque<Decompress>,
    in_stream: bool,
}

impl Bunzip {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        let decoder = Opaque(Decompress::new(false));
        Self { input: Input::new(stream), decoder, in_stream: true }
    }
}

impl Stream for Bunzip {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while !buf.is_empty() {
            let bytes = self.input.fill()?;
            if bytes.is_empty() {
                return if self.in_stream { Err(self.input.truncated()) } else { Ok(0) };
            }
            if !self.in_stream {
                self.decoder = Opaque(Decompress::new(false));
                self.in_stream = true;
            }
            let (before_in, before_out) = (self.decoder.total_in(), self.decoder.total_out());
            let result = self.decoder.decompress(bytes, buf);
            let used = usize::try_from(self.decoder.total_in().saturating_sub(before_in)).unwrap_or(usize::MAX);
            let made = usize::try_from(self.decoder.total_out().saturating_sub(before_out)).unwrap_or(usize::MAX);
            self.input.take(used);
            match result {
                Ok(Status::StreamEnd) => self.in_stream = false,
                Ok(_) => {}
                Err(error) => {
                    return Err(self
                        .input
                        .corrupt("the compressed data makes no sense")
                        .because(std::io::Error::from(error)));
                }
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

/// A block: its bits in the file, and the digit of its stream's header.
#[derive(Clone, Debug)]
struct Block {
    bits: Range<u64>,
    level: u8,
}

/// Finds the blocks of `source`, and decodes each to see how much it holds.
///
/// # Errors
/// `packed.*`, and interruption.
pub(super) fn index(source: &Arc<dyn Disk>, session: &Session) -> Result<Index> {
    let blocks = scan(source, session)?;
    let sizes = measure(source, &blocks, session)?;
    let (mut starts, mut kept, mut len) = (Vec::with_capacity(blocks.len()), Vec::with_capacity(blocks.len()), 0_u64);
    for (block, size) in blocks.into_iter().zip(sizes).filter(|(_, size)| *size > 0) {
        starts.push(len);
        kept.push(block);
        len = len.saturating_add(size);
    }
    if len > limits::MAX_DISK_LEN {
        return Err(Error::limit("packed.limit", "the content is too large").at(source.name()));
    }
    Ok(Index { starts, len, units: Box::new(Blocks(kept)) })
}

/// How much each block holds, on all threads.
fn measure(source: &Arc<dyn Disk>, blocks: &[Block], session: &Session) -> Result<Vec<u64>> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![0_u64; blocks.len()]);
    let failed: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let work = || {
        let mut buf = vec![0; 128 << 10];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(block) = blocks.get(number) else { return };
            let measured = session.check().and_then(|()| size(source, block, &mut buf));
            match measured {
                Ok(size) => {
                    if let Some(slot) = found.lock().unwrap_or_else(PoisonError::into_inner).get_mut(number) {
                        *slot = size;
                    }
                }
                Err(error) => {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    // The error of the first block counts, whichever thread was faster.
                    if failed.as_ref().is_none_or(|(known, _)| number < *known) {
                        *failed = Some((number, error));
                    }
                    next.fetch_max(blocks.len(), Ordering::Relaxed);
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..session.jobs.min(blocks.len()) {
            // Fewer threads are only slower.
            let _ = std::thread::Builder::new().name("bunzip2".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn size(source: &Arc<dyn Disk>, block: &Block, buf: &mut [u8]) -> Result<u64> {
    let mut stream = alone(source, block)?;
    let mut len = 0_u64;
    loop {
        match stream.read(buf)? {
            0 => return Ok(len),
            count => len = len.saturating_add(u64::try_from(count).unwrap_or(u64::MAX)),
        }
    }
}

/// Reads the bits of a file.
struct Bits {
    input: Input,
    /// The last 64 bits.
    last: u64,
    /// How many bits were read.
    count: u64,
    byte: u8,
    left: u32,
}

impl Bits {
    fn new(source: &Arc<dyn Disk>) -> Self {
        let input = Input::new(Box::new(Part::new(source, 0..source.len())));
        Self { input, last: 0, count: 0, byte: 0, left: 0 }
    }

    /// Shifts in one bit.
    fn next(&mut self) -> Result<()> {
        if self.left == 0 {
            self.byte = self.input.byte()?;
            self.left = 8;
        }
        self.left = self.left.saturating_sub(1);
        self.last = self.last << 1 | u64::from(self.byte >> self.left & 1);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    fn take(&mut self, bits: u32) -> Result<u64> {
        for _ in 0..bits {
            self.next()?;
        }
        Ok(self.last & 1_u64.checked_shl(bits).map_or(u64::MAX, |bound| bound.wrapping_sub(1)))
    }

    fn mark(&self) -> u64 {
        self.last & 0xffff_ffff_ffff
    }

    /// Passes over what is left of a byte; false at the end of the file.
    fn align(&mut self) -> Result<bool> {
        self.count = self.count.saturating_add(u64::from(self.left));
        self.left = 0;
        Ok(!self.input.fill()?.is_empty())
    }
}

/// Finds all blocks by their marks, and compares the checksum of each stream with those of its blocks.
fn scan(source: &Arc<dyn Disk>, session: &Session) -> Result<Vec<Block>> {
    let mut bits = Bits::new(source);
    let mut blocks: Vec<Block> = Vec::new();
    loop {
        let [b, z, h, level] = bits.take(32)?.to_be_bytes().last_chunk::<4>().copied().unwrap_or_default();
        if [b, z, h] != *b"BZh" || !level.is_ascii_digit() || level == b'0' {
            return Err(bits.input.corrupt("there is something that is no bzip2 stream"));
        }
        stream(&mut bits, level, &mut blocks, session)?;
        if !bits.align()? {
            return Ok(blocks);
        }
    }
}

/// One stream, from behind its header to behind its checksum.
fn stream(bits: &mut Bits, level: u8, blocks: &mut Vec<Block>, session: &Session) -> Result<()> {
    let mut combined = 0_u32;
    bits.take(48)?;
    loop {
        session.check()?;
        let start = bits.count.saturating_sub(MARK_BITS);
        match bits.mark() {
            BLOCK => {}
            END => {
                let crc = u32::try_from(bits.take(32)?).unwrap_or(0);
                return if crc == combined {
                    Ok(())
                } else {
                    Err(bits.input.corrupt("the checksum of a stream is not that of its blocks"))
                };
            }
            _ => return Err(bits.input.corrupt("there is no block where one should begin")),
        }
        if blocks.len() >= limits::MAX_PACKED_UNITS {
            return Err(Error::limit("packed.limit", "the compressed file has too many parts").at(bits.input.name()));
        }
        let crc = u32::try_from(bits.take(32)?).unwrap_or(0);
        combined = combined.rotate_left(1) ^ crc;
        // What follows cannot be a mark before the block's own header is over.
        bits.take(48)?;
        while !matches!(bits.mark(), BLOCK | END) {
            if bits.count.saturating_sub(start) > MOST_BITS {
                return Err(bits.input.corrupt("a block is too long"));
            }
            bits.next()?;
        }
        blocks.push(Block { bits: start..bits.count.saturating_sub(MARK_BITS), level });
    }
}

/// The blocks of a file.
#[derive(Debug)]
struct Blocks(Vec<Block>);

impl Units for Blocks {
    fn open(&self, unit: usize, source: &Arc<dyn Disk>) -> Result<Box<dyn Stream>> {
        let block = self.0.get(unit).ok_or_else(|| Error::failed("packed.corrupt", "a block got lost"))?;
        alone(source, block)
    }
}

/// A block as the only one of a file.
fn alone(source: &Arc<dyn Disk>, block: &Block) -> Result<Box<dyn Stream>> {
    let (first, end) = (block.bits.start / 8, block.bits.end.div_ceil(8));
    let bytes = read_vec(&**source, first, usize::try_from(end.saturating_sub(first)).unwrap_or(0))?;
    let mut out = Writer { bytes: b"BZh".to_vec(), last: 0, count: 0 };
    out.bytes.push(block.level);
    let shift = u32::try_from(block.bits.start % 8).unwrap_or(0);
    let mut left = block.bits.end.saturating_sub(block.bits.start);
    let mut crc = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        let next = bytes.get(at.saturating_add(1)).copied().unwrap_or(0);
        let joined = u16::from_be_bytes([*byte, next]).checked_shl(shift).unwrap_or(0);
        let [whole, _] = joined.to_be_bytes();
        // Bytes 6 to 9 of a block are its checksum.
        if (6..10).contains(&at) {
            crc = crc << 8 | u64::from(whole);
        }
        let count = u32::try_from(left.min(8)).unwrap_or(0);
        out.push(u64::from(whole) >> 8_u32.saturating_sub(count), count);
        left = left.saturating_sub(u64::from(count));
    }
    out.push(END, 48);
    out.push(crc, 32);
    Ok(Box::new(Bunzip::new(Box::new(Bytes::new(source.name(), out.finish())))))
}

/// Writes bits.
struct Writer {
    bytes: Vec<u8>,
    last: u64,
    count: u32,
}

impl Writer {
    /// The low `count` bits of `value`, at most 48.
    fn push(&mut self, value: u64, count: u32) {
        for bit in (0..count).rev() {
            self.last = self.last << 1 | (value >> bit & 1);
            self.count = self.count.saturating_add(1);
            if self.count == 8 {
                self.bytes.push(u8::try_from(self.last & 0xff).unwrap_or(0));
                (self.last, self.count) = (0, 0);
            }
        }
    }

    fn finish(mut self) -> Vec<u8> {
        while self.count != 0 {
            self.push(0, 1);
        }
        self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn as_many_blocks_as_the_limit() {
        // What bzip2 makes of one byte.
        let file = [
            0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x77, 0x4b, 0xb0, 0x14, 0, 0, 0, 0, 0x80, 0,
            0x40, 0x20, 0, 0x21, 0x18, 0x46, 0x82, 0xee, 0x48, 0xa7, 0x0a, 0x12, 0x0e, 0xe9, 0x76, 0x02, 0x80,
        ];
        let source: Arc<dyn Disk> = Checked::wrap(Memory::new(file.to_vec()));
        let most = limits::MAX_PACKED_UNITS;
        for (before, fits) in [(most - 2, true), (most - 1, true), (most, false)] {
            let mut blocks: Vec<Block> = (0..before).map(|_| Block { bits: 0..0, level: b'9' }).collect();
            let mut bits = Bits::new(&source);
            bits.take(32).unwrap();
            let result = stream(&mut bits, b'9', &mut blocks, &Session::with_defaults());
            assert_eq!(result.map_err(|error| error.code()), if fits { Ok(()) } else { Err("packed.limit") });
        }
    }
}
