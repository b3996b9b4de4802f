//! Extended attributes: all of an inode's are laid out anew, in the inode or in leaves, long values in blocks of their own.

use super::Writer;
use super::fork::{Body, Map};
use crate::disk::bytes::{be32, long, put, put_be32, size};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::FileKind;
use crate::fs::xfs::attr::{LOCAL, MAX_VALUE, NAMESPACES, PARENT, REMOTE_HEADER, ROOT, Raw, SECURE};
use crate::fs::xfs::da::hash;
use crate::fs::xfs::map::Extent;
use crate::fs::xfs::node::{Fork, Node};
use crate::fs::xfs::{acl, block};
use crate::limits;

/// An attribute on its way into a leaf.
struct Entry<'a> {
    hash: u32,
    raw: &'a Raw,
    /// The block of the fork where the value begins, if that is not beside the name.
    remote: Option<u32>,
}

impl Entry<'_> {
    /// Bytes that name and value take in the leaf.
    fn len(&self) -> usize {
        let name = self.raw.name.len();
        match self.remote {
            None => name.saturating_add(self.raw.value.len()).saturating_add(3).next_multiple_of(4),
            // Two more than the fields: so the kernel counts.
            Some(_) => name.saturating_add(11).next_multiple_of(4),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let len = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let name_len = u8::try_from(self.raw.name.len()).unwrap_or(u8::MAX);
        let mut out = Vec::new();
        match self.remote {
            None => {
                out.extend(u16::try_from(self.raw.value.len()).unwrap_or(u16::MAX).to_be_bytes());
                out.push(name_len);
                out.extend_from_slice(&self.raw.name);
                out.extend_from_slice(&self.raw.value);
            }
            Some(block) => {
                out.extend(block.to_be_bytes());
                out.extend(len(self.raw.value.len()).to_be_bytes());
                out.push(name_len);
                out.extend_from_slice(&self.raw.name);
            }
        }
        out
    }
}

/// The namespace of a full name, and the rest of it.
fn split(full: &[u8]) -> Result<(u8, Vec<u8>)> {
    let stored = acl::stored_as(full);
    let full = stored.as_deref().unwrap_or(full);
    let spaces = [(0, &b"user."[..]), (ROOT, b"trusted."), (SECURE, b"security.")];
    let found = spaces.into_iter().find_map(|(flags, prefix)| Some((flags, full.strip_prefix(prefix)?.to_vec())));
    found.filter(|(_, name)| (1..=255).contains(&name.len()) && !name.contains(&0)).ok_or_else(|| {
        Error::new(Kind::Usage, "xfs.name", format!("`{}` is not the name of an attribute", escape_bytes(full)))
            .expected("user., trusted., security. or system.posix_acl_")
    })
}

