//! Every kind of change, done and undone, and files of steps that someone tampered with.

use std::sync::Arc;

use super::*;
use crate::fix::{Plan, apply};
use crate::fs::{FilesystemMut, MemoryFs};

const NOW: Timestamp = Timestamp { seconds: 1_900_000_000, nanoseconds: 5 };

fn tree() -> Tree {
    let fs = MemoryFs::default();
    let time = Timestamp { seconds: 1_600_000_000, nanoseconds: 7 };
    let xattrs = vec![(b"security.selinux".to_vec(), b"etc_t\0".to_vec())];
    let attributes = Attributes { mode: 0o640, uid: 5, gid: 6, time, xattrs };
    for path in ["/etc/edited", "/etc/removed", "/etc/renamed", "/boot/initrd"] {
        fs.add_file_with(path, &attributes, format!("what {path} held\n")).unwrap();
    }
    let etc = fs.add_dir("/etc").unwrap();
    fs.symlink(etc, b"link", b"../nowhere", &attributes).unwrap();
    fs.create_dir(etc, b"empty", &Attributes { mode: 0o2750, ..attributes.clone() }).unwrap();
    for dir in ["/", "/etc", "/boot"] {
        let inode = fs.add_dir(dir).unwrap();
        fs.set_times(inode, Timestamp { seconds: 1, nanoseconds: 2 }, Timestamp { seconds: 3, nanoseconds: 4 })
            .unwrap();
    }
    Tree::new(Arc::new(fs))
}

fn content(tree: &Tree, path: &str) -> Vec<u8> {
    tree.read(path, 1 << 20).unwrap().unwrap()
}

fn action(path: &str, change: Change) -> Action {
    let (what, why) = (String::new(), String::new());
    Action { path: path.to_owned(), fix: "tools", what, why, reversible: true, private: false, change }
}

/// One of each kind.
fn plan(tree: &Tree) -> Plan {
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let create = |path, content: &[u8]| {
        action(path, Change::Create { diff: String::new(), attributes: attributes.clone(), content: content.to_vec() })
    };
    let before = content(tree, "/etc/edited");
    let edit = Change::Edit { diff: String::new(), before, content: b"new\n".to_vec() };
    let size_before = long(content(tree, "/boot/initrd").len());
    let label = |before: Option<&[u8]>, value: Option<&[u8]>| {
        let name = if before.is_some() { "security.selinux" } else { "user.new" }.to_owned();
        Change::Xattr { name, before: before.map(<[u8]>::to_vec), value: value.map(<[u8]>::to_vec) }
    };
    let removed = Removed::File { content: content(tree, "/etc/removed") };
    let actions = vec![
        action("/etc/edited", edit),
        action("/etc/edited", Change::Mode { before: 0o640, mode: 0o600 }),
        action("/etc/edited", label(Some(b"etc_t\0"), Some(b"new_t\0"))),
        action("/etc/edited", label(None, Some(b"1"))),
        action("/boot/initrd", label(Some(b"etc_t\0"), None)),
        action("/boot/initrd", Change::Append { size_before, content: vec![7; 5000] }),
        action("/etc/removed", Change::Remove { was: removed }),
        action("/etc/link", Change::Remove { was: Removed::Link { target: "../nowhere".to_owned() } }),
        action("/etc/empty", Change::Remove { was: Removed::Directory }),
        action("/etc/renamed", Change::Rename { to: "/boot/moved".to_owned() }),
        action("/etc/new", Change::CreateDir { attributes: attributes.clone() }),
        create("/etc/new/file", b"made"),
        create("/etc/removed", b"another in its place"),
        action("/etc/new/link", Change::Link { target: "/dev/null".to_owned(), attributes: attributes.clone() }),
    ];
    Plan { actions, ..Plan::default() }
}

fn snapshot(tree: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    let mut pending = vec!["/".to_owned()];
    while let Some(path) = pending.pop() {
        let found = tree.find_link(&path).unwrap().unwrap();
        let stat = found.stat;
        let held = match stat.kind {
            FileKind::Regular => content(tree, &path),
            FileKind::Symlink => tree.target(&found).unwrap(),
            _ => Vec::new(),
        };
        let xattrs = tree.xattrs(&path).unwrap();
        let (owner, times) = ((stat.mode, stat.uid, stat.gid), (stat.atime, stat.mtime));
        all.push(format!("{path} {:?} {owner:?} {times:?} {xattrs:?} {held:?}", stat.kind));
        if stat.kind == FileKind::Directory {
            let names = tree.list(&path).unwrap();
            pending
                .extend(names.iter().map(|entry| format!("{}/{}", path.trim_end_matches('/'), entry.text().unwrap())));
        }
    }
    all.sort();
    all
}

