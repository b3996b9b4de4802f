//! Images that mkfs.btrfs makes, on one device or several, and the kernel fills.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper2kvm::disk::Disk;
use hyper2kvm::fs::btrfs::Btrfs;

use crate::file_disk::FileDisk;
use crate::support::mount::Unmount;
use crate::support::{fixtures, tools};

/// Files with a btrfs file system on them, in memory where possible: the kernel syncs a lot.
pub(crate) struct Image {
    folder: tempfile::TempDir,
    pub(crate) devices: Vec<PathBuf>,
}

impl Image {
    /// Makes a sparse file system on `devices` devices of `mib` MiB each.
    pub(crate) fn make(devices: usize, mib: u64, options: &[&str]) -> Self {
        let image = Self::empty(devices);
        for device in &image.devices {
            File::create(device).unwrap().set_len(mib << 20).unwrap();
        }
        let is_new = options.contains(&"block-group-tree");
        let mkfs = if is_new { fixtures::newer("mkfs.btrfs") } else { "mkfs.btrfs".to_owned() };
        let options = ["-q", "-f", "-L", "a label"].iter().chain(options).map(OsString::from);
        tools::ok(&mkfs, options.chain(image.devices.iter().map(OsString::from)));
        image
    }

    fn empty(devices: usize) -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("hyper2kvm-btrfs.").tempdir_in(place).unwrap();
        let devices = (0..devices).map(|index| folder.path().join(format!("device-{index}"))).collect();
        std::fs::create_dir(folder.path().join("mounted")).unwrap();
        Self { folder, devices }
    }

    /// A copy in its present state.
    pub(crate) fn copy(&self) -> Self {
        self.copied("--sparse=always")
    }

    /// The same with every byte allocated, so that holes show what was discarded.
    pub(crate) fn full_copy(&self) -> Self {
        self.copied("--sparse=never")
    }

    fn copied(&self, how: &str) -> Self {
        let image = Self::empty(self.devices.len());
        for (from, to) in self.devices.iter().zip(&image.devices) {
            tools::ok("cp", [how.as_ref(), from.as_path(), to.as_path()]);
        }
        image
    }

    /// Mounts it, lets `work` use the mounted tree, and unmounts it. Copies of one file system cannot be mounted together.
    pub(crate) fn mounted<T>(&self, options: &str, work: impl FnOnce(&Path) -> T) -> T {
        let loops: Vec<Loop> = self.devices.iter().map(|device| Loop::new(device)).collect();
        let point = self.folder.path().join("mounted");
        let others = loops.iter().map(|device| format!(",device={}", device.0)).collect::<String>();
        let options = format!("{options}{others}");
        tools::ok("mount", ["-t", "btrfs", "-o", &options, &loops[0].0, point.to_str().unwrap()]);
        let guard = Unmount(&point);
        let value = work(&point);
        drop(guard);
        loops.iter().for_each(Loop::wait_until_unused);
        value
    }

    /// Lets `work` have the first of the loop devices that it is attached to.
    pub(crate) fn with_loops<T>(&self, work: impl FnOnce(&str) -> T) -> T {
        let loops: Vec<Loop> = self.devices.iter().map(|device| Loop::new(device)).collect();
        loops.iter().for_each(|device| drop(tools::ok("btrfs", ["device", "scan", &device.0])));
        work(&loops[0].0)
    }

    /// The driver on all devices.
    pub(crate) fn open(&self) -> Btrfs {
        Btrfs::open_devices(self.disks()).unwrap()
    }

    /// Every device.
    pub(crate) fn disks(&self) -> Vec<Arc<dyn Disk>> {
        self.devices.iter().map(|device| FileDisk::open(device) as Arc<dyn Disk>).collect()
    }
}

/// A loop device, which is detached when dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        let name = tools::ok("losetup", ["--find".as_ref(), "--show".as_ref(), file.as_os_str()]);
        Self(name.trim().to_owned())
    }

    /// Waits until no mount namespace that ends just now has the file system.
    fn wait_until_unused(&self) {
        for _ in 0..1200 {
            match File::options().read(true).custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed()).open(&self.0) {
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
                opened => return drop(opened.unwrap()),
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{} is still mounted", self.0);
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The kernel keeps the names of devices that it has seen, also of those that are gone.
        tools::output("btrfs", ["device", "scan", "--forget", &self.0]);
        tools::output("losetup", ["--detach", &self.0]);
    }
}
