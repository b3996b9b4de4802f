//! The index of a directory ("Leaf Directories", "Node Directories"): hashes of names with their places, in leaves below nodes,
//! and the longest free space of every directory block. Leaves stay as they are where nothing changes in them.

use super::Writer;
use super::data::{Leaf, pairs};
use super::dirs::Dir;
use crate::disk::bytes::{be16, be32, put, put_be32, size};
use crate::error::{Error, Result};
use crate::fs::xfs::block;
use crate::limits;

/// Where the index starts in a directory's address space, and where the free space, in bytes.
pub(super) const LEAF_OFFSET: u64 = 1 << 35;
pub(super) const FREE_OFFSET: u64 = 2 << 35;
const FREE_V4: u32 = 0x5844_3246;
const FREE_V5: u32 = 0x5844_4633;
/// Stands for a directory block that there is not.
pub(super) const NO_BLOCK: u16 = u16::MAX;

/// An index in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// Hashes and addresses in order, leaf by leaf.
    pub(super) leaves: Vec<Leaf>,
    /// The longest free space of each directory block.
    pub(super) bests: Vec<u16>,
}

impl Index {
    pub(super) fn count(&self) -> usize {
        self.leaves.iter().map(Vec::len).fold(0, usize::saturating_add)
    }

    /// Whether one leaf more may be read.
    fn has_room(&self) -> bool {
        self.count().saturating_add(self.leaves.len()) <= limits::MAX_XFS_NAMES
    }

    /// Adds an entry to the leaf where it belongs.
    pub(super) fn insert(&mut self, entry: (u32, u32)) {
        let last = self.leaves.len().saturating_sub(1);
        let belongs = |leaf: &Leaf| leaf.last().is_some_and(|last| *last >= entry);
        let index = self.leaves.iter().position(belongs).unwrap_or(last);
        match self.leaves.get_mut(index) {
            Some(leaf) => {
                let at = leaf.iter().position(|other| *other > entry).unwrap_or(leaf.len());
                leaf.insert(at, entry);
            }
            None => self.leaves.push(vec![entry]),
        }
    }

    /// Removes an entry; tells whether it was there.
    pub(super) fn remove(&mut self, entry: (u32, u32)) -> bool {
        for leaf in &mut self.leaves {
            if let Some(at) = leaf.iter().position(|other| *other == entry) {
                leaf.remove(at);
                return true;
            }
        }
        false
    }

    /// The addresses under a hash.
    pub(super) fn addresses(&self, hash: u32) -> Vec<u32> {
        self.leaves.iter().flatten().filter(|(other, _)| *other == hash).map(|(_, address)| *address).collect()
    }

    /// Lets no leaf have more than `max` entries, or none.
    fn share_out(&mut self, max: usize) {
        let all = std::mem::take(&mut self.leaves);
        for leaf in all.into_iter().filter(|leaf| !leaf.is_empty()) {
            let parts = leaf.len().div_ceil(max.max(1)).max(1);
            let each = leaf.len().div_ceil(parts).max(1);
            self.leaves.extend(leaf.chunks(each).map(<[_]>::to_vec));
        }
    }
}

