//! Real mounts, as root and as a plain user. They run as root, on Linux, with fuse3, util-linux and coreutils.

#![allow(clippy::disallowed_methods, reason = "tests run the example and the system's own tools")]
#![allow(clippy::unwrap_used, reason = "a test's helper fails as the test itself does")]

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::SeekFrom;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A length that is no multiple of anything: 9 MiB and a bit.
const LEN: u64 = 9 * MIB + 12_345;

/// The user that plain mounts run as.
const NOBODY: u32 = 65534;

#[test]
fn root_mounts_reads_and_unmounts() {
    let mount = Served::new(User::Root, LEN, &[]);
    let expected = pattern(LEN);

    let names: Vec<_> = std::fs::read_dir(mount.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["disk.raw"]);
    let meta = std::fs::metadata(mount.file()).unwrap();
    assert_eq!((meta.len(), meta.mode(), meta.uid(), meta.gid()), (LEN, 0o100_400, 0, 0));
    assert_eq!(meta.blocks(), (LEN / 2).div_ceil(512));
    assert!(std::fs::read(mount.file()).unwrap() == expected);

    let error = OpenOptions::new().write(true).open(mount.file()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(std::fs::write(mount.dir().join("new"), "x").is_err());
    assert!(std::fs::read_dir(mount.file()).is_err());
    assert!(File::open(mount.dir().join("missing")).is_err());

    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(mount.dir().to_str().unwrap())).unwrap();
    assert!(line.contains(" ro,nosuid,nodev,noatime") && !line.contains("allow_other"), "{line}");
    assert!(line.contains(" hyper2kvm "), "{line}");

    mount.umount();
}

#[test]
fn every_read_is_right_with_and_without_the_page_cache() {
    let expected = pattern(LEN);
    for args in [&[][..], &["--cache"], &["--threads", "1"]] {
        let mount = Served::new(User::Root, LEN, args);
        let file = File::open(mount.file()).unwrap();
        for (offset, len) in [(0, 1), (511, 2), (MIB - 1, 2), (MIB - 4096, 8193), (3, 3 << 20), (LEN - 1, 1)] {
            let mut buf = vec![0xff; len];
            file.read_exact_at(&mut buf, offset).unwrap();
            assert!(buf == expected[offset as usize..][..len], "{args:?} {offset} {len}");
        }
        let mut buf = [0; 100];
        assert_eq!(file.read_at(&mut buf, LEN - 30).unwrap(), 30);
        assert_eq!(file.read_at(&mut buf, LEN).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, LEN + MIB).unwrap(), 0);
        drop(file);
        mount.umount();
    }
}

#[test]
fn a_plain_user_mounts_through_fusermount3_for_that_user_alone() {
    let mount = Served::new(User::Nobody, LEN, &[]);
    let sum = mount.user.run(["sha256sum".as_ref(), mount.file().as_os_str()]);
    assert!(sum.status.success(), "{sum:?}");
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&hex(&pattern(LEN))));
    let stat = mount.user.run(["stat".as_ref(), "-c%u %a".as_ref(), mount.file().as_os_str()]);
    assert_eq!(String::from_utf8(stat.stdout).unwrap().trim(), format!("{NOBODY} 400"));

    let other = File::open(mount.file()).unwrap_err();
    assert_eq!(other.kind(), std::io::ErrorKind::PermissionDenied, "even root is kept out");
    mount.umount();
}

#[test]
fn holes_show_as_holes() {
    let mount = Served::new(User::Root, LEN, &[]);
    let file = File::open(mount.file()).unwrap();
    let data = |offset| rustix::fs::seek(&file, SeekFrom::Data(offset)).ok();
    let hole = |offset| rustix::fs::seek(&file, SeekFrom::Hole(offset)).ok();
    assert_eq!((data(0), hole(0)), (Some(0), Some(MIB)));
    assert_eq!((data(MIB), hole(MIB)), (Some(2 * MIB), Some(MIB)));
    assert_eq!((data(MIB + 7), hole(2 * MIB + 7)), (Some(2 * MIB), Some(3 * MIB)));
    assert_eq!((data(8 * MIB + 1), hole(8 * MIB)), (Some(8 * MIB + 1), Some(9 * MIB)));
    assert_eq!((data(9 * MIB), hole(9 * MIB)), (None, Some(9 * MIB)));
    assert_eq!((data(LEN), hole(LEN)), (None, None));
    assert_eq!(rustix::fs::seek(&file, SeekFrom::End(0)).unwrap(), LEN);
    drop(file);

    let copy = mount.scratch("copy.raw");
    run(Command::new("cp").arg("--sparse=auto").arg(mount.file()).arg(&copy));
    assert!(std::fs::read(&copy).unwrap() == pattern(LEN));
    assert!(std::fs::metadata(&copy).unwrap().blocks() * 512 < 6 * MIB, "the copy is sparse");
    mount.umount();
}

