//! The release files of distributions without os-release(5), and of those whose os-release leaves the minor version out.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Os, Version, bounded, shell_value};
use crate::error::Result;
use crate::inspect::Reader;

/// Files of one line, in the order in which they are asked: derived distributions keep the files of those that they derive
/// from. Path, id unless the line names another, and what that is like.
const FILES: &[(&str, &str, &str)] = &[
    ("/etc/openmandriva-release", "openmandriva", ""),
    ("/etc/opencloudos-release", "opencloudos", "rhel"),
    ("/etc/tencentos-release", "tencentos", "rhel"),
    ("/etc/openEuler-release", "openEuler", "rhel"),
    ("/etc/euleros-release", "euleros", "rhel"),
    ("/etc/anolis-release", "anolis", "rhel"),
    ("/etc/kylin-release", "kylin", "rhel"),
    ("/etc/neokylin-release", "neokylin", "rhel"),
    ("/etc/photon-release", "photon", ""),
    ("/etc/oracle-release", "ol", "rhel"),
    ("/etc/enterprise-release", "ol", "rhel"),
    ("/etc/sl-release", "scientific", "rhel"),
    ("/etc/centos-release", "centos", "rhel"),
    ("/etc/circle-release", "circle", "rhel"),
    ("/etc/rocky-release", "rocky", "rhel"),
    ("/etc/almalinux-release", "almalinux", "rhel"),
    ("/etc/mageia-release", "mageia", ""),
    ("/etc/mandriva-release", "mandriva", ""),
    ("/etc/mandrake-release", "mandriva", ""),
    ("/etc/altlinux-release", "altlinux", ""),
    ("/etc/pld-release", "pld", ""),
    ("/etc/fedora-release", "fedora", ""),
    ("/etc/redhat-release", "rhel", ""),
    ("/etc/system-release", "", ""),
    ("/etc/pardus-release", "pardus", ""),
    ("/etc/debian_version", "debian", ""),
    ("/etc/arch-release", "arch", ""),
    ("/etc/gentoo-release", "gentoo", ""),
    ("/etc/meego-release", "meego", ""),
    ("/etc/slackware-version", "slackware", ""),
    ("/etc/ttylinux-target", "ttylinux", ""),
    ("/etc/SuSE-release", "suse", ""),
    ("/etc/cirros/version", "cirros", ""),
    ("/etc/br-version", "buildroot", ""),
    ("/etc/alpine-release", "alpine", ""),
    ("/etc/frugalware-release", "frugalware", ""),
    ("/etc/vmware-release", "esx", ""),
];

/// What names stand at the front of such a line, or in lsb-release: name, id, what it is like. Longer names first.
const NAMES: &[(&str, &str, &str)] = &[
    ("AlmaLinux", "almalinux", "rhel"),
    ("ALT ", "altlinux", ""),
    ("ALTLinux", "altlinux", ""),
    ("Amazon Linux", "amzn", "rhel"),
    ("Arch", "arch", ""),
    ("Asianux", "asianux", "rhel"),
    ("CentOS", "centos", "rhel"),
    ("CloudLinux", "cloudlinux", "rhel"),
    ("Debian", "debian", ""),
    ("Enterprise Linux Enterprise Linux", "ol", "rhel"),
    ("EuroLinux", "eurolinux", "rhel"),
    ("Fedora", "fedora", ""),
    ("Gentoo", "gentoo", ""),
    ("LinuxMint", "linuxmint", "ubuntu"),
    ("Mageia", "mageia", ""),
    ("Mandrake", "mandriva", ""),
    ("Mandriva", "mandriva", ""),
    ("ManjaroLinux", "manjaro", "arch"),
    ("MIRACLE LINUX", "miraclelinux", "rhel"),
    ("NixOS", "nixos", ""),
    ("openSUSE", "opensuse", "suse"),
    ("Oracle", "ol", "rhel"),
    ("Pop", "pop", "ubuntu"),
    ("Red Hat Enterprise", "rhel", "fedora"),
    ("Red Hat Linux", "redhat", ""),
    ("RedHatEnterprise", "rhel", "fedora"),
    ("Rocky", "rocky", "rhel"),
    ("Scientific", "scientific", "rhel"),
    ("SUSE LINUX Enterprise Desktop", "sled", "suse"),
    ("SUSE Linux Enterprise Desktop", "sled", "suse"),
    ("SUSE LINUX Enterprise", "sles", "suse"),
    ("SUSE Linux Enterprise", "sles", "suse"),
    ("SUSE", "opensuse", "suse"),
    ("Ubuntu", "ubuntu", "debian"),
    ("Virtuozzo", "virtuozzo", "rhel"),
    ("VzLinux", "vzlinux", "rhel"),
    ("XenServer", "xenserver", "rhel"),
];

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Os>> {
    if let Some(text) = reader.text("/etc/lsb-release")?
        && let Some(os) = lsb(&text)
    {
        return Ok(Some(os));
    }
    for (path, id, like) in FILES {
        let Some(text) = reader.text(path)? else { continue };
        let mut os = if *id == "suse" { suse(&text) } else { line(&text) };
        if os.id.is_none() && id.is_empty() {
            continue;
        }
        if os.id.is_none() {
            os.id = Some((*id).to_owned());
            os.id_like.extend(Some(*like).filter(|like| !like.is_empty()).map(str::to_owned));
        }
        os.source = Some((*path).to_owned());
        return Ok(Some(os));
    }
    Ok(None)
}

