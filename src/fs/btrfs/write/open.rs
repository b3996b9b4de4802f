//! Getting ready to write: what has to be there, and what a crash left in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::super::dir::Target;
use super::super::inode::Item;
use super::super::key::{Key, id, kind};
use super::super::node::Expected;
use super::super::subvolume::Volume;
use super::super::tree::{Store, Tree};
use super::super::{Core, corrupt, features, limit};
use super::apply::data_of;
use super::build::Mold;
use super::refs::Extent;
use crate::disk::bytes::{array, le64, size};
use crate::error::{Error, Result};
use crate::limits;

/// `replace_state` of a `btrfs_dev_replace_item`, and those of its values that tell of a replacement which is not over.
const REPLACE_STATE: usize = 32;
const REPLACE_STARTED: u64 = 1;
const REPLACE_SUSPENDED: u64 = 4;

impl Core {
    /// Reads what writing needs, puts what the log holds into the trees, and leaves no log.
    pub(in super::super) fn begin(&mut self) -> Result<()> {
        let sb = &self.store.sb;
        features::check_writable(sb.incompat, sb.compat_ro)?;
        if sb.has_errors() {
            return Err(refused("the kernel met errors in the file system that it could not undo"));
        }
        if sb.special_flags() != 0 {
            let error = refused("the file system is a seed for others, or being converted");
            return Err(error.found(format!("{:#x}", sb.special_flags())));
        }
        self.store.devices.check_writable(sb.num_devices)?;
        self.check_profiles()?;
        let relocation = self.store.ceiling(&self.store.root_tree(), Key::new(id::TREE_RELOC, kind::ROOT_ITEM, 0))?;
        if relocation.is_some_and(|(key, _)| key.is(id::TREE_RELOC, kind::ROOT_ITEM)) {
            return Err(refused("a balance was interrupted").hint("let it end in the guest"));
        }
        self.writing.trees = self.system_trees()?;
        let replaced = self.store.get(self.tree(id::DEV_TREE)?, Key::new(0, kind::DEV_REPLACE, 0))?;
        if replaced.is_some_and(|item| matches!(le64(&item, REPLACE_STATE), REPLACE_STARTED | REPLACE_SUSPENDED)) {
            return Err(refused("the replacement of a device was interrupted").hint("let it end in the guest"));
        }
        let place = self.store.sb.root;
        let expected =
            Expected { level: place.level, generation: place.generation, tree: id::ROOT_TREE, first: None, end: None };
        let root = self.store.node(place.bytenr, &expected)?;
        let sb = &self.store.sb;
        self.writing.mold = Some(Mold {
            nodesize: size(u64::from(sb.nodesize)),
            checksum: sb.checksum,
            fsid: sb.metadata_uuid,
            chunk_tree_uuid: array(&root.bytes, 64),
            generation: 0,
        });
        let mut space = super::Space::default();
        self.each_group(&mut |chunk, used| space.insert(chunk, used))?;
        self.writing.space = space;
        if self.store.sb.log_root.bytenr != 0 {
            self.keep_log()?;
        }
        Ok(())
    }

    /// The trees that a transaction changes besides subvolumes.
    fn system_trees(&self) -> Result<BTreeMap<u64, Tree>> {
        let sb = &self.store.sb;
        let mut trees = BTreeMap::from([
            (id::ROOT_TREE, Tree::new(id::ROOT_TREE, sb.root)),
            (id::CHUNK_TREE, Tree::new(id::CHUNK_TREE, sb.chunk_root)),
        ]);
        let free_tree = features::COMPAT_RO_FREE_SPACE_TREE | features::COMPAT_RO_FREE_SPACE_TREE_VALID;
        let wanted = [
            (id::EXTENT_TREE, true),
            (id::DEV_TREE, true),
            (id::BLOCK_GROUP_TREE, sb.compat_ro & features::COMPAT_RO_BLOCK_GROUP_TREE != 0),
            // One that is not marked as valid is made anew by the kernel.
            (id::FREE_SPACE_TREE, sb.compat_ro & free_tree == free_tree),
        ];
        for (tree, _) in wanted.into_iter().filter(|(_, wanted)| *wanted) {
            let found = self.store.find_tree(tree)?.ok_or_else(|| corrupt(format!("there is no tree {tree}")))?;
            trees.insert(tree, found);
        }
        if let Some(tree) = self.store.find_tree(id::QUOTA_TREE)? {
            trees.insert(id::QUOTA_TREE, tree);
        }
        Ok(trees)
    }

