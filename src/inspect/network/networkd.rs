//! systemd-networkd: `.network` and `.netdev` files (systemd.network(5), systemd.netdev(5)).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::ini::Ini;
use super::interface::{Interface, InterfaceKind, Method, add};
use crate::error::Result;
use crate::inspect::Reader;
use crate::inspect::os::bounded;

const DIR: &str = "/etc/systemd/network";

/// A virtual device of a `.netdev` file.
struct Device {
    name: String,
    kind: InterfaceKind,
    vlan: Option<u32>,
    mac: Option<String>,
}

/// The interfaces of all `.network` files, with what `.netdev` files say of them.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut nics = Vec::new();
    let mut vlans: Vec<(String, String)> = Vec::new();
    for path in reader.files(DIR, ".network")? {
        let text = with_drop_ins(reader, &path)?;
        nics.extend(network(&text, &path, &mut vlans));
    }
    for path in reader.files(DIR, ".netdev")? {
        let text = with_drop_ins(reader, &path)?;
        let Some(device) = device(&text) else { continue };
        if nics.iter().all(|nic| nic.name.as_ref() != Some(&device.name)) {
            nics.push(Interface::new("networkd", &path).named(&device.name));
        }
        for nic in nics.iter_mut().filter(|nic| nic.name.as_ref() == Some(&device.name)) {
            (nic.kind, nic.vlan) = (device.kind, device.vlan);
            nic.set_mac.clone_from(&device.mac);
            nic.parent = vlans.iter().find(|(name, _)| *name == device.name).map(|(_, parent)| parent.clone());
        }
    }
    Ok(nics)
}

/// A file with the files in its `.d` directory behind it.
fn with_drop_ins(reader: &mut Reader<'_>, path: &str) -> Result<String> {
    let mut text = reader.text(path)?.unwrap_or_default();
    for path in reader.files(&format!("{path}.d"), ".conf")? {
        text.push('\n');
        text.push_str(&reader.text(&path)?.unwrap_or_default());
        if text.len() > usize::try_from(crate::limits::MAX_GUEST_CONFIG).unwrap_or(usize::MAX) {
            break;
        }
    }
    Ok(text)
}

/// The interfaces of one `.network` file, one for each name that it matches. `vlans` takes which VLANs lie on them.
pub(super) fn network(text: &str, path: &str, vlans: &mut Vec<(String, String)>) -> Vec<Interface> {
    let ini = Ini::parse(text);
    let mut common = Interface::new("networkd", path);
    common.tie(ini.get("Match", "MACAddress").or_else(|| ini.get("Match", "PermanentMACAddress")));
    common.set_mac = ini.get("Link", "MACAddress").and_then(super::mac_address);
    common.mtu = ini.get("Link", "MTUBytes").and_then(|mtu| mtu.parse().ok());
    common.enabled =
        ini.get("Link", "ActivationPolicy").is_none_or(|policy| !matches!(policy, "down" | "always-down" | "manual"));
    let (v4, v6) = match ini.get("Network", "DHCP").map(str::to_ascii_lowercase).as_deref() {
        Some("yes" | "true" | "on" | "1" | "both") => (Method::Dhcp, Method::Dhcp),
        Some("ipv4" | "v4") => (Method::Dhcp, Method::Unset),
        Some("ipv6" | "v6") => (Method::Unset, Method::Dhcp),
        _ => (Method::Unset, Method::Unset),
    };
    (common.ipv4, common.ipv6) = (v4, v6);
    for section in ["Network", "Address"] {
        ini.all(section, "Address").for_each(|address| common.add_address(address, None));
    }
    ini.all("Network", "Gateway")
        .filter(|gateway| !gateway.starts_with('_'))
        .for_each(|text| common.add_gateways(text));
    let has_destination = ini.all("Route", "Destination").any(|to| !matches!(to, "0.0.0.0/0" | "::/0" | ""));
    if !has_destination {
        ini.all("Route", "Gateway").filter(|text| !text.starts_with('_')).for_each(|text| common.add_gateways(text));
    }
    ini.all("Network", "DNS").for_each(|text| common.add_dns(text));
    ini.all("Network", "Domains").for_each(|text| common.add_search(text));
    let owner = ini.get("Network", "Bond").or_else(|| ini.get("Network", "Bridge"));
    common.belongs_to = owner.map(str::to_owned);
    let names: Vec<&str> = ini.all("Match", "Name").flat_map(str::split_ascii_whitespace).take(64).collect();
    for vlan in ini.all("Network", "VLAN").flat_map(str::split_ascii_whitespace).take(64) {
        vlans.extend(names.first().map(|parent| (vlan.to_owned(), bounded(parent))));
    }
    if names.is_empty() {
        let is_tied = common.mac.is_some() || text.contains("[Match]");
        return if is_tied { vec![common] } else { Vec::new() };
    }
    names.into_iter().map(|name| common.clone().named(name)).collect()
}

fn device(text: &str) -> Option<Device> {
    let ini = Ini::parse(text);
    let kind = match ini.get("NetDev", "Kind")? {
        "bond" => InterfaceKind::Bond,
        "bridge" => InterfaceKind::Bridge,
        "vlan" => InterfaceKind::Vlan,
        _ => InterfaceKind::Other,
    };
    Some(Device {
        name: bounded(ini.get("NetDev", "Name")?),
        kind,
        vlan: ini.get("VLAN", "Id").and_then(|id| id.parse().ok()),
        mac: ini.get("NetDev", "MACAddress").and_then(super::mac_address),
    })
}

/// Puts what says that it belongs to a bond or bridge into that one's members.
pub(super) fn join(nics: &mut [Interface]) {
    let belonging: Vec<(String, String)> =
        nics.iter().filter_map(|nic| Some((nic.belongs_to.clone()?, nic.name.clone()?))).collect();
    for (owner, member) in belonging {
        let is_owner = |nic: &&mut Interface| nic.name.as_ref() == Some(&owner) || nic.uuid.as_ref() == Some(&owner);
        if let Some(nic) = nics.iter_mut().find(is_owner) {
            add(&mut nic.members, &member);
        }
    }
}
