//! The volume: its bytes as they are after a replay of the log, and a bounded cache of its metadata.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::bytes::{long, size};
use crate::disk::{Disk, DiskMut};
use crate::error::Result;
use crate::limits;

/// The bytes of one piece of metadata.
pub(super) type Block = Arc<Vec<u8>>;

/// Bytes of what the log calls a basic block.
pub(super) const BASIC: u64 = 512;

/// Basic blocks, by number, that differ from the volume's.
pub(super) type Changes = BTreeMap<u64, [u8; 512]>;

/// The volume with what the log changed on top.
#[derive(Debug)]
pub(super) struct Store {
    disk: Arc<dyn Disk>,
    changes: Changes,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// By offset and length.
    blocks: BTreeMap<(u64, usize), Block>,
    /// Those that were found to be right, with whom they belong to.
    verified: BTreeSet<(u64, usize, Option<u64>)>,
    bytes: u64,
    /// Bytes of the longest block.
    longest: u64,
}

impl Cache {
    /// Drops what has any of the bytes from `start` to `end`.
    fn drop_range(&mut self, start: u64, end: u64) {
        let from = (start.saturating_sub(self.longest), 0);
        let keys: Vec<(u64, usize)> = self.blocks.range(from..(end, 0)).map(|(key, _)| *key).collect();
        for (offset, len) in keys.into_iter().filter(|(offset, len)| offset.saturating_add(long(*len)) > start) {
            self.blocks.remove(&(offset, len));
            self.bytes = self.bytes.saturating_sub(long(len));
            let known = (offset, len, None)..=(offset, len, Some(u64::MAX));
            let known: Vec<_> = self.verified.range(known).copied().collect();
            for key in &known {
                self.verified.remove(key);
            }
        }
    }
}