#[test]
fn every_kind_of_change_is_undone() {
    let tree = tree();
    let before = snapshot(&tree);
    let report = apply(&plan(&tree), &tree, NOW).unwrap();
    assert_eq!(content(&tree, "/boot/moved"), b"what /etc/renamed held\n");
    assert_eq!(content(&tree, "/etc/removed"), b"another in its place");
    assert!(!tree.exists("/etc/empty").unwrap());
    let after = snapshot(&tree);
    let undo = Undo::decode(&report.undo.encode().unwrap()).unwrap();
    assert_eq!(undo, report.undo);
    assert_eq!(undo.apply(&tree).unwrap().len(), 14);
    assert_eq!(snapshot(&tree), before);
    // There and back again.
    apply(&plan(&tree), &tree, NOW).unwrap();
    assert_eq!(snapshot(&tree), after);
}

#[test]
fn what_was_changed_since_is_not_undone() {
    type Touch = fn(&Tree);
    let touches: [(&str, Touch); 12] = [
        ("edited", |tree| tree.append("/etc/edited", b"more").unwrap()),
        ("the same length", |tree| tree.write("/etc/edited", b"NEW\n").unwrap()),
        ("gone", |tree| tree.remove("/etc/edited").unwrap()),
        ("appended again", |tree| tree.append("/boot/initrd", b"more").unwrap()),
        ("the appended part", |tree| {
            let len = content(tree, "/boot/initrd").len();
            tree.write("/boot/initrd", &vec![1; len]).unwrap();
        }),
        ("mode", |tree| tree.set_owner("/etc/edited", 0o666, 5, 6).unwrap()),
        ("label", |tree| tree.set_xattr("/etc/edited", b"security.selinux", b"other").unwrap()),
        ("directory", |tree| tree.create_file("/etc/new/other", &Attributes::default(), b"").unwrap()),
        ("link", |tree| {
            tree.remove("/etc/new/link").unwrap();
            tree.symlink("/etc/new/link", b"/else", &Attributes::default()).unwrap();
        }),
        ("made file", |tree| tree.write("/etc/new/file", b"MADE").unwrap()),
        ("in the way", |tree| tree.create_file("/etc/renamed", &Attributes::default(), b"").unwrap()),
        ("moved on", |tree| tree.rename("/boot/moved", "/boot/elsewhere").unwrap()),
    ];
    for (name, touch) in touches {
        let tree = tree();
        let report = apply(&plan(&tree), &tree, NOW).unwrap();
        touch(&tree);
        assert_eq!(report.undo.apply(&tree).unwrap_err().code(), "undo.changed", "{name}");
    }
}

#[test]
fn as_much_is_kept_as_the_limit_and_no_more() {
    assert_eq!(Undo::default().room, limits::MAX_UNDO);
    let kept = {
        let tree = tree();
        let report = apply(&plan(&tree), &tree, NOW).unwrap();
        report.undo.kept.iter().map(|kept| long(kept.len())).sum::<u64>()
    };
    for (room, lost) in [(kept + 1, 0), (kept, 0), (kept - 1, 1), (0, 7)] {
        let tree = tree();
        let mut undo = Undo::with_room(room);
        let all = plan(&tree);
        let gathered: Vec<bool> = all
            .actions
            .iter()
            .map(|action| {
                let kept = undo.gather(action, &tree).unwrap();
                apply(&Plan { actions: vec![action.clone()], ..Plan::default() }, &tree, NOW).unwrap();
                kept
            })
            .collect();
        assert_eq!(gathered.iter().filter(|kept| !**kept).count(), lost, "{room}");
        let encoded = undo.encode().unwrap();
        assert_eq!(Undo::decode_within(&encoded, room).unwrap(), undo);
        if lost == 0 {
            undo.apply(&tree).unwrap();
            assert_eq!(Undo::decode_within(&encoded, kept - 1).unwrap_err().code(), "undo.corrupt");
        } else {
            assert_eq!(undo.apply(&tree).unwrap_err().code(), "undo.lost");
        }
    }
}

fn packed(head: &str, kept: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(&[head.as_bytes(), b"\n", kept].concat(), 1).unwrap()
}

