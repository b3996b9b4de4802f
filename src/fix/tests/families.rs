//! One guest for each family of distributions, as its installer leaves it, with the edits that it must get. No real one of them
//! was at hand.

use super::*;
use crate::initramfs::codec::Codec;
use crate::initramfs::unified::Program;
use crate::initramfs::unified::tests::program;
use crate::initramfs::{cpio, image};

const ALL: &[&str] = &["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod"];

/// A file system with these files. A path that ends in `/` is a directory, one with `->` a symbolic link.
fn guest(kind: &'static str, uuid: &str, files: &[(&str, &str)]) -> MemoryFs {
    let fs = MemoryFs::new(kind, Some(uuid), None);
    for (path, text) in files {
        let added = match (path.strip_suffix('/'), path.split_once("->")) {
            (Some(dir), _) => fs.add_dir(dir).map(|_| ()),
            (_, Some((link, target))) => fs.add_link(link, target).map(|_| ()),
            _ => fs.add_file(path, text).map(|_| ()),
        };
        added.unwrap();
    }
    fs
}

/// An image with udev, these modules and these files.
fn packed(codec: Option<Codec>, release: &str, modules: &[&str], files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = cpio::Writer::default();
    writer.dir("sbin").unwrap();
    writer.file("sbin/udevd", b"").unwrap();
    let base = format!("lib/modules/{release}");
    for dir in ["lib", "lib/modules", &base] {
        writer.dir(dir).unwrap();
    }
    let dep: String = modules.iter().map(|module| format!("{module}.ko:\n")).collect();
    for module in modules {
        writer.file(&format!("{base}/{module}.ko"), b"\x7fELF").unwrap();
    }
    writer.file(&format!("{base}/modules.dep"), dep.as_bytes()).unwrap();
    for (path, content) in files {
        match path.split_once("->") {
            Some((link, target)) => writer.link(link, target).unwrap(),
            None => writer.file_with(path, 0o600, content.as_bytes()).unwrap(),
        }
    }
    let archive = writer.finish().unwrap();
    codec.map_or(archive.clone(), |codec| codec.encode(&archive).unwrap())
}

/// A file of an image, as the kernel leaves it there.
fn inside(image: &[u8], path: &str) -> String {
    let image = image::read(image).unwrap();
    let found = image.settings().find(|(known, _, _)| *known == path);
    let (_, mode, content) = found.unwrap_or_else(|| panic!("{path}"));
    assert_eq!(mode, 0o600, "{path}");
    String::from_utf8(content.to_vec()).unwrap()
}

fn bytes(root: &Root, path: &str) -> Vec<u8> {
    root.tree.read(path, 1 << 24).unwrap().unwrap_or_else(|| panic!("{path}"))
}

fn logical(name: &str, uuid: &str, fs: Option<MemoryFs>) -> Volume {
    Volume {
        mapper: Some(format!("/dev/mapper/{name}")),
        partition: None,
        partuuid: None,
        ..volume(1, "xfs", uuid, fs)
    }
}

