//! What configuration says about one network interface.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::net::Ipv4Addr;

use serde::Serialize;

use super::mac_address;
use crate::inspect::os::bounded;
use crate::limits;

/// A network interface as one configuration describes it. Addresses are as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Interface {
    /// `ens192`; `None` when the configuration fits interfaces of several names.
    pub name: Option<String>,
    /// The pattern that names fit, for such a configuration.
    pub matches: Option<String>,
    /// What it is.
    pub kind: InterfaceKind,
    /// The hardware address that the configuration ties it to.
    pub mac: Option<String>,
    /// The hardware address that it is given.
    pub set_mac: Option<String>,
    /// Whether it is brought up at boot.
    pub enabled: bool,
    /// How it gets an IPv4 address.
    pub ipv4: Method,
    /// How it gets an IPv6 address.
    pub ipv6: Method,
    /// Its own addresses with their prefix lengths: `10.0.0.5/24`.
    pub addresses: Vec<String>,
    /// Default gateways.
    pub gateways: Vec<String>,
    /// Name servers.
    pub dns: Vec<String>,
    /// Domains that names are looked up in.
    pub search: Vec<String>,
    /// The interface that a VLAN lies on.
    pub parent: Option<String>,
    /// The number of a VLAN.
    pub vlan: Option<u32>,
    /// The interfaces that a bond or bridge is made of.
    pub members: Vec<String>,
    /// Largest packet in bytes.
    pub mtu: Option<u32>,
    /// `ifupdown`, `networkmanager`, `netplan`, `networkd`, `ifcfg`, `wicked`, `netifrc`, `dhcpcd`.
    pub manager: &'static str,
    /// The file that says so.
    pub source: String,
    /// What else names it as its bond or bridge, until all files are read.
    #[serde(skip)]
    pub(super) belongs_to: Option<String>,
    /// What other files call it: a connection's UUID.
    #[serde(skip)]
    pub(super) uuid: Option<String>,
}

/// What an interface is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// Several interfaces as one.
    Bond,
    /// A switch.
    Bridge,
    /// A network card.
    #[default]
    Ethernet,
    /// A tunnel, a dummy …
    Other,
    /// Several interfaces as one, by teamd.
    Team,
    /// A tagged network on another interface.
    Vlan,
    /// A wireless card.
    Wifi,
}

/// How an interface gets its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// From what routers announce.
    Auto,
    /// From a server.
    Dhcp,
    /// Not at all.
    Disabled,
    /// Something else.
    Other,
    /// From the configuration.
    Static,
    /// Nothing is said.
    #[default]
    Unset,
}

impl Interface {
    pub(super) fn new(manager: &'static str, source: &str) -> Self {
        Self { manager, source: source.to_owned(), enabled: true, ..Self::default() }
    }

    /// Gives it its name, or the pattern that its names fit.
    pub(super) fn named(mut self, name: &str) -> Self {
        let is_pattern = name.is_empty() || name.contains(['*', '?', '[', '!', ' ']);
        let text = Some(bounded(name)).filter(|name| !name.is_empty());
        if is_pattern {
            self.matches = text
        } else {
            self.name = text
        }
        self
    }

    /// Takes a hardware address that it is tied to.
    pub(super) fn tie(&mut self, mac: Option<&str>) {
        self.mac = mac.and_then(mac_address).or(self.mac.take());
    }

    /// Takes an address with or without a prefix length; `prefix` is one, or a netmask, that stands elsewhere. Sets the method.
    pub(super) fn add_address(&mut self, address: &str, prefix: Option<&str>) {
        let address = address.trim();
        if address.is_empty() {
            return;
        }
        let prefix = prefix.filter(|_| !address.contains('/')).and_then(prefix_length);
        let text = prefix.map_or_else(|| address.to_owned(), |prefix| format!("{address}/{prefix}"));
        add(&mut self.addresses, &text);
        let method = if address.contains(':') { &mut self.ipv6 } else { &mut self.ipv4 };
        if matches!(*method, Method::Unset | Method::Other) {
            *method = Method::Static;
        }
    }

    /// Takes default gateways, separated by blanks or commas.
    pub(super) fn add_gateways(&mut self, text: &str) {
        words(text).for_each(|word| add(&mut self.gateways, word));
    }

    /// Takes name servers, separated by blanks, commas or semicolons.
    pub(super) fn add_dns(&mut self, text: &str) {
        words(text).for_each(|word| add(&mut self.dns, word));
    }

    /// Takes search domains, separated likewise.
    pub(super) fn add_search(&mut self, text: &str) {
        words(text).for_each(|word| add(&mut self.search, word));
    }

    /// Takes members, separated likewise.
    pub(super) fn add_members(&mut self, text: &str) {
        words(text).filter(|word| *word != "none").for_each(|word| add(&mut self.members, word));
    }

    /// Takes what a name like `eth0.5` or `vlan5` tells of a VLAN.
    pub(super) fn vlan_by_name(&mut self) {
        let name = self.name.clone().unwrap_or_default();
        if let Some((parent, number)) = name.rsplit_once('.').and_then(|(parent, id)| Some((parent, id.parse().ok()?)))
        {
            self.kind = InterfaceKind::Vlan;
            self.vlan = self.vlan.or(Some(number));
            self.parent.get_or_insert_with(|| parent.to_owned());
        } else if let Some(number) = name.strip_prefix("vlan").and_then(|id| id.parse().ok()) {
            self.vlan = self.vlan.or(Some(number));
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\t', ',', ';']).filter(|word| !word.is_empty())
}

/// Adds a text that is not there yet, within bounds.
pub(super) fn add(list: &mut Vec<String>, text: &str) {
    let text = bounded(text);
    if list.len() < limits::MAX_NIC_VALUES && !list.contains(&text) {
        list.push(text);
    }
}

/// A prefix length from a length or a netmask.
fn prefix_length(text: &str) -> Option<u32> {
    let text = text.trim();
    if let Ok(mask) = text.parse::<Ipv4Addr>() {
        let bits = mask.to_bits();
        return (bits.leading_ones() == bits.count_ones()).then(|| bits.count_ones());
    }
    text.parse().ok().filter(|length| *length <= 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_their_prefix() {
        let mut nic = Interface::new("x", "/x");
        nic.add_address("10.0.0.1", Some("255.255.255.0"));
        nic.add_address("10.0.0.2/8", Some("24"));
        nic.add_address("10.0.0.3", Some("255.0.255.0"));
        nic.add_address("fe80::1", Some("64"));
        nic.add_address("", Some("64"));
        assert_eq!(nic.addresses, ["10.0.0.1/24", "10.0.0.2/8", "10.0.0.3", "fe80::1/64"]);
        assert_eq!((nic.ipv4, nic.ipv6), (Method::Static, Method::Static));
    }

    #[test]
    fn as_many_values_as_the_limit() {
        let limit = limits::MAX_NIC_VALUES;
        for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
            let mut nic = Interface::new("x", "/x");
            (0..count).for_each(|index| nic.add_dns(&format!("10.0.{index}.1")));
            assert_eq!(nic.dns.len(), kept);
        }
    }
}
