//! Names beside an output: who may have them.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use super::JournalFile;
use crate::convert::journal::{self, Sealing};
use crate::error::{Error, Kind, Result};

/// How often a file may vanish between two looks before we give up.
const TRIES: u32 = 16;

/// The directory of an output and the names in it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: OwnedFd,
    /// The final path as the user gave it.
    pub(super) path: PathBuf,
    pub(super) name: OsString,
    pub(super) partial: OsString,
    pub(super) journal: OsString,
}

impl Place {
    pub(super) fn new(path: &Path) -> Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| Error::new(Kind::Usage, "output.name", "the output is not the name of a file").path(path))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dir = rustix::fs::openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::write("cannot open the output's directory", errno.into()).path(parent))?;
        let [partial, journal] = [".partial", ".journal"].map(|suffix| [name, OsStr::new(suffix)].concat_os());
        Ok(Self { dir, path: path.to_owned(), name: name.to_owned(), partial, journal })
    }

    /// Another descriptor of the directory.
    pub(super) fn dir_again(&self) -> Result<OwnedFd> {
        self.dir.try_clone().map_err(|error| Error::write("cannot open the output's directory", error).path(&self.path))
    }

    /// Whether anything has `name`.
    pub(super) fn exists(&self, name: &OsStr) -> Result<bool> {
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(Error::write("cannot look for the output", errno.into()).path(&self.path)),
        }
    }

    /// Makes and locks a file, or takes over one that nobody holds; whether it was there before.
    pub(super) fn claim(&self, name: &OsStr) -> Result<(File, bool)> {
        claim(&self.dir, name).map_err(|error| {
            let holder = || journal::holder(&self.read_journal().ok()??).ok()?;
            let error = match (error.code() == "output.locked").then(holder).flatten() {
                Some(pid) => error.found(format!("process {pid}")),
                None => error,
            };
            error.at(self.path.with_file_name(name).display())
        })
    }

    /// The journal for reading, when there is one that we may read.
    pub(super) fn read_journal(&self) -> Result<Option<JournalFile>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let Ok(fd) = rustix::fs::openat(&self.dir, &self.journal, flags, Mode::empty()) else { return Ok(None) };
        let stat = rustix::fs::fstat(&fd).map_err(|errno| Error::write("cannot examine the journal", errno.into()))?;
        let journal = JournalFile { file: File::from(fd), dir: self.dir_again()?, dir_synced: AtomicBool::new(false) };
        Ok(is_ours(&stat).then_some(journal))
    }

    /// Whether what has the final name is the file that was about to get it.
    pub(super) fn is_sealed(&self, sealing: &Sealing) -> bool {
        let Ok(stat) = rustix::fs::statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        is_ours(&stat)
            && stat.st_ino == sealing.inode
            && u64::try_from(stat.st_size).is_ok_and(|len| len == sealing.len)
            && (stat.st_mtime, stat.st_mtime_nsec.cast_signed()) == sealing.modified
    }

    /// Takes the final name from a file that got it in a run that did not get to its end, and that nobody has changed since.
    pub(super) fn take_back(&self, sealing: &Sealing) -> Result<()> {
        if !self.is_sealed(sealing) || self.exists(&self.partial)? {
            return Ok(());
        }
        tracing::info!(path = %self.path.display(), "going on with an output that had its name already");
        rustix::fs::renameat_with(&self.dir, &self.name, &self.dir, &self.partial, RenameFlags::NOREPLACE)
            .or_else(|errno| match errno {
                Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
                    rustix::fs::renameat(&self.dir, &self.name, &self.dir, &self.partial)
                }
                errno => Err(errno),
            })
            .map_err(|errno| Error::write("cannot go on with the output", errno.into()).path(&self.path))
    }

    /// Removes `name` if it is the `file` that we hold: the lock is ours, so nobody else uses it.
    pub(super) fn remove(&self, name: &OsStr, file: &File) {
        if is_same(&self.dir, name, file).unwrap_or(false) {
            let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        }
    }
}

/// Joins parts of a file name.
trait ConcatOs {
    fn concat_os(self) -> OsString;
}

impl ConcatOs for [&OsStr; 2] {
    fn concat_os(self) -> OsString {
        self.into_iter().collect()
    }
}

/// What tells a file from any other, also after it was renamed.
pub(super) fn sealing(metadata: &Metadata) -> Sealing {
    Sealing { inode: metadata.ino(), len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
}

/// Nothing has the name; or, with `force`, nothing but a regular file, which a rename replaces.
pub(super) fn check_name_is_free(place: &Place, force: bool) -> Result<()> {
    let path = &place.path;
    match rustix::fs::statat(&place.dir, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::write("cannot look for the output", errno.into()).path(path)),
        Ok(_) if !force => Err(exists(path)),
        Ok(stat) if file_type(&stat) == FileType::RegularFile => Ok(()),
        Ok(_) => Err(Error::new(Kind::Exists, "output.type", "the output exists and is not a regular file").path(path)),
    }
}

pub(super) fn exists(path: &Path) -> Error {
    Error::new(Kind::Exists, "output.exists", "the output exists").path(path).hint("give --force to replace it")
}

/// Makes and locks a file, or takes over one that nobody holds; whether it was there before.
fn claim(dir: &OwnedFd, name: &OsStr) -> Result<(File, bool)> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |errno: Errno| Error::write("cannot create the output", errno.into());
    for _ in 0..TRIES {
        let fresh = rustix::fs::openat(dir, name, flags | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
        let (fd, stale) = match fresh {
            Ok(fd) => (fd, false),
            Err(Errno::EXIST) => match rustix::fs::openat(dir, name, flags | OFlags::NONBLOCK, Mode::empty()) {
                Ok(fd) => (fd, true),
                Err(Errno::NOENT) => continue,
                Err(_) => return Err(not_ours()),
            },
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if stale && !is_ours(&stat) {
            return Err(not_ours());
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(locked()),
            Err(errno) => return Err(failed(errno)),
        }
        let file = File::from(fd);
        // Its holder may have renamed or removed it before we had the lock.
        if !is_same(dir, name, &file)? {
            continue;
        }
        if stale {
            rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        }
        return Ok((file, stale));
    }
    Err(locked())
}

/// Whether a file is one that we could have left.
fn is_ours(stat: &Stat) -> bool {
    file_type(stat) == FileType::RegularFile && stat.st_nlink <= 1 && stat.st_uid == rustix::process::geteuid().as_raw()
}

fn locked() -> Error {
    Error::failed("output.locked", "another process is writing this output").hint("wait for it, or choose another name")
}

fn not_ours() -> Error {
    Error::new(Kind::Exists, "output.stale", "a file is in the way that this command did not leave behind")
        .hint("look at it, and remove it if it is of no use")
}

/// Whether `name` is still the file that we hold.
pub(super) fn is_same(dir: &OwnedFd, name: &OsStr, file: &File) -> Result<bool> {
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
