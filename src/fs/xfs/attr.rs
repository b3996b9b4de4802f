//! Extended attributes ("Extended Attributes"): in the inode, in leaves, and values in blocks of their own.

use std::collections::HashSet;

use super::node::{Fork, Format, Node};
use super::view::View;
use super::{acl, block, corrupt};
use crate::disk::bytes::{be16, be32, long, size, u8_at};
use crate::error::{Error, Result};
use crate::limits;

/// Flags of an entry: the value is beside the name; namespaces; a change that was not finished.
pub(super) const LOCAL: u8 = 0x1;
pub(super) const ROOT: u8 = 0x2;
pub(super) const SECURE: u8 = 0x4;
/// Of names that files know: the attribute's name is the file's, its value the directory.
pub(super) const PARENT: u8 = 0x8;
const INCOMPLETE: u8 = 0x80;
/// What tells attributes of one name apart.
pub(super) const NAMESPACES: u8 = ROOT | SECURE | PARENT;
/// Bytes of the longest value.
pub(super) const MAX_VALUE: u32 = 64 << 10;
/// Bytes before a remote value's part in a block of version 5.
pub(super) const REMOTE_HEADER: usize = 56;

/// Names and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// An attribute as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// The namespace.
    pub(super) flags: u8,
    /// Without the namespace.
    pub(super) name: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// What is collected, with a bound.
#[derive(Default)]
struct Collected {
    all: Vec<Raw>,
    bytes: u64,
}

impl Collected {
    fn add(&mut self, node: &Node, flags: u8, name: &[u8], value: impl FnOnce() -> Result<Vec<u8>>) -> Result<()> {
        if flags & INCOMPLETE != 0 {
            return Ok(());
        }
        if name.is_empty() || name.contains(&0) {
            return Err(damaged(node, "a name is impossible"));
        }
        let value = value()?;
        let flags = flags & NAMESPACES;
        if flags.count_ones() > 1 {
            return Err(damaged(node, "an entry is in two namespaces"));
        }
        self.bytes = self.bytes.saturating_add(long(name.len()).saturating_add(long(value.len())));
        if self.bytes > limits::MAX_XFS_XATTRS {
            return Err(Error::limit("xfs.limit", format!("the attributes of inode {} are too long", node.number)));
        }
        self.all.push(Raw { flags, name: name.to_vec(), value });
        Ok(())
    }
}

