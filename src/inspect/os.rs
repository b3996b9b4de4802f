//! Which distribution it is, its host name, its architecture.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::Read;

use serde::Serialize;

use super::Reader;
use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::fs::tree::cause;

/// Name and version of a distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Os {
    /// `debian`, `rhel`, `opensuse-leap` …
    pub id: Option<String>,
    /// What it descends from, nearest first.
    pub id_like: Vec<String>,
    /// `12`, `9.4`.
    pub version_id: Option<String>,
    /// For people.
    pub pretty_name: Option<String>,
    /// The file that said so.
    pub source: Option<String>,
}

const LONGEST: usize = 256;

/// Release files of distributions without os-release: path, id, and the id that it is like.
const RELEASE_FILES: &[(&str, &str, &str)] = &[
    ("/etc/oracle-release", "ol", "rhel"),
    ("/etc/centos-release", "centos", "rhel"),
    ("/etc/fedora-release", "fedora", ""),
    ("/etc/redhat-release", "rhel", ""),
    ("/etc/SuSE-release", "suse", ""),
    ("/etc/debian_version", "debian", ""),
    ("/etc/alpine-release", "alpine", ""),
    ("/etc/arch-release", "arch", ""),
    ("/etc/gentoo-release", "gentoo", ""),
    ("/etc/slackware-version", "slackware", ""),
];

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Os> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = reader.text(path)? {
            let mut os = parse(&text);
            if os.id.is_some() || os.pretty_name.is_some() {
                os.source = Some(path.to_owned());
                return Ok(os);
            }
        }
    }
    for (path, id, like) in RELEASE_FILES {
        let Some(text) = reader.text(path)? else { continue };
        let line = bounded(text.lines().next().unwrap_or_default().trim());
        let version = line.split(' ').find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        return Ok(Os {
            id: Some((*id).to_owned()),
            id_like: Some(*like).filter(|like| !like.is_empty()).map(str::to_owned).into_iter().collect(),
            version_id: version.map(str::to_owned),
            pretty_name: Some(line.clone()).filter(|line| !line.is_empty()),
            source: Some((*path).to_owned()),
        });
    }
    Ok(Os::default())
}

/// Reads os-release(5): shell-like assignments.
#[must_use]
pub(super) fn parse(text: &str) -> Os {
    let mut os = Os::default();
    for line in text.lines() {
        let Some((key, value)) = line.trim().split_once('=') else { continue };
        let value = bounded(&shell_value(value));
        if value.is_empty() {
            continue;
        }
        match key {
            "ID" => os.id = Some(value),
            "ID_LIKE" => os.id_like = value.split_ascii_whitespace().map(str::to_owned).collect(),
            "VERSION_ID" => os.version_id = Some(value),
            "PRETTY_NAME" => os.pretty_name = Some(value),
            _ => {}
        }
    }
    os
}

/// The value of a shell assignment of one word: quotes removed, backslashes resolved.
#[must_use]
pub(crate) fn shell_value(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut quote = None;
    let mut chars = raw.trim().chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            (None | Some('"'), '\\') => out.extend(chars.next()),
            (None, ' ' | '\t' | ';' | '#') => break,
            _ => out.push(c),
        }
    }
    out
}

pub(super) fn hostname(reader: &mut Reader<'_>) -> Result<Option<String>> {
    for path in ["/etc/hostname", "/etc/HOSTNAME"] {
        let text = reader.text(path)?.unwrap_or_default();
        let name = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        if let Some(name) = name {
            return Ok(Some(bounded(name)));
        }
    }
    let network = reader.text("/etc/sysconfig/network")?.unwrap_or_default();
    let name = network.lines().find_map(|line| line.trim().strip_prefix("HOSTNAME=")).map(shell_value);
    Ok(name.filter(|name| !name.is_empty()).map(|name| bounded(&name)))
}

pub(super) fn arch(tree: &Tree) -> Result<Option<String>> {
    for path in ["/bin/sh", "/bin/bash", "/usr/bin/env", "/bin/ls", "/sbin/init"] {
        let Some(mut file) = tree.open(path)? else { continue };
        let mut header = [0; 20];
        let mut filled = 0_usize;
        while let Some(rest) = header.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) => {
                    return Err(cause(error, |error| Error::unreadable("reading a program", error)));
                }
            }
        }
        if let Some(arch) = elf_arch(&header) {
            return Ok(Some(arch.to_owned()));
        }
    }
    Ok(None)
}

