//! Which file systems of a machine are roots of an installed system, and the tree around each.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use serde::Serialize;

use super::fstab::{self, Entry};
use super::machine::Machine;
use super::subvolumes;
use crate::error::{Kind, Result};
use crate::fs::{Filesystem, SubvolumeName, Tree};
use crate::limits;

/// An installed system.
#[derive(Debug)]
pub struct Root {
    /// Index of its root in [`Machine::volumes`].
    pub volume: usize,
    /// Its root with everything that fstab mounts and a driver can open.
    pub tree: Tree,
    /// What is mounted where; the root comes first.
    pub mounts: Vec<Mount>,
    /// Lines of fstab that could not be mounted here, and why.
    pub unmounted: Vec<(Entry, String)>,
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mount {
    /// The mount point in the guest.
    #[serde(rename = "mount_point")]
    pub at: String,
    /// Index in [`Machine::volumes`].
    pub volume: usize,
    /// The path of its subvolume from the top-level one, empty for that one itself; `None` for a file system that has none.
    pub subvolume: Option<String>,
}

impl Mount {
    fn new(at: &str, volume: usize, fs: &dyn Filesystem) -> Result<Self> {
        let named = match fs.subvolume_id() {
            Some(id) => fs.subvolumes()?.into_iter().find(|subvolume| subvolume.id == id),
            None => None,
        };
        let path = named.and_then(|subvolume| subvolume.path);
        let subvolume = path.map(|path| String::from_utf8_lossy(&path).into_owned());
        Ok(Self { at: at.to_owned(), volume, subvolume })
    }
}

/// The installed systems of a machine, in volume order: file systems with `/etc`, `/bin` (or `/usr/bin`) and one of fstab,
/// os-release and hosts.
pub fn find_roots(machine: &Machine) -> Result<Vec<Root>> {
    let mut roots = Vec::new();
    for (index, volume) in machine.volumes.iter().enumerate() {
        let Some(fs) = &volume.fs else { continue };
        if let Some(tree) = subvolumes::root_of(fs)? {
            roots.push(assemble(machine, index, tree)?);
        }
    }
    Ok(roots)
}

/// Whether a tree has what every installed system has.
pub(super) fn is_root(tree: &Tree) -> Result<bool> {
    if !tree.is_dir("/etc")? {
        return Ok(false);
    }
    // `/bin` may be a link into a `/usr` that is a file system of its own.
    let has_programs = tree.is_dir("/bin")? || tree.is_dir("/usr/bin")? || tree.find_link("/bin")?.is_some();
    if !has_programs {
        return Ok(false);
    }
    for path in ["/etc/fstab", "/etc/os-release", "/etc/hosts"] {
        if tree.find_link(path)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn assemble(machine: &Machine, volume: usize, tree: Tree) -> Result<Root> {
    let mut root = Root { volume, tree, mounts: Vec::new(), unmounted: Vec::new() };
    if let Some((_, fs)) = root.tree.mounts().next() {
        root.mounts.push(Mount::new("/", volume, &**fs)?);
    }
    let text = match root.tree.read("/etc/fstab", limits::MAX_GUEST_CONFIG) {
        Err(error) if error.kind() == Kind::Limit => None,
        other => other?,
    };
    let mut entries = fstab::parse(&String::from_utf8_lossy(&text.unwrap_or_default()));
    entries.sort_by_key(|entry| entry.mount_point.matches('/').count());
    for entry in entries {
        let is_device = entry.spec.starts_with("/dev/") || entry.spec.contains('=');
        if !is_device || entry.is_swap() || !entry.mount_point.starts_with('/') || entry.mount_point == "/" {
            continue;
        }
        if let Some(why) = mount(machine, &mut root, &entry)? {
            root.unmounted.push((entry, why));
        }
    }
    Ok(root)
}

/// Mounts one line; `Some` says why not.
fn mount(machine: &Machine, root: &mut Root, entry: &Entry) -> Result<Option<String>> {
    let no = |why: &str| Ok(Some(why.to_owned()));
    let Some(index) = machine.resolve(&entry.spec) else { return no("it names no volume of this machine") };
    if entry.has_option("bind") {
        return no("it mounts a part of a file system");
    }
    let Some(fs) = machine.volumes.get(index).and_then(|volume| volume.fs.as_ref()) else {
        return no("there is no driver for its file system");
    };
    let is_mounted = root.mounts.iter().any(|mount| mount.volume == index);
    let names_part = entry.has_option("subvol") || entry.has_option("subvolid");
    let fs = if names_part || is_mounted {
        let name = if names_part { subvolumes::wanted(entry) } else { Some(SubvolumeName::Default) };
        let found = name.map_or(Ok(None), |name| fs.subvolume(&name));
        match found {
            Ok(Some(part)) => part,
            Ok(None) if names_part => return no("its file system has no such subvolume"),
            Ok(None) => return no("its volume is mounted already"),
            Err(error) => return no(&error.to_string()),
        }
    } else {
        Arc::clone(fs)
    };
    if !root.tree.is_dir(&entry.mount_point)? {
        return no("its mount point is no directory");
    }
    root.mounts.push(Mount::new(&entry.mount_point, index, &*fs)?);
    root.tree.mount(&entry.mount_point, fs)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::volume;
    use super::*;
    use crate::fs::MemoryFs;

    #[test]
    fn mounts_what_fstab_says_parents_first() {
        let root = MemoryFs::default();
        root.add_file(
            "/etc/fstab",
            "UUID=E /boot/efi vfat defaults 0 0\n/dev/sda2 / ext4 defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n\
             /dev/sdb1 /data ext4 defaults 0 2\nUUID=B /nowhere ext4 defaults 0 0\nproc /proc proc defaults 0 0\n",
        )
        .unwrap();
        root.add_dir("/boot").unwrap();
        root.add_dir("/bin").unwrap();
        root.add_dir("/proc").unwrap();
        let boot = MemoryFs::default();
        boot.add_file("/vmlinuz", "").unwrap();
        boot.add_dir("/efi").unwrap();
        let esp = MemoryFs::default();
        esp.add_file("/EFI/BOOT/BOOTX64.EFI", "").unwrap();
        let mut machine = Machine::default();
        for (number, uuid, fs) in [(1, "B", boot), (2, "R", root), (3, "E", esp)] {
            let mut volume = volume(0, number, "ext4", uuid);
            volume.fs = Some(Arc::new(fs));
            machine.volumes.push(volume);
        }
        machine.disks.push(super::super::MachineDisk { name: "sda".to_owned(), ..Default::default() });
        let roots = find_roots(&machine).unwrap();
        assert_eq!(roots.len(), 1);
        let root = &roots[0];
        assert_eq!(root.volume, 1);
        let mounts: Vec<(&str, usize)> = root.mounts.iter().map(|mount| (mount.at.as_str(), mount.volume)).collect();
        assert_eq!(mounts, [("/", 1), ("/boot", 0), ("/boot/efi", 2)]);
        assert!(root.tree.is_file("/boot/efi/EFI/BOOT/BOOTX64.EFI").unwrap());
        let unmounted: Vec<_> = root.unmounted.iter().map(|(entry, _)| entry.mount_point.as_str()).collect();
        assert_eq!(unmounted, ["/data", "/nowhere"]);
    }

    #[test]
    fn a_data_volume_is_no_root() {
        let data = MemoryFs::default();
        data.add_dir("/etc").unwrap();
        data.add_file("/notes", "").unwrap();
        let mut volume = volume(0, 1, "ext4", "D");
        volume.fs = Some(Arc::new(data));
        let machine = Machine { volumes: vec![volume], ..Machine::default() };
        assert!(find_roots(&machine).unwrap().is_empty());
    }

    #[test]
    fn a_usr_of_its_own_still_leaves_a_root() {
        let fs = MemoryFs::default();
        fs.add_file("/etc/hosts", "").unwrap();
        fs.add_link("/bin", "usr/bin").unwrap();
        fs.add_dir("/usr").unwrap();
        let mut volume = volume(0, 1, "ext4", "D");
        volume.fs = Some(Arc::new(fs));
        let machine = Machine { volumes: vec![volume], ..Machine::default() };
        assert_eq!(find_roots(&machine).unwrap().len(), 1);
    }
}
