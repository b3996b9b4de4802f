//! The exFAT driver beside exfat-fuse, which fills and reads volumes over FUSE, and fsck.exfat. Needs root for mounts.

use std::path::{Path, PathBuf};

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::exfat::Exfat;

use crate::ext::tree::{self, Tree};
use crate::file_disk::{FileDisk, overwrite_free};
use crate::support::device::Loop;
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
        tools::ok("mkfs.exfat", options.iter().map(Path::new).chain([path.as_path()]));
        Self { _folder: folder, path, point }
    }

    /// Mounts it, lets `work` use the tree, and unmounts it.
    fn mounted<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        let device = Loop::over(&self.path);
        tools::ok("mount.exfat-fuse", [device.path(), &self.point]);
        let value = work(&self.point);
        tools::ok("umount", [&self.point]);
        // The process that served it ends a little later, when all is written.
        for _ in 0..200 {
            if !tools::output("fuser", [device.path()]).status.success() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        value
    }

    fn fs(&self) -> Exfat {
        Exfat::open(FileDisk::open(&self.path)).unwrap()
    }

    fn assert_clean(&self) {
        tools::ok("fsck.exfat", [Path::new("-n"), &self.path]);
    }
}

/// Files of every kind that there are.
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
    for len in [0, 1, 511, 512, 513, 4096, 4097, 65_536, 300_000, 2_000_000] {
        write(&format!("sizes/file-{len}"), noise("size", len));
    }
    for index in 0..700 {
        write(&format!("large/{index} a file with a name that takes some room"), noise("large", index));
    }
    write("a/b/c/d/e/f/g/h/i/j/k/l/m/n/deep", noise("deep", 77));
    write("names/größe-日本語-🚀.txt", noise("name", 7));
    write("names/.. .", noise("dots", 7));
    write("Ünïcode/ÆØÅ-ёжик-Ωmega", noise("case", 7));
    write(&format!("names/{}", "n".repeat(255)), noise("long", 7));
    // Written in turns, so that they and their directories lie in pieces.
    for index in 0..300 {
        for name in ["pieces/one", "pieces/two"] {
            std::fs::create_dir_all(root.join("pieces")).unwrap();
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(root.join(name)).unwrap();
            std::io::Write::write_all(&mut file, &noise(&index.to_string(), 4096)).unwrap();
        }
        if index % 10 == 0 {
            write(&format!("names/between {index}"), noise("between", 9));
        }
    }
    let sparse = std::fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(700_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"something", 300_000).unwrap();
    for index in (0..700).step_by(3) {
        std::fs::remove_file(root.join(format!("large/{index} a file with a name that takes some room"))).unwrap();
    }
    let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = std::fs::File::options().write(true).open(root.join("sizes/file-1")).unwrap();
    file.set_modified(past).unwrap();
}

/// What both can tell: exfat-fuse gives modes of its own, and times to the second.
fn comparable(mut tree: Tree) -> Tree {
    tree.retain(|path, _| !path.is_empty());
    for entry in tree.values_mut() {
        (entry.owner, entry.mode, entry.links) = ((0, 0), 0, 1);
        entry.times = [(entry.times[0].0, 0), (0, 0)];
    }
    tree
}

#[test]
fn a_volume_is_read_as_exfat_fuse_reads_it() {
    for (mib, options) in [
        (16, &["-c", "512"][..]),
        (16, &["-c", "4096", "-L", "LABEL"]),
        (64, &["-c", "32K", "-b", "1M"]),
        (256, &["-c", "128K"]),
    ] {
        let volume = Volume::make(mib, options);
        volume.mounted(fill);
        volume.assert_clean();
        let theirs = volume.mounted(tree::of_kernel);
        let fs = volume.fs();
        tree::assert_same(&comparable(tree::of_driver(&fs)), &comparable(theirs));
        assert!(!fs.facts().dirty, "{:?}", fs.facts());
        let [dir, file] = ["ünïCODE", "æøå-ЁЖИК-ωMEGA"];
        let dir = fs.lookup(fs.root(), dir.as_bytes()).unwrap().unwrap();
        assert!(fs.lookup(dir, file.as_bytes()).unwrap().is_some());
        let shown = tools::ok("dump.exfat", [&volume.path]);
        let value = |name: &str| {
            let line = shown.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{shown}"));
            line.trim().to_owned()
        };
        assert_eq!(
            fs.facts().label.clone().unwrap_or_default(),
            if options.len() == 4 && mib == 16 { "LABEL" } else { "" }
        );
        assert_eq!(value("Free Clusters:"), (fs.free().unwrap() / fs.facts().block_size).to_string());
        assert_eq!(
            format!("0x{}", fs.facts().uuid.clone().unwrap().replace('-', "").to_lowercase()),
            value("Volume Serial:")
        );
    }
}

/// exfat-fuse reads the same after everything was overwritten that is called free.
#[test]
fn what_is_free_is_not_needed_by_anyone() {
    let volume = Volume::make(32, &["-c", "4096"]);
    volume.mounted(fill);
    let before = comparable(tree::of_driver(&volume.fs()));
    let freed = overwrite_free(&volume.fs(), &volume.path);
    assert_eq!(freed, volume.fs().free().unwrap());
    assert!(freed > 10 << 20);
    volume.assert_clean();
    tree::assert_same(&before, &comparable(volume.mounted(tree::of_kernel)));
}
