//! Extents and who refers to them (`btrfs_extent_item` and its back references).

use std::ops::ControlFlow;

use super::super::chunk;
use super::super::features::INCOMPAT_SKINNY_METADATA;
use super::super::key::{Key, id, kind};
use super::super::{Core, corrupt};
use super::build::encode;
use crate::disk::bytes::{le32, le64, u8_at};
use crate::error::Result;

/// Bytes of `refs`, `generation` and `flags`, and of a `btrfs_tree_block_info`.
const HEAD: usize = 24;
const BLOCK_INFO: usize = 18;
const FLAG_DATA: u64 = 1;
const FLAG_TREE_BLOCK: u64 = 1 << 1;
/// `BTRFS_BLOCK_FLAG_FULL_BACKREF`: what the node leads to is referred to by its place, not by its tree.
pub(super) const FULL_BACKREF: u64 = 1 << 8;

/// How far from its hash a reference is looked for, where others have the same one.
const MAX_COLLISIONS: u64 = 1 << 12;

/// Who refers to an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ref {
    /// A tree, to one of its nodes.
    Tree { root: u64 },
    /// A file. `offset` is where the extent as a whole would start in it.
    Data { root: u64, inode: u64, offset: u64 },
    /// The node at `parent`, to a node below.
    SharedTree { parent: u64 },
    /// The leaf at `parent`, to data.
    SharedData { parent: u64 },
}

/// An extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    Data {
        bytenr: u64,
        len: u64,
    },
    /// `first` is the first key of a new node; it is of no consequence for one that is there.
    Node {
        bytenr: u64,
        level: u8,
        first: Key,
    },
}

/// An extent's item, taken apart.
struct Item {
    key: Key,
    refs: u64,
    generation: u64,
    flags: u64,
    info: Vec<u8>,
    inline: Vec<(Ref, u32)>,
}

impl Ref {
    const fn kind(self) -> u8 {
        match self {
            Self::Tree { .. } => kind::TREE_BLOCK_REF,
            Self::Data { .. } => kind::EXTENT_DATA_REF,
            Self::SharedTree { .. } => kind::SHARED_BLOCK_REF,
            Self::SharedData { .. } => kind::SHARED_DATA_REF,
        }
    }

    /// What references of one kind are sorted by, the largest first when they are inside the item.
    fn order(self) -> u64 {
        match self {
            Self::Tree { root } => root,
            Self::SharedTree { parent } | Self::SharedData { parent } => parent,
            Self::Data { root, inode, offset } => hash(root, inode, offset),
        }
    }

    /// The body of its own item.
    fn body(self, count: u32) -> Vec<u8> {
        match self {
            Self::Tree { .. } | Self::SharedTree { .. } => Vec::new(),
            Self::SharedData { .. } => count.to_le_bytes().to_vec(),
            Self::Data { root, inode, offset } => {
                let mut body: Vec<u8> = [root, inode, offset].into_iter().flat_map(u64::to_le_bytes).collect();
                body.extend(count.to_le_bytes());
                body
            }
        }
    }

    /// Its bytes inside the extent's item.
    fn inline(self, count: u32) -> Vec<u8> {
        let mut bytes = vec![self.kind()];
        match self {
            Self::Data { .. } => {}
            _ => bytes.extend(self.order().to_le_bytes()),
        }
        bytes.extend(self.body(count));
        bytes
    }

    /// The reference at the front of `bytes`, how often it counts, and its length.
    fn parse(bytes: &[u8]) -> Option<(Self, u32, usize)> {
        let (found, count, len) = match u8_at(bytes, 0) {
            kind::TREE_BLOCK_REF => (Self::Tree { root: le64(bytes, 1) }, 1, 9),
            kind::SHARED_BLOCK_REF => (Self::SharedTree { parent: le64(bytes, 1) }, 1, 9),
            kind::SHARED_DATA_REF => (Self::SharedData { parent: le64(bytes, 1) }, le32(bytes, 9), 13),
            kind::EXTENT_DATA_REF => {
                let data = Self::Data { root: le64(bytes, 1), inode: le64(bytes, 9), offset: le64(bytes, 17) };
                (data, le32(bytes, 25), 29)
            }
            _ => return None,
        };
        (bytes.len() >= len && count > 0).then_some((found, count, len))
    }
}

