//! netplan's YAML (netplan-yaml(5)): all files as one, later ones over earlier ones.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde_json::{Map, Value};

use super::interface::{Interface, InterfaceKind, Method};
use super::mac_address;
use crate::error::Result;
use crate::inspect::Reader;
use crate::inspect::os::bounded;

const KINDS: &[(&str, InterfaceKind)] = &[
    ("ethernets", InterfaceKind::Ethernet),
    ("wifis", InterfaceKind::Wifi),
    ("bonds", InterfaceKind::Bond),
    ("bridges", InterfaceKind::Bridge),
    ("vlans", InterfaceKind::Vlan),
    ("tunnels", InterfaceKind::Other),
    ("dummy-devices", InterfaceKind::Other),
];

/// Levels of mappings that are joined; netplan has six.
const DEEPEST: usize = 8;

/// The interfaces of all files. One that is no YAML is noted and left out.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut all = Map::new();
    let mut sources: Vec<(String, Value)> = Vec::new();
    for dir in ["/usr/lib/netplan", "/etc/netplan"] {
        for path in reader.files(dir, ".yaml")? {
            let text = reader.text(&path)?.unwrap_or_default();
            match parse(&text) {
                Some(network) => {
                    join(&mut all, &network, DEEPEST);
                    sources.push((path, Value::Object(network)));
                }
                None if text.trim().is_empty() => {}
                None => reader.notes.push(format!("{path} is ignored, since it is not what netplan reads")),
            }
        }
    }
    // The last file that names an interface is the one to be told.
    let source = |kind: &str, id: &str| {
        let names = |(_, network): &&(String, Value)| network.get(kind).and_then(|kind| kind.get(id)).is_some();
        sources.iter().rev().find(names).map(|(path, _)| path.clone()).unwrap_or_default()
    };
    Ok(interfaces(&all, source))
}

/// What stands under `network`.
fn parse(text: &str) -> Option<Map<String, Value>> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let mut value: Value = serde_saphyr::from_str_with_options(text, options).ok()?;
    match value.get_mut("network").map(Value::take) {
        Some(Value::Object(network)) => Some(network),
        _ => None,
    }
}

/// Later mappings are put into earlier ones; all else is replaced, and lists grow.
fn join(into: &mut Map<String, Value>, from: &Map<String, Value>, levels: usize) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) if levels > 0 => join(old, new, levels.saturating_sub(1)),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new.iter().cloned()),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

fn interfaces(network: &Map<String, Value>, source: impl Fn(&str, &str) -> String) -> Vec<Interface> {
    let mut nics = Vec::new();
    for (section, kind) in KINDS {
        let Some(Value::Object(devices)) = network.get(*section) else { continue };
        for (id, device) in devices.iter().filter(|(id, _)| *id != "renderer" && *id != "version") {
            nics.push(interface(*kind, id, device, &source(section, id)));
        }
    }
    nics
}

fn interface(kind: InterfaceKind, id: &str, device: &Value, source: &str) -> Interface {
    let matched = device.get("match");
    let of_match = |key: &str| matched.and_then(|matched| text(matched.get(key)));
    // With a `match` the id is a label only, unless nothing else gives a name.
    let name = match (text(device.get("set-name")), matched) {
        (Some(name), _) => name,
        (None, Some(_)) => of_match("name").unwrap_or_default(),
        (None, None) => id.to_owned(),
    };
    let mut nic = Interface { kind, ..Interface::new("netplan", source) }.named(&name);
    if matched.is_some() {
        nic.tie(of_match("macaddress").as_deref());
        nic.set_mac = text(device.get("macaddress")).as_deref().and_then(mac_address);
    } else {
        nic.set_mac = text(device.get("macaddress")).as_deref().and_then(mac_address);
    }
    nic.mtu = text(device.get("mtu")).and_then(|mtu| mtu.parse().ok());
    nic.enabled = !matches!(text(device.get("activation-mode")).as_deref(), Some("manual" | "off"));
    let is_on = |key: &str| {
        text(device.get(key))
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "y"))
    };
    if is_on("dhcp4") {
        nic.ipv4 = Method::Dhcp;
    }
    if is_on("dhcp6") {
        nic.ipv6 = Method::Dhcp;
    } else if is_on("accept-ra") {
        nic.ipv6 = Method::Auto;
    }
    for address in list(device.get("addresses")) {
        // An address with options is a mapping of one key.
        let with_options = address.as_object().and_then(|options| options.keys().next().cloned());
        nic.add_address(&with_options.or_else(|| text(Some(address))).unwrap_or_default(), None);
    }
    for key in ["gateway4", "gateway6"] {
        nic.add_gateways(&text(device.get(key)).unwrap_or_default());
    }
    for route in list(device.get("routes")) {
        if matches!(text(route.get("to")).as_deref(), Some("default" | "0.0.0.0/0" | "::/0" | "0/0")) {
            nic.add_gateways(&text(route.get("via")).unwrap_or_default());
        }
    }
    let servers = device.get("nameservers");
    let of_servers = |key: &str| list(servers.and_then(|servers| servers.get(key)));
    of_servers("addresses").filter_map(|server| text(Some(server))).for_each(|server| nic.add_dns(&server));
    of_servers("search").filter_map(|domain| text(Some(domain))).for_each(|domain| nic.add_search(&domain));
    list(device.get("interfaces")).filter_map(|member| text(Some(member))).for_each(|member| nic.add_members(&member));
    nic.parent = text(device.get("link")).map(|parent| bounded(&parent));
    nic.vlan = text(device.get("id")).and_then(|number| number.parse().ok());
    nic
}

/// A scalar as text, whatever YAML takes it for.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(bounded(text)),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The members of a list; none of anything else.
fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}
