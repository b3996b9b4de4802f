//! Guests of every layout, booted: not on virtio as they are, as VMware has them, and on virtio after `migrate`; only what the
//! report lists differs between the two.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{disks, key};
use crate::support::{Bus, Lab, Machine, Nic, Run, Tree, tools};

/// A guest of the zoo.
struct Guest {
    layout: &'static str,
    /// Whether it boots by UEFI.
    uefi: bool,
    /// What findmnt says of its root on virtio-blk.
    root: &'static str,
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn xfs() {
    Guest { layout: "xfs", uefi: false, root: "/dev/vda2 xfs" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn btrfs() {
    Guest { layout: "btrfs", uefi: false, root: "/dev/vda2[/@] btrfs" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn lvm() {
    Guest { layout: "lvm", uefi: false, root: "/dev/mapper/vg0-root ext4" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn uefi() {
    Guest { layout: "uefi", uefi: true, root: "/dev/vda2 ext4" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn dracut() {
    Guest { layout: "dracut", uefi: false, root: "/dev/vda1 ext4" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn luks() {
    Guest { layout: "luks", uefi: false, root: "/dev/mapper/root ext4" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn md() {
    Guest { layout: "md", uefi: false, root: "/dev/md0 ext4" }.is_migrated();
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn sdboot() {
    Guest { layout: "sdboot", uefi: true, root: "/dev/vda2 ext4" }.is_migrated();
}

impl Guest {
    fn is_migrated(&self) {
        let (lab, source) = (Lab::new(), disks(self.layout));
        self.machine(&source, "raw", Bus::VirtioBlk).boot().dead();
        // OVMF may see no disk on pvscsi.
        let bus = if self.uefi { Bus::Sata } else { Bus::Pvscsi };
        let before = self.machine(&source, "raw", bus).nic(Nic::Vmxnet3).boot().up();
        assert!(before["ip"].contains("ens192=10.0.2.15/24"), "{before:?}");

        let out = lab.path("out");
        self.run("migrate", &source, &["-o".into(), out.clone().into()]).success();
        let (disks, report) = (files(&out, "qcow2"), files(&out, "json").remove(0));
        assert_eq!(disks.len(), source.len());
        disks.iter().for_each(|disk| tools::assert_clean_qcow2(disk));
        let report: Value = serde_json::from_slice(&std::fs::read(report).expect("the report")).expect("JSON");
        self.only_what_is_listed_differs(&lab, &report["plan"], &source, &disks);
        let again = self.run("plan", &disks, &["--json".into()]).success().json();
        assert_eq!(again["plan"]["actions"], Value::Array(Vec::new()), "{again:#}");

        for bus in [Bus::VirtioBlk, Bus::VirtioScsi] {
            let after = self.machine(&disks, "qcow2", bus).boot().up();
            let root =
                if bus == Bus::VirtioBlk { self.root.to_owned() } else { self.root.replace("/dev/vda", "/dev/sda") };
            assert_eq!(after["root"], root, "{after:?}");
            assert!(after["ip"].contains("ens192=10.0.2.15/24"), "{after:?}");
            assert_eq!(after["failed"], before["failed"], "{after:?}");
        }
    }

    fn machine<'a>(&self, disks: &'a [PathBuf], format: &'a str, bus: Bus) -> Machine<'a> {
        let machine = Machine::new(&disks[0], format, bus).uefi(self.uefi);
        disks[1..].iter().fold(machine, |machine, disk| machine.with(disk))
    }

    /// A command on a guest, with its key if it needs one.
    fn run(&self, command: &str, disks: &[PathBuf], args: &[OsString]) -> Run {
        let mut run = Run::new([command]);
        for arg in args {
            run = run.arg(arg);
        }
        if let Some(key) = key(self.layout) {
            run = run.arg("--key").arg(format!("all:file:{}", key.display()));
        }
        if disks[0].extension().is_some_and(|extension| extension == "raw") {
            run = run.args(["--format", "raw"]);
        }
        disks.iter().fold(run, |run, disk| run.arg(disk))
    }

    fn only_what_is_listed_differs(&self, lab: &Lab, plan: &Value, source: &[PathBuf], result: &[PathBuf]) {
        let actions = plan["actions"].as_array().unwrap_or_else(|| panic!("no actions in {plan:#}"));
        let path = |action: &Value| action["path"].as_str().expect("a path").trim_start_matches('/').to_owned();
        let planned: BTreeSet<PathBuf> = actions.iter().map(|action| PathBuf::from(path(action))).collect();
        let (before, after) = (self.tree(lab, "before", source), self.tree(lab, "after", result));
        assert!(before.len() > 5000, "only {} files were compared", before.len());
        let changes = before.changes(&after);
        let parents: BTreeSet<&Path> =
            changes.iter().filter(|(_, change)| change.is_structural()).filter_map(|(path, _)| path.parent()).collect();
        for (path, change) in &changes {
            let is_parent = parents.contains(path) && change.is_of_times_only();
            assert!(planned.contains(*path) || is_parent, "{} is not in the plan: {change:?}", path.display());
        }
    }

    /// All files of a guest. That they are read as the kernel reads them is another test.
    fn tree(&self, lab: &Lab, name: &str, disks: &[PathBuf]) -> Tree {
        let (archive, folder) = (lab.path("guest.tar"), lab.folder(name));
        // One disk of a mirror has all of it.
        self.run("guest", &disks[..1], &["tar".into(), "-o".into(), archive.clone().into()]).success();
        let flags =
            ["--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--preserve-permissions", "--file"];
        tools::ok("tar", flags.map(Path::new).into_iter().chain([&*archive, Path::new("--directory"), &folder]));
        std::fs::remove_file(archive).expect("removing");
        let tree = Tree::read(&folder);
        std::fs::remove_dir_all(folder).expect("removing");
        tree
    }
}

/// The files in a folder with this extension, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    found.sort();
    found
}
