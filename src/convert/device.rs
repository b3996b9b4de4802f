//! An output that is a block device: a disk, partition, loop device or logical volume.
//!
//! A device has no name that could appear at the end, so its beginning takes that part: the first [`HEAD`] bytes, where every
//! partition table and image header lies, and all that tells what is on a device, are zeros until everything else is written,
//! durable and verified. A run that dies leaves a device on which nothing is found. There is no place for a journal: the same
//! command begins again.
//!
//! Whatever was on the device before is still there, so what a sink leaves out is zeroed: everything below [`State::end`] was
//! written or zeroed. That a discarded range reads as zeros is never assumed: either the kernel promises zeros, or they are
//! written where something else is read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Advice, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat, major, minor};
use rustix::io::Errno;

use super::digest::is_zero;
use super::output::{Output, Surface};
use crate::disk::{Checked, Concat, Disk, Memory, Slice};
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::source::FileSource;

/// Bytes at the beginning of a device that are written last.
const HEAD: u64 = 1 << 20;

/// Bytes handed to the kernel at a time.
const WRITE: usize = 256 << 10;

/// Bytes that are zeroed by one call, after which cancellation is looked at.
const ZERO: u64 = 256 << 20;

/// A device that is being written.
#[derive(Debug)]
pub(super) struct Device {
    path: PathBuf,
    file: File,
    /// Bytes of the device.
    len: u64,
    /// Bytes of its logical sector.
    sector: u64,
    session: Arc<Session>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the device is to begin with.
    head: Vec<u8>,
    /// Where the part ends that was written or zeroed; 0 before the first byte of the device was touched.
    end: u64,
    /// Bytes that the output has.
    used: u64,
    /// Whether the kernel can make a range zeros by itself.
    punches: bool,
}

/// Whether `path` is a block device, by way of symbolic links: logical volumes have their names from those.
pub(super) fn is_device(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| is_block(&stat))
}

fn is_block(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
}

