//! Images that mkfs.xfs makes and the kernel fills.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::mount::{Unmount, wait_for_loops};
use crate::support::{fixtures, tools};

/// Features that this machine's xfsprogs may not know: the exchange of files' mappings, and files that know their names.
const NEW: [(u32, &str); 2] = [(0x40, "exchange=1"), (0x80, "parent=1")];

/// A file with an XFS file system on it, in memory where possible: the kernel syncs a lot.
pub(crate) struct Image {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
    point: PathBuf,
}

impl Image {
    /// Makes a sparse file system of `mib` MiB, smaller than mkfs likes to make them if need be.
    pub(crate) fn make(mib: u64, options: &[&str]) -> Self {
        let image = Self::empty();
        File::create(&image.path).unwrap().set_len(mib << 20).unwrap();
        let is_new = options.iter().any(|option| NEW.iter().any(|(_, name)| option.contains(name)));
        let mkfs = if is_new { fixtures::newer("mkfs.xfs") } else { "mkfs.xfs".to_owned() };
        let small = ["TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1"].map(Path::new);
        let common = ["-q", "-f", "-L", "a label"].map(Path::new);
        let options = common.into_iter().chain(options.iter().map(Path::new)).chain([&*image.path]);
        tools::ok("env", small.into_iter().chain([Path::new(&mkfs)]).chain(options));
        image
    }

    fn empty() -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("hyper2kvm-xfs.").tempdir_in(place).unwrap();
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
        let options = format!("loop,nouuid,{options}");
        tools::ok("mount", ["-t", "xfs", "-o", &options].map(Path::new).into_iter().chain([&*self.path, &*self.point]));
        let guard = Unmount(&self.point);
        let value = work(&self.point);
        drop(guard);
        wait_for_loops(&self.path);
        value
    }

    /// Runs commands of xfs_db in expert mode.
    pub(crate) fn edit(&self, commands: &[&str]) -> String {
        let flags = commands.iter().flat_map(|command| ["-c", command]);
        tools::ok("xfs_db", ["-x"].into_iter().chain(flags).map(Path::new).chain([self.path.as_path()]))
    }

    /// Gives it another UUID than the one that its metadata carries.
    pub(crate) fn set_uuid(&self, uuid: &str) {
        tools::ok("xfs_admin", ["-U".as_ref(), uuid.as_ref(), self.path.as_path()]);
    }

    /// The incompatible features that its superblock tells.
    fn incompat(&self) -> u32 {
        let mut bytes = [0; 4];
        File::open(&self.path).unwrap().read_exact_at(&mut bytes, 216).unwrap();
        u32::from_be_bytes(bytes)
    }

    /// Whether files know their names.
    pub(crate) fn has_names_in_files(&self) -> bool {
        self.incompat() & 0x80 != 0
    }

    /// Nothing is wrong with it, and its log is clean.
    pub(crate) fn assert_clean(&self) {
        let is_new = NEW.iter().any(|(bit, _)| self.incompat() & bit != 0);
        let repair = if is_new { fixtures::newer("xfs_repair") } else { "xfs_repair".to_owned() };
        let options = ["-n", "-f", "-o", "force_geometry"].map(Path::new);
        let output = tools::output(&repair, options.into_iter().chain([&*self.path]));
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !text.contains("ALERT"), "{text}");
    }
}
