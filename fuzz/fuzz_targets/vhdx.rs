//! Any bytes in the places of a VHDX's structures, which are mebibytes apart: headers, region table, log, metadata, table.
#![no_main]

use hyper2kvm::format::vhdx;
use libfuzzer_sys::fuzz_target;

/// Where the parts go and how long each is.
const PARTS: [(usize, usize); 6] =
    [(64 << 10, 96), (192 << 10, 96), (1 << 20, 12 << 10), (2 << 20, 224), (2176 << 10, 512), (3 << 20, 256)];

fuzz_target!(|data: &[u8]| {
    let mut file = vec![0; 5 << 20];
    file[..8].copy_from_slice(b"vhdxfile");
    let mut rest = data;
    for (at, len) in PARTS {
        let (part, after) = rest.split_at(len.min(rest.len()));
        file[at..at + part.len()].copy_from_slice(part);
        rest = after;
    }
    for (at, len, signature) in
        [(64 << 10, 4 << 10, b"head"), (192 << 10, 64 << 10, b"regi"), (1 << 20, 8 << 10, b"loge")]
    {
        file[at..at + 4].copy_from_slice(signature);
        file[at + 4..at + 8].fill(0);
        let sum = crc32c::crc32c(&file[at..at + len]);
        file[at + 4..at + 8].copy_from_slice(&sum.to_le_bytes());
    }
    hyper2kvm_fuzz::walk(vhdx::open, file);
});
