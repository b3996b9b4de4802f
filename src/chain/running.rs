//! Whether a machine uses a disk, by what VMware leaves beside it.
//!
//! Workstation, Fusion and Player make a directory `NAME.lck` beside each disk, and beside the `.vmx`, while they use it. ESXi locks
//! by its file system, which nobody else sees, and on NFS by a file `.lck-` with the number of the locked file, its bytes in the
//! order of the wire. Both are looked for by their names; no directory is listed and nothing is opened.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, ResolveFlags};
use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::session::Session;

/// The name of the lock on the file `name` of `dir`, whose number there is `inode`, if there is one. `name` was opened before, so
/// its directory is one in which names may be looked for.
pub(super) fn lock(dir: BorrowedFd<'_>, name: &Path, inode: u64) -> Option<String> {
    let file_name = name.file_name()?;
    let mut beside = OsString::from(file_name);
    beside.push(".lck");
    let number: String = inode.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let found =
        [beside, format!(".lck-{number}").into()].into_iter().find(|lock| exists(dir, &name.with_file_name(lock)));
    found.map(|lock| lock.to_string_lossy().into_owned())
}

/// Whether a directory or a file has this name, by way of no link.
fn exists(dir: BorrowedFd<'_>, name: &PathBuf) -> bool {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let place = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(dir, name, place, Mode::empty(), resolve);
    let kind = found.and_then(rustix::fs::fstat).map(|stat| FileType::from_raw_mode(stat.st_mode));
    matches!(kind, Ok(FileType::Directory | FileType::RegularFile))
}

/// Refuses what `lock` says is in use, unless the user wants it; then gives what he should know.
///
/// # Errors
/// `source.running`.
pub(super) fn check(lock: Option<String>, session: &Session) -> Result<Option<String>> {
    let Some(lock) = lock else { return Ok(None) };
    if session.policy.allow_running {
        let what = "the machine is running, or died: what it writes meanwhile is read partly, and what it wrote last may be missing";
        return Ok(Some(format!("{what} ({lock})")));
    }
    Err(Error::refused("source.running", "the machine that has this disk is running, or died without tidying up")
        .found(lock)
        .hint(
            "shut the machine down and close it in VMware, or convert a clone of it; --allow-running reads the disk as it is, like \
             after a power cut at best",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn found(make: impl Fn(&Path)) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let fd = rustix::fs::openat(rustix::fs::CWD, dir.path(), OFlags::PATH, Mode::empty()).unwrap();
        lock(fd.as_fd(), Path::new("a.vmdk"), 0x15d)
    }

    #[test]
    fn locks_are_found_by_name() {
        assert_eq!(found(|_| ()), None);
        assert_eq!(found(|dir| std::fs::create_dir(dir.join("b.vmdk.lck")).unwrap()), None);
        let directory = found(|dir| std::fs::create_dir(dir.join("a.vmdk.lck")).unwrap());
        assert_eq!(directory.as_deref(), Some("a.vmdk.lck"));
        let file = found(|dir| std::fs::write(dir.join("a.vmdk.lck"), "").unwrap());
        assert_eq!(file.as_deref(), Some("a.vmdk.lck"));
        let nfs = found(|dir| std::fs::write(dir.join(".lck-5d01000000000000"), "").unwrap());
        assert_eq!(nfs.as_deref(), Some(".lck-5d01000000000000"));
        let link = found(|dir| std::os::unix::fs::symlink("/", dir.join("a.vmdk.lck")).unwrap());
        assert_eq!(link, None, "a link leads elsewhere");
    }
}
