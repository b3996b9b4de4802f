//! Guests of every layout, migrated with all that can be asked for, and reverted: every file is as it was.

use std::path::{Path, PathBuf};

use super::{disk, disks, ours};
use crate::support::{Lab, Mounted, Run, Tree, tools};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ eve@host";
const CONFIG: &str = "services:\n  mask: [apt-daily.timer]\nfiles:\n  - path: /opt/put/in.conf\n    content: put in\n";

macro_rules! on_each {
    ($($layout:ident: $mounts:expr;)*) => {
        $(
            #[test]
            #[ignore = "needs guests of many layouts: make zoo"]
            fn $layout() {
                is_undone(stringify!($layout), $mounts);
            }
        )*
    };
}

// Partitions that the kernel mounts, with their options.
on_each! {
    xfs: &[(1, "ro"), (2, "ro")];
    btrfs: &[(2, "ro,subvol=/")];
    dracut: &[(1, "ro")];
    lvm: &[];
    uefi: &[(2, "ro")];
    luks: &[];
    md: &[];
    sdboot: &[];
    uki: &[];
    recent: &[(2, "ro")];
    extlinux: &[(1, "ro")];
    ubuntu: &[(2, "ro")];
}

pub(super) fn results(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|known| known == extension)).collect();
    all.sort();
    all
}

fn is_undone(layout: &str, mounts: &[(usize, &str)]) {
    let lab = Lab::new();
    let (out, back) = (lab.path("out"), lab.path("back"));
    let (key, script) = (lab.file("key.pub", format!("{KEY}\n")), lab.file("first-boot", "#!/bin/sh\ntrue\n"));
    let config = lab.file("config.yaml", CONFIG);
    let asked = ["migrate", "--network-fixes", "aggressive", "--hostname", "another", "--verify", "off"];
    let run = ours(&asked, layout).arg("--first-boot").arg(&script).arg("--config").arg(&config);
    let run = run.arg("--ssh-key").arg(format!("eve:file:{}", key.display())).arg("-o").arg(&out);
    disks(layout).iter().fold(run, Run::arg).success();
    let report = results(&out, "json");
    ours(&["revert", "--verify", "off"], layout).arg(&report[0]).arg("-o").arg(&back).success();
    let reverted = results(&back, "qcow2");
    assert_eq!(reverted.len(), disks(layout).len());

    // One disk of a mirror has all of it.
    let diff = |other: &Path| {
        let run = Run::new(["guest", "diff", "--times"]);
        let run = match super::key(layout) {
            Some(key) => run.arg("--key").arg(format!("all:file:{}", key.display())),
            None => run,
        };
        run.arg(disk(layout)).arg(other).ran()
    };
    assert_eq!(diff(&reverted[0]).exits_with(0).stdout.trim(), "", "{layout}");
    let migrated = diff(&results(&out, "qcow2")[0]).exits_with(6).stdout;
    assert!(migrated.lines().count() > 10, "{layout}: {migrated}");

    let raw = lab.path("reverted.raw");
    if !mounts.is_empty() {
        tools::to_raw("qcow2", &reverted[0], &raw);
    }
    for (partition, options) in mounts {
        let read = |disk: &Path, name: &str| {
            let mounted = Mounted::part(disk, *partition, options, &lab.folder(name));
            let tree = Tree::read(mounted.path());
            mounted.close();
            tree
        };
        let before = read(&disk(layout), &format!("before-{partition}"));
        let after = read(&raw, &format!("after-{partition}"));
        let changes = before.changes(&after);
        assert!(before.len() > 10 && changes.is_empty(), "{layout} {partition}: {changes:?}");
    }
}