/// RHEL 9 and its kin: LVM with its file of devices, Boot Loader Specification entries, dracut that waits for disks by place.
#[test]
fn red_hat_9() {
    let release = "5.14.0-503.el9.x86_64";
    let root = guest(
        "xfs",
        "R",
        &[
            (
                "/etc/fstab",
                "/dev/mapper/rl-root / xfs defaults 0 0\nUUID=B /boot xfs defaults 0 0\n/dev/dm-1 none swap sw 0 0\n",
            ),
            ("/etc/hosts", ""),
            ("/bin->usr/bin", ""),
            ("/boot/", ""),
            ("/etc/os-release", "ID=\"rocky\"\nVERSION_ID=\"9.5\"\n"),
            (
                "/etc/default/grub",
                "GRUB_CMDLINE_LINUX=\"resume=/dev/sda4 rd.lvm.lv=rl/root\"\nGRUB_ENABLE_BLSCFG=true\n",
            ),
            ("/etc/lvm/lvm.conf", "devices {\n\tglobal_filter = [ \"a|/dev/sda3|\", \"r|.*|\" ]\n}\n"),
            (
                "/etc/lvm/devices/system.devices",
                "VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.6 DEVNAME=/dev/sda3 PVID=x PART=3\n",
            ),
            ("/usr/bin/dracut", ""),
            ("/etc/dracut.conf.d/place.conf", "persistent_policy=\"by-path\"\nkernel_cmdline=\"resume=/dev/sda4\"\n"),
        ],
    );
    let lib = format!("/lib/modules/{release}");
    add_modules(&root, &lib);
    let wait = "usr/lib/dracut/hooks/initqueue/finished/devexists-\\x2fdev\\x2fsda4.sh";
    let boot = guest(
        "xfs",
        "B",
        &[(
            "/loader/entries/a-5.14.conf",
            "title Rocky\nlinux /vmlinuz-5.14.0-503.el9.x86_64\ninitrd /initramfs.img\noptions root=/dev/mapper/rl-root ro resume=/dev/sda4 $tuned_params\n",
        )],
    );
    boot.add_file(&format!("/vmlinuz-{release}"), "").unwrap();
    boot.add_file(
        "/initramfs.img",
        packed(
            Some(Codec::Gzip),
            release,
            &["vmw_pvscsi", "sd_mod"],
            &[
                (wait, "[ -e \"/dev/sda4\" ]\n"),
                ("etc/systemd/system/initrd.target.wants/dev-sda4.device->../dev-sda4.device", ""),
                ("etc/cmdline.d/95resume.conf", " resume=/dev/sda4 \n"),
                ("etc/lvm/lvm.conf", "devices {\n\tglobal_filter = [ \"a|/dev/sda3|\", \"r|.*|\" ]\n}\n"),
            ],
        ),
    )
    .unwrap();
    let machine = machine(vec![
        volume(2, "xfs", "B", Some(boot)),
        volume(3, "LVM2_member", "pv", None),
        volume(4, "swap", "S", None),
        logical("rl-root", "R", Some(root)),
    ]);
    let (plan, root) = fix(&machine);
    assert_eq!(
        text(&root, "/etc/fstab"),
        "/dev/mapper/rl-root / xfs defaults 0 0\nUUID=B /boot xfs defaults 0 0\n/dev/dm-1 none swap sw,nofail 0 0\n"
    );
    assert_eq!(
        text(&root, "/etc/lvm/lvm.conf"),
        "devices {\n\tglobal_filter = [ \"a|/dev/[hsv]da3|\", \"r|.*|\" ]\n}\n"
    );
    assert_eq!(text(&root, "/etc/lvm/lvmlocal.conf"), "devices {\n\tuse_devicesfile = 0\n}\n");
    assert_eq!(
        text(&root, "/etc/default/grub"),
        "GRUB_CMDLINE_LINUX=\"resume=UUID=S rd.lvm.lv=rl/root\"\nGRUB_ENABLE_BLSCFG=true\n"
    );
    assert_eq!(
        text(&root, "/etc/dracut.conf.d/place.conf"),
        "#persistent_policy=\"by-path\"\nkernel_cmdline=\"resume=UUID=S\"\n"
    );
    assert_eq!(
        text(&root, "/etc/dracut.conf.d/hyper2kvm.conf"),
        "add_drivers+=\" virtio_pci virtio_blk virtio_scsi \"\n"
    );
    let entry = text(&root, "/boot/loader/entries/a-5.14.conf");
    assert!(entry.ends_with("options root=/dev/mapper/rl-root ro resume=UUID=S $tuned_params\n"), "{entry}");
    let image = bytes(&root, "/boot/initramfs.img");
    assert_eq!(inside(&image, wait), "[ -e \"/dev/disk/by-uuid/S\" ]\n");
    assert_eq!(inside(&image, "etc/cmdline.d/95resume.conf"), " resume=UUID=S \n");
    assert_eq!(
        inside(&image, "etc/lvm/lvm.conf"),
        "devices {\n\tglobal_filter = [ \"a|/dev/[hsv]da3|\", \"r|.*|\" ]\n}\n"
    );
    let read = image::read(image.as_slice()).unwrap();
    assert_eq!(read.node("etc/systemd/system/dev-sda4.device"), Some(&image::Node::Link(b"/dev/null".to_vec())));
    assert!(modules_in(&image, release).iter().any(|path| path.ends_with("virtio_blk.ko")));
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
    assert_eq!(plan.hardware.disk_buses, [Bus::VirtioBlk, Bus::VirtioScsi]);
    assert_eq!(plan.hardware.nics, [Card::Virtio, Card::E1000]);
}

/// The modules of a kernel, in a directory.
fn add_modules(fs: &MemoryFs, dir: &str) {
    let mut dep = String::new();
    for name in ["virtio", "virtio_ring", "virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "virtio_net", "e1000"] {
        dep.push_str(&format!("{name}.ko:\n"));
        fs.add_file(&format!("{dir}/{name}.ko"), format!("\u{7f}ELF {name}")).unwrap();
    }
    fs.add_file(&format!("{dir}/modules.dep"), dep).unwrap();
}

