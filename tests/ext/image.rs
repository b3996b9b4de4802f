//! Images that mkfs makes and the kernel fills, and what it sees in them.

use std::path::{Path, PathBuf};

use crate::support::mount::{Unmount, wait_for_loops};
use crate::support::tools;

/// A file with a file system on it, in memory where possible: the kernel syncs a lot.
pub(crate) struct Image {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    point: PathBuf,
}

impl Image {
    /// Makes a file system of `mib` MiB with mke2fs.
    pub(crate) fn make(mib: u64, options: &[&str]) -> Self {
        let image = Self::empty();
        std::fs::File::create(&image.path).unwrap().set_len(mib << 20).unwrap();
        tools::ok("mke2fs", ["-q", "-F"].iter().chain(options).map(Path::new).chain([image.path.as_path()]));
        image
    }

    fn empty() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("hyper2kvm-ext.").tempdir_in(place).unwrap();
        let (path, point) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::create_dir(&point).unwrap();
        Self { _folder: folder, path, point }
    }

    /// A copy in its present state.
    pub(crate) fn copy(&self) -> Self {
        let image = Self::empty();
        tools::ok("cp", ["--sparse=always".as_ref(), self.path.as_path(), image.path.as_path()]);
        image
    }

    /// The same with every byte allocated, so that holes show what was discarded.
    pub(crate) fn full_copy(&self) -> Self {
        let image = Self::empty();
        tools::ok("cp", ["--sparse=never".as_ref(), self.path.as_path(), image.path.as_path()]);
        image
    }

    /// Mounts it, lets `work` use the mounted tree, and unmounts it.
    pub(crate) fn mounted<T>(&self, options: &str, work: impl FnOnce(&Path) -> T) -> T {
        let options = format!("loop,{options}");
        tools::ok("mount", ["-o".as_ref(), options.as_ref(), self.path.as_path(), self.point.as_path()]);
        let guard = Unmount(&self.point);
        let value = work(&self.point);
        drop(guard);
        wait_for_loops(&self.path);
        value
    }

    /// Nothing is wrong with it.
    pub(crate) fn assert_clean(&self) {
        let output = tools::output("e2fsck", ["-fn".as_ref(), self.path.as_path()]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", text);
        assert!(!text.contains("? no"), "{text}");
    }
}
