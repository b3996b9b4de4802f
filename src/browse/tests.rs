#![allow(
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    reason = "tests count, and read what was written"
)]
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use super::archive::archive;
use super::compare::{Change, Options, Side, compare};
use super::copy::copy_out;
use super::*;
use crate::fs::{Attributes, FilesystemMut, MemoryFs, Timestamp};

const LONG: &str =
    "a-name-that-is-much-longer-than-the-hundred-bytes-which-the-header-of-a-tar-archive-has-for-the-name-of-a-file";

fn guest() -> MemoryFs {
    let fs = MemoryFs::default();
    let attributes = Attributes {
        mode: 0o4750,
        uid: 3_000_000,
        gid: 42,
        time: Timestamp { seconds: -5, nanoseconds: 250_000_000 },
        xattrs: vec![(b"security.selinux".to_vec(), b"system_u:object_r:bin_t:s0\0".to_vec())],
    };
    fs.add_file_with("/usr/bin/tool", &attributes, "elf").unwrap();
    fs.add_file("/etc/hostname", "guest\n").unwrap();
    fs.add_file("/etc/größe", vec![0; 700_000]).unwrap();
    fs.add_file(&format!("/etc/{LONG}"), "long").unwrap();
    fs.add_link("/bin", "usr/bin").unwrap();
    fs.add_link("/etc/out", "../../../../../etc/passwd").unwrap();
    fs.add_dir("/empty").unwrap();
    fs.add_dir("/boot").unwrap();
    fs
}

fn tree(fs: MemoryFs) -> Tree {
    let boot = MemoryFs::default();
    boot.add_file("/vmlinuz", "kernel").unwrap();
    let mut tree = Tree::new(Arc::new(fs));
    tree.mount("/boot", Arc::new(boot)).unwrap();
    tree
}

fn top(tree: &Tree) -> Found {
    tree.find("/").unwrap().unwrap()
}

fn paths(tree: &Tree, path: &str, step: impl Fn(&Found) -> Step) -> Vec<String> {
    let top = tree.find(path).unwrap().unwrap();
    let mut paths = Vec::new();
    walk(tree, &top, &Session::with_defaults(), &mut |found, depth| {
        let found = found?;
        assert_eq!(depth, names(&found.path) - names(&top.path));
        paths.push(String::from_utf8(found.path.clone()).unwrap());
        Ok(step(found))
    })
    .unwrap();
    paths
}

fn names(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

#[test]
fn a_walk_goes_depth_first_through_mounts_and_not_through_links() {
    let tree = tree(guest());
    let all = paths(&tree, "/", |_| Step::In);
    let expected = [
        "/",
        "/bin",
        "/boot",
        "/boot/vmlinuz",
        "/empty",
        "/etc",
        &format!("/etc/{LONG}"),
        "/etc/größe",
        "/etc/hostname",
        "/etc/out",
        "/usr",
        "/usr/bin",
        "/usr/bin/tool",
    ];
    assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), expected.len());
    let mut sorted = all.clone();
    sorted.sort();
    let mut want = expected.map(str::to_owned).to_vec();
    want.sort();
    assert_eq!(sorted, want);
    assert_eq!(all[..4], ["/", "/bin", "/boot", "/boot/vmlinuz"]);
    assert_eq!(paths(&tree, "/", |found| if found.path == b"/" { Step::In } else { Step::Over }).len(), 6);
    assert_eq!(paths(&tree, "/boot", |_| Step::In), ["/boot", "/boot/vmlinuz"]);
    assert_eq!(paths(&tree, "/etc/hostname", |_| Step::In), ["/etc/hostname"]);
}

#[test]
fn a_walk_ends_when_the_session_does() {
    let tree = tree(guest());
    let session = Session::with_defaults();
    let mut seen = 0;
    let walked = walk(&tree, &top(&tree), &session, &mut |_, _| {
        seen += 1;
        session.cancel();
        Ok(Step::In)
    });
    assert_eq!((walked.unwrap_err().kind().exit_code(), seen), (7, 1));
}

#[test]
fn an_archive_holds_everything() {
    let guest = tree(guest());
    let mut bytes = Vec::new();
    archive(&guest, &top(&guest), &Session::with_defaults(), true, &mut bytes, &mut Err).unwrap();
    let mut read = tar::Archive::new(Cursor::new(bytes));
    let mut seen = std::collections::BTreeMap::new();
    for member in read.entries().unwrap() {
        let mut member = member.unwrap();
        let path = String::from_utf8(member.path_bytes().into_owned()).unwrap();
        let records: Vec<(String, Vec<u8>)> = match member.pax_extensions().unwrap() {
            Some(records) => records
                .map(|it| it.unwrap())
                .map(|it| (it.key().unwrap().to_owned(), it.value_bytes().to_vec()))
                .collect(),
            None => Vec::new(),
        };
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        seen.insert(path, (member.header().clone(), records, content));
    }
    assert_eq!(seen.len(), 13);
    let (header, records, content) = &seen["./usr/bin/tool"];
    assert_eq!((header.mode().unwrap(), header.gid().unwrap(), content.as_slice()), (0o4750, 42, &b"elf"[..]));
    let record = |key: &str| records.iter().find(|(it, _)| it == key).map(|(_, value)| value.clone()).unwrap();
    assert_eq!(record("uid"), b"3000000");
    assert_eq!(record("mtime"), b"-4.750000000");
    assert_eq!(record("SCHILY.xattr.security.selinux"), b"system_u:object_r:bin_t:s0\0");
    assert_eq!(seen["./etc/größe"].2.len(), 700_000);
    assert_eq!(seen[&format!("./etc/{LONG}")].2, b"long");
    assert_eq!(seen["./bin"].0.link_name_bytes().unwrap().as_ref(), b"usr/bin");
    assert!(seen.contains_key("./empty/") && seen.contains_key("./boot/vmlinuz"));
}

