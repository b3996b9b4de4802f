//! The content of directory blocks ("Directory Data Blocks"): entries, what is free between them, and the index at the end of
//! a directory that is one block.

use crate::disk::bytes::{be16, be32, be64, put, put_be32, put_be64, u8_at};
use crate::error::{Error, Result};
use crate::fs::xfs::{block, corrupt};

/// Marks unused space.
const UNUSED: u16 = 0xffff;
/// Bytes of the smallest entry and of the smallest unused space.
const LEAST: usize = 8;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: Vec<u8>,
    pub(super) inode: u64,
    /// The kind of file as directories have it.
    pub(super) ftype: u8,
}

/// Hashes of names with their addresses.
pub(super) type Leaf = Vec<(u32, u32)>;

/// How a file system's directory blocks are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Bytes of a block.
    pub(super) len: usize,
    pub(super) is_v5: bool,
    pub(super) has_ftype: bool,
    pub(super) ignores_case: bool,
}

/// A piece of a block.
struct Piece {
    at: usize,
    len: usize,
    is_used: bool,
}

impl Shape {
    /// Bytes before the entries.
    pub(super) fn header(self) -> usize {
        if self.is_v5 { 64 } else { 16 }
    }

    /// Bytes that an entry with a name of `len` bytes takes.
    pub(super) fn entry_len(self, len: usize) -> usize {
        len.saturating_add(11).saturating_add(usize::from(self.has_ftype)).next_multiple_of(8)
    }

    pub(super) fn hash(self, name: &[u8]) -> u32 {
        use crate::fs::xfs::da::hash;
        if self.ignores_case { hash(&name.to_ascii_lowercase()) } else { hash(name) }
    }

    /// Bytes that all of `names` take as a directory of one block.
    pub(super) fn one_block_len(self, names: &[Name]) -> usize {
        let entries = names.iter().map(|name| self.entry_len(name.name.len()).saturating_add(8));
        entries.fold(self.header().saturating_add(8), usize::saturating_add)
    }

