//! Logs that have the commands between the changes: zypper's and pacman's.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Change, Told, Transaction, command, word};

/// Takes in a line, and the change that it tells.
pub(super) type Follow = fn(&str, Option<&Change>, &mut Told);

/// `2024-01-02 10:20:30|command|USER@HOST|'zypper' 'install' 'x'|`, then the changes of that command.
pub(super) fn zypp(line: &str, change: Option<&Change>, told: &mut Told) {
    let mut fields = line.split('|');
    let (time, kind) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    if kind.trim() == "command" {
        let user = fields.next().and_then(|user| word(user.split('@').next().unwrap_or_default()));
        let begin = word(time).unwrap_or_default().replacen(' ', "T", 1);
        let command = fields.next().and_then(command);
        told.open(Transaction { manager: "zypper", begin, command, user, ..Transaction::default() });
    } else if let (Some(open), Some(change)) = (&mut told.open, change) {
        let time = open.begin.clone();
        open.push(change.clone());
        // The log has the time of each.
        if let Some(last) = open.changes.last_mut() {
            last.time.clone_from(&change.time);
        }
        open.end = Some(change.time.clone()).filter(|end| *end >= time);
    }
}

/// `[TIME] [PACMAN] Running 'pacman -Syu'`, then `[ALPM] transaction started`, the changes, `[ALPM] transaction completed`.
pub(super) fn pacman(line: &str, change: Option<&Change>, told: &mut Told) {
    let Some((time, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("] ")) else { return };
    let time = word(time).unwrap_or_default().replacen(' ', "T", 1);
    if let Some(run) = rest.strip_prefix("[PACMAN] Running ") {
        let command = command(run.trim_matches('\''));
        told.open(Transaction { manager: "pacman", begin: time, command, ..Transaction::default() });
        return;
    }
    match (rest.strip_prefix("[ALPM] ").unwrap_or(rest), &mut told.open) {
        // A second one of the same command.
        ("transaction started", Some(open)) if open.end.is_some() => {
            let command = open.command.clone();
            told.open(Transaction { manager: "pacman", begin: time, command, ..Transaction::default() });
        }
        ("transaction started", None) => {
            told.open(Transaction { manager: "pacman", begin: time, ..Transaction::default() });
        }
        ("transaction completed", Some(open)) => (open.end, open.succeeded) = (Some(time), Some(true)),
        ("transaction failed" | "transaction interrupted", Some(open)) => {
            (open.end, open.succeeded) = (Some(time), Some(false));
        }
        (_, Some(open)) => change.into_iter().for_each(|change| open.push(change.clone())),
        _ => {}
    }
}
