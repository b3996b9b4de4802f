//! Hives for tests: whole ones made by another program's code, pieces of ones made cell by cell, and logs.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "tests build their input"
)]

use regf::{DataType, HiveBuilder, KeyTreeNode, KeyTreeValue, marvin32_hash};

use super::{Bytes, Hive};

/// A hive that is put together by paths and values.
pub(crate) struct Builder(KeyTreeNode);

impl Builder {
    pub(crate) fn new() -> Self {
        Self(KeyTreeNode::new("ROOT"))
    }

    pub(crate) fn key(mut self, path: &str) -> Self {
        self.0.get_or_create_path(path);
        self
    }

    pub(crate) fn value(mut self, path: &str, name: &str, kind: u32, data: &[u8]) -> Self {
        let data_type = DataType::from(kind);
        let value = KeyTreeValue { name: name.to_owned(), data_type, data: data.to_vec() };
        self.0.get_or_create_path(path).values.push(value);
        self
    }

    pub(crate) fn text(self, path: &str, name: &str, text: &str) -> Self {
        self.value(path, name, 1, &utf16(&[text]))
    }

    pub(crate) fn texts(self, path: &str, name: &str, texts: &[&str]) -> Self {
        let mut data = utf16(texts);
        data.extend([0, 0]);
        self.value(path, name, 7, &data)
    }

    pub(crate) fn number(self, path: &str, name: &str, number: u32) -> Self {
        self.value(path, name, 4, &number.to_le_bytes())
    }

    pub(crate) fn build(self) -> Vec<u8> {
        HiveBuilder::from_tree_with_version(self.0, 1, 5).unwrap().to_bytes().unwrap()
    }
}

/// Texts as the registry has them, each with its NUL.
pub(crate) fn utf16(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| text.encode_utf16().chain([0])).flat_map(u16::to_le_bytes).collect()
}

/// A hive of cells that are made by hand, which may say anything.
pub(crate) struct Cells(Vec<u8>);

impl Cells {
    pub(crate) fn new() -> Self {
        Self(vec![0; 32])
    }

    /// Adds a cell, and gives its offset.
    pub(crate) fn add(&mut self, content: &[u8]) -> u32 {
        let offset = self.0.len();
        let size = (content.len() + 4).next_multiple_of(8);
        self.0.extend((-i32::try_from(size).unwrap()).to_le_bytes());
        self.0.extend(content);
        self.0.resize(offset + size, 0);
        u32::try_from(offset).unwrap()
    }

