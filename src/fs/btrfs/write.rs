//! Writing: changed items wait in memory on top of the trees, and a transaction puts them into new nodes.
//!
//! Data is written at once, to free space. Nothing that the last stored transaction leads to is overwritten before the superblocks
//! lead to the next one: what a transaction frees can be allocated only after it. A call that fails leaves nothing behind: what it
//! changed is undone. What a snapshot or a reflink shares is never changed, since nothing is ever changed in place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::chunk::{self, Profile};
use super::key::{Key, id, is_subvolume};
use super::tree::Tree;
use super::{Core, corrupt};
use crate::disk::bytes::long;
use crate::error::{Error, Result};
use crate::limits;
use build::Mold;
use refs::{Extent, Ref};
use space::Space;

mod apply;
mod attributes;
mod build;
mod commit;
mod content;
mod free_tree;
mod grow;
mod names;
mod open;
mod refs;
mod reserve;
mod space;
mod sums;

/// What a file system that is written to has besides what can be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Writing {
    /// Trees that are no subvolumes, but for that of checksums.
    trees: BTreeMap<u64, Tree>,
    space: Space,
    mold: Option<Mold>,
    /// What the call that is under way changed, to be undone if it fails.
    undo: Vec<Undo>,
    /// Bytes of items that wait.
    pending: usize,
    /// Extents of data that were made since the last transaction was stored.
    fresh: BTreeMap<u64, u64>,
    /// References to data that the transaction adds and takes away.
    counts: BTreeMap<Extent, BTreeMap<Ref, i64>>,
    /// Nodes that each tree has more than in the last transaction.
    growth: BTreeMap<u64, i64>,
    /// The highest inode numbers that were given out.
    inodes: BTreeMap<u64, u64>,
    /// Set while a transaction is under way; it stays when that fails, and nothing can be written any more.
    broken: bool,
    /// Whether the log was put into the trees and can go.
    replayed: bool,
}

#[derive(Clone, Debug)]
enum Undo {
    Item {
        tree: u64,
        key: Key,
        old: Option<Option<Vec<u8>>>,
    },
    Data(Range<u64>),
    /// A chunk that is new, and how long the superblock's list of chunks was before.
    Chunk {
        start: u64,
        sys_len: usize,
    },
}

impl Writing {
    fn mold(&self) -> Result<&Mold> {
        self.mold.as_ref().ok_or_else(|| super::read_only("the volume was opened for reading"))
    }

    fn grow(&mut self, tree: u64, by: i64) {
        let count = self.growth.entry(tree).or_default();
        *count = count.saturating_add(by);
    }

    fn count(&mut self, extent: Extent, who: Ref, by: i64) {
        let count = self.counts.entry(extent).or_default().entry(who).or_default();
        *count = count.saturating_add(by);
    }
}

impl Core {
    /// The number of the transaction that is next to be stored.
    pub(super) const fn transaction(&self) -> u64 {
        self.store.sb.generation.saturating_add(1)
    }

    /// A tree with what was changed in it.
    fn tree(&self, tree: u64) -> Result<&Tree> {
        let found = match tree {
            id::CSUM_TREE => self.sum_tree.as_ref(),
            tree if is_subvolume(tree) => self.volumes.get(&tree).map(|volume| &volume.tree),
            tree => self.writing.trees.get(&tree),
        };
        found.ok_or_else(|| corrupt(format!("there is no tree {tree}")))
    }

    fn tree_mut(&mut self, tree: u64) -> Result<&mut Tree> {
        let found = match tree {
            id::CSUM_TREE => self.sum_tree.as_mut(),
            tree if is_subvolume(tree) => self.volumes.get_mut(&tree).map(|volume| &mut volume.tree),
            tree => self.writing.trees.get_mut(&tree),
        };
        found.ok_or_else(|| corrupt(format!("there is no tree {tree}")))
    }

    /// Changes an item of a tree; `None` removes it.
    fn set(&mut self, tree: u64, key: Key, item: Option<Vec<u8>>) -> Result<()> {
        let len = item.as_ref().map_or(0, Vec::len).saturating_add(limits::BTRFS_LOG_ITEM);
        let old = Arc::make_mut(&mut self.tree_mut(tree)?.changes).insert(key, item);
        self.writing.pending = self.writing.pending.saturating_add(len);
        self.writing.undo.push(Undo::Item { tree, key, old });
        Ok(())
    }

    /// Runs one call that writes. When it fails, it changed nothing.
    pub(super) fn write<T>(&mut self, job: impl Fn(&mut Self) -> Result<T>) -> Result<T> {
        if self.writing.broken {
            return Err(Error::failed("btrfs.aborted", "a transaction could not be stored, so nothing can be written"));
        }
        self.make_way()?;
        match self.attempt(&job) {
            // What earlier calls freed can be allocated once they are stored.
            Err(error) if error.code() == SPACE && self.is_pending() => {
                self.commit()?;
                self.attempt(&job)
            }
            done => done,
        }
    }

