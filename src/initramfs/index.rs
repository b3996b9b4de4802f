//! Writer of kmod's binary module index: a radix tree from keys to values, read in place by libkmod.
//!
//! Layout, all numbers big endian: magic `0xB007F457`, version `0x00020001`, offset of the root node. A node's offset carries
//! flags for the parts that follow each other there: a prefix (NUL-terminated), children (first character, last character, one
//! offset for each character between, 0 for none), values (count, then priority and NUL-terminated text of each).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use crate::error::{Error, Result};

const MAGIC: u32 = 0xB007_F457;
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;
const OFFSET_MASK: u32 = 0x0FFF_FFFF;

/// Longest key; the longest real alias has some 150 characters. Bounds the depth of the tree.
const LONGEST_KEY: usize = 1024;

/// An index being built.
#[derive(Debug, Default)]
pub(crate) struct Index {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    prefix: Vec<u8>,
    children: BTreeMap<u8, Node>,
    values: Vec<(u32, Vec<u8>)>,
}

impl Index {
    /// Adds `value` under `key`. Values of one key are kept in the order of their priorities. Keys that the format cannot
    /// hold (empty, too long, not 7-bit) and values with a NUL are left out, as no reader could look for them.
    pub(crate) fn insert(&mut self, key: &[u8], value: &[u8], priority: u32) {
        let fits = !key.is_empty() && key.len() <= LONGEST_KEY && key.iter().all(|byte| (1..128).contains(byte));
        if fits && !value.contains(&0) {
            self.root.insert(key, value, priority);
        }
    }

    /// The index as a file.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_be_bytes());
        out.extend(VERSION.to_be_bytes());
        let root_at = out.len();
        out.extend([0; 4]);
        let root = self.root.write(&mut out)?;
        if let Some(place) = out.get_mut(root_at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            *place = root.to_be_bytes();
        }
        Ok(out)
    }
}

impl Node {
    fn insert(&mut self, key: &[u8], value: &[u8], priority: u32) {
        let common = self.prefix.iter().zip(key).take_while(|(a, b)| a == b).count();
        if common < self.prefix.len() {
            self.split(common);
        }
        let Some((first, rest)) = key.get(common..).and_then(<[u8]>::split_first) else {
            self.add(value, priority);
            return;
        };
        match self.children.get_mut(first) {
            Some(child) => child.insert(rest, value, priority),
            None => {
                let mut child = Self { prefix: rest.to_vec(), ..Self::default() };
                child.add(value, priority);
                self.children.insert(*first, child);
            }
        }
    }

    /// Cuts the prefix after `common` bytes: what followed becomes the only child.
    fn split(&mut self, common: usize) {
        let tail = self.prefix.split_off(common);
        let Some((first, rest)) = tail.split_first() else { return };
        let child = Self {
            prefix: rest.to_vec(),
            children: std::mem::take(&mut self.children),
            values: std::mem::take(&mut self.values),
        };
        self.children.insert(*first, child);
    }

    fn add(&mut self, value: &[u8], priority: u32) {
        let at = self.values.partition_point(|(known, _)| *known < priority);
        self.values.insert(at, (priority, value.to_vec()));
    }

    /// Writes the children, then the node; gives the node's offset with its flags.
    fn write(&self, out: &mut Vec<u8>) -> Result<u32> {
        let mut table = Vec::new();
        if let (Some((first, _)), Some((last, _))) = (self.children.first_key_value(), self.children.last_key_value()) {
            table.extend([*first, *last]);
            for letter in *first..=*last {
                let offset = self.children.get(&letter).map_or(Ok(0), |child| child.write(out))?;
                table.extend(offset.to_be_bytes());
            }
        }
        let mut offset = u32::try_from(out.len()).ok().filter(|offset| *offset <= OFFSET_MASK).ok_or_else(too_large)?;
        if !self.prefix.is_empty() {
            out.extend(&self.prefix);
            out.push(0);
            offset |= HAS_PREFIX;
        }
        if !table.is_empty() {
            out.extend(table);
            offset |= HAS_CHILDREN;
        }
        if !self.values.is_empty() {
            let count = u32::try_from(self.values.len()).map_err(|_| too_large())?;
            out.extend(count.to_be_bytes());
            for (priority, value) in &self.values {
                out.extend(priority.to_be_bytes());
                out.extend(value);
                out.push(0);
            }
            offset |= HAS_VALUES;
        }
        Ok(offset)
    }
}

