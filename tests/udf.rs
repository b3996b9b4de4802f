//! The UDF driver beside genisoimage, pycdlib and mkudffs, which make the volumes, 7-Zip, udfinfo and blkid, which read them, and
//! the kernel of an emulated machine, which does both.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hyper2kvm::fs::udf::Udf;
use hyper2kvm::fs::{FileKind, Filesystem};

use crate::ext::tree::{self, Entry, Tree};
use crate::file_disk::FileDisk;
use crate::files::{self, File, Files};
use crate::support::tools;

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Plain files and directories of many sizes and names.
fn fill(root: &Path) {
    let write = |path: &str, len: usize| {
        let place = root.join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, noise(path, len)).unwrap();
    };
    for len in [0, 1, 300, 1800, 2047, 2048, 2049, 300_000, 3_000_000] {
        write(&format!("sizes/file-{len}"), len);
    }
    for index in 0..900 {
        write(&format!("large/{index}-a-file-with-a-name-that-takes-some-room.txt"), index % 50);
    }
    write("drivers/Windows Server 2022/amd64/netkvm.inf", 5000);
    write("größe/日本語.txt", 10);
    write("a/b/c/d/e/f/g/h/i/j/k/l/deep", 77);
    write(&format!("names/{}", "n".repeat(60)), 3);
}

struct Disc {
    folder: tempfile::TempDir,
    path: PathBuf,
    root: PathBuf,
}

impl Disc {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, root) = (folder.path().join("disc.img"), folder.path().join("root"));
        std::fs::create_dir(&root).unwrap();
        Self { folder, path, root }
    }

    fn bridge(options: &[&str]) -> Self {
        let disc = Self::new();
        fill(&disc.root);
        let arguments = ["LC_ALL=C.UTF-8", "genisoimage", "-quiet", "-D", "-udf"];
        let arguments = arguments.iter().chain(options).map(Path::new);
        tools::ok("env", arguments.chain([Path::new("-o"), &disc.path, &disc.root]));
        disc
    }

    fn empty(mib: u64, options: &[&str]) -> Self {
        let disc = Self::new();
        std::fs::File::create(&disc.path).unwrap().set_len(mib << 20).unwrap();
        tools::ok("mkudffs", options.iter().map(Path::new).chain([disc.path.as_path()]));
        disc
    }

    fn fs(&self) -> Udf {
        Udf::open(FileDisk::open(&self.path)).unwrap()
    }

    fn by_7zip(&self) -> Files {
        let out = self.folder.path().join("out");
        let to = format!("-o{}", out.display());
        let arguments = ["LC_ALL=C.UTF-8", "7z", "x", "-bd", "-y", "-tudf", &to];
        tools::ok("env", arguments.iter().map(Path::new).chain([self.path.as_path()]));
        let found = files::of_host(&out);
        std::fs::remove_dir_all(out).unwrap();
        found
    }

    /// What `blkid` says.
    fn blkid(&self, name: &str) -> Option<String> {
        let text = tools::ok("blkid", ["-p", "-o", "export"].map(Path::new).into_iter().chain([self.path.as_path()]));
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.replace('\\', ""))
    }
}

#[test]
fn bridges_of_genisoimage_hold_the_same_files_by_udf() {
    for options in [&["-J", "-joliet-long", "-R"][..], &["-iso-level", "3"], &["-J", "-V", "VIRTIO-WIN"]] {
        let disc = Disc::bridge(options);
        let fs = disc.fs();
        let ours = files::of_driver(&fs);
        let mut theirs = files::of_host(&disc.root);
        theirs.retain(|_, file| !matches!(file, File::Link(_)));
        files::assert_same(&ours, &theirs);
        files::assert_same(&ours, &disc.by_7zip());
        assert_eq!(fs.facts().features, ["revision 1.02"]);
        assert_eq!((fs.facts().label.clone(), fs.facts().uuid.clone()), (disc.blkid("LABEL"), disc.blkid("UUID")));
        assert_eq!(disc.blkid("TYPE").as_deref(), Some("udf"));
    }
}

