//! The other engine: libguestfs in its appliance makes the same of a guest, and goes where the own drivers do not.

use std::path::{Path, PathBuf};

use super::disk;
use super::undone::results;
use crate::support::{Lab, Run, tools};

/// Without what emulation needs to be told, it is found out by a failure first.
fn by_appliance(command: &[&str]) -> Run {
    let run = Run::new(command.iter().copied().chain(["--engine", "appliance"]));
    run.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg")
}

fn differences(before: &Path, after: &Path, options: &[&str]) -> String {
    let run = Run::new(["guest", "diff"].iter().chain(options).copied());
    run.arg(before).arg(after).ran().stdout
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn both_engines_make_the_same_of_ext4_and_xfs() {
    is_the_same("xfs");
}

#[test]
#[ignore = "needs guests of many layouts: make zoo"]
fn both_engines_make_the_same_of_subvolumes_of_btrfs() {
    is_the_same("btrfs");
}

fn is_the_same(layout: &str) {
    let (lab, source) = (Lab::new(), disk(layout));
    let (own, other, back) = (lab.path("own"), lab.path("other"), lab.path("back"));
    let asked = ["migrate", "--verify", "off", "--hostname", "another", "--network-fixes", "aggressive"];
    Run::new(asked).arg(&source).arg("-o").arg(&own).success();
    by_appliance(&asked).arg(&source).arg("-o").arg(&other).success();
    let [ours, theirs] = [&own, &other].map(|folder| results(folder, "qcow2").remove(0));
    let changes = differences(&source, &ours, &[]);
    assert!(changes.lines().count() > 5, "{changes}");
    assert_eq!(differences(&source, &theirs, &[]), changes, "{layout}");
    assert_eq!(differences(&ours, &theirs, &[]), "", "{layout}");

    let report = results(&other, "json").remove(0);
    by_appliance(&["revert", "--verify", "off"]).arg(&report).arg("-o").arg(&back).success();
    assert_eq!(differences(&source, &results(&back, "qcow2").remove(0), &["--times"]), "", "{layout}");
}

/// A guest whose only file system the own drivers do not read.
fn on_f2fs(lab: &Lab) -> PathBuf {
    let disk = lab.file("guest.raw", "");
    let file = std::fs::OpenOptions::new().write(true).open(&disk).expect("the disk");
    file.set_len(128 << 20).expect("room");
    tools::ok("mkfs.f2fs", [Path::new("-q"), &disk]);
    let files = [
        ("/etc/fstab", "/dev/sda / f2fs defaults 0 1\\n"),
        ("/etc/os-release", "ID=debian\\nVERSION_ID=13\\n"),
        ("/bin/bash", ""),
        ("/etc/odd \\303\\244 name", "odd"),
    ];
    let mut commands = format!("add-drive {} format:raw\nrun\nmount /dev/sda /\n", disk.display());
    for dir in ["/etc", "/bin", "/usr", "/usr/lib", "/usr/lib/systemd"] {
        commands.push_str(&format!("mkdir {dir}\n"));
    }
    for (path, content) in files {
        commands.push_str(&format!("write \"{path}\" \"{content}\"\n"));
    }
    commands.push_str("touch /usr/lib/systemd/systemd\nln-s usr/lib /lib\nlsetxattr user.own value 5 /etc/fstab\n");
    let script = lab.file("commands", commands);
    let environment = ["LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg", "guestfish", "-f"];
    tools::ok("env", environment.map(Path::new).into_iter().chain([script.as_path()]));
    // Raw is never guessed.
    let image = lab.path("guest.qcow2");
    Run::new(["convert", "--format", "raw"]).arg(&disk).arg(&image).success();
    image
}

#[test]
#[ignore = "needs an emulated machine: make zoo"]
fn a_file_system_of_the_appliances_only_is_read_changed_and_changed_back() {
    let lab = Lab::new();
    let (disk, out, back) = (on_f2fs(&lab), lab.path("out"), lab.path("back"));
    Run::new(["plan"]).arg(&disk).fails_with(4).code("guest.none").stderr_contains("f2fs");
    let names = by_appliance(&["guest", "ls"]).arg(&disk).arg("/etc").success().stdout;
    assert_eq!(names, "fstab\nodd ä name\nos-release\n");

    by_appliance(&["migrate"]).arg(&disk).arg("-o").arg(&out).success();
    let migrated = results(&out, "qcow2").remove(0);
    let cat = |disk: &Path, path: &str| by_appliance(&["guest", "cat"]).arg(disk).arg(path).success().stdout;
    let fstab = cat(&migrated, "/etc/fstab");
    assert!(fstab.starts_with("UUID=") && fstab.ends_with(" / f2fs defaults 0 1\n"), "{fstab}");
    assert_eq!(cat(&migrated, "/etc/odd ä name"), "odd");
    let again = by_appliance(&["plan", "--json"]).arg(&migrated).success().json();
    assert_eq!(again["plan"]["actions"].as_array().map(Vec::len), Some(0), "{again}");

    by_appliance(&["revert"]).arg(results(&out, "json").remove(0)).arg("-o").arg(&back).success();
    let reverted = results(&back, "qcow2").remove(0);
    let run = by_appliance(&["guest", "diff", "--times"]).arg(&disk).arg(&reverted);
    assert_eq!(run.success().stdout, "");
}

#[test]
fn an_appliance_that_is_not_there_is_an_error_that_teaches() {
    let lab = Lab::new();
    let disk = lab.file("guest.raw", "");
    tools::ok("mke2fs", [Path::new("-q"), &disk, Path::new("8M")]);
    // Nothing of the usual programs is found there.
    let run =
        Run::new(["plan", "--format", "raw", "--engine", "appliance"]).arg(&disk).env("PATH", lab.folder("empty"));
    run.fails_with(1).code("appliance.missing").stderr_contains("libguestfs-tools");
}
