//! btrfs: reading and writing, straight on the devices.
//!
//! Field names are those of the kernel's documentation (`Documentation/filesystems/btrfs.rst`, btrfs.readthedocs.io "On-disk
//! format"). Every node is believed only if its checksum, place, level, generation, owner and keys are right, and data only if its
//! checksum is; otherwise the next copy is asked. What an fsync left in the log tree is put on top of the trees in memory, so that
//! files are as the kernel shows them after its own replay.
//!
//! What is written waits in memory, where it can be read already, until [`FilesystemMut::sync`] or until it becomes much: then it is
//! stored as one transaction of the kernel's own kind (`write`). Times change only as the caller says: a new file has the given time,
//! and with it the directory that it is created in; all other changes leave all times as they are.
//!
//! A [`Btrfs`] is one subvolume as it would be mounted, with the subvolumes that lie in it. Inode numbers of the subvolume itself
//! are the kernel's; those of others, which may be the same, carry the place of their subvolume in the upper 16 bits.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::parts::Parts;
use super::{
    Attributes, DirEntry, FileKind, Filesystem, FilesystemMut, FsFacts, Inode, Stat, Subvolume, SubvolumeName,
    Timestamp,
};
use crate::disk::bytes::le64;
use crate::disk::{Disk, DiskMut};
use crate::error::{Error, Kind, Result};
use chunk::{Chunk, Chunks, DevItem};
use content::Decoded;
use device::Devices;
use key::{Key, id, kind};
use subvolume::Volume;
use superblock::{Found, Superblock};
use tree::{Store, Tree};

mod checksum;
mod chunk;
mod content;
mod device;
mod dir;
mod extent;
mod features;
mod free;
mod inode;
mod key;
mod log;
mod lzo;
mod node;
mod subvolume;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;
mod usage;
mod write;

pub use usage::Usage;

/// A btrfs file system, seen from one of its subvolumes.
pub struct Btrfs {
    shared: Arc<Shared>,
    /// The subvolume that is the root.
    root: u64,
}

/// What all views of a file system share.
#[derive(Debug)]
struct Shared {
    facts: FsFacts,
    /// Why nothing may be written, if so.
    refusal: Option<Error>,
    /// Taken for reading by every call that reads, for writing by every call that writes.
    core: RwLock<Core>,
}

/// The file system itself.
#[derive(Debug)]
struct Core {
    store: Store,
    facts: FsFacts,
    volumes: BTreeMap<u64, Volume>,
    /// The subvolumes' numbers, ascending.
    order: Vec<u64>,
    sum_tree: Option<Tree>,
    /// Checksums of sectors whose files were in a log.
    logged_sums: BTreeMap<u64, Vec<u8>>,
    decoded: Decoded,
    /// Lengths of the devices as the chunk tree has them.
    device_lens: BTreeMap<u64, u64>,
    /// Why free space cannot be proved, if so.
    unproved: Option<&'static str>,
    /// Why the log was not replayed, if so.
    unreplayed: Option<Error>,
    writing: write::Writing,
}

impl Btrfs {
    /// Opens a file system on one volume for reading, with its default subvolume as the root. Nothing is written.
    ///
    /// # Errors
    /// When it is not a btrfs file system, or one that cannot be read.
    pub fn open(volume: Arc<dyn Disk>) -> Result<Self> {
        Self::open_devices(vec![volume])
    }

    /// The same for a file system on several volumes, in any order. What is missing may be, as long as there are other copies.
    ///
    /// # Errors
    /// When they are not volumes of one btrfs file system, or one that cannot be read.
    pub fn open_devices(volumes: Vec<Arc<dyn Disk>>) -> Result<Self> {
        let core = Core::open(volumes.into_iter().map(device::Volume::Read).collect())?;
        Self::assembled(core, Some(read_only("the volume was opened for reading")))
    }

    /// Opens a file system on one volume for reading and writing. What its log holds is put in place. One that cannot be written is
    /// read, and its [`Filesystem::writer`] says why.
    ///
    /// # Errors
    /// When it is not a btrfs file system, or one that cannot be read.
    pub fn open_mut(volume: Arc<dyn DiskMut>) -> Result<Self> {
        Self::open_devices_mut(vec![volume])
    }

