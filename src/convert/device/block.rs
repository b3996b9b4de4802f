//! A block device of this host: a disk, partition, loop device or logical volume.
//!
//! That a discarded range reads as zeros is never assumed: either the kernel promises zeros, or they are written where something
//! else is read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat, major, minor};
use rustix::io::Errno;

use super::Medium;
use crate::convert::digest::is_zero;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::source::FileSource;

/// Bytes handed to the kernel at a time.
const WRITE: usize = 256 << 10;

/// A block device that nobody else may use meanwhile.
#[derive(Debug)]
pub(super) struct Block {
    path: PathBuf,
    file: File,
    /// Bytes of the device.
    len: u64,
    /// Bytes of its logical sector.
    sector: u64,
    session: Arc<Session>,
    /// Whether the kernel can make a range zeros by itself.
    punches: AtomicBool,
}

/// Whether `path` is a block device, by way of symbolic links: logical volumes have their names from those.
pub(in crate::convert) fn is_device(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| is_block(&stat))
}

fn is_block(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice
}

impl Block {
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
        let (path, session, sector) = (path.to_owned(), Arc::clone(session), u64::from(sector.max(512)));
        Ok(Self { path, file, len, sector, session, punches: AtomicBool::new(true) })
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        Error::write(what, error).path(&self.path)
    }

    fn put(&self, data: &[u8], offset: u64) -> Result<()> {
        for (at, part) in (offset..).step_by(WRITE).zip(data.chunks(WRITE)) {
            let written = self.file.write_all_at(part, at);
            written.map_err(|error| self.failed("cannot write the device", error).offset(at))?;
        }
        Ok(())
    }

    /// Has the kernel make whole sectors zeros, by whatever its device offers for it; not without a promise that they are.
    fn punch(&self, range: &Range<u64>) -> Result<bool> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV | Errno::NOSYS) => {
                self.punches.store(false, Ordering::Relaxed);
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

impl Medium for Block {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn noun(&self) -> &'static str {
        "device"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn write(&self, data: &[u8], offset: u64) -> Result<()> {
        self.put(data, offset)
    }

    fn zero(&self, range: Range<u64>) -> Result<()> {
        let whole = range.start.next_multiple_of(self.sector)..range.end - range.end % self.sector;
        if self.punches.load(Ordering::Relaxed) && whole.start < whole.end && self.punch(&whole)? {
            self.overwrite(range.start..whole.start)?;
            return self.overwrite(whole.end..range.end);
        }
        self.overwrite(range)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("cannot make the output durable", error))
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.forget_cached();
        let read = self.file.read_exact_at(buf, offset);
        read.map_err(|error| self.failed("cannot read the output back", error))
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        self.forget_cached();
        let fd = self.file.try_clone().map_err(|error| self.failed("cannot read the output back", error))?;
        Ok(FileSource::from_fd(fd.into(), self.name())?)
    }
}

#[cfg(test)]
impl Block {
    /// A file that stands in for a device; `punches` says whether the kernel can make zeros there.
    pub(super) fn stand_in(path: &Path, punches: bool, session: &Arc<Session>) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let device = Self::new(path, file, 512, session).unwrap();
        device.punches.store(punches, Ordering::Relaxed);
        device
    }
}