impl Writer<'_> {
    /// Bytes before the entries of a leaf or node, and where they are counted.
    fn da_shape(&self) -> (usize, usize) {
        if self.sb.has_crc() { (64, 56) } else { (16, 12) }
    }

    fn is_kind(&self, bytes: &[u8], v4: u16, v5: u16) -> bool {
        be16(bytes, 8) == if self.sb.has_crc() { v5 } else { v4 }
    }

    /// Reads the index of `dir`.
    pub(super) fn index(&self, dir: &Dir) -> Result<Index> {
        let wrong = || damaged_dir(dir, "its index contradicts itself");
        let (header, count_at) = self.da_shape();
        let mut index = Index::default();
        let mut at = LEAF_OFFSET.wrapping_shr(self.sb.blocklog);
        let mut bytes = self.dir_block(dir, at)?;
        let mut above = limits::MAX_XFS_LEVELS;
        while self.is_kind(&bytes, block::NODE_V4, block::NODE_V5) {
            let level = be16(&bytes, count_at.saturating_add(2));
            if level == 0 || level >= above {
                return Err(wrong());
            }
            above = level;
            at = u64::from(be32(&bytes, header.saturating_add(4)));
            bytes = self.dir_block(dir, at)?;
        }
        if self.is_kind(&bytes, block::LEAF1_V4, block::LEAF1_V5) {
            index.leaves.push(self.entries(dir, &bytes)?);
            let tail = bytes.len().saturating_sub(4);
            let count = size(u64::from(be32(&bytes, tail)));
            let start = tail.checked_sub(count.saturating_mul(2)).filter(|start| *start >= header).ok_or_else(wrong)?;
            index.bests = halves(bytes.get(start..tail).unwrap_or_default());
            return Ok(index);
        }
        loop {
            if !self.is_kind(&bytes, block::LEAFN_V4, block::LEAFN_V5) {
                return Err(wrong());
            }
            index.leaves.push(self.entries(dir, &bytes)?);
            let next = u64::from(be32(&bytes, 0));
            if next == 0 {
                break;
            }
            if !index.has_room() {
                return Err(Error::limit("xfs.limit", format!("directory {} is too large to be changed", dir.number)));
            }
            bytes = self.dir_block(dir, next)?;
        }
        index.bests = self.free_index(dir)?;
        Ok(index)
    }

    fn entries(&self, dir: &Dir, bytes: &[u8]) -> Result<Leaf> {
        let (header, count_at) = self.da_shape();
        let area = bytes.get(header..).unwrap_or_default();
        let count = usize::from(be16(bytes, count_at));
        if count > area.len() / 8 {
            return Err(damaged_dir(dir, "a leaf of its index contradicts itself"));
        }
        let entries = area.chunks_exact(8).take(count).map(|entry| (be32(entry, 0), be32(entry, 4)));
        // Address 0 is that of a name that was removed.
        Ok(entries.filter(|(_, address)| *address != 0).collect())
    }

    /// Bytes before the entries of a block of free spaces.
    fn free_header(&self) -> usize {
        if self.sb.has_crc() { 64 } else { 16 }
    }

    /// The longest free space of each directory block. The kernel leaves out what is behind the last block in use of a part,
    /// and parts without any.
    fn free_index(&self, dir: &Dir) -> Result<Vec<u16>> {
        let wrong = || damaged_dir(dir, "the list of its free space contradicts itself");
        let (magic, first_at) = if self.sb.has_crc() { (FREE_V5, 48_usize) } else { (FREE_V4, 4) };
        let all = size(dir.size.wrapping_shr(self.sb.blocklog).wrapping_shr(self.sb.dirblklog));
        if crate::disk::bytes::long(all) > limits::MAX_XFS_DIR / 512 {
            return Err(wrong());
        }
        let each = self.sb.dir_block_len().saturating_sub(self.free_header()) / 2;
        let mut bests = vec![NO_BLOCK; all];
        let mut at = FREE_OFFSET.wrapping_shr(self.sb.blocklog);
        for (index, part) in bests.chunks_mut(each.max(1)).enumerate() {
            let place = at;
            at = at.saturating_add(self.dir_blocks());
            if !dir.has_block(place) {
                continue;
            }
            let bytes = self.dir_block(dir, place)?;
            let area = bytes.get(self.free_header()..).unwrap_or_default();
            let (first, count) = (be32(&bytes, first_at), size(u64::from(be32(&bytes, first_at.saturating_add(4)))));
            let right = be32(&bytes, 0) == magic && size(u64::from(first)) == index.saturating_mul(each);
            let known = area.get(..count.saturating_mul(2)).filter(|_| right && count <= each).ok_or_else(wrong)?;
            // What is behind the directory's end says that there is nothing.
            part.iter_mut().zip(halves(known)).for_each(|(best, known)| *best = known);
        }
        Ok(bests)
    }

    /// Stores `index` as that of `dir`, in the blocks of the old one and more or fewer of them.
    pub(super) fn put_index(&mut self, dir: &mut Dir, mut index: Index) -> Result<()> {
        let (header, _) = self.da_shape();
        let len = self.sb.dir_block_len();
        let entries = index.count().saturating_mul(8);
        let one = header.saturating_add(entries).saturating_add(index.bests.len().saturating_mul(2)).saturating_add(4);
        if one <= len {
            let all: Leaf = index.leaves.concat();
            let mut bytes = self.leaf(len, (block::LEAF1_V4, block::LEAF1_V5), (None, None), &all);
            let tail = len.saturating_sub(4);
            let bests: Vec<u8> = index.bests.iter().flat_map(|best| best.to_be_bytes()).collect();
            put(&mut bytes, tail.saturating_sub(bests.len()), &bests);
            put_be32(&mut bytes, tail, u32::try_from(index.bests.len()).unwrap_or(u32::MAX));
            self.put_part(dir, LEAF_OFFSET, vec![bytes])?;
            return self.put_part(dir, FREE_OFFSET, Vec::new());
        }
        let max = len.saturating_sub(header) / 8;
        index.share_out(max);
        let hashes: Vec<u32> = index.leaves.iter().map(|leaf| leaf.last().map_or(0, |(hash, _)| *hash)).collect();
        let slots = self.da_tree(len, &|slot| self.leaf_place(slot), &hashes, &mut |slot, beside| {
            let entries = index.leaves.get(slot).map(Vec::as_slice).unwrap_or_default();
            self.leaf(len, (block::LEAFN_V4, block::LEAFN_V5), beside, entries)
        });
        self.put_part(dir, LEAF_OFFSET, slots)?;
        let frees = self.free_blocks(&index.bests);
        self.put_part(dir, FREE_OFFSET, frees)
    }

    /// The blocks of a tree of hashes: the root first, then leaves, then nodes between. `hashes` are the greatest of each leaf;
    /// `leaf` makes the block of one, with its neighbours on the right and left.
    pub(super) fn da_tree(
        &self,
        len: usize,
        place: &dyn Fn(usize) -> u32,
        hashes: &[u32],
        leaf: &mut dyn FnMut(usize, (Option<u32>, Option<u32>)) -> Vec<u8>,
    ) -> Vec<Vec<u8>> {
        if hashes.len() < 2 {
            return vec![leaf(0, (None, None))];
        }
        let max = len.saturating_sub(self.da_shape().0) / 8;
        let beside = |first: usize, index: usize, count: usize| {
            let slot = first.saturating_add(index);
            let after = (index.saturating_add(1) < count).then(|| place(slot.saturating_add(1)));
            (after, (index > 0).then(|| place(slot.saturating_sub(1))))
        };
        let mut slots = vec![Vec::new()];
        let mut below = Vec::with_capacity(hashes.len());
        for (index, hash) in hashes.iter().enumerate() {
            slots.push(leaf(index, beside(1, index, hashes.len())));
            below.push((*hash, place(index.saturating_add(1))));
        }
        let mut level = 1_u16;
        while below.len() > max {
            let count = below.len().div_ceil(max.max(1));
            let each = below.len().div_ceil(count.max(1)).max(1);
            let first = slots.len();
            let parts: Vec<Leaf> = below.chunks(each).map(<[_]>::to_vec).collect();
            below = Vec::with_capacity(parts.len());
            for (index, part) in parts.iter().enumerate() {
                slots.push(self.node(len, level, beside(first, index, parts.len()), part));
                let last = part.last().map_or(0, |(hash, _)| *hash);
                below.push((last, place(first.saturating_add(index))));
            }
            level = level.saturating_add(1);
        }
        let root = self.node(len, level, (None, None), &below);
        if let Some(slot) = slots.first_mut() {
            *slot = root;
        }
        slots
    }

    /// The block of the address space where part `slot` of the index is.
    fn leaf_place(&self, slot: usize) -> u32 {
        let block = crate::disk::bytes::long(slot).saturating_mul(self.dir_blocks());
        u32::try_from(LEAF_OFFSET.wrapping_shr(self.sb.blocklog).saturating_add(block)).unwrap_or(u32::MAX)
    }

    fn leaf(
        &self,
        len: usize,
        kinds: (u16, u16),
        beside: (Option<u32>, Option<u32>),
        entries: &[(u32, u32)],
    ) -> Vec<u8> {
        let (header, count_at) = self.da_shape();
        let mut bytes = vec![0; len];
        put_be32(&mut bytes, 0, beside.0.unwrap_or(0));
        put_be32(&mut bytes, 4, beside.1.unwrap_or(0));
        put(&mut bytes, 8, &if self.sb.has_crc() { kinds.1 } else { kinds.0 }.to_be_bytes());
        put(&mut bytes, count_at, &u16::try_from(entries.len()).unwrap_or(u16::MAX).to_be_bytes());
        put(&mut bytes, header, &pairs(entries));
        bytes
    }

    fn node(&self, len: usize, level: u16, beside: (Option<u32>, Option<u32>), entries: &[(u32, u32)]) -> Vec<u8> {
        let (_, count_at) = self.da_shape();
        let mut bytes = self.leaf(len, (block::NODE_V4, block::NODE_V5), beside, entries);
        put(&mut bytes, count_at.saturating_add(2), &level.to_be_bytes());
        bytes
    }

    fn free_blocks(&self, bests: &[u16]) -> Vec<Vec<u8>> {
        let header = self.free_header();
        let max = self.sb.dir_block_len().saturating_sub(header) / 2;
        let (magic, at) = if self.sb.has_crc() { (FREE_V5, 48) } else { (FREE_V4, 4) };
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let mut blocks = Vec::new();
        for (index, part) in bests.chunks(max.max(1)).enumerate() {
            let mut bytes = vec![0; self.sb.dir_block_len()];
            put_be32(&mut bytes, 0, magic);
            put_be32(&mut bytes, at, number(index.saturating_mul(max)));
            put_be32(&mut bytes, at.saturating_add(4), number(part.len()));
            let used = part.iter().filter(|best| **best != NO_BLOCK).count();
            put_be32(&mut bytes, at.saturating_add(8), number(used));
            let all: Vec<u8> = part.iter().flat_map(|best| best.to_be_bytes()).collect();
            put(&mut bytes, header, &all);
            blocks.push(bytes);
        }
        blocks
    }

    /// Blocks of the file system in a directory block.
    pub(super) fn dir_blocks(&self) -> u64 {
        1_u64.wrapping_shl(self.sb.dirblklog)
    }
}

fn halves(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|half| u16::from_be_bytes(*half)).collect()
}

fn damaged_dir(dir: &Dir, what: &str) -> Error {
    crate::fs::xfs::corrupt(format!("directory {} is damaged: {what}", dir.number))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_as_many_names_as_the_limit() {
        // A leaf counts as much as a name.
        for (more, fits) in [(0, true), (1, true), (2, false)] {
            let leaf = vec![(0, 0); limits::MAX_XFS_NAMES - 3 + more];
            let index = Index { leaves: vec![leaf, Leaf::new()], bests: Vec::new() };
            assert_eq!(index.has_room(), fits, "{more}");
        }
    }
}
