//! Any bytes as a disk: the table is bounded, in order, and its partitions are not empty.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::{Checked, Disk, Memory};
use hyper2kvm::limits;
use hyper2kvm::volume::{scan, signature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let disk: Arc<dyn Disk> = Checked::wrap(Memory::new(data.to_vec()));
    if let Some(table) = scan(&disk).expect("memory can be read") {
        assert!(table.partitions.len() <= limits::MAX_PARTITIONS);
        assert!(table.partitions.windows(2).all(|pair| pair[0].number < pair[1].number));
        assert!(table.partitions.iter().all(|partition| partition.range.start < partition.range.end));
        for problem in &table.problems {
            assert!(!problem.to_string().is_empty());
        }
    }
    let found = signature::probe(&*disk).expect("memory can be read");
    assert!(found.windows(2).all(|pair| pair[0].offset <= pair[1].offset));
});
