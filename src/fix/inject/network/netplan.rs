//! netplan's YAML (netplan-yaml(5)). What is written is JSON, which is YAML too; comments of a file that is changed are lost.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde_json::{Map, Value, json};

use super::{Asked, Wanted};

/// `None` when the file has no such interface.
pub(super) fn edit(text: &str, asked: &Asked<'_>) -> Option<String> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let mut config: Value = serde_saphyr::from_str_with_options(text, options).ok()?;
    let before = config.clone();
    let kinds = config.get_mut("network")?.as_object_mut()?;
    let devices = kinds.values_mut().filter_map(Value::as_object_mut);
    let device = devices.flat_map(Map::iter_mut).find(|(id, device)| is_named(id, device, asked.name));
    apply(device?.1.as_object_mut()?, asked);
    if config == before {
        return Some(text.to_owned());
    }
    Some(format!("{}\n", serde_json::to_string_pretty(&config).ok()?))
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
