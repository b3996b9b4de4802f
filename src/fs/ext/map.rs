//! Where a file's blocks are: extent trees, and the indirect blocks of ext2 and ext3.

use std::ops::{ControlFlow, Range};

use super::checksum::crc32c;
use super::corrupt;
use super::node::{FLAG_EXTENTS, FLAG_INLINE, Node};
use super::view::{Block, View};
use crate::disk::bytes::{le16, le32, long, size};
use crate::error::{Error, Result};
use crate::limits;

pub(super) const EXTENT_MAGIC: u16 = 0xf30a;
pub(super) const EXTENT_HEADER: usize = 12;
pub(super) const EXTENT_ENTRY: usize = 12;
/// Lengths above this mean an unwritten extent.
pub(super) const INIT_MAX: u16 = 0x8000;
/// A tree is never deeper.
const MAX_DEPTH: u16 = 5;
/// Parts of a file that are told at once.
const PARTS: usize = 1024;
/// One past the highest logical block.
pub(super) const END: u64 = 1 << 32;
/// Direct pointers in `i_block`.
pub(super) const DIRECT: u64 = 12;

/// Neighbouring blocks of a file that are neighbours on the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first block in the file.
    pub(super) logical: u64,
    /// The first block on the volume.
    pub(super) physical: u64,
    /// Blocks; at least 1.
    pub(super) len: u64,
    /// Allocated, but reads as zeros.
    pub(super) unwritten: bool,
}

impl Run {
    /// One past the last block in the file.
    pub(super) fn end(&self) -> u64 {
        self.logical.saturating_add(self.len)
    }

    /// The part of it in `range`, if there is one.
    pub(super) fn clip(&self, range: &Range<u64>) -> Option<Self> {
        let start = self.logical.max(range.start);
        let end = self.end().min(range.end);
        (start < end).then(|| Self {
            logical: start,
            physical: self.physical.saturating_add(start.saturating_sub(self.logical)),
            len: end.saturating_sub(start),
            unwritten: self.unwritten,
        })
    }

    /// Whether `next` goes on where this ends, in the file and on the volume.
    pub(super) fn joins(&self, next: &Self) -> bool {
        self.end() == next.logical
            && self.physical.saturating_add(self.len) == next.physical
            && self.unwritten == next.unwritten
    }
}

/// What a walk of a map finds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece {
    /// Blocks of content.
    Content(Run),
    /// A block of the map itself.
    Table(u64),
}

type Visitor<'a> = dyn FnMut(Piece) -> Result<ControlFlow<()>> + 'a;

