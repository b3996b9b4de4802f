//! A guest of the zoo: its disks, its file systems, and what must hold of its migration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{disks, key};
use crate::support::boot::Live;
use crate::support::mount::{partition, wait_for_loops};
use crate::support::{Bus, Lab, Loop, Machine, Mounted, Nic, Run, Tree, fixtures, tools};

/// A guest of the zoo.
pub(super) struct Guest {
    /// Its name.
    layout: &'static str,
    /// Whether it boots by UEFI.
    uefi: bool,
    /// What the firmware starts, where it is not found by itself: only the old machine remembers its name.
    loader: Option<&'static str>,
    /// What findmnt says of its root on virtio-blk.
    root: &'static str,
    /// The file systems that can be reached from outside, with those of a second disk.
    volumes: &'static [Volume],
}

/// A file system in a partition.
struct Volume {
    /// Which disk, from 0.
    disk: usize,
    /// Which partition, from 1.
    partition: usize,
    /// Where it begins in the partition, in MiB: behind what makes it part of an array, or as a linear logical volume.
    skip: u64,
    /// ext4, xfs, btrfs or vfat.
    kind: &'static str,
    /// Where the guest has it.
    at: &'static str,
}

const fn volume(disk: usize, partition: usize, skip: u64, kind: &'static str, at: &'static str) -> Volume {
    Volume { disk, partition, skip, kind, at }
}

const GUESTS: [Guest; 14] = [
    // The one that the other tests use.
    Guest {
        layout: "plain",
        uefi: false,
        loader: None,
        root: "/dev/vda1 ext4",
        volumes: &[volume(0, 1, 0, "ext4", "/")],
    },
    // The one on XFS of `make test`.
    Guest {
        layout: "crashed",
        uefi: false,
        loader: None,
        root: "/dev/vda1 xfs",
        volumes: &[volume(0, 1, 0, "xfs", "/")],
    },
    Guest {
        layout: "xfs",
        uefi: false,
        loader: None,
        root: "/dev/vda2 xfs",
        volumes: &[volume(0, 1, 0, "ext4", "/boot"), volume(0, 2, 0, "xfs", "/")],
    },
    Guest {
        layout: "btrfs",
        uefi: false,
        loader: None,
        root: "/dev/vda2[/@] btrfs",
        volumes: &[volume(0, 2, 0, "btrfs", "/")],
    },
    Guest {
        layout: "lvm",
        uefi: false,
        loader: None,
        root: "/dev/mapper/vg0-root ext4",
        volumes: &[
            volume(0, 2, 0, "ext4", "/boot"),
            volume(0, 3, 1, "ext4", "/"),
            volume(0, 3, 1 + 1536, "ext4", "/var"),
        ],
    },
    Guest {
        layout: "uefi",
        uefi: true,
        loader: None,
        root: "/dev/vda2 ext4",
        volumes: &[volume(0, 1, 0, "vfat", "/boot/efi"), volume(0, 2, 0, "ext4", "/")],
    },
    Guest {
        layout: "dracut",
        uefi: false,
        loader: None,
        root: "/dev/vda1 ext4",
        volumes: &[volume(0, 1, 0, "ext4", "/")],
    },
    // Its root can only be reached with the key.
    Guest {
        layout: "luks",
        uefi: false,
        loader: None,
        root: "/dev/mapper/root ext4",
        volumes: &[volume(0, 2, 0, "ext4", "/boot")],
    },
    Guest {
        layout: "md",
        uefi: false,
        loader: None,
        root: "/dev/md0 ext4",
        volumes: &[volume(0, 1, 0, "ext4", "/boot"), volume(0, 2, 1, "ext4", "/"), volume(1, 2, 1, "ext4", "/")],
    },
    Guest {
        layout: "sdboot",
        uefi: true,
        loader: None,
        root: "/dev/vda2 ext4",
        volumes: &[volume(0, 1, 0, "vfat", "/boot/efi"), volume(0, 2, 0, "ext4", "/")],
    },
    Guest {
        layout: "uki",
        uefi: true,
        loader: None,
        root: "/dev/vda2 ext4",
        volumes: &[volume(0, 1, 0, "vfat", "/boot/efi"), volume(0, 2, 0, "ext4", "/")],
    },
    Guest {
        layout: "recent",
        uefi: true,
        loader: None,
        root: "/dev/vda2 xfs",
        volumes: &[volume(0, 1, 0, "vfat", "/boot/efi"), volume(0, 2, 0, "xfs", "/")],
    },
    Guest {
        layout: "extlinux",
        uefi: false,
        loader: None,
        root: "/dev/vda1 ext4",
        volumes: &[volume(0, 1, 0, "ext4", "/")],
    },
    Guest {
        layout: "ubuntu",
        uefi: true,
        loader: Some(r"FS0:\EFI\ubuntu\shimx64.efi"),
        root: "/dev/mapper/ubuntu--vg-ubuntu--lv ext4",
        volumes: &[
            volume(0, 1, 0, "vfat", "/boot/efi"),
            volume(0, 2, 0, "ext4", "/boot"),
            volume(0, 3, 1, "ext4", "/"),
        ],
    },
];

