//! Units of trees made here. `tests/units.rs` compares with systemd itself.

use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::fs::MemoryFs;
use crate::inspect::systemd::zones::Zones;

const VENDOR: &str = "/usr/lib/systemd/system";

fn tree(files: &[(&str, &str)]) -> Tree {
    let fs = MemoryFs::default();
    for (path, text) in files {
        let path = if path.starts_with('/') { (*path).to_owned() } else { format!("{VENDOR}/{path}") };
        match text.strip_prefix("-> ") {
            Some(target) => fs.add_link(&path, target).map(drop).unwrap(),
            None => fs.add_file(&path, *text).map(drop).unwrap(),
        }
    }
    Tree::new(Arc::new(fs))
}

fn graph(files: &[(&str, &str)]) -> Graph {
    Graph::read(&tree(files), Scope::System).unwrap()
}

/// `KIND UNIT` of those that are not there by default.
fn asks(graph: &Graph, name: &str) -> Vec<String> {
    let unit = graph.find(name).unwrap();
    let own = unit.dependencies.iter().filter(|one| one.origin != Origin::Default);
    own.map(|one| format!("{} {}", one.kind.words().0, one.unit)).collect()
}

#[test]
fn files_and_links_tell_what_a_unit_asks() {
    let graph = graph(&[
        (
            "a.service",
            "[Unit]\nWants=b.service \\\n c@1.service\nWants=\nAfter=%N-x.service d.service \"quoted.service\" none %h.service\n[Service]\nAfter=e.service\n",
        ),
        ("a.service.d/1.conf", "[Unit]\nPartOf=hidden.service\n"),
        ("/etc/systemd/system/a.service.d/1.conf", "[Unit]\nPartOf=seen.service\n"),
        ("service.d/0.conf", "[Unit]\nBindsTo=all.service\n"),
        ("a.service.wants/w.service", "-> ../w.service"),
        ("/etc/systemd/system/a.service.requires/r.service", "-> /nowhere"),
        ("a.service.wants/no.service", "-> ../no.service"),
        ("/etc/systemd/system/a.service.wants/no.service", "-> /dev/null"),
        ("c@.service", "[Unit]\nRequires=%p-%i.socket %j.target\n"),
        ("/etc/systemd/system/other.service", "-> /usr/lib/systemd/system/a.service"),
        (
            "s.socket",
            "[Socket]\nListenStream=/run/x y\nListenStream=\nListenStream=/run/%p\nListenFIFO=/f\nAccept=yes\n",
        ),
        ("t.timer", "[Timer]\nOnCalendar=*-*-* 3:0\nOnCalendar=bad\nOnBootSec=5\nUnit=a.service\n"),
    ]);
    let expected = [
        "Wants b.service",
        "Wants c@1.service",
        "Wants w.service",
        "Requires r.service",
        "BindsTo all.service",
        "PartOf seen.service",
        "After a-x.service",
        "After d.service",
    ];
    assert_eq!(asks(&graph, "a.service"), expected);
    assert_eq!(asks(&graph, "c@1.service")[..2], ["Requires c-1.socket", "Requires c.target"]);
    assert_eq!(graph.find("other.service").unwrap().name, "a.service");
    // Which instance it starts, only a connection tells.
    assert_eq!(asks(&graph, "s.socket"), Vec::<String>::new());
    let by: Vec<&str> = graph.reverse("a.service").iter().map(|(unit, _)| unit.name.as_str()).collect();
    assert_eq!(by, ["t.timer", "t.timer"]);
    let line = graph.find("a.service").unwrap().dependencies.iter().find(|one| one.unit == "d.service").unwrap();
    assert_eq!(line.origin, Origin::File { path: format!("{VENDOR}/a.service"), line: 5 });
    let sockets = graph.sockets();
    let listens = [("ListenStream".to_owned(), "/run/s".to_owned()), ("ListenFIFO".to_owned(), "/f".to_owned())];
    assert_eq!((sockets[0].listens.as_slice(), sockets[0].accept), (listens.as_slice(), true));
    let tree = tree(&[]);
    let zones = Zones::read(&tree, Timestamp::UNIX_EPOCH).unwrap();
    let timers = graph.timers(&zones, Timestamp::UNIX_EPOCH).unwrap();
    assert_eq!((timers[0].next, timers[0].when.len()), (Some(3 * 3600 * 1_000_000), 3));
    assert_eq!(timers[0].activates.as_deref(), Some("a.service"));
}

