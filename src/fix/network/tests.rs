//! One synthetic tree for each way to configure a network, with the exact edits.

use super::super::tests::small::volume;
use super::super::{Change, NetworkLevel, Options, Plan, apply, plan_with};
use crate::fs::{MemoryFs, Timestamp};
use crate::inspect::{Machine, MachineDisk, MachineNic, Root, find_roots, linux};

const OLD: &str = "00:50:56:ab:00:01";
const NEW: &str = "52:54:00:cd:00:01";
const OTHER: &str = "00:50:56:ab:00:02";
const LINKS: (&str, &str) = ("/usr/lib/udev/rules.d/80-net-setup-link.rules", "rule\n");

/// A guest with these files, on a machine with cards of these addresses.
fn machine(files: &[(&str, &str)], macs: &[&str]) -> Machine {
    let fs = MemoryFs::new("ext4", Some("R"), None);
    for (path, text) in [("/etc/fstab", ""), ("/bin/sh", ""), ("/usr/lib/udev/rules.d/x", "")].iter().chain(files) {
        fs.add_file(path, text).unwrap();
    }
    let disk = MachineDisk { name: "sda".to_owned(), ..MachineDisk::default() };
    let card = |mac: &&str| MachineNic { mac: Some((*mac).to_owned()), model: None };
    Machine { disks: vec![disk], volumes: vec![volume(fs)], nics: macs.iter().map(card).collect(), uefi: false }
}

fn options(network: NetworkLevel, macs: &[&str]) -> Options {
    let mut options = Options { network, ..Options::default() };
    macs.iter().for_each(|mac| options.macs.add(mac).unwrap());
    options
}

fn plan(machine: &Machine, options: &Options) -> (Plan, Root) {
    let root = find_roots(machine).unwrap().remove(0);
    let facts = linux(&root.tree).unwrap();
    (plan_with(&facts, machine, &root, options).unwrap(), root)
}

/// What the plan of network fixes is, in lines; applied, it must leave nothing to plan.
fn shown(machine: &Machine, options: &Options) -> String {
    let (first, root) = plan(machine, options);
    apply(&first, &root.tree, Timestamp::default()).unwrap();
    let (again, _) = plan(machine, options);
    assert!(again.is_empty(), "planned again: {:#?}", again.actions);
    let mut shown = String::new();
    for action in first.actions.iter().filter(|action| action.fix == "network") {
        let (Change::Edit { diff, .. } | Change::Create { diff, .. }) = &action.change else { continue };
        shown.push_str(&format!("{}: {}\n", action.path, action.what));
        let changed = diff.lines().filter(|line| line.starts_with(['-', '+']));
        changed.for_each(|line| shown.push_str(&format!("{line}\n")));
    }
    for left in first.left.iter().filter(|left| !left.stops_boot) {
        shown.push_str(&format!("left {}: {} ({})\n", left.path, left.what, left.why));
    }
    shown
}

fn moderate(files: &[(&str, &str)], macs: &[&str], map: &[&str]) -> String {
    shown(&machine(files, macs), &options(NetworkLevel::Moderate, map))
}

#[test]
fn networkd_matches_are_translated() {
    let files = [
        LINKS,
        (
            "/etc/systemd/network/10-lan.network",
            "# the lan\n[Match]\nDriver = vmxnet3 e1000 ixgbe\n\n[Network]\nAddress=10.0.0.5/24\nGateway=10.0.0.1\nX-Own=1\n",
        ),
        ("/etc/systemd/network/05-lan.link", "[Match]\nPath=pci-0000:0b:00.0\n[Link]\nName=lan0\n"),
        (
            "/etc/systemd/network/06-more.link",
            "[Match]\r\nPath=pci-0000:0b:00.0\r\nOriginalName=e*\r\n[Link]\r\nName=lan1\r\n",
        ),
        ("/etc/systemd/network/20-usb.network", "[Match]\nPath=platform-x*\nDriver=!vmxnet3\n"),
        ("/etc/systemd/network/20-usb.network.d/a.conf", "[Match]\nDriver=hv_netvsc\n"),
    ];
    assert_eq!(
        moderate(&files, &[OLD], &[]),
        "/etc/systemd/network/05-lan.link: no longer match pci-0000:0b:00.0
-Path=pci-0000:0b:00.0
+Driver=virtio_net
/etc/systemd/network/06-more.link: no longer match pci-0000:0b:00.0
-Path=pci-0000:0b:00.0
+#Path=pci-0000:0b:00.0
/etc/systemd/network/10-lan.network: match the driver virtio_net
-Driver = vmxnet3 e1000 ixgbe
+Driver = virtio_net ixgbe
/etc/systemd/network/20-usb.network.d/a.conf: match the driver virtio_net
-Driver=hv_netvsc
+Driver=virtio_net
"
    );
    let of_two = moderate(&files[..3], &[OLD, OTHER], &[]);
    assert!(of_two.contains("left /etc/systemd/network/05-lan.link: it still matches pci-0000:0b:00.0"), "{of_two}");
    let careful = shown(&machine(&files, &[OLD]), &options(NetworkLevel::Conservative, &[]));
    assert!(!careful.contains("\n-") && careful.contains("only adds files"), "{careful}");
}

