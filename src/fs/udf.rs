//! UDF 1.02 to 2.60: reading.
//!
//! Names of fields are those of ECMA-167 (third edition) and of OSTA's "Universal Disk Format". Plain, sparable and metadata
//! partitions are read; volumes that are written in sessions are refused by name. What a Unix system makes of it is as in the
//! kernel: names are told apart by case, hidden and deleted files are not shown, named streams are not either. An inode is the place
//! of a file's entry: the partition in the upper half, the block in the lower one.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::HashMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use super::known::{Known, Names};
use super::pages::Pages;
use super::parts::Parts;
use super::{DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, utf16};
use crate::disk::Disk;
use crate::disk::bytes::{le16, le32, long, size, u8_at};
use crate::error::{Error, Kind, Result};
use crate::limits;
use node::{Content, Node};
use volume::{Map, Volume};

mod names;
mod node;
mod tag;
#[cfg(test)]
mod tests;
mod volume;

/// Files that are kept in memory.
const NODES: usize = 64;

/// Bytes of a file identifier before its implementation use.
const IDENTIFIER: usize = 38;

/// A logical block of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Which of the logical volume's partition maps.
    partition: u16,
    block: u32,
}

impl Place {
    /// That of the `long_ad` at `at`.
    fn long(bytes: &[u8], at: usize) -> Self {
        Self { partition: le16(bytes, at.saturating_add(8)), block: le32(bytes, at.saturating_add(4)) }
    }

    fn further(self, blocks: u32) -> Self {
        Self { block: self.block.saturating_add(blocks), ..self }
    }

    fn inode(self) -> Inode {
        Inode(u64::from(self.partition) << 32 | u64::from(self.block))
    }

    fn of(inode: Inode) -> Self {
        let block = u32::try_from(inode.0 & 0xffff_ffff).unwrap_or(u32::MAX);
        Self { partition: u16::try_from(inode.0 >> 32).unwrap_or(u16::MAX), block }
    }
}

/// A UDF file system.
pub struct Udf {
    pages: Pages,
    volume: Volume,
    root: Inode,
    facts: FsFacts,
    nodes: Mutex<HashMap<Inode, Arc<Node>>>,
    known: Known,
}

