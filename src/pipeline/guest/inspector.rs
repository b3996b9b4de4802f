//! The installed systems as virt-inspector(1) describes them, for programs that read its XML (virt-inspector.rng).

use super::{Guest, System};
use crate::inspect::{Facts, Linux, Mount, Volume, Windows};
use crate::xml::Writer;

impl Guest {
    /// A document in virt-inspector's schema, with an element for each installed system.
    ///
    /// Names of disks are `/dev/sda` … in the machine's order, as virt-inspector's appliance has them. What the schema has no
    /// word for, such as a distribution that libguestfs does not know, is left out.
    #[must_use]
    pub fn inspector_xml(&self) -> String {
        let mut xml = Writer::default();
        xml.open("operatingsystems", &[]);
        for system in &self.systems {
            xml.open("operatingsystem", &[]);
            self.system_xml(system, &mut xml);
            xml.close();
        }
        format!("<?xml version=\"1.0\"?>\n{}", xml.finish())
    }

    fn system_xml(&self, system: &System, xml: &mut Writer) {
        if let Some(root) = system.root.mounts.first() {
            xml.text("root", &[], &self.device(root));
        }
        match &system.facts {
            Facts::Linux(facts) => linux(facts, xml),
            Facts::Windows(facts) => windows(facts, xml),
        }
        xml.open("mountpoints", &[]);
        for mount in &system.root.mounts {
            xml.text("mountpoint", &[("dev", &self.device(mount))], &mount.at);
        }
        xml.close();
        xml.open("filesystems", &[]);
        for mount in &system.root.mounts {
            if let Some(volume) = self.machine.volumes.get(mount.volume) {
                filesystem(&self.device(mount), volume, xml);
            }
        }
        xml.close();
    }

    /// What libguestfs calls a mounted file system: `/dev/sda1`, `/dev/vg0/root`, `btrfsvol:/dev/sda2/@`.
    fn device(&self, mount: &Mount) -> String {
        let Some(volume) = self.machine.volumes.get(mount.volume) else { return String::new() };
        let name = match (&volume.mapper, volume.aliases.first()) {
            (Some(_), Some(alias)) => alias.clone(),
            (Some(mapper), None) => mapper.clone(),
            (None, _) => format!("/dev/{}", self.machine.name_of(volume)),
        };
        match mount.subvolume.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => format!("btrfsvol:{name}/{path}"),
            None => name,
        }
    }
}

fn linux(facts: &Linux, xml: &mut Writer) {
    let mut field = |name, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            xml.text(name, &[], value);
        }
    };
    let os = &facts.os;
    let version = os.version.unwrap_or_default();
    field("name", Some("linux"));
    field("arch", facts.arch.as_deref().map(arch));
    field("distro", os.id.as_deref().and_then(|id| distribution(id, &os.id_like)));
    field("product_name", os.pretty_name.as_deref());
    field("product_variant", os.variant.as_deref());
    field("major_version", Some(&version.major.to_string()));
    field("minor_version", Some(&version.minor.to_string()));
    field("package_format", facts.packaging.format.filter(|format| FORMATS.contains(format)));
    field("package_management", facts.packaging.management.filter(|program| MANAGERS.contains(program)));
    field("hostname", facts.hostname.as_deref());
    field("build_id", os.build_id.as_deref());
    field("osinfo", os.osinfo.as_deref());
}

fn windows(facts: &Windows, xml: &mut Writer) {
    let mut field = |name, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            xml.text(name, &[], value);
        }
    };
    let product = &facts.product;
    let version = product.version.unwrap_or_default();
    field("name", Some("windows"));
    field("arch", facts.arch.as_deref().map(arch));
    field("distro", Some("windows"));
    field("product_name", product.registered_name.as_deref());
    field("product_variant", product.variant.as_deref());
    field("major_version", Some(&version.major.to_string()));
    field("minor_version", Some(&version.minor.to_string()));
    field("windows_systemroot", Some(&facts.system_root));
    field("windows_current_control_set", facts.control_set.as_deref());
    field("hostname", facts.hostname.as_deref());
    field("osinfo", product.osinfo.as_deref());
}

fn filesystem(device: &str, volume: &Volume, xml: &mut Writer) {
    xml.open("filesystem", &[("dev", device)]);
    for (name, value) in [("type", &volume.fs_kind), ("label", &volume.fs_label), ("uuid", &volume.fs_uuid)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            xml.text(name, &[], value);
        }
    }
    xml.close();
}

/// The package formats that the schema knows.
const FORMATS: &[&str] = &["apk", "deb", "ebuild", "pacman", "pisi", "pkgsrc", "rpm", "xbps"];

/// The package managers that the schema knows.
const MANAGERS: &[&str] =
    &["apk", "apt", "dnf", "pacman", "pisi", "portage", "up2date", "urpmi", "xbps", "yum", "zypper"];

/// libguestfs's word for an architecture that `uname -m` calls `machine`.
fn arch(machine: &str) -> &str {
    match machine {
        "i686" => "i386",
        "armv7l" => "arm",
        other => other,
    }
}

/// libguestfs's word for a distribution, by its id or by what it descends from.
fn distribution(id: &str, like: &[String]) -> Option<&'static str> {
    const NAMES: &[(&str, &str)] = &[
        ("alpine", "alpinelinux"),
        ("altlinux", "altlinux"),
        ("arch", "archlinux"),
        ("archarm", "archlinux"),
        ("buildroot", "buildroot"),
        ("centos", "centos"),
        ("cirros", "cirros"),
        ("coreos", "coreos"),
        ("debian", "debian"),
        ("fedora", "fedora"),
        ("frugalware", "frugalware"),
        ("gentoo", "gentoo"),
        ("kali", "kalilinux"),
        ("kylin", "kylin"),
        ("linuxmint", "linuxmint"),
        ("mageia", "mageia"),
        ("mandriva", "mandriva"),
        ("meego", "meego"),
        ("neokylin", "neokylin"),
        ("ol", "oraclelinux"),
        ("openmandriva", "openmandriva"),
        ("opensuse", "opensuse"),
        ("opensuse-leap", "opensuse"),
        ("opensuse-tumbleweed", "opensuse"),
        ("pardus", "pardus"),
        ("pld", "pldlinux"),
        ("rhel", "rhel"),
        ("rocky", "rocky"),
        ("scientific", "scientificlinux"),
        ("slackware", "slackware"),
        ("sled", "sles"),
        ("sles", "sles"),
        ("ttylinux", "ttylinux"),
        ("ubuntu", "ubuntu"),
        ("void", "voidlinux"),
    ];
    let named = NAMES.iter().find(|(name, _)| *name == id).map(|(_, word)| *word);
    named.or_else(|| {
        let descends = |from: &str| like.iter().any(|name| name == from);
        if descends("rhel") || descends("fedora") || descends("centos") {
            Some("redhat-based")
        } else if descends("suse") || descends("opensuse") {
            Some("suse-based")
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_have_libguestfss_names() {
        let like = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(distribution("debian", &[]), Some("debian"));
        assert_eq!(distribution("opensuse-leap", &like(&["suse", "opensuse"])), Some("opensuse"));
        assert_eq!(distribution("almalinux", &like(&["rhel", "centos", "fedora"])), Some("redhat-based"));
        assert_eq!(distribution("photon", &[]), None);
        assert_eq!((arch("i686"), arch("x86_64"), arch("riscv64")), ("i386", "x86_64", "riscv64"));
    }
}
