//! netplan's YAML (netplan-yaml(5)): what `match` says of drivers and addresses.
//!
//! Lines are edited, so that comments and layout stay. What comes out is read again, and taken only when it says what was
//! meant and nothing else has changed.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde_json::Value;

use super::cards::Cards;
use super::changes::Changes;
use crate::fix::text::edit_lines;
use crate::inspect::network::mac_address;

pub(super) fn edit(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    let Some(before) = parse(content) else { return content.to_vec() };
    let (mut wanted, mut meant) = (before.clone(), Changes::new(cards.driver));
    mean(&mut wanted, cards, &mut meant);
    changes.left.append(&mut meant.left);
    if wanted == before {
        return content.to_vec();
    }
    let edited = rewrite(content, cards);
    if parse(&edited).as_ref() == Some(&wanted) {
        meant.left = std::mem::take(&mut changes.left);
        *changes = meant;
        edited
    } else {
        changes.leave("what matches no card on KVM stays", "the file is not laid out so that it can be edited safely");
        content.to_vec()
    }
}

fn parse(content: &[u8]) -> Option<Value> {
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let value: Value = serde_saphyr::from_str_with_options(std::str::from_utf8(content).ok()?, options).ok()?;
    value.get("network").is_some_and(Value::is_object).then_some(value)
}

/// Changes the `match` of every device as it is meant.
fn mean(value: &mut Value, cards: &Cards, changes: &mut Changes) {
    let Some(kinds) = value.get_mut("network").and_then(Value::as_object_mut) else { return };
    for devices in kinds.values_mut().filter_map(Value::as_object_mut) {
        for matched in devices.values_mut().filter_map(|device| device.get_mut("match")) {
            let Some(matched) = matched.as_object_mut() else { continue };
            let mac = matched.get("macaddress").and_then(Value::as_str).map(str::to_owned);
            if let Some(new) = mac.as_deref().and_then(|mac| cards.follow(mac)) {
                changes.address();
                matched.insert("macaddress".to_owned(), Value::String(new));
            } else if mac.as_deref().and_then(mac_address).is_some_and(|mac| cards.drops(&mac)) {
                let mac = mac.unwrap_or_default();
                if cards.sole && !matched.contains_key("driver") {
                    changes.dropped(&mac);
                    matched.remove("macaddress");
                    matched.insert("driver".to_owned(), Value::String(cards.driver.to_owned()));
                } else {
                    changes.leave(format!("it still matches {mac}"), "without that it would match every card");
                }
            }
            driver(matched.get_mut("driver"), cards, changes);
        }
    }
}

fn driver(value: Option<&mut Value>, cards: &Cards, changes: &mut Changes) {
    let (Some(value), edits) = (value, cards.edits()) else { return };
    let mut found = false;
    match value {
        Value::String(name) if cards.is_old_driver(name) => {
            found = true;
            if edits {
                cards.driver.clone_into(name);
            }
        }
        Value::Array(list) => {
            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            if let Some(new) = cards.new_drivers(&words).filter(|_| words.len() == list.len()) {
                found = true;
                if edits {
                    *list = new.into_iter().map(Value::String).collect();
                }
            }
        }
        _ => {}
    }
    match (found, edits) {
        (true, true) => changes.driver(),
        (true, false) => changes.conservative("a driver"),
        (false, _) => {}
    }
}

/// Edits the lines that stand under `match`, or in its braces.
fn rewrite(content: &[u8], cards: &Cards) -> Vec<u8> {
    let mut inside: Option<usize> = None;
    let mut listed = false;
    let mut seen = false;
    edit_lines(content, |_, line| {
        let body = line.trim_start();
        let indent = line.len().saturating_sub(body.len());
        if body.is_empty() || body.starts_with('#') {
            return None;
        }
        if body.starts_with("match:") {
            inside = Some(indent);
            listed = false;
            return Some(within(line, cards)).filter(|new| new != line);
        }
        if let Some((before, braces)) = line.split_once("match:").filter(|_| body.contains('{')) {
            let (inside, rest) = braces.split_once('}').map_or((braces, None), |(inside, rest)| (inside, Some(rest)));
            let end = rest.map(|rest| format!("}}{rest}")).unwrap_or_default();
            let new = format!("{before}match:{}{end}", within(inside, cards));
            return Some(new).filter(|new| new != line);
        }
        // An item of a list may stand as deep as its key.
        inside = inside.filter(|depth| indent > *depth);
        inside?;
        if body.starts_with("driver:") {
            listed = body.trim_end() == "driver:";
            seen = false;
        } else if listed && body.starts_with('-') {
            let name = body.trim_start_matches('-').trim().trim_matches(['"', '\'']);
            let is_old = cards.edits() && cards.is_old_driver(name);
            if is_old && seen {
                return Some(format!("#{line}"));
            }
            seen |= is_old;
            return is_old.then(|| line.replacen(name, cards.driver, 1));
        } else {
            listed = false;
        }
        Some(within(line, cards)).filter(|new| new != line)
    })
}

/// A line with its addresses and drivers replaced.
fn within(line: &str, cards: &Cards) -> String {
    let mut line = cards.follow(line).unwrap_or_else(|| line.to_owned());
    if let Some((before, after)) = line.split_once("driver:").filter(|_| cards.edits()) {
        line = format!("{before}driver:{}", drivers(after, cards));
    }
    let ends = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | ':'));
    let gone = line.split(ends).find(|word| mac_address(word).is_some_and(|mac| cards.drops(&mac))).map(str::to_owned);
    match (gone, line.split_once("macaddress:")) {
        (Some(mac), Some((before, after))) if cards.sole => {
            let quoted = [format!("\"{mac}\""), format!("'{mac}'"), mac];
            let written = quoted.iter().find(|text| after.contains(text.as_str()));
            let after = written.map_or_else(|| after.to_owned(), |text| after.replacen(text.as_str(), cards.driver, 1));
            format!("{before}driver:{after}")
        }
        _ => line,
    }
}

/// What stands behind `driver:`: a name, or a list in brackets, in which the new one stands once.
fn drivers(text: &str, cards: &Cards) -> String {
    let name = |item: &str| item.trim().trim_matches(['"', '\'']).to_owned();
    let list = text.split_once('[').filter(|(blank, _)| blank.trim().is_empty());
    let Some((items, rest)) = list.and_then(|(_, rest)| rest.split_once(']')) else {
        let ends = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*'));
        let old = text.split(ends).find(|word| cards.is_old_driver(word)).map(str::to_owned);
        return old.map_or_else(|| text.to_owned(), |old| text.replacen(&old, cards.driver, 1));
    };
    if !items.split(',').any(|item| cards.is_old_driver(&name(item))) {
        return text.to_owned();
    }
    let mut out: Vec<&str> = Vec::new();
    for item in items.split(',').map(str::trim) {
        let is_new = cards.is_old_driver(&name(item)) || name(item) == cards.driver;
        let item = if is_new { cards.driver } else { item };
        if !out.contains(&item) {
            out.push(item);
        }
    }
    format!(" [{}]{rest}", out.join(", "))
}
