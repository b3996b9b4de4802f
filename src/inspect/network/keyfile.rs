//! NetworkManager's keyfiles (nm-settings-keyfile(5)).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::ini::Ini;
use super::interface::{Interface, InterfaceKind, Method};

/// The connection in a keyfile; `None` for loopback, VPNs and what is no connection.
pub(super) fn parse(text: &str, path: &str) -> Option<Interface> {
    let ini = Ini::parse(text);
    let kind = match ini.get("connection", "type")? {
        "802-3-ethernet" | "ethernet" => InterfaceKind::Ethernet,
        "bond" => InterfaceKind::Bond,
        "bridge" => InterfaceKind::Bridge,
        "team" => InterfaceKind::Team,
        "vlan" => InterfaceKind::Vlan,
        "802-11-wireless" | "wifi" => InterfaceKind::Wifi,
        "" | "loopback" | "vpn" | "wireguard" => return None,
        _ => InterfaceKind::Other,
    };
    let name = ini.get("connection", "interface-name").or_else(|| ini.get("vlan", "interface-name"));
    let mut nic = Interface { kind, ..Interface::new("networkmanager", path) }.named(name.unwrap_or_default());
    for section in ["ethernet", "802-3-ethernet", "wifi", "802-11-wireless"] {
        nic.tie(ini.get(section, "mac-address"));
        nic.set_mac = ini.get(section, "cloned-mac-address").and_then(super::mac_address).or(nic.set_mac);
        nic.mtu = ini.get(section, "mtu").and_then(|mtu| mtu.parse().ok()).or(nic.mtu);
    }
    nic.enabled = ini.get("connection", "autoconnect") != Some("false");
    nic.uuid = ini.get("connection", "uuid").map(str::to_owned);
    let owner = ini.get("connection", "controller").or_else(|| ini.get("connection", "master"));
    nic.belongs_to = owner.map(str::to_owned);
    nic.parent = ini.get("vlan", "parent").map(crate::inspect::os::bounded);
    nic.vlan = ini.get("vlan", "id").and_then(|id| id.parse().ok());
    nic.ipv4 = method(ini.get("ipv4", "method"));
    nic.ipv6 = method(ini.get("ipv6", "method"));
    for section in ["ipv4", "ipv6"] {
        for (key, value) in ini.section(section) {
            let digits = |prefix: &str| {
                key.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
            };
            if digits("address") || key == "addresses" {
                for list in value.split(';') {
                    let mut parts = list.split(',');
                    nic.add_address(parts.next().unwrap_or_default(), None);
                    nic.add_gateways(parts.next().unwrap_or_default());
                }
            } else if digits("route") {
                let mut parts = value.split(',');
                if let (Some("0.0.0.0/0" | "::/0"), Some(gateway)) = (parts.next(), parts.next()) {
                    nic.add_gateways(gateway);
                }
            } else {
                match key {
                    "dns" => nic.add_dns(value),
                    "dns-search" => nic.add_search(value),
                    "gateway" => nic.add_gateways(value),
                    _ => {}
                }
            }
        }
    }
    Some(nic)
}

fn method(text: Option<&str>) -> Method {
    match text {
        // IPv4's `auto` is a server's; IPv6's is a router's, which may send on to a server.
        Some("auto" | "dhcp") => Method::Dhcp,
        Some("disabled" | "ignore") => Method::Disabled,
        Some("manual") => Method::Static,
        Some(_) => Method::Other,
        None => Method::Unset,
    }
}
