//! Which distribution it is, its host name, its architecture.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod osinfo;
mod packages;
mod release;

use std::io::Read;

use serde::Serialize;

use super::Reader;
use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::fs::tree::cause;

pub use packages::Packaging;
pub(super) use packages::packaging;

/// Name and version of a distribution.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Os {
    /// `debian`, `rhel`, `opensuse-leap` …: `ID` of os-release(5), also where an older file said so.
    pub id: Option<String>,
    /// What it descends from, nearest first.
    pub id_like: Vec<String>,
    /// Its name without a version: `Rocky Linux`.
    pub name: Option<String>,
    /// `12`, `9.4`.
    pub version_id: Option<String>,
    /// The version in numbers, with the minor one from where the distribution keeps it.
    pub version: Option<Version>,
    /// The name of the version: `bookworm`.
    pub codename: Option<String>,
    /// Name and version for people.
    pub pretty_name: Option<String>,
    /// The edition for people: `Server Edition`.
    pub variant: Option<String>,
    /// The edition: `server`, `workstation`, `silverblue`.
    pub variant_id: Option<String>,
    /// Which build of the distribution's image it was made from.
    pub build_id: Option<String>,
    /// The short id in libosinfo's database, for the distributions that are in it.
    pub osinfo: Option<String>,
    /// The file that said so.
    pub source: Option<String>,
}

/// The first two numbers of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second one; 0 when there is none.
    pub minor: u32,
}

impl Version {
    /// The version that `text` begins with: `9.4`, `11-updates`, `v3.18_alpha`. `None` when it begins with no number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (major, rest) = text.split_at_checked(digits(text))?;
        let major = major.parse().ok()?;
        let minor = rest.strip_prefix('.').and_then(|rest| rest.get(..digits(rest))?.parse().ok()).unwrap_or(0);
        Some(Self { major, minor })
    }
}

const LONGEST: usize = 256;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Os> {
    let mut os = match os_release(reader)? {
        Some(os) => os,
        None => release::read(reader)?.unwrap_or_default(),
    };
    os.version = os.version_id.as_deref().and_then(Version::parse);
    release::refine(reader, &mut os)?;
    os.osinfo = osinfo::short_id(&os);
    Ok(os)
}

fn os_release(reader: &mut Reader<'_>) -> Result<Option<Os>> {
    for path in ["/etc/os-release", "/usr/lib/os-release"] {
        if let Some(text) = reader.text(path)? {
            let mut os = parse(&text);
            if os.id.is_some() || os.pretty_name.is_some() {
                os.source = Some(path.to_owned());
                return Ok(Some(os));
            }
        }
    }
    Ok(None)
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
            "BUILD_ID" => os.build_id = Some(value),
            "ID" => os.id = Some(value),
            "ID_LIKE" => os.id_like = value.split_ascii_whitespace().map(str::to_owned).collect(),
            "NAME" => os.name = Some(value),
            "PRETTY_NAME" => os.pretty_name = Some(value),
            "VARIANT" => os.variant = Some(value),
            "VARIANT_ID" => os.variant_id = Some(value),
            "VERSION_CODENAME" => os.codename = Some(value),
            "VERSION_ID" => os.version_id = Some(value),
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
        (20, ..) => "ppc",
        (21, _, 1) => "ppc64le",
        (21, ..) => "ppc64",
        (22, 1, _) => "s390",
        (22, ..) => "s390x",
        (2 | 18, ..) => "sparc",
        (43, ..) => "sparc64",
        (50, ..) => "ia64",
        (8, 2, 1) => "mips64el",
        (8, 2, _) => "mips64",
        (8, _, 1) => "mipsel",
        (8, ..) => "mips",
        (0x9026, ..) => "alpha",
        (258, 2, _) => "loongarch64",
        (243, 2, _) => "riscv64",
        _ => return None,
    })
}

pub(super) fn bounded(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    pub(super) fn os(files: &[(&str, &str)]) -> Os {
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