#[test]
fn many_readers_at_once() {
    let mount = Served::new(User::Root, 64 * MIB, &["--delay", "300"]);
    let expected = hex(&pattern(64 * MIB));
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| hex(&std::fs::read(mount.file()).unwrap()))).collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), expected);
        }
    });
    mount.umount();
}

#[test]
fn a_failed_read_is_an_io_error_and_the_rest_stays_readable() {
    let mount = Served::new(User::Root, LEN, &["--fail"]);
    let file = File::open(mount.file()).unwrap();
    let mut buf = [0; 4096];
    assert_eq!(file.read_exact_at(&mut buf, 2 * MIB).unwrap_err().raw_os_error(), Some(5));
    file.read_exact_at(&mut buf, 4 * MIB).unwrap();
    drop(file);
    mount.umount();
}

#[test]
fn a_loop_device_can_lie_on_it() {
    let mount = Served::new(User::Root, 8 * MIB, &[]);
    let device = run(Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(mount.file()));
    let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
    let bytes = std::fs::read(&device);
    run(Command::new("losetup").args(["--detach", &device]));
    assert!(bytes.unwrap() == pattern(8 * MIB));
    mount.umount();
}

#[test]
fn a_signal_unmounts() {
    for user in [User::Root, User::Nobody] {
        let mut mount = Served::new(user, LEN, &[]);
        mount.signal(rustix::process::Signal::TERM);
        assert!(mount.child.wait().unwrap().success());
        assert!(!is_mount_point(mount.dir()));
    }
}

#[test]
fn a_signal_unmounts_what_is_in_use() {
    let mut mount = Served::new(User::Root, LEN, &[]);
    let file = File::open(mount.file()).unwrap();
    mount.signal(rustix::process::Signal::TERM);
    assert_eq!(mount.child.wait().unwrap().code(), Some(3), "busy");
    assert!(!is_mount_point(mount.dir()));
    assert!(file.read_at(&mut [0; 10], 0).is_err());
}

#[test]
fn a_killed_process_leaves_a_dead_mount_that_is_explained() {
    for user in [User::Root, User::Nobody] {
        let mut mount = Served::new(user, LEN, &[]);
        mount.child.kill().unwrap();
        mount.child.wait().unwrap();
        let said = mount.place.refusal(user, mount.dir());
        assert!(said.starts_with("[fuse.dead-mount]"), "{said}");
        assert!(said.contains(&format!("fusermount3 -u {}", mount.dir().display())), "{said}");
        let cleared = user.run(["fusermount3".as_ref(), "-u".as_ref(), mount.dir().as_os_str()]);
        assert!(cleared.status.success(), "the advice works: {cleared:?}");
        assert!(!is_mount_point(mount.dir()));
    }
}

#[test]
fn a_place_that_is_not_fit_is_refused() {
    let mount = Served::new(User::Root, LEN, &[]);
    let root = Place::new(User::Root);
    let refusal = |dir: &Path| root.refusal(User::Root, dir);
    assert!(refusal(mount.dir()).starts_with("[fuse.already-mounted]"));
    mount.umount();

    let dir = TempDir::new().unwrap();
    let (missing, file) = (dir.path().join("missing"), dir.path().join("file"));
    assert!(refusal(&missing).starts_with("[fuse.place-missing]"));
    std::fs::write(&file, "").unwrap();
    assert!(refusal(dir.path()).starts_with("[fuse.place-not-empty]"));
    assert!(refusal(&file).starts_with("[fuse.place-not-directory]"));

    let theirs = TempDir::new().unwrap();
    std::fs::set_permissions(theirs.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let said = Place::new(User::Nobody).refusal(User::Nobody, theirs.path());
    assert!(said.starts_with("[fuse.mount]") && said.contains("write access"), "{said}");
}

#[test]
fn a_missing_helper_is_named() {
    let (place, dir) = (Place::new(User::Nobody), TempDir::new().unwrap());
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = User::Nobody.command(&place.program);
    let output = command.env("FUSERMOUNT_PATH", "/nonexistent/fusermount3").arg(dir.path()).arg("1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("[fuse.helper-missing]") && said.contains("install the package fuse3"), "{said}");
}

/// The file behind it differs from what the program serves, so that a read tells who answered.
#[test]
fn the_kernel_reads_a_file_behind_it_by_itself_for_root_alone() {
    let expected = pattern(LEN);
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), vec![b'x'; expected.len()]).unwrap();
    std::fs::set_permissions(other.path(), PermissionsExt::from_mode(0o644)).unwrap();
    let args = ["--backing", other.path().to_str().unwrap()];

    let mount = Served::new(User::Root, LEN, &args);
    let passes = kernel_passes_through();
    let behind = if passes { vec![b'x'; expected.len()] } else { expected.clone() };
    let opened = File::open(mount.file()).unwrap();
    assert!(std::fs::read(mount.file()).unwrap() == behind, "passed through: {passes}");
    let direct = mount.user.run(["dd".as_ref(), "bs=1M".as_ref(), "iflag=direct".as_ref(), if_arg(&mount).as_ref()]);
    assert!(direct.stdout == expected, "direct reads are answered by the program");
    let mut buf = [0; 100];
    assert_eq!(opened.read_at(&mut buf, LEN - 30).unwrap(), 30);
    assert!(buf[..30] == behind[behind.len() - 30..]);
    drop(opened);
    mount.umount();

    let mount = Served::new(User::Nobody, LEN, &args);
    let read = mount.user.run(["cat".as_ref(), mount.file().as_os_str()]);
    assert!(read.stdout == expected, "a plain user's mount answers itself");
    mount.umount();

    // A file of another length is not the same bytes.
    let mount = Served::new(User::Root, LEN - 1, &args);
    assert!(std::fs::read(mount.file()).unwrap() == expected[..expected.len() - 1]);
    mount.umount();
}

