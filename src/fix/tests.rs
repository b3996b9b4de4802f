//! Synthetic guests: planned, fixed, compared with what was there, and planned again.

mod families;
mod hostile;
pub(super) mod small;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::fs::{FileKind, Filesystem, FilesystemMut, MemoryFs};
use crate::initramfs::tests::{image, modules_in};
use crate::inspect::{MachineDisk, MachineNic, Volume, find_roots, linux};

const UUID: &str = "34ee0fa2-db51-4b3e-b872-9553c9e79616";
const RELEASE: &str = "6.1.0-50-amd64";
const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanoseconds: 0 };

/// Debian 12 as it comes from ESXi.
fn debian() -> MemoryFs {
    let fs = MemoryFs::new("ext4", Some(UUID), Some("rootfs"));
    let grub = format!(
        "set default=\"0\"\nmenuentry 'Debian GNU/Linux' --class debian {{\n\tsearch --no-floppy --fs-uuid --set=root {UUID}\n\
         \tlinux\t/boot/vmlinuz-{RELEASE} root=/dev/sda1 ro console=ttyS0,115200 quiet\n\tinitrd\t/boot/initrd.img-{RELEASE}\n}}\n\
         submenu 'Advanced options' {{\n\tmenuentry 'Debian, recovery' {{\n\
         \t\tlinux\t/boot/vmlinuz-{RELEASE} root=/dev/sda1 ro single\n\t\tinitrd\t/boot/initrd.img-{RELEASE}\n\t}}\n}}\n"
    );
    for (path, text) in [
        (
            "/etc/fstab",
            "/dev/sda1 / ext4 errors=remount-ro 0 1\n\
             /dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1 /data ext4 nofail,x-systemd.device-timeout=5s 0 2\n\
             /dev/fd0 /media/floppy0 auto rw,user,noauto 0 0\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\n",
        ),
        ("/etc/hostname", "vmware\n"),
        ("/etc/os-release", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"),
        (
            "/etc/network/interfaces",
            "auto lo\niface lo inet loopback\n\nallow-hotplug ens192\niface ens192 inet dhcp\n",
        ),
        ("/etc/default/grub", "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\nGRUB_DISABLE_LINUX_UUID=true\n"),
        ("/etc/initramfs-tools/initramfs.conf", "# MODULES=most\nMODULES=list\n"),
        ("/etc/initramfs-tools/modules", "vmw_pvscsi\nsd_mod\next4\n"),
        ("/lib/systemd/system/open-vm-tools.service", "[Unit]\n"),
        ("/lib/systemd/system/vgauth.service", "[Unit]\n"),
        ("/lib/systemd/systemd", "\u{7f}ELF"),
        ("/lib/udev/rules.d/80-net-setup-link.rules", "rule\n"),
        ("/var/lib/dpkg/status", ""),
        ("/usr/bin/sh", "#!"),
    ] {
        let path = path.replacen("/lib/", "/usr/lib/", usize::from(path.starts_with("/lib/")));
        fs.add_file(&path, text).unwrap();
    }
    let private =
        Attributes { mode: 0o600, xattrs: vec![(b"user.x".to_vec(), b"1".to_vec())], ..Attributes::default() };
    fs.add_file_with("/boot/grub/grub.cfg", &private, grub).unwrap();
    fs.add_dir("/etc/systemd/network").unwrap();
    fs.add_link("/lib", "usr/lib").unwrap();
    fs.add_link("/bin", "usr/bin").unwrap();
    fs.add_link("/usr/sbin/init", "/lib/systemd/systemd").unwrap();
    fs.add_link("/sbin", "usr/sbin").unwrap();
    fs.add_link("/etc/systemd/system/vmtoolsd.service", "/lib/systemd/system/open-vm-tools.service").unwrap();
    add_kernel(&fs, RELEASE, image(Some("zstd"), RELEASE, &["vmw_pvscsi", "sd_mod", "scsi_mod"]));
    fs
}

fn add_kernel(fs: &MemoryFs, release: &str, initrd: Vec<u8>) {
    fs.add_file(&format!("/boot/vmlinuz-{release}"), "kernel").unwrap();
    fs.add_file(&format!("/boot/initrd.img-{release}"), initrd).unwrap();
    let dir = format!("/usr/lib/modules/{release}");
    let mut dep = String::new();
    for (name, needs) in [
        ("virtio", ""),
        ("virtio_ring", ""),
        ("virtio_pci", " kernel/virtio_ring.ko kernel/virtio.ko"),
        ("virtio_blk", " kernel/virtio_ring.ko kernel/virtio.ko"),
        ("scsi_mod", ""),
        ("sd_mod", " kernel/scsi_mod.ko"),
        ("virtio_scsi", " kernel/scsi_mod.ko kernel/virtio_ring.ko kernel/virtio.ko"),
    ] {
        dep.push_str(&format!("kernel/{name}.ko:{needs}\n"));
        fs.add_file(&format!("{dir}/kernel/{name}.ko"), format!("\u{7f}ELF {name}")).unwrap();
    }
    fs.add_file(&format!("{dir}/modules.dep"), dep).unwrap();
    fs.add_file(&format!("{dir}/modules.alias"), "alias virtio:d00000002v* virtio_blk\n").unwrap();
}

fn volume(partition: u32, kind: &str, uuid: &str, fs: Option<MemoryFs>) -> Volume {
    Volume {
        disk: 0,
        partition: Some(partition),
        partuuid: Some(format!("ca5fb7a5-0{partition}")),
        fs_kind: Some(kind.to_owned()),
        fs_uuid: Some(uuid.to_owned()),
        fs: fs.map(|fs| -> Arc<dyn Filesystem> { Arc::new(fs) }),
        ..Volume::default()
    }
}

fn machine(volumes: Vec<Volume>) -> Machine {
    let disk = MachineDisk { name: "sda".to_owned(), size: 3 << 30, controller: Some(0), unit: Some(0) };
    let nic = MachineNic { mac: None, model: Some("VmxNet3".to_owned()) };
    Machine { disks: vec![disk], volumes, nics: vec![nic], uefi: false }
}

fn plan_for(machine: &Machine) -> (Plan, Root) {
    let root = find_roots(machine).unwrap().remove(0);
    let facts = linux(&root.tree).unwrap();
    (plan(&facts, machine, &root).unwrap(), root)
}

/// Plans, applies, undoes and applies once more, and plans again; the second plan must be empty. Gives the first.
fn fix(machine: &Machine) -> (Plan, Root) {
    let (plan, root) = plan_for(machine);
    let before = snapshot(&root.tree);
    let report = apply(&plan, &root.tree, NOW).unwrap();
    assert!(report.applied.iter().all(|action| action.reversible));
    Undo::decode(&report.undo.encode().unwrap()).unwrap().apply(&root.tree).unwrap();
    assert_eq!(snapshot(&root.tree), before);
    apply(&plan, &root.tree, NOW).unwrap();
    let (again, _) = plan_for(machine);
    assert!(again.is_empty(), "planned again: {:#?}", again.actions);
    (plan, root)
}

fn text(root: &Root, path: &str) -> String {
    String::from_utf8(root.tree.read(path, 1 << 20).unwrap().unwrap_or_else(|| panic!("{path}"))).unwrap()
}

/// Everything in a tree: kind, owner, mode, times, extended attributes, content.
fn snapshot(tree: &Tree) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(dir) = pending.pop() {
        for entry in tree.list(if dir.is_empty() { "/" } else { &dir }).unwrap() {
            let path = format!("{dir}/{}", entry.text().unwrap());
            let stat = tree.find_link(&path).unwrap().unwrap().stat;
            let content = match entry.kind {
                FileKind::Regular => tree.read(&path, 2 << 20).unwrap().unwrap(),
                FileKind::Symlink => tree.read_link(&path).unwrap().unwrap(),
                _ => Vec::new(),
            };
            let xattrs = tree.xattrs(&path).unwrap();
            let (mode, owner, times) = (stat.mode, (stat.uid, stat.gid), (stat.atime, stat.mtime));
            files.insert(path.clone(), format!("{:?} {mode:o} {owner:?} {times:?} {xattrs:?} {content:?}", entry.kind));
            if entry.kind == FileKind::Directory {
                pending.push(path);
            }
        }
    }
    files
}

