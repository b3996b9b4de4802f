//! Network adapters and how they are configured.

use std::net::Ipv6Addr;

use serde::Serialize;

use super::system::below;
use super::{bounded, text};
use crate::error::Result;
use crate::hive::Key;
use crate::inspect::network::Method;
use crate::limits;

/// A network adapter that TCP/IP is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Adapter {
    /// Its GUID, with braces.
    pub id: String,
    /// What the connection is called: `Ethernet0`.
    pub name: Option<String>,
    /// The card, as its driver calls it.
    pub description: Option<String>,
    /// The card's place among the devices: `PCI\VEN_15AD&DEV_07B0…`.
    pub device: Option<String>,
    /// A hardware address that is configured instead of the card's own.
    pub mac: Option<String>,
    /// How it gets its IPv4 addresses.
    pub method: Method,
    /// IPv4 addresses with their prefix lengths: the configured ones, or those of the last lease.
    pub addresses: Vec<String>,
    /// Gateways, likewise.
    pub gateways: Vec<String>,
    /// Name servers: the configured ones, else those of the last lease.
    pub dns: Vec<String>,
    /// IPv6 addresses that are configured, with their prefix lengths.
    pub ipv6_addresses: Vec<String>,
    /// Name servers that are configured for IPv6.
    pub ipv6_dns: Vec<String>,
    /// The connection's DNS suffix.
    pub domain: Option<String>,
}

/// The class of network adapters.
const CLASS: &str = "{4D36E972-E325-11CE-BFC1-08002BE10318}";

pub(super) fn read(set: &Key<'_>) -> Result<Vec<Adapter>> {
    let Some(interfaces) = below(set, "Services\\Tcpip\\Parameters\\Interfaces")? else { return Ok(Vec::new()) };
    let connections = below(set, &format!("Control\\Network\\{CLASS}"))?;
    let (drivers, addresses) = (drivers(set)?, ipv6_addresses(set)?);
    let mut adapters = Vec::new();
    for key in interfaces.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let key = key?;
        let connection = match &connections {
            Some(connections) => below(connections, &format!("{}\\Connection", key.name()))?,
            None => None,
        };
        let mut adapter = adapter(&key)?;
        if let Some(connection) = &connection {
            (adapter.name, adapter.device) = (text(connection, "Name")?, text(connection, "PnpInstanceID")?);
        }
        if let Some(driver) = drivers.iter().find(|driver| driver.id.eq_ignore_ascii_case(&adapter.id)) {
            (adapter.description, adapter.mac) = (driver.description.clone(), driver.mac.clone());
            let own = addresses.iter().filter(|(luid, _)| Some(*luid) == driver.luid);
            adapter.ipv6_addresses = own.map(|(_, address)| address.clone()).collect();
        }
        if let Some(key) = below(set, &format!("Services\\Tcpip6\\Parameters\\Interfaces\\{}", key.name()))? {
            adapter.ipv6_dns = list(&key.text("NameServer")?.unwrap_or_default());
        }
        adapters.push(adapter);
    }
    Ok(adapters)
}

struct Driver {
    id: String,
    description: Option<String>,
    mac: Option<String>,
    /// NET_LUID: the type of the interface and a number among those of that type.
    luid: Option<u64>,
}

/// Addresses that are kept over a start, each with the NET_LUID of its interface. The name of a value is the key of a row in the
/// network store: the bytes of the NET_LUID, then the address, all in hexadecimal; its data are lifetimes, origins, and the length
/// of the prefix.
fn ipv6_addresses(set: &Key<'_>) -> Result<Vec<(u64, String)>> {
    const UNICAST: &str = "Control\\Nsi\\{eb004a01-9b1a-11d4-9123-0050047759bc}\\10";
    const PREFIX: usize = 16;
    let Some(key) = below(set, UNICAST)? else { return Ok(Vec::new()) };
    let mut addresses = Vec::new();
    for value in key.values()?.take(limits::MAX_WINDOWS_ITEMS) {
        let value = value?;
        let Some((luid, address)) = row(value.name()) else { continue };
        let prefix = value.data()?.bytes.get(PREFIX).copied().filter(|prefix| *prefix <= 128);
        addresses.push((luid, prefix.map_or_else(|| address.to_string(), |prefix| format!("{address}/{prefix}"))));
    }
    Ok(addresses)
}

/// The NET_LUID and address that a value's name consists of.
fn row(name: &str) -> Option<(u64, Ipv6Addr)> {
    let (luid, address) = name.split_at_checked(16)?;
    let is_whole = address.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let luid = u64::from_str_radix(luid, 16).ok().filter(|_| is_whole)?.swap_bytes();
    Some((luid, Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?)))
}

fn drivers(set: &Key<'_>) -> Result<Vec<Driver>> {
    let mut drivers = Vec::new();
    let Some(class) = below(set, &format!("Control\\Class\\{CLASS}"))? else { return Ok(drivers) };
    for key in class.subkeys()?.take(limits::MAX_WINDOWS_ITEMS) {
        let key = key?;
        if let Some(id) = text(&key, "NetCfgInstanceId")? {
            let mac = text(&key, "NetworkAddress")?;
            let luid = match (key.number("*IfType")?, key.number("NetLuidIndex")?) {
                (Some(kind @ 0..=0xffff), Some(index @ 0..=0xff_ffff)) => Some(kind << 48 | index << 24),
                _ => None,
            };
            drivers.push(Driver { id, description: text(&key, "DriverDesc")?, mac, luid });
        }
    }
    Ok(drivers)
}

fn adapter(key: &Key<'_>) -> Result<Adapter> {
    let is_dhcp = key.number("EnableDHCP")?.is_some_and(|number| number != 0);
    let (address, mask, gateway) = match is_dhcp {
        true => ("DhcpIPAddress", "DhcpSubnetMask", "DhcpDefaultGateway"),
        false => ("IPAddress", "SubnetMask", "DefaultGateway"),
    };
    let masks = key.texts(mask)?;
    let addresses: Vec<String> = key
        .texts(address)?
        .into_iter()
        .enumerate()
        .filter(|(_, address)| address != "0.0.0.0")
        .map(|(index, address)| match masks.get(index).and_then(|mask| prefix(mask)) {
            Some(prefix) => bounded(format!("{address}/{prefix}")),
            None => bounded(address),
        })
        .collect();
    let mut dns = list(&key.text("NameServer")?.unwrap_or_default());
    if dns.is_empty() {
        dns = list(&key.text("DhcpNameServer")?.unwrap_or_default());
    }
    let method = match (is_dhcp, addresses.is_empty()) {
        (true, _) => Method::Dhcp,
        (false, false) => Method::Static,
        (false, true) => Method::Other,
    };
    Ok(Adapter {
        id: bounded(key.name().to_owned()),
        name: None,
        description: None,
        device: None,
        mac: None,
        method,
        addresses,
        gateways: key.texts(gateway)?.into_iter().map(bounded).collect(),
        dns,
        ipv6_addresses: Vec::new(),
        ipv6_dns: Vec::new(),
        domain: text(key, "Domain")?.or(text(key, "DhcpDomain")?),
    })
}

/// Names apart by commas or spaces.
fn list(text: &str) -> Vec<String> {
    text.split([',', ' ']).filter(|name| !name.is_empty()).map(|name| bounded(name.to_owned())).collect()
}

/// The prefix length of `255.255.255.0`; `None` for a mask that has none.
fn prefix(mask: &str) -> Option<u32> {
    let bits = u32::from(mask.parse::<std::net::Ipv4Addr>().ok()?);
    (bits.leading_ones() == bits.count_ones()).then(|| bits.count_ones())
}
