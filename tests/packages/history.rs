//! Histories of package managers: what dnf tells of its own database, and databases of dnf 5 and yum as SQLite writes them.

use std::collections::BTreeSet;
use std::path::Path;

use super::{guest_with, or_empty};
use crate::support::{Lab, tools};
use hyper2kvm::inspect::packages::{self, Change, History, Transaction};

/// Builds a package of nothing.
fn build(lab: &Lab, name: &str, epoch: u32, version: &str) -> String {
    let text = format!(
        "Name: {name}\nEpoch: {epoch}\nVersion: {version}\nRelease: 1\nSummary: S\nLicense: L\nBuildArch: noarch\n\
         %description\nD\n%files\n"
    );
    let spec = lab.file(&format!("{name}-{version}.spec"), text);
    let [top, rpms] = ["top", "rpms"].map(|name| lab.path(name).display().to_string());
    let defines = [format!("_topdir {top}"), format!("_rpmdir {rpms}")];
    tools::ok("rpmbuild", ["-bb", "--quiet", "--define", &defines[0], "--define", &defines[1], spec.to_str().unwrap()]);
    format!("{rpms}/noarch/{name}-{version}-1.noarch.rpm")
}

/// Runs dnf on a root of its own, without repositories.
fn dnf(lab: &Lab, args: &[&str]) -> String {
    let root = lab.path("root");
    let set = |key: &str, folder: &str| format!("--setopt={key}={}", lab.path(folder).display());
    let mut words =
        vec!["-y".to_owned(), "--noplugins".to_owned(), "--nogpgcheck".to_owned(), "--releasever=1".to_owned()];
    words.push(format!("--installroot={}", root.display()));
    words.extend(
        [("reposdir", "repos"), ("cachedir", "cache"), ("logdir", "log")].map(|(key, folder)| set(key, folder)),
    );
    words.push(format!("--setopt=persistdir={}/var/lib/dnf", root.display()));
    tools::ok("dnf", words.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())))
}

fn nevra(change: &Change, version: Option<&String>) -> String {
    format!("{}-{}.{}", change.name, or_empty(version), or_empty(change.arch.as_ref()))
}

/// The lines about packages, as `dnf history info` has them.
fn as_dnf(transaction: &Transaction) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for change in &transaction.changes {
        let (new, old) = match change.action {
            "install" => ("Install", None),
            "upgrade" => ("Upgrade", Some("Upgraded")),
            "downgrade" => ("Downgrade", Some("Downgraded")),
            "reinstall" => ("Reinstall", Some("Reinstalled")),
            "remove" => ("Removed", None),
            other => panic!("{other}"),
        };
        lines.insert(format!("{new} {}", nevra(change, change.version.as_ref())));
        let from = change.from.as_ref().or(change.version.as_ref());
        lines.extend(old.map(|old| format!("{old} {}", nevra(change, from))));
    }
    lines
}

#[test]
fn what_dnf_did_is_what_it_tells_itself() {
    let lab = Lab::new();
    for folder in ["repos", "cache", "log", "root"] {
        lab.folder(folder);
    }
    let [old, new] = ["1.0", "2.0"].map(|version| build(&lab, "alpha", if version == "1.0" { 0 } else { 3 }, version));
    let beta = build(&lab, "beta", 0, "1.0");
    dnf(&lab, &["install", &old]);
    dnf(&lab, &["install", &new, &beta]);
    dnf(&lab, &["downgrade", &old]);
    dnf(&lab, &["reinstall", &old]);
    dnf(&lab, &["remove", "beta"]);
    dnf(&lab, &["mark", "remove", "alpha"]);
    let guest = guest_with(&lab.path("root/var/lib/dnf"), "/var/lib/dnf");
    let History { transactions, notes, .. } = packages::history(&guest).unwrap();
    assert_eq!((transactions.len(), notes), (6, Vec::new()));
    for transaction in &transactions {
        let told = dnf(&lab, &["history", "info", &transaction.id.unwrap().to_string()]);
        let field = |name: &str| {
            let mut fields = told.lines().filter_map(|line| line.split_once(" : "));
            fields.find(|(key, _)| key.trim() == name).map_or("", |(_, value)| value.trim())
        };
        assert_eq!(transaction.command.as_deref().unwrap_or_default(), field("Command Line"));
        assert_eq!((transaction.succeeded, field("Return-Code")), (Some(true), "Success"));
        let begin = tools::ok("date", [format!("--date={}", transaction.begin), "+%c".to_owned()]);
        assert_eq!(begin.trim(), field("Begin time"));
        let (_, altered) = told.split_once("Packages Altered:\n").unwrap();
        let theirs = altered.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            Some(format!("{} {}", words.next()?, words.next()?))
        });
        let theirs: BTreeSet<_> = theirs.filter(|line| !line.starts_with("Reason ")).collect();
        assert_eq!(as_dnf(transaction), theirs, "{told}");
    }
    assert_eq!(transactions[1].changes.iter().filter(|change| change.automatic == Some(false)).count(), 1);
}

