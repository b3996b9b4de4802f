//! netplan's YAML (netplan-yaml(5)). Only the lines of what changes are written anew, as JSON, which is YAML too. Where that does not
//! give what is meant, such as in a file all in braces, the whole file becomes JSON, and its comments are lost.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde_json::{Map, Value, json};

use super::{Asked, Wanted};

/// `None` when the file has no such interface.
pub(super) fn edit(text: &str, asked: &Asked<'_>) -> Option<String> {
    let mut config = parse(text)?;
    let before = config.clone();
    let kinds = config.get_mut("network")?.as_object_mut()?;
    let devices = kinds.values_mut().filter_map(Value::as_object_mut);
    let device = devices.flat_map(Map::iter_mut).find(|(id, device)| is_named(id, device, asked.name));
    let (id, device) = device?;
    let (id, device) = (id.clone(), device.as_object_mut()?);
    let old = device.clone();
    apply(device, asked);
    let new = device.clone();
    if config == before {
        return Some(text.to_owned());
    }
    let lines: Vec<&str> = text.lines().collect();
    let places =
        (0..lines.len()).filter(|number| lines.get(*number).is_some_and(|line| key_of(line) == Some(id.as_str())));
    let mut edited = places.filter_map(|number| in_place(&lines, number, &old, &new));
    // Another thing may be called the same.
    let found = edited.find(|text| parse(text).as_ref() == Some(&config));
    found.or_else(|| Some(format!("{}\n", serde_json::to_string_pretty(&config).ok()?)))
}

fn parse(text: &str) -> Option<Value> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options(text, options).ok()
}

/// The text with the block of the device that begins at a line changed from `old` to `new`: what stays the same keeps its lines.
fn in_place(lines: &[&str], number: usize, old: &Map<String, Value>, new: &Map<String, Value>) -> Option<String> {
    let (above, rest) = lines.split_at_checked(number)?;
    let (header, rest) = rest.split_first()?;
    let depth = indent(header);
    let is_inside = |line: &&&str| indent(line) > depth || is_blank(line);
    let block: Vec<&str> = rest.iter().take_while(is_inside).copied().collect();
    // Blank lines and comments behind the last key are not its own.
    let end = block.iter().rposition(|line| !is_blank(line))?.checked_add(1)?;
    let (block, below) = (block.get(..end)?, rest.get(end..)?);
    let step = block.iter().find(|line| !is_blank(line)).map(|line| indent(line))?;
    let mut out: Vec<String> = above.iter().chain([header]).map(|line| (*line).to_owned()).collect();
    let written = |key: &str| Some(format!("{:step$}{key}: {}", "", new.get(key)?));
    let mut keeps = true;
    for line in block {
        if let Some(key) = key_of(line).filter(|_| indent(line) == step) {
            keeps = old.get(key) == new.get(key);
            out.extend(written(key).filter(|_| !keeps));
        }
        // Comments before a key stay, whatever becomes of the key before them.
        if keeps || is_blank(line) {
            out.push((*line).to_owned());
        }
    }
    out.extend(new.keys().filter(|key| !old.contains_key(*key)).filter_map(|key| written(key)));
    out.extend(below.iter().map(|line| (*line).to_owned()));
    Some(out.iter().map(|line| format!("{line}\n")).collect())
}

fn is_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn indent(line: &str) -> usize {
    line.len().saturating_sub(line.trim_start_matches(' ').len())
}

/// The key that a line of a block begins with.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.trim().split_once(':').filter(|(key, _)| !key.starts_with(['#', '-']))?;
    Some(key.trim().trim_matches(['"', '\'']))
}

fn is_named(id: &str, device: &Value, name: &str) -> bool {
    let by_match = || device.get("match").and_then(|matched| matched.get("name")).and_then(Value::as_str);
    match device.get("set-name").and_then(Value::as_str).or_else(by_match) {
        Some(known) => known == name,
        None => id == name && device.is_object(),
    }
}

fn apply(device: &mut Map<String, Value>, asked: &Asked<'_>) {
    let mut addresses = kept(device, "addresses", |value| {
        // An address may have options: {10.0.0.5/24: {label: x}}.
        let named = value.as_object().and_then(|object| object.keys().next());
        value.as_str().or(named.map(String::as_str)).is_some_and(|text| asked.replaces(text))
    });
    let mut routes = kept(device, "routes", |route| {
        let text = |key: &str| route.get(key).and_then(Value::as_str).unwrap_or_default();
        matches!(text("to"), "default" | "0.0.0.0/0" | "::/0") && asked.replaces(text("via"))
    });
    for (wanted, gateway) in [(&asked.v4, "gateway4"), (&asked.v6, "gateway6")] {
        let Some(Wanted { addresses: own, gateway: via }) = wanted else { continue };
        device.remove(gateway);
        addresses.extend(own.iter().map(|address| json!(address)));
        routes.extend(via.iter().map(|via| json!({ "to": "default", "via": via })));
    }
    if let Some(wanted) = &asked.v4 {
        device.insert("dhcp4".to_owned(), json!(wanted.addresses.is_empty()));
    }
    for (key, list) in [("addresses", addresses), ("routes", routes)] {
        if list.is_empty() {
            device.remove(key);
        } else {
            device.insert(key.to_owned(), Value::Array(list));
        }
    }
    for (key, list) in [("addresses", asked.dns), ("search", asked.search)] {
        let servers = device.entry("nameservers").or_insert_with(|| json!({}));
        if let Some(servers) = servers.as_object_mut().filter(|_| !list.is_empty()) {
            servers.insert(key.to_owned(), json!(list));
        }
    }
    if device.get("nameservers") == Some(&json!({})) {
        device.remove("nameservers");
    }
}

/// A list without what goes.
fn kept(device: &Map<String, Value>, key: &str, goes: impl Fn(&Value) -> bool) -> Vec<Value> {
    let list = device.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter(|value| !goes(value)).cloned().collect()
}
