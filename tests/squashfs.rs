//! The squashfs driver beside mksquashfs, which makes the volumes, and the kernel and unsquashfs, which read them. Needs root.

use std::path::{Path, PathBuf};

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::squashfs::Squashfs;

use crate::ext::tree;
use crate::file_disk::FileDisk;
use crate::support::tools;

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Files of every kind, in every way that the format keeps them.
fn fill(root: &Path) {
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
    let write = |path: &str, content: Vec<u8>| {
        let place = root.join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, content).unwrap();
    };
    for len in [0, 1, 4095, 4096, 4097, 131_071, 131_072, 131_073, 3_000_000] {
        write(&format!("sizes/noise-{len}"), noise("size", len));
        write(&format!("sizes/text-{len}"), b"a text that repeats ".iter().copied().cycle().take(len).collect());
    }
    for index in 0..1000 {
        write(&format!("large/{index}-a-file-with-a-name-that-takes-some-room"), noise("large", index % 40));
    }
    write("a/b/c/d/e/f/g/h/i/j/deep", noise("deep", 77));
    write("names/größe-日本語-🚀.txt", noise("name", 7));
    write(&format!("names/{}", "n".repeat(255)), noise("long", 7));
    write("names/\u{1}\n\\", noise("odd", 7));
    std::fs::create_dir(root.join("empty")).unwrap();
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(40 << 20).unwrap();
    for at in [0, 1 << 20, 30 << 20] {
        sparse.write_all_at(b"something", at).unwrap();
    }
    symlink("target", root.join("link")).unwrap();
    symlink("x/".repeat(1000), root.join("names/long-link")).unwrap();
    std::fs::hard_link(root.join("sizes/noise-4097"), root.join("names/hard")).unwrap();
    std::fs::set_permissions(root.join("sizes/noise-1"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(root.join("sizes/noise-4095"), Some(1000), Some(70_000)).unwrap();
    for (name, kind, major, minor) in [("null", "c", "1", "3"), ("disk", "b", "259", "70000")] {
        let place = root.join(name);
        tools::ok("mknod", [place.as_path(), Path::new(kind), Path::new(major), Path::new(minor)]);
    }
    tools::ok("mkfifo", [root.join("fifo")]);
    let set = |path: &str, name: &str, value: &[u8]| {
        rustix::fs::setxattr(root.join(path), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("sizes/noise-0", "user.one", b"");
    set("sizes/noise-0", "user.two", &noise("value", 3000));
    // A value that several have is kept once.
    for index in 0..50 {
        set(&format!("large/{index}-a-file-with-a-name-that-takes-some-room"), "user.same", &noise("same", 900));
        set(
            &format!("large/{index}-a-file-with-a-name-that-takes-some-room"),
            "user.own",
            index.to_string().as_bytes(),
        );
    }
    set("empty", "trusted.t", b"t");
    set("fifo", "security.s", b"s");
    std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
}

struct Volume {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Volume {
    fn make(root: &Path, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let quiet = ["-quiet", "-no-progress"];
        tools::ok("mksquashfs", [root, &path].into_iter().chain(quiet.iter().chain(options).map(Path::new)));
        Self { folder, path }
    }

    fn fs(&self) -> Squashfs {
        Squashfs::open(FileDisk::open(&self.path)).unwrap()
    }

    fn mounted(&self) -> tree::Tree {
        let point = self.folder.path().join("mounted");
        std::fs::create_dir(&point).unwrap();
        tools::ok("mount", ["-o", "loop,ro"].map(Path::new).into_iter().chain([self.path.as_path(), &point]));
        let found = tree::of_kernel(&point);
        tools::ok("umount", [&point]);
        found
    }
}

#[test]
fn a_volume_is_read_as_the_kernel_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    fill(&root);
    for options in [
        &["-comp", "gzip"][..],
        &["-comp", "lzo", "-b", "4096"],
        &["-comp", "lz4"],
        &["-comp", "xz", "-b", "1M", "-Xbcj", "x86"],
        &["-comp", "zstd", "-b", "256K", "-always-use-fragments"],
        &["-noI", "-noId", "-noD", "-noF", "-noX"],
        &["-no-fragments", "-no-exports", "-no-sparse", "-b", "8K"],
    ] {
        let volume = Volume::make(&root, options);
        tree::assert_same(&tree::of_driver(&volume.fs()), &volume.mounted());
        assert_eq!(volume.fs().free().unwrap(), 0);
    }
}

/// Debian's kernels cannot read LZMA, but its tools can.
#[test]
fn lzma_is_read_as_unsquashfs_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    fill(&root);
    std::fs::remove_file(root.join("socket")).unwrap();
    let volume = Volume::make(&root, &["-comp", "lzma"]);
    let out = volume.folder.path().join("out");
    tools::ok(
        "unsquashfs",
        ["-quiet", "-no-progress", "-d"].map(Path::new).into_iter().chain([out.as_path(), &volume.path]),
    );
    let (mut ours, mut theirs) = (tree::of_driver(&volume.fs()), tree::of_kernel(&out));
    for entry in ours.values_mut().chain(theirs.values_mut()) {
        // What was unpacked has times of its own, to the nanosecond.
        entry.times[1] = (0, 0);
    }
    tree::assert_same(&ours, &theirs);
}
