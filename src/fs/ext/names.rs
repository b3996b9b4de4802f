//! Changing directories: names come and go, leaves split, the index grows.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::dir::{self, HEADER, entries, type_of};
use super::hash;
use super::htree::{ENTRY, Frame, Path, damaged};
use super::map::{END, Run};
use super::node::{FLAG_CASEFOLD, FLAG_ENCRYPT, FLAG_INDEX, FLAG_INLINE, Node};
use super::view::View;
use super::{corrupt, full, unsupported};
use crate::disk::bytes::{put, put16, put32, u8_at};
use crate::error::Result;
use crate::fs::FileKind;
use crate::limits;

/// A name to be added.
#[derive(Clone, Copy)]
pub(super) struct NewName<'a> {
    pub(super) name: &'a [u8],
    pub(super) inode: u32,
    pub(super) kind: FileKind,
}

impl NewName<'_> {
    fn len(&self) -> usize {
        entry_len(self.name.len())
    }
}

/// Bytes that an entry needs.
fn entry_len(name_len: usize) -> usize {
    name_len.saturating_add(HEADER).saturating_add(3) & !3
}

impl View<'_> {
    /// Adds a name that is not there yet. `dir` is changed but not stored.
    pub(super) fn add_name(&mut self, dir: &mut Node, new: NewName<'_>) -> Result<()> {
        if dir.has(FLAG_ENCRYPT | FLAG_CASEFOLD) {
            return Err(unsupported(format!("directory {} is encrypted or ignores case", dir.number)));
        }
        if dir.has(FLAG_INLINE) {
            self.unfold(dir)?;
        }
        if dir.has(FLAG_INDEX) { self.add_hashed(dir, new) } else { self.add_linear(dir, new) }
    }

    fn add_linear(&mut self, dir: &mut Node, new: NewName<'_>) -> Result<()> {
        let mut found = None;
        let (room, filetype) = (self.dir_room(), self.has_filetype());
        self.walk_dir(dir, 0..u64::MAX, &mut |_, physical, bytes| {
            let mut bytes = bytes.to_vec();
            if insert(&mut bytes, room, filetype, new)? {
                found = Some((physical, bytes));
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let (physical, mut bytes) = match found {
            Some(found) => found,
            None => {
                let (_, physical) = self.append_block(dir)?;
                let mut bytes = empty_leaf(self.sb.block_len(), room);
                self.seal_leaf(dir, &mut bytes);
                insert(&mut bytes, room, filetype, new)?;
                (physical, bytes)
            }
        };
        self.seal_leaf(dir, &mut bytes);
        self.put(physical, bytes);
        Ok(())
    }

    /// Takes the entry at `place` away.
    pub(super) fn remove_name(&mut self, dir: &mut Node, name: &[u8]) -> Result<u32> {
        if dir.has(FLAG_INLINE) {
            self.unfold(dir)?;
        }
        let place = self.find(dir, name)?.ok_or_else(|| corrupt("a name has vanished"))?;
        let mut bytes = self.block(place.block)?.to_vec();
        let mut previous = None;
        let mut removed = 0;
        let _ = entries(&bytes.clone(), self.has_filetype(), &mut |entry| {
            if entry.at < place.at {
                previous = Some((entry.at, entry.rec_len));
                return ControlFlow::Continue(());
            }
            removed = entry.rec_len;
            ControlFlow::Break(())
        })?;
        match previous {
            Some((at, len)) => put_rec_len(&mut bytes, at, len.saturating_add(removed)),
            None => put32(&mut bytes, place.at, 0),
        }
        self.seal_leaf(dir, &mut bytes);
        self.put(place.block, bytes);
        Ok(place.inode)
    }

    /// The first block of a new directory.
    pub(super) fn first_block(&self, dir: &Node, parent: u32) -> Vec<u8> {
        let mut bytes = empty_leaf(self.sb.block_len(), self.dir_room());
        let kind = if self.has_filetype() { type_of(FileKind::Directory) } else { 0 };
        let rest = self.dir_room().saturating_sub(12);
        for (at, len, inode, name) in [(0, 12, dir.number, &b"."[..]), (12, rest, parent, b"..")] {
            put32(&mut bytes, at, inode);
            put_rec_len(&mut bytes, at, len);
            put(&mut bytes, at.saturating_add(6), &[u8::try_from(name.len()).unwrap_or(0), kind]);
            put(&mut bytes, at.saturating_add(HEADER), name);
        }
        bytes
    }

    /// Takes a block for `dir`, behind its last one. Its number in the directory, and on the volume.
    pub(super) fn append_block(&mut self, dir: &mut Node) -> Result<(u64, u64)> {
        let bs = self.sb.block_size;
        let logical = self.dir_blocks(dir)?;
        let len = logical.saturating_add(1).saturating_mul(bs.get());
        if len > limits::MAX_EXT_DIR {
            return Err(full(format!("directory {} cannot grow", dir.number)));
        }
        let (mut runs, tables) = self.pieces(dir, 0..END)?;
        if runs.last().is_some_and(|run| run.end() > logical) {
            return Err(corrupt(format!("directory {} has blocks behind its end", dir.number)));
        }
        let goal = match runs.last() {
            Some(run) => run.physical.saturating_add(run.len),
            None => self.sb.group_start(self.group_of_node(dir.number)),
        };
        let limit = self.sb.blocks_count.min(END);
        let physical = self.allocate(goal, 1, limit)?.first().map_or(0, |run| run.start);
        runs.push(Run { logical, physical, len: 1, unwritten: false });
        dir.count_blocks(&self.sb.clone(), 1, 0);
        self.put_map(dir, &runs, &tables)?;
        dir.set_size(len);
        Ok((logical, physical))
    }

    /// Gives an inline directory a block.
    fn unfold(&mut self, dir: &mut Node) -> Result<()> {
        let (parent, areas) = (Self::inline_parent(dir), self.inline_areas(dir)?);
        let mut kept: Vec<(&[u8], u32, Option<FileKind>)> = Vec::new();
        for area in &areas {
            let _ = entries(area, self.has_filetype(), &mut |entry| {
                if entry.is_real() {
                    kept.push((entry.name, entry.inode, entry.kind));
                }
                ControlFlow::Continue(())
            })?;
        }
        self.drop_inline_rest(dir)?;
        dir.set_flag(FLAG_INLINE, false);
        self.init_map(dir);
        dir.set_size(0);
        let (_, physical) = self.append_block(dir)?;
        let mut bytes = self.first_block(dir, parent);
        self.seal_leaf(dir, &mut bytes);
        for (name, inode, kind) in kept {
            let new = NewName { name, inode, kind: kind.unwrap_or(FileKind::Regular) };
            if !insert(&mut bytes, self.dir_room(), self.has_filetype(), new)? {
                return Err(corrupt(format!("directory {} holds more than fits into it", dir.number)));
            }
        }
        self.seal_leaf(dir, &mut bytes);
        self.put(physical, bytes);
        Ok(())
    }

    fn add_hashed(&mut self, dir: &mut Node, new: NewName<'_>) -> Result<()> {
        let mut path = self.path_to(dir, new.name)?;
        if self.insert_in_leaf(dir, path.leaf(), new)? {
            return Ok(());
        }
        self.make_room(dir, &mut path)?;
        let leaf = self.split_leaf(dir, &mut path)?;
        if self.insert_in_leaf(dir, leaf, new)? {
            return Ok(());
        }
        Err(full(format!("a block of directory {} has no room for one more name", dir.number)))
    }

    fn insert_in_leaf(&mut self, dir: &Node, logical: u64, new: NewName<'_>) -> Result<bool> {
        let physical = self.physical(dir, logical)?.ok_or_else(|| damaged(dir, "a leaf is missing"))?;
        let mut bytes = self.dir_block(dir, logical, physical)?.to_vec();
        if !insert(&mut bytes, self.dir_room(), self.has_filetype(), new)? {
            return Ok(false);
        }
        self.seal_leaf(dir, &mut bytes);
        self.put(physical, bytes);
        Ok(true)
    }

    /// Makes sure that the lowest node of `path` has room for one more entry.
    fn make_room(&mut self, dir: &mut Node, path: &mut Path) -> Result<()> {
        let has_room = |frame: &Frame| frame.count() < frame.limit();
        let roomy = match path.frames.iter().rposition(has_room) {
            Some(level) => level,
            None if path.frames.len() <= self.index_levels() => {
                self.raise_root(dir, path)?;
                0
            }
            None => return Err(full(format!("the index of directory {} is full", dir.number))),
        };
        for level in roomy..path.frames.len().saturating_sub(1) {
            self.split_node(dir, path, level)?;
        }
        Ok(())
    }

    /// Puts a new level under the root: a node with all of the root's entries.
    fn raise_root(&mut self, dir: &mut Node, path: &mut Path) -> Result<()> {
        let (logical, physical) = self.append_block(dir)?;
        let Some(root) = path.frames.first_mut() else {
            return Err(damaged(dir, "it has no root"));
        };
        let list: Vec<(u32, u64)> = (0..root.count()).map(|index| (root.hash(index), root.child(index))).collect();
        let mut below = self.new_frame(logical, physical, empty_index(self.sb.block_len()), &list);
        below.at = root.at;
        let mut top = self.new_frame(0, root.physical, root.bytes.to_vec(), &[(0, logical)]);
        let levels = u8_at(&top.bytes, 0x1e).saturating_add(1);
        let bytes: &mut Vec<u8> = Arc::make_mut(&mut top.bytes);
        put(bytes, 0x1e, &[levels]);
        self.put_frame(dir, &mut top);
        if below.count() < below.limit() {
            self.put_frame(dir, &mut below);
        }
        path.frames.splice(0..1, [top, below]);
        Ok(())
    }

    /// Splits the node under `level`, whose own node has room, in two.
    fn split_node(&mut self, dir: &mut Node, path: &mut Path, level: usize) -> Result<()> {
        let below = level.saturating_add(1);
        let Some(frame) = path.frames.get(below).cloned() else {
            return Err(damaged(dir, "a level is missing"));
        };
        if frame.count() < frame.limit() {
            return Ok(());
        }
        let list: Vec<(u32, u64)> = (0..frame.count()).map(|index| (frame.hash(index), frame.child(index))).collect();
        let half = list.len() / 2;
        let (low, high) = list.split_at_checked(half).unwrap_or_default();
        let hash = high.first().map_or(0, |(hash, _)| *hash);
        let (logical, physical) = self.append_block(dir)?;
        let mut left = self.new_frame(frame.logical, frame.physical, empty_index(self.sb.block_len()), low);
        let mut right = self.new_frame(logical, physical, empty_index(self.sb.block_len()), high);
        self.put_frame(dir, &mut left);
        self.put_frame(dir, &mut right);
        self.insert_index(dir, path, level, hash, logical)?;
        let goes_right = frame.at >= half;
        let mut chosen = if goes_right { right } else { left };
        chosen.at = if goes_right { frame.at.saturating_sub(half) } else { frame.at };
        if let (true, Some(parent)) = (goes_right, path.frames.get_mut(level)) {
            parent.at = parent.at.saturating_add(1);
        }
        if let Some(slot) = path.frames.get_mut(below) {
            *slot = chosen;
        }
        Ok(())
    }

    /// Puts an entry behind the one that `path` takes at `level`.
    fn insert_index(&mut self, dir: &Node, path: &mut Path, level: usize, hash: u32, child: u64) -> Result<()> {
        let Some(frame) = path.frames.get_mut(level) else {
            return Err(damaged(dir, "a level is missing"));
        };
        let count = frame.count();
        if count >= frame.limit() {
            return Err(damaged(dir, "a node is full"));
        }
        let from = frame.start().saturating_add(frame.at.saturating_add(1).saturating_mul(ENTRY));
        let end = frame.start().saturating_add(count.saturating_mul(ENTRY));
        let count_at = frame.start().saturating_add(2);
        let bytes = Arc::make_mut(&mut frame.bytes);
        let moved = bytes.get(from..end).unwrap_or_default().to_vec();
        put(bytes, from.saturating_add(ENTRY), &moved);
        put32(bytes, from, hash);
        put32(bytes, from.saturating_add(4), u32::try_from(child).unwrap_or(u32::MAX));
        put16(bytes, count_at, u16::try_from(count.saturating_add(1)).unwrap_or(u16::MAX));
        self.put_frame(dir, frame);
        Ok(())
    }

    /// Splits the leaf that `path` leads to; the one of both that the path's hash belongs to.
    fn split_leaf(&mut self, dir: &mut Node, path: &mut Path) -> Result<u64> {
        let old = path.leaf();
        let old_physical = self.physical(dir, old)?.ok_or_else(|| damaged(dir, "a leaf is missing"))?;
        let bytes = self.dir_block(dir, old, old_physical)?;
        let mut list: Vec<(u32, &[u8])> = Vec::new();
        let _ = entries(&bytes, self.has_filetype(), &mut |entry| {
            let raw = bytes.get(entry.at..).and_then(|rest| rest.get(..entry_len(entry.name.len())));
            if let (true, Some(raw), Some(hash)) =
                (entry.inode != 0, raw, hash::of_name(&self.sb, path.version, entry.name))
            {
                list.push((hash, raw));
            }
            ControlFlow::Continue(())
        })?;
        list.sort_by_key(|(hash, _)| *hash);
        let half = half_of(&list);
        let (low, high) = list.split_at_checked(half).unwrap_or_default();
        let (Some((before, _)), Some((first, _))) = (low.last(), high.first()) else {
            return Err(full(format!("a block of directory {} cannot be split", dir.number)));
        };
        // The lowest bit says that names with this hash are in the leaf before, too.
        let hash = *first | u32::from(before == first);
        let goes_right = path.hash >= *first;
        let (low, high) = (pack(low, &bytes, self.dir_room()), pack(high, &bytes, self.dir_room()));
        let (logical, physical) = self.append_block(dir)?;
        for (block, mut packed) in [(old_physical, low), (physical, high)] {
            self.seal_leaf(dir, &mut packed);
            self.put(block, packed);
        }
        self.insert_index(dir, path, path.frames.len().saturating_sub(1), hash, logical)?;
        Ok(if goes_right { logical } else { old })
    }
}

/// Where to split a sorted list so that both parts take about the same room.
fn half_of(list: &[(u32, &[u8])]) -> usize {
    let total: usize = list.iter().map(|(_, raw)| raw.len()).fold(0, usize::saturating_add);
    let mut sum = 0_usize;
    let index = list.iter().position(|(_, raw)| {
        let middle = sum.saturating_add(raw.len() / 2);
        sum = sum.saturating_add(raw.len());
        middle > total / 2
    });
    index.unwrap_or(0).max(1)
}

/// A leaf with the entries of `list`; `like` gives its length.
fn pack(list: &[(u32, &[u8])], like: &[u8], room: usize) -> Vec<u8> {
    let mut bytes = empty_leaf(like.len(), room);
    let (mut at, mut last) = (0_usize, 0_usize);
    for (_, raw) in list {
        put(&mut bytes, at, raw);
        put_rec_len(&mut bytes, at, raw.len());
        last = at;
        at = at.saturating_add(raw.len());
    }
    put_rec_len(&mut bytes, last, room.saturating_sub(last));
    bytes
}

/// A block with one unused entry.
fn empty_leaf(len: usize, room: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    put_rec_len(&mut bytes, 0, room);
    bytes
}

/// A block of the index without entries: it looks like an unused entry.
fn empty_index(len: usize) -> Vec<u8> {
    empty_leaf(len, len)
}

/// Stores an entry's length; one of 64 KiB is stored as 65535.
fn put_rec_len(bytes: &mut [u8], at: usize, len: usize) {
    let stored = u16::try_from(len).unwrap_or(0xffff);
    put16(bytes, at.saturating_add(4), stored);
}

fn put_entry(bytes: &mut [u8], at: usize, inode: u32, kind: u8, name: &[u8]) {
    put32(bytes, at, inode);
    put_rec_len(bytes, at, entry_len(name.len()));
    put(bytes, at.saturating_add(6), &[u8::try_from(name.len()).unwrap_or(0), kind]);
    put(bytes, at.saturating_add(HEADER), name);
}

/// Puts `new` into the first gap of a leaf; `false` if there is none.
fn insert(bytes: &mut [u8], room: usize, filetype: bool, new: NewName<'_>) -> Result<bool> {
    let mut gap = None;
    let area = bytes.get(..room).unwrap_or_default().to_vec();
    if room < bytes.len() && !dir::has_tail(bytes) {
        // A block of the index: it is not a leaf.
        return Ok(false);
    }
    let _ = entries(&area, filetype, &mut |entry| {
        let used = if entry.inode == 0 { 0 } else { entry_len(entry.name.len()) };
        if entry.rec_len.saturating_sub(used) < new.len() {
            return ControlFlow::Continue(());
        }
        gap = Some((entry.at, entry.rec_len, used));
        ControlFlow::Break(())
    })?;
    let Some((at, rec_len, used)) = gap else {
        return Ok(false);
    };
    let start = at.saturating_add(used);
    if used > 0 {
        put_rec_len(bytes, at, used);
    }
    let kind = if filetype { type_of(new.kind) } else { 0 };
    put_entry(bytes, start, new.inode, kind, new.name);
    put_rec_len(bytes, start, rec_len.saturating_sub(used));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::bytes::le16;

    fn names(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut list = Vec::new();
        let _ = entries(bytes, true, &mut |entry| {
            if entry.inode != 0 {
                list.push(entry.name.to_vec());
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        list
    }

    #[test]
    fn a_leaf_takes_names_until_it_is_full() {
        let mut bytes = empty_leaf(64, 64);
        for name in [&b"a"[..], b"bcde", b"fghij"] {
            let new = NewName { name, inode: 5, kind: FileKind::Regular };
            assert!(insert(&mut bytes, 64, true, new).unwrap());
        }
        assert_eq!(names(&bytes), [&b"a"[..], b"bcde", b"fghij"]);
        let long = NewName { name: &[b'x'; 20], inode: 5, kind: FileKind::Regular };
        assert!(!insert(&mut bytes, 64, true, long).unwrap());
        assert_eq!(le16(&bytes, 4), 12);
        assert_eq!((entry_len(1), entry_len(4), entry_len(5)), (12, 12, 16));
    }

    #[test]
    fn halves_are_never_empty() {
        let raw = [0; 264];
        assert_eq!(half_of(&[(1, &raw[..12]), (2, &raw)]), 1);
        assert_eq!(half_of(&[(1, &raw), (2, &raw[..12])]), 1);
        assert_eq!(half_of(&[(1, &raw), (2, &raw), (3, &raw)]), 2);
        assert_eq!(half_of(&[(1, &raw[..12]); 10]), 5);
    }
}
