//! ISO 9660 with Rock Ridge or Joliet: reading.
//!
//! Field names are those of ECMA-119. Of several trees the one is shown that the kernel shows: Rock Ridge's, else Joliet's, else
//! the plain names in lower case. An inode is the place of a file's first directory record on the volume; that of a directory
//! which Rock Ridge moved is the record where it belongs.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::known::{Known, Names};
use super::pages::Pages;
use super::{DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, utf16};
use crate::disk::Disk;
use crate::disk::bytes::{long, size};
use crate::error::{Error, Kind, Result};
use crate::limits;
use record::{Record, Records, checked};
use rock::Rock;
use volume::Descriptor;

mod record;
mod rock;
#[cfg(test)]
mod tests;
mod volume;

/// Which names are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Rock Ridge's; the bytes of a system use area that are skipped.
    Rock(usize),
    Joliet,
    Plain,
}

/// An ISO 9660 file system.
pub struct Iso {
    pages: Pages,
    tree: Descriptor,
    names: Shown,
    facts: FsFacts,
    known: Known,
}

/// A file: its records and what they say.
struct Node {
    inode: Inode,
    rock: Rock,
    kind: FileKind,
    /// Its first record, or that of a directory that was moved.
    record: Record,
    /// Where the content lies, in order: bytes of the volume.
    extents: Vec<Range<u64>>,
}

impl Node {
    fn size(&self) -> u64 {
        self.extents.iter().map(|extent| extent.end.saturating_sub(extent.start)).fold(0, u64::saturating_add)
    }
}