#[test]
fn a_debian_guest_from_vmware_gets_this_plan() {
    let machine = machine(vec![volume(1, "ext4", UUID, Some(debian()))]);
    let (plan, _) = plan_for(&machine);
    let mut shown = String::new();
    for action in &plan.actions {
        shown.push_str(&format!("{} [{}] {}\n", action.path, action.fix, action.what));
        if let Change::Edit { diff, .. } | Change::Create { diff, .. } = &action.change {
            let changed = diff.lines().filter(|line| line.starts_with(['-', '+']));
            changed.for_each(|line| shown.push_str(&format!("  {line}\n")));
        }
    }
    for left in &plan.left {
        shown.push_str(&format!("left: {} {} ({})\n", left.path, left.what, left.why));
    }
    assert_eq!(
        shown,
        "/etc/fstab [fstab] name 1 file systems by UUID
  -/dev/sda1 / ext4 errors=remount-ro 0 1
  +UUID=34ee0fa2-db51-4b3e-b872-9553c9e79616 / ext4 errors=remount-ro 0 1
/boot/grub/grub.cfg [bootloader] name the root by UUID on every kernel's command line
  -\tlinux\t/boot/vmlinuz-6.1.0-50-amd64 root=/dev/sda1 ro console=ttyS0,115200 quiet
  +\tlinux\t/boot/vmlinuz-6.1.0-50-amd64 root=UUID=34ee0fa2-db51-4b3e-b872-9553c9e79616 ro console=ttyS0,115200 quiet
  -\t\tlinux\t/boot/vmlinuz-6.1.0-50-amd64 root=/dev/sda1 ro single
  +\t\tlinux\t/boot/vmlinuz-6.1.0-50-amd64 root=UUID=34ee0fa2-db51-4b3e-b872-9553c9e79616 ro single
/etc/default/grub [bootloader] let grub-mkconfig name the root by UUID
  -GRUB_DISABLE_LINUX_UUID=true
  +#GRUB_DISABLE_LINUX_UUID=true
/boot/initrd.img-6.1.0-50-amd64 [initramfs] append 5 drivers and an index of them: virtio virtio_ring virtio_pci virtio_blk virtio_scsi
/etc/initramfs-tools/modules [initramfs] list virtio_pci, virtio_blk, virtio_scsi
  +virtio_pci
  +virtio_blk
  +virtio_scsi
/etc/systemd/network/10-hyper2kvm-ens192.link [network] keep the name ens192
  +[Match]
  +Driver=virtio_net
  +
  +[Link]
  +Name=ens192
/etc/systemd/system/open-vm-tools.service [tools] mask open-vm-tools.service
/etc/systemd/system/vgauth.service [tools] mask vgauth.service
left: /etc/fstab /dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1 on /data keeps its name (it names no disk of this machine; the line does not stop the boot)
"
    );
    assert!(!plan.stops_boot());
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["actions"][3]["change"]["kind"], "append");
    assert!(json["actions"][3]["change"]["bytes"].as_u64().unwrap() > 100);
}

