//! `check`: what is wrong with an image, by exit code, text and JSON, and nothing written.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Lab, Run, tools};

/// A qcow2 of 4 MiB with data in it.
fn image(lab: &Lab) -> PathBuf {
    let raw = lab.file("disk.raw", [7; 1 << 20].repeat(4));
    let image = lab.path("disk.qcow2");
    tools::ok("qemu-img", ["convert", "-f", "raw", "-O", "qcow2"].map(Path::new).into_iter().chain([&*raw, &image]));
    image
}

fn check(image: &Path) -> Run {
    Run::new(["check".as_ref(), image.as_os_str()])
}

/// Where the qcow2 field of 8 bytes at `at` points to.
fn offset_at(bytes: &[u8], at: usize) -> usize {
    let field = u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    usize::try_from(field & 0x00ff_ffff_ffff_fe00).expect("an offset")
}

#[test]
fn a_sound_image_is_clean_and_stays_as_it_was() {
    let lab = Lab::new();
    let image = image(&lab);
    let before = fs::read(&image).expect("the image");
    check(&image).success().stdout_contains("no errors were found");
    let json = check(&image).arg("--json").success().json();
    assert_eq!((json["corruptions"].as_u64(), json["leaks"].as_u64()), (Some(0), Some(0)));
    let layer = &json["disks"][0]["layers"][0];
    assert_eq!((layer["format"].as_str(), layer["allocated_units"].as_u64()), (Some("qcow2"), Some(64)));
    assert!(fs::read(&image).expect("the image") == before);
}

#[test]
fn a_damaged_table_is_a_corruption_and_the_verdict_is_one_object() {
    let lab = Lab::new();
    let image = image(&lab);
    let mut bytes = fs::read(&image).expect("the image");
    let l2 = offset_at(&bytes, offset_at(&bytes, 40));
    bytes[l2..l2 + 8].copy_from_slice(&(1_u64 << 60 | 512).to_be_bytes());
    fs::write(&image, bytes).expect("the image");
    check(&image).ran().exits_with(4).stdout_contains("corruption");
    let json = check(&image).arg("--json").ran().exits_with(4).json();
    let layer = &json["disks"][0]["layers"][0];
    assert!(json["corruptions"].as_u64() > Some(0), "{json}");
    assert_eq!(layer["findings"][0]["severity"], "corruption");
    assert!(layer["allocated_units"].is_null());
}

#[test]
fn every_layer_of_a_chain_is_checked() {
    let lab = Lab::new();
    let base = image(&lab);
    let top = lab.path("top.qcow2");
    let name = base.file_name().expect("a name");
    tools::ok(
        "qemu-img",
        ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"].map(Path::new).into_iter().chain([name.as_ref(), &*top]),
    );
    let json = check(&top).arg("--json").success().json();
    let layers = json["disks"][0]["layers"].as_array().expect("layers");
    let files: Vec<_> = layers.iter().map(|layer| layer["file"].as_str().expect("a name")).collect();
    assert!(files[0].ends_with("top.qcow2") && files[1].ends_with("disk.qcow2"), "{files:?}");
}

/// A VMDK of 4 MiB with data in it, by qemu-img, and where its directories' first tables are.
fn vmdk(lab: &Lab, subformat: &str) -> (PathBuf, Vec<u8>) {
    let raw = lab.file("disk.raw", [7; 1 << 20].repeat(4));
    let image = lab.path(&format!("{subformat}.vmdk"));
    let option = format!("subformat={subformat}");
    let flags = ["convert", "-f", "raw", "-O", "vmdk", "-o", &option].map(Path::new);
    tools::ok("qemu-img", flags.into_iter().chain([&*raw, &image]));
    let bytes = fs::read(&image).expect("the image");
    (image, bytes)
}

fn le(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as usize
}

#[test]
fn vmdks_by_qemu_and_by_this_program_are_clean() {
    let lab = Lab::new();
    for subformat in ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse", "monolithicFlat"] {
        let json = check(&vmdk(&lab, subformat).0).arg("--json").success().json();
        assert_eq!((json["corruptions"].as_u64(), json["leaks"].as_u64()), (Some(0), Some(0)), "{subformat}: {json}");
    }
    for suffix in ["vmdk", "ova"] {
        let written = lab.path(&format!("written.{suffix}"));
        Run::new(["convert", "--format=raw"]).arg(lab.path("disk.raw")).arg(&written).success();
        let json = check(&written).arg("--json").success().json();
        assert_eq!((json["corruptions"].as_u64(), json["leaks"].as_u64()), (Some(0), Some(0)), "{suffix}: {json}");
    }
}

#[test]
fn what_is_wrong_with_a_vmdk_is_told() {
    let lab = Lab::new();
    let (image, good) = vmdk(&lab, "monolithicSparse");
    let directory = le(&good, 56) * 512;
    let redundant = le(&good, 48) * 512;
    let (table, copy) = (le(&good, directory) * 512, le(&good, redundant) * 512);
    let first = le(&good, table);
    let poked = |pokes: &[(usize, usize)]| {
        let mut bytes = good.clone();
        for (at, value) in pokes {
            bytes[*at..*at + 4].copy_from_slice(&u32::try_from(*value).expect("a field").to_le_bytes());
        }
        fs::write(&image, bytes).expect("the image");
        check(&image).arg("--json").ran()
    };
    let told = |pokes: &[(usize, usize)], what: &str| {
        let json = poked(pokes).exits_with(4).json();
        assert!(json.to_string().contains(what), "{what}: {json}");
        json
    };
    told(&[(table + 4, first), (copy + 4, first)], "grain 1 overlaps another grain or a table");
    told(&[(table + 8, table / 512), (copy + 8, table / 512)], "grain 2 overlaps");
    told(&[(table + 12, 0x7fff_ffff), (copy + 12, 0x7fff_ffff)], "leads out of the file");
    told(&[(copy + 4, 0)], "differs from its redundant copy from grain 1 on");
    told(&[(redundant, directory / 512)], "a grain table");
    told(&[(redundant, 0x7fff_ffff)], "redundant grain directory leads out of the file");
    let lost = poked(&[(table, 0), (table + 4, 0), (copy, 0), (copy + 4, 0)]).exits_with(0).json();
    assert_eq!((lost["corruptions"].as_u64(), lost["leaks"].as_u64()), (Some(0), Some(1)), "{lost}");
    let shared = poked(&[(redundant, table / 512)]).exits_with(0).json();
    assert!(shared.to_string().contains("is its own redundant copy"), "{shared}");
    let unclean = poked(&[(72, le(&good, 72) | 1)]).exits_with(0).json();
    assert_eq!(unclean["disks"][0]["layers"][0]["findings"][0]["severity"], "note", "{unclean}");

    let (image, mut bytes) = vmdk(&lab, "streamOptimized");
    bytes[65_536] ^= 1;
    fs::write(&image, bytes).expect("the image");
    check(&image).ran().exits_with(4).stdout_contains("the marker of grain 0 is not its own");
}
