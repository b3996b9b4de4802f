//! Inodes: taken from chunks with free ones or new chunks, and given back ("AG Inode B+trees").

use std::ops::ControlFlow;

use super::reverse::OWNER_INODES;
use super::tree::{Tree, damaged};
use super::{Header, Run, Writer, full};
use crate::disk::bytes::{be16, be32, be64, put, put_be32, put_be64, size, u8_at};
use crate::error::Result;
use crate::fs::xfs::node::{self, Fork, Node};
use crate::fs::xfs::{block, corrupt};

/// Inodes of a chunk.
const CHUNK: u32 = 64;
/// Inodes that one bit of a chunk's mask of holes stands for.
const PER_HOLE: u32 = 4;
const NO_INODE: u32 = u32::MAX;
const COUNT: usize = 16;
const FREE: usize = 28;
const NEWEST: usize = 32;

/// A record of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    first: u32,
    /// A bit for each four inodes that there are not.
    holes: u16,
    count: u8,
    free_count: u32,
    free: u64,
}

impl Chunk {
    fn parse(record: &[u8], is_sparse: bool) -> Self {
        let whole = Self { first: be32(record, 0), holes: 0, count: 64, free_count: 0, free: be64(record, 8) };
        if is_sparse {
            let (holes, count) = (be16(record, 4), u8_at(record, 6));
            Self { holes, count, free_count: u32::from(u8_at(record, 7)), ..whole }
        } else {
            Self { free_count: be32(record, 4), ..whole }
        }
    }

    fn bytes(self, is_sparse: bool) -> Vec<u8> {
        let mut record = vec![0; 16];
        put_be32(&mut record, 0, self.first);
        if is_sparse {
            put(&mut record, 4, &self.holes.to_be_bytes());
            put(&mut record, 6, &[self.count, u8::try_from(self.free_count).unwrap_or(0)]);
        } else {
            put_be32(&mut record, 4, self.free_count);
        }
        put_be64(&mut record, 8, self.free);
        record
    }

    /// A chunk of `count` free inodes, from the one at `index` on.
    fn part(first: u32, index: u32, count: u32) -> Self {
        let bits = 1_u16.wrapping_shl(count / PER_HOLE).wrapping_sub(1).wrapping_shl(index / PER_HOLE);
        let len = u8::try_from(count).unwrap_or(0);
        Self { first, holes: !bits, count: len, free_count: count, free: u64::MAX }
    }

    /// The same chunk with another part; none if it has that.
    fn joined(self, part: Self) -> Option<Self> {
        let count = self.count.checked_add(part.count).filter(|_| self.holes | part.holes == u16::MAX)?;
        let free_count = self.free_count.saturating_add(part.free_count);
        Some(Self { holes: self.holes & part.holes, count, free_count, ..self })
    }

    /// The first free inode, counted from the chunk's first.
    fn first_free(self) -> Option<u32> {
        (0..CHUNK).find(|index| {
            let is_free = self.free.wrapping_shr(*index) & 1 != 0;
            is_free && self.holes.wrapping_shr(*index / PER_HOLE) & 1 == 0
        })
    }
}

