//! Trees: finding and scanning items, with a bounded cache of nodes and, for what a log holds, items on top in memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, PoisonError};

use super::chunk::Chunks;
use super::corrupt;
use super::device::Devices;
use super::key::Key;
use super::node::{Expected, Node};
use super::superblock::{Place, Superblock};
use crate::disk::bytes::{long, size};
use crate::error::Result;
use crate::limits;

/// Items that replace those of a tree on disk; `None` is one that is gone.
pub(super) type Changes = BTreeMap<Key, Option<Vec<u8>>>;

/// What [`Store::scan`] calls for each item.
pub(super) type Visit<'a> = dyn FnMut(Key, &[u8]) -> Result<ControlFlow<()>> + 'a;

/// What [`Store::scan_kind`] calls for each item, with the offset of its key.
pub(super) type VisitKind<'a> = dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>> + 'a;

/// A tree.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// Its number, which its nodes carry.
    pub(super) id: u64,
    pub(super) place: Place,
    /// What was changed in memory.
    pub(super) changes: Arc<Changes>,
}

impl Tree {
    pub(super) fn new(id: u64, place: Place) -> Self {
        Self { id, place, changes: Arc::default() }
    }
}

/// Devices and chunks, and the nodes read from them.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) sb: Superblock,
    pub(super) devices: Devices,
    pub(super) chunks: Chunks,
    cache: Mutex<HashMap<u64, Arc<Node>>>,
    /// Nodes of a transaction that is not stored yet.
    pub(super) dirty: BTreeMap<u64, Arc<Node>>,
}

/// Where a search ended: the leaf, the first slot that is not less, and where the next leaf begins.
struct Landing {
    leaf: Arc<Node>,
    slot: usize,
    next: Option<Key>,
}

impl Store {
    pub(super) fn new(sb: Superblock, devices: Devices, chunks: Chunks) -> Self {
        Self { sb, devices, chunks, cache: Mutex::default(), dirty: BTreeMap::new() }
    }

