//! Directories: where their entries lie, what they say, and names in them.

use super::boot::{Root, SLOT, Width};
use super::names::{self, Parts, Short};
use super::view::View;
use super::{ROOT, corrupt};
use crate::disk::bytes::{array, le16, le32, long, put16, put32, size, text, u8_at};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::clusters::Chain;
use crate::fs::{FileKind, Inode, Stat, Timestamp, dos_time, utf16};
use crate::limits;

pub(super) const ATTR_READ_ONLY: u8 = 1;
const ATTR_VOLUME_ID: u8 = 8;
pub(super) const ATTR_DIRECTORY: u8 = 0x10;
pub(super) const ATTR_ARCHIVE: u8 = 0x20;
pub(super) const ATTR_LONG: u8 = 0xf;

/// The first byte of an entry that is free.
pub(super) const FREE: u8 = 0xe5;

/// The 32 bytes of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(pub(super) [u8; 32]);

impl Slot {
    pub(super) fn first_byte(&self) -> u8 {
        u8_at(&self.0, 0)
    }

    pub(super) fn attributes(&self) -> u8 {
        u8_at(&self.0, 11)
    }

    pub(super) fn is_long(&self) -> bool {
        self.attributes() & 0x3f == ATTR_LONG
    }

    fn is_label(&self) -> bool {
        self.attributes() & ATTR_VOLUME_ID != 0 && !self.is_long()
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attributes() & ATTR_DIRECTORY != 0
    }

    pub(super) fn set_read_only(&mut self, on: bool) {
        let others = self.attributes() & !ATTR_READ_ONLY;
        crate::disk::bytes::put(&mut self.0, 11, &[others | if on { ATTR_READ_ONLY } else { 0 }]);
    }

    /// The first cluster; 0 without one.
    pub(super) fn first_cluster(&self, width: Width) -> u32 {
        let high = if width == Width::Fat32 { u32::from(le16(&self.0, 20)) } else { 0 };
        high.wrapping_shl(16) | u32::from(le16(&self.0, 26))
    }

    pub(super) fn set_first_cluster(&mut self, width: Width, cluster: u32) {
        let [a, b, c, d] = cluster.to_le_bytes();
        if width == Width::Fat32 {
            put16(&mut self.0, 20, u16::from_le_bytes([c, d]));
        }
        put16(&mut self.0, 26, u16::from_le_bytes([a, b]));
    }

    pub(super) fn size(&self) -> u32 {
        le32(&self.0, 28)
    }

    pub(super) fn set_size(&mut self, size: u32) {
        put32(&mut self.0, 28, size);
    }

    fn mtime(&self) -> Timestamp {
        dos_time::read(le16(&self.0, 24), le16(&self.0, 22), 0)
    }

    pub(super) fn set_mtime(&mut self, moment: Timestamp) {
        let (date, clock, _) = dos_time::write(moment);
        put16(&mut self.0, 24, date);
        put16(&mut self.0, 22, clock);
    }

    pub(super) fn set_atime(&mut self, moment: Timestamp) {
        put16(&mut self.0, 18, dos_time::write(moment).0);
    }

    pub(super) fn set_btime(&mut self, moment: Timestamp) {
        let (date, clock, hundredths) = dos_time::write(moment);
        put16(&mut self.0, 16, date);
        put16(&mut self.0, 14, clock);
        crate::disk::bytes::put(&mut self.0, 13, &[hundredths]);
    }
}

/// A file or directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// Where its entry lies on the volume; the root directory has none.
    pub(super) place: Option<u64>,
    /// Its entry; zeros for the root directory.
    pub(super) slot: Slot,
}

impl Node {
    pub(super) fn inode(&self) -> Inode {
        self.place.map_or(ROOT, |place| Inode(place / SLOT))
    }

    pub(super) fn is_directory(&self) -> bool {
        self.place.is_none() || self.slot.is_directory()
    }

    pub(super) fn kind(&self) -> FileKind {
        if self.is_directory() { FileKind::Directory } else { FileKind::Regular }
    }
}

/// A directory and all of its entries' bytes.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) node: Node,
    /// Its clusters; none for a root directory that has a region of its own.
    pub(super) chain: Option<Chain>,
    /// Where each piece of it lies: number of slots, and the offset of the first.
    pieces: Vec<(usize, u64)>,
    pub(super) slots: Vec<Slot>,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u16>,
    pub(super) short: Short,
    /// The first of its slots, and the last one, which is the entry proper.
    pub(super) first: usize,
    pub(super) last: usize,
    pub(super) node: Node,
}

