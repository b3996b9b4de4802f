//! `mount`: the flattened disk as a file, for root and for a plain user.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::run::Running;
use crate::support::{Lab, Mounted, NOBODY, PARTITION, Run, Tree, Variant, tools};

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

/// Mounts `sources` as root, in a folder of the lab.
fn mounted(args: &[&Path], lab: &Lab) -> (Running, PathBuf) {
    let point = lab.folder("mount");
    let info = point.join("info.json");
    let run = Run::new(["mount".as_ref()].into_iter().chain(args.iter().copied()).chain([point.as_path()]));
    (start(run.env("TMPDIR", lab.path("")), || info.exists()), point)
}

#[test]
fn partitions_and_what_they_are_lie_beside_the_disk() {
    let lab = Lab::new();
    let (running, point) = mounted(&[&Variant::Plain.vmdk("sparse")], &lab);
    let info: serde_json::Value =
        serde_json::from_slice(&std::fs::read(point.join("info.json")).expect("info.json")).expect("JSON");
    let disk = &info["disks"][0];
    assert_eq!((disk["file"].as_str(), disk["virtual_size"].as_u64()), (Some("disk.raw"), Some(3 << 30)));
    let part = &disk["partitions"][0];
    assert_eq!((part["file"].as_str(), part["offset"].as_u64()), (Some("disk-p1.raw"), Some(PARTITION)));

    // The kernel mounts the partition's file as it is.
    let through = lab.folder("through");
    tools::ok("mount", ["-o".as_ref(), "ro,loop".as_ref(), point.join("disk-p1.raw").as_os_str(), through.as_os_str()]);
    let direct = Mounted::read_only(&Variant::Plain.raw(), &lab, "direct");
    let (seen, expected) = (Tree::read(&through), Tree::read(direct.path()));
    direct.close();
    tools::ok("umount", [&through]);
    assert!(expected.len() > 1000);
    assert_eq!(expected.changes(&seen).len(), 0);
    running.terminate().exits_with(0);
    assert!(std::fs::read_dir(&point).expect("the folder").next().is_none(), "a signal did not unmount");
}

#[test]
fn several_disks_have_numbers() {
    let lab = Lab::new();
    let sources = [Variant::Plain.vmdk("sparse"), Variant::Deleted.vmdk("stream")];
    let (running, _) = mounted(&[&sources[0], &sources[1]], &lab);
    assert_eq!(lab.names("mount"), ["disk1-p1.raw", "disk1.raw", "disk2-p1.raw", "disk2.raw", "info.json"]);
    running.terminate().exits_with(0);
}

#[test]
fn what_is_written_stays_beside_the_source() {
    let lab = Lab::new();
    let image = lab.link(&Variant::Plain.vmdk("sparse"), "guest.vmdk");
    let (running, point) = mounted(&[Path::new("--writable"), &image], &lab);
    let file = point.join(FILE);
    // The kernel's own ext4 writes through a loop device, by the partition's file.
    let through = lab.folder("through");
    let part = point.join("disk-p1.raw");
    tools::ok("mount", ["-o".as_ref(), "loop".as_ref(), part.as_os_str(), through.as_os_str()]);
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::fs::write(through.join("new"), &bytes).expect("writing through the mount");
    std::fs::remove_dir_all(through.join("usr/share/doc")).expect("removing through the mount");
    tools::ok("fstrim", [&through]);
    tools::ok("umount", [&through]);
    // The whole disk shows the same.
    let again = Mounted::read_only(&file, &lab, "again");
    assert!(std::fs::read(again.path().join("new")).expect("the new file") == bytes);
    assert!(!again.path().join("usr/share/doc").exists());
    again.close();
    tools::assert_clean_ext4(&file, PARTITION);

    // A file keeps its length.
    let open = std::fs::OpenOptions::new().write(true).open(&file).expect("it can be written");
    assert!(open.set_len(1 << 20).is_err() && open.set_len(4 << 30).is_err());
    assert!(std::os::unix::fs::FileExt::write_at(&open, b"x", 3 << 30).is_err());
    open.sync_all().expect("a flush");
    drop(open);
    running.terminate().exits_with(0);
    tools::assert_same_content(("raw", &Variant::Plain.raw()), ("vmdk", &image));
}

#[test]
fn a_dead_mount_says_how_to_clear_it() {
    let lab = Lab::new();
    let image = Variant::Plain.vmdk("sparse");
    let (running, point) = mounted(&[&image], &lab);
    running.kill();
    let refused = mount(&image, &point).fails_with(1).code("fuse.dead-mount");
    assert!(refused.stderr.contains(&format!("fusermount3 -u {}", point.display())), "{refused}");
    tools::ok("fusermount3", ["-u".as_ref(), point.as_os_str()]);
    start(mount(&image, &point), || point.join(FILE).exists()).terminate().exits_with(0);
}

#[test]
fn the_guests_own_files_are_as_the_kernel_shows_them() {
    let lab = Lab::new();
    let point = lab.folder("guest");
    let run = Run::new(["mount".as_ref(), "--guest".as_ref(), Variant::Plain.ova().as_os_str(), point.as_os_str()]);
    let running = start(run.env("TMPDIR", lab.path("")), || point.join("etc").exists());
    let kernels = Mounted::read_only(&Variant::Plain.raw(), &lab, "kernels");
    let (ours, theirs) = (Tree::read(&point), Tree::read(kernels.path()));
    assert!(theirs.len() > 10_000);
    let changes = theirs.changes(&ours);
    assert!(changes.is_empty(), "{} differ, such as {:?}", changes.len(), changes.iter().next());
    let opened = std::fs::OpenOptions::new().write(true).open(point.join("etc/fstab"));
    assert_eq!(opened.expect_err("it is read-only").kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    kernels.close();
    tools::ok("fusermount3", ["-u".as_ref(), point.as_os_str()]);
    running.wait().exits_with(0);
}

#[test]
fn every_file_system_of_the_kernel_is_right_through_the_device() {
    for kind in ["xfs", "btrfs", "ext4"] {
        let lab = Lab::new();
        let made = Mounted::new(kind, 320, &lab, "made");
        tools::ok("cp", ["--archive".as_ref(), "/etc".as_ref(), made.path().as_os_str()]);
        let expected = Tree::read(made.path());
        made.close();
        assert!(expected.len() > 200, "{kind}");
        let image = lab.path("disk.vmdk");
        let convert = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"].map(Path::new);
        tools::ok("qemu-img", convert.into_iter().chain([&*lab.path(&format!("made.{kind}")), &image]));
        let (running, point) = mounted(&[&image], &lab);
        let through = Mounted::device(&point.join(FILE), &lab, "through");
        assert!(expected.changes(&Tree::read(through.path())).is_empty(), "{kind}");
        through.close();
        tools::ok("fusermount3", ["-u".as_ref(), point.as_os_str()]);
        running.wait().exits_with(0);
    }
}
