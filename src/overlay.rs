//! Copy-on-write over any disk: what the fixes write stays here, and the base is never touched.
//!
//! Changed blocks live in memory up to the session's overlay share, then in an unnamed file in the output directory.
//! Zeroed ranges take no block at all.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::disk::{Checked, Disk, DiskMut, Extent, ExtentKind, Fingerprint, Hints, HostRange, SectorSize, Visit};
use crate::error::{Error, Result};
use crate::limits::OVERLAY_ENTRY;
use crate::session::Session;

mod edges;
mod kept;
mod spill;

use crate::disk::ranges::RangeSet;
use edges::{Edges, beside};
pub use kept::{Backing, Kept};
use spill::Spill;

/// Bytes of one block, the unit in which the base is copied.
pub const BLOCK: u64 = 4096;

/// [`BLOCK`] as the length of a buffer.
const BLOCK_LEN: usize = 4096;

/// A disk that reads as its base until it is written. Writes are kept beside the base.
#[derive(Debug)]
pub struct Overlay {
    base: Arc<dyn Disk>,
    len: u64,
    /// Bytes of memory for blocks and their entries together.
    share: u64,
    spill_dir: Option<PathBuf>,
    state: RwLock<State>,
    /// Of all changes, taken at most once, when no more can come.
    digest: OnceLock<[u8; 32]>,
}

/// What was changed. A block is in at most one of `blocks` and `zeros`.
#[derive(Debug, Default)]
struct State {
    /// Changed blocks by block number.
    blocks: BTreeMap<u64, Slot>,
    /// Block numbers that read as zeros.
    zeros: RangeSet,
    /// Blocks held in memory.
    in_memory: u64,
    spill: Option<Spill>,
    /// Behind the block that was moved to the spill file last.
    spilled_to: u64,
    frozen: bool,
    /// Grows with each change.
    version: u64,
}

/// Where a changed block is.
#[derive(Debug)]
enum Slot {
    Memory(Box<[u8; BLOCK_LEN]>),
    /// Block number in the spill file.
    Spilled(u64),
}

/// Where a run of bytes is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Base,
    Blocks,
    Zeros,
}

impl Overlay {
    /// An overlay without changes over `base`. Blocks beyond the session's overlay share go to an unnamed file in
    /// `spill_dir`; without a directory, a full share is an error.
    #[must_use]
    pub fn new(base: Arc<dyn Disk>, session: &Session, spill_dir: Option<&Path>) -> Arc<Checked<Self>> {
        Self::with_share(base, session.budget.overlay(), spill_dir)
    }

    fn with_share(base: Arc<dyn Disk>, share: u64, spill_dir: Option<&Path>) -> Arc<Checked<Self>> {
        let spill_dir = spill_dir.map(Path::to_path_buf);
        Checked::wrap(Self {
            len: base.len(),
            base,
            share,
            spill_dir,
            state: RwLock::default(),
            digest: OnceLock::new(),
        })
    }

    /// Refuses every write from now on, so that a copy sees one state.
    pub fn freeze(&self) {
        self.write().frozen = true;
    }

