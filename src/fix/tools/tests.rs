//! Guests of each hypervisor and each init, with what is done to their tools.

use super::super::tests::small::{machine, planned};
use super::super::{Change, Undo, apply};
use crate::fs::Timestamp;

const SYSTEMD: (&str, &str) = ("/usr/lib/systemd/systemd", "\u{7f}ELF");
const SYSV: (&str, &str) = ("/etc/inittab", "id:3:initdefault:\n");

/// What is done, in lines; applied, it must leave nothing to plan, and undone, everything.
fn shown(files: &[(&str, &str)]) -> String {
    let machine = machine(files);
    let (first, root) = planned(&machine);
    let report = apply(&first, &root.tree, Timestamp::default()).unwrap();
    assert!(planned(&machine).0.is_empty(), "{:#?}", planned(&machine).0.actions);
    let mut shown = String::new();
    for action in first.actions.iter().filter(|action| !matches!(action.change, Change::CreateDir { .. })) {
        let change = match &action.change {
            Change::Edit { diff, .. } | Change::Create { diff, .. } => {
                let lines: Vec<&str> = diff.lines().filter(|line| line.starts_with(['-', '+'])).collect();
                lines.join(" ")
            }
            Change::Link { target, .. } => format!("-> {target}"),
            Change::Rename { to } => format!("=> {to}"),
            Change::Remove { .. } => "gone".to_owned(),
            other => panic!("{other:?}"),
        };
        shown.push_str(&format!("{}: {change}\n", action.path));
    }
    for left in first.left.iter().filter(|left| !left.stops_boot) {
        shown.push_str(&format!("left {}: {} ({})\n", left.path, left.what, left.why));
    }
    Undo::decode(&report.undo.encode().unwrap()).unwrap().apply(&root.tree).unwrap();
    let (again, _) = planned(&machine);
    assert_eq!(serde_json::to_string(&again).unwrap(), serde_json::to_string(&first).unwrap());
    shown
}

#[test]
fn vmware_tools_of_the_tarball_under_system_v() {
    let files = [
        SYSV,
        ("/etc/vmware-tools/locations", "answer BINDIR /usr/bin\n"),
        ("/usr/bin/vmware-uninstall-tools.pl", "#!/usr/bin/perl\n"),
        ("/etc/rc.d/init.d/vmware-tools", "#!/bin/sh\n"),
        ("/etc/init.d->rc.d/init.d", ""),
        ("/etc/rc3.d->rc.d/rc3.d", ""),
        ("/etc/rc.d/rc3.d/S03vmware-tools->../init.d/vmware-tools", ""),
        ("/etc/rc.d/rc3.d/S10network->../init.d/network", ""),
        ("/etc/rc.d/rc5.d/S03vmware-tools->../init.d/vmware-tools", ""),
        ("/etc/rc.d/rc5.d/K98vmware-tools->../init.d/vmware-tools", ""),
        ("/etc/rc.d/rc3.d/S05kudzu->../init.d/kudzu", ""),
        ("/etc/rc.d/init.d/kudzu", "#!/bin/sh\n"),
        ("/etc/modules", "loop\nvmhgfs\n vmw-balloon\n# vmxnet\nvmxnet3\n"),
        (
            "/etc/fstab",
            "# c\n.host:/\t/mnt/hgfs\tvmhgfs\tdefaults,ttl=5\t0 0 # own\n.host:/x /x fuse.vmhgfs-fuse\nshare /s vboxsf noauto 0 0\n",
        ),
    ];
    assert_eq!(
        shown(&files),
        "/etc/rc.d/rc3.d/S03vmware-tools: => /etc/rc.d/rc3.d/K97vmware-tools
/etc/rc.d/rc5.d/S03vmware-tools: gone
/etc/fstab: -.host:/\t/mnt/hgfs\tvmhgfs\tdefaults,ttl=5\t0 0 # own -.host:/x /x fuse.vmhgfs-fuse +.host:/\t/mnt/hgfs\tvmhgfs\tdefaults,ttl=5,noauto\t0 0 # own +.host:/x /x fuse.vmhgfs-fuse defaults,noauto
/etc/modules: -vmhgfs - vmw-balloon +#vmhgfs +# vmw-balloon
/etc/rc.d/rc3.d/S05kudzu: => /etc/rc.d/rc3.d/K95kudzu
left /usr/bin/vmware-uninstall-tools.pl: software for vmware stays (it was installed without a package; it removes itself when it is run)
"
    );
}

