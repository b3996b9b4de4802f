//! Metadata: a sequence of blocks of at most 8 KiB, each with a length in front, read as one stream from any place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::codec::Codec;
use super::corrupt;
use super::superblock::Superblock;
use crate::disk::bytes::{le16, long, size};
use crate::error::Result;
use crate::fs::pages::Pages;
use crate::limits;

/// Bytes that a block decodes to, all but the last one of a table.
pub(super) const BLOCK: u64 = 8192;

/// In a block's length: it is not compressed.
const PLAIN: u16 = 1 << 15;

/// A block that was decoded, and where the next one is.
#[derive(Clone, Debug)]
struct Block {
    bytes: Arc<Vec<u8>>,
    next: u64,
}

/// Reads metadata, and keeps what it decoded.
#[derive(Debug)]
pub(super) struct Metadata {
    pages: Pages,
    codec: Codec,
    end: u64,
    cache: Mutex<HashMap<u64, Block>>,
}

impl Metadata {
    pub(super) fn new(pages: Pages, sb: &Superblock) -> Self {
        Self { pages, codec: sb.codec, end: sb.bytes_used, cache: Mutex::default() }
    }

    /// Bytes that are not compressed: lists of places. The caller bounds `len`.
    pub(super) fn plain(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        if offset.saturating_add(long(len)) > self.end {
            return Err(corrupt("a table lies outside of the file system").offset(offset));
        }
        self.pages.bytes(offset, len)
    }

    /// A stream that begins `offset` bytes into what the block at `place` and those behind it decode to.
    pub(super) fn at(&self, place: u64, offset: u64) -> Result<Stream<'_>> {
        let (mut place, mut offset) = (place, offset);
        // Only the last block of a table is shorter.
        while offset >= BLOCK {
            place = place.saturating_add(2).saturating_add(long(self.stored(place)?.0));
            offset = offset.saturating_sub(BLOCK);
        }
        let block = self.block(place)?;
        if size(offset) > block.bytes.len() {
            return Err(corrupt("a reference leads past the end of a block").offset(place).found(offset));
        }
        Ok(Stream { metadata: self, block, at: size(offset) })
    }

    /// Bytes of the block at `place` as it is stored, and whether they are plain.
    fn stored(&self, place: u64) -> Result<(usize, bool)> {
        let header = le16(&self.plain(place, 2)?, 0);
        let len = usize::from(header & !PLAIN);
        if len == 0 || long(len) > BLOCK {
            return Err(corrupt("a metadata block has an impossible length").offset(place).found(len));
        }
        Ok((len, header & PLAIN != 0))
    }

    fn block(&self, place: u64) -> Result<Block> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = lock().get(&place) {
            return Ok(block.clone());
        }
        let (len, is_plain) = self.stored(place)?;
        let start = place.saturating_add(2);
        let bytes = self.plain(start, len)?;
        let bytes =
            if is_plain { bytes } else { self.codec.decode(&bytes, size(BLOCK)).map_err(|e| e.offset(place))? };
        if bytes.is_empty() {
            return Err(corrupt("a metadata block is empty").offset(place));
        }
        let block = Block { bytes: Arc::new(bytes), next: start.saturating_add(long(len)) };
        let mut cache = lock();
        if long(cache.len()).saturating_mul(BLOCK) >= limits::FS_CACHE {
            cache.clear();
        }
        cache.insert(place, block.clone());
        Ok(block)
    }
}

/// A place in the metadata, from which bytes are taken one after the other.
#[derive(Clone, Debug)]
pub(super) struct Stream<'a> {
    metadata: &'a Metadata,
    block: Block,
    at: usize,
}

impl Stream<'_> {
    /// The next `len` bytes, which the caller bounds.
    pub(super) fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let left = len.saturating_sub(bytes.len());
            let rest = self.block.bytes.get(self.at..).unwrap_or_default();
            let part = rest.get(..left).unwrap_or(rest);
            bytes.extend_from_slice(part);
            self.at = self.at.saturating_add(part.len());
            if part.len() < left {
                self.block = self.metadata.block(self.block.next)?;
                self.at = 0;
            }
        }
        Ok(bytes)
    }
}
