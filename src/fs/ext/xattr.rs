//! Extended attributes: in the inode behind its fields, in a block of their own, or with their value in an inode of its own.

use super::acl;
use super::checksum::crc32c;
use super::corrupt;
use super::node::{FLAG_EA_INODE, Node};
use super::view::View;
use crate::disk::bytes::{le16, le32, long, put, put16, put32, size, u8_at};
use crate::error::{Error, Result};
use crate::limits;

const MAGIC: u32 = 0xea02_0000;
/// Bytes of an entry before its name.
const ENTRY: usize = 16;
/// Bytes of the header of an attribute block.
const HEADER: usize = 32;
/// The index and name of what inline data keeps behind `i_block`.
const SYSTEM: u8 = 7;
const DATA: &[u8] = b"data";

/// The prefixes of names by index. Indexes that are not listed are the kernel's own.
const PREFIXES: &[(u8, &str)] = &[
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (7, "system."),
    (8, "system.richacl"),
];
const ACLS: [u8; 2] = [2, 3];

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Value,
    hash: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Here(Vec<u8>),
    /// In the content of an inode.
    Inode {
        number: u32,
        len: u32,
    },
}

impl Attribute {
    fn is(&self, index: u8, name: &[u8]) -> bool {
        self.index == index && self.name == name
    }

    /// Bytes that the entry takes.
    fn entry_len(&self) -> usize {
        padded(ENTRY.saturating_add(self.name.len()))
    }

    /// Bytes that the value takes beside the entries.
    fn value_len(&self) -> usize {
        match &self.value {
            Value::Here(value) => padded(value.len()),
            Value::Inode { .. } => 0,
        }
    }
}

fn padded(len: usize) -> usize {
    len.saturating_add(3) & !3
}

/// The index and the rest of a full name.
fn split(full: &[u8]) -> Option<(u8, &[u8])> {
    let exact = PREFIXES.iter().find(|(_, prefix)| prefix.as_bytes() == full && !prefix.ends_with('.'));
    if let Some((index, _)) = exact {
        return Some((*index, b""));
    }
    let (index, prefix) = PREFIXES.iter().find(|(_, p)| p.ends_with('.') && full.starts_with(p.as_bytes()))?;
    let name = full.get(prefix.len()..)?;
    (!name.is_empty() && name.len() <= 255).then_some((*index, name))
}

