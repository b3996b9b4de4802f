//! Configured network interfaces: ifupdown, NetworkManager, netplan, systemd-networkd, ifcfg files; and what pins their names.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;

use serde::Serialize;

use super::Reader;
use super::bootloader::BootEntry;
use super::os::shell_value;
use crate::error::Result;
use crate::fs::Tree;
use crate::limits;

/// A physical network interface that some configuration names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NicConfig {
    /// `ens192`.
    pub name: String,
    /// How it gets its address.
    pub method: Method,
    /// The hardware address that the configuration ties it to.
    pub mac: Option<String>,
    /// `ifupdown`, `networkmanager`, `netplan`, `networkd`, `ifcfg`.
    pub manager: &'static str,
    /// The file that says so.
    pub source: String,
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// From a server.
    Dhcp,
    /// Something else, or nothing.
    Other,
    /// From the configuration.
    Static,
}

/// A rule that gives the interface with a hardware address its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pin {
    /// The interface's name.
    pub name: String,
    /// `00:50:56:…`, in lower case.
    pub mac: String,
}

pub(super) fn find(reader: &mut Reader<'_>) -> Result<Vec<NicConfig>> {
    let mut nics = Vec::new();
    ifupdown(reader, &mut nics)?;
    for dir in ["/etc/NetworkManager/system-connections", "/usr/lib/NetworkManager/system-connections"] {
        for path in reader.files(dir, "")? {
            let text = reader.text(&path)?.unwrap_or_default();
            nics.extend(keyfile(&text, &path));
        }
    }
    for path in reader.files("/etc/netplan", ".yaml")? {
        let text = reader.text(&path)?.unwrap_or_default();
        nics.extend(netplan(&text, &path));
    }
    for path in reader.files("/etc/systemd/network", ".network")? {
        let text = reader.text(&path)?.unwrap_or_default();
        nics.extend(networkd(&text, &path));
    }
    for dir in ["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"] {
        for path in reader.files(dir, "")? {
            let Some(suffix) = path.strip_prefix(dir).and_then(|name| name.strip_prefix("/ifcfg-")) else { continue };
            let suffix = suffix.to_owned();
            let text = reader.text(&path)?.unwrap_or_default();
            nics.extend(ifcfg(&text, &suffix, &path));
        }
    }
    if nics.len() > limits::MAX_NICS {
        reader.notes.push(format!("only the first {} interfaces are considered", limits::MAX_NICS));
        nics.truncate(limits::MAX_NICS);
    }
    Ok(nics)
}

/// Whether predictable interface names are switched off: on every kernel command line, by a mask, or for lack of a udev that
/// has them.
pub(super) fn kernel_names(reader: &mut Reader<'_>, entries: &[BootEntry]) -> Result<bool> {
    let off = |entry: &BootEntry| entry.options.split_ascii_whitespace().any(|word| word == "net.ifnames=0");
    if !entries.is_empty() && entries.iter().all(off) {
        return Ok(true);
    }
    for mask in [
        "/etc/udev/rules.d/80-net-setup-link.rules",
        "/etc/udev/rules.d/80-net-name-slot.rules",
        "/etc/systemd/network/99-default.link",
    ] {
        let is_null = reader.tree.read_link(mask)?.is_some_and(|target| target == b"/dev/null");
        if is_null || reader.bytes(mask)?.is_some_and(|content| content.is_empty()) {
            return Ok(true);
        }
    }
    Ok(!has_link_files(reader.tree)? && !udev_rule(reader.tree, "80-net-name-slot.rules")?)
}

/// Whether the guest's udev reads `.link` files.
pub(crate) fn has_link_files(tree: &Tree) -> Result<bool> {
    udev_rule(tree, "80-net-setup-link.rules")
}

fn udev_rule(tree: &Tree, name: &str) -> Result<bool> {
    Ok(tree.is_file(format!("/usr/lib/udev/rules.d/{name}"))? || tree.is_file(format!("/lib/udev/rules.d/{name}"))?)
}

