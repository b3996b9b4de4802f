//! Small images of mkfs.btrfs with any bytes of the superblock and the trees patched, checksums made right: opening and walking ends.
#![no_main]

use std::ops::ControlFlow;
use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::btrfs::Btrfs;
use libfuzzer_sys::fuzz_target;

const SCRIPT: &str = "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; mkdir -p $d/r/dir; seq -f $d/r/dir/a-longer-name-%g 99 | xargs touch
    head -c 30000 /dev/zero >$d/r/file; echo x >$d/r/short; ln -s $(printf %100s | tr ' ' x) $d/r/link; truncate -s 64M $d/i
    mkfs.btrfs -qfM -n 4096 -m single -d single -U 3f2504e0-4f89-11d3-9a0c-0305e82c3301 --shrink --rootdir $d/r $d/i >&2; cat $d/i";

/// The image, and where its superblock and nodes are: all that begin with its UUID.
static IMAGE: LazyLock<(Vec<u8>, Vec<usize>)> = LazyLock::new(|| {
    let image = Command::new("bash").args(["-c", SCRIPT]).output().unwrap().stdout;
    assert!(image.len() > 1 << 20, "btrfs-progs is needed");
    let places =
        (0..image.len()).step_by(4096).filter(|at| image[at + 32..at + 48] == image[0x1_0020..0x1_0030]).collect();
    (image, places)
});

fuzz_target!(|data: &[u8]| {
    let (mut image, places) = IMAGE.clone();
    for patch in data.chunks_exact(8) {
        let place = places[usize::from(patch[0]) % places.len()];
        let at = place + 32 + usize::from(u16::from_le_bytes([patch[1], patch[2]])) % 4060;
        image[at..at + 4].copy_from_slice(&patch[4..]);
        let sum = crc32c::crc32c(&image[place + 32..place + 4096]);
        image[place..place + 4].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok(fs) = Btrfs::open(Checked::wrap(Memory::new(image))) else { return };
    let (mut pending, mut left) = (vec![fs.root()], 150);
    while let Some(inode) = pending.pop().filter(|_| left > 0) {
        left -= 1;
        let _ = (fs.stat(inode), fs.xattrs(inode), fs.read_link(inode), fs.read_at(inode, &mut [0; 40_000], 100));
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            assert!(!entry.name.contains(&b'/'));
            pending.push(entry.inode);
            if pending.len() > 500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
    let (mut last, _) = (0, (fs.subvolumes(), fs.usage()));
    let _ = fs.free_ranges(&mut |range| {
        assert!(last <= range.start && range.start < range.end && range.end <= fs.facts().size);
        last = range.end;
        ControlFlow::Continue(())
    });
});