impl View<'_> {
    /// All attributes that a user can see: full name and value, sorted by name.
    pub(super) fn attributes(&self, node: &Node) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        for attribute in self.in_node(node)?.into_iter().chain(self.in_block(node)?) {
            let Some((_, prefix)) = PREFIXES.iter().find(|(index, _)| *index == attribute.index) else {
                continue;
            };
            if attribute.is(SYSTEM, DATA) {
                continue;
            }
            let value = self.value(&attribute)?;
            let value = if ACLS.contains(&attribute.index) { acl::to_user(&value)? } else { value };
            all.push(([prefix.as_bytes(), &attribute.name].concat(), value));
        }
        all.sort();
        Ok(all)
    }

    /// What an inline file or directory keeps behind `i_block`.
    pub(super) fn inline_rest(&self, node: &Node) -> Result<Vec<u8>> {
        match self.in_node(node)?.iter().find(|attribute| attribute.is(SYSTEM, DATA)) {
            Some(attribute) => self.value(attribute),
            None => Ok(Vec::new()),
        }
    }

    fn value(&self, attribute: &Attribute) -> Result<Vec<u8>> {
        match &attribute.value {
            Value::Here(value) => Ok(value.clone()),
            Value::Inode { number, len } => {
                let node = self.node(*number)?;
                if !node.has(FLAG_EA_INODE) || node.size(&self.sb) != u64::from(*len) || *len > limits::MAX_EXT_XATTR {
                    return Err(corrupt(format!("inode {number} does not hold an attribute's value")));
                }
                let mut value = vec![0; size(u64::from(*len))];
                self.read_content(&node, &mut value, 0)?;
                Ok(value)
            }
        }
    }

    /// The part of the inode that attributes may use, magic number included.
    fn area(node: &Node) -> &[u8] {
        let extra = node.extra_isize();
        if extra == 0 {
            return &[];
        }
        node.raw.get(extra.saturating_add(128)..).unwrap_or_default()
    }

    pub(super) fn in_node(&self, node: &Node) -> Result<Vec<Attribute>> {
        let area = Self::area(node);
        if le32(area, 0) != MAGIC {
            return Ok(Vec::new());
        }
        let entries = area.get(4..).unwrap_or_default();
        parse(entries, entries).ok_or_else(|| corrupt(format!("the attributes of inode {} are damaged", node.number)))
    }

    pub(super) fn in_block(&self, node: &Node) -> Result<Vec<Attribute>> {
        let block = node.xattr_block(&self.sb);
        if block == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.xattr_bytes(block)?;
        parse(bytes.get(HEADER..).unwrap_or_default(), &bytes)
            .ok_or_else(|| self.corrupt_at(block, format!("the attributes of inode {} are damaged", node.number)))
    }

    /// The attribute block `number`, its magic number and checksum verified.
    fn xattr_bytes(&self, number: u64) -> Result<super::view::Block> {
        if !self.sb.contains(number, 1) {
            return Err(corrupt("an attribute block lies outside of the file system").found(number));
        }
        let bytes = self.block(number)?;
        if le32(&bytes, 0) != MAGIC || le32(&bytes, 8) != 1 {
            return Err(self.corrupt_at(number, "not an attribute block"));
        }
        if self.sb.has_csum() && le32(&bytes, 16) != self.xattr_sum(number, &bytes) {
            return Err(self.bad_checksum(number, "an attribute block"));
        }
        Ok(bytes)
    }

    fn xattr_sum(&self, number: u64, bytes: &[u8]) -> u32 {
        let (head, rest) = bytes.split_at_checked(16).unwrap_or_default();
        let rest = rest.get(4..).unwrap_or_default();
        [&number.to_le_bytes()[..], head, &[0; 4], rest].into_iter().fold(self.sb.seed, crc32c)
    }

    /// Sets the attribute with the full name `full`, or removes it when there is no `value`.
    pub(super) fn set_attribute(&mut self, node: &mut Node, full: &[u8], value: Option<&[u8]>) -> Result<()> {
        let (index, name) =
            split(full).filter(|(index, name)| !(*index == SYSTEM && *name == DATA)).ok_or_else(|| {
                Error::unsupported(
                    "ext.xattr",
                    format!("{} is not an attribute name", crate::error::escape_bytes(full)),
                )
            })?;
        let value = match value {
            Some(value) if ACLS.contains(&index) => Some(acl::to_disk(value)?),
            other => other.map(<[u8]>::to_vec),
        };
        let (mut inside, mut outside) = (self.in_node(node)?, self.in_block(node)?);
        for list in [&mut inside, &mut outside] {
            if list.iter().any(|a| a.is(index, name) && matches!(a.value, Value::Inode { .. })) {
                return Err(Error::unsupported("ext.xattr", "an attribute whose value has an inode cannot be changed"));
            }
            list.retain(|attribute| !attribute.is(index, name));
        }
        if let Some(value) = value {
            let new = Attribute { index, name: name.to_vec(), value: Value::Here(value), hash: 0 };
            inside.push(new);
            if !fits(&inside, Self::area(node).len().saturating_sub(4)) {
                outside.extend(inside.pop());
            }
        }
        self.put_in_node(node, &inside);
        self.put_in_block(node, outside)
    }

    /// Takes away what inline data keeps behind `i_block`.
    pub(super) fn drop_inline_rest(&mut self, node: &mut Node) -> Result<()> {
        let mut inside = self.in_node(node)?;
        inside.retain(|attribute| !attribute.is(SYSTEM, DATA));
        self.put_in_node(node, &inside);
        Ok(())
    }

    fn put_in_node(&self, node: &mut Node, attributes: &[Attribute]) {
        let extra = node.extra_isize();
        if extra == 0 {
            return;
        }
        let mut area = vec![0; node.raw.len().saturating_sub(extra).saturating_sub(128)];
        if !attributes.is_empty() {
            put32(&mut area, 0, MAGIC);
            encode(area.get_mut(4..).unwrap_or_default(), 0, attributes, false);
        }
        put(&mut node.raw, extra.saturating_add(128), &area);
    }

    /// Stores `attributes` in the block of `node`: a new one if there is none or if it is shared; none if the list is empty.
    fn put_in_block(&mut self, node: &mut Node, mut attributes: Vec<Attribute>) -> Result<()> {
        let old = node.xattr_block(&self.sb);
        if attributes == self.in_block(node)? {
            return Ok(());
        }
        if !attributes.is_empty() && !fits(&attributes, self.sb.block_len().saturating_sub(HEADER)) {
            return Err(Error::unsupported("ext.xattr", "the attributes of a file do not fit in one block"));
        }
        if old != 0 {
            self.release_xattr_block(node)?;
        }
        if attributes.is_empty() {
            return Ok(());
        }
        attributes.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
        let goal = self.sb.group_start(self.group_of_node(node.number));
        let block = self.allocate_one(if old == 0 { goal } else { old })?;
        let mut bytes = vec![0; self.sb.block_len()];
        put32(&mut bytes, 0, MAGIC);
        put32(&mut bytes, 4, 1);
        put32(&mut bytes, 8, 1);
        encode(&mut bytes, HEADER, &attributes, true);
        let hash = block_hash(&bytes);
        put32(&mut bytes, 12, hash);
        if self.sb.has_csum() {
            let sum = self.xattr_sum(block, &bytes);
            put32(&mut bytes, 16, sum);
        }
        self.put(block, bytes);
        node.set_xattr_block(block);
        node.count_blocks(&self.sb.clone(), 1, 0);
        if self.sb.compat() & super::features::COMPAT_EXT_ATTR == 0 {
            self.edit_sb().add_compat(super::features::COMPAT_EXT_ATTR);
        }
        Ok(())
    }

    /// Takes the attribute block away from `node`; the last user frees it.
    pub(super) fn release_xattr_block(&mut self, node: &mut Node) -> Result<()> {
        let block = node.xattr_block(&self.sb);
        if block == 0 {
            return Ok(());
        }
        let mut bytes = self.xattr_bytes(block)?.to_vec();
        match le32(&bytes, 4) {
            0 | 1 => self.free(block, 1)?,
            users => {
                put32(&mut bytes, 4, users.saturating_sub(1));
                if self.sb.has_csum() {
                    let sum = self.xattr_sum(block, &bytes);
                    put32(&mut bytes, 16, sum);
                }
                self.put(block, bytes);
            }
        }
        node.set_xattr_block(0);
        node.count_blocks(&self.sb.clone(), 0, 1);
        Ok(())
    }

    /// Whether an attribute of `node` has its value in an inode.
    pub(super) fn has_value_inodes(&self, node: &Node) -> Result<bool> {
        let all = self.in_node(node)?.into_iter().chain(self.in_block(node)?);
        Ok(all.into_iter().any(|attribute| matches!(attribute.value, Value::Inode { .. })))
    }
}

