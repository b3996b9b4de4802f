//! The bounds of what inspection considers: at, below and above.

mod guests;

use std::sync::Arc;

use super::*;
use crate::fs::MemoryFs;

fn facts(fs: MemoryFs) -> Linux {
    linux(&Tree::new(Arc::new(fs))).unwrap()
}

fn around(limit: usize) -> [(usize, usize, bool); 3] {
    [(limit - 1, limit - 1, false), (limit, limit, false), (limit + 1, limit, true)]
}

#[test]
fn as_many_boot_entries_as_the_limit() {
    for (count, kept, noted) in around(limits::MAX_BOOT_ENTRIES) {
        let fs = MemoryFs::default();
        fs.add_file("/boot/grub/grub.cfg", "linux /v root=/dev/sda1\n".repeat(count)).unwrap();
        let facts = facts(fs);
        assert_eq!((facts.boot_entries.len(), facts.notes.len()), (kept, usize::from(noted)));
    }
}

#[test]
fn as_many_kernels_as_the_limit() {
    for (count, kept, noted) in around(limits::MAX_KERNELS) {
        let fs = MemoryFs::default();
        for index in 0..count {
            fs.add_file(&format!("/boot/vmlinuz-{index}"), "").unwrap();
        }
        let facts = facts(fs);
        assert_eq!((facts.kernels.len(), facts.notes.len()), (kept, usize::from(noted)));
    }
}

#[test]
fn as_many_interfaces_as_the_limit() {
    for (count, kept, noted) in around(limits::MAX_NICS) {
        let fs = MemoryFs::default();
        let text: String = (0..count).map(|index| format!("iface eth{index} inet dhcp\n")).collect();
        fs.add_file("/etc/network/interfaces", text).unwrap();
        let facts = facts(fs);
        assert_eq!((facts.nics.len(), facts.notes.len()), (kept, usize::from(noted)));
    }
}

#[test]
fn as_many_sourced_files_as_the_limit() {
    // The first file counts as well.
    for (count, reached, _) in around(limits::MAX_SOURCED_FILES) {
        let fs = MemoryFs::default();
        for index in 1..=count {
            let path = if index == 1 { "/etc/network/interfaces".to_owned() } else { format!("/etc/network/{index}") };
            let last = if index >= limits::MAX_SOURCED_FILES {
                format!("iface eth{index} inet dhcp\n")
            } else {
                String::new()
            };
            fs.add_file(&path, format!("{last}source {}\n", index + 1)).unwrap();
        }
        let names: Vec<String> = facts(fs).nics.into_iter().map(|nic| nic.name).collect();
        let wanted = if reached == limits::MAX_SOURCED_FILES { vec![format!("eth{reached}")] } else { Vec::new() };
        assert_eq!(names, wanted, "{count}");
    }
}

#[test]
fn a_configuration_file_as_long_as_the_limit_is_read() {
    let limit = usize::try_from(limits::MAX_GUEST_CONFIG).unwrap();
    for (size, _, noted) in around(limit) {
        let fs = MemoryFs::default();
        let mut text = b"name\n".to_vec();
        text.resize(size, b'#');
        fs.add_file("/etc/hostname", text).unwrap();
        let facts = facts(fs);
        assert_eq!((facts.hostname.is_none(), facts.notes.len()), (noted, usize::from(noted)));
    }
}