#[test]
fn exactly_the_planned_paths_change_and_keep_their_attributes() {
    let machine = machine(vec![volume(1, "ext4", UUID, Some(debian()))]);
    let (plan, root) = plan_for(&machine);
    let before = snapshot(&root.tree);
    apply(&plan, &root.tree, NOW).unwrap();
    let after = snapshot(&root.tree);
    let paths: Vec<&String> =
        before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
    let mut changed: Vec<&str> = paths.into_iter().map(String::as_str).collect();
    changed.sort_unstable();
    changed.dedup();
    assert_eq!(changed, plan.paths());
    let stat = root.tree.find("/boot/grub/grub.cfg").unwrap().unwrap().stat;
    assert_eq!((stat.mode, stat.mtime, stat.atime), (0o600, NOW, Timestamp::default()));
    assert_eq!(root.tree.xattrs("/boot/grub/grub.cfg").unwrap().len(), 1);
    assert!(plan_for(&machine).0.is_empty());
}

#[test]
fn an_appended_initramfs_has_its_old_bytes_and_the_drivers() {
    for codec in [None, Some("bzip2"), Some("gzip"), Some("lz4"), Some("lzo"), Some("xz"), Some("zstd")] {
        let fs = debian();
        let old = image(codec, RELEASE, &["ext4"]);
        fs.add_file(&format!("/boot/initrd.img-{RELEASE}"), &old).unwrap();
        let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
        let (_, root) = fix(&machine);
        let new = root.tree.read(format!("/boot/initrd.img-{RELEASE}"), 1 << 20).unwrap().unwrap();
        assert!(new.starts_with(&old), "{codec:?}");
        let modules = modules_in(&new, RELEASE);
        for module in ["ext4", "virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "scsi_mod"]
        {
            assert!(modules.contains(&format!("kernel/{module}.ko")), "{codec:?} {module}");
        }
    }
}

#[test]
fn every_kernel_is_served_and_complete_images_are_left_alone() {
    let fs = debian();
    add_kernel(&fs, "5.10.0-1-amd64", image(Some("gzip"), "5.10.0-1-amd64", &["ext4"]));
    let all = ["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"];
    add_kernel(&fs, "6.6.0-9-amd64", image(Some("xz"), "6.6.0-9-amd64", &all));
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, _) = fix(&machine);
    let images: Vec<_> = plan.paths().into_iter().filter(|path| path.starts_with("/boot/initrd")).collect();
    assert_eq!(images, ["/boot/initrd.img-5.10.0-1-amd64", "/boot/initrd.img-6.1.0-50-amd64"]);
}

