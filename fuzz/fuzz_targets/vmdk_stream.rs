//! Any bytes as a VMDK that comes through a pipe: pieces are not empty and stay within the disk.
#![no_main]

use std::sync::Arc;

use hyper2kvm::disk::feed::{Content, DiskStream};
use hyper2kvm::disk::{Checked, Disk, Memory};
use hyper2kvm::format::vmdk;
use hyper2kvm::session::Session;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file: Arc<dyn Disk> = Checked::wrap(Memory::new(data.to_vec()));
    let Ok(mut feed) = vmdk::feed(Box::new(DiskStream::new(file, 0)), &Session::with_defaults()) else { return };
    let len = feed.disk_len().expect("the header says it");
    while let Ok(Some(piece)) = feed.next_piece() {
        let Content::Data(bytes) = &piece.content else { panic!("grains have data") };
        assert!(!bytes.is_empty() && piece.end() <= len);
    }
});