/// Takes the minor version from where the distribution keeps it, when os-release has only the major one.
pub(super) fn refine(reader: &mut Reader<'_>, os: &mut Os) -> Result<()> {
    let path = match os.id.as_deref() {
        Some("centos") => "/etc/centos-release",
        Some("circle") => "/etc/circle-release",
        Some("debian") => "/etc/debian_version",
        Some("rocky") => "/etc/rocky-release",
        _ => return Ok(()),
    };
    let Some(version) = os.version.filter(|version| version.minor == 0) else { return Ok(()) };
    let text = reader.text(path)?.unwrap_or_default();
    let found = line(&text).version_id.as_deref().and_then(Version::parse);
    if let Some(found) = found.filter(|found| found.major == version.major) {
        os.version = Some(found);
    }
    Ok(())
}

/// `DISTRIB_…` of lsb-release; without an id it tells nothing.
fn lsb(text: &str) -> Option<Os> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
        line.map(|value| bounded(&shell_value(value))).filter(|value| !value.is_empty())
    };
    let name = value("DISTRIB_ID")?;
    let (id, like) = named(&name).unwrap_or_else(|| (plain(&name), String::new()));
    Some(Os {
        id: Some(id).filter(|id| !id.is_empty()),
        id_like: Some(like).filter(|like| !like.is_empty()).into_iter().collect(),
        version_id: value("DISTRIB_RELEASE"),
        codename: value("DISTRIB_CODENAME"),
        pretty_name: value("DISTRIB_DESCRIPTION").or_else(|| Some(name.clone())),
        name: Some(name),
        source: Some("/etc/lsb-release".to_owned()),
        ..Os::default()
    })
}

/// `NAME release VERSION (CODENAME)`, `NAME VERSION`, `VERSION`: the first line tells.
fn line(text: &str) -> Os {
    let line = bounded(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default());
    let is_version = |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
    let version = line.split([' ', '-']).find(is_version).map(|word| word.trim_end_matches(','));
    let (_, inside) = line.rsplit_once('(').unwrap_or_default();
    let codename = inside.split_once(')').map(|(inside, _)| inside.trim()).filter(|inside| !inside.is_empty());
    let update = codename.and_then(|inside| inside.split_once(" Update ")).map(|(_, update)| update);
    let version = match (version, update) {
        (Some(version), Some(update)) if !version.contains('.') => Some(format!("{version}.{update}")),
        (version, _) => version.map(str::to_owned),
    };
    let (id, like) = named(&line).unzip();
    let name = line.split(" release ").next().filter(|name| line.contains(" release ") && !name.is_empty());
    let variant = ["Server", "Workstation", "Client", "Desktop", "ComputeNode", "AS", "ES", "WS"];
    let variant = variant
        .into_iter()
        .find(|variant| id.as_deref() == Some("rhel") && line.split_ascii_whitespace().any(|word| word == *variant));
    Os {
        id,
        id_like: like.filter(|like| !like.is_empty()).into_iter().collect(),
        name: name.map(str::to_owned),
        version_id: version,
        codename: codename.map(str::to_owned),
        variant: variant.map(str::to_owned),
        variant_id: variant.map(str::to_ascii_lowercase),
        pretty_name: Some(line.clone()).filter(|line| !line.is_empty()),
        ..Os::default()
    }
}

/// SUSE's file: a name, then `VERSION = 11` and `PATCHLEVEL = 4`.
fn suse(text: &str) -> Os {
    let value = |key: &str| {
        let (_, value) = text.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| name.trim() == key)?;
        Some(bounded(value.trim()))
    };
    let mut os = line(text);
    if let Some(version) = value("VERSION").filter(|version| !version.is_empty()) {
        let level = value("PATCHLEVEL").filter(|level| !level.is_empty() && level != "0");
        os.version_id = Some(match level {
            Some(level) => format!("{version}.{level}"),
            None => version,
        });
    }
    os.codename = value("CODENAME").filter(|name| !name.is_empty());
    os
}

