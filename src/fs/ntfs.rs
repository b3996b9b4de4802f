//! NTFS: reading.
//!
//! Field names are those of the kernel's and ntfs-3g's layout documentation. What a Unix system makes of it is as in ntfs-3g:
//! mode 0777, names of DOS and the files of the file system itself are not listed, names are found by `$UpCase`, other streams are
//! extended attributes `user.NAME`. Symbolic links and junctions are links. An inode is the number of a file record.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};

use super::pages::Pages;
use super::parts::Parts;
use super::{DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Timestamp, utf16};
use crate::disk::Disk;
use crate::disk::bytes::{array, le64, long, size, u8_at};
use crate::error::{Error, Kind, Result};
use crate::limits;
use boot::Boot;
use index::NAMESPACE_DOS;
use record::{DATA, FILE_NAME, File, REPARSE_POINT, STANDARD_INFORMATION};
use reparse::Reparse;
use stream::{Mapped, Stream};

mod boot;
mod index;
mod lznt1;
mod record;
mod reparse;
mod runs;
mod state;
mod stream;
#[cfg(test)]
mod tests;

/// Records of the files that make the file system.
const LOG_FILE: u64 = 2;
const VOLUME_FILE: u64 = 3;
const ROOT: u64 = 5;
const BITMAP_FILE: u64 = 6;
const UPCASE_FILE: u64 = 10;
/// The first record that may be a user's file.
const FIRST_USER: u64 = 24;

/// From 1601 to the epoch, in seconds.
const EPOCH: i64 = 11_644_473_600;

/// The first clusters of a compressed unit that was decoded last, and its bytes.
type Unit = Option<(u64, Arc<Vec<u8>>)>;

/// An NTFS file system.
pub struct Ntfs {
    pages: Pages,
    boot: Boot,
    /// The master file table.
    mft: Mapped,
    /// `$UpCase`: each unit in upper case.
    upcase: Vec<u16>,
    facts: FsFacts,
    unit: Mutex<Unit>,
}