/// What a migration wrote.
pub(super) struct Result {
    /// The disks, in order.
    pub(super) disks: Vec<PathBuf>,
    /// What was planned, and done.
    pub(super) plan: Value,
}

impl Guest {
    /// The guest of a layout.
    pub(super) fn of(layout: &str) -> &'static Self {
        GUESTS.iter().find(|guest| guest.layout == layout).expect("a guest of the zoo")
    }

    /// Boots it as VMware has it, and gives what it says of itself. Nothing is written to the disks.
    pub(super) fn boots_on_vmware(&self, disks: &[PathBuf]) -> BTreeMap<String, String> {
        self.up(self.on_vmware(disks).try_out()).1
    }

    /// The same, but it goes on running, and what it writes goes to the disks.
    pub(super) fn runs_on_vmware(&self, disks: &[PathBuf]) -> (Live, BTreeMap<String, String>) {
        self.up(self.on_vmware(disks).start())
    }

    /// OVMF may see no disk on pvscsi.
    fn on_vmware<'a>(&self, disks: &'a [PathBuf]) -> Machine<'a> {
        let bus = if self.uefi { Bus::Sata } else { Bus::Pvscsi };
        self.machine(disks, "raw", bus).nic(Nic::Vmxnet3)
    }

    fn up(&self, mut live: Live) -> (Live, BTreeMap<String, String>) {
        if let Some(loader) = self.loader {
            live.said("Shell> ");
            live.types(loader);
        }
        let facts = live.up();
        assert!(facts["ip"].contains("ens192=10.0.2.15/24"), "{facts:?}");
        (live, facts)
    }

    /// It gives up on virtio as it is.
    pub(super) fn is_dead_on_virtio(&self, source: &[PathBuf]) {
        self.machine(source, "raw", Bus::VirtioBlk).boot().dead();
    }

    /// Migrates it: the images are well formed, and their file systems clean.
    pub(super) fn migrated_only(&self, lab: &Lab, source: &[PathBuf]) -> Result {
        let result = self.migrate(lab, "out", source);
        assert_eq!(result.disks.len(), source.len());
        result.disks.iter().for_each(|disk| tools::assert_clean_qcow2(disk));
        self.has_clean_file_systems(lab, &result.disks);
        result
    }

    /// The same; nothing else was changed in them than the plan says, and migrating the result changes nothing.
    pub(super) fn migrated(&self, lab: &Lab, source: &[PathBuf]) -> Result {
        let result = self.migrated_only(lab, source);
        self.only_what_is_listed_differs(lab, &result.plan, source, &result.disks);
        let again = self.migrate(lab, "again", &result.disks);
        assert_eq!(again.plan["actions"], Value::Array(Vec::new()), "{:#}", again.plan);
        for (first, second) in result.disks.iter().zip(&again.disks) {
            tools::assert_same_content(("qcow2", first), ("qcow2", second));
        }
        std::fs::remove_dir_all(lab.path("again")).expect("removing");
        result
    }

    fn migrate(&self, lab: &Lab, name: &str, source: &[PathBuf]) -> Result {
        let out = lab.path(name);
        self.run(&["migrate"], source).arg("-o").arg(&out).success();
        let report = std::fs::read(files(&out, "json").remove(0)).expect("the report");
        let report: Value = serde_json::from_slice(&report).expect("JSON");
        Result { disks: files(&out, "qcow2"), plan: report["plan"].clone() }
    }

    /// Every file is as the kernel has it when it replays the logs of the source, which may be written to, but for what the plan
    /// lists; and so it is in the result without a replay. The root of the result is shown to `check`.
    pub(super) fn is_as_the_kernel_has_it(
        &self,
        lab: &Lab,
        source: &[PathBuf],
        result: &Result,
        check: impl Fn(&Path),
    ) {
        for (number, disk) in result.disks.iter().enumerate() {
            let raw = lab.path("result.raw");
            tools::to_raw("qcow2", disk, &raw);
            // This machine's kernel may have no FAT.
            let volumes = self.volumes.iter().filter(|volume| volume.disk == number && volume.kind != "vfat");
            for (place, volume) in volumes.enumerate() {
                let name = |when: &str| lab.folder(&format!("{when}-{number}-{place}"));
                volume.mounted(&source[number], "rw", &name("replayed")).close();
                let mounted = volume.mounted(&source[number], "ro", &name("source"));
                let theirs = Tree::read(mounted.path());
                mounted.close();
                let mounted = volume.mounted_as_it_is(&raw, &name("result"));
                let ours = Tree::read(mounted.path());
                assert_only_planned(&result.plan, volume.at.trim_end_matches('/'), &theirs, &ours);
                if volume.at == "/" {
                    check(mounted.path());
                }
                mounted.close();
            }
            std::fs::remove_file(raw).expect("removing");
        }
    }

    /// It comes up on virtio, on its root, with its address, and no unit failed that had not failed before.
    pub(super) fn is_up_on_virtio(&self, result: &Result, failed_before: &str, buses: &[Bus]) {
        for bus in buses {
            let after = self.machine(&result.disks, "qcow2", *bus).boot().up();
            let root =
                if *bus == Bus::VirtioBlk { self.root.to_owned() } else { self.root.replace("/dev/vda", "/dev/sda") };
            assert_eq!(after["root"], root, "{after:?}");
            assert!(after["ip"].contains("ens192=10.0.2.15/24"), "{after:?}");
            assert_eq!(after["failed"], failed_before, "{after:?}");
        }
    }

    fn machine<'a>(&self, disks: &'a [PathBuf], format: &'a str, bus: Bus) -> Machine<'a> {
        let machine = Machine::new(&disks[0], format, bus).uefi(self.uefi);
        disks[1..].iter().fold(machine, |machine, disk| machine.with(disk))
    }

    /// A command on a guest, with its key if it needs one.
    fn run(&self, command: &[&str], disks: &[PathBuf]) -> Run {
        let mut run = Run::new(command);
        if let Some(key) = key(self.layout) {
            run = run.arg("--key").arg(format!("all:file:{}", key.display()));
        }
        if disks[0].extension().is_some_and(|extension| extension == "raw") {
            run = run.args(["--format", "raw"]);
        }
        disks.iter().fold(run, |run, disk| run.arg(disk))
    }

    fn has_clean_file_systems(&self, lab: &Lab, disks: &[PathBuf]) {
        for (number, disk) in disks.iter().enumerate() {
            let raw = lab.path("checked.raw");
            tools::to_raw("qcow2", disk, &raw);
            self.volumes.iter().filter(|volume| volume.disk == number).for_each(|volume| volume.is_clean(&raw));
            std::fs::remove_file(raw).expect("removing");
        }
    }

    fn only_what_is_listed_differs(&self, lab: &Lab, plan: &Value, source: &[PathBuf], result: &[PathBuf]) {
        let (before, after) = (self.tree(lab, "before", source), self.tree(lab, "after", result));
        assert!(before.len() > 5000, "only {} files were compared", before.len());
        assert_only_planned(plan, "", &before, &after);
    }

    /// All files of a guest. That they are read as the kernel reads them is another test.
    fn tree(&self, lab: &Lab, name: &str, disks: &[PathBuf]) -> Tree {
        let (archive, folder) = (lab.path("guest.tar"), lab.folder(name));
        // One disk of a mirror has all of it.
        self.run(&["guest", "tar"], &disks[..1]).arg("-o").arg(&archive).success();
        let flags =
            ["--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--preserve-permissions", "--file"];
        tools::ok("tar", flags.map(Path::new).into_iter().chain([&*archive, Path::new("--directory"), &folder]));
        std::fs::remove_file(archive).expect("removing");
        let tree = Tree::read(&folder);
        std::fs::remove_dir_all(folder).expect("removing");
        tree
    }

    /// Copies of its disks that may be written to.
    pub(super) fn copies(&self, lab: &Lab) -> Vec<PathBuf> {
        let disks = disks(self.layout);
        (1..).zip(&disks).map(|(number, disk)| lab.copy(disk, &format!("copy{number}.raw"))).collect()
    }
}

