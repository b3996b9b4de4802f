//! The addresses that servers gave, as DHCP clients keep them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::net::Ipv4Addr;

use serde::Serialize;

use super::interface::{Interface, add};
use crate::error::Result;
use crate::inspect::Reader;
use crate::inspect::os::bounded;
use crate::limits;

/// An address that a server gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lease {
    /// The interface that got it.
    pub interface: String,
    /// The address, with its prefix length where that is known: `10.0.0.5/24`.
    pub address: String,
    /// Default gateways.
    pub gateways: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// The domain.
    pub domain: Option<String>,
    /// When it ends, as the client writes it.
    pub expires: Option<String>,
    /// The file that it is kept in.
    pub source: String,
}

impl Lease {
    fn new(interface: &str, source: &str) -> Self {
        Self { interface: bounded(interface), source: source.to_owned(), ..Self::default() }
    }

    fn set_address(&mut self, address: &str, mask: Option<&str>) {
        let mut nic = Interface::new("", "");
        nic.add_address(address, mask);
        self.address = nic.addresses.pop().unwrap_or_default();
    }
}

/// The last lease of each interface in each file, oldest client first.
pub(in crate::inspect) fn find(reader: &mut Reader<'_>) -> Result<Vec<Lease>> {
    let mut leases: Vec<Lease> = Vec::new();
    for dir in ["/var/lib/dhcp", "/var/lib/dhcp3", "/var/lib/dhclient", "/var/lib/NetworkManager"] {
        for path in reader.files(dir, "")? {
            let name = path.rsplit('/').next().unwrap_or_default();
            let end = name.rsplit_once('.').map(|(start, end)| (start.to_owned(), end));
            let Some((start, "lease" | "leases")) = end else { continue };
            let text = reader.text(&path)?.unwrap_or_default();
            if start.starts_with("internal-") {
                leases.extend(internal(&text, &start, &path));
            } else {
                leases.extend(dhclient(&text, &path));
            }
        }
    }
    for dir in ["/var/lib/dhcpcd", "/var/lib/dhcpcd5"] {
        for path in reader.files(dir, ".lease")? {
            let content = reader.bytes(&path)?.unwrap_or_default();
            leases.extend(dhcpcd(&content, &path));
        }
    }
    for path in reader.files("/var/lib/wicked", ".xml")? {
        let text = reader.text(&path)?.unwrap_or_default();
        leases.extend(wicked(&text, &path));
    }
    leases.truncate(limits::MAX_NICS);
    Ok(leases)
}

/// dhclient.leases(5): blocks that follow each other, the last one of an interface being the newest.
fn dhclient(text: &str, path: &str) -> Vec<Lease> {
    let mut leases: Vec<Lease> = Vec::new();
    let mut open: Option<(Lease, Option<String>)> = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("lease") && line.ends_with('{') {
            open = Some((Lease::new("", path), None));
            continue;
        }
        if line == "}" {
            let Some((lease, _)) = open.take().filter(|(lease, _)| !lease.address.is_empty()) else { continue };
            leases.retain(|known| known.interface != lease.interface);
            if leases.len() < limits::MAX_NICS {
                leases.push(lease);
            }
            continue;
        }
        let Some((lease, mask)) = &mut open else { continue };
        let line = line.trim_end_matches(';');
        let (key, value) = line.strip_prefix("option ").unwrap_or(line).split_once(' ').unwrap_or((line, ""));
        let list = |into: &mut Vec<String>| value.split(',').for_each(|word| add(into, word.trim()));
        match key {
            "interface" => lease.interface = bounded(value.trim_matches('"')),
            "fixed-address" => lease.set_address(value, mask.as_deref()),
            "subnet-mask" => {
                *mask = Some(bounded(value));
                let address = std::mem::take(&mut lease.address);
                lease.set_address(&address, Some(value));
            }
            "routers" => list(&mut lease.gateways),
            "domain-name-servers" => list(&mut lease.dns),
            "domain-name" => lease.domain = Some(bounded(value.trim_matches('"'))),
            "expire" => lease.expires = Some(bounded(value.split_once(' ').map_or(value, |(_, time)| time))),
            _ => {}
        }
    }
    leases
}

