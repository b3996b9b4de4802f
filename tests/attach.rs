//! `attach` and `detach`: the disks as loop devices, with the kernel's own file systems on them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Lab, Mounted, NOBODY, Run, Tree, Variant, tools};

/// Attaches with these arguments, as root, and gives what `--json` says.
fn attach(args: &[&Path]) -> serde_json::Value {
    let run = Run::new(["attach", "--json"].map(Path::new).into_iter().chain(args.iter().copied()));
    run.success().json()
}

fn device(attached: &serde_json::Value, name: &str) -> PathBuf {
    let devices = attached["devices"].as_array().expect("a list");
    let found = devices.iter().find(|device| device["name"] == name);
    found.and_then(|device| device["device"].as_str()).unwrap_or_else(|| panic!("{name} in {attached}")).into()
}

fn detach(device: &Path) -> Run {
    Run::new(["detach"]).arg(device)
}

/// The entry of a device in `detach --list`.
fn listed(device: &Path) -> Option<serde_json::Value> {
    let list = Run::new(["detach", "--list", "--json"]).success().json();
    let mut entries = list["attached"].as_array().expect("a list").iter();
    let is_it = |entry: &&serde_json::Value| {
        entry["devices"].to_string().contains(&format!("{:?}", device.display().to_string()))
    };
    entries.find(is_it).cloned()
}

/// Whether a device still has a file of this process behind it; somebody else may have it by now.
fn is_set_up(device: &Path, pid: &serde_json::Value) -> bool {
    let args = ["--noheadings".as_ref(), "--output=BACK-FILE".as_ref(), device.as_os_str()];
    String::from_utf8_lossy(&tools::output("losetup", args).stdout).contains(&format!("/run/hyper2kvm/{pid}/"))
}

#[test]
fn a_partition_is_mounted_and_everything_goes_when_it_is_detached() {
    let lab = Lab::new();
    let attached = attach(&[&Variant::Plain.ova()]);
    let (disk, part) = (device(&attached, "disk1"), device(&attached, "disk1/p1"));
    assert_eq!(listed(&part).expect("an entry")["alive"], true);
    assert_eq!(tools::ok("blockdev", ["--getsize64".as_ref(), disk.as_os_str()]).trim(), (3_u64 << 30).to_string());
    assert_eq!(tools::ok("blockdev", ["--getro".as_ref(), disk.as_os_str()]).trim(), "1");
    let through = lab.folder("through");
    tools::ok("mount", ["-o".as_ref(), "ro".as_ref(), part.as_os_str(), through.as_os_str()]);
    let direct = Mounted::read_only(&Variant::Plain.raw(), &lab, "direct");
    let (seen, expected) = (Tree::read(&through), Tree::read(direct.path()));
    direct.close();
    assert!(expected.len() > 1000);
    assert_eq!(expected.changes(&seen).len(), 0);

    let busy = detach(&disk).fails_with(1).code("attach.busy");
    assert!(busy.stderr.contains(&format!("umount {}", through.display())), "{busy}");
    tools::ok("umount", [&through]);
    detach(&part).success();
    assert!(!is_set_up(&disk, &attached["pid"]) && !is_set_up(&part, &attached["pid"]));
    assert!(!Path::new("/run/hyper2kvm").join(attached["pid"].to_string()).exists());
    detach(Path::new("/dev/null")).fails_with(2).code("attach.unknown");
}

#[test]
fn writes_go_to_the_overlay() {
    let lab = Lab::new();
    let image = lab.link(&Variant::Plain.vmdk("sparse"), "guest.vmdk");
    let kept = lab.path("kept.qcow2");
    let attached = attach(&[Path::new("--overlay"), &kept, &image]);
    let part = device(&attached, "disk1/p1");
    let point = lab.folder("point");
    tools::ok("mount", [&part, &point]);
    std::fs::write(point.join("new"), vec![7; 1 << 20]).expect("writing");
    tools::ok("umount", [&point]);
    detach(&part).success();
    tools::assert_clean_qcow2(&kept);
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("vmdk", &image));
    let raw = lab.path("kept.raw");
    tools::to_raw("qcow2", &kept, &raw);
    let again = Mounted::read_only(&raw, &lab, "again");
    assert!(std::fs::read(again.path().join("new")).expect("the new file") == vec![7; 1 << 20]);
    again.close();
}

#[test]
fn what_a_crash_leaves_is_listed_and_cleared() {
    let attached = attach(&[&Variant::Plain.vmdk("sparse")]);
    let disk = device(&attached, "disk1");
    let pid = attached["pid"].as_u64().expect("a number");
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("kill").success());
    let start = std::time::Instant::now();
    while listed(&disk).expect("an entry")["alive"] == true {
        assert!(start.elapsed().as_secs() < 60, "it does not die");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Run::new(["detach", "--list"]).success().stdout_contains("dead");
    detach(&disk).success();
    assert!(!is_set_up(&disk, &attached["pid"]));
}

#[test]
fn failures_are_told_and_leave_nothing() {
    let lab = Lab::new();
    let image = lab.link(&Variant::Plain.vmdk("sparse"), "guest.vmdk");
    Run::new(["attach"]).arg(&image).user(NOBODY, &lab).fails_with(5).code("attach.root");
    Run::new(["attach", "/no/such.vmdk"]).fails_with(3).code("source.read");
    Run::new(["detach"]).fails_with(2);
}
