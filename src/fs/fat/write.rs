//! Changes of directories and files.

use std::collections::HashSet;

use super::boot::{Root, SLOT};
use super::dir::{ATTR_ARCHIVE, ATTR_DIRECTORY, ATTR_READ_ONLY, Dir, Entry, FREE, Node, Slot, missing};
use super::names::{self, Short};
use super::view::View;
use super::{corrupt, full};
use crate::disk::bytes::{long, put, size};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::clusters::Chain;
use crate::fs::{Attributes, FileKind, Inode, utf16};
use crate::limits;

impl View<'_> {
    /// Makes `content` the whole content of a file, or what follows its present content.
    pub(super) fn fill(&mut self, node: &mut Node, content: &[u8], keep: bool) -> Result<()> {
        let width = self.boot.width;
        let start = if keep { u64::from(node.slot.size()) } else { 0 };
        let end = start.saturating_add(long(content.len()));
        let new_size =
            u32::try_from(end).map_err(|_| Error::limit("fat.limit", "a file cannot have 4 GiB or more").found(end))?;
        let mut chain = self.chain(node.slot.first_cluster(width), u32::MAX)?;
        if chain.len() < self.clusters_of(start) {
            return Err(corrupt("a chain of clusters is shorter than its file").found(chain.len()));
        }
        let need = self.clusters_of(end);
        match need.cmp(&chain.len()) {
            std::cmp::Ordering::Less => self.cut(&mut chain, need)?,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => self.extend(&mut chain, need)?,
        }
        self.put_content(&chain, start, content);
        node.slot.set_first_cluster(width, chain.first());
        node.slot.set_size(new_size);
        let attributes = node.slot.attributes() | ATTR_ARCHIVE;
        put(&mut node.slot.0, 11, &[attributes]);
        self.put_node(node)
    }

    /// Stores a file's entry.
    pub(super) fn put_node(&mut self, node: &Node) -> Result<()> {
        match node.place {
            Some(place) => self.write(&node.slot.0, place),
            None => Ok(()),
        }
    }

    /// Makes an entry; its clusters are still to come.
    pub(super) fn create(
        &mut self,
        parent: Inode,
        name: &[u8],
        kind: FileKind,
        attributes: &Attributes,
    ) -> Result<(Dir, Node)> {
        if !attributes.xattrs.is_empty() {
            return Err(Error::unsupported("fat.feature", "a FAT file system keeps no extended attributes"));
        }
        let mut dir = self.dir(parent)?;
        let (short, mut slots) = named_anew(&dir, name)?;
        let mut slot = Slot([0; 32]);
        put(&mut slot.0, 0, &short);
        let read_only = if attributes.mode & 0o222 == 0 { ATTR_READ_ONLY } else { 0 };
        let flags = if kind == FileKind::Directory { ATTR_DIRECTORY } else { ATTR_ARCHIVE | read_only };
        put(&mut slot.0, 11, &[flags]);
        slot.set_btime(attributes.time);
        slot.set_atime(attributes.time);
        slot.set_mtime(attributes.time);
        slots.push(slot.0);
        let place = self.put_slots(&mut dir, &slots)?;
        dir.node.slot.set_mtime(attributes.time);
        self.put_node(&dir.node)?;
        Ok((dir, Node { place: Some(place), slot }))
    }

    /// Gives a new directory its first cluster, with the entries for itself and for the directory that it is in.
    pub(super) fn make_dir(&mut self, parent: &Dir, node: &mut Node) -> Result<()> {
        let width = self.boot.width;
        let mut chain = Chain::default();
        self.extend_zeroed(&mut chain, 1)?;
        node.slot.set_first_cluster(width, chain.first());
        self.put_node(node)?;
        let mut own = node.slot;
        put(&mut own.0, 0, b".          ");
        let mut above = node.slot;
        put(&mut above.0, 0, b"..         ");
        // The root directory is 0 here even where it is a chain.
        let first = if parent.node.place.is_none() { 0 } else { parent.node.slot.first_cluster(width) };
        above.set_first_cluster(width, first);
        self.write(&[own.0, above.0].concat(), self.boot.place(chain.first()))
    }

    /// Removes a file, or an empty directory if `directory`, and frees its clusters.
    pub(super) fn remove(&mut self, parent: Inode, name: &[u8], directory: bool) -> Result<()> {
        let dir = self.dir(parent)?;
        let entry = dir.find(name).ok_or_else(|| missing(name))?;
        if entry.node.is_directory() != directory {
            let what = if directory { "not a directory" } else { "not a file" };
            return Err(Error::failed("fat.name", what).at(escape_bytes(name)));
        }
        if directory && !self.dir(entry.node.inode())?.is_empty() {
            return Err(Error::failed("fat.not-empty", "a directory that is not empty").at(escape_bytes(name)));
        }
        let mut chain = self.chain(entry.node.slot.first_cluster(self.boot.width), u32::MAX)?;
        self.cut(&mut chain, 0)?;
        self.free_slots(&dir, &entry)
    }

    /// Gives what is called `name` in `parent` the name `new_name` in `new_parent`. Its inode is another one then. The same
    /// name in another case is not in its own way.
    pub(super) fn rename(&mut self, parent: Inode, name: &[u8], new_parent: Inode, new_name: &[u8]) -> Result<()> {
        let dir = self.dir(parent)?;
        let entry = dir.find(name).ok_or_else(|| missing(name))?;
        let mut node = entry.node;
        if node.is_directory() {
            let (above, first) = (self.dir(new_parent)?, node.slot.first_cluster(self.boot.width));
            self.check_not_below(&above, first)?;
            self.set_parent(first, &above)?;
        }
        self.free_slots(&dir, &entry)?;
        // Read anew, as they may be one and the same.
        let mut new_dir = self.dir(new_parent)?;
        let (short, mut slots) = named_anew(&new_dir, new_name)?;
        put(&mut node.slot.0, 0, &short);
        // How the short name is shown: its case.
        put(&mut node.slot.0, 12, &[0]);
        slots.push(node.slot.0);
        self.put_slots(&mut new_dir, &slots).map(drop)
    }

    fn free_slots(&mut self, dir: &Dir, entry: &Entry) -> Result<()> {
        for index in entry.first..=entry.last {
            let place = dir.place(index).ok_or_else(|| corrupt("an entry lies outside of its directory"))?;
            self.write(&[FREE], place)?;
        }
        Ok(())
    }

    /// An error when `dir` is the directory that starts at cluster `above`, or lies somewhere below it.
    fn check_not_below(&self, dir: &Dir, above: u32) -> Result<()> {
        let root = if let Root::Chain(first) = self.boot.root { first } else { 0 };
        let mut at = if dir.node.place.is_none() { 0 } else { dir.node.slot.first_cluster(self.boot.width) };
        let mut seen = HashSet::new();
        while at != 0 && at != root {
            if at == above {
                return Err(Error::failed("fat.name", "a directory cannot be moved into itself"));
            }
            if !seen.insert(at) || !self.boot.numbers().contains(&at) {
                return Err(corrupt("a directory lies in itself, or nowhere"));
            }
            let slot = Slot(self.array(self.boot.place(at).saturating_add(SLOT))?);
            if !is_parent(&slot) {
                return Err(corrupt("a directory does not say where it lies"));
            }
            at = slot.first_cluster(self.boot.width);
        }
        Ok(())
    }

    /// Makes `..` of the directory that starts at cluster `first` lead to `parent`.
    fn set_parent(&mut self, first: u32, parent: &Dir) -> Result<()> {
        if !self.boot.numbers().contains(&first) {
            return Err(corrupt("a directory without clusters").found(first));
        }
        let width = self.boot.width;
        let place = self.boot.place(first).saturating_add(SLOT);
        let mut slot = Slot(self.array(place)?);
        if !is_parent(&slot) {
            return Err(corrupt("a directory does not say where it lies"));
        }
        // The root directory is 0 here even where it is a chain.
        let above = if parent.node.place.is_none() { 0 } else { parent.node.slot.first_cluster(width) };
        slot.set_first_cluster(width, above);
        self.write(&slot.0, place)
    }

    /// Stores the slots of one name where there is room for all of them; where the last one is.
    fn put_slots(&mut self, dir: &mut Dir, slots: &[[u8; 32]]) -> Result<u64> {
        let used = dir.slots.iter().position(|slot| slot.first_byte() == 0).unwrap_or(dir.slots.len());
        let first = first_gap(dir, used, slots.len());
        let end = first.saturating_add(slots.len());
        if end > dir.slots.len() {
            self.grow(dir, end)?;
        }
        let place = |index: usize| dir.place(index).ok_or_else(|| corrupt("an entry lies outside of its directory"));
        for (index, slot) in (first..).zip(slots) {
            self.write(slot, place(index)?)?;
        }
        // What follows the end is not always zero.
        if end > used && end < dir.slots.len() {
            self.write(&[0], place(end)?)?;
        }
        place(end.saturating_sub(1))
    }

    /// Makes room for `count` slots.
    fn grow(&mut self, dir: &mut Dir, count: usize) -> Result<()> {
        let bytes = long(count).saturating_mul(SLOT);
        if bytes > limits::MAX_FAT_DIR {
            return Err(full("a directory cannot have more entries"));
        }
        let Some(mut chain) = dir.chain.take() else {
            return Err(full("the root directory of this file system cannot have more entries"));
        };
        let need = self.clusters_of(bytes);
        self.extend_zeroed(&mut chain, need)?;
        if dir.node.place.is_some() {
            dir.node.slot.set_first_cluster(self.boot.width, chain.first());
            self.put_node(&dir.node)?;
        } else if matches!(self.boot.root, Root::Chain(first) if first != chain.first()) {
            return Err(corrupt("the root directory has no clusters"));
        }
        *dir = self.dir(dir.node.inode())?;
        Ok(())
    }

    /// Makes a directory's chain longer by clusters of zeros.
    fn extend_zeroed(&mut self, chain: &mut Chain, len: u32) -> Result<()> {
        let before = chain.len();
        self.extend(chain, len)?;
        let zeros = vec![0; size(self.boot.cluster.get())];
        for cluster in chain.from(before).collect::<Vec<_>>() {
            self.write(&zeros, self.boot.place(cluster))?;
        }
        Ok(())
    }
}

