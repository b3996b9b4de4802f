//! Writing a file's content and its map: old blocks are reused, new ones taken, and the map is built anew from its runs.

use std::ops::Range;

use super::checksum::crc32c;
use super::features::{INCOMPAT_EXTENTS, RO_COMPAT_LARGE_FILE};
use super::map::{DIRECT, END, EXTENT_ENTRY, EXTENT_HEADER, EXTENT_MAGIC, INIT_MAX, Run, extent_tail, span};
use super::node::{FLAG_EXTENTS, FLAG_INLINE, MAP_LEN, Node};
use super::view::View;
use super::{corrupt, unsupported};
use crate::disk::bytes::{long, put16, put32, size};
use crate::error::{Error, Result};
use crate::fs::FileKind;

/// Files above this need the feature large_file.
const LARGE: u64 = 0x7fff_ffff;

impl View<'_> {
    /// Writes `content` at `offset` of `node` and lets the file end there. Blocks behind the end are freed if `truncate`.
    /// `node` is changed but not stored.
    pub(super) fn write_content(&mut self, node: &mut Node, offset: u64, content: &[u8], truncate: bool) -> Result<()> {
        let end = offset.checked_add(long(content.len())).ok_or_else(|| corrupt("a file would be too large"))?;
        let bs = self.sb.block_size;
        let (runs, tables) = self.pieces(node, 0..END)?;
        let written = offset / bs..end.div_ceil(bs.get());
        if written.end > self.end_of_map(node) {
            return Err(unsupported(format!("inode {} cannot grow to {end} bytes", node.number)));
        }
        let mut next = Vec::with_capacity(runs.len());
        let mut fresh = Vec::new();
        let mut freed = Vec::new();
        for run in &runs {
            next.extend(run.clip(&(0..written.start)));
            if let Some(part) = run.clip(&written) {
                fresh.extend(part.unwritten.then_some(part));
                next.push(Run { unwritten: false, ..part });
            }
            let behind = run.clip(&(written.end..u64::MAX));
            if truncate { freed.extend(behind) } else { next.extend(behind) }
        }
        let taken = self.fill_holes(node, &runs, &written)?;
        fresh.extend(&taken);
        next.extend(&taken);
        next.sort_by_key(|run| run.logical);
        for run in &freed {
            self.free(run.physical, run.len)?;
        }
        let count = |runs: &[Run]| runs.iter().map(|run| run.len).fold(0, u64::saturating_add);
        node.count_blocks(&self.sb.clone(), count(&taken), count(&freed));
        let next = joined(next);
        if next != joined(runs) {
            self.put_map(node, &next, &tables)?;
        }
        fresh.sort_by_key(|run| run.logical);
        self.store_content(&next, &fresh, offset, content)?;
        node.set_size(end);
        if end > LARGE && self.sb.ro_compat() & RO_COMPAT_LARGE_FILE == 0 {
            self.edit_sb().add_ro_compat(RO_COMPAT_LARGE_FILE);
        }
        Ok(())
    }

    /// One past the last block that the kind of map of `node` can reach.
    fn end_of_map(&self, node: &Node) -> u64 {
        if node.has(FLAG_EXTENTS) {
            return END.saturating_sub(1);
        }
        (1..=3).map(|level| span(self.sb.block_size.get(), level)).fold(DIRECT, u64::saturating_add).min(END)
    }

    /// Takes blocks for what `runs` leaves out of `range`.
    fn fill_holes(&mut self, node: &Node, runs: &[Run], range: &Range<u64>) -> Result<Vec<Run>> {
        let mut holes = Vec::new();
        let mut next = range.start;
        for run in runs.iter().filter_map(|run| run.clip(range)) {
            if next < run.logical {
                holes.push(next..run.logical);
            }
            next = run.end();
        }
        if next < range.end {
            holes.push(next..range.end);
        }
        let limit = if node.has(FLAG_EXTENTS) { self.sb.blocks_count } else { self.sb.blocks_count.min(END) };
        let mut taken = Vec::new();
        for hole in holes {
            let before = runs.iter().chain(&taken).rfind(|run| run.logical < hole.start);
            let goal = match before {
                Some(run) => run.physical.saturating_add(hole.start.saturating_sub(run.logical)),
                None => self.sb.group_start(self.group_of_node(node.number)),
            };
            let mut logical = hole.start;
            for run in self.allocate(goal, hole.end.saturating_sub(hole.start), limit)? {
                let len = run.end.saturating_sub(run.start);
                taken.push(Run { logical, physical: run.start, len, unwritten: false });
                logical = logical.saturating_add(len);
            }
        }
        Ok(taken)
    }

    /// Stores `content` at `offset`, zeros in front of it in a `fresh` first block, and zeros behind it up to the block's end.
    fn store_content(&self, runs: &[Run], fresh: &[Run], offset: u64, content: &[u8]) -> Result<()> {
        let bs = self.sb.block_size;
        let end = offset.saturating_add(long(content.len()));
        let written = offset / bs..end.div_ceil(bs.get());
        for run in runs.iter().filter_map(|run| run.clip(&written)) {
            let start = run.logical.saturating_mul(bs.get());
            let stop = run.end().saturating_mul(bs.get());
            let (from, to) = (start.max(offset), stop.min(end));
            let part = size(from.saturating_sub(offset))..size(to.saturating_sub(offset));
            self.blocks.write(content.get(part).unwrap_or_default(), run.physical, from.saturating_sub(start))?;
            let is_fresh =
                fresh.iter().any(|fresh| fresh.clip(&(run.logical..run.logical.saturating_add(1))).is_some());
            if start < from && is_fresh {
                self.blocks.zero(run.physical, 0, from.saturating_sub(start))?;
            }
            if to < stop {
                self.blocks.zero(run.physical, to.saturating_sub(start), stop.saturating_sub(to))?;
            }
        }
        Ok(())
    }

    /// Cuts the blocks of `node` behind its size, as a truncation that a crash interrupted would have done.
    pub(super) fn cut_to_size(&mut self, node: &mut Node) -> Result<()> {
        if node.has(FLAG_INLINE) {
            return Ok(());
        }
        let end = node.size(&self.sb).div_ceil(self.sb.block_size.get());
        let (runs, tables) = self.pieces(node, 0..END)?;
        let freed: Vec<Run> = runs.iter().filter_map(|run| run.clip(&(end..u64::MAX))).collect();
        if freed.is_empty() {
            return Ok(());
        }
        for run in &freed {
            self.free(run.physical, run.len)?;
        }
        let count = freed.iter().map(|run| run.len).fold(0, u64::saturating_add);
        node.count_blocks(&self.sb.clone(), 0, count);
        let kept: Vec<Run> = runs.iter().filter_map(|run| run.clip(&(0..end))).collect();
        self.put_map(node, &kept, &tables)
    }

    /// Frees everything that `node` holds: content, map and attribute block.
    pub(super) fn release_content(&mut self, node: &mut Node) -> Result<()> {
        self.release_xattr_block(node)?;
        // The map of a device holds its number, that of a short link its target.
        let mapped = matches!(node.kind(), Some(FileKind::Regular | FileKind::Directory))
            || (node.kind() == Some(FileKind::Symlink) && !self.is_short_link(node));
        if !mapped || node.has(FLAG_INLINE) {
            return Ok(());
        }
        let (runs, tables) = self.pieces(node, 0..END)?;
        let count = runs.iter().map(|run| run.len).fold(0, u64::saturating_add);
        for run in &runs {
            self.free(run.physical, run.len)?;
        }
        node.count_blocks(&self.sb.clone(), 0, count);
        self.put_map(node, &[], &tables)
    }

    /// An empty map of the kind that new files get.
    pub(super) fn init_map(&self, node: &mut Node) {
        node.set_map(&[0; MAP_LEN]);
        let extents = self.sb.incompat() & INCOMPAT_EXTENTS != 0;
        node.set_flag(FLAG_EXTENTS, extents);
        if extents {
            node.set_map(&extent_node(&[], 0, MAP_LEN));
        }
    }

    /// Makes `runs` the map of `node`, in place of a map whose blocks are `tables`.
    pub(super) fn put_map(&mut self, node: &mut Node, runs: &[Run], tables: &[u64]) -> Result<()> {
        for table in tables {
            self.free(*table, 1)?;
        }
        node.count_blocks(&self.sb.clone(), 0, long(tables.len()));
        let goal = runs.first().map_or(0, |run| run.physical);
        let runs = joined(runs.to_vec());
        let used = if node.has(FLAG_EXTENTS) {
            self.put_extents(node, &runs, goal)?
        } else {
            self.put_pointers(node, &runs, goal)?
        };
        node.count_blocks(&self.sb.clone(), used, 0);
        Ok(())
    }

    /// Builds an extent tree from its leaves up; every node is full but the last of its level. The blocks it took.
    fn put_extents(&mut self, node: &mut Node, runs: &[Run], goal: u64) -> Result<u64> {
        let mut entries: Vec<(u64, [u8; EXTENT_ENTRY])> = runs.iter().flat_map(extents_of).collect();
        let capacity = self.sb.block_len().saturating_sub(EXTENT_HEADER) / EXTENT_ENTRY;
        let root = MAP_LEN.saturating_sub(EXTENT_HEADER) / EXTENT_ENTRY;
        let (mut depth, mut used) = (0_u16, 0_u64);
        while entries.len() > root {
            let mut above = Vec::new();
            for chunk in entries.chunks(capacity) {
                let block = self.allocate_one(goal)?;
                let mut bytes = extent_node(chunk, depth, self.sb.block_len());
                if self.sb.has_csum() {
                    let at = extent_tail(capacity);
                    let sum = crc32c(node.seed(&self.sb), bytes.get(..at).unwrap_or_default());
                    put32(&mut bytes, at, sum);
                }
                self.put(block, bytes);
                let first = chunk.first().map_or(0, |(key, _)| *key);
                above.push((first, index_entry(first, block)));
                used = used.saturating_add(1);
            }
            entries = above;
            depth = depth.saturating_add(1);
        }
        node.set_map(&extent_node(&entries, depth, MAP_LEN));
        Ok(used)
    }

    /// Builds indirect blocks. The blocks it took.
    fn put_pointers(&mut self, node: &mut Node, runs: &[Run], goal: u64) -> Result<u64> {
        if runs.iter().any(|run| run.unwritten || run.physical.saturating_add(run.len) > END) {
            return Err(corrupt(format!("inode {} cannot have such blocks", node.number)));
        }
        let mut map = vec![0; MAP_LEN];
        for run in runs.iter().filter_map(|run| run.clip(&(0..DIRECT))) {
            put_run(&mut map, 0, &run);
        }
        let (mut base, mut used) = (DIRECT, 0);
        for level in 1..=3_u32 {
            let end = base.saturating_add(span(self.sb.block_size.get(), level));
            let at = size(u64::from(level)).saturating_mul(4).saturating_add(44);
            let pointer = self.put_table(runs, base..end, level, goal, &mut used)?;
            put32(&mut map, at, pointer);
            base = end;
        }
        node.set_map(&map);
        Ok(used)
    }

    /// Stores the table of `level` that maps `range`, and those below it; its block, 0 if nothing is mapped.
    fn put_table(&mut self, runs: &[Run], range: Range<u64>, level: u32, goal: u64, used: &mut u64) -> Result<u32> {
        let first = runs.partition_point(|run| run.end() <= range.start);
        let inside = runs.iter().skip(first).take_while(|run| run.logical < range.end);
        let inside: Vec<Run> = inside.filter_map(|run| run.clip(&range)).collect();
        if inside.is_empty() {
            return Ok(0);
        }
        let limit = self.sb.blocks_count.min(END);
        let block = self.allocate(goal, 1, limit)?.first().map_or(0, |run| run.start);
        *used = used.saturating_add(1);
        let mut bytes = vec![0; self.sb.block_len()];
        if level == 1 {
            inside.iter().for_each(|run| put_run(&mut bytes, range.start, run));
        } else {
            let below = level.saturating_sub(1);
            let span = span(self.sb.block_size.get(), below);
            for index in 0..self.sb.block_size.get() >> 2 {
                let start = range.start.saturating_add(index.saturating_mul(span));
                let pointer = self.put_table(&inside, start..start.saturating_add(span), below, goal, used)?;
                put32(&mut bytes, size(index).saturating_mul(4), pointer);
            }
        }
        self.put(block, bytes);
        u32::try_from(block).map_err(|_| Error::unsupported("ext.limit", "a block number is too large"))
    }
}

