//! Configured network interfaces: ifupdown, NetworkManager, netplan, systemd-networkd, ifcfg files, wicked, netifrc, dhcpcd; the addresses that
//! servers gave; and what pins the names of cards.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod dhcpcd;
mod ifcfg;
mod ifupdown;
mod ini;
mod interface;
mod keyfile;
mod lease;
mod netifrc;
mod netplan;
mod networkd;
mod wicked;

use serde::Serialize;

use super::Reader;
use super::bootloader::BootEntry;
use crate::error::Result;
use crate::fs::Tree;
use crate::limits;
pub(crate) use ini::Ini;

pub use interface::{Interface, InterfaceKind, Method};
pub use lease::Lease;
pub(super) use lease::find as leases;

/// A network card that some configuration names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NicConfig {
    /// `ens192`.
    pub name: String,
    /// How it gets its IPv4 address, or its IPv6 address where nothing is said of the other.
    pub method: Method,
    /// The hardware address that the configuration ties it to.
    pub mac: Option<String>,
    /// `ifupdown`, `networkmanager`, `netplan`, `networkd`, `ifcfg`, `wicked`, `netifrc`, `dhcpcd`.
    pub manager: &'static str,
    /// The file that says so.
    pub source: String,
}

/// A rule that gives the interface with a hardware address its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pin {
    /// The interface's name.
    pub name: String,
    /// `00:50:56:…`, in lower case.
    pub mac: String,
}

/// The interfaces that the guest's configuration describes, without loopback.
pub(super) fn find(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut nics = ifupdown::read(reader)?;
    let mut connections = Vec::new();
    for dir in ["/etc/NetworkManager/system-connections", "/usr/lib/NetworkManager/system-connections"] {
        for path in reader.files(dir, "")? {
            let text = reader.text(&path)?.unwrap_or_default();
            connections.extend(keyfile::parse(&text, &path));
        }
    }
    let (netplan, ifcfg) = (netplan::read(reader)?, ifcfg::read(reader)?);
    let (wicked, netifrc, dhcpcd) = (wicked::read(reader)?, netifrc::read(reader)?, dhcpcd::read(reader)?);
    for mut found in [connections, netplan, networkd::read(reader)?, ifcfg, wicked, netifrc, dhcpcd] {
        networkd::join(&mut found);
        nics.extend(found);
    }
    if nics.len() > limits::MAX_NICS {
        reader.notes.push(format!("only the first {} interfaces are considered", limits::MAX_NICS));
        nics.truncate(limits::MAX_NICS);
    }
    Ok(nics)
}

/// The cards that interfaces are, or lie on: what a bond is made of counts, and what a VLAN lies on.
pub(super) fn cards(interfaces: &[Interface]) -> Vec<NicConfig> {
    let mut nics: Vec<NicConfig> = Vec::new();
    for interface in interfaces {
        let method = if interface.ipv4 == Method::Unset { interface.ipv6 } else { interface.ipv4 };
        let mut add = |name: &str, method, mac: Option<&String>| {
            let Some(name) = card(name) else { return };
            let is_known = |known: &NicConfig| known.name == name && known.manager == interface.manager;
            if nics.len() < limits::MAX_NICS && !nics.iter().any(is_known) {
                nics.push(NicConfig {
                    name: name.to_owned(),
                    method,
                    mac: mac.cloned(),
                    manager: interface.manager,
                    source: interface.source.clone(),
                });
            }
        };
        if let Some(name) = &interface.name {
            let own = if interface.kind == InterfaceKind::Vlan { Method::Unset } else { method };
            add(name, own, interface.mac.as_ref());
        }
        interface.members.iter().chain(&interface.parent).for_each(|name| add(name, Method::Unset, None));
    }
    nics
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

#[cfg(test)]
mod tests;
