//! The kernel's side: the only file that knows `fuser`, whose interface changes with every release.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BackingId, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, MountOption, OpenAccMode, OpenFlags,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, Session as FuserSession, SessionUnmounter, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use rustix::mount::UnmountFlags;

use crate::mount::Options;
use crate::tree::{Attributes, Failure, File, Kind, Node, Tree};

/// Names and attributes never change, so the kernel may remember names and attributes for long.
const REMEMBER: Duration = Duration::from_secs(3600);

/// What `stat` gives as the preferred size of a read: the kernel's own largest request.
const BLOCK_SIZE: u32 = 1 << 20;

/// Reads ahead that the kernel may have under way; its own default of 12 starves more than that many threads.
const BACKGROUND: u16 = 64;

/// A tree that is mounted on `dir`; nothing is answered before [`Session::run`].
pub(crate) fn mount<T: Tree>(tree: T, dir: &Path, options: &Options) -> io::Result<Session<T>> {
    let mut config = Config::default();
    config.mount_options = vec![
        if options.writable { MountOption::RW } else { MountOption::RO },
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
        MountOption::FSName(source_name(&options.name)),
    ];
    config.n_threads = Some(options.threads.get().max(2));
    config.clone_fd = true;
    let adapter = Adapter {
        tree,
        page_cache: options.page_cache,
        writable: options.writable,
        owner: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        passes_through: false,
        backing: Mutex::default(),
        open: RwLock::default(),
        next_handle: AtomicU64::new(1),
        buffers: Buffers::default(),
    };
    FuserSession::new(adapter, dir, &config).map(Session)
}

/// What the mount table may show: a comma would end the option, and control characters have no place in a table.
fn source_name(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c == ',' || c == '\\' || c.is_control() { '_' } else { c }).take(200).collect();
    if name.is_empty() { "hyper2kvm".to_owned() } else { name }
}

/// A mount whose requests wait to be answered.
pub(crate) struct Session<T: Tree>(FuserSession<Adapter<T>>);

impl<T: Tree> Session<T> {
    /// What unmounts it while [`Session::run`] runs.
    pub(crate) fn unmounter(&mut self) -> Unmounter {
        Unmounter(self.0.unmount_callable())
    }

    /// Answers the kernel until the mount has ended.
    pub(crate) fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

/// Unmounts a session that runs.
#[derive(Debug)]
pub(crate) struct Unmounter(SessionUnmounter);

impl Unmounter {
    /// Takes the mount away from `dir`; one that is in use lives on, out of sight, until its last user is gone.
    pub(crate) fn unmount(&mut self, dir: &Path) -> io::Result<()> {
        match self.0.unmount() {
            Err(cause) if cause.kind() == io::ErrorKind::ResourceBusy => {
                Ok(rustix::mount::unmount(dir, UnmountFlags::DETACH)?)
            }
            other => other,
        }
    }
}

/// Translates requests into calls of a tree.
struct Adapter<T> {
    tree: T,
    page_cache: bool,
    writable: bool,
    owner: (u32, u32),
    /// Whether the kernel reads files of this host by itself when it is told which.
    passes_through: bool,
    /// Such files by node, kept until the mount ends: the kernel wants the same one for each time that a node is opened.
    backing: Mutex<HashMap<Node, Option<Arc<BackingId>>>>,
    open: RwLock<HashMap<u64, Arc<dyn File>>>,
    next_handle: AtomicU64,
    buffers: Buffers,
}

/// Buffers for reads, at most the kernel's largest request each, and no more of them than threads. The one that was used last
/// goes out first: it still lies in the processor's cache, where those of threads that take turns would not.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn with<R>(&self, len: usize, job: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let result = job(&mut buffer[..len]);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        result
    }
}

