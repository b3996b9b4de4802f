//! Any bytes as a source: probing ends, and raw needs a partition table.
#![no_main]

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::format::{Sample, probe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if data.is_empty() {
        return;
    }
    let sample = Sample::take(&*Checked::wrap(Memory::new(data.to_vec()))).expect("memory can be read");
    let marks = probe::marks(&sample);
    match probe::detect(&sample) {
        Ok(driver) => {
            assert_eq!(marks, [driver.name]);
            let table = sample.has(510, &[0x55, 0xaa]) || sample.has(512, b"EFI PART") || sample.has(4096, b"EFI PART");
            assert!(driver.name != "raw" || table);
        }
        Err(error) => assert_eq!(error.kind().exit_code(), 4),
    }
});
