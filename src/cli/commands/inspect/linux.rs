//! What `inspect` prints about a Linux.

use super::text::Rows;
use crate::inspect::network::{Interface, Method};
use crate::inspect::{Init, Linux};

pub(super) fn add(facts: &Linux, rows: &mut Rows) {
    let os = &facts.os;
    rows.add("system", os.pretty_name.as_ref().or(os.id.as_ref()));
    rows.add("edition", os.variant.as_ref());
    rows.add("osinfo", os.osinfo.as_ref());
    rows.add("host name", facts.hostname.as_ref());
    rows.add("architecture", facts.arch.as_ref());
    rows.add("init", init(&facts.init));
    let packaging = &facts.packaging;
    rows.add(
        "packages",
        packaging.format.map(|format| match packaging.management {
            Some(program) if program != format => format!("{format}, installed by {program}"),
            _ => format.to_owned(),
        }),
    );
    for kernel in &facts.kernels {
        let release = kernel.release.as_deref().unwrap_or("unknown release");
        let default = if kernel.default { ", started by default" } else { "" };
        rows.add("kernel", Some(format!("{release}: {}{default}", kernel.image)));
        for image in &kernel.initramfs {
            rows.add("initramfs", Some(image));
        }
    }
    for loader in &facts.bootloaders {
        rows.add("boot loader", Some(format!("{}: {}", loader.kind.name(), loader.config)));
    }
    for program in &facts.efi_programs {
        rows.add("EFI program", Some(&program.path));
    }
    for entry in facts.boot_entries.iter().filter(|entry| entry.default) {
        rows.add("starts", Some(entry.title.as_ref().unwrap_or(&entry.kernel)));
        rows.add("arguments", Some(&entry.options).filter(|options| !options.is_empty()));
    }
    for interface in &facts.interfaces {
        rows.add("interface", Some(interface_text(interface)));
    }
    for swap in &facts.swap {
        rows.add("swap", Some(&swap.spec));
    }
    for lease in &facts.leases {
        rows.add("last lease", Some(format!("{}: {}", lease.interface, lease.address)));
    }
    let security = &facts.security;
    rows.add("SELinux", security.selinux.as_ref().map(|selinux| format!("{:?}", selinux.mode).to_lowercase()));
    rows.add("AppArmor", security.apparmor.map(|on| if on { "on" } else { "off" }));
    for encrypted in &security.encryption {
        rows.add("encrypted", Some(format!("{} on {}", encrypted.name, encrypted.device)));
    }
    rows.add("Secure Boot", security.secure_boot.shim.then_some("has a shim"));
    security.tpm.iter().for_each(|user| rows.add("TPM", Some(user)));
    for tool in &facts.tools {
        rows.add("tools", Some(format!("{}: {}", tool.hypervisor, tool.unit.unwrap_or(&tool.path))));
    }
    facts.notes.iter().for_each(|note| rows.add("note", Some(note)));
}

fn init(init: &Init) -> Option<String> {
    Some(match init {
        Init::Openrc => "OpenRC".to_owned(),
        Init::Runit => "runit".to_owned(),
        Init::Systemd(Some(version)) => format!("systemd {version}"),
        Init::Systemd(None) => "systemd".to_owned(),
        Init::Sysvinit => "System V init".to_owned(),
        Init::Unknown => return None,
        Init::Upstart => "Upstart".to_owned(),
    })
}

fn interface_text(interface: &Interface) -> String {
    let name = interface.name.as_ref().or(interface.matches.as_ref()).or(interface.mac.as_ref());
    let mut words = vec![name.map_or_else(|| "every interface".to_owned(), Clone::clone)];
    let methods = [(interface.ipv4, "DHCP"), (interface.ipv6, "DHCPv6")];
    words.extend(methods.iter().filter(|(method, _)| *method == Method::Dhcp).map(|(_, name)| (*name).to_owned()));
    words.extend(interface.addresses.iter().cloned());
    words.extend(interface.gateways.iter().map(|gateway| format!("by {gateway}")));
    words.extend(interface.parent.iter().map(|parent| format!("on {parent}")));
    words.extend(interface.vlan.map(|vlan| format!("VLAN {vlan}")));
    if !interface.members.is_empty() {
        words.push(format!("of {}", interface.members.join(", ")));
    }
    format!("{} ({}, {})", words.join(" "), interface.manager, interface.source)
}
