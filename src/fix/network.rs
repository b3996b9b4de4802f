//! The network: cards keep the names that the guest's configuration uses, and what it is tied to is there on KVM.
//!
//! How far the guest's own files are changed is the user's choice ([`NetworkLevel`]); addresses, bonds, bridges and VLANs stay
//! as they are at every level.
//!
//! [`NetworkLevel`]: super::options::NetworkLevel
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod cards;
mod changes;
mod ini;
mod lines;
mod names;
mod netplan;

use super::draft::{Draft, Vital};
use super::hardware::Card;
use crate::error::Result;
use cards::Cards;
use changes::Changes;

pub use cards::of_guest;

/// Edits the content of one kind of file.
type Editor = fn(&[u8], &Cards, &mut Changes) -> Vec<u8>;

/// Directories with the ends of the names of files that are looked at there, and what edits them.
const PLACES: &[(&str, &str, Editor)] = &[
    ("/etc/systemd/network", ".link", ini::networkd),
    ("/etc/systemd/network", ".network", ini::networkd),
    ("/etc/NetworkManager/system-connections", "", ini::keyfile),
    ("/etc/NetworkManager/conf.d", ".conf", ini::settings),
    ("/etc/netplan", ".yaml", netplan::edit),
    ("/etc/cloud/cloud.cfg.d", ".cfg", netplan::edit),
    ("/etc/udev/rules.d", ".rules", lines::udev),
    ("/etc/modprobe.d", "", lines::modprobe),
    ("/etc/wicked/ifconfig", ".xml", lines::addresses),
];

/// Single files.
const FILES: &[(&str, Editor)] = &[
    ("/etc/NetworkManager/NetworkManager.conf", ini::settings),
    ("/etc/modprobe.conf", lines::modprobe),
    ("/etc/modules.conf", lines::modprobe),
    ("/etc/iftab", lines::addresses),
    ("/etc/mactab", lines::addresses),
];

/// Where `ifcfg-*` files are.
const IFCFG: &[&str] = &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"];

const WHY: &str = "it would match no card on KVM";

/// Plans the network of a guest that gets cards of the model `card`.
pub(super) fn plan(draft: &mut Draft<'_>, card: Card) -> Result<()> {
    let cards = Cards::new(draft.machine(), draft.facts(), draft.options(), card);
    names::plan(draft, &cards)?;
    for (dir, end, editor) in PLACES {
        for path in files(draft, dir, "", end)? {
            edit(draft, &cards, &path, *editor)?;
            for part in files(draft, &format!("{path}.d"), "", ".conf")? {
                edit(draft, &cards, &part, *editor)?;
            }
        }
    }
    for (path, editor) in FILES {
        edit(draft, &cards, path, *editor)?;
    }
    for dir in IFCFG {
        for path in files(draft, dir, "ifcfg-", "")? {
            edit(draft, &cards, &path, lines::ifcfg)?;
        }
    }
    command_lines(draft, &cards);
    Ok(())
}

fn edit(draft: &mut Draft<'_>, cards: &Cards, path: &str, editor: Editor) -> Result<()> {
    let Some((path, content)) = draft.read(path)? else { return Ok(()) };
    let mut changes = Changes::new(cards.driver);
    let new = editor(&content, cards, &mut changes);
    for (what, why) in &changes.left {
        draft.leave(&path, what, why);
    }
    if new == content {
        return Ok(());
    }
    draft.edit("network", &path, new, &changes.what(), WHY, Vital::No)
}

/// The files of a directory whose names begin and end so, sorted.
fn files(draft: &Draft<'_>, dir: &str, start: &str, end: &str) -> Result<Vec<String>> {
    let listed = draft.tree().list(dir)?;
    let names = listed.iter().filter_map(|entry| entry.text());
    Ok(names
        .filter(|name| name.starts_with(start) && name.ends_with(end))
        .map(|name| format!("{dir}/{name}"))
        .collect())
}

/// Says what a kernel's command line tells of cards: it counts in the initramfs, before the root's files are there.
fn command_lines(draft: &mut Draft<'_>, cards: &Cards) {
    let facts = draft.facts();
    let mut found: Vec<(String, String, &str)> = Vec::new();
    for entry in &facts.boot_entries {
        for word in entry.options.split_ascii_whitespace() {
            let of_name =
                |value: &str| value.split([':', ',']).any(|part| facts.nics.iter().any(|nic| nic.name == part));
            let why = match word.split_once('=') {
                Some(("ifname", value)) if cards.follow(value).is_some() => {
                    "its card gets another address, and the command line is not edited"
                }
                Some(("ip" | "vlan" | "bridge" | "bond", value)) if of_name(value) && !facts.kernel_nic_names => {
                    "the initramfs knows that name only if it holds the rule for it: build it anew in the guest"
                }
                _ => continue,
            };
            found.push((entry.config.clone(), word.to_owned(), why));
        }
    }
    for (source, word, why) in found {
        draft.leave(&source, format!("{word} on the kernel's command line"), why);
    }
}

#[cfg(test)]
mod tests;
