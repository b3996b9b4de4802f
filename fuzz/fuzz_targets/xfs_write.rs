//! A small image of mkfs.xfs with all trees, with any fields of its metadata patched and checksums made right: changes to it end.
#![no_main]

use std::{process::Command, sync::LazyLock};

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::{Attributes, Filesystem, xfs::Xfs};
use libfuzzer_sys::fuzz_target;

const SCRIPT: &str = "d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; head -c 30000 /dev/zero >$d/c; exec 2>/dev/null
    (printf '/dev/null\n0 0\nd--755 0 0\nfile ---644 0 0 %s/c\nlink l--777 0 0 %0200d\nlarge d--755 0 0\n' $d 7
    seq -f 'a-longer-name-%g ---644 0 0 /dev/null' 300; printf '$\n$\n') >$d/p; truncate -s 16M $d/i
    mkfs.xfs --unsupported -q -f -m rmapbt=1,uuid=3f2504e0-4f89-11d3-9a0c-0305e82c3301 -b size=1024 -d agcount=1 -p $d/p $d/i >&2; cat $d/i";

/// The image and, of its metadata, places, lengths, and where checksums are.
static IMAGE: LazyLock<(Vec<u8>, Vec<(usize, usize, usize)>)> = LazyLock::new(|| {
    let image = Command::new("bash").args(["-c", SCRIPT]).output().unwrap().stdout;
    assert_eq!(image.len(), 16 << 20, "xfsprogs is needed");
    let found = |at: usize| match &image[at..at + 10] {
        [b'I', b'N', mode, ..] if *mode > 0 => Some((at, 512, 100)),
        [b'X', b'A', b'G', b'F', ..] => Some((at, 512, 216)),
        [b'X', b'A', b'G', b'I', ..] => Some((at, 512, 312)),
        [b'X', b'A', b'F', b'L', ..] => Some((at, 512, 32)),
        [b'A', b'B', b'3', ..] | [b'I' | b'F', .., b'3', _, _, _, _, _, _] | [b'R', b'M' | b'3', ..] => {
            Some((at, 1024, 52))
        }
        [b'X', b'D', _, b'3', ..] => Some((at, 4096, 4)),
        [.., 0x3d | 0x3e | 0x3b, _] => Some((at, 4096, 12)),
        _ => None,
    };
    let places = (512..image.len() - 4096).step_by(512).filter_map(found).collect();
    (image, places)
});

fuzz_target!(|data: &[u8]| {
    let (mut image, places) = IMAGE.clone();
    for patch in data.chunks_exact(8) {
        let (at, len, sum) = places[usize::from(patch[0]) % places.len()];
        let piece = &mut image[at..at + len];
        let field = usize::from(u16::from_le_bytes([patch[1], patch[2]])) % (len - 5);
        piece[field..field + 5].copy_from_slice(&patch[3..]);
        piece[sum..sum + 4].fill(0);
        let crc = crc32c::crc32c(piece).to_le_bytes();
        piece[sum..sum + 4].copy_from_slice(&crc);
    }
    let Ok(fs) = Xfs::open_mut(Checked::wrap(Memory::new(image))) else { return };
    let Ok(writer) = fs.writer() else { return };
    let root = fs.root();
    for name in [&b"large"[..], b"file", b"link"] {
        let Ok(Some(inode)) = fs.lookup(root, name) else { continue };
        let _ = (writer.append(inode, &[1; 9000]), writer.replace(inode, &[2; 20_000]));
        let _ = (writer.set_xattr(inode, b"user.x", &[3; 900]), writer.remove_xattr(inode, b"user.x"));
        let _ = writer.create(inode, b"new", &Attributes::default(), &[4; 3000]);
        let _ = (writer.remove(inode, b"a-longer-name-9"), writer.rename(inode, b"new", root, b"moved"));
        let _ = (writer.create_dir(root, name, &Attributes::default()), writer.remove(root, name));
    }
    let _ = (writer.symlink(root, b"to", &[b't'; 900], &Attributes::default()), writer.available());
});
