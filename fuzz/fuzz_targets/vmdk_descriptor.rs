//! Any text as a VMDK descriptor: extents cover the disk exactly, and every name goes through a reference.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::{Checked, Disk, Zero};
use hyper2kvm::format::{Ask, vmdk};
use hyper2kvm::limits;
use hyper2kvm::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = [b"# Disk DescriptorFile\n", data].concat();
    let file = Checked::wrap(hyper2kvm::disk::Memory::new(text));
    let Ok(head) = vmdk::open(file, &Ask::current(&Session::with_defaults())) else { return };
    assert!(head.extents.len() <= limits::MAX_VMDK_EXTENTS);
    let extents: Vec<Arc<dyn Disk>> = head.extents.iter().map(|_| big()).collect();
    let Ok(layer) = (head.build)(extents) else { return };
    let mut at = 0;
    while at < layer.len() {
        let run = layer.map(at, layer.len() - at).expect("flat extents and zeros can be mapped");
        assert!(run.len > 0 && run.len <= layer.len() - at);
        at += run.len;
    }
});

fn big() -> Arc<dyn Disk> {
    Checked::wrap(Zero { len: limits::MAX_DISK_LEN })
}