    /// The byte ranges that were changed, ascending, neighbours merged.
    #[must_use]
    pub fn changes(&self) -> Vec<Range<u64>> {
        let mut changes: Vec<Range<u64>> = Vec::new();
        let mut at = 0;
        while at < self.len {
            let (run, home) = self.next_run(&self.read(), at..self.len);
            at = run.end;
            if home == Home::Base {
                continue;
            }
            match changes.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => changes.push(run),
            }
        }
        changes
    }

    /// Bytes that were changed, in whole blocks.
    #[must_use]
    pub fn changed_bytes(&self) -> u64 {
        self.changes().iter().map(|range| range.end - range.start).sum()
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The state, for a change; refused once frozen.
    fn change(&self) -> Result<RwLockWriteGuard<'_, State>> {
        let mut state = self.write();
        if state.frozen {
            return Err(Error::failed("overlay.frozen", "the overlay is frozen and cannot be written any more"));
        }
        state.version += 1;
        Ok(state)
    }

    /// The bytes of block `number` that lie inside the disk; the last block may be short.
    fn bytes_of(&self, number: u64) -> Range<u64> {
        number * BLOCK..(number * BLOCK + BLOCK).min(self.len)
    }

    /// The longest run from the start of `range`, which is not empty, that has one home.
    fn next_run(&self, state: &State, range: Range<u64>) -> (Range<u64>, Home) {
        let first = range.start / BLOCK;
        let until = range.end.div_ceil(BLOCK);
        let (end, home) = if let Some(zeros) = state.zeros.containing(first) {
            (zeros.end, Home::Zeros)
        } else if state.blocks.contains_key(&first) {
            let mut end = first + 1;
            for number in state.blocks.range(end..until).map(|(number, _)| *number) {
                if number != end {
                    break;
                }
                end += 1;
            }
            (end, Home::Blocks)
        } else {
            let block = state.blocks.range(first..until).next().map_or(until, |(number, _)| *number);
            (block.min(state.zeros.next_start(first).unwrap_or(until)), Home::Base)
        };
        (range.start..(end * BLOCK).min(range.end), home)
    }

    /// Copies from changed blocks; all blocks of the range are there.
    fn read_blocks(state: &State, mut buf: &mut [u8], offset: u64) -> Result<()> {
        let mut within = block_offset(offset);
        for slot in state.blocks.range(offset / BLOCK..).map(|(_, slot)| slot) {
            let len = buf.len().min(BLOCK_LEN - within);
            let (part, rest) = buf.split_at_mut(len);
            match slot {
                Slot::Memory(block) => part.copy_from_slice(&block[within..within + len]),
                Slot::Spilled(place) => state.spill()?.read_at(part, place * BLOCK + within as u64)?,
            }
            if rest.is_empty() {
                return Ok(());
            }
            buf = rest;
            within = 0;
        }
        Ok(())
    }

    /// What the base has beside `range` in blocks that have not changed, so that it need not be read under the lock.
    fn edges(&self, range: &Range<u64>) -> Result<Edges> {
        let unchanged: Vec<_> = {
            let state = self.read();
            let is_base = |part: &Range<u64>| self.next_run(&state, part.clone()).1 == Home::Base;
            beside(range, BLOCK, self.len).filter(is_base).collect()
        };
        Edges::read(&*self.base, unchanged.into_iter())
    }

    /// Makes `data` part of block `number`, `within` bytes from its start.
    fn write_block(&self, state: &mut State, number: u64, within: usize, data: &[u8], edges: &Edges) -> Result<()> {
        if let Some(Slot::Memory(block)) = state.blocks.get_mut(&number) {
            block[within..within + data.len()].copy_from_slice(data);
            return Ok(());
        }
        if let Some(Slot::Spilled(place)) = state.blocks.get(&number) {
            return state.spill()?.write_at(data, place * BLOCK + within as u64);
        }
        let mut block = [0; BLOCK_LEN];
        let range = self.bytes_of(number);
        if self.next_run(state, range.clone()).1 == Home::Base {
            let (before, after) = block[..within_block(range.end - range.start)].split_at_mut(within);
            let behind = range.start + (within + data.len()) as u64;
            if !before.is_empty() {
                edges.copy(&*self.base, before, range.start)?;
            }
            if behind < range.end {
                edges.copy(&*self.base, &mut after[data.len()..], behind)?;
            }
        }
        block[within..within + data.len()].copy_from_slice(data);
        let slot = self.store(state, &block)?;
        state.zeros.remove(number..number + 1);
        state.blocks.insert(number, slot);
        Ok(())
    }

    /// Finds a home for a new block: memory up to three quarters of the share, then the spill file. Entries may take all of
    /// the share, for which blocks in memory move to the spill file, so that a spilling overlay is bounded too.
    fn store(&self, state: &mut State, block: &[u8; BLOCK_LEN]) -> Result<Slot> {
        let entries = (state.blocks.len() as u64 + state.zeros.len() as u64 + 1) * OVERLAY_ENTRY;
        if entries + (state.in_memory + 1) * BLOCK <= self.share / 4 * 3 {
            state.in_memory += 1;
            return Ok(Slot::Memory(Box::new(*block)));
        }
        let Some(dir) = &self.spill_dir else {
            return Err(self.full("without an output directory there is no place to spill to"));
        };
        while entries + state.in_memory * BLOCK > self.share {
            if !state.spill_one(dir)? {
                return Err(self.full("the list of changed blocks alone fills it"));
            }
        }
        Ok(Slot::Spilled(state.spill_in(dir)?.push(block)?))
    }

    fn full(&self, why: &str) -> Error {
        Error::limit("overlay.full", format!("the changes do not fit into the overlay's share of memory: {why}"))
            .expected(format!("at most {} bytes", self.share))
            .hint("give a larger --memory")
    }
}

impl State {
    /// The spill file, which exists when a block says that it is there.
    fn spill(&self) -> Result<&Spill> {
        self.spill.as_ref().ok_or_else(|| Error::failed("overlay.spill", "a spilled block has no file"))
    }

    /// The spill file, made when it is needed first.
    fn spill_in(&mut self, dir: &Path) -> Result<&mut Spill> {
        Ok(match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::create(dir)?),
        })
    }

    /// Moves a block from memory to the spill file, to make room for entries; false when none is in memory. It goes on from the
    /// last one, so that blocks which have moved are not looked at each time.
    fn spill_one(&mut self, dir: &Path) -> Result<bool> {
        let after = self.blocks.range(self.spilled_to..);
        let mut candidates = after.chain(self.blocks.range(..self.spilled_to));
        let found = candidates.find_map(|(number, slot)| match slot {
            Slot::Memory(block) => Some((*number, block.clone())),
            Slot::Spilled(_) => None,
        });
        let Some((number, block)) = found else { return Ok(false) };
        let place = self.spill_in(dir)?.push(&block)?;
        self.blocks.insert(number, Slot::Spilled(place));
        self.in_memory -= 1;
        self.spilled_to = number + 1;
        Ok(true)
    }

    /// A digest of what was changed and into what.
    fn digest(&self) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let mut spilled = [0; BLOCK_LEN];
        for (number, slot) in &self.blocks {
            let block = match slot {
                Slot::Memory(block) => &**block,
                Slot::Spilled(place) => {
                    self.spill()?.read_at(&mut spilled, place * BLOCK)?;
                    &spilled
                }
            };
            hasher.update(&number.to_le_bytes()).update(block);
        }
        for zeros in self.zeros.iter() {
            hasher.update(b"zeros").update(&zeros.start.to_le_bytes()).update(&zeros.end.to_le_bytes());
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Forgets the changed blocks in `blocks`.
    fn discard(&mut self, blocks: Range<u64>) {
        for (_, slot) in self.blocks.extract_if(blocks, |_, _| true) {
            match (slot, &mut self.spill) {
                (Slot::Spilled(place), Some(spill)) => spill.free(place),
                (Slot::Memory(_), _) => self.in_memory -= 1,
                (Slot::Spilled(_), None) => {}
            }
        }
    }
}

