//! The installed systems as virt-inspector(1) describes them, for programs that read its XML (virt-inspector.rng).

use super::{Guest, System};
use crate::error::Result;
use crate::inspect::packages::{self, Package};
use crate::inspect::windows::{Application, Drive};
use crate::inspect::{Facts, Linux, Mount, Volume, Windows};
use crate::xml::Writer;

impl Guest {
    /// A document in virt-inspector's schema, with an element for each installed system.
    ///
    /// Names of disks are `/dev/sda` … in the machine's order, as virt-inspector's appliance has them. What the schema has no
    /// word for, such as a distribution that libguestfs does not know, is left out. Installed packages are read for it.
    pub fn inspector_xml(&self) -> Result<String> {
        let mut xml = Writer::default();
        xml.open("operatingsystems", &[]);
        for system in &self.systems {
            xml.open("operatingsystem", &[]);
            self.system_xml(system, &mut xml)?;
            xml.close();
        }
        Ok(format!("<?xml version=\"1.0\"?>\n{}", xml.finish()))
    }

    fn system_xml(&self, system: &System, xml: &mut Writer) -> Result<()> {
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
        let elsewhere = || system.root.unmounted.iter().map(|(entry, _)| entry).filter(|entry| is_disk(&entry.spec));
        for entry in elsewhere() {
            xml.text("mountpoint", &[("dev", &entry.spec)], &entry.mount_point);
        }
        xml.close();
        xml.open("filesystems", &[]);
        for mount in &system.root.mounts {
            if let Some(volume) = self.machine.volumes.get(mount.volume) {
                filesystem(&self.device(mount), volume, xml);
            }
        }
        for entry in elsewhere() {
            xml.leaf("filesystem", &[("dev", &entry.spec)]);
        }
        xml.close();
        if let Facts::Windows(facts) = &system.facts {
            self.drives(facts, xml);
        }
        applications(system, xml)
    }

    /// Drive letters of volumes that the machine has.
    fn drives(&self, facts: &Windows, xml: &mut Writer) {
        let volume = |drive: &Drive| self.machine.volumes.get(drive.volume?);
        let mut drives = facts.drives.iter().filter_map(|drive| Some((drive.letter, volume(drive)?))).peekable();
        if drives.peek().is_none() {
            return;
        }
        xml.open("drive_mappings", &[]);
        for (letter, volume) in drives {
            let device = format!("/dev/{}", self.machine.name_of(volume));
            xml.text("drive_mapping", &[("name", &letter.to_string())], &device);
        }
        xml.close();
    }

    /// What libguestfs calls a mounted file system: `/dev/sda1`, `/dev/vg0/root`, `btrfsvol:/dev/sda2/@`.
    fn device(&self, mount: &Mount) -> String {
        let Some(volume) = self.machine.volumes.get(mount.volume) else { return String::new() };
        let name = match &volume.mapper {
            Some(mapper) => mapped_name(mapper, &volume.aliases).to_owned(),
            None => format!("/dev/{}", self.machine.name_of(volume)),
        };
        match mount.subvolume.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => format!("btrfsvol:{name}/{path}"),
            None => name,
        }
    }
}

/// What libguestfs calls a volume with these paths: an array by its number, a logical volume by its group, others by the mapper.
fn mapped_name<'a>(mapper: &'a str, aliases: &'a [String]) -> &'a str {
    let is_numbered = |path: &&str| {
        let number = path.strip_prefix("/dev/md").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let paths = || std::iter::once(mapper).chain(aliases.iter().map(String::as_str));
    let is_of_group = |path: &&str| !path.starts_with("/dev/disk/") && !path.starts_with("/dev/mapper/");
    paths().find(is_numbered).or_else(|| paths().find(is_of_group)).unwrap_or(mapper)
}

/// An element for a value that is known.
fn field(xml: &mut Writer, name: &'static str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        xml.text(name, &[], value);
    }
}