impl<T: Tree> Adapter<T> {
    fn attributes(&self, node: Node) -> Result<FileAttr, Failure> {
        guarded(|| self.tree.attributes(node)).map(|attributes| file_attr(node, &attributes, self.owner))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<dyn File>, Failure> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Failure::Io)
    }

    /// What the kernel reads in place of `file`; nothing where it may not.
    fn backing(&self, node: Node, file: &dyn File, reply: &ReplyOpen) -> Option<Arc<BackingId>> {
        if !self.passes_through || self.writable {
            return None;
        }
        let mut known = self.backing.lock().unwrap_or_else(PoisonError::into_inner);
        let backing = known.entry(node).or_insert_with(|| {
            let host = file.backing()?;
            let is_same = host.metadata().is_ok_and(|it| it.is_file() && it.len() == file.len());
            let opened = if is_same { reply.open_backing(&host) } else { return None };
            opened
                .inspect_err(|error| tracing::info!(%error, "the kernel does not read the file by itself"))
                .ok()
                .map(Arc::new)
        });
        backing.clone()
    }

    /// What the kernel keeps of a file that was opened with `flags`.
    fn caching(&self, is_backed: bool, flags: OpenFlags) -> FopenFlags {
        let wants_direct = OFlags::from_bits_retain(flags.0.cast_unsigned()).contains(OFlags::DIRECT);
        match (is_backed, self.page_cache) {
            // Passed through, direct I/O would go to the device, where we read from the page cache.
            (true, _) if wants_direct => FopenFlags::FOPEN_DIRECT_IO,
            (true, _) => FopenFlags::empty(),
            (false, true) => FopenFlags::FOPEN_KEEP_CACHE,
            (false, false) => FopenFlags::FOPEN_DIRECT_IO,
        }
    }

    /// Writes what of `data` lies inside the file; a file does not grow.
    fn write(&self, handle: FileHandle, data: &[u8], offset: u64) -> Result<u32, Errno> {
        let file = self.file(handle)?;
        let room = usize::try_from(file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let inside = data.get(..room).unwrap_or(data);
        if inside.is_empty() && !data.is_empty() {
            return Err(Errno::ENOSPC);
        }
        guarded(|| file.write_at(inside, offset))?;
        u32::try_from(inside.len()).map_err(|_| Errno::EINVAL)
    }

    /// `fallocate`: holes and zeros can be made; all the rest would change the length or is there already.
    fn allocate(&self, handle: FileHandle, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let file = self.file(handle)?;
        let end = offset.checked_add(length).ok_or(Errno::EINVAL)?;
        match mode {
            PUNCH_HOLE | ZERO_RANGE | ZERO_RANGE_KEEP_SIZE => {
                if mode == ZERO_RANGE && end > file.len() {
                    return Err(Errno::ENOSPC);
                }
                let range = offset..end.min(file.len());
                if range.is_empty() { Ok(()) } else { Ok(guarded(|| file.zero(range))?) }
            }
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn seek(&self, handle: FileHandle, offset: i64, whence: i32) -> Result<i64, Errno> {
        let file = self.file(handle)?;
        let len = file.len();
        let offset = u64::try_from(offset).ok().filter(|&offset| offset < len).ok_or(Errno::ENXIO)?;
        let found = match whence {
            SEEK_DATA => guarded(|| file.next_data(offset))?.ok_or(Errno::ENXIO)?,
            SEEK_HOLE => guarded(|| file.next_hole(offset))?,
            _ => return Err(Errno::EINVAL),
        };
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}

/// `lseek` to the next data.
const SEEK_DATA: i32 = 3;
/// `lseek` to the next hole.
const SEEK_HOLE: i32 = 4;

/// `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`, the only form of it.
const PUNCH_HOLE: i32 = 0x02 | 0x01;
/// `FALLOC_FL_ZERO_RANGE`.
const ZERO_RANGE: i32 = 0x10;
/// `FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`.
const ZERO_RANGE_KEEP_SIZE: i32 = 0x10 | 0x01;

/// Runs a call of a tree; a panic in it becomes an I/O error, where it would end a thread that answers the kernel.
fn guarded<R>(call: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        tracing::error!("a read of the mounted tree panicked");
        Err(Failure::Io)
    })
}

impl From<Failure> for Errno {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Interrupted => Self::EINTR,
            Failure::Invalid => Self::EINVAL,
            Failure::Io => Self::EIO,
            Failure::IsDirectory => Self::EISDIR,
            Failure::NotDirectory => Self::ENOTDIR,
            Failure::NoSpace => Self::ENOSPC,
            Failure::NotFound => Self::ENOENT,
            Failure::ReadOnly => Self::EROFS,
        }
    }
}

fn file_attr(node: Node, attributes: &Attributes, mounter: (u32, u32)) -> FileAttr {
    let (uid, gid) = attributes.owner.unwrap_or(mounter);
    FileAttr {
        ino: INodeNo(node.0),
        size: attributes.len,
        blocks: attributes.allocated.div_ceil(512),
        atime: attributes.accessed,
        mtime: attributes.modified,
        ctime: attributes.changed,
        crtime: attributes.modified,
        kind: file_type(attributes.kind),
        perm: attributes.mode & 0o7777,
        nlink: attributes.links,
        uid,
        gid,
        rdev: device_number(attributes.device),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::CharDevice => FileType::CharDevice,
        Kind::Directory => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Pipe => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::Symlink => FileType::Symlink,
    }
}