impl Store {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, changes: Changes::new(), cache: Mutex::default() }
    }

    /// Bytes of the volume.
    pub(super) fn len(&self) -> u64 {
        self.disk.len()
    }

    /// Fills `buf` from byte `offset`, changes included.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.disk.read_at(buf, offset)?;
        if self.changes.is_empty() || buf.is_empty() {
            return Ok(());
        }
        let end = offset.saturating_add(long(buf.len()));
        for (number, bytes) in self.changes.range(offset / BASIC..end.div_ceil(BASIC)) {
            let start = number.saturating_mul(BASIC);
            let (from, to) = (start.max(offset), start.saturating_add(BASIC).min(end));
            let here = size(from.saturating_sub(offset))..size(to.saturating_sub(offset));
            let there = size(from.saturating_sub(start))..size(to.saturating_sub(start));
            if let (Some(here), Some(there)) = (buf.get_mut(here), bytes.get(there)) {
                here.copy_from_slice(there);
            }
        }
        Ok(())
    }

    /// The `len` bytes of metadata at byte `offset`, from the cache if they are there.
    pub(super) fn block(&self, offset: u64, len: usize) -> Result<Block> {
        if let Some(block) = self.cached().blocks.get(&(offset, len)) {
            return Ok(Arc::clone(block));
        }
        let mut bytes = vec![0; len];
        self.read(&mut bytes, offset)?;
        let block = Arc::new(bytes);
        let mut cache = self.cached();
        if cache.bytes.saturating_add(long(len)) > limits::XFS_CACHE {
            *cache = Cache::default();
        }
        if cache.blocks.insert((offset, len), Arc::clone(&block)).is_none() {
            cache.bytes = cache.bytes.saturating_add(long(len));
            cache.longest = cache.longest.max(long(len));
        }
        Ok(block)
    }

    /// The same, which `check` finds to be right for `owner`: it is asked once as long as the block is in the cache.
    pub(super) fn verified(
        &self,
        offset: u64,
        len: usize,
        owner: Option<u64>,
        check: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<Block> {
        let block = self.block(offset, len)?;
        let key = (offset, len, owner);
        if !self.cached().verified.contains(&key) {
            check(&block)?;
            let mut cache = self.cached();
            // What left the cache meanwhile may come back as something else.
            if cache.blocks.contains_key(&(offset, len)) && cache.verified.len() < limits::MAX_XFS_VERIFIED {
                cache.verified.insert(key);
            }
        }
        Ok(block)
    }

    /// Changes the bytes from `offset`, both in whole basic blocks, in memory. Only what differs from the volume is kept.
    pub(super) fn change(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut old = vec![0; bytes.len()];
        self.disk.read_at(&mut old, offset)?;
        let pieces = bytes.as_chunks::<512>().0.iter().zip(old.as_chunks::<512>().0);
        for (number, (new, old)) in (offset / BASIC..).zip(pieces) {
            if new == old {
                self.changes.remove(&number);
            } else {
                self.changes.insert(number, *new);
            }
        }
        self.cached().drop_range(offset, offset.saturating_add(long(bytes.len())));
        Ok(())
    }

    /// Undoes what was changed from byte `offset` on.
    pub(super) fn forget(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let numbers: Vec<u64> =
            self.changes.range(offset / BASIC..end.div_ceil(BASIC)).map(|(number, _)| *number).collect();
        for number in &numbers {
            self.changes.remove(number);
        }
        self.cached().drop_range(offset, end);
    }

    /// What was changed so far.
    pub(super) fn saved(&self) -> Changes {
        self.changes.clone()
    }

    /// Goes back to what was changed before.
    pub(super) fn restore(&mut self, changes: Changes) {
        self.changes = changes;
        *self.cached() = Cache::default();
    }

    /// Undoes everything that was changed.
    pub(super) fn undo(&mut self) {
        self.restore(Changes::new());
    }

    /// Notes that the volume has what was changed.
    pub(super) fn keep(&mut self) {
        self.changes.clear();
    }

    /// Basic blocks that were changed.
    pub(super) fn changed(&self) -> usize {
        self.changes.len()
    }

    /// Stores what was changed on `target`, neighbours in one write.
    pub(super) fn store(&self, target: &dyn DiskMut) -> Result<()> {
        let mut run: Option<(u64, Vec<u8>)> = None;
        for (number, bytes) in &self.changes {
            let offset = number.saturating_mul(BASIC);
            match &mut run {
                Some((start, held))
                    if start.saturating_add(long(held.len())) == offset && long(held.len()) < limits::XFS_WRITE =>
                {
                    held.extend_from_slice(bytes);
                }
                _ => {
                    if let Some((start, held)) = run.replace((offset, bytes.to_vec())) {
                        target.write_at(&held, start)?;
                    }
                }
            }
        }
        match run {
            Some((start, held)) => target.write_at(&held, start),
            None => Ok(()),
        }
    }

    /// Bytes of metadata held in memory.
    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cached().bytes
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn changes_are_read_and_stored() {
        let disk = Checked::wrap(Memory::new((0..=255).cycle().take(8192).collect()));
        let mut store = Store::new(disk.clone());
        store.change(&[1; 1024], 512).unwrap();
        store.change(&[2; 512], 2048).unwrap();
        let mut buf = [0; 2000];
        store.read(&mut buf, 500).unwrap();
        assert_eq!((buf[11], buf[12], buf[1035], buf[1036], buf[1547], buf[1548]), (255, 1, 1, 0, 255, 2));
        assert_eq!(store.block(512, 512).unwrap()[..], [1; 512]);
        store.change(&[3; 512], 512).unwrap();
        assert_eq!(store.block(512, 512).unwrap()[..], [3; 512]);
        store.store(&*disk).unwrap();
        let mut plain = [0; 2000];
        disk.read_at(&mut plain, 500).unwrap();
        store.read(&mut buf, 500).unwrap();
        assert_eq!(buf, plain);
        // What equals the volume is not held.
        let held = store.changed();
        store.change(&[2; 512], 2048).unwrap();
        assert_eq!(store.changed(), held - 1);
    }

    #[test]
    fn what_is_right_is_checked_once() {
        let mut store = Store::new(Checked::wrap(Memory::new(vec![0; 4096])));
        let mut checks = 0;
        for owner in [Some(1), Some(1), None, Some(2), Some(2)] {
            let check = |_: &[u8]| {
                checks += 1;
                Ok(())
            };
            store.verified(0, 512, owner, check).unwrap();
        }
        assert_eq!(checks, 3);
        store.change(&[1; 512], 0).unwrap();
        assert!(store.verified(0, 512, None, |_| Err(crate::fs::xfs::corrupt("changed"))).is_err());
    }

    #[test]
    fn the_cache_is_bounded() {
        let len = 2 * limits::XFS_CACHE;
        let store = Store::new(Checked::wrap(Memory::new(vec![0; size(len)])));
        for offset in (0..len).step_by(65536) {
            store.block(offset, 65536).unwrap();
            assert!(store.cached_bytes() <= limits::XFS_CACHE);
        }
    }

    #[test]
    fn as_much_is_known_to_be_right_as_the_limit() {
        let store = Store::new(Checked::wrap(Memory::new(vec![0; 4096])));
        let most = limits::MAX_XFS_VERIFIED;
        store.cached().verified.extend((1..most as u64).map(|number| (number * 512, 512, None)));
        for expected in [most, most] {
            for owner in [None, Some(1), Some(2)] {
                store.verified(0, 512, owner, |_| Ok(())).unwrap();
            }
            assert_eq!(store.cached().verified.len(), expected);
        }
    }

    #[test]
    fn neighbours_are_stored_in_writes_of_the_limit() {
        let len = size(limits::XFS_WRITE);
        for (count, writes) in [(len - 512, 1), (len, 1), (len + 512, 2)] {
            let calls = Arc::new(std::sync::atomic::AtomicU64::new(0));
            let target =
                crate::disk::Fault::nth_mut(Checked::wrap(Memory::new(vec![0; 2 * len])), Arc::clone(&calls), u64::MAX);
            let mut store = Store::new(Checked::wrap(Memory::new(vec![0; 2 * len])));
            store.change(&vec![1; count], 0).unwrap();
            store.store(&target).unwrap();
            assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), writes);
        }
    }
}
