//! dnf's history: a SQLite database of transactions, of dnf 2 to 4 in one form and of dnf 5 in another.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;

use super::{Change, Told, Transaction, command, word};
use crate::error::Result;
use crate::fs::Tree;
use crate::inspect::packages::sqlite::{Database, Row};
use crate::limits;

/// Where the versions keep it, the oldest first.
const PATHS: &[&str] = &[
    "/var/lib/dnf/history.sqlite",
    "/usr/lib/sysimage/dnf/history.sqlite",
    "/var/lib/dnf/transaction_history.sqlite",
    "/usr/lib/sysimage/libdnf5/transaction_history.sqlite",
];

pub(super) fn find(tree: &Tree) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for path in PATHS {
        if tree.is_file(path)? {
            found.push((*path).to_owned());
        }
    }
    Ok(found)
}

/// What is done to a package in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// It comes, or goes.
    Change(&'static str),
    /// It goes since another version of it comes, or another package takes its place.
    Replaced,
}

/// A row of a transaction: what it is about, and what is done.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) transaction: i64,
    pub(super) package: i64,
    pub(super) action: Action,
    pub(super) automatic: Option<bool>,
}

/// A package by name and version.
#[derive(Clone, Debug, Default)]
pub(super) struct Nevra {
    pub(super) name: String,
    pub(super) arch: Option<String>,
    pub(super) version: Option<String>,
}

pub(super) fn read(tree: &Tree, path: &str, told: &mut Told) -> Result<()> {
    let Some(file) = Database::open(tree, path)? else { return Ok(()) };
    let is_five = file.table("trans_item_action")?.is_some();
    let mut transactions = Recent::new(limits::MAX_TRANSACTIONS);
    each(&file, "trans", &mut |row| {
        let number = |name: &str| row.int(name);
        let state = number("state").or_else(|| number("state_id")).or_else(|| number("done"));
        let done = if is_five { 2 } else { 1 };
        transactions.push(Transaction {
            manager: "dnf",
            id: number("id"),
            begin: number("dt_begin").and_then(utc).unwrap_or_default(),
            end: number("dt_end").and_then(utc),
            command: row.text("cmdline").or_else(|| row.text("description")).and_then(command),
            // The number of a login that there was not is -1.
            uid: number("user_id").and_then(|uid| u32::try_from(uid).ok()).filter(|uid| *uid != u32::MAX),
            succeeded: state.map(|state| state == done),
            ..Transaction::default()
        });
    })?;
    let mut items = Recent::new(limits::MAX_PACKAGE_CHANGES);
    each(&file, "trans_item", &mut |row| {
        let action = row.int("action").or_else(|| row.int("action_id")).and_then(|number| action(is_five, number));
        let (Some(transaction), Some(package), Some(action)) = (row.int("trans_id"), row.int("item_id"), action) else {
            return;
        };
        let automatic = match row.int("reason").or_else(|| row.int("reason_id")) {
            Some(1 | 4) => Some(true),
            Some(2) => Some(false),
            _ => None,
        };
        items.push(Item { transaction, package, action, automatic });
    })?;
    let mut packages: BTreeMap<i64, Nevra> = items.0.iter().map(|item| (item.package, Nevra::default())).collect();
    // dnf 5 keeps names and architectures apart.
    let mut words: [BTreeMap<i64, Vec<i64>>; 2] = [BTreeMap::new(), BTreeMap::new()];
    each(&file, "rpm", &mut |row| {
        let Some(id) = row.int("item_id") else { return };
        let Some(package) = packages.get_mut(&id) else { return };
        *package = nevra(row);
        for (words, column) in words.iter_mut().zip(["name_id", "arch_id"]) {
            row.int(column).into_iter().for_each(|word| words.entry(word).or_default().push(id));
        }
    })?;
    for (table, of_name, words) in [
        ("pkg_name", true, &words[0]),
        ("pkg_names", true, &words[0]),
        ("arch", false, &words[1]),
        ("archs", false, &words[1]),
    ] {
        if words.is_empty() {
            continue;
        }
        each(&file, table, &mut |row| {
            let Some(text) = row.text("name").and_then(word) else { return };
            for id in row.int("id").and_then(|id| words.get(&id)).into_iter().flatten() {
                let Some(package) = packages.get_mut(id) else { continue };
                if of_name { package.name.clone_from(&text) } else { package.arch = Some(text.clone()) }
            }
        })?;
    }
    tell(transactions.0, items.0, &packages, told);
    Ok(())
}

