//! Records: a header of one or more basic blocks, and data whose first words are kept in the header.

use super::{Log, blocks_of, bytes_of, damaged};
use crate::disk::bytes::{array, be32, be64, put, put_be32};
use crate::error::Result;

pub(super) const MAGIC: u32 = 0xfeed_babe;
/// Bytes of a record's data that one header block keeps the first words of.
const PER_HEADER: u32 = 32 << 10;
/// Bytes of the largest record's data.
const MAX_DATA: u32 = 256 << 10;
/// Bytes of a header that its checksum covers, on most machines and on 32-bit x86, and of a further header block.
const SUMMED: [usize; 2] = [328, 324];
const SUMMED_MORE: usize = 260;
/// Where a header keeps first words, and where a further header block does.
const WORDS: usize = 44;
const WORDS_MORE: usize = 4;
/// First words in one header block.
const WORDS_EACH: usize = 64;
const CRC: usize = 32;
/// `h_fmt` of little-endian Linux.
const LITTLE_ENDIAN: u32 = 1;

/// A record's header.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) block: u32,
    pub(super) cycle: u32,
    pub(super) lsn: u64,
    pub(super) tail_lsn: u64,
    /// Bytes of data.
    len: u32,
    pub(super) operations: u32,
    format: u32,
    /// Basic blocks of the header.
    header_blocks: u32,
}

impl Header {
    /// Basic blocks of the whole record.
    pub(super) fn blocks(&self) -> u32 {
        self.header_blocks.saturating_add(blocks_of(self.len))
    }

    /// Basic blocks before the data.
    pub(super) fn header_blocks(&self) -> u32 {
        self.header_blocks
    }
}

