//! `convert -`: disks that come on standard input.

use std::fs::{self, File};
use std::io::{PipeReader, Read};
use std::path::{Path, PathBuf};

use crate::support::{Lab, Run, Variant, tools};

/// A pipe with these bytes.
fn pipe(bytes: Vec<u8>) -> PipeReader {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // It ends early when nobody reads on.
    std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    reader
}

/// What a file holds.
fn bytes_of(path: &Path) -> Vec<u8> {
    fs::read(path).expect("reading")
}

/// `convert - TARGET` with `file` behind a pipe.
fn convert(file: &Path, target: &Path) -> Run {
    Run::new(["convert", "-"]).arg(target).stdin(pipe(bytes_of(file)))
}

/// The first 24 MiB of the guest's disk.
fn small(lab: &Lab) -> PathBuf {
    let mut bytes = Vec::new();
    let guest = File::open(Variant::Plain.raw()).expect("the guest");
    guest.take(24 << 20).read_to_end(&mut bytes).expect("reading");
    lab.file("small.raw", bytes)
}

fn compressed(lab: &Lab, program: &str, file: &Path) -> PathBuf {
    let out = tools::output(program, [Path::new("-c"), file]);
    assert!(out.status.success(), "{program} failed");
    lab.file(&format!("{program}.packed"), out.stdout)
}

#[test]
fn a_stream_optimized_disk_is_converted_as_it_comes() {
    let lab = Lab::new();
    let ours = lab.path("ours.vmdk");
    Run::new(["convert"]).arg(small(&lab)).arg(&ours).success();
    for (source, raw) in [(Variant::Plain.vmdk("stream"), Variant::Plain.raw()), (ours, lab.path("small.raw"))] {
        let target = lab.path("out.qcow2");
        let json = convert(&source, &target).arg("--json").success().json();
        assert_eq!((&json["source"], &json["output"]["verified"]), (&"-".into(), &true.into()), "{json}");
        tools::assert_clean_qcow2(&target);
        tools::assert_same_content(("raw", &raw), ("qcow2", &target));
        let len = fs::metadata(&source).expect("the source").len();
        fs::remove_file(&target).expect("removing");
        let cut = pipe(bytes_of(&source)[..len as usize / 2].to_vec());
        Run::new(["convert", "-"]).arg(&target).stdin(cut).fails_with(4).code("vmdk.stream");
        assert!(!lab.names("").iter().any(|name| name.starts_with("out.")), "{:?}", lab.names(""));
    }
}

#[test]
fn a_raw_disk_of_a_known_length_is_converted_as_it_comes() {
    let lab = Lab::new();
    let raw = small(&lab);
    let target = lab.path("out.vhdx");
    convert(&raw, &target).fails_with(2).code("feed.length").stderr_contains("--size");
    convert(&raw, &target).arg("--size=25M").fails_with(3).code("feed.short");
    convert(&raw, &target).arg("--size=23M").fails_with(3).code("feed.long");
    assert_eq!(lab.names(""), ["small.raw"]);
    convert(&raw, &target).arg("--size=24M").success();
    tools::assert_same_content(("raw", &raw), ("vhdx", &target));
    // A file on standard input is read from where it stands, and what goes to a pipe need not be a file either.
    let through = lab.path("through.raw");
    let line = "\"$0\" convert - - --to raw --size 24M < \"$1\" | cat > \"$2\"";
    let program = Path::new(env!("CARGO_BIN_EXE_hyper2kvm"));
    tools::ok("sh", [Path::new("-c"), Path::new(line), program, &raw, &through]);
    assert!(bytes_of(&through) == bytes_of(&raw));
}

#[test]
fn what_is_compressed_is_decompressed_on_the_way() {
    let lab = Lab::new();
    let raw = small(&lab);
    let target = lab.path("out.qcow2");
    for program in ["gzip", "xz", "zstd", "bzip2"] {
        let packed = compressed(&lab, program, &raw);
        convert(&packed, &target).args(["--size=24M", "--force"]).success();
        tools::assert_same_content(("raw", &raw), ("qcow2", &target));
        let mut cut = bytes_of(&packed);
        cut.truncate(cut.len() - 3);
        let run = Run::new(["convert", "-", "--size=24M", "--force"]).arg(&target).stdin(pipe(cut)).ran();
        assert!(matches!(run.status.code(), Some(3 | 4)), "{program}: {run}");
    }
    let twice = compressed(&lab, "gzip", &compressed(&lab, "xz", &raw));
    convert(&twice, &lab.path("x.qcow2")).fails_with(4).code("packed.nested");
}

#[test]
fn what_needs_a_file_says_so() {
    let lab = Lab::new();
    let (raw, qcow2) = (small(&lab), lab.path("small.qcow2"));
    Run::new(["convert"]).arg(&raw).arg(&qcow2).success();
    let target = lab.path("out.qcow2");
    for source in [&qcow2, &Variant::Plain.ova(), &Variant::Plain.vmdk("sparse")] {
        convert(source, &target).fails_with(4).code("feed.format").stderr_contains("save it to a file");
    }
    convert(&raw, &target).args(["--size=24M", "--disk=1"]).fails_with(2).code("feed.choice");
    convert(&raw, &target).args(["--size=24M", "--skip-free-space"]).fails_with(2).code("convert.options");
    Run::new(["convert", "-"]).arg(&target).fails_with(3).code("source.empty");
    Run::new(["info", "-"]).fails_with(2).code("source.stdin");
    assert_eq!(lab.names(""), ["small.qcow2", "small.raw"]);
}
