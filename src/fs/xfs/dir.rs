//! Directories in all their forms: in the inode, in one block, and in blocks with an index of hashes.

use super::da::{equal_hashes, hash};
use super::node::{Fork, Format, Node};
use super::store::Block;
use super::view::View;
use super::{block, corrupt};
use crate::disk::bytes::{array, be16, be32, be64, long, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::{DirEntry, FileKind, Inode};
use crate::limits;

/// Where the index starts in a directory's address space, in bytes.
const LEAF_OFFSET: u64 = 1 << 35;
/// Marks unused space where an entry would have the top of its inode number.
const UNUSED: u16 = 0xffff;

/// An entry in a directory block or inode.
struct Entry<'a> {
    name: &'a [u8],
    inode: u64,
    kind: Option<FileKind>,
    /// Bytes that it takes.
    len: usize,
}

impl View<'_> {
    /// A directory's node.
    pub(super) fn dir(&self, inode: Inode) -> Result<Node> {
        let node = self.inode(inode)?;
        if node.is_dir() {
            return Ok(node);
        }
        Err(Error::failed("xfs.name", format!("inode {} is not a directory", inode.0)))
    }

    /// The inode that `name` points to.
    pub(super) fn find(&self, dir: &Node, name: &[u8]) -> Result<Option<Inode>> {
        if name.is_empty() || name.len() > 255 || matches!(name, b"." | b"..") {
            return Ok(None);
        }
        if dir.format(Fork::Data)? == Format::Local {
            let mut found = None;
            self.short_entries(dir, &mut |_, entry| {
                if self.is_same(entry.name, name) && (found.is_none() || entry.name == name) {
                    found = Some(Inode(entry.inode));
                }
                Ok(())
            })?;
            return Ok(found);
        }
        let wanted = if self.sb.features.has_ascii_ci() { hash(&name.to_ascii_lowercase()) } else { hash(name) };
        if self.map(dir, Fork::Data, self.leaf_block())?.block.is_none() {
            return self.find_in_block(dir, name, wanted);
        }
        self.find_by_index(dir, name, wanted)
    }

    fn find_in_block(&self, dir: &Node, name: &[u8], wanted: u32) -> Result<Option<Inode>> {
        let bytes = self.data_block(dir, 0)?;
        if !is_block_form(&bytes) {
            return Err(damaged(dir, "it has no index"));
        }
        let (count, end) = leaf_of_block(&bytes).ok_or_else(|| damaged(dir, "its index is longer than its block"))?;
        let leaf = bytes.get(end..).unwrap_or_default();
        self.candidates(dir, leaf, equal_hashes(leaf, count, wanted), name)
    }

    fn find_by_index(&self, dir: &Node, name: &[u8], wanted: u32) -> Result<Option<Inode>> {
        let mut leaf = self.da_leaf(dir, Fork::Data, self.leaf_block(), Some(wanted))?;
        for _ in 0..limits::MAX_XFS_HASH_LEAVES {
            let kinds =
                if self.sb.has_crc() { [block::LEAF1_V5, block::LEAFN_V5] } else { [block::LEAF1_V4, block::LEAFN_V4] };
            let area = leaf.get(self.da_header()..).unwrap_or_default();
            let count = usize::from(be16(&leaf, if self.sb.has_crc() { 56 } else { 12 }));
            if !kinds.contains(&be16(&leaf, 8)) || count > area.len() / 8 {
                return Err(damaged(dir, "a leaf of its index contradicts itself"));
            }
            let equal = equal_hashes(area, count, wanted);
            let goes_on = equal.end == count && be32(&leaf, 0) != 0;
            if let Some(found) = self.candidates(dir, area, equal, name)? {
                return Ok(Some(found));
            }
            if !goes_on {
                return Ok(None);
            }
            leaf = self.da_block(dir, Fork::Data, u64::from(be32(&leaf, 0)))?;
        }
        Err(Error::limit("xfs.limit", format!("too many names of directory {} have one hash", dir.number)))
    }

    /// Looks at the entries that the index names; one that only differs in case is second choice.
    fn candidates(
        &self,
        dir: &Node,
        area: &[u8],
        indices: std::ops::Range<usize>,
        name: &[u8],
    ) -> Result<Option<Inode>> {
        let mut similar = None;
        for index in indices {
            let address = be32(area, index.saturating_mul(8).saturating_add(4));
            // Address 0 is that of an entry that was removed.
            if address == 0 {
                continue;
            }
            let offset = u64::from(address) << 3;
            let len = long(self.sb.dir_block_len());
            let bytes = self.data_block(dir, offset.checked_div(len).unwrap_or(0))?;
            let at = size(offset.checked_rem(len).unwrap_or(0));
            let Some(entry) = self.entry(&bytes, at).filter(|_| be16(&bytes, at) != UNUSED) else {
                return Err(damaged(dir, "its index points to no entry"));
            };
            if entry.name == name {
                return Ok(Some(Inode(entry.inode)));
            }
            if self.is_same(entry.name, name) {
                similar = Some(Inode(entry.inode));
            }
        }
        Ok(similar)
    }

    fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        one == other || (self.sb.features.has_ascii_ci() && one.eq_ignore_ascii_case(other))
    }

    /// Entries from `cursor`, and the cursor to go on from; nothing at the end.
    pub(super) fn list(&self, dir: &Node, cursor: u64) -> Result<Option<(Vec<DirEntry>, u64)>> {
        let mut listed = Vec::new();
        if dir.format(Fork::Data)? == Format::Local {
            let mut end = 0;
            self.short_entries(dir, &mut |number, entry| {
                end = number;
                if number > cursor { push(dir, &mut listed, &entry, number) } else { Ok(()) }
            })?;
            return Ok((cursor < end).then_some((listed, end)));
        }
        let len = long(self.sb.dir_block_len());
        let Some(number) = self.next_data_block(dir, cursor.checked_div(len).unwrap_or(0))? else {
            return Ok(None);
        };
        let base = number.saturating_mul(len);
        let bytes = self.data_block(dir, number)?;
        self.block_entries(dir, &bytes, &mut |at, entry| {
            let start = base.saturating_add(long(at));
            if start < cursor {
                return Ok(());
            }
            push(dir, &mut listed, &entry, start.saturating_add(long(entry.len)))
        })?;
        Ok(Some((listed, base.saturating_add(len))))
    }

    /// The first directory block with entries, from number `from` on.
    fn next_data_block(&self, dir: &Node, from: u64) -> Result<Option<u64>> {
        if dir.size() > limits::MAX_XFS_DIR {
            return Err(Error::limit("xfs.limit", format!("directory {} is too large", dir.number)).found(dir.size()));
        }
        let end = dir.size().wrapping_shr(self.sb.blocklog);
        let mut block = from.wrapping_shl(self.sb.dirblklog);
        while block < end {
            let piece = self.map(dir, Fork::Data, block)?;
            if piece.block.is_some() {
                return Ok(Some(block.wrapping_shr(self.sb.dirblklog)));
            }
            block = block.saturating_add(piece.count);
        }
        Ok(None)
    }

    /// Directory block `number`, which holds entries.
    fn data_block(&self, dir: &Node, number: u64) -> Result<Block> {
        let first = number.wrapping_shl(self.sb.dirblklog);
        if first >= self.leaf_block() {
            return Err(damaged(dir, "an entry is where the index should be"));
        }
        let bytes = self.da_block(dir, Fork::Data, first)?;
        let kinds = if self.sb.has_crc() {
            [block::DIR_BLOCK_V5, block::DIR_DATA_V5]
        } else {
            [block::DIR_BLOCK_V4, block::DIR_DATA_V4]
        };
        if kinds.contains(&be32(&bytes, 0)) {
            return Ok(bytes);
        }
        Err(damaged(dir, "a block has an unknown magic number"))
    }

    /// The block of the address space where the index starts.
    fn leaf_block(&self) -> u64 {
        LEAF_OFFSET.wrapping_shr(self.sb.blocklog)
    }

    /// Visits the entries of a directory block with their places.
    fn block_entries(
        &self,
        dir: &Node,
        bytes: &[u8],
        visit: &mut dyn FnMut(usize, Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut at = if self.sb.has_crc() { 64 } else { 16 };
        let end = if is_block_form(bytes) { leaf_of_block(bytes).map(|(_, end)| end) } else { Some(bytes.len()) };
        let end = end.ok_or_else(|| damaged(dir, "its index is longer than its block"))?;
        while at < end {
            let len = if be16(bytes, at) == UNUSED {
                usize::from(be16(bytes, at.saturating_add(2)))
            } else {
                let entry = self.entry(bytes, at).ok_or_else(|| damaged(dir, "an entry is cut short"))?;
                let len = entry.len;
                if at.saturating_add(len) <= end {
                    visit(at, entry)?;
                }
                len
            };
            let next = at.saturating_add(len);
            if len < 8 || !len.is_multiple_of(8) || next > end {
                return Err(damaged(dir, "the length of an entry is impossible"));
            }
            at = next;
        }
        Ok(())
    }

    /// The entry at `at` in a directory block.
    fn entry<'b>(&self, bytes: &'b [u8], at: usize) -> Option<Entry<'b>> {
        let rest = bytes.get(at..)?;
        let namelen = usize::from(u8_at(rest, 8));
        let name = rest.get(9..)?.get(..namelen)?;
        let ftype = usize::from(self.sb.features.has_ftype());
        let len = namelen.saturating_add(11).saturating_add(ftype).next_multiple_of(8);
        let kind = self.kind(u8_at(rest, namelen.saturating_add(9)));
        (len <= rest.len()).then_some(Entry { name, inode: be64(rest, 0), kind, len })
    }

    /// Visits the entries of a directory in the inode, numbered from 1.
    fn short_entries(&self, dir: &Node, visit: &mut dyn FnMut(u64, Entry<'_>) -> Result<()>) -> Result<()> {
        let bytes = self.local(dir, Fork::Data, dir.size())?;
        let wide = u8_at(bytes, 1) != 0;
        let count = if wide { u8_at(bytes, 1).max(u8_at(bytes, 0)) } else { u8_at(bytes, 0) };
        let number_len = if wide { 8 } else { 4 };
        let ftype = usize::from(self.sb.features.has_ftype());
        let cut = || damaged(dir, "an entry is cut short");
        let mut rest = bytes.get(2..).and_then(|rest| rest.get(number_len..)).ok_or_else(cut)?;
        for number in 1..=u64::from(count) {
            let namelen = usize::from(u8_at(rest, 0));
            let at = namelen.saturating_add(3).saturating_add(ftype);
            let len = at.saturating_add(number_len);
            let name = rest.get(3..).and_then(|rest| rest.get(..namelen)).ok_or_else(cut)?;
            let kind = self.kind(u8_at(rest, namelen.saturating_add(3)));
            let inode = if wide { be64(rest, at) } else { u64::from(u32::from_be_bytes(array(rest, at))) };
            let next = rest.get(len..).ok_or_else(cut)?;
            visit(number, Entry { name, inode, kind, len })?;
            rest = next;
        }
        Ok(())
    }

    fn kind(&self, ftype: u8) -> Option<FileKind> {
        if !self.sb.features.has_ftype() {
            return None;
        }
        Some(match ftype {
            1 => FileKind::Regular,
            2 => FileKind::Directory,
            3 => FileKind::CharDevice,
            4 => FileKind::BlockDevice,
            5 => FileKind::Fifo,
            6 => FileKind::Socket,
            7 => FileKind::Symlink,
            _ => return None,
        })
    }
}

fn push(dir: &Node, listed: &mut Vec<DirEntry>, entry: &Entry<'_>, cursor: u64) -> Result<()> {
    if matches!(entry.name, b"." | b"..") {
        return Ok(());
    }
    if entry.name.is_empty() || entry.name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return Err(damaged(dir, "a name is impossible"));
    }
    listed.push(DirEntry { name: entry.name.to_vec(), inode: Inode(entry.inode), kind: entry.kind, cursor });
    Ok(())
}

/// Whether a directory block has its index at its own end.
fn is_block_form(bytes: &[u8]) -> bool {
    matches!(be32(bytes, 0), block::DIR_BLOCK_V4 | block::DIR_BLOCK_V5)
}

/// Entries of the index at the end of a block, and where it starts.
fn leaf_of_block(bytes: &[u8]) -> Option<(usize, usize)> {
    let tail = bytes.len().checked_sub(8)?;
    let count = size(u64::from(be32(bytes, tail)));
    let start = tail.checked_sub(count.checked_mul(8)?)?;
    (start >= 16).then_some((count, start))
}

fn damaged(dir: &Node, what: &str) -> Error {
    corrupt(format!("directory {} is damaged: {what}", dir.number))
}