/// `hash_extent_data_ref`.
fn hash(root: u64, inode: u64, offset: u64) -> u64 {
    let high = u64::from(!crc32c::crc32c(&root.to_le_bytes()));
    let low = crc32c::crc32c_append(crc32c::crc32c(&inode.to_le_bytes()), &offset.to_le_bytes());
    high.wrapping_shl(31) ^ u64::from(!low)
}

impl Item {
    fn parse(key: Key, bytes: &[u8]) -> Result<Self> {
        let bad = || corrupt("the item of an extent is damaged").offset(key.objectid);
        let (refs, generation, flags) = (le64(bytes, 0), le64(bytes, 8), le64(bytes, 16));
        let has_info = flags & FLAG_TREE_BLOCK != 0 && key.kind == kind::EXTENT_ITEM;
        let head = HEAD.saturating_add(if has_info { BLOCK_INFO } else { 0 });
        let info = bytes.get(HEAD..head).ok_or_else(bad)?.to_vec();
        let (mut inline, mut rest) = (Vec::new(), bytes.get(head..).unwrap_or_default());
        while !rest.is_empty() {
            let (found, count, len) = Ref::parse(rest).ok_or_else(bad)?;
            inline.push((found, count));
            rest = rest.get(len..).unwrap_or_default();
        }
        Ok(Self { key, refs, generation, flags, info, inline })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            [self.refs, self.generation, self.flags].into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.extend(&self.info);
        self.inline.iter().for_each(|(found, count)| bytes.extend(found.inline(*count)));
        bytes
    }

    /// Adds a reference where its order puts it.
    fn insert(&mut self, new: Ref, count: u32) {
        let rank = |found: &Ref| (found.kind(), std::cmp::Reverse(found.order()));
        let at = self.inline.partition_point(|(found, _)| rank(found) < rank(&new));
        self.inline.insert(at, (new, count));
    }
}

impl Extent {
    const fn bytenr(self) -> u64 {
        match self {
            Self::Data { bytenr, .. } | Self::Node { bytenr, .. } => bytenr,
        }
    }
}

impl Core {
    /// The references to the node at `bytenr` and its flags.
    pub(super) fn node_refs(&self, bytenr: u64, level: u8) -> Result<(u64, u64)> {
        let item = self.extent_item(Extent::Node { bytenr, level, first: Key::new(0, 0, 0) })?;
        let item = item.ok_or_else(|| corrupt("a node that the extent tree does not know").offset(bytenr))?;
        Ok((item.refs, item.flags))
    }

    /// Marks the node at `bytenr` as one whose children are referred to by its place.
    pub(super) fn set_full_backref(&mut self, bytenr: u64, level: u8) -> Result<()> {
        let item = self.extent_item(Extent::Node { bytenr, level, first: Key::new(0, 0, 0) })?;
        let mut item = item.ok_or_else(|| corrupt("a node that the extent tree does not know").offset(bytenr))?;
        item.flags |= FULL_BACKREF;
        self.set(id::EXTENT_TREE, item.key, Some(item.encode()))
    }

    /// Whether the extent tree has an extent of data.
    pub(super) fn has_data(&self, bytenr: u64, len: u64) -> Result<bool> {
        Ok(self.extent_item(Extent::Data { bytenr, len })?.is_some())
    }

