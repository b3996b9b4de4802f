//! VMDK snapshots and disks of many parts, as they lie beside each other in a datastore.

use std::fs;
use std::path::Path;

use crate::support::{Lab, Run, tools};

fn qemu_img(args: &[&str], paths: &[&Path]) {
    tools::ok("qemu-img", args.iter().map(Path::new).chain(paths.iter().copied()));
}

fn patterns(image: &Path, writes: &[&str]) {
    for write in writes {
        tools::ok("qemu-io", ["-f", "vmdk", "-c", write].map(Path::new).into_iter().chain([image]));
    }
}

/// The disk of `image` as this program reads it.
fn converted(lab: &Lab, image: &Path, flags: &[&str]) -> Vec<u8> {
    let raw = lab.path("converted.raw");
    let _ = fs::remove_file(&raw);
    Run::new(["convert", "--to", "raw"].iter().chain(flags)).arg(image).arg(&raw).success();
    fs::read(&raw).expect("the output")
}

fn as_qemu_reads(lab: &Lab, image: &Path) -> Vec<u8> {
    let raw = lab.path("qemu.raw");
    qemu_img(&["convert", "-f", "vmdk", "-O", "raw"], &[image, &raw]);
    fs::read(&raw).expect("the output")
}

#[test]
fn chains_of_snapshots_read_as_qemu_img_reads_them() {
    for subformat in ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse"] {
        let lab = Lab::new();
        let base = lab.path("disk.vmdk");
        qemu_img(&["create", "-q", "-f", "vmdk", "-o", &format!("subformat={subformat}")], &[&base, Path::new("10M")]);
        patterns(&base, &["write -P 1 0 3M", "write -P 2 9M 512k"]);
        let mut below = base;
        for depth in 1..8_u8 {
            let above = lab.path(&format!("disk-{depth:06}.vmdk"));
            let name = below.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
            qemu_img(&["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", &name], &[&above, Path::new("10M")]);
            let at = u64::from(depth) * 700_416;
            patterns(
                &above,
                &[&format!("write -P {} {at} 200k", depth + 10), &format!("write -P 0 {} 64k", at + 100 * 1024)],
            );
            below = above;
        }
        assert!(converted(&lab, &below, &[]) == as_qemu_reads(&lab, &below), "{subformat}");
        let info = Run::new(["info", "--json"]).arg(&below).success().stdout;
        assert_eq!(info.matches("\"virtual_size\"").count(), 1 + 8, "{info}");
    }
}

/// A base with a name of its own and a child that knows it by the name given, both in folders of the lab.
fn linked_clone(lab: &Lab, hint: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let (bases, clones) = (lab.folder("bases"), lab.folder("clones"));
    let (base, clone) = (bases.join("base.vmdk"), clones.join("clone.vmdk"));
    qemu_img(&["create", "-q", "-f", "vmdk"], &[&base, Path::new("4M")]);
    patterns(&base, &["write -P 1 0 2M"]);
    qemu_img(&["create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", "../bases/base.vmdk"], &[&clone, Path::new("4M")]);
    patterns(&clone, &["write -P 2 1M 64k"]);
    let bytes = fs::read(&clone).expect("the clone");
    let from = b"parentFileNameHint=\"../bases/base.vmdk\"\n";
    let to = format!("parentFileNameHint=\"{hint}\"\n#");
    let at = bytes.windows(from.len()).position(|window| window == from).expect("the hint");
    let end = at + bytes[at..].iter().position(|byte| *byte == 0).expect("the end of the descriptor");
    let tail = bytes[at + from.len()..end].to_vec();
    let mut descriptor = [to.as_bytes(), &tail].concat();
    descriptor.resize(descriptor.len().max(end - at), 0);
    let mut edited = bytes.clone();
    edited[at..at + descriptor.len()].copy_from_slice(&descriptor);
    fs::write(&clone, edited).expect("the clone");
    (base, clone)
}

#[test]
fn parents_elsewhere_are_found_by_mapped_paths_or_beside_their_child() {
    for (hint, old) in [
        ("/vmfs/volumes/5e3f/base.vmdk", "/vmfs/volumes/5e3f"),
        ("C:\\vms\\base.vmdk", "C:\\vms"),
        ("/vmfs/volumes/5e3f/renamed.vmdk", "/vmfs/volumes/5e3f/renamed.vmdk"),
    ] {
        let lab = Lab::new();
        let (base, clone) = linked_clone(&lab, hint);
        let mut expected = vec![1; 2 << 20];
        expected.resize(4 << 20, 0);
        expected[1 << 20..][..64 << 10].fill(2);
        Run::new(["info"]).arg(&clone).fails_with(5).code("reference.refused").stderr_contains("--map-path");
        let new = if old.ends_with("renamed.vmdk") { base.clone() } else { lab.path("bases") };
        let map = format!("--map-path={old}={}", new.display());
        assert!(converted(&lab, &clone, &[&map]) == expected, "{hint}");
        let beside = lab.path("clones").join(hint.rsplit(['/', '\\']).next().expect("a name"));
        fs::hard_link(&base, beside).expect("a copy beside the clone");
        assert!(converted(&lab, &clone, &[]) == expected, "{hint}");
    }
}

