#![allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]

use std::sync::Arc;

use super::*;
use crate::fs::{MemoryFs, Tree};
use crate::inspect::accounts;

const PASSWD: &str = "root:x:0:0:::\nann:x:1000:1000:::\nbob:x:1001:1001:::\njoe:x:1002:27:::\neve:x:1003:1003:::\n";
const GROUP: &str = "root:x:0:\nsudo:x:27:ann\nwheel:x:10:bob\nann:x:1000:\n";

fn told(files: &[(&str, &str)]) -> (Privileges, Vec<String>) {
    let fs = MemoryFs::default();
    for (path, text) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP)].iter().chain(files) {
        fs.add_file(path, text).unwrap();
    }
    let tree = Tree::new(Arc::new(fs));
    let mut reader = Reader { tree: &tree, notes: Vec::new() };
    let users = accounts::users(&mut reader).unwrap();
    let found = read(&mut reader, &users, Some("web1.example.org")).unwrap();
    (found, reader.notes)
}

fn line(rule: &PrivilegeRule) -> String {
    let password = rule.password.map_or("", |password| if password { " PASSWD" } else { " NOPASSWD" });
    let lists = [&rule.users, &rule.hosts, &rule.run_as_users, &rule.run_as_groups, &rule.commands];
    let lists: Vec<_> = lists.iter().map(|list| list.join(",")).collect();
    format!("{}:{} {}{password}", rule.source.rsplit('/').next().unwrap(), rule.line, lists.join("|"))
}

fn sudo(text: &str) -> Vec<String> {
    let (found, notes) = told(&[("/etc/sudoers", text)]);
    assert_eq!(notes, Vec::<String>::new());
    found.rules.iter().map(line).collect()
}

#[test]
fn rules_with_their_aliases() {
    let text = "# comment\nDefaults env_reset, !visiblepw\nUser_Alias ADMINS = joe, %wheel, #1005, \\\n  !ann : OTHERS = \"x y\"\n\
        Runas_Alias OP = root, operator\nHost_Alias SERVERS = web*, 10.0.0.0/8, fe80::1\nCmnd_Alias SHUT = /sbin/shutdown -h now, /sbin/reboot \"\"\n\
        root ALL=(ALL:ALL) ALL # all\n%sudo\tALL=(ALL : ALL) NOPASSWD: ALL\nADMINS SERVERS = (OP) NOPASSWD: SHUT, PASSWD: /usr/bin/id, !/usr/bin/su\n\
        bob ALL=(www-data) /bin/ls \\:x\\,y : web1 = NOEXEC: SETENV: ALL\nOTHERS ALL=(:staff) sha256:AbC /bin/a, !SHUT\n\
        +net, %:remote ALL= TIMEOUT=5m ROLE=\"x y\" sudoedit /etc/motd\n#1000 ALL=(#0) /bin/x\n";
    assert_eq!(
        sudo(text),
        [
            "sudoers:8 root|ALL|ALL|ALL|ALL",
            "sudoers:9 %sudo|ALL|ALL|ALL|ALL NOPASSWD",
            "sudoers:10 joe,%wheel,#1005,!ann|web*,10.0.0.0/8,fe80::1|root,operator||/sbin/shutdown -h now,/sbin/reboot \"\" NOPASSWD",
            "sudoers:10 joe,%wheel,#1005,!ann|web*,10.0.0.0/8,fe80::1|root,operator||/usr/bin/id,!/usr/bin/su PASSWD",
            "sudoers:11 bob|ALL|www-data||/bin/ls :x,y",
            "sudoers:11 bob|web1|||ALL",
            "sudoers:12 x y|ALL||staff|/bin/a,!/sbin/shutdown -h now,!/sbin/reboot \"\"",
            "sudoers:13 +net,%:remote|ALL|||sudoedit /etc/motd",
            "sudoers:14 #1000|ALL|#0||/bin/x",
        ]
    );
}

#[test]
fn who_may_become_root() {
    for (rules, administrators, asks_for) in [
        ("root ALL=(ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n", "ann joe", "own"),
        ("%wheel ALL=(ALL) ALL\nbob ALL=(ALL) !ALL\n", "", "own"),
        ("ALL ALL=(ALL) ALL\nDefaults targetpw\n", "ann bob joe eve", "target"),
        ("Defaults rootpw\nDefaults:ann !authenticate\n#1003 ALL=ALL\n", "eve", "root"),
        ("Defaults !authenticate\n%#27 ALL=(root) ALL\n", "joe", "none"),
        ("ann web1=ALL\nbob web2=ALL\neve !web1,ALL=ALL\n", "ann eve", "own"),
        ("ann ALL=(www-data) ALL\nbob ALL=(:staff) ALL\njoe ALL=/bin/sh\n", "", "own"),
        ("%sudo,!joe ALL=(ALL,!root) ALL\neve ALL=(!root,ALL) ALL, !/bin/su\n", "eve", "own"),
        ("User_Alias A = !!ann, B\nUser_Alias B = bob, !A\nA ALL=ALL\n", "ann bob", "own"),
    ] {
        let (found, _) = told(&[("/etc/sudoers", rules)]);
        assert_eq!((found.administrators.join(" ").as_str(), found.asks_for), (administrators, asks_for), "{rules}");
    }
}