/// RHEL 5: nash loads what it names; the kernel has IDE built in, and says so in its configuration only.
#[test]
fn red_hat_5_boots_from_ide() {
    let release = "2.6.18-8.el5";
    let fs = guest(
        "ext3",
        UUID,
        &[
            ("/etc/fstab", "/dev/sda1 / ext3 defaults 1 1\n"),
            ("/bin/sh", ""),
            ("/etc/redhat-release", "CentOS release 5 (Final)\n"),
            (
                "/boot/grub/grub.conf",
                "default=0\ntitle CentOS\n\troot (hd0,0)\n\tkernel /boot/vmlinuz-2.6.18-8.el5 ro root=/dev/sda1\n\tinitrd /boot/initrd-2.6.18-8.el5.img\n",
            ),
            ("/boot/grub/device.map", "(hd0)     /dev/sda\n"),
            ("/boot/vmlinuz-2.6.18-8.el5", ""),
            ("/boot/config-2.6.18-8.el5", "CONFIG_BLK_DEV_PIIX=y\nCONFIG_BLK_DEV_IDEDISK=y\nCONFIG_8139CP=m\n"),
            ("/lib/modules/2.6.18-8.el5/modules.dep", "/lib/modules/2.6.18-8.el5/kernel/8139cp.ko:\n"),
        ],
    );
    let initrd =
        packed(Some(Codec::Gzip), release, &[], &[("bin/nash", ""), ("lib/mptspi.ko", ""), ("sbin/modprobe", "")]);
    fs.add_file("/boot/initrd-2.6.18-8.el5.img", initrd).unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "ext3", UUID, Some(fs))]));
    assert_eq!(plan.paths(), ["/boot/grub/grub.conf", "/etc/fstab"]);
    assert!(text(&root, "/boot/grub/grub.conf").contains(&format!("ro root=UUID={UUID}\n")));
    assert_eq!(text(&root, "/etc/fstab"), format!("UUID={UUID} / ext3 defaults 1 1\n"));
    assert_eq!(
        (plan.hardware.disk_buses.as_slice(), plan.hardware.nics.as_slice()),
        ([Bus::Ide].as_slice(), [Card::Rtl8139].as_slice())
    );
    assert_eq!((plan.hardware.bus(Bus::VirtioBlk), plan.hardware.bus(Bus::Ide)), (Bus::Ide, Bus::Ide));
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
    assert!(plan.left.iter().any(|left| left.why.contains("finds its root on IDE")), "{:#?}", plan.left);
}

/// A kernel before virtio with udev: it gets AHCI.
#[test]
fn a_kernel_without_virtio_gets_sata() {
    let release = "2.6.22-14";
    let fs = guest(
        "ext3",
        UUID,
        &[
            ("/etc/fstab", "/dev/sda1 / ext3 defaults 1 1\n"),
            ("/bin/sh", ""),
            ("/boot/vmlinuz-2.6.22-14", ""),
            ("/lib/modules/2.6.22-14/modules.dep", "ahci.ko: libata.ko\nlibata.ko:\nsd_mod.ko:\ne1000.ko:\n"),
            ("/lib/modules/2.6.22-14/ahci.ko", "\u{7f}ELF"),
            ("/lib/modules/2.6.22-14/libata.ko", "\u{7f}ELF"),
        ],
    );
    fs.add_file("/boot/initrd.img-2.6.22-14", packed(Some(Codec::Gzip), release, &["mptspi", "sd_mod"], &[])).unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "ext3", UUID, Some(fs))]));
    let modules = modules_in(&bytes(&root, "/boot/initrd.img-2.6.22-14"), release);
    assert_eq!(modules, ["ahci.ko", "libata.ko", "mptspi.ko", "sd_mod.ko"]);
    assert_eq!((plan.hardware.disk_buses.as_slice(), plan.hardware.nic()), ([Bus::Sata].as_slice(), Card::E1000));
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
}

