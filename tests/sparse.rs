//! Holes: what the drivers say of them beside what the kernel says of the same file system, and what becomes of them when files are
//! taken out. Needs root for mounts.

use std::ops::{ControlFlow, Range};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use hyper2kvm::fs::{Filesystem, Inode};
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::file_disk::FileDisk;
use crate::support::{Lab, Mounted, Run, Variant, tools};

const NAMES: [&str; 7] = ["empty", "hole", "full", "one", "many", "unwritten", "ends"];

/// Files with holes of every kind.
fn fill(root: &Path) {
    for name in NAMES {
        let file = std::fs::File::create(root.join(name)).unwrap();
        let write = |at: u64, len: usize| file.write_all_at(&vec![0xa5; len], at).unwrap();
        match name {
            "hole" => file.set_len(9 << 20).unwrap(),
            "full" => write(0, 300_000),
            "one" => {
                file.set_len(50 << 20).unwrap();
                write(20 << 20, 5000);
            }
            "many" => (0..400).for_each(|index| write(index * 200_000, 10)),
            "unwritten" => {
                // ext2 has no such thing.
                let made = fallocate(&file, FallocateFlags::empty(), 0, 3 << 20);
                assert!(made.is_ok() || made == Err(rustix::io::Errno::OPNOTSUPP));
                write(1 << 20, 100_000);
            }
            "ends" => {
                write(0, 10);
                file.set_len((1 << 20) + 77).unwrap();
            }
            _ => {}
        }
        file.sync_all().unwrap();
    }
}

/// What the kernel says of a file.
fn of_kernel(path: &Path) -> Vec<Range<u64>> {
    let file = std::fs::File::open(path).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        found.push(start..at);
    }
    found
}

