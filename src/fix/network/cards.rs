//! The machine's network cards: what the guest will find on KVM of what its configuration is tied to.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeSet;

use crate::fix::hardware::Card;
use crate::fix::options::{MacMap, NetworkLevel, Options};
use crate::inspect::network::mac_address;
use crate::inspect::{Linux, Machine, MachineNic};

/// Drivers of the cards that hypervisors give to guests. What the guest gets on KVM is one of them, or virtio's.
const DRIVERS: &[&str] = &[
    "8139cp",
    "8139too",
    "e1000",
    "e1000e",
    "hv_netvsc",
    "igb",
    "netvsc",
    "pcnet32",
    "tulip",
    "vif",
    "virtio_net",
    "vmxnet",
    "vmxnet2",
    "vmxnet3",
    "xen-netfront",
    "xen_netfront",
];

/// The cards, and how far the guest's configuration may follow them.
pub(super) struct Cards {
    /// Addresses on the source and on the target.
    known: Vec<(String, String)>,
    /// Whether the guest has one card, and its configuration names no more than one.
    pub(super) sole: bool,
    pub(super) level: NetworkLevel,
    /// The driver of the cards that the guest gets.
    pub(super) driver: &'static str,
}

/// What becomes of a card that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate<'a> {
    /// It gets another address.
    Becomes(&'a str),
    /// The machine has no such card.
    Gone,
    /// It keeps the address.
    Kept,
    /// The machine's addresses are not known.
    Unknown,
}

impl Cards {
    pub(super) fn new(machine: &Machine, facts: &Linux, options: &Options, card: Card) -> Self {
        let sources = machine.nics.iter().filter_map(|card| card.mac.as_deref().and_then(mac_address));
        let pair = |source: String| {
            let target = options.macs.target(&source).unwrap_or(&source).to_owned();
            (source, target)
        };
        let names: BTreeSet<&str> = facts.nics.iter().map(|nic| nic.name.as_str()).collect();
        Self {
            known: sources.map(pair).collect(),
            sole: names.len() <= 1 && machine.nics.len() <= 1,
            level: options.network,
            driver: card.driver(),
        }
    }

    /// The addresses of the cards on the source and on the target.
    pub(super) fn known(&self) -> &[(String, String)] {
        &self.known
    }

    /// What becomes of the card with the address `mac`.
    pub(super) fn fate(&self, mac: &str) -> Fate<'_> {
        let found = self.known.iter().find(|(source, _)| source == mac).map(|(_, target)| target.as_str());
        match found {
            Some(target) if target == mac => Fate::Kept,
            Some(target) => Fate::Becomes(target),
            // What was changed already is not of the source any more.
            None if self.known.iter().any(|(_, target)| target == mac) => Fate::Kept,
            None if self.known.is_empty() => Fate::Unknown,
            None => Fate::Gone,
        }
    }

    /// Whether what matches nothing on KVM is edited.
    pub(super) fn edits(&self) -> bool {
        self.level >= NetworkLevel::Moderate
    }

    /// Whether a pin to `mac` is to be removed.
    pub(super) fn drops(&self, mac: &str) -> bool {
        self.level == NetworkLevel::Aggressive && self.fate(mac) == Fate::Gone
    }

    /// `text` with the addresses of cards that get another one replaced, in the writing of what they replace; `None` when
    /// there are none.
    pub(super) fn follow(&self, text: &str) -> Option<String> {
        let (mut out, mut at, mut changed) = (String::with_capacity(text.len()), 0_usize, false);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let word = rest.get(..LENGTH).filter(|_| begins(text.get(..at).unwrap_or_default()));
            let is_end = rest.get(LENGTH..).and_then(|rest| rest.chars().next()).is_none_or(|c| !is_part(c));
            let mac = word.filter(|_| is_end).and_then(mac_address);
            match (mac.as_deref().map(|mac| self.fate(mac)), word) {
                (Some(Fate::Becomes(target)), Some(word)) => {
                    out.push_str(&in_the_writing_of(word, target));
                    changed = true;
                    at = at.saturating_add(LENGTH);
                }
                _ => {
                    let Some(first) = rest.chars().next() else { break };
                    out.push(first);
                    at = at.saturating_add(first.len_utf8());
                }
            }
        }
        changed.then_some(out)
    }

    /// Whether a driver, or a pattern like `vmxnet*`, is one of a card that the guest does not get.
    pub(super) fn is_old_driver(&self, name: &str) -> bool {
        match name.strip_suffix('*').filter(|start| !start.is_empty()) {
            Some(start) => DRIVERS.iter().any(|old| old.starts_with(start)) && !self.driver.starts_with(start),
            None => DRIVERS.contains(&name) && name != self.driver,
        }
    }

    /// A list of drivers with the old ones replaced by the new one, named once; `None` when there are none.
    pub(super) fn new_drivers(&self, words: &[&str]) -> Option<Vec<String>> {
        if !words.iter().any(|word| self.is_old_driver(word)) {
            return None;
        }
        let mut out: Vec<String> = Vec::new();
        for word in words {
            let new = if self.is_old_driver(word) { self.driver } else { word };
            if !out.iter().any(|known| known == new) {
                out.push(new.to_owned());
            }
        }
        Some(out)
    }
}

/// Characters of an address.
const LENGTH: usize = 17;

