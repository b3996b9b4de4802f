//! Names of interfaces: what the guest configures by name must have that name on KVM.
//!
//! A `.link` file gives the name (systemd.link(5)); a rule of udev where the guest's udev reads none. With one card it matches
//! the driver, so that it holds whatever address the card gets; with several it matches addresses, where they are known, and
//! the driver too, since VLANs, bonds and bridges share addresses with the cards that they lie on.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet};

use super::cards::{Cards, Fate};
use crate::error::Result;
use crate::fix::draft::Draft;
use crate::inspect::NicConfig;
use crate::inspect::network::has_link_files;

const WHY: &str = "the guest's configuration names it, and predictable names depend on the bus";

pub(super) fn plan(draft: &mut Draft<'_>, cards: &Cards) -> Result<()> {
    let facts = draft.facts();
    let mut nics: BTreeMap<&str, Vec<&NicConfig>> = BTreeMap::new();
    for nic in &facts.nics {
        nics.entry(&nic.name).or_default().push(nic);
    }
    let has_links = has_link_files(draft.tree())?;
    let matches = matches(draft, cards, &nics);
    let mut rules: Vec<(String, String, String)> = Vec::new();
    for (name, configs) in &nics {
        let source = configs.first().map(|nic| nic.source.clone()).unwrap_or_default();
        let file = format!("/etc/systemd/network/10-hyper2kvm-{name}.link");
        if draft.tree().find_link(&file)?.is_some() || keeps_its_name(draft, cards, name, nics.len()) {
            continue;
        }
        let pins = pins(draft, cards, name);
        if let Some(first) = pins.first() {
            let is_there = |mac: &&str| matches!(cards.fate(mac), Fate::Becomes(_) | Fate::Kept);
            if !pins.iter().any(is_there) {
                say_pinned(draft, cards, name, first, &source);
            }
            continue;
        }
        let what = format!("{name} is not given its name");
        match matches.get(name) {
            None => draft.leave(
                &source,
                what,
                "the guest has several cards, and it is not known which of them this is; --mac tells their addresses",
            ),
            Some(matched) if has_links => {
                let content = format!("[Match]\n{}\n\n[Link]\nName={name}\n", matched.link(cards.driver));
                draft.create("network", &file, &content, &format!("keep the name {name}"), WHY)?;
            }
            Some(matched) => rules.push(((*name).to_owned(), matched.rule(name, cards.driver), source)),
        }
    }
    add_rules(draft, &rules)
}

/// What a card is told by.
enum Matched {
    Driver,
    Address(String),
}

impl Matched {
    /// The lines of `[Match]`.
    fn link(&self, driver: &str) -> String {
        match self {
            Self::Driver => format!("Driver={driver}"),
            Self::Address(mac) => format!("MACAddress={mac}\nDriver={driver}"),
        }
    }

    fn rule(&self, name: &str, driver: &str) -> String {
        let by_address = match self {
            Self::Driver => String::new(),
            Self::Address(mac) => format!("ATTR{{address}}==\"{mac}\", "),
        };
        format!("SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"{driver}\", {by_address}NAME=\"{name}\"\n")
    }
}

/// How each name's card can be told, where that is certain.
fn matches<'n>(
    draft: &Draft<'_>,
    cards: &Cards,
    nics: &BTreeMap<&'n str, Vec<&NicConfig>>,
) -> BTreeMap<&'n str, Matched> {
    if cards.sole {
        return nics.keys().map(|name| (*name, Matched::Driver)).collect();
    }
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    for (name, configs) in nics {
        let pin = pins(draft, cards, name).first().map(|mac| (*mac).to_owned());
        let own = configs.iter().find_map(|nic| nic.mac.clone());
        let Some(mac) = pin.or(own).or_else(|| address_in(name)) else { continue };
        match cards.fate(&mac) {
            Fate::Kept => drop(found.insert(name, mac)),
            Fate::Becomes(target) => drop(found.insert(name, target.to_owned())),
            Fate::Gone | Fate::Unknown => {}
        }
    }
    let taken: BTreeSet<String> = found.values().cloned().collect();
    let mut names = nics.keys().filter(|name| !found.contains_key(*name));
    let mut free = cards.known().iter().map(|(_, target)| target).filter(|target| !taken.contains(*target));
    // The last name is the last card's, where every card has a name.
    if let (Some(name), None, Some(mac), None) = (names.next(), names.next(), free.next(), free.next())
        && nics.len() == cards.known().len()
        && draft.machine().nics.len() == nics.len()
    {
        found.insert(name, mac.clone());
    }
    found.into_iter().map(|(name, mac)| (name, Matched::Address(mac))).collect()
}

/// The address in a name like `enx005056ab0001`.
fn address_in(name: &str) -> Option<String> {
    let digits = name.strip_prefix("enx").filter(|digits| digits.len() == 12)?;
    let bytes: Option<Vec<&str>> = (0..6_usize).map(|index| digits.get(index.saturating_mul(2)..)?.get(..2)).collect();
    crate::inspect::network::mac_address(&bytes?.join(":"))
}

/// Whether the guest's kernel gives the name by itself: it counts cards from `eth0`.
fn keeps_its_name(draft: &Draft<'_>, cards: &Cards, name: &str, count: usize) -> bool {
    let index = name.strip_prefix("eth").and_then(|digits| digits.parse::<usize>().ok());
    let count = draft.machine().nics.len().max(count);
    let is_pinned = !pins(draft, cards, name).is_empty();
    draft.facts().kernel_nic_names && !is_pinned && index.is_some_and(|index| index < count)
}

/// The addresses that the guest itself gives the name to, without those that are removed.
fn pins<'a>(draft: &Draft<'a>, cards: &Cards, name: &str) -> Vec<&'a str> {
    let pins = draft.facts().nic_pins.iter().filter(|pin| pin.name == name);
    pins.map(|pin| pin.mac.as_str()).filter(|mac| !cards.drops(mac)).collect()
}

/// Says that the guest itself ties a name to an address that no card is known to have.
fn say_pinned(draft: &mut Draft<'_>, cards: &Cards, name: &str, mac: &str, source: &str) {
    if cards.fate(mac) == Fate::Unknown {
        let why = "the card must keep that address: --mac gives it to the new machine's";
        draft.leave(source, format!("{name} is tied to {mac}"), why);
    } else {
        let what = format!("{name} is tied to {mac}, which is no card's of this machine");
        draft.leave(source, what, "it may be a former card's; --network-fixes aggressive removes such ties");
    }
}

/// Adds a file of rules for a udev that reads no `.link` files. It stands before the guest's own rules for names.
fn add_rules(draft: &mut Draft<'_>, rules: &[(String, String, String)]) -> Result<()> {
    const FILE: &str = "/etc/udev/rules.d/70-hyper2kvm-net.rules";
    let Some((_, _, source)) = rules.first() else { return Ok(()) };
    if draft.tree().find_link(FILE)?.is_some() {
        return Ok(());
    }
    let names: Vec<&str> = rules.iter().map(|(name, _, _)| name.as_str()).collect();
    let names = names.join(", ");
    let mut has_udev = false;
    for dir in ["/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/etc/udev/rules.d"] {
        has_udev |= draft.tree().is_dir(dir)?;
    }
    if !has_udev {
        draft.leave(source, format!("{names} is not given its name"), "the guest has no udev");
        return Ok(());
    }
    let content: String = rules.iter().map(|(_, rule, _)| rule.as_str()).collect();
    draft.create("network", FILE, &content, &format!("keep the name {names}"), WHY)
}
