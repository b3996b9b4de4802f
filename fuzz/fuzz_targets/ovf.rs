//! Any bytes as an OVF descriptor and as a manifest: parsing ends, and says the same twice.
#![no_main]

use hyper2kvm::container::{Manifest, Ovf, ovf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ovf::probe(data);
    if let Ok(machine) = Ovf::parse(data) {
        assert_eq!(Ovf::parse(data).expect("it parsed before"), machine);
        for disk in &machine.disks {
            assert!(disk.attached.is_none_or(|(_, controller, _)| controller < machine.controllers.len()));
        }
    }
    if let Ok(manifest) = Manifest::parse(data) {
        for expected in &manifest.digests {
            assert_eq!(expected.digest.len(), expected.algorithm.digest_len());
            assert_eq!(manifest.find(&expected.name), Some(expected));
        }
    }
});
