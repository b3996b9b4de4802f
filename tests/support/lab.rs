//! A place for one test's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tools;

/// A temporary directory that every user can enter; it goes away with the test. It lies on a disk, not in memory: images are large.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let place = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
        let folder =
            tempfile::Builder::new().prefix("hyper2kvm-test.").tempdir_in(place).expect("a temporary directory");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        Self { folder }
    }

    /// One that outlives this test and goes away when the process ends, however it ends: for what many tests share.
    pub(crate) fn shared() -> PathBuf {
        let path = Self::new().folder.keep();
        // Its end of the pipe closes with this process, and then it tidies up.
        let mut janitor = Command::new("sh");
        janitor.args(["-c", "trap '' INT; cat; rm -rf \"$0\""]).arg(&path).stdin(Stdio::piped());
        std::mem::forget(janitor.spawn().expect("a shell"));
        path
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new file in it.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("writing a test file");
        path
    }

    /// A new folder in it.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).expect("a test folder");
        path
    }

    /// A new folder in it that belongs to a user.
    pub(crate) fn folder_of(&self, uid: u32, name: &str) -> PathBuf {
        let path = self.folder(name);
        std::os::unix::fs::chown(&path, Some(uid), Some(uid)).expect("chown needs root; `make test` asks sudo for it");
        path
    }

    /// A fixture under a name in here, as a hard link where possible: fixtures may lie where a plain user cannot go.
    pub(crate) fn link(&self, fixture: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        if fs::hard_link(fixture, &path).is_err() {
            self.copy(fixture, name);
        }
        path
    }

    /// A copy of a fixture, sparse where it is.
    pub(crate) fn copy(&self, fixture: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        tools::ok("cp", ["--sparse=always", "--reflink=auto"].map(Path::new).into_iter().chain([fixture, &path]));
        path
    }

    /// What is in a folder of it, by name.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}
