//! A Windows in memory, as far as reading its users, groups and tasks goes.

use std::sync::Arc;

use hyper2kvm::fs::MemoryFs;
use hyper2kvm::inspect::{Machine, Volume};
use regf::{DataType, HiveBuilder, KeyTreeNode, KeyTreeValue};

/// A value of a hive: path of the key, name, type, data.
pub type Value<'a> = (&'a str, &'a str, u32, &'a [u8]);

/// A hive with these values.
pub fn hive(values: &[Value<'_>]) -> Vec<u8> {
    let mut root = KeyTreeNode::new("ROOT");
    for (path, name, kind, data) in values {
        let value = KeyTreeValue { name: (*name).to_owned(), data_type: DataType::from(*kind), data: data.to_vec() };
        root.get_or_create_path(path).values.push(value);
    }
    HiveBuilder::from_tree(root).expect("a hive").to_bytes().expect("a hive")
}

/// A machine with one volume, which has these files in its folder `Windows/System32`.
pub fn machine(files: &[(&str, &[u8])]) -> Machine {
    let fs = MemoryFs::new("ntfs", None, None);
    for (name, bytes) in files {
        fs.add_file(&format!("/Windows/System32/{name}"), bytes).expect("room");
    }
    Machine { volumes: vec![Volume { fs: Some(Arc::new(fs)), ..Volume::default() }], ..Machine::default() }
}
