//! Any bytes as a qcow2 image, and as its snapshot 1; the ranges of its bitmaps follow each other.
#![no_main]

use std::ops::ControlFlow;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::format::{Ask, Layer, qcow2};
use hyper2kvm::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hyper2kvm_fuzz::walk(qcow2::open, data.to_vec());
    hyper2kvm_fuzz::walk(|file, ask| qcow2::open(file, &Ask { snapshot: Some("1"), ..*ask }), data.to_vec());
    let file = Checked::wrap(Memory::new(data.to_vec()));
    let Ok(layer) = qcow2::Qcow2::open(file, &Session::with_defaults()) else { return };
    for index in 0..layer.bitmaps().len().min(4) {
        let (mut end, mut left) = (0, 64);
        let _ = layer.dirty(index, 0, &mut |range| {
            assert!(range.start < range.end && (end == 0 || end < range.start));
            end = range.end;
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
});
