//! What `inspect` prints for people.

use super::{deep, linux, windows};
use crate::cli::output::{Output, table};
use crate::cli::size::Size;
use crate::error::escape;
use crate::inspect::{Deeper, Facts, Mount};
use crate::pipeline::guest::{Guest, System};

/// Keys and values of a table, in order.
#[derive(Debug, Default)]
pub(super) struct Rows(pub(super) Vec<(String, String)>);

impl Rows {
    /// Adds a value, escaped; nothing for one that is not known.
    pub(super) fn add(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        let Some(value) = value else { return };
        // A key stands once before all its values.
        let again = self.0.iter().rev().find(|(key, _)| key != "  ").is_some_and(|(last, _)| last.trim() == key);
        let key = if again { String::new() } else { key.to_owned() };
        self.0.push((format!("  {key}"), escape(value.as_ref())));
    }
}

/// The systems of a machine, its volumes, and the notes.
pub(super) fn of(guest: &Guest, firmware: &str, output: Output) -> String {
    let mut text = String::new();
    for system in &guest.systems {
        text.push_str(&output.bold("guest\n"));
        text.push_str(&system_rows(guest, system, firmware));
        if let Some(facts) = &system.deep {
            text.push_str(&match facts {
                Deeper::Linux(facts) => deep::text(facts, output),
                Deeper::Windows(facts) => windows::deep(facts, output),
            });
        }
    }
    if guest.systems.is_empty() {
        text.push_str("no operating system found\n");
    }
    text.push_str(&output.bold("volumes\n"));
    text.push_str(&volumes(guest));
    for note in &guest.notes {
        text.push_str(&format!("note: {}\n", escape(note)));
    }
    text
}

fn system_rows(guest: &Guest, system: &System, firmware: &str) -> String {
    let mut rows = Rows::default();
    match &system.facts {
        Facts::Linux(facts) => linux::add(facts, &mut rows),
        Facts::Windows(facts) => windows::add(guest, facts, &mut rows),
    }
    rows.add("firmware", Some(firmware));
    for mount in &system.root.mounts {
        rows.add("mounted", Some(mounted(guest, mount)));
    }
    for (entry, why) in &system.root.unmounted {
        rows.add("not mounted", Some(format!("{}, {}: {why}", entry.mount_point, entry.spec)));
    }
    table(&rows.0)
}

fn mounted(guest: &Guest, mount: &Mount) -> String {
    let Some(volume) = guest.machine.volumes.get(mount.volume) else { return mount.at.clone() };
    let (kind, name) = (volume.fs_kind.as_deref().unwrap_or("unknown"), guest.machine.name_of(volume));
    match mount.subvolume.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => format!("{}: {kind} on {name}, subvolume {path}", mount.at),
        None => format!("{}: {kind} on {name}", mount.at),
    }
}

fn volumes(guest: &Guest) -> String {
    let name = |volume| guest.machine.name_of(volume);
    let width = guest.machine.volumes.iter().map(|volume| name(volume).chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for volume in &guest.machine.volumes {
        let kind = volume.fs_kind.as_deref().unwrap_or("unknown");
        let label = volume.fs_label.as_ref().map(|label| format!("  \u{201c}{}\u{201d}", escape(label)));
        text.push_str(&format!(
            "  {:width$}  {:>9}  {kind:11}  {}{}\n",
            escape(&name(volume)),
            Size(volume.size).to_string(),
            escape(&volume.stable_spec().unwrap_or_default()),
            label.unwrap_or_default(),
        ));
    }
    text
}
