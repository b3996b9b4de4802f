//! A file or block device of this host, opened read-only.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use crate::disk::{Checked, Disk, Extent, ExtentKind, Fingerprint, Hints, HostRange, Latency, SectorSize, Visit};
use crate::error::{Error, Kind, Result};
use crate::limits;

/// Preferred request size: large enough that a system call's cost vanishes, small enough for the processor's cache.
const PREFERRED: u32 = 256 << 10;

/// A regular file or block device, read by position. Its length is fixed when it is opened: a file that is cut short later
/// gives errors, never zeros.
#[derive(Debug)]
pub struct FileSource {
    file: Arc<File>,
    label: String,
    len: u64,
    sector_size: SectorSize,
}

impl FileSource {
    /// Opens the file that the user named. Symbolic links are followed, since the user chose the name.
    ///
    /// # Errors
    /// [`Kind::Unreadable`] when the system refuses, when it is neither a regular file nor a block device, or when it is empty.
    pub fn open(path: &Path) -> Result<Arc<Checked<Self>>> {
        // NONBLOCK keeps a fifo from blocking the open; regular files and block devices ignore it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::unreadable("cannot open the source", errno.into()).path(path))?;
        Self::from_fd(fd, path.display().to_string())
    }

    /// Wraps a descriptor that was opened for reading. `label` is the name that errors and `explain` show.
    ///
    /// # Errors
    /// As [`FileSource::open`].
    pub fn from_fd(fd: OwnedFd, label: String) -> Result<Arc<Checked<Self>>> {
        let unreadable = |errno: Errno| Error::unreadable("cannot examine the source", errno.into()).at(&label);
        let stat = rustix::fs::fstat(&fd).map_err(unreadable)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let (len, sector_size) = match file_type {
            FileType::RegularFile => (u64::try_from(stat.st_size).unwrap_or(0), SectorSize::B512),
            FileType::BlockDevice => {
                (rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(unreadable)?, device_sector_size(&fd, &label)?)
            }
            other => return Err(wrong_type(other, &label)),
        };
        if len == 0 {
            return Err(Error::new(Kind::Unreadable, "source.empty", "the source is empty")
                .at(&label)
                .hint("check that the download or export finished"));
        }
        if len > limits::MAX_DISK_LEN {
            return Err(Error::limit("disk.too-large", "the source is too large")
                .at(&label)
                .expected(format!("at most {:#x} bytes", limits::MAX_DISK_LEN))
                .found(format!("{len:#x}")));
        }
        // A hint only: doubles the kernel's read-ahead where reads turn out to be sequential.
        let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
        Ok(Checked::wrap(Self { file: Arc::new(File::from(fd)), label, len, sector_size }))
    }

    /// As [`FileSource::from_fd`], for what must be a regular file: the target of a reference.
    ///
    /// # Errors
    /// `reference.refused` when it is anything else, and those of [`FileSource::from_fd`].
    pub fn from_regular(fd: OwnedFd, label: String) -> Result<Arc<Checked<Self>>> {
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| Error::unreadable("cannot examine the source", errno.into()).at(&label))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::refused(
                "reference.refused",
                "the image refers to something that is not a regular file",
            )
            .at(&label));
        }
        Self::from_fd(fd, label)
    }

    fn cut_short(&self, offset: u64) -> Error {
        let now = self.file.metadata().map_or(0, |metadata| metadata.len());
        Error::new(Kind::Unreadable, "source.short", "the file was cut short while it was read")
            .at(&self.label)
            .offset(offset)
            .expected(format!("{:#x} bytes", self.len))
            .found(format!("{now:#x}"))
    }

    /// Where data begins at or after `from`; `end` when all the rest is a hole.
    fn next_data(&self, from: u64, end: u64) -> Result<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Data(from)) {
            Ok(found) => Ok(found.min(end)),
            Err(errno) if knows_no_holes(errno) => Ok(from),
            // NXIO says that no data follows, which a file that was cut short says too.
            Err(Errno::NXIO) if self.file.metadata().is_ok_and(|now| now.len() >= self.len) => Ok(end),
            Err(Errno::NXIO) => Err(self.cut_short(from)),
            Err(errno) => Err(self.no_answer(errno, from)),
        }
    }

    /// Where the data at `from` ends, at most `end`.
    fn next_hole(&self, from: u64, end: u64) -> Result<u64> {
        match rustix::fs::seek(&self.file, SeekFrom::Hole(from)) {
            Ok(found) => Ok(found.min(end)),
            Err(errno) if knows_no_holes(errno) => Ok(end),
            Err(Errno::NXIO) => Err(self.cut_short(from)),
            Err(errno) => Err(self.no_answer(errno, from)),
        }
    }

    fn no_answer(&self, errno: Errno, offset: u64) -> Error {
        Error::unreadable("cannot ask for holes", errno.into()).at(&self.label).offset(offset)
    }
}

