//! `convert` on file systems that share bytes between files: XFS and btrfs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Lab, Mounted, NOBODY, Run, Variant, tools};

const MIB: u64 = 1 << 20;

/// A file system that shares, with the beginning of the guest's disk on it: raw, as a flat and a sparse VMDK, and as qcow2.
struct Place {
    mounted: Mounted,
}

impl Place {
    fn new(kind: &str, lab: &Lab) -> Self {
        let mounted = Mounted::new(kind, 1024, lab, kind);
        let place = Self { mounted };
        let copy =
            [format!("if={}", Variant::Plain.raw().display()), format!("of={}", place.path("disk.raw").display())];
        // As it comes from somewhere else: without a hole.
        tools::ok("dd", copy.into_iter().chain(["bs=1M", "count=96", "status=none"].map(str::to_owned)));
        for (format, options, name) in [
            ("vmdk", "subformat=monolithicFlat", "flat.vmdk"),
            ("vmdk", "subformat=monolithicSparse", "sparse.vmdk"),
            ("qcow2", "compat=1.1", "disk.qcow2"),
            ("vhdx", "subformat=dynamic", "disk.vhdx"),
        ] {
            let args = ["convert", "-S", "0", "-O", format, "-o", options].map(Path::new);
            tools::ok("qemu-img", args.into_iter().chain([place.path("disk.raw").as_path(), &place.path(name)]));
        }
        tools::ok("sync", ["--file-system".as_ref(), place.path("disk.raw").as_os_str()]);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounted.path().join(name)
    }

    /// Converts as a plain user; gives what is said of the output.
    fn convert(&self, lab: &Lab, source: &str, target: &str, flags: &[&str]) -> Value {
        let run = Run::new(["convert", "--json", "--force", "--format", source.rsplit('.').next().expect("a suffix")]);
        let run = flags.iter().fold(run, |run, flag| run.arg(flag));
        let ran = run.arg(self.path(source)).arg(self.path(target)).user(NOBODY, lab).success();
        ran.json()["output"].clone()
    }
}

/// Bytes of a file that lie in extents which another file has, too, as the file system tells.
fn shared(file: &Path) -> u64 {
    tools::ok("sync", ["--file-system".as_ref(), file.as_os_str()]);
    let table = tools::ok("filefrag", ["-v", "-b4096"].map(Path::new).into_iter().chain([file]));
    let extents = table.lines().filter(|line| line.contains("shared"));
    let blocks = extents.map(|line| {
        let field = line.split(':').nth(3).expect("the length of an extent");
        field.trim().parse::<u64>().expect("a number")
    });
    blocks.sum::<u64>() * 4096
}

fn bytes(report: &Value, name: &str) -> u64 {
    report["bytes"][name].as_u64().expect("a number")
}

#[test]
fn what_lies_as_it_is_in_a_file_is_shared() {
    let lab = Lab::new();
    for kind in ["xfs", "btrfs"] {
        let place = Place::new(kind, &lab);
        for source in ["disk.raw", "flat.vmdk", "sparse.vmdk", "disk.qcow2", "disk.vhdx"] {
            for target in ["out.raw", "out.qcow2"] {
                let format = target.rsplit('.').next().expect("a suffix");
                for verify in ["off", "on"] {
                    let report = place.convert(&lab, source, target, &["--verify", verify]);
                    let case = format!("{kind}: {source} to {target}, verify {verify}: {report}");
                    let output = place.path(target);
                    tools::assert_same_content(("raw", &place.path("disk.raw")), (format, &output));
                    if format == "qcow2" {
                        tools::assert_clean_qcow2(&output);
                    }
                    let told = bytes(&report, "shared");
                    assert!(told > 8 * MIB && shared(&output) >= told - MIB, "{} of {case}", shared(&output));
                    if verify == "off" {
                        assert_eq!((told, bytes(&report, "read")), (96 * MIB, 0), "{case}");
                        assert_eq!(report["digest"], Value::Null, "{case}");
                    } else {
                        assert_eq!((&report["verified"], bytes(&report, "read")), (&true.into(), 96 * MIB), "{case}");
                        assert!(bytes(&report, "zero") > 10 * MIB, "{case}");
                    }
                }
            }
        }
        // Compressed clusters have no other file's bytes.
        let report = place.convert(&lab, "disk.raw", "out.qcow2", &["--compress", "zstd", "--verify", "off"]);
        assert_eq!((bytes(&report, "shared"), shared(&place.path("out.qcow2"))), (0, 0));
    }
}

#[test]
fn another_file_system_gets_a_copy() {
    let lab = Lab::new();
    let place = Place::new("xfs", &lab);
    let other = Mounted::new("xfs", 320, &lab, "other");
    let target = other.path().join("out.qcow2");
    let run = Run::new(["convert", "--json", "--verify", "off", "--format", "raw"]);
    let report = run.arg(place.path("disk.raw")).arg(&target).user(NOBODY, &lab).success().json();
    assert_eq!(bytes(&report["output"], "shared"), 0);
    assert_eq!(bytes(&report["output"], "read"), 96 * MIB);
    tools::assert_same_content(("raw", &place.path("disk.raw")), ("qcow2", &target));
}

#[test]
fn a_killed_run_that_shares_is_gone_on_with() {
    let lab = Lab::new();
    let place = Place::new("xfs", &lab);
    for (target, verify) in [("out.raw", "off"), ("out.qcow2", "off"), ("out.qcow2", "on")] {
        let whole = place.convert(&lab, "flat.vmdk", target, &["--verify", verify]);
        let right = place.path("right");
        std::fs::rename(place.path(target), &right).expect("renaming");
        for nth in [1, 2] {
            let run = Run::new(["convert", "--verify", verify]).arg(place.path("flat.vmdk")).arg(place.path(target));
            run.killed_at("ioctl", nth, &lab.path("strace.log")).ran();
            assert!(!place.path(target).exists());
            let run = Run::new(["convert", "--json", "--verify", verify]).arg(place.path("flat.vmdk"));
            let report = run.arg(place.path(target)).success().json();
            assert_eq!(report["output"]["digest"], whole["digest"]);
            tools::ok("cmp", [&right, &place.path(target)]);
            std::fs::remove_file(place.path(target)).expect("removing");
        }
    }
}
