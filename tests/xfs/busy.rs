//! File systems in use when the machine stopped: what the driver makes of their logs, and what the kernel does.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use hyper2kvm::fs::Filesystem;
use hyper2kvm::fs::xfs::Xfs;
use rustix::fs::{FallocateFlags, XattrFlags, fallocate, ioctl_ficlone, lremovexattr, lsetxattr};

use super::image::Image;
use super::is_in_kernel;
use super::random::Random;
use crate::ext::fill::{directory, noise};
use crate::ext::tree;
use crate::file_disk::FileDisk;
use crate::support::tools;

/// Does `count` random things to the tree, with an fsync now and then. What is open stays open: unlinked inodes.
fn work(root: &Path, random: &mut Random, count: u64, open: &mut Vec<File>) {
    for step in 0..count {
        let name = |random: &mut Random| root.join(format!("d{}/f{}", random.below(3), random.below(80)));
        let (a, b) = (name(random), name(random));
        match random.below(16) {
            0..=3 => {
                let len = usize::try_from(random.below(40_000)).unwrap();
                drop(fs::write(&a, noise(step, len)));
            }
            4 => drop(fs::rename(&a, &b)),
            5 => {
                if let Ok(file) = File::open(&a)
                    && random.below(2) == 0
                {
                    open.push(file);
                }
                drop(fs::remove_file(&a));
            }
            6 => drop(fs::hard_link(&a, &b)),
            7 => drop(symlink("t".repeat(usize::try_from(random.below(900) + 1).unwrap()), &b)),
            8 => attributes(&a, random),
            9 => {
                if let Ok(file) = File::options().write(true).open(&a) {
                    file.set_len(random.below(30_000)).unwrap();
                    file.write_all_at(b"end", random.below(400_000)).unwrap();
                }
            }
            10 | 11 => {
                let dir = root.join(format!("x{}", random.below(20)));
                if dir.exists() {
                    fs::remove_dir_all(&dir).unwrap();
                } else {
                    directory(&root.join(&dir), "", 1 + u32::try_from(random.below(200)).unwrap());
                }
            }
            12 => {
                if let Ok(file) = File::options().write(true).open(&a) {
                    let _ = fallocate(&file, FallocateFlags::empty(), random.below(100_000), 200_000);
                    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    for index in 0..random.below(20) {
                        let _ = fallocate(&file, flags, index * 20_000, 5000);
                    }
                }
            }
            13 => {
                if let (Ok(from), Ok(to)) =
                    (File::open(&a), File::options().write(true).create(true).truncate(false).open(&b))
                {
                    let _ = ioctl_ficlone(&to, &from);
                    drop(to.write_all_at(b"changed", random.below(20_000)));
                }
            }
            14 => {
                // Many extents: a tree.
                if let Ok(file) = File::options().write(true).open(&a) {
                    (0..random.below(60)).for_each(|i| file.write_all_at(b"x", i * 9000).unwrap());
                    rustix::fs::fsync(&file).unwrap();
                }
            }
            _ => {
                if let Ok(file) = File::open(&a) {
                    rustix::fs::fsync(&file).unwrap();
                }
            }
        }
    }
}

fn attributes(path: &Path, random: &mut Random) {
    let name = format!("user.{}", random.below(12));
    match random.below(4) {
        0 => lremovexattr(path, &name).unwrap_or(()),
        1 => {
            lsetxattr(path, &name, &noise(3, usize::try_from(random.below(20_000)).unwrap()), XattrFlags::empty())
                .unwrap_or(());
        }
        _ => lsetxattr(path, &name, &noise(1, usize::try_from(random.below(300)).unwrap()), XattrFlags::empty())
            .unwrap_or(()),
    }
}

/// Stops the file system as if the machine had stopped; the log is written out first if `flush`.
fn stop(root: &Path, flush: bool) {
    let command = if flush { "shutdown -f" } else { "shutdown" };
    tools::ok("xfs_io", ["-x", "-c", command].map(Path::new).into_iter().chain([root]));
}

