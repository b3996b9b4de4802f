//! `ifcfg-*` files of the Red Hat family (initscripts' sysconfig.txt) and of SUSE (ifcfg(5) of wicked and sysconfig).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::interface::{Interface, InterfaceKind, Method};
use super::mac_address;
use crate::error::Result;
use crate::inspect::Reader;
use crate::inspect::os::{bounded, shell_value};

const DIRS: &[&str] = &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"];

/// Ends of files that editors and packages leave; no tool reads them.
const LEFT_OVER: &[&str] = &["~", ".bak", ".orig", ".old", ".rpmnew", ".rpmorig", ".rpmsave", ".swp", ".augnew"];

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut nics: Vec<Interface> = Vec::new();
    let common = reader.text("/etc/sysconfig/network")?.map(|text| values(&text)).unwrap_or_default();
    for dir in DIRS {
        for path in reader.files(dir, "")? {
            let Some(suffix) = path.strip_prefix(dir).and_then(|name| name.strip_prefix("/ifcfg-")) else { continue };
            if LEFT_OVER.iter().any(|end| suffix.ends_with(end)) {
                continue;
            }
            let suffix = suffix.to_owned();
            let text = reader.text(&path)?.unwrap_or_default();
            let Some(mut nic) = parse(&text, &suffix, &path) else { continue };
            for routes in [format!("{dir}/route-{suffix}"), format!("{dir}/ifroute-{suffix}")] {
                let text = reader.text(&routes)?.unwrap_or_default();
                text.lines().filter_map(default_route).for_each(|(gateway, _)| nic.add_gateways(gateway));
            }
            // An alias adds addresses to what it is an alias of.
            let base = nic.name.as_deref().and_then(|name| name.split_once(':')).map(|(base, _)| base.to_owned());
            if let Some(base) = base {
                if let Some(known) = nics.iter_mut().find(|known| known.name.as_deref() == Some(&base)) {
                    nic.addresses.iter().for_each(|address| known.add_address(address, None));
                    continue;
                }
                nic.name = Some(base);
            }
            nics.push(nic);
        }
    }
    let routes = reader.text("/etc/sysconfig/network/routes")?.unwrap_or_default();
    let of_file = common.get("GATEWAY").map(|gateway| (gateway.as_str(), common.get("GATEWAYDEV").map(String::as_str)));
    for (gateway, device) in routes.lines().filter_map(default_route).chain(of_file) {
        // The gateway of the whole system goes through the interface that is named, or the first one with an address.
        let has = |nic: &&mut Interface| match device {
            Some(device) => nic.name.as_deref() == Some(device),
            None => nic.ipv4 == Method::Static,
        };
        if let Some(nic) = nics.iter_mut().find(has) {
            nic.add_gateways(gateway);
        }
    }
    Ok(nics)
}

/// Gateway and interface of `default via 10.0.0.1 dev eth0`, `default 10.0.0.1 - eth0`, `0.0.0.0/0 via …`.
fn default_route(line: &str) -> Option<(&str, Option<&str>)> {
    let mut words = line.split_ascii_whitespace().filter(|word| !matches!(*word, "via" | "dev"));
    words.next().filter(|to| matches!(*to, "default" | "0.0.0.0/0" | "::/0"))?;
    let gateway = words.next().filter(|gateway| gateway.contains(['.', ':']))?;
    let device = words.find(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    Some((gateway, device.filter(|device| *device != "metric")))
}

fn values(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.trim().split_once('='));
    lines
        .filter(|(key, _)| !key.starts_with('#'))
        .map(|(key, value)| (key.trim_start_matches("export ").to_owned(), shell_value(value)))
        .collect()
}