    /// The same for a file system on several volumes, in any order.
    ///
    /// # Errors
    /// When they are not volumes of one btrfs file system, or one that cannot be read.
    pub fn open_devices_mut(volumes: Vec<Arc<dyn DiskMut>>) -> Result<Self> {
        let volumes: Vec<device::Volume> = volumes.into_iter().map(device::Volume::Write).collect();
        let mut core = Core::open(volumes.clone())?;
        let begun = match core.unreplayed.take() {
            None => core.begin(),
            Some(error) => Err(error),
        };
        match begun {
            Ok(()) => Self::assembled(core, None),
            Err(error) if matches!(error.kind(), Kind::Unreadable | Kind::Interrupted) => Err(error),
            // Nothing was stored, but what waits in memory may be half of something.
            Err(error) => Self::assembled(Core::open(volumes)?, Some(error)),
        }
    }

    fn assembled(core: Core, refusal: Option<Error>) -> Result<Self> {
        let root = core.store.default_volume()?;
        let root = if core.volumes.contains_key(&root) { root } else { id::FS_TREE };
        core.volume(root)?;
        let facts = core.facts.clone();
        Ok(Self { shared: Arc::new(Shared { facts, refusal, core: RwLock::new(core) }), root })
    }

    /// The number of the subvolume that is the root: 5 is the top-level one.
    #[must_use]
    pub fn root_subvolume(&self) -> u64 {
        self.root
    }

    /// The same file system with subvolume `id` as the root; `None` when there is none.
    #[must_use]
    pub fn with_root(&self, id: u64) -> Option<Self> {
        let is_there = self.core().volumes.contains_key(&id);
        is_there.then(|| Self { shared: Arc::clone(&self.shared), root: id })
    }