impl Disk for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.sector_size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.cut_short(offset),
            _ => Error::unreadable("cannot read the source", error).at(&self.label).offset(offset),
        })
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut from = range.start;
        while from < range.end {
            let data = self.next_data(from, range.end)?;
            let hole = Extent { range: from..data, kind: ExtentKind::Hole, depth: 0, place: Some(from) };
            if data > from && visit(hole).is_break() {
                return Ok(());
            }
            if data == range.end {
                return Ok(());
            }
            from = self.next_hole(data, range.end)?;
            if from <= data {
                return Err(self.cut_short(data));
            }
            if visit(data_extent(data..from)).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn host(&self, range: Range<u64>) -> Result<Option<HostRange>> {
        let len = range.end - range.start;
        Ok(Some(HostRange { file: Arc::clone(&self.file), offset: range.start, len }))
    }

    fn prefetch(&self, range: Range<u64>) {
        let len = std::num::NonZeroU64::new(range.end - range.start);
        let _ = rustix::fs::fadvise(&self.file, range.start, len, Advice::WillNeed);
    }

    fn hints(&self) -> Hints {
        Hints { preferred: PREFERRED, latency: Latency::Local }
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        let stat = rustix::fs::fstat(&self.file)
            .map_err(|errno| Error::unreadable("cannot examine the source", errno.into()).at(&self.label))?;
        // Not the device's number, which may be another one after the machine was started again.
        Ok(Fingerprint::of(&[
            &stat.st_ino.to_le_bytes(),
            &stat.st_size.to_le_bytes(),
            &stat.st_mtime.to_le_bytes(),
            &stat.st_mtime_nsec.to_le_bytes(),
        ]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("file", self.label.clone())
    }
}

/// What file systems and devices without a notion of holes answer.
fn knows_no_holes(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS)
}

fn data_extent(range: Range<u64>) -> Extent {
    Extent { place: Some(range.start), range, kind: ExtentKind::Data, depth: 0 }
}

fn device_sector_size(fd: &OwnedFd, label: &str) -> Result<SectorSize> {
    let size = rustix::fs::ioctl_blksszget(fd)
        .map_err(|errno| Error::unreadable("cannot ask the device for its sector size", errno.into()).at(label))?;
    match size {
        512 => Ok(SectorSize::B512),
        4096 => Ok(SectorSize::B4096),
        other => Err(Error::unsupported("source.sector-size", "the device has an unusual logical sector size")
            .at(label)
            .expected("512 or 4096")
            .found(other)),
    }
}

fn wrong_type(file_type: FileType, label: &str) -> Error {
    let found = match file_type {
        FileType::Directory => "a directory",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        _ => "something else",
    };
    Error::new(Kind::Unreadable, "source.type", "the source is not a file")
        .at(label)
        .expected("a regular file or a block device")
        .found(found)
        .hint("name the image file itself")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::collect_extents;
    use std::io::{Seek, Write};

    fn file_of(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn reads_by_position() {
        let file = file_of(b"0123456789");
        let source = FileSource::open(file.path()).unwrap();
        let mut buf = [0; 4];
        source.read_at(&mut buf, 3).unwrap();
        assert_eq!((&buf, source.len()), (b"3456", 10));
        assert!(source.read_at(&mut buf, 7).is_err());
    }

    #[test]
    fn a_file_cut_short_is_an_error_and_never_zeros() {
        let file = file_of(&[7; 8192]);
        let source = FileSource::open(file.path()).unwrap();
        file.as_file().set_len(4096).unwrap();
        let error = source.read_at(&mut [0; 8192], 0).unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("source.short", 3));
        assert_eq!(
            source.extents(5000..8192, &mut |_| std::ops::ControlFlow::Continue(())).unwrap_err().code(),
            "source.short"
        );
    }

    #[test]
    fn holes_are_told() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(16 << 20).unwrap();
        file.seek(io::SeekFrom::Start(4 << 20)).unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let source = FileSource::open(file.path()).unwrap();
        let extents = collect_extents(&*source, 0..source.len()).unwrap();
        let data: u64 =
            extents.iter().filter(|e| e.kind == ExtentKind::Data).map(|e| e.range.end - e.range.start).sum();
        assert!((4096..1 << 20).contains(&data), "{extents:?}");
        assert!(extents.iter().any(|e| e.kind == ExtentKind::Data && e.range.contains(&(4 << 20))));
        assert!(extents.iter().all(|e| e.place == Some(e.range.start)));
    }

    #[test]
    fn what_is_not_a_file_with_bytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let cases = [
            (dir.path().to_path_buf(), "source.type"),
            (fifo, "source.type"),
            (socket, "source.read"),
            ("/dev/null".into(), "source.type"),
            (dir.path().join("absent"), "source.read"),
            (file_of(b"").into_temp_path().to_path_buf(), "source.read"),
        ];
        for (path, code) in cases {
            let error = FileSource::open(&path).unwrap_err();
            assert_eq!((error.code(), error.kind().exit_code()), (code, 3), "{path:?}");
        }
        assert_eq!(FileSource::open(file_of(b"").path()).unwrap_err().code(), "source.empty");
    }

    #[test]
    fn the_fingerprint_follows_the_file() {
        let mut file = file_of(b"one");
        let source = FileSource::open(file.path()).unwrap();
        let before = source.fingerprint().unwrap();
        assert_eq!(before, source.fingerprint().unwrap());
        file.write_all(b"more").unwrap();
        assert_ne!(before, source.fingerprint().unwrap());
    }
}
