//! exFAT: reading.
//!
//! Field names are those of Microsoft's "exFAT file system specification" (revision 1.00). What it leaves open is as in the kernel:
//! modes are 0755, or 0555 for what is read-only; times without a zone are universal; what was never written of a file is zeros.
//! An inode is the place of a file's first directory entry, in units of 32 bytes, and how its directory's clusters lie;
//! [`Filesystem::root`] has none and is 1.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::HashMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use super::clusters::{Chain, FIRST};
use super::known::{Known, Names};
use super::pages::Pages;
use super::parts::Parts;
use super::{DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Timestamp, bits, utf16};
use crate::disk::Disk;
use crate::disk::bytes::size;
use crate::error::{Error, Kind, Result};
use crate::limits;
use boot::Boot;
use dir::{Node, ROOT};

mod boot;
mod dir;
mod table;
#[cfg(test)]
mod tests;

/// The code of what there is too much of.
const LIMIT: &str = "exfat.limit";

/// Files whose clusters are kept in memory.
const CHAINS: usize = 64;

/// An exFAT file system.
pub struct Exfat {
    pages: Pages,
    boot: Boot,
    /// Each unit in upper case; what is missing at its end is so already.
    upcase: Vec<u16>,
    /// The bitmap of clusters: the first one and its bytes.
    bitmap: Option<(u32, u64)>,
    facts: FsFacts,
    /// The clusters of files that were read.
    chains: Mutex<HashMap<(u32, u64), Arc<Chain>>>,
    known: Known,
}

impl Exfat {
    /// Opens a volume. One whose boot region is damaged is read by the second one.
    ///
    /// # Errors
    /// When it is not an exFAT file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        let pages = Pages::new(volume, "exfat.corrupt");
        let (boot, by_backup) = boot::find(&pages)?;
        let facts = FsFacts {
            kind: "exfat",
            uuid: Some(format!("{:04X}-{:04X}", boot.serial >> 16, boot.serial & 0xffff)),
            label: None,
            block_size: boot.heap.cluster.get(),
            size: boot.size,
            free: None,
            dirty: by_backup || boot.dirty,
            features: vec![format!("revision {}.{:02}", boot.revision.0, boot.revision.1)],
        };
        let (chains, known) = (Mutex::default(), Known::default());
        let mut exfat = Self { pages, boot, upcase: Vec::new(), bitmap: None, facts, chains, known };
        let system = exfat.system()?;
        match exfat.read_upcase(&system)? {
            Some(upcase) => exfat.upcase = upcase,
            // What there is by default differs from this in a few letters of a few scripts only.
            None => {
                exfat.upcase = (0..=u16::MAX).map(utf16::upper).collect();
                exfat.facts.dirty = true;
            }
        }
        exfat.bitmap = system.bitmap;
        exfat.facts.label = system.label;
        Ok(exfat)
    }

    fn upper(&self, unit: u16) -> u16 {
        self.upcase.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    fn same(&self, a: &[u16], b: &[u16]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || self.upper(*a) == self.upper(*b))
    }

    /// The clusters of the first `len` bytes of a file, from memory if they are there.
    fn content_chain(&self, node: &Node, len: u64) -> Result<Arc<Chain>> {
        if node.straight {
            return self.clusters(node.first, len, true).map(Arc::new);
        }
        let key = (node.first, len.div_ceil(self.boot.heap.cluster.get()));
        let known = self.chains.lock().unwrap_or_else(PoisonError::into_inner).get(&key).map(Arc::clone);
        if let Some(chain) = known {
            return Ok(chain);
        }
        let chain = Arc::new(self.clusters(node.first, len, false)?);
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let runs: usize = chains.values().map(|chain| chain.runs().len()).sum();
        if chains.len() >= CHAINS || runs.saturating_add(chain.runs().len()) > limits::MAX_FAT_RUNS {
            chains.clear();
        }
        chains.insert(key, Arc::clone(&chain));
        Ok(chain)
    }

    fn free_clusters(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        let count = u64::from(self.boot.clusters);
        let (first, len) = self.bitmap.ok_or_else(|| corrupt("there is no bitmap of clusters"))?;
        if len < count.div_ceil(8) {
            return Err(corrupt("the bitmap of clusters is too short").expected(count.div_ceil(8)).found(len));
        }
        let chain = self.clusters(first, count.div_ceil(8), false)?;
        let read = |buf: &mut [u8], at: u64| {
            let read = self.boot.heap.read(&self.pages, &chain, buf, at)?;
            read.ok_or_else(|| corrupt("the bitmap of clusters is too short"))
        };
        bits::clear_runs(count, read, visit)
    }
}

