//! A unified kernel image with any bytes patched or cut off: its guest's facts are read, twice the same, and any plan is one.
#![no_main]

use std::sync::{Arc, LazyLock};

use hyper2kvm::fix;
use hyper2kvm::fs::{Filesystem, MemoryFs};
use hyper2kvm::inspect::{Machine, Volume, find_roots, linux};
use libfuzzer_sys::fuzz_target;

/// DOS header, PE header, sections and what they hold, as systemd's ukify lays them out.
static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let sections: [(&[u8], &[u8]); 5] = [
        (b".osrel", b"ID=debian\nVERSION_ID=12\nPRETTY_NAME=Debian\n"),
        (b".cmdline", b"root=UUID=U ro quiet\n"),
        (b".uname", b"6.1.0-9-amd64"),
        (b".initrd", b"070701"),
        (b".linux", b"MZ a kernel"),
    ];
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[64]);
    put(64, b"PE\0\0\x64\x86\x05\0");
    put(84, &[240, 0, 2, 2, 0x0b, 2]);
    for (number, (name, content)) in sections.iter().enumerate() {
        let (header, at) = (328 + number * 40, 600 + number * 80);
        put(header, name);
        for (field, value) in [(8, content.len()), (16, content.len()), (20, at)] {
            put(header + field, &(value as u32).to_le_bytes());
        }
        put(at, content);
    }
    image
});

fuzz_target!(|data: &[u8]| {
    let Some(([a, b], patches)) = data.split_first_chunk() else { return };
    let mut image = IMAGE.clone();
    for patch in patches.chunks(8) {
        let [a, b, bytes @ ..] = patch else { break };
        let at = usize::from(u16::from_le_bytes([*a, *b])) % (image.len() - 6);
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    image.truncate(1024 - usize::from(u16::from_le_bytes([*a, *b])).saturating_sub(64_000) % 1024);
    let fs = MemoryFs::new("ext4", Some("U"), None);
    let files: [(&str, &[u8]); 3] = [("/etc/hosts", b"x"), ("/bin/sh", b"x"), ("/efi/EFI/Linux/a.efi", &image)];
    for (path, content) in files {
        fs.add_file(path, content).expect("room");
    }
    let fs: Arc<dyn Filesystem> = Arc::new(fs);
    let volume = Volume { fs_kind: Some("ext4".into()), fs_uuid: Some("U".into()), fs: Some(fs), ..Volume::default() };
    let machine = Machine { volumes: vec![volume], ..Machine::default() };
    let root = &find_roots(&machine).expect("memory can be read")[0];
    let facts = linux(&root.tree).expect("memory can be read");
    assert_eq!(format!("{facts:?}"), format!("{:?}", linux(&root.tree).expect("memory can be read")));
    fix::plan(&facts, &machine, root).expect("a plan");
});