#[test]
fn defaults_can_be_switched_off() {
    let graph = graph(&[
        ("a.target", "[Unit]\nWants=a.service b.service c.service d.service\nBefore=c.service\n"),
        ("a.service", "[Unit]\n"),
        ("b.service", "[Unit]\nDefaultDependencies=no\n"),
        ("c.service", "[Unit]\n"),
        ("d.service", "-> /dev/null"),
    ]);
    let by_default = |name: &str| {
        let all = graph.find(name).unwrap().dependencies.iter().filter(|one| one.origin == Origin::Default);
        all.map(|one| format!("{} {}", one.kind.words().0, one.unit)).collect::<Vec<_>>()
    };
    assert_eq!(by_default("a.target"), ["Conflicts shutdown.target", "Before shutdown.target", "After a.service"]);
    assert_eq!(by_default("a.service").len(), 5);
    assert!(by_default("b.service").is_empty() && by_default("d.service").is_empty());
}

#[test]
fn problems_have_places() {
    let files = [
        (
            "a.service",
            "[Unit]\nFoo=1\nX-A=1\n[Service]\nExecStart=/bin/none x\nRestart=maybe\nNoNewPrivileges=perhaps\n[X-Y]\na=b\n[Timer]\nx=y\n",
        ),
        ("a.service.d/x.conf", "[Service\n"),
        ("b.service", "[Service]\nType=dbus\nExecStart=/bin/sh\nExecStart=-/bin/none\n"),
        ("b.timer", "[Timer]\nOnCalendar=x\nAccuracySec=1y\n[Install]\nUpheldBy=a\n"),
        ("c.timer", "[Timer]\nOnCalendar=\nOnClockChange=no\n"),
        ("/bin/sh", "x"),
    ];
    let (tree, graph) = (tree(&files), graph(&files));
    let zones = Zones::read(&tree, Timestamp::UNIX_EPOCH).unwrap();
    let lines = |name: &str| -> Vec<Option<u32>> {
        let problems = graph.check(graph.find(name).unwrap(), &tree, &zones).unwrap();
        problems.iter().map(|problem| problem.line).collect()
    };
    assert_eq!(lines("a.service"), [Some(1), Some(2), Some(6), Some(7), Some(10), Some(5)]);
    assert_eq!(lines("b.service"), [None, None]);
    assert_eq!(lines("b.timer"), [Some(2)]);
    assert_eq!(lines("c.timer"), [None]);
}

#[test]
fn hostile_units_end() {
    let long = format!("[Unit]\nWants={}\n", "a.service ".repeat(50_000));
    let graph = graph(&[
        ("self.service", "[Unit]\nWants=self.service\nAfter=self.service\nRequires=%\nBindsTo=%i.service @.service\n"),
        ("many.target", &long),
        ("g@.service", "[Unit]\nWants=g@%i1.service\n"),
        ("go.service", "[Unit]\nWants=g@1.service\n"),
        ("esc.service", "[Unit]\nWants=\u{1b}[2J.service\nDescription=\u{1b}[2J\n"),
        ("-.service", "[Unit]\nWants=-.mount ../../etc/passwd.service\n"),
        ("loop.timer", "[Timer]\nUnit=loop.timer\nOnCalendar=*-02-30\n"),
        ("link.service", "-> link.service"),
        ("--.service", "[Unit]\nWants=\"\n"),
    ]);
    // A template that asks for a longer name of itself goes on until names are too long.
    assert!((200..400).contains(&graph.units.len()), "{}", graph.units.len());
    assert_eq!(asks(&graph, "esc.service"), Vec::<String>::new());
    assert_eq!(asks(&graph, "-.service"), ["Wants -.mount"]);
    assert!(graph.find("link.service").unwrap().path.is_none());
}

#[test]
fn names_are_unescaped() {
    for (text, expected) in [
        ("a-b", "a/b"),
        ("a\\x2db", "a-b"),
        ("\\x", "\\x"),
        ("\\xzz", "\\xzz"),
        ("\\x2", "\\x2"),
        ("", ""),
        ("\\", "\\"),
    ] {
        assert_eq!(unescaped(text), expected, "{text}");
    }
}
