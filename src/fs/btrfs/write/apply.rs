//! Changed items go into new nodes, with everything on the way to them: copy on write, with the references that this moves.
//!
//! A tree is rewritten in one go, from its root down. Nodes of this transaction keep their place. The old tree can be read until the
//! new one is installed, since no node that it consists of is changed before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::corrupt;
use super::super::key::{Key, id, is_subvolume, kind};
use super::super::node::{Expected, Node};
use super::super::superblock::{MAX_LEVEL, Place};
use super::super::{Core, Result};
use super::build::{Body, Child, child};
use super::refs::{Extent, FULL_BACKREF, Ref};
use crate::disk::bytes::{le64, u8_at};

/// Edits of one tree, in order; `None` is an item that goes.
type Edits<'a> = [(Key, Option<&'a [u8]>)];

/// The rewriting of one tree.
struct Job {
    tree: u64,
    /// Nodes as they will be; `None` is one that is no longer needed.
    staged: BTreeMap<u64, Option<Arc<Node>>>,
}

impl Core {
    /// Puts the changed items of a tree into its nodes.
    pub(super) fn apply(&mut self, tree: u64) -> Result<()> {
        let (changes, place) = {
            let tree = self.tree(tree)?;
            (Arc::clone(&tree.changes), tree.place)
        };
        if changes.is_empty() {
            return Ok(());
        }
        let edits: Vec<(Key, Option<&[u8]>)> = changes.iter().map(|(key, item)| (*key, item.as_deref())).collect();
        let mut job = Job { tree, staged: BTreeMap::new() };
        let Place { bytenr, level, generation } = place;
        let expected = Expected { level, generation, tree, first: None, end: None };
        let mut tops = self.rewrite(&mut job, bytenr, &expected, &edits)?;
        let mut level = level;
        if tops.is_empty() {
            level = 0;
            let bytenr = self.new_node(&job, 0, Key::new(0, 0, 0))?;
            tops = vec![self.stage(&mut job, bytenr, 0, &Body::Leaf(Vec::new()))?];
        }
        while tops.len() > 1 {
            level = level.saturating_add(1);
            if level >= MAX_LEVEL {
                return Err(corrupt(format!("tree {tree} becomes too high")));
            }
            let first = tops.first().map_or(Key::new(0, 0, 0), |top| top.key);
            let bytenr = self.new_node(&job, level, first)?;
            tops = self.store_body(&mut job, bytenr, level, Body::Inner(tops))?;
        }
        let top = tops.first().ok_or_else(|| corrupt("a tree without a root"))?;
        let place = Place { bytenr: top.bytenr, level, generation: top.generation };
        for (bytenr, node) in job.staged {
            match node {
                Some(node) => drop(self.store.dirty.insert(bytenr, node)),
                None => drop(self.store.dirty.remove(&bytenr)),
            }
        }
        let tree = self.tree_mut(tree)?;
        tree.place = place;
        // What was changed meanwhile remains to be done.
        Arc::make_mut(&mut tree.changes).retain(|key, item| changes.get(key) != Some(item));
        Ok(())
    }

    /// Puts `edits` into the node at `bytenr` and those below. What takes its place.
    fn rewrite(&mut self, job: &mut Job, bytenr: u64, expected: &Expected, edits: &Edits<'_>) -> Result<Vec<Child>> {
        let node = self.store.node(bytenr, expected)?;
        let bytenr = self.own(job, bytenr, &node)?;
        let body = if node.level == 0 {
            Body::Leaf(self.merge(job.tree, &node, edits)?)
        } else {
            let mut children: Vec<Child> = Vec::new();
            let mut rest = edits;
            for slot in 0..node.count {
                let after = slot.saturating_add(1);
                let end = if after < node.count { Some(node.key(after)) } else { expected.end };
                let count = end.map_or(rest.len(), |end| rest.partition_point(|(key, _)| *key < end));
                let (mine, others) = rest.split_at_checked(count).unwrap_or((rest, &[]));
                rest = others;
                let child = child(&node, slot);
                if mine.is_empty() {
                    children.push(child);
                    continue;
                }
                let level = node.level.saturating_sub(1);
                let first = Some(child.key);
                let expected = Expected { level, generation: child.generation, tree: job.tree, first, end };
                children.extend(self.rewrite(job, child.bytenr, &expected, mine)?);
            }
            Body::Inner(self.join_children(job, node.level.saturating_sub(1), children)?)
        };
        self.store_body(job, bytenr, node.level, body)
    }

