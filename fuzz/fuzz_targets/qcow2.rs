//! Any bytes as a qcow2 image.
#![no_main]

use hyper2kvm::format::qcow2;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| hyper2kvm_fuzz::walk(qcow2::open, data.to_vec()));