/// One file; `None` for loopback.
pub(super) fn parse(text: &str, suffix: &str, path: &str) -> Option<Interface> {
    let values = values(text);
    let value = |key: &str| values.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let is_on = |key: &str| {
        value(key)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "yes" | "true" | "1" | "on" | "y" | "t"))
    };
    let name = value("DEVICE").or_else(|| value("INTERFACE")).unwrap_or(suffix);
    if name == "lo" || name.is_empty() {
        return None;
    }
    let mut nic = Interface::new("ifcfg", path).named(name);
    nic.kind = kind(&values, name);
    nic.tie(value("HWADDR"));
    nic.set_mac = value("MACADDR").or_else(|| value("LLADDR")).and_then(mac_address);
    nic.mtu = value("MTU").and_then(|mtu| mtu.parse().ok());
    nic.enabled = match (value("ONBOOT"), value("STARTMODE")) {
        (Some(_), _) => is_on("ONBOOT"),
        (None, Some(mode)) => !matches!(mode, "manual" | "off"),
        (None, None) => true,
    };
    let proto = value("BOOTPROTO").unwrap_or_default().to_ascii_lowercase();
    nic.ipv4 = match proto.as_str() {
        "dhcp" | "dhcp4" | "bootp" | "dhcp+autoip" => Method::Dhcp,
        "autoip" | "ibft" | "shared" => Method::Other,
        _ => Method::Unset,
    };
    if is_on("DHCPV6C") || matches!(proto.as_str(), "dhcp6") || (proto == "dhcp" && value("STARTMODE").is_some()) {
        nic.ipv6 = Method::Dhcp;
    } else if is_on("IPV6_AUTOCONF") {
        nic.ipv6 = Method::Auto;
    } else if value("IPV6INIT").is_some() && !is_on("IPV6INIT") {
        nic.ipv6 = Method::Disabled;
    }
    for (key, address) in values.iter().filter(|(key, _)| key.starts_with("IPADDR")) {
        let end = key.strip_prefix("IPADDR").unwrap_or_default();
        let prefix = ["PREFIX", "PREFIXLEN", "NETMASK"].into_iter().find_map(|key| value(&format!("{key}{end}")));
        nic.add_address(address, prefix);
    }
    nic.add_address(value("IPV6ADDR").unwrap_or_default(), None);
    for address in value("IPV6ADDR_SECONDARIES").unwrap_or_default().split_ascii_whitespace() {
        nic.add_address(address, None);
    }
    for (key, text) in &values {
        if key.starts_with("GATEWAY") && key != "GATEWAYDEV" || key == "IPV6_DEFAULTGW" {
            nic.add_gateways(text.split('%').next().unwrap_or_default());
        } else if key.strip_prefix("DNS").is_some_and(|end| end.bytes().all(|byte| byte.is_ascii_digit())) {
            nic.add_dns(text);
        } else if key.starts_with("BONDING_SLAVE") && !key.ends_with("_OPTS") && !key.contains("SLAVES") {
            nic.add_members(text);
        }
    }
    nic.add_search(value("DOMAIN").unwrap_or_default());
    nic.add_members(value("BRIDGE_PORTS").unwrap_or_default());
    nic.belongs_to = value("MASTER").or_else(|| value("BRIDGE")).or_else(|| value("TEAM_MASTER")).map(str::to_owned);
    nic.uuid = value("UUID").map(str::to_owned);
    nic.vlan = value("VLAN_ID").and_then(|id| id.parse().ok());
    nic.parent = value("PHYSDEV").or_else(|| value("ETHERDEVICE")).map(bounded);
    if nic.kind == InterfaceKind::Vlan {
        nic.vlan_by_name();
    }
    Some(nic)
}

fn kind(values: &BTreeMap<String, String>, name: &str) -> InterfaceKind {
    let has = |key: &str| values.get(key).is_some_and(|value| !value.is_empty());
    let says = |key: &str, text: &str| values.get(key).is_some_and(|value| value.eq_ignore_ascii_case(text));
    if says("TYPE", "bond") || has("BONDING_OPTS") || says("BONDING_MASTER", "yes") {
        InterfaceKind::Bond
    } else if says("TYPE", "bridge") || says("TYPE", "OVSBridge") || says("BRIDGE", "yes") || has("BRIDGE_PORTS") {
        InterfaceKind::Bridge
    } else if says("TYPE", "vlan") || says("VLAN", "yes") || has("ETHERDEVICE") || has("VLAN_ID") {
        InterfaceKind::Vlan
    } else if says("DEVICETYPE", "team") || says("TYPE", "team") || has("TEAM_CONFIG") {
        InterfaceKind::Team
    } else if says("TYPE", "wireless") || has("WIRELESS_ESSID") || has("ESSID") {
        InterfaceKind::Wifi
    } else if ["tun", "tap", "ppp", "sit", "gre", "dummy", "ib"].iter().any(|prefix| name.starts_with(prefix)) {
        InterfaceKind::Other
    } else {
        InterfaceKind::Ethernet
    }
}