/// NetworkManager's own client: `internal-UUID-INTERFACE.lease` with assignments.
fn internal(text: &str, name: &str, path: &str) -> Option<Lease> {
    // Five groups make the UUID.
    let interface = name.splitn(7, '-').nth(6)?;
    let mut lease = Lease::new(interface, path);
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lease.set_address(value("ADDRESS")?, value("NETMASK"));
    for (key, list) in [("ROUTER", &mut lease.gateways), ("DNS", &mut lease.dns)] {
        value(key).into_iter().flat_map(str::split_ascii_whitespace).for_each(|word| add(list, word));
    }
    lease.domain = value("DOMAINNAME").map(bounded);
    Some(lease)
}

/// wicked's XML, `lease-INTERFACE-dhcp-ipv4.xml`. The prefixes of its elements are declared nowhere.
fn wicked(text: &str, path: &str) -> Option<Lease> {
    let name = path.rsplit('/').next()?.strip_prefix("lease-")?.strip_suffix(".xml")?;
    let interface = name.strip_suffix("-ipv4").or_else(|| name.strip_suffix("-ipv6"))?.strip_suffix("-dhcp")?;
    let text = text.replace("ipv4:", "ipv4-").replace("ipv6:", "ipv6-");
    let options = roxmltree::ParsingOptions { nodes_limit: MAX_NODES, ..roxmltree::ParsingOptions::default() };
    let document = roxmltree::Document::parse_with_options(&text, options).ok()?;
    let named = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name(name));
    let words = |name: &'static str| named(name).filter_map(|node| node.text()).map(str::trim);
    let mut lease = Lease::new(interface, path);
    lease.set_address(words("local").next()?, None);
    for route in named("route").filter(|route| !route.children().any(|child| child.has_tag_name("destination"))) {
        let gateways = route.descendants().filter(|node| node.has_tag_name("gateway"));
        gateways.filter_map(|node| node.text()).for_each(|gateway| add(&mut lease.gateways, gateway.trim()));
    }
    for dns in named("dns") {
        let servers = dns.children().filter(|node| node.has_tag_name("server")).filter_map(|node| node.text());
        servers.for_each(|server| add(&mut lease.dns, server.trim()));
        let domain = dns.children().find(|node| node.has_tag_name("domain")).and_then(|node| node.text());
        lease.domain = domain.map(|domain| bounded(domain.trim())).or(lease.domain);
    }
    Some(lease)
}

/// XML nodes of one lease.
const MAX_NODES: u32 = 1 << 12;

/// dhcpcd keeps the server's message as it came (RFC 2131, options of RFC 2132).
fn dhcpcd(message: &[u8], path: &str) -> Option<Lease> {
    let name = path.rsplit('/').next()?.strip_suffix(".lease")?;
    let mut lease = Lease::new(name.split(['-', '.']).next()?, path);
    let own = address(message.get(16..20)?)?;
    let mut options = message.strip_prefix(message.get(..236)?)?.strip_prefix(&[99, 130, 83, 99])?;
    let mut mask = None;
    loop {
        let (code, rest) = options.split_first()?;
        match code {
            0 => options = rest,
            255 => break,
            _ => {
                let (length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                let list =
                    |into: &mut Vec<String>| value.chunks(4).filter_map(address).for_each(|text| add(into, &text));
                match code {
                    1 => mask = address(value),
                    3 => list(&mut lease.gateways),
                    6 => list(&mut lease.dns),
                    15 => lease.domain = Some(bounded(&String::from_utf8_lossy(value))),
                    _ => {}
                }
                options = rest;
            }
        }
    }
    lease.set_address(&own, mask.as_deref());
    Some(lease)
}

fn address(bytes: &[u8]) -> Option<String> {
    Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).to_string())
}
