//! An encrypted volume whose header of version 2 has the input as JSON, checksum made right, or is all input: reading it ends, and
//! an attempt to open it costs no more than is allowed. Costs above a millisecond's are left out, since they only wait.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::{Checked, DiskMut, Memory};
use hyper2kvm::session::Secret;
use hyper2kvm::volume::luks::Header;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    let mut bytes = vec![0; 1 << 20];
    let data = &data[..data.len().min(12288)];
    if kind & 1 == 0 {
        bytes[4096..4096 + data.len()].copy_from_slice(data);
        bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
        bytes[14] = 0x40;
        bytes[72..78].copy_from_slice(b"sha256");
        bytes[168..172].copy_from_slice(b"uuid");
        let sum = Sha256::digest(&bytes[..16384]);
        bytes[448..480].copy_from_slice(&sum);
    } else {
        bytes[..data.len()].copy_from_slice(data);
        bytes[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
    }
    let disk: Arc<dyn DiskMut> = Checked::wrap(Memory::new(bytes));
    let Ok(header) = Header::read(&*disk) else { return };
    let _ = format!("{header:?}");
    if header.work() < 10_000 {
        let _ = header.unlock(disk, [&Secret::new(b"x".to_vec())]);
    }
});
