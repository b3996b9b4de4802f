//! Installed systems on subvolumes, as distributions lay them out.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use hyper2kvm::fs::Filesystem;
use hyper2kvm::inspect::{Machine, Root, Volume, find_roots};

use super::fill;
use super::image::Image;
use crate::support::Run;

fn system(root: &Path, options: &str) {
    for dir in ["etc", "usr/bin", "home", "var", "mnt"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    fs::write(root.join("etc/os-release"), "ID=test\n").unwrap();
    let fstab = format!(
        "UUID=U / btrfs {options} 0 0\nUUID=U /home btrfs subvol=/@home 0 0\nUUID=U /mnt btrfs defaults 0 0\n\
         UUID=U /var btrfs subvol=nowhere 0 0\n"
    );
    fs::write(root.join("etc/fstab"), fstab).unwrap();
}

fn create(root: &Path, name: &str) {
    fill::btrfs(&["subvolume", "create"], &[&root.join(name)]);
}

fn snapshot(root: &Path, from: &str, to: &str) {
    fill::btrfs(&["subvolume", "snapshot"], &[&root.join(from), &root.join(to)]);
}

fn roots(lay_out: impl FnOnce(&Path)) -> Vec<Root> {
    let image = Image::make(1, 256, &[]);
    image.mounted("rw", |root| {
        create(root, "@home");
        fs::write(root.join("@home/mine"), "x").unwrap();
        lay_out(root);
    });
    let fs: Arc<dyn Filesystem> = Arc::new(image.open());
    let volume = Volume { fs_uuid: Some("U".to_owned()), fs: Some(fs), ..Volume::default() };
    find_roots(&Machine { volumes: vec![volume], ..Machine::default() }).unwrap()
}

fn content(root: &Root, path: &str) -> String {
    String::from_utf8(root.tree.read(path, 99).unwrap().unwrap_or_default()).unwrap()
}

#[test]
fn the_root_is_found_on_subvolumes() {
    for name in ["@", "@rootfs", "root", "odd/name"] {
        let found = roots(|top| {
            fs::create_dir_all(top.join(name).parent().unwrap()).unwrap();
            create(top, name);
            system(&top.join(name), &format!("rw,subvol={name}"));
            fs::write(top.join(name).join("which"), "the root").unwrap();
            // What a snapshot tool keeps, newer and older than the system.
            snapshot(top, name, "a-snapshot");
            fs::write(top.join("a-snapshot/which"), "a snapshot").unwrap();
        });
        assert_eq!(found.len(), 1, "{name}");
        let root = &found[0];
        assert_eq!(content(root, "/which"), "the root", "{name}");
        assert_eq!(content(root, "/home/mine"), "x");
        assert_eq!(content(root, "/mnt/@home/mine"), "x", "the top level is the default");
        let mounts: Vec<&str> = root.mounts.iter().map(|mount| mount.at.as_str()).collect();
        assert_eq!(mounts, ["/", "/home", "/mnt"]);
        let unmounted: Vec<_> =
            root.unmounted.iter().map(|(entry, why)| (entry.mount_point.as_str(), why.as_str())).collect();
        assert_eq!(unmounted, [("/var", "its file system has no such subvolume")]);
    }
}

#[test]
fn the_default_subvolume_or_what_it_names_is_the_root() {
    // As with snapper: the default is a snapshot, and fstab says nothing.
    let found = roots(|top| {
        create(top, "@");
        system(&top.join("@"), "defaults");
        snapshot(top, "@", "booted");
        fs::write(top.join("booted/which"), "booted").unwrap();
        fill::btrfs(&["subvolume", "set-default"], &[&top.join("booted")]);
    });
    assert_eq!((found.len(), content(&found[0], "/which").as_str()), (1, "booted"));
    // A system at the top level that was moved into a subvolume.
    let found = roots(|top| {
        system(top, "subvol=@");
        create(top, "@");
        system(&top.join("@"), "subvol=@");
        fs::write(top.join("@/which"), "moved").unwrap();
    });
    assert_eq!((found.len(), content(&found[0], "/which").as_str()), (1, "moved"));
    assert_eq!(roots(|top| create(top, "@")).len(), 0, "an empty subvolume is no root");
}

#[test]
fn a_root_that_spreads_over_disks_is_found_on_all_of_them() {
    use std::os::unix::fs::PermissionsExt;
    let image = Image::make(2, 256, &["-m", "raid1", "-d", "raid0"]);
    image.mounted("rw", |top| {
        create(top, "@");
        system(&top.join("@"), "subvol=@");
        fs::write(top.join("@/etc/hostname"), "spread\n").unwrap();
    });
    let folder = image.devices[0].parent().unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let mut machine = ".encoding = \"UTF-8\"\nconfig.version = \"8\"\nscsi0.present = \"TRUE\"\n".to_owned();
    for index in 0..2 {
        let disk = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
             RW 524288 FLAT \"device-{index}\" 0\nddb.adapterType = \"lsilogic\"\n"
        );
        fs::write(folder.join(format!("{index}.vmdk")), disk).unwrap();
        machine += &format!("scsi0:{index}.present = \"TRUE\"\nscsi0:{index}.fileName = \"{index}.vmdk\"\n");
    }
    let vmx = folder.join("machine.vmx");
    fs::write(&vmx, machine).unwrap();
    let ran = Run::new(["inspect", "--json", vmx.to_str().unwrap()]).success();
    assert!(ran.stdout.contains("spread") && ran.stdout.contains("\"/home\""), "{}", ran.stdout);
}