#[test]
fn bridges_of_pycdlib_are_read_too() {
    let disc = Disc::new();
    let script = r#"
import io, sys, pycdlib
iso = pycdlib.PyCdlib()
iso.new(udf='2.60', interchange_level=3)
iso.add_directory('/DIR', udf_path='/dir')
iso.add_directory('/DIR/SUB', udf_path='/dir/sub dir')
for n, size in enumerate((0, 1, 2047, 2048, 2049, 100000)):
    data = bytes(i * (n + 1) % 251 for i in range(size))
    iso.add_fp(io.BytesIO(data), size, '/DIR/SUB/F%d.;1' % n, udf_path='/dir/sub dir/file of %d' % size)
for n in range(150):
    iso.add_fp(io.BytesIO(b'x'), 1, '/G%d.;1' % n, udf_path='/größe %d' % n)
iso.add_symlink(udf_symlink_path='/link', udf_target='dir/sub dir')
iso.write(sys.argv[1])
iso.close()
"#;
    tools::ok("/usr/bin/python3", [Path::new("-c"), Path::new(script), &disc.path]);
    let fs = disc.fs();
    let mut files = files::of_driver(&fs);
    assert_eq!(files.remove(&b"link"[..]), Some(File::Link(b"dir/sub dir".to_vec())));
    for (number, size) in [0_usize, 1, 2047, 2048, 2049, 100_000].into_iter().enumerate() {
        let expected: Vec<u8> = (0..size).map(|at| u8::try_from(at * (number + 1) % 251).unwrap()).collect();
        let found = files.remove(format!("dir/sub dir/file of {size}").as_bytes());
        assert_eq!(found, Some(File::Regular(size as u64, blake3::hash(&expected))));
    }
    assert!((0..150).all(|number| files.contains_key(format!("größe {number}").as_bytes())));
}

#[test]
fn volumes_of_mkudffs_are_as_udfinfo_and_blkid_say() {
    for (media, revisions) in [
        ("hd", &["1.02", "1.50", "2.00", "2.01"][..]),
        ("dvdram", &["1.02", "2.01"]),
        ("cdrw", &["1.50", "2.01"]),
        ("dvdrw", &["2.00"]),
    ] {
        for revision in revisions {
            for block in ["512", "1024", "2048", "4096"] {
                if media != "hd" && block != "2048" {
                    continue;
                }
                let label = format!("Größe {media}");
                let media_type = format!("--media-type={media}");
                let options = ["--utf8", &media_type, "--udfrev", revision, "--blocksize", block, "-l", &label];
                let disc = Disc::empty(20, &options);
                let fs = disc.fs();
                let facts = fs.facts();
                assert_eq!(facts.features[0], format!("revision {revision}"));
                assert_eq!(facts.features.len() > 1, media == "cdrw" || media == "dvdrw", "{facts:?}");
                assert_eq!(facts.label.as_deref(), Some(label.as_str()));
                assert_eq!((facts.uuid.clone(), facts.block_size.to_string().as_str()), (disc.blkid("UUID"), block));
                let shown = tools::ok("udfinfo", [&disc.path]);
                let value =
                    |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
                assert_eq!(value("freeblocks").parse::<u64>().unwrap() * facts.block_size, fs.free().unwrap());
                assert_eq!(value("integrity") == "closed", !facts.dirty);
                let names: Vec<_> = files::of_driver(&fs).into_keys().collect();
                assert!(names.iter().all(|name| name == b"lost+found"), "{names:?}");
            }
        }
    }
    // Media that are written once.
    let once = Disc::empty(20, &["--media-type=cdr", "--udfrev=2.01"]);
    assert_eq!(Udf::open(FileDisk::open(&once.path)).unwrap_err().code(), "udf.feature");
}

