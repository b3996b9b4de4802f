//! Any bytes as a compressed file: what is read here and there is what comes forward, and everything ends.
#![no_main]

use hyper2kvm::container::{Compression, Packed};
use hyper2kvm::disk::feed::DiskStream;
use hyper2kvm::disk::{Checked, Disk, Memory, read_full, read_vec};
use hyper2kvm::session::Session;
use libfuzzer_sys::fuzz_target;

/// Bytes of the content that are compared.
const MOST: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some(compression) = Compression::detect(data) else { return };
    let source = Checked::wrap(Memory::new(data.to_vec()));
    let Ok(mut stream) = compression.decode(Box::new(DiskStream::new(source.clone(), 0))) else { return };
    let mut forward = vec![0; MOST];
    let forward = read_full(&mut *stream, &mut forward).map(|count| forward[..count].to_vec());
    let Ok(packed) = Packed::open(source, compression, &Session::with_defaults()) else { return };
    let len = packed.len().min(MOST as u64) as usize;
    let (Ok(random), Ok(forward)) = (read_vec(&*packed, 0, len), forward) else { return };
    assert!(random == forward, "{} bytes and {}", random.len(), forward.len());
    let middle = len / 2;
    assert!(read_vec(&*packed, middle as u64, len - middle).is_ok_and(|part| part == random[middle..]));
});