/// SLES 11: names by serial number everywhere, and a mkinitrd that knows devices by path only.
#[test]
fn suse_11() {
    let release = "3.0.101-default";
    let fs = guest(
        "ext3",
        UUID,
        &[
            (
                "/etc/fstab",
                "/dev/disk/by-id/scsi-36000c29-part2 / ext3 acl 1 1\n/dev/disk/by-id/scsi-36000c29-part1 swap swap defaults 0 0\n",
            ),
            ("/bin/sh", ""),
            ("/sbin/mkinitrd", ""),
            ("/etc/SuSE-release", "SUSE Linux Enterprise Server 11 (x86_64)\n"),
            (
                "/boot/grub/menu.lst",
                "default 0\ntitle SLES\n    root (hd0,1)\n    kernel /boot/vmlinuz-3.0.101-default root=/dev/disk/by-id/scsi-36000c29-part2 resume=/dev/disk/by-id/scsi-36000c29-part1 splash=silent\n    initrd /boot/initrd-3.0.101-default\n",
            ),
            ("/etc/sysconfig/bootloader", "LOADER_TYPE=\"grub\"\nDEFAULT_APPEND=\" resume=/dev/sda1 splash=silent\"\n"),
            ("/etc/sysconfig/kernel", "INITRD_MODULES=\"mptspi ata_piix\"\nDOMU_INITRD_MODULES=\"xennet\"\n"),
            ("/boot/vmlinuz-3.0.101-default", ""),
        ],
    );
    add_modules(&fs, &format!("/lib/modules/{release}"));
    let config = "rootdev=\"/dev/disk/by-id/scsi-36000c29-part2\"\nrootfstype=\"ext3\"\n";
    fs.add_file(
        "/boot/initrd-3.0.101-default",
        packed(Some(Codec::Gzip), release, &["mptspi", "sd_mod"], &[("config/mount.sh", config)]),
    )
    .unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "swap", "S", None), volume(2, "ext3", UUID, Some(fs))]));
    let root_path = format!("/dev/disk/by-uuid/{UUID}");
    assert_eq!(text(&root, "/etc/fstab"), format!("UUID={UUID} / ext3 acl 1 1\nUUID=S swap swap defaults 0 0\n"));
    assert!(
        text(&root, "/boot/grub/menu.lst")
            .contains(&format!("root={root_path} resume=/dev/disk/by-uuid/S splash=silent\n"))
    );
    assert_eq!(
        text(&root, "/etc/sysconfig/bootloader"),
        "LOADER_TYPE=\"grub\"\nDEFAULT_APPEND=\" resume=/dev/disk/by-uuid/S splash=silent\"\n"
    );
    assert_eq!(
        text(&root, "/etc/sysconfig/kernel"),
        "INITRD_MODULES=\"mptspi ata_piix virtio_pci virtio_blk virtio_scsi\"\nDOMU_INITRD_MODULES=\"xennet\"\n"
    );
    assert_eq!(
        inside(&bytes(&root, "/boot/initrd-3.0.101-default"), "config/mount.sh"),
        format!("rootdev=\"{root_path}\"\nrootfstype=\"ext3\"\n")
    );
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
}

/// Arch: systemd-boot on an EFI system partition that is `/boot`, an encrypted root, mkinitcpio.
#[test]
fn arch_with_systemd_boot_and_encryption() {
    let release = "6.9.1-arch1-1";
    let root = guest(
        "ext4",
        "R",
        &[
            ("/etc/fstab", "/dev/mapper/root / ext4 rw 0 1\nUUID=E /boot vfat rw 0 2\n"),
            ("/etc/hosts", ""),
            ("/bin->usr/bin", ""),
            ("/lib->usr/lib", ""),
            ("/usr/bin/bash", ""),
            ("/boot/", ""),
            ("/etc/os-release", "ID=arch\n"),
            ("/etc/mkinitcpio.conf", "# MODULES=(x)\nMODULES=(vmw_pvscsi)\nHOOKS=(base udev encrypt)\n"),
            ("/etc/crypttab", "data /dev/sda9 none\n"),
            ("/etc/kernel/cmdline", "cryptdevice=/dev/sda2:root root=/dev/mapper/root rw\n"),
        ],
    );
    add_modules(&root, &format!("/usr/lib/modules/{release}"));
    let esp = guest(
        "vfat",
        "E",
        &[
            ("/loader/loader.conf", "default arch\n"),
            (
                "/loader/entries/arch.conf",
                "title Arch\nlinux /vmlinuz-linux\ninitrd /initramfs-linux.img\noptions cryptdevice=/dev/sda2:root:allow-discards root=/dev/mapper/root rw\n",
            ),
            ("/EFI/systemd/systemd-bootx64.efi", "MZ systemd-boot"),
        ],
    );
    let mut kernel = vec![0; 0x400];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    kernel[0x300..][..release.len()].copy_from_slice(release.as_bytes());
    esp.add_file("/vmlinuz-linux", kernel).unwrap();
    esp.add_file(
        "/initramfs-linux.img",
        packed(Some(Codec::Zstd), release, &["vmw_pvscsi", "sd_mod"], &[("etc/crypttab", "")]),
    )
    .unwrap();
    let mut machine = machine(vec![
        volume(1, "vfat", "E", Some(esp)),
        volume(2, "crypto_LUKS", "L", None),
        logical("root", "R", Some(root)),
    ]);
    machine.uefi = true;
    let (plan, root) = fix(&machine);
    assert!(
        text(&root, "/boot/loader/entries/arch.conf")
            .ends_with("options cryptdevice=UUID=L:root:allow-discards root=/dev/mapper/root rw\n")
    );
    assert_eq!(text(&root, "/etc/kernel/cmdline"), "cryptdevice=UUID=L:root root=/dev/mapper/root rw\n");
    assert_eq!(
        text(&root, "/etc/mkinitcpio.conf"),
        "# MODULES=(x)\nMODULES=(vmw_pvscsi virtio_pci virtio_blk virtio_scsi)\nHOOKS=(base udev encrypt)\n"
    );
    assert_eq!(text(&root, "/boot/EFI/BOOT/BOOTX64.EFI"), "MZ systemd-boot");
    assert!(plan.left.iter().any(|left| left.what == "/dev/sda9 keeps its name"));
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
}