/// Writes the pointers of `run` into a table whose first pointer maps `base`.
fn put_run(table: &mut [u8], base: u64, run: &Run) {
    for index in 0..run.len {
        let at = size(run.logical.saturating_add(index).saturating_sub(base)).saturating_mul(4);
        put32(table, at, u32::try_from(run.physical.saturating_add(index)).unwrap_or(0));
    }
}

/// Joins runs that go on in the file and on the volume.
fn joined(runs: Vec<Run>) -> Vec<Run> {
    let mut out: Vec<Run> = Vec::with_capacity(runs.len());
    for run in runs {
        match out.last_mut() {
            Some(last) if last.joins(&run) => last.len = last.len.saturating_add(run.len),
            _ => out.push(run),
        }
    }
    out
}

/// The extents of a run, each of a length that an extent can have.
fn extents_of(run: &Run) -> Vec<(u64, [u8; EXTENT_ENTRY])> {
    let most = u64::from(if run.unwritten { INIT_MAX.saturating_sub(1) } else { INIT_MAX });
    let mut extents = Vec::new();
    let mut next = run.logical;
    while let Some(part) = run.clip(&(next..next.saturating_add(most))) {
        let len = u16::try_from(part.len).unwrap_or(INIT_MAX);
        let mut entry = [0; EXTENT_ENTRY];
        put32(&mut entry, 0, u32::try_from(part.logical).unwrap_or(u32::MAX));
        put16(&mut entry, 4, if run.unwritten { len | INIT_MAX } else { len });
        put_block(&mut entry, 8, 6, part.physical);
        extents.push((part.logical, entry));
        next = part.end();
    }
    extents
}