/// Tables and rows as dnf 5 makes them: names and architectures apart, numbers of rows declared after the columns.
const DNF5: &str = r#"
CREATE TABLE "trans_item_action" ("id" INTEGER, "name" TEXT, PRIMARY KEY("id"));
CREATE TABLE "trans" ("id" INTEGER, "dt_begin" INTEGER NOT NULL, /* (unix timestamp) begin, of it */ "dt_end" INTEGER,
  "releasever" TEXT NOT NULL, "user_id" INTEGER NOT NULL, "description" TEXT, "comment" TEXT, "state_id" INTEGER, /* (enum) */
  PRIMARY KEY("id" AUTOINCREMENT), FOREIGN KEY("state_id") REFERENCES "trans_state"("id"));
CREATE TABLE "pkg_name" ("id" INTEGER, "name" TEXT NOT NULL UNIQUE, PRIMARY KEY("id"));
CREATE TABLE "arch" ("id" INTEGER, "name" TEXT NOT NULL UNIQUE, PRIMARY KEY("id"));
CREATE TABLE "trans_item" ("id" INTEGER, "trans_id" INTEGER, "item_id" INTEGER, "repo_id" INTEGER, "action_id" INTEGER NOT NULL,
  "reason_id" INTEGER NOT NULL, "state_id" INTEGER NOT NULL, PRIMARY KEY("id" AUTOINCREMENT));
CREATE TABLE "rpm" ("item_id" INTEGER NOT NULL UNIQUE, "name_id" INTEGER NOT NULL, "epoch" INTEGER NOT NULL, "version" TEXT NOT NULL,
  "release" TEXT NOT NULL, "arch_id" INTEGER NOT NULL, CONSTRAINT "rpm_unique_nevra" UNIQUE ("name_id", "epoch", "version", "release", "arch_id"));
INSERT INTO "trans" VALUES (7, 1700000000, 1700000009, '40', 1000, 'dnf upgrade', '', 2), (8, 1700000100, NULL, '40', 4294967295, NULL, '', 3);
INSERT INTO "pkg_name" VALUES (1, 'kernel'), (2, 'lib'), (3, 'old');
INSERT INTO "arch" VALUES (1, 'x86_64'), (2, 'i686');
INSERT INTO "rpm" VALUES (1, 1, 0, '6.1', '1', 1), (2, 2, 2, '2', '1', 1), (3, 2, 2, '1', '1', 1), (4, 2, 2, '2', '1', 2), (5, 2, 0, '1', '0', 2), (6, 3, 0, '1', '1', 1);
INSERT INTO "trans_item" VALUES (1, 7, 1, 1, 1, 1, 2), (2, 7, 3, 1, 6, 2, 2), (3, 7, 2, 1, 2, 2, 2), (4, 7, 4, 1, 2, 2, 2),
  (5, 7, 5, 1, 6, 2, 2), (6, 7, 6, 1, 6, 2, 2), (7, 8, 6, 1, 5, 2, 3), (8, 8, 1, 1, 7, 2, 2), (9, 99, 1, 1, 1, 2, 2), (10, 8, 99, 1, 1, 2, 2);
"#;

/// Tables and rows as yum makes them.
const YUM: &str = "
CREATE TABLE trans_beg (tid INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, rpmdb_version TEXT NOT NULL, loginuid INTEGER);
CREATE TABLE trans_end (tid INTEGER PRIMARY KEY REFERENCES trans_beg, timestamp INTEGER NOT NULL, rpmdb_version TEXT NOT NULL, return_code INTEGER NOT NULL);
CREATE TABLE trans_cmdline (tid INTEGER NOT NULL REFERENCES trans_beg, cmdline TEXT NOT NULL);
CREATE TABLE trans_data_pkgs (tid INTEGER NOT NULL REFERENCES trans_beg, pkgtupid INTEGER NOT NULL REFERENCES pkgtups, done BOOL NOT NULL DEFAULT FALSE, state TEXT NOT NULL);
CREATE TABLE pkgtups (pkgtupid INTEGER PRIMARY KEY, name TEXT NOT NULL, arch TEXT NOT NULL, epoch TEXT NOT NULL, version TEXT NOT NULL, release TEXT NOT NULL, checksum TEXT);
INSERT INTO trans_beg VALUES (1, 1700000000, 'v', 1000), (2, 1700000100, 'v', 4294967295);
INSERT INTO trans_end VALUES (1, 1700000009, 'v', 0);
INSERT INTO trans_cmdline VALUES (1, 'update -y');
INSERT INTO pkgtups VALUES (1, 'a', 'x86_64', '0', '1', '1.el7', NULL), (2, 'a', 'x86_64', '0', '2', '1.el7', NULL), (3, 'dep', 'noarch', '1', '5', '1', NULL), (4, 'gone', 'noarch', '0', '1', '1', NULL);
INSERT INTO trans_data_pkgs VALUES (1, 1, 'TRUE', 'Updated'), (1, 2, 'TRUE', 'Update'), (1, 3, 'TRUE', 'Dep-Install'), (1, 4, 'TRUE', 'Obsoleted'), (2, 3, 'FALSE', 'Erase'), (2, 3, 'FALSE', '?');
";

