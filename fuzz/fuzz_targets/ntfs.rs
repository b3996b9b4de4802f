//! A small image of mkntfs with any bytes of its metadata patched: opening and walking it ends.
#![no_main]

use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::ntfs::Ntfs;
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; truncate -s 2M $d/i; mkntfs -q -F -f $d/i 2>/dev/null
        head -c 30000 /dev/zero >$d/f; ntfscp -q -f $d/i $d/f file 2>/dev/null; echo small >$d/f; ntfscp -q -f $d/i $d/f small 2>/dev/null; cat $d/i";
    let image = Command::new("bash").args(["-c", script]).output().unwrap().stdout;
    assert!(image.len() == 2 << 20, "ntfs-3g is needed");
    image
});

fuzz_target!(|data: &[u8]| {
    let mut image = IMAGE.clone();
    for patch in data.chunks(8) {
        let [a, b, c, bytes @ ..] = patch else { break };
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % (image.len() - 5);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let _ = Ntfs::open(Checked::wrap(Memory::new(image))).map(|fs| hyper2kvm_fuzz::walk_files(&fs));
});