#[test]
fn an_initramfs_that_cannot_be_served_is_left_with_the_reason() {
    let why = |change: &dyn Fn(&MemoryFs)| {
        let fs = debian();
        change(&fs);
        let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
        let (plan, _) = fix(&machine);
        assert!(plan.stops_boot() && !plan.paths().contains(&"/boot/initrd.img-6.1.0-50-amd64"));
        plan.left.into_iter().find(|left| left.stops_boot).unwrap().why
    };
    let put = |path: String, content: Vec<u8>| {
        why(&|fs| {
            fs.add_file(&path, &content).unwrap();
        })
    };
    let initrd = || format!("/boot/initrd.img-{RELEASE}");
    let modules = format!("/usr/lib/modules/{RELEASE}");
    assert!(put(initrd(), b"BZh91AY&SY".to_vec()).contains("does not decode"));
    assert!(put(initrd(), b"not an image".to_vec()).contains("no kernel reads"));
    let cut = image(Some("zstd"), RELEASE, &["ext4"]);
    assert!(put(initrd(), cut[..cut.len() / 2].to_vec()).contains("initramfs"));
    assert!(put(initrd(), [image(None, RELEASE, &[]), b"xx".to_vec()].concat()).contains("no kernel reads"));
    assert!(put(format!("{modules}/modules.dep"), Vec::new()).contains("no module virtio_pci"));
    assert!(put(format!("{modules}/kernel/virtio_blk.ko"), b"text".to_vec()).contains("no ELF"));
    let removed = why(&|fs| {
        let boot = fs.add_dir("/boot").unwrap();
        fs.remove(boot, format!("initrd.img-{RELEASE}").as_bytes()).unwrap();
    });
    assert!(removed.contains("built in"));
}

