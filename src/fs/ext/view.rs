//! Blocks: a bounded cache of metadata over the disk, and a view in which changes gather until all of them are stored.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::superblock::{self, Superblock};
use super::{corrupt, read_only};
use crate::disk::bytes::{long, size};
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Result};
use crate::limits;

/// The bytes of one block.
pub(super) type Block = Arc<Vec<u8>>;

/// Where the newest copy of a block lies in a journal that was not written back: a block whose first four bytes may be
/// escaped there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Journalled {
    pub(super) at: u64,
    pub(super) escaped: bool,
}

/// The volume, in blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    disk: Arc<dyn Disk>,
    target: Option<Arc<dyn DiskMut>>,
    block_size: u64,
    count: u64,
    cache: Mutex<HashMap<u64, Block>>,
    /// Blocks whose newest copy is still in the journal. Empty when the volume can be written.
    journalled: BTreeMap<u64, Journalled>,
    /// Where the metadata of all groups lies; no change moves it.
    pub(super) metadata: OnceLock<Vec<Range<u64>>>,
}

impl Blocks {
    pub(super) fn new(disk: Arc<dyn Disk>, target: Option<Arc<dyn DiskMut>>, sb: &Superblock) -> Self {
        Self {
            disk,
            target,
            block_size: sb.block_size.get(),
            count: sb.blocks_count,
            cache: Mutex::default(),
            journalled: BTreeMap::new(),
            metadata: OnceLock::new(),
        }
    }

    /// From now on, blocks are read from where the journal has them.
    pub(super) fn overlay(&mut self, journalled: BTreeMap<u64, Journalled>) {
        self.journalled = journalled;
        self.cached().clear();
    }

    /// Block `number`, from the cache if it is there.
    fn block(&self, number: u64) -> Result<Block> {
        if let Some(block) = self.cached().get(&number) {
            return Ok(Arc::clone(block));
        }
        let mut bytes = vec![0; size(self.block_size)];
        self.read(&mut bytes, number, 0)?;
        let block = Arc::new(bytes);
        self.remember(number, &block);
        Ok(block)
    }

    /// Fills `buf` from `offset` bytes into the blocks that start at `first`; journalled copies win.
    pub(super) fn read(&self, buf: &mut [u8], first: u64, offset: u64) -> Result<()> {
        let start = self.place(first, offset, buf.len())?;
        self.disk.read_at(buf, start)?;
        if self.journalled.is_empty() || buf.is_empty() {
            return Ok(());
        }
        let end = start.saturating_add(long(buf.len()));
        let touched = start.checked_div(self.block_size).unwrap_or(0)..end.div_ceil(self.block_size);
        for (block, copy) in self.journalled.range(touched) {
            let block_start = block.saturating_mul(self.block_size);
            let from = start.max(block_start);
            let to = end.min(block_start.saturating_add(self.block_size));
            let at = size(from.saturating_sub(start))..size(to.saturating_sub(start));
            if let Some(part) = buf.get_mut(at) {
                let bytes = self.journalled_copy(*copy)?;
                let skip = size(from.saturating_sub(block_start));
                let len = part.len();
                if let Some(bytes) = bytes.get(skip..).and_then(|rest| rest.get(..len)) {
                    part.copy_from_slice(bytes);
                }
            }
        }
        Ok(())
    }

    /// The block that the journal holds at `copy`.
    pub(super) fn journalled_copy(&self, copy: Journalled) -> Result<Vec<u8>> {
        let mut bytes = vec![0; size(self.block_size)];
        let start = self.place(copy.at, 0, bytes.len())?;
        self.disk.read_at(&mut bytes, start)?;
        if copy.escaped {
            crate::disk::bytes::put(&mut bytes, 0, &super::journal::MAGIC.to_be_bytes());
        }
        Ok(bytes)
    }

    /// The 1,024 bytes of the superblock.
    pub(super) fn superblock(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; superblock::LEN];
        let first = superblock::OFFSET.checked_div(self.block_size).unwrap_or(0);
        let offset = superblock::OFFSET.checked_rem(self.block_size).unwrap_or(0);
        self.read(&mut bytes, first, offset)?;
        Ok(bytes)
    }

    /// Stores `data` at `offset` bytes into the blocks that start at `first`, at once.
    pub(super) fn write(&self, data: &[u8], first: u64, offset: u64) -> Result<()> {
        let start = self.place(first, offset, data.len())?;
        let end = start.saturating_add(long(data.len()));
        self.forget(start.checked_div(self.block_size).unwrap_or(0)..end.div_ceil(self.block_size));
        self.target()?.write_at(data, start)
    }

    /// Makes `len` bytes zero at `offset` into the blocks that start at `first`.
    pub(super) fn zero(&self, first: u64, offset: u64, len: u64) -> Result<()> {
        let start = self.place(first, offset, size(len))?;
        let end = start.saturating_add(len);
        self.forget(start.checked_div(self.block_size).unwrap_or(0)..end.div_ceil(self.block_size));
        self.target()?.zero(start..end)
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.target()?.flush()
    }

    pub(super) fn volume_len(&self) -> u64 {
        self.disk.len()
    }

    fn target(&self) -> Result<&Arc<dyn DiskMut>> {
        self.target.as_ref().ok_or_else(|| read_only("the volume was opened for reading"))
    }

    /// The offset on the volume, after making sure that the bytes lie in the file system.
    fn place(&self, first: u64, offset: u64, len: usize) -> Result<u64> {
        let start = first.checked_mul(self.block_size).and_then(|start| start.checked_add(offset));
        let end = self.count.saturating_mul(self.block_size);
        match start {
            Some(start) if start.checked_add(long(len)).is_some_and(|stop| stop <= end) => Ok(start),
            _ => Err(corrupt(format!("block {first} lies outside of the file system"))),
        }
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Block>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of metadata held in memory.
    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> u64 {
        long(self.cached().len()).saturating_mul(self.block_size)
    }

    fn remember(&self, number: u64, block: &Block) {
        let mut cache = self.cached();
        if long(cache.len()).saturating_mul(self.block_size) >= limits::EXT_CACHE {
            cache.clear();
        }
        cache.insert(number, Arc::clone(block));
    }

    fn forget(&self, range: Range<u64>) {
        let mut cache = self.cached();
        if range.end.saturating_sub(range.start) > long(cache.len()) {
            cache.retain(|number, _| !range.contains(number));
        } else {
            range.for_each(|number| drop(cache.remove(&number)));
        }
    }
}

