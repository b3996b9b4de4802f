//! Any bytes as a VDI.
#![no_main]

use hyper2kvm::format::vdi;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| hyper2kvm_fuzz::walk(vdi::open, data.to_vec()));