#[test]
fn drivers_in_the_kernel_itself_need_nothing() {
    let fs = debian();
    let builtin = "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_scsi.ko\nkernel/sd_mod.ko\n";
    fs.add_file(&format!("/usr/lib/modules/{RELEASE}/modules.builtin"), builtin).unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, _) = fix(&machine);
    assert!(plan.actions.iter().all(|action| !matches!(action.change, Change::Append { .. })));
    assert!(!plan.stops_boot());
}

#[test]
fn a_full_boot_file_system_is_said_before_anything_is_written() {
    let fs = debian();
    fs.add_file(&format!("/boot/initrd.img-{RELEASE}"), image(None, RELEASE, &["ext4"])).unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs.with_capacity(1 << 20)))]);
    let (plan, _) = plan_for(&machine);
    assert!(plan.stops_boot());
    assert!(
        plan.left.iter().any(|left| left.path.contains("initrd") && left.why.contains("bytes left")),
        "{:#?}",
        plan.left
    );
}

#[test]
fn a_plan_is_refused_when_the_guest_has_changed() {
    let machine = machine(vec![volume(1, "ext4", UUID, Some(debian()))]);
    let (plan, root) = plan_for(&machine);
    root.tree.write("/etc/fstab", b"other\n").unwrap();
    let error = apply(&plan, &root.tree, NOW).unwrap_err();
    assert_eq!(error.code(), "fix.changed");
    assert!(error.to_string().starts_with("/etc/fstab: "));
}

#[test]
fn new_files_take_the_label_of_their_directory() {
    let fs = debian();
    let dir = fs.add_dir("/etc/systemd/network").unwrap();
    let label = (b"security.selinux".to_vec(), b"system_u:object_r:net_conf_t:s0\0".to_vec());
    fs.set_xattr(dir, &label.0, &label.1).unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (_, root) = fix(&machine);
    assert_eq!(root.tree.xattrs("/etc/systemd/network/10-hyper2kvm-ens192.link").unwrap(), [label]);
}