#[test]
fn the_length_of_a_record_counts_itself() {
    for len in [1, 80, 90, 91, 92, 93, 94, 95, 990, 991, 992, 993] {
        let mut bytes = Vec::new();
        let fs = MemoryFs::default();
        let attributes = Attributes { xattrs: vec![(b"user.x".to_vec(), vec![b'v'; len])], ..Attributes::default() };
        fs.add_file_with("/f", &attributes, "").unwrap();
        let tree = Tree::new(Arc::new(fs));
        archive(&tree, &top(&tree), &Session::with_defaults(), true, &mut bytes, &mut Err).unwrap();
        let mut read = tar::Archive::new(Cursor::new(bytes));
        let mut member = read.entries().unwrap().nth(1).unwrap().unwrap();
        let value = member.pax_extensions().unwrap().unwrap().map(|it| it.unwrap().value_bytes().to_vec()).next();
        assert_eq!(value.unwrap().len(), len);
    }
}

#[test]
fn a_copy_has_content_modes_times_and_links_as_they_are() {
    let guest = tree(guest());
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("copy");
    let session = Session::with_defaults();
    let copied = copy_out(&guest, &top(&guest), &to, &session, &mut Err).unwrap();
    assert_eq!((copied.files, copied.directories, copied.links, copied.skipped), (5, 6, 2, 0));
    let tool = to.join("usr/bin/tool").metadata().unwrap();
    assert_eq!((tool.permissions().mode() & 0o7777, tool.mtime(), tool.mtime_nsec()), (0o750, -5, 250_000_000));
    assert_eq!(std::fs::read(to.join("etc/größe")).unwrap(), vec![0; 700_000]);
    assert_eq!(to.join("etc/größe").metadata().unwrap().blocks(), 0, "zeros take no room");
    assert_eq!(std::fs::read_link(to.join("etc/out")).unwrap().to_str(), Some("../../../../../etc/passwd"));
    assert_eq!(to.join("empty").metadata().unwrap().mtime(), 0);
    let again = copy_out(&guest, &top(&guest), &to, &session, &mut Err).unwrap_err();
    assert_eq!(again.code(), "output.exists");
    let one = guest.find("/etc/hostname").unwrap().unwrap();
    copy_out(&guest, &one, &dir.path().join("name"), &session, &mut Err).unwrap();
    assert_eq!(std::fs::read(dir.path().join("name")).unwrap(), b"guest\n");
}

#[test]
fn differences_are_told_by_name_and_kind() {
    let (was, changed) = (guest(), guest());
    changed.add_file("/etc/hostname", "other\n").unwrap();
    changed.add_file("/etc/new/deep", "x").unwrap();
    let etc = changed.add_dir("/etc").unwrap();
    changed.remove(etc, b"out").unwrap();
    changed.symlink(etc, b"out", b"elsewhere", &Attributes::default()).unwrap();
    let empty = changed.add_file("/empty/file", "").unwrap();
    changed.set_xattr(empty, b"user.x", b"y").unwrap();
    let (was, is) = (tree(was), tree(changed));
    let found = |a: &Tree, b: &Tree, options: Options| {
        let mut found = Vec::new();
        let (one, other) = (top(a), top(b));
        let sides = (Side { tree: a, top: &one }, Side { tree: b, top: &other });
        compare(sides.0, sides.1, options, &Session::with_defaults(), &mut |difference| {
            found.push((String::from_utf8(difference.path).unwrap(), difference.change));
            Ok(())
        })
        .unwrap();
        found
    };
    let options = Options { content: true, times: false };
    let path = |path: &str, change| (path.to_owned(), change);
    assert_eq!(found(&was, &was, options), []);
    assert_eq!(
        found(&was, &is, options),
        [
            path("/empty/file", Change::Added),
            path("/etc/hostname", Change::Changed(vec!["content"])),
            path("/etc/new", Change::Added),
            path("/etc/out", Change::Changed(vec!["target"])),
        ]
    );
    let back: Vec<_> = found(&is, &was, options).into_iter().map(|(_, change)| change).collect();
    assert_eq!(back.iter().filter(|change| **change == Change::Removed).count(), 2);
    // Without content, equal lengths and times are taken for equal.
    assert_eq!(found(&was, &is, Options { content: false, times: false }).len(), 3);
}

#[test]
fn as_many_directories_are_entered_as_the_limit() {
    let fs = MemoryFs::default();
    fs.add_file("/a/b/file", "x").unwrap();
    let tree = Tree::new(Arc::new(fs));
    let (top, session) = (tree.find("/").unwrap().unwrap(), Session::with_defaults());
    let side = Side { tree: &tree, top: &top };
    let options = Options { content: true, times: true };
    for (most, fits) in [(4, true), (3, true), (2, false), (crate::limits::MAX_GUEST_DIRS, true)] {
        let expected = if fits { Ok(()) } else { Err("guest.walk-size") };
        let walked = walk::walk_within(&tree, &top, &session, most, &mut |_, _| Ok(Step::In));
        assert_eq!(walked.map_err(|error| error.code()), expected, "{most}");
        let compared = compare::compare_within(side, side, options, &session, most, &mut |_| Ok(()));
        assert_eq!(compared.map_err(|error| error.code()), expected, "{most}");
    }
}
