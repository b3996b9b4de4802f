//! The command line's contract: exit codes, errors that say what, where and what next, and nothing left behind.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::support::{Lab, Mounted, Ran, Run, Variant};

/// Migrates a bad source, which must fail with this exit code and leave no result.
fn migrate_fails(lab: &Lab, source: &Path, exit: i32) -> Ran {
    let out = lab.path("out");
    let ran = migrate(source, &out).fails_with(exit);
    assert_nothing_sealed(&out);
    ran
}

fn migrate(source: &Path, out: &Path) -> Run {
    Run::new(["migrate".as_ref(), source.as_os_str(), "-o".as_ref(), out.as_os_str()])
}

/// No file in the folder has a final name.
fn assert_nothing_sealed(out: &Path) {
    let Ok(entries) = fs::read_dir(out) else { return };
    let sealed: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".partial") && !name.ends_with(".journal"))
        .collect();
    assert!(sealed.is_empty(), "a failed run left {sealed:?}");
}

#[test]
fn says_its_version_and_lists_its_commands() {
    Run::new(["--version"]).success().stdout_contains(env!("CARGO_PKG_VERSION"));
    let help = Run::new(["--help"]).success();
    for command in [
        "info", "map", "bench", "explain", "convert", "migrate", "plan", "revert", "inspect", "serve", "mount",
        "attach", "test",
    ] {
        assert!(help.stdout.contains(&format!("\n  {command}")), "{command} is not in {help}");
        Run::new([command, "--help"]).success().stdout_contains("--json");
    }
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let lab = Lab::new();
    let path = lab.file("x", "x");
    for args in [vec!["--no-such-flag"], vec!["no-such-command"], vec!["migrate"], vec!["serve", "x"], vec![]] {
        Run::new(args).within(path.parent().expect("a folder")).fails_with(2);
    }
}

#[test]
fn a_source_that_is_not_there_or_not_a_file_is_unreadable() {
    let lab = Lab::new();
    for command in ["info", "map", "explain", "inspect", "plan"] {
        Run::new([command.as_ref(), lab.path("missing.ova").as_os_str()]).fails_with(3).stderr_contains("missing.ova");
    }
    migrate_fails(&lab, &lab.path("missing.ova"), 3).code("source.read");
    migrate_fails(&lab, &lab.folder("folder"), 3).code("source.type");
    migrate_fails(&lab, &lab.file("empty.vmdk", ""), 3).code("source.empty");
}

#[test]
fn text_is_not_guessed_to_be_a_raw_disk() {
    let lab = Lab::new();
    let text = lab.file("notes.txt", "root:x:0:0:root:/root:/bin/bash\n".repeat(100));
    migrate_fails(&lab, &text, 4);
    Run::new(["info".as_ref(), text.as_os_str()]).fails_with(4);
    let out = lab.path("out.qcow2");
    Run::new(["convert".as_ref(), text.as_os_str(), out.as_os_str()]).fails_with(4);
    assert!(!out.exists());
}

#[test]
fn a_disk_without_an_operating_system_is_said_to_have_none() {
    let lab = Lab::new();
    let disk = lab.path("disk.raw");
    fs::File::create(&disk).expect("a file").set_len(64 << 20).expect("its length");
    crate::support::tools::ok("mkfs.ext4", [Path::new("-q"), Path::new("-F"), &disk]);
    let ran = migrate(&disk, &lab.path("out")).arg("--format").arg("raw").fails_with(4);
    assert!(ran.stderr.contains("operating system"), "{ran}");
    assert_nothing_sealed(&lab.path("out"));
}

#[test]
fn a_truncated_ova_is_corrupt() {
    let lab = Lab::new();
    let whole = fs::metadata(Variant::Plain.ova()).expect("the fixture").len();
    // Within the OVF, within the disk's grains, just before its footer, and without the archive's end.
    for (index, length) in [700, 512 * 1000, whole / 2, whole - 12 * 1024].into_iter().enumerate() {
        let ova = lab.copy(&Variant::Plain.ova(), &format!("{index}.ova"));
        fs::OpenOptions::new().write(true).open(&ova).expect("the copy").set_len(length).expect("truncating");
        migrate_fails(&lab, &ova, 4);
        fs::remove_file(ova).expect("removing");
    }
}

#[test]
fn a_wrong_digest_in_the_manifest_is_found() {
    let lab = Lab::new();
    // A flipped byte in the middle of the disk's compressed data, and one in the manifest itself.
    for (index, part) in [b"\0".as_slice(), b"SHA256(guest-disk1.vmdk)= "].into_iter().enumerate() {
        let ova = lab.copy(&Variant::Plain.ova(), &format!("{index}.ova"));
        let bytes = fs::read(&ova).expect("the copy");
        let offset = match index {
            0 => bytes.len() / 2,
            _ => bytes.windows(part.len()).position(|window| window == part).expect("the digest") + part.len(),
        };
        drop(bytes);
        flip(&ova, offset as u64);
        migrate_fails(&lab, &ova, 4);
        fs::remove_file(ova).expect("removing");
    }
}

