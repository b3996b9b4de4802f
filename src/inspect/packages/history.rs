//! What was installed, upgraded and removed when, from the logs and databases of package managers, rotated and compressed ones too.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::VecDeque;
use std::io::Read;

use serde::Serialize;

use super::lines::Lines;
use super::{LONGEST_LINE, LONGEST_WORD, problem, text};
use crate::error::{Error, Kind, Result};
use crate::fs::{FileKind, Tree};
use crate::limits;
use commands::Follow;

mod apt;
mod commands;
mod dnf;
mod line;
mod yum;

/// What the logs of package managers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct History {
    /// The last changes, the oldest first within each package manager: at most [`limits::MAX_PACKAGE_CHANGES`].
    pub changes: VecDeque<Change>,
    /// What was changed together, by one command as a rule, the oldest first within each package manager: at most
    /// [`limits::MAX_TRANSACTIONS`] with at most [`limits::MAX_PACKAGE_CHANGES`] changes in all. apt, dnf, yum, zypper and pacman keep that.
    pub transactions: VecDeque<Transaction>,
    /// The logs and databases that told something.
    pub logs: Vec<String>,
    /// What could not be read, and why.
    pub notes: Vec<String>,
}

/// One package that was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    /// When, as the log has it: the guest's local time, with the offset where the log has one. yum's log has no year.
    pub time: String,
    /// `install`, `upgrade`, `downgrade`, `reinstall`, `remove` or `purge`.
    pub action: &'static str,
    /// The package.
    pub name: String,
    /// Its architecture.
    pub arch: Option<String>,
    /// The version that came, or went.
    pub version: Option<String>,
    /// The version before.
    pub from: Option<String>,
    /// Whether it was done for the sake of another package, where that is told.
    pub automatic: Option<bool>,
}

/// What a package manager did at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Transaction {
    /// `apt`, `dnf`, `yum`, `zypper` or `pacman`.
    pub manager: &'static str,
    /// The number that the package manager knows it by.
    pub id: Option<i64>,
    /// When it began: as a log has it, in the guest's local time; in universal time, with a `Z`, of databases.
    pub begin: String,
    /// When it ended.
    pub end: Option<String>,
    /// What was typed.
    pub command: Option<String>,
    /// Who asked for it, by name.
    pub user: Option<String>,
    /// Who asked for it, by number.
    pub uid: Option<u32>,
    /// Whether it was done to its end, where that is told.
    pub succeeded: Option<bool>,
    /// The packages, each with the time at which this began.
    pub changes: Vec<Change>,
}

type Parse = fn(&str) -> Option<Change>;

/// Folder, name and form of the logs. dnf's others repeat what this one says.
const LOGS: &[(&str, &str, Parse, Option<Follow>)] = &[
    ("/var/log", "dpkg.log", line::dpkg, None),
    ("/var/log", "yum.log", line::yum, None),
    ("/var/log", "dnf.rpm.log", line::dnf, None),
    ("/var/log/zypp", "history", line::zypp, Some(commands::zypp)),
    ("/var/log", "pacman.log", line::pacman, Some(commands::pacman)),
    ("/var/log/apt", "history.log", |_| None, Some(apt::follow)),
];

/// Reads the logs and databases.
pub fn history(tree: &Tree) -> Result<History> {
    let mut told = Told::default();
    for (folder, name, parse, follow) in LOGS {
        for path in rotated(tree, folder, name)? {
            let before = told.seen;
            let read = read(tree, &path, *parse, *follow, &mut told);
            told.note(&path, before, read)?;
        }
        told.close();
    }
    for (find, read) in DATABASES {
        for path in find(tree)? {
            let before = told.seen;
            let read = read(tree, &path, &mut told);
            told.note(&path, before, read)?;
        }
    }
    Ok(told.history)
}

type Find = fn(&Tree) -> Result<Vec<String>>;
type ReadAll = fn(&Tree, &str, &mut Told) -> Result<()>;

const DATABASES: &[(Find, ReadAll)] = &[(dnf::find, dnf::read), (yum::find, yum::read)];

/// What was told so far.
#[derive(Default)]
struct Told {
    history: History,
    /// The transaction that the log being read is about.
    open: Option<Transaction>,
    /// Changes in the transactions that are kept.
    kept: usize,
    /// Everything that was ever told.
    seen: u64,
}