#[test]
fn every_hypervisors_units_and_scripts_are_masked_under_systemd() {
    let files = [
        SYSTEMD,
        ("/usr/lib/systemd/system/open-vm-tools.service", "[Unit]\n"),
        ("/etc/init.d/open-vm-tools", "#!/bin/sh\n"),
        ("/etc/init.d/vmware-tools", "#!/bin/sh\n"),
        ("/usr/lib/systemd/system/virtualbox-guest-utils.service", "[Unit]\n"),
        ("/usr/lib/systemd/system/hyperv-daemons.hv-kvp-daemon.service", "[Unit]\n"),
        ("/usr/lib/systemd/system/hypervvssd.service", "[Unit]\n"),
        ("/etc/init.d/prltoolsd", "#!/bin/sh\n"),
        ("/etc/init.d/xe-linux-distribution", "#!/bin/sh\n"),
        ("/usr/lib/systemd/system/qemu-guest-agent.service", "[Unit]\n"),
        ("/usr/lib/systemd/system/spice-vdagentd.service", "[Unit]\n"),
        ("/usr/lib/modules-load.d/virtualbox-guest-modules.conf", "vboxguest\nvboxsf\n"),
        ("/usr/lib/modules-load.d/fuse.conf", "fuse\n"),
        ("/etc/modules-load.d/own.conf", "hv_vmbus\nbr_netfilter\n"),
        ("/var/lib/VBoxGuestAdditions/config", "INSTALL_DIR='/opt/VBox'\n"),
    ];
    assert_eq!(
        shown(&files),
        "/etc/systemd/system/open-vm-tools.service: -> /dev/null
/etc/systemd/system/virtualbox-guest-utils.service: -> /dev/null
/etc/systemd/system/hypervvssd.service: -> /dev/null
/etc/systemd/system/hyperv-daemons.hv-kvp-daemon.service: -> /dev/null
/etc/systemd/system/vmware-tools.service: -> /dev/null
/etc/systemd/system/prltoolsd.service: -> /dev/null
/etc/systemd/system/xe-linux-distribution.service: -> /dev/null
/etc/modules-load.d/own.conf: -hv_vmbus +#hv_vmbus
/etc/modules-load.d/virtualbox-guest-modules.conf: +#vboxguest +#vboxsf
left /var/lib/VBoxGuestAdditions/config: software for virtualbox stays (it was installed without a package; uninstall.sh in INSTALL_DIR removes it)
"
    );
}

#[test]
fn jobs_of_upstart_are_overridden_where_it_can_be_done() {
    let ubuntu = [
        ("/sbin/init", "\u{7f}ELF"),
        ("/sbin/initctl", ""),
        ("/etc/init/rc.conf", ""),
        ("/etc/init/open-vm-tools.conf", "start on filesystem\n"),
        ("/etc/init/hv-kvp-daemon.conf", "start on x\n"),
        ("/etc/init/hv-kvp-daemon.override", "manual\n"),
        ("/etc/init/hv-vss-daemon.conf", "start on x\n"),
        ("/etc/init/hv-vss-daemon.override", "nice 5\n"),
    ];
    assert_eq!(
        shown(&ubuntu),
        "/etc/init/open-vm-tools.override: +manual
left /etc/init/hv-vss-daemon.override: hv-vss-daemon is still started (the administrator has an override of their own)
"
    );
    let red_hat =
        [ubuntu[0], ubuntu[1], ubuntu[2], ubuntu[3], ("/etc/redhat-release", "CentOS release 6.10 (Final)\n")];
    assert_eq!(
        shown(&red_hat),
        "left /etc/init/open-vm-tools.conf: open-vm-tools is still started (this guest's Upstart is too old to have it overridden)\n"
    );
}

#[test]
fn openrc_forgets_its_links() {
    let files = [
        ("/sbin/openrc", "\u{7f}ELF"),
        ("/etc/init.d/open-vm-tools", "#!/sbin/openrc-run\n"),
        ("/etc/runlevels/boot/open-vm-tools->/etc/init.d/open-vm-tools", ""),
        ("/etc/runlevels/default/sshd->/etc/init.d/sshd", ""),
    ];
    assert_eq!(shown(&files), "/etc/runlevels/boot/open-vm-tools: gone\n");
}