#[test]
fn networkmanager_connections_are_translated_and_keep_the_rest() {
    let bond = "[connection]\nid=bond0\ntype=bond\ninterface-name=bond0\n[bond]\nmode=active-backup\n[ipv4]\nmethod=manual\naddress1=10.0.0.5/24,10.0.0.1\n";
    let files = [
        LINKS,
        ("/etc/NetworkManager/system-connections/bond0.nmconnection", bond),
        (
            "/etc/NetworkManager/system-connections/a.nmconnection",
            "[connection]\nid=a\ntype=ethernet\ninterface-name=ens192\nmaster=bond0\nslave-type=bond\n# own\n[ethernet]\nmac-address=00:50:56:AB:00:01\n\
             cloned-mac-address=00:50:56:AB:00:01\n[match]\npath=pci-0000:0b:00.0;\n",
        ),
        (
            "/etc/NetworkManager/system-connections/b.nmconnection",
            "[connection]\ntype=ethernet\n[match]\ndriver=vmxnet3;e1000;\n",
        ),
        (
            "/etc/NetworkManager/NetworkManager.conf",
            "[main]\nplugins=keyfile\nno-auto-default=00:50:56:AB:00:01,\n[keyfile]\nunmanaged-devices=mac:00:50:56:ab:00:01;driver:vmxnet3;interface-name:x*\n",
        ),
    ];
    assert_eq!(
        moderate(&files, &[OLD], &[&format!("{OLD}={NEW}")]),
        "/etc/systemd/network/10-hyper2kvm-ens192.link: keep the name ens192
+[Match]
+Driver=virtio_net
+
+[Link]
+Name=ens192
/etc/NetworkManager/system-connections/a.nmconnection: follow the card to its new address; no longer match pci-0000:0b:00.0
-mac-address=00:50:56:AB:00:01
+mac-address=52:54:00:CD:00:01
-path=pci-0000:0b:00.0;
+#path=pci-0000:0b:00.0;
/etc/NetworkManager/system-connections/b.nmconnection: match the driver virtio_net
-driver=vmxnet3;e1000;
+driver=virtio_net;
/etc/NetworkManager/NetworkManager.conf: follow the card to its new address; match the driver virtio_net
-no-auto-default=00:50:56:AB:00:01,
+no-auto-default=52:54:00:CD:00:01,
-unmanaged-devices=mac:00:50:56:ab:00:01;driver:vmxnet3;interface-name:x*
+unmanaged-devices=mac:52:54:00:cd:00:01;driver:virtio_net;interface-name:x*
"
    );
}