/// The names that udev rules and `.link` files of the guest tie to hardware addresses.
pub(super) fn pins(reader: &mut Reader<'_>) -> Result<Vec<Pin>> {
    let mut pins = Vec::new();
    for path in reader.files("/etc/udev/rules.d", ".rules")? {
        let text = reader.text(&path)?.unwrap_or_default();
        pins.extend(text.lines().filter_map(udev_pin));
    }
    for path in reader.files("/etc/systemd/network", ".link")? {
        let text = reader.text(&path)?.unwrap_or_default();
        let ini = Ini::parse(&text);
        let mac = ini.get("Match", "MACAddress").or_else(|| ini.get("Match", "PermanentMACAddress"));
        if let (Some(mac), Some(name)) = (mac, ini.get("Link", "Name")) {
            pins.extend(
                mac.split_ascii_whitespace().filter_map(mac_address).map(|mac| Pin { name: name.to_owned(), mac }),
            );
        }
    }
    Ok(pins)
}

fn udev_pin(line: &str) -> Option<Pin> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let value = |key: &str| {
        let (_, rest) = line.split_once(key)?;
        let rest = rest.trim_start_matches('=').trim_start().strip_prefix('"')?;
        rest.split('"').next()
    };
    let mac = mac_address(value("ATTR{address}").or_else(|| value("SYSFS{address}"))?)?;
    let (_, rest) = line.rsplit_once("NAME=\"").filter(|(before, _)| !before.ends_with("INTERFACE_"))?;
    let name = rest.split('"').next()?;
    Some(Pin { name: name.to_owned(), mac })
}

/// `00:50:56:AA:bb:cc` or with dashes, in lower case with colons.
pub(crate) fn mac_address(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace('-', ":");
    let parts: Vec<&str> = text.split(':').collect();
    let is_byte = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if parts.len() == 6 && parts.iter().all(is_byte) { Some(text) } else { None }
}

/// Whether a name can be that of an Ethernet card: `eth0`, `ens192`, `enp3s0`, `eno1`, `enx…`.
pub(crate) fn is_ethernet(name: &str) -> bool {
    let tail =
        name.strip_prefix("eth").filter(|tail| !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_digit()));
    let predictable = ["eno", "ens", "enp", "enx", "enP"].iter().any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_hexdigit()) && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
    });
    (tail.is_some() || predictable) && name.len() < 16
}

/// The card below an alias (`eth0:1`) or VLAN (`eth0.5`), if the name is one of a card.
fn card(name: &str) -> Option<&str> {
    let base = name.split([':', '.']).next()?;
    Some(base).filter(|base| is_ethernet(base))
}

/// interfaces(5), with the files that it sources.
fn ifupdown(reader: &mut Reader<'_>, nics: &mut Vec<NicConfig>) -> Result<()> {
    let mut queue = VecDeque::from(["/etc/network/interfaces".to_owned()]);
    let mut seen: Vec<String> = Vec::new();
    while let Some(path) = queue.pop_front() {
        if seen.contains(&path) || seen.len() >= limits::MAX_SOURCED_FILES {
            continue;
        }
        let text = reader.text(&path)?.unwrap_or_default();
        let (found, sources) = interfaces(&text, &path);
        seen.push(path);
        for nic in found {
            if !nics.iter().any(|known: &NicConfig| known.name == nic.name && known.manager == "ifupdown") {
                nics.push(nic);
            }
        }
        for source in sources {
            queue.extend(expand(reader, &source)?);
        }
    }
    Ok(())
}

