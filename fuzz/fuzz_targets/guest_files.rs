//! Any bytes as each configuration file of a guest: facts are read, and a second plan finds nothing left to do.
#![no_main]

use std::sync::Arc;

use hyper2kvm::fix;
use hyper2kvm::fs::{Filesystem, MemoryFs, Timestamp};
use hyper2kvm::inspect::{Machine, MachineDisk, Volume, find_roots, linux};
use libfuzzer_sys::fuzz_target;

const FILES: &[&str] = &[
    "/etc/fstab",
    "/boot/grub/grub.cfg",
    "/boot/grub/menu.lst",
    "/boot/loader/entries/a.conf",
    "/boot/extlinux/extlinux.conf",
    "/etc/default/grub",
    "/etc/crypttab",
    "/etc/kernel/cmdline",
    "/etc/initramfs-tools/modules",
    "/etc/initramfs-tools/conf.d/resume",
    "/etc/network/interfaces",
    "/etc/netplan/a.yaml",
    "/etc/NetworkManager/system-connections/a",
    "/etc/systemd/network/a.network",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/udev/rules.d/a.rules",
    "/etc/os-release",
    "/etc/hostname",
    "/etc/lsb-release",
    "/etc/SuSE-release",
    "/etc/lilo.conf",
    "/etc/selinux/config",
    "/etc/systemd/network/a.netdev",
    "/etc/sysconfig/network/ifcfg-eth1",
    "/etc/sysconfig/network/routes",
    "/etc/wicked/ifconfig/a.xml",
    "/boot/grub/grubenv",
    "/efi/loader/loader.conf",
    "/efi/EFI/Linux/a.efi",
    "/var/lib/dhcp/a.leases",
    "/var/lib/dhcpcd/eth0.lease",
];

fuzz_target!(|data: &[u8]| {
    let fs = MemoryFs::new("ext4", Some("U"), None);
    for path in ["/etc/hosts", "/bin/sh", "/lib/udev/rules.d/80-net-setup-link.rules"] {
        fs.add_file(path, "x").expect("room");
    }
    fs.add_file("/etc/initramfs-tools/initramfs.conf", "MODULES=list\n").expect("room");
    for part in data.split(|byte| *byte == 0xff) {
        let Some((which, content)) = part.split_first() else { continue };
        fs.add_file(FILES[usize::from(*which) % FILES.len()], content).expect("room");
    }
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    let volume = Volume {
        partition: Some(1),
        fs_kind: Some("ext4".into()),
        fs_uuid: Some("U".into()),
        fs: Some(fs),
        ..Volume::default()
    };
    let disk = MachineDisk { name: "sda".into(), ..MachineDisk::default() };
    let machine = Machine { disks: vec![disk], volumes: vec![volume], ..Machine::default() };
    let root = &find_roots(&machine).expect("memory can be read")[0];
    for is_first in [true, false] {
        let facts = linux(&root.tree).expect("memory can be read");
        let plan = fix::plan(&facts, &machine, root).expect("a plan");
        assert!(is_first || plan.is_empty(), "{:#?}", plan.actions);
        fix::apply(&plan, &root.tree, Timestamp::default()).expect("room");
    }
});