/// The file system at one moment, with changes on top that [`View::commit`] stores. A view that is dropped changes nothing.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) blocks: &'a Blocks,
    pub(super) sb: Arc<Superblock>,
    changed: BTreeMap<u64, Block>,
    sb_changed: bool,
}

impl<'a> View<'a> {
    pub(super) fn new(blocks: &'a Blocks, sb: Arc<Superblock>) -> Self {
        Self { blocks, sb, changed: BTreeMap::new(), sb_changed: false }
    }

    /// Metadata block `number`.
    pub(super) fn block(&self, number: u64) -> Result<Block> {
        match self.changed.get(&number) {
            Some(block) => Ok(Arc::clone(block)),
            None => self.blocks.block(number),
        }
    }

    /// Metadata block `number`, to be changed.
    pub(super) fn edit(&mut self, number: u64) -> Result<&mut Vec<u8>> {
        let block = self.block(number)?;
        let slot = self.changed.entry(number).or_insert(block);
        Ok(Arc::make_mut(slot))
    }

    /// Makes `bytes` the content of metadata block `number`.
    pub(super) fn put(&mut self, number: u64, bytes: Vec<u8>) {
        self.changed.insert(number, Arc::new(bytes));
    }

    /// Forgets changes of blocks that are no longer metadata.
    pub(super) fn discard(&mut self, start: u64, len: u64) {
        let range = start..start.saturating_add(len);
        let stale: Vec<u64> = self.changed.range(range).map(|(number, _)| *number).collect();
        stale.iter().for_each(|number| drop(self.changed.remove(number)));
    }

    /// The superblock, to be changed.
    pub(super) fn edit_sb(&mut self) -> &mut Superblock {
        self.sb_changed = true;
        Arc::make_mut(&mut self.sb)
    }

    /// Stores all changes, neighbours in one write, the superblock last.
    pub(super) fn commit(mut self) -> Result<Arc<Superblock>> {
        let stored = self.store();
        if stored.is_err() {
            self.blocks.cached().clear();
        }
        stored?;
        if self.sb_changed {
            self.edit_sb().seal();
            self.store_sb()?;
        }
        Ok(self.sb)
    }

    fn store(&self) -> Result<()> {
        let mut run: Option<(u64, Vec<u8>)> = None;
        for (number, block) in &self.changed {
            match &mut run {
                Some((start, bytes)) if self.follows(*start, bytes.len(), *number) => bytes.extend_from_slice(block),
                _ => {
                    self.store_run(run.take())?;
                    run = Some((*number, block.to_vec()));
                }
            }
        }
        self.store_run(run)?;
        for (number, block) in &self.changed {
            self.blocks.remember(*number, block);
        }
        Ok(())
    }

    fn follows(&self, start: u64, len: usize, number: u64) -> bool {
        let blocks = long(len) / self.sb.block_size;
        start.saturating_add(blocks) == number && long(len) < limits::EXT_WRITE
    }

    fn store_run(&self, run: Option<(u64, Vec<u8>)>) -> Result<()> {
        match run {
            Some((start, bytes)) => self.blocks.write(&bytes, start, 0),
            None => Ok(()),
        }
    }

    fn store_sb(&self) -> Result<()> {
        let (first, offset) = (superblock::OFFSET / self.sb.block_size, superblock::OFFSET % self.sb.block_size);
        self.blocks.write(self.sb.raw(), first, offset)
    }

    /// An error about metadata in block `number`.
    pub(super) fn corrupt_at(&self, number: u64, what: impl Into<String>) -> Error {
        corrupt(what).offset(number.saturating_mul(self.sb.block_size.get()))
    }

    /// A wrong checksum in block `number`.
    pub(super) fn bad_checksum(&self, number: u64, what: &str) -> Error {
        Error::corrupt("ext.checksum", format!("the checksum of {what} is wrong"))
            .offset(number.saturating_mul(self.sb.block_size.get()))
    }
}