fn linux(facts: &Linux, xml: &mut Writer) {
    let os = &facts.os;
    let version = os.version.unwrap_or_default();
    field(xml, "name", Some("linux"));
    field(xml, "arch", facts.arch.as_deref().map(arch));
    field(xml, "distro", os.id.as_deref().and_then(|id| distribution(id, &os.id_like)));
    field(xml, "product_name", os.pretty_name.as_deref());
    field(xml, "product_variant", os.variant.as_deref());
    field(xml, "major_version", Some(&version.major.to_string()));
    field(xml, "minor_version", Some(&version.minor.to_string()));
    field(xml, "package_format", facts.packaging.format.filter(|format| FORMATS.contains(format)));
    field(xml, "package_management", facts.packaging.management.filter(|program| MANAGERS.contains(program)));
    field(xml, "hostname", facts.hostname.as_deref());
    field(xml, "build_id", os.build_id.as_deref());
    field(xml, "osinfo", os.osinfo.as_deref());
}

fn windows(facts: &Windows, xml: &mut Writer) {
    let product = &facts.product;
    let version = product.version.unwrap_or_default();
    field(xml, "name", Some("windows"));
    field(xml, "arch", facts.arch.as_deref().map(arch));
    field(xml, "distro", Some("windows"));
    field(xml, "product_name", product.registered_name.as_deref());
    field(xml, "product_variant", product.variant.as_deref());
    field(xml, "major_version", Some(&version.major.to_string()));
    field(xml, "minor_version", Some(&version.minor.to_string()));
    field(xml, "windows_systemroot", Some(&facts.system_root));
    field(xml, "windows_current_control_set", facts.control_set.as_deref());
    if !facts.group_policies.is_empty() {
        xml.leaf("windows_group_policy", &[]);
    }
    field(xml, "hostname", facts.hostname.as_deref());
    field(xml, "osinfo", product.osinfo.as_deref());
}

fn filesystem(device: &str, volume: &Volume, xml: &mut Writer) {
    xml.open("filesystem", &[("dev", device)]);
    field(xml, "type", volume.fs_kind.as_deref());
    field(xml, "label", volume.fs_label.as_deref());
    field(xml, "uuid", volume.fs_uuid.as_deref());
    xml.close();
}

/// Whether fstab's `spec` is a disk, and not a drive for media that come and go.
fn is_disk(spec: &str) -> bool {
    spec.starts_with("/dev/")
        && !["/dev/fd", "/dev/sr", "/dev/cd", "/dev/scd"].iter().any(|drive| spec.starts_with(drive))
}

fn applications(system: &System, xml: &mut Writer) -> Result<()> {
    xml.open("applications", &[]);
    match &system.facts {
        Facts::Linux(_) => {
            let databases = packages::find(&system.root.tree)?;
            databases.iter().flat_map(|database| &database.packages).for_each(|package| self::package(package, xml));
        }
        Facts::Windows(facts) => facts.applications.iter().for_each(|application| self::application(application, xml)),
    }
    xml.close();
    Ok(())
}

fn application(application: &Application, xml: &mut Writer) {
    let fields = [
        ("name", Some(application.id.as_str())),
        ("display_name", Some(application.name.as_str())),
        ("version", application.version.as_deref()),
        ("install_path", application.location.as_deref()),
        ("publisher", application.publisher.as_deref()),
    ];
    element(&fields, xml);
}

fn package(package: &Package, xml: &mut Writer) {
    let epoch = package.epoch.filter(|epoch| *epoch != 0).map(|epoch| epoch.to_string());
    let fields = [
        ("name", Some(package.name.as_str())),
        ("epoch", epoch.as_deref()),
        ("version", Some(package.version.as_str())),
        ("release", package.release.as_deref()),
        ("arch", package.arch.as_deref()),
        ("url", package.url.as_deref()),
        ("source_package", package.source.as_deref()),
        ("summary", package.summary.as_deref()),
        ("description", package.description.as_deref()),
    ];
    element(&fields, xml);
}

fn element(fields: &[(&'static str, Option<&str>)], xml: &mut Writer) {
    xml.open("application", &[]);
    for (name, value) in fields {
        field(xml, name, *value);
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
