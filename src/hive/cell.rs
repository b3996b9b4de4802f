//! The cells that keys and values are made of: `nk`, `vk`, the lists of subkeys, and the pieces of long data.

use super::{Hive, NIL, corrupt};
use crate::disk::bytes::{is_at, le16, le32, le64, u8_at};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes of a key node before its name.
const NODE: usize = 76;

/// Bytes of a value before its name.
const VALUE: usize = 20;

/// A name has at most 64 KiB, since its length is a `u16`.
const LONGEST_NAME: usize = 1 << 16;

/// Bytes of data in each piece but the last.
const PIECE: usize = 16_344;

/// A key node (`nk`).
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) flags: u16,
    pub(super) written: u64,
    pub(super) subkeys: u32,
    pub(super) subkey_list: u32,
    pub(super) values: u32,
    pub(super) value_list: u32,
    pub(super) class: u32,
    pub(super) class_length: u16,
    pub(super) name: String,
}

impl Node {
    pub(super) fn read(hive: &Hive, offset: u32) -> Result<Self> {
        // Nearly all names have fewer than 60 bytes.
        let mut cell = hive.cell(offset, NODE.saturating_add(64))?;
        if !is_at(&cell, 0, b"nk") || cell.len() < NODE {
            return Err(unexpected(&cell, offset, "nk"));
        }
        let length = usize::from(le16(&cell, 72));
        let end = NODE.saturating_add(length);
        if end > cell.len() {
            cell = hive.cell(offset, end)?;
        }
        let name = cell.get(NODE..end).ok_or_else(|| corrupt("a key's name is longer than its cell", offset))?;
        let flags = le16(&cell, 2);
        Ok(Self {
            flags,
            written: le64(&cell, 4),
            subkeys: le32(&cell, 20),
            subkey_list: le32(&cell, 28),
            values: le32(&cell, 36),
            value_list: le32(&cell, 40),
            class: le32(&cell, 48),
            class_length: le16(&cell, 74),
            name: name_of(name, flags & 0x20 != 0),
        })
    }
}

/// A value's cell (`vk`).
#[derive(Clone, Debug)]
pub(super) struct ValueCell {
    pub(super) kind: u32,
    pub(super) name: String,
    /// As stored: the highest bit says that the data are in `data`.
    size: u32,
    data: u32,
    inline: [u8; 4],
}

impl ValueCell {
    pub(super) fn read(hive: &Hive, offset: u32) -> Result<Self> {
        let mut cell = hive.cell(offset, VALUE.saturating_add(64))?;
        if !is_at(&cell, 0, b"vk") || cell.len() < VALUE {
            return Err(unexpected(&cell, offset, "vk"));
        }
        let end = VALUE.saturating_add(usize::from(le16(&cell, 2)));
        if end > cell.len() {
            cell = hive.cell(offset, end)?;
        }
        let name = cell.get(VALUE..end).ok_or_else(|| corrupt("a value's name is longer than its cell", offset))?;
        let data = le32(&cell, 8);
        Ok(Self {
            kind: le32(&cell, 12),
            name: name_of(name, le16(&cell, 16) & 1 != 0),
            size: le32(&cell, 4),
            data,
            inline: data.to_le_bytes(),
        })
    }

    /// Bytes of the data.
    pub(super) fn size(&self) -> usize {
        usize::try_from(self.size & 0x7fff_ffff).unwrap_or(usize::MAX)
    }

    pub(super) fn data(&self, hive: &Hive) -> Result<Vec<u8>> {
        let size = self.size();
        if self.size >> 31 == 1 {
            let data = self.inline.get(..size).ok_or_else(|| corrupt("a value's own data are too long", self.data))?;
            return Ok(data.to_vec());
        }
        if size == 0 {
            return Ok(Vec::new());
        }
        if size > limits::MAX_HIVE_VALUE {
            return Err(Error::limit("hive.limit", "a value is larger than any that makes sense")
                .expected(format!("at most {} bytes", limits::MAX_HIVE_VALUE))
                .found(size));
        }
        // A cell of data may begin as one of pieces does, but is never that long where pieces exist.
        if size > PIECE && hive.facts.minor > 3 {
            return pieces(hive, self.data, size);
        }
        let data = hive.cell(self.data, size)?;
        if data.len() == size { Ok(data) } else { Err(corrupt("a value's data are longer than their cell", self.data)) }
    }
}