impl Dir {
    /// Where slot `index` lies on the volume.
    pub(super) fn place(&self, index: usize) -> Option<u64> {
        let mut left = index;
        for (count, start) in &self.pieces {
            match left.checked_sub(*count) {
                Some(rest) => left = rest,
                None => return Some(start.saturating_add(long(left).saturating_mul(SLOT))),
            }
        }
        None
    }

    /// The entries from slot `from` on, without `.`, `..` and the label.
    pub(super) fn entries(&self, from: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        let (mut parts, mut first) = (Parts::default(), None);
        for (index, slot) in self.slots.iter().enumerate().skip(from) {
            match slot.first_byte() {
                0 => break,
                FREE => {}
                _ if slot.is_long() => {
                    if first.is_none() || slot.first_byte() & names::LAST != 0 {
                        first = Some(index);
                    }
                    parts.take(&slot.0);
                    continue;
                }
                b'.' if slot.is_directory() => {}
                _ if slot.is_label() => {}
                _ => entries.extend(self.entry(index, slot, &mut parts, first)),
            }
            (parts, first) = (Parts::default(), None);
        }
        entries
    }

    fn entry(&self, index: usize, slot: &Slot, parts: &mut Parts, first: Option<usize>) -> Option<Entry> {
        let short = names::short(&slot.0);
        let long_name = parts.finish(&short);
        let first = first.filter(|_| long_name.is_some()).unwrap_or(index);
        let name = long_name.unwrap_or_else(|| names::shown(&short, u8_at(&slot.0, 12)));
        // A name that cannot be one is damage; there is nothing to call the file by.
        utf16::is_name(&utf16::to_bytes(&name)).then(|| Entry {
            name,
            short,
            first,
            last: index,
            node: Node { place: self.place(index), slot: *slot },
        })
    }

    /// Whether nothing is in it, not even something damaged.
    pub(super) fn is_empty(&self) -> bool {
        let mut used = self.slots.iter().take_while(|slot| slot.first_byte() != 0);
        used.all(|slot| slot.first_byte() == FREE || slot.is_long() || slot.0.starts_with(b".") && slot.is_directory())
    }

    /// The entry that `name` names, by its long or its short name, whatever the case.
    pub(super) fn find(&self, name: &[u8]) -> Option<Entry> {
        let name = utf16::from_bytes(name)?;
        // Dots at the end do not count.
        let end = name.iter().rposition(|unit| *unit != u16::from(b'.'))?.checked_add(1)?;
        let name = name.get(..end)?;
        self.entries(0)
            .into_iter()
            .find(|entry| utf16::same(&entry.name, name) || utf16::same(&names::shown(&entry.short, 0), name))
    }

    /// The label of the volume, if this is the root directory.
    pub(super) fn label(&self) -> Option<String> {
        let used = self.slots.iter().take_while(|slot| slot.first_byte() != 0);
        let mut labels = used.filter(|slot| slot.first_byte() != FREE && slot.is_label() && !slot.is_directory());
        labels.next().map(|slot| names::short(&slot.0)).and_then(|short| text(&short))
    }
}