/// Changes one hexadecimal digit, or any other byte.
fn flip(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("the file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1;
    file.write_all_at(&byte, offset).expect("a byte");
}

/// A VMDK descriptor with one flat extent of that name.
fn descriptor(extent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n\
         RW 2048 FLAT \"{extent}\" 0\n\nddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"4\"\n"
    )
}

#[test]
fn an_image_cannot_name_files_of_the_host() {
    let lab = Lab::new();
    for name in
        ["/etc/passwd", "../x", "../../../../etc/passwd", "sub/../../x", "file:///etc/passwd", "/proc/self/environ"]
    {
        let image = lab.file("evil.vmdk", descriptor(name));
        migrate_fails(&lab, &image, 5).stderr_contains(name);
        for command in ["info", "map", "explain"] {
            let ran = Run::new([command.as_ref(), image.as_os_str()]).ran();
            assert!(!ran.stdout.contains("root:x:0"), "{ran}");
        }
    }
}

#[test]
fn a_refusal_does_not_tell_whether_the_file_exists() {
    let lab = Lab::new();
    let folder = lab.folder("images");
    let said = |name: &str| {
        let image = folder.join("disk.vmdk");
        fs::write(&image, descriptor(name)).expect("a descriptor");
        let ran = Run::new(["info".as_ref(), image.as_os_str()]).ran();
        (ran.status.code(), ran.stdout.replace(name, "NAME"), ran.stderr.replace(name, "NAME"))
    };
    assert_eq!(said("/etc/passwd"), said("/etc/passwe"));
    lab.file("there", vec![0; 2048 * 512]);
    assert_eq!(said("../there"), said("../where"));
    // Nor does a symbolic link beside the image lead out of its folder.
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).expect("a link");
    std::os::unix::fs::symlink("/etc/passwe", folder.join("dead")).expect("a link");
    assert_eq!(said("link"), said("dead"));
}

#[test]
fn an_existing_result_is_kept_without_force() {
    let lab = Lab::new();
    let image = lab.file("disk.raw", vec![7; 1 << 20]);
    let out = lab.file("out.qcow2", "precious");
    let convert = || Run::new(["convert", "--format", "raw"]).arg(&image).arg(&out);
    convert().fails_with(5).stderr_contains("--force");
    assert_eq!(fs::read(&out).expect("the file"), b"precious");
    convert().arg("--force").success();
    crate::support::tools::assert_clean_qcow2(&out);
}

#[test]
fn a_full_output_disk_is_said_before_the_first_byte() {
    let lab = Lab::new();
    let small = Mounted::tmpfs(64 << 20, &lab, "small");
    migrate(&Variant::Plain.ova(), small.path()).fails_with(1).code("output.space");
    assert_nothing_sealed(small.path());
    let used: u64 = files_in(small.path()).iter().map(|path| fs::metadata(path).expect("a file").len()).sum();
    assert_eq!(used, 0, "it wrote before it looked");
}

#[test]
fn an_output_disk_that_fills_up_meanwhile_leaves_nothing() {
    let lab = Lab::new();
    let image = lab.path("disk.raw");
    let noise: Vec<u8> = Sha256::digest(b"noise").iter().copied().cycle().take(1 << 20).collect();
    fs::write(&image, noise.repeat(64)).expect("a disk");
    // No room check can foresee a file size limit, which fails in the middle as a full disk does.
    let out = lab.path("out.qcow2");
    let ran = Run::new(["convert", "--format", "raw"]).arg(&image).arg(&out).limit("--fsize=20971520").ran();
    assert_ne!(ran.status.code(), Some(0), "{ran}");
    assert!(!out.exists());
}

#[test]
fn errors_are_json_when_asked() {
    let lab = Lab::new();
    let ran = Run::new(["info", "--json"]).arg(lab.path("missing.ova")).fails_with(3);
    let error = &ran.json()["error"];
    assert_eq!(error["code"], "source.read");
    assert_eq!(error["exit_code"], 3);
    assert!(error["place"].as_str().expect("a place").ends_with("missing.ova"));
}

#[test]
fn names_from_an_image_cannot_drive_the_terminal() {
    let lab = Lab::new();
    let image = lab.file("evil.vmdk", descriptor("/\u{1b}]0;title\u{7}\u{202e}"));
    let ran = Run::new(["info".as_ref(), image.as_os_str()]).ran();
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{ran}");
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
}
