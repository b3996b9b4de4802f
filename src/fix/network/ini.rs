//! What systemd-networkd and NetworkManager match cards by: addresses, drivers, places on a bus.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::cards::Cards;
use super::changes::Changes;
use crate::fix::text::edit_lines;
use crate::inspect::network::{Ini, mac_address};

/// What is done to a line.
enum Verdict {
    Keep,
    /// It is commented out.
    Off,
    /// Another key and value take its place.
    Other(&'static str, String),
    /// The key gets another value.
    Value(String),
}

/// A `.network`, `.link` or `.netdev` file (systemd.network(5), systemd.link(5)) or a drop-in of one.
pub(super) fn networkd(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    let text = String::from_utf8_lossy(content);
    let ini = Ini::parse(&text);
    let has = |key: &str| ini.get("Match", key).is_some_and(|value| !value.is_empty());
    let matches_more = has("Name") || has("OriginalName") || has("MACAddress") || has("PermanentMACAddress");
    edit(content, |section, key, value| match (section, key) {
        ("Match", "MACAddress" | "PermanentMACAddress") => {
            let macs: Vec<String> = value.split_ascii_whitespace().filter_map(mac_address).collect();
            if macs.is_empty() || !macs.iter().all(|mac| cards.drops(mac)) {
                return address(cards, changes, value);
            }
            if has("Name") || has("OriginalName") {
                changes.dropped(&macs.join(" "));
                return Verdict::Off;
            }
            if cards.sole && !has("Driver") {
                changes.dropped(&macs.join(" "));
                return Verdict::Other("Driver", cards.driver.to_owned());
            }
            changes.leave(format!("it still matches {value}"), "without that it would match every card");
            Verdict::Keep
        }
        ("Match", "Driver") => driver(cards, changes, value, " "),
        ("Match", "Path") => {
            let is_pci = value.split_ascii_whitespace().any(is_bus_path);
            place(cards, changes, value, is_pci, matches_more || has("Driver"))
        }
        _ => Verdict::Keep,
    })
}

/// A connection of NetworkManager (nm-settings-keyfile(5)).
pub(super) fn keyfile(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    let text = String::from_utf8_lossy(content);
    let ini = Ini::parse(&text);
    let has = |section: &str, key: &str| ini.get(section, key).is_some_and(|value| !value.is_empty());
    let has_name = has("connection", "interface-name") || has("match", "interface-name");
    let has_mac = has("ethernet", "mac-address") || has("802-3-ethernet", "mac-address");
    edit(content, |section, key, value| match (section, key) {
        ("ethernet" | "802-3-ethernet", "mac-address") => match mac_address(value) {
            Some(mac) if cards.drops(&mac) && (has_name || cards.sole) => {
                changes.dropped(&mac);
                Verdict::Off
            }
            Some(mac) if cards.drops(&mac) => {
                changes.leave(format!("it still matches {mac}"), "without that it would match every card");
                Verdict::Keep
            }
            _ => address(cards, changes, value),
        },
        ("ethernet" | "802-3-ethernet", "mac-address-blacklist" | "mac-address-denylist") => {
            address(cards, changes, value)
        }
        // Connections of devices that lie on a card name it by its address.
        ("vlan", "parent") | ("macvlan", "parent") => address(cards, changes, value),
        ("match", "driver") => driver(cards, changes, value, ";"),
        ("match", "path") => {
            let is_pci = value.split([';', ',']).any(is_bus_path);
            match place(cards, changes, value, is_pci, has_name || has_mac) {
                Verdict::Other(_, value) => Verdict::Other("driver", format!("{value};")),
                verdict => verdict,
            }
        }
        _ => Verdict::Keep,
    })
}

/// NetworkManager's own configuration (NetworkManager.conf(5)): its lists of devices.
pub(super) fn settings(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    edit(content, |_, key, value| {
        let is_list = matches!(key, "unmanaged-devices" | "match-device" | "no-auto-default" | "assume-ipv6ll-only");
        if !is_list {
            return Verdict::Keep;
        }
        let followed = address(cards, changes, value);
        let text = if let Verdict::Value(text) = &followed { text.as_str() } else { value };
        let words: Vec<&str> = text.split(';').collect();
        let names: Vec<&str> = words.iter().filter_map(|word| word.trim().strip_prefix("driver:")).collect();
        if cards.new_drivers(&names).is_none() {
            return followed;
        }
        if !cards.edits() {
            changes.conservative(value);
            return followed;
        }
        changes.driver();
        let mut out: Vec<String> = Vec::new();
        for word in words {
            let old = word.trim().strip_prefix("driver:").and_then(|name| cards.new_drivers(&[name]));
            let new = old.map_or_else(|| word.to_owned(), |_| format!("driver:{}", cards.driver));
            if new.is_empty() || !out.contains(&new) {
                out.push(new);
            }
        }
        Verdict::Value(out.join(";"))
    })
}

fn address(cards: &Cards, changes: &mut Changes, value: &str) -> Verdict {
    match cards.follow(value) {
        Some(new) => {
            changes.address();
            Verdict::Value(new)
        }
        None => Verdict::Keep,
    }
}

fn driver(cards: &Cards, changes: &mut Changes, value: &str, separator: &str) -> Verdict {
    let blank = |c: char| c == ' ' || c == '\t' || separator.contains(c);
    let words: Vec<&str> = value.split(blank).filter(|word| !word.is_empty()).collect();
    let Some(new) = cards.new_drivers(&words) else { return Verdict::Keep };
    if !cards.edits() {
        changes.conservative(value);
        return Verdict::Keep;
    }
    changes.driver();
    let end = if separator == ";" && value.ends_with(';') { ";" } else { "" };
    Verdict::Value(new.join(separator) + end)
}

/// A match by place on the bus: where the guest has more to match by, it goes; a guest's only card is told by its driver.
fn place(cards: &Cards, changes: &mut Changes, value: &str, is_pci: bool, matches_more: bool) -> Verdict {
    if !is_pci {
        return Verdict::Keep;
    }
    if !cards.edits() {
        changes.conservative(value);
        return Verdict::Keep;
    }
    if matches_more {
        changes.place(value.trim_end_matches(';'));
        return Verdict::Off;
    }
    if cards.sole {
        changes.place(value.trim_end_matches(';'));
        return Verdict::Other("Driver", cards.driver.to_owned());
    }
    changes.leave(
        format!("it still matches {value}"),
        "the guest has several cards, and it is not known which of them was there",
    );
    Verdict::Keep
}

/// Whether a path (`ID_PATH`) is a place that the guest's cards have on their hypervisor only. What is negated matches on.
pub(super) fn is_bus_path(word: &str) -> bool {
    ["pci-", "xen-", "acpi-VMBUS"].iter().any(|start| word.trim().starts_with(start))
}

fn edit(content: &[u8], mut change: impl FnMut(&str, &str, &str) -> Verdict) -> Vec<u8> {
    let mut section = String::new();
    edit_lines(content, |_, line| {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            return None;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
            return None;
        }
        let (key, value) = line.split_once('=')?;
        let blanks: String = value.chars().take_while(|c| c.is_whitespace()).collect();
        match change(&section, key.trim(), value.trim()) {
            Verdict::Keep => None,
            Verdict::Off => Some(format!("#{line}")),
            Verdict::Other(key, value) => Some(format!("{key}={value}")),
            Verdict::Value(new) => Some(format!("{key}={blanks}{new}")),
        }
    })
}