impl View<'_> {
    /// Visits what `range` of the blocks of `node` maps to, in the order of the file; holes are left out. Tables are visited
    /// before what they lead to.
    pub(super) fn walk(&self, node: &Node, range: Range<u64>, visit: &mut Visitor<'_>) -> Result<()> {
        if node.has(FLAG_INLINE) || range.is_empty() {
            return Ok(());
        }
        if node.has(FLAG_EXTENTS) {
            let depth = le16(node.map(), 6);
            if depth > MAX_DEPTH {
                return Err(corrupt(format!("the extent tree of inode {} is too deep", node.number)).found(depth));
            }
            let tree = Extents { view: self, node, range };
            return tree.walk(node.map(), depth, 0..END, visit).map(drop);
        }
        let mut joined = Joined { pending: None, visit };
        let tree = Pointers { view: self, number: node.number, range };
        if tree.walk_root(node.map(), &mut joined)?.is_continue() {
            let _ = joined.flush()?;
        }
        Ok(())
    }

    /// The next parts of the bytes `range` that are no holes, some of them; `None` when there are no more.
    pub(super) fn data(&self, node: &Node, range: Range<u64>) -> Result<Option<Vec<Range<u64>>>> {
        if range.is_empty() {
            return Ok(None);
        }
        if node.has(FLAG_INLINE) {
            return Ok(Some(vec![range]));
        }
        let bs = self.sb.block_size;
        let mut parts = Vec::new();
        self.walk(node, range.start / bs..range.end.div_ceil(bs.get()), &mut |piece| {
            if let Piece::Content(run) = piece
                && !run.unwritten
            {
                parts.push(run.logical.saturating_mul(bs.get())..run.end().saturating_mul(bs.get()));
            }
            Ok(if parts.len() < PARTS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(Some(parts).filter(|parts| !parts.is_empty()))
    }

    /// The runs in `range`, for callers that need them all at once; bounded.
    pub(super) fn runs(&self, node: &Node, range: Range<u64>) -> Result<Vec<Run>> {
        self.pieces(node, range).map(|(runs, _)| runs)
    }

    /// The runs in `range` and the blocks of the map on the way; bounded.
    pub(super) fn pieces(&self, node: &Node, range: Range<u64>) -> Result<(Vec<Run>, Vec<u64>)> {
        let (mut runs, mut tables) = (Vec::new(), Vec::new());
        self.walk(node, range, &mut |piece| {
            match piece {
                Piece::Content(run) => runs.push(run),
                Piece::Table(block) => tables.push(block),
            }
            if runs.len().saturating_add(tables.len()) > limits::MAX_EXT_RUNS {
                return Err(Error::limit("ext.limit", format!("inode {} is in too many pieces", node.number))
                    .expected(format!("at most {}", limits::MAX_EXT_RUNS)));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((runs, tables))
    }
}

/// A walk of an extent tree.
struct Extents<'a> {
    view: &'a View<'a>,
    node: &'a Node,
    range: Range<u64>,
}

impl Extents<'_> {
    /// Visits a node of the tree. All its keys must lie in `keys` and ascend, so that no block can be visited twice.
    fn walk(&self, bytes: &[u8], depth: u16, keys: Range<u64>, visit: &mut Visitor<'_>) -> Result<ControlFlow<()>> {
        let count = usize::from(le16(bytes, 2));
        let capacity = bytes.len().saturating_sub(EXTENT_HEADER) / EXTENT_ENTRY;
        let is_root = bytes.len() == super::node::MAP_LEN;
        if le16(bytes, 0) != EXTENT_MAGIC
            || le16(bytes, 6) != depth
            || count > capacity
            || count > usize::from(le16(bytes, 4))
            || (count == 0 && (depth > 0 || !is_root))
        {
            return Err(self.damaged("a node has an impossible header"));
        }
        let entries = bytes.get(EXTENT_HEADER..).unwrap_or_default().as_chunks::<EXTENT_ENTRY>().0;
        let entries = entries.get(..count).unwrap_or_default();
        let mut next = keys.start;
        for (index, entry) in entries.iter().enumerate() {
            let key = u64::from(le32(entry, 0));
            if key < next || key >= keys.end {
                return Err(self.damaged("keys are out of order"));
            }
            if depth == 0 {
                let run = self.run(entry, key)?;
                next = run.end();
                if next > keys.end {
                    return Err(self.damaged("extents overlap"));
                }
                match run.clip(&self.range) {
                    Some(part) if visit(Piece::Content(part))?.is_break() => return Ok(ControlFlow::Break(())),
                    _ => {}
                }
            } else {
                let end = entries.get(index.saturating_add(1)).map_or(keys.end, |entry| u64::from(le32(entry, 0)));
                next = key.saturating_add(1);
                if end <= key || end > keys.end {
                    return Err(self.damaged("keys are out of order"));
                }
                if key < self.range.end && end > self.range.start {
                    let block = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
                    if visit(Piece::Table(block))?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    let child = self.child(block)?;
                    if self.walk(&child, depth.saturating_sub(1), key..end, visit)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
            }
            if next >= self.range.end {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn run(&self, entry: &[u8], key: u64) -> Result<Run> {
        let len = le16(entry, 4);
        let unwritten = len > INIT_MAX;
        let len = u64::from(if unwritten { len.saturating_sub(INIT_MAX) } else { len });
        let physical = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
        if len == 0 || !self.view.sb.contains(physical, len) {
            return Err(self.damaged("an extent lies outside of the file system").found(physical));
        }
        Ok(Run { logical: key, physical, len, unwritten })
    }

    /// The node in `block`, its checksum verified.
    fn child(&self, block: u64) -> Result<Block> {
        if !self.view.sb.contains(block, 1) {
            return Err(self.damaged("a node lies outside of the file system").found(block));
        }
        let bytes = self.view.block(block)?;
        if self.view.sb.has_csum() {
            let at = extent_tail(usize::from(le16(&bytes, 4)));
            let sum = crc32c(self.node.seed(&self.view.sb), bytes.get(..at).unwrap_or_default());
            if at.saturating_add(4) > bytes.len() || le32(&bytes, at) != sum {
                return Err(self.view.bad_checksum(block, &format!("an extent node of inode {}", self.node.number)));
            }
        }
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> Error {
        corrupt(format!("the extent tree of inode {} is damaged: {what}", self.node.number))
    }
}

/// Where the checksum of an extent node with room for `max` entries is.
pub(super) fn extent_tail(max: usize) -> usize {
    max.saturating_mul(EXTENT_ENTRY).saturating_add(EXTENT_HEADER)
}

/// A walk of indirect blocks.
struct Pointers<'a> {
    view: &'a View<'a>,
    number: u32,
    range: Range<u64>,
}

impl Pointers<'_> {
    fn walk_root(&self, map: &[u8], out: &mut Joined<'_, '_>) -> Result<ControlFlow<()>> {
        let direct = map.get(..48).unwrap_or_default();
        if self.walk(direct, 0, 0, out)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let mut base = DIRECT;
        for level in 1..=3_u32 {
            let at = size(u64::from(level)).saturating_mul(4).saturating_add(44);
            let pointer = map.get(at..at.saturating_add(4)).unwrap_or_default();
            if self.walk(pointer, level, base, out)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            base = base.saturating_add(span(self.view.sb.block_size.get(), level));
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Visits `pointers`, each of which leads to blocks through `level` more levels; the first one maps `base`.
    fn walk(&self, pointers: &[u8], level: u32, base: u64, out: &mut Joined<'_, '_>) -> Result<ControlFlow<()>> {
        let span = span(self.view.sb.block_size.get(), level);
        let skip = self.range.start.saturating_sub(base).checked_div(span).unwrap_or(0);
        for (index, pointer) in (0_u64..).zip(pointers.as_chunks::<4>().0).skip(size(skip)) {
            let start = base.saturating_add(index.saturating_mul(span));
            if start >= self.range.end {
                return Ok(ControlFlow::Break(())).and_then(|end| out.flush().map(|_| end));
            }
            let block = u64::from(u32::from_le_bytes(*pointer));
            if block == 0 {
                continue;
            }
            if !self.view.sb.contains(block, 1) {
                return Err(
                    corrupt(format!("a block of inode {} lies outside of the file system", self.number)).found(block)
                );
            }
            let flow = if level == 0 {
                out.push(Run { logical: start, physical: block, len: 1, unwritten: false })?
            } else {
                match out.table(block)? {
                    ControlFlow::Continue(()) => {
                        let child = self.view.block(block)?;
                        self.walk(&child, level.saturating_sub(1), start, out)?
                    }
                    stop => stop,
                }
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Blocks of content that one pointer maps through `level` levels.
pub(super) fn span(block_size: u64, level: u32) -> u64 {
    (block_size >> 2).saturating_pow(level)
}

/// Joins single blocks to runs.
struct Joined<'a, 'b> {
    pending: Option<Run>,
    visit: &'a mut Visitor<'b>,
}

impl Joined<'_, '_> {
    fn push(&mut self, run: Run) -> Result<ControlFlow<()>> {
        match &mut self.pending {
            Some(pending) if pending.joins(&run) => {
                pending.len = pending.len.saturating_add(run.len);
                Ok(ControlFlow::Continue(()))
            }
            _ => {
                let flow = self.flush()?;
                self.pending = Some(run);
                Ok(flow)
            }
        }
    }

    fn table(&mut self, block: u64) -> Result<ControlFlow<()>> {
        match self.flush()? {
            ControlFlow::Continue(()) => (self.visit)(Piece::Table(block)),
            stop => Ok(stop),
        }
    }

    fn flush(&mut self) -> Result<ControlFlow<()>> {
        match self.pending.take() {
            Some(run) => (self.visit)(Piece::Content(run)),
            None => Ok(ControlFlow::Continue(())),
        }
    }
}

impl View<'_> {
    /// Reads content of `node` into `buf`; holes and unwritten blocks are zeros. The caller has made sure that the bytes lie
    /// within the file's size.
    pub(super) fn read_content(&self, node: &Node, buf: &mut [u8], offset: u64) -> Result<()> {
        buf.fill(0);
        let bs = self.sb.block_size;
        let end = offset.saturating_add(long(buf.len()));
        self.walk(node, offset / bs..end.div_ceil(bs.get()), &mut |piece| {
            if let Piece::Content(run) = piece
                && !run.unwritten
            {
                let start = run.logical.saturating_mul(bs.get());
                let from = start.max(offset);
                let to = run.end().saturating_mul(bs.get()).min(end);
                let at = size(from.saturating_sub(offset))..size(to.saturating_sub(offset));
                if let Some(part) = buf.get_mut(at) {
                    self.blocks.read(part, run.physical, from.saturating_sub(start))?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Where block `logical` of `node` is, if it is mapped and written.
    pub(super) fn physical(&self, node: &Node, logical: u64) -> Result<Option<u64>> {
        let runs = self.runs(node, logical..logical.saturating_add(1))?;
        Ok(runs.first().filter(|run| !run.unwritten).map(|run| run.physical))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_clipped_and_joined() {
        let run = Run { logical: 10, physical: 100, len: 10, unwritten: false };
        assert_eq!(run.clip(&(12..14)), Some(Run { logical: 12, physical: 102, len: 2, unwritten: false }));
        assert_eq!(run.clip(&(20..30)), None);
        assert!(run.joins(&Run { logical: 20, physical: 110, len: 1, unwritten: false }));
        assert!(!run.joins(&Run { logical: 20, physical: 110, len: 1, unwritten: true }));
    }

    #[test]
    fn spans_of_indirect_blocks() {
        assert_eq!([0, 1, 2, 3].map(|level| span(1024, level)), [1, 256, 65536, 16_777_216]);
    }
}
