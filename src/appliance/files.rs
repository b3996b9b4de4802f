//! A file system that the appliance mounted, file by file.
//!
//! It is mounted read-only until something is to be changed, which replays its journal and no more, and again once changes are
//! written out. Files are known by their inodes, with a path to each that was seen.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeSet, HashMap};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::words::{field, kind_of, kind_of_mode, list, number, numbers};
use super::{Appliance, refused};
use crate::error::{Error, Kind, Result, escape_bytes};
use crate::fs::{
    DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Subvolume, SubvolumeName, Timestamp,
};
use crate::limits::{MAX_APPLIANCE_FILES, MAX_GUEST_DIR_ENTRIES};
use crate::volume::letters;
use crate::volume::signature::Signature;

mod edits;

/// Bytes of a file that are fetched at once.
const WINDOW: u64 = 4 << 20;

/// Longest list of a directory's names: as many entries as a directory may have, each of 255 bytes and its end.
const MAX_NAMES: u64 = 256 * 65_536;

/// Attributes that are kept before all are forgotten.
const MAX_STATS: usize = 1 << 16;

/// Numbers of files from here on are made up, for those whose own may be another's.
const MADE_UP: u64 = 1 << 63;

/// A file system of one drive, or a subvolume of it.
#[derive(Debug)]
pub(super) struct Mounted {
    appliance: Arc<Appliance>,
    /// The drive's device there.
    device: String,
    /// Where it is mounted.
    at: String,
    /// The number of the subvolume that is mounted, where it is not the one that the file system gives by itself.
    subvolume: Option<u64>,
    can_write: bool,
    facts: FsFacts,
    root: u64,
    /// The number of the device that files of this file system are on.
    device_number: u64,
    state: Mutex<State>,
}

/// What is known, until something changes.
#[derive(Debug, Default)]
struct State {
    is_writable: bool,
    paths: HashMap<u64, Vec<u8>>,
    /// The numbers that were made up for files on other devices.
    others: HashMap<(u64, u64), u64>,
    stats: HashMap<u64, Stat>,
    names: HashMap<(u64, Vec<u8>), Option<u64>>,
    lists: HashMap<u64, Arc<Vec<DirEntry>>>,
    window: Option<(u64, u64, Vec<u8>)>,
}

impl State {
    fn forget(&mut self) {
        (self.stats, self.names, self.lists, self.window) = Default::default();
    }
}

impl Mounted {
    /// Mounts what lies on the drive `index`.
    pub(super) fn open(
        appliance: &Arc<Appliance>,
        index: usize,
        can_write: bool,
        size: u64,
        signature: &Signature,
    ) -> Result<Self> {
        let facts = FsFacts {
            kind: signature.kind,
            uuid: signature.uuid.clone(),
            label: signature.label.clone(),
            block_size: 0,
            size,
            free: None,
            dirty: false,
            features: Vec::new(),
        };
        let device = format!("/dev/sd{}", letters(index));
        Self::mount(appliance, device, None, can_write, facts)
    }

    fn mount(
        appliance: &Arc<Appliance>,
        device: String,
        subvolume: Option<u64>,
        can_write: bool,
        facts: FsFacts,
    ) -> Result<Self> {
        let at = format!("/m{}", appliance.mounts.fetch_add(1, Ordering::Relaxed));
        let mut mounted = Self {
            appliance: Arc::clone(appliance),
            device,
            at,
            subvolume,
            can_write,
            facts,
            root: 0,
            device_number: 0,
            state: Mutex::default(),
        };
        let kind = mounted.facts.kind;
        let failed = |error: Error| -> Error {
            Error::failed("appliance.mount", format!("the appliance cannot mount the {kind}")).because(error)
        };
        appliance.tell("mkmountpoint", &[mounted.at.as_bytes()]).map_err(failed)?;
        mounted.mount_as("ro").map_err(failed)?;
        let (stat, device) = mounted.ask_stat(b"")?.ok_or_else(|| absent(b"/"))?;
        (mounted.root, mounted.device_number) = (stat.inode.0, device);
        mounted.state().paths.insert(stat.inode.0, Vec::new());
        let space = mounted.space()?;
        mounted.facts.block_size = space.0;
        mounted.facts.free = Some(space.1);
        Ok(mounted)
    }

