//! Images that mkfs.xfs makes and the kernel fills.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::support::mount::{Unmount, wait_for_loops};
use crate::support::tools;

/// The exchange of files' mappings: what it changes is in the log only, and this `xfs_repair` does not know it.
const UNKNOWN_TO_REPAIR: u32 = 0x40;

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
        std::fs::File::create(&image.path).unwrap().set_len(mib << 20).unwrap();
        let always = ["TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1", "mkfs.xfs", "-q", "-f", "-L", "a label"];
        tools::ok("env", always.iter().chain(options).map(Path::new).chain([image.path.as_path()]));
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

    /// Sets feature bits that this mkfs does not know and the kernel does.
    pub(crate) fn add_incompat(&self, bits: u32) {
        self.change_incompat(|old| old | bits);
    }

    fn change_incompat(&self, change: impl FnOnce(u32) -> u32) -> u32 {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, 0).unwrap();
        let old = u32::from_be_bytes(sector[216..220].try_into().unwrap());
        let new = change(old);
        if new != old {
            sector[216..220].copy_from_slice(&new.to_be_bytes());
            sector[224..228].fill(0);
            let sum = crc32c::crc32c(&sector);
            sector[224..228].copy_from_slice(&sum.to_le_bytes());
            file.write_all_at(&sector, 0).unwrap();
        }
        new
    }

    /// Gives it another UUID than the one that its metadata carries.
    pub(crate) fn set_uuid(&self, uuid: &str) {
        tools::ok("xfs_admin", ["-U".as_ref(), uuid.as_ref(), self.path.as_path()]);
    }

    /// Nothing is wrong with it, and its log is clean.
    pub(crate) fn assert_clean(&self) {
        if self.change_incompat(|bits| bits) & UNKNOWN_TO_REPAIR != 0 {
            let plain = self.copy();
            plain.change_incompat(|bits| bits & !UNKNOWN_TO_REPAIR);
            return plain.assert_clean();
        }
        let output = tools::output(
            "xfs_repair",
            ["-n", "-f", "-o", "force_geometry"].map(Path::new).into_iter().chain([self.path.as_path()]),
        );
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !text.contains("ALERT"), "{text}");
    }
}
