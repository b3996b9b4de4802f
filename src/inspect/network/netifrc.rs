//! netifrc of Gentoo: `/etc/conf.d/net`, and the links that bring interfaces up.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::interface::{Interface, InterfaceKind, Method};
use super::mac_address;
use crate::error::Result;
use crate::inspect::Reader;
use crate::limits;

const PATH: &str = "/etc/conf.d/net";

/// The interfaces that the file names, and those that are brought up without being in it, which is by DHCP.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut started = Vec::new();
    for level in ["/etc/runlevels/boot", "/etc/runlevels/default"] {
        let names = reader.tree.list(level)?.into_iter();
        started.extend(names.filter_map(|entry| entry.text()?.strip_prefix("net.").map(str::to_owned)));
    }
    let Some(text) = reader.text(PATH)? else { return Ok(Vec::new()) };
    let values = assignments(&text);
    let mut names: Vec<&str> = started.iter().map(String::as_str).filter(|name| *name != "lo").collect();
    for key in values.keys() {
        let name = ["config_", "bridge_", "slaves_", "vlans_"].iter().find_map(|start| key.strip_prefix(start));
        names.extend(name.filter(|name| *name != "lo" && !name.is_empty()));
    }
    names.sort_unstable();
    names.dedup_by(|a, b| variable(a) == variable(b));
    let mut nics: Vec<Interface> = Vec::new();
    for name in names.into_iter().take(limits::MAX_NICS) {
        nics.push(interface(name, &values, started.iter().any(|started| variable(started) == variable(name))));
    }
    Ok(nics)
}

/// Characters that names of variables cannot have are underscores there.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn interface(name: &str, values: &BTreeMap<String, String>, enabled: bool) -> Interface {
    let name_there = variable(name);
    let value = |key: &str| values.get(&format!("{key}_{name_there}")).map(String::as_str);
    let mut nic = Interface { enabled, ..Interface::new("netifrc", PATH) }.named(name);
    let config = value("config").unwrap_or("dhcp");
    // A line is an address with what belongs to it; several addresses may also stand on one.
    for line in config.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_ascii_whitespace().peekable();
        while let Some(word) = words.next() {
            match word {
                "dhcp" | "dhcpcd" | "dhclient" | "udhcpc" => nic.ipv4 = Method::Dhcp,
                "dhcpv6" => nic.ipv6 = Method::Dhcp,
                "null" | "noop" => nic.ipv4 = Method::Disabled,
                "brd" | "broadcast" | "scope" | "peer" => drop(words.next()),
                _ if word.starts_with(|c: char| c.is_ascii_hexdigit()) && word.contains(['.', ':']) => {
                    let mask = words.next_if(|word| *word == "netmask").and_then(|_| words.next());
                    nic.add_address(word, mask);
                }
                _ => {}
            }
        }
    }
    for line in value("routes").unwrap_or_default().lines() {
        let mut words = line.split_ascii_whitespace();
        let is_default = matches!(words.next(), Some("default" | "0.0.0.0/0" | "::/0"));
        nic.add_gateways(words.find(|word| !matches!(*word, "via" | "gw")).filter(|_| is_default).unwrap_or_default());
    }
    for key in [format!("dns_servers_{name_there}"), "dns_servers".to_owned()] {
        nic.add_dns(&values.get(&key).cloned().unwrap_or_default().replace('\n', " "));
    }
    for key in ["dns_domain", "dns_search"] {
        nic.add_search(&value(key).unwrap_or_default().replace('\n', " "));
    }
    nic.set_mac = value("mac").and_then(mac_address);
    nic.mtu = value("mtu").and_then(|mtu| mtu.parse().ok());
    for (key, kind) in [("bridge", InterfaceKind::Bridge), ("slaves", InterfaceKind::Bond)] {
        if let Some(members) = value(key) {
            nic.kind = kind;
            nic.add_members(&members.replace('\n', " "));
        }
    }
    nic.vlan_by_name();
    nic
}

/// Assignments of a shell whose values may go over lines, in quotes or, of old, in parentheses.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.trim().split_once('=').filter(|(key, _)| !key.starts_with('#')) else { continue };
        let (is_list, mut rest) = value.trim_start().strip_prefix('(').map_or((false, value), |rest| (true, rest));
        let (mut value, mut quote) = (String::new(), None);
        'value: loop {
            let mut chars = rest.chars();
            while let Some(c) = chars.next() {
                match (quote, c) {
                    (None, '"' | '\'') => quote = Some(c),
                    (Some(open), _) if open == c => {
                        quote = None;
                        // Each word of a list is a line of its own.
                        value.extend(is_list.then_some('\n'));
                    }
                    (None, ')') if is_list => break 'value,
                    (None, '#') => break,
                    (None, ' ' | '\t' | ';') if !is_list => break,
                    (_, '\\') => value.extend(chars.next()),
                    _ => value.push(c),
                }
            }
            if quote.is_none() && !is_list || value.len() > LONGEST {
                break;
            }
            // What does not end takes all that follows.
            let Some(next) = lines.next() else { break };
            value.push('\n');
            rest = next;
        }
        if values.len() < limits::MAX_NICS.saturating_mul(8) {
            values.insert(key.trim().to_owned(), value);
        }
    }
    values
}

/// Bytes of one value.
const LONGEST: usize = 16 << 10;