impl Device {
    /// Claims the device at `path`, all of which is to be overwritten by what is read from `source`. The kernel gives it to one
    /// program at a time, and not while it is mounted or part of another device.
    pub(super) fn claim(path: &Path, force: bool, source: &dyn Disk, session: &Arc<Session>) -> Result<Self> {
        let stat = rustix::fs::stat(path)
            .map_err(|errno| Error::write("cannot examine the device", errno.into()).path(path))?;
        if reads_from(source, &stat) {
            return Err(Error::new(Kind::Usage, "output.source", "the device is what the source lies on").path(path));
        }
        if !force {
            return Err(Error::new(Kind::Exists, "output.exists", "the output is a device, which has some content")
                .path(path)
                .hint("give --force to overwrite all of the device"));
        }
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::BUSY => Error::failed("output.in-use", "the device is in use").path(path).hint(
                "unmount it, stop what uses it, or choose another one (findmnt, swapon, lsblk and dmsetup show the users)",
            ),
            errno => Error::write("cannot open the device", errno.into()).path(path),
        })?;
        let failed = |errno: Errno| Error::write("cannot examine the device", errno.into()).path(path);
        // The name may have come to mean something else since it was looked at.
        let opened = rustix::fs::fstat(&fd).map_err(failed)?;
        if !is_block(&opened) || opened.st_rdev != stat.st_rdev {
            return Err(Error::failed("output.changed", "the device was replaced by something else").path(path));
        }
        let sector = rustix::fs::ioctl_blksszget(&fd).map_err(failed)?;
        Self::new(path, File::from(fd), sector, session)
    }

    /// The device that `file` is, with sectors of `sector` bytes.
    fn new(path: &Path, file: File, sector: u32, session: &Arc<Session>) -> Result<Self> {
        let len = rustix::fs::seek(&file, SeekFrom::End(0))
            .map_err(|errno| Error::write("cannot examine the device", errno.into()).path(path))?;
        let head = vec![0; usize::try_from(HEAD.min(len)).unwrap_or(0)];
        let state = Mutex::new(State { head, end: 0, used: 0, punches: true });
        let (path, session, sector) = (path.to_owned(), Arc::clone(session), u64::from(sector.max(512)));
        Ok(Self { path, file, len, sector, session, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::write(what, error).at(self.name())
    }

    fn check_end(&self, end: Option<u64>) -> Result<()> {
        if end.is_some_and(|end| end <= self.len) { Ok(()) } else { Err(self.too_small(end.unwrap_or(u64::MAX))) }
    }

    fn too_small(&self, len: u64) -> Error {
        Error::new(Kind::NoSpace, "output.space", "the device is too small")
            .at(self.name())
            .expected(format!("at least {len} bytes"))
            .found(self.len)
            .hint("choose a larger device, or let this one grow")
    }

    /// Zeros the beginning durably before anything else is written: what was found there does not fit what will follow.
    fn begin(&self, state: &mut State) -> Result<()> {
        if state.end == 0 {
            let head = state.head.len() as u64;
            self.zero(0..head, state)?;
            self.sync()?;
            state.end = head;
        }
        Ok(())
    }

    /// Stores `data` behind the beginning. What lies between that and what was written before becomes zeros.
    fn write_body(&self, data: &[u8], offset: u64, state: &mut State) -> Result<()> {
        self.begin(state)?;
        self.zero_up_to(offset, state)?;
        self.put(data, offset)?;
        state.end = state.end.max(offset + data.len() as u64);
        Ok(())
    }

    fn zero_up_to(&self, offset: u64, state: &mut State) -> Result<()> {
        if offset > state.end {
            self.zero(state.end..offset, state)?;
            state.end = offset;
        }
        Ok(())
    }

    fn put(&self, data: &[u8], offset: u64) -> Result<()> {
        for (at, part) in (offset..).step_by(WRITE).zip(data.chunks(WRITE)) {
            let written = self.file.write_all_at(part, at);
            written.map_err(|error| self.failed("cannot write the device", error).offset(at))?;
        }
        Ok(())
    }

    /// Makes `range` read as zeros.
    fn zero(&self, range: Range<u64>, state: &mut State) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            self.session.check()?;
            let end = range.end.min(at - at % ZERO + ZERO);
            let whole = at.next_multiple_of(self.sector)..end - end % self.sector;
            if state.punches && whole.start < whole.end && self.punch(&whole, state)? {
                self.overwrite(at..whole.start)?;
                self.overwrite(whole.end..end)?;
            } else {
                self.overwrite(at..end)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Has the kernel make whole sectors zeros, by whatever its device offers for it; not without a promise that they are.
    fn punch(&self, range: &Range<u64>, state: &mut State) -> Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV | Errno::NOSYS) => {
                state.punches = false;
                Ok(false)
            }
            Err(errno) => Err(self.failed("cannot zero the device", errno.into()).offset(range.start)),
        }
    }

    /// Writes zeros where there is something else: thin volumes and snapshots keep no room for what is not written.
    fn overwrite(&self, range: Range<u64>) -> Result<()> {
        static ZEROS: [u8; WRITE] = [0; WRITE];
        let mut found = vec![0; WRITE.min(usize::try_from(range.end - range.start).unwrap_or(WRITE))];
        let mut at = range.start;
        while at < range.end {
            self.session.check()?;
            let len = usize::try_from(range.end - at).map_or(WRITE, |left| left.min(WRITE));
            let part = &mut found[..len];
            // What cannot be read is not known to be zeros.
            if self.file.read_exact_at(part, at).is_err() || !is_zero(part) {
                self.put(&ZEROS[..len], at)?;
            }
            at += len as u64;
        }
        Ok(())
    }

    /// Lets nothing that reads the page cache see what was meant to be on the device instead of what is there.
    fn forget_cached(&self) {
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed);
    }
}