/// Fills a volume by the kernel of an emulated machine, and gives its tree as that kernel's `find`, `stat` and checksums show it.
fn filled_by_the_kernel(disc: &Disc) -> String {
    let script = r#"
set -e
cd /sysroot
mkdir -p dir/large a/b/c/d/e/f names
for i in $(seq 400); do echo $i > "dir/large/$i a file with a name that takes some room"; done
for n in 0 1 100 250 400 511 512 513 1000 2000 2048 4096 65536 3000000; do
  if [ $n -gt 0 ]; then head -c $n /dev/urandom > dir/file-$n; else : > dir/file-0; fi
done
ln -s ../somewhere/./else a/link; ln -s /absolute/path dir/absolute; mkfifo a/fifo
mknod a/null c 1 3; mknod a/disk b 8 17
echo x > "names/größe 日本語 🚀"; echo y > names/$(printf 'n%.0s' $(seq 200))
chmod 4751 dir/file-100; chown 1000:70000 dir/file-250; ln dir/file-512 names/hard
truncate -s 5000000 dir/sparse; echo something | dd of=dir/sparse bs=1 seek=2000000 conv=notrunc 2>/dev/null
for i in $(seq 60); do head -c 3000 /dev/urandom >> names/one; head -c 3000 /dev/urandom >> names/two; sync; done
for i in $(seq 3 3 400); do rm "dir/large/$i a file with a name that takes some room"; done
touch -d '2001-09-09 01:46:40.123456 UTC' dir/file-1
sync
find . -mindepth 1 -exec stat -c '%f %u %g %h %s %.6Y %t %T %n' {} +
find . -type l -exec sh -c 'echo "LINK $(readlink "$1") $1"' - {} \;
find . -type f -exec sha256sum {} + | sed 's/^/SUM /'
"#;
    let folder = disc.folder.path();
    std::fs::write(folder.join("script"), script).unwrap();
    let commands = format!(
        "set-program x\nadd-drive {} format:raw\nrun\nmount-vfs rw,iocharset=utf8 udf /dev/sda /\nupload {} /script\ndebug sh \"bash /sysroot/script\"\nrm /script\numount-all\n",
        disc.path.display(),
        folder.join("script").display(),
    );
    std::fs::write(folder.join("commands"), commands.replace("set-program x\n", "")).unwrap();
    let environment = ["LIBGUESTFS_BACKEND=direct", "LIBGUESTFS_BACKEND_SETTINGS=force_tcg", "guestfish", "-f"];
    tools::ok("env", environment.map(Path::new).into_iter().chain([folder.join("commands").as_path()]))
}

#[test]
#[ignore = "needs an emulated machine: make zoo"]
fn volumes_that_the_kernel_filled_are_read_as_it_reads_them() {
    for (media, revision, block) in [
        ("hd", "1.02", "512"),
        ("hd", "1.50", "2048"),
        ("hd", "2.01", "4096"),
        ("dvdram", "2.01", "2048"),
        ("dvdrw", "2.01", "2048"),
    ] {
        let media_type = format!("--media-type={media}");
        let disc = Disc::empty(40, &[&media_type, "--udfrev", revision, "--blocksize", block]);
        let listed = filled_by_the_kernel(&disc);
        let fs = disc.fs();
        let mut ours = tree::of_driver(&fs);
        ours.retain(|path, _| !path.is_empty());
        let shown = show(&fs, &ours);
        let theirs = listed.lines().filter(|line| !line.is_empty() && !line.ends_with("./script"));
        let (ours, theirs): (BTreeSet<&str>, BTreeSet<&str>) = (shown.lines().collect(), theirs.collect());
        let differences: Vec<_> = ours.symmetric_difference(&theirs).take(6).collect();
        assert!(differences.is_empty(), "{media} {revision}: {differences:#?}");
        assert!(ours.len() > 500, "{}", ours.len());
    }
}

/// The tree in the words of the script.
fn show(fs: &Udf, tree: &Tree) -> String {
    let line = |(path, entry): (&Vec<u8>, &Entry)| {
        let name = format!("./{}", String::from_utf8_lossy(path));
        let inode =
            path.split(|byte| *byte == b'/').fold(fs.root(), |dir, name| fs.lookup(dir, name).unwrap().unwrap());
        let stat = fs.stat(inode).unwrap();
        let kind = match entry.kind {
            FileKind::Fifo => 0o010_000,
            FileKind::CharDevice => 0o020_000,
            FileKind::Directory => 0o040_000,
            FileKind::BlockDevice => 0o060_000,
            FileKind::Regular => 0o100_000,
            FileKind::Symlink => 0o120_000,
            FileKind::Socket => 0o140_000,
        };
        let (major, minor) = stat.device.unwrap_or_default();
        let mut text = format!(
            "{:x} {} {} {} {} {}.{:06} {major:x} {minor:x} {name}\n",
            kind | stat.mode,
            stat.uid,
            stat.gid,
            stat.links,
            stat.size,
            stat.mtime.seconds,
            stat.mtime.nanoseconds / 1000,
        );
        if let Some(target) = &entry.target {
            text.push_str(&format!("LINK {} {name}\n", String::from_utf8_lossy(target)));
        }
        if entry.kind == FileKind::Regular {
            let mut content = vec![0; usize::try_from(stat.size).unwrap()];
            assert_eq!(fs.read_at(inode, &mut content, 0).unwrap(), content.len());
            use sha2::Digest as _;
            let sum: String = sha2::Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("SUM {sum}  {name}\n"));
        }
        text
    };
    tree.iter().map(line).collect()
}