impl View<'_> {
    /// All extended attributes of an inode, sorted by name.
    pub(super) fn attributes(&self, node: &Node) -> Result<Pairs> {
        let mut pairs = Pairs::new();
        for Raw { flags, name, value } in self.raw_attributes(node)? {
            let prefix: &[u8] = match flags {
                PARENT => continue,
                ROOT => b"trusted.",
                SECURE => b"security.",
                _ => b"user.",
            };
            if flags == ROOT
                && let Some(shown) = acl::shown_as(&name)
            {
                pairs.push((shown.to_vec(), acl::to_user(&value)?));
            }
            pairs.push(([prefix, &name].concat(), value));
        }
        pairs.sort();
        Ok(pairs)
    }

    /// All extended attributes of an inode as they are stored, with the names that it knows, but for those that a crash left half
    /// made.
    pub(super) fn raw_attributes(&self, node: &Node) -> Result<Vec<Raw>> {
        let mut all = Collected::default();
        if !node.fork_range(Fork::Attr).is_empty() {
            match node.format(Fork::Attr)? {
                Format::Local => self.short_attributes(node, &mut all)?,
                Format::Extents if node.extents(Fork::Attr) == 0 => {}
                _ => self.leaf_attributes(node, &mut all)?,
            }
        }
        Ok(all.all)
    }

    fn short_attributes(&self, node: &Node, all: &mut Collected) -> Result<()> {
        let area = node.fork(Fork::Attr);
        let cut = || damaged(node, "an entry is cut short");
        let bytes = area.get(..usize::from(be16(area, 0))).ok_or_else(cut)?;
        let mut rest = bytes.get(4..).unwrap_or_default();
        for _ in 0..u8_at(bytes, 2) {
            let (namelen, valuelen) = (usize::from(u8_at(rest, 0)), usize::from(u8_at(rest, 1)));
            let flags = u8_at(rest, 2);
            let (name, after) = rest.get(3..).and_then(|rest| rest.split_at_checked(namelen)).ok_or_else(cut)?;
            let (value, next) = after.split_at_checked(valuelen).ok_or_else(cut)?;
            all.add(node, flags, name, || Ok(value.to_vec()))?;
            rest = next;
        }
        Ok(())
    }

    fn leaf_attributes(&self, node: &Node, all: &mut Collected) -> Result<()> {
        let mut leaf = self.da_leaf(node, Fork::Attr, 0, None)?;
        let mut seen = HashSet::new();
        loop {
            self.one_leaf(node, &leaf, all)?;
            let next = be32(&leaf, 0);
            if next == 0 {
                return Ok(());
            }
            go_on(node, &mut seen, next)?;
            leaf = self.da_block(node, Fork::Attr, u64::from(next))?;
        }
    }

    fn one_leaf(&self, node: &Node, leaf: &[u8], all: &mut Collected) -> Result<()> {
        let (magic, count_at, header) =
            if self.sb.has_crc() { (block::ATTR_LEAF_V5, 56, 80) } else { (block::ATTR_LEAF_V4, 12, 32) };
        let entries = leaf.get(header..).unwrap_or_default();
        let count = usize::from(be16(leaf, count_at));
        if be16(leaf, 8) != magic || count > entries.len() / 8 {
            return Err(damaged(node, "a leaf contradicts itself"));
        }
        for index in 0..count {
            let at = index.saturating_mul(8);
            let flags = u8_at(entries, at.saturating_add(6));
            let place = usize::from(be16(entries, at.saturating_add(4)));
            let cut = || damaged(node, "an entry is cut short");
            let entry = leaf.get(place..).ok_or_else(cut)?;
            if flags & LOCAL != 0 {
                let (valuelen, namelen) = (usize::from(be16(entry, 0)), usize::from(u8_at(entry, 2)));
                let (name, rest) = entry.get(3..).and_then(|rest| rest.split_at_checked(namelen)).ok_or_else(cut)?;
                let value = rest.get(..valuelen).ok_or_else(cut)?;
                all.add(node, flags, name, || Ok(value.to_vec()))?;
            } else {
                let (block, len) = (be32(entry, 0), be32(entry, 4));
                let namelen = usize::from(u8_at(entry, 8));
                let name = entry.get(9..).and_then(|rest| rest.get(..namelen)).ok_or_else(cut)?;
                all.add(node, flags, name, || self.remote_value(node, block, len))?;
            }
        }
        Ok(())
    }

    /// The value of `len` bytes that starts at `block` of the attribute fork.
    fn remote_value(&self, node: &Node, block: u32, len: u32) -> Result<Vec<u8>> {
        if len > MAX_VALUE {
            return Err(damaged(node, "a value is too long").found(len));
        }
        let len = size(u64::from(len));
        let mut value = Vec::with_capacity(len);
        let mut at = u64::from(block);
        while value.len() < len {
            let (bytes, offset) = self.fork_blocks(node, Fork::Attr, at, 1)?;
            let part = if self.sb.has_crc() {
                block::verify(&bytes, offset, &self.sb.meta_uuid, Some(node.number))?;
                let here = size(u64::from(be32(&bytes, 8)));
                let right = be32(&bytes, 0) == block::ATTR_REMOTE && u64::from(be32(&bytes, 4)) == long(value.len());
                bytes.get(REMOTE_HEADER..).and_then(|rest| rest.get(..here)).filter(|part| right && !part.is_empty())
            } else {
                Some(&bytes[..])
            };
            value.extend_from_slice(part.ok_or_else(|| damaged(node, "a value contradicts itself").offset(offset))?);
            at = at.saturating_add(1);
        }
        value.truncate(len);
        Ok(value)
    }
}

fn damaged(node: &Node, what: &str) -> Error {
    corrupt(format!("the attributes of inode {} are damaged: {what}", node.number))
}

/// Notes the next leaf, as long as it was not read before and there are not too many.
fn go_on(node: &Node, seen: &mut HashSet<u32>, next: u32) -> Result<()> {
    if !seen.insert(next) {
        return Err(damaged(node, "its leaves go round in a circle"));
    }
    if seen.len() > limits::MAX_XFS_HASH_LEAVES {
        return Err(Error::limit("xfs.limit", format!("inode {} has too many attributes", node.number)));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn an_inode_has_as_many_leaves_as_the_limit() {
        let node = Node { number: 128, raw: Vec::new() };
        let mut seen = HashSet::new();
        for next in 1..=u32::try_from(limits::MAX_XFS_HASH_LEAVES).unwrap() {
            go_on(&node, &mut seen, next).unwrap();
        }
        assert_eq!(go_on(&node, &mut seen, u32::MAX).unwrap_err().code(), "xfs.limit");
        assert_eq!(go_on(&node, &mut HashSet::from([3]), 3).unwrap_err().code(), "xfs.corrupt");
    }

    #[test]
    fn attributes_are_as_long_as_the_limit() {
        let node = Node { number: 128, raw: Vec::new() };
        let most = limits::MAX_XFS_XATTRS;
        for (before, fits) in [(most - 11, true), (most - 10, true), (most - 9, false)] {
            let mut all = Collected { all: Vec::new(), bytes: before };
            let added = all.add(&node, 0, b"name", || Ok(vec![0; 6])).map_err(|error| error.code());
            assert_eq!(added, if fits { Ok(()) } else { Err("xfs.limit") }, "{before}");
        }
    }
}
