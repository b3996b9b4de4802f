//! The output file from its first byte to its name: `NAME.partial`, locked, then renamed.
//!
//! The file is made with mode 0600 less the umask, and keeps it: a disk holds its guest's secrets. A `.partial` that a killed
//! run left is used again; one that another process is writing, or that is not ours to overwrite, is an error.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::output::Output;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::source::FileSource;

/// How often a `.partial` may vanish between two looks before we give up.
const TRIES: u32 = 16;

/// An output that has no name yet. Dropped without [`Output::publish`], it is removed.
#[derive(Debug)]
pub(super) struct Partial {
    dir: OwnedFd,
    file: File,
    /// The final path as the user gave it.
    path: PathBuf,
    name: OsString,
    partial: OsString,
    published: AtomicBool,
}

impl Partial {
    /// Claims `path`: nothing of that name may exist unless `force`, and nobody else may be writing it.
    pub(super) fn create(path: &Path, force: bool) -> Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::new(Kind::Usage, "output.name", "the output is not the name of a file").path(path))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = rustix::fs::openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::write("cannot open the output's directory", errno.into()).path(parent))?;
        check_name_is_free(&dir, name, path, force)?;
        let mut partial = name.to_owned();
        partial.push(".partial");
        let file = claim(&dir, &partial).map_err(|error| error.at(format!("{}.partial", path.display())))?;
        let published = AtomicBool::new(false);
        Ok(Self { dir, file, path: path.to_owned(), name: name.to_owned(), partial, published })
    }

    fn failed(&self, what: &str, errno: impl Into<std::io::Error>) -> Error {
        Error::write(what, errno.into()).at(self.name())
    }

    /// Moves `.partial` to the final name.
    fn rename(&self, force: bool) -> Result<()> {
        if !is_same(&self.dir, &self.partial, &self.file)? {
            return Err(Error::failed("output.changed", "something else replaced the unfinished output")
                .at(format!("{}.partial", self.path.display())));
        }
        let no_replace =
            rustix::fs::renameat_with(&self.dir, &self.partial, &self.dir, &self.name, RenameFlags::NOREPLACE);
        let done = match no_replace {
            Err(Errno::EXIST) if force => {
                check_name_is_free(&self.dir, &self.name, &self.path, force)?;
                rustix::fs::renameat(&self.dir, &self.partial, &self.dir, &self.name)
            }
            // The file system cannot do that; a link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if force => {
                rustix::fs::renameat(&self.dir, &self.partial, &self.dir, &self.name)
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(&self.dir, &self.partial, &self.dir, &self.name, AtFlags::empty())
                    .and_then(|()| rustix::fs::unlinkat(&self.dir, &self.partial, AtFlags::empty()))
            }
            done => done,
        };
        match done {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(exists(&self.path)),
            Err(errno) => Err(self.failed("cannot rename the finished output", errno)),
        }
    }
}

impl Output for Partial {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn device(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.dev())
    }

    fn free_space(&self) -> Result<Option<u64>> {
        let stat =
            rustix::fs::fstatvfs(&self.file).map_err(|errno| self.failed("cannot ask for the free space", errno))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(data, offset);
        written.map_err(|error| self.failed("cannot write the output", error).offset(offset))
    }

    fn written(&self, _range: Range<u64>) {}

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| self.failed("cannot set the output's length", error))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| self.failed("cannot make the output durable", error))
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, &self.partial, flags, Mode::empty())
            .map_err(|errno| self.failed("cannot read the output back", errno))?;
        // A hint: what is durable need not stay in memory, so that the medium is read and not what was meant to be there.
        let _ = rustix::fs::fadvise(&fd, 0, None, Advice::DontNeed);
        Ok(FileSource::from_fd(fd, format!("{}.partial", self.path.display()))?)
    }

    fn publish(&self, force: bool) -> Result<PathBuf> {
        self.rename(force)?;
        self.published.store(true, Ordering::Relaxed);
        match rustix::fs::fsync(&self.dir) {
            // Some network file systems have no such operation.
            Ok(()) | Err(Errno::INVAL) => Ok(self.path.clone()),
            Err(errno) => {
                if !force {
                    let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
                }
                Err(self.failed("cannot make the output's name durable", errno))
            }
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The lock is still held, so what has the name is ours.
        if !self.published.load(Ordering::Relaxed) && is_same(&self.dir, &self.partial, &self.file).unwrap_or(false) {
            let _ = rustix::fs::unlinkat(&self.dir, &self.partial, AtFlags::empty());
        }
    }
}

/// Nothing has the name; or, with `force`, nothing but a regular file, which a rename replaces.
fn check_name_is_free(dir: &OwnedFd, name: &OsStr, path: &Path, force: bool) -> Result<()> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::write("cannot look for the output", errno.into()).path(path)),
        Ok(_) if !force => Err(exists(path)),
        Ok(stat) if file_type(&stat) == FileType::RegularFile => Ok(()),
        Ok(_) => Err(Error::new(Kind::Exists, "output.type", "the output exists and is not a regular file").path(path)),
    }
}