#[test]
fn a_machine_of_bare_disks_is_looked_into() {
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    let image = Image::make(2, 256, &["-m", "raid1", "-d", "raid0", "-U", uuid]);
    image.mounted("rw", |top| {
        create(top, "@");
        create(top, "@home");
        system(&top.join("@"), "subvol=@");
        let fstab = top.join("@/etc/fstab");
        fs::write(&fstab, fs::read_to_string(&fstab).unwrap().replace("UUID=U", &format!("UUID={uuid}"))).unwrap();
        fs::write(top.join("@/etc/hostname"), "spread\n").unwrap();
        // Longer than a stripe, so that each disk has a part of it.
        fs::write(top.join("@home/long"), "0123456789abcdef".repeat(20_000)).unwrap();
    });
    let [first, second] = image.devices.as_slice() else { panic!("two devices") };
    let guest = |command: &str| Run::new(["guest", command]).arg(first);
    let whole = |command: &str| guest(command).arg("--also").arg(second);
    assert_eq!(whole("cat").arg("/etc/hostname").success().stdout, "spread\n");
    assert_eq!(whole("cat").arg("/home/long").success().stdout.len(), 320_000);
    assert!(whole("ls").success().stdout.lines().any(|line| line == "home"));
    assert_eq!(whole("df").arg("--json").success().json()["file_systems"][0]["mounted_on"][0], "/");
    // As everywhere, disks count through all the sources.
    whole("ls").args(["--disk", "2", "--disk", "1", "/etc"]).success();
    // Names are on both disks, long contents are not.
    whole("ls").args(["--exclude-disk", "2", "/etc"]).success();
    whole("cat").args(["--exclude-disk", "2", "/home/long"]).fails_with(4);
    guest("cat").arg("/home/long").fails_with(4);

    let later = image.copy();
    later.mounted("rw", |top| fs::write(top.join("@/etc/hostname"), "changed\n").unwrap());
    let [first, second] = later.devices.as_slice() else { panic!("two devices") };
    let diff = || whole("diff").arg(first).arg("--other-also").arg(second);
    assert_eq!(diff().arg("/etc").ran().exits_with(6).stdout, "* /etc/hostname  (size)\n");
    assert_eq!(diff().arg("/home").success().stdout, "");
}
