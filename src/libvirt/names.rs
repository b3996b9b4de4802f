//! Names that come from a source, which may be hostile, and names that libvirt wants.

use std::fmt;

/// Longest domain name in bytes: libvirt makes file names of it (`NAME.xml`, `domain-ID-NAME`), which have at most 255.
const MAX_NAME: usize = 200;

/// A domain name made of `source`: one line of letters, digits and plain punctuation. libvirt refuses slashes and newlines,
/// and makes file names of the rest; a leading dash would be an option of `virsh`.
pub(super) fn domain_name(source: &str) -> String {
    let mut name = String::new();
    for c in source.trim().chars() {
        let c = if c.is_alphanumeric() || "._-+@ ()[]#".contains(c) { c } else { '-' };
        if name.len() + c.len_utf8() > MAX_NAME {
            break;
        }
        name.push(c);
    }
    let name = name.trim_start_matches(['-', '.', ' ']).trim_end();
    if name.is_empty() { "guest".to_owned() } else { name.to_owned() }
}

/// A disk's name in the guest: the prefix and `a` to `z`, then `aa`, `ab` …
pub(super) fn target(prefix: &str, index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        rest -= 1;
        letters.push(char::from(b'a' + u8::try_from(rest % 26).unwrap_or(0)));
        rest /= 26;
    }
    prefix.chars().chain(letters.into_iter().rev()).collect()
}

/// The hardware address of a network card, unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Reads six pairs of hexadecimal digits with `:` or `-` between them; `None` for anything else and for group addresses,
    /// which libvirt refuses.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.trim().split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let [first, ..] = bytes;
        (parts.next().is_none() && first & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// An operating system as `/etc/os-release` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OsId {
    /// `ID`: `debian`, `rhel`.
    pub id: String,
    /// `VERSION_ID`: `12`, `9.4`.
    pub version: String,
}

impl OsId {
    /// The identifier in libosinfo's database, by which tools choose devices; `None` for what it does not know.
    pub(super) fn libosinfo(&self) -> Option<String> {
        let version = self.version.as_str();
        let plain =
            !version.is_empty() && version.len() < 16 && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let major = version.split('.').next().unwrap_or(version);
        let with_minor = || if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
        let url = match self.id.as_str() {
            "almalinux" => format!("http://almalinux.org/almalinux/{major}"),
            "centos" => match major {
                "6" | "7" => format!("http://centos.org/centos/{major}.0"),
                _ => format!("http://centos.org/centos-stream/{major}"),
            },
            "debian" => format!("http://debian.org/debian/{major}"),
            "fedora" => format!("http://fedoraproject.org/fedora/{major}"),
            "ol" => format!("http://oracle.com/ol/{}", with_minor()),
            "opensuse-leap" => format!("http://opensuse.org/opensuse/{version}"),
            "rhel" => format!("http://redhat.com/rhel/{}", with_minor()),
            "rocky" => format!("http://rockylinux.org/rocky/{major}"),
            "sles" => match version.split_once('.') {
                Some((major, minor)) => format!("http://suse.com/sle/{major}.{minor}"),
                None => format!("http://suse.com/sle/{version}"),
            },
            "ubuntu" => format!("http://ubuntu.com/ubuntu/{version}"),
            _ => return None,
        };
        plain.then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_plain_ones() {
        for (source, name) in [
            ("web01", "web01"),
            (" Größe (alt) ", "Größe (alt)"),
            ("../../etc/passwd", "etc-passwd"),
            ("a/b\nc\0d", "a-b-c-d"),
            ("--undefine", "undefine"),
            (".hidden", "hidden"),
            ("<name>&'\"", "name----"),
            ("\u{202e}evil\u{200b}", "evil-"),
            ("", "guest"),
            ("///", "guest"),
            ("..", "guest"),
            ("$(reboot);`x`", "(reboot)--x-"),
        ] {
            assert_eq!(domain_name(source), name, "{source:?}");
        }
    }

    #[test]
    fn a_name_has_a_bound_in_bytes() {
        for len in [MAX_NAME - 1, MAX_NAME, MAX_NAME + 1, 100_000] {
            assert_eq!(domain_name(&"x".repeat(len)).len(), len.min(MAX_NAME));
        }
        assert!(domain_name(&"ü€".repeat(500)).len() <= MAX_NAME);
    }

    #[test]
    fn targets_go_on_behind_z() {
        let names: Vec<_> = [0, 25, 26, 51, 52, 701, 702].iter().map(|&index| target("vd", index)).collect();
        assert_eq!(names, ["vda", "vdz", "vdaa", "vdaz", "vdba", "vdzz", "vdaaa"]);
    }

    #[test]
    fn reads_hardware_addresses_and_nothing_else() {
        assert_eq!(Mac::parse("00:50:56:AB-cd:0f").unwrap().to_string(), "00:50:56:ab:cd:0f");
        for bad in [
            "",
            "00:50:56:ab:cd",
            "00:50:56:ab:cd:0f:11",
            "01:50:56:ab:cd:0f",
            "00:00:00:00:00:00",
            "0:50:56:ab:cd:0f",
            "+0:50:56:ab:cd:0f",
            "00:50:56:ab:cd:0g",
            "00:50:56:ab:cd:0f'/>",
        ] {
            assert_eq!(Mac::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn knows_operating_systems() {
        for (id, version, url) in [
            ("debian", "12", Some("http://debian.org/debian/12")),
            ("ubuntu", "22.04", Some("http://ubuntu.com/ubuntu/22.04")),
            ("rhel", "9.4", Some("http://redhat.com/rhel/9.4")),
            ("centos", "7", Some("http://centos.org/centos/7.0")),
            ("centos", "9", Some("http://centos.org/centos-stream/9")),
            ("sles", "15.4", Some("http://suse.com/sle/15.4")),
            ("debian", "", None),
            ("debian", "12'/><x", None),
            ("arch", "1", None),
        ] {
            let os = OsId { id: id.to_owned(), version: version.to_owned() };
            assert_eq!(os.libosinfo().as_deref(), url, "{id} {version}");
        }
    }
}
