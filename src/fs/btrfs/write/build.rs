//! New nodes: what they hold, how that is spread, and their bytes.

use super::super::checksum::Checksum;
use super::super::key::{self, Key};
use super::super::node::{HEADER, ITEM, Node, POINTER};
use crate::disk::bytes::{put, put32};

/// `BTRFS_HEADER_FLAG_WRITTEN` and, in the highest byte, `BTRFS_MIXED_BACKREF_REV`.
const FLAGS: u64 = 1 | 1 << 56;

/// What all nodes of a transaction have in common.
#[derive(Clone, Debug)]
pub(super) struct Mold {
    pub(super) nodesize: usize,
    pub(super) checksum: Checksum,
    pub(super) fsid: [u8; 16],
    pub(super) chunk_tree_uuid: [u8; 16],
    pub(super) generation: u64,
}

/// What leads to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) key: Key,
    pub(super) bytenr: u64,
    pub(super) generation: u64,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Leaf(Vec<(Key, Vec<u8>)>),
    Inner(Vec<Child>),
}

impl Body {
    pub(super) fn of(node: &Node) -> Self {
        if node.level == 0 {
            return Self::Leaf((0..node.count).map(|slot| (node.key(slot), node.data(slot).to_vec())).collect());
        }
        Self::Inner((0..node.count).map(|slot| child(node, slot)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Leaf(items) => items.is_empty(),
            Self::Inner(children) => children.is_empty(),
        }
    }

    pub(super) fn first(&self) -> Option<Key> {
        match self {
            Self::Leaf(items) => items.first().map(|(key, _)| *key),
            Self::Inner(children) => children.first().map(|child| child.key),
        }
    }

    /// Bytes that it takes in a node.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(items) => items.iter().map(|(_, item)| item.len().saturating_add(ITEM)).sum(),
            Self::Inner(children) => children.len().saturating_mul(POINTER),
        }
    }

    /// The same and what comes after it; `None` when they are not of one level.
    pub(super) fn joined(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Leaf(mut items), Self::Leaf(more)) => {
                items.extend(more);
                Some(Self::Leaf(items))
            }
            (Self::Inner(mut children), Self::Inner(more)) => {
                children.extend(more);
                Some(Self::Inner(children))
            }
            _ => None,
        }
    }

    /// Spreads it over as few nodes as it needs, none empty, all about as full.
    pub(super) fn split(self, room: usize) -> Vec<Self> {
        let parts = self.len().div_ceil(room.max(1)).max(1);
        let target = self.len().div_ceil(parts);
        match self {
            Self::Leaf(items) => {
                let len = |(_, item): &(Key, Vec<u8>)| item.len().saturating_add(ITEM);
                spread(items, len, room, target).into_iter().map(Self::Leaf).collect()
            }
            Self::Inner(children) => spread(children, |_| POINTER, room, target).into_iter().map(Self::Inner).collect(),
        }
    }
}

fn spread<T>(all: Vec<T>, len: impl Fn(&T) -> usize, room: usize, target: usize) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut used) = (Vec::new(), Vec::new(), 0_usize);
    for one in all {
        let more = len(&one);
        let is_full = used >= target || used.saturating_add(more) > room;
        if is_full && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            used = 0;
        }
        used = used.saturating_add(more);
        part.push(one);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Where slot `slot` of a node leads.
pub(super) fn child(node: &Node, slot: usize) -> Child {
    let (bytenr, generation) = node.pointer(slot);
    Child { key: node.key(slot), bytenr, generation }
}

impl Mold {
    /// Bytes that items, or pointers, may take.
    pub(super) const fn room(&self) -> usize {
        self.nodesize.saturating_sub(HEADER)
    }

