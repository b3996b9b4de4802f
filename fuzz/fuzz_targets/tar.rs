//! Any bytes as a tar archive: members lie inside it, in order, without overlapping.
#![no_main]

use hyper2kvm::container::tar::{self, Archive};
use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = tar::probe(data);
    let Ok(archive) = Archive::read(&*Checked::wrap(Memory::new(data.to_vec()))) else { return };
    assert!(archive.members.len() <= limits::MAX_TAR_HEADERS);
    let mut end = 0;
    for member in &archive.members {
        assert!(member.range.start >= end + 512 && member.range.start <= member.range.end);
        assert!(member.range.start % 512 == 0 && member.range.end <= data.len() as u64);
        assert!(!member.name.is_empty());
        end = member.range.end;
    }
});