/// A device number as FUSE passes it: 8 bits of the minor number, 12 of the major, the rest of the minor.
fn device_number((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

impl<T: Tree> Filesystem for Adapter<T> {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        let _ = config.set_max_write(BLOCK_SIZE);
        let _ = config.set_max_background(BACKGROUND);
        // Only for root: a plain user's mount would pay for it with a level of stacking and get nothing.
        self.passes_through = rustix::process::geteuid().is_root()
            && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
            && config.set_max_stack_depth(1).is_ok();
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = guarded(|| self.tree.lookup(Node(parent.0), name)).and_then(|node| self.attributes(node));
        match found {
            Ok(attr) => reply.entry(&REMEMBER, &attr, Generation(0)),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(Node(ino.0)) {
            Ok(attr) => reply.attr(&REMEMBER, &attr),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn access(&self, _req: &Request, _ino: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        if mask.contains(AccessFlags::W_OK) && !self.writable { reply.error(Errno::EROFS) } else { reply.ok() }
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != OpenAccMode::O_RDONLY;
        if writes && !self.writable {
            return reply.error(Errno::EROFS);
        }
        match guarded(|| self.tree.open(Node(ino.0))) {
            Ok(file) if writes && !file.is_writable() => reply.error(Errno::EACCES),
            Ok(file) => {
                let backing = self.backing(Node(ino.0), &*file, &reply);
                let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
                self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, file);
                let flags = self.caching(backing.is_some(), flags) | FopenFlags::FOPEN_NOFLUSH;
                match backing {
                    Some(backing) => reply.opened_passthrough(FileHandle(handle), flags, &backing),
                    None => reply.opened(FileHandle(handle), flags),
                }
            }
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let file = match self.file(fh) {
            Ok(file) => file,
            Err(failure) => return reply.error(failure.into()),
        };
        let rest = usize::try_from(file.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = usize::try_from(size).unwrap_or(usize::MAX).min(rest);
        if len == 0 {
            return reply.data(&[]);
        }
        self.buffers.with(len, |buf| match guarded(|| file.read_at(buf, offset)) {
            Ok(()) => reply.data(buf),
            Err(failure) => reply.error(failure.into()),
        });
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write(fh, data, offset) {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.attributes(Node(ino.0)) {
            // Times are what they are. A file keeps its length: a device does not shrink when it is opened to be overwritten,
            // but programs that mean it are told.
            Ok(attr) if mode.or(uid).or(gid).is_none() && size.is_none_or(|size| size == attr.size) => {
                reply.attr(&REMEMBER, &attr);
            }
            Ok(_) => reply.error(Errno::EPERM),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.file(fh).and_then(|file| guarded(|| file.flush())) {
            Ok(()) => reply.ok(),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        match self.allocate(fh, offset, length, mode) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&fh.0);
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let dots = [(1, "."), (2, "..")];
        for (next, name) in dots {
            if offset < next && reply.add(ino, next, FileType::Directory, name) {
                return reply.ok();
            }
        }
        let after = offset.saturating_sub(DOTS);
        let listed = guarded(|| {
            self.tree.list(Node(ino.0), after, &mut |listed| {
                let next = listed.next.saturating_add(DOTS);
                !reply.add(INodeNo(listed.node.0), next, file_type(listed.kind), listed.name)
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        const UNIT: u32 = 4096;
        let (bytes, files) = self.tree.totals();
        reply.statfs(bytes.div_ceil(u64::from(UNIT)), 0, 0, files, 0, UNIT, 255, UNIT);
    }

    fn lseek(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        match self.seek(fh, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match guarded(|| self.tree.read_link(Node(ino.0))) {
            Ok(target) => reply.data(&target),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        match guarded(|| self.tree.xattrs(Node(ino.0))) {
            Ok(Some(xattrs)) => match xattrs.iter().find(|(own, _)| own == name.as_bytes()) {
                Some((_, value)) => sized(value, size, reply),
                None => reply.error(Errno::ENODATA),
            },
            Ok(None) => reply.error(Errno::EOPNOTSUPP),
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match guarded(|| self.tree.xattrs(Node(ino.0))) {
            Ok(xattrs) => {
                let names = xattrs.unwrap_or_default().into_iter().flat_map(|(name, _)| [name, vec![0]].concat());
                sized(&names.collect::<Vec<u8>>(), size, reply);
            }
            Err(failure) => reply.error(failure.into()),
        }
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}

/// Answers with `bytes`, or with how many they are when `size` asks for that.
fn sized(bytes: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(bytes.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(bytes),
        _ => reply.error(Errno::ERANGE),
    }
}

/// Cursors of a directory that `.` and `..` take.
const DOTS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_name_cannot_carry_options() {
        assert_eq!(source_name("a.ova,allow_other,\n\\054x"), "a.ova_allow_other___054x");
        assert_eq!(source_name(""), "hyper2kvm");
        assert_eq!(source_name(&"x".repeat(999)).len(), 200);
    }

    #[test]
    fn a_panic_is_an_io_error() {
        assert_eq!(guarded(|| -> Result<(), Failure> { panic!("in a driver") }), Err(Failure::Io));
    }
}
