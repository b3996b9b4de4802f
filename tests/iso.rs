//! The ISO 9660 driver beside genisoimage and xorriso, which make the volumes, and bsdtar and 7-Zip, which read them.

use std::path::{Path, PathBuf};

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::iso::Iso;

use crate::ext::tree;
use crate::file_disk::FileDisk;
use crate::files::{self, File, Files};
use crate::support::tools;

/// A tree with all that Rock Ridge keeps, and one with plain files only.
fn fill(root: &Path, special: bool) {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let write = |path: &str, len: usize| {
        let place = root.join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(path.as_bytes()).finalize_xof().fill(&mut bytes);
        std::fs::write(place, bytes).unwrap();
    };
    for len in [0, 1, 2047, 2048, 2049, 300_000] {
        write(&format!("sizes/file-{len}"), len);
    }
    for index in 0..400 {
        write(&format!("large/{index}-a-file-with-a-name-that-takes-some-room.txt"), index);
    }
    write("drivers/Windows Server 2022/amd64/netkvm.inf", 5000);
    write("größe/日本語.txt", 10);
    write("a/b/c/d/e/f/g/h/i/j/k/l/deep", 77);
    write(&format!("names/{}", "n".repeat(60)), 3);
    if !special {
        return;
    }
    write(&format!("names/{}", "n".repeat(240)), 3);
    write("MiXeD", 5);
    write("mixed", 6);
    symlink("target", root.join("link")).unwrap();
    symlink("/absolute/../with/./dots", root.join("names/link")).unwrap();
    symlink(format!("{}/end", "x".repeat(100)).repeat(2), root.join("names/long-link")).unwrap();
    std::fs::hard_link(root.join("sizes/file-2049"), root.join("sizes/hard")).unwrap();
    std::fs::set_permissions(root.join("sizes/file-1"), std::fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(root.join("sizes/file-2048"), Some(1000), Some(70_000)).unwrap();
    for (name, kind, numbers) in [("null", "c", ["1", "3"]), ("disk", "b", ["8", "17"])] {
        let place = root.join(name);
        tools::ok("mknod", [place.as_path(), Path::new(kind), Path::new(numbers[0]), Path::new(numbers[1])]);
    }
    tools::ok("mkfifo", [root.join("fifo")]);
}

struct Disc {
    folder: tempfile::TempDir,
    path: PathBuf,
    root: PathBuf,
}

impl Disc {
    fn make(program: &[&str], special: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, root) = (folder.path().join("disc.iso"), folder.path().join("root"));
        std::fs::create_dir(&root).unwrap();
        fill(&root, special);
        let arguments = ["LC_ALL=C.UTF-8"].iter().chain(program).map(Path::new);
        tools::ok("env", arguments.chain([Path::new("-o"), &path, &root]));
        Self { folder, path, root }
    }

    fn fs(&self) -> Iso {
        Iso::open(FileDisk::open(&self.path)).unwrap()
    }

    fn extracted(&self, program: &[&str]) -> Files {
        let out = self.folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let arguments = [Path::new("-C"), &out, Path::new("env"), Path::new("LC_ALL=C.UTF-8")];
        tools::ok("env", arguments.into_iter().chain(program.iter().map(Path::new)).chain([self.path.as_path()]));
        let found = files::of_host(&out);
        tools::ok("chmod", [Path::new("-R"), Path::new("u+w"), &out]);
        std::fs::remove_dir_all(out).unwrap();
        found
    }
}

/// What this host says of the tree and what the driver says of the volume, to the second and without directories' links.
#[test]
fn rock_ridge_keeps_everything() {
    for program in [
        &["genisoimage", "-quiet", "-R"][..],
        &["genisoimage", "-quiet", "-R", "-J", "-joliet-long", "-hide-rr-moved"],
        &["genisoimage", "-quiet", "-R", "-D"],
        &["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J"],
        &["xorriso", "-as", "mkisofs", "-quiet", "-R", "-iso-level", "3"],
        &["xorriso", "-as", "mkisofs", "-quiet", "-R", "-D", "-hfsplus"],
    ] {
        let disc = Disc::make(program, true);
        let (mut ours, mut theirs) = (tree::of_driver(&disc.fs()), tree::of_kernel(&disc.root));
        ours.retain(|path, _| !path.starts_with(b"rr_moved") && !path.starts_with(b".rr_moved"));
        for entry in ours.values_mut().chain(theirs.values_mut()) {
            entry.times.iter_mut().for_each(|time| time.1 = 0);
            entry.links = 0;
            // What lies on the disc was made before it was read.
            entry.times[1] = (0, 0);
        }
        tree::assert_same(&ours, &theirs);
        assert!(disc.fs().facts().features.contains(&"RockRidge".to_owned()));
        let device = disc.fs().lookup(disc.fs().root(), b"disk").unwrap().unwrap();
        assert_eq!(disc.fs().stat(device).unwrap().device, Some((8, 17)));
    }
}