/// Data in pieces (`db`).
fn pieces(hive: &Hive, offset: u32, size: usize) -> Result<Vec<u8>> {
    let cell = hive.cell(offset, 8)?;
    if !is_at(&cell, 0, b"db") {
        return Err(unexpected(&cell, offset, "db"));
    }
    let (count, list) = (usize::from(le16(&cell, 2)), le32(&cell, 4));
    let mut data = Vec::with_capacity(size);
    for piece in words(&hive.cell(list, count.saturating_mul(4))?) {
        let length = size.saturating_sub(data.len()).min(PIECE);
        let content = hive.cell(piece, length)?;
        if content.len() < length {
            return Err(corrupt("a piece of a value's data is too short", piece));
        }
        data.extend_from_slice(&content);
    }
    if data.len() == size { Ok(data) } else { Err(corrupt("a value's data are not all there", offset)) }
}

/// An entry in a list of subkeys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) offset: u32,
    /// The hash of the name in upper case, where the list has hashes (`lh`).
    pub(super) hash: Option<u32>,
}

/// The list of `count` subkeys at `offset`.
pub(super) fn subkeys(hive: &Hive, offset: u32, count: u32) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if count == 0 || offset == NIL {
        return Ok(entries);
    }
    let most = usize::try_from(count).unwrap_or(usize::MAX).min(limits::MAX_HIVE_SUBKEYS);
    let cell = hive.cell(offset, 4)?;
    if is_at(&cell, 0, b"ri") {
        let lists = usize::from(le16(&cell, 2));
        for list in words(hive.cell(offset, lists.saturating_mul(4).saturating_add(4))?.get(4..).unwrap_or_default()) {
            leaf(hive, list, &mut entries)?;
            if entries.len() > limits::MAX_HIVE_SUBKEYS {
                break;
            }
        }
    } else {
        leaf(hive, offset, &mut entries)?;
    }
    if entries.len() > limits::MAX_HIVE_SUBKEYS {
        return Err(Error::limit("hive.limit", "a key has more subkeys than this program reads")
            .expected(format!("at most {}", limits::MAX_HIVE_SUBKEYS))
            .found(count));
    }
    // A list may be longer than the key says: the rest is not in use.
    entries.truncate(most);
    Ok(entries)
}

fn leaf(hive: &Hive, offset: u32, entries: &mut Vec<Entry>) -> Result<()> {
    let head = hive.cell(offset, 4)?;
    let (count, has_hashes) = (usize::from(le16(&head, 2)), is_at(&head, 0, b"lh"));
    let width = match head.get(..2) {
        Some(b"lf" | b"lh") => 8_usize,
        Some(b"li") => 4,
        _ => return Err(unexpected(&head, offset, "lf, lh, li or ri")),
    };
    let cell = hive.cell(offset, count.saturating_mul(width).saturating_add(4))?;
    let list = cell.get(4..).unwrap_or_default();
    if list.len() < count.saturating_mul(width) {
        return Err(corrupt("a list of subkeys is longer than its cell", offset));
    }
    let entry = |bytes: &[u8]| Entry { offset: le32(bytes, 0), hash: has_hashes.then(|| le32(bytes, 4)) };
    entries.extend(list.chunks_exact(width).map(entry));
    Ok(())
}

/// The offsets of a key's `count` values.
pub(super) fn values(hive: &Hive, offset: u32, count: u32) -> Result<Vec<u32>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if wanted > limits::MAX_HIVE_VALUES {
        return Err(Error::limit("hive.limit", "a key has more values than this program reads")
            .expected(format!("at most {}", limits::MAX_HIVE_VALUES))
            .found(count));
    }
    let cell = hive.cell(offset, wanted.saturating_mul(4))?;
    let offsets: Vec<u32> = words(&cell).collect();
    if offsets.len() == wanted { Ok(offsets) } else { Err(corrupt("a list of values is longer than its cell", offset)) }
}

/// The hash of a name in lists of the kind `lh`; `None` for names whose upper case depends on tables of Windows.
pub(super) fn hash(name: &str) -> Option<u32> {
    let step = |hash: u32, byte: u8| hash.wrapping_mul(37).wrapping_add(u32::from(byte.to_ascii_uppercase()));
    name.is_ascii().then(|| name.bytes().fold(0, step))
}

/// A key's class.
pub(super) fn class(hive: &Hive, node: &Node) -> Result<Option<String>> {
    if node.class == NIL || node.class_length == 0 {
        return Ok(None);
    }
    let bytes = hive.cell(node.class, usize::from(node.class_length).min(LONGEST_NAME))?;
    Ok(Some(super::value::text(&bytes)))
}

/// A name: bytes that stand for the first 256 characters each, or UTF-16.
fn name_of(bytes: &[u8], is_compressed: bool) -> String {
    if is_compressed {
        return bytes.iter().copied().map(char::from).collect();
    }
    super::value::lossy(bytes)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|word| le32(word, 0))
}

fn unexpected(cell: &[u8], offset: u32, expected: &str) -> Error {
    let found = [u8_at(cell, 0), u8_at(cell, 1)];
    corrupt("a cell is not of the kind that it should be", offset).expected(expected).found(found.escape_ascii())
}