fn of_driver(fs: &dyn Filesystem, file: Inode, range: Range<u64>) -> Vec<Range<u64>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    fs.data_ranges(file, range, &mut |part| {
        assert!(part.start < part.end && found.last().is_none_or(|last| last.end < part.start));
        found.push(part);
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

/// What no part covers reads as zeros, and parts of parts are told right.
fn check(fs: &dyn Filesystem, file: Inode) {
    let size = fs.stat(file).unwrap().size;
    let all = of_driver(fs, file, 0..u64::MAX);
    let mut at = 0;
    for part in all.iter().cloned().chain(std::iter::once(size..size)) {
        let mut hole = vec![1; usize::try_from(part.start - at).unwrap()];
        assert_eq!(fs.read_at(file, &mut hole, at).unwrap(), hole.len());
        assert!(hole.iter().all(|byte| *byte == 0));
        at = part.end;
    }
    for (from, to) in [(0, 4097), (4095, 1 << 20), (1 << 20, 21 << 20), (size / 2, size), (size, size + 5)] {
        let clipped: Vec<Range<u64>> = all
            .iter()
            .map(|part| part.start.max(from)..part.end.min(to))
            .filter(|part| part.start < part.end)
            .collect();
        assert_eq!(of_driver(fs, file, from..to), clipped, "{from}..{to}");
    }
}

#[test]
fn holes_are_where_the_kernel_says() {
    let lab = Lab::new();
    for (kind, options) in [
        ("ext4", &[][..]),
        ("ext4", &["-b", "1024", "-O", "inline_data"]),
        ("ext2", &["-b", "1024"]),
        ("xfs", &[]),
        ("xfs", &["-b", "size=1024"]),
        ("btrfs", &[]),
        ("btrfs", &["-O", "^no-holes"]),
    ] {
        let image = lab.path("image");
        std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        tools::ok(&format!("mkfs.{kind}"), ["-q"].iter().chain(options).map(Path::new).chain([image.as_path()]));
        let point = lab.folder("mounted");
        let mount = || tools::ok("mount", ["-o", "loop"].map(Path::new).into_iter().chain([image.as_path(), &point]));
        mount();
        fill(&point);
        tools::ok("umount", [&point]);
        // What is cached may say more than the disk.
        mount();
        let theirs = NAMES.map(|name| of_kernel(&point.join(name)));
        tools::ok("umount", [&point]);
        let fs = hyper2kvm::fs::open::open(kind, FileDisk::open(&image)).unwrap().unwrap();
        for (name, theirs) in NAMES.iter().zip(theirs) {
            let file = fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap();
            assert_eq!(of_driver(&*fs, file, 0..u64::MAX), theirs, "{kind} {options:?} {name}");
            check(&*fs, file);
        }
        std::fs::remove_dir(&point).unwrap();
        std::fs::remove_file(&image).unwrap();
    }
}

/// Drivers that have no kernel here beside them: holes are holes, and nothing else is.
#[test]
fn holes_of_squashfs_and_ntfs() {
    let lab = Lab::new();
    let (root, image) = (lab.folder("root"), lab.path("squashfs"));
    fill(&root);
    tools::ok("mksquashfs", [root.as_path(), &image, Path::new("-quiet"), Path::new("-no-progress")]);
    let ntfs = lab.path("ntfs");
    std::fs::File::create(&ntfs).unwrap().set_len(320 << 20).unwrap();
    tools::ok("mkntfs", ["-q", "-F", "-f"].map(Path::new).into_iter().chain([ntfs.as_path()]));
    let point = lab.folder("mounted");
    tools::ok("ntfs-3g", [&ntfs, &point]);
    for name in NAMES {
        tools::ok("cp", [Path::new("--sparse=always"), &root.join(name), &point.join(name)]);
    }
    tools::ok("umount", [&point]);
    for _ in 0..500 {
        if !tools::output("fuser", [&ntfs]).status.success() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    for (kind, image) in [("squashfs", &image), ("ntfs", &ntfs)] {
        let fs = hyper2kvm::fs::open::open(kind, FileDisk::open(image)).unwrap().unwrap();
        for name in NAMES {
            let file = fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap();
            check(&*fs, file);
            let held: u64 = of_driver(&*fs, file, 0..u64::MAX).iter().map(|part| part.end - part.start).sum();
            let most = match name {
                "empty" | "hole" => 0,
                "full" => 300_000,
                "many" => 400 * 131_072,
                _ => 2 << 17,
            };
            assert!(held <= most && (held > 0 || most == 0), "{kind} {name}: {held}");
        }
    }
}

/// GNU tar unpacks what was archived with all holes, and a copy has them too.
#[test]
fn holes_stay_holes_outside() {
    let lab = Lab::new();
    let copy = lab.copy(&Variant::Plain.raw(), "sparse.raw");
    let mounted = Mounted::writable(&copy, &lab, "mounted");
    let dir = mounted.path().join("srv/holes");
    std::fs::create_dir(&dir).unwrap();
    fill(&dir);
    let long = "n".repeat(200);
    std::fs::rename(dir.join("one"), dir.join(&long)).unwrap();
    mounted.close();
    let mounted = Mounted::read_only(&copy, &lab, "again");
    let dir = mounted.path().join("srv/holes");
    let (sparse, plain) = (lab.path("sparse.tar"), lab.path("plain.tar"));
    let guest = |command: &str| Run::new(["guest".as_ref(), command.as_ref(), copy.as_os_str()]).arg("/srv/holes");
    guest("tar").arg("-o").arg(&sparse).success();
    guest("tar").arg("-o").arg(&plain).arg("--no-sparse").success();
    guest("cp").arg(lab.path("copied")).success();
    assert!(std::fs::metadata(&sparse).unwrap().len() < 6 << 20);
    assert!(std::fs::metadata(&plain).unwrap().len() > 130 << 20);
    for (program, archive) in [("tar", &sparse), ("bsdtar", &sparse), ("tar", &plain)] {
        let out = lab.folder("out");
        tools::ok(program, [Path::new("-xf"), archive, Path::new("-C"), &out]);
        compare(&dir, &out, &long, archive == &sparse);
        std::fs::remove_dir_all(out).unwrap();
    }
    compare(&dir, &lab.path("copied"), &long, true);
    let listed = tools::ok(
        "python3",
        ["-c", "import sys,tarfile; print(sum(m.size for m in tarfile.open(sys.argv[1])))"]
            .map(Path::new)
            .into_iter()
            .chain([sparse.as_path()]),
    );
    let sizes: u64 = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(listed.trim(), sizes.to_string());
    mounted.close();
}

fn compare(from: &Path, to: &Path, long: &str, is_sparse: bool) {
    for name in NAMES {
        let name = if name == "one" { long } else { name };
        assert!(std::fs::read(from.join(name)).unwrap() == std::fs::read(to.join(name)).unwrap(), "{name}");
        if is_sparse {
            let used = |dir: &Path| std::fs::metadata(dir.join(name)).unwrap().blocks() * 512;
            assert!(used(to) <= used(from) + (1 << 20), "{name}: {} for {}", used(to), used(from));
        }
    }
}
