//! The index of a directory: a tree of name hashes (kernel documentation, ext4, "Hash Tree Directories").

use std::ops::ControlFlow;

use super::checksum::crc32c;
use super::dir::{Place, rec_len};
use super::features::INCOMPAT_LARGEDIR;
use super::node::Node;
use super::view::{Block, View};
use super::{corrupt, hash};
use crate::disk::bytes::{le16, le32, put16, put32, u8_at};
use crate::error::{Error, Result};

/// Where the entries start in the root, after `.`, `..` and the root's own fields, and in the other nodes, after an empty
/// directory entry.
const ROOT_ENTRIES: usize = 0x20;
const NODE_ENTRIES: usize = 8;
pub(super) const ENTRY: usize = 8;
const TAIL: usize = 8;

/// A node of the index on the way to a leaf.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Its block in the directory and on the volume.
    pub(super) logical: u64,
    pub(super) physical: u64,
    pub(super) bytes: Block,
    /// Which entry the way takes.
    pub(super) at: usize,
}

impl Frame {
    pub(super) fn start(&self) -> usize {
        if self.logical == 0 { ROOT_ENTRIES } else { NODE_ENTRIES }
    }

    /// Entries there is room for. The first entry's hash field holds this and the count.
    pub(super) fn limit(&self) -> usize {
        usize::from(le16(&self.bytes, self.start()))
    }

    pub(super) fn count(&self) -> usize {
        usize::from(le16(&self.bytes, self.start().saturating_add(2)))
    }

    fn offset(&self, index: usize) -> usize {
        self.start().saturating_add(index.saturating_mul(ENTRY))
    }

    /// The hash from which entry `index` counts; 0 for the first.
    pub(super) fn hash(&self, index: usize) -> u32 {
        if index == 0 { 0 } else { le32(&self.bytes, self.offset(index)) }
    }

    /// The block in the directory that entry `index` leads to.
    pub(super) fn child(&self, index: usize) -> u64 {
        u64::from(le32(&self.bytes, self.offset(index).saturating_add(4)) & 0x0fff_ffff)
    }

    /// The last entry whose hash is at most `hash`.
    fn select(&self, hash: u32) -> usize {
        (1..self.count()).take_while(|index| self.hash(*index) <= hash).last().unwrap_or(0)
    }
}

/// The way through the index to the leaf that holds, or would hold, a hash.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) frames: Vec<Frame>,
    pub(super) version: u8,
    pub(super) hash: u32,
}

impl Path {
    /// The leaf's block in the directory.
    pub(super) fn leaf(&self) -> u64 {
        self.frames.last().map_or(0, |frame| frame.child(frame.at))
    }
}