fn too_large() -> Error {
    Error::limit("initramfs.index-size", "the module index would be larger than its format allows")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks a key up as libkmod does.
    pub(crate) fn lookup(index: &[u8], key: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |at: usize| u32::from_be_bytes(index[at..][..4].try_into().unwrap());
        let text = |at: usize| index[at..].split(|byte| *byte == 0).next().unwrap().to_vec();
        assert_eq!((number(0), number(4)), (MAGIC, VERSION));
        let (mut node, mut key) = (number(8), key);
        loop {
            let mut at = usize::try_from(node & OFFSET_MASK).unwrap();
            if node & HAS_PREFIX != 0 {
                let prefix = text(at);
                at = at.checked_add(prefix.len()).unwrap().checked_add(1).unwrap();
                match key.strip_prefix(prefix.as_slice()) {
                    Some(rest) => key = rest,
                    None => return Vec::new(),
                }
            }
            let (mut first, mut last, mut table) = (1, 0, 0);
            if node & HAS_CHILDREN != 0 {
                (first, last, table) = (index[at], index[at.checked_add(1).unwrap()], at.checked_add(2).unwrap());
                let count = usize::from(last.checked_sub(first).unwrap()).checked_add(1).unwrap();
                at = table.checked_add(count.checked_mul(4).unwrap()).unwrap();
            }
            let Some((letter, rest)) = key.split_first() else {
                let mut values = Vec::new();
                if node & HAS_VALUES != 0 {
                    let count = number(at);
                    at = at.checked_add(4).unwrap();
                    for _ in 0..count {
                        let value = text(at.checked_add(4).unwrap());
                        let next = at.checked_add(5).unwrap().checked_add(value.len()).unwrap();
                        values.push((number(at), value));
                        at = next;
                    }
                }
                return values;
            };
            if !(first..=last).contains(letter) {
                return Vec::new();
            }
            let slot = usize::from(letter.checked_sub(first).unwrap()).checked_mul(4).unwrap();
            node = number(table.checked_add(slot).unwrap());
            if node == 0 {
                return Vec::new();
            }
            key = rest;
        }
    }

    #[test]
    fn an_empty_index_is_a_root_without_parts() {
        let bytes = Index::default().to_bytes().unwrap();
        assert_eq!(bytes, [0xb0, 0x07, 0xf4, 0x57, 0, 2, 0, 1, 0, 0, 0, 12]);
    }

    #[test]
    fn leaves_out_what_the_format_cannot_hold() {
        let mut index = Index::default();
        let long = vec![b'x'; LONGEST_KEY.checked_add(1).unwrap()];
        for key in [b"".as_slice(), b"\0", b"\xc3\xa9", &long] {
            index.insert(key, b"v", 0);
        }
        index.insert(b"key", b"a\0b", 0);
        assert_eq!(index.to_bytes().unwrap().len(), 12);
        index.insert(&long[..LONGEST_KEY], b"v", 0);
        assert_eq!(lookup(&index.to_bytes().unwrap(), &long[..LONGEST_KEY]).len(), 1);
    }

    proptest! {
        #[test]
        fn finds_exactly_what_was_inserted(
            entries in proptest::collection::vec(("[a-c:*]{1,6}", "[a-z]{0,4}", 0_u32..4), 0..60),
            other in "[a-c:*]{1,6}",
        ) {
            let mut index = Index::default();
            let mut model: BTreeMap<&str, Vec<(u32, Vec<u8>)>> = BTreeMap::new();
            for (key, value, priority) in &entries {
                index.insert(key.as_bytes(), value.as_bytes(), *priority);
                model.entry(key).or_default().push((*priority, value.as_bytes().to_vec()));
            }
            let bytes = index.to_bytes().unwrap();
            for key in model.keys().copied().chain([other.as_str()]) {
                let mut found = lookup(&bytes, key.as_bytes());
                prop_assert!(found.is_sorted_by_key(|(priority, _)| *priority));
                let mut wanted = model.get(key).cloned().unwrap_or_default();
                found.sort();
                wanted.sort();
                prop_assert_eq!(found, wanted);
            }
        }
    }
}
