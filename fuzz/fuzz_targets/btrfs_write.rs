//! A small image of mkfs.btrfs, with any fields of its metadata patched and checksums made right: any changes to it end. What was
//! changed in a sound one is read the same by who opens it next, and can go on being changed.
#![no_main]

use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::{Filesystem, btrfs::Btrfs};
use hyper2kvm_fuzz::changes;
use hyper2kvm_fuzz::images::{self, Image};
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Image> = LazyLock::new(|| images::btrfs(""));

fuzz_target!(|data: &[u8]| {
    let Some((patches, choices)) = data.split_first() else { return };
    let (patches, choices) = choices.split_at(choices.len().min(usize::from(*patches) * 8));
    let mut image = IMAGE.clone();
    image.patch(patches);
    let disk = Checked::wrap(Memory::new(image.bytes));
    let Ok(fs) = Btrfs::open_mut(disk.clone()) else { return };
    changes::make(&fs, choices);
    if patches.is_empty() {
        let next = Btrfs::open_mut(disk.clone()).unwrap();
        next.writer().unwrap();
        assert_eq!(changes::told(&fs), changes::told(&next));
    }
});