/// Alpine: extlinux, an encrypted root, mkinitfs without its virtio feature.
#[test]
fn alpine_with_extlinux() {
    let release = "6.6.30-0-lts";
    let fs = guest(
        "ext4",
        UUID,
        &[
            ("/etc/fstab", "/dev/sda3 / ext4 rw 0 1\n/dev/sda2 swap swap defaults 0 0\n"),
            ("/bin/sh", ""),
            ("/etc/os-release", "ID=alpine\n"),
            (
                "/boot/extlinux.conf",
                "DEFAULT lts\nLABEL lts\n  LINUX vmlinuz-lts\n  INITRD initramfs-lts\n  APPEND root=/dev/sda3 cryptroot=/dev/sda4 modules=sd-mod,ext4 quiet\n",
            ),
            (
                "/etc/update-extlinux.conf",
                "default_kernel_opts=\"quiet cryptroot=/dev/sda4\"\nroot=/dev/sda3\nmodules=sd-mod\n",
            ),
            ("/etc/mkinitfs/mkinitfs.conf", "features=\"ata base ext4 scsi\"\n"),
        ],
    );
    add_modules(&fs, &format!("/lib/modules/{release}"));
    let mut kernel = vec![0; 0x400];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    kernel[0x300..][..release.len()].copy_from_slice(release.as_bytes());
    fs.add_file("/boot/vmlinuz-lts", kernel).unwrap();
    fs.add_file("/boot/initramfs-lts", packed(Some(Codec::Gzip), release, &["sd_mod"], &[])).unwrap();
    let volumes =
        vec![volume(2, "swap", "S", None), volume(3, "ext4", UUID, Some(fs)), volume(4, "crypto_LUKS", "L", None)];
    let (plan, root) = fix(&machine(volumes));
    assert!(
        text(&root, "/boot/extlinux.conf")
            .ends_with(&format!("APPEND root=UUID={UUID} cryptroot=UUID=L modules=sd-mod,ext4 quiet\n"))
    );
    assert_eq!(
        text(&root, "/etc/update-extlinux.conf"),
        format!("default_kernel_opts=\"quiet cryptroot=UUID=L\"\nroot=UUID={UUID}\nmodules=sd-mod\n")
    );
    assert_eq!(text(&root, "/etc/mkinitfs/mkinitfs.conf"), "features=\"ata base ext4 scsi virtio\"\n");
    assert!(modules_in(&bytes(&root, "/boot/initramfs-lts"), release).contains(&"virtio_blk.ko".to_owned()));
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
}

/// Gentoo: one kernel with an initramfs of genkernel, one without any that has its drivers built in.
#[test]
fn gentoo_with_and_without_an_initramfs() {
    let fs = guest(
        "ext4",
        UUID,
        &[
            ("/etc/fstab", "/dev/sda1 / ext4 noatime 0 1\n"),
            ("/bin/sh", ""),
            ("/etc/os-release", "ID=gentoo\n"),
            (
                "/boot/grub/grub.cfg",
                "menuentry 'a' {\n linux /boot/vmlinuz-6.6-a root=/dev/ram0 real_root=/dev/sda1\n initrd /boot/initramfs-6.6-a.img\n}\nmenuentry 'b' {\n linux /boot/vmlinuz-6.6-b root=/dev/sda1 ro\n}\n",
            ),
            ("/boot/vmlinuz-6.6-a", ""),
            ("/boot/vmlinuz-6.6-b", ""),
            ("/lib/modules/6.6-b/modules.builtin", "virtio_pci.ko\nvirtio_blk.ko\n"),
        ],
    );
    add_modules(&fs, "/lib/modules/6.6-a");
    fs.add_file("/boot/initramfs-6.6-a.img", packed(Some(Codec::Xz), "6.6-a", ALL, &[])).unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "ext4", UUID, Some(fs))]));
    let grub = text(&root, "/boot/grub/grub.cfg");
    assert!(grub.contains(&format!("root=/dev/ram0 real_root=UUID={UUID}\n")), "{grub}");
    assert!(grub.contains(" root=PARTUUID=ca5fb7a5-01 ro\n"), "{grub}");
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
    assert!(!plan.paths().iter().any(|path| path.contains("initramfs")));
}