    fn extent_item(&self, extent: Extent) -> Result<Option<Item>> {
        let tree = self.tree(id::EXTENT_TREE)?;
        let nodesize = u64::from(self.store.sb.nodesize);
        let keys = match extent {
            Extent::Data { bytenr, len } => [Some(Key::new(bytenr, kind::EXTENT_ITEM, len)), None],
            Extent::Node { bytenr, level, .. } => [
                Some(Key::new(bytenr, kind::METADATA_ITEM, u64::from(level))),
                Some(Key::new(bytenr, kind::EXTENT_ITEM, nodesize)),
            ],
        };
        for key in keys.into_iter().flatten() {
            if let Some(bytes) = self.store.get(tree, key)? {
                return Item::parse(key, &bytes).map(Some);
            }
        }
        Ok(None)
    }

    /// Adds or, if `by` is negative, takes away references of `who` to an extent. The first reference makes it, with the last one
    /// it goes, and with data its checksums.
    pub(super) fn change_ref(&mut self, extent: Extent, who: Ref, by: i64) -> Result<()> {
        self.know(extent.bytenr())?;
        let Some(mut item) = self.extent_item(extent)? else { return self.make_extent(extent, who, by) };
        let wrong = || corrupt("an extent has fewer references than it should").offset(extent.bytenr());
        item.refs = item.refs.checked_add_signed(by).ok_or_else(wrong)?;
        let changed = |count: u32| i64::from(count).checked_add(by).and_then(|count| u32::try_from(count).ok());
        if let Some(at) = item.inline.iter().position(|(found, _)| *found == who) {
            let count = item.inline.get(at).and_then(|(_, count)| changed(*count)).ok_or_else(wrong)?;
            match item.inline.get_mut(at) {
                Some(found) if count > 0 => found.1 = count,
                _ => drop(item.inline.remove(at)),
            }
        } else if let Some((key, count)) = self.keyed_ref(extent.bytenr(), who)? {
            let count = changed(count).ok_or_else(wrong)?;
            self.set(id::EXTENT_TREE, key, (count > 0).then(|| who.body(count)))?;
        } else {
            let count = u32::try_from(by).map_err(|_| wrong())?;
            self.add_ref(&mut item, who, count)?;
        }
        if item.refs > 0 {
            return self.set(id::EXTENT_TREE, item.key, Some(item.encode()));
        }
        if !item.inline.is_empty() {
            return Err(wrong());
        }
        self.set(id::EXTENT_TREE, item.key, None)?;
        self.drop_extent(extent)
    }

    fn drop_extent(&mut self, extent: Extent) -> Result<()> {
        match extent {
            Extent::Data { bytenr, len } => {
                let range = bytenr..bytenr.saturating_add(len);
                self.remove_sums(range.clone())?;
                self.writing.space.release(&range, false)
            }
            Extent::Node { bytenr, .. } => {
                let end = bytenr.saturating_add(u64::from(self.store.sb.nodesize));
                self.writing.space.release(&(bytenr..end), false)
            }
        }
    }

    fn make_extent(&mut self, extent: Extent, who: Ref, by: i64) -> Result<()> {
        let unknown = || corrupt("an extent that the extent tree does not know").offset(extent.bytenr());
        let refs = u64::try_from(by).ok().filter(|by| *by > 0).ok_or_else(unknown)?;
        let is_skinny = self.store.sb.incompat & INCOMPAT_SKINNY_METADATA != 0;
        let (key, flags, info) = match extent {
            Extent::Data { bytenr, len } => (Key::new(bytenr, kind::EXTENT_ITEM, len), FLAG_DATA, Vec::new()),
            Extent::Node { bytenr, level, .. } if is_skinny => {
                (Key::new(bytenr, kind::METADATA_ITEM, u64::from(level)), FLAG_TREE_BLOCK, Vec::new())
            }
            Extent::Node { bytenr, level, first } => {
                let mut info = encode(first).to_vec();
                info.push(level);
                let key = Key::new(bytenr, kind::EXTENT_ITEM, u64::from(self.store.sb.nodesize));
                (key, FLAG_TREE_BLOCK, info)
            }
        };
        let count = u32::try_from(refs).map_err(|_| unknown())?;
        let item = Item { key, refs, generation: self.transaction(), flags, info, inline: vec![(who, count)] };
        self.set(id::EXTENT_TREE, key, Some(item.encode()))
    }

