//! A small image of mkfs.exfat with any bytes of its first clusters patched, and sealed again: opening and walking it ends.
#![no_main]

use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::exfat::Exfat;
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; truncate -s 1M $d/i; mkfs.exfat -c 512 -b 4096 -L LABEL $d/i >/dev/null; cat $d/i";
    let image = Command::new("bash").args(["-c", script]).output().unwrap().stdout;
    assert!(image.len() == 1 << 20, "exfatprogs is needed");
    image
});

/// The sum over a set of entries but for its own two bytes.
fn sum(set: &[u8]) -> u16 {
    let counted = set.iter().enumerate().filter(|(at, _)| !matches!(at, 2 | 3));
    counted.fold(0_u16, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u16::from(*byte)))
}

fuzz_target!(|data: &[u8]| {
    let mut image = IMAGE.clone();
    let field = |at: usize| u32::from_le_bytes(IMAGE[at..at + 4].try_into().unwrap()) as usize;
    let (table, heap) = (field(80) * 512, field(88) * 512);
    let root = heap + (field(96) - 2) * 512;
    for patch in data.chunks(16) {
        let [place, at, bytes @ ..] = patch else { break };
        let base = [root + 96, root + 256, table, root, heap + 512 * 40][usize::from(*place) % 5];
        let at = base + usize::from(*at);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    // Entries that could be files get their checksums.
    for at in (root..root + 2048).step_by(32).filter(|at| image[*at] == 0x85).collect::<Vec<_>>() {
        let end = at + (usize::from(image[at + 1]) + 1) * 32;
        let sealed = sum(&image[at..end]).to_le_bytes();
        image[at + 2..at + 4].copy_from_slice(&sealed);
    }
    let _ = Exfat::open(Checked::wrap(Memory::new(image))).map(|fs| hyper2kvm_fuzz::walk_files(&fs));
});
