//! Directories: the entries of `$I30`, in the index's root and in its blocks.

use std::cmp::Ordering;

use super::record::{BITMAP, File, INDEX_ALLOCATION, INDEX_ROOT, fix, number};
use super::stream::Stream;
use super::{Ntfs, corrupt};
use crate::disk::bytes::{array, le16, le32, le64, long, size, u8_at};
use crate::error::{Error, Kind, Result};
use crate::limits;

/// The name of the index of file names.
const I30: [u16; 4] = [0x24, 0x49, 0x33, 0x30];

/// A name in the namespace of DOS only, which stands beside a longer one.
pub(super) const NAMESPACE_DOS: u8 = 2;

/// An entry of a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The record of the file.
    pub(super) number: u64,
    pub(super) name: Vec<u16>,
    pub(super) namespace: u8,
    /// The node with the names that come before it, by its place.
    below: Option<u64>,
}

/// A node of the tree.
struct Node {
    entries: Vec<Entry>,
    /// The node with the names that come behind all of them.
    last: Option<u64>,
}

/// The parts of a directory's index.
pub(super) struct Index {
    root: Vec<u8>,
    blocks: Option<Stream>,
    /// Which blocks are in use.
    bitmap: Vec<u8>,
    block: usize,
}

impl Index {
    /// Number of nodes: the root and every block.
    pub(super) fn nodes(&self) -> u64 {
        let len = self.blocks.as_ref().map_or(0, Stream::len);
        len.checked_div(long(self.block)).unwrap_or(0).saturating_add(1)
    }
}

impl Ntfs {
    /// The index of a directory.
    pub(super) fn index(&self, dir: &File) -> Result<Index> {
        let root = dir.stream(INDEX_ROOT, &I30, self)?.filter(|_| dir.is_directory);
        let Some(Stream::Resident(root)) = root else {
            return Err(Error::new(Kind::NotFound, "ntfs.name", "not a directory").at(dir.place()));
        };
        let block = size(u64::from(le32(&root, 8)));
        if !(block.is_power_of_two() && (512..=65536).contains(&block)) {
            return Err(corrupt("the blocks of an index have an impossible size").at(dir.place()).found(block));
        }
        let blocks = dir.stream(INDEX_ALLOCATION, &I30, self)?;
        let len = blocks.as_ref().map_or(0, Stream::len);
        if len > limits::MAX_NTFS_INDEX {
            return Err(Error::limit("ntfs.limit", "a directory is too large").at(dir.place()).found(len));
        }
        let bitmap = match dir.stream(BITMAP, &I30, self)? {
            Some(bitmap) => {
                let mut bytes = vec![0; size(bitmap.len().min(limits::MAX_NTFS_INDEX / 512))];
                self.read_stream(&bitmap, &mut bytes, 0)?;
                bytes
            }
            None => Vec::new(),
        };
        Ok(Index { root, blocks, bitmap, block })
    }

    /// The entries of one node: 0 is the root. None of one that is not in use.
    pub(super) fn entries(&self, index: &Index, node: u64) -> Result<Vec<Entry>> {
        self.index_node(index, node).map(|node| node.map_or_else(Vec::new, |node| node.entries))
    }

    /// The file that `name` leads to: the very name, which a directory may have beside similar ones, or else the first that is the
    /// same but for its case. Goes down the tree to where such names are.
    pub(super) fn search(&self, index: &Index, name: &[u16]) -> Result<Option<u64>> {
        let mut pending = vec![0];
        let (mut similar, mut visited) = (None, 0_u64);
        while let Some(number) = pending.pop() {
            visited = visited.saturating_add(1);
            if visited > index.nodes() {
                return Err(corrupt("the nodes of an index lead in circles"));
            }
            let node =
                self.index_node(index, number)?.ok_or_else(|| corrupt("an index leads to a node without use"))?;
            let mut before = Ordering::Less;
            for entry in &node.entries {
                let order = self.collate(&entry.name, name);
                if let (Ordering::Equal | Ordering::Greater, Some(below)) = (order, entry.below) {
                    pending.push(self.node_at(index, below)?);
                }
                if entry.name == name {
                    return Ok(Some(entry.number));
                }
                if order == Ordering::Equal {
                    similar = similar.or(Some(entry.number));
                }
                before = order;
                if order == Ordering::Greater {
                    break;
                }
            }
            if let (Ordering::Less | Ordering::Equal, Some(last)) = (before, node.last) {
                pending.push(self.node_at(index, last)?);
            }
        }
        Ok(similar)
    }

