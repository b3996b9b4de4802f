//! The output file from its first byte to its name: `NAME.partial` with `NAME.journal`, both locked, then renamed.
//!
//! The file is made with mode 0600 less the umask, and keeps it: a disk holds its guest's secrets. What an unfinished run left is
//! gone on with; what another process is writing, or what is not ours to overwrite, is an error.

use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::journal::{self, Sealing};
use super::output::{Log, Output};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::session::Moment;
use crate::source::FileSource;

mod claim;
mod clone;

use claim::{Place, check_name_is_free, exists, is_same};

/// Bytes handed to the kernel at a time. For larger writes it takes larger pieces of memory for the page cache, which it has at
/// hand less often: 2 MiB at a time took twice the processor's time.
const WRITE: usize = 64 << 10;

/// An output that has no name yet. Dropped without [`Output::publish`], it is removed, unless a later run can go on with it.
#[derive(Debug)]
pub(super) struct Partial {
    place: Place,
    file: File,
    journal: JournalFile,
    published: AtomicBool,
    keep: AtomicBool,
}

impl Partial {
    /// Claims `path`: nothing of that name may exist unless `force`, and nobody else may be writing it. With `restart`, what an
    /// earlier run left is emptied.
    pub(super) fn create(path: &Path, force: bool, restart: bool) -> Result<Self> {
        let place = Place::new(path)?;
        if !place.exists(&place.journal)? {
            check_name_is_free(&place, force)?;
        }
        let (journal, stale) = place.claim(&place.journal)?;
        let mut journal = JournalFile { file: journal, dir: place.dir_again()?, dir_synced: AtomicBool::new(false) };
        let claimed = Self::claim_file(&place, &mut journal, force, restart);
        let file = match claimed {
            Ok(file) => file,
            Err(error) => {
                if !stale {
                    place.remove(&place.journal, &journal.file);
                }
                return Err(error);
            }
        };
        Ok(Self { place, file, journal, published: AtomicBool::new(false), keep: AtomicBool::new(false) })
    }

    /// The file itself, when its journal is claimed.
    fn claim_file(place: &Place, journal: &mut JournalFile, force: bool, restart: bool) -> Result<File> {
        if let Some(sealing) = journal::read_sealing(journal)? {
            place.take_back(&sealing)?;
        }
        check_name_is_free(place, force)?;
        let (file, stale) = place.claim(&place.partial)?;
        let empty =
            |file: &File| file.set_len(0).map_err(|error| Error::write("cannot empty an old unfinished output", error));
        if restart || !stale {
            empty(&journal.file)?;
        }
        if restart || journal.file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            empty(&file)?;
        }
        Ok(file)
    }

    fn failed(&self, what: &str, errno: impl Into<std::io::Error>) -> Error {
        Error::write(what, errno.into()).at(self.name())
    }

    /// Moves `.partial` to the final name.
    fn rename(&self, force: bool) -> Result<()> {
        let Place { dir, name, partial, path, .. } = &self.place;
        if !is_same(dir, partial, &self.file)? {
            return Err(Error::failed("output.changed", "something else replaced the unfinished output")
                .at(format!("{}.partial", path.display())));
        }
        let no_replace = rustix::fs::renameat_with(dir, partial, dir, name, RenameFlags::NOREPLACE);
        let done = match no_replace {
            Err(Errno::EXIST) if force => {
                check_name_is_free(&self.place, force)?;
                rustix::fs::renameat(dir, partial, dir, name)
            }
            // The file system cannot do that; a link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if force => {
                rustix::fs::renameat(dir, partial, dir, name)
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(dir, partial, dir, name, AtFlags::empty())
                    .and_then(|()| rustix::fs::unlinkat(dir, partial, AtFlags::empty()))
            }
            done => done,
        };
        match done {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists(path)),
            Err(errno) => Err(self.failed("cannot rename the finished output", errno)),
        }
    }
}

impl Output for Partial {
    fn name(&self) -> String {
        self.place.path.display().to_string()
    }