    /// What its kinds of chunks hold, as `btrfs filesystem df` tells it.
    ///
    /// # Errors
    /// When the block groups cannot be read.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        self.settled()?.usage()
    }

    fn core(&self) -> RwLockReadGuard<'_, Core> {
        self.shared.core.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file system with nothing that waits to be stored, for what is counted from what is stored.
    fn settled(&self) -> Result<RwLockReadGuard<'_, Core>> {
        if self.shared.refusal.is_none() {
            self.shared.core.write().unwrap_or_else(PoisonError::into_inner).commit()?;
        }
        Ok(self.core())
    }

    /// Runs a call that writes.
    fn writing<T>(&self, job: impl Fn(&mut Core) -> Result<T>) -> Result<T> {
        self.changing(|core| core.write(job))
    }

    /// Runs a call that writes and leaves no less room than there was.
    fn freeing<T>(&self, job: impl Fn(&mut Core) -> Result<T>) -> Result<T> {
        self.changing(|core| core.write_freeing(job))
    }

    fn changing<T>(&self, work: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        self.writer()?;
        work(&mut self.shared.core.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Creates something of `kind`.
    fn make(&self, dir: Inode, name: &[u8], kind: FileKind, attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        self.writing(|core| {
            let dir = core.target_of(self.root, dir)?;
            let target = core.create_inode(dir, name, kind, attributes, content)?;
            core.number(self.root, target)
        })
    }
}

impl Core {
    fn open(volumes: Vec<device::Volume>) -> Result<Self> {
        let found = volumes.iter().map(|volume| superblock::find(&*volume.disk())).collect::<Result<Vec<_>>>()?;
        let newest = found.iter().max_by_key(|found| found.sb.generation);
        let sb = newest.map(|found| found.sb.clone()).ok_or_else(|| corrupt("a file system without volumes"))?;
        check_devices(&found, &sb)?;
        Self::new(sb, volumes, &found)
    }

    fn new(sb: Superblock, disks: Vec<device::Volume>, found: &[Found]) -> Result<Self> {
        let given = u64::try_from(disks.len()).unwrap_or(u64::MAX);
        let chunks = Chunks::of_superblock(&sb.sys_chunks, sb.sectorsize)?;
        let is_stale = found.iter().any(|found| found.sb.generation != sb.generation);
        let devices = Devices::new(disks, found, sb.generation);
        let mut store = Store::new(sb, devices, chunks);
        let (chunks, device_lens) = chunk_tree(&store)?;
        chunks.into_iter().try_for_each(|chunk| store.chunks.insert(chunk))?;
        let volumes = store.volumes(&store.root_tree())?;
        let sb = &store.sb;
        let unproved = if sb.has_errors() || is_stale || found.iter().any(|found| !found.sound) {
            Some("its superblocks tell of damage")
        } else if sb.num_devices != given || given != 1 {
            Some("it has several volumes")
        } else if !features::all_known(sb.compat_ro) {
            Some("it has features that nobody knows")
        } else {
            None
        };
        let mut core = Self {
            facts: facts(sb, given),
            order: volumes.keys().copied().collect(),
            volumes,
            sum_tree: store.find_tree(id::CSUM_TREE)?,
            logged_sums: BTreeMap::new(),
            decoded: Decoded::default(),
            device_lens,
            unproved,
            unreplayed: None,
            writing: write::Writing::default(),
            store,
        };
        let sb = &core.store.sb;
        let is_whole = sb.num_devices == given && !is_stale && found.iter().all(|found| found.sound);
        core.facts.dirty = sb.log_root.bytenr != 0 || sb.has_errors() || !is_whole;
        if core.store.sb.log_root.bytenr != 0 {
            core.replay()?;
        }
        match core.free_bytes() {
            Ok(free) => core.facts.free = Some(free),
            Err(error) if error.kind() == Kind::Corrupt => core.facts.dirty = true,
            Err(error) => return Err(error),
        }
        Ok(core)
    }

    /// Puts what the log tree holds on top of the subvolumes. One that cannot be replayed changes nothing.
    fn replay(&mut self) -> Result<()> {
        match log::replay(&self.store, &self.volumes) {
            Ok(replayed) => {
                for (id, changes) in replayed.changes {
                    if let Some(volume) = self.volumes.get_mut(&id) {
                        volume.tree.changes = changes;
                    }
                }
                self.logged_sums = replayed.sums;
                Ok(())
            }
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => {
                tracing::warn!(%error, "what was synced last is not shown, since the log cannot be replayed");
                self.unreplayed = Some(error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Makes sure that the superblocks are those of one file system's devices.
fn check_devices(found: &[Found], sb: &Superblock) -> Result<()> {
    let mut numbers: Vec<u64> = found.iter().map(|found| found.sb.devid).collect();
    numbers.sort_unstable();
    let same = |found: &Found| found.sb.fsid == sb.fsid && found.sb.checksum == sb.checksum;
    if !found.iter().all(same) {
        return Err(Error::corrupt("btrfs.device", "the volumes are not of one file system"));
    }
    match numbers.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(pair) => {
            let number = pair.first().copied().unwrap_or_default();
            Err(Error::corrupt("btrfs.device", format!("two volumes are device {number} of a file system")))
        }
        None => Ok(()),
    }
}

/// All chunks, and the lengths of all devices.
fn chunk_tree(store: &Store) -> Result<(Vec<Chunk>, BTreeMap<u64, u64>)> {
    let (mut chunks, mut lens) = (Vec::new(), BTreeMap::new());
    let tree = Tree::new(id::CHUNK_TREE, store.sb.chunk_root);
    store.scan(&tree, Key::new(0, 0, 0), &mut |key, item| {
        if key.is(id::FIRST_FREE, kind::CHUNK_ITEM) {
            chunks.push(Chunk::parse(key.offset, item, store.sb.sectorsize)?.0);
            if chunks.len() > crate::limits::MAX_BTRFS_CHUNKS {
                return Err(limit("a file system with too many chunks", crate::limits::MAX_BTRFS_CHUNKS));
            }
        } else if key.is(id::DEV_ITEMS, kind::DEV_ITEM) {
            let device = DevItem::parse(item);
            lens.insert(device.devid, device.total_bytes);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((chunks, lens))
}

fn facts(sb: &Superblock, given: u64) -> FsFacts {
    let uuid = uuid::Uuid::from_bytes(sb.fsid);
    let mut features = features::names(sb.incompat, sb.compat_ro);
    features.push(sb.checksum.name().to_owned());
    FsFacts {
        kind: "btrfs",
        uuid: Some(uuid.to_string()),
        label: sb.label.clone(),
        block_size: u64::from(sb.sectorsize),
        size: if given > 1 { sb.total_bytes } else { sb.device_len },
        free: Some(sb.total_bytes.saturating_sub(sb.bytes_used)),
        dirty: false,
        features,
    }
}

impl fmt::Debug for Btrfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Btrfs");
        shown.field("facts", &self.shared.facts).field("root", &self.root);
        shown.field("refusal", &self.shared.refusal).finish_non_exhaustive()
    }
}

/// Entries of a directory, or parts of a file, that are listed at once.
const BATCH: usize = 256;

impl Filesystem for Btrfs {
    fn facts(&self) -> &FsFacts {
        &self.shared.facts
    }

    fn root(&self) -> Inode {
        Inode(id::FIRST_FREE)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let core = self.core();
        let target = core.enter(core.target_of(self.root, dir)?, name)?;
        target.map(|target| core.number(self.root, target)).transpose()
    }

    fn stat(&self, inode: Inode) -> Result<Stat> {
        let core = self.core();
        core.stat(core.target_of(self.root, inode)?, inode)
    }

    fn read_at(&self, inode: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let core = self.core();
        core.read_file(core.target_of(self.root, inode)?, buf, offset)
    }

    fn data_ranges(
        &self,
        inode: Inode,
        range: Range<u64>,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut range = range;
        // No lock is held while visiting, so that the visitor may use the file system.
        loop {
            let mut found = Vec::new();
            let mut collect = |part| {
                found.push(part);
                if found.len() < BATCH { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let core = self.core();
            let target = core.target_of(self.root, inode)?;
            let mut parts = Parts::new(&range, core.stat(target, inode)?.size, &mut collect);
            if core.data(target, &mut parts)?.is_continue() {
                parts.finish();
            }
            drop(core);
            for part in &found {
                if visit(part.clone()).is_break() {
                    return Ok(());
                }
            }
            match found.last().filter(|_| found.len() >= BATCH) {
                Some(last) => range.start = last.end,
                None => return Ok(()),
            }
        }
    }

    fn read_dir(&self, dir: Inode, cursor: u64, visit: &mut dyn FnMut(DirEntry) -> ControlFlow<()>) -> Result<()> {
        let mut cursor = cursor;
        // No lock is held while visiting, so that the visitor may use the file system.
        loop {
            let (entries, failed) = self.core().batch(self.root, dir, cursor);
            let is_last = entries.len() < BATCH;
            for entry in entries {
                cursor = entry.cursor;
                if visit(entry).is_break() {
                    return Ok(());
                }
            }
            failed?;
            if is_last {
                return Ok(());
            }
        }
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let core = self.core();
        core.target_text(core.target_of(self.root, inode)?)
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let core = self.core();
        core.attributes(core.target_of(self.root, inode)?)
    }

    fn free(&self) -> Result<u64> {
        if self.shared.refusal.is_some() {
            return Ok(self.shared.facts.free.unwrap_or(0));
        }
        self.settled()?.free_bytes()
    }

    fn free_ranges(&self, visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        self.settled()?.free_ranges(visit)
    }

    fn writer(&self) -> Result<&dyn FilesystemMut> {
        match &self.shared.refusal {
            None => Ok(self),
            Some(refusal) => Err(refusal.clone()),
        }
    }

    fn subvolumes(&self) -> Result<Vec<Subvolume>> {
        self.core().subvolumes()
    }

    fn subvolume_id(&self) -> Option<u64> {
        Some(self.root)
    }

    fn subvolume(&self, name: &SubvolumeName) -> Result<Option<Arc<dyn Filesystem>>> {
        let core = self.core();
        let id = match name {
            SubvolumeName::Default => Some(core.store.default_volume()?),
            SubvolumeName::Id(0) => Some(id::FS_TREE),
            SubvolumeName::Id(id) => Some(*id),
            SubvolumeName::Path(path) => core.volume_at(path)?,
        };
        drop(core);
        let Some(fs) = id.and_then(|id| self.with_root(id)) else { return Ok(None) };
        Ok(Some(Arc::new(fs)))
    }
}

impl FilesystemMut for Btrfs {
    fn replace(&self, inode: Inode, content: &[u8]) -> Result<()> {
        let file = self.core().target_of(self.root, inode)?;
        self.changing(|core| core.overwrite(file, content))
    }

    fn append(&self, inode: Inode, content: &[u8]) -> Result<()> {
        self.writing(|core| core.append_content(core.target_of(self.root, inode)?, content))
    }

    fn create(&self, dir: Inode, name: &[u8], attributes: &Attributes, content: &[u8]) -> Result<Inode> {
        self.make(dir, name, FileKind::Regular, attributes, content)
    }

    fn create_dir(&self, dir: Inode, name: &[u8], attributes: &Attributes) -> Result<Inode> {
        self.make(dir, name, FileKind::Directory, attributes, &[])
    }

    fn symlink(&self, dir: Inode, name: &[u8], target: &[u8], attributes: &Attributes) -> Result<Inode> {
        if target.is_empty() || target.contains(&0) || target.len() >= 4096 {
            let what = "a symbolic link's target is empty, too long or has a NUL";
            return Err(Error::new(Kind::Usage, "btrfs.name", what));
        }
        self.make(dir, name, FileKind::Symlink, attributes, target)
    }

    fn remove(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.freeing(|core| core.remove_entry(core.target_of(self.root, dir)?, name, false))
    }

    fn remove_dir(&self, dir: Inode, name: &[u8]) -> Result<()> {
        self.freeing(|core| core.remove_entry(core.target_of(self.root, dir)?, name, true))
    }

    fn rename(&self, dir: Inode, name: &[u8], new_dir: Inode, new_name: &[u8]) -> Result<()> {
        self.writing(|core| {
            let (from, to) = (core.target_of(self.root, dir)?, core.target_of(self.root, new_dir)?);
            core.move_entry(from, name, to, new_name)
        })
    }

    fn set_owner(&self, inode: Inode, mode: u32, uid: u32, gid: u32) -> Result<()> {
        self.writing(|core| core.change_owner(core.target_of(self.root, inode)?, mode, uid, gid))
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8]) -> Result<()> {
        self.writing(|core| core.set_attribute(core.target_of(self.root, inode)?, name, Some(value)))
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.freeing(|core| core.set_attribute(core.target_of(self.root, inode)?, name, None))
    }

    fn set_times(&self, inode: Inode, atime: Timestamp, mtime: Timestamp) -> Result<()> {
        self.writing(|core| core.change_times(core.target_of(self.root, inode)?, atime, mtime))
    }

    fn available(&self) -> Result<u64> {
        self.core().available()
    }

    fn sync(&self) -> Result<()> {
        self.writer()?;
        self.settled().map(drop)
    }
}

/// Nothing can be written.
fn read_only(what: impl Into<String>) -> Error {
    Error::refused("btrfs.read-only", what)
}

/// The bytes contradict themselves.
fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("btrfs.corrupt", what).hint("`btrfs check` in the guest tells more")
}

fn wrong_sum(of: &str, logical: u64) -> Error {
    Error::corrupt("btrfs.checksum", format!("the checksum of {of} is wrong, and there is no other copy"))
        .offset(logical)
}

fn missing(devid: u64) -> Error {
    Error::corrupt("btrfs.device", format!("device {devid} of the file system is not there"))
        .hint("give all of the machine's disks")
}

fn limit(what: &str, max: usize) -> Error {
    Error::limit("btrfs.limit", what.to_owned()).expected(format!("at most {max}"))
}

fn not_a(inode: u64, what: &str) -> Error {
    Error::failed("btrfs.name", format!("inode {inode} is not {what}"))
}

/// A block group's use (`btrfs_block_group_item`).
fn used(item: &[u8]) -> u64 {
    le64(item, 0)
}