/// Lets the machine stop again and again in the middle of its work, and compares our replay with the kernel's.
fn crashes(options: &[&str], mount: &str, seed: u64, count: u32) {
    if !is_in_kernel(options) {
        return;
    }
    let image = Image::make(320, options);
    image.mounted("rw", |root| (0..3).for_each(|dir| fs::create_dir(root.join(format!("d{dir}"))).unwrap()));
    let mut random = Random::new(seed);
    for round in 0..count {
        let copy = image.mounted(&format!("rw,{mount}"), |root| {
            let mut open = Vec::new();
            let steps = random.below(400) + 20;
            work(root, &mut random, steps, &mut open);
            if random.below(3) == 0 {
                rustix::fs::sync();
                work(root, &mut random, 30, &mut open);
            }
            // A copy of a file system in use: it is as good as one of a machine that stopped, where nothing is under way.
            let copy = (random.below(4) == 0).then(|| {
                rustix::fs::fsync(File::open(root.join("d0")).unwrap()).unwrap();
                work(root, &mut random, 10, &mut open);
                image.copy()
            });
            stop(root, random.below(2) == 0);
            copy
        });
        eprintln!("{options:?} {mount} seed {seed} round {round}");
        compare(&copy.unwrap_or_else(|| image.copy()));
    }
}

fn compare(snapshot: &Image) {
    if let Ok(place) = std::env::var("XFS_KEEP") {
        tools::ok("cp", ["--sparse=always".as_ref(), snapshot.path.as_os_str(), place.as_ref()]);
    }
    let theirs = snapshot.copy();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() - Duration::from_millis(20);
    let mut kernel = theirs.mounted("rw", tree::of_kernel);
    let read = Xfs::open(FileDisk::open(&snapshot.path)).unwrap();
    assert_eq!(read.writer().unwrap_err().code(), "xfs.read-only", "{}", read.writer().unwrap_err());
    let ours = tree::of_driver(&read);
    // The kernel's own time is the one of files whose names it finishes.
    let finished = (i64::try_from(now.as_secs()).unwrap(), now.subsec_nanos());
    let is_finished = |entry: &tree::Entry| snapshot.has_names_in_files() && entry.times[1] >= finished;
    for (path, entry) in kernel.iter_mut().filter(|(_, entry)| is_finished(entry)) {
        entry.times[1] = ours[path].times[1];
    }
    tree::assert_same(&ours, &kernel);
    assert_free_is_free(&read, &theirs);
    let was_dirty = read.facts().dirty;
    drop(read);
    let fs = Xfs::open_mut(FileDisk::open(&snapshot.path)).unwrap();
    assert_eq!(fs.facts().dirty, was_dirty);
    fs.writer().unwrap();
    tree::assert_same(&tree::of_driver(&fs), &kernel);
    drop(fs);
    // All is in place without a replay.
    snapshot.mounted("ro,norecovery", |root| tree::assert_same(&tree::of_kernel(root), &kernel));
    assert!(!Xfs::open(FileDisk::open(&snapshot.path)).unwrap().facts().dirty);
    snapshot.assert_clean();
    // The kernel goes on from there.
    snapshot.mounted("rw", |root| {
        tree::assert_same(&tree::of_kernel(root), &kernel);
        directory(root, "more", 300);
    });
    snapshot.assert_clean();
}