    /// Adds a reference inside the item while that is short, else as an item of its own.
    fn add_ref(&mut self, item: &mut Item, who: Ref, count: u32) -> Result<()> {
        let room = self.writing.mold()?.room();
        let max = (room / 16).saturating_sub(super::super::node::ITEM);
        if item.encode().len().saturating_add(who.inline(count).len()) < max {
            item.insert(who, count);
            return Ok(());
        }
        let mut key = Key::new(item.key.objectid, who.kind(), who.order());
        if matches!(who, Ref::Data { .. }) {
            // Others may have the same hash.
            while self.store.get(self.tree(id::EXTENT_TREE)?, key)?.is_some() {
                let next = key.offset.checked_add(1);
                key.offset = next.ok_or_else(|| corrupt("too many references share a hash").offset(key.objectid))?;
            }
        }
        self.set(id::EXTENT_TREE, key, Some(who.body(count)))
    }

    /// A reference that has an item of its own: its key and how often it counts.
    fn keyed_ref(&self, bytenr: u64, who: Ref) -> Result<Option<(Key, u32)>> {
        let tree = self.tree(id::EXTENT_TREE)?;
        let key = Key::new(bytenr, who.kind(), who.order());
        let Ref::Data { root, inode, offset } = who else {
            let is_data = matches!(who, Ref::SharedData { .. });
            let body = self.store.get(tree, key)?;
            return Ok(body.map(|body| (key, if is_data { le32(&body, 0) } else { 1 })));
        };
        let mut found = None;
        self.store.scan_kind(tree, (bytenr, key.kind, key.offset), &mut |at, body| {
            if at.saturating_sub(key.offset) > MAX_COLLISIONS {
                return Ok(ControlFlow::Break(()));
            }
            if [0, 8, 16].map(|at| le64(body, at)) != [root, inode, offset] {
                return Ok(ControlFlow::Continue(()));
            }
            found = Some((Key { offset: at, ..key }, le32(body, 24)));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Bits of the kind of block group that a tree's nodes are in.
    pub(super) const fn group_kind(tree: u64) -> u64 {
        if tree == id::CHUNK_TREE { chunk::SYSTEM } else { chunk::METADATA }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_kept_and_references_sorted() {
        let key = Key::new(4096, kind::EXTENT_ITEM, 8192);
        let mut item = Item { key, refs: 0, generation: 7, flags: FLAG_DATA, info: Vec::new(), inline: Vec::new() };
        let data = |inode| Ref::Data { root: 5, inode, offset: 0 };
        for who in [Ref::SharedData { parent: 4 }, data(1), data(2), Ref::SharedData { parent: 9 }, data(3)] {
            item.insert(who, 1);
            item.refs = item.refs.saturating_add(1);
        }
        let rank = |found: &Ref| (found.kind(), std::cmp::Reverse(found.order()));
        assert!(item.inline.windows(2).all(|pair| rank(&pair[0].0) < rank(&pair[1].0)));
        let bytes = item.encode();
        assert_eq!(bytes.len(), 24 + 3 * 29 + 2 * 13);
        assert_eq!(Item::parse(key, &bytes).unwrap().encode(), bytes);
        for len in (0..bytes.len()).filter(|len| ![24, 53, 82, 111, 124].contains(len)) {
            assert!(Item::parse(key, &bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn tree_blocks_keep_their_info() {
        let key = Key::new(4096, kind::EXTENT_ITEM, 4096);
        let info = vec![3; BLOCK_INFO];
        let inline = vec![(Ref::Tree { root: 5 }, 1), (Ref::SharedTree { parent: 8192 }, 1)];
        let item = Item { key, refs: 2, generation: 7, flags: FLAG_TREE_BLOCK, info, inline };
        let bytes = item.encode();
        let again = Item::parse(key, &bytes).unwrap();
        assert_eq!((again.info.len(), again.inline.len(), again.encode()), (BLOCK_INFO, 2, bytes));
    }
}