    fn device(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.dev())
    }

    fn free_space(&self) -> Result<Option<u64>> {
        let stat =
            rustix::fs::fstatvfs(&self.file).map_err(|errno| self.failed("cannot ask for the free space", errno))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn allocated(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks().saturating_mul(512))
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(&self.journal)
    }

    fn keep(&self, keep: bool) {
        self.keep.store(keep, Ordering::Relaxed);
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        for (at, part) in (offset..).step_by(WRITE).zip(data.chunks(WRITE)) {
            let written = self.file.write_all_at(part, at);
            written.map_err(|error| self.failed("cannot write the output", error).offset(at))?;
        }
        Ok(())
    }

    fn shares(&self, from: &File) -> Option<u64> {
        // Whether two files can share depends on much that cannot be asked for, so one block is shared with a file without a name.
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let probe = File::from(rustix::fs::openat(&self.place.dir, c".", flags, Mode::RUSR | Mode::WUSR).ok()?);
        let stat = rustix::fs::fstatvfs(&probe).ok()?;
        let unit = stat.f_bsize.max(stat.f_frsize).max(1);
        clone::clone_range(&probe, 0, from, 0, unit).is_ok().then_some(unit)
    }

    fn share(&self, from: &File, from_offset: u64, offset: u64, len: u64) -> Result<bool> {
        match clone::clone_range(&self.file, offset, from, from_offset, len) {
            Ok(()) => Ok(true),
            Err(errno @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => {
                Err(self.failed("cannot share the source's bytes", errno).offset(offset))
            }
            Err(_) => Ok(false),
        }
    }

    fn written(&self, _range: Range<u64>) {}

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| self.failed("cannot set the output's length", error))
    }

    fn allocate(&self, len: u64) -> Result<()> {
        let kept = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len);
        kept.map_err(|errno| self.failed("cannot reserve space for the output", errno))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("cannot make the output durable", error))
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.failed("cannot make the output durable", error))
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.place.dir, &self.place.partial, flags, Mode::empty())
            .map_err(|errno| self.failed("cannot read the output back", errno))?;
        // A hint: what is durable need not stay in memory, so that the medium is read and not what was meant to be there.
        let _ = rustix::fs::fadvise(&fd, 0, None, Advice::DontNeed);
        Ok(FileSource::from_fd(fd, format!("{}.partial", self.place.path.display()))?)
    }

    fn publish(&self, force: bool) -> Result<PathBuf> {
        self.rename(force)?;
        self.published.store(true, Ordering::Relaxed);
        let Place { dir, name, partial, path, .. } = &self.place;
        match rustix::fs::fsync(dir) {
            // Some network file systems have no such operation.
            Ok(()) | Err(Errno::INVAL) => Ok(path.clone()),
            Err(errno) => {
                if !force && rustix::fs::renameat_with(dir, name, dir, partial, RenameFlags::NOREPLACE).is_ok() {
                    self.published.store(false, Ordering::Relaxed);
                }
                Err(self.failed("cannot make the output's name durable", errno))
            }
        }
    }

    fn sealing(&self) -> Result<Option<Sealing>> {
        let metadata = self.file.metadata().map_err(|error| self.failed("cannot examine the output", error))?;
        Ok(Some(claim::sealing(&metadata)))
    }

    fn forget(&self) {
        self.place.remove(&self.place.journal, &self.journal.file);
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.published.load(Ordering::Relaxed) || self.keep.load(Ordering::Relaxed) {
            return;
        }
        self.place.remove(&self.place.journal, &self.journal.file);
        self.place.remove(&self.place.partial, &self.file);
    }
}

/// `NAME.journal`.
#[derive(Debug)]
struct JournalFile {
    file: File,
    dir: OwnedFd,
    /// Whether the names of the output and its journal are durable.
    dir_synced: AtomicBool,
}

impl Log for JournalFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut read = 0;
        while read < buf.len() {
            match self.file.read_at(&mut buf[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(journal_failed("cannot read the journal", error)),
            }
        }
        Ok(read)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(data, offset).map_err(|error| journal_failed("cannot write the journal", error))
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| journal_failed("cannot cut the journal", error))
    }

    fn sync(&self) -> Result<()> {
        let failed = |error| journal_failed("cannot make the journal durable", error);
        self.file.sync_data().map_err(failed)?;
        if !self.dir_synced.swap(true, Ordering::Relaxed) {
            match rustix::fs::fsync(&self.dir) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Ok(())
    }
}

fn journal_failed(what: &str, error: std::io::Error) -> Error {
    Error::write(what, error)
}

/// The time and seed of the unfinished run that wrote to `path`, if there is one to go on with.
pub(super) fn moment(path: &Path) -> Option<Moment> {
    let place = Place::new(path).ok()?;
    journal::moment(&place.read_journal().ok()??).ok()?
}

/// Removes the journal of an output that has its name, unless another process holds it.
pub(super) fn forget(path: &Path) {
    if let Ok(place) = Place::new(path)
        && is_unfinished(path)
        && let Ok((journal, _)) = place.claim(&place.journal)
    {
        place.remove(&place.journal, &journal);
    }
}