    fn mount_as(&self, how: &str) -> Result<()> {
        let mut options = format!("{how},noatime");
        if let Some(id) = self.subvolume {
            options.push_str(&format!(",subvolid={id}"));
        }
        let words = [options.as_bytes(), self.device.as_bytes(), self.at.as_bytes()];
        self.appliance.tell("mount-options", &words).map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A path as the appliance knows it.
    fn there(&self, path: &[u8]) -> Vec<u8> {
        [self.at.as_bytes(), path].concat()
    }

    /// A path from this root to a file, empty for the root itself.
    fn path_of(&self, inode: Inode) -> Result<Vec<u8>> {
        self.state().paths.get(&inode.0).cloned().ok_or_else(|| absent(inode.0.to_string().as_bytes()))
    }

    fn join(&self, dir: Inode, name: &[u8]) -> Result<Vec<u8>> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return Err(Error::new(Kind::NotFound, "guest.name", "no such name can be").found(escape_bytes(name)));
        }
        Ok([&self.path_of(dir)?, b"/".as_slice(), name].concat())
    }

    /// Attributes by path, with the number of the device; `None` when nothing is there.
    fn ask_stat(&self, path: &[u8]) -> Result<Option<(Stat, u64)>> {
        let answer = self.appliance.ask("lstatns", &[&self.there(path)])?;
        if answer.complaint.contains("No such file") || answer.complaint.contains("Not a directory") {
            return Ok(None);
        }
        if !answer.complaint.is_empty() {
            return Err(refused(&answer.complaint).at(escape_bytes(path)));
        }
        stat_of(&answer.printed).map(Some).ok_or_else(|| strange(&answer.printed))
    }

    /// Keeps what a path leads to, under a number of its own.
    fn keep(&self, path: Vec<u8>, mut stat: Stat, device: u64) -> Result<u64> {
        let mut state = self.state();
        if device != self.device_number {
            let next = MADE_UP.saturating_add(u64::try_from(state.others.len()).unwrap_or(u64::MAX));
            stat.inode = Inode(*state.others.entry((device, stat.inode.0)).or_insert(next));
        }
        has_room(state.paths.len())?;
        if state.stats.len() >= MAX_STATS {
            state.forget();
        }
        let number = stat.inode.0;
        state.paths.entry(number).or_insert(path);
        state.stats.insert(number, stat);
        Ok(number)
    }

    /// All names of a directory with their files.
    fn entries(&self, dir: Inode) -> Result<Arc<Vec<DirEntry>>> {
        if let Some(known) = self.state().lists.get(&dir.0) {
            return Ok(Arc::clone(known));
        }
        let path = self.path_of(dir)?;
        let there = self.there(&path);
        let names = self.appliance.take("ls0", &there, &[], MAX_NAMES)?;
        let mut names: Vec<&[u8]> = names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        if names.len() > MAX_GUEST_DIR_ENTRIES {
            return Err(Error::limit(
                "guest.directory-size",
                "a directory has more entries than any that makes sense here",
            ));
        }
        let printed = self.appliance.tell("readdir", &[&there])?;
        let quick = if self.facts.kind == "btrfs" { None } else { quick(&printed, &names) };
        let mut found = Vec::with_capacity(names.len());
        if let Some(quick) = quick {
            let mut state = self.state();
            has_room(state.paths.len())?;
            for (name, inode, kind) in quick {
                let below = [&path, b"/".as_slice(), name].concat();
                state.paths.entry(inode).or_insert(below);
                found.push((name.to_vec(), Inode(inode), kind));
            }
        } else {
            for name in names {
                let Some(inode) = self.lookup(dir, name)? else { continue };
                found.push((name.to_vec(), inode, Some(self.stat(inode)?.kind)));
            }
        }
        let entry = |((name, inode, kind), cursor)| DirEntry { name, inode, kind, cursor };
        let entries = Arc::new(found.into_iter().zip(1..).map(entry).collect::<Vec<_>>());
        self.state().lists.insert(dir.0, Arc::clone(&entries));
        Ok(entries)
    }

    /// The block size, the bytes that are free, and those of them that anyone may have.
    fn space(&self) -> Result<(u64, u64, u64)> {
        let printed = self.appliance.tell("statvfs", &[self.at.as_bytes()])?;
        let fields = numbers(&printed);
        let get = |name| fields.get(name).and_then(|value| u64::try_from(*value).ok()).unwrap_or(0);
        let unit = get("frsize");
        Ok((get("bsize"), get("bfree").saturating_mul(unit), get("bavail").saturating_mul(unit)))
    }

    /// The same file system with another root.
    fn rooted(&self, id: u64) -> Result<Self> {
        Self::mount(&self.appliance, self.device.clone(), Some(id), self.can_write, self.facts.clone())
    }
}

