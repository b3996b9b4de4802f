//! The ext2, ext3 and ext4 driver beside the kernel: the same tree, the same journal replay, and files that e2fsck finds
//! nothing wrong with. Needs root for mounts.

mod busy;
pub(crate) mod fill;
mod image;
mod model;
pub(crate) mod tree;
mod trim;

use hyper2kvm::fs::ext::Ext;
use hyper2kvm::fs::{Attributes, Filesystem, Timestamp};

use crate::file_disk::FileDisk;
use crate::support::tools;
use image::Image;
use model::Model;

/// Every shape that can be written: name, size in MiB, options of mke2fs.
const SHAPES: &[(&str, u64, &[&str])] = &[
    ("ext4", 96, &["-t", "ext4", "-b", "4096"]),
    ("ext4-1k", 96, &["-t", "ext4", "-b", "1024"]),
    ("ext4-2k", 96, &["-t", "ext4", "-b", "2048"]),
    ("ext4-inode-128", 96, &["-t", "ext4", "-I", "128"]),
    ("ext4-inode-512", 96, &["-t", "ext4", "-I", "512"]),
    ("ext4-inline", 96, &["-t", "ext4", "-O", "inline_data", "-I", "256"]),
    ("ext4-seed-orphan", 96, &["-t", "ext4", "-O", "metadata_csum_seed,orphan_file"]),
    ("ext4-not-64bit", 96, &["-t", "ext4", "-O", "^64bit,^metadata_csum"]),
    ("ext4-csum-not-64bit", 96, &["-t", "ext4", "-O", "^64bit"]),
    ("ext4-gdt-csum", 96, &["-t", "ext4", "-O", "^metadata_csum,uninit_bg"]),
    ("ext4-no-journal", 96, &["-t", "ext4", "-O", "^has_journal"]),
    ("ext4-no-extents", 96, &["-t", "ext4", "-O", "^extents,^64bit"]),
    ("ext4-meta-bg", 96, &["-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"]),
    ("ext4-not-flex", 96, &["-t", "ext4", "-O", "^flex_bg"]),
    ("ext4-ea-inode", 96, &["-t", "ext4", "-O", "ea_inode"]),
    ("ext4-large-dir", 96, &["-t", "ext4", "-O", "large_dir", "-b", "1024"]),
    ("ext4-sparse-super2", 96, &["-t", "ext4", "-O", "sparse_super2,^resize_inode"]),
    ("ext4-mmp", 96, &["-t", "ext4", "-O", "mmp"]),
    ("ext3", 96, &["-t", "ext3"]),
    ("ext3-1k", 96, &["-t", "ext3", "-b", "1024", "-I", "128"]),
    ("ext2", 96, &["-t", "ext2"]),
    ("ext2-1k", 96, &["-t", "ext2", "-b", "1024"]),
    ("ext2-rev-0", 96, &["-r", "0", "-b", "1024"]),
    ("small", 24, &["-t", "ext4", "-b", "1024"]),
];

/// Runs `work` for every shape whose name is in `EXT_SHAPES`, or for all; the last argument says that it is not tiny.
fn each_shape(work: impl Fn(&str, Image, bool)) {
    let only = std::env::var("EXT_SHAPES").unwrap_or_default();
    for (name, mib, options) in SHAPES {
        if only.is_empty() || only.split(' ').any(|wanted| wanted == *name) {
            eprintln!("{name}");
            work(name, Image::make(*mib, options), *mib >= 64);
        }
    }
}

