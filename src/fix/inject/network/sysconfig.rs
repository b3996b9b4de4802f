//! ifcfg(5) of SUSE, which wicked reads and sysconfig before it: addresses in `ifcfg-NAME`, routes in `ifroute-NAME` and for the whole
//! system in `routes`, name servers for the whole system in `config`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Asked, joined};

/// Where the files are.
pub(super) const DIR: &str = "/etc/sysconfig/network/";

/// Keys of one address; each is followed by what tells the addresses apart.
const OF_ADDRESS: &[&str] =
    &["BROADCAST", "IPADDR", "LABEL", "NETMASK", "NETWORK", "PREFIXLEN", "REMOTE_IPADDR", "SCOPE"];

/// An `ifcfg` file.
pub(super) fn addresses(text: &str, asked: &Asked<'_>) -> String {
    let value = |key: &str| text.lines().filter_map(assigned).rfind(|(known, _)| *known == key);
    let old = value("BOOTPROTO").map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default();
    let groups: Vec<(&str, &str)> = text
        .lines()
        .filter_map(assigned)
        .filter_map(|(key, value)| Some((key.strip_prefix("IPADDR")?, value)))
        .collect();
    let going: BTreeSet<&str> = groups.iter().filter(|(_, value)| asked.replaces(value)).map(|(end, _)| *end).collect();
    let mut taken: BTreeSet<String> =
        groups.iter().map(|(end, _)| (*end).to_owned()).filter(|end| !going.contains(end.as_str())).collect();
    let goes = |key: &str| {
        let end = OF_ADDRESS.iter().find_map(|name| key.strip_prefix(name));
        key == "BOOTPROTO" || end.is_some_and(|end| going.contains(end))
    };
    let kept = text.lines().filter(|line| !assigned(line).is_some_and(|(key, _)| goes(key)));
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    lines.push(format!("BOOTPROTO='{}'", protocol(&old, asked, !taken.is_empty())));
    for address in [&asked.v4, &asked.v6].into_iter().flatten().flat_map(|wanted| &wanted.addresses) {
        let ends = std::iter::once(String::new()).chain((1_u32..).map(|number| format!("_{number}")));
        let end = ends.into_iter().find(|end| !taken.contains(end)).unwrap_or_default();
        lines.push(format!("IPADDR{end}='{address}'"));
        taken.insert(end);
    }
    joined(&lines)
}

/// The value of `BOOTPROTO`: `dhcp` asks for addresses of both versions.
fn protocol(old: &str, asked: &Asked<'_>, keeps_addresses: bool) -> &'static str {
    let by_dhcp4 = asked.v4.as_ref().map_or(matches!(old, "dhcp" | "dhcp4"), |wanted| wanted.addresses.is_empty());
    let by_dhcp6 = asked.v6.is_none() && matches!(old, "dhcp" | "dhcp6");
    match (by_dhcp4, by_dhcp6) {
        (true, false) if asked.v6.is_some() || keeps_addresses => "dhcp4",
        // What every version knows.
        (true, _) => "dhcp",
        (false, true) => "dhcp6",
        (false, false) => "static",
    }
}

/// The routes of the interface itself, with its default gateways at the end.
pub(super) fn own_routes(text: &str, asked: &Asked<'_>) -> String {
    let goes = |line: &&str| !default_gateway(line).is_some_and(|(gateway, _)| asked.replaces(gateway));
    let mut lines: Vec<String> = text.lines().filter(goes).map(str::to_owned).collect();
    for wanted in [&asked.v4, &asked.v6].into_iter().flatten() {
        lines.extend(wanted.gateway.iter().map(|gateway| format!("default {gateway} - {}", asked.name)));
    }
    joined(&lines)
}

/// The routes of the whole system without the interface's old default gateways: those that name it, or lie in the networks of
/// the `old` addresses that go.
pub(super) fn all_routes(text: &str, asked: &Asked<'_>, old: &[String]) -> String {
    let goes = |line: &&str| {
        let Some((gateway, device)) = default_gateway(line).filter(|(gateway, _)| asked.replaces(gateway)) else {
            return false;
        };
        match device {
            Some(device) => device == asked.name,
            None => old.iter().any(|address| asked.replaces(address) && holds(address, gateway)),
        }
    };
    joined(&text.lines().filter(|line| !goes(line)).map(str::to_owned).collect::<Vec<_>>())
}

/// The name servers and domains of the whole system.
pub(super) fn servers(text: &str, asked: &Asked<'_>) -> String {
    let lists = [("NETCONFIG_DNS_STATIC_SERVERS", asked.dns), ("NETCONFIG_DNS_STATIC_SEARCHLIST", asked.search)];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (key, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        let new = format!("{key}=\"{}\"", list.join(" "));
        match lines.iter_mut().rev().find(|line| assigned(line).is_some_and(|(known, _)| known == key)) {
            Some(line) => *line = new,
            None => lines.push(new),
        }
    }
    joined(&lines)
}

/// Key and value of an assignment.
fn assigned(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.trim().split_once('=').filter(|(key, _)| !key.starts_with('#'))?;
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.split(quote).next());
    Some((key, quoted.unwrap_or_else(|| value.split_ascii_whitespace().next().unwrap_or_default())))
}

/// Gateway and interface of `default GATEWAY NETMASK INTERFACE …`, as ifroute(5) has them; `-` stands for nothing.
fn default_gateway(line: &str) -> Option<(&str, Option<&str>)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (to, gateway) = (words.first()?, words.get(1)?);
    let is_default = matches!(*to, "default" | "0.0.0.0/0" | "::/0");
    let device = words.get(3).copied().filter(|device| *device != "-");
    is_default.then_some((*gateway, device))
}

/// Whether `address` lies in the network of `own`, an address with the length of its prefix.
fn holds(own: &str, address: &str) -> bool {
    let Some((own, prefix)) = own.split_once('/') else { return false };
    let bits = |text: &str| match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => Some((u128::from(u32::from(address)), 32_u32)),
        IpAddr::V6(address) => Some((u128::from(address), 128)),
    };
    let (Some((own, width)), Some((address, other)), Ok(prefix)) = (bits(own), bits(address), prefix.parse::<u32>())
    else {
        return false;
    };
    let host = width.saturating_sub(prefix);
    // A shift by all bits is none; then everything is in the network.
    width == other && own.checked_shr(host).unwrap_or(0) == address.checked_shr(host).unwrap_or(0)
}