#[test]
fn rules_of_files_that_are_included() {
    let (found, notes) = told(&[
        (
            "/etc/sudoers",
            "a ALL=ALL\n@includedir /etc/sudoers.d\n#include sudoers.local\n@include /etc/of.%h\nz ALL=ALL\n",
        ),
        ("/etc/sudoers.d/10-b", "b ALL=ALL\n#includedir /etc/sudoers.d\n"),
        ("/etc/sudoers.d/20-c", "c ALL=ALL\n@include ../sudoers\n"),
        ("/etc/sudoers.d/no.dpkg-old", "no ALL=ALL\n"),
        ("/etc/sudoers.d/no~", "no ALL=ALL\n"),
        ("/etc/sudoers.local", "d ALL=ALL\n"),
        ("/etc/of.web1", "e ALL=ALL\n"),
    ]);
    let users: Vec<_> = found.rules.iter().map(|rule| rule.users.join(",")).collect();
    assert_eq!(users, ["a", "b", "c", "d", "e", "z"]);
    assert_eq!(found.files.len(), 5);
    assert!(notes.iter().any(|note| note.contains("includes itself")), "{notes:?}");
}

#[test]
fn rules_of_doas() {
    let text = "# doas\npermit persist :wheel\npermit nopass keepenv setenv { A=b -C } ann as root cmd /bin/a args x\n\
        deny \"bob\" cmd reboot\npermit :sudo as www\nother\npermit\n";
    let (found, _) = told(&[("/etc/doas.conf", text)]);
    let lines: Vec<_> = found.rules.iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "doas.conf:2 %wheel|ALL|ALL||ALL PASSWD",
            "doas.conf:3 ann|ALL|root||/bin/a x NOPASSWD",
            "doas.conf:4 bob|ALL|ALL||!reboot PASSWD",
            "doas.conf:5 %sudo|ALL|www||ALL PASSWD",
        ]
    );
    assert_eq!(found.administrators, ["bob"]);
}

#[test]
fn as_many_rules_as_the_limits() {
    let limit = limits::MAX_SUDO_RULES;
    for (count, kept) in [(limit - 1, limit - 1), (limit, limit), (limit + 1, limit)] {
        let (found, _) = told(&[("/etc/sudoers", &"a ALL=ALL\n".repeat(count))]);
        assert_eq!(found.rules.len(), kept);
    }
    // A rule of a thousand names and one host and command, again and again; the last one that fits is there.
    let names: Vec<_> = (0..1022).map(|index| format!("u{index}")).collect();
    let rule = format!("{} ALL=ALL\n", names.join(","));
    for (count, kept) in [(31, 31), (32, 32), (33, 33)] {
        let (found, _) = told(&[("/etc/sudoers", &rule.repeat(count))]);
        let items: usize =
            found.rules.iter().map(|rule| rule.users.len() + rule.hosts.len() + rule.commands.len()).sum();
        assert!(found.rules.len() == kept && items <= limits::MAX_SUDO_ITEMS, "{items}");
    }
}

#[test]
fn hostile_files_end_soon() {
    let long = "x".repeat(200 << 10);
    // Aliases of aliases: two of each on every level.
    let aliases: String = (0..60).map(|index| format!("User_Alias A{index} = A{0}, A{0}\n", index + 1)).collect();
    let wide: String = (0..300).map(|index| format!("u{index},")).collect();
    for text in [
        String::new(),
        "\0\0\0 \0=\0".to_owned(),
        "\u{fffd}\u{1b}[31m ALL=ALL\n".to_owned(),
        format!("{long} {long}={long}\n"),
        format!("a ALL=({long}:{long}) {long}\n"),
        "a ALL=(".to_owned(),
        "a ALL=(b:c".to_owned(),
        "a ALL=ALL,".to_owned(),
        "a ALL=NOPASSWD:".to_owned(),
        "a ALL=!!!!!".to_owned(),
        "\"a ALL=ALL".to_owned(),
        "a\\".to_owned(),
        "a ALL=sha256:".to_owned(),
        "a ALL=sha256: sha1:x".to_owned(),
        "= = =\n:::\n,,,\n((((\n!!!!\n".to_owned(),
        "User_Alias A\nUser_Alias = b\nUser_Alias A = A\nA ALL=ALL\n".to_owned(),
        format!("{aliases}A0 ALL=ALL\n"),
        format!(
            "User_Alias A = {wide}z\nUser_Alias B = {}A\nUser_Alias C = {}B\nC ALL=ALL\n",
            "A,".repeat(300),
            "B,".repeat(300)
        ),
        "@include /etc/sudoers\n@includedir /etc\n#include\n#includedir \n@include ../../../../etc/sudoers\n"
            .to_owned(),
        "a\\\n".repeat(10_000),
        "Defaults ,,,!,=\nDefaults!x y\nDefaults".to_owned(),
    ] {
        let (found, notes) = told(&[("/etc/sudoers", &text), ("/etc/doas.conf", &text)]);
        let items: usize = found.rules.iter().map(|rule| rule.users.len() + rule.commands.len()).sum();
        assert!(items <= 2 * limits::MAX_SUDO_ITEMS && found.files.len() <= 4);
        assert!(notes.len() <= 8 && notes.iter().all(|note| note.len() < 4096), "{notes:?}");
        for word in
            found.rules.iter().flat_map(|rule| rule.users.iter().chain(&rule.commands).chain(&rule.run_as_users))
        {
            assert!(word.len() <= 4 * 256 + 1, "{}", word.len());
        }
    }
}