/// What one interfaces(5) file names, and the patterns of the files that it sources.
pub(crate) fn interfaces(text: &str, path: &str) -> (Vec<NicConfig>, Vec<Source>) {
    let mut nics: Vec<NicConfig> = Vec::new();
    let mut sources = Vec::new();
    let mut current: Option<usize> = None;
    let add = |nics: &mut Vec<NicConfig>, name: &str, method| -> Option<usize> {
        let name = card(name)?;
        if let Some(index) = nics.iter().position(|nic| nic.name == name) {
            return Some(index);
        }
        nics.push(NicConfig { name: name.to_owned(), method, mac: None, manager: "ifupdown", source: path.to_owned() });
        nics.len().checked_sub(1)
    };
    for line in logical_lines(text) {
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "iface" => {
                let name = words.next().unwrap_or_default();
                let _family = words.next();
                let method = match words.next() {
                    Some("dhcp") => Method::Dhcp,
                    Some("static") => Method::Static,
                    _ => Method::Other,
                };
                current = add(&mut nics, name, method);
            }
            "mapping" => current = None,
            "source" => sources.extend(words.map(|word| Source::Files(word.to_owned()))),
            "source-directory" => sources.extend(words.map(|word| Source::Directory(word.to_owned()))),
            "hwaddress" => {
                let mac = words.filter(|word| *word != "ether").find_map(mac_address);
                if let Some(nic) = current.and_then(|index| nics.get_mut(index)) {
                    nic.mac = nic.mac.take().or(mac);
                }
            }
            "bridge_ports" | "bridge-ports" | "slaves" | "bond-slaves" | "bond_slaves" | "vlan-raw-device"
            | "vlan_raw_device" => {
                for word in words {
                    add(&mut nics, word, Method::Other);
                }
            }
            _ => {}
        }
    }
    (nics, sources)
}

/// Files that an interfaces(5) file includes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// All files of a directory with plain names.
    Directory(String),
    /// A path whose last name may hold `*`.
    Files(String),
}

fn expand(reader: &mut Reader<'_>, source: &Source) -> Result<Vec<String>> {
    let absolute = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/etc/network/{path}") };
    match source {
        Source::Directory(dir) => {
            let dir = absolute(dir.trim_end_matches('/'));
            let is_plain = |path: &String| {
                let name = path.rsplit('/').next().unwrap_or_default();
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            };
            Ok(reader.files(&dir, "")?.into_iter().filter(is_plain).collect())
        }
        Source::Files(pattern) => {
            let pattern = absolute(pattern);
            let Some((dir, name)) = pattern.rsplit_once('/') else { return Ok(Vec::new()) };
            match name.split_once('*') {
                None => Ok(vec![pattern]),
                Some((start, end)) => {
                    let matches = |path: &String| {
                        path.rsplit('/').next().is_some_and(|name| {
                            name.strip_prefix(start).is_some_and(|rest| rest.ends_with(end.trim_start_matches('*')))
                        })
                    };
                    Ok(reader.files(dir, "")?.into_iter().filter(matches).collect())
                }
            }
        }
    }
}

/// Lines with continuations joined; comments and blank lines left out.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        if open.is_none() && line.trim_start().starts_with('#') {
            continue;
        }
        let mut joined = open.take().unwrap_or_default();
        match line.strip_suffix('\\') {
            Some(start) => {
                joined.push_str(start);
                joined.push(' ');
                open = Some(joined);
            }
            None => {
                joined.push_str(line);
                lines.push(joined);
            }
        }
    }
    lines.extend(open);
    lines
}

/// A NetworkManager keyfile; one without an interface name fits any card and names none.
fn keyfile(text: &str, path: &str) -> Option<NicConfig> {
    let ini = Ini::parse(text);
    let kind = ini.get("connection", "type")?;
    if kind != "ethernet" && kind != "802-3-ethernet" {
        return None;
    }
    let name = card(ini.get("connection", "interface-name")?)?;
    let method = match ini.get("ipv4", "method") {
        Some("auto") => Method::Dhcp,
        Some("manual") => Method::Static,
        _ => Method::Other,
    };
    let mac = ini.get("ethernet", "mac-address").or_else(|| ini.get("802-3-ethernet", "mac-address"));
    Some(NicConfig {
        name: name.to_owned(),
        method,
        mac: mac.and_then(mac_address),
        manager: "networkmanager",
        source: path.to_owned(),
    })
}

