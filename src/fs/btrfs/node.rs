//! Nodes of trees (`btrfs_node`, `btrfs_leaf`), checked once and for all when they are read.

use super::key::{self, Key, is_subvolume};
use super::superblock::{MAX_LEVEL, Superblock};
use super::{corrupt, wrong_sum};
use crate::disk::bytes::{array, le32, le64, size, u8_at};
use crate::error::Result;

/// Bytes of a header (`btrfs_header`), an item's head (`btrfs_item`) and a pointer (`btrfs_key_ptr`).
pub(super) const HEADER: usize = 101;
pub(super) const ITEM: usize = 25;
pub(super) const POINTER: usize = 33;

/// A node whose checksum, place and structure are right.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) bytes: Vec<u8>,
    pub(super) level: u8,
    pub(super) generation: u64,
    pub(super) owner: u64,
    pub(super) count: usize,
}

/// What leads to a node says about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) level: u8,
    pub(super) generation: u64,
    /// The tree that it is reached from.
    pub(super) tree: u64,
    /// The first key, for every node but a root.
    pub(super) first: Option<Key>,
    /// What all of its keys come before.
    pub(super) end: Option<Key>,
}

impl Node {
    /// Checks the bytes of the node at `bytenr`.
    pub(super) fn parse(bytes: Vec<u8>, bytenr: u64, sb: &Superblock) -> Result<Self> {
        if !sb.checksum.matches(&bytes, bytes.get(32..).unwrap_or_default()) {
            return Err(wrong_sum("a node of a tree", bytenr));
        }
        let bad = |what: &str| Err(corrupt(what).offset(bytenr));
        if array::<16>(&bytes, 32) != sb.metadata_uuid {
            return bad("a node of another file system");
        }
        if le64(&bytes, 48) != bytenr {
            return bad("a node at the wrong place");
        }
        let node = Self {
            level: u8_at(&bytes, 100),
            generation: le64(&bytes, 80),
            owner: le64(&bytes, 88),
            count: size(u64::from(le32(&bytes, 96))),
            bytes,
        };
        if node.level >= MAX_LEVEL {
            return bad("a node that is too high");
        }
        let each = if node.level == 0 { ITEM } else { POINTER };
        let is_cut = node.count.saturating_mul(each) > node.bytes.len().saturating_sub(HEADER);
        if is_cut || (node.level > 0 && node.count == 0) {
            return bad("a node with an impossible number of items");
        }
        if (1..node.count).any(|slot| node.key(slot.saturating_sub(1)) >= node.key(slot)) {
            return bad("the keys of a node are not in order");
        }
        if !node.is_packed(sb.sectorsize) {
            return bad("what a node holds lies at impossible places");
        }
        Ok(node)
    }

    /// Whether items fill a leaf from its end, or pointers lead to possible places.
    fn is_packed(&self, sectorsize: u32) -> bool {
        if self.level > 0 {
            let aligned = |at: u64| at != 0 && at.checked_rem(u64::from(sectorsize)) == Some(0);
            return (0..self.count).all(|slot| aligned(self.pointer(slot).0));
        }
        let mut end = self.bytes.len().saturating_sub(HEADER);
        for slot in 0..self.count {
            let (offset, len) = self.span(slot);
            if offset.checked_add(len) != Some(end) {
                return false;
            }
            end = offset;
        }
        end >= self.count.saturating_mul(ITEM)
    }

    /// Makes sure that the node is the one that was meant.
    pub(super) fn check(&self, expected: &Expected, bytenr: u64) -> Result<()> {
        let bad = |what: &str| Err(corrupt(what).offset(bytenr));
        if self.level != expected.level || self.generation != expected.generation {
            return bad("a node is not the one that was meant");
        }
        let owned = if is_subvolume(expected.tree) { is_subvolume(self.owner) } else { self.owner == expected.tree };
        if !owned {
            return bad("a node belongs to another tree");
        }
        let first = (self.count > 0).then(|| self.key(0));
        if expected.first.is_some() && expected.first != first {
            return bad("a node does not begin with what was meant");
        }
        let last = self.count.checked_sub(1).map(|slot| self.key(slot));
        if let (Some(last), Some(end)) = (last, expected.end)
            && last >= end
        {
            return bad("a node goes on into the next one");
        }
        Ok(())
    }

    /// The key of slot `slot`.
    pub(super) fn key(&self, slot: usize) -> Key {
        let each = if self.level == 0 { ITEM } else { POINTER };
        Key::read(&self.bytes, slot.saturating_mul(each).saturating_add(HEADER))
    }

    /// Where the pointer in slot `slot` leads, and the generation there.
    pub(super) fn pointer(&self, slot: usize) -> (u64, u64) {
        let at = slot.saturating_mul(POINTER).saturating_add(HEADER).saturating_add(key::LEN);
        (le64(&self.bytes, at), le64(&self.bytes, at.saturating_add(8)))
    }

    /// What the item in slot `slot` holds.
    pub(super) fn data(&self, slot: usize) -> &[u8] {
        let (offset, len) = self.span(slot);
        let start = offset.saturating_add(HEADER);
        self.bytes.get(start..start.saturating_add(len)).unwrap_or_default()
    }

    fn span(&self, slot: usize) -> (usize, usize) {
        let at = slot.saturating_mul(ITEM).saturating_add(HEADER).saturating_add(key::LEN);
        (size(u64::from(le32(&self.bytes, at))), size(u64::from(le32(&self.bytes, at.saturating_add(4)))))
    }

    /// The first slot whose key is not less than `key`.
    pub(super) fn lower_bound(&self, key: Key) -> usize {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.key(middle) < key {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        low
    }

    /// The slot to go down by for `key`: the last one that is not greater, or the first.
    pub(super) fn child(&self, key: Key) -> usize {
        let slot = self.lower_bound(key);
        if slot < self.count && self.key(slot) == key { slot } else { slot.saturating_sub(1) }
    }

    /// Bytes that it takes in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}
