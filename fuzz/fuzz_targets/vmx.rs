//! Any bytes as a machine's configuration: disks are attached to controllers that there are, and cards are few.
#![no_main]

use hyper2kvm::container::vmx;
use hyper2kvm::limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = vmx::probe(data);
    let Ok(machine) = vmx::parse(data) else { return };
    assert!(machine.nics.len() <= limits::MAX_VMX_NICS);
    for disk in &machine.disks {
        let (bus, controller, _) = disk.attached.expect("a disk of a slot");
        assert_eq!(machine.controllers[controller].bus, bus);
        assert!(disk.href.as_ref().is_some_and(|href| !href.is_empty()));
    }
});
