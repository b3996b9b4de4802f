//! Directories: listings in order of their names, in runs with a header each; large ones with an index.

use std::ops::ControlFlow;

use super::metadata::Stream;
use super::node::{Body, Dir, EXTENDED_DIR, kind};
use super::{Squashfs, corrupt, limit, not};
use crate::disk::bytes::{le16, le32, size};
use crate::error::Result;
use crate::fs::{DirEntry, Inode, utf16};
use crate::limits;

/// What a listing's length has too many.
const EXCESS: u64 = 3;
/// Bytes of a run's header.
const HEADER: u64 = 12;
/// Entries in one run.
const MAX_RUN: u32 = 256;
/// Bits of a cursor that count entries of a run.
const RUN_BITS: u32 = 9;

/// A listing that is read.
struct Listing<'a> {
    stream: Stream<'a>,
    /// Bytes of it that were read.
    at: u64,
    len: u64,
    /// Where the run began.
    header: u64,
    /// Entries of the run: those that were read, and all.
    taken: u32,
    count: u32,
    start_block: u32,
}

impl Listing<'_> {
    fn next(&mut self) -> Result<Option<DirEntry>> {
        if self.taken == self.count {
            if self.at >= self.len {
                return Ok(None);
            }
            self.header = self.at;
            let header = self.take(HEADER)?;
            self.count = le32(&header, 0).saturating_add(1);
            self.start_block = le32(&header, 4);
            self.taken = 0;
            if self.count > MAX_RUN {
                return Err(corrupt("a directory's run has too many entries").found(self.count));
            }
        }
        let entry = self.take(8)?;
        let name = self.take(u64::from(le16(&entry, 6)).saturating_add(1))?;
        if !utf16::is_name(&name) || name.len() > 255 {
            return Err(corrupt("a name is impossible").found(name.escape_ascii()));
        }
        self.taken = self.taken.saturating_add(1);
        let kind = kind(le16(&entry, 4)).ok_or_else(|| corrupt("a directory's entry of no known type"))?;
        let cursor = if self.taken == self.count {
            self.at << RUN_BITS
        } else {
            self.header << RUN_BITS | u64::from(self.taken)
        };
        let inode = Inode(u64::from(self.start_block) << 16 | u64::from(le16(&entry, 0)));
        Ok(Some(DirEntry { name, inode, kind: Some(kind), cursor }))
    }

    fn take(&mut self, len: u64) -> Result<Vec<u8>> {
        self.at = self.at.saturating_add(len);
        if self.at > self.len {
            return Err(corrupt("a directory ends within an entry"));
        }
        self.stream.take(size(len))
    }
}

impl Squashfs {
    /// Visits a directory's entries from `cursor` on: the place of a run in the listing, and the entries of it to skip.
    pub(super) fn walk(
        &self,
        dir: Inode,
        cursor: u64,
        visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.node(dir)?;
        let Body::Dir(place) = &node.body else { return Err(not("a directory", dir)) };
        let Some(mut listing) = self.listing(place, cursor >> RUN_BITS, place.start_block)? else { return Ok(()) };
        for _ in 0..cursor & ((1 << RUN_BITS) - 1) {
            listing.next()?;
        }
        while let Some(entry) = listing.next()? {
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The entry `name` of a directory.
    pub(super) fn find(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let node = self.node(dir)?;
        let Body::Dir(place) = &node.body else { return Err(not("a directory", dir)) };
        let (from, block) = self.indexed(place, name)?;
        let Some(mut listing) = self.listing(place, from, block)? else { return Ok(None) };
        while let Some(entry) = listing.next()? {
            match entry.name.as_slice().cmp(name) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Some(entry.inode)),
                std::cmp::Ordering::Greater => break,
            }
        }
        Ok(None)
    }

    /// The listing from byte `from` on, which lies in `block` of the table or behind it. `None` behind its end.
    fn listing(&self, dir: &Dir, from: u64, block: u32) -> Result<Option<Listing<'_>>> {
        let len = dir.file_size.saturating_sub(EXCESS);
        if len > limits::MAX_SQUASHFS_DIR {
            return Err(limit("a directory is too large").found(len));
        }
        if from >= len {
            return Ok(None);
        }
        let start = self.sb.directory_table_start.saturating_add(u64::from(block));
        let offset = u64::from(dir.offset).saturating_add(from);
        // The block of an index is the one that the run begins in.
        let offset = if block == dir.start_block { offset } else { offset % super::metadata::BLOCK };
        let stream = self.metadata.at(start, offset)?;
        Ok(Some(Listing { stream, at: from, len, header: from, taken: 0, count: 0, start_block: 0 }))
    }

    /// Where in a listing to look for `name`: a byte that a run begins at, and its block.
    fn indexed(&self, dir: &Dir, name: &[u8]) -> Result<(u64, u32)> {
        let mut best = (0, dir.start_block);
        let Some((inode, count)) = dir.index else { return Ok(best) };
        let mut stream = self.inode_stream(inode)?;
        stream.take(EXTENDED_DIR)?;
        for _ in 0..count {
            let entry = stream.take(12)?;
            let len = size(u64::from(le32(&entry, 8)).saturating_add(1));
            if len > 256 {
                return Err(corrupt("a directory's index is damaged").found(len));
            }
            if stream.take(len)?.as_slice() > name {
                break;
            }
            best = (u64::from(le32(&entry, 0)), le32(&entry, 4));
        }
        Ok(best)
    }
}
