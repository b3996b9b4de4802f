#![allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests build their input")]

use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;

fn told(files: &[(&str, &[u8])]) -> History {
    let fs = MemoryFs::default();
    for (path, content) in files {
        fs.add_file(path, content).unwrap();
    }
    history(&Tree::new(Arc::new(fs))).unwrap()
}

fn line(change: &Change) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let Change { time, action, name, .. } = change;
    format!("{time} {action} {name} {} {} {}", or(&change.arch), or(&change.from), or(&change.version))
}

#[test]
fn each_log_is_read_in_its_own_form() {
    for (path, text, expected) in [
        (
            "/var/log/dpkg.log",
            "2024-01-02 10:20:30 startup archives unpack\n2024-01-02 10:20:30 install a:amd64 <none> 1:2-3\n\
             2024-01-02 10:20:31 status half-installed a:amd64 1:2-3\n2024-01-02 10:20:32 upgrade a:all 1 2\n\
             2024-01-02 10:20:33 purge a:all 2 <none>\n",
            "2024-01-02T10:20:30 install a amd64 - 1:2-3|2024-01-02T10:20:32 upgrade a all 1 2|\
             2024-01-02T10:20:33 purge a all - 2",
        ),
        (
            "/var/log/pacman.log",
            "[2024-01-02T10:20:30+0000] [PACMAN] Running 'pacman -Syu'\n\
             [2024-01-02T10:20:30+0000] [ALPM] upgraded a (1:1-1 -> 1:2-1)\n[2014-01-02 10:20] removed b (1-1)\n\
             [2024-01-02T10:20:30+0000] [ALPM] transaction started\n",
            "2024-01-02T10:20:30+0000 upgrade a - 1:1-1 1:2-1|2014-01-02T10:20 remove b - - 1-1",
        ),
        (
            "/var/log/zypp/history",
            "# 2024-01-02 10:20:30 a installed ok\n2024-01-02 10:20:30|command|root@h|'zypper'|\n\
             2024-01-02 10:20:31|install|a|1-2.3|x86_64|root@h|repo|sum|\n2024-01-02 10:20:32|remove |b|1-1|noarch|root@h|\n",
            "2024-01-02T10:20:31 install a x86_64 - 1-2.3|2024-01-02T10:20:32 remove b noarch - 1-1",
        ),
        (
            "/var/log/dnf.rpm.log",
            "2024-01-02T10:20:30+0000 INFO --- logging initialized ---\n\
             2024-01-02T10:20:30+0000 SUBDEBUG Installed: a-b-1.2-3.el9.x86_64\n\
             2024-01-02T10:20:31+0000 SUBDEBUG Upgraded: a-b-1.1-1.el9.x86_64\n2024-01-02T10:20:32+0000 SUBDEBUG Erase: c-1-1.noarch\n",
            "2024-01-02T10:20:30+0000 install a-b x86_64 - 1.2-3.el9|2024-01-02T10:20:32+0000 remove c noarch - 1-1",
        ),
        (
            "/var/log/yum.log",
            "Jan 02 10:20:30 Updated: 1:a-1.2-3.el6.x86_64\nJan 02 10:20:31 Erased: b\n",
            "Jan 02 10:20:30 upgrade a x86_64 - 1:1.2-3.el6|Jan 02 10:20:31 remove b - - -",
        ),
    ] {
        let history = told(&[(path, text.as_bytes())]);
        let lines: Vec<_> = history.changes.iter().map(line).collect();
        assert_eq!(lines.join("|"), expected, "{path}");
        assert_eq!((history.logs, history.notes), (vec![path.to_owned()], Vec::new()));
    }
}

