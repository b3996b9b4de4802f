//! Line-oriented files: ifcfg, udev's rules, modprobe's aliases, iftab, wicked's XML.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::cards::Cards;
use super::changes::Changes;
use crate::fix::text::edit_lines;
use crate::inspect::network::mac_address;

/// An `ifcfg` file. `HWADDR` ties it to a card; `MACADDR` and `LLADDR` give the card an address and stay.
pub(super) fn ifcfg(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    edit_lines(content, |_, line| {
        let (key, value) = line.split_once('=')?;
        if key.trim() != "HWADDR" {
            return None;
        }
        let word = value.trim().trim_matches(['"', '\'']);
        if mac_address(word).is_some_and(|mac| cards.drops(&mac)) {
            changes.dropped(word);
            return Some(format!("#{line}"));
        }
        followed(line, cards, changes)
    })
}

/// A file of which every address is that of a card: iftab, mactab, wicked's XML.
pub(super) fn addresses(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    edit_lines(content, |_, line| {
        let is_comment = line.trim_start().starts_with('#');
        if is_comment { None } else { followed(line, cards, changes) }
    })
}

fn followed(line: &str, cards: &Cards, changes: &mut Changes) -> Option<String> {
    let new = cards.follow(line)?;
    changes.address();
    Some(new)
}

/// Rules of udev about network cards (udev(7)).
pub(super) fn udev(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    let mut open = false;
    edit_lines(content, |_, line| {
        let is_comment = line.trim_start().starts_with('#');
        if is_comment {
            return None;
        }
        let goes_on = line.trim_end().ends_with('\\');
        let is_about_net = open || is_net(line);
        let is_part = open || goes_on;
        open = is_about_net && goes_on;
        if is_about_net { rule(line, is_part, cards, changes) } else { None }
    })
}

fn is_net(line: &str) -> bool {
    let of = |key: &str| pairs(line).any(|(name, _, value)| name == key && value == "net");
    of("SUBSYSTEM") || of("SUBSYSTEMS") || pairs(line).any(|(key, _, _)| key == "SYSFS{address}")
}

/// One line of a rule.
fn rule(line: &str, is_part: bool, cards: &Cards, changes: &mut Changes) -> Option<String> {
    let is_address = |key: &str| matches!(key, "ATTR{address}" | "ATTRS{address}" | "SYSFS{address}");
    let pin = pairs(line).find(|(key, operator, _)| is_address(key) && *operator == "==");
    if let Some((_, _, value)) = pin {
        let is_gone = mac_address(value).is_some_and(|mac| cards.drops(&mac));
        if is_gone && !is_part {
            changes.dropped(value);
            return Some(format!("#{line}"));
        }
        if is_gone {
            changes.leave(format!("a rule still matches {value}"), "it goes over several lines");
        }
    }
    let mut new = line.to_owned();
    if pin.is_some()
        && let Some(text) = cards.follow(&new)
    {
        changes.address();
        new = text;
    }
    for (key, operator, value) in pairs(line).filter(|(_, operator, _)| *operator == "==") {
        let is_driver = matches!(key, "DRIVER" | "DRIVERS" | "ENV{ID_NET_DRIVER}");
        let is_place = matches!(key, "KERNELS" | "ID") && is_pci_address(value)
            || key == "ENV{ID_PATH}" && super::ini::is_bus_path(value);
        if !(is_driver && cards.is_old_driver(value) || is_place) {
            continue;
        }
        let old = format!("{key}{operator}\"{value}\"");
        if !cards.edits() {
            changes.conservative(&old);
        } else if is_driver {
            changes.driver();
            new = new.replacen(&old, &format!("{key}{operator}\"{}\"", cards.driver), 1);
        } else if cards.sole && !line.contains("ATTRS{") {
            changes.place(value);
            new = new.replacen(&old, &format!("DRIVERS==\"{}\"", cards.driver), 1);
        } else {
            changes
                .leave(format!("a rule still matches {value}"), "it is not known which card of the machine was there");
        }
    }
    (new != line).then_some(new)
}

/// `0000:0b:00.0`.
fn is_pci_address(value: &str) -> bool {
    let mut parts = value.split([':', '.']);
    let is_hex = |part: Option<&str>, len: usize| {
        part.is_some_and(|part| part.len() == len && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    is_hex(parts.next(), 4)
        && is_hex(parts.next(), 2)
        && is_hex(parts.next(), 2)
        && is_hex(parts.next(), 1)
        && parts.next().is_none()
}

/// Keys, operators and quoted values of a rule.
fn pairs(line: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (before, tail) = rest.split_once('"')?;
        let (value, tail) = tail.split_once('"')?;
        rest = tail;
        let before = before.trim_start_matches([',', ' ', '\t']).trim_end();
        let key = before.trim_end_matches(['=', '!', '+', '-', ':']);
        let operator = before.get(key.len()..).unwrap_or_default();
        Some((key.trim_end(), operator, value))
    })
}

/// modprobe's configuration (modprobe.d(5)): aliases of cards, and what keeps the new driver from being loaded.
pub(super) fn modprobe(content: &[u8], cards: &Cards, changes: &mut Changes) -> Vec<u8> {
    let new = cards.driver;
    edit_lines(content, |_, line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_new = |name: &str| name.replace('-', "_") == new;
        match words.as_slice() {
            ["alias", name, driver] if cards.is_old_driver(driver) && is_card(name) => {
                if !cards.edits() {
                    changes.conservative(line.trim());
                    return None;
                }
                changes.other(&format!("load {new} for {name}"));
                let at = line.rfind(driver)?;
                Some(format!("{}{new}{}", line.get(..at)?, line.get(at.checked_add(driver.len())?..)?))
            }
            ["blacklist", name]
            | ["install", name, "/bin/true" | "/bin/false" | "/usr/bin/true" | "/usr/bin/false"]
                if is_new(name) =>
            {
                if !cards.edits() {
                    changes.leave(format!("{new} is not loaded"), "--network-fixes conservative only adds files");
                    return None;
                }
                changes.other(&format!("let {new} be loaded"));
                Some(format!("#{line}"))
            }
            _ => None,
        }
    })
}

fn is_card(name: &str) -> bool {
    name.strip_prefix("eth")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}
