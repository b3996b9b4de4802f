//! Small images of mke2fs, one with a journal to replay, with any bytes patched in: opening, walking and changing them ends.
#![no_main]

use std::ops::ControlFlow;
use std::process::Command;
use std::sync::LazyLock;

use hyper2kvm::disk::{Checked, Memory};
use hyper2kvm::fs::ext::Ext;
use hyper2kvm::fs::{Attributes, FileKind, Filesystem};
use libfuzzer_sys::fuzz_target;

static IMAGES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let script = "u=3f2504e0-4f89-11d3-9a0c-0305e82c3301; d=$(mktemp -d); trap 'rm -r $d' EXIT; PATH=$PATH:/usr/sbin; mkdir $d/r $d/r/dir; seq -f $d/r/dir/a-longer-name-%g 99 | xargs touch
        head -c 30000 /dev/zero >$d/r/file; ln -s $(printf %100s | tr ' ' x) $d/r/link; exec 2>/dev/null
        mke2fs -q -F -b 1024 -U $u -E hash_seed=$u -d $d/r $2 $d/i 4M >/dev/null; e2fsck -fyD $d/i >/dev/null
        printf 'jo\njw -b 1000-1003 %s\njw -r 1001\njc\n' $d/r/file >$d/s; [ -z $1 ] || debugfs -w -f $d/s $d/i >/dev/null; cat $d/i";
    let make = |dirty, options| Command::new("bash").args(["-c", script, "-", dirty, options]).output().unwrap().stdout;
    let images = vec![
        make("", "-text4 -O^metadata_csum,^has_journal"),
        make("", "-text2"),
        make("dirty", "-text3"),
        make("dirty", "-text4 -O^metadata_csum"),
    ];
    assert!(images.iter().all(|image| image.len() == 4 << 20), "e2fsprogs is needed");
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
    let _ = Ext::open(Checked::wrap(Memory::new(image.clone()))).map(|fs| walk(&fs));
    let _ = Ext::open_mut(Checked::wrap(Memory::new(image))).map(|fs| walk(&fs));
});

/// Reads what a caller would, within a caller's bounds, and changes what it meets.
fn walk(fs: &Ext) {
    let (mut pending, mut left) = (vec![fs.root()], 150);
    while let Some(inode) = pending.pop().filter(|_| left > 0) {
        left -= 1;
        let _ = (fs.xattrs(inode), fs.read_link(inode), fs.read_at(inode, &mut [0; 40_000], 100));
        let is_dir = fs.stat(inode).is_ok_and(|stat| stat.kind == FileKind::Directory);
        let _ = fs.read_dir(inode, 0, &mut |entry| {
            assert!(!entry.name.contains(&b'/'));
            pending.push(entry.inode);
            if pending.len() > 500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Ok(writer) = fs.writer()
            && left % 8 == 0
        {
            let _ = if is_dir {
                writer.create(inode, b"a new name", &Attributes::default(), &[1; 3000]).map(drop)
            } else {
                writer.append(inode, &[2; 2000])
            };
            let _ = (writer.set_xattr(inode, b"user.x", &[3; 90]), writer.remove(inode, b"a-longer-name-9"));
            let moved = writer.rename(inode, b"dir", inode, b"moved").or(writer.rename(fs.root(), b"dir", inode, b"x"));
            let _ = (moved, writer.remove_dir(inode, b"lost+found"), writer.remove_xattr(inode, b"user.x"));
        }
    }
    let mut last = 0;
    let _ = fs.free_ranges(&mut |range| {
        assert!(last <= range.start && range.start < range.end && range.end <= fs.facts().size);
        last = range.end;
        ControlFlow::Continue(())
    });
}