/// ALT, Photon and Ubuntu in what is their own.
#[test]
fn other_generators_and_loaders() {
    let release = "6.1-std";
    let fs = guest(
        "ext4",
        UUID,
        &[
            ("/etc/fstab", ""),
            ("/bin/sh", ""),
            ("/etc/initrd.mk", "AUTODETECT = all\n"),
            ("/usr/bin/booster", ""),
            (
                "/boot/grub2/grub.cfg",
                "set rootpartition=/dev/sda1\nmenuentry \"Photon\" {\n linux /vmlinuz-6.1-std root=$rootpartition\n initrd /initrd.img-6.1-std\n}\n",
            ),
            (
                "/etc/default/grub.d/50-x.cfg",
                "GRUB_CMDLINE_LINUX_DEFAULT='resume=/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part2'\n",
            ),
            ("/etc/initramfs-tools/conf.d/resume", "RESUME=/dev/sda2\n"),
            ("/boot/vmlinuz-6.1-std", ""),
        ],
    );
    add_modules(&fs, &format!("/lib/modules/{release}"));
    let conf = [("conf/conf.d/resume", "RESUME=/dev/sda2\n"), ("etc/mdadm/mdadm.conf", "DEVICE /dev/sda1 /dev/sdb1\n")];
    fs.add_file("/boot/initrd.img-6.1-std", packed(Some(Codec::Lz4), release, &["sd_mod"], &conf)).unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "ext4", UUID, Some(fs)), volume(2, "swap", "S", None)]));
    assert_eq!(text(&root, "/etc/initrd.mk"), "AUTODETECT = all\nMODULES_ADD += virtio_pci virtio_blk virtio_scsi\n");
    assert_eq!(text(&root, "/etc/booster.yaml"), "modules: virtio_pci,virtio_blk,virtio_scsi\n");
    assert!(text(&root, "/boot/grub2/grub.cfg").starts_with(&format!("set rootpartition=UUID={UUID}\n")));
    assert_eq!(text(&root, "/etc/default/grub.d/50-x.cfg"), "GRUB_CMDLINE_LINUX_DEFAULT='resume=UUID=S'\n");
    assert_eq!(text(&root, "/etc/initramfs-tools/conf.d/resume"), "RESUME=UUID=S\n");
    let image = bytes(&root, "/boot/initrd.img-6.1-std");
    assert_eq!(inside(&image, "conf/conf.d/resume"), "RESUME=UUID=S\n");
    assert_eq!(inside(&image, "etc/mdadm/mdadm.conf"), "DEVICE partitions\n");
    assert!(!plan.stops_boot(), "{:#?}", plan.left);
}

/// A complete image is touched only for what it names, and then keeps its modules' lists.
#[test]
fn a_complete_image_with_old_names_gets_these_only() {
    let fs = guest(
        "ext4",
        UUID,
        &[("/etc/fstab", ""), ("/bin/sh", ""), ("/boot/vmlinuz-6.1", ""), ("/lib/modules/6.1/", "")],
    );
    let old = packed(Some(Codec::Zstd), "6.1", ALL, &[("cryptroot/crypttab", "root /dev/sda2 none luks\n")]);
    fs.add_file("/boot/initrd.img-6.1", &old).unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "ext4", UUID, Some(fs)), volume(2, "crypto_LUKS", "L", None)]));
    let what: Vec<_> = plan.actions.iter().map(|action| action.what.as_str()).collect();
    assert_eq!(what, ["name devices by what stays in cryptroot/crypttab"]);
    let image = bytes(&root, "/boot/initrd.img-6.1");
    assert!(image.starts_with(&old));
    assert_eq!(inside(&image, "cryptroot/crypttab"), "root UUID=L none luks\n");
    assert_eq!(modules_in(&image, "6.1").len(), ALL.len());
}