impl Iso {
    /// Opens a volume.
    ///
    /// # Errors
    /// When it is not an ISO 9660 file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        let pages = Pages::new(volume, "iso.corrupt");
        let (primary, joliet) = volume::read(&pages)?;
        let skip = rock_ridge(&pages, &primary)?;
        let mut features = Vec::new();
        features.extend(skip.map(|_| "RockRidge".to_owned()));
        features.extend(joliet.as_ref().map(|_| "Joliet".to_owned()));
        let facts = FsFacts {
            kind: "iso9660",
            uuid: primary.uuid.clone(),
            label: joliet.as_ref().and_then(|joliet| joliet.label.clone()).or_else(|| primary.label.clone()),
            block_size: primary.block,
            size: primary.size.min(pages.volume_len()),
            free: Some(0),
            dirty: false,
            features,
        };
        let (tree, names) = match (skip, joliet) {
            (Some(skip), _) => (primary, Shown::Rock(skip)),
            (None, Some(joliet)) => (joliet, Shown::Joliet),
            (None, None) => (primary, Shown::Plain),
        };
        let iso = Self { pages, tree, names, facts, known: Known::default() };
        if iso.node(iso.root())?.kind != FileKind::Directory {
            return Err(corrupt("the root directory is not a directory").offset(iso.tree.root));
        }
        Ok(iso)
    }

    fn rock(&self, record: &Record) -> Result<Rock> {
        match self.names {
            Shown::Rock(skip) => Rock::read(&self.pages, record, skip, self.tree.block),
            Shown::Joliet | Shown::Plain => Ok(Rock::default()),
        }
    }

    fn record(&self, place: u64) -> Result<Record> {
        Record::read(&self.pages, place)?.ok_or_else(|| corrupt("there is no directory record").offset(place))
    }

    /// The file whose first record lies at the place that `inode` names.
    fn node(&self, inode: Inode) -> Result<Node> {
        let mut record = self.record(inode.0)?;
        let mut rock = self.rock(&record)?;
        if let Some(block) = rock.child {
            // The directory's own record tells all about it.
            record = self.record(u64::from(block).saturating_mul(self.tree.block))?;
            rock = self.rock(&record)?;
            rock.child = None;
            if !record.is_directory() {
                return Err(corrupt("a directory that was moved is not one").offset(record.place));
            }
        } else if inode.0 == self.tree.root {
            // The record in the descriptor has no system use area.
            let own = self.record(record.extent.saturating_mul(self.tree.block))?;
            rock = self.rock(&own)?;
        }
        let kind = kind_of(&record, &rock)?;
        let extents = self.extents(&record)?;
        Ok(Node { inode, rock, kind, record, extents })
    }

    /// Where the content of a file lies: that of a large one has several records, one after the other.
    fn extents(&self, first: &Record) -> Result<Vec<Range<u64>>> {
        let mut extents = Vec::new();
        let mut record = first.clone();
        loop {
            if record.interleaved && record.len > 0 {
                return Err(feature("a file is interleaved with another one").offset(record.place));
            }
            let start = record.extent.saturating_mul(self.tree.block);
            extents.push(start..start.saturating_add(record.len));
            if !record.continues() || record.is_directory() {
                return Ok(extents);
            }
            if extents.len() >= limits::MAX_ISO_EXTENTS {
                return Err(Error::limit("iso.limit", "a file has too many pieces").offset(first.place));
            }
            // It may be in the next sector.
            let next = record.next;
            let after = next.checked_next_multiple_of(volume::SECTOR).unwrap_or(next);
            let found = match Record::read(&self.pages, next)? {
                Some(record) => record,
                None => self.record(after)?,
            };
            if found.name != first.name {
                return Err(corrupt("a file's last piece is missing").offset(record.place));
            }
            record = found;
        }
    }

    /// The name of a record as it is shown; `None` for one that is not.
    fn name(&self, record: &Record) -> Result<Option<(Vec<u8>, Rock)>> {
        if record.is_hidden() {
            return Ok(None);
        }
        let rock = self.rock(record)?;
        if rock.relocated {
            return Ok(None);
        }
        let name = match self.names {
            Shown::Rock(_) => rock.name.clone().unwrap_or_else(|| record.plain_name()),
            Shown::Joliet => utf16::to_bytes(&record.joliet_name()),
            Shown::Plain => record.plain_name(),
        };
        checked(name, record.place).map(|name| Some((name, rock)))
    }

    /// Visits a directory's entries from `cursor` until `visit` says that it is enough.
    fn walk(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> Result<ControlFlow<()>>) -> Result<()> {
        let node = self.node(dir)?;
        if node.kind != FileKind::Directory {
            return Err(Error::new(Kind::NotFound, "iso.name", "not a directory").at(format!("inode {}", dir.0)));
        }
        let len = node.size();
        if len > limits::MAX_ISO_DIR {
            return Err(Error::limit("iso.limit", "a directory is too large").found(len));
        }
        let start = node.extents.first().map_or(0, |extent| extent.start);
        let mut records = Records { pages: &self.pages, start, len, at: cursor };
        let mut continued = false;
        while let Some(record) = records.next()? {
            let follows = std::mem::replace(&mut continued, record.continues() && !record.is_directory());
            if follows {
                continue;
            }
            let Some((name, rock)) = self.name(&record)? else { continue };
            let kind = if rock.child.is_some() { FileKind::Directory } else { kind_of(&record, &rock)? };
            let mut cursor = records.at;
            if continued {
                // The cursor continues after the last piece.
                let mut rest = Records { pages: &self.pages, start, len, at: records.at };
                while let Some(piece) = rest.next()? {
                    cursor = rest.at;
                    if !piece.continues() {
                        break;
                    }
                }
            }
            let entry = DirEntry { name, inode: Inode(record.place), kind: Some(kind), cursor };
            if visit(entry)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// What is equal for names that are the same: those of Joliet and plain ones are, whatever their case.
    fn key(&self, name: &[u8]) -> Vec<u8> {
        if matches!(self.names, Shown::Rock(_)) {
            return name.to_vec();
        }
        match utf16::from_bytes(name) {
            Some(units) => utf16::to_bytes(&units.into_iter().map(utf16::upper).collect::<Vec<_>>()),
            None => name.to_vec(),
        }
    }
}

/// The bytes to skip in system use areas, if the primary tree has Rock Ridge.
fn rock_ridge(pages: &Pages, primary: &Descriptor) -> Result<Option<usize>> {
    let root = Record::read(pages, primary.root)?.ok_or_else(|| corrupt("there is no root directory"))?;
    let Some(own) = Record::read(pages, root.extent.saturating_mul(primary.block))? else {
        return Err(corrupt("the root directory is empty").offset(root.place));
    };
    // What is no Rock Ridge need not make sense.
    let Ok(rock) = Rock::read(pages, &own, 0, primary.block) else { return Ok(None) };
    if rock.named {
        return Ok(Some(rock.skip.unwrap_or(0)));
    }
    // Discs for CD-ROM XA have 14 bytes before it.
    let shifted = Rock::read(pages, &own, 14, primary.block).ok().filter(|rock| rock.named && rock.skip.is_some());
    Ok(shifted.and_then(|rock| rock.skip))
}

fn kind_of(record: &Record, rock: &Rock) -> Result<FileKind> {
    let plain = if record.is_directory() { FileKind::Directory } else { FileKind::Regular };
    let Some([mode, ..]) = rock.posix else { return Ok(plain) };
    let kind = match mode & 0o170_000 {
        0o010_000 => FileKind::Fifo,
        0o020_000 => FileKind::CharDevice,
        0o040_000 => FileKind::Directory,
        0o060_000 => FileKind::BlockDevice,
        0o100_000 => FileKind::Regular,
        0o120_000 => FileKind::Symlink,
        0o140_000 => FileKind::Socket,
        _ => plain,
    };
    if (kind == FileKind::Directory) != record.is_directory() {
        return Err(corrupt("a record and its mode do not agree on what is a directory").offset(record.place));
    }
    Ok(kind)
}

impl fmt::Debug for Iso {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iso").field("facts", &self.facts).field("names", &self.names).finish_non_exhaustive()
    }
}

