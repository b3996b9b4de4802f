//! Any bytes as an initramfs: either it is left with a reason, or what is appended makes it complete.
#![no_main]

use std::sync::Arc;

use hyper2kvm::fix;
use hyper2kvm::fs::{Filesystem, MemoryFs, Timestamp};
use hyper2kvm::inspect::{Machine, Volume, find_roots, linux};
use libfuzzer_sys::fuzz_target;

const MODULES: &str = "v.ko:\nvirtio_pci.ko: v.ko\nvirtio_blk.ko: v.ko\nvirtio_scsi.ko: v.ko sd_mod.ko\nsd_mod.ko:\n";

fuzz_target!(|data: &[u8]| {
    let fs = MemoryFs::new("ext4", Some("U"), None);
    for path in ["/etc/hosts", "/bin/sh", "/boot/vmlinuz-6"] {
        fs.add_file(path, "x").expect("room");
    }
    fs.add_file("/boot/initrd.img-6", data).expect("room");
    fs.add_file("/lib/modules/6/modules.dep", MODULES).expect("room");
    for line in MODULES.lines() {
        let name = line.split(':').next().expect("a name");
        fs.add_file(&format!("/lib/modules/6/{name}"), "\u{7f}ELF").expect("room");
    }
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    let volume = Volume { fs_kind: Some("ext4".into()), fs_uuid: Some("U".into()), fs: Some(fs), ..Volume::default() };
    let machine = Machine { volumes: vec![volume], ..Machine::default() };
    let root = &find_roots(&machine).expect("memory can be read")[0];
    for is_first in [true, false] {
        let facts = linux(&root.tree).expect("memory can be read");
        let plan = fix::plan(&facts, &machine, root).expect("a plan");
        assert!(is_first || plan.is_empty(), "{:#?}", plan.actions);
        fix::apply(&plan, &root.tree, Timestamp::default()).expect("room");
    }
});