impl Log<'_> {
    /// The header at `block`; none if there is no header that is right in itself and belongs there.
    pub(super) fn header(&self, block: u32) -> Result<Option<Header>> {
        Ok(self.parse(block, &self.read(block, 1)?))
    }

    pub(super) fn parse(&self, block: u32, bytes: &[u8]) -> Option<Header> {
        let (version, len, size) = (be32(bytes, 8), be32(bytes, 12), be32(bytes, 320));
        let header_blocks =
            if self.is_v2 && version & 2 != 0 && size > PER_HEADER { size.div_ceil(PER_HEADER) } else { 1 };
        let header = Header {
            block,
            cycle: be32(bytes, 4),
            lsn: be64(bytes, 16),
            tail_lsn: be64(bytes, 24),
            len,
            operations: be32(bytes, 40),
            format: be32(bytes, 300),
            header_blocks,
        };
        let right = be32(bytes, 0) == MAGIC
            && matches!(version, 1..=3)
            && (1..=MAX_DATA).contains(&len)
            && len <= header_blocks.saturating_mul(PER_HEADER)
            && header_blocks <= MAX_DATA / PER_HEADER
            && header.blocks() < self.blocks
            && header.lsn == super::lsn(header.cycle, block)
            && array::<16>(bytes, 304) == self.uuid;
        right.then_some(header)
    }

    /// The data of a record, verified, with its first words put back.
    pub(super) fn data(&self, header: &Header) -> Result<Vec<u8>> {
        if header.format != LITTLE_ENDIAN {
            return Err(super::unsupported("the log was written by a machine of the other byte order"));
        }
        let all = self.read(header.block, header.blocks())?;
        if self.has_crc && !self.crc_is_right(header, &all) {
            return Err(damaged("the checksum of a record is wrong").offset(self.place(header.block)));
        }
        let at = bytes_of(header.header_blocks);
        let (head, data) = all.split_at_checked(at).unwrap_or_default();
        let mut data = data.to_vec();
        for (index, block) in data.chunks_mut(512).enumerate() {
            put(block, 0, &array::<4>(head, word_at(index)));
        }
        data.truncate(crate::disk::bytes::size(u64::from(header.len)));
        Ok(data)
    }

    /// Whether the record at `header` is whole.
    pub(super) fn is_whole(&self, header: &Header) -> Result<bool> {
        Ok(!self.has_crc || self.crc_is_right(header, &self.read(header.block, header.blocks())?))
    }

    fn crc_is_right(&self, header: &Header, all: &[u8]) -> bool {
        let stored = u32::from_le_bytes(array(all, CRC));
        SUMMED.into_iter().any(|summed| crc(all, header.header_blocks, header.len, summed) == stored)
    }

    /// The bytes of a record at `block` in turn `cycle` whose data is `data`, padded so that the next one begins where the
    /// kernel would begin it; nothing if that is more than a record can hold.
    pub(super) fn compose(&self, place: (u32, u32), previous: u32, data: &[u8], operations: u32) -> Option<Vec<u8>> {
        let (cycle, block) = place;
        let size = if self.is_v2 { self.unit.max(PER_HEADER) } else { PER_HEADER };
        let header_blocks = size.div_ceil(PER_HEADER);
        let start = bytes_of(header_blocks);
        let unit = crate::disk::bytes::size(u64::from(self.unit)).max(1024);
        let total = data.len().saturating_add(start).next_multiple_of(unit);
        let len = u32::try_from(total.saturating_sub(start)).ok().filter(|len| *len <= size)?;
        let mut all = vec![0; total];
        self.stamp(&mut all, place, super::lsn(cycle, block));
        put_be32(&mut all, 12, len);
        put_be32(&mut all, 36, previous);
        put_be32(&mut all, 40, operations);
        put_be32(&mut all, 320, size);
        put(&mut all, start, data);
        for index in 0..blocks_of(len) {
            let at = start.saturating_add(bytes_of(index));
            let word: [u8; 4] = array(&all, at);
            put(&mut all, word_at(crate::disk::bytes::size(u64::from(index))), &word);
        }
        // Every block but the first carries the turn; beyond the end of the ring, that is the next one.
        for (index, piece) in (1_u32..).zip(all.chunks_mut(512).skip(1)) {
            let turned = u64::from(block).saturating_add(u64::from(index)) >= u64::from(self.blocks);
            put_be32(piece, 0, cycle.saturating_add(u32::from(turned)));
        }
        let sum = if self.has_crc { crc(&all, header_blocks, len, SUMMED[0]) } else { 0 };
        put(&mut all, CRC, &sum.to_le_bytes());
        Some(all)
    }

    /// Makes `bytes` begin with an empty header.
    pub(super) fn stamp(&self, bytes: &mut [u8], (cycle, block): (u32, u32), tail_lsn: u64) {
        put_be32(bytes, 0, MAGIC);
        put_be32(bytes, 4, cycle);
        put_be32(bytes, 8, if self.is_v2 { 2 } else { 1 });
        put(bytes, 16, &super::lsn(cycle, block).to_be_bytes());
        put(bytes, 24, &tail_lsn.to_be_bytes());
        put_be32(bytes, 300, LITTLE_ENDIAN);
        put(bytes, 304, &self.uuid);
    }
}

/// Where in the header blocks the first word of data block `index` is kept.
fn word_at(index: usize) -> usize {
    let (header, word) = (index / WORDS_EACH, (index % WORDS_EACH).saturating_mul(4));
    header.saturating_mul(512).saturating_add(if header == 0 { WORDS } else { WORDS_MORE }).saturating_add(word)
}

/// The checksum of a record, of whose first block `summed` bytes count.
pub(super) fn crc(all: &[u8], header_blocks: u32, len: u32, summed: usize) -> u32 {
    let part = |at: usize, len: usize| all.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default();
    let mut sum = crc32c::crc32c(part(0, CRC));
    sum = crc32c::crc32c_append(sum, &[0; 4]);
    sum = crc32c::crc32c_append(sum, part(CRC.saturating_add(4), summed.saturating_sub(CRC).saturating_sub(4)));
    // Header blocks that keep no words do not count.
    for block in 1..len.div_ceil(PER_HEADER) {
        sum = crc32c::crc32c_append(sum, part(bytes_of(block), SUMMED_MORE));
    }
    crc32c::crc32c_append(sum, part(bytes_of(header_blocks), crate::disk::bytes::size(u64::from(len))))
}