/// Reads `entries` up to the terminator; values lie in `values`. `None` when something points outside.
fn parse(entries: &[u8], values: &[u8]) -> Option<Vec<Attribute>> {
    let mut attributes = Vec::new();
    let mut at = 0_usize;
    loop {
        let entry = entries.get(at..)?;
        // Fewer than four bytes end the list as a terminator does.
        if entry.len() < 4 || le32(entry, 0) == 0 {
            return Some(attributes);
        }
        let name_len = usize::from(u8_at(entry, 0));
        let name = entry.get(ENTRY..)?.get(..name_len)?.to_vec();
        let (inode, len) = (le32(entry, 4), le32(entry, 8));
        let value = if inode != 0 {
            Value::Inode { number: inode, len }
        } else if len == 0 {
            Value::Here(Vec::new())
        } else {
            Value::Here(values.get(usize::from(le16(entry, 2))..)?.get(..size(u64::from(len)))?.to_vec())
        };
        attributes.push(Attribute { index: u8_at(entry, 1), name, value, hash: le32(entry, 12) });
        at = at.checked_add(padded(ENTRY.saturating_add(name_len)))?;
    }
}

/// Whether `attributes` fit in `room` bytes with their terminator.
fn fits(attributes: &[Attribute], room: usize) -> bool {
    let needed = attributes
        .iter()
        .map(|attribute| attribute.entry_len().saturating_add(attribute.value_len()))
        .fold(4, usize::saturating_add);
    needed <= room
}