impl Told {
    fn change(&mut self, change: Change) {
        self.seen = self.seen.saturating_add(1);
        self.history.changes.push_back(change);
        if self.history.changes.len() > limits::MAX_PACKAGE_CHANGES {
            self.history.changes.pop_front();
        }
    }

    /// Adds a transaction; the oldest ones make room.
    fn transaction(&mut self, transaction: Transaction) {
        self.seen = self.seen.saturating_add(1);
        self.kept = self.kept.saturating_add(transaction.changes.len());
        let all = &mut self.history.transactions;
        all.push_back(transaction);
        while all.len() > limits::MAX_TRANSACTIONS || self.kept > limits::MAX_PACKAGE_CHANGES {
            let Some(oldest) = all.pop_front() else { break };
            self.kept = self.kept.saturating_sub(oldest.changes.len());
        }
    }

    /// Begins a transaction, which ends the one before.
    fn open(&mut self, transaction: Transaction) -> &mut Transaction {
        self.close();
        self.seen = self.seen.saturating_add(1);
        self.open.insert(transaction)
    }

    /// Ends the open transaction, if there is one.
    fn close(&mut self) {
        if let Some(transaction) = self.open.take() {
            self.transaction(transaction);
        }
    }

    /// Takes down what reading a file came to; `before` is what had been told until then.
    fn note(&mut self, path: &str, before: u64, read: Result<()>) -> Result<()> {
        if let Some(problem) = problem(read.map_err(|error| error.at(path)))? {
            self.history.notes.push(problem);
        }
        if self.seen > before {
            self.history.logs.push(path.to_owned());
        }
        Ok(())
    }
}

impl Transaction {
    /// Adds a change, within the bound of all.
    fn push(&mut self, change: Change) {
        if !change.name.is_empty() && self.changes.len() < limits::MAX_PACKAGE_CHANGES {
            self.changes.push(Change { time: self.begin.clone(), ..change });
        }
    }
}

/// A log with its older parts, the oldest first: `NAME-DATE`, then `NAME.N` from large numbers to small ones, then `NAME`.
fn rotated(tree: &Tree, folder: &str, name: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in tree.list(folder)?.iter().filter(|entry| entry.kind == FileKind::Regular) {
        let Some(rest) = entry.text().and_then(|entry| entry.strip_prefix(name)) else { continue };
        let (stem, _) = rest.rsplit_once('.').filter(|(_, end)| matches!(*end, "gz" | "xz")).unwrap_or((rest, ""));
        let digits = stem.get(1..).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let order = match (stem.as_bytes().first(), digits.and_then(|digits| digits.parse::<i64>().ok())) {
            (None, _) => (2, 0),
            (Some(b'.'), Some(number)) => (1, number.saturating_neg()),
            (Some(b'-'), Some(date)) => (0, date),
            _ => continue,
        };
        found.push((order, format!("{folder}/{name}{rest}")));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn read(tree: &Tree, path: &str, parse: Parse, follow: Option<Follow>, told: &mut Told) -> Result<()> {
    let Some(file) = tree.open(path)? else { return Ok(()) };
    let reader: Box<dyn Read> = if path.ends_with(".gz") {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else if path.ends_with(".xz") {
        Box::new(liblzma::read::XzDecoder::new_multi_decoder(file))
    } else {
        Box::new(file)
    };
    let mut lines = Lines::new(reader);
    loop {
        let line = match lines.next() {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            // A decoder's own complaint: what it unpacks is damaged. Those of the disk keep their codes.
            Err(error) if error.kind() == Kind::Unreadable && path.ends_with('z') => {
                return Err(Error::corrupt("packages.log", "a compressed log that does not decompress"));
            }
            Err(error) => return Err(error),
        };
        let Ok(line) = std::str::from_utf8(line) else { continue };
        let change = parse(line).filter(|change| !change.name.is_empty());
        if let Some(follow) = follow {
            follow(line, change.as_ref(), told);
        }
        if let Some(change) = change {
            told.change(change);
        }
    }
}

fn word(word: &str) -> Option<String> {
    text(word.as_bytes(), LONGEST_WORD)
}

/// A command as it was typed.
fn command(command: &str) -> Option<String> {
    text(command.as_bytes(), LONGEST_LINE)
}

#[cfg(test)]
mod tests;
