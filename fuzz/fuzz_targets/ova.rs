//! Any bytes as an OVA: nothing but its own members is read, and digests end.
#![no_main]

use hyper2kvm::cache::BlockCache;
use hyper2kvm::container::Ova;
use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let session = Session::with_defaults();
    let cache = BlockCache::wrap(Checked::wrap(Memory::new(data.to_vec())), &session);
    let Ok(ova) = Ova::open(&cache) else { return };
    for disk in &ova.ovf.disks {
        if let Some(Ok(file)) = disk.href.as_deref().map(|href| ova.file(href)) {
            assert!(file.len() <= data.len() as u64);
        }
    }
    if let Ok(Some(digests)) = ova.digests(&|_| true, &session) {
        let _ = digests.finish();
    }
});
