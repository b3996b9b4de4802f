//! Small images of mkfs.vfat with any bytes patched in: opening, walking and changing them ends.
#![no_main]

use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::fat::Fat;
use hyper2kvm::fs::{Attributes, Filesystem};
use libfuzzer_sys::fuzz_target;

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let script = "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; export MTOOLS_SKIP_CHECK=1; mkfs.vfat -C -i 12345678 $1 $d/i 1000 >/dev/null
        head -c 30000 /dev/zero >$d/f; mmd -i $d/i ::dir; mcopy -i $d/i $d/f ::; mcopy -i $d/i $d/f '::dir/a longer name'; cat $d/i";
    let make =
        |options: &str| Command::new("bash").args(["-c", &script.replace("$1", options)]).output().unwrap().stdout;
    let images = ["-F12", "-F32 -s1", "-F16 -s1 -r16"].map(make).to_vec();
    assert!(images.iter().all(|image| image.len() == 1000 << 10), "dosfstools and mtools are needed");
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
    let _ = Fat::open_mut(Checked::wrap(Memory::new(image))).map(|fs| {
        hyper2kvm_fuzz::walk_files(&fs);
        let Some(writer) = fs.writer().ok() else { return };
        let _ = (
            writer.create(fs.root(), b"a new name", &Attributes::default(), &[1; 3000]),
            writer.rename(fs.root(), b"DIR", fs.root(), b"another name"),
            writer.rename(fs.root(), b"F", fs.root(), b"DIR"),
            writer.remove_dir(fs.root(), b"another name"),
            writer.remove(fs.root(), b"DIR"),
        );
        let _ = fs
            .lookup(fs.root(), b"another name")
            .map(|dir| dir.map(|dir| writer.create_dir(dir, b"New", &Attributes::default())));
        hyper2kvm_fuzz::walk_files(&fs);
    });
});
