//! wicked's own configuration in XML. SUSE's guests have `ifcfg` files instead, which wicked reads as well.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use roxmltree::{Document, Node, ParsingOptions};

use super::interface::{Interface, InterfaceKind, Method};
use super::mac_address;
use crate::error::Result;
use crate::inspect::Reader;
use crate::inspect::os::bounded;

/// XML nodes of one file: some thousand interfaces.
const MAX_NODES: u32 = 1 << 16;

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Vec<Interface>> {
    let mut nics = Vec::new();
    for path in reader.files("/etc/wicked/ifconfig", ".xml")? {
        let text = reader.text(&path)?.unwrap_or_default();
        match parse(&text, &path) {
            Some(found) => nics.extend(found),
            None => reader.notes.push(format!("{path} is ignored, since it is no XML")),
        }
    }
    Ok(nics)
}

/// The interfaces of one file. Its elements have prefixes that nothing declares, and several of them side by side.
fn parse(text: &str, path: &str) -> Option<Vec<Interface>> {
    let text = text.replace("ipv4:", "ipv4-").replace("ipv6:", "ipv6-");
    let start = text.find("?>").and_then(|end| text.get(end.saturating_add(2)..)).unwrap_or(&text);
    let whole = format!("<all>{start}</all>");
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(&whole, options).ok()?;
    let interfaces = document.descendants().filter(|node| node.has_tag_name("interface"));
    Some(interfaces.filter_map(|node| interface(node, path)).collect())
}

fn interface(node: Node<'_, '_>, path: &str) -> Option<Interface> {
    let name = value(node, "name").filter(|name| name != "lo")?;
    let mut nic = Interface::new("wicked", path).named(&name);
    let mode = child(node, "control").and_then(|control| value(control, "mode"));
    nic.enabled = mode.is_none_or(|mode| !matches!(mode.as_str(), "manual" | "off"));
    nic.mtu = child(node, "link").and_then(|link| value(link, "mtu")).and_then(|mtu| mtu.parse().ok());
    nic.set_mac = child(node, "ethernet").and_then(|it| value(it, "address")).as_deref().and_then(mac_address);
    for family in ["ipv4", "ipv6"] {
        if let Some(fixed) = child(node, &format!("{family}-static")) {
            for address in fixed.children().filter(|child| child.has_tag_name("address")) {
                nic.add_address(&value(address, "local").unwrap_or_default(), None);
            }
            for route in fixed.children().filter(|child| child.has_tag_name("route")) {
                let is_default =
                    value(route, "destination").is_none_or(|to| matches!(to.as_str(), "0.0.0.0/0" | "::/0"));
                let gateway = child(route, "nexthop").and_then(|hop| value(hop, "gateway"));
                nic.add_gateways(&gateway.filter(|_| is_default).unwrap_or_default());
            }
        }
        let of_server = child(node, &format!("{family}-dhcp"));
        if of_server.is_some_and(|it| value(it, "enabled").is_none_or(|enabled| enabled == "true")) {
            *(if family == "ipv4" { &mut nic.ipv4 } else { &mut nic.ipv6 }) = Method::Dhcp;
        }
    }
    let below = |part: Node<'_, '_>, list: &str, member: &str| -> Vec<String> {
        let members = child(part, list).into_iter().flat_map(|list| list.children());
        members.filter_map(|it| value(it, member)).collect()
    };
    if let Some(part) = child(node, "bond") {
        nic.kind = InterfaceKind::Bond;
        below(part, "slaves", "device").iter().for_each(|device| nic.add_members(device));
    } else if let Some(part) = child(node, "bridge") {
        nic.kind = InterfaceKind::Bridge;
        below(part, "ports", "device").iter().for_each(|device| nic.add_members(device));
    } else if let Some(part) = child(node, "vlan") {
        nic.kind = InterfaceKind::Vlan;
        nic.parent = value(part, "device");
        nic.vlan = value(part, "tag").and_then(|tag| tag.parse().ok());
    }
    Some(nic)
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn value(node: Node<'_, '_>, name: &str) -> Option<String> {
    child(node, name)?.text().map(|text| bounded(text.trim())).filter(|text| !text.is_empty())
}