#[test]
fn what_cannot_be_written_is_read_as_in_the_kernel() {
    let features = [None, Some("quota"), Some("project")];
    for (feature, options) in features.into_iter().zip([&["-O", "bigalloc", "-C", "16384"][..], &[], &[]]) {
        let image = Image::make(96, &[&["-t", "ext4"], options].concat());
        let theirs = image.mounted("rw", |root| {
            fill::everything(root, true);
            fill::huge(root);
            rustix::fs::sync();
            tree::of_kernel(root)
        });
        // Not every kernel mounts a file system with quotas.
        if let Some(feature) = feature {
            tools::ok("tune2fs", ["-O".as_ref(), feature.as_ref(), image.path.as_path()]);
        }
        let before = std::fs::read(&image.path).unwrap();
        let fs = Ext::open_mut(FileDisk::open(&image.path)).unwrap();
        assert_eq!(fs.writer().unwrap_err().code(), "ext.feature");
        tree::assert_same(&tree::of_driver(&fs), &theirs);
        assert!(std::fs::read(&image.path).unwrap() == before, "{feature:?}");
    }
}

/// Changes like those of the fixes, and some that are meaner.
fn edit(model: &mut Model<'_>, shape: &str) {
    let time = Timestamp { seconds: 1_700_000_000, nanoseconds: if has_wide_times(shape) { 123_456_789 } else { 0 } };
    let plain = Attributes { mode: 0o644, uid: 0, gid: 0, time, xattrs: Vec::new() };
    let label = (b"security.selinux".to_vec(), b"system_u:object_r:etc_t:s0\0".to_vec());
    let labelled = Attributes { mode: 0o600, uid: 100_000, gid: 7, xattrs: vec![label], ..plain.clone() };
    for len in [10, 0, 5000, 60, 100_000, 39] {
        model.replace("etc/fstab", &fill::noise(len, usize::try_from(len).unwrap()));
    }
    for (from, to) in [
        (1, 0),
        (50, 70),
        (60, 4096),
        (61, 3),
        (100, 150),
        (200, 10_000),
        (4097, 4096),
        (50_000, 1),
        (300_000, 299_999),
        (1024, 600_000),
    ] {
        model.replace(&format!("etc/file-{from}"), &fill::noise(from, to));
    }
    for path in [
        "etc/file-150",
        "etc/empty",
        "etc/file-1023",
        "etc/file-4095",
        "etc/file-4096",
        "sparse",
        "reserved",
        "fragmented",
        "etc/shadow",
    ] {
        model.append(path, &fill::noise(3, 7001));
        model.append(path, b"x");
    }
    model.replace("reserved", &fill::noise(4, 150_000));
    if model.has("boot/initrd.img") {
        model.append("boot/initrd.img", &fill::noise(1, 1_500_000));
    }
    model.create("etc/systemd/network", "10-name.link", &labelled, b"[Match]\nMACAddress=00:50:56:00:00:01\n");
    model.symlink("etc/systemd/system", "open-vm-tools.service", b"/dev/null", &plain);
    model.symlink("etc/systemd/system", "long", &[b'l'; 200], &plain);
    model.symlink("", "exactly-59", &[b'l'; 59], &plain);
    model.symlink("", "exactly-60", &[b'l'; 60], &plain);
    model.create_dir("etc", "new", &labelled);
    for index in 0..300 {
        model.create("etc/new", &format!("{index}-created"), &plain, b"");
    }
    for index in 0..300 {
        let content = fill::noise(index, usize::try_from(index * 11).unwrap());
        model.create("large", &format!("{index}-created-in-a-large-directory"), &labelled, &content);
        model.create("medium", &format!("{index}-created"), &plain, b"");
    }
    model.create("names", &"y".repeat(255), &plain, b"longest");
    model.create("small", "one more", &plain, b"");
    for path in [
        "etc/file-160",
        "etc/shadow-",
        "fragmented",
        "sparse",
        "link-1000",
        "link-30",
        "xattrs/shared-1",
        "xattrs/value-800",
        "fifo",
        "null",
        "large/3-a-file-with-a-longer-name",
        "small/1-a-file-with-a-longer-name",
    ] {
        model.remove(path);
    }
    for index in (0..300).step_by(3) {
        model.remove(&format!("etc/new/{index}-created"));
    }
    model.set_xattr("etc/fstab", "security.selinux", b"system_u:object_r:etc_t:s0\0");
    model.set_xattr("etc/fstab", "security.selinux", b"system_u:object_r:longer_than_before_t:s0\0");
    model.set_xattr("etc/fstab", "user.large", &[5; 600]);
    model.set_xattr("etc/fstab", "user.another", &[6; 30]);
    model.set_xattr("xattrs/shared-2", "user.more", &[6; 100]);
    model.set_xattr("xattrs/value-1", "user.value", &[6; 200]);
    model.set_xattr("xattrs", "trusted.dir", b"x");
    model.set_xattr("link-1", "trusted.link", b"x");
    edit_names(model, &plain);
    model.set_times("etc/fstab", time);
    model.set_times("etc/new", Timestamp { seconds: 1_900_000_000, nanoseconds: 0 });
}

