//! Synthetic trees of distributions that are not installed here, and what is told of each.

use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;
use crate::initramfs::unified::tests::program;

/// A guest: what is told of it in one line, its files, and its links.
struct Guest {
    told: &'static str,
    files: &'static [(&'static str, &'static str)],
    links: &'static [(&'static str, &'static str)],
}

const GUESTS: &[Guest] = &[
    Guest {
        told: "rhel 9.4 rhel9.4 dnf systemd | grub2 bls bls | /boot/vmlinuz-5.14.0-427.el9.x86_64 | enforcing | networkmanager:ens192 | ",
        files: &[
            (
                "/etc/os-release",
                "NAME=\"Red Hat Enterprise Linux\"\nID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.4 (Plow)\"\n",
            ),
            ("/usr/lib/sysimage/rpm/rpmdb.sqlite", ""),
            ("/usr/bin/dnf-3", ""),
            ("/usr/lib/systemd/systemd", ""),
            ("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n"),
            ("/boot/grub2/grub.cfg", "set default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\n"),
            (
                "/boot/loader/entries/m-5.14.0-427.el9.x86_64.conf",
                "title RHEL\nversion 5.14.0-427.el9.x86_64\nlinux /vmlinuz-5.14.0-427.el9.x86_64\ninitrd /initramfs-5.14.0-427.el9.x86_64.img\noptions root=/dev/mapper/rhel-root ro\n",
            ),
            (
                "/boot/loader/entries/m-5.14.0-362.el9.x86_64.conf",
                "title RHEL\nversion 5.14.0-362.el9.x86_64\nlinux /vmlinuz-5.14.0-362.el9.x86_64\noptions root=/dev/mapper/rhel-root ro\n",
            ),
            ("/boot/vmlinuz-5.14.0-427.el9.x86_64", ""),
            ("/boot/vmlinuz-5.14.0-362.el9.x86_64", ""),
            (
                "/etc/NetworkManager/system-connections/ens192.nmconnection",
                "[connection]\ntype=ethernet\ninterface-name=ens192\n[ipv4]\nmethod=auto\n",
            ),
        ],
        links: &[("/sbin/init", "../usr/lib/systemd/systemd")],
    },
    Guest {
        told: "centos 6.10 centos6.10 yum upstart | grub-legacy | /boot/vmlinuz-2.6.32-754.el6.x86_64 | permissive | ifcfg:eth0 | ",
        files: &[
            ("/etc/centos-release", "CentOS release 6.10 (Final)\n"),
            ("/etc/redhat-release", "CentOS release 6.10 (Final)\n"),
            ("/var/lib/rpm/Packages", ""),
            ("/usr/bin/yum", ""),
            ("/sbin/init", ""),
            ("/sbin/initctl", ""),
            ("/etc/init/rc.conf", ""),
            ("/etc/selinux/config", "SELINUX=permissive\n"),
            (
                "/boot/grub/grub.conf",
                "default=0\ntitle CentOS\n\troot (hd0,0)\n\tkernel /vmlinuz-2.6.32-754.el6.x86_64 ro root=/dev/mapper/vg-root\n\tinitrd /initramfs-2.6.32-754.el6.x86_64.img\n",
            ),
            ("/boot/vmlinuz-2.6.32-754.el6.x86_64", ""),
            ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\n"),
        ],
        links: &[("/boot/grub/menu.lst", "./grub.conf")],
    },
    Guest {
        told: "sles 15.5 sle15sp5 zypper systemd | grub2 | /boot/vmlinuz-5.14.21-default | - | ifcfg:eth0 | vmware",
        files: &[
            (
                "/usr/lib/os-release",
                "NAME=\"SLES\"\nID=\"sles\"\nID_LIKE=\"suse\"\nVERSION_ID=\"15.5\"\nPRETTY_NAME=\"SUSE Linux Enterprise Server 15 SP5\"\n",
            ),
            ("/usr/lib/sysimage/rpm/Packages.db", ""),
            ("/usr/bin/zypper", ""),
            ("/usr/lib/systemd/systemd", ""),
            ("/usr/lib/systemd/system/vmtoolsd.service", ""),
            (
                "/boot/grub2/grub.cfg",
                "set default=\"${saved_entry}\"\nmenuentry 'SLES 15' --id 'x' {\n linux /boot/vmlinuz-5.14.21-default root=UUID=1\n initrd /boot/initrd-5.14.21-default\n}\n",
            ),
            ("/boot/vmlinuz-5.14.21-default", ""),
            ("/boot/initrd-5.14.21-default", ""),
            ("/etc/sysconfig/network/ifcfg-eth0", "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n"),
        ],
        links: &[("/etc/os-release", "../usr/lib/os-release"), ("/sbin/init", "/usr/lib/systemd/systemd")],
    },
    Guest {
        told: "ubuntu 22.4 ubuntu22.04 apt systemd | grub2 | /boot/vmlinuz-5.15.0-1 | - | netplan:ens160 | kvm",
        files: &[
            ("/etc/os-release", "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\nVERSION_CODENAME=jammy\n"),
            ("/var/lib/dpkg/status", ""),
            ("/usr/bin/apt-get", ""),
            ("/usr/lib/systemd/systemd", ""),
            ("/lib/systemd/system/qemu-guest-agent.service", ""),
            (
                "/boot/grub/grub.cfg",
                "set default=\"0\"\nmenuentry 'Ubuntu' {\n linux /boot/vmlinuz-5.15.0-1 root=UUID=1\n initrd /boot/initrd.img-5.15.0-1\n}\n",
            ),
            ("/boot/vmlinuz-5.15.0-1", ""),
            (
                "/etc/netplan/00-installer-config.yaml",
                "network:\n  ethernets:\n    ens160:\n      dhcp4: true\n  version: 2\n",
            ),
        ],
        links: &[("/sbin/init", "/lib/systemd/systemd"), ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")],
    },
    Guest {
        told: "alpine 3.17 alpinelinux3.17 apk openrc | extlinux | /boot/vmlinuz-virt | - | ifupdown:eth0 | ",
        files: &[
            ("/etc/os-release", "ID=alpine\nVERSION_ID=3.17.1\n"),
            ("/lib/apk/db/installed", ""),
            ("/sbin/apk", ""),
            ("/sbin/openrc", ""),
            (
                "/boot/extlinux.conf",
                "DEFAULT menu.c32\nLABEL virt\n MENU DEFAULT\n LINUX vmlinuz-virt\n INITRD initramfs-virt\n APPEND root=UUID=1\n",
            ),
            ("/boot/vmlinuz-virt", ""),
            ("/boot/initramfs-virt", ""),
            ("/etc/network/interfaces", "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n"),
        ],
        links: &[],
    },
    Guest {
        told: "arch - archlinux pacman systemd | systemd-boot uki | /efi/EFI/Linux/arch-linux.efi | - | networkd:enp1s0 | ",
        files: &[
            ("/etc/os-release", "ID=arch\nBUILD_ID=rolling\n"),
            ("/var/lib/pacman/local/ALPM_DB_VERSION", "9\n"),
            ("/usr/bin/pacman", ""),
            ("/usr/lib/systemd/systemd", ""),
            ("/efi/loader/loader.conf", "timeout 3\n"),
            ("/etc/systemd/network/20-wired.network", "[Match]\nName=enp1s0\n[Network]\nDHCP=yes\n"),
        ],
        links: &[("/sbin/init", "../usr/lib/systemd/systemd")],
    },
    Guest {
        told: "slackware 14.2 slackware14.2 slackpkg sysvinit | lilo | /boot/vmlinuz-huge-4.4.14 | - |  | ",
        files: &[
            ("/etc/slackware-version", "Slackware 14.2\n"),
            ("/var/log/packages/aaa_base-14.2", ""),
            ("/usr/sbin/slackpkg", ""),
            ("/sbin/init", ""),
            ("/etc/inittab", ""),
            ("/etc/lilo.conf", "boot = /dev/sda\nimage = /boot/vmlinuz\n  root = /dev/sda1\n  label = Linux\n"),
            ("/boot/vmlinuz-huge-4.4.14", ""),
        ],
        links: &[("/boot/vmlinuz", "vmlinuz-huge-4.4.14")],
    },
];

fn told(facts: &Linux) -> String {
    let kebab = |value: serde_json::Value| value.as_str().map(str::to_owned).unwrap_or_default();
    let plain = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let init = serde_json::to_value(&facts.init).unwrap().get("kind").cloned().map(kebab).unwrap_or_default();
    let loaders = facts.bootloaders.iter().map(|loader| kebab(serde_json::to_value(loader.kind).unwrap()));
    let kernels = facts.kernels.iter().filter(|kernel| kernel.default).map(|kernel| kernel.image.as_str());
    let mode = facts.security.selinux.as_ref().map(|selinux| kebab(serde_json::to_value(selinux.mode).unwrap()));
    let nics = facts.nics.iter().map(|nic| format!("{}:{}", nic.manager, nic.name));
    let tools = facts.tools.iter().map(|tool| tool.hypervisor);
    format!(
        "{} {} {} {} {init} | {} | {} | {} | {} | {}",
        plain(facts.os.id.clone()),
        plain(facts.os.version.map(|version| format!("{}.{}", version.major, version.minor))),
        plain(facts.os.osinfo.clone()),
        facts.packaging.management.unwrap_or("-"),
        loaders.collect::<Vec<_>>().join(" "),
        kernels.collect::<Vec<_>>().join(" "),
        plain(mode),
        nics.collect::<Vec<_>>().join(" "),
        tools.collect::<Vec<_>>().join(" "),
    )
}

#[test]
fn every_distribution_is_told_right() {
    for guest in GUESTS {
        let fs = MemoryFs::default();
        for (path, text) in guest.files {
            fs.add_file(path, text).unwrap();
        }
        for (path, target) in guest.links {
            fs.add_link(path, target).unwrap();
        }
        if guest.told.contains(" uki ") {
            let sections: &[(&str, &[u8])] =
                &[(".linux", b"x"), (".uname", b"6.9.1-arch1-1"), (".cmdline", b"root=UUID=1")];
            fs.add_file("/efi/EFI/Linux/arch-linux.efi", program(sections, false)).unwrap();
        }
        let facts = linux(&Tree::new(Arc::new(fs))).unwrap();
        assert_eq!(told(&facts), guest.told);
        assert!(facts.notes.is_empty(), "{:?}", facts.notes);
    }
}