    /// A block of kind `magic` with `names` one after the other, and where each is.
    fn packed(self, magic: u32, names: &[Name], end: usize) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = vec![0; self.len];
        put_be32(&mut bytes, 0, magic);
        let mut places = Vec::with_capacity(names.len());
        let mut at = self.header();
        for name in names {
            places.push(at);
            at = at.saturating_add(self.put_entry(&mut bytes, at, name));
        }
        put_free(&mut bytes, at, end.saturating_sub(at));
        (bytes, places)
    }

    /// A directory of one block, which has room for `names`.
    pub(super) fn one_block(self, names: &[Name]) -> Result<Vec<u8>> {
        let magic = if self.is_v5 { block::DIR_BLOCK_V5 } else { block::DIR_BLOCK_V4 };
        let tail = self.len.saturating_sub(8);
        let end = tail.saturating_sub(names.len().saturating_mul(8));
        let (mut bytes, places) = self.packed(magic, names, end);
        let mut leaf: Leaf =
            names.iter().zip(&places).map(|(name, at)| (self.hash(&name.name), address(0, *at))).collect();
        leaf.sort_unstable();
        put(&mut bytes, end, &pairs(&leaf));
        put_be32(&mut bytes, tail, u32::try_from(names.len()).unwrap_or(u32::MAX));
        self.note_best(&mut bytes)?;
        Ok(bytes)
    }

    /// The first block of a directory with an index, and the index of `names`.
    pub(super) fn first_block(self, names: &[Name]) -> Result<(Vec<u8>, Leaf)> {
        let (mut bytes, places) = self.packed(self.data_magic(), names, self.len);
        self.note_best(&mut bytes)?;
        let leaf = names.iter().zip(&places).map(|(name, at)| (self.hash(&name.name), address(0, *at))).collect();
        Ok((bytes, leaf))
    }

    /// A block without entries.
    pub(super) fn empty(self) -> Result<Vec<u8>> {
        self.first_block(&[]).map(|(bytes, _)| bytes)
    }

    fn data_magic(self) -> u32 {
        if self.is_v5 { block::DIR_DATA_V5 } else { block::DIR_DATA_V4 }
    }

    pub(super) fn is_one_block(self, bytes: &[u8]) -> bool {
        be32(bytes, 0) == if self.is_v5 { block::DIR_BLOCK_V5 } else { block::DIR_BLOCK_V4 }
    }

    /// The names in a block, in the order of their places.
    pub(super) fn names(self, bytes: &[u8]) -> Result<Vec<Name>> {
        let used = self.pieces(bytes)?.into_iter().filter(|piece| piece.is_used);
        used.map(|piece| self.entry(bytes, piece.at)).collect()
    }

    /// The name at `at`.
    pub(super) fn entry(self, bytes: &[u8], at: usize) -> Result<Name> {
        let rest = bytes.get(at..).unwrap_or_default();
        let len = usize::from(u8_at(rest, 8));
        let name = rest.get(9..).and_then(|rest| rest.get(..len)).ok_or_else(cut)?.to_vec();
        let ftype = if self.has_ftype { u8_at(rest, len.saturating_add(9)) } else { 0 };
        Ok(Name { name, inode: be64(rest, 0), ftype })
    }

    /// Puts another inode under the name at `at`.
    pub(super) fn redirect(bytes: &mut [u8], at: usize, inode: u64) {
        put_be64(bytes, at, inode);
    }

    /// Where `name` is.
    pub(super) fn find(self, bytes: &[u8], name: &[u8]) -> Result<Option<usize>> {
        for piece in self.pieces(bytes)?.iter().filter(|piece| piece.is_used) {
            if self.entry(bytes, piece.at)?.name == name {
                return Ok(Some(piece.at));
            }
        }
        Ok(None)
    }

    /// Adds a name where there is room; tells where.
    pub(super) fn insert(self, bytes: &mut [u8], name: &Name) -> Result<Option<usize>> {
        let len = self.entry_len(name.name.len());
        let Some(free) = self.pieces(bytes)?.into_iter().find(|piece| !piece.is_used && piece.len >= len) else {
            return Ok(None);
        };
        self.put_entry(bytes, free.at, name);
        put_free(bytes, free.at.saturating_add(len), free.len.saturating_sub(len));
        self.note_best(bytes)?;
        Ok(Some(free.at))
    }

    /// Removes the name at `at`.
    pub(super) fn remove(self, bytes: &mut [u8], at: usize) -> Result<()> {
        let pieces = self.pieces(bytes)?;
        let index = pieces.iter().position(|piece| piece.at == at && piece.is_used);
        let index = index.ok_or_else(|| corrupt("the index of a directory points to no entry"))?;
        let beside = |index: Option<usize>| index.and_then(|index| pieces.get(index)).filter(|piece| !piece.is_used);
        let here = pieces.get(index).map_or(0, |piece| piece.len);
        let before = beside(index.checked_sub(1));
        let after = beside(index.checked_add(1)).map_or(0, |piece| piece.len);
        let start = before.map_or(at, |piece| piece.at);
        let len = before.map_or(0, |piece| piece.len).saturating_add(here).saturating_add(after);
        put_free(bytes, start, len);
        self.note_best(bytes)
    }

    /// The longest unused space, as a block says.
    pub(super) fn best(self, bytes: &[u8]) -> u16 {
        be16(bytes, if self.is_v5 { 50 } else { 6 })
    }

    /// Whether no name is left in a block.
    pub(super) fn is_empty(self, bytes: &[u8]) -> bool {
        usize::from(self.best(bytes)) == self.len.saturating_sub(self.header())
    }

    fn put_entry(self, bytes: &mut [u8], at: usize, name: &Name) -> usize {
        let len = self.entry_len(name.name.len());
        if let Some(room) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..len)) {
            room.fill(0);
            put_be64(room, 0, name.inode);
            put(room, 8, &[u8::try_from(name.name.len()).unwrap_or(u8::MAX)]);
            put(room, 9, &name.name);
            if self.has_ftype {
                put(room, name.name.len().saturating_add(9), &[name.ftype]);
            }
            put(room, len.saturating_sub(2), &tag(at));
        }
        len
    }

    fn pieces(self, bytes: &[u8]) -> Result<Vec<Piece>> {
        let end = if self.is_one_block(bytes) {
            let tail = self.len.saturating_sub(8);
            let count = usize::try_from(be32(bytes, tail)).unwrap_or(usize::MAX);
            tail.checked_sub(count.saturating_mul(8)).ok_or_else(cut)?
        } else {
            self.len
        };
        let mut pieces = Vec::new();
        let mut at = self.header();
        while at < end {
            let is_used = be16(bytes, at) != UNUSED;
            let len = match is_used {
                true => self.entry_len(usize::from(u8_at(bytes, at.saturating_add(8)))),
                false => usize::from(be16(bytes, at.saturating_add(2))),
            };
            let next = at.saturating_add(len);
            if len < LEAST || !len.is_multiple_of(8) || next > end {
                return Err(cut());
            }
            pieces.push(Piece { at, len, is_used });
            at = next;
        }
        Ok(pieces)
    }

    /// Notes the three longest unused spaces in a block's header.
    fn note_best(self, bytes: &mut [u8]) -> Result<()> {
        let mut free: Vec<Piece> = self.pieces(bytes)?.into_iter().filter(|piece| !piece.is_used).collect();
        free.sort_by_key(|piece| std::cmp::Reverse(piece.len));
        let base = if self.is_v5 { 48_usize } else { 4 };
        for index in 0..3_usize {
            let (at, len) = free.get(index).map_or((0, 0), |piece| (piece.at, piece.len));
            let place = base.saturating_add(index.saturating_mul(4));
            put(bytes, place, &tag(at));
            put(bytes, place.saturating_add(2), &tag(len));
        }
        Ok(())
    }
}

/// The address of the entry at `at` of directory block `number` of `len` bytes, in eights.
pub(super) fn address_in(number: u64, len: usize, at: usize) -> u32 {
    let bytes = number.saturating_mul(crate::disk::bytes::long(len)).saturating_add(crate::disk::bytes::long(at));
    u32::try_from(bytes >> 3).unwrap_or(u32::MAX)
}

fn address(number: u64, at: usize) -> u32 {
    address_in(number, 0, at)
}

/// Hashes and addresses as an index has them.
pub(super) fn pairs(all: &[(u32, u32)]) -> Vec<u8> {
    all.iter().flat_map(|(hash, address)| [hash.to_be_bytes(), address.to_be_bytes()]).flatten().collect()
}

fn put_free(bytes: &mut [u8], at: usize, len: usize) {
    if len >= LEAST
        && let Some(room) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..len))
    {
        room.fill(0);
        put(room, 0, &UNUSED.to_be_bytes());
        put(room, 2, &tag(len));
        put(room, len.saturating_sub(2), &tag(at));
    }
}

fn tag(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

fn cut() -> Error {
    corrupt("a directory block contradicts itself")
}
