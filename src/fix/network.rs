//! Interface names: what the guest configures by name must have that name on KVM.
//!
//! A `.link` file gives the name. With one card it matches the driver, so that it holds whatever address the card gets; with
//! several it matches hardware addresses, where they are known.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::draft::Draft;
use crate::error::Result;
use crate::inspect::NicConfig;
use crate::inspect::network::{has_link_files, mac_address};

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let facts = draft.facts();
    let mut nics: BTreeMap<&str, Vec<&NicConfig>> = BTreeMap::new();
    for nic in &facts.nics {
        nics.entry(&nic.name).or_default().push(nic);
    }
    let has_links = has_link_files(draft.tree())?;
    let count = nics.len();
    for (name, configs) in nics {
        let file = link_path(name);
        let source = configs.first().map(|nic| nic.source.clone()).unwrap_or_default();
        if draft.tree().find_link(&file)?.is_some() || keeps_its_name(draft, name, count) {
            continue;
        }
        if is_pinned(draft, name) {
            draft.leave(&source, format!("{name} is tied to a hardware address"), "the card must keep that address");
            continue;
        }
        if !has_links {
            draft.leave(&source, format!("{name} is not given its name"), "the guest's udev reads no .link files");
            continue;
        }
        let Some(wanted) = wanted(draft, count, &configs) else {
            draft.leave(
                &source,
                format!("{name} is not given its name"),
                "the guest has several cards, and it is not known which of them this is",
            );
            continue;
        };
        let content = format!("[Match]\n{wanted}\n\n[Link]\nName={name}\n");
        let what = format!("keep the name {name}");
        let why = "the guest's configuration names it, and predictable names depend on the bus";
        draft.create("network", &file, &content, &what, why)?;
    }
    Ok(())
}

fn link_path(name: &str) -> String {
    format!("/etc/systemd/network/10-hyper2kvm-{name}.link")
}

/// Whether the guest's kernel gives the name by itself: it counts cards from `eth0`.
fn keeps_its_name(draft: &Draft<'_>, name: &str, count: usize) -> bool {
    let index = name.strip_prefix("eth").and_then(|digits| digits.parse::<usize>().ok());
    let cards = draft.machine().nics.len().max(count);
    draft.facts().kernel_nic_names && index.is_some_and(|index| index < cards)
}

/// Whether a rule of the guest ties the name to an address already.
fn is_pinned(draft: &Draft<'_>, name: &str) -> bool {
    draft.facts().nic_pins.iter().any(|pin| pin.name == name)
}

/// The `[Match]` line for a card.
fn wanted(draft: &Draft<'_>, count: usize, configs: &[&NicConfig]) -> Option<String> {
    let cards = &draft.machine().nics;
    if count == 1 && cards.len() <= 1 {
        return Some("Driver=virtio_net".to_owned());
    }
    let mac = configs.iter().find_map(|nic| nic.mac.as_deref())?;
    let is_there = cards.iter().any(|card| card.mac.as_deref().and_then(mac_address).as_deref() == Some(mac));
    is_there.then(|| format!("MACAddress={mac}"))
}
