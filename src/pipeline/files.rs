//! Small files beside the disks, which also appear under their names only when they are complete and durable.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, RenameFlags};

use crate::error::{Error, Kind, Result};

/// A file that does not have its name yet. Dropped before [`Staged::publish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    partial: PathBuf,
    path: PathBuf,
    published: bool,
}

impl Staged {
    /// A new, empty `PATH.partial`, which whoever writes it must sync.
    pub fn create(path: &Path) -> Result<(Self, File)> {
        Self::create_with(path, 0o644)
    }

    fn create_with(path: &Path, mode: u32) -> Result<(Self, File)> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let staged = Self { partial: PathBuf::from(partial), path: path.to_path_buf(), published: false };
        match std::fs::remove_file(&staged.partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::write("removing a stale file", error).path(&staged.partial));
            }
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged.partial);
        let file = file.map_err(|e| Error::write("writing", e).path(&staged.partial))?;
        Ok((staged, file))
    }

    /// Writes `content` to `PATH.partial` and syncs it.
    pub fn write(path: &Path, content: &[u8]) -> Result<Self> {
        Self::write_with(path, content, 0o644)
    }

    /// The same for a file that only its owner may read.
    pub fn write_private(path: &Path, content: &[u8]) -> Result<Self> {
        Self::write_with(path, content, 0o600)
    }

    fn write_with(path: &Path, content: &[u8], mode: u32) -> Result<Self> {
        let (staged, mut file) = Self::create_with(path, mode)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        written.map_err(|e| Error::write("writing", e).path(&staged.partial))?;
        Ok(staged)
    }

    /// Gives the file its name, durably; `force` replaces what has it. A file that is the same already has done so before, in
    /// a run that this one goes on with.
    pub fn publish(mut self, force: bool) -> Result<()> {
        let replace = force || self.is_there();
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        rustix::fs::renameat_with(CWD, &self.partial, CWD, &self.path, flags).map_err(|errno| match errno {
            rustix::io::Errno::EXIST => exists(&self.path),
            other => Error::write("renaming", other.into()).path(&self.path),
        })?;
        self.published = true;
        sync_dir(&self.path)
    }

    /// Whether a file of the same bytes has the name.
    fn is_there(&self) -> bool {
        let is_file = std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_file());
        is_file && same_bytes(&self.path, &self.partial).unwrap_or(false)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Whether two small files have the same bytes.
#[allow(clippy::disallowed_methods, reason = "reads back what this program writes")]
fn same_bytes(a: &Path, b: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(a)?.len() == std::fs::metadata(b)?.len() && std::fs::read(a)? == std::fs::read(b)?)
}

/// A small file that this program wrote earlier, of at most `max` bytes.
#[allow(clippy::disallowed_methods, reason = "reads back what this program writes")]
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>> {
    let failed = |e| Error::unreadable("reading", e).path(path);
    let mut content = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(max.saturating_add(1)).read_to_end(&mut content).map_err(failed)?;
    if u64::try_from(content.len()).is_ok_and(|len| len <= max) {
        return Ok(content);
    }
    Err(Error::limit("undo.report", "the file is larger than what a migration writes").path(path).expected(max))
}

/// Fails when `path` exists and replacing it was not allowed. Looks at the name itself, not at what a link points to.
pub fn must_not_exist(path: &Path, force: bool) -> Result<()> {
    if force || rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_err() { Ok(()) } else { Err(exists(path)) }
}

fn exists(path: &Path) -> Error {
    Error::new(Kind::Exists, "output.exists", "the output exists already").path(path).hint("--force replaces it")
}

#[allow(clippy::disallowed_methods, reason = "opens the output directory, to make a rename durable")]
fn sync_dir(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|e| Error::write("syncing the directory", e).path(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_only_when_published() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.xml");
        drop(Staged::write(&path, b"one").unwrap());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
        Staged::write(&path, b"two").unwrap().publish(false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3);
        let again = Staged::write(&path, b"three").unwrap().publish(false).unwrap_err();
        assert_eq!(again.code(), "output.exists");
        assert!(must_not_exist(&path, false).is_err());
        assert!(must_not_exist(&path, true).is_ok());
        Staged::write(&path, b"two").unwrap().publish(false).unwrap();
        for (max, reached) in [(4, true), (3, true), (2, false)] {
            assert_eq!(read(&path, max).is_ok(), reached, "{max}");
        }
        let private = dir.path().join("a.undo");
        Staged::write_private(&private, b"secret").unwrap().publish(false).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&private).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        Staged::write(&path, b"three").unwrap().publish(true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 5);
    }
}