fn exists(path: &Path) -> Error {
    Error::new(Kind::Exists, "output.exists", "the output exists").path(path).hint("give --force to replace it")
}

/// Makes and locks a `.partial`, or takes over one that nobody holds.
fn claim(dir: &OwnedFd, partial: &OsStr) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |errno: Errno| Error::write("cannot create the output", errno.into());
    for _ in 0..TRIES {
        let fresh = rustix::fs::openat(dir, partial, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
        let (fd, stale) = match fresh {
            Ok(fd) => (fd, false),
            Err(Errno::EXIST) => match rustix::fs::openat(dir, partial, flags | OFlags::NONBLOCK, Mode::empty()) {
                Ok(fd) => (fd, true),
                Err(Errno::NOENT) => continue,
                Err(_) => return Err(not_ours()),
            },
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let ours = file_type(&stat) == FileType::RegularFile
            && stat.st_nlink <= 1
            && stat.st_uid == rustix::process::geteuid().as_raw();
        if stale && !ours {
            return Err(not_ours());
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(locked()),
            Err(errno) => return Err(failed(errno)),
        }
        let file = File::from(fd);
        // Its holder may have renamed or removed it before we had the lock.
        if !is_same(dir, partial, &file)? {
            continue;
        }
        if stale {
            file.set_len(0).map_err(|error| Error::write("cannot empty an old unfinished output", error))?;
            rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        }
        return Ok(file);
    }
    Err(locked())
}

fn locked() -> Error {
    Error::failed("output.locked", "another process is writing this output").hint("wait for it, or choose another name")
}

fn not_ours() -> Error {
    Error::new(Kind::Exists, "output.stale", "a file is in the way that this command did not leave behind")
        .hint("look at it, and remove it if it is of no use")
}

/// Whether `name` is still the file that we hold.
fn is_same(dir: &OwnedFd, name: &OsStr, file: &File) -> Result<bool> {
    let failed = |errno: Errno| Error::write("cannot examine the output", errno.into());
    let held = rustix::fs::fstat(file).map_err(failed)?;
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(errno)),
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        let partial = Partial::create(&path, false).unwrap();
        partial.write_at(b"data", 3).unwrap();
        partial.sync().unwrap();
        assert_eq!(names(dir.path()), ["out.partial"]);
        assert_eq!(partial.publish(false).unwrap(), path);
        drop(partial);
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o177, 0);
    }

    #[test]
    fn what_is_dropped_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        drop(Partial::create(&dir.path().join("out"), false).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn an_existing_output_needs_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let error = Partial::create(&path, false).unwrap_err();
        assert_eq!((error.code(), error.kind().exit_code()), ("output.exists", 5));
        let partial = Partial::create(&path, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3);
        partial.set_len(9).unwrap();
        partial.publish(true).unwrap();
        assert_eq!((names(dir.path()), std::fs::metadata(&path).unwrap().len()), (vec!["out".to_owned()], 9));
    }

    #[test]
    fn an_output_that_appears_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let partial = Partial::create(&path, false).unwrap();
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
            assert_eq!(Partial::create(&dir.path().join(name), true).unwrap_err().code(), "output.type");
        }
        assert_eq!(Partial::create(Path::new("/"), true).unwrap_err().code(), "output.name");
        assert_eq!(Partial::create(&dir.path().join("absent/out"), true).unwrap_err().code(), "output.write");
    }

    #[test]
    fn a_second_writer_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let first = Partial::create(&path, false).unwrap();
        assert_eq!(Partial::create(&path, false).unwrap_err().code(), "output.locked");
        drop(first);
        assert!(Partial::create(&path, false).is_ok());
    }

    #[test]
    fn what_a_killed_run_left_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(dir.path().join("out.partial"), "left behind").unwrap();
        let partial = Partial::create(&path, false).unwrap();
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
        for name in ["a", "b", "c", "d"] {
            assert_eq!(Partial::create(&dir.path().join(name), true).unwrap_err().code(), "output.stale", "{name}");
        }
        assert_eq!(std::fs::metadata(&target).unwrap().len(), 8);
        assert_eq!(names(dir.path()).len(), 5);
    }

    #[test]
    fn a_replaced_partial_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let partial = Partial::create(&path, false).unwrap();
        std::fs::remove_file(dir.path().join("out.partial")).unwrap();
        std::fs::write(dir.path().join("out.partial"), "another").unwrap();
        assert_eq!(partial.publish(false).unwrap_err().code(), "output.changed");
        drop(partial);
        assert_eq!(names(dir.path()), ["out.partial"]);
    }
}