#[test]
fn a_parent_that_was_written_to_since_is_refused() {
    let lab = Lab::new();
    let (base, clone) = linked_clone(&lab, "base.vmdk");
    // The first write after an open gives a disk a new content id.
    patterns(&base, &["write -P 9 3M 512"]);
    fs::rename(&base, lab.path("clones").join("base.vmdk")).expect("moved");
    Run::new(["info"]).arg(&clone).fails_with(4).code("vmdk.parent").stderr_contains("--ignore-parent-id");
    let read = converted(&lab, &clone, &["--ignore-parent-id"]);
    assert_eq!((read[0], read[1 << 20], read[3 << 20]), (1, 2, 9));
}

#[test]
fn parts_that_qemu_img_drops_keep_their_places() {
    let lab = Lab::new();
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"custom\"\n\
        RW 64 FLAT \"a\" 8\nRW 128 ZERO\nRDONLY 64 FLAT \"b\" 0\nNOACCESS 64 FLAT \"gone\" 0\nRW 8 FLAT \"a\" 0\n";
    let image = lab.file("disk.vmdk", descriptor);
    let a: Vec<u8> = (0..72_u8).flat_map(|sector| [sector + 1; 512]).collect();
    lab.file("a", &a);
    lab.file("b", vec![0xbb; 64 * 512]);
    let expected = [&a[8 * 512..], &[0; 128 * 512], &[0xbb; 64 * 512], &[0; 64 * 512], &a[..8 * 512]].concat();
    assert!(converted(&lab, &image, &[]) == expected);
    Run::new(["info"]).arg(&image).success().stdout_contains("NOACCESS");
}

#[test]
fn raw_device_mappings_are_refused_with_a_way_out() {
    let lab = Lab::new();
    let text =
        "# Disk DescriptorFile\nCID=1\ncreateType=\"vmfsPassthroughRawDeviceMap\"\nRW 8 VMFSRDM \"a-rdmp.vmdk\"\n";
    let image = lab.file("rdm.vmdk", text);
    Run::new(["info"]).arg(&image).fails_with(4).code("vmdk.device").stderr_contains("vmkfstools");
}

#[test]
fn a_disk_whose_machine_runs_is_refused() {
    let lab = Lab::new();
    let disk = lab.path("disk.vmdk");
    qemu_img(&["create", "-q", "-f", "vmdk"], &[&disk, Path::new("3M")]);
    let vmx = lab.file(
        "m.vmx",
        "config.version = \"8\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk.vmdk\"\n",
    );
    let raw = lab.path("out.raw");
    let convert = |source: &Path| Run::new(["convert", "--force"]).arg(source).arg(&raw);
    convert(&vmx).success();
    let lock = lab.folder("disk.vmdk.lck");
    for source in [&disk, &vmx] {
        convert(source)
            .fails_with(5)
            .code("source.running")
            .stderr_contains("disk.vmdk.lck")
            .stderr_contains("--allow-running");
        let info = Run::new(["info", "--json"]).arg(source).success().stdout;
        assert!(info.contains("the machine is running, or died"), "{info}");
        convert(source).arg("--allow-running").success();
    }
    // Read-only commands that give out bytes refuse it too.
    Run::new(["map"]).arg(&disk).fails_with(5).code("source.running");
    fs::remove_dir(lock).expect("removing");
    lab.folder("m.vmx.lck");
    convert(&vmx).fails_with(5).code("source.running").stderr_contains("m.vmx.lck");
    convert(&disk).success();
}

/// Reads the disk of a VMDK with libvmdk, which shares no code with this program or with QEMU.
const LIBVMDK: &str = r#"
import pyvmdk, sys
disk = pyvmdk.handle()
disk.open(sys.argv[1])
disk.open_extent_data_files()
with open(sys.argv[2], "wb") as raw:
    left = disk.get_media_size()
    while left:
        part = disk.read_buffer(min(1 << 20, left))
        raw.write(part)
        left -= len(part)
"#;

#[test]
fn libvmdk_reads_what_is_written() {
    let lab = Lab::new();
    let mut bytes = vec![0; (70 << 20) + 512];
    let text: Vec<u8> = (0..300_000_u32).flat_map(|n| (n % 911 * n % 10_007).to_le_bytes()).collect();
    for at in [0, (32 << 20) - 70_000, 64 << 20] {
        bytes[at..at + text.len()].copy_from_slice(&text);
    }
    bytes[70 << 20] = 1;
    let raw = lab.file("disk.raw", &bytes);
    let (written, back) = (lab.path("a disk (1).vmdk"), lab.path("back.raw"));
    Run::new(["convert", "--format=raw"]).arg(&raw).arg(&written).success();
    // The one that has Debian's modules.
    tools::ok("/usr/bin/python3", [Path::new("-c"), Path::new(LIBVMDK), &written, &back]);
    assert!(fs::read(&back).expect("what libvmdk read") == bytes);
}