#[test]
fn hostile_files_are_refused() {
    let head = |steps: &str, kept: &str| {
        format!(r#"{{"format":"hyper2kvm-undo","version":1,"steps":[{steps}],"kept":[{kept}]}}"#)
    };
    let cases: [(&str, Vec<u8>); 12] = [
        ("nothing", Vec::new()),
        ("no zstd", b"{}\n".to_vec()),
        ("no line", zstd::bulk::compress(b"{}", 1).unwrap()),
        ("no JSON", packed("format", b"")),
        ("another format", packed(r#"{"format":"x","version":1,"steps":[],"kept":[]}"#, b"")),
        ("another version", packed(r#"{"format":"hyper2kvm-undo","version":2,"steps":[],"kept":[]}"#, b"")),
        ("an unknown step", packed(&head(r#"{"path":"/a","undo":"explode"}"#, ""), b"")),
        ("a negative length", packed(&head("", "-1"), b"")),
        ("cut short", packed(&head("", "5"), b"1234")),
        ("too long", packed(&head("", "3"), b"1234")),
        ("lengths that overflow", packed(&head("", "18446744073709551615,18446744073709551615"), b"")),
        ("a cut stream", packed(&head("", "4"), b"1234")[..20].to_vec()),
    ];
    for (name, bytes) in cases {
        assert_eq!(Undo::decode(&bytes).unwrap_err().code(), "undo.corrupt", "{name}");
    }
    let long = packed(&"x".repeat(usize::try_from(limits::MAX_UNDO_HEAD).unwrap() + 1), b"");
    assert_eq!(Undo::decode(&long).unwrap_err().code(), "undo.corrupt");
}

#[test]
fn hostile_steps_are_refused() {
    let times = "[[0,0],[0,0]]";
    let cases = [
        (
            "what is not kept",
            format!(
                r#"{{"path":"/n","undo":"make","node":{{"made":"file","mode":0,"uid":0,"gid":0,"times":{times},"xattrs":[],"content":9}},"dir":{times}}}"#
            ),
            "undo.corrupt",
        ),
        (
            "out of the file",
            format!(
                r#"{{"path":"/etc/edited","undo":"content","size_before":1,"size":22,"pieces":[{{"offset":18446744073709551615,"len":18446744073709551615,"digest":"","before":0}}],"times":{times}}}"#
            ),
            "undo.changed",
        ),
        (
            "a directory's content",
            format!(r#"{{"path":"/etc","undo":"content","size_before":1,"size":4096,"pieces":[],"times":{times}}}"#),
            "undo.changed",
        ),
        (
            "sizes that differ",
            format!(
                r#"{{"path":"/etc/edited","undo":"content","size_before":1,"size":22,"pieces":[],"times":{times}}}"#
            ),
            "undo.corrupt",
        ),
        (
            "no path",
            format!(r#"{{"path":"","undo":"remove","made":"file","digest":null,"dir":{times}}}"#),
            "undo.changed",
        ),
        (
            "the root",
            format!(r#"{{"path":"/","undo":"remove","made":"directory","digest":null,"dir":{times}}}"#),
            "undo.changed",
        ),
        (
            "a file without a digest",
            format!(r#"{{"path":"/etc/edited","undo":"remove","made":"file","digest":null,"dir":{times}}}"#),
            "undo.changed",
        ),
        (
            "a path out of the guest",
            format!(r#"{{"path":"/../../etc/none","undo":"rename","to":"/../x","dir":{times},"to_dir":{times}}}"#),
            "undo.changed",
        ),
        ("lost", r#"{"path":"/a","undo":"lost"}"#.to_owned(), "undo.lost"),
        (
            "a mode",
            r#"{"path":"/etc/edited","undo":"mode","before":4294967295,"after":4294967295}"#.to_owned(),
            "undo.changed",
        ),
    ];
    for (name, step, code) in cases {
        let head = format!(r#"{{"format":"hyper2kvm-undo","version":1,"steps":[{step}],"kept":[]}}"#);
        let undo = Undo::decode(&packed(&head, b"")).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(undo.apply(&tree()).unwrap_err().code(), code, "{name}");
    }
}

#[test]
fn nothing_of_private_files_is_told() {
    let tree = tree();
    let mut all = plan(&tree);
    all.actions.iter_mut().filter(|action| action.path == "/etc/edited").for_each(|action| action.private = true);
    let report = apply(&all, &tree, NOW).unwrap();
    for mut json in [serde_json::json!(all), serde_json::json!(report)] {
        crate::fix::hide_private(&mut json);
        let text = json.to_string();
        assert!(!text.contains("new_t") && !text.contains("what /etc/edited"), "{text}");
        assert!(text.contains("bytes_before") && text.contains(r#""mode":"0600""#), "{text}");
    }
}
