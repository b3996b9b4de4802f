//! A small image of genisoimage with any bytes of its descriptors patched, and sealed again: opening and walking it ends.
#![no_main]

use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::udf::Udf;
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<(Vec<u8>, Vec<usize>)> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; mkdir -p $d/r/1/2; head -c 30000 /dev/zero >$d/r/file; seq -f $d/r/1/a-longer-name-%g 50 | xargs touch
        genisoimage -quiet -udf -no-pad $d/r 2>/dev/null";
    let image = Command::new("bash").args(["-c", script]).output().unwrap().stdout;
    // Blocks that begin with a tag whose checksum is right.
    let is_tag = |at: &usize| image[*at] != 0 && sum(&image[*at..]) == image[*at + 4];
    let places: Vec<usize> = (0..image.len() / 2048).map(|block| block * 2048).filter(is_tag).collect();
    assert!(places.len() > 50, "genisoimage is needed");
    (image, places)
});

fn sum(tag: &[u8]) -> u8 {
    (0..16).filter(|at| *at != 4).fold(0, |sum, at| sum.wrapping_add(tag[at]))
}

fuzz_target!(|data: &[u8]| {
    let (mut image, places) = IMAGE.clone();
    for patch in data.chunks(8) {
        let [place, a, b, bytes @ ..] = patch else { break };
        let place = places[usize::from(*place) % places.len()];
        let at = place + usize::from(u16::from_le_bytes([*a, *b])) % 500;
        image[at..at + bytes.len()].copy_from_slice(bytes);
        // A CRC over nothing is zero.
        image[place + 8..place + 12].fill(0);
        image[place + 4] = sum(&image[place..]);
    }
    let _ = Udf::open(Checked::wrap(Memory::new(image))).map(|fs| hyper2kvm_fuzz::walk_files(&fs));
});