    /// Makes what was replayed a part of the next transaction, and stores that.
    fn keep_log(&mut self) -> Result<()> {
        let nodes = self.store.log_nodes()?;
        self.keep_nodes(&nodes)?;
        let volumes: Vec<(u64, Tree)> = self.volumes.iter().map(|(id, volume)| (*id, volume.tree.clone())).collect();
        let mut extents = BTreeSet::new();
        let mut orphans = Vec::new();
        for (volume, tree) in &volumes {
            for (key, item) in tree.changes.iter() {
                let Some(item) = item else { continue };
                if let Some((Extent::Data { bytenr, len }, _)) = data_of(*key, item) {
                    extents.insert((bytenr, len));
                }
                if key.kind == kind::INODE_ITEM && Item::parse(key.objectid, item.clone())?.nlink() == 0 {
                    orphans.push(Target { volume: *volume, inode: key.objectid, is_stub: false });
                }
            }
        }
        for (bytenr, len) in extents {
            self.know(bytenr)?;
            if !self.has_data(bytenr, len)? {
                let range = bytenr..bytenr.checked_add(len).ok_or_else(|| corrupt("an extent of a log has no end"))?;
                self.writing.space.take(&range)?;
            }
        }
        orphans.into_iter().try_for_each(|orphan| self.remove_inode(orphan))?;
        let sums = std::mem::take(&mut self.logged_sums);
        let sector = u64::from(self.store.sb.sectorsize);
        let mut run: Option<(u64, Vec<u8>, u64)> = None;
        for (at, sum) in sums {
            match &mut run {
                Some((_, bytes, next)) if *next == at => {
                    bytes.extend(sum);
                    *next = at.saturating_add(sector);
                }
                _ => {
                    if let Some((start, bytes, _)) = run.take() {
                        self.put_sums(start, &bytes)?;
                    }
                    run = Some((at, sum, at.saturating_add(sector)));
                }
            }
        }
        if let Some((start, bytes, _)) = run {
            self.put_sums(start, &bytes)?;
        }
        self.writing.replayed = true;
        self.commit()
    }

    /// Keeps the log as it is until it is no longer needed.
    fn keep_nodes(&mut self, nodes: &[u64]) -> Result<()> {
        let nodesize = u64::from(self.store.sb.nodesize);
        for bytenr in nodes {
            self.know(*bytenr)?;
            self.writing.space.pin(&(*bytenr..bytenr.saturating_add(nodesize)))?;
        }
        Ok(())
    }
}

impl Store {
    /// Where all nodes of all logs are.
    fn log_nodes(&self) -> Result<Vec<u64>> {
        let roots = Tree::new(id::TREE_LOG, self.sb.log_root);
        let mut trees = vec![roots.clone()];
        self.scan_kind(&roots, (id::TREE_LOG, kind::ROOT_ITEM, 0), &mut |_, item| {
            trees.push(Volume::parse(id::TREE_LOG, item)?.tree);
            Ok(ControlFlow::Continue(()))
        })?;
        let mut all = Vec::new();
        for tree in trees {
            let expected =
                |level, generation| Expected { level, generation, tree: id::TREE_LOG, first: None, end: None };
            let mut pending = vec![(tree.place.bytenr, expected(tree.place.level, tree.place.generation))];
            while let Some((bytenr, expected_here)) = pending.pop() {
                if all.len() > limits::MAX_BTRFS_LOG / 4096 {
                    return Err(limit("a log that is too large", limits::MAX_BTRFS_LOG));
                }
                all.push(bytenr);
                let node = self.node(bytenr, &expected_here)?;
                for slot in (0..node.count).filter(|_| node.level > 0) {
                    let (bytenr, generation) = node.pointer(slot);
                    pending.push((bytenr, expected(node.level.saturating_sub(1), generation)));
                }
            }
        }
        Ok(all)
    }
}

fn refused(what: impl Into<String>) -> Error {
    super::super::read_only(what)
}