/// A guest in the manner of RHEL: `/boot` of its own, Boot Loader Specification entries, dracut, swap, encryption.
#[test]
fn a_guest_with_bls_swap_and_a_boot_of_its_own() {
    let root = MemoryFs::new("xfs", Some("R"), None);
    for (path, text) in [
        (
            "/etc/fstab",
            "# c\r\n/dev/sda3\t/\txfs\tdefaults\t0 0\r\nUUID=B /boot xfs defaults 0 0\r\n/dev/sda2 none swap defaults 0 0\r\n\
             /dev/sdb1 /data xfs defaults 0 0\r\n/dev/sdc1 /more xfs noauto\r\n/dev/disk/by-id/scsi-36000c29-part5 /five xfs\r\nLABEL=x /x xfs",
        ),
        ("/etc/crypttab", "five /dev/sda5 none luks\nswap /dev/sda6 /dev/urandom swap\nother /dev/sdz1 none\n"),
        ("/etc/kernel/cmdline", "root=/dev/sda3 ro resume=/dev/sda2\n"),
        ("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"resume=/dev/sda2 rhgb\"\n#GRUB_CMDLINE_X=\"root=/dev/sda3\""),
        ("/etc/hosts", ""),
        ("/usr/bin/dracut", ""),
        ("/etc/os-release", "ID=rhel\n"),
    ] {
        root.add_file(path, text).unwrap();
    }
    root.add_link("/bin", "usr/bin").unwrap();
    root.add_link("/lib", "usr/lib").unwrap();
    for dir in ["/boot", "/data", "/five"] {
        root.add_dir(dir).unwrap();
    }
    root.add_file("/usr/lib/modules/5.14/modules.dep", "").unwrap();
    let boot = MemoryFs::new("xfs", Some("B"), None);
    boot.add_file("/vmlinuz-5.14", "").unwrap();
    boot.add_file(
        "/initramfs-5.14.img",
        image(Some("gzip"), "5.14", &["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"]),
    )
    .unwrap();
    boot.add_file(
        "/loader/entries/a.conf",
        "title R\nlinux /vmlinuz-5.14\ninitrd /initramfs-5.14.img\noptions root=/dev/sda3 ro $x\n",
    )
    .unwrap();
    boot.add_file("/grub2/grub.cfg", "set kernelopts=\"root=/dev/sda3 ro\"\nblscfg\n").unwrap();
    boot.add_file("/grub2/device.map", "# c\n(hd0) /dev/sda\n").unwrap();
    let mut env = b"# GRUB Environment Block\nsaved_entry=a\nkernelopts=root=/dev/sda3 ro\n".to_vec();
    env.resize(1024, b'#');
    boot.add_file("/grub2/grubenv", env).unwrap();
    let machine = machine(vec![
        volume(1, "xfs", "B", Some(boot)),
        volume(2, "swap", "S", None),
        volume(3, "xfs", "R", Some(root)),
        volume(5, "crypto_LUKS", "L", None),
        volume(6, "", "", None),
    ]);
    let (plan, root) = fix(&machine);
    assert_eq!(
        text(&root, "/etc/fstab"),
        "# c\r\nUUID=R\t/\txfs\tdefaults\t0 0\r\nUUID=B /boot xfs defaults 0 0\r\nUUID=S none swap defaults 0 0\r\n\
         /dev/sdb1 /data xfs defaults,nofail 0 0\r\n/dev/sdc1 /more xfs noauto\r\n\
         /dev/disk/by-id/scsi-36000c29-part5 /five xfs defaults,nofail\r\nLABEL=x /x xfs"
    );
    assert_eq!(
        text(&root, "/etc/crypttab"),
        "five UUID=L none luks\nswap /dev/disk/by-partuuid/ca5fb7a5-06 /dev/urandom swap\nother /dev/sdz1 none\n"
    );
    assert_eq!(text(&root, "/etc/kernel/cmdline"), "root=UUID=R ro resume=UUID=S\n");
    assert_eq!(
        text(&root, "/etc/default/grub"),
        "GRUB_CMDLINE_LINUX=\"resume=UUID=S rhgb\"\n#GRUB_CMDLINE_X=\"root=/dev/sda3\""
    );
    assert!(text(&root, "/boot/loader/entries/a.conf").ends_with("\noptions root=UUID=R ro $x\n"));
    assert_eq!(text(&root, "/boot/grub2/grub.cfg"), "set kernelopts=\"root=UUID=R ro\"\nblscfg\n");
    assert_eq!(text(&root, "/boot/grub2/device.map"), "# c\n#(hd0) /dev/sda\n");
    let env = text(&root, "/boot/grub2/grubenv");
    assert!(env.len() == 1024 && env.contains("\nkernelopts=root=UUID=R ro\n##"), "{env}");
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
}

#[test]
fn without_an_initramfs_the_root_is_named_by_its_partition() {
    let fs = MemoryFs::new("ext4", Some(UUID), None);
    fs.add_file("/etc/fstab", "").unwrap();
    fs.add_file("/bin/sh", "").unwrap();
    fs.add_file("/boot/vmlinuz", "").unwrap();
    fs.add_file("/boot/grub/menu.lst", "title a\n kernel /boot/vmlinuz root=/dev/hda1 ro\n").unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, root) = fix(&machine);
    assert_eq!(text(&root, "/boot/grub/menu.lst"), "title a\n kernel /boot/vmlinuz root=PARTUUID=ca5fb7a5-01 ro\n");
    assert!(plan.stops_boot());
}