    /// Adds a key with a list of `subkeys` at `list`, and of `values` at `value_list`.
    pub(crate) fn key(&mut self, name: &str, (subkeys, list): (u32, u32), (values, value_list): (u32, u32)) -> u32 {
        let mut node = vec![0; 76];
        node[..4].copy_from_slice(b"nk\x20\0");
        node[72..74].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        for (at, value) in
            [(20, subkeys), (28, list), (36, values), (40, value_list), (44, u32::MAX), (48, u32::MAX), (16, u32::MAX)]
        {
            node[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        node.extend(name.bytes());
        self.add(&node)
    }

    /// Adds a list of the kind `li` or `ri`.
    pub(crate) fn list(&mut self, kind: &[u8; 2], offsets: &[u32]) -> u32 {
        let count = u16::try_from(offsets.len()).unwrap().to_le_bytes();
        let content: Vec<u8> =
            kind.iter().copied().chain(count).chain(offsets.iter().flat_map(|offset| offset.to_le_bytes())).collect();
        self.add(&content)
    }

    /// Adds a value of the type `REG_BINARY` that is said to have `size` bytes at `data`.
    pub(crate) fn value(&mut self, name: &str, size: u32, data: u32) -> u32 {
        let mut cell = b"vk".to_vec();
        cell.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        for word in [size, data, 3, 1] {
            cell.extend(word.to_le_bytes());
        }
        cell.extend(name.bytes());
        self.add(&cell)
    }

    /// The hive whose root is the key at `root`.
    pub(crate) fn finish(mut self, root: u32) -> Vec<u8> {
        let bins = self.0.len().next_multiple_of(4096);
        self.0.resize(bins, 0);
        let mut hive = vec![0; 4096];
        hive[..4].copy_from_slice(b"regf");
        let bins = u32::try_from(bins).unwrap();
        for (at, value) in [(4, 1), (8, 1), (20, 1), (24, 5), (32, 1), (36, root), (40, bins), (44, 1)] {
            hive[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        hive.extend(self.0);
        seal(&mut hive);
        hive
    }
}

/// Gives a base block its checksum.
pub(crate) fn seal(hive: &mut [u8]) {
    let sum = hive[..508].chunks(4).fold(0, |sum, word| sum ^ u32::from_le_bytes(word.try_into().unwrap()));
    hive[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// Sets a word of a base block, and its checksum.
pub(crate) fn set(hive: &mut [u8], at: usize, value: u32) {
    hive[at..at + 4].copy_from_slice(&value.to_le_bytes());
    seal(hive);
}

/// Makes a hive one that was not written out to its end: it is to become number `sequence`.
pub(crate) fn soil(hive: &mut [u8], sequence: u32) {
    set(hive, 4, sequence);
    set(hive, 8, sequence.wrapping_sub(1));
}

/// A log as before Windows 8.1 that leads from `before` to `after`.
pub(crate) fn old_log(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut log = after[..512].to_vec();
    set(&mut log, 28, 1);
    let bins = &after[4096..];
    let mut bitmap = vec![0_u8; bins.len() / 4096];
    let mut pages = Vec::<u8>::new();
    for (index, sector) in bins.chunks(512).enumerate() {
        if before.get(4096 + index * 512..4096 + index * 512 + 512) != Some(sector) {
            bitmap[index / 8] |= 1 << (index % 8);
            pages.extend(sector);
        }
    }
    log.extend(b"DIRT");
    log.extend(bitmap);
    log.resize(log.len().next_multiple_of(512), 0);
    log.extend(pages);
    log
}

/// A log as since Windows 8.1, begun at number `sequence`, whose entries lead from each of `states` to the next.
pub(crate) fn new_log(states: &[&[u8]], sequence: u32) -> Vec<u8> {
    let mut log = states[states.len() - 1][..512].to_vec();
    set(&mut log, 28, 6);
    set(&mut log, 4, sequence);
    set(&mut log, 8, sequence);
    for (index, pair) in states.windows(2).enumerate() {
        let (mut list, mut pages) = (Vec::new(), Vec::<u8>::new());
        for (page, after) in pair[1].chunks(4096).enumerate().skip(1) {
            if pair[0].get(page * 4096..page * 4096 + 4096) != Some(after) {
                list.extend([(page - 1) * 4096, 4096]);
                pages.extend(after);
            }
        }
        let number = sequence.wrapping_add(u32::try_from(index).unwrap());
        let size = (40 + list.len() * 4 + pages.len()).next_multiple_of(512);
        let mut entry = b"HvLE".to_vec();
        let word = |value: usize| u32::try_from(value).unwrap();
        for word in [word(size), 0, number, word(pair[1].len() - 4096), word(list.len() / 2), 0, 0, 0, 0] {
            entry.extend(word.to_le_bytes());
        }
        entry.extend(list.iter().flat_map(|value| word(*value).to_le_bytes()));
        entry.extend(pages);
        entry.resize(size, 0);
        // The package's own logs have the bytes of the key in the other order, which no log of Windows has.
        let digest = |bytes: &[u8]| marvin32_hash(bytes, 0x82ef_4d88_7a4e_55c5).to_le_bytes();
        let first = digest(&entry[40..]);
        entry[24..32].copy_from_slice(&first);
        let second = digest(&entry[..32]);
        entry[32..40].copy_from_slice(&second);
        log.extend(entry);
    }
    log
}

/// Opens bytes as a hive.
pub(crate) fn open(hive: &[u8], logs: &[&[u8]]) -> crate::error::Result<Hive> {
    let bytes = |bytes: &[u8]| Box::new(bytes.to_vec()) as Box<dyn Bytes>;
    Hive::open(bytes(hive), logs.iter().map(|log| bytes(log)).collect())
}
