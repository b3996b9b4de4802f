//! `convert` to what is not a new file: block devices and pipes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::support::{Lab, Loop, Mounted, Run, Variant, tools};

const MIB: usize = 1 << 20;

/// What was on the device before.
const OLD: u8 = 0xa5;

/// A file of so many mebibytes of what somebody left behind.
fn used(lab: &Lab, name: &str, mebibytes: usize) -> PathBuf {
    let path = lab.path(name);
    let mut file = File::create(&path).expect("a file");
    (0..mebibytes).for_each(|_| file.write_all(&[OLD; MIB]).expect("writing"));
    path
}

/// A disk of 48 MiB with data, zeros and holes, in a VMDK and as it is.
fn disk(lab: &Lab) -> (PathBuf, PathBuf) {
    let (raw, vmdk) = (lab.path("disk.raw"), lab.path("disk.vmdk"));
    let part = |skip: &str, seek: &str, count: &str| {
        let source = format!("if={}", Variant::Plain.raw().display());
        let target = format!("of={}", raw.display());
        let numbers = [format!("skip={skip}"), format!("seek={seek}"), format!("count={count}")];
        let fixed = ["bs=1M", "conv=notrunc", "status=none"].map(str::to_owned);
        tools::ok("dd", [source, target].into_iter().chain(numbers).chain(fixed));
    };
    part("0", "0", "16");
    part("100", "30", "4");
    File::options().write(true).open(&raw).and_then(|file| file.set_len(48 << 20)).expect("a length");
    tools::ok("qemu-img", ["convert", "-O", "vmdk"].map(Path::new).into_iter().chain([raw.as_path(), &vmdk]));
    (raw, vmdk)
}

#[test]
fn block_devices_volumes_and_discs_are_read() {
    let lab = Lab::new();
    let tree = lab.folder("tree");
    fs::write(tree.join("file"), [7; 5000]).expect("writing");
    let disc = lab.path("disc.iso");
    let words = ["-quiet", "-o"].map(Path::new);
    tools::ok("genisoimage", words.into_iter().chain([disc.as_path(), &tree]));
    let volume = lab.file("volume.raw", vec![0; 24 * MIB]);
    tools::ok("mke2fs", ["-q", "-t", "ext4", "-F"].map(Path::new).into_iter().chain([volume.as_path()]));
    let device = Loop::over(&volume);
    for (source, raw) in [(disc.as_path(), &disc), (device.path(), &volume)] {
        let target = lab.path("out.qcow2");
        Run::new(["convert", "--force"]).arg(source).arg(&target).success();
        tools::assert_same_content(("raw", raw), ("qcow2", &target));
    }
}

fn onto(source: &Path, device: &Loop) -> Run {
    Run::new(["convert", "--force", "--to", "raw"]).arg(source).arg(device.path())
}

/// The first bytes of a device.
fn beginning(device: &Path) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    File::open(device).and_then(|mut file| file.read_exact(&mut bytes)).expect("reading");
    bytes
}

#[test]
fn a_device_is_overwritten_only_when_told_to() {
    let lab = Lab::new();
    let (raw, vmdk) = disk(&lab);
    let file = used(&lab, "device", 64);
    let device = Loop::over(&file);
    Run::new(["convert", "--to", "raw"]).arg(&vmdk).arg(device.path()).fails_with(5).code("output.exists");
    assert!(beginning(device.path()).iter().all(|byte| *byte == OLD));

    let report = onto(&vmdk, &device).arg("--json").success().json();
    assert_eq!(report["output"]["verified"], true);
    // The device is longer than the disk, which is not compared.
    tools::ok("cmp", ["-n", &(48 << 20).to_string()].map(Path::new).into_iter().chain([raw.as_path(), device.path()]));
    let left = fs::read(&file).expect("the device's file");
    assert!(left[48 * MIB..49 * MIB].iter().chain(&left[63 * MIB..]).all(|byte| *byte == 0), "old labels are gone");
    assert!(left[49 * MIB..63 * MIB].iter().all(|byte| *byte == OLD), "the rest is left");
    // Nothing was left in /dev.
    assert!(!device.path().with_extension("partial").exists() && !device.path().with_extension("journal").exists());

    Run::new(["convert", "--force", "--to", "qcow2"]).arg(&vmdk).arg(device.path()).success();
    tools::assert_clean_qcow2(device.path());
    tools::assert_same_content(("raw", &raw), ("qcow2", device.path()));
    Run::new(["convert", "--force", "--to", "vhdx"])
        .arg(&vmdk)
        .arg(device.path())
        .fails_with(2)
        .code("convert.stream")
        .stderr_contains("raw");
    tools::assert_same_content(("raw", &raw), ("qcow2", device.path()));
}