/// The short name and the slots of the long one for a new name in `dir`.
fn named_anew(dir: &Dir, name: &[u8]) -> Result<(Short, Vec<[u8; 32]>)> {
    let units = utf16::from_bytes(name).filter(|units| names::is_allowed(units) && utf16::is_name(name));
    let bad = || Error::failed("fat.name", "not a name for a file of a FAT file system").at(escape_bytes(name));
    let units = units.ok_or_else(bad)?;
    if dir.find(name).is_some() {
        return Err(
            Error::new(Kind::Exists, "fat.exists", "the name exists already, in some case").at(escape_bytes(name))
        );
    }
    if let Some(short) = names::exact(&units) {
        return Ok((short, Vec::new()));
    }
    let taken: HashSet<Short> = dir.entries(0).iter().map(|entry| entry.short).collect();
    let short = names::alias(&units, &taken).ok_or_else(|| full("there are too many names of this kind"))?;
    Ok((short, names::slots(&units, &short)))
}

/// Whether a directory's second entry is the one for the directory that it lies in.
fn is_parent(slot: &Slot) -> bool {
    slot.is_directory() && slot.0.starts_with(b"..         ")
}

/// The first of `count` slots that are all free: between names, or from `used` on, where nothing was ever written.
fn first_gap(dir: &Dir, used: usize, count: usize) -> usize {
    let mut start = 0;
    for (index, slot) in dir.slots.iter().take(used).enumerate() {
        if slot.first_byte() != FREE {
            start = index.saturating_add(1);
        } else if index.saturating_add(1).saturating_sub(start) >= count {
            return start;
        }
    }
    start
}
