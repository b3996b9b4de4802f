//! What files hold: blocks, each compressed for itself, one after the other; holes; and an end that may lie in a block with those of
//! other files.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use super::codec::{Codec, Stored};
use super::metadata::Stream;
use super::superblock::Superblock;
use super::{Squashfs, corrupt, limit};
use crate::disk::Disk;
use crate::disk::bytes::{array, long, size};
use crate::error::Result;
use crate::fs::parts::Parts;
use crate::limits;

/// A file without an end elsewhere.
const NO_FRAGMENT: u32 = u32::MAX;

/// Blocks between two whose places are kept.
const STRIDE: usize = 256;

/// Where a file's content lies.
#[derive(Debug)]
pub(super) struct File {
    start: u64,
    pub(super) size: u64,
    sparse: u64,
    /// The block that holds the file's end, and the place in it.
    fragment: Option<(u32, u32)>,
    /// Stored lengths.
    list: Vec<u32>,
    /// Places of the blocks 0, [`STRIDE`] …
    places: Vec<u64>,
}

impl File {
    pub(super) fn new(start: u64, size: u64, sparse: u64, fragment: (u32, u32)) -> Self {
        let fragment = (fragment.0 != NO_FRAGMENT).then_some(fragment);
        Self { start, size, sparse, fragment, list: Vec::new(), places: Vec::new() }
    }

    /// Reads the list of blocks, which follows the inode.
    pub(super) fn with_blocks(mut self, stream: &mut Stream<'_>, block_size: u32) -> Result<Self> {
        let block = u64::from(block_size);
        let count =
            if self.fragment.is_some() { self.size.checked_div(block) } else { Some(self.size.div_ceil(block)) };
        let count = size(count.unwrap_or(0));
        if count > limits::MAX_SQUASHFS_BLOCKS {
            return Err(limit("a file has too many blocks").found(count));
        }
        let mut place = self.start;
        while self.list.len() < count {
            // A stream that ends is an error before much is held.
            let piece = stream.take(count.saturating_sub(self.list.len()).min(STRIDE).saturating_mul(4))?;
            self.places.push(place);
            for word in piece.chunks_exact(4) {
                let word = u32::from_le_bytes(array(word, 0));
                place = place.saturating_add(Stored::data(word).map_or(0, |stored| long(stored.len)));
                self.list.push(word);
            }
        }
        Ok(self)
    }

    pub(super) fn blocks(&self) -> usize {
        self.list.len()
    }

    /// Bytes as the kernel counts them: all but the holes, in units of 512.
    pub(super) fn allocated(&self) -> u64 {
        let held = self.size.saturating_sub(self.sparse);
        held.checked_next_multiple_of(512).unwrap_or(held)
    }

    /// Adds to `parts` what is no hole.
    pub(super) fn data(&self, block_size: u64, parts: &mut Parts<'_>) -> ControlFlow<()> {
        let wanted = parts.rest(0);
        let mut at = wanted.start.checked_div(block_size).unwrap_or(0);
        while at.saturating_mul(block_size) < wanted.end {
            let start = at.saturating_mul(block_size);
            match self.list.get(size(at)) {
                Some(word) if Stored::data(*word).is_none() => {}
                Some(_) => parts.add(start..start.saturating_add(block_size))?,
                // The end, in a fragment.
                None => return parts.add(start..self.size),
            }
            at = at.saturating_add(1);
        }
        ControlFlow::Continue(())
    }

    /// Where block `index` is stored; `None` for a hole.
    fn block(&self, index: usize) -> Option<(u64, Stored)> {
        let from = index.checked_div(STRIDE)?;
        let first = from.saturating_mul(STRIDE);
        let before = self.list.get(first..index)?.iter().filter_map(|word| Stored::data(*word));
        let place = before.fold(*self.places.get(from)?, |place, stored| place.saturating_add(long(stored.len)));
        Some((place, Stored::data(*self.list.get(index)?)?))
    }
}

/// A block that was decoded.
type Decoded = (u64, Arc<Vec<u8>>);

/// Reads blocks of content, and keeps the last ones: [`limits::SQUASHFS_DECODED`].
#[derive(Debug)]
pub(super) struct Contents {
    volume: Arc<dyn Disk>,
    codec: Codec,
    block_size: usize,
    end: u64,
    cache: Mutex<VecDeque<Decoded>>,
}

impl Contents {
    pub(super) fn new(volume: Arc<dyn Disk>, sb: &Superblock) -> Self {
        let block_size = size(u64::from(sb.block_size));
        Self { volume, codec: sb.codec, block_size, end: sb.bytes_used, cache: Mutex::default() }
    }

    /// Blocks that are in memory.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The block at `place`, decoded.
    fn block(&self, place: u64, stored: Stored) -> Result<Arc<Vec<u8>>> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, bytes)) = lock().iter().find(|(known, _)| *known == place) {
            return Ok(Arc::clone(bytes));
        }
        if stored.len > self.block_size {
            return Err(corrupt("a block is longer than what it holds").offset(place).found(stored.len));
        }
        if place.saturating_add(long(stored.len)) > self.end {
            return Err(corrupt("a block lies outside of the file system").offset(place));
        }
        let mut bytes = vec![0; stored.len];
        self.volume.read_at(&mut bytes, place)?;
        if !stored.is_plain {
            bytes = self.codec.decode(&bytes, self.block_size).map_err(|error| error.offset(place))?;
        }
        let bytes = Arc::new(bytes);
        let mut cache = lock();
        cache.push_front((place, Arc::clone(&bytes)));
        cache.truncate(limits::SQUASHFS_DECODED);
        Ok(bytes)
    }
}

impl Squashfs {
    /// Fills `buf` from `offset` of a file, up to its end. How much that was.
    pub(super) fn read_file(&self, file: &File, buf: &mut [u8], offset: u64) -> Result<usize> {
        let len = buf.len().min(size(file.size.saturating_sub(offset)));
        let block_size = u64::from(self.sb.block_size);
        let mut done = 0_usize;
        while done < len {
            let at = offset.saturating_add(long(done));
            let index = at.checked_div(block_size).unwrap_or(0);
            let within = at.checked_rem(block_size).unwrap_or(0);
            // The last block is shorter.
            let start = index.saturating_mul(block_size);
            let whole = file.size.saturating_sub(start).min(block_size);
            let end = done.saturating_add(size(whole.saturating_sub(within))).min(len);
            let to = buf.get_mut(done..end).unwrap_or_default();
            self.read_block(file, size(index), size(whole), size(within), to)?;
            done = end;
        }
        Ok(len)
    }

    /// Fills `to` from `within` bytes into block `index`, which holds `whole` bytes.
    fn read_block(&self, file: &File, index: usize, whole: usize, within: usize, to: &mut [u8]) -> Result<()> {
        let (bytes, skip) = match (file.fragment, index < file.list.len()) {
            (Some((number, offset)), false) => {
                let fragment = self.fragment(number)?;
                (self.contents.block(fragment.start, fragment.stored)?, size(u64::from(offset)))
            }
            _ => match file.block(index) {
                Some((place, stored)) => (self.contents.block(place, stored)?, 0),
                None => {
                    to.fill(0);
                    return Ok(());
                }
            },
        };
        let content = bytes.get(skip..).and_then(|rest| rest.get(..whole));
        let from = content.and_then(|content| content.get(within..)).and_then(|rest| rest.get(..to.len()));
        to.copy_from_slice(from.ok_or_else(|| corrupt("a block holds less than the file").found(bytes.len()))?);
        Ok(())
    }
}