    /// Visits the items from `from` on, in order.
    pub(super) fn scan(&self, tree: &Tree, from: Key, visit: &mut Visit<'_>) -> Result<()> {
        let mut from = from;
        loop {
            let Landing { leaf, slot, next } = self.land(tree, from)?;
            let mut slot = slot;
            let end = next.map_or(Bound::Unbounded, Bound::Excluded);
            for (key, item) in tree.changes.range((Bound::Included(from), end)) {
                while slot < leaf.count && leaf.key(slot) < *key {
                    if visit(leaf.key(slot), leaf.data(slot))?.is_break() {
                        return Ok(());
                    }
                    slot = slot.saturating_add(1);
                }
                if slot < leaf.count && leaf.key(slot) == *key {
                    slot = slot.saturating_add(1);
                }
                if let Some(item) = item
                    && visit(*key, item)?.is_break()
                {
                    return Ok(());
                }
            }
            for slot in slot..leaf.count {
                if visit(leaf.key(slot), leaf.data(slot))?.is_break() {
                    return Ok(());
                }
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Visits all items of `kind` of `objectid` whose offset is at least `from`.
    pub(super) fn scan_kind(
        &self,
        tree: &Tree,
        (objectid, kind, from): (u64, u8, u64),
        visit: &mut VisitKind<'_>,
    ) -> Result<()> {
        self.scan(tree, Key::new(objectid, kind, from), &mut |key, data| {
            if key.is(objectid, kind) { visit(key.offset, data) } else { Ok(ControlFlow::Break(())) }
        })
    }

    /// The item at `key`.
    pub(super) fn get(&self, tree: &Tree, key: Key) -> Result<Option<Vec<u8>>> {
        if let Some(item) = tree.changes.get(&key) {
            return Ok(item.clone());
        }
        let Landing { leaf, slot, .. } = self.land(tree, key)?;
        Ok((slot < leaf.count && leaf.key(slot) == key).then(|| leaf.data(slot).to_vec()))
    }

    /// The first item at or after `key`.
    pub(super) fn ceiling(&self, tree: &Tree, key: Key) -> Result<Option<(Key, Vec<u8>)>> {
        let mut found = None;
        self.scan(tree, key, &mut |key, data| {
            found = Some((key, data.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The last item at or before `key`.
    pub(super) fn floor(&self, tree: &Tree, key: Key) -> Result<Option<(Key, Vec<u8>)>> {
        let mut key = key;
        loop {
            let Landing { leaf, slot, .. } = self.land(tree, key)?;
            let is_it = slot < leaf.count && leaf.key(slot) == key;
            let before = if is_it { Some(slot) } else { slot.checked_sub(1) };
            let changed = tree.changes.range(..=key).next_back();
            let (at, item) = match (before.map(|slot| (leaf.key(slot), slot)), changed) {
                (Some((at, slot)), None) => return Ok(Some((at, leaf.data(slot).to_vec()))),
                (Some((at, slot)), Some((changed, _))) if at > *changed => {
                    return Ok(Some((at, leaf.data(slot).to_vec())));
                }
                (_, Some(changed)) => changed,
                (None, None) => return Ok(None),
            };
            if let Some(item) = item {
                return Ok(Some((*at, item.clone())));
            }
            let Some(previous) = at.previous() else { return Ok(None) };
            key = previous;
        }
    }

    fn land(&self, tree: &Tree, key: Key) -> Result<Landing> {
        let mut bytenr = tree.place.bytenr;
        let Place { level, generation, .. } = tree.place;
        let mut expected = Expected { level, generation, tree: tree.id, first: None, end: None };
        loop {
            let node = self.node(bytenr, &expected)?;
            if node.level == 0 {
                let slot = node.lower_bound(key);
                return Ok(Landing { leaf: node, slot, next: expected.end });
            }
            let slot = node.child(key);
            let after = slot.saturating_add(1);
            let (child, generation) = node.pointer(slot);
            bytenr = child;
            expected = Expected {
                level: node.level.saturating_sub(1),
                generation,
                first: Some(node.key(slot)),
                end: if after < node.count { Some(node.key(after)) } else { expected.end },
                ..expected
            };
        }
    }

    /// The node at `bytenr`, from the first copy that is right.
    pub(super) fn node(&self, bytenr: u64, expected: &Expected) -> Result<Arc<Node>> {
        if let Some(node) = self.dirty.get(&bytenr) {
            node.check(expected, bytenr)?;
            return Ok(Arc::clone(node));
        }
        let cached = self.cached().get(&bytenr).map(Arc::clone);
        if let Some(node) = cached {
            node.check(expected, bytenr)?;
            return Ok(node);
        }
        let nodesize = size(u64::from(self.sb.nodesize));
        let mut worst = None;
        for copy in self.devices.order(&self.chunks, bytenr, long(nodesize))? {
            match self.read_node(bytenr, copy, nodesize, expected) {
                Ok(node) => return Ok(node),
                Err(error) => {
                    tracing::debug!(%error, copy, "a copy of a node is not believed");
                    worst.get_or_insert(error);
                }
            }
        }
        Err(worst.unwrap_or_else(|| corrupt("a node without a copy").offset(bytenr)))
    }

    fn read_node(&self, bytenr: u64, copy: usize, nodesize: usize, expected: &Expected) -> Result<Arc<Node>> {
        let mut bytes = vec![0; nodesize];
        self.devices.read(&self.chunks, &mut bytes, bytenr, copy)?;
        let node = Arc::new(Node::parse(bytes, bytenr, &self.sb)?);
        node.check(expected, bytenr)?;
        let mut cache = self.cached();
        if cache.len().saturating_mul(nodesize) >= limits::BTRFS_CACHE {
            cache.clear();
        }
        cache.insert(bytenr, Arc::clone(&node));
        Ok(node)
    }

    /// Forgets what was at `bytenr` on disk.
    pub(super) fn forget(&self, bytenr: u64) {
        self.cached().remove(&bytenr);
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Node>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of nodes held in memory.
    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> usize {
        self.cached().values().map(|node| node.len()).sum()
    }
}