fn if_arg(mount: &Served) -> std::ffi::OsString {
    let mut arg = std::ffi::OsString::from("if=");
    arg.push(mount.file());
    arg
}

/// Linux 6.9 brought it; no distribution switches it off.
fn kernel_passes_through() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 9)
}

/// Whom a mount belongs to.
#[derive(Clone, Copy)]
enum User {
    Nobody,
    Root,
}

impl User {
    fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        match self {
            Self::Root => Command::new(program),
            Self::Nobody => {
                let id = NOBODY.to_string();
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(program);
                command
            }
        }
    }

    fn id(self) -> u32 {
        match self {
            Self::Nobody => NOBODY,
            Self::Root => 0,
        }
    }

    fn run<'a>(self, argv: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Output {
        let mut argv = argv.into_iter();
        self.command(argv.next().unwrap()).args(argv).output().unwrap()
    }
}

/// The example program, serving in a directory of its own.
struct Served {
    child: Child,
    user: User,
    mnt: PathBuf,
    place: Place,
}

impl Served {
    fn new(user: User, len: u64, args: &[&str]) -> Self {
        let place = Place::new(user);
        let mnt = place.dir.path().join("mnt");
        std::fs::create_dir(&mnt).unwrap();
        std::os::unix::fs::chown(&mnt, Some(user.id()), Some(user.id())).unwrap();
        let mut command = user.command(&place.program);
        let mut child = command.arg(&mnt).arg(len.to_string()).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "mounted");
        Self { child, user, mnt, place }
    }

    fn dir(&self) -> &Path {
        &self.mnt
    }

    fn file(&self) -> PathBuf {
        self.mnt.join("disk.raw")
    }

    fn scratch(&self, name: &str) -> PathBuf {
        self.place.dir.path().join(name)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// As a user does it; the program must notice and end well.
    fn umount(mut self) {
        let output = self.user.run(["fusermount3".as_ref(), "-u".as_ref(), self.dir().as_os_str()]);
        assert!(output.status.success(), "{output:?}");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if is_mount_point(self.dir()) {
            let _ = rustix::mount::unmount(self.dir(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A directory that a user owns, with a copy of the example in it that the user can run.
struct Place {
    dir: TempDir,
    program: PathBuf,
}

impl Place {
    fn new(user: User) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount as root and as another user: run them as root"
        );
        // The mode that udev's rule of the package fuse3 gives it.
        std::fs::set_permissions("/dev/fuse", PermissionsExt::from_mode(0o666)).unwrap();
        let tests = std::env::current_exe().unwrap();
        let example = tests.parent().unwrap().with_file_name("examples").join("pattern");
        assert!(example.exists(), "cargo test -p hyper2kvm-fuse builds {}", example.display());
        let dir = TempDir::new().unwrap();
        let program = dir.path().join("pattern");
        // Another process copies it: a copy made here could be open for writing in what another test forks just then, and a program
        // that is open for writing cannot be run.
        let copied = Command::new("install").args(["-m", "755"]).arg(&example).arg(&program).status().unwrap();
        assert!(copied.success());
        std::os::unix::fs::chown(dir.path(), Some(user.id()), Some(user.id())).unwrap();
        Self { dir, program }
    }

    /// What the example says when it cannot mount on `dir`.
    fn refusal(&self, user: User, dir: &Path) -> String {
        let output = user.command(&self.program).arg(dir).arg("1").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }
}

fn is_mount_point(dir: &Path) -> bool {
    let mut table = String::new();
    File::open("/proc/self/mountinfo").unwrap().read_to_string(&mut table).unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// The bytes that the example shows.
fn pattern(len: u64) -> Vec<u8> {
    let block: Vec<u8> = (0..MIB / 8).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let zeros = vec![0; block.len()];
    let mut bytes: Vec<u8> = [block, zeros].concat().repeat((len / MIB / 2 + 1) as usize);
    bytes.truncate(len as usize);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}
