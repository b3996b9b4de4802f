//! apt's own log: a paragraph for each run, beside dpkg's log with its line for each package.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Change, Told, Transaction, command, word};

/// Takes in a line: `Start-Date: 2024-01-02  10:20:30`, `Commandline: …`, `Requested-By: NAME (UID)`, a list for each kind of
/// change, `Error: …`, `End-Date: …`.
pub(super) fn follow(line: &str, _: Option<&Change>, told: &mut Told) {
    let Some((key, value)) = line.split_once(": ") else { return };
    if key == "Start-Date" {
        told.open(Transaction { manager: "apt", begin: time(value), ..Transaction::default() });
        return;
    }
    let Some(open) = &mut told.open else { return };
    match key {
        "Commandline" => open.command = command(value),
        "Requested-By" => {
            let (name, number) = value.split_once(" (").unwrap_or((value, ""));
            (open.user, open.uid) = (word(name), number.trim_end_matches(')').parse().ok());
        }
        "Error" => open.succeeded = Some(false),
        "End-Date" => {
            open.end = Some(time(value));
            open.succeeded = open.succeeded.or(Some(true));
            told.close();
        }
        "Install" => add(open, "install", value),
        "Upgrade" => add(open, "upgrade", value),
        "Downgrade" => add(open, "downgrade", value),
        "Reinstall" => add(open, "reinstall", value),
        "Remove" => add(open, "remove", value),
        "Purge" => add(open, "purge", value),
        _ => {}
    }
}

/// `NAME:ARCH (VERSION), NAME:ARCH (VERSION, automatic), NAME:ARCH (OLD, NEW)`. The last one of a line that was cut is left out.
fn add(open: &mut Transaction, action: &'static str, list: &str) {
    for package in list.split_inclusive(')') {
        let package = package.trim_start_matches(", ");
        let Some((name, inside)) = package.strip_suffix(')').and_then(|package| package.split_once(" (")) else {
            continue;
        };
        let (name, arch) = name.split_once(':').unwrap_or((name, ""));
        let (version, second) = inside.split_once(", ").map_or((inside, None), |(first, second)| (first, Some(second)));
        let is_automatic = second == Some("automatic");
        let new = second.filter(|_| !is_automatic);
        let (from, version) = new.map_or((None, version), |new| (word(version), new));
        let automatic = (action == "install").then_some(is_automatic);
        let Some(name) = word(name) else { continue };
        open.push(Change {
            action,
            name,
            arch: word(arch),
            version: word(version),
            from,
            automatic,
            ..Change::default()
        });
    }
}

/// Date and time, which two blanks part.
fn time(text: &str) -> String {
    let words: Vec<&str> = text.split_ascii_whitespace().take(2).collect();
    word(&words.join("T")).unwrap_or_default()
}
