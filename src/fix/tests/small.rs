//! Guests of a few files.

use std::sync::Arc;

use super::super::{Plan, plan};
use crate::fs::{Filesystem, MemoryFs};
use crate::inspect::{Machine, Root, Volume, find_roots, linux};

/// A root file system.
pub(in crate::fix) fn volume(fs: MemoryFs) -> Volume {
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    Volume {
        partition: Some(1),
        fs_kind: Some("ext4".into()),
        fs_uuid: Some("R".into()),
        fs: Some(fs),
        ..Volume::default()
    }
}

/// A guest with these files; a path with `->` is a symbolic link.
pub(in crate::fix) fn machine(files: &[(&str, &str)]) -> Machine {
    let fs = MemoryFs::new("ext4", Some("R"), None);
    for (path, text) in [("/etc/fstab", ""), ("/bin/sh", "")].iter().chain(files) {
        match path.split_once("->") {
            Some((link, target)) => fs.add_link(link, target).map(drop).unwrap(),
            None => fs.add_file(path, text).map(drop).unwrap(),
        }
    }
    Machine { volumes: vec![volume(fs)], ..Machine::default() }
}

/// What is planned for its only guest.
pub(in crate::fix) fn planned(machine: &Machine) -> (Plan, Root) {
    let root = find_roots(machine).unwrap().remove(0);
    let facts = linux(&root.tree).unwrap();
    (plan(&facts, machine, &root).unwrap(), root)
}