impl Writer<'_> {
    /// Sets an attribute by its full name, or removes it. `node` is not stored.
    pub(super) fn set_attribute(&mut self, node: &mut Node, full: &[u8], value: Option<&[u8]>) -> Result<()> {
        let (flags, name) = split(full)?;
        let mut all = self.view().raw_attributes(node)?;
        let before = all.len();
        all.retain(|raw| raw.flags & NAMESPACES != flags || raw.name != name);
        if let Some(value) = value {
            let value = if acl::stored_as(full).is_some() { acl::to_disk(value)? } else { value.to_vec() };
            if value.len() > size(u64::from(MAX_VALUE)) {
                return Err(Error::new(Kind::Usage, "xfs.limit", "an attribute's value is too long").found(value.len()));
            }
            all.push(Raw { flags, name, value });
        } else if all.len() == before {
            return Ok(());
        }
        self.put_attributes(node, &all)
    }

    /// Stores `all` as the attributes of `node`, which is not stored.
    pub(super) fn put_attributes(&mut self, node: &mut Node, all: &[Raw]) -> Result<()> {
        let bytes = all.iter().map(|raw| long(raw.name.len()).saturating_add(long(raw.value.len())));
        if bytes.fold(0, u64::saturating_add) > limits::MAX_XFS_XATTRS {
            return Err(Error::limit("xfs.limit", format!("the attributes of inode {} are too long", node.number)));
        }
        let data = self.body(node, Fork::Data)?;
        let old = self.body(node, Fork::Attr)?;
        let short = if all.is_empty() { Some(Body::Absent) } else { short_form(all).map(Body::Local) };
        let short = short.filter(|short| self.fork_offset(node, &data, short).is_some());
        if !all.is_empty() {
            self.sb.note_attributes();
        }
        if let Some(short) = short {
            if let Body::Mapped(map) = old {
                self.drop_map(node.number, Fork::Attr, map)?;
            }
            let data = self.target_back(node, data, &short)?;
            return self.put_bodies(node, data, short);
        }
        let data = self.make_room(node, data)?;
        if let Body::Mapped(map) = old {
            self.drop_map(node.number, Fork::Attr, map)?;
        }
        let attr = Body::Mapped(self.leaves(node.number, all)?);
        let data = self.target_back(node, data, &attr)?;
        self.put_bodies(node, data, attr)
    }

    /// Moves data out of the inode if that leaves no room for a fork of attributes beside it; gives what is in the data fork.
    fn make_room(&mut self, node: &mut Node, data: Body) -> Result<Body> {
        let apart = |startoff| Extent { startoff, startblock: 0, blockcount: 1, unwritten: false };
        let needed = Body::Mapped(Map { extents: vec![apart(0), apart(2)], tables: Vec::new() });
        if self.fork_offset(node, &data, &needed).is_some() {
            return Ok(data);
        }
        match (data, node.kind()) {
            (Body::Local(_), Some(FileKind::Directory)) => {
                let names = self.short_names(node)?;
                self.put_names_out(node, &names)?;
            }
            (Body::Local(target), Some(FileKind::Symlink)) => self.put_long_target(node, &target)?,
            _ => {}
        }
        self.body(node, Fork::Data)
    }

    /// Stores all attributes in leaves and values; gives the blocks of the fork.
    fn leaves(&mut self, number: u64, all: &[Raw]) -> Result<Map> {
        let len = self.sb.block_len();
        let longest = (len / 2).saturating_add(len / 4);
        let mut entries: Vec<Entry<'_>> =
            all.iter().map(|raw| Entry { hash: self.hash_of(raw), raw, remote: None }).collect();
        entries.sort_by_key(|entry| entry.hash);
        for entry in &mut entries {
            if entry.len() >= longest {
                entry.remote = Some(0);
            }
        }
        let header = if self.sb.has_crc() { 80 } else { 32 };
        let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
        let mut used = usize::MAX;
        for (index, entry) in entries.iter().enumerate() {
            let more = entry.len().saturating_add(8);
            if used.saturating_add(more) > len {
                parts.push(index..index);
                used = header;
            }
            used = used.saturating_add(more);
            if let Some(part) = parts.last_mut() {
                part.end = index.saturating_add(1);
            }
        }
        let hashes: Vec<u32> = parts
            .iter()
            .map(|part| part.end.checked_sub(1).and_then(|last| entries.get(last)).map_or(0, |entry| entry.hash))
            .collect();
        let place = |slot: usize| u32::try_from(slot).unwrap_or(u32::MAX);
        // Values come behind the leaves and nodes, which are as many whatever they hold.
        let slots = self.da_tree(len, &place, &hashes, &mut |_, _| Vec::new()).len();
        let mut next = place(slots);
        let room = if self.sb.has_crc() { len.saturating_sub(REMOTE_HEADER) } else { len };
        for entry in entries.iter_mut().filter(|entry| entry.remote.is_some()) {
            entry.remote = Some(next);
            next = next.saturating_add(place(entry.raw.value.len().div_ceil(room.max(1))));
        }
        let mut map = Map::default();
        self.fill(number, Fork::Attr, 0, u64::from(next), self.goal(number))?.into_iter().for_each(|e| map.push(e));
        let blocks = self.da_tree(len, &place, &hashes, &mut |index, beside| {
            let part = parts.get(index).cloned().unwrap_or_default();
            self.attr_leaf(entries.get(part).unwrap_or_default(), beside)
        });
        for (slot, bytes) in (0_u64..).zip(blocks) {
            self.put_attr_block(number, &map, slot, bytes)?;
        }
        for entry in &entries {
            if let Some(first) = entry.remote {
                self.put_value(number, &map, first, &entry.raw.value, room)?;
            }
        }
        Ok(map)
    }

    /// What leaves sort an attribute by: names that files know also by their directory, which many may have alike.
    fn hash_of(&self, raw: &Raw) -> u32 {
        if raw.flags & PARENT == 0 {
            return hash(&raw.name);
        }
        self.dir_shape().hash(&raw.name) ^ be32(&raw.value, 0) ^ be32(&raw.value, 4)
    }

    fn attr_leaf(&self, entries: &[Entry<'_>], beside: (Option<u32>, Option<u32>)) -> Vec<u8> {
        let (magic, count_at, header) =
            if self.sb.has_crc() { (block::ATTR_LEAF_V5, 56_usize, 80) } else { (block::ATTR_LEAF_V4, 12, 32) };
        let half = |value: usize| u16::try_from(value).unwrap_or(0).to_be_bytes();
        let mut bytes = self.empty_block();
        put_be32(&mut bytes, 0, beside.0.unwrap_or(0));
        put_be32(&mut bytes, 4, beside.1.unwrap_or(0));
        put(&mut bytes, 8, &magic.to_be_bytes());
        let mut top = bytes.len();
        let mut at: usize = header;
        for entry in entries {
            top = top.saturating_sub(entry.len());
            put(&mut bytes, top, &entry.bytes());
            let local = if entry.remote.is_none() { LOCAL } else { 0 };
            put_be32(&mut bytes, at, entry.hash);
            put(&mut bytes, at.saturating_add(4), &half(top));
            put(&mut bytes, at.saturating_add(6), &[entry.raw.flags | local]);
            at = at.saturating_add(8);
        }
        // Count, bytes in use, where they begin, no holes, and the one free space.
        let used = bytes.len().saturating_sub(top);
        let free_at = count_at.saturating_add(8);
        for (index, value) in [entries.len(), used, top].into_iter().enumerate() {
            put(&mut bytes, count_at.saturating_add(index.saturating_mul(2)), &half(value));
        }
        put(&mut bytes, free_at, &half(at));
        put(&mut bytes, free_at.saturating_add(2), &half(top.saturating_sub(at)));
        bytes
    }

    fn put_attr_block(&mut self, number: u64, map: &Map, logical: u64, mut bytes: Vec<u8>) -> Result<()> {
        let place = self.attr_place(map, logical)?;
        self.describe(&mut bytes, place, number);
        self.put_checked(place, bytes)
    }

    fn attr_place(&self, map: &Map, logical: u64) -> Result<u64> {
        let found = map.extents.iter().find_map(|extent| extent.clip(logical, logical.saturating_add(1)));
        let found = found.ok_or_else(|| crate::fs::xfs::corrupt("a fork of attributes has a hole"))?;
        self.sb.run(found.startblock, 1)
    }

    fn put_value(&mut self, number: u64, map: &Map, first: u32, value: &[u8], room: usize) -> Result<()> {
        let mut at = 0_usize;
        for (logical, part) in (u64::from(first)..).zip(value.chunks(room.max(1))) {
            let place = self.attr_place(map, logical)?;
            let mut bytes = self.empty_block();
            if self.sb.has_crc() {
                put_be32(&mut bytes, 0, block::ATTR_REMOTE);
                put_be32(&mut bytes, 4, u32::try_from(at).unwrap_or(u32::MAX));
                put_be32(&mut bytes, 8, u32::try_from(part.len()).unwrap_or(u32::MAX));
                self.describe(&mut bytes, place, number);
                // Values are not logged, so that theirs is no place in the log.
                crate::disk::bytes::put_be64(&mut bytes, 48, u64::MAX);
                put(&mut bytes, REMOTE_HEADER, part);
            } else {
                put(&mut bytes, 0, part);
            }
            self.put_checked(place, bytes)?;
            at = at.saturating_add(part.len());
        }
        Ok(())
    }

    /// Stores a block with its checksum if it is of a kind that has one.
    pub(super) fn put_checked(&mut self, place: u64, bytes: Vec<u8>) -> Result<()> {
        if self.sb.has_crc() { self.put(place, bytes) } else { self.store.change(&bytes, place) }
    }
}

/// All attributes as they are in an inode, if they can be.
fn short_form(all: &[Raw]) -> Option<Vec<u8>> {
    let mut out = vec![0; 4];
    for raw in all {
        out.push(u8::try_from(raw.name.len()).ok()?);
        out.push(u8::try_from(raw.value.len()).ok()?);
        out.push(raw.flags);
        out.extend_from_slice(&raw.name);
        out.extend_from_slice(&raw.value);
    }
    let (len, count) = (u16::try_from(out.len()).ok()?, u8::try_from(all.len()).ok()?);
    put(&mut out, 0, &len.to_be_bytes());
    put(&mut out, 2, &[count]);
    Some(out)
}