    /// A node of tree `owner`. What it holds fits.
    pub(super) fn node(&self, bytenr: u64, owner: u64, level: u8, body: &Body) -> Node {
        let mut bytes = vec![0; self.nodesize];
        put(&mut bytes, 32, &self.fsid);
        put(&mut bytes, 48, &bytenr.to_le_bytes());
        put(&mut bytes, 56, &FLAGS.to_le_bytes());
        put(&mut bytes, 64, &self.chunk_tree_uuid);
        put(&mut bytes, 80, &self.generation.to_le_bytes());
        put(&mut bytes, 88, &owner.to_le_bytes());
        put(&mut bytes, 100, &[level]);
        let count = match body {
            Body::Leaf(items) => self.put_items(&mut bytes, items),
            Body::Inner(children) => put_children(&mut bytes, children),
        };
        put32(&mut bytes, 96, u32::try_from(count).unwrap_or(u32::MAX));
        let sum = self.checksum.of(bytes.get(32..).unwrap_or_default());
        put(&mut bytes, 0, &sum);
        Node { bytes, level, generation: self.generation, owner, count }
    }

    fn put_items(&self, bytes: &mut [u8], items: &[(Key, Vec<u8>)]) -> usize {
        let mut end = self.room();
        for (slot, (key, item)) in items.iter().enumerate() {
            let at = HEADER.saturating_add(slot.saturating_mul(ITEM));
            end = end.saturating_sub(item.len());
            put(bytes, at, &encode(*key));
            put32(bytes, at.saturating_add(key::LEN), u32::try_from(end).unwrap_or(0));
            put32(bytes, at.saturating_add(key::LEN).saturating_add(4), u32::try_from(item.len()).unwrap_or(0));
            put(bytes, HEADER.saturating_add(end), item);
        }
        items.len()
    }
}

fn put_children(bytes: &mut [u8], children: &[Child]) -> usize {
    for (slot, child) in children.iter().enumerate() {
        let at = HEADER.saturating_add(slot.saturating_mul(POINTER));
        put(bytes, at, &encode(child.key));
        put(bytes, at.saturating_add(key::LEN), &child.bytenr.to_le_bytes());
        put(bytes, at.saturating_add(key::LEN).saturating_add(8), &child.generation.to_le_bytes());
    }
    children.len()
}

/// A key's bytes on disk.
pub(super) fn encode(key: Key) -> [u8; key::LEN] {
    let mut bytes = [0; key::LEN];
    put(&mut bytes, 0, &key.objectid.to_le_bytes());
    put(&mut bytes, 8, &[key.kind]);
    put(&mut bytes, 9, &key.offset.to_le_bytes());
    bytes
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use super::*;

    fn mold() -> Mold {
        Mold { nodesize: 4096, checksum: Checksum::Crc32c, fsid: [7; 16], chunk_tree_uuid: [8; 16], generation: 42 }
    }

    #[test]
    fn nodes_hold_what_they_were_made_of() {
        let items: Vec<(Key, Vec<u8>)> = (0..20_u8).map(|n| (Key::new(n.into(), 1, 2), vec![n; n.into()])).collect();
        let node = mold().node(8192, 5, 0, &Body::Leaf(items.clone()));
        let Body::Leaf(read) = Body::of(&node) else { panic!("a leaf") };
        assert_eq!(read, items);
        let children: Vec<Child> =
            (1..9).map(|n| Child { key: Key::new(n, 1, 2), bytenr: n * 4096, generation: n }).collect();
        let node = mold().node(8192, 5, 1, &Body::Inner(children.clone()));
        let Body::Inner(read) = Body::of(&node) else { panic!("an inner node") };
        assert_eq!(read, children);
    }

    #[test]
    fn whatever_is_spread_fits_and_stays_in_order() {
        let room = mold().room();
        for len in [0_usize, 1, 40, 900, 2000, room - ITEM] {
            for count in [1_u64, 2, 3, 7, 100] {
                let items: Vec<_> = (0..count).map(|n| (Key::new(n, 0, 0), vec![0; len])).collect();
                let parts = Body::Leaf(items).split(room);
                assert!(parts.iter().all(|part| part.len() <= room && !part.is_empty()));
                let joined = parts.into_iter().reduce(|a, b| a.joined(b).unwrap()).unwrap();
                let Body::Leaf(items) = joined else { panic!("a leaf") };
                assert!(items.iter().enumerate().all(|(at, (key, _))| key.objectid == at as u64));
                assert_eq!(items.len() as u64, count);
            }
        }
    }
}
