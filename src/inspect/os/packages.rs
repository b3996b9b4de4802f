//! Which kind of packages a system is made of, and what installs them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use crate::error::Result;
use crate::fs::Tree;

/// How software is installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Packaging {
    /// `deb`, `rpm`, `apk`, `pacman`, `ebuild` …: what the package database holds.
    pub format: Option<&'static str>,
    /// The program that fetches and installs: `apt`, `dnf`, `zypper` …
    pub management: Option<&'static str>,
    /// Where the package database lies.
    pub database: Option<&'static str>,
}

const DATABASES: &[(&str, &str)] = &[
    ("/var/lib/dpkg/status", "deb"),
    ("/usr/lib/sysimage/rpm", "rpm"),
    ("/var/lib/rpm", "rpm"),
    ("/usr/share/rpm", "rpm"),
    ("/lib/apk/db/installed", "apk"),
    ("/usr/lib/apk/db/installed", "apk"),
    ("/var/lib/pacman/local", "pacman"),
    ("/var/db/pkg", "ebuild"),
    ("/var/db/xbps", "xbps"),
    ("/var/lib/pkgtools/packages", "pkgtools"),
    ("/var/log/packages", "pkgtools"),
    ("/usr/lib/opkg/status", "opkg"),
    ("/var/lib/opkg/status", "opkg"),
    ("/var/lib/pisi/package", "pisi"),
    ("/nix/var/nix/db/db.sqlite", "nix"),
];

/// Programs in the order of preference where a system has several: name, formats that it manages, files.
const MANAGERS: &[(&str, &[&str], &[&str])] = &[
    ("rpm-ostree", &["rpm"], &["/run/ostree-booted", "/ostree/repo/config"]),
    ("zypper", &["rpm"], &["/usr/bin/zypper"]),
    ("dnf", &["rpm"], &["/usr/bin/dnf5", "/usr/bin/dnf", "/usr/bin/dnf-3"]),
    ("tdnf", &["rpm"], &["/usr/bin/tdnf"]),
    ("microdnf", &["rpm"], &["/usr/bin/microdnf"]),
    ("yum", &["rpm"], &["/usr/bin/yum"]),
    ("urpmi", &["rpm"], &["/usr/sbin/urpmi"]),
    ("up2date", &["rpm"], &["/usr/sbin/up2date"]),
    ("apt", &["deb", "rpm"], &["/usr/bin/apt-get"]),
    ("apk", &["apk"], &["/sbin/apk", "/usr/bin/apk"]),
    ("pacman", &["pacman"], &["/usr/bin/pacman"]),
    ("portage", &["ebuild"], &["/usr/bin/emerge"]),
    ("xbps", &["xbps"], &["/usr/bin/xbps-install"]),
    ("slackpkg", &["pkgtools"], &["/usr/sbin/slackpkg"]),
    ("opkg", &["opkg"], &["/bin/opkg", "/usr/bin/opkg"]),
    ("pisi", &["pisi"], &["/usr/bin/pisi"]),
    ("nix", &["nix"], &["/nix/var/nix/profiles/default", "/nix/var/nix/profiles/system"]),
];

pub(in crate::inspect) fn packaging(tree: &Tree) -> Result<Packaging> {
    let mut found = Packaging::default();
    for (path, format) in DATABASES {
        if tree.exists(path)? {
            (found.format, found.database) = (Some(*format), Some(*path));
            break;
        }
    }
    for (name, formats, files) in MANAGERS {
        if !found.format.is_some_and(|format| formats.contains(&format)) {
            continue;
        }
        for path in *files {
            if tree.find_link(path)?.is_some() {
                found.management = Some(name);
                return Ok(found);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    #[test]
    fn tells_what_installs_what() {
        for (files, format, management) in [
            (&["/var/lib/dpkg/status", "/usr/bin/apt-get"][..], Some("deb"), Some("apt")),
            (&["/var/lib/dpkg/status", "/var/lib/rpm/.x", "/usr/bin/dnf"], Some("deb"), None),
            (&["/var/lib/rpm/Packages", "/usr/bin/yum"], Some("rpm"), Some("yum")),
            (&["/usr/lib/sysimage/rpm/rpmdb.sqlite", "/usr/bin/dnf", "/usr/bin/yum"], Some("rpm"), Some("dnf")),
            (&["/usr/lib/sysimage/rpm/Packages.db", "/usr/bin/zypper"], Some("rpm"), Some("zypper")),
            (&["/var/lib/rpm/Packages", "/usr/bin/apt-get"], Some("rpm"), Some("apt")),
            (&["/var/lib/rpm/rpmdb.sqlite", "/usr/bin/tdnf"], Some("rpm"), Some("tdnf")),
            (&["/lib/apk/db/installed", "/sbin/apk"], Some("apk"), Some("apk")),
            (&["/var/lib/pacman/local/ALPM_DB_VERSION", "/usr/bin/pacman"], Some("pacman"), Some("pacman")),
            (&["/var/db/pkg/sys-apps/x", "/usr/bin/emerge"], Some("ebuild"), Some("portage")),
            (&["/usr/bin/dnf"], None, None),
        ] {
            let fs = MemoryFs::default();
            for path in files {
                fs.add_file(path, "").unwrap();
            }
            let found = packaging(&Tree::new(Arc::new(fs))).unwrap();
            assert_eq!((found.format, found.management), (format, management), "{files:?}");
        }
    }
}