/// What the kernel would not read on behind, or what there is no space for, is packed anew.
#[test]
fn an_image_is_packed_anew_where_nothing_can_follow() {
    let noise: String = (0..60_000_u32).map(|n| char::from(b'a' + u8::try_from(n * n % 23).unwrap())).collect();
    for (codec, capacity) in
        [(Codec::Lzma, None), (Codec::Zstd, Some(1 << 20)), (Codec::Xz, Some(1 << 20)), (Codec::Gzip, Some(1 << 20))]
    {
        let fs = guest("ext4", UUID, &[("/etc/fstab", ""), ("/bin/sh", ""), ("/boot/vmlinuz-6.1", "")]);
        add_modules(&fs, "/lib/modules/6.1");
        let mut old = packed(None, "6.1", &["sd_mod"], &[("etc/noise", &noise)]);
        old = match codec {
            // Packed as badly as can be, so that there is room.
            Codec::Gzip | Codec::Xz | Codec::Zstd => {
                let mut whole = codec.encode(&old).unwrap();
                whole.resize(whole.len() + 9000, 0);
                whole
            }
            _ => codec.encode(&old).unwrap(),
        };
        fs.add_file("/boot/initrd.img-6.1", &old).unwrap();
        let fs = match capacity {
            Some(capacity) => fs.with_capacity(capacity),
            None => fs,
        };
        let (plan, root) = fix(&machine(vec![volume(1, "ext4", UUID, Some(fs))]));
        let action = plan.actions.iter().find(|action| action.path.contains("initrd")).unwrap();
        assert!(action.what.ends_with("(packed anew)") && matches!(action.change, Change::Patch { .. }), "{codec:?}");
        let new = bytes(&root, "/boot/initrd.img-6.1");
        if capacity.is_some() {
            assert_eq!(new.len(), old.len(), "{codec:?}");
        }
        let read = image::read(new.as_slice()).unwrap();
        assert!(read.node("etc/noise").is_some(), "{codec:?}");
        assert!(modules_in(&new, "6.1").contains(&"virtio_blk.ko".to_owned()), "{codec:?}");
    }
}

/// UEFI looks for one program when it knows of nothing else. Shim brings along what it starts.
#[test]
fn firmware_finds_a_loader_of_any_distribution() {
    let fixed = |files: &[(&str, &str)], uefi: bool| {
        let esp = guest("vfat", "AB12-CD34", files);
        let root = guest(
            "ext4",
            UUID,
            &[
                ("/etc/fstab", "UUID=AB12-CD34 /boot/efi vfat umask=0077 0 1\n"),
                ("/etc/hosts", ""),
                ("/bin/", ""),
                ("/boot/efi/", ""),
                ("/etc/os-release", "ID=debian\n"),
            ],
        );
        let mut machine = machine(vec![volume(1, "vfat", "AB12-CD34", Some(esp)), volume(2, "ext4", UUID, Some(root))]);
        machine.uefi = uefi;
        fix(&machine)
    };
    let shim: &[(&str, &str)] = &[
        ("/EFI/other/grubx64.efi", "MZ other"),
        ("/EFI/debian/shimx64.efi", "MZ shim"),
        ("/EFI/debian/grubx64.efi", "MZ grub"),
        ("/EFI/debian/mmx64.efi", "MZ mm"),
        ("/EFI/debian/grub.cfg", "configfile x\n"),
    ];
    let (plan, root) = fixed(shim, true);
    assert_eq!(
        plan.paths(),
        [
            "/boot/efi/EFI/BOOT",
            "/boot/efi/EFI/BOOT/BOOTX64.EFI",
            "/boot/efi/EFI/BOOT/grub.cfg",
            "/boot/efi/EFI/BOOT/grubx64.efi",
            "/boot/efi/EFI/BOOT/mmx64.efi"
        ]
    );
    let read = |name: &str| text(&root, &format!("/boot/efi/EFI/BOOT/{name}"));
    assert_eq!(
        (read("BOOTX64.EFI").as_str(), read("grubx64.efi").as_str(), read("mmx64.efi").as_str()),
        ("MZ shim", "MZ grub", "MZ mm")
    );
    assert_eq!(
        read("grub.cfg"),
        "search --no-floppy --fs-uuid --set=root AB12-CD34\nset prefix=($root)/EFI/debian\nconfigfile ($root)/EFI/debian/grub.cfg\n"
    );
    assert!(fixed(shim, false).0.is_empty(), "a BIOS needs none");
    let (plan, root) = fixed(&[("/EFI/arch/grubaa64.efi", "MZ grub"), ("/EFI/Boot/", "")], true);
    assert_eq!(plan.paths(), ["/boot/efi/EFI/Boot/BOOTAA64.EFI"]);
    assert_eq!(text(&root, "/boot/efi/EFI/Boot/BOOTAA64.EFI"), "MZ grub");
    assert!(fixed(&[("/EFI/Boot/bootx64.efi", "MZ"), ("/EFI/debian/grubx64.efi", "MZ")], true).0.is_empty());
    assert!(fixed(&[("/EFI/tool/memtest.efi", "MZ")], true).0.stops_boot());
}

