//! `guest`: the files inside, compared with what the kernel shows of the same file system.

use std::path::Path;
use std::process::Command;

use crate::support::{Lab, Mounted, NOBODY, Run, Tree, Variant, tools};

fn guest(command: &str, source: &Path) -> Run {
    Run::new(["guest".as_ref(), command.as_ref(), source.as_os_str()])
}

#[test]
fn an_archive_unpacks_to_what_the_kernel_shows() {
    let lab = Lab::new();
    let archive = lab.path("guest.tar");
    guest("tar", &Variant::Plain.ova()).arg("-o").arg(&archive).success();
    let unpacked = lab.folder("unpacked");
    let args = ["--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--preserve-permissions", "--file"];
    tools::ok("tar", args.map(Path::new).into_iter().chain([&*archive, Path::new("--directory"), &unpacked]));
    let mounted = Mounted::read_only(&Variant::Plain.raw(), &lab, "mounted");
    let (ours, kernels) = (Tree::read(&unpacked), Tree::read(mounted.path()));
    assert!(kernels.len() > 10_000);
    let changes = kernels.changes(&ours);
    assert!(changes.is_empty(), "{} differ, such as {:?}", changes.len(), changes.iter().next());
    mounted.close();
    guest("tar", &Variant::Plain.ova()).arg("/etc").arg("-o").arg(&archive).fails_with(5);
}

#[test]
fn digests_are_those_of_sha256sum() {
    let lab = Lab::new();
    let mounted = Mounted::read_only(&Variant::Plain.raw(), &lab, "mounted");
    let ours = guest("sha256", &Variant::Plain.vmdk("stream")).args(["/etc", "/usr/sbin"]).success();
    #[allow(clippy::disallowed_methods, reason = "a test runs the peer")]
    let theirs = Command::new("sh")
        .args(["-c", "find etc/ usr/sbin/ -type f -print0 | sort -z | xargs -0 sha256sum | sed 's, , /,2'"])
        .current_dir(mounted.path())
        .env("LC_ALL", "C")
        .output()
        .expect("sh");
    let lines = |text: &str| -> std::collections::BTreeSet<String> { text.lines().map(str::to_owned).collect() };
    let theirs = lines(&String::from_utf8_lossy(&theirs.stdout));
    assert!(theirs.len() > 200);
    assert_eq!(lines(&ours.stdout), theirs);
    mounted.close();
}

#[test]
fn a_plain_user_copies_files_out() {
    let lab = Lab::new();
    let folder = lab.folder_of(NOBODY, "mine");
    let image = lab.link(&Variant::Plain.ova(), "guest.ova");
    let run = |path: &str, to: &Path| guest("cp", &image).arg(path).arg(to).user(NOBODY, &lab);
    run("/etc", &folder).success();
    run("/etc", &folder).fails_with(5);
    run("/etc/hostname", &folder.join("name")).success();
    let mounted = Mounted::read_only(&Variant::Plain.raw(), &lab, "mounted");
    let (ours, kernels) = (Tree::read(&folder.join("etc")), Tree::read(&mounted.path().join("etc")));
    assert_eq!(ours.len(), kernels.len());
    for (path, change) in kernels.changes(&ours) {
        let (was, is) = (change.before.expect("it is there"), change.after.expect("it was copied"));
        // Owners, links and set-id bits are not a plain user's to copy, nor are attributes.
        assert_eq!((was.kind, was.mode & 0o777, was.size), (is.kind, is.mode & 0o7777, is.size), "{}", path.display());
        assert_eq!(
            (was.modified, &was.target, was.content),
            (is.modified, &is.target, is.content),
            "{}",
            path.display()
        );
    }
    let content = |path: &Path| std::fs::read(path).expect("a file");
    assert_eq!(content(&folder.join("name")), content(&mounted.path().join("etc/hostname")));
    mounted.close();
}

#[test]
fn names_contents_and_facts() {
    let source = Variant::Plain.ova();
    let listed = guest("ls", &source).arg("/").success().stdout;
    assert!(listed.lines().any(|line| line == "etc") && listed.lines().any(|line| line == "bin"), "{listed}");
    let long = guest("ls", &source).args(["-l", "/etc/passwd"]).success().stdout;
    assert!(long.starts_with("-rw-r--r--   1     0     0"), "{long}");
    let found = guest("find", &source).args(["/boot", "--name", "vmlinuz*", "--type", "file"]).success().stdout;
    assert!(found.lines().count() == 1 && found.starts_with("/boot/vmlinuz-"), "{found}");
    let passwd = guest("cat", &source).arg("/etc/passwd").success().stdout;
    assert!(passwd.starts_with("root:x:0:0:"), "{passwd}");
    let tree = guest("tree", &source).args(["/boot", "--level", "1"]).success().stdout;
    assert!(tree.lines().any(|line| line == "  grub/"), "{tree}");
    let df = guest("df", &source).arg("--json").success().json();
    assert_eq!((&df["file_systems"][0]["volume"], &df["file_systems"][0]["type"]), (&"sda1".into(), &"ext4".into()));
    let stat = guest("stat", &source).args(["/bin", "--json"]).success().json();
    assert_eq!((&stat["entries"][0]["kind"], &stat["entries"][0]["target"]), (&"link".into(), &"usr/bin".into()));
    // A link of the guest that leads up and up stays inside.
    guest("cat", &source).arg("/../../../etc/passwd").success();
    guest("cat", &source).arg("/proc/version").fails_with(4);
    guest("ls", &source).args(["--part", "7"]).fails_with(4).stderr_contains("sda1 (ext4)");
    guest("find", &source).args(["--name", "[a"]).fails_with(2);
}

#[test]
fn differences_between_two_states_of_a_guest() {
    let raw = Variant::Plain.raw();
    guest("diff", &Variant::Plain.ova()).arg(&raw).arg("/etc").success();
    let lab = Lab::new();
    let copy = lab.copy(&raw, "later.raw");
    let mounted = Mounted::writable(&copy, &lab, "later");
    std::fs::write(mounted.path().join("etc/motd"), "changed").expect("writing");
    std::fs::write(mounted.path().join("etc/new"), "new").expect("writing");
    std::fs::remove_file(mounted.path().join("etc/issue")).expect("removing");
    mounted.close();
    let told = guest("diff", &raw).arg(&copy).arg("/etc").ran().exits_with(6).stdout;
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines.contains(&"- /etc/issue") && lines.contains(&"+ /etc/new"), "{told}");
    assert!(lines.iter().any(|line| line.starts_with("* /etc/motd")), "{told}");
    // The directory itself keeps its mode and owner; its time is not looked at.
    assert_eq!(lines.len(), 3, "{told}");
}