    fn attempt<T>(&mut self, job: &impl Fn(&mut Self) -> Result<T>) -> Result<T> {
        self.writing.undo.clear();
        match job(self).and_then(|value| self.has_room().map(|()| value)) {
            Ok(value) => {
                self.writing.undo.clear();
                Ok(value)
            }
            Err(error) => {
                self.roll_back()?;
                Err(error)
            }
        }
    }

    fn roll_back(&mut self) -> Result<()> {
        while let Some(undo) = self.writing.undo.pop() {
            match undo {
                Undo::Item { tree, key, old } => {
                    let changes = Arc::make_mut(&mut self.tree_mut(tree)?.changes);
                    match old {
                        Some(old) => drop(changes.insert(key, old)),
                        None => drop(changes.remove(&key)),
                    }
                }
                Undo::Data(range) => {
                    self.writing.fresh.remove(&range.start);
                    self.writing.space.release(&range, true)?;
                }
                Undo::Chunk { start, sys_len } => {
                    self.store.chunks.remove(start);
                    self.writing.space.0.remove(&start);
                    self.store.sb.sys_chunks.truncate(sys_len);
                }
            }
        }
        Ok(())
    }

    /// Stores what waits when it becomes much.
    fn make_way(&mut self) -> Result<()> {
        let is_much = self.writing.pending > limits::BTRFS_PENDING;
        if is_much
            || (self.is_pending()
                && !self.has_metadata(
                    self.metadata_needed(0, 0).saturating_mul(2).saturating_add(self.reserve_of_nodes()),
                )?)
        {
            self.commit()?;
        }
        Ok(())
    }

    /// Makes sure that what waits can be stored, and that some nodes are left then for calls that free room.
    fn has_room(&self) -> Result<()> {
        let needed = self.metadata_needed(0, 0).saturating_add(self.reserve_of_nodes());
        if self.has_metadata(needed)? {
            return Ok(());
        }
        Err(full("the file system has no room for its metadata").expected(needed).found(self.metadata_left()?))
    }

    fn has_metadata(&self, needed: u64) -> Result<bool> {
        Ok(self.writing.space.unused(chunk::METADATA) >= needed || self.metadata_left()? >= needed)
    }

    fn is_pending(&self) -> bool {
        let waits = |tree: &Tree| !tree.changes.is_empty();
        let trees = self.volumes.values().map(|volume| &volume.tree).chain(self.sum_tree.as_ref());
        trees.chain(self.writing.trees.values()).any(waits)
    }

    /// Bytes that a transaction takes at most, or nearly so: items come together in leaves. It is of what waits, and of `more` items
    /// with so many bytes.
    fn metadata_needed(&self, more: usize, bytes: usize) -> u64 {
        let trees = self.volumes.values().map(|volume| &volume.tree).chain(self.sum_tree.as_ref());
        let trees = trees.chain(self.writing.trees.values());
        let items = trees.map(|tree| tree.changes.len()).fold(more, usize::saturating_add);
        let nodesize = u64::from(self.store.sb.nodesize);
        // Each item may be in a leaf of its own, and have another one of the extent tree changed; but no more than all leaves change,
        // and no more are added than what is new fills by half.
        let all = self.writing.space.metadata_used().checked_div(nodesize).unwrap_or(0);
        let waits = long(self.writing.pending.saturating_add(bytes));
        let new = waits.checked_div(nodesize).unwrap_or(0).saturating_mul(4);
        let nodes = long(items).saturating_mul(2).min(all.saturating_add(new));
        // Four levels of eight trees.
        nodes.saturating_add(4 * 8).saturating_mul(nodesize)
    }

    /// Whether all chunks have profiles that can be written.
    fn check_profiles(&self) -> Result<()> {
        let bad = self.store.chunks.iter().find(|chunk| matches!(chunk.profile, Profile::Raid5 | Profile::Raid6));
        match bad {
            None => Ok(()),
            Some(chunk) => {
                let what = format!("the file system has chunks of {}, which cannot be written", chunk.profile.name());
                Err(Error::unsupported("btrfs.feature", what))
            }
        }
    }
}

/// The code of what has no room.
const SPACE: &str = "btrfs.space";

/// The file system has no room.
fn full(what: impl Into<String>) -> Error {
    Error::failed(SPACE, what)
}

#[cfg(test)]
impl Writing {
    /// Bytes that groups of a kind have left.
    pub(super) fn unused(&self, kind: u64) -> u64 {
        self.space.unused(kind)
    }

    pub(super) fn give_back(&mut self, range: Range<u64>) -> Result<()> {
        self.space.release(&range, true)
    }
}
