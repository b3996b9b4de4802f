//! yum's history: a SQLite database for each time that it was begun anew.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::dnf::{Action, Item, Nevra, Recent, each, nevra, tell, utc};
use super::{Told, Transaction, command};
use crate::error::Result;
use crate::fs::{FileKind, Tree};
use crate::inspect::packages::sqlite::Database;
use crate::limits;

const FOLDER: &str = "/var/lib/yum/history";

/// Databases that are read, the last ones. A guest has one as a rule.
const MOST: usize = 16;

/// `history-2024-01-02.sqlite` …
pub(super) fn find(tree: &Tree) -> Result<Vec<String>> {
    let mut found = Recent::new(MOST);
    let mut names: Vec<String> = Vec::new();
    for entry in tree.list(FOLDER)?.iter().filter(|entry| entry.kind == FileKind::Regular) {
        names.extend(
            entry.text().filter(|name| name.starts_with("history-") && name.ends_with(".sqlite")).map(str::to_owned),
        );
    }
    names.sort();
    names.into_iter().for_each(|name| found.push(format!("{FOLDER}/{name}")));
    Ok(found.0.into())
}

pub(super) fn read(tree: &Tree, path: &str, told: &mut Told) -> Result<()> {
    let Some(file) = Database::open(tree, path)? else { return Ok(()) };
    let mut transactions = Recent::new(limits::MAX_TRANSACTIONS);
    each(&file, "trans_beg", &mut |row| {
        let uid = row.int("loginuid").and_then(|uid| u32::try_from(uid).ok()).filter(|uid| *uid != u32::MAX);
        transactions.push(Transaction {
            manager: "yum",
            id: row.int("tid"),
            begin: row.int("timestamp").and_then(utc).unwrap_or_default(),
            uid,
            ..Transaction::default()
        });
    })?;
    let places: BTreeMap<i64, usize> =
        transactions.0.iter().enumerate().filter_map(|(place, it)| Some((it.id?, place))).collect();
    let mut of = |id: Option<i64>, set: &dyn Fn(&mut Transaction)| {
        let place = id.and_then(|id| places.get(&id));
        place.and_then(|place| transactions.0.get_mut(*place)).into_iter().for_each(set);
    };
    each(&file, "trans_end", &mut |row| {
        of(row.int("tid"), &|transaction| {
            transaction.end = row.int("timestamp").and_then(utc);
            transaction.succeeded = row.int("return_code").map(|code| code == 0);
        });
    })?;
    each(&file, "trans_cmdline", &mut |row| {
        of(row.int("tid"), &|transaction| transaction.command = row.text("cmdline").and_then(command));
    })?;
    let mut items = Recent::new(limits::MAX_PACKAGE_CHANGES);
    each(&file, "trans_data_pkgs", &mut |row| {
        let state = row.text("state").unwrap_or_default();
        let Some(action) = action(state) else { return };
        let (Some(transaction), Some(package)) = (row.int("tid"), row.int("pkgtupid")) else { return };
        let automatic = match state {
            "Dep-Install" => Some(true),
            "Install" | "True-Install" => Some(false),
            _ => None,
        };
        items.push(Item { transaction, package, action, automatic });
    })?;
    let mut packages: BTreeMap<i64, Nevra> = items.0.iter().map(|item| (item.package, Nevra::default())).collect();
    each(&file, "pkgtups", &mut |row| {
        if let Some(package) = row.int("pkgtupid").and_then(|id| packages.get_mut(&id)) {
            *package = nevra(row);
        }
    })?;
    tell(transactions.0, items.0, &packages, told);
    Ok(())
}

/// The states that yum gives packages in a transaction.
fn action(state: &str) -> Option<Action> {
    Some(match state {
        "Install" | "Dep-Install" | "True-Install" | "Obsoleting" => Action::Change("install"),
        "Update" => Action::Change("upgrade"),
        "Downgrade" => Action::Change("downgrade"),
        "Reinstall" => Action::Change("reinstall"),
        "Erase" => Action::Change("remove"),
        "Updated" | "Downgraded" | "Obsoleted" => Action::Replaced,
        _ => return None,
    })
}