/// Whether an address can begin behind `before`: not inside of a word, nor in a longer address.
fn begins(before: &str) -> bool {
    match before.strip_suffix(':') {
        Some(before) => {
            let byte = before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            byte.is_empty() || byte.len() > 2 || !byte.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        None => !before.ends_with(|c: char| c.is_ascii_alphanumeric()),
    }
}

/// Whether a character can be part of a longer address.
fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn in_the_writing_of(word: &str, target: &str) -> String {
    let target = if word.contains('-') { target.replace(':', "-") } else { target.to_owned() };
    if word.chars().any(|c| c.is_ascii_uppercase()) { target.to_ascii_uppercase() } else { target }
}

/// The cards of a machine that nobody describes: those that the user names, else those that the guest's configuration ties to
/// addresses. Nothing when it is not known of every card that the configuration names.
#[must_use]
pub fn of_guest(facts: &Linux, macs: &MacMap) -> Vec<MachineNic> {
    let card = |mac: &str| MachineNic { mac: Some(mac.to_owned()), model: None };
    if !macs.is_empty() {
        return macs.sources().map(card).collect();
    }
    let names: BTreeSet<&str> = facts.nics.iter().map(|nic| nic.name.as_str()).collect();
    let address = |name: &&str| {
        let own = facts.nics.iter().filter(|nic| nic.name == **name).find_map(|nic| nic.mac.as_deref());
        own.or_else(|| facts.nic_pins.iter().find(|pin| pin.name == **name).map(|pin| pin.mac.as_str()))
    };
    let found: Vec<&str> = names.iter().filter_map(address).collect();
    let distinct: BTreeSet<&str> = found.iter().copied().collect();
    if found.len() == names.len() && distinct.len() == found.len() {
        found.into_iter().map(card).collect()
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(known: &[(&str, &str)]) -> Cards {
        let known = known.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Cards { known, sole: false, level: NetworkLevel::Moderate, driver: Card::Virtio.driver() }
    }

    #[test]
    fn addresses_are_followed_in_their_own_writing() {
        let cards = cards(&[("00:50:56:aa:00:01", "52:54:00:bb:00:01"), ("00:50:56:aa:00:02", "00:50:56:aa:00:02")]);
        for (before, after) in [
            ("HWADDR=00:50:56:aa:00:01", Some("HWADDR=52:54:00:bb:00:01")),
            ("HWADDR=\"00:50:56:AA:00:01\" # x", Some("HWADDR=\"52:54:00:BB:00:01\" # x")),
            ("é00-50-56-aa-00-01é", Some("é52-54-00-bb-00-01é")),
            ("mac:00:50:56:aa:00:01,mac:00:50:56:aa:00:02", Some("mac:52:54:00:bb:00:01,mac:00:50:56:aa:00:02")),
            ("00:50:56:aa:00:02", None),
            ("00:50:56:aa:00:01:07", None),
            ("1:00:50:56:aa:00:01", None),
            ("000:50:56:aa:00:01", None),
            ("", None),
            ("00:50:56:aa:00:0", None),
        ] {
            assert_eq!(cards.follow(before).as_deref(), after, "{before}");
        }
    }

    #[test]
    fn the_fate_of_an_address_is_known_where_the_machine_is() {
        let cards_known =
            cards(&[("00:50:56:aa:00:01", "52:54:00:bb:00:01"), ("00:50:56:aa:00:02", "00:50:56:aa:00:02")]);
        assert_eq!(cards_known.fate("00:50:56:aa:00:01"), Fate::Becomes("52:54:00:bb:00:01"));
        assert_eq!(cards_known.fate("52:54:00:bb:00:01"), Fate::Kept);
        assert_eq!(cards_known.fate("00:50:56:aa:00:02"), Fate::Kept);
        assert_eq!(cards_known.fate("00:50:56:aa:00:03"), Fate::Gone);
        assert_eq!(cards(&[]).fate("00:50:56:aa:00:03"), Fate::Unknown);
    }

    #[test]
    fn drivers_are_named_once() {
        let virtio = cards(&[]);
        assert_eq!(virtio.new_drivers(&["vmxnet3", "e1000", "ixgbe"]).unwrap(), ["virtio_net", "ixgbe"]);
        assert_eq!(virtio.new_drivers(&["ixgbe", "virtio_net"]), None);
        assert_eq!(virtio.new_drivers(&["vmx*", "e1000*"]).unwrap(), ["virtio_net"]);
        assert_eq!(virtio.new_drivers(&["v*", "*", "!vmxnet3", "vmxnet?"]), None);
    }

    #[test]
    fn a_driver_is_old_when_it_is_not_that_of_the_card_that_the_guest_gets() {
        let old = Cards { driver: Card::E1000.driver(), ..cards(&[]) };
        assert_eq!(old.new_drivers(&["vmxnet3", "e1000", "virtio_net", "ixgbe"]).unwrap(), ["e1000", "ixgbe"]);
        assert_eq!(old.new_drivers(&["e1000"]), None);
        assert_eq!(old.new_drivers(&["e1000*"]), None);
        assert_eq!(old.new_drivers(&["e1000e"]).unwrap(), ["e1000"]);
        assert_eq!(old.new_drivers(&["virtio*", "8139*"]).unwrap(), ["e1000"]);
    }
}
