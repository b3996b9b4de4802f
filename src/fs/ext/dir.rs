//! Directories as lists: entries in blocks or inside the inode, and the search for one name.

use std::ops::{ControlFlow, Range};

use super::checksum::crc32c;
use super::features::INCOMPAT_FILETYPE;
use super::map::Piece;
use super::node::{FLAG_CASEFOLD, FLAG_ENCRYPT, FLAG_INDEX, FLAG_INLINE, MAP_LEN, Node};
use super::view::{Block, View};
use super::{believed, corrupt, unsupported};
use crate::disk::bytes::{is_at, le16, le32, long, put32, size, u8_at};
use crate::error::Result;
use crate::fs::FileKind;
use crate::limits;

/// Bytes of an entry before its name.
pub(super) const HEADER: usize = 8;
/// The fake entry at the end of a block that carries its checksum.
pub(super) const TAIL: usize = 12;
const TAIL_START: [u8; 8] = [0, 0, 0, 0, 12, 0, 0, 0xde];
/// Where the entries of an inline directory start in `i_block`: after the parent's inode number.
const INLINE_START: usize = 4;

/// One entry of a directory block. Unused entries have inode 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// Where it starts in its block.
    pub(super) at: usize,
    /// Its length with what is unused behind the name.
    pub(super) rec_len: usize,
    pub(super) inode: u32,
    pub(super) kind: Option<FileKind>,
    pub(super) name: &'a [u8],
}

impl Entry<'_> {
    /// Whether it is a file's name, and not unused, `.` or `..`.
    pub(super) fn is_real(&self) -> bool {
        self.inode != 0 && !matches!(self.name, b"" | b"." | b"..") && !self.name.iter().any(|c| matches!(c, b'/' | 0))
    }
}

/// Where an entry was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The block on the volume.
    pub(super) block: u64,
    /// Bytes into that block.
    pub(super) at: usize,
    pub(super) inode: u32,
    pub(super) kind: Option<FileKind>,
}

/// Calls `each` with every entry of `bytes`, unused ones included.
pub(super) fn entries<'a>(
    bytes: &'a [u8],
    filetype: bool,
    each: &mut dyn FnMut(Entry<'a>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let mut at = 0_usize;
    while at < bytes.len() {
        let entry =
            entry_at(bytes, at, filetype).ok_or_else(|| corrupt("a directory entry has an impossible length"))?;
        if each(entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        at = at.saturating_add(entry.rec_len);
    }
    Ok(ControlFlow::Continue(()))
}

/// The entry at `at`, if it lies within the block.
fn entry_at(bytes: &[u8], at: usize, filetype: bool) -> Option<Entry<'_>> {
    let raw = bytes.get(at..)?;
    let rec_len = rec_len(le16(raw, 4), bytes.len());
    let name_len = if filetype { usize::from(u8_at(raw, 6)) } else { usize::from(le16(raw, 6)) };
    let name = raw.get(HEADER..)?.get(..name_len)?;
    let fits = rec_len >= HEADER.saturating_add(name_len) && rec_len.is_multiple_of(4) && rec_len <= raw.len();
    (fits && name_len <= 255).then(|| Entry {
        at,
        rec_len,
        inode: le32(raw, 0),
        kind: if filetype { kind_of(u8_at(raw, 7)) } else { None },
        name,
    })
}

/// An entry's length; in blocks of 64 KiB it has two ways to say that it fills the block.
pub(super) fn rec_len(stored: u16, block_len: usize) -> usize {
    let stored = usize::from(stored);
    match stored {
        _ if block_len < 65536 => stored,
        0 | 0xffff => block_len,
        _ => stored & 0xfffc | (stored & 3) << 16,
    }
}

