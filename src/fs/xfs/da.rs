//! What directories and extended attributes share ("Directories", "Extended Attributes"): the hash of a name, and B+trees of
//! hashes in blocks of a fork.

use super::map::first_above;
use super::node::{Fork, Node};
use super::store::Block;
use super::view::View;
use super::{block, corrupt};
use crate::disk::bytes::{be16, be32};
use crate::error::Result;
use crate::limits;

/// The hash of a name.
pub(super) fn hash(name: &[u8]) -> u32 {
    let (fours, rest) = name.as_chunks::<4>();
    let whole = fours.iter().fold(0_u32, |hash, [a, b, c, d]| {
        u32::from(*a) << 21 ^ u32::from(*b) << 14 ^ u32::from(*c) << 7 ^ u32::from(*d) ^ hash.rotate_left(28)
    });
    match rest {
        [a, b, c] => u32::from(*a) << 14 ^ u32::from(*b) << 7 ^ u32::from(*c) ^ whole.rotate_left(21),
        [a, b] => u32::from(*a) << 7 ^ u32::from(*b) ^ whole.rotate_left(14),
        [a] => u32::from(*a) ^ whole.rotate_left(7),
        _ => whole,
    }
}

impl View<'_> {
    /// Bytes before the entries of a node or leaf of a directory.
    pub(super) fn da_header(&self) -> usize {
        if self.sb.has_crc() { 64 } else { 16 }
    }

    /// The leaf under the node or leaf at block `root` of a fork that has `wanted`, if any has; the first one with `None`.
    pub(super) fn da_leaf(&self, node: &Node, fork: Fork, root: u64, wanted: Option<u32>) -> Result<Block> {
        let mut bytes = self.da_block(node, fork, root)?;
        let mut above = limits::MAX_XFS_LEVELS;
        while self.is_da_node(&bytes) {
            let level = be16(&bytes, self.da_header().saturating_sub(if self.sb.has_crc() { 6 } else { 2 }));
            if level == 0 || level >= above {
                return Err(corrupt(format!("a tree of hashes of inode {} contradicts itself", node.number)));
            }
            above = level;
            bytes = self.da_block(node, fork, u64::from(self.da_child(node, &bytes, wanted)?))?;
        }
        // A node of level 1 has leaves below it, and nothing else ends the search.
        Ok(bytes)
    }

    fn is_da_node(&self, bytes: &[u8]) -> bool {
        be16(bytes, 8) == if self.sb.has_crc() { block::NODE_V5 } else { block::NODE_V4 }
    }

    /// The block in which a node has `wanted`.
    fn da_child(&self, node: &Node, bytes: &[u8], wanted: Option<u32>) -> Result<u32> {
        let area = bytes.get(self.da_header()..).unwrap_or_default();
        let count = usize::from(be16(bytes, if self.sb.has_crc() { 56 } else { 12 }));
        if count == 0 || count > area.len() / 8 {
            return Err(corrupt(format!("a tree of hashes of inode {} has an impossible node", node.number)));
        }
        let key = |index: usize| u64::from(be32(area, index.saturating_mul(8)));
        // Each key is the greatest hash below it, and equal hashes may start in an earlier block.
        let index = match wanted.and_then(|hash| hash.checked_sub(1)) {
            Some(before) => first_above(count, u64::from(before), key).min(count.saturating_sub(1)),
            None => 0,
        };
        Ok(be32(area, index.saturating_mul(8).saturating_add(4)))
    }
}

/// The `count` entries of eight bytes in `area` whose hash is `wanted`, as indices.
pub(super) fn equal_hashes(area: &[u8], count: usize, wanted: u32) -> std::ops::Range<usize> {
    let key = |index: usize| u64::from(be32(area, index.saturating_mul(8)));
    let start = wanted.checked_sub(1).map_or(0, |before| first_above(count, u64::from(before), key));
    start..first_above(count, u64::from(wanted), key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        // As `xfs_db -c 'hash NAME'` prints them.
        for (name, expected) in [("a", 0x61), ("ab", 0x30e2), ("abc", 0x187163), ("abcd", 0xc38b1e4)] {
            assert_eq!(hash(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn equal_hashes_are_found_together() {
        let area: Vec<u8> = [1_u32, 3, 3, 3, 9].iter().flat_map(|hash| [hash.to_be_bytes(), [0; 4]].concat()).collect();
        assert_eq!(equal_hashes(&area, 5, 3), 1..4);
        assert_eq!(equal_hashes(&area, 5, 4), 4..4);
        assert_eq!(equal_hashes(&area, 5, 0), 0..0);
        assert_eq!(equal_hashes(&area, 5, u32::MAX), 5..5);
    }
}