/// Between two states of the tree that the guest has at `at`, only what the plan lists is different, and the times of folders in
/// which something came or went.
fn assert_only_planned(plan: &Value, at: &str, before: &Tree, after: &Tree) {
    let actions = plan["actions"].as_array().unwrap_or_else(|| panic!("no actions in {plan:#}"));
    let planned: BTreeSet<PathBuf> = actions
        .iter()
        .map(|action| action["path"].as_str().expect("a path"))
        .filter_map(|path| path.strip_prefix(at))
        .map(|path| PathBuf::from(path.trim_start_matches('/')))
        .collect();
    let changes = before.changes(after);
    let parents: BTreeSet<&Path> =
        changes.iter().filter(|(_, change)| change.is_structural()).filter_map(|(path, _)| path.parent()).collect();
    for (path, change) in &changes {
        let is_parent = parents.contains(path) && change.is_of_times_only();
        assert!(planned.contains(*path) || is_parent, "{} is not in the plan: {change:?}", path.display());
    }
}

/// `fsck.vfat` finds nothing, but for the mark of a volume that was in use when its machine was switched off: that stays, so that the
/// guest has it checked.
fn is_clean_fat(device: &Path) {
    let output = tools::output("fsck.vfat", [Path::new("-n"), device]);
    let said = String::from_utf8_lossy(&output.stdout);
    let of_the_mark = [
        "fsck.fat ",
        "There are differences between boot sector and its backup.",
        "This is mostly harmless. Differences: (offset:original/backup)",
        "  65:01/00",
        "  Not automatically fixing this.",
        "Dirty bit is set. ",
        " Automatically removing dirty bit.",
        "Leaving filesystem unchanged.",
        "/dev/",
    ];
    let is_known = |line: &str| line.is_empty() || of_the_mark.iter().any(|known| line.starts_with(known));
    assert!(output.status.success() || (said.contains("Dirty bit is set.") && said.lines().all(is_known)), "{said}");
}

