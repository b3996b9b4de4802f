//! dhcpcd.conf(5): what it gives interfaces instead of asking a server.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::interface::{Interface, Method};
use crate::error::Result;
use crate::inspect::Reader;
use crate::limits;

const PATH: &str = "/etc/dhcpcd.conf";

/// The interfaces that have a block of their own. All others ask a server, without being named anywhere.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let text = reader.text(PATH)?.unwrap_or_default();
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<Interface> {
    let mut nics: Vec<Interface> = Vec::new();
    let mut denied: Vec<&str> = Vec::new();
    let mut is_open = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let (key, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let rest = rest.trim();
        match key {
            "interface" if nics.len() < limits::MAX_NICS => {
                is_open = true;
                nics.push(Interface { ipv4: Method::Dhcp, ..Interface::new("dhcpcd", PATH) }.named(rest));
                continue;
            }
            // Blocks of networks, profiles and servers.
            "interface" | "ssid" | "profile" | "arping" => is_open = false,
            "denyinterfaces" => denied.extend(rest.split([' ', ',']).take(limits::MAX_NICS)),
            _ => {}
        }
        let Some(nic) = nics.last_mut().filter(|_| is_open) else { continue };
        match (key, rest.split_once('=').unwrap_or((rest, ""))) {
            ("static", ("ip_address" | "ip6_address", address)) => {
                if matches!(nic.ipv4, Method::Dhcp) && !address.contains(':') {
                    nic.ipv4 = Method::Unset;
                }
                nic.add_address(address, None);
            }
            ("static", ("routers", gateways)) => nic.add_gateways(gateways),
            ("static", ("domain_name_servers", servers)) => nic.add_dns(servers),
            ("static", ("domain_name" | "domain_search", domains)) => nic.add_search(domains),
            ("static", ("interface_mtu" | "mtu", mtu)) => nic.mtu = mtu.parse().ok(),
            ("inform", (address, _)) => nic.add_address(address, None),
            ("nodhcp" | "noipv4", _) if nic.ipv4 == Method::Dhcp => nic.ipv4 = Method::Disabled,
            ("noipv6" | "noipv6rs", _) => nic.ipv6 = Method::Disabled,
            _ => {}
        }
    }
    for nic in &mut nics {
        nic.enabled = !nic.name.as_deref().is_some_and(|name| denied.contains(&name));
    }
    nics
}
