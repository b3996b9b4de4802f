//! The log tree: what was synced after the last transaction, put on top of the trees in memory.
//!
//! The stages and their order are those of the kernel (`fs/btrfs/tree-log.c`): inodes with the removals of their names, then names
//! of directories, then everything else, then the counts of links. Whatever does not fit makes the whole replay fail.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::inode::Item;
use super::key::{Key, id, kind};
use super::subvolume::Volume;
use super::tree::{Changes, Store, Tree};
use super::{corrupt, dir, limit};
use crate::disk::bytes::{le64, long};
use crate::error::Result;
use crate::fs::FileKind;
use crate::limits;

pub(super) mod extents;
pub(super) mod names;

/// What a replay changes.
#[derive(Debug, Default)]
pub(super) struct Replayed {
    /// Items of subvolumes.
    pub(super) changes: BTreeMap<u64, Arc<Changes>>,
    /// Checksums of sectors.
    pub(super) sums: BTreeMap<u64, Vec<u8>>,
}

/// Replays the logs of all subvolumes.
pub(super) fn replay(store: &Store, volumes: &BTreeMap<u64, Volume>) -> Result<Replayed> {
    let roots = Tree::new(id::TREE_LOG, store.sb.log_root);
    let mut logs = Vec::new();
    store.scan_kind(&roots, (id::TREE_LOG, kind::ROOT_ITEM, 0), &mut |volume, item| {
        let place = Volume::parse(id::TREE_LOG, item)?.tree.place;
        logs.push((volume, Tree::new(id::TREE_LOG, place)));
        Ok(if logs.len() > limits::MAX_BTRFS_SUBVOLUMES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let mut replayed = Replayed::default();
    let mut bytes = 0_usize;
    for (id, log) in logs {
        // A subvolume that was removed needs no replay.
        let Some(volume) = volumes.get(&id) else { continue };
        let log = items(store, &log, &mut bytes)?;
        let mut replay =
            Replay { store, tree: volume.tree.clone(), log, fixups: BTreeSet::new(), sums: &mut replayed.sums };
        replay.run()?;
        replayed.changes.insert(id, replay.tree.changes);
    }
    Ok(replayed)
}

/// All items of a log.
pub(super) fn items(store: &Store, log: &Tree, bytes: &mut usize) -> Result<BTreeMap<Key, Vec<u8>>> {
    let mut items = BTreeMap::new();
    store.scan(log, Key::new(0, 0, 0), &mut |key, item| {
        *bytes = bytes.saturating_add(item.len()).saturating_add(limits::BTRFS_LOG_ITEM);
        if *bytes > limits::MAX_BTRFS_LOG {
            return Err(limit("a log that is too large", limits::MAX_BTRFS_LOG));
        }
        items.insert(key, item.to_vec());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(items)
}

/// The replay of one subvolume's log.
struct Replay<'a> {
    store: &'a Store,
    /// The subvolume, changed as the replay goes on.
    tree: Tree,
    log: BTreeMap<Key, Vec<u8>>,
    /// Inodes whose links have to be counted in the end.
    fixups: BTreeSet<u64>,
    sums: &'a mut BTreeMap<u64, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Inodes,
    Names,
    All,
}

impl Replay<'_> {
    fn run(&mut self) -> Result<()> {
        let log = std::mem::take(&mut self.log);
        let all: Vec<(Key, Vec<u8>)> = log.iter().map(|(key, item)| (*key, item.clone())).collect();
        self.log = log;
        for stage in [Stage::Inodes, Stage::Names, Stage::All] {
            // A file without a name that was synced is not there any more.
            let mut ignored = false;
            for (key, item) in &all {
                if key.kind == kind::INODE_ITEM {
                    ignored = Item::parse(key.objectid, item.clone())?.nlink() == 0;
                }
                if !ignored {
                    self.item(stage, *key, item)?;
                }
            }
        }
        while let Some(inode) = self.fixups.pop_last() {
            self.count_links(inode)?;
        }
        Ok(())
    }

    fn item(&mut self, stage: Stage, key: Key, item: &[u8]) -> Result<()> {
        match (stage, key.kind) {
            (Stage::Inodes, kind::INODE_ITEM) => self.inode(key, item),
            (Stage::Names, kind::DIR_INDEX) => self.name(key, item),
            (Stage::All, kind::XATTR_ITEM) => {
                self.put(key, item.to_vec());
                Ok(())
            }
            (Stage::All, kind::INODE_REF | kind::INODE_EXTREF) => self.reference(key, item),
            (Stage::All, kind::EXTENT_DATA) => self.extent(key, item),
            _ => Ok(()),
        }
    }

    /// An inode, with what it lost.
    fn inode(&mut self, key: Key, item: &[u8]) -> Result<()> {
        let number = key.objectid;
        let logged = Item::parse(number, item.to_vec())?;
        self.remove_attributes(number)?;
        if logged.kind() == Some(FileKind::Directory) {
            self.remove_names(number, false)?;
        }
        self.overwrite_inode(number, logged)?;
        let now = self.require(number)?;
        if now.kind() == Some(FileKind::Regular) {
            let sector = u64::from(self.store.sb.sectorsize);
            let from = now.size().checked_next_multiple_of(sector).unwrap_or(u64::MAX);
            let dropped = self.drop_extents(number, from, u64::MAX)?;
            self.edit(number, |inode| inode.set_nbytes(inode.nbytes().saturating_sub(dropped)))?;
        }
        self.fixup(number)
    }

    /// Takes an inode from the log. One that was only mentioned there (its generation is 0) keeps what the subvolume has.
    fn overwrite_inode(&mut self, number: u64, mut logged: Item) -> Result<()> {
        let is_dir = logged.kind() == Some(FileKind::Directory);
        match self.find(number)? {
            None => {
                logged.set_nbytes(0);
                if is_dir {
                    logged.set_size(0);
                }
            }
            Some(mut old) if logged.generation() == 0 => {
                let both_regular = [&logged, &old].iter().all(|item| item.kind() == Some(FileKind::Regular));
                if both_regular && logged.size() != 0 {
                    old.set_size(logged.size());
                }
                logged = old;
            }
            Some(old) => {
                logged.set_nbytes(old.nbytes());
                if is_dir {
                    logged.set_size(if old.kind() == Some(FileKind::Directory) { old.size() } else { 0 });
                }
            }
        }
        if logged.generation() == 0 {
            logged.set_generation(self.store.sb.generation.saturating_add(1));
        }
        self.put(Key::new(number, kind::INODE_ITEM, 0), logged.0);
        Ok(())
    }

    /// Removes the attributes that the log does not have.
    fn remove_attributes(&mut self, number: u64) -> Result<()> {
        let mut kept: Vec<(Key, Option<Vec<u8>>)> = Vec::new();
        self.store.scan_kind(&self.tree, (number, kind::XATTR_ITEM, 0), &mut |hash, item| {
            let key = Key::new(number, kind::XATTR_ITEM, hash);
            let logged = self.log.get(&key).map_or(&[][..], Vec::as_slice);
            let logged = dir::parse(logged)?;
            let entries = dir::parse(item)?;
            let known = |name: &[u8]| logged.iter().any(|entry| entry.name == name);
            if entries.iter().all(|entry| known(entry.name)) {
                return Ok(ControlFlow::Continue(()));
            }
            let left = entries.iter().filter(|entry| known(entry.name));
            let left: Vec<u8> = left.flat_map(|entry| dir::encode_with(entry)).collect();
            kept.push((key, (!left.is_empty()).then_some(left)));
            Ok(ControlFlow::Continue(()))
        })?;
        for (key, item) in kept {
            self.set(key, item);
        }
        Ok(())
    }

    /// Removes the names that the log does not have, of those that it speaks for or of all.
    fn remove_names(&mut self, directory: u64, all: bool) -> Result<()> {
        if self.find(directory)?.is_none() {
            return Ok(());
        }
        let mut ranges = vec![(0, u64::MAX)];
        if !all {
            let first = Key::new(directory, kind::DIR_LOG_INDEX, 0);
            let last = Key::new(directory, kind::DIR_LOG_INDEX, u64::MAX);
            ranges = self.log.range(first..=last).map(|(key, item)| (key.offset, le64(item, 0))).collect();
        }
        for (start, end) in ranges {
            for (index, name, location) in self.names(directory, start, end)? {
                let key = Key::new(directory, kind::DIR_INDEX, index);
                let logged = self.log.get(&key).filter(|_| !all).map_or(&[][..], Vec::as_slice);
                if dir::parse(logged)?.iter().any(|entry| entry.name == name) {
                    continue;
                }
                if location.kind != kind::INODE_ITEM {
                    return Err(corrupt("a log removes a subvolume"));
                }
                self.fixup(location.objectid)?;
                self.unlink(directory, location.objectid, &name)?;
            }
        }
        Ok(())
    }

    /// The names of a directory whose index is in a range.
    fn names(&self, directory: u64, start: u64, end: u64) -> Result<Vec<(u64, Vec<u8>, Key)>> {
        let (mut names, mut bytes) = (Vec::new(), 0_usize);
        self.store.scan_kind(&self.tree, (directory, kind::DIR_INDEX, start), &mut |index, item| {
            if index > end {
                return Ok(ControlFlow::Break(()));
            }
            for entry in dir::parse(item)? {
                bytes = bytes.saturating_add(entry.name.len()).saturating_add(limits::BTRFS_LOG_ITEM);
                names.push((index, entry.name.to_vec(), entry.location));
            }
            if bytes > limits::MAX_BTRFS_LOG {
                return Err(limit("a log that speaks of too many names", limits::MAX_BTRFS_LOG));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(names)
    }

    /// Counts the links of an inode anew. A directory without any loses what is in it.
    fn count_links(&mut self, number: u64) -> Result<()> {
        let Some(inode) = self.find(number)? else { return Ok(()) };
        let links = self.references(number)?;
        self.edit(number, |inode| inode.set_nlink(u32::try_from(links).unwrap_or(u32::MAX)))?;
        if links == 0 && inode.kind() == Some(FileKind::Directory) {
            self.remove_names(number, true)?;
        }
        Ok(())
    }

    /// Has the links of an inode counted in the end.
    fn fixup(&mut self, number: u64) -> Result<()> {
        self.require(number)?;
        self.fixups.insert(number);
        Ok(())
    }

    fn find(&self, number: u64) -> Result<Option<Item>> {
        let item = self.store.get(&self.tree, Key::new(number, kind::INODE_ITEM, 0))?;
        item.map(|item| Item::parse(number, item)).transpose()
    }

    fn require(&self, number: u64) -> Result<Item> {
        self.find(number)?.ok_or_else(|| corrupt(format!("a log speaks of inode {number}, which is not there")))
    }

    fn edit(&mut self, number: u64, change: impl FnOnce(&mut Item)) -> Result<()> {
        let mut item = self.require(number)?;
        change(&mut item);
        self.put(Key::new(number, kind::INODE_ITEM, 0), item.0);
        Ok(())
    }

    fn put(&mut self, key: Key, item: Vec<u8>) {
        self.set(key, Some(item));
    }

    fn set(&mut self, key: Key, item: Option<Vec<u8>>) {
        Arc::make_mut(&mut self.tree.changes).insert(key, item);
    }

    /// Takes the checksums of `range` from the log.
    fn take_sums(&mut self, start: u64, end: u64) {
        let (sector, len) = (u64::from(self.store.sb.sectorsize), self.store.sb.checksum.len());
        let key = |at| Key::new(id::EXTENT_CSUM, kind::EXTENT_CSUM, at);
        let before =
            self.log.range(..key(start)).next_back().filter(|(found, _)| found.is(id::EXTENT_CSUM, kind::EXTENT_CSUM));
        let items = before.into_iter().chain(self.log.range(key(start)..key(end)));
        for (found, item) in items {
            for (index, sum) in item.chunks_exact(len).enumerate() {
                let at = found.offset.saturating_add(long(index).saturating_mul(sector));
                if (start..end).contains(&at) {
                    self.sums.insert(at, sum.to_vec());
                }
            }
        }
    }
}