/// Whether `path` is an output that got its name in a run that did not get to its end.
pub(super) fn is_unfinished(path: &Path) -> bool {
    let found = || -> Result<bool> {
        let place = Place::new(path)?;
        let Some(journal) = place.read_journal()? else { return Ok(false) };
        Ok(journal::read_sealing(&journal)?.is_some_and(|sealing| place.is_sealed(&sealing)))
    };
    found().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, FileType};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_name_appears_only_when_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let partial = Partial::create(&path, false, false).unwrap();
        partial.write_at(b"data", 3).unwrap();
        partial.sync().unwrap();
        assert_eq!(names(dir.path()), ["out.journal", "out.partial"]);
        assert_eq!(partial.publish(false).unwrap(), path);
        partial.forget();
        drop(partial);
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o177, 0);
    }

    #[test]
    fn what_is_dropped_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        drop(Partial::create(&dir.path().join("out"), false, false).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn an_existing_output_needs_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let error = Partial::create(&path, false, false).unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("output.exists", 5));
        let partial = Partial::create(&path, true, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3);
        partial.set_len(9).unwrap();
        partial.publish(true).unwrap();
        partial.forget();
        assert_eq!((names(dir.path()), std::fs::metadata(&path).unwrap().len()), (vec!["out".to_owned()], 9));
    }

    #[test]
    fn an_output_that_appears_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let partial = Partial::create(&path, false, false).unwrap();
        std::fs::write(&path, "other").unwrap();
        assert_eq!(partial.publish(false).unwrap_err().code(), "output.exists");
        drop(partial);
        assert_eq!((names(dir.path()), std::fs::metadata(&path).unwrap().len()), (vec!["out".to_owned()], 5));
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        for name in ["dir", "link"] {
            assert_eq!(Partial::create(&dir.path().join(name), true, false).unwrap_err().code(), "output.type");
        }
        assert_eq!(Partial::create(Path::new("/"), true, false).unwrap_err().code(), "output.name");
        assert_eq!(Partial::create(&dir.path().join("absent/out"), true, false).unwrap_err().code(), "output.write");
    }

    #[test]
    fn a_second_writer_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let first = Partial::create(&path, false, false).unwrap();
        assert_eq!(Partial::create(&path, false, false).unwrap_err().code(), "output.locked");
        drop(first);
        assert!(Partial::create(&path, false, false).is_ok());
    }

    #[test]
    fn what_has_a_journal_stays_when_it_was_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let left = |restart| {
            let partial = Partial::create(&path, false, restart).unwrap();
            let found = (partial.file.metadata().unwrap().len(), partial.journal.file.metadata().unwrap().len());
            partial.write_at(b"data", 0).unwrap();
            partial.journal.write_at(b"journal", 0).unwrap();
            partial.keep(true);
            found
        };
        assert_eq!(left(false), (0, 0));
        assert_eq!(left(false), (4, 7));
        assert_eq!(left(true), (0, 0));
        std::fs::remove_file(dir.path().join("out.journal")).unwrap();
        assert_eq!(left(false), (0, 0), "without a journal nothing is known of it");
        std::fs::remove_file(dir.path().join("out.partial")).unwrap();
        assert_eq!(left(false), (0, 0));
    }

    #[test]
    fn what_a_killed_run_left_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(dir.path().join("out.partial"), "left behind").unwrap();
        let partial = Partial::create(&path, false, false).unwrap();
        assert_eq!(partial.file.metadata().unwrap().len(), 0);
        assert_eq!(partial.file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, "precious").unwrap();
        symlink(&target, dir.path().join("a.partial")).unwrap();
        std::fs::hard_link(&target, dir.path().join("b.partial")).unwrap();
        std::fs::create_dir(dir.path().join("c.partial")).unwrap();
        rustix::fs::mknodat(CWD, dir.path().join("d.partial"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        symlink(&target, dir.path().join("e.journal")).unwrap();
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(
                Partial::create(&dir.path().join(name), true, false).unwrap_err().code(),
                "output.stale",
                "{name}"
            );
        }
        assert_eq!(std::fs::metadata(&target).unwrap().len(), 8);
        assert_eq!(names(dir.path()).len(), 6);
    }

    #[test]
    fn a_replaced_partial_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let partial = Partial::create(&path, false, false).unwrap();
        std::fs::remove_file(dir.path().join("out.partial")).unwrap();
        std::fs::write(dir.path().join("out.partial"), "another").unwrap();
        assert_eq!(partial.publish(false).unwrap_err().code(), "output.changed");
        drop(partial);
        assert_eq!(names(dir.path()), ["out.partial"]);
    }
}