/// The last of many.
pub(super) struct Recent<T>(pub(super) VecDeque<T>, usize);

impl<T> Recent<T> {
    pub(super) const fn new(most: usize) -> Self {
        Self(VecDeque::new(), most)
    }

    pub(super) fn push(&mut self, value: T) {
        self.0.push_back(value);
        if self.0.len() > self.1 {
            self.0.pop_front();
        }
    }
}

/// Visits the rows of a table, if there is one.
pub(super) fn each(file: &Database, table: &str, visit: &mut dyn FnMut(&Row<'_>)) -> Result<()> {
    let Some(table) = file.table(table)? else { return Ok(()) };
    file.rows(&table, &mut |row| {
        visit(row);
        Ok(ControlFlow::Continue(()))
    })
}

/// The name, architecture and version in a row.
pub(super) fn nevra(row: &Row<'_>) -> Nevra {
    let part = |name: &str| row.text(name).unwrap_or_default();
    let epoch = row.int("epoch").filter(|epoch| *epoch != 0).map(|epoch| format!("{epoch}:")).unwrap_or_default();
    Nevra {
        name: word(part("name")).unwrap_or_default(),
        arch: word(part("arch")),
        version: word(&format!("{epoch}{}-{}", part("version"), part("release"))),
    }
}

/// `TransactionItemAction` of libdnf, and of libdnf5.
const fn action(is_five: bool, number: i64) -> Option<Action> {
    Some(match (is_five, number) {
        (_, 1) | (false, 4) => Action::Change("install"),
        (false, 6) | (true, 2) => Action::Change("upgrade"),
        (false, 2) | (true, 3) => Action::Change("downgrade"),
        (false, 9) | (true, 4) => Action::Change("reinstall"),
        (false, 8) | (true, 5) => Action::Change("remove"),
        (false, 3 | 5 | 7 | 10) | (true, 6) => Action::Replaced,
        // Why it is there changed, and nothing else.
        _ => return None,
    })
}

/// A time of universal time.
pub(super) fn utc(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// Puts the items into their transactions. What is replaced by another version of itself tells what that came from; what
/// another package took the place of was removed.
pub(super) fn tell(
    transactions: VecDeque<Transaction>,
    items: VecDeque<Item>,
    packages: &BTreeMap<i64, Nevra>,
    told: &mut Told,
) {
    let mut of: HashMap<i64, Vec<Item>> = HashMap::new();
    items.into_iter().for_each(|item| of.entry(item.transaction).or_default().push(item));
    for mut transaction in transactions {
        let items = transaction.id.and_then(|id| of.remove(&id)).unwrap_or_default();
        let known = |item: &Item| packages.get(&item.package).filter(|package| !package.name.is_empty()).cloned();
        // Several architectures of a library come at once, and a package may change its own.
        let mut by_name: HashMap<(String, Option<String>), usize> = HashMap::new();
        for item in &items {
            let (Action::Change(action), Some(package)) = (item.action, known(item)) else { continue };
            if matches!(action, "upgrade" | "downgrade" | "reinstall") {
                by_name.insert((package.name.clone(), None), transaction.changes.len());
                by_name.insert((package.name.clone(), package.arch.clone()), transaction.changes.len());
            }
            let Nevra { name, arch, version } = package;
            let automatic = item.automatic.filter(|_| action == "install");
            transaction.push(Change { action, name, arch, version, automatic, ..Change::default() });
        }
        for item in items.iter().filter(|item| item.action == Action::Replaced) {
            let Some(Nevra { name, arch, version }) = known(item) else { continue };
            let same = by_name.get(&(name.clone(), arch.clone())).or_else(|| by_name.get(&(name.clone(), None)));
            match same.and_then(|index| transaction.changes.get_mut(*index)) {
                Some(change) if change.action == "reinstall" => {}
                Some(change) => change.from = version,
                None => transaction.push(Change { action: "remove", name, arch, version, ..Change::default() }),
            }
        }
        told.transaction(transaction);
    }
}
