//! Small images of mksquashfs, plain and compressed, with any bytes patched in: opening and walking them ends.
#![no_main]

use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::squashfs::Squashfs;
use libfuzzer_sys::fuzz_target;

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; mkdir -p $d/r/1/2; head -c 30000 /dev/zero >$d/r/zero; seq 9000 >$d/r/file
        seq -f $d/r/1/a-longer-name-%g 500 | xargs touch; ln -s x $d/r/link; mkfifo $d/r/fifo; setfattr -n user.a -v b $d/r/file
        mksquashfs $d/r $d/i -quiet -no-progress -processors 1 -b 4096 $1 >/dev/null; cat $d/i";
    let make =
        |options: &str| Command::new("bash").args(["-c", &script.replace("$1", options)]).output().unwrap().stdout;
    let images = ["-noI -noId -noD -noF -noX", "-comp gzip", "-comp xz", "-comp zstd", "-comp lzo", "-comp lz4"];
    let images = images.map(make).to_vec();
    assert!(images.iter().all(|image| image.len() > 10_000), "squashfs-tools and attr are needed");
    images
});

fuzz_target!(|data: &[u8]| {
    let Some((first, patches)) = data.split_first() else { return };
    let mut image = IMAGES[usize::from(*first) % IMAGES.len()].clone();
    for patch in patches.chunks(8) {
        let [a, b, c, bytes @ ..] = patch else { break };
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % (image.len() - 5);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let _ = Squashfs::open(Checked::wrap(Memory::new(image))).map(|fs| hyper2kvm_fuzz::walk_files(&fs));
});
