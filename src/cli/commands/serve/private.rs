//! A folder that only this user can enter, for a socket that only one command needs.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::session::Session;

/// It is removed when dropped.
pub(super) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// A new one in `$XDG_RUNTIME_DIR`, else in the directory for temporary files: the path of a socket must be short.
    pub(super) fn new(session: &Session) -> Result<Self> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let base = base.unwrap_or_else(std::env::temp_dir);
        let [a, b, c, d, ..] = session.random("private folder");
        let path = base.join(format!("hyper2kvm-{}-{a:02x}{b:02x}{c:02x}{d:02x}", std::process::id()));
        // A name that exists already is an error, so nobody can have prepared it.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| Error::write("making a private folder for the socket", e).path(&path))?;
        Ok(Self(path))
    }

    /// Where the socket goes.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("nbd.sock")
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_and_goes_away() {
        let folder = PrivateFolder::new(&Session::with_defaults()).unwrap();
        let path = folder.socket().parent().unwrap().to_owned();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
