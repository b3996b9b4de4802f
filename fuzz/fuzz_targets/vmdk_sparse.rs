//! Any bytes as a sparse VMDK: opening, mapping and decoding end, and nothing outside of the file is named.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::{Checked, Disk, Memory};
use hyper2kvm::format::{Ask, Place, vmdk};
use hyper2kvm::limits::MAX_UNIT;
use hyper2kvm::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file: Arc<dyn Disk> = Checked::wrap(Memory::new(data.to_vec()));
    let Ok(head) = vmdk::open(Arc::clone(&file), &Ask::current(&Session::with_defaults())) else { return };
    let extents = head.extents.iter().map(|_| Arc::clone(&file)).collect();
    let Ok(layer) = (head.build)(extents) else { return };
    let mut at = 0;
    for _ in 0..256 {
        let left = layer.len() - at;
        if left == 0 {
            break;
        }
        // A bad entry hides one grain.
        let Ok(run) = layer.map(at, left) else {
            at += left.min(layer.unit_size() - at % layer.unit_size());
            continue;
        };
        assert!(run.len > 0 && run.len <= left);
        match run.place {
            Place::Data { offset, .. } => assert!(offset + run.len <= file.len()),
            Place::Encoded(unit) => {
                assert!(unit.len as usize <= MAX_UNIT && unit.offset + u64::from(unit.stored) <= file.len());
                let _ = layer.decode(&unit, &mut vec![0; unit.len as usize]);
            }
            Place::Parent | Place::Zero => {}
        }
        at += run.len;
    }
    assert!(!layer.facts().is_empty());
});