#[test]
fn several_cards_are_told_apart_by_known_addresses_only() {
    let fs = debian();
    let interfaces =
        "iface ens192 inet dhcp\n hwaddress 00:50:56:00:00:01\niface ens224 inet dhcp\niface eth7 inet dhcp\n";
    fs.add_file("/etc/network/interfaces", interfaces).unwrap();
    fs.add_file("/etc/udev/rules.d/70-persistent-net.rules", "ATTR{address}==\"00:50:56:00:00:07\", NAME=\"eth7\"\n")
        .unwrap();
    let mut machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let card = |mac: &str| MachineNic { mac: Some(mac.to_owned()), model: None };
    machine.nics = vec![
        card("00:50:56:00:00:01"),
        card("00:50:56:00:00:02"),
        card("00:50:56:00:00:07"),
        card("00:50:56:00:00:08"),
    ];
    let (plan, root) = fix(&machine);
    let link = text(&root, "/etc/systemd/network/10-hyper2kvm-ens192.link");
    assert_eq!(link, "[Match]\nMACAddress=00:50:56:00:00:01\nDriver=virtio_net\n\n[Link]\nName=ens192\n");
    assert!(!root.tree.exists("/etc/systemd/network/10-hyper2kvm-ens224.link").unwrap());
    let network: Vec<_> = plan.left.iter().filter(|left| left.path == "/etc/network/interfaces").collect();
    assert_eq!(network.len(), 1);
}

#[test]
fn names_that_the_kernel_gives_need_no_file() {
    let fs = debian();
    fs.add_file("/etc/network/interfaces", "iface eth0 inet dhcp\n").unwrap();
    fs.add_link("/etc/udev/rules.d/80-net-setup-link.rules", "/dev/null").unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, _) = fix(&machine);
    assert!(plan.actions.iter().all(|action| action.fix != "network"));
}

#[test]
fn a_unit_of_the_administrators_own_is_not_replaced() {
    let fs = debian();
    fs.add_file("/etc/systemd/system/open-vm-tools.service", "[Unit]\n").unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, root) = fix(&machine);
    assert_eq!(text(&root, "/etc/systemd/system/open-vm-tools.service"), "[Unit]\n");
    assert!(plan.left.iter().any(|left| left.what.contains("not masked")));
}

#[test]
fn an_unknown_distribution_gets_what_can_be_proved() {
    let fs = MemoryFs::new("ext4", Some(UUID), None);
    fs.add_file("/etc/fstab", "/dev/sda1 / ext4\n").unwrap();
    fs.add_dir("/bin").unwrap();
    let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
    let (plan, _) = fix(&machine);
    assert_eq!(plan.paths(), ["/etc/fstab"]);
}

#[test]
fn hostile_files_are_left_not_fatal() {
    let huge = vec![b'#'; usize::try_from(limits::MAX_GUEST_CONFIG).unwrap() + 1];
    for path in [
        "/etc/fstab",
        "/etc/os-release",
        "/boot/grub/grub.cfg",
        "/etc/default/grub",
        "/etc/crypttab",
        "/etc/network/interfaces",
    ] {
        for content in [huge.as_slice(), b"\0\xff\xfe\x1b[2J = root= /dev/sda1 UUID=\n\n\\", b""] {
            let fs = debian();
            fs.add_file(path, content).unwrap();
            fix(&machine(vec![volume(1, "ext4", UUID, Some(fs))]));
        }
    }
}

#[test]
fn a_boot_loader_that_is_copied_is_as_long_as_the_limit() {
    let most = limits::MAX_EFI_COPY;
    for (size, expected) in [(most - 1, (1, 0)), (most, (1, 0)), (most + 1, (0, 1))] {
        let fs = debian();
        let program = fs.add_file("/boot/grubx64.efi", "MZ").unwrap();
        fs.pretend(program, size);
        let machine = machine(vec![volume(1, "ext4", UUID, Some(fs))]);
        let root = find_roots(&machine).unwrap().remove(0);
        let (facts, options) = (linux(&root.tree).unwrap(), Options::default());
        let mut draft = draft::Draft::new(&facts, &machine, &root, &options);
        draft.copy("bootloader", "/boot/grubx64.efi", "/boot/BOOTX64.EFI", "copy it", "it is looked for").unwrap();
        let plan = draft.finish();
        assert_eq!((plan.actions.len(), plan.left.len()), expected, "{size}");
    }
}