fn kind_of(file_type: u8) -> Option<FileKind> {
    Some(match file_type {
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

/// The `file_type` of a directory entry.
pub(super) fn type_of(kind: FileKind) -> u8 {
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::Symlink => 7,
    }
}

/// Whether a block ends with a checksum entry.
pub(super) fn has_tail(bytes: &[u8]) -> bool {
    is_at(bytes, bytes.len().saturating_sub(TAIL), &TAIL_START)
}

/// Takes a directory block: its logical and physical number, and its bytes.
type BlockVisitor<'a> = dyn FnMut(u64, u64, &Block) -> Result<ControlFlow<()>> + 'a;

impl View<'_> {
    pub(super) fn has_filetype(&self) -> bool {
        self.sb.incompat() & INCOMPAT_FILETYPE != 0
    }

    /// Bytes of a directory block that entries may use.
    pub(super) fn dir_room(&self) -> usize {
        self.sb.block_len().saturating_sub(if self.sb.has_csum() { TAIL } else { 0 })
    }

    /// The error for a node that is no directory or whose names mean something else.
    pub(super) fn check_dir(&self, dir: &Node) -> Result<()> {
        if !dir.is_dir() || dir.links() == 0 {
            return Err(corrupt(format!("inode {} is not a directory", dir.number)));
        }
        Ok(())
    }

    /// Blocks of a directory by its size, which a sound file system bounds.
    pub(super) fn dir_blocks(&self, dir: &Node) -> Result<u64> {
        let blocks = dir.size(&self.sb) / self.sb.block_size;
        if blocks > self.sb.blocks_count || dir.size(&self.sb) > limits::MAX_EXT_DIR {
            return Err(corrupt(format!("directory {} is impossibly large", dir.number)).found(dir.size(&self.sb)));
        }
        Ok(blocks)
    }

    /// Visits the blocks of `dir` in `range` with their logical and physical number; their checksums are verified.
    pub(super) fn walk_dir(&self, dir: &Node, range: Range<u64>, visit: &mut BlockVisitor<'_>) -> Result<()> {
        let end = range.end.min(self.dir_blocks(dir)?);
        self.walk(dir, range.start..end, &mut |piece| {
            let Piece::Content(run) = piece else {
                return Ok(ControlFlow::Continue(()));
            };
            if run.unwritten {
                return Ok(ControlFlow::Continue(()));
            }
            for index in 0..run.len {
                let logical = run.logical.saturating_add(index);
                let physical = run.physical.saturating_add(index);
                let block = self.dir_block(dir, logical, physical)?;
                if visit(logical, physical, &block)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// One block of `dir`, its checksum verified if it is a leaf. Blocks of the index are verified where the index is used.
    pub(super) fn dir_block(&self, dir: &Node, logical: u64, physical: u64) -> Result<Block> {
        let bytes = self.block(physical)?;
        if !self.sb.has_csum() {
            return Ok(bytes);
        }
        let is_index = dir.has(FLAG_INDEX) && (logical == 0 || rec_len(le16(&bytes, 4), bytes.len()) == bytes.len());
        // What stands at the end of an index block may look like a leaf's checksum: it was one.
        let right = is_index || (has_tail(&bytes) && self.leaf_sum(dir, &bytes) == leaf_tail(&bytes));
        if !right {
            return Err(self.bad_checksum(physical, &format!("a block of directory {}", dir.number)));
        }
        Ok(bytes)
    }

    fn leaf_sum(&self, dir: &Node, bytes: &[u8]) -> u32 {
        let covered = bytes.get(..bytes.len().saturating_sub(TAIL)).unwrap_or_default();
        crc32c(dir.seed(&self.sb), covered)
    }

    /// Writes the checksum into a leaf that is about to be stored.
    pub(super) fn seal_leaf(&self, dir: &Node, bytes: &mut [u8]) {
        if self.sb.has_csum() {
            let at = bytes.len().saturating_sub(TAIL);
            crate::disk::bytes::put(bytes, at, &TAIL_START);
            let sum = self.leaf_sum(dir, bytes);
            put32(bytes, at.saturating_add(HEADER), sum);
        }
    }

    /// The two places of an inline directory that hold entries.
    pub(super) fn inline_areas(&self, dir: &Node) -> Result<[Vec<u8>; 2]> {
        let first = dir.map().get(INLINE_START..).unwrap_or_default().to_vec();
        let len = size(dir.size(&self.sb)).saturating_sub(MAP_LEN);
        let mut second = self.inline_rest(dir)?;
        second.truncate(len);
        Ok([first, second])
    }

    /// The parent of an inline directory.
    pub(super) fn inline_parent(dir: &Node) -> u32 {
        le32(dir.map(), 0)
    }

    /// The entry `name` of `dir`.
    pub(super) fn find(&self, dir: &Node, name: &[u8]) -> Result<Option<Place>> {
        self.check_dir(dir)?;
        if dir.has(FLAG_ENCRYPT) {
            return Err(unsupported(format!("the names in directory {} are encrypted", dir.number)));
        }
        if name.is_empty() || name.len() > 255 {
            return Ok(None);
        }
        if dir.has(FLAG_INLINE) {
            return self.find_inline(dir, name);
        }
        if dir.has(FLAG_INDEX)
            && !dir.has(FLAG_CASEFOLD)
            && !matches!(name, b"." | b"..")
            && let Some(found) = believed(self.find_hashed(dir, name))?
        {
            return Ok(found);
        }
        self.find_in(dir, 0..u64::MAX, name)
    }

    /// The entry `name` in the blocks `range` of `dir`.
    pub(super) fn find_in(&self, dir: &Node, range: Range<u64>, name: &[u8]) -> Result<Option<Place>> {
        let mut found = None;
        self.walk_dir(dir, range, &mut |_, physical, bytes| {
            entries(bytes, self.has_filetype(), &mut |entry| {
                if entry.inode == 0 || entry.name != name {
                    return ControlFlow::Continue(());
                }
                found = Some(Place { block: physical, at: entry.at, inode: entry.inode, kind: entry.kind });
                ControlFlow::Break(())
            })
        })?;
        Ok(found)
    }

    fn find_inline(&self, dir: &Node, name: &[u8]) -> Result<Option<Place>> {
        let mut found = None;
        for area in self.inline_areas(dir)? {
            let _ = entries(&area, self.has_filetype(), &mut |entry| {
                if entry.is_real() && entry.name == name {
                    found = Some(Place { block: 0, at: 0, inode: entry.inode, kind: entry.kind });
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found)
    }

    /// The entries from `cursor` on in the next block that has any, each with the cursor that continues after it, and the
    /// cursor of the block that follows; `None` at the end.
    pub(super) fn list(&self, dir: &Node, cursor: u64) -> Result<Option<(Vec<crate::fs::DirEntry>, u64)>> {
        self.check_dir(dir)?;
        let mut listed = Vec::new();
        if dir.has(FLAG_INLINE) {
            let mut base = 0_u64;
            for area in self.inline_areas(dir)? {
                self.collect(&area, base, cursor, &mut listed)?;
                base = base.saturating_add(long(area.len()));
            }
            return Ok((cursor < base).then_some((listed, base)));
        }
        let mut next = None;
        let bs = self.sb.block_size;
        self.walk_dir(dir, cursor / bs..u64::MAX, &mut |logical, _, bytes| {
            let base = logical.saturating_mul(bs.get());
            self.collect(bytes, base, cursor, &mut listed)?;
            next = Some(base.saturating_add(bs.get()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next.map(|next| (listed, next)))
    }

    fn collect(&self, bytes: &[u8], base: u64, cursor: u64, listed: &mut Vec<crate::fs::DirEntry>) -> Result<()> {
        let _ = entries(bytes, self.has_filetype(), &mut |entry| {
            let start = base.saturating_add(long(entry.at));
            if entry.is_real() && start >= cursor {
                listed.push(crate::fs::DirEntry {
                    name: entry.name.to_vec(),
                    inode: crate::fs::Inode(u64::from(entry.inode)),
                    kind: entry.kind,
                    cursor: start.saturating_add(long(entry.rec_len)),
                });
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}

/// The stored checksum of a leaf.
fn leaf_tail(bytes: &[u8]) -> u32 {
    le32(bytes, bytes.len().saturating_sub(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        entries(bytes, true, &mut |entry| {
            names.push(entry.name.to_vec());
            ControlFlow::Continue(())
        })
        .map(|_| names)
    }

    fn block(entries: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (rec_len, name) in entries {
            let start = bytes.len();
            bytes.extend(7_u32.to_le_bytes());
            bytes.extend(rec_len.to_le_bytes());
            bytes.push(u8::try_from(name.len()).unwrap());
            bytes.push(1);
            bytes.extend(*name);
            bytes.resize(start.saturating_add(usize::from(*rec_len)), 0);
        }
        bytes
    }

    #[test]
    fn entries_are_read_in_order() {
        assert_eq!(names(&block(&[(12, b"a"), (20, b"longer")])).unwrap(), [&b"a"[..], b"longer"]);
    }

    #[test]
    fn hostile_entry_lengths_are_errors() {
        for rec_len in [0_u16, 1, 4, 7, 8, 13, 40, 0xffff] {
            let mut bytes = block(&[(12, b"abc"), (20, b"b")]);
            crate::disk::bytes::put16(&mut bytes, 4, rec_len);
            assert!(names(&bytes).is_err(), "{rec_len}");
        }
        assert!(names(&[0; 7]).is_err());
    }

    #[test]
    fn hostile_names_are_not_listed() {
        let mut seen = 0;
        let bytes = block(&[(12, b"a/b"), (12, b"a\0"), (12, b".."), (12, b"ok")]);
        let _ = entries(&bytes, true, &mut |entry| {
            seen += i32::from(entry.is_real());
            ControlFlow::Continue(())
        });
        assert_eq!(seen, 1);
    }
}
