//! Any bytes as a sparse VMDK.
#![no_main]

use hyper2kvm::format::vmdk;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| hyper2kvm_fuzz::walk(vmdk::open, data.to_vec()));
