//! `mount`: the flattened disk as a file, for root and for a plain user.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::run::Running;
use crate::support::{Lab, Mounted, NOBODY, Run, Tree, Variant, tools};

const FILE: &str = "disk.raw";

/// Starts a mount and waits until `FILE` is there, as `see` sees it.
fn start(run: Run, see: impl Fn() -> bool) -> Running {
    let mut running = run.start();
    let start = Instant::now();
    while !see() {
        assert!(running.is_alive(), "the mount ended: {}", running.wait());
        assert!(start.elapsed() < Duration::from_secs(60), "it does not mount");
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

fn mount(source: &Path, point: &Path) -> Run {
    Run::new(["mount".as_ref(), source.as_os_str(), point.as_os_str()])
}

#[test]
fn root_sees_the_disk_and_the_kernel_can_mount_it() {
    let lab = Lab::new();
    let point = lab.folder("mount");
    let file = point.join(FILE);
    let running = start(mount(&Variant::Plain.ova(), &point), || file.exists());
    assert_eq!(file.metadata().expect("the file").len(), 3 << 30);
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("raw", &file));
    assert!(std::fs::OpenOptions::new().write(true).open(&file).is_err(), "it can be written");

    let through = Mounted::read_only(&file, &lab, "through");
    let direct = Mounted::read_only(&Variant::Plain.raw(), &lab, "direct");
    let (through_tree, direct_tree) = (Tree::read(through.path()), Tree::read(direct.path()));
    assert!(direct_tree.len() > 1000);
    assert_eq!(direct_tree.changes(&through_tree).len(), 0);
    through.close();
    direct.close();

    tools::ok("fusermount3", ["-u".as_ref(), point.as_os_str()]);
    running.wait().exits_with(0);
}

#[test]
fn a_plain_user_sees_the_disk() {
    let lab = Lab::new();
    let point = lab.folder_of(NOBODY, "mount");
    let image = lab.link(&Variant::Plain.vmdk("stream"), "guest.vmdk");
    let raw = lab.link(&Variant::Plain.raw(), "guest.raw");
    // The mount is the user's alone, so not even root looks in; the kernel's list of mounts tells that it is there.
    let is_mounted = || {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("the list of mounts");
        mounts.lines().any(|line| line.split(' ').nth(1) == point.to_str())
    };
    let running = start(mount(&image, &point).user(NOBODY, &lab), is_mounted);
    tools::ok_as(NOBODY, "cmp", &[&point.join(FILE), &raw]);
    tools::ok_as(NOBODY, "fusermount3", &[Path::new("-u"), &point]);
    running.wait().exits_with(0);
}