#[test]
fn older_parts_come_first_and_are_unpacked() {
    let entry = |name: &str| format!("2024-01-02 10:20:30 install {name}:all <none> 1\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(entry("a").as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(entry("z").as_bytes()).unwrap();
    let xz = xz.finish().unwrap();
    let history = told(&[
        ("/var/log/dpkg.log", entry("d").as_bytes()),
        ("/var/log/dpkg.log.1", entry("c").as_bytes()),
        ("/var/log/dpkg.log.2.gz", &gzip[..gzip.len() / 2]),
        ("/var/log/dpkg.log.10.gz", &gzip),
        ("/var/log/dpkg.log-20230101.xz", &xz),
        ("/var/log/dpkg.log.old", entry("no").as_bytes()),
        ("/var/log/dpkg.logger", entry("no").as_bytes()),
    ]);
    let names: Vec<_> = history.changes.iter().map(|change| change.name.as_str()).collect();
    assert_eq!(names, ["z", "a", "c", "d"]);
    assert_eq!((history.notes.len(), history.logs.len()), (1, 4), "{:?}", history.notes);
}

#[test]
fn hostile_lines_are_left_out() {
    for text in [
        "",
        "\n",
        "x",
        "2024",
        "2024-01-02 10:20:30",
        "2024-01-02 10:20:30 install",
        "2024-01-02 10:20:30 install x",
        "2024-01-02 10:20:30 install : 1 2",
        "2024-01-02 10:20:3\u{e9} install a:b",
        "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}",
    ] {
        for (folder, name, ..) in LOGS {
            let history = told(&[(&format!("{folder}/{name}"), text.as_bytes())]);
            assert!(history.changes.is_empty() && history.notes.is_empty(), "{name}: {text}");
        }
    }
}

#[test]
fn as_many_changes_as_the_limit() {
    let limit = limits::MAX_PACKAGE_CHANGES;
    for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
        let text: String = (1..=count).map(|index| format!("2024-01-02|install|p{index}|1|a|\n")).collect();
        let history = told(&[("/var/log/zypp/history", text.as_bytes())]);
        assert_eq!(history.changes.len(), kept);
        assert_eq!(history.changes.back().unwrap().name, format!("p{count}"));
    }
}

/// A transaction in one line: who and what, and its changes.
fn summary(transaction: &Transaction) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let Transaction { manager, begin, .. } = transaction;
    let changes = transaction.changes.iter().map(|change| {
        let automatic = change.automatic.map_or("", |automatic| if automatic { " auto" } else { " wanted" });
        format!("{} {} {}>{}{automatic}", change.action, change.name, or(&change.from), or(&change.version))
    });
    let changes: Vec<_> = changes.collect();
    let uid = transaction.uid.map_or_else(String::new, |uid| uid.to_string());
    let who = format!("{}/{uid}", or(&transaction.user));
    let (end, command) = (or(&transaction.end), or(&transaction.command));
    format!("{manager} {begin} {end} {who} {:?} [{command}] {}", transaction.succeeded, changes.join("; "))
}

fn summaries(path: &str, text: &str) -> Vec<String> {
    let history = told(&[(path, text.as_bytes())]);
    assert_eq!((history.logs, history.notes), (vec![path.to_owned()], Vec::new()));
    history.transactions.iter().map(summary).collect()
}

#[test]
fn what_apt_did_at_once() {
    let text = "\nStart-Date: 2024-01-02  10:20:30\nCommandline: apt-get install x\nRequested-By: joe (1000)\n\
        Install: x:amd64 (1:2-3), y:all (2, automatic)\nUpgrade: z:i386 (1, 2~b)\nEnd-Date: 2024-01-02  10:20:33\n\n\
        Start-Date: 2024-01-03  10:20:30\nCommandline: apt purge x\nPurge: x:amd64 (1:2-3)\nRemove: q:amd64 (1\n\
        Error: Sub-process /usr/bin/dpkg returned an error code (1)\nEnd-Date: 2024-01-03  10:20:33\n\n\
        Start-Date: 2024-01-04  10:20:30\nDowngrade: d:amd64 (2, 1)\nReinstall: r:amd64 (1)\n";
    assert_eq!(
        summaries("/var/log/apt/history.log", text),
        [
            "apt 2024-01-02T10:20:30 2024-01-02T10:20:33 joe/1000 Some(true) [apt-get install x] \
             install x ->1:2-3 wanted; install y ->2 auto; upgrade z 1>2~b",
            "apt 2024-01-03T10:20:30 2024-01-03T10:20:33 -/ Some(false) [apt purge x] purge x ->1:2-3",
            "apt 2024-01-04T10:20:30 - -/ None [-] downgrade d 2>1; reinstall r ->1",
        ]
    );
}

