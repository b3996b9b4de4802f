//! A physical volume whose metadata text is the input, checksums made right, with a thin pool's metadata that is input too: opening,
//! reading and mapping back end, and no two volumes share bytes.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::{Checked, DiskMut, Memory};
use hyper2kvm::volume::lvm;
use libfuzzer_sys::fuzz_target;

/// LVM's checksum, as label, header and text have it.
fn sum(bytes: &[u8]) -> [u8; 4] {
    bytes
        .iter()
        .fold(0xf597_a6cf_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| c >> 1 ^ (c & 1) * 0xedb8_8320))
        .to_le_bytes()
}

fuzz_target!(|data: &[u8]| {
    let text = &data[..data.len().min(60_000)];
    let mut bytes = vec![0; 1 << 20];
    bytes[1 << 17..][..text.len()].copy_from_slice(text);
    let mut put = |at: usize, what: &[u8]| bytes[at..at + what.len()].copy_from_slice(what);
    put(512, b"LABELONE\x01");
    put(532, b"\x20\0\0\0LVM2 001");
    put(544, &[b'a'; 32]);
    put(584, &(1_u64 << 17).to_le_bytes());
    put(616, &[4096_u64.to_le_bytes(), (1_u64 << 16).to_le_bytes()].concat());
    put(4100, b" LVM2 x[5A%r0N*>\x01\0\0\0");
    put(4120, &[4096, 1_u64 << 16, 512, text.len() as u64].map(u64::to_le_bytes).concat());
    put(4096 + 56, &sum(text));
    put(4096 + 512, text);
    let (label, header) = (sum(&bytes[532..1024]), sum(&bytes[4100..4608]));
    bytes[528..532].copy_from_slice(&label);
    bytes[4096..4100].copy_from_slice(&header);
    let disk: Arc<dyn DiskMut> = Checked::wrap(Memory::new(bytes));
    for volume in lvm::groups(&[disk]).groups.iter().flat_map(|group| &group.volumes) {
        let Ok(volume) = &volume.disk else { continue };
        let len = volume.len().min(1 << 20);
        let _ = (volume.read_at(&mut vec![0; len as usize], volume.len() - len), volume.write_at(b"x", len / 2));
        let _ = volume.extents(0..len, &mut |_| std::ops::ControlFlow::Continue(()));
        volume.homes(0..len, &mut |_, range| assert!(range.start < range.end));
    }
});