/// Where `offset` lies in its block.
fn block_offset(offset: u64) -> usize {
    within_block(offset % BLOCK)
}

/// A length of at most a block.
fn within_block(len: u64) -> usize {
    usize::try_from(len).unwrap_or(BLOCK_LEN).min(BLOCK_LEN)
}

impl Disk for Overlay {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.base.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        let (mut rest, mut at) = (buf, offset);
        while at < end {
            let state = self.read();
            let (run, home) = self.next_run(&state, at..end);
            let len = usize::try_from(run.end - run.start).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = rest.split_at_mut(len);
            match home {
                Home::Base => {
                    // Nobody who writes waits for the base.
                    drop(state);
                    self.base.read_at(part, at)?;
                }
                Home::Blocks => Self::read_blocks(&state, part, at)?,
                Home::Zeros => part.fill(0),
            }
            (rest, at) = (after, run.end);
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            // The lock is not held while `visit` runs: it may well read this disk.
            let (run, home) = self.next_run(&self.read(), at..range.end);
            at = run.end;
            let mut flow = ControlFlow::Continue(());
            match home {
                Home::Base => self.base.extents(run, &mut |extent| {
                    flow = visit(Extent { depth: extent.depth.saturating_add(1), ..extent });
                    flow
                })?,
                Home::Blocks => flow = visit(Extent { range: run, kind: ExtentKind::Data, depth: 0, place: None }),
                Home::Zeros => flow = visit(Extent { range: run, kind: ExtentKind::Zero, depth: 0, place: None }),
            }
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let (run, home) = self.next_run(&self.read(), range);
        match home {
            Home::Base => self.base.host(run),
            Home::Blocks | Home::Zeros => Ok(None),
        }
    }

    fn prefetch(&self, range: Range<u64>) {
        self.base.prefetch(range);
    }

    fn hints(&self) -> Hints {
        self.base.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let base = self.base.fingerprint()?;
        let state = self.read();
        if !state.frozen {
            return Ok(Fingerprint::of(&[b"overlay", &base.0, &state.version.to_le_bytes()]));
        }
        // What was written does not change any more; a later run that fixes the same way has the same changes.
        let changes = match self.digest.get() {
            Some(digest) => *digest,
            None => {
                let digest = state.digest()?;
                *self.digest.get_or_init(|| digest)
            }
        };
        Ok(Fingerprint::of(&[b"frozen overlay", &base.0, &changes]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("overlay", format!("{} bytes changed", self.changed_bytes()))
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.base)]
    }
}

impl DiskMut for Overlay {
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let edges = self.edges(&(offset..offset + data.len() as u64))?;
        let mut state = self.change()?;
        let (mut rest, mut at) = (data, offset);
        while !rest.is_empty() {
            let within = block_offset(at);
            let (part, after) = rest.split_at(rest.len().min(BLOCK_LEN - within));
            self.write_block(&mut state, at / BLOCK, within, part, &edges)?;
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let edges = self.edges(&range)?;
        let mut state = self.change()?;
        let zeros = [0; BLOCK_LEN];
        // The last block of the disk counts as whole when the range reaches the end of the disk.
        let whole = range.start.div_ceil(BLOCK)..if range.end == self.len {
            range.end.div_ceil(BLOCK)
        } else {
            range.end / BLOCK
        };
        let inside = if whole.start < whole.end {
            whole.start * BLOCK..(whole.end * BLOCK).min(range.end)
        } else {
            // The range lies within one block or across one boundary: no block is whole.
            range.end..range.end
        };
        for edge in [range.start..inside.start, inside.end..range.end] {
            let mut at = edge.start;
            while at < edge.end {
                let within = block_offset(at);
                let len = within_block(edge.end - at).min(BLOCK_LEN - within);
                self.write_block(&mut state, at / BLOCK, within, &zeros[..len], &edges)?;
                at += len as u64;
            }
        }
        if whole.start < whole.end {
            state.discard(whole.clone());
            state.zeros.insert(whole);
            let entries = (state.blocks.len() as u64 + state.zeros.len() as u64) * OVERLAY_ENTRY;
            if entries > self.share {
                return Err(self.full("the list of zeroed ranges alone fills it"));
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
