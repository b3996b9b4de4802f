//! The NTFS driver beside ntfs-3g, which makes the volumes, fills and reads them over FUSE. Needs root for mounts.

use std::path::{Path, PathBuf};

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::ntfs::Ntfs;

use crate::ext::tree::{self, Tree};
use crate::file_disk::{FileDisk, overwrite_free};
use crate::support::tools;

struct Volume {
    _folder: tempfile::TempDir,
    path: PathBuf,
    point: PathBuf,
}

impl Volume {
    fn make(mib: u64, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, point) = (folder.path().join("image"), folder.path().join("mounted"));
        std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
        std::fs::create_dir(&point).unwrap();
        tools::ok("mkntfs", ["-q", "-F", "-f"].iter().chain(options).map(Path::new).chain([path.as_path()]));
        Self { _folder: folder, path, point }
    }

    /// Mounts it, lets `work` use the tree, and unmounts it.
    fn mounted<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        let options = "streams_interface=xattr,compression,special_files=wsl";
        tools::ok("ntfs-3g", [Path::new("-o"), Path::new(options), &self.path, &self.point]);
        let value = work(&self.point);
        tools::ok("umount", [&self.point]);
        // The process that served it ends a little later, when all is written.
        for _ in 0..200 {
            if !tools::output("fuser", [&self.path]).status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        value
    }

    fn fs(&self) -> Ntfs {
        Ntfs::open(FileDisk::open(&self.path)).unwrap()
    }
}

/// Files of every kind that ntfs-3g can make.
fn fill(root: &Path) {
    let noise = |seed: &str, len: usize| {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    };
    let write = |path: &str, content: Vec<u8>| {
        let place = root.join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, content).unwrap();
    };
    for len in [0, 1, 500, 700, 1024, 4096, 4097, 65_536, 300_000] {
        write(&format!("sizes/file-{len}"), noise("size", len));
    }
    for index in 0..700 {
        write(&format!("large/{index}-a-file-with-a-name-that-takes-some-room"), noise("large", index));
    }
    write("a/b/c/d/e/f/g/h/i/j/deep", noise("deep", 77));
    write("names/größe-日本語-🚀.txt", noise("name", 7));
    write(&format!("names/{}", "n".repeat(255)), noise("long", 7));
    // Compressed: text, noise, a hole, an end within a unit.
    std::fs::create_dir(root.join("packed")).unwrap();
    tools::ok(
        "setfattr",
        ["-n", "system.ntfs_attrib_be", "-v", "0x00000810"]
            .map(Path::new)
            .into_iter()
            .chain([root.join("packed").as_path()]),
    );
    let text: Vec<u8> =
        (0..40_000_u32).flat_map(|line| format!("line {} of a text\n", line * line % 977).into_bytes()).collect();
    write("packed/text", text.clone());
    write("packed/noise", noise("packed", 200_001));
    write(
        "packed/mixed",
        [text[..70_000].to_vec(), noise("mixed", 90_000), vec![0; 200_000], text[..9].to_vec()].concat(),
    );
    for (name, len) in [("sparse", 5_u64 << 20), ("packed/sparse", 3 << 20)] {
        let sparse = std::fs::File::create(root.join(name)).unwrap();
        sparse.set_len(len).unwrap();
        for at in [100_000, 1 << 20, len - 10] {
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"something", at).unwrap();
        }
    }
    // Written in turns, so that they lie in pieces.
    for index in 0..1200 {
        let pieces = ["pieces/one", "pieces/two"].map(|name| root.join(name));
        std::fs::create_dir_all(root.join("pieces")).unwrap();
        for place in pieces {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(place).unwrap();
            std::io::Write::write_all(&mut file, &noise(&index.to_string(), 4096)).unwrap();
        }
    }
    std::os::unix::fs::symlink("sizes/file-1", root.join("link")).unwrap();
    std::fs::hard_link(root.join("sizes/file-700"), root.join("names/hard")).unwrap();
    // So many names that they need records of their own, and a list of them.
    for index in 0..40 {
        std::fs::hard_link(root.join("sizes/file-500"), root.join(format!("names/{index}-{}", "h".repeat(120))))
            .unwrap();
    }
    for (name, len) in [("user.one", 5), ("user.two", 3000), ("user.größe", 60_000)] {
        let place = root.join("sizes/file-1024");
        rustix::fs::setxattr(&place, name, &noise(name, len), rustix::fs::XattrFlags::empty()).unwrap();
    }
}

/// What both can tell.
fn comparable(mut tree: Tree) -> Tree {
    tree.retain(|path, _| !path.is_empty());
    for entry in tree.values_mut() {
        entry.owner = (0, 0);
        entry.mode = 0;
        entry.links = if entry.kind == hyper2kvm::fs::FileKind::Directory { 1 } else { entry.links };
        entry.xattrs.retain(|(name, _)| name.starts_with(b"user."));
    }
    tree
}

#[test]
fn a_volume_is_read_as_ntfs_3g_reads_it() {
    for options in
        [&["-c", "4096"][..], &["-c", "512"], &["-c", "1024"], &["-s", "4096", "-c", "4096"], &["-c", "65536"]]
    {
        let volume = Volume::make(64, options);
        volume.mounted(fill);
        let theirs = volume.mounted(tree::of_kernel);
        let fs = volume.fs();
        tree::assert_same(&comparable(tree::of_driver(&fs)), &comparable(theirs));
        let listed =
            tools::ok("ntfsinfo", ["-F", "sizes/file-500"].map(Path::new).into_iter().chain([volume.path.as_path()]));
        assert!(listed.contains("$ATTRIBUTE_LIST"));
        assert!(!fs.facts().dirty, "{:?}", fs.facts());
        assert!(fs.lookup(fs.root(), b"SIZES").unwrap().is_some());
    }
}

/// ntfs-3g reads the same after everything was overwritten that is called free.
#[test]
fn what_is_free_is_not_needed_by_anyone() {
    let volume = Volume::make(64, &["-c", "4096"]);
    volume.mounted(fill);
    let before = comparable(tree::of_driver(&volume.fs()));
    let freed = overwrite_free(&volume.fs(), &volume.path);
    assert_eq!(freed, volume.fs().free().unwrap());
    assert!(freed > 10 << 20);
    tree::assert_same(&before, &comparable(volume.mounted(tree::of_kernel)));
    tools::ok("ntfsfix", [Path::new("-n"), &volume.path]);
}

/// A directory whose index has three levels: every name is found, whatever its case, and none that is not there.
#[test]
fn names_of_a_large_directory_are_found_by_its_tree() {
    let volume = Volume::make(200, &["-c", "4096"]);
    volume.mounted(|root| {
        std::fs::create_dir(root.join("large")).unwrap();
        for index in 0..20_000 {
            std::fs::File::create(root.join(format!("large/{index}-A-name-that-takes-some-room-äöé"))).unwrap();
        }
    });
    let fs = volume.fs();
    let dir = fs.lookup(fs.root(), b"large").unwrap().unwrap();
    let mut listed = 0;
    fs.read_dir(dir, 0, &mut |entry| {
        listed += 1;
        assert_eq!(fs.lookup(dir, &entry.name).unwrap(), Some(entry.inode));
        let upper = String::from_utf8(entry.name).unwrap().to_uppercase();
        assert_eq!(fs.lookup(dir, upper.as_bytes()).unwrap(), Some(entry.inode));
        assert_eq!(fs.lookup(dir, upper.replace('-', "_").as_bytes()).unwrap(), None);
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(listed, 20_000);
}