    /// Spreads `body` over the node at `bytenr`, which is this transaction's, and as many others as it takes.
    fn store_body(&mut self, job: &mut Job, bytenr: u64, level: u8, body: Body) -> Result<Vec<Child>> {
        if body.is_empty() {
            self.drop_node(job, bytenr, level)?;
            return Ok(Vec::new());
        }
        let (mut children, mut own) = (Vec::new(), Some(bytenr));
        for part in body.split(self.writing.mold()?.room()) {
            let bytenr = match own.take() {
                Some(bytenr) => bytenr,
                None => self.new_node(job, level, part.first().unwrap_or(Key::new(0, 0, 0)))?,
            };
            children.push(self.stage(job, bytenr, level, &part)?);
        }
        Ok(children)
    }

    /// Joins nodes of this transaction that are neighbours and have little in them.
    fn join_children(&mut self, job: &mut Job, level: u8, children: Vec<Child>) -> Result<Vec<Child>> {
        let room = self.writing.mold()?.room();
        let mut joined: Vec<Child> = Vec::new();
        for child in children {
            let staged = |bytenr: u64| job.staged.get(&bytenr).and_then(Option::clone);
            let pair = joined.last().and_then(|last| Some((*last, staged(last.bytenr)?, staged(child.bytenr)?)));
            if let Some((last, a, b)) = pair
                && let Some(body) = Body::of(&a).joined(Body::of(&b))
                && body.len() <= room.saturating_mul(3) / 4
            {
                self.drop_node(job, child.bytenr, level)?;
                joined.pop();
                joined.push(self.stage(job, last.bytenr, level, &body)?);
            } else {
                joined.push(child);
            }
        }
        Ok(joined)
    }

    fn stage(&mut self, job: &mut Job, bytenr: u64, level: u8, body: &Body) -> Result<Child> {
        let node = self.writing.mold()?.node(bytenr, job.tree, level, body);
        job.staged.insert(bytenr, Some(Arc::new(node)));
        Ok(Child { key: body.first().unwrap_or(Key::new(0, 0, 0)), bytenr, generation: self.transaction() })
    }

    fn new_node(&mut self, job: &Job, level: u8, first: Key) -> Result<u64> {
        let bytenr = self.allocate_node(Self::group_kind(job.tree))?;
        self.change_ref(Extent::Node { bytenr, level, first }, Ref::Tree { root: job.tree }, 1)?;
        self.writing.grow(job.tree, 1);
        Ok(bytenr)
    }

    fn drop_node(&mut self, job: &mut Job, bytenr: u64, level: u8) -> Result<()> {
        job.staged.insert(bytenr, None);
        self.unref_node(job.tree, bytenr, level)
    }

    fn unref_node(&mut self, tree: u64, bytenr: u64, level: u8) -> Result<()> {
        let extent = Extent::Node { bytenr, level, first: Key::new(0, 0, 0) };
        self.change_ref(extent, Ref::Tree { root: tree }, -1)?;
        self.writing.grow(tree, -1);
        Ok(())
    }