/// The `ethernets` of a netplan file. Only the block style that installers write is read.
fn netplan(text: &str, path: &str) -> Vec<NicConfig> {
    let mut nics: Vec<NicConfig> = Vec::new();
    let mut section: Option<usize> = None;
    let mut level: Option<usize> = None;
    for line in text.lines() {
        let content = line.trim_start_matches(' ');
        let indent = line.len().saturating_sub(content.len());
        let content = content.split(" #").next().unwrap_or_default().trim_end();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        if content == "ethernets:" {
            (section, level) = (Some(indent), None);
            continue;
        }
        let Some(start) = section else { continue };
        if indent <= start {
            section = None;
            continue;
        }
        let level = *level.get_or_insert(indent);
        let (key, value) = content.split_once(':').unwrap_or((content, ""));
        let value = value.trim().trim_matches(['"', '\'']);
        if indent == level {
            nics.push(NicConfig {
                name: key.trim_matches(['"', '\'']).to_owned(),
                method: Method::Other,
                mac: None,
                manager: "netplan",
                source: path.to_owned(),
            });
            continue;
        }
        let Some(nic) = nics.last_mut() else { continue };
        match key {
            "dhcp4" | "dhcp6" if matches!(value, "true" | "yes" | "on") => nic.method = Method::Dhcp,
            "addresses" if nic.method == Method::Other => nic.method = Method::Static,
            "macaddress" => nic.mac = mac_address(value),
            "set-name" => value.clone_into(&mut nic.name),
            _ => {}
        }
    }
    nics.retain(|nic| is_ethernet(&nic.name));
    nics
}

fn networkd(text: &str, path: &str) -> Vec<NicConfig> {
    let ini = Ini::parse(text);
    let dhcp = ini.get("Network", "DHCP").is_some_and(|value| !matches!(value, "no" | "false" | "none"));
    let method = match (dhcp, ini.get("Network", "Address").or_else(|| ini.get("Address", "Address"))) {
        (true, _) => Method::Dhcp,
        (false, Some(_)) => Method::Static,
        (false, None) => Method::Other,
    };
    let mac = ini.get("Match", "MACAddress").and_then(mac_address);
    let names = ini.get("Match", "Name").unwrap_or_default().split_ascii_whitespace().filter(|name| is_ethernet(name));
    let nic = |name: &str| NicConfig {
        name: name.to_owned(),
        method,
        mac: mac.clone(),
        manager: "networkd",
        source: path.to_owned(),
    };
    names.map(nic).collect()
}

fn ifcfg(text: &str, suffix: &str, path: &str) -> Option<NicConfig> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        lines.rfind(|(name, _)| *name == key).map(|(_, value)| shell_value(value))
    };
    let name = value("DEVICE").filter(|name| !name.is_empty()).unwrap_or_else(|| suffix.to_owned());
    let method = match value("BOOTPROTO").unwrap_or_default().to_ascii_lowercase().as_str() {
        proto if proto.starts_with("dhcp") || proto == "bootp" => Method::Dhcp,
        "static" | "none" | "" if value("IPADDR").or_else(|| value("IPADDR0")).is_some() => Method::Static,
        _ => Method::Other,
    };
    Some(NicConfig {
        name: card(&name)?.to_owned(),
        method,
        mac: value("HWADDR").and_then(|mac| mac_address(&mac)),
        manager: "ifcfg",
        source: path.to_owned(),
    })
}

/// Sections, keys and values of an INI file.
struct Ini<'a>(Vec<(&'a str, &'a str, &'a str)>);