impl Volume {
    /// Its checker finds nothing in a raw disk.
    fn is_clean(&self, raw: &Path) {
        wait_for_loops(raw);
        let (start, size) = self.place(raw);
        let device = Loop::part(raw, start, size);
        let newer = fixtures::newer("xfs_repair");
        let (program, flags): (_, &[&str]) = match self.kind {
            "ext4" => ("e2fsck", &["-fn"]),
            "xfs" => (&newer[..], &["-n"]),
            "btrfs" => ("btrfs", &["check", "--check-data-csum"]),
            _ => return is_clean_fat(device.path()),
        };
        tools::ok(program, flags.iter().map(Path::new).chain([device.path()]));
    }

    /// Mounts it from a raw disk by the kernel.
    fn mounted(&self, raw: &Path, options: &str, point: &Path) -> Mounted {
        wait_for_loops(raw);
        let (start, size) = self.place(raw);
        let options = if self.kind == "btrfs" { format!("{options},subvol=@") } else { options.to_owned() };
        Mounted::range(raw, start, size, &options, point)
    }

    /// Mounts it as it lies on a raw disk: the kernel replays no log.
    fn mounted_as_it_is(&self, raw: &Path, point: &Path) -> Mounted {
        let options = match self.kind {
            "ext4" => "ro,noload",
            "xfs" => "ro,norecovery",
            "btrfs" => "ro,rescue=nologreplay",
            _ => "ro",
        };
        self.mounted(raw, options, point)
    }

    /// Its first byte and its size, or more.
    fn place(&self, raw: &Path) -> (u64, u64) {
        let (start, size) = partition(raw, self.partition);
        (start + (self.skip << 20), size - (self.skip << 20))
    }
}

/// The files in a folder with this extension, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}
