//! What the user wants of the fixes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::inject::Injection;

use crate::inspect::network::mac_address;

/// Choices about the fixes; the default is what `migrate` does without being told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How far the network's configuration is changed.
    pub network: NetworkLevel,
    /// Hardware addresses that cards of the source get.
    pub macs: MacMap,
    /// What is put into the guest.
    pub inject: Injection,
}

/// How far the network's configuration is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkLevel {
    /// Files are added that keep the names of cards; nothing is edited but for `--mac`.
    Conservative,
    /// What would match no card on KVM is edited as well: drivers, places on the PCI bus.
    #[default]
    Moderate,
    /// What ties configuration to an address that no card of the machine has is removed as well.
    Aggressive,
}

/// Which hardware address each card of the source has on the target, where that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MacMap(Vec<(String, String)>);

impl MacMap {
    /// Adds `SOURCE=NEW`, or `SOURCE` alone for a card that keeps its address.
    ///
    /// # Errors
    /// What is wrong with `text`: it names no addresses of cards, or one of them twice.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (source, target) = text.split_once('=').unwrap_or((text, text));
        let address = |text: &str| {
            let address = mac_address(text).filter(|address| is_unicast(address));
            address.ok_or_else(|| format!("{text:?} is not the address of a network card, such as 00:50:56:01:02:03"))
        };
        let (source, target) = (address(source)?, address(target)?);
        if self.0.iter().any(|(known, _)| *known == source) {
            return Err(format!("{source} is given twice"));
        }
        if self.0.iter().any(|(_, known)| *known == target) {
            return Err(format!("two cards cannot both be {target}"));
        }
        self.0.push((source, target));
        Ok(())
    }

    /// The address that the source's card `mac` gets, where that is said.
    #[must_use]
    pub fn target(&self, mac: &str) -> Option<&str> {
        self.0.iter().find(|(source, _)| source == mac).map(|(_, target)| target.as_str())
    }

    /// The source's addresses, in the order in which they were given.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(source, _)| source.as_str())
    }

    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_unicast(mac: &str) -> bool {
    let first = mac.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok());
    first.is_some_and(|byte| byte & 1 == 0) && mac != "00:00:00:00:00:00"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pairs_of_addresses() {
        let mut map = MacMap::default();
        map.add("00:50:56:AB-CD-0E=52:54:00:00:00:01").unwrap();
        map.add("00:50:56:00:00:02").unwrap();
        assert_eq!(map.target("00:50:56:ab:cd:0e"), Some("52:54:00:00:00:01"));
        assert_eq!(map.target("00:50:56:00:00:02"), Some("00:50:56:00:00:02"));
        assert_eq!(map.target("00:50:56:00:00:03"), None);
        assert_eq!(map.sources().count(), 2);
        for bad in [
            "",
            "=",
            "x=y",
            "00:50:56:00:00:03=",
            "=00:50:56:00:00:03",
            "00:50:56:00:00:02=52:54:00:00:00:02",
            "00:50:56:00:00:03=52:54:00:00:00:01",
            "01:50:56:00:00:03",
            "00:00:00:00:00:00",
            "00:50:56:00:00:03=52:54:00:00:00:04=x",
        ] {
            assert!(map.add(bad).is_err(), "{bad}");
        }
        assert_eq!(map.sources().count(), 2);
    }
}
