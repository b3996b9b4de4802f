//! The file system at one moment: its superblock and its bytes, with metadata verified on the way.

use super::block;
use super::corrupt;
use super::map::Piece;
use super::node::{Fork, Node};
use super::store::{Block, Store};
use super::superblock::Superblock;
use crate::error::Result;

/// What every reader needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) store: &'a Store,
    pub(super) sb: &'a Superblock,
}

impl View<'_> {
    /// The `len` bytes of metadata at byte `offset`, which must belong to `owner` where they say.
    pub(super) fn metadata(&self, offset: u64, len: usize, owner: Option<u64>) -> Result<Block> {
        if !self.sb.has_crc() {
            return self.store.block(offset, len);
        }
        self.store.verified(offset, len, owner, |bytes| block::verify(bytes, offset, &self.sb.meta_uuid, owner))
    }

    /// The block of metadata `fsbno` of inode `owner`.
    pub(super) fn block_of(&self, fsbno: u64, owner: u64) -> Result<Block> {
        self.metadata(self.sb.run(fsbno, 1)?, self.sb.block_len(), Some(owner))
    }

    /// The `count` blocks from block `first` of a fork, not verified, and where the first one lies.
    pub(super) fn fork_blocks(&self, node: &Node, fork: Fork, first: u64, count: u64) -> Result<(Block, u64)> {
        let mut found = Vec::new();
        let mut start = None;
        let mut at = first;
        let end = first.saturating_add(count);
        while at < end {
            let piece = self.map(node, fork, at)?;
            let blocks = piece.count.min(end.saturating_sub(at));
            let Piece { block: Some(fsbno), unwritten: false, .. } = piece else {
                return Err(corrupt(format!("a fork of inode {} has a hole", node.number)));
            };
            let offset = self.sb.run(fsbno, blocks)?;
            let len = crate::disk::bytes::size(self.sb.bytes(blocks));
            if blocks == count {
                return Ok((self.store.block(offset, len)?, offset));
            }
            start.get_or_insert(offset);
            found.extend_from_slice(&self.store.block(offset, len)?);
            at = at.saturating_add(blocks);
        }
        Ok((Block::new(found), start.unwrap_or(0)))
    }

    /// The directory or attribute block that starts at block `first` of a fork.
    pub(super) fn da_block(&self, node: &Node, fork: Fork, first: u64) -> Result<Block> {
        let count = 1_u64.wrapping_shl(if fork == Fork::Data { self.sb.dirblklog } else { 0 });
        let piece = self.map(node, fork, first)?;
        if let Some(fsbno) = piece.block.filter(|_| piece.count >= count && !piece.unwritten) {
            let len = crate::disk::bytes::size(self.sb.bytes(count));
            return self.metadata(self.sb.run(fsbno, count)?, len, Some(node.number));
        }
        let (block, offset) = self.fork_blocks(node, fork, first, count)?;
        if self.sb.has_crc() {
            block::verify(&block, offset, &self.sb.meta_uuid, Some(node.number))?;
        }
        Ok(block)
    }
}