#[test]
fn devices_that_are_too_small_in_use_or_the_source_are_refused() {
    let lab = Lab::new();
    let (_, vmdk) = disk(&lab);
    let file = used(&lab, "small", 47);
    let small = Loop::over(&file);
    onto(&vmdk, &small).fails_with(1).code("output.space");
    Run::new(["convert", "--force", "--format", "raw"])
        .args([small.path(), small.path()].map(|path| path.to_str().expect("a name")))
        .fails_with(2)
        .code("output.source");
    assert!(fs::read(&file).expect("the device's file").iter().all(|byte| *byte == OLD));

    let image = lab.path("mounted");
    tools::ok("truncate", ["--size=64M".as_ref(), image.as_os_str()]);
    tools::ok("mkfs.ext4", ["-q".as_ref(), image.as_os_str()]);
    let device = Loop::over(&image);
    let mounted = Mounted::device(device.path(), &lab, "point");
    fs::write(mounted.path().join("file"), "precious").expect("a file");
    onto(&vmdk, &device).fails_with(1).code("output.in-use");
    assert_eq!(fs::read_to_string(mounted.path().join("file")).expect("a file"), "precious");
}

#[test]
fn a_killed_run_leaves_no_beginning_and_the_next_one_starts_over() {
    let lab = Lab::new();
    let (raw, vmdk) = disk(&lab);
    let file = used(&lab, "device", 48);
    let device = Loop::over(&file);
    for call in ["pwrite64", "fsync"] {
        for nth in [1, 2, 9] {
            let log = lab.path("strace.log");
            onto(&vmdk, &device).killed_at(call, nth, &log).ran();
            let bytes = beginning(device.path());
            let untouched = bytes.iter().all(|byte| *byte == OLD);
            let whole = bytes == fs::read(&raw).expect("the disk")[..MIB];
            assert!(untouched || whole || bytes.iter().all(|byte| *byte == 0), "{call} {nth}");
        }
    }
    onto(&vmdk, &device).success();
    tools::assert_same_content(("raw", &raw), ("raw", device.path()));
}

/// A line for the shell, in which `$h` is the program; how it ended, and what it said.
fn shell(line: &str, files: &[&Path]) -> (Option<i32>, String) {
    let script = format!("h={}; set -o pipefail; {line}", env!("CARGO_BIN_EXE_hyper2kvm"));
    let words = ["-c", &script, "bash"].map(Path::new);
    let output = tools::output("bash", words.into_iter().chain(files.iter().copied()));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_disk_goes_through_a_pipe() {
    let lab = Lab::new();
    let (raw, vmdk) = disk(&lab);
    for line in [
        "$h convert $1 - --to raw | cmp - $2",
        "$h convert $1 - --to raw > $3; cmp $3 $2",
        "$h -q convert $1 - --to raw >> $4",
    ] {
        let (code, said) = shell(line, &[&vmdk, &raw, &lab.path("file"), &lab.path("appended")]);
        assert_eq!(code, Some(0), "{line}: {said}");
    }
    tools::assert_same_content(("raw", &raw), ("raw", &lab.path("appended")));
}

#[test]
fn what_is_said_does_not_mix_with_the_disk() {
    let lab = Lab::new();
    let (raw, vmdk) = disk(&lab);
    let (code, said) = shell("$h --json convert $1 - --to raw | cmp - $2", &[&vmdk, &raw]);
    assert_eq!(code, Some(0), "{said}");
    let report: serde_json::Value = serde_json::from_str(&said).expect("one JSON object");
    assert_eq!((&report["output"]["path"], &report["output"]["verified"]), (&"-".into(), &false.into()));

    let (code, said) = shell("$h convert $1 - --to raw | head -c 100000 > /dev/null", &[&vmdk]);
    assert!(code == Some(1) && said.contains("output.closed"), "{code:?}: {said}");
    let (code, said) = shell("$h --json convert $1 - | cat > $2", &[&vmdk, &lab.path("nothing")]);
    assert!(code == Some(2) && said.contains("convert.stream") && said.contains("raw"), "{code:?}: {said}");
    assert_eq!(fs::metadata(lab.path("nothing")).expect("a file").len(), 0, "no JSON among the bytes");
}

#[test]
fn a_reader_that_sleeps_does_not_hold_up_a_signal() {
    let lab = Lab::new();
    let (_, vmdk) = disk(&lab);
    let line = "mkfifo $2; sleep 60 < $2 & s=$!; $h convert $1 - --to raw > $2 & p=$!; sleep 1; kill -INT $p; wait $p; c=$?; kill $s; exit $c";
    let (code, said) = shell(&format!("set -m; {line}"), &[&vmdk, &lab.path("fifo")]);
    assert_eq!(code, Some(7), "{said}");
}
