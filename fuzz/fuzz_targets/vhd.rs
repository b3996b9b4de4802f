//! Any bytes as a VHD: as they are, and with the checksums put right.
#![no_main]

use hyper2kvm::format::vhd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hyper2kvm_fuzz::walk(vhd::open, data.to_vec());
    let mut data = data.to_vec();
    if let Some(end) = data.len().checked_sub(512).filter(|end| *end >= 1536) {
        for (start, len, at) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
            let part = &mut data[start..start + len];
            part[at..at + 4].fill(0);
            let sum = part.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
            part[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
        }
        hyper2kvm_fuzz::walk(vhd::open, data);
    }
});