#[test]
fn netplan_is_edited_in_its_own_layout() {
    let text = "# made by hand\nnetwork:\n  version: 2\n  ethernets:\n    lan:   # first\n      match:\n        macaddress: '00:50:56:AB:00:01' # card\n        driver:\n        - vmxnet3\n        - e1000\n        - ixgbe\n      set-name: ens192\n      macaddress: 00:50:56:ab:00:01\n      addresses: [10.0.0.5/24]\n    two: {match: {driver: \"vmxnet3\"}, dhcp4: true}\n  vlans:\n    v5: {id: 5, link: lan}\n";
    let files = [LINKS, ("/etc/netplan/50-cloud-init.yaml", text)];
    let made = moderate(&files, &[OLD], &[&format!("{OLD}={NEW}")]);
    assert_eq!(
        made,
        "/etc/systemd/network/10-hyper2kvm-ens192.link: keep the name ens192
+[Match]
+Driver=virtio_net
+
+[Link]
+Name=ens192
/etc/netplan/50-cloud-init.yaml: follow the card to its new address; match the driver virtio_net
-        macaddress: '00:50:56:AB:00:01' # card
+        macaddress: '52:54:00:CD:00:01' # card
-        - vmxnet3
-        - e1000
+        - virtio_net
+#        - e1000
-    two: {match: {driver: \"vmxnet3\"}, dhcp4: true}
+    two: {match: {driver: \"virtio_net\"}, dhcp4: true}
"
    );
    assert_eq!(moderate(&files[..1], &[OLD], &[]), "");
    // A layout that lines cannot be edited in is left, and said.
    let odd = "network: {version: 2, ethernets: {a: {match: {driver:\n [vmxnet3,\n e1000]}}}}\n";
    let left = moderate(&[LINKS, ("/etc/netplan/a.yaml", odd)], &[OLD], &[]);
    assert!(left.contains("laid out") && !left.contains('+'), "{left}");
    for hostile in [
        "network: [",
        "network:\n  ethernets: 5\n",
        "a: &a [*a]\n",
        "\u{0}",
        "network:\n  ethernets:\n    a:\n      match: x\n",
    ] {
        assert_eq!(moderate(&[LINKS, ("/etc/netplan/a.yaml", hostile)], &[OLD], &[]), "", "{hostile}");
    }
}

#[test]
fn ifcfg_files_keep_what_gives_addresses_and_lose_what_is_no_card_only_when_asked() {
    let files = [
        LINKS,
        (
            "/etc/sysconfig/network-scripts/ifcfg-ens192",
            "DEVICE=ens192\nHWADDR=\"00:50:56:AB:00:01\"\nMACADDR=00:50:56:ab:00:01\nMASTER=bond0\nSLAVE=yes\n",
        ),
        (
            "/etc/sysconfig/network-scripts/ifcfg-bond0",
            "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS=\"mode=1\"\nIPADDR=10.0.0.5\nPREFIX=24\n",
        ),
        ("/etc/sysconfig/network-scripts/ifcfg-bond0.5", "DEVICE=bond0.5\nVLAN=yes\nIPADDR=10.5.0.5\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-old", "DEVICE=old\nHWADDR=00:50:56:ff:ff:ff\n"),
    ];
    let link = "/etc/systemd/network/10-hyper2kvm-ens192.link: keep the name ens192\n+[Match]\n+Driver=virtio_net\n+\n+[Link]\n+Name=ens192\n";
    assert_eq!(moderate(&files, &[OLD], &[]), link);
    let mapped = moderate(&files, &[OLD], &[&format!("{OLD}={NEW}")]);
    let edit = "/etc/sysconfig/network-scripts/ifcfg-ens192: follow the card to its new address\n-HWADDR=\"00:50:56:AB:00:01\"\n+HWADDR=\"52:54:00:CD:00:01\"\n";
    assert_eq!(mapped, format!("{link}{edit}"));
    let aggressive = shown(&machine(&files, &[OLD]), &options(NetworkLevel::Aggressive, &[]));
    let drop = "/etc/sysconfig/network-scripts/ifcfg-old: no longer match 00:50:56:ff:ff:ff\n-HWADDR=00:50:56:ff:ff:ff\n+#HWADDR=00:50:56:ff:ff:ff\n";
    assert_eq!(aggressive, format!("{link}{drop}"));
}

/// RHEL 6, SLES 11, Ubuntu 14.04: names by a generated rule, and no `.link` files.
#[test]
fn rules_of_an_old_udev_follow_their_cards() {
    let rules = "# PCI device 0x15ad:0x07b0 (vmxnet3)\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:ab:00:01\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"\n\
        SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:ff:ff:ff\", NAME=\"eth7\"\n\
        SUBSYSTEM==\"block\", ATTR{address}==\"00:50:56:ab:00:01\", RUN+=\"x\"\n\
        SUBSYSTEM==\"net\", KERNELS==\"0000:0b:00.0\", DRIVERS==\"vmxnet3\", NAME=\"lan0\"\n";
    let files = [
        ("/etc/udev/rules.d/70-persistent-net.rules", rules),
        ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=00:50:56:ab:00:01\n"),
        ("/etc/modprobe.conf", "alias eth0 vmxnet3\nalias scsi_hostadapter x\nalias eth1 ixgbe\n"),
        ("/etc/modprobe.d/local.conf", "blacklist virtio_net\nblacklist pcspkr\n"),
        ("/etc/iftab", "eth0 mac 00:50:56:ab:00:01 arp 1\n"),
    ];
    let map = format!("{OLD}={NEW}");
    assert_eq!(
        shown(&machine(&files, &[OLD]), &options(NetworkLevel::Aggressive, &[&map])),
        "/etc/udev/rules.d/70-persistent-net.rules: follow the card to its new address; no longer match 00:50:56:ff:ff:ff; no longer match 0000:0b:00.0; match the driver virtio_net
-SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:ab:00:01\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"
-SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:ff:ff:ff\", NAME=\"eth7\"
+SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"52:54:00:cd:00:01\", ATTR{type}==\"1\", KERNEL==\"eth*\", NAME=\"eth0\"
+#SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:ff:ff:ff\", NAME=\"eth7\"
-SUBSYSTEM==\"net\", KERNELS==\"0000:0b:00.0\", DRIVERS==\"vmxnet3\", NAME=\"lan0\"
+SUBSYSTEM==\"net\", DRIVERS==\"virtio_net\", DRIVERS==\"virtio_net\", NAME=\"lan0\"
/etc/modprobe.d/local.conf: let virtio_net be loaded
-blacklist virtio_net
+#blacklist virtio_net
/etc/modprobe.conf: load virtio_net for eth0
-alias eth0 vmxnet3
+alias eth0 virtio_net
/etc/iftab: follow the card to its new address
-eth0 mac 00:50:56:ab:00:01 arp 1
+eth0 mac 52:54:00:cd:00:01 arp 1
/etc/sysconfig/network-scripts/ifcfg-eth0: follow the card to its new address
-HWADDR=00:50:56:ab:00:01
+HWADDR=52:54:00:cd:00:01
"
    );
}

/// Files that make the guest's kernel one that knows these modules, and finds its disks by drivers that are built in.
fn kernel_with(modules: &'static str, builtin: &'static str) -> [(&'static str, &'static str); 3] {
    [
        ("/boot/vmlinuz-2.6.18", ""),
        ("/lib/modules/2.6.18/modules.dep", modules),
        ("/lib/modules/2.6.18/modules.builtin", builtin),
    ]
}

const SATA: &str = "kernel/ahci.ko\nkernel/sd_mod.ko\n";

/// Every stack at once, in a guest whose kernel has no driver for virtio's card: all follow the card that it gets.
#[test]
fn every_stack_is_given_the_driver_of_the_card_that_the_machine_gets() {
    let stacks = [
        LINKS,
        ("/etc/systemd/network/10-lan.network", "[Match]\nDriver=vmxnet3 virtio_net e1000 ixgbe\n"),
        ("/etc/systemd/network/05-lan.link", "[Match]\nPath=pci-0000:0b:00.0\n[Link]\nName=lan0\n"),
        ("/etc/NetworkManager/system-connections/b", "[connection]\ntype=ethernet\n[match]\ndriver=vmxnet3;\n"),
        ("/etc/NetworkManager/system-connections/c", "[connection]\ntype=ethernet\n[match]\npath=pci-0000:0b:00.0;\n"),
        ("/etc/NetworkManager/conf.d/a.conf", "[keyfile]\nunmanaged-devices=driver:vmxnet3;driver:pcnet32\n"),
        (
            "/etc/netplan/a.yaml",
            "network:\n  ethernets:\n    lan:\n      match:\n        driver: vmxnet3\n    two: {match: {driver: [vmxnet3, e1000e]}}\n    \
             three:\n      match:\n        macaddress: '00:50:56:ff:ff:ff'\n",
        ),
        (
            "/etc/udev/rules.d/70-net.rules",
            "SUBSYSTEM==\"net\", KERNELS==\"0000:0b:00.0\", DRIVERS==\"vmxnet3\", NAME=\"lan0\"\n",
        ),
        (
            "/etc/modprobe.conf",
            "alias eth0 vmxnet3\nblacklist e1000e\nblacklist 8139cp\nblacklist e1000\nblacklist virtio_net\n",
        ),
        ("/etc/network/interfaces", "iface ens192 inet dhcp\n"),
    ];
    let edits = |driver: &str, dep: &'static str, builtin: &'static str| {
        let files: Vec<_> = stacks.into_iter().chain(kernel_with(dep, builtin)).collect();
        let shown = shown(&machine(&files, &[OLD]), &options(NetworkLevel::Aggressive, &[]));
        shown.lines().filter(|line| line.starts_with('+')).collect::<Vec<_>>().join("\n").replace(driver, "CARD")
    };
    let expected = "+[Match]
+Driver=CARD
+
+[Link]
+Name=ens192
+Driver=CARD
+Driver=CARD ixgbe
+driver=CARD;
+driver=CARD;
+unmanaged-devices=driver:CARD
+        driver: CARD
+    two: {match: {driver: [CARD]}}
+        driver: CARD
+SUBSYSTEM==\"net\", DRIVERS==\"CARD\", DRIVERS==\"CARD\", NAME=\"lan0\"
+alias eth0 CARD
+#blacklist CARD";
    let all = "kernel/e1000e.ko:\nkernel/e1000.ko:\nkernel/8139cp.ko:\nkernel/vmxnet3.ko:\n";
    assert_eq!(edits("e1000e", all, SATA), expected);
    assert_eq!(edits("8139cp", "kernel/8139cp.ko:\n", SATA), expected);
    assert_eq!(edits("virtio_net", "kernel/virtio_net.ko:\nkernel/e1000.ko:\n", SATA), expected);
    // The chipset that has IDE has no PCI Express, and so no e1000e.
    assert_eq!(edits("e1000", all, "kernel/ata_piix.ko\nkernel/sd_mod.ko\n"), expected);
    // Of a kernel without any card's driver nothing is known that would be better than virtio's.
    assert_eq!(edits("virtio_net", "kernel/loop.ko:\n", SATA), expected);
}

#[test]
fn a_udev_without_link_files_gets_a_rule() {
    let files = [("/etc/network/interfaces", "auto ens32\niface ens32 inet static\n address 10.0.0.5/24\n")];
    assert_eq!(
        moderate(&files, &[OLD], &[]),
        "/etc/udev/rules.d/70-hyper2kvm-net.rules: keep the name ens32
+SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"virtio_net\", NAME=\"ens32\"
"
    );
}

#[test]
fn several_cards_are_told_by_what_is_certain() {
    let names = "iface enx005056ab0001 inet dhcp\niface ens224 inet dhcp\n";
    let files = [LINKS, ("/etc/network/interfaces", names)];
    let link = |name: &str, mac: &str| {
        format!(
            "/etc/systemd/network/10-hyper2kvm-{name}.link: keep the name {name}\n+[Match]\n+MACAddress={mac}\n+Driver=virtio_net\n+\n+[Link]\n+Name={name}\n"
        )
    };
    // The one by its name, the other since it is the only one left.
    let both = link("ens224", OTHER) + &link("enx005056ab0001", NEW);
    assert_eq!(moderate(&files, &[OLD, OTHER], &[&format!("{OLD}={NEW}")]), both);
    // A third card could be either.
    let three = moderate(&files, &[OLD, OTHER, "00:50:56:ab:00:03"], &[]);
    assert!(
        three.starts_with(&link("enx005056ab0001", OLD)) && three.contains("left /etc/network/interfaces: ens224"),
        "{three}"
    );
    // Nothing is known of the machine.
    let none = moderate(&files, &[], &[]);
    assert!(!none.contains('+') && none.matches("left ").count() == 2, "{none}");
}

#[test]
fn ties_are_said_where_they_depend_on_the_machine() {
    let pin = "SUBSYSTEM==\"net\", ATTR{address}==\"00:50:56:ab:00:01\", NAME=\"ens192\"\n";
    let files = [
        LINKS,
        ("/etc/udev/rules.d/70-persistent-net.rules", pin),
        ("/etc/network/interfaces", "iface ens192 inet dhcp\n"),
    ];
    assert_eq!(moderate(&files, &[OLD], &[]), "");
    assert!(moderate(&files, &[], &[]).contains("must keep that address"));
    assert!(moderate(&files, &[OTHER], &[]).contains("no card's of this machine"));
    let aggressive = shown(&machine(&files, &[OTHER]), &options(NetworkLevel::Aggressive, &[]));
    assert!(aggressive.contains("+#SUBSYSTEM") && aggressive.contains("+Name=ens192"), "{aggressive}");
}

#[test]
fn a_machine_that_nobody_describes_has_the_cards_that_its_guest_is_tied_to() {
    let cards = |files: &[(&str, &str)], map: &[&str]| -> Vec<String> {
        let machine = machine(files, &[]);
        let root = find_roots(&machine).unwrap().remove(0);
        let macs = options(NetworkLevel::Moderate, map).macs;
        super::of_guest(&linux(&root.tree).unwrap(), &macs).into_iter().filter_map(|nic| nic.mac).collect()
    };
    let eth0 = ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nHWADDR=00:50:56:AB:00:01\n");
    let eth1 = ("/etc/sysconfig/network-scripts/ifcfg-eth1", "DEVICE=eth1\n");
    assert_eq!(cards(&[eth0], &[]), [OLD]);
    assert!(cards(&[eth0, eth1], &[]).is_empty());
    assert_eq!(cards(&[eth0, eth1], &[OTHER, OLD]), [OTHER, OLD]);
    assert!(cards(&[], &[]).is_empty());
}

#[test]
fn a_command_line_that_names_cards_is_said() {
    let grub = "menuentry 'x' {\n linux /boot/vmlinuz root=UUID=R ip=ens192:dhcp ifname=ens192:00:50:56:ab:00:01\n}\n";
    let files = [
        LINKS,
        ("/etc/network/interfaces", "iface ens192 inet dhcp\n"),
        ("/boot/grub/grub.cfg", grub),
        ("/boot/vmlinuz", ""),
    ];
    let said = moderate(&files, &[OLD], &[&format!("{OLD}={NEW}")]);
    assert!(said.contains("ip=ens192:dhcp on the kernel's") && said.contains("ifname=ens192"), "{said}");
}

/// Whatever is in the files, planning ends, and a second plan finds nothing to do.
#[test]
fn hostile_files_are_left_not_fatal() {
    let long = format!("[Match]\nDriver={}\n", "vmxnet3 ".repeat(20_000));
    let deep = format!("network: {}", "{a: ".repeat(5_000));
    let hostile = [
        long.as_str(),
        &deep,
        "",
        "\0\u{1b}[2J=\"\n[Match]\nDriver=\nPath=pci-\nMACAddress=zz\n",
        "SUBSYSTEM==\"net\", DRIVERS==\"vmxnet3\n\"\"\"\"==\"\\\n\\\n",
        "HWADDR=\nHWADDR=\"\nHWADDR\n=\n",
        "alias\nalias eth0\nalias eth0 vmxnet3 vmxnet3\nblacklist\n",
        "network:\n match:\n  driver: vmxnet3\n  driver: vmxnet3\n",
        "network:\n  ethernets:\n    é:\n      match:\n        driver: [vmxnet3, vmxnet3]\n        macaddress: 00:50:56:ab:00:01é\n",
        "[ethernet]\nmac-address=00:50:56:ab:00:01;00:50:56:ab:00:01\n[match]\ndriver=;;;vmxnet3\npath=;\n",
    ];
    for place in [
        "/etc/systemd/network/a.link",
        "/etc/NetworkManager/system-connections/a",
        "/etc/NetworkManager/NetworkManager.conf",
        "/etc/netplan/a.yaml",
        "/etc/udev/rules.d/a.rules",
        "/etc/modprobe.conf",
        "/etc/iftab",
        "/etc/sysconfig/network/ifcfg-a",
    ] {
        for text in hostile {
            shown(
                &machine(&[LINKS, (place, text)], &[OLD]),
                &options(NetworkLevel::Aggressive, &[&format!("{OLD}={NEW}")]),
            );
        }
    }
}