fn named(line: &str) -> Option<(String, String)> {
    let known = NAMES.iter().find(|(name, _, _)| line.starts_with(name));
    known.map(|(_, id, like)| ((*id).to_owned(), (*like).to_owned()))
}

/// A name as os-release would write it as an id.
fn plain(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' };
    name.chars().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::os;
    use super::*;

    /// One file, and the id, version and osinfo id that it gives.
    type Case = (&'static str, &'static str, &'static str, (u32, u32), Option<&'static str>);

    const CASES: &[Case] = &[
        (
            "/etc/lsb-release",
            "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_CODENAME=lucid\nDISTRIB_DESCRIPTION=\"Ubuntu 10.04.4 LTS\"\n",
            "ubuntu",
            (10, 4),
            Some("ubuntu10.04"),
        ),
        ("/etc/lsb-release", "DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=17.3\n", "linuxmint", (17, 3), None),
        ("/etc/lsb-release", "DISTRIB_ID=\"Odd Name\"\nDISTRIB_RELEASE=2\n", "odd-name", (2, 0), None),
        ("/etc/openmandriva-release", "OpenMandriva Lx release 4.3 (Sodium)\n", "openmandriva", (4, 3), None),
        ("/etc/opencloudos-release", "OpenCloudOS release 8.6\n", "opencloudos", (8, 6), None),
        ("/etc/tencentos-release", "TencentOS Server release 3.1 (Final)\n", "tencentos", (3, 1), None),
        ("/etc/openEuler-release", "openEuler release 22.03 LTS\n", "openEuler", (22, 3), None),
        ("/etc/photon-release", "VMware Photon Linux 1.0\nPHOTON_BUILD_NUMBER=62c543d\n", "photon", (1, 0), None),
        ("/etc/oracle-release", "Oracle Linux Server release 6.10\n", "ol", (6, 10), Some("ol6.10")),
        (
            "/etc/enterprise-release",
            "Enterprise Linux Enterprise Linux Server release 5.4 (Carthage)\n",
            "ol",
            (5, 4),
            Some("oel5.4"),
        ),
        ("/etc/centos-release", "CentOS release 6.10 (Final)\n", "centos", (6, 10), Some("centos6.10")),
        ("/etc/circle-release", "Circle Linux release 8.4\n", "circle", (8, 4), Some("circle8")),
        ("/etc/rocky-release", "Rocky Linux release 8.5 (Green Obsidian)\n", "rocky", (8, 5), Some("rocky8")),
        ("/etc/altlinux-release", "ALT Server 10.1 (Mendelevium)\n", "altlinux", (10, 1), Some("alt10.1")),
        ("/etc/fedora-release", "Fedora release 16 (Verne)\n", "fedora", (16, 0), Some("fedora16")),
        ("/etc/fedora-release", "Fedora Core release 4 (Stentz)\n", "fedora", (4, 0), Some("fedora4")),
        (
            "/etc/redhat-release",
            "Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n",
            "rhel",
            (5, 11),
            Some("rhel5.11"),
        ),
        (
            "/etc/redhat-release",
            "Red Hat Enterprise Linux AS release 4 (Nahant Update 9)\n",
            "rhel",
            (4, 9),
            Some("rhel4.9"),
        ),
        ("/etc/redhat-release", "Red Hat Linux release 7.3 (Valhalla)\n", "redhat", (7, 3), Some("rhl7.3")),
        ("/etc/redhat-release", "CentOS release 5.8 (Final)\n", "centos", (5, 8), Some("centos5.8")),
        (
            "/etc/redhat-release",
            "Scientific Linux release 6.10 (Carbon)\n",
            "scientific",
            (6, 10),
            Some("scientificlinux6.10"),
        ),
        ("/etc/redhat-release", "Some clone release 9.1\n", "rhel", (9, 1), Some("rhel9.1")),
        ("/etc/system-release", "Amazon Linux AMI release 2018.03\n", "amzn", (2018, 3), None),
        ("/etc/debian_version", "7.11\n", "debian", (7, 11), Some("debian7")),
        ("/etc/debian_version", "4.0\n", "debian", (4, 0), Some("debian4")),
        ("/etc/gentoo-release", "Gentoo Base System release 2.14\n", "gentoo", (2, 14), Some("gentoo")),
        ("/etc/slackware-version", "Slackware 14.2\n", "slackware", (14, 2), Some("slackware14.2")),
        ("/etc/mageia-release", "Mageia release 8 (Official) for x86_64\n", "mageia", (8, 0), Some("mageia8")),
        ("/etc/ttylinux-target", "ttylinux-pc_x86_64-16.1\n", "ttylinux", (16, 1), None),
        (
            "/etc/SuSE-release",
            "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
            "sles",
            (11, 4),
            Some("sles11sp4"),
        ),
        (
            "/etc/SuSE-release",
            "SUSE Linux Enterprise Desktop 12 (x86_64)\nVERSION = 12\nPATCHLEVEL = 0\n",
            "sled",
            (12, 0),
            Some("sled12"),
        ),
        (
            "/etc/SuSE-release",
            "openSUSE 13.1 (x86_64)\nVERSION = 13.1\nCODENAME = Bottle\n",
            "opensuse",
            (13, 1),
            Some("opensuse13.1"),
        ),
        ("/etc/cirros/version", "0.5.2\n", "cirros", (0, 5), Some("cirros0.5.2")),
        ("/etc/br-version", "2021.02\n", "buildroot", (2021, 2), None),
        ("/etc/alpine-release", "3.17.0\n", "alpine", (3, 17), Some("alpinelinux3.17")),
        ("/etc/frugalware-release", "Frugalware 2.1 (Derowd)\n", "frugalware", (2, 1), None),
        ("/etc/pld-release", "2.99 PLD Linux (Th)\n", "pld", (2, 99), None),
        ("/etc/pardus-release", "Pardus 2011.2 Cervus elaphus\n", "pardus", (2011, 2), None),
        ("/etc/meego-release", "MeeGo release 1.2.0\n", "meego", (1, 2), None),
    ];

    #[test]
    fn reads_every_release_file() {
        for (path, text, id, version, osinfo) in CASES {
            let found = os(&[(path, text)]);
            let numbers = found.version.map(|version| (version.major, version.minor));
            assert_eq!((found.id.as_deref(), numbers), (Some(*id), Some(*version)), "{path}: {text}");
            assert_eq!(found.osinfo.as_deref(), *osinfo, "{path}: {text}");
            assert_eq!(found.source.as_deref(), Some(*path));
        }
        assert_eq!(os(&[("/etc/arch-release", "")]).id.as_deref(), Some("arch"));
        assert_eq!(os(&[("/etc/system-release", "Odd release 1\n")]), Os::default());
        assert_eq!(os(&[]), Os::default());
    }

    #[test]
    fn a_derived_distribution_is_itself() {
        let centos =
            os(&[("/etc/redhat-release", "x"), ("/etc/centos-release", "CentOS Linux release 7.9.2009 (Core)")]);
        assert_eq!((centos.id.as_deref(), centos.codename.as_deref()), (Some("centos"), Some("Core")));
        let ubuntu = os(&[("/etc/debian_version", "squeeze/sid"), ("/etc/lsb-release", "DISTRIB_ID=Ubuntu\n")]);
        assert_eq!((ubuntu.id.as_deref(), ubuntu.version), (Some("ubuntu"), None));
        let garbage = os(&[
            ("/etc/os-release", "garbage"),
            ("/etc/lsb-release", "LSB_VERSION=1.4"),
            ("/etc/debian_version", "9.1"),
        ]);
        assert_eq!(garbage.osinfo.as_deref(), Some("debian9"));
        let server = os(&[("/etc/redhat-release", "Red Hat Enterprise Linux Server release 6.9 (Santiago)")]);
        assert_eq!((server.variant.as_deref(), server.variant_id.as_deref()), (Some("Server"), Some("server")));
        assert_eq!(server.name.as_deref(), Some("Red Hat Enterprise Linux Server"));
    }

    #[test]
    fn minor_versions_come_from_where_they_are_kept() {
        for (release, path, text, version) in [
            ("ID=debian\nVERSION_ID=12", "/etc/debian_version", "12.5\n", (12, 5)),
            ("ID=debian\nVERSION_ID=12", "/etc/debian_version", "trixie/sid\n", (12, 0)),
            ("ID=debian\nVERSION_ID=12", "/etc/debian_version", "11.9\n", (12, 0)),
            ("ID=centos\nVERSION_ID=7", "/etc/centos-release", "CentOS Linux release 7.9.2009 (Core)\n", (7, 9)),
            ("ID=rocky\nVERSION_ID=9.4", "/etc/rocky-release", "Rocky Linux release 9.5\n", (9, 4)),
        ] {
            let found = os(&[("/etc/os-release", release), (path, text)]).version.unwrap();
            assert_eq!((found.major, found.minor), version, "{release} {text}");
        }
    }

    #[test]
    fn odd_lines_are_only_odd() {
        for text in
            ["", "\n\n", "(", "release", "()", "= = =", "VERSION =\nPATCHLEVEL", "99999999999999999999.1", ".1", "v"]
        {
            let found = os(&[("/etc/SuSE-release", text)]);
            assert_eq!((found.id.as_deref(), found.version), (Some("suse"), None), "{text}");
        }
    }
}
