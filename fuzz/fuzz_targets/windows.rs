//! Any bytes as a Windows' users, groups and tasks, in sound hives: reading ends, and what is told is bounded.
#![no_main]

use hyper2kvm::inspect::find_windows;
use hyper2kvm::inspect::windows::{deep, windows};
use hyper2kvm_fuzz::windows::{hive, machine};
use libfuzzer_sys::fuzz_target;

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
    let hives = [("config/SAM", &sam[..]), ("config/SYSTEM", &hive(&[])), ("config/SOFTWARE", &software)];
    let machine = machine(&[&hives[..], &[("Tasks/t", task)]].concat());
    let found = find_windows(&machine).expect("memory can be read");
    let facts = windows(&machine, &found[0]).expect("memory can be read");
    let deep = deep(&found[0].root, &facts).expect("memory can be read");
    assert!(deep.users.len() <= 1 && deep.tasks.iter().all(|task| task.actions.len() <= 64));
});