#[test]
fn joliet_is_read_as_7zip_and_bsdtar_read_it() {
    for program in [
        &["genisoimage", "-quiet", "-J", "-joliet-long", "-D"][..],
        &["xorriso", "-as", "mkisofs", "-quiet", "-J", "-joliet-long"],
    ] {
        let disc = Disc::make(program, false);
        let mut ours = files::of_driver(&disc.fs());
        // xorriso writes Rock Ridge too unless told otherwise, which then is what is shown.
        files::assert_same(&ours, &files::of_host(&disc.root));
        files::assert_same(&ours, &disc.extracted(&["bsdtar", "-xf"]));
        let mut by_7zip = disc.extracted(&["7z", "x", "-bd", "-y"]);
        for files in [&mut ours, &mut by_7zip] {
            files.retain(|_, file| matches!(file, File::Regular(..)));
        }
        files::assert_same(&ours, &by_7zip);
    }
}

#[test]
fn plain_names_are_in_lower_case() {
    for level in ["1", "2", "3", "4"] {
        let disc = Disc::make(&["genisoimage", "-quiet", "-D", "-iso-level", level], false);
        let mut by_bsdtar = disc.extracted(&["bsdtar", "-xf"]);
        by_bsdtar = by_bsdtar
            .into_iter()
            .map(|(path, file)| {
                let path = path.to_ascii_lowercase();
                // bsdtar keeps the dot of a name without an extension.
                (path.strip_suffix(b".").map(<[u8]>::to_vec).unwrap_or(path), file)
            })
            .collect();
        files::assert_same(&files::of_driver(&disc.fs()), &by_bsdtar);
    }
}

#[test]
fn a_compressed_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let (path, root) = (folder.path().join("disc.iso"), folder.path().join("root"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(root.join("zeros"), vec![0; 200_000]).unwrap();
    let arguments = ["-outdev".as_ref(), path.as_path(), "-map".as_ref(), &root, "/".as_ref()];
    let filter = ["-set_filter_r", "--zisofs", "/", "--", "-commit"].map(Path::new);
    tools::ok("xorriso", arguments.into_iter().chain(filter));
    let fs = Iso::open(FileDisk::open(&path)).unwrap();
    let inode = fs.lookup(fs.root(), b"zeros").unwrap().unwrap();
    assert_eq!(fs.read_at(inode, &mut [0; 9], 0).unwrap_err().code(), "iso.feature");
}

/// Every name of a large directory is found, in a time that its square would not allow.
#[test]
fn a_hundred_thousand_names_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let (path, root) = (folder.path().join("disc.iso"), folder.path().join("root"));
    std::fs::create_dir_all(root.join("large")).unwrap();
    for index in 0..100_000 {
        std::fs::File::create(root.join(format!("large/{index}-name"))).unwrap();
    }
    for options in [&["-R"][..], &["-J"], &["-R", "-udf"]] {
        let arguments = ["-quiet"].iter().chain(options).chain(&["-o"]).map(Path::new);
        tools::ok("genisoimage", arguments.chain([path.as_path(), &root]));
        let disk = FileDisk::open(&path);
        let kind = if options.len() > 1 { "udf" } else { "iso9660" };
        let fs = hyper2kvm::fs::open::open(kind, disk).unwrap().unwrap();
        let dir = fs.lookup(fs.root(), b"large").unwrap().unwrap();
        let inodes = (0..100_000).map(|index| fs.lookup(dir, format!("{index}-name").as_bytes()).unwrap().unwrap());
        assert_eq!(inodes.collect::<std::collections::HashSet<_>>().len(), 100_000);
        assert_eq!(fs.lookup(dir, b"100000-name").unwrap(), None);
    }
}
