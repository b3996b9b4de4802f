//! The kernel's own ext4 as an oracle: a partition of a raw disk, mounted by way of a loop device. Needs root.

use std::path::{Path, PathBuf};

use super::{Lab, PARTITION, tools};

/// A mounted file system. It is unmounted when dropped.
pub(crate) struct Mounted {
    point: PathBuf,
}

impl Mounted {
    /// The guest's root file system on a raw disk, read-only; a journal that needs a replay is an error.
    pub(crate) fn read_only(raw: &Path, lab: &Lab, name: &str) -> Self {
        Self::mount(lab.folder(name), raw, "ro")
    }

    /// The same, writable: the kernel replays the journal first.
    pub(crate) fn writable(raw: &Path, lab: &Lab, name: &str) -> Self {
        Self::mount(lab.folder(name), raw, "rw")
    }

    /// A file system in memory, of so many bytes, that every user can write to.
    pub(crate) fn tmpfs(bytes: u64, lab: &Lab, name: &str) -> Self {
        let point = lab.folder(name);
        let options = format!("size={bytes},mode=1777");
        tools::ok(
            "mount",
            ["-t", "tmpfs", "-o", &options, "tmpfs"].map(Path::new).into_iter().chain([point.as_path()]),
        );
        Self { point }
    }

    /// A new file system of this type, of so many mebibytes, that every user can write to.
    pub(crate) fn new(kind: &str, mebibytes: u64, lab: &Lab, name: &str) -> Self {
        let image = lab.path(&format!("{name}.{kind}"));
        tools::ok("truncate", [format!("--size={mebibytes}M").as_ref(), image.as_os_str()]);
        tools::ok(&format!("mkfs.{kind}"), ["-q".as_ref(), image.as_os_str()]);
        let point = lab.folder(name);
        tools::ok("mount", ["-o", "loop"].map(Path::new).into_iter().chain([image.as_path(), &point]));
        tools::ok("chmod", [Path::new("1777"), &point]);
        Self { point }
    }

    /// The file system on a whole device, writable.
    pub(crate) fn device(device: &Path, lab: &Lab, name: &str) -> Self {
        let point = lab.folder(name);
        tools::ok("mount", [device, &point]);
        Self { point }
    }

    /// A partition of a disk, by number, at `point`, with these options.
    pub(crate) fn part(disk: &Path, number: usize, options: &str, point: &Path) -> Self {
        let (start, size) = partition(disk, number);
        Self::range(disk, start, size, options, point)
    }

    /// A range of a disk, at `point`, with these options.
    pub(crate) fn range(disk: &Path, start: u64, size: u64, options: &str, point: &Path) -> Self {
        let options = format!("loop,{options},offset={start},sizelimit={size}");
        tools::ok("mount", ["-o", &options].map(Path::new).into_iter().chain([disk, point]));
        Self { point: point.to_owned() }
    }

    fn mount(point: PathBuf, raw: &Path, access: &str) -> Self {
        let options = format!("loop,{access},offset={PARTITION}");
        tools::ok("mount", ["-t", "ext4", "-o", &options].map(Path::new).into_iter().chain([raw, &point]));
        Self { point }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// Unmounts it, so that everything is on the disk.
    pub(crate) fn close(self) {
        tools::ok("umount", [&self.point]);
        unmount_copies(&self.point);
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        tools::output("umount", ["--lazy".as_ref(), self.point.as_os_str()]);
    }
}

/// Where a partition of a disk, by number, begins, and its size, in bytes.
pub(crate) fn partition(disk: &Path, number: usize) -> (u64, u64) {
    let table = tools::ok("sfdisk", ["--json".as_ref(), disk.as_os_str()]);
    let table: serde_json::Value = serde_json::from_str(&table).expect("JSON");
    let bytes = |name| table["partitiontable"]["partitions"][number - 1][name].as_u64().expect("a partition") * 512;
    (bytes("start"), bytes("size"))
}

/// A place where something is mounted, until this is dropped.
pub(crate) struct Unmount<'a>(pub(crate) &'a Path);

impl Drop for Unmount<'_> {
    /// A `sync` elsewhere keeps a file system busy for a moment.
    fn drop(&mut self) {
        for _ in 0..600 {
            if tools::output("umount", [self.0]).status.success() {
                return unmount_copies(self.0);
            }
            moment();
        }
        tools::output("umount", ["--lazy".as_ref(), self.0.as_os_str()]);
        assert!(std::thread::panicking(), "{} cannot be unmounted", self.0.display());
    }
}

/// Waits until no loop device has the image any more, which may be some time after it was unmounted. The next mount would use it
/// again, with what it remembers.
pub(crate) fn wait_for_loops(image: &Path) {
    for _ in 0..6000 {
        let devices = tools::output("losetup", ["--associated".as_ref(), image.as_os_str()]);
        if devices.status.success() && devices.stdout.is_empty() {
            return;
        }
        moment();
    }
    panic!("{} is still attached to a loop device", image.display());
}

fn moment() {
    std::thread::sleep(std::time::Duration::from_millis(50));
}

/// Unmounts what was unmounted here in other mount namespaces too. A program beside the tests that makes itself one, as those that
/// build guests do, gets a copy of all that is mounted then, and the kernel goes on writing while there is one.
pub(crate) fn unmount_copies(point: &Path) {
    let point = point.to_str().expect("a plain path");
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(Result::ok).map(|entry| entry.path());
    for process in processes.filter(|path| path.join("ns/mnt").is_symlink()) {
        // A process may be gone, and its namespace with it.
        let mounts = std::fs::read_to_string(process.join("mounts")).unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(1) == Some(point)) {
            tools::output("nsenter", [&format!("--mount={}/ns/mnt", process.display()), "umount", point]);
        }
    }
}