impl Filesystem for Mounted {
    fn facts(&self) -> &FsFacts {
        &self.facts
    }

    fn root(&self) -> Inode {
        Inode(self.root)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let key = (dir.0, name.to_vec());
        if let Some(known) = self.state().names.get(&key) {
            return Ok(known.map(Inode));
        }
        let path = self.join(dir, name)?;
        let found = match self.ask_stat(&path)? {
            Some((stat, device)) => Some(self.keep(path, stat, device)?),
            None => None,
        };
        self.state().names.insert(key, found);
        Ok(found.map(Inode))
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        if let Some(known) = self.state().stats.get(&inode.0) {
            return Ok(*known);
        }
        let path = self.path_of(inode)?;
        let (mut stat, _) = self.ask_stat(&path)?.ok_or_else(|| absent(&path))?;
        stat.inode = inode;
        self.state().stats.insert(inode.0, stat);
        Ok(stat)
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let start = offset.checked_div(WINDOW).unwrap_or(0).saturating_mul(WINDOW);
        let mut window = self.state().window.take().filter(|(of, at, _)| (*of, *at) == (inode.0, start));
        if window.is_none() {
            let words = [start.to_string().into_bytes(), WINDOW.to_string().into_bytes()];
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let content = if self.stat(inode)?.size <= start {
                Vec::new()
            } else {
                self.appliance.take("download-offset", &self.there(&self.path_of(inode)?), &words, WINDOW)?
            };
            window = Some((inode.0, start, content));
        }
        let from = usize::try_from(offset.saturating_sub(start)).unwrap_or(usize::MAX);
        let content = window.as_ref().and_then(|(_, _, content)| content.get(from..)).unwrap_or_default();
        let len = content.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), content.get(..len)) {
            to.copy_from_slice(from);
        }
        self.state().window = window;
        Ok(len)
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let entries = self.entries(dir)?;
        for entry in entries.iter().skip(usize::try_from(cursor).unwrap_or(usize::MAX)) {
            if visit(entry.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let mut target = self.appliance.tell("readlink", &[&self.there(&self.path_of(inode)?)])?;
        target.pop();
        Ok(target)
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let there = self.there(&self.path_of(inode)?);
        let answer = self.appliance.ask("lgetxattrs", &[&there])?;
        if answer.complaint.contains("not supported") {
            return Ok(Vec::new());
        }
        if !answer.complaint.is_empty() {
            return Err(refused(&answer.complaint));
        }
        let listed = list(&answer.printed).ok_or_else(|| strange(&answer.printed))?;
        let mut found = Vec::with_capacity(listed.len());
        for fields in listed {
            let name = field(&fields, "attrname").ok_or_else(|| strange(&answer.printed))?;
            // What the list shows of values is not all of them.
            found.push((name.to_vec(), self.appliance.tell("lgetxattr", &[&there, name])?));
        }
        found.sort();
        Ok(found)
    }

    fn free(&self) -> Result<u64> {
        Ok(self.space()?.1)
    }

    fn free_ranges(&self, _visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        Ok(())
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        if self.can_write {
            return Ok(self);
        }
        Err(Error::unsupported("appliance.read-only", "the volume below the file system cannot be written"))
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        if self.facts.kind != "btrfs" {
            return Ok(Vec::new());
        }
        let printed = self.appliance.tell("btrfs-subvolume-list", &[self.at.as_bytes()])?;
        let listed = list(&printed).ok_or_else(|| strange(&printed))?;
        let subvolume = |fields: Vec<(&[u8], &[u8])>| {
            let path = field(&fields, "btrfssubvolume_path")?.to_vec();
            let path = path.strip_prefix(b"<FS_TREE>/").map_or_else(|| path.clone(), <[u8]>::to_vec);
            Some(Subvolume {
                id: number(&fields, "btrfssubvolume_id")?,
                path: Some(path),
                parent: number(&fields, "btrfssubvolume_top_level_id")?,
                uuid: None,
                parent_uuid: None,
                read_only: false,
                generation: 0,
            })
        };
        let top = Subvolume {
            id: TOP_LEVEL,
            path: Some(Vec::new()),
            parent: 0,
            uuid: None,
            parent_uuid: None,
            read_only: false,
            generation: 0,
        };
        Ok(std::iter::once(top).chain(listed.into_iter().filter_map(subvolume)).collect())
    }

    fn subvolume_id(&self) -> Option<u64> {
        self.subvolume
    }

    fn subvolume(&self, name: &SubvolumeName) -> Result<Option<Arc<dyn Filesystem>>> {
        let wanted = |known: &Subvolume| match name {
            SubvolumeName::Default => false,
            SubvolumeName::Id(id) => known.id == if *id == 0 { TOP_LEVEL } else { *id },
            SubvolumeName::Path(path) => known.path.as_deref() == Some(path.strip_prefix(b"/").unwrap_or(path)),
        };
        let Some(found) = self.subvolumes()?.into_iter().find(wanted) else { return Ok(None) };
        Ok(Some(Arc::new(self.rooted(found.id)?)))
    }
}