/// Names that move, directories that go, owners and attributes.
fn edit_names(model: &mut Model<'_>, plain: &Attributes) {
    for (from, to) in [
        ("etc/file-200", "etc/file-200-with-a-name-that-is-longer"),
        ("etc/file-100", "large/file-100-from-another-directory"),
        ("large/4-a-file-with-a-longer-name", "large/4-with-another-hash"),
        ("large/5-a-file-with-a-longer-name", "small/5"),
        ("link-1", "etc/link-1"),
        ("exactly-60", "names/moved"),
        // Directories of every form: with an index, with one block, in the inode.
        ("large", "etc/large"),
        ("small", "etc/new/small"),
        ("etc/new", "new"),
        ("etc/large", "new/small/large again"),
    ] {
        model.rename(from, to);
    }
    for index in 0..50 {
        model.create("new/small/large again", &format!("{index}-created-after-the-move"), plain, b"");
    }
    model.create_dir("new", "empty", plain);
    model.rename("new/empty", "moved away");
    model.rename("new", "etc/new");
    model.rename("etc/new/small", "small");
    model.rename("small/large again", "large");
    model.remove_dir("moved away");
    model.create_dir("", "grown", plain);
    (0..200).for_each(|index| model.create("grown", &format!("{index}-name-that-takes-room"), plain, b""));
    (0..200).for_each(|index| model.remove(&format!("grown/{index}-name-that-takes-room")));
    model.remove_dir("grown");
    model.set_owner("etc/fstab", 0o4711, 100_000, 65_536);
    model.set_owner("etc/new", 0o1777, 12, 0);
    model.set_owner("etc/link-1", 0o777, 3, 4);
    model.remove_xattr("etc/fstab", "user.large");
    model.remove_xattr("etc/fstab", "user.none");
    model.remove_xattr("xattrs/shared-2", "user.more");
    model.remove_xattr("xattrs", "trusted.dir");
}

/// Whether inodes have room for nanoseconds.
fn has_wide_times(shape: &str) -> bool {
    !matches!(shape, "ext4-inode-128" | "ext3-1k" | "ext2-rev-0")
}

#[test]
fn every_shape_is_read_as_in_the_kernel_and_written_as_e2fsck_likes_it() {
    each_shape(|name, image, large| {
        image.mounted("rw", |root| fill::everything(root, large));
        let fs = Ext::open_mut(FileDisk::open(&image.path)).unwrap();
        assert!(!fs.facts().dirty);
        let mut model = Model::new(&fs);
        image.mounted("ro", |root| tree::assert_same(&model.tree, &tree::of_kernel(root)));
        edit(&mut model, name);
        fs.writer().unwrap().sync().unwrap();
        tree::assert_same(&tree::of_driver(&fs), &model.tree);
        image.assert_clean();
        image.mounted("ro", |root| tree::assert_same(&model.tree, &tree::of_kernel(root)));
        // The kernel can go on from there.
        image.mounted("rw", |root| fill::directory(root, "etc/new/more", 400));
        image.assert_clean();
    });
}