impl Udf {
    /// Opens a volume.
    ///
    /// # Errors
    /// When it is not a UDF file system, or one that cannot be read.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self> {
        let pages = Pages::new(disk, "udf.corrupt");
        let volume = Volume::read(&pages)?;
        let root = volume.root(&pages)?.inode();
        let state = volume.state(&pages);
        let [major, minor] = volume.revision.to_be_bytes();
        let mut features = vec![format!("revision {major:x}.{minor:02x}")];
        for (name, is) in [
            ("sparable", volume.maps.iter().any(|map| matches!(map, Map::Sparable { .. }))),
            ("metadata partition", volume.maps.iter().any(|map| matches!(map, Map::Metadata(_)))),
        ] {
            features.extend(is.then(|| name.to_owned()));
        }
        let facts = FsFacts {
            kind: "udf",
            uuid: volume.uuid.clone(),
            label: volume.label.clone(),
            block_size: volume.block,
            size: volume.end().min(pages.volume_len()),
            free: state.free,
            dirty: state.open,
            features,
        };
        let udf = Self { pages, volume, root, facts, nodes: Mutex::default(), known: Known::default() };
        if udf.node(root)?.kind != FileKind::Directory {
            return Err(corrupt("the root directory is not a directory"));
        }
        Ok(udf)
    }

    fn node(&self, inode: Inode) -> Result<Arc<Node>> {
        let known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner).get(&inode).map(Arc::clone);
        if let Some(node) = known {
            return Ok(node);
        }
        let node = Node::read(&self.pages, &self.volume, Place::of(inode));
        let node = Arc::new(node.map_err(|error| error.at(format!("inode {}", inode.0)))?);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= NODES {
            nodes.clear();
        }
        nodes.insert(inode, Arc::clone(&node));
        Ok(node)
    }

    /// Fills `buf` from `offset` of a file that reaches that far.
    fn read_content(&self, node: &Node, buf: &mut [u8], offset: u64) -> Result<()> {
        let extents = match &node.content {
            Content::Embedded(bytes) => {
                let from = bytes.get(size(offset)..).and_then(|rest| rest.get(..buf.len()));
                buf.copy_from_slice(from.ok_or_else(|| corrupt("a file is longer than its entry"))?);
                return Ok(());
            }
            Content::Extents(extents) => extents,
        };
        let mut done = 0_usize;
        while done < buf.len() {
            let part = extents.at(offset.saturating_add(long(done)));
            let left = part.map_or(u64::MAX, |part| part.left);
            let end = done.saturating_add(size(left)).min(buf.len());
            let piece = buf.get_mut(done..end).unwrap_or_default();
            match part.and_then(|part| part.place) {
                Some((within, place)) => self.read_blocks(place, within, piece)?,
                None => piece.fill(0),
            }
            done = end;
        }
        Ok(())
    }

    /// Visits a directory's entries from byte `cursor` on.
    fn walk(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let node = self.node(dir)?;
        if node.kind != FileKind::Directory {
            return Err(not("a directory", dir));
        }
        if node.size > limits::MAX_UDF_DIR {
            return Err(Error::limit("udf.limit", "a directory is too large").found(node.size));
        }
        let at = |offset: u64, error: Error| error.at(format!("inode {}", dir.0)).offset(offset);
        let mut window = Window { udf: self, node: &node, start: 0, bytes: Vec::new() };
        let mut offset = cursor;
        while offset < node.size {
            let head = window
                .get(offset, IDENTIFIER)?
                .ok_or_else(|| at(offset, corrupt("a directory ends within an entry")))?;
            let (name_len, use_len) = (usize::from(u8_at(head, 19)), usize::from(le16(head, 36)));
            let len = IDENTIFIER.saturating_add(name_len).saturating_add(use_len);
            let padded = len.next_multiple_of(4);
            let entry =
                window.get(offset, padded)?.ok_or_else(|| at(offset, corrupt("a directory ends within an entry")))?;
            if tag::kind(entry) != Some(tag::FILE_IDENTIFIER) {
                return Err(at(offset, corrupt("there is no file identifier")));
            }
            offset = offset.saturating_add(long(padded));
            // Hidden, deleted, or the directory above.
            if u8_at(entry, 18) & 0b1101 != 0 {
                continue;
            }
            let name = entry.get(IDENTIFIER.saturating_add(use_len)..len).and_then(names::decode);
            let Some(name) = name.filter(|name| utf16::is_name(name)) else { continue };
            let kind = (u8_at(entry, 18) & 2 != 0).then_some(FileKind::Directory);
            let inode = Place::long(entry, 20).inode();
            if visit(DirEntry { name, inode, kind, cursor: offset }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A part of a directory that is in memory.
struct Window<'a> {
    udf: &'a Udf,
    node: &'a Node,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// Bytes that are read at once; more than any entry has.
    const LEN: usize = 96 << 10;

    /// `len` bytes at `offset`; `None` when the directory ends before.
    fn get(&mut self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        let within = offset.checked_sub(self.start).map(size);
        let has = within.is_some_and(|within| within.saturating_add(len) <= self.bytes.len());
        if !has {
            let left = self.node.size.saturating_sub(offset);
            self.bytes = vec![0; size(left).min(Self::LEN)];
            self.start = offset;
            self.udf.read_content(self.node, &mut self.bytes, offset)?;
        }
        let within = size(offset.saturating_sub(self.start));
        Ok(self.bytes.get(within..).and_then(|rest| rest.get(..len)))
    }
}

impl fmt::Debug for Udf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Udf").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Filesystem for Udf {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        self.root
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let one = || {
            let mut found = None;
            self.walk(dir, 0, &mut |entry| {
                if entry.name == name {
                    found = Some(entry.inode);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            Ok(found)
        };
        let all = |names: &mut Names| {
            self.walk(dir, 0, &mut |entry| {
                if names.add(entry.name, entry.inode) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        };
        self.known.find(dir, name, one, all)
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        let node = self.node(inode)?;
        let [atime, mtime, ctime] = node.times;
        let size = match node.kind {
            FileKind::Symlink => long(self.read_link(inode).map_or(0, |target| target.len())),
            FileKind::Regular | FileKind::Directory => node.size,
            _ => 0,
        };
        Ok(Stat {
            inode,
            kind: node.kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size,
            allocated: node.blocks.saturating_mul(self.volume.block),
            device: node.device,
            links: node.links,
            atime,
            mtime,
            ctime,
            btime: node.created,
        })
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let node = self.node(inode)?;
        if node.kind != FileKind::Regular {
            return Err(not("a regular file", inode));
        }
        let len = buf.len().min(size(node.size.saturating_sub(offset)));
        if len > 0 {
            let read = self.read_content(&node, buf.get_mut(..len).unwrap_or_default(), offset);
            read.map_err(|error| error.at(format!("inode {}", inode.0)))?;
        }
        Ok(len)
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let node = self.node(inode)?;
        let mut parts = Parts::new(&range, node.size, visit);
        let flow = match &node.content {
            Content::Embedded(_) => parts.add(range),
            Content::Extents(extents) => extents.data(&mut parts),
        };
        if flow.is_continue() {
            parts.finish();
        }
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        self.walk(dir, cursor, visit)
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let node = self.node(inode)?;
        if node.kind != FileKind::Symlink {
            return Err(not("a symbolic link", inode));
        }
        // A component of one letter takes six bytes.
        let most = limits::MAX_GUEST_PATH.saturating_mul(4);
        let len = size(node.size);
        if len > most {
            return Err(Error::limit("udf.limit", "a link's target is too long").found(len));
        }
        let mut components = vec![0; len];
        self.read_content(&node, &mut components, 0)?;
        let target = names::target(&components).filter(|target| target.len() <= limits::MAX_GUEST_PATH);
        target.ok_or_else(|| corrupt("a link's target makes no sense").at(format!("inode {}", inode.0)))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.node(inode).map(|_| Vec::new())
    }

    /// What is free is told in several places that the format does not hold together by checksums: nothing is proved.
    fn free_ranges(&self, _visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Err(Error::refused("udf.read-only", "UDF cannot be written"))
    }
}

/// A file is not what it was taken for.
fn not(what: &str, inode: Inode) -> Error {
    Error::new(Kind::NotFound, "udf.name", format!("not {what}")).at(format!("inode {}", inode.0))
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("udf.corrupt", what)
}

/// Sizes that cannot be.
fn geometry(what: impl Into<String>) -> Error {
    Error::corrupt("udf.geometry", what)
}

/// Well formed, not handled.
fn feature(what: impl Into<String>) -> Error {
    Error::unsupported("udf.feature", what)
}
