//! Any bytes as a source: probing ends, and raw needs a partition table or the mark of a file system.
#![no_main]

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::format::{Sample, probe};
use libfuzzer_sys::fuzz_target;

/// What a raw disk has somewhere.
const MARKS: &[&[u8]] = &[
    b"\x55\xaa",
    b"\x53\xef",
    b"EFI PART",
    b"XFSB",
    b"LUKS\xba\xbe",
    b"NTFS    ",
    b"FAT32   ",
    b"LABELONE",
    b"CD001",
    b"_BHRfS_M",
];

fuzz_target!(|data: &[u8]| {
    if data.is_empty() {
        return;
    }
    let sample = Sample::take(&*Checked::wrap(Memory::new(data.to_vec()))).expect("memory can be read");
    let marks = probe::marks(&sample);
    match probe::detect(&sample) {
        Ok(driver) => {
            assert_eq!(marks, [driver.name]);
            let has = |mark: &&[u8]| sample.head.windows(mark.len()).any(|bytes| bytes == *mark);
            assert!(driver.name != "raw" || MARKS.iter().any(has));
        }
        Err(error) => assert_eq!(error.kind().exit_code(), 4),
    }
});