/// The number of btrfs's top-level subvolume.
const TOP_LEVEL: u64 = 5;

/// A name with the inode and the kind of what it is given to.
type Named<'a> = (&'a [u8], u64, Option<FileKind>);

/// The entries of a directory as readdir prints them, if they are without doubt those that `names` lists, sorted.
fn quick<'a>(printed: &[u8], names: &[&'a [u8]]) -> Option<Vec<Named<'a>>> {
    if names.iter().any(|name| name.contains(&b'\n')) {
        return None;
    }
    let mut entries = Vec::with_capacity(names.len());
    for fields in list(printed)? {
        let name = field(&fields, "name")?;
        if name == b"." || name == b".." {
            continue;
        }
        let name = names.binary_search(&name).ok().and_then(|index| names.get(index))?;
        let kind = field(&fields, "ftyp")?.first().copied().and_then(kind_of);
        entries.push((*name, number(&fields, "ino")?, kind));
    }
    entries.sort_unstable_by_key(|(name, ..)| *name);
    let listed: BTreeSet<&[u8]> = entries.iter().map(|(name, ..)| *name).collect();
    (listed.len() == names.len() && entries.len() == names.len()).then_some(entries)
}

/// Attributes as lstatns prints them, with the number of the device.
fn stat_of(printed: &[u8]) -> Option<(Stat, u64)> {
    let fields = numbers(printed);
    let get = |name: &str| fields.get(name).copied();
    let long = |name: &str| get(name).and_then(|value| u64::try_from(value).ok());
    let short = |name: &str| long(name).and_then(|value| u32::try_from(value).ok());
    let time =
        |seconds: &str, nanoseconds: &str| Some(Timestamp { seconds: get(seconds)?, nanoseconds: short(nanoseconds)? });
    let mode = long("st_mode")?;
    let kind = kind_of_mode(mode)?;
    let device = long("st_rdev").filter(|_| matches!(kind, FileKind::BlockDevice | FileKind::CharDevice));
    let stat = Stat {
        inode: Inode(long("st_ino")?),
        kind,
        mode: u32::try_from(mode & 0o7777).ok()?,
        uid: short("st_uid")?,
        gid: short("st_gid")?,
        size: long("st_size")?,
        allocated: long("st_blocks")?.saturating_mul(512),
        device: device.and_then(numbers_of),
        links: short("st_nlink")?,
        atime: time("st_atime_sec", "st_atime_nsec")?,
        mtime: time("st_mtime_sec", "st_mtime_nsec")?,
        ctime: time("st_ctime_sec", "st_ctime_nsec")?,
        btime: None,
    };
    Some((stat, long("st_dev")?))
}

/// Major and minor number, as the C library packs them.
fn numbers_of(device: u64) -> Option<(u32, u32)> {
    let major = (device >> 8 & 0xfff) | (device >> 32 & 0xffff_f000);
    let minor = (device & 0xff) | (device >> 12 & 0xffff_ff00);
    Some((u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
}

fn has_room(files: usize) -> Result<()> {
    if files < MAX_APPLIANCE_FILES {
        return Ok(());
    }
    Err(Error::limit("appliance.files", "the file system has more files than are looked at in an appliance")
        .expected(format!("at most {MAX_APPLIANCE_FILES}")))
}

fn absent(path: &[u8]) -> Error {
    Error::new(Kind::NotFound, "guest.not-found", "the guest has no such file").at(escape_bytes(path))
}

fn strange(printed: &[u8]) -> Error {
    Error::failed("appliance.answer", "the appliance answers with what cannot be understood")
        .found(escape_bytes(printed.get(..printed.len().min(200)).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
