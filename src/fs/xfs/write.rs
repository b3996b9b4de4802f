//! Writing: what one call changes is put together in memory and stored at once, so that an error leaves the file system as it
//! was. The log is clean and stays so: blocks keep the log sequence number that they have, and new ones get 0, which is never
//! ahead of the log.

use std::ops::Range;
use std::sync::Arc;

use super::node::Node;
use super::store::Store;
use super::superblock::Superblock;
use super::view::View;
use super::{block, corrupt};
use crate::disk::DiskMut;
use crate::disk::bytes::{be32, put, put_be32, put_be64, size};
use crate::error::{Error, Kind, Result};

mod attrs;
mod content;
mod data;
mod dirs;
mod files;
mod fork;
mod free_list;
mod index;
mod inodes;
mod intents;
mod leftovers;
mod links;
mod page;
mod parents;
mod reverse;
mod share;
mod short;
mod space;
mod tree;

/// A run of blocks of one allocation group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    agno: u32,
    agbno: u32,
    len: u32,
}

/// The headers of an allocation group, by their sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Agf,
    Agi,
    Agfl,
}

/// One call's changes.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    store: &'a mut Store,
    sb: &'a mut Superblock,
    /// Content of files, by byte of the volume. It goes to the volume before the metadata that leads to it.
    data: Vec<Data>,
}

/// Content for byte `offset` of the volume.
#[derive(Debug)]
struct Data {
    offset: u64,
    bytes: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(store: &'a mut Store, sb: &'a mut Superblock) -> Self {
        Self { store, sb, data: Vec::new() }
    }

    /// Makes what changed ready to be stored.
    pub(super) fn prepare(&mut self) -> Result<()> {
        if self.store.changed() == 0 && self.data.is_empty() {
            return Ok(());
        }
        // The kernel counts anew what it has not checked.
        self.sb.forget_quotas();
        self.store.change(&self.sb.sealed(), 0)
    }

    /// Stores everything on `target`. When that fails, what is there may be half of a change.
    pub(super) fn commit(self, target: &dyn DiskMut) -> Result<()> {
        for Data { offset, bytes, range } in &self.data {
            target.write_at(bytes.get(range.clone()).unwrap_or_default(), *offset)?;
        }
        self.store.store(target)?;
        self.store.keep();
        Ok(())
    }

    fn view(&self) -> View<'_> {
        View { store: self.store, sb: self.sb }
    }

    /// Stores a piece of metadata at byte `offset`, with its checksum.
    fn put(&mut self, offset: u64, mut bytes: Vec<u8>) -> Result<()> {
        if self.sb.has_crc() {
            let layout = block::layout(&bytes).ok_or_else(|| corrupt("a block of metadata has no kind"))?;
            block::seal(&mut bytes, layout.crc);
        }
        self.store.change(&bytes, offset)
    }

    /// Gives blocks back that nobody owns any more.
    fn release(&mut self, run: Run) -> Result<()> {
        self.give(run)?;
        self.fill_list(run.agno)
    }

    /// Stores an inode.
    fn put_node(&mut self, node: &mut Node) -> Result<()> {
        let missing = || corrupt(format!("there is no inode {}", node.number));
        let (place, at) = self.sb.inode_place(node.number).ok_or_else(missing)?;
        if self.sb.has_crc() {
            node.touch();
            block::seal(&mut node.raw, block::INODE_CRC);
        }
        let mut bytes = self.store.block(place, self.sb.block_len())?.to_vec();
        put(&mut bytes, at, &node.raw);
        self.store.change(&bytes, place)
    }

    fn place_of(&self, agno: u32, header: Header) -> u64 {
        let sector: u64 = match header {
            Header::Agf => 1,
            Header::Agi => 2,
            Header::Agfl => 3,
        };
        self.sb.place(agno, 0).saturating_add(sector.wrapping_shl(self.sb.sectlog))
    }

    fn header(&self, agno: u32, header: Header) -> Result<super::store::Block> {
        match header {
            Header::Agf => self.view().header(agno, 1, block::AGF).map(|(bytes, _)| bytes),
            Header::Agi => self.view().header(agno, 2, block::AGI).map(|(bytes, _)| bytes),
            Header::Agfl => self.view().metadata(self.place_of(agno, header), self.sb.sector_len(), None),
        }
    }

    /// The four bytes at `at` of a header.
    fn field(&self, agno: u32, header: Header, at: usize) -> Result<u32> {
        Ok(be32(&self.header(agno, header)?, at))
    }

    fn set_field(&mut self, agno: u32, header: Header, at: usize, value: u32) -> Result<()> {
        let mut bytes = self.header(agno, header)?.to_vec();
        put_be32(&mut bytes, at, value);
        self.put(self.place_of(agno, header), bytes)
    }

    /// Adds `delta` to a counter of a header.
    fn count(&mut self, agno: u32, header: Header, at: usize, delta: i64) -> Result<()> {
        let value = i64::from(self.field(agno, header, at)?).saturating_add(delta);
        let value = u32::try_from(value)
            .map_err(|_| corrupt(format!("a counter of allocation group {agno} does not agree with what it counts")))?;
        self.set_field(agno, header, at, value)
    }

    /// The block that a run begins with, by its number in the file system.
    fn fsbno(&self, run: Run) -> u64 {
        u64::from(run.agno).wrapping_shl(self.sb.agblklog) | u64::from(run.agbno)
    }

    /// The `len` blocks from `fsbno` on, which must lie in one group.
    fn run_at(&self, fsbno: u64, len: u64) -> Result<Run> {
        self.sb.run(fsbno, len)?;
        let (agno, agbno) = self.sb.ag_of(fsbno).ok_or_else(|| corrupt("a block lies outside of the file system"))?;
        Ok(Run { agno, agbno, len: u32::try_from(len).unwrap_or(u32::MAX) })
    }

    /// The fields that a new block of version 5 has in common, at the places that its kind has them at.
    fn describe(&self, bytes: &mut [u8], offset: u64, owner: u64) {
        if let Some(layout) = block::layout(bytes).filter(|_| self.sb.has_crc()) {
            put_be64(bytes, layout.lsn, 0);
            put(bytes, layout.uuid, &self.sb.meta_uuid);
            if let Some(at) = layout.blkno {
                put_be64(bytes, at, offset >> 9);
            }
            match layout.owner {
                Some(at) if layout.short_owner => put_be32(bytes, at, u32::try_from(owner).unwrap_or(u32::MAX)),
                Some(at) => put_be64(bytes, at, owner),
                None => {}
            }
        }
    }

    fn empty_block(&self) -> Vec<u8> {
        vec![0; size(self.sb.block_size())]
    }
}

pub(super) use space::reserve;

/// The file system has no room.
fn full(what: impl Into<String>) -> Error {
    Error::new(Kind::NoSpace, "xfs.space", what)
}