    /// The order of names in an index: that of their units in upper case.
    fn collate(&self, a: &[u16], b: &[u16]) -> Ordering {
        a.iter().map(|unit| self.upper(*unit)).cmp(b.iter().map(|unit| self.upper(*unit)))
    }

    /// The number of the node at a place, which is told in clusters or, where blocks are smaller than these, in sectors of 512 bytes.
    fn node_at(&self, index: &Index, place: u64) -> Result<u64> {
        let block = long(index.block);
        let unit = if block >= self.boot.cluster.get() { self.boot.cluster.get() } else { 512 };
        let offset = place.saturating_mul(unit);
        match (offset.checked_rem(block), offset.checked_div(block)) {
            (Some(0), Some(number)) if number.saturating_add(1) < index.nodes() => Ok(number.saturating_add(1)),
            _ => Err(corrupt("an index leads to no node of it").found(place)),
        }
    }

    /// One node; `None` for one that is not in use.
    fn index_node(&self, index: &Index, node: u64) -> Result<Option<Node>> {
        let Some(block) = node.checked_sub(1) else {
            return entries(index.root.get(16..).unwrap_or_default()).map(Some);
        };
        let bits = u8_at(&index.bitmap, size(block / 8));
        if bits >> (block % 8) & 1 == 0 {
            return Ok(None);
        }
        let Some(blocks) = &index.blocks else { return Ok(None) };
        let mut bytes = vec![0; index.block];
        let offset = block.saturating_mul(long(index.block));
        self.read_stream(blocks, &mut bytes, offset)?;
        fix(&mut bytes, *b"INDX", offset)?;
        entries(bytes.get(24..).unwrap_or_default()).map(Some)
    }
}

/// A node whose header `node` begins with.
fn entries(node: &[u8]) -> Result<Node> {
    let (start, end) = (size(u64::from(le32(node, 0))), size(u64::from(le32(node, 4))));
    let mut rest = node.get(start..end).ok_or_else(|| corrupt("the entries of an index reach out of their node"))?;
    let mut found = Vec::new();
    loop {
        let (len, key, flags) = (usize::from(le16(rest, 8)), usize::from(le16(rest, 10)), le16(rest, 12));
        // The node below is told at the end of an entry.
        let below = len.checked_sub(8).filter(|_| flags & 1 != 0).map(|at| le64(rest, at));
        if flags & 2 != 0 {
            return Ok(Node { entries: found, last: below });
        }
        let Some((entry, after)) = rest.split_at_checked(len).filter(|_| len >= 16) else {
            return Err(corrupt("an entry of an index has an impossible length").found(len));
        };
        let key = entry.get(16..).and_then(|rest| rest.get(..key));
        let key = key.ok_or_else(|| corrupt("a name reaches out of its entry"))?;
        found.push(Entry { number: number(le64(entry, 0)), name: name(key)?, namespace: u8_at(key, 65), below });
        rest = after;
    }
}

/// The name in a value of `$FILE_NAME`.
pub(super) fn name(value: &[u8]) -> Result<Vec<u16>> {
    let len = usize::from(u8_at(value, 64)).saturating_mul(2);
    let bytes = value.get(66..).and_then(|rest| rest.get(..len)).filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| corrupt("a name reaches out of its attribute"))?;
    Ok(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes(array(pair, 0))).collect())
}