impl fmt::Debug for Exfat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exfat").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl Filesystem for Exfat {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        ROOT
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let Some(name) = utf16::from_bytes(name) else { return Ok(None) };
        let Some(wanted) = self.wanted(&name) else { return Ok(None) };
        let key = |name: &[u16]| -> Vec<u8> { name.iter().flat_map(|unit| self.upper(*unit).to_be_bytes()).collect() };
        let one = || {
            let mut found = None;
            self.walk(&self.dir(dir)?, 0, Some(wanted), &mut |node, _| {
                if self.same(&node.name, &name) {
                    found = Some(node.inode);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            Ok(found)
        };
        let all = |names: &mut Names| {
            self.walk(&self.dir(dir)?, 0, None, &mut |node, _| {
                if names.add(key(&node.name), node.inode) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
        };
        self.known.find(dir, &key(&name), one, all)
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        let cluster = self.boot.heap.cluster.get();
        let mut stat = Stat {
            inode,
            kind: FileKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 0,
            allocated: 0,
            device: None,
            links: 1,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            btime: None,
        };
        if inode != ROOT {
            let node = self.node(inode)?;
            stat.kind = node.kind();
            stat.mode = node.mode();
            stat.size = node.len;
            stat.allocated = node.len.div_ceil(cluster).saturating_mul(cluster);
            (stat.atime, stat.mtime, stat.ctime) = (node.accessed, node.modified, node.modified);
            stat.btime = Some(node.created);
        }
        Ok(stat)
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let node = if inode == ROOT { None } else { Some(self.node(inode)?) };
        let node = node.filter(|node| node.kind() == FileKind::Regular).ok_or_else(|| {
            Error::new(Kind::NotFound, "exfat.name", "not a regular file").at(format!("inode {}", inode.0))
        })?;
        let len = buf.len().min(size(node.len.saturating_sub(offset)));
        let written = len.min(size(node.valid.saturating_sub(offset)));
        let (content, rest) = buf.split_at_mut_checked(written).unwrap_or_default();
        if !content.is_empty() {
            let chain = self.content_chain(&node, node.valid)?;
            let read = self.boot.heap.read(&self.pages, &chain, content, offset)?;
            read.ok_or_else(|| corrupt("a file has too few clusters"))?;
        }
        rest.get_mut(..len.saturating_sub(written)).unwrap_or_default().fill(0);
        Ok(len)
    }

    /// A file's end may never have been written.
    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let valid = if inode == ROOT { 0 } else { self.node(inode)?.valid };
        let mut parts = Parts::new(&range, valid, visit);
        if parts.add(range).is_continue() {
            parts.finish();
        }
        Ok(())
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        self.walk(&self.dir(dir)?, cursor, None, &mut |node, cursor| {
            let name = utf16::to_bytes(&node.name);
            visit(DirEntry { name, inode: node.inode, kind: Some(node.kind()), cursor })
        })
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        Err(Error::new(Kind::NotFound, "exfat.name", "not a symbolic link").at(format!("inode {}", inode.0)))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.stat(inode).map(|_| Vec::new())
    }

    fn free(&self) -> Result<u64> {
        let mut free = 0_u64;
        self.free_clusters(&mut |run| {
            free = free.saturating_add(run.end.saturating_sub(run.start));
            ControlFlow::Continue(())
        })?;
        Ok(free.saturating_mul(self.boot.heap.cluster.get()))
    }

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        if self.facts.dirty {
            return Ok(());
        }
        // Bit 0 is that of the first cluster.
        let place = |bit: u64| {
            let cluster = u32::try_from(bit).unwrap_or(u32::MAX).saturating_add(FIRST);
            self.boot.heap.place(cluster)
        };
        self.free_clusters(&mut |run| visit(place(run.start)..place(run.end)))
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        Err(Error::refused("exfat.read-only", "exFAT cannot be written yet"))
    }
}

/// The bytes contradict the format.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("exfat.corrupt", what)
}

/// Sizes that cannot be.
fn geometry(what: impl Into<String>) -> Error {
    Error::corrupt("exfat.geometry", what)
}