impl View<'_> {
    /// Deepest index: levels below the root.
    pub(super) fn index_levels(&self) -> usize {
        if self.sb.incompat() & INCOMPAT_LARGEDIR == 0 { 1 } else { 2 }
    }

    /// The entry `name` of a directory with an index.
    pub(super) fn find_hashed(&self, dir: &Node, name: &[u8]) -> Result<Option<Place>> {
        let mut path = self.path_to(dir, name)?;
        loop {
            let leaf = path.leaf();
            if let Some(place) = self.find_in(dir, leaf..leaf.saturating_add(1), name)? {
                return Ok(Some(place));
            }
            // Names with one hash may go on in the next leaf, whose hash then has its lowest bit set.
            match self.next_leaf(dir, &mut path)? {
                Some(hash) if hash & 1 == 1 && hash & !1 == path.hash => {}
                _ => return Ok(None),
            }
        }
    }

    /// The way to the first leaf for `name`.
    pub(super) fn path_to(&self, dir: &Node, name: &[u8]) -> Result<Path> {
        let root = self.frame(dir, 0)?;
        let (version, levels) = (u8_at(&root.bytes, 0x1c), usize::from(u8_at(&root.bytes, 0x1e)));
        if u8_at(&root.bytes, 0x1d) != 8 || levels > self.index_levels() {
            return Err(damaged(dir, "its root is impossible"));
        }
        let hash = hash::of_name(&self.sb, version, name).ok_or_else(|| damaged(dir, "its hash is not known"))?;
        let mut path = Path { frames: Vec::with_capacity(levels.saturating_add(1)), version, hash };
        let mut frame = root;
        loop {
            frame.at = frame.select(hash);
            let child = frame.child(frame.at);
            path.frames.push(frame);
            if path.frames.len() > levels {
                return Ok(path);
            }
            frame = self.frame(dir, child)?;
        }
    }

    /// Goes on to the next leaf; its hash, or `None` at the end.
    fn next_leaf(&self, dir: &Node, path: &mut Path) -> Result<Option<u32>> {
        let depth = path.frames.len();
        let Some(level) = path.frames.iter().rposition(|frame| frame.at.saturating_add(1) < frame.count()) else {
            return Ok(None);
        };
        path.frames.truncate(level.saturating_add(1));
        let Some(frame) = path.frames.last_mut() else {
            return Ok(None);
        };
        frame.at = frame.at.saturating_add(1);
        let hash = frame.hash(frame.at);
        while path.frames.len() < depth {
            let frame = self.frame(dir, path.leaf())?;
            path.frames.push(frame);
        }
        Ok(Some(hash))
    }

    /// The node of the index in block `logical` of `dir`, its checksum verified.
    pub(super) fn frame(&self, dir: &Node, logical: u64) -> Result<Frame> {
        let mut found = None;
        self.walk_dir(dir, logical..logical.saturating_add(1), &mut |_, physical, bytes| {
            found = Some(Frame { logical, physical, bytes: std::sync::Arc::clone(bytes), at: 0 });
            Ok(ControlFlow::Break(()))
        })?;
        let frame = found.ok_or_else(|| damaged(dir, "a node is missing"))?;
        if frame.limit() != self.index_room(logical) || frame.count() == 0 || frame.count() > frame.limit() {
            return Err(damaged(dir, "a node has an impossible size"));
        }
        if logical != 0
            && (le32(&frame.bytes, 0) != 0 || rec_len(le16(&frame.bytes, 4), frame.bytes.len()) != frame.bytes.len())
        {
            return Err(damaged(dir, "a node is a leaf"));
        }
        let at = frame.offset(frame.limit()).saturating_add(4);
        if self.sb.has_csum() && le32(&frame.bytes, at) != self.index_sum(dir, &frame) {
            return Err(self.bad_checksum(frame.physical, &format!("an index block of directory {}", dir.number)));
        }
        Ok(frame)
    }

    /// Entries that a node in block `logical` has room for.
    pub(super) fn index_room(&self, logical: u64) -> usize {
        let start = if logical == 0 { ROOT_ENTRIES } else { NODE_ENTRIES };
        let tail = if self.sb.has_csum() { TAIL } else { 0 };
        self.sb.block_len().saturating_sub(start).saturating_sub(tail) / ENTRY
    }

    fn index_sum(&self, dir: &Node, frame: &Frame) -> u32 {
        let covered = frame.bytes.get(..frame.offset(frame.count())).unwrap_or_default();
        let tail = frame.bytes.get(frame.offset(frame.limit())..).and_then(|tail| tail.get(..4)).unwrap_or_default();
        [covered, tail, &[0; 4]].into_iter().fold(dir.seed(&self.sb), crc32c)
    }

    /// Stores a changed node of the index.
    pub(super) fn put_frame(&mut self, dir: &Node, frame: &mut Frame) {
        if self.sb.has_csum() {
            let sum = self.index_sum(dir, frame);
            let at = frame.offset(frame.limit()).saturating_add(4);
            let bytes: &mut Vec<u8> = std::sync::Arc::make_mut(&mut frame.bytes);
            put32(bytes, at, sum);
        }
        self.put(frame.physical, frame.bytes.to_vec());
    }

    /// A node in block `logical` with `entries`, the first of which counts from hash 0.
    pub(super) fn new_frame(&self, logical: u64, physical: u64, bytes: Vec<u8>, entries: &[(u32, u64)]) -> Frame {
        let mut frame = Frame { logical, physical, bytes: std::sync::Arc::new(bytes), at: 0 };
        let start = frame.start();
        let limit = self.index_room(logical);
        let bytes: &mut Vec<u8> = std::sync::Arc::make_mut(&mut frame.bytes);
        for (index, (hash, child)) in entries.iter().enumerate() {
            let at = index.saturating_mul(ENTRY).saturating_add(start);
            put32(bytes, at, *hash);
            put32(bytes, at.saturating_add(4), u32::try_from(*child).unwrap_or(u32::MAX));
        }
        put16(bytes, start, u16::try_from(limit).unwrap_or(u16::MAX));
        put16(bytes, start.saturating_add(2), u16::try_from(entries.len()).unwrap_or(u16::MAX));
        frame
    }
}

pub(super) fn damaged(dir: &Node, what: &str) -> Error {
    corrupt(format!("the index of directory {} is damaged: {what}", dir.number))
}