/// A unified kernel image that nobody signed is rebuilt; a signed one stays, with the reason.
#[test]
fn unified_kernel_images() {
    let release = "6.9.1-arch1-1";
    let initrd = packed(Some(Codec::Zstd), release, &["vmw_pvscsi", "sd_mod"], &[]);
    let sections: &[(&str, &[u8])] = &[
        (".osrel", b"ID=arch\n"),
        (".cmdline", b"root=/dev/sda2 rw\0"),
        (".uname", release.as_bytes()),
        (".initrd", &initrd),
        (".linux", b"kernel"),
    ];
    for signed in [false, true] {
        let root = guest(
            "ext4",
            UUID,
            &[("/etc/fstab", "UUID=E /efi vfat rw 0 2\n"), ("/etc/hosts", ""), ("/bin/", ""), ("/efi/", "")],
        );
        add_modules(&root, &format!("/lib/modules/{release}"));
        let esp = MemoryFs::new("vfat", Some("E"), None);
        let old = program(sections, signed);
        esp.add_file("/EFI/Linux/arch.efi", &old).unwrap();
        let (plan, root) = fix(&machine(vec![volume(1, "vfat", "E", Some(esp)), volume(2, "ext4", UUID, Some(root))]));
        let path = "/efi/EFI/Linux/arch.efi";
        let new = bytes(&root, path);
        assert_eq!(plan.stops_boot(), signed);
        if signed {
            assert!(new == old && plan.left.iter().any(|left| left.path == path && left.why.contains("signed")));
            continue;
        }
        let mut found = Program::open(&root.tree, path).unwrap().unwrap();
        assert_eq!(found.text(".cmdline", 4096).unwrap().unwrap(), format!("root=UUID={UUID} rw"));
        assert_eq!(found.text(".linux", 4096).unwrap().unwrap(), "kernel");
        let contents = crate::initramfs::look(&root.tree, path, Some(release)).unwrap();
        assert!(contents.can_boot_virtio(), "{contents:?}");
        assert_eq!(plan.hardware.disk_buses, [Bus::VirtioBlk, Bus::VirtioScsi]);
        assert!(
            plan.actions[0].what.starts_with("name the root by UUID on its command line; append"),
            "{:?}",
            plan.actions
        );
    }
}

#[test]
fn images_of_kdump_get_drivers_and_those_in_a_squashfs_are_left() {
    let squashed = packed(None, RELEASE, &["ext4"], &[("squash-root.img", "hsqs")]);
    let (kdump, other) =
        (format!("/var/lib/kdump/initrd.img-{RELEASE}"), format!("/boot/initramfs-{RELEASE}kdump.img"));
    let fs = debian();
    fs.add_file(&kdump, packed(None, RELEASE, &["ext4"], &[])).unwrap();
    fs.add_file(&other, &squashed).unwrap();
    let (plan, root) = fix(&machine(vec![volume(1, "ext4", UUID, Some(fs))]));
    let changed = plan.paths();
    assert!(changed.contains(&kdump.as_str()) && !changed.contains(&other.as_str()), "{changed:?}");
    let content = root.tree.read(&kdump, 1 << 20).unwrap().unwrap();
    assert!(modules_in(&content, RELEASE).contains(&"kernel/virtio_blk.ko".to_owned()));
    let left = plan.left.iter().find(|left| left.path == other).unwrap();
    assert!(!left.stops_boot && left.why.contains("squashfs"), "{left:?}");
    assert!(!plan.stops_boot(), "{:?}", plan.left);

    let fs = debian();
    let image = format!("/boot/initrd.img-{RELEASE}");
    fs.add_file(&image, &squashed).unwrap();
    let (plan, _) = fix(&machine(vec![volume(1, "ext4", UUID, Some(fs))]));
    let left = plan.left.iter().find(|left| left.path == image).unwrap();
    assert!(left.stops_boot && left.why.contains("squashfs"), "{left:?}");
}
