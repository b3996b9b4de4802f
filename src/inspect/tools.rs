//! What runs as process 1, and software that belongs to the old hypervisor.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::Reader;
use crate::error::Result;
use crate::fs::Tree;

/// What runs as process 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase", tag = "kind", content = "version")]
pub enum Init {
    /// OpenRC.
    Openrc,
    /// runit.
    Runit,
    /// systemd, with its version where its library tells.
    Systemd(Option<u32>),
    /// System V init.
    Sysvinit,
    /// Not recognised.
    #[default]
    Unknown,
    /// Upstart.
    Upstart,
}

/// Software for one hypervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Tool {
    /// `vmware`, `virtualbox`, `hyper-v`, `xen`, `parallels`, or `kvm` for what the guest is to keep.
    pub hypervisor: &'static str,
    /// The systemd unit, where it has one.
    pub unit: Option<&'static str>,
    /// The file that shows that it is installed.
    pub path: String,
}

/// Unit directories in the order in which systemd prefers them.
pub(crate) const UNIT_DIRS: &[&str] = &["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

const UNITS: &[(&str, &str)] = &[
    ("vmware", "open-vm-tools.service"),
    ("vmware", "vmtoolsd.service"),
    ("vmware", "vgauth.service"),
    ("vmware", "vgauthd.service"),
    ("vmware", "vmware-tools.service"),
    ("vmware", "vmware-tools-thinprint.service"),
    ("vmware", "vmware-vmblock-fuse.service"),
    ("virtualbox", "vboxadd.service"),
    ("virtualbox", "vboxadd-service.service"),
    ("virtualbox", "vboxadd-x11.service"),
    ("virtualbox", "vboxservice.service"),
    ("virtualbox", "vboxclient.service"),
    ("virtualbox", "virtualbox-guest-utils.service"),
    ("hyper-v", "hv-kvp-daemon.service"),
    ("hyper-v", "hypervkvpd.service"),
    ("hyper-v", "hv-vss-daemon.service"),
    ("hyper-v", "hv-fcopy-daemon.service"),
    ("hyper-v", "hypervvssd.service"),
    ("hyper-v", "hypervfcopyd.service"),
    ("hyper-v", "hv_kvp_daemon.service"),
    ("hyper-v", "hv_vss_daemon.service"),
    ("hyper-v", "hv_fcopy_daemon.service"),
    ("hyper-v", "hyperv-daemons.hv-kvp-daemon.service"),
    ("hyper-v", "hyperv-daemons.hv-vss-daemon.service"),
    ("hyper-v", "hyperv-daemons.hv-fcopy-daemon.service"),
    ("kvm", "qemu-guest-agent.service"),
    ("kvm", "spice-vdagentd.service"),
    ("parallels", "prltoolsd.service"),
    ("xen", "xe-daemon.service"),
    ("xen", "xe-linux-distribution.service"),
];

const FILES: &[(&str, Option<&str>, &str)] = &[
    ("vmware", Some("vmware-tools.service"), "/etc/init.d/vmware-tools"),
    ("vmware", None, "/usr/bin/vmware-uninstall-tools.pl"),
    ("virtualbox", None, "/var/lib/VBoxGuestAdditions/config"),
    ("virtualbox", Some("vboxadd.service"), "/etc/init.d/vboxadd"),
    ("virtualbox", Some("vboxadd-service.service"), "/etc/init.d/vboxadd-service"),
    ("virtualbox", Some("vboxadd-x11.service"), "/etc/init.d/vboxadd-x11"),
    ("virtualbox", Some("virtualbox-guest-utils.service"), "/etc/init.d/virtualbox-guest-utils"),
    ("virtualbox", Some("virtualbox-guest-additions.service"), "/etc/init.d/virtualbox-guest-additions"),
    ("vmware", Some("open-vm-tools.service"), "/etc/init.d/open-vm-tools"),
    ("vmware", Some("vmtoolsd.service"), "/etc/init.d/vmtoolsd"),
    ("vmware", Some("vmware-tools-thinprint.service"), "/etc/init.d/vmware-tools-thinprint"),
    ("vmware", None, "/etc/init/vmware-tools.conf"),
    ("vmware", None, "/etc/init/vmware-tools-thinprint.conf"),
    ("vmware", None, "/etc/init/open-vm-tools.conf"),
    ("hyper-v", Some("hypervkvpd.service"), "/etc/init.d/hypervkvpd"),
    ("hyper-v", Some("hypervvssd.service"), "/etc/init.d/hypervvssd"),
    ("hyper-v", Some("hv_kvp_daemon.service"), "/etc/init.d/hv_kvp_daemon"),
    ("hyper-v", Some("hv_vss_daemon.service"), "/etc/init.d/hv_vss_daemon"),
    ("hyper-v", Some("hv_fcopy_daemon.service"), "/etc/init.d/hv_fcopy_daemon"),
    ("hyper-v", None, "/etc/init/hv-kvp-daemon.conf"),
    ("hyper-v", None, "/etc/init/hv-vss-daemon.conf"),
    ("hyper-v", None, "/etc/init/hv-fcopy-daemon.conf"),
    ("parallels", Some("prltoolsd.service"), "/etc/init.d/prltoolsd"),
    ("parallels", Some("prltools_updater.service"), "/etc/init.d/prltools_updater"),
    ("parallels", None, "/usr/lib/parallels-tools/install"),
    ("xen", Some("xe-linux-distribution.service"), "/etc/init.d/xe-linux-distribution"),
    ("xen", Some("xe-daemon.service"), "/etc/init.d/xe-daemon"),
];

pub(super) fn find(tree: &Tree) -> Result<Vec<Tool>> {
    let mut tools: Vec<Tool> = Vec::new();
    for (hypervisor, unit) in UNITS {
        if let Some(path) = unit_file(tree, unit)? {
            tools.push(Tool { hypervisor, unit: Some(unit), path });
        }
    }
    for (hypervisor, unit, path) in FILES {
        let known = unit.is_some() && tools.iter().any(|tool| tool.unit == *unit);
        if !known && tree.is_file(path)? {
            tools.push(Tool { hypervisor, unit: *unit, path: (*path).to_owned() });
        }
    }
    Ok(tools)
}

/// The file that a package or an administrator installed for a unit. Links (aliases, masks) are not files.
pub(crate) fn unit_file(tree: &Tree, unit: &str) -> Result<Option<String>> {
    for dir in UNIT_DIRS {
        let path = format!("{dir}/{unit}");
        let found = tree.find_link(&path)?.filter(|found| found.stat.kind == crate::fs::FileKind::Regular);
        if let Some(path) = found.and_then(|found| found.text().map(str::to_owned)) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

pub(super) fn init(reader: &mut Reader<'_>) -> Result<Init> {
    let tree = reader.tree;
    let program = tree.find("/sbin/init")?.map(|found| found.path).unwrap_or_default();
    let is_systemd = program.ends_with(b"/systemd");
    if is_systemd || (program.is_empty() && tree.is_file("/usr/lib/systemd/systemd")?) {
        return Ok(Init::Systemd(systemd_version(tree)?));
    }
    let is_openrc =
        program.ends_with(b"/openrc-init") || tree.is_file("/sbin/openrc")? || tree.is_file("/usr/bin/openrc")?;
    Ok(if is_openrc {
        Init::Openrc
    } else if program.ends_with(b"/runit-init") {
        Init::Runit
    } else if tree.is_file("/sbin/initctl")? && tree.is_dir("/etc/init")? {
        Init::Upstart
    } else if tree.is_file("/etc/inittab")? {
        Init::Sysvinit
    } else {
        Init::Unknown
    })
}

/// systemd's private library carries its version: `libsystemd-shared-252.so`, `libsystemd-core-257.4-1.so`.
fn systemd_version(tree: &Tree) -> Result<Option<u32>> {
    for dir in ["/usr/lib/systemd", "/lib/systemd", "/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib64/systemd"] {
        for entry in tree.list(dir)? {
            let rest = entry.text().and_then(|name| name.strip_prefix("libsystemd-shared-"));
            let version = rest.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
            if version.is_some() {
                return Ok(version);
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    #[test]
    fn finds_units_but_not_their_aliases_and_masks() {
        let fs = MemoryFs::default();
        fs.add_file("/lib/systemd/system/open-vm-tools.service", "").unwrap();
        fs.add_link("/etc/systemd/system/vmtoolsd.service", "/lib/systemd/system/open-vm-tools.service").unwrap();
        fs.add_link("/etc/systemd/system/vgauth.service", "/dev/null").unwrap();
        fs.add_file("/etc/init.d/vmware-tools", "").unwrap();
        let tree = Tree::new(Arc::new(fs));
        let units: Vec<_> = find(&tree).unwrap().into_iter().map(|tool| tool.unit.unwrap()).collect();
        assert_eq!(units, ["open-vm-tools.service", "vmware-tools.service"]);
    }

    #[test]
    fn tells_process_1() {
        let init_of = |paths: &[&str], link: Option<&str>| {
            let fs = MemoryFs::default();
            for path in paths {
                fs.add_file(path, "").unwrap();
            }
            if let Some(target) = link {
                fs.add_link("/sbin/init", target).unwrap();
            }
            let tree = Tree::new(Arc::new(fs));
            init(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap()
        };
        let systemd = ["/lib/systemd/systemd", "/usr/lib/systemd/libsystemd-shared-252.so"];
        assert_eq!(init_of(&systemd, Some("/lib/systemd/systemd")), Init::Systemd(Some(252)));
        assert_eq!(init_of(&["/sbin/init", "/etc/inittab"], None), Init::Sysvinit);
        assert_eq!(init_of(&["/sbin/init", "/sbin/openrc"], None), Init::Openrc);
        assert_eq!(init_of(&["/sbin/init", "/sbin/initctl", "/etc/init/rc.conf"], None), Init::Upstart);
        assert_eq!(init_of(&[], None), Init::Unknown);
    }
}