fn index_entry(key: u64, block: u64) -> [u8; EXTENT_ENTRY] {
    let mut entry = [0; EXTENT_ENTRY];
    put32(&mut entry, 0, u32::try_from(key).unwrap_or(u32::MAX));
    put_block(&mut entry, 4, 8, block);
    entry
}

/// Stores the lower 32 bits of a block number at `low` and the upper 16 at `high`.
fn put_block(entry: &mut [u8], low: usize, high: usize, block: u64) {
    let [a, b, c, d, e, f, ..] = block.to_le_bytes();
    put32(entry, low, u32::from_le_bytes([a, b, c, d]));
    put16(entry, high, u16::from_le_bytes([e, f]));
}

/// A node of an extent tree in `len` bytes.
fn extent_node(entries: &[(u64, [u8; EXTENT_ENTRY])], depth: u16, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let capacity = len.saturating_sub(EXTENT_HEADER) / EXTENT_ENTRY;
    put16(&mut bytes, 0, EXTENT_MAGIC);
    put16(&mut bytes, 2, u16::try_from(entries.len()).unwrap_or(u16::MAX));
    put16(&mut bytes, 4, u16::try_from(capacity).unwrap_or(u16::MAX));
    put16(&mut bytes, 6, depth);
    for (to, (_, entry)) in
        bytes.get_mut(EXTENT_HEADER..).unwrap_or_default().chunks_exact_mut(EXTENT_ENTRY).zip(entries)
    {
        to.copy_from_slice(entry);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_become_several_extents() {
        let run = Run { logical: 5, physical: 1000, len: 70_000, unwritten: false };
        let keys: Vec<u64> = extents_of(&run).iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [5, 32773, 65541]);
        let unwritten = Run { unwritten: true, ..run };
        let keys: Vec<u64> = extents_of(&unwritten).iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, [5, 32772, 65539]);
    }
}