    /// The node of this transaction in the place of the one at `bytenr`: itself if it is one. Others keep theirs where a snapshot
    /// shares it, as in the kernel's `update_ref_for_cow`.
    fn own(&mut self, job: &Job, bytenr: u64, node: &Node) -> Result<u64> {
        if self.store.dirty.contains_key(&bytenr) {
            return Ok(bytenr);
        }
        let level = node.level;
        let first = if node.count > 0 { node.key(0) } else { Key::new(0, 0, 0) };
        let new = self.new_node(job, level, first)?;
        if is_subvolume(job.tree) {
            let (refs, flags) = self.node_refs(bytenr, level)?;
            let by_place = flags & FULL_BACKREF != 0;
            if refs > 1 && node.owner == job.tree && !by_place {
                self.ref_children(node, Owner::Place(bytenr), 1)?;
                self.set_full_backref(bytenr, level)?;
            } else if refs > 1 || by_place {
                self.ref_children(node, Owner::Tree(job.tree), 1)?;
                if refs == 1 {
                    self.ref_children(node, Owner::Place(bytenr), -1)?;
                }
            }
        }
        self.unref_node(job.tree, bytenr, level)?;
        Ok(new)
    }

    /// Adds or takes away one reference to everything that a node of a subvolume leads to.
    fn ref_children(&mut self, node: &Node, owner: Owner, by: i64) -> Result<()> {
        for slot in 0..node.count {
            if node.level > 0 {
                let extent = Extent::Node {
                    bytenr: node.pointer(slot).0,
                    level: node.level.saturating_sub(1),
                    first: Key::new(0, 0, 0),
                };
                let who = match owner {
                    Owner::Tree(root) => Ref::Tree { root },
                    Owner::Place(parent) => Ref::SharedTree { parent },
                };
                self.change_ref(extent, who, by)?;
            } else if let Some((extent, offset)) = data_of(node.key(slot), node.data(slot)) {
                let who = match owner {
                    Owner::Tree(root) => Ref::Data { root, inode: node.key(slot).objectid, offset },
                    Owner::Place(parent) => Ref::SharedData { parent },
                };
                self.writing.count(extent, who, by);
            }
        }
        Ok(())
    }

    /// The items of a leaf with the edits among them. References to data are counted.
    fn merge(&mut self, tree: u64, node: &Node, edits: &Edits<'_>) -> Result<Vec<(Key, Vec<u8>)>> {
        let room = self.writing.mold()?.room();
        let mut items = Vec::with_capacity(node.count.saturating_add(edits.len()));
        let mut slot = 0_usize;
        let mut count = |key: Key, item: &[u8], by: i64| {
            if is_subvolume(tree)
                && let Some((extent, offset)) = data_of(key, item)
            {
                self.writing.count(extent, Ref::Data { root: tree, inode: key.objectid, offset }, by);
            }
        };
        for (key, new) in edits {
            while slot < node.count && node.key(slot) < *key {
                items.push((node.key(slot), node.data(slot).to_vec()));
                slot = slot.saturating_add(1);
            }
            if slot < node.count && node.key(slot) == *key {
                count(*key, node.data(slot), -1);
                slot = slot.saturating_add(1);
            }
            if let Some(new) = new {
                if new.len().saturating_add(super::super::node::ITEM) > room {
                    return Err(corrupt(format!("an item of tree {tree} does not fit into a node")));
                }
                count(*key, new, 1);
                items.push((*key, new.to_vec()));
            }
        }
        items.extend((slot..node.count).map(|slot| (node.key(slot), node.data(slot).to_vec())));
        Ok(items)
    }
}

/// By whom the children of a node are referred to.
#[derive(Clone, Copy)]
enum Owner {
    Tree(u64),
    Place(u64),
}

/// The data outside of the tree that an item of a file refers to, and where all of it would start in the file.
pub(super) fn data_of(key: Key, item: &[u8]) -> Option<(Extent, u64)> {
    if key.kind != kind::EXTENT_DATA || u8_at(item, 20) == 0 {
        return None;
    }
    let (bytenr, len, offset) = (le64(item, 21), le64(item, 29), le64(item, 37));
    (bytenr != 0).then(|| (Extent::Data { bytenr, len }, key.offset.wrapping_sub(offset)))
}

/// Trees that are not reached through the root tree's items.
pub(super) const fn has_no_item(tree: u64) -> bool {
    tree == id::ROOT_TREE || tree == id::CHUNK_TREE
}