impl<'a> Ini<'a> {
    fn parse(text: &'a str) -> Self {
        let mut section = "";
        let mut values = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('#') || line.starts_with(';') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name;
            } else if let Some((key, value)) = line.split_once('=') {
                values.push((section, key.trim(), value.trim()));
            }
        }
        Self(values)
    }

    fn get(&self, section: &str, key: &str) -> Option<&'a str> {
        let found = self.0.iter().rfind(|(in_section, name, _)| *in_section == section && *name == key)?;
        Some(found.2)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fs::MemoryFs;

    fn short(nics: &[NicConfig]) -> Vec<(&str, Method, Option<&str>)> {
        nics.iter().map(|nic| (nic.name.as_str(), nic.method, nic.mac.as_deref())).collect()
    }

    #[test]
    fn reads_ifupdown_with_all_that_it_sources() {
        let fs = MemoryFs::default();
        fs.add_file(
            "/etc/network/interfaces",
            "# iface eth9 inet dhcp\nauto lo\niface lo inet loopback\nsource interfaces.d/*.cfg\nsource-directory more\n\
             allow-hotplug ens192\niface ens192 inet \\\n  static\n  address 10.0.0.1/24\n  hwaddress ether 00:50:56:AA:BB:CC\n\
             iface ens192 inet6 auto\niface ens192:1 inet static\niface ens224.5 inet dhcp\niface br0 inet dhcp\n bridge_ports eth1 none\n\
             source interfaces\nsource interfaces.d/loop\n",
        )
        .unwrap();
        fs.add_file("/etc/network/interfaces.d/a.cfg", "iface eno1 inet dhcp\nsource /etc/network/interfaces\n")
            .unwrap();
        fs.add_file("/etc/network/interfaces.d/a.bak", "iface eno2 inet dhcp\n").unwrap();
        fs.add_file("/etc/network/more/x", "iface eno3 inet dhcp").unwrap();
        fs.add_file("/etc/network/more/x.dpkg-old", "iface eno4 inet dhcp").unwrap();
        let tree = Tree::new(Arc::new(fs));
        let nics = find(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap();
        assert_eq!(
            short(&nics),
            [
                ("ens192", Method::Static, Some("00:50:56:aa:bb:cc")),
                ("ens224", Method::Dhcp, None),
                ("eth1", Method::Other, None),
                ("eno1", Method::Dhcp, None),
                ("eno3", Method::Dhcp, None),
            ]
        );
    }

    #[test]
    fn reads_the_other_managers() {
        let nic = keyfile(
            "[connection]\nid=x\ntype=ethernet\ninterface-name=ens33\n[ethernet]\nmac-address=00:50:56:00:00:01\n[ipv4]\nmethod=manual\n",
            "/k",
        )
        .unwrap();
        assert_eq!(short(&[nic]), [("ens33", Method::Static, Some("00:50:56:00:00:01"))]);
        assert!(keyfile("[connection]\ntype=ethernet\n", "/k").is_none());
        assert!(keyfile("[connection]\ntype=wifi\ninterface-name=eth0\n", "/k").is_none());
        let plan = "network:\n  version: 2\n  ethernets:\n    # c\n    ens160:\n      dhcp4: true\n    nic1:\n      match:\n        macaddress: \"00:50:56:00:00:02\"\n      set-name: ens192\n      addresses: [10.0.0.2/24]\n  bridges:\n    br0:\n      dhcp4: true\n";
        assert_eq!(
            short(&netplan(plan, "/n")),
            [("ens160", Method::Dhcp, None), ("ens192", Method::Static, Some("00:50:56:00:00:02"))]
        );
        let nics = networkd("[Match]\nName=ens192 ens224\n[Network]\nDHCP=ipv4\n", "/d");
        assert_eq!(short(&nics), [("ens192", Method::Dhcp, None), ("ens224", Method::Dhcp, None)]);
        assert!(networkd("[Match]\nName=en*\n", "/d").is_empty());
        let nic =
            ifcfg("DEVICE=\"eth0\"\nHWADDR=00:50:56:00:00:03\nBOOTPROTO=none\nIPADDR=10.0.0.3\n", "x", "/i").unwrap();
        assert_eq!(short(&[nic]), [("eth0", Method::Static, Some("00:50:56:00:00:03"))]);
        assert_eq!(ifcfg("BOOTPROTO='dhcp'\n", "eth1", "/i").unwrap().name, "eth1");
        assert!(ifcfg("", "lo", "/i").is_none());
    }

    #[test]
    fn reads_pins_of_old_and_new_udev() {
        let fs = MemoryFs::default();
        fs.add_file(
            "/etc/udev/rules.d/70-persistent-net.rules",
            "# PCI device\nSUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{address}==\"00:50:56:00:00:01\", KERNEL==\"eth*\", NAME=\"eth0\"\n",
        )
        .unwrap();
        fs.add_file("/etc/systemd/network/10-x.link", "[Match]\nMACAddress=00-50-56-00-00-02\n[Link]\nName=lan0\n")
            .unwrap();
        let tree = Tree::new(Arc::new(fs));
        let pins = pins(&mut Reader { tree: &tree, notes: Vec::new() }).unwrap();
        let short: Vec<_> = pins.iter().map(|pin| (pin.name.as_str(), pin.mac.as_str())).collect();
        assert_eq!(short, [("eth0", "00:50:56:00:00:01"), ("lan0", "00:50:56:00:00:02")]);
    }

    #[test]
    fn knows_when_names_are_the_kernels() {
        let names = |files: &[&str], masks: &[&str], options: &[&str]| {
            let fs = MemoryFs::default();
            for path in files {
                fs.add_file(path, "rule").unwrap();
            }
            for path in masks {
                fs.add_link(path, "/dev/null").unwrap();
            }
            let tree = Tree::new(Arc::new(fs));
            let entries: Vec<_> = options
                .iter()
                .map(|options| BootEntry { options: (*options).to_owned(), ..BootEntry::default() })
                .collect();
            kernel_names(&mut Reader { tree: &tree, notes: Vec::new() }, &entries).unwrap()
        };
        let link = "/lib/udev/rules.d/80-net-setup-link.rules";
        assert!(!names(&[link], &[], &["quiet"]));
        assert!(names(&[link], &[], &["quiet net.ifnames=0"]));
        assert!(!names(&[link], &[], &["net.ifnames=0", "quiet"]));
        assert!(names(&[link], &["/etc/systemd/network/99-default.link"], &[]));
        assert!(names(&[], &[], &[]));
    }

    #[test]
    fn tells_names_of_cards() {
        for name in ["eth0", "ens192", "enp11s0", "eno16777728", "enx005056000001", "enP1p1s0"] {
            assert!(is_ethernet(name), "{name}");
        }
        for name in [
            "",
            "lo",
            "eth",
            "ethx",
            "en",
            "ens",
            "br0",
            "bond0",
            "en*",
            "ens1/../x",
            "ens192 x",
            "enp0s31f6aaaaaaaaaaaaa",
        ] {
            assert!(!is_ethernet(name), "{name}");
        }
    }

    #[test]
    fn odd_input_is_only_odd() {
        for text in [
            "",
            "\\",
            "iface",
            "iface \\\n",
            "source\n",
            "source *",
            "source /*\\",
            "[",
            "ethernets:",
            "ethernets:\n  :",
            "auto\0\n",
            "[connection]\ntype=ethernet\ninterface-name=\n",
            "[Match]\nName=\n",
            "DEVICE=\n",
            "ATTR{address}==\"",
            "NAME=\"",
        ] {
            assert!(interfaces(text, "/a").0.is_empty(), "{text}");
            assert!(keyfile(text, "/a").is_none(), "{text}");
            assert!(netplan(text, "/a").is_empty(), "{text}");
            assert!(networkd(text, "/a").is_empty(), "{text}");
            assert!(ifcfg(text, "", "/a").is_none(), "{text}");
            assert!(text.lines().all(|line| udev_pin(line).is_none()), "{text}");
        }
    }
}