/// What is free for us is free for the kernel after its own replay, which frees more.
fn assert_free_is_free(fs: &Xfs, theirs: &Image) {
    let after = Xfs::open(FileDisk::open(&theirs.path)).unwrap();
    assert!(!after.facts().dirty);
    let mut free = Vec::new();
    after
        .free_ranges(&mut |range| {
            free.push(range);
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut sum = 0;
    fs.free_ranges(&mut |range| {
        sum += range.end - range.start;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(sum > 0 && !free.is_empty());
}

#[test]
fn a_machine_that_stopped_is_read_as_after_the_kernels_replay() {
    let seeds = std::env::var("XFS_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let first = std::env::var("XFS_FIRST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds.unwrap_or(1) {
        let count = if seeds.is_some() { 6 } else { 1 };
        crashes(&[], "logbsize=32k", seed, count);
        crashes(&["-m", "rmapbt=1", "-i", "nrext64=1"], "logbsize=256k", seed + 100, count);
        crashes(&["-b", "size=1024", "-n", "size=8192"], "logbsize=64k", seed + 200, count);
        crashes(&["-m", "rmapbt=1", "-n", "parent=1"], "logbsize=32k", seed + 500, count);
        crashes(&["-s", "size=4096", "-l", "su=32768"], "logbsize=128k", seed + 300, count);
        crashes(
            &["-m", "finobt=0,rmapbt=0,reflink=0,bigtime=0,inobtcount=0", "-i", "sparse=0"],
            "wsync",
            seed + 400,
            count,
        );
    }
}

/// One of several threads that take extents from files and give them others, all at once, until `stop`: changes that take
/// more than one transaction each.
fn churn(root: &Path, seed: u64, stop: &AtomicBool) {
    let mut random = Random::new(seed);
    let dir = root.join(format!("d{}", seed % 3));
    while !stop.load(Ordering::Relaxed) {
        let path = dir.join(format!("c{seed}-{}", random.below(6)));
        let Ok(file) = File::options().read(true).write(true).create(true).truncate(false).open(&path) else { return };
        let done = match random.below(5) {
            0 => (0..40_u64).try_for_each(|index| file.write_all_at(b"a piece", index * 9000)),
            1 => file.set_len(random.below(100_000)),
            2 => fs::remove_file(&path),
            3 => File::open(dir.join(format!("c{seed}-{}", random.below(6))))
                .and_then(|other| Ok(ioctl_ficlone(&file, &other)?))
                .or(Ok(())),
            _ => (0..10_u64).try_for_each(|index| file.write_all_at(&[7; 5000], index * 20_000)),
        };
        // The file system stops in the middle of it.
        if done.is_err() || (random.below(4) == 0 && rustix::fs::fsync(&file).is_err()) {
            return;
        }
    }
}

/// Stops the machine while several threads are at work, so that the log holds changes that were begun and not finished.
fn interrupted(options: &[&str], seed: u64, work: impl Fn(&Path, u64, &AtomicBool) + Sync) {
    if !is_in_kernel(options) {
        return;
    }
    let image = Image::make(320, options);
    interrupt(&image, seed, |_, _| (), work);
    eprintln!("{options:?} seed {seed}");
    compare(&image);
}

/// Has four threads at `work` in three folders, each with a seed, and stops the machine meanwhile: when each has put a file into a
/// folder, if there was something to `prepare`.
fn interrupt(
    image: &Image,
    seed: u64,
    prepare: impl FnOnce(&Path, u64),
    work: impl Fn(&Path, u64, &AtomicBool) + Sync,
) {
    image.mounted("rw", |root| {
        (0..3).for_each(|dir| fs::create_dir(root.join(format!("d{dir}"))).unwrap());
        prepare(root, seed);
    });
    let files = |root: &Path| {
        let folders = fs::read_dir(root).unwrap().map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        folders.map(Iterator::count).sum::<usize>()
    };
    image.mounted("rw", |root| {
        let (halt, before) = (AtomicBool::new(false), files(root));
        std::thread::scope(|scope| {
            let (halt, work) = (&halt, &work);
            let spawn = |index| scope.spawn(move || work(root, seed * 10 + index, halt));
            let threads: Vec<_> = (0..4).map(spawn).collect();
            while before > 0 && files(root) < before + 4 && !threads.iter().any(ScopedJoinHandle::is_finished) {
                std::thread::yield_now();
            }
            let mut random = Random::new(seed);
            (0..random.below(4) + 1).for_each(|_| rustix::fs::sync());
            stop(root, true);
            halt.store(true, Ordering::Relaxed);
        });
    });
}

/// Gives files names and attributes and takes them away.
fn rename_all(root: &Path, seed: u64, halt: &AtomicBool) {
    let mut random = Random::new(seed);
    while !halt.load(Ordering::Relaxed) {
        let mut name = || root.join(format!("d{}/{}-{}", random.below(3), seed % 10, random.below(9)));
        let (one, other) = (name(), name());
        let done = match random.below(5) {
            0 => fs::rename(&one, &other),
            1 => fs::hard_link(&one, &other),
            2 => fs::remove_file(&one),
            // Neither a value of its own blocks nor another value, which the kernel leaves half changed.
            3 => lsetxattr(&one, "user.x", &noise(seed, 90), XattrFlags::CREATE).map_err(Into::into),
            _ => fs::write(&one, b"content"),
        };
        if done.is_err_and(|error| error.raw_os_error() == Some(5)) {
            return;
        }
    }
}

/// Exchanges the many pieces of two files, all of them at once (`XFS_IOC_EXCHANGE_RANGE`).
fn exchange(root: &Path, seed: u64, _: &AtomicBool) {
    const SCRIPT: &str = "import fcntl, os, struct, sys
try:
    one, other = (os.open(sys.argv[1] + name, os.O_RDWR) for name in '01')
    while True:
        fcntl.ioctl(other, 0x40285881, struct.pack('=iIQQQQ', one, 0, 0, 0, 300 * 16384, 0))
        open(sys.argv[1] + 'begun', 'w').close()
except OSError as error:
    sys.exit(0 if error.errno == 5 else str(error))
";
    let place = exchanged(root, seed);
    tools::ok("python3", ["-c".as_ref(), SCRIPT.as_ref(), place.as_os_str()]);
}

/// What the names of the files that are exchanged for a seed begin with.
fn exchanged(root: &Path, seed: u64) -> PathBuf {
    root.join(format!("d{}/x{}-", seed % 3, seed % 10))
}

/// Makes the files of four seeds.
fn exchangeable(root: &Path, seed: u64) {
    for (seed, (name, at)) in (0..4).flat_map(|index| [("0", 0), ("1", 8192)].map(|file| (seed * 10 + index, file))) {
        let mut path = exchanged(root, seed).into_os_string();
        path.push(name);
        let file = File::create(path).unwrap();
        (0..300).for_each(|index| file.write_all_at(name.as_bytes(), index * 16384 + at).unwrap());
        file.set_len(300 * 16384).unwrap();
    }
}

/// What only the kernel finishes, exchanges that were begun, is left to it: nothing else is written then.
fn assert_left_to_the_kernel(image: &Image) -> bool {
    let theirs = image.copy();
    let kernel = theirs.mounted("rw", tree::of_kernel);
    let fs = Xfs::open_mut(FileDisk::open(&image.path)).unwrap();
    let error = fs.writer().err();
    if let Some(error) = &error {
        assert_eq!(error.code(), "xfs.feature", "{error}");
    } else {
        tree::assert_same(&tree::of_driver(&fs), &kernel);
    }
    drop(fs);
    image.mounted("rw", |root| {
        tree::assert_same(&tree::of_kernel(root), &kernel);
        directory(root, "more", 300);
    });
    error.is_some()
}

#[test]
fn changes_that_only_the_kernel_finishes_are_left_to_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("XFS_FIRST_SEED").unwrap_or(1);
    let mut left = 0;
    for seed in first..first + number("XFS_SEEDS").unwrap_or(2) {
        let options = ["-m", "rmapbt=1", "-i", "exchange=1"];
        if is_in_kernel(&options) {
            eprintln!("seed {seed}");
            let pieces = Image::make(320, &options);
            interrupt(&pieces, seed, exchangeable, exchange);
            left += u32::from(assert_left_to_the_kernel(&pieces));
            pieces.assert_clean();
        }
    }
    eprintln!("{left} were left to the kernel");
}

#[test]
fn what_was_begun_when_the_machine_stopped_is_finished() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("XFS_FIRST_SEED").unwrap_or(1);
    for seed in first..first + number("XFS_SEEDS").unwrap_or(2) {
        interrupted(&["-m", "rmapbt=1"], seed, churn);
        interrupted(&["-m", "reflink=0,rmapbt=0"], seed, churn);
        interrupted(&["-b", "size=1024"], seed, churn);
        interrupted(&["-i", "exchange=1", "-n", "parent=1"], seed, rename_all);
    }
}