#[test]
fn what_zypper_and_pacman_did_at_once() {
    let text = "2024-01-02 10:20:29|install|early|1-1|noarch||repo|sum|\n2024-01-02 10:20:30|command|root@h|'zypper' 'in' 'a'|\n\
        2024-01-02 10:20:31|install|a|1-2.3|x86_64|root@h|repo|sum|\n2024-01-02 10:20:32|install|b|1-1|noarch||repo|sum|\n\
        2024-01-03 10:20:30|command|root@h|'zypper' 'rm' 'b'|\n2024-01-03 10:20:32|remove |b|1-1|noarch|root@h|\n";
    assert_eq!(
        summaries("/var/log/zypp/history", text),
        [
            "zypper 2024-01-02T10:20:30 2024-01-02T10:20:32 root/ None ['zypper' 'in' 'a'] \
             install a ->1-2.3 wanted; install b ->1-1 auto",
            "zypper 2024-01-03T10:20:30 2024-01-03T10:20:32 root/ None ['zypper' 'rm' 'b'] remove b ->1-1",
        ]
    );
    let at = |text: &str| format!("[2024-01-02T10:20:30+0000] {text}\n");
    let text: String = [
        "[PACMAN] Running 'pacman -Syu'",
        "[PACMAN] starting full system upgrade",
        "[ALPM] transaction started",
        "[ALPM] upgraded a (1-1 -> 2-1)",
        "[ALPM] transaction completed",
        "[PACMAN] Running 'pacman -R b'",
        "[ALPM] transaction started",
        "[ALPM] removed b (1-1)",
        "[ALPM] transaction failed",
    ]
    .map(at)
    .concat();
    assert_eq!(
        summaries("/var/log/pacman.log", &text),
        [
            "pacman 2024-01-02T10:20:30+0000 2024-01-02T10:20:30+0000 -/ Some(true) [pacman -Syu] upgrade a 1-1>2-1",
            "pacman 2024-01-02T10:20:30+0000 2024-01-02T10:20:30+0000 -/ Some(false) [pacman -R b] remove b ->1-1",
        ]
    );
}

#[test]
fn as_many_transactions_as_the_limit() {
    let limit = limits::MAX_TRANSACTIONS;
    for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
        let text: String =
            (1..=count).map(|index| format!("Start-Date: {index}  1\nInstall: p:a (1)\nEnd-Date: 1  2\n\n")).collect();
        let history = told(&[("/var/log/apt/history.log", text.as_bytes())]);
        assert_eq!(history.transactions.len(), kept);
        assert_eq!(history.transactions.back().unwrap().begin, format!("{count}T1"));
    }
    // All of them together have no more changes than the log of each package.
    let limit = limits::MAX_PACKAGE_CHANGES;
    for (count, kept) in [(limit - 2, 2), (limit - 1, 2), (limit, 1), (limit + 1, 1)] {
        let command = |name: &str| format!("t|command|u@h|{name}|\n");
        let first = command("a") + "t|install|p|1|a|\n";
        let second = command("b") + &"t|install|p|1|a|\n".repeat(count);
        let history = told(&[("/var/log/zypp/history", (first + &second).as_bytes())]);
        assert_eq!(history.transactions.len(), kept, "{count}");
        assert_eq!(history.transactions.back().unwrap().changes.len(), count.min(limit));
    }
}

#[test]
fn hostile_transactions_are_bounded() {
    let long = "x".repeat(1 << 20);
    for (path, text) in [
        ("/var/log/apt/history.log", format!("Start-Date: {long}\nCommandline: {long}\nInstall: {long} ({long})\n")),
        (
            "/var/log/apt/history.log",
            format!("Start-Date: 1\nRequested-By: {long} (99999999999)\nUpgrade: ), (), a(, b (1,\n"),
        ),
        ("/var/log/apt/history.log", "Start-Date: \nStart-Date: \nEnd-Date: \nEnd-Date: \nInstall: a (1)\n".to_owned()),
        ("/var/log/apt/history.log", "Commandline: x\nInstall: a:b (1)\nEnd-Date: x\n".to_owned()),
        ("/var/log/apt/history.log", "Start-Date: 1  2\nInstall: \u{1b}[31mred:\0 (1)\n".to_owned()),
        ("/var/log/zypp/history", "|command||".to_owned()),
        ("/var/log/zypp/history", format!("t|command|{long}|{long}|{long}\n")),
        ("/var/log/zypp/history", "|command|@|\n|install||||\n".to_owned()),
        ("/var/log/pacman.log", format!("[{long}] [PACMAN] Running {long}\n")),
        ("/var/log/pacman.log", "[] [PACMAN] Running '\n[] [ALPM] transaction completed\n".to_owned()),
        ("/var/log/pacman.log", "[] [ALPM] transaction started\n".repeat(10)),
    ] {
        let history = told(&[(path, text.as_bytes())]);
        for transaction in &history.transactions {
            assert!(summary(transaction).len() < 16 << 10, "{path}");
            assert!(transaction.changes.len() <= 1 && transaction.uid.is_none(), "{transaction:?}");
        }
    }
}