/// The machine of an ELF header (gABI, `e_machine` at 18), as `uname -m` says it.
fn elf_arch(header: &[u8; 20]) -> Option<&'static str> {
    let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = *header else { return None };
    let machine = if order == 2 { u16::from_be_bytes([low, high]) } else { u16::from_le_bytes([low, high]) };
    Some(match (machine, class, order) {
        (62, ..) => "x86_64",
        (3, ..) => "i686",
        (183, ..) => "aarch64",
        (40, ..) => "armv7l",
        (21, _, 1) => "ppc64le",
        (21, ..) => "ppc64",
        (22, ..) => "s390x",
        (243, 2, _) => "riscv64",
        _ => return None,
    })
}

pub(super) fn package_format(tree: &Tree) -> Result<Option<&'static str>> {
    let databases = [
        ("/var/lib/dpkg/status", "deb"),
        ("/usr/lib/sysimage/rpm", "rpm"),
        ("/var/lib/rpm", "rpm"),
        ("/lib/apk/db/installed", "apk"),
        ("/var/lib/pacman/local", "pacman"),
    ];
    for (path, format) in databases {
        if tree.exists(path)? {
            return Ok(Some(format));
        }
    }
    Ok(None)
}

fn bounded(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    fn os(files: &[(&str, &str)]) -> Os {
        let fs = MemoryFs::default();
        for (path, text) in files {
            fs.add_file(path, text).unwrap();
        }
        let tree = Tree::new(Arc::new(fs));
        read(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap()
    }

    #[test]
    fn reads_os_release() {
        let os = os(&[(
            "/usr/lib/os-release",
            "PRETTY_NAME=\"Rocky Linux 9.4 (Blue Onyx)\"\nID='rocky'\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=9.4 # x\nBAD\n=\n",
        )]);
        assert_eq!(os.id.as_deref(), Some("rocky"));
        assert_eq!(os.id_like, ["rhel", "centos", "fedora"]);
        assert_eq!(os.version_id.as_deref(), Some("9.4"));
        assert_eq!(os.source.as_deref(), Some("/usr/lib/os-release"));
    }

    #[test]
    fn falls_back_to_release_files() {
        let found = os(&[("/etc/redhat-release", "Red Hat Enterprise Linux Server release 5.11 (Tikanga)\n")]);
        assert_eq!((found.id.as_deref(), found.version_id.as_deref()), (Some("rhel"), Some("5.11")));
        let found = os(&[("/etc/os-release", "garbage"), ("/etc/debian_version", "7.11\n")]);
        assert_eq!((found.id.as_deref(), found.version_id.as_deref()), (Some("debian"), Some("7.11")));
        assert_eq!(os(&[]), Os::default());
    }

    #[test]
    fn hostile_values_are_cut() {
        let text = format!("ID={}\nPRETTY_NAME=\"\u{1b}[2J\0\n", "x".repeat(1 << 19));
        let os = parse(&text);
        assert_eq!(os.id.unwrap().len(), LONGEST);
        assert_eq!(os.pretty_name.unwrap(), "\u{1b}[2J\0");
    }

    #[test]
    fn shell_values_lose_their_quotes() {
        for (raw, value) in [
            ("a", "a"),
            ("\"a b\" c", "a b"),
            ("'a\\b'", "a\\b"),
            ("\"a\\\"b\"", "a\"b"),
            ("\"open", "open"),
            ("\\", ""),
        ] {
            assert_eq!(shell_value(raw), value, "{raw}");
        }
    }

    #[test]
    fn tells_the_architecture() {
        let header = |class, order, low, high| {
            let mut header = [0; 20];
            header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
            header[18..].copy_from_slice(&[low, high]);
            header
        };
        assert_eq!(elf_arch(&header(2, 1, 62, 0)), Some("x86_64"));
        assert_eq!(elf_arch(&header(2, 1, 183, 0)), Some("aarch64"));
        assert_eq!(elf_arch(&header(2, 2, 0, 22)), Some("s390x"));
        assert_eq!(elf_arch(&header(2, 1, 99, 99)), None);
        assert_eq!(elf_arch(&[0; 20]), None);
    }
}