impl View<'_> {
    /// The file or directory whose entry is at the place that `inode` names.
    pub(super) fn node(&self, inode: Inode) -> Result<Node> {
        if inode == ROOT {
            return Ok(Node { place: None, slot: Slot([0; 32]) });
        }
        let gone = || Error::new(Kind::NotFound, "fat.not-found", "no such file").at(format!("inode {}", inode.0));
        let place = inode.0.checked_mul(SLOT).ok_or_else(gone)?;
        let end = self.boot.place(self.boot.numbers().end);
        let in_root = matches!(&self.boot.root, Root::Region(range) if range.contains(&place));
        if !in_root && !(self.boot.data..end).contains(&place) {
            return Err(gone());
        }
        let slot = Slot(self.array(place)?);
        if matches!(slot.first_byte(), 0 | FREE) || slot.is_long() || slot.is_label() {
            return Err(gone());
        }
        Ok(Node { place: Some(place), slot })
    }

    /// The directory `inode`, with everything in it.
    pub(super) fn dir(&self, inode: Inode) -> Result<Dir> {
        let node = self.node(inode)?;
        if !node.is_directory() {
            return Err(Error::new(Kind::NotFound, "fat.name", "not a directory").at(format!("inode {}", inode.0)));
        }
        let (chain, ranges) = match (&self.boot.root, node.place) {
            (Root::Region(range), None) => (None, vec![range.clone()]),
            (Root::Chain(first), None) => self.dir_chain(*first)?,
            (_, Some(_)) => self.dir_chain(node.slot.first_cluster(self.boot.width))?,
        };
        let mut slots = Vec::new();
        for range in &ranges {
            let len = size(range.end.saturating_sub(range.start));
            let bytes = self.bytes(range.start, len)?;
            slots.extend(bytes.chunks_exact(size(SLOT)).map(|slot| Slot(array(slot, 0))));
        }
        let pieces = ranges.iter().map(|range| (size(range.end.saturating_sub(range.start) / SLOT), range.start));
        Ok(Dir { node, chain, pieces: pieces.collect(), slots })
    }

    fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn dir_chain(&self, first: u32) -> Result<(Option<Chain>, Vec<std::ops::Range<u64>>)> {
        let most = self.clusters_of(limits::MAX_FAT_DIR);
        let chain = self.chain(first, most.saturating_add(1))?;
        if chain.len() > most {
            return Err(Error::limit("fat.limit", "a directory is too large").expected(limits::MAX_FAT_DIR));
        }
        let range = |first: u32, len: u32| {
            let start = self.boot.place(first);
            start..start.saturating_add(u64::from(len).saturating_mul(self.boot.cluster.get()))
        };
        let ranges = chain.runs().iter().map(|run| range(run.first, run.len)).collect();
        Ok((Some(chain), ranges))
    }

    /// The regular file `inode`.
    pub(super) fn regular(&self, inode: Inode) -> Result<Node> {
        let node = self.node(inode)?;
        if node.is_directory() {
            return Err(Error::new(Kind::NotFound, "fat.name", "not a regular file").at(format!("inode {}", inode.0)));
        }
        Ok(node)
    }

    /// The clusters that hold the content of a file.
    pub(super) fn file_chain(&self, node: &Node) -> Result<Chain> {
        let need = self.clusters_of(u64::from(node.slot.size()));
        let chain = self.chain(node.slot.first_cluster(self.boot.width), need)?;
        if chain.len() < need {
            return Err(corrupt("a chain of clusters is shorter than its file").expected(need).found(chain.len()));
        }
        Ok(chain)
    }

    pub(super) fn stat(&self, inode: Inode) -> Result<Stat> {
        let node = self.node(inode)?;
        let cluster = self.boot.cluster.get();
        let writable = node.slot.attributes() & ATTR_READ_ONLY == 0;
        let mut stat = Stat {
            inode: node.inode(),
            kind: node.kind(),
            mode: if writable { 0o755 } else { 0o555 },
            uid: 0,
            gid: 0,
            size: u64::from(node.slot.size()),
            allocated: u64::from(node.slot.size()).checked_next_multiple_of(cluster).unwrap_or(0),
            device: None,
            links: 1,
            atime: dos_time::read(le16(&node.slot.0, 18), 0, 0),
            mtime: node.slot.mtime(),
            ctime: node.slot.mtime(),
            btime: Some(dos_time::read(le16(&node.slot.0, 16), le16(&node.slot.0, 14), u8_at(&node.slot.0, 13))),
        };
        if node.is_directory() {
            let dir = self.dir(inode)?;
            stat.size = long(dir.slots.len()).saturating_mul(SLOT);
            stat.allocated = stat.size;
            let below = dir.entries(0).iter().filter(|entry| entry.node.is_directory()).count();
            stat.links = u32::try_from(below).unwrap_or(u32::MAX).saturating_add(2);
        }
        if node.place.is_none() {
            let none = Timestamp::default();
            (stat.mode, stat.atime, stat.mtime, stat.ctime, stat.btime) = (0o755, none, none, none, None);
        }
        Ok(stat)
    }
}

/// A name that is not there.
pub(super) fn missing(name: &[u8]) -> Error {
    Error::new(Kind::NotFound, "fat.not-found", "no such file").at(escape_bytes(name))
}