impl Writer<'_> {
    fn chunk(&self, record: &[u8]) -> Chunk {
        Chunk::parse(record, self.sb.features.has_sparse_inodes())
    }

    pub(super) fn inode_number(&self, agno: u32, agino: u32) -> u64 {
        u64::from(agno).wrapping_shl(self.sb.agblklog.saturating_add(self.sb.inopblog)) | u64::from(agino)
    }

    /// The group of an inode, and its number there.
    fn inode_parts(&self, number: u64) -> Result<(u32, u32)> {
        let log = self.sb.agblklog.saturating_add(self.sb.inopblog);
        let agino = number & 1_u64.wrapping_shl(log).wrapping_sub(1);
        let missing = |_| corrupt(format!("there is no inode {number}"));
        Ok((u32::try_from(number.wrapping_shr(log)).map_err(missing)?, u32::try_from(agino).map_err(missing)?))
    }

    /// Takes a free inode, as near to inode `near` as groups go.
    pub(super) fn take_inode(&mut self, near: u64) -> Result<u64> {
        let (home, agino) = self.inode_parts(near)?;
        let groups = || (0..self.sb.agcount).map(|step| home.saturating_add(step).checked_rem(self.sb.agcount));
        let order: Vec<u32> = groups().map(|agno| agno.unwrap_or(0)).collect();
        for agno in &order {
            let wanted = if *agno == home { agino } else { 0 };
            if let Some(chunk) = self.chunk_with_free(*agno, wanted)? {
                return self.take_from_chunk(*agno, chunk);
            }
            if let Some(chunk) = self.new_chunks(*agno)? {
                return self.take_from_chunk(*agno, chunk);
            }
            if let Some(chunk) = self.new_part(*agno)? {
                return self.take_from_chunk(*agno, chunk);
            }
        }
        Err(full("the file system has no room for another inode"))
    }

    fn chunk_with_free(&self, agno: u32, near: u32) -> Result<Option<Chunk>> {
        if self.field(agno, Header::Agi, FREE)? == 0 {
            return Ok(None);
        }
        let tree = if self.sb.features.has_finobt() { Tree::FreeIno } else { Tree::Ino };
        let mut found = None;
        for from in [near, 0] {
            self.walk(agno, tree, (u64::from(from), 0, 0), &mut |record| {
                let chunk = self.chunk(record);
                found = chunk.first_free().map(|_| chunk);
                if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    fn take_from_chunk(&mut self, agno: u32, chunk: Chunk) -> Result<u64> {
        let index = chunk.first_free().ok_or_else(|| damaged(agno, "a chunk has no free inode"))?;
        let free_count =
            chunk.free_count.checked_sub(1).ok_or_else(|| damaged(agno, "a chunk miscounts its inodes"))?;
        let taken = Chunk { free: chunk.free & !1_u64.wrapping_shl(index), free_count, ..chunk };
        self.put_chunk(agno, chunk, taken)?;
        self.count(agno, Header::Agi, FREE, -1)?;
        self.sb.count_inodes(0, -1);
        Ok(self.inode_number(agno, chunk.first.saturating_add(index)))
    }

    /// Puts the record of a chunk over the old one, in both trees.
    fn put_chunk(&mut self, agno: u32, old: Chunk, new: Chunk) -> Result<()> {
        let is_sparse = self.sb.features.has_sparse_inodes();
        let record = new.bytes(is_sparse);
        self.update(agno, Tree::Ino, &record)?;
        if !self.sb.features.has_finobt() {
            return Ok(());
        }
        match (old.free_count, new.free_count) {
            (0, _) => self.insert(agno, Tree::FreeIno, &record),
            (_, 0) => self.remove(agno, Tree::FreeIno, &record),
            _ => self.update(agno, Tree::FreeIno, &record),
        }
    }

    /// Makes a chunk of free inodes, or as many as fit in a block; gives the first. None if the group has no room.
    fn new_chunks(&mut self, agno: u32) -> Result<Option<Chunk>> {
        let per_block = 1_u32.wrapping_shl(self.sb.inopblog);
        let (blocks, chunks) = (CHUNK.wrapping_shr(self.sb.inopblog).max(1), (per_block / CHUNK).max(1));
        let alignment = if self.sb.features.has_alignment() { self.sb.inoalignmt().max(1) } else { 1 };
        let Some(run) = self.allocate_aligned(agno, blocks, alignment, 1..=u32::MAX)? else { return Ok(None) };
        self.add_owner(run, OWNER_INODES, 0)?;
        self.write_free_inodes(run)?;
        let first = run.agbno.wrapping_shl(self.sb.inopblog);
        let is_sparse = self.sb.features.has_sparse_inodes();
        for index in 0..chunks {
            let first = first.saturating_add(index.saturating_mul(CHUNK));
            let record = Chunk { first, holes: 0, count: 64, free_count: CHUNK, free: u64::MAX }.bytes(is_sparse);
            self.insert(agno, Tree::Ino, &record)?;
            if self.sb.features.has_finobt() {
                self.insert(agno, Tree::FreeIno, &record)?;
            }
        }
        self.count_new(agno, first, chunks.saturating_mul(CHUNK))?;
        Ok(Some(Chunk { first, holes: 0, count: 64, free_count: CHUNK, free: u64::MAX }))
    }

    /// Makes a part of a chunk, whose other parts may be there already, where there is no room for a whole one.
    fn new_part(&mut self, agno: u32) -> Result<Option<Chunk>> {
        let (blocks, whole) = (self.sb.spino_align(), self.sb.inoalignmt());
        let inodes = blocks.wrapping_shl(self.sb.inopblog);
        let is_part = (PER_HOLE..CHUNK).contains(&inodes) && inodes.is_multiple_of(PER_HOLE);
        if !is_part || whole.wrapping_shl(self.sb.inopblog) != CHUNK || !whole.is_multiple_of(blocks) {
            return Ok(None);
        }
        // All of the chunk lies in the group.
        let rounded = |block: u32| block.saturating_sub(block.checked_rem(whole).unwrap_or(0));
        let end = rounded(self.sb.ag_len(agno));
        let range = whole..=end.saturating_sub(blocks);
        let Some(run) = self.allocate_aligned(agno, blocks, blocks, range)? else { return Ok(None) };
        self.add_owner(run, OWNER_INODES, 0)?;
        self.write_free_inodes(run)?;
        let start = rounded(run.agbno);
        let part = Chunk::part(
            start.wrapping_shl(self.sb.inopblog),
            run.agbno.saturating_sub(start).wrapping_shl(self.sb.inopblog),
            inodes,
        );
        let known = self.at_most(agno, Tree::Ino, (u64::from(part.first), 0, 0))?.map(|record| self.chunk(&record));
        let chunk = match known.filter(|known| known.first == part.first) {
            Some(known) => {
                let chunk = known.joined(part).ok_or_else(|| damaged(agno, "a chunk has free blocks for inodes"))?;
                self.put_chunk(agno, known, chunk)?;
                chunk
            }
            None => {
                self.insert(agno, Tree::Ino, &part.bytes(true))?;
                if self.sb.features.has_finobt() {
                    self.insert(agno, Tree::FreeIno, &part.bytes(true))?;
                }
                part
            }
        };
        self.count_new(agno, part.first, inodes)?;
        Ok(Some(chunk))
    }

    fn count_new(&mut self, agno: u32, first: u32, count: u32) -> Result<()> {
        self.count(agno, Header::Agi, COUNT, i64::from(count))?;
        self.count(agno, Header::Agi, FREE, i64::from(count))?;
        self.set_field(agno, Header::Agi, NEWEST, first)?;
        self.sb.count_inodes(i64::from(count), i64::from(count));
        Ok(())
    }

    fn write_free_inodes(&mut self, run: Run) -> Result<()> {
        let first = self.inode_number(run.agno, run.agbno.wrapping_shl(self.sb.inopblog));
        let mut bytes = vec![0; size(self.sb.bytes(u64::from(run.len)))];
        for (number, raw) in (first..).zip(bytes.chunks_mut(self.sb.inode_len())) {
            self.describe_inode(raw, number);
        }
        self.store.change(&bytes, self.sb.place(run.agno, run.agbno))
    }

    /// What every inode has, in use or not.
    fn describe_inode(&self, raw: &mut [u8], number: u64) {
        put(raw, 0, &node::MAGIC.to_be_bytes());
        put_be32(raw, 96, NO_INODE);
        if self.sb.has_crc() {
            put(raw, 4, &[3]);
            put_be64(raw, 152, number);
            put(raw, 160, &self.sb.meta_uuid);
            block::seal(raw, block::INODE_CRC);
        } else {
            put(raw, 4, &[2]);
        }
    }

    /// Inode `number` as a new one of a kind and mode; it must be free. It is not stored.
    pub(super) fn new_node(&self, number: u64, mode: u16) -> Result<Node> {
        let missing = || corrupt(format!("there is no inode {number}"));
        let (place, at) = self.sb.inode_place(number).ok_or_else(missing)?;
        let bytes = self.store.block(place, self.sb.block_len())?;
        let old = bytes.get(at..).and_then(|rest| rest.get(..self.sb.inode_len())).ok_or_else(missing)?;
        if be16(old, 0) != node::MAGIC || be16(old, 2) != 0 {
            return Err(corrupt(format!("inode {number} is not free")).offset(place));
        }
        let mut raw = vec![0; self.sb.inode_len()];
        self.describe_inode(&mut raw, number);
        put(&mut raw, 2, &mode.to_be_bytes());
        put(&mut raw, 5, &[2]);
        put(&mut raw, 83, &[2]);
        put_be32(&mut raw, 92, be32(old, 92));
        if self.sb.has_crc() {
            put_be64(&mut raw, 120, self.sb.features.new_inode_flags());
        }
        Ok(Node { number, raw })
    }

    /// Frees an inode that has no name any more, with all that it has.
    pub(super) fn free_node(&mut self, mut node: Node) -> Result<()> {
        if node.is_realtime() {
            return Err(crate::fs::xfs::unsupported(format!(
                "the data of inode {} is on a realtime device",
                node.number
            )));
        }
        for fork in [Fork::Data, Fork::Attr] {
            if let super::fork::Body::Mapped(map) = self.body(&node, fork)? {
                self.drop_map(node.number, fork, map)?;
            }
        }
        node.clear();
        self.put_node(&mut node)?;
        let (agno, agino) = self.inode_parts(node.number)?;
        let missing = || damaged(agno, "an inode is in no chunk");
        let record = self.at_most(agno, Tree::Ino, (u64::from(agino), 0, 0))?.ok_or_else(missing)?;
        let chunk = self.chunk(&record);
        let index = agino.saturating_sub(chunk.first);
        let bit = 1_u64.wrapping_shl(index);
        if index >= CHUNK || chunk.free & bit != 0 {
            return Err(missing());
        }
        let new = Chunk { free: chunk.free | bit, free_count: chunk.free_count.saturating_add(1), ..chunk };
        self.put_chunk(agno, chunk, new)?;
        self.count(agno, Header::Agi, FREE, 1)?;
        self.sb.count_inodes(0, 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_chunk_make_it_whole() {
        let (first, second) = (Chunk::part(128, 0, 32), Chunk::part(128, 32, 32));
        assert_eq!((first.holes, second.holes), (0xff00, 0x00ff));
        assert_eq!((first.first_free(), second.first_free()), (Some(0), Some(32)));
        let taken = Chunk { free: first.free & !1, free_count: 31, ..first };
        assert_eq!(taken.first_free(), Some(1));
        let whole = Chunk { first: 128, holes: 0, count: 64, free_count: 63, free: u64::MAX - 1 };
        assert_eq!(taken.joined(second), Some(whole));
        assert_eq!(Chunk::parse(&whole.bytes(true), true), whole);
        // What is there already is no new part.
        assert_eq!(first.joined(first), None);
        assert_eq!(whole.joined(second), None);
    }
}
