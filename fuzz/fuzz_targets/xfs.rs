//! small images of mkfs.xfs, with any bytes patched in: opening, walking and replaying them ends.
#![no_main]

use std::ops::ControlFlow;
use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::xfs::Xfs;
use libfuzzer_sys::fuzz_target;

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let script =
        "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; head -c 30000 /dev/zero >$d/c; exec 2>/dev/null
        (printf '/dev/null\n0 0\nd--755 0 0\nfile ---644 0 0 %s/c\nlink l--777 0 0 %0900d\nlarge d--755 0 0\n' $d 7
        seq -f 'a-longer-name-%g ---644 0 0 /dev/null' 300; printf '$\n$\n') >$d/p; truncate -s 16M $d/i
        mkfs.xfs --unsupported -q -f -b size=1024 -d agcount=1 -p $d/p $1 $d/i >/dev/null; cat $d/i";
    let make = |options| Command::new("bash").args(["-c", script, "-", options]).output().unwrap().stdout;
    let images = vec![make("-mcrc=0"), make("-mcrc=1")];
    assert!(images.iter().all(|image| image.len() == 16 << 20), "xfsprogs is needed");
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
    let _ = Xfs::open(Checked::wrap(Memory::new(image.clone()))).map(|fs| walk(&fs));
    let _ = Xfs::open_mut(Checked::wrap(Memory::new(image))).map(|fs| walk(&fs));
});

/// Reads what a caller would, within a caller's bounds.
fn walk(fs: &Xfs) {
    let (mut pending, mut left) = (vec![fs.root()], 150);
    while let Some(inode) = pending.pop().filter(|_| left > 0) {
        left -= 1;
        let _ = (fs.xattrs(inode), fs.read_link(inode), fs.read_at(inode, &mut [0; 40_000], 100));
        let _ = (fs.stat(inode), fs.lookup(inode, b"a-longer-name-9"));
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            assert!(!entry.name.contains(&b'/'));
            pending.push(entry.inode);
            if pending.len() > 500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    }
    let mut last = 0;
    let _ = fs.free_ranges(&mut |range| {
        assert!(last <= range.start && range.start < range.end && range.end <= fs.facts().size);
        last = range.end;
        ControlFlow::Continue(())
    });
}
