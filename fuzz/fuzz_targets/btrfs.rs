//! Small images of mkfs.btrfs with any bytes of the superblock and the trees patched, checksums made right: opening and walking ends.
#![no_main]

use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::{Filesystem, btrfs::Btrfs};
use hyper2kvm_fuzz::images::{self, Image};
use hyper2kvm_fuzz::walk_files;
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Image> = LazyLock::new(|| images::btrfs("--shrink"));

fuzz_target!(|data: &[u8]| {
    let mut image = IMAGE.clone();
    image.patch(data);
    let Ok(fs) = Btrfs::open(Checked::wrap(Memory::new(image.bytes))) else { return };
    walk_files(&fs);
    let _ = (fs.subvolumes(), fs.usage());
});
