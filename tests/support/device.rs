//! A loop device: a file as a disk of the host. Needs root.

use std::path::{Path, PathBuf};

use super::tools;

/// A loop device over a file. It is given back when dropped.
pub(crate) struct Loop {
    path: PathBuf,
}

impl Loop {
    /// The device whose content `file` is.
    pub(crate) fn over(file: &Path) -> Self {
        let path = tools::ok("losetup", ["--find", "--show"].map(Path::new).into_iter().chain([file]));
        Self { path: PathBuf::from(path.trim()) }
    }

    /// The device whose content is a range of `file`, in bytes, which nobody can write to.
    pub(crate) fn part(file: &Path, start: u64, size: u64) -> Self {
        let [start, size] = [format!("--offset={start}"), format!("--sizelimit={size}")];
        let flags = ["--find", "--show", "--read-only", &start, &size];
        let path = tools::ok("losetup", flags.map(Path::new).into_iter().chain([file]));
        Self { path: PathBuf::from(path.trim()) }
    }

    /// Its name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tools::output("losetup", ["--detach".as_ref(), self.path.as_os_str()]);
    }
}