impl Filesystem for Iso {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(self.tree.root)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let key = self.key(name);
        let one = || {
            let mut found = None;
            self.walk(dir, 0, &mut |entry| {
                Ok(if self.key(&entry.name) == key {
                    found = Some(entry.inode);
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            })?;
            Ok(found)
        };
        let all = |names: &mut Names| {
            self.walk(dir, 0, &mut |entry| {
                let has_room = names.add(self.key(&entry.name), entry.inode);
                Ok(if has_room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })
        };
        self.known.find(dir, &key, one, all)
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        let node = self.node(inode)?;
        let (size, rock) = (node.size(), &node.rock);
        let [mode, links, uid, gid] = rock.posix.unwrap_or([0o555, 1, 0, 0]);
        let [created, modified, accessed, changed] = rock.times;
        let size = match node.kind {
            FileKind::Symlink => long(rock.target.as_ref().map_or(0, Vec::len)),
            FileKind::Regular | FileKind::Directory => size,
            _ => 0,
        };
        let device = matches!(node.kind, FileKind::BlockDevice | FileKind::CharDevice);
        Ok(Stat {
            inode: node.inode,
            kind: node.kind,
            mode: mode & 0o7777,
            uid,
            gid,
            size,
            allocated: size.checked_next_multiple_of(512).unwrap_or(size),
            device: rock.device.filter(|_| device),
            links,
            atime: accessed.unwrap_or(node.record.time),
            mtime: modified.unwrap_or(node.record.time),
            ctime: changed.or(created).unwrap_or(node.record.time),
            btime: created,
        })
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let node = self.node(inode)?;
        if node.kind != FileKind::Regular {
            return Err(Error::new(Kind::NotFound, "iso.name", "not a regular file").at(format!("inode {}", inode.0)));
        }
        if node.rock.compressed {
            return Err(feature("a file is compressed by zisofs").at(format!("inode {}", inode.0)));
        }
        if node.rock.sparse {
            return Err(feature("a file is stored with holes").at(format!("inode {}", inode.0)));
        }
        let len = buf.len().min(size(node.size().saturating_sub(offset)));
        let (mut done, mut before) = (0_usize, 0_u64);
        for extent in &node.extents {
            let extent_len = extent.end.saturating_sub(extent.start);
            let at = offset.saturating_add(long(done));
            let within = at.saturating_sub(before);
            before = before.saturating_add(extent_len);
            if done < len && within < extent_len {
                let piece = size(extent_len.saturating_sub(within)).min(len.saturating_sub(done));
                let end = done.saturating_add(piece);
                let to = buf.get_mut(done..end).unwrap_or_default();
                self.pages.content(to, extent.start.saturating_add(within))?;
                done = end;
            }
        }
        Ok(done)
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        self.walk(dir, cursor, &mut |entry| Ok(visit(entry)))
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let node = self.node(inode)?;
        if let Some(error) = node.rock.bad_target {
            return Err(error.at(format!("inode {}", inode.0)));
        }
        let target = node.rock.target.filter(|_| node.kind == FileKind::Symlink);
        target.ok_or_else(|| {
            Error::new(Kind::NotFound, "iso.name", "not a symbolic link").at(format!("inode {}", inode.0))
        })
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.node(inode).map(|_| Vec::new())
    }

    /// Nothing on such a volume is ever free.
    fn free_ranges(&self, _visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Err(Error::refused("iso.read-only", "an ISO 9660 file system is never changed"))
    }
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("iso.corrupt", what)
}

/// Sizes that cannot be.
fn geometry(what: impl Into<String>) -> Error {
    Error::corrupt("iso.geometry", what)
}

/// Well formed, not handled.
fn feature(what: impl Into<String>) -> Error {
    Error::unsupported("iso.feature", what)
}