impl Ntfs {
    /// Opens a volume. One whose boot sector is damaged is read by its copy at the volume's end.
    ///
    /// # Errors
    /// When it is not an NTFS file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        let pages = Pages::new(volume, "ntfs.corrupt");
        let (boot, by_copy) = boot::find(&pages)?;
        let first = record::bootstrap(&pages, &boot)?;
        let Some(Stream::Mapped(mft)) = first.stream_in(DATA, &[], boot.clusters)? else {
            return Err(corrupt("the master file table has no clusters"));
        };
        let facts = FsFacts {
            kind: "ntfs",
            uuid: Some(format!("{:016X}", boot.serial)),
            label: None,
            block_size: boot.cluster.get(),
            size: boot.size,
            free: None,
            dirty: by_copy,
            features: Vec::new(),
        };
        let mut ntfs = Self { pages, boot, mft, upcase: Vec::new(), facts, unit: Mutex::default() };
        // Only now can those of its pieces be found that other records tell.
        if let Ok(whole) = ntfs.file(0)
            && let Some(Stream::Mapped(mft)) = whole.stream(DATA, &[], &ntfs)?
        {
            ntfs.mft = mft;
        }
        ntfs.upcase = ntfs.read_upcase()?;
        let state = ntfs.state()?;
        ntfs.facts.label = state.label;
        ntfs.facts.features.push(format!("version {}.{}", state.version.0, state.version.1));
        for (is, name) in [(state.hibernated, "hibernated"), (state.logged, "log to replay")] {
            ntfs.facts.features.extend(is.then(|| name.to_owned()));
        }
        ntfs.facts.dirty |= state.dirty || state.hibernated || state.logged;
        Ok(ntfs)
    }

    fn read_upcase(&self) -> Result<Vec<u16>> {
        let stream = self.file(UPCASE_FILE)?.stream(DATA, &[], self)?;
        let stream = stream.filter(|stream| stream.len() == 131_072);
        let stream = stream.ok_or_else(|| corrupt("the table of upper case has an impossible size"))?;
        let mut bytes = vec![0; 131_072];
        self.read_stream(&stream, &mut bytes, 0)?;
        Ok(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes(array(pair, 0))).collect())
    }

    fn upper(&self, unit: u16) -> u16 {
        self.upcase.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    fn same(&self, a: &[u16], b: &[u16]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || self.upper(*a) == self.upper(*b))
    }

    /// The entry of a directory whose tree is damaged, looked for from the front.
    fn scan(&self, dir: Inode, name: &[u16]) -> Result<Option<Inode>> {
        let mut found = None;
        self.walk(dir.0, 0, &mut |entry, _| {
            if entry.name == name {
                found = Some(Inode(entry.number));
                return ControlFlow::Break(());
            }
            if found.is_none() && self.same(&entry.name, name) {
                found = Some(Inode(entry.number));
            }
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Visits a directory's entries from `cursor` until `visit` says that it is enough.
    fn walk(&self, dir: u64, cursor: u64, visit: &mut dyn FnMut(index::Entry, u64) -> ControlFlow<()>) -> Result<()> {
        let file = self.file(dir)?;
        let index = self.index(&file)?;
        // The lower half counts the entries of a node.
        let (mut node, mut skip) = (cursor >> 32, size(cursor & 0xffff_ffff));
        while node < index.nodes() {
            let entries = self.entries(&index, node).map_err(|error| error.at(file.place()))?;
            for (number, entry) in entries.into_iter().enumerate().skip(skip) {
                let cursor = node.wrapping_shl(32) | long(number).saturating_add(1);
                let is_name = utf16::is_name(&utf16::to_bytes(&entry.name));
                if is_name && visit(entry, cursor).is_break() {
                    return Ok(());
                }
            }
            (node, skip) = (node.saturating_add(1), 0);
        }
        Ok(())
    }

    fn reparse(&self, file: &File) -> Result<Reparse> {
        let value = file.stream(REPARSE_POINT, &[], self)?.filter(|value| value.len() <= 16 << 10);
        let Some(stream) = value else { return Ok(Reparse::Plain) };
        let mut value = vec![0; size(stream.len())];
        self.read_stream(&stream, &mut value, 0)?;
        reparse::read(&value).map_err(|error| error.at(file.place()))
    }

    /// What a file is. A link that makes no sense is what it would be without.
    fn kind(&self, file: &File) -> Result<FileKind> {
        Ok(match self.reparse(file) {
            Ok(Reparse::Link(_)) => FileKind::Symlink,
            Err(error) if !matches!(error.kind(), Kind::Corrupt | Kind::Unsupported) => return Err(error),
            _ if file.is_directory => FileKind::Directory,
            _ => FileKind::Regular,
        })
    }
}

impl fmt::Debug for Ntfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ntfs").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// A moment in units of 100 ns from 1601.
fn time(value: &[u8], at: usize) -> Timestamp {
    let units = i64::try_from(le64(value, at)).unwrap_or(i64::MAX);
    let nanoseconds = u32::try_from(units.rem_euclid(10_000_000)).unwrap_or(0).saturating_mul(100);
    Timestamp { seconds: units.div_euclid(10_000_000).saturating_sub(EPOCH), nanoseconds }
}

impl Filesystem for Ntfs {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(ROOT)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let Some(units) = utf16::from_bytes(name).filter(|_| utf16::is_name(name)) else { return Ok(None) };
        let file = self.file(dir.0)?;
        match self.index(&file).and_then(|index| self.search(&index, &units)) {
            Err(error) if error.kind() == Kind::Corrupt => self.scan(dir, &units),
            found => found.map(|number| number.map(Inode)).map_err(|error| error.at(file.place())),
        }
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        let file = self.file(inode.0)?;
        let kind = self.kind(&file)?;
        let information = file.value(STANDARD_INFORMATION).unwrap_or_default();
        let names = file.values(FILE_NAME).filter(|value| u8_at(value, 65) != NAMESPACE_DOS).count();
        let data = file.stream(DATA, &[], self)?;
        let allocated = match &data {
            Some(Stream::Mapped(mapped)) => mapped.used(self.boot.cluster.get()),
            Some(Stream::Resident(_)) | None => 0,
        };
        let size = match (kind, self.reparse(&file)) {
            (FileKind::Regular, _) => data.as_ref().map_or(0, Stream::len),
            (FileKind::Symlink, Ok(Reparse::Link(target))) => long(target.len()),
            _ => 0,
        };
        Ok(Stat {
            inode,
            kind,
            mode: 0o777,
            uid: 0,
            gid: 0,
            size,
            allocated,
            device: None,
            links: if kind == FileKind::Directory { 1 } else { u32::try_from(names).unwrap_or(u32::MAX) },
            atime: time(information, 24),
            mtime: time(information, 8),
            ctime: time(information, 16),
            btime: Some(time(information, 0)),
        })
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let file = self.file(inode.0)?;
        match self.reparse(&file)? {
            Reparse::Elsewhere(how) => return Err(feature(format!("a file is {how}")).at(file.place())),
            Reparse::Plain if !file.is_directory => {}
            Reparse::Plain | Reparse::Link(_) => {
                return Err(Error::new(Kind::NotFound, "ntfs.name", "not a regular file").at(file.place()));
            }
        }
        let Some(data) = file.stream(DATA, &[], self)? else { return Ok(0) };
        let len = buf.len().min(size(data.len().saturating_sub(offset)));
        if len > 0 {
            let buf = buf.get_mut(..len).unwrap_or_default();
            self.read_stream(&data, buf, offset).map_err(|error| error.at(file.place()))?;
        }
        Ok(len)
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let file = self.file(inode.0)?;
        let stat = self.stat(inode)?;
        let mut parts = Parts::new(&range, stat.size, visit);
        let flow = match file.stream(DATA, &[], self)? {
            Some(Stream::Mapped(mapped)) => mapped.data(self.boot.cluster.get(), &mut parts),
            Some(Stream::Resident(_)) | None => parts.add(range),
        };
        if flow.is_continue() {
            parts.finish();
        }
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        self.walk(dir.0, cursor, &mut |entry, cursor| {
            if entry.namespace == NAMESPACE_DOS || entry.number < FIRST_USER {
                return ControlFlow::Continue(());
            }
            let name = utf16::to_bytes(&entry.name);
            visit(DirEntry { name, inode: Inode(entry.number), kind: None, cursor })
        })
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let file = self.file(inode.0)?;
        match self.reparse(&file)? {
            Reparse::Link(target) => Ok(target),
            _ => Err(Error::new(Kind::NotFound, "ntfs.name", "not a symbolic link").at(file.place())),
        }
    }

    /// The other streams of a file, those of at most 64 KiB.
    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let file = self.file(inode.0)?;
        let named = file.attributes.iter().filter(|attribute| attribute.kind == DATA && !attribute.name.is_empty());
        let mut names: Vec<&[u16]> = named.map(|attribute| attribute.name.as_slice()).collect();
        names.sort_unstable();
        names.dedup();
        let mut found = Vec::new();
        for name in names {
            let Some(stream) = file.stream(DATA, name, self)? else { continue };
            if stream.len() > limits::MAX_NTFS_STREAM {
                tracing::debug!(record = inode.0, len = stream.len(), "a stream is too long for an attribute");
                continue;
            }
            let mut value = vec![0; size(stream.len())];
            self.read_stream(&stream, &mut value, 0)?;
            found.push(([b"user.", utf16::to_bytes(name).as_slice()].concat(), value));
        }
        found.sort();
        Ok(found)
    }

    fn free(&self) -> Result<u64> {
        let mut free = 0_u64;
        self.free_clusters(&mut |run| {
            free = free.saturating_add(run.end.saturating_sub(run.start));
            ControlFlow::Continue(())
        })?;
        Ok(free.saturating_mul(self.boot.cluster.get()))
    }

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        if self.facts.dirty {
            return Ok(());
        }
        let cluster = self.boot.cluster.get();
        self.free_clusters(&mut |run| visit(run.start.saturating_mul(cluster)..run.end.saturating_mul(cluster)))
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Err(Error::refused("ntfs.read-only", "NTFS cannot be written yet"))
    }
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("ntfs.corrupt", what)
}

/// Sizes that cannot be.
fn geometry(what: impl Into<String>) -> Error {
    Error::corrupt("ntfs.geometry", what)
}

/// Well formed, not handled.
fn feature(what: impl Into<String>) -> Error {
    Error::unsupported("ntfs.feature", what)
}