/// Writes entries from `at` on and values from the end back. The caller has made sure that they fit.
fn encode(bytes: &mut [u8], at: usize, attributes: &[Attribute], hashed: bool) {
    let (mut at, mut end) = (at, bytes.len());
    for attribute in attributes {
        let mut entry = vec![0; attribute.entry_len()];
        put(&mut entry, 0, &[u8::try_from(attribute.name.len()).unwrap_or(0), attribute.index]);
        put(&mut entry, ENTRY, &attribute.name);
        let mut hash = attribute.hash;
        match &attribute.value {
            Value::Inode { number, len } => {
                put32(&mut entry, 4, *number);
                put32(&mut entry, 8, *len);
            }
            Value::Here(value) => {
                put32(&mut entry, 8, u32::try_from(value.len()).unwrap_or(u32::MAX));
                if !value.is_empty() {
                    end = end.saturating_sub(attribute.value_len());
                    put(bytes, end, value);
                    put16(&mut entry, 2, u16::try_from(end).unwrap_or(0));
                }
                hash = if hashed { entry_hash(&attribute.name, value) } else { 0 };
            }
        }
        put32(&mut entry, 12, hash);
        put(bytes, at, &entry);
        at = at.saturating_add(entry.len());
    }
}

/// `e_hash` of an attribute whose value is in the block.
fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let hash = name.iter().fold(0_u32, |hash, c| (hash << 5) ^ (hash >> 27) ^ u32::from(*c));
    value.chunks(4).fold(hash, |hash, chunk| {
        let mut word = [0; 4];
        put(&mut word, 0, chunk);
        (hash << 16) ^ (hash >> 16) ^ u32::from_le_bytes(word)
    })
}

/// `h_hash` of an attribute block; 0 when an entry has none, which keeps the block from being shared.
fn block_hash(bytes: &[u8]) -> u32 {
    let Some(attributes) = parse(bytes.get(HEADER..).unwrap_or_default(), bytes) else {
        return 0;
    };
    if attributes.iter().any(|attribute| attribute.hash == 0) {
        return 0;
    }
    attributes.iter().fold(0, |hash: u32, attribute| (hash << 16) ^ (hash >> 16) ^ attribute.hash)
}

impl View<'_> {
    /// The content of an inline file, `len` bytes from `offset` that lie within its size.
    pub(super) fn read_inline(&self, node: &Node, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut content = node.map().to_vec();
        content.extend(self.inline_rest(node)?);
        content.resize(content.len().max(size(node.size(&self.sb)).min(limits::MAX_EXT_INLINE)), 0);
        let from = size(offset);
        let part = content.get(from..).and_then(|rest| rest.get(..buf.len()));
        let part = part.ok_or_else(|| {
            corrupt(format!("inode {} is larger than what it holds", node.number)).found(long(content.len()))
        })?;
        buf.copy_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &str, len: usize) -> Attribute {
        Attribute { index: 1, name: name.as_bytes().to_vec(), value: Value::Here(vec![7; len]), hash: 0 }
    }

    #[test]
    fn names_are_split_as_the_kernel_does() {
        assert_eq!(split(b"security.selinux"), Some((6, &b"selinux"[..])));
        assert_eq!(split(b"system.posix_acl_access"), Some((2, &b""[..])));
        assert_eq!(split(b"system.data"), Some((7, &b"data"[..])));
        assert_eq!(split(b"user."), None);
        assert_eq!(split(b"other.x"), None);
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        let list = [attribute("a", 0), attribute("longer", 5), attribute("b", 8)];
        let mut bytes = vec![0; 128];
        assert!(fits(&list, 128 - 32));
        encode(&mut bytes, 32, &list, true);
        let mut parsed = parse(&bytes[32..], &bytes).unwrap();
        parsed.iter_mut().for_each(|attribute| attribute.hash = 0);
        assert_eq!(parsed, list);
        let needed: usize = 4 + 20 + 24 + 8 + 20 + 8;
        assert!(fits(&list, needed));
        assert!(!fits(&list, needed - 1));
    }

    #[test]
    fn hostile_entries_are_refused_at_every_byte() {
        let list = [attribute("name", 20), attribute("other", 3)];
        let mut good = vec![0; 96];
        encode(&mut good, 0, &list, true);
        for at in 0..96 {
            for value in [0x00, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = parse(&bytes, &bytes);
            }
        }
        for len in 0..20 {
            let _ = parse(&good[..len], &good[..len]);
        }
        assert!(parse(&[9, 1, 0, 0, 0, 0], &[]).is_none());
    }
}
