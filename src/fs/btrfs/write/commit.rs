//! A transaction: what waits goes into the trees, then the trees onto the devices, then the superblocks.

use super::super::features::COMPAT_RO_BLOCK_GROUP_TREE;
use super::super::key::{Key, id, is_subvolume, kind};
use super::super::superblock::{self, Place};
use super::super::{Core, corrupt};
use super::apply::has_no_item;
use crate::disk::bytes::{le64, put, put32};
use crate::error::Result;

/// Rounds in which the trees come to rest. Each round dirties less than the one before; three or four are usual.
const MAX_ROUNDS: usize = 64;
/// `BTRFS_QGROUP_STATUS_FLAG_INCONSISTENT`.
const INCONSISTENT: u64 = 1 << 2;

impl Core {
    /// Stores what waits as one transaction. Nothing happens when nothing waits.
    pub(in super::super) fn commit(&mut self) -> Result<()> {
        if self.writing.broken {
            return Err(super::Error::failed(
                "btrfs.aborted",
                "a transaction could not be stored, so nothing can be written",
            ));
        }
        if !self.is_pending() && !self.writing.replayed {
            return Ok(());
        }
        self.writing.broken = true;
        self.settle()?;
        self.store_settled()
    }

    /// Puts what waits into the trees, in memory.
    pub(super) fn settle(&mut self) -> Result<()> {
        let generation = self.transaction();
        self.writing.mold.iter_mut().for_each(|mold| mold.generation = generation);
        self.doubt_quotas()?;
        let changed = self.volumes.values().map(|volume| &volume.tree).filter(|tree| !tree.changes.is_empty());
        let changed: Vec<u64> = changed.map(|tree| tree.id).collect();
        changed.into_iter().try_for_each(|tree| self.apply(tree))?;
        self.count_data()?;
        self.drop_fresh()?;
        self.settle_trees()
    }

    /// Stores trees that nothing waits for any more, and begins the next transaction.
    pub(super) fn store_settled(&mut self) -> Result<()> {
        self.writing.broken = true;
        self.store_nodes()?;
        self.store_superblocks()?;
        self.writing.space.unpin();
        self.writing.undo.clear();
        self.writing.growth.clear();
        self.writing.pending = 0;
        self.writing.broken = false;
        self.writing.replayed = false;
        Ok(())
    }

    /// Has the kernel count quotas anew.
    fn doubt_quotas(&mut self) -> Result<()> {
        let key = Key::new(0, kind::QGROUP_STATUS, 0);
        let Some(tree) = self.writing.trees.get(&id::QUOTA_TREE) else { return Ok(()) };
        let Some(mut item) = self.store.get(tree, key)? else { return Ok(()) };
        let flags = le64(&item, 16);
        if flags & INCONSISTENT != 0 {
            return Ok(());
        }
        put(&mut item, 16, &(flags | INCONSISTENT).to_le_bytes());
        self.set(id::QUOTA_TREE, key, Some(item))
    }