/// Whether any file below `disk` is the device of `stat`, or one is a partition of the other.
fn reads_from(disk: &dyn Disk, stat: &Stat) -> bool {
    let file = disk.host(0..disk.len().min(1)).ok().flatten();
    let same = file.and_then(|host| rustix::fs::fstat(&*host.file).ok()).is_some_and(|found| {
        is_block(&found) && (found.st_rdev == stat.st_rdev || is_part(&found, stat) || is_part(stat, &found))
    });
    same || disk.below().iter().any(|below| reads_from(&**below, stat))
}

/// Whether the device of `part` is a partition of that of `whole`.
fn is_part(part: &Stat, whole: &Stat) -> bool {
    let place = |stat: &Stat| {
        let number = format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev));
        Path::new("/sys/dev/block").join(number).canonicalize().ok()
    };
    let (Some(part), Some(whole)) = (place(part), place(whole)) else { return false };
    part.join("partition").exists() && part.parent() == Some(&whole)
}

impl Output for Device {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn device(&self) -> Option<u64> {
        None
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(Some(self.len))
    }

    fn capacity(&self) -> Option<u64> {
        Some(self.len)
    }

    fn surface(&self) -> Surface {
        Surface::Used
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_end(offset.checked_add(data.len() as u64))?;
        let mut state = self.state();
        let head = state.head.len();
        let start = usize::try_from(offset).map_or(head, |offset| offset.min(head));
        let (first, rest) = data.split_at((head - start).min(data.len()));
        if let Some(place) = state.head.get_mut(start..start + first.len()) {
            place.copy_from_slice(first);
        }
        if rest.is_empty() { Ok(()) } else { self.write_body(rest, offset + first.len() as u64, &mut state) }
    }

    fn written(&self, _range: Range<u64>) {}

    /// Zeros what the output has and nobody wrote. What lies behind it is not part of it and stays, but for the mebibytes at both
    /// ends, so that no backup of an old partition table and no old label is found there.
    fn set_len(&self, len: u64) -> Result<()> {
        self.check_end(Some(len))?;
        let mut state = self.state();
        self.begin(&mut state)?;
        self.zero_up_to(len, &mut state)?;
        state.used = len;
        let end = state.end;
        self.zero(end..(end + HEAD).min(self.len), &mut state)?;
        self.zero(self.len.saturating_sub(HEAD).max(end)..self.len, &mut state)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("cannot make the output durable", error))
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        self.forget_cached();
        let fd = self.file.try_clone().map_err(|error| self.failed("cannot read the output back", error))?;
        let device: Arc<dyn Disk> = FileSource::from_fd(fd.into(), self.name())?;
        let state = self.state();
        let mut head = state.head.clone();
        head.truncate(usize::try_from(state.used).unwrap_or(usize::MAX));
        let head_len = head.len() as u64;
        let head: Arc<dyn Disk> = Checked::wrap(Memory::new(head));
        let rest = Slice::new(self.name(), device, head_len..state.used.max(head_len))?;
        Ok(Checked::wrap(Concat::new(self.name(), vec![head, Checked::wrap(rest)])))
    }

    fn publish(&self, _force: bool) -> Result<PathBuf> {
        let state = self.state();
        self.put(&state.head, 0)?;
        self.sync()?;
        self.forget_cached();
        let mut found = vec![0; state.head.len()];
        let read = self.file.read_exact_at(&mut found, 0);
        read.map_err(|error| self.failed("cannot read the output back", error))?;
        if found != state.head {
            return Err(Error::new(Kind::Mismatch, "verify.mismatch", "the device does not hold what was written")
                .at(self.name())
                .offset(0)
                .hint("check the device and this machine's memory, and run the command again"));
        }
        Ok(self.path.clone())
    }
}

#[cfg(test)]
impl Device {
    /// A file that stands in for a device; `punches` says whether the kernel can make zeros there.
    pub(super) fn stand_in(path: &Path, punches: bool, session: &Arc<Session>) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let device = Self::new(path, file, 512, session).unwrap();
        device.state().punches = punches;
        device
    }
}
