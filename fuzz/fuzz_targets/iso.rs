//! Small images of genisoimage with any bytes patched in: opening and walking them ends.
#![no_main]

use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::iso::Iso;
use libfuzzer_sys::fuzz_target;

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; mkdir -p $d/r/1/2/3/4/5/6/7/8/9; head -c 30000 /dev/zero >$d/r/file
        seq -f $d/r/1/a-longer-name-%g 50 | xargs touch; ln -s $(printf %300s | tr ' ' x) $d/r/link; mkfifo $d/r/fifo; genisoimage -quiet $1 $d/r 2>/dev/null";
    let make =
        |options: &str| Command::new("bash").args(["-c", &script.replace("$1", options)]).output().unwrap().stdout;
    let images = ["-R", "-J -D", "-D -iso-level 3"].map(make).to_vec();
    assert!(images.iter().all(|image| image.len() > 100_000), "genisoimage is needed");
    images
});

fuzz_target!(|data: &[u8]| {
    let Some((first, patches)) = data.split_first() else { return };
    let mut image = IMAGES[usize::from(*first) % IMAGES.len()].clone();
    for patch in patches.chunks(8) {
        let [a, b, c, bytes @ ..] = patch else { break };
        let at = 0x8000 + u32::from_le_bytes([*a, *b, *c, 0]) as usize % (image.len() - 0x8000 - 5);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let _ = Iso::open(Checked::wrap(Memory::new(image))).map(|fs| hyper2kvm_fuzz::walk_files(&fs));
});