fn made(lab: &Lab, name: &str, script: &str) -> std::path::PathBuf {
    let folder = lab.folder(name);
    let (path, script) = (folder.join(name), lab.file(&format!("{name}.sql"), script));
    let code = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\ndb.executescript(open(sys.argv[2]).read())\ndb.close()";
    tools::ok("python3", ["-c".as_ref(), code.as_ref(), path.as_os_str(), script.as_os_str()]);
    folder
}

fn lines(folder: &Path, to: &str) -> Vec<String> {
    let History { transactions, logs, notes, .. } = packages::history(&guest_with(folder, to)).unwrap();
    assert_eq!((logs.len(), notes), (1, Vec::new()));
    let line = |it: &Transaction| {
        let changes = it.changes.iter().map(|change| {
            let from = change.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
            let automatic = if change.automatic == Some(true) { " automatic" } else { "" };
            format!("{} {}{from}{automatic}", change.action, nevra(change, change.version.as_ref()))
        });
        let (id, changes) = (it.id.unwrap(), changes.collect::<Vec<_>>().join(", "));
        let (end, command) = (or_empty(it.end.as_ref()), or_empty(it.command.as_ref()));
        format!("{} {id} {} to {end} by {:?}, {:?}, {command}: {changes}", it.manager, it.begin, it.uid, it.succeeded)
    };
    transactions.iter().map(line).collect()
}

#[test]
fn databases_of_dnf_5_and_yum_are_read() {
    let lab = Lab::new();
    assert_eq!(
        lines(&made(&lab, "transaction_history.sqlite", DNF5), "/usr/lib/sysimage/libdnf5"),
        [
            "dnf 7 2023-11-14T22:13:20Z to 2023-11-14T22:13:29Z by Some(1000), Some(true), dnf upgrade: install kernel-6.1-1.x86_64 automatic, \
             upgrade lib-2:2-1.x86_64 from 2:1-1, upgrade lib-2:2-1.i686 from 1-0, remove old-1-1.x86_64",
            "dnf 8 2023-11-14T22:15:00Z to  by None, Some(false), : remove old-1-1.x86_64",
        ]
    );
    assert_eq!(
        lines(&made(&lab, "history-2017-01-02.sqlite", YUM), "/var/lib/yum/history"),
        [
            "yum 1 2023-11-14T22:13:20Z to 2023-11-14T22:13:29Z by Some(1000), Some(true), update -y: upgrade a-2-1.el7.x86_64 from 1-1.el7, \
             install dep-1:5-1.noarch automatic, remove gone-1-1.noarch",
            "yum 2 2023-11-14T22:15:00Z to  by None, None, : remove dep-1:5-1.noarch",
        ]
    );
}

#[test]
fn damaged_databases_are_noted() {
    let lab = Lab::new();
    let folder = made(&lab, "history.sqlite", DNF5);
    let good = std::fs::read(folder.join("history.sqlite")).unwrap();
    // A byte anywhere changes some of what is told at most.
    for at in (0..good.len()).step_by(211) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        std::fs::write(folder.join("history.sqlite"), bad).unwrap();
        let history = packages::history(&guest_with(&folder, "/var/lib/dnf")).unwrap();
        assert!(history.transactions.len() <= 3 && history.notes.len() <= 1, "{at}: {history:?}");
    }
    for script in [
        "CREATE TABLE other (a);",
        "CREATE TABLE trans (id INTEGER PRIMARY KEY);",
        "CREATE TABLE trans (id, dt_begin); INSERT INTO trans VALUES ('x', 'y'), (NULL, 9e99), (x'00', 9223372036854775807);",
        "CREATE TABLE trans (id INTEGER PRIMARY KEY, cmdline); INSERT INTO trans VALUES (1, CAST(zeroblob(100000) AS TEXT));",
    ] {
        let lab = Lab::new();
        let folder = made(&lab, "bad", script);
        let history = packages::history(&guest_with(&folder, "/var/lib/dnf")).unwrap();
        assert!(history.notes.is_empty(), "{history:?}");
        std::fs::rename(folder.join("bad"), folder.join("history.sqlite")).unwrap();
        let history = packages::history(&guest_with(&folder, "/var/lib/dnf")).unwrap();
        assert!(history.notes.is_empty() && history.changes.is_empty(), "{history:?}");
        assert!(
            history.transactions.iter().all(|it| it.changes.is_empty() && or_empty(it.command.as_ref()).len() <= 1024)
        );
    }
}
