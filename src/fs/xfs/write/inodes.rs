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
        let Some(run) = self.allocate_aligned(agno, blocks, alignment)? else { return Ok(None) };
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
        let count = i64::from(chunks.saturating_mul(CHUNK));
        self.count(agno, Header::Agi, COUNT, count)?;
        self.count(agno, Header::Agi, FREE, count)?;
        self.set_field(agno, Header::Agi, NEWEST, first)?;
        self.sb.count_inodes(count, count);
        Ok(Some(Chunk { first, holes: 0, count: 64, free_count: CHUNK, free: u64::MAX }))
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
