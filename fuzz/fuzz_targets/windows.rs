//! Any bytes as a Windows' users, groups and tasks, in sound hives: reading ends, and what is told is bounded.
#![no_main]

use std::sync::Arc;

use hyper2kvm::fs::MemoryFs;
use hyper2kvm::inspect::windows::{deep, windows};
use hyper2kvm::inspect::{Machine, Volume, find_windows};
use libfuzzer_sys::fuzz_target;
use regf::{DataType, HiveBuilder, KeyTreeNode, KeyTreeValue};

fn hive(values: &[(&str, &str, u32, &[u8])]) -> Vec<u8> {
    let mut root = KeyTreeNode::new("ROOT");
    for (path, name, kind, data) in values {
        let value = KeyTreeValue { name: (*name).to_owned(), data_type: DataType::from(*kind), data: data.to_vec() };
        root.get_or_create_path(path).values.push(value);
    }
    HiveBuilder::from_tree(root).expect("a hive").to_bytes().expect("a hive")
}

fuzz_target!(|data: &[u8]| {
    let [a, b, c, rest @ ..] = data else { return };
    let (fixed, rest) = rest.split_at(rest.len().min(usize::from(*a)));
    let (texts, rest) = rest.split_at(rest.len().min(usize::from(*b) * 2));
    let (group, task) = rest.split_at(rest.len().min(usize::from(*c)));
    let (domain, user) = ("SAM\\Domains\\Account", "SAM\\Domains\\Account\\Users\\000003E9");
    let alias = "SAM\\Domains\\Builtin\\Aliases\\00000220";
    let sam = hive(&[(user, "F", 3, fixed), (user, "V", 3, texts), (alias, "C", 3, group), (domain, "V", 3, group)]);
    let job = "Microsoft\\Windows NT\\CurrentVersion\\Schedule\\TaskCache\\Tree\\t";
    let software = hive(&[(job, "Id", 1, b"{\x000\x00}\x00\0\0")]);
    let fs = MemoryFs::new("ntfs", None, None);
    for (name, bytes) in [("config/SAM", &sam), ("config/SYSTEM", &hive(&[])), ("config/SOFTWARE", &software)] {
        fs.add_file(&format!("/Windows/System32/{name}"), bytes).expect("room");
    }
    fs.add_file("/Windows/System32/Tasks/t", task).expect("room");
    let volumes = vec![Volume { fs: Some(Arc::new(fs)), ..Volume::default() }];
    let machine = Machine { volumes, ..Machine::default() };
    let found = find_windows(&machine).expect("memory can be read");
    let facts = windows(&machine, &found[0]).expect("memory can be read");
    let deep = deep(&found[0].root, &facts).expect("memory can be read");
    assert!(deep.users.len() <= 1 && deep.tasks.iter().all(|task| task.actions.len() <= 64));
});
