//! The short ids of libosinfo's database.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Os, Version};

/// The short id; `None` for what the database does not know. New versions follow the names of the ones before.
pub(super) fn short_id(os: &Os) -> Option<String> {
    let id = os.id.as_deref()?;
    let fixed = match id {
        "arch" => Some("archlinux"),
        "gentoo" => Some("gentoo"),
        "manjaro" => Some("manjaro"),
        "opensuse-tumbleweed" => Some("opensusetumbleweed"),
        "void" => Some("voidlinux"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some(fixed.to_owned());
    }
    let version @ Version { major, minor } = os.version?;
    let by_major = |name: &str| Some(format!("{name}{major}"));
    let by_both = |name: &str| Some(format!("{name}{major}.{minor}"));
    match id {
        "almalinux" | "circle" | "debian" | "mageia" | "rocky" => by_major(id),
        "alpine" => by_both("alpinelinux"),
        "altlinux" => by_both(if major < 8 { "altlinux" } else { "alt" }),
        "centos" => centos(os, version),
        "cirros" => os.version_id.as_ref().map(|version| format!("cirros{version}")),
        "endless" => by_both("eos"),
        "fedora" if os.variant_id.as_deref() == Some("silverblue") => by_major("silverblue"),
        "fedora" => by_major("fedora"),
        "nixos" => Some(format!("nixos-{major}.{minor:02}")),
        "ol" if version < (Version { major: 5, minor: 5 }) => by_both("oel"),
        "ol" | "rhel" => by_both(id),
        "opensuse" | "opensuse-leap" => by_both("opensuse"),
        "pop" => Some(format!("popos{major}.{minor:02}")),
        "pureos" => by_major("pureos"),
        "redhat" if minor == 0 && matches!(major, 7 | 9) => by_major("rhl"),
        "redhat" => by_both("rhl"),
        "scientific" => by_both("scientificlinux"),
        "slackware" => by_both("slackware"),
        "sle-micro" | "suse-microos" => by_both("slem"),
        "sled" | "sles" => suse(id, version),
        "ubuntu" => Some(format!("ubuntu{major}.{minor:02}")),
        _ => None,
    }
}

fn centos(os: &Os, Version { major, minor }: Version) -> Option<String> {
    let is_stream = os.name.iter().chain(&os.pretty_name).any(|name| name.contains("Stream"));
    Some(match major {
        ..=6 => format!("centos{major}.{minor}"),
        7 => "centos7.0".to_owned(),
        _ if is_stream => format!("centos-stream{major}"),
        _ => format!("centos{major}"),
    })
}

/// SUSE's service packs are its minor versions. From 15 on, server and desktop are one.
fn suse(id: &str, Version { major, minor }: Version) -> Option<String> {
    let name = match major {
        ..=14 => id,
        15 => "sle",
        _ => return None,
    };
    Some(if minor == 0 { format!("{name}{major}") } else { format!("{name}{major}sp{minor}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::inspect::os) fn of(id: &str, version: &str) -> Option<String> {
        let os = Os {
            id: Some(id.to_owned()),
            version_id: Some(version.to_owned()),
            version: Version::parse(version),
            ..Os::default()
        };
        short_id(&os)
    }

    #[test]
    fn names_are_those_of_the_database() {
        for (id, version, short) in [
            ("debian", "12.5", Some("debian12")),
            ("debian", "6.0.10", Some("debian6")),
            ("ubuntu", "20.04", Some("ubuntu20.04")),
            ("ubuntu", "6.06", Some("ubuntu6.06")),
            ("fedora", "37", Some("fedora37")),
            ("rhel", "8.7", Some("rhel8.7")),
            ("rhel", "10.0", Some("rhel10.0")),
            ("centos", "5.11", Some("centos5.11")),
            ("centos", "7.9", Some("centos7.0")),
            ("centos", "8.5", Some("centos8")),
            ("rocky", "9.4", Some("rocky9")),
            ("almalinux", "8.10", Some("almalinux8")),
            ("ol", "7.9", Some("ol7.9")),
            ("ol", "5.4", Some("oel5.4")),
            ("sles", "11.4", Some("sles11sp4")),
            ("sles", "12", Some("sles12")),
            ("sled", "12.5", Some("sled12sp5")),
            ("sles", "15.4", Some("sle15sp4")),
            ("opensuse-leap", "15.4", Some("opensuse15.4")),
            ("opensuse-tumbleweed", "20240101", Some("opensusetumbleweed")),
            ("alpine", "3.17.1", Some("alpinelinux3.17")),
            ("altlinux", "10.0", Some("alt10.0")),
            ("arch", "", Some("archlinux")),
            ("mageia", "8", Some("mageia8")),
            ("scientific", "7.6", Some("scientificlinux7.6")),
            ("slackware", "14.2", Some("slackware14.2")),
            ("nixos", "22.05", Some("nixos-22.05")),
            ("redhat", "7.3", Some("rhl7.3")),
            ("redhat", "9", Some("rhl9")),
            ("amzn", "2", None),
            ("photon", "5.0", None),
            ("debian", "sid", None),
        ] {
            assert_eq!(of(id, version).as_deref(), short, "{id} {version}");
        }
    }
}
