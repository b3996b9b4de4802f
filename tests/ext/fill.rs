//! A tree that uses everything a file system of this family has.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{XattrFlags, lsetxattr};

/// Bytes that look random and depend only on `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Fills a mounted file system. `large` is for those of at least 64 MiB.
pub(crate) fn everything(root: &Path, large: bool) {
    fs::create_dir_all(root.join("etc/systemd/network")).unwrap();
    fs::create_dir_all(root.join("etc/systemd/system")).unwrap();
    fs::write(root.join("etc/fstab"), "/dev/sda1 / ext4 errors=remount-ro 0 1\n").unwrap();
    fs::write(root.join("etc/empty"), "").unwrap();
    for len in [1, 50, 60, 61, 100, 150, 156, 160, 200, 1023, 1024, 1025, 4095, 4096, 4097, 12 << 10, 50_000, 300_000] {
        fs::write(root.join(format!("etc/file-{len}")), noise(len, usize::try_from(len).unwrap())).unwrap();
    }
    owners(root);
    links(root);
    names(root);
    xattrs(root);
    sparse(root);
    directory(root, "small", 3);
    directory(root, "medium", 150);
    directory(root, "large", if large { 3000 } else { 600 });
    let deep = (0..60).fold(root.join("deep"), |path, level| path.join(format!("level-{level}")));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), "here").unwrap();
    if large {
        fs::create_dir(root.join("boot")).unwrap();
        fs::write(root.join("boot/initrd.img"), noise(9, 9 << 20)).unwrap();
    }
}

fn owners(root: &Path) {
    let path = root.join("etc/shadow");
    fs::write(&path, "root:*:\n").unwrap();
    chown(&path, Some(70_000), Some(1 << 20)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o4640)).unwrap();
    fs::hard_link(&path, root.join("etc/shadow-")).unwrap();
    for (name, mode, device) in [("fifo", 0o10_600, 0), ("null", 0o20_666, 0x103), ("loop", 0o60_660, 0x70_0001)] {
        let (kind, mode) = (rustix::fs::FileType::from_raw_mode(mode), rustix::fs::Mode::from_raw_mode(mode));
        rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, mode, device).unwrap();
    }
}

fn links(root: &Path) {
    for len in [1, 30, 59, 60, 61, 100, 500, 1000] {
        symlink("t".repeat(len), root.join(format!("link-{len}"))).unwrap();
    }
}

fn names(root: &Path) {
    let dir = root.join("names");
    fs::create_dir(&dir).unwrap();
    for name in [
        &b"with space"[..],
        b"\xff\xfe not utf-8",
        "Ünïcödé \u{202e}gnp.exe".as_bytes(),
        b"new\nline",
        b"\x1b[31mred",
        &[b'x'; 255],
        b"-rf",
        b"a.b.c",
    ] {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
}

fn xattrs(root: &Path) {
    let dir = root.join("xattrs");
    fs::create_dir(&dir).unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    for len in [0, 1, 40, 400, 800] {
        let path = dir.join(format!("value-{len}"));
        fs::write(&path, "x").unwrap();
        set(&path, "security.selinux", b"system_u:object_r:etc_t:s0\0");
        set(&path, "user.value", &noise(len, usize::try_from(len).unwrap()));
        set(&path, "trusted.second", b"2");
    }
    // Only where values may have an inode of their own.
    let huge = dir.join("value-huge");
    fs::write(&huge, "x").unwrap();
    let _ = lsetxattr(&huge, "user.huge", &noise(1, 20_000), XattrFlags::empty());
    // Two files with the same attributes share one block.
    for name in ["shared-1", "shared-2"] {
        let path = dir.join(name);
        fs::write(&path, "x").unwrap();
        set(&path, "user.large", &[7; 500]);
    }
    // user::rw-, user:1000:r--, group::r--, mask::r--, other::---
    let entry =
        |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    let acl = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, !0),
        entry(2, 4, 1000),
        entry(4, 4, !0),
        entry(16, 4, !0),
        entry(32, 0, !0),
    ];
    set(&dir.join("value-1"), "system.posix_acl_access", &acl.concat());
    set(&dir, "system.posix_acl_default", &acl.concat());
}

/// A file of 2 GiB with content at its end only.
pub(crate) fn huge(root: &Path) {
    File::create(root.join("huge")).unwrap().write_all_at(b"far", 2 << 30).unwrap();
}

fn sparse(root: &Path) {
    let file = File::create(root.join("sparse")).unwrap();
    for (index, offset) in [0, 100_000, 5_000_000, 17_000_000].into_iter().enumerate() {
        file.write_all_at(&noise(index as u64, 3000), offset).unwrap();
    }
    file.set_len(20_000_001).unwrap();
    let file = File::create(root.join("reserved")).unwrap();
    file.write_all_at(&noise(5, 5000), 0).unwrap();
    let _ = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 200_000);
    let fragmented = File::create(root.join("fragmented")).unwrap();
    for block in 0..400_u64 {
        fragmented.write_all_at(&noise(block, 1000), block * 8192).unwrap();
    }
}

/// A directory of `count` files, every seventh removed again.
pub(crate) fn directory(root: &Path, name: &str, count: u32) {
    let dir = root.join(name);
    fs::create_dir(&dir).unwrap();
    for index in 0..count {
        File::create(dir.join(format!("{index}-a-file-with-a-longer-name"))).unwrap();
    }
    for index in (0..count).step_by(7) {
        fs::remove_file(dir.join(format!("{index}-a-file-with-a-longer-name"))).unwrap();
    }
}

/// What a guest does next to the files at `paths` and in the folders among them: files come, others go or become others.
pub(crate) fn go_on<'a>(root: &Path, paths: impl IntoIterator<Item = &'a Vec<u8>>, seed: u64) {
    for (index, path) in (seed..).zip(paths) {
        let place = root.join(OsStr::from_bytes(path));
        let kind = fs::symlink_metadata(&place).unwrap().file_type();
        match index % 12 {
            _ if kind.is_dir() => {
                (0..3).for_each(|number| fs::write(place.join(format!("later-{number}")), "later").unwrap());
            }
            0 | 1 if !kind.is_dir() => fs::remove_file(&place).unwrap(),
            2 if kind.is_file() => fs::write(&place, noise(seed, 20_000)).unwrap(),
            3 if kind.is_file() => {
                let file = File::options().append(true).open(&place).unwrap();
                std::io::Write::write_all(&mut &file, &noise(index, 5000)).unwrap();
            }
            _ => {}
        }
    }
}