    /// Puts the references to data into the extent tree: first those that are new, so that nothing is freed that is still used.
    fn count_data(&mut self) -> Result<()> {
        for (extent, counts) in std::mem::take(&mut self.writing.counts) {
            let (added, dropped): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(_, by)| *by > 0);
            for (who, by) in added.into_iter().chain(dropped).filter(|(_, by)| *by != 0) {
                self.change_ref(extent, who, by)?;
            }
        }
        Ok(())
    }

    /// Frees data that was written for this transaction and that nothing refers to any more.
    fn drop_fresh(&mut self) -> Result<()> {
        for (bytenr, len) in std::mem::take(&mut self.writing.fresh) {
            // Where a reference came and went in one transaction, the extent is gone already.
            if !self.has_data(bytenr, len)? {
                let range = bytenr..bytenr.saturating_add(len);
                self.remove_sums(range.clone())?;
                self.writing.space.release(&range, true)?;
            }
        }
        Ok(())
    }

    /// Changes trees until no change makes another one necessary.
    fn settle_trees(&mut self) -> Result<()> {
        for _ in 0..MAX_ROUNDS {
            self.apply(id::CSUM_TREE)?;
            let others: Vec<u64> = self.writing.trees.keys().copied().collect();
            for tree in others.iter().filter(|tree| !is_last(**tree)) {
                self.apply(*tree)?;
            }
            self.store_groups()?;
            for tree in others.iter().filter(|tree| is_last(**tree) && **tree != id::ROOT_TREE) {
                self.apply(*tree)?;
            }
            self.store_roots()?;
            self.apply(id::ROOT_TREE)?;
            self.store_groups()?;
            if !self.is_pending() {
                return Ok(());
            }
        }
        Err(corrupt("a transaction does not come to an end"))
    }

    /// Says in each block group's item how much of it is in use, and in the free space tree what is free.
    fn store_groups(&mut self) -> Result<()> {
        let has_own = self.store.sb.compat_ro & COMPAT_RO_BLOCK_GROUP_TREE != 0;
        let tree = if has_own { id::BLOCK_GROUP_TREE } else { id::EXTENT_TREE };
        let starts: Vec<u64> = self.writing.space.0.keys().copied().collect();
        for start in starts {
            let Some(group) = self.writing.space.0.get_mut(&start) else { continue };
            let used = group.used;
            if std::mem::replace(&mut group.stored, used) != used {
                let key = Key::new(start, kind::BLOCK_GROUP_ITEM, group.len);
                let item = self.store.get(self.tree(tree)?, key)?;
                let mut item = item.ok_or_else(|| corrupt("a chunk without a block group").offset(start))?;
                put(&mut item, 0, &used.to_le_bytes());
                self.set(tree, key, Some(item))?;
            }
            if self.has_free_tree() {
                self.store_free(start)?;
            }
        }
        Ok(())
    }

    /// Says in the root tree where the roots of all others are.
    fn store_roots(&mut self) -> Result<()> {
        let trees = self.volumes.keys().chain(self.writing.trees.keys()).copied().chain([id::CSUM_TREE]);
        let trees: Vec<u64> = trees.filter(|tree| !has_no_item(*tree)).collect();
        for tree in trees {
            let Ok(Place { bytenr, level, generation }) = self.tree(tree).map(|tree| tree.place) else { continue };
            if generation != self.transaction() {
                continue;
            }
            let roots = self.tree(id::ROOT_TREE)?;
            let Some((key, mut item)) = self.store.ceiling(roots, Key::new(tree, kind::ROOT_ITEM, 0))? else {
                continue;
            };
            if !key.is(tree, kind::ROOT_ITEM) {
                return Err(corrupt(format!("tree {tree} has no item")));
            }
            let before = item.clone();
            let grown = self.writing.growth.remove(&tree).unwrap_or(0);
            let grown = grown.saturating_mul(i64::from(self.store.sb.nodesize));
            let used = le64(&item, 192).saturating_add_signed(grown);
            if item.len() > 247 && le64(&item, 239) != le64(&item, 160) {
                // An old kernel left what it did not know.
                item.get_mut(247..).unwrap_or_default().fill(0);
            }
            for (at, value) in [(160, generation), (176, bytenr), (192, used), (239, generation)] {
                put(&mut item, at, &value.to_le_bytes());
            }
            if is_subvolume(tree) {
                put(&mut item, 295, &generation.to_le_bytes());
            }
            put(&mut item, 238, &[level]);
            if item != before {
                self.set(id::ROOT_TREE, key, Some(item))?;
            }
        }
        Ok(())
    }

    /// Writes all new nodes, each to all of its places.
    fn store_nodes(&mut self) -> Result<()> {
        for (bytenr, node) in std::mem::take(&mut self.store.dirty) {
            self.store.devices.write(&self.store.chunks, &node.bytes, bytenr)?;
            self.store.forget(bytenr);
        }
        self.store.devices.flush()
    }

    /// Writes the superblocks, which makes the transaction count.
    fn store_superblocks(&mut self) -> Result<()> {
        let place = |tree: u64| self.tree(tree).map(|tree| tree.place);
        let (root, chunk_root) = (place(id::ROOT_TREE)?, place(id::CHUNK_TREE)?);
        let sb = &self.store.sb;
        let (old, new) = (sb.generation, self.transaction());
        let used = self.writing.space.used();
        let nothing = Place { bytenr: 0, level: 0, generation: 0 };
        let backed =
            [id::EXTENT_TREE, id::FS_TREE, id::DEV_TREE, id::CSUM_TREE].map(|tree| place(tree).unwrap_or(nothing));
        let backup = backup(root, chunk_root, backed, [sb.total_bytes, used, sb.num_devices]);
        let (sys_chunks, taken) = (&sb.sys_chunks, self.device_use());
        self.store.devices.store_superblocks(sb.checksum, &|bytes, devid| {
            put(bytes, 0x48, &new.to_le_bytes());
            put(bytes, 0x50, &root.bytenr.to_le_bytes());
            put(bytes, 0x58, &chunk_root.bytenr.to_le_bytes());
            put(bytes, 0x60, &[0; 16]);
            put(bytes, 0x78, &used.to_le_bytes());
            put32(bytes, 0xa0, u32::try_from(sys_chunks.len()).unwrap_or(0));
            put(bytes, 0xa4, &chunk_root.generation.to_le_bytes());
            put(bytes, 0xc6, &[root.level, chunk_root.level, 0]);
            put(bytes, 0xd9, &taken.get(&devid).copied().unwrap_or(0).to_le_bytes());
            if le64(bytes, superblock::UUID_TREE_GENERATION) == old {
                put(bytes, superblock::UUID_TREE_GENERATION, &new.to_le_bytes());
            }
            put(bytes, superblock::SYS_CHUNKS, sys_chunks);
            let slots = (0..4_usize).map(|slot| superblock::BACKUPS.saturating_add(slot.saturating_mul(BACKUP)));
            let slots: Vec<usize> = slots.collect();
            let last = slots.iter().position(|at| le64(bytes, at.saturating_add(8)) == old);
            let next = last.map_or(0, |last| last.saturating_add(1) % 4);
            put(bytes, slots.get(next).copied().unwrap_or(superblock::BACKUPS), &backup);
        })?;
        let sb = &mut self.store.sb;
        sb.generation = new;
        sb.root = root;
        sb.chunk_root = chunk_root;
        sb.log_root = nothing;
        sb.bytes_used = used;
        Ok(())
    }
}

/// Bytes of a `btrfs_root_backup`.
const BACKUP: usize = 168;

fn backup(root: Place, chunk_root: Place, others: [Place; 4], counts: [u64; 3]) -> Vec<u8> {
    let mut bytes = vec![0; BACKUP];
    let places: Vec<Place> = [root, chunk_root].into_iter().chain(others).collect();
    for (index, place) in places.iter().enumerate() {
        let at = index.saturating_mul(16);
        put(&mut bytes, at, &place.bytenr.to_le_bytes());
        put(&mut bytes, at.saturating_add(8), &place.generation.to_le_bytes());
        put(&mut bytes, index.saturating_add(152), &[place.level]);
    }
    for (index, count) in counts.iter().enumerate() {
        put(&mut bytes, index.saturating_mul(8).saturating_add(96), &count.to_le_bytes());
    }
    bytes
}

/// Trees that change because others do.
const fn is_last(tree: u64) -> bool {
    matches!(tree, id::EXTENT_TREE | id::BLOCK_GROUP_TREE | id::FREE_SPACE_TREE | id::ROOT_TREE)
}
