//! Small images of mkfs.xfs, with any bytes patched in: opening, walking and replaying them ends.
#![no_main]

use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::xfs::Xfs;
use hyper2kvm_fuzz::{images, walk_files};
use libfuzzer_sys::fuzz_target;

static IMAGES: LazyLock<[Vec<u8>; 2]> =
    LazyLock::new(|| ["-mcrc=0", "-mcrc=1"].map(|option| images::xfs(option).bytes));

fuzz_target!(|data: &[u8]| {
    let Some((first, patches)) = data.split_first() else { return };
    let mut image = IMAGES[usize::from(*first) % IMAGES.len()].clone();
    for patch in patches.chunks(8) {
        let [a, b, c, bytes @ ..] = patch else { break };
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % (image.len() - 5);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let _ = Xfs::open(Checked::wrap(Memory::new(image.clone()))).map(|fs| walk_files(&fs));
    let _ = Xfs::open_mut(Checked::wrap(Memory::new(image))).map(|fs| walk_files(&fs));
});
