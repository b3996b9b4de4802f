//! The unnamed file that takes overlay blocks beyond the memory share. It never has a name that outlives its creation.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{BLOCK, BLOCK_LEN};
use crate::error::{Error, Result};

/// Blocks in an unnamed file.
#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    /// Blocks that the file has room for.
    blocks: u64,
    /// Block numbers that are free to use again.
    free: Vec<u64>,
}

impl Spill {
    /// An empty unnamed file in `dir`, readable by its owner only.
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let file = unnamed(dir).map_err(|error| failed("creating a spill file failed", error).path(dir))?;
        Ok(Self { file, blocks: 0, free: Vec::new() })
    }

    /// Stores a block and says where.
    pub(super) fn push(&mut self, block: &[u8; BLOCK_LEN]) -> Result<u64> {
        let place = self.free.last().copied().unwrap_or(self.blocks);
        self.write_at(block, place * BLOCK)?;
        if self.free.pop().is_none() {
            self.blocks += 1;
        }
        Ok(place)
    }

    /// Gives block `place` back.
    pub(super) fn free(&mut self, place: u64) {
        self.free.push(place);
    }

    pub(super) fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|error| failed("reading the spill file failed", error))
    }

    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(data, offset).map_err(|error| failed("writing the spill file failed", error))
    }
}

fn failed(what: &str, error: io::Error) -> Error {
    Error::write(what, error)
}

/// `O_TMPFILE`, or where the file system has none, a fresh file whose name is removed at once.
fn unnamed(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(CWD, dir, flags | OFlags::TMPFILE, mode) {
        Ok(file) => Ok(file.into()),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => named_then_removed(dir, flags, mode),
        Err(error) => Err(error.into()),
    }
}

fn named_then_removed(dir: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    for attempt in 0..64 {
        let path = dir.join(format!(".hyper2kvm-spill-{}-{attempt}", std::process::id()));
        match rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW, mode) {
            Ok(file) => {
                rustix::fs::unlinkat(CWD, &path, AtFlags::empty())?;
                return Ok(file.into());
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_leave_no_name_behind() {
        let dir = tempfile::tempdir().unwrap();
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        for file in
            [unnamed(dir.path()).unwrap(), named_then_removed(dir.path(), flags, Mode::RUSR | Mode::WUSR).unwrap()]
        {
            file.write_all_at(b"x", 5).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 6);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn freed_places_are_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::create(dir.path()).unwrap();
        assert_eq!((spill.push(&[1; BLOCK_LEN]).unwrap(), spill.push(&[2; BLOCK_LEN]).unwrap()), (0, 1));
        spill.free(0);
        assert_eq!((spill.push(&[3; BLOCK_LEN]).unwrap(), spill.push(&[4; BLOCK_LEN]).unwrap()), (0, 2));
        let mut buf = [0; 2];
        spill.read_at(&mut buf, BLOCK - 1).unwrap();
        assert_eq!(buf, [3, 2]);
    }

    #[test]
    fn a_missing_directory_is_a_named_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Spill::create(&dir.path().join("absent")).unwrap_err();
        assert_eq!(error.code(), "output.write");
    }
}
