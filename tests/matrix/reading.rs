//! Images that qemu-img made of known bytes, read back through the library.

use std::path::{Path, PathBuf};

use hyper2kvm::chain::{OpenOptions, open};
use hyper2kvm::disk::{Disk, collect_extents, read_vec};
use hyper2kvm::format::FORMATS;
use hyper2kvm::session::Session;

use super::content::{self, Content};
use crate::support::{Lab, tools};

/// A way to have qemu-img make an image.
struct Made {
    /// Our name of the format.
    format: &'static str,
    /// qemu-img's name of it, and its options.
    qemu: &'static str,
    options: &'static str,
    compressed: bool,
    /// Sizes are rounded up to a multiple of this.
    granularity: usize,
}

const fn made(format: &'static str, qemu: &'static str, options: &'static str) -> Made {
    Made { format, qemu, options, compressed: false, granularity: 512 }
}

const fn compressed(format: &'static str, qemu: &'static str, options: &'static str) -> Made {
    Made { compressed: true, ..made(format, qemu, options) }
}

const MADE: &[Made] = &[
    made("raw", "raw", ""),
    made("qcow2", "qcow2", "compat=0.10"),
    made("qcow2", "qcow2", "compat=1.1"),
    made("qcow2", "qcow2", "cluster_size=512"),
    made("qcow2", "qcow2", "cluster_size=2M"),
    made("qcow2", "qcow2", "extended_l2=on"),
    made("qcow2", "qcow2", "extended_l2=on,cluster_size=16k"),
    made("qcow2", "qcow2", "preallocation=metadata"),
    made("qcow2", "qcow2", "refcount_bits=1"),
    made("qcow2", "qcow2", "refcount_bits=64,lazy_refcounts=on"),
    made("qcow2", "qcow2", "data_file=DATA"),
    made("qcow2", "qcow2", "data_file=DATA,data_file_raw=on"),
    compressed("qcow2", "qcow2", "compat=0.10"),
    compressed("qcow2", "qcow2", "compression_type=zlib,cluster_size=2M"),
    compressed("qcow2", "qcow2", "compression_type=zlib,cluster_size=4k"),
    compressed("qcow2", "qcow2", "compression_type=zstd"),
    compressed("qcow2", "qcow2", "compression_type=zstd,extended_l2=on"),
    made("vmdk", "vmdk", "subformat=monolithicSparse"),
    made("vmdk", "vmdk", "subformat=monolithicSparse,zeroed_grain=on"),
    made("vmdk", "vmdk", "subformat=monolithicSparse,compat6=on"),
    made("vmdk", "vmdk", "subformat=monolithicFlat"),
    made("vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"),
    made("vmdk", "vmdk", "subformat=twoGbMaxExtentFlat"),
    made("vmdk", "vmdk", "subformat=streamOptimized"),
    made("vhd", "vpc", "subformat=dynamic,force_size=on"),
    made("vhd", "vpc", "subformat=fixed,force_size=on"),
    made("vhdx", "vhdx", "subformat=dynamic"),
    made("vhdx", "vhdx", "subformat=dynamic,block_size=1M"),
    made("vhdx", "vhdx", "subformat=fixed"),
    made("vdi", "vdi", ""),
    made("vdi", "vdi", "static=on"),
];

#[test]
fn every_format_that_can_be_read_is_in_the_matrix() {
    for driver in FORMATS {
        assert!(MADE.iter().any(|made| made.format == driver.name), "{} is read and not compared", driver.name);
    }
    for made in MADE {
        assert!(FORMATS.iter().any(|driver| driver.name == made.format), "{} is not read", made.format);
    }
}

#[test]
fn images_of_qemu_img_read_as_what_they_were_made_of() {
    for content in content::all() {
        let lab = Lab::new();
        let raw = lab.file("content.raw", &content.bytes);
        for made in MADE {
            let name = format!("{} {} {}: {}", made.qemu, made.options, made.compressed, content.name);
            let folder = lab.folder("image");
            let image = made.make(&raw, &folder);
            let expected = made.rounded(&content);
            assert_reads_as(&image, made.format, &expected, &name);
            std::fs::remove_dir_all(folder).expect("removing");
        }
    }
}

impl Made {
    fn make(&self, raw: &Path, folder: &Path) -> PathBuf {
        let image = folder.join("image");
        let mut args: Vec<String> = ["convert", "-f", "raw", "-O", self.qemu].map(Into::into).into();
        if self.compressed {
            args.push("-c".into());
        }
        if !self.options.is_empty() {
            // A reference to the data file beside the image, as a user would write it.
            let options = self.options.replace("DATA", &folder.join("data").display().to_string());
            args.extend(["-o".into(), options]);
        }
        args.extend([raw.display().to_string(), image.display().to_string()]);
        tools::ok("qemu-img", args);
        if self.options.contains("data_file=") {
            tools::ok(
                "qemu-img",
                ["amend", "-f", "qcow2", "-o", "data_file=data"].map(Path::new).into_iter().chain([image.as_path()]),
            );
        }
        image
    }

    fn rounded(&self, content: &Content) -> Vec<u8> {
        let mut bytes = content.bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(self.granularity), 0);
        bytes
    }
}

/// The image has exactly these bytes, read in one go, in odd pieces and at random, and its map never says zeros of what is not.
pub(super) fn assert_reads_as(image: &Path, format: &str, expected: &[u8], name: &str) {
    let options = OpenOptions { format: Some(format.into()), ..OpenOptions::default() };
    let opened = open(image, &options, &Session::with_defaults()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let disk = opened.disks[0].disk();
    assert_eq!(disk.len(), expected.len() as u64, "{name}: its size");
    let mut at = 0;
    for step in [512, 1, 65_535, 131_073, 1 << 20].into_iter().cycle() {
        let end = (at + step).min(expected.len());
        assert_same(&*disk, expected, at..end, name);
        at = end;
        if at == expected.len() {
            break;
        }
    }
    for word in content::noise(7, 64 * 8).chunks(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        let start = usize::try_from(word % expected.len() as u64).expect("an index");
        let end = expected.len().min(start + usize::try_from(word >> 48).expect("a length") + 1);
        assert_same(&*disk, expected, start..end, name);
    }
    let mut end = 0;
    for extent in collect_extents(&*disk, 0..disk.len()).unwrap_or_else(|error| panic!("{name}: {error}")) {
        assert_eq!(extent.range.start, end, "{name}: a gap in the map");
        end = extent.range.end;
        let range = usize::try_from(extent.range.start).expect("an index")..usize::try_from(end).expect("an index");
        let zeros = expected[range].iter().all(|byte| *byte == 0);
        assert!(zeros || !extent.kind.is_zero(), "{name}: the map says zeros of data: {extent:?}");
    }
    assert_eq!(end, disk.len(), "{name}: the end of the map");
}

fn assert_same(disk: &dyn Disk, expected: &[u8], range: std::ops::Range<usize>, name: &str) {
    let read = read_vec(disk, range.start as u64, range.len()).unwrap_or_else(|error| panic!("{name}: {error}"));
    if let Some(at) = read.iter().zip(&expected[range.clone()]).position(|(a, b)| a != b) {
        panic!("{name}: byte {:#x} differs: {:#x}, not {:#x}", range.start + at, read[at], expected[range.start + at]);
    }
}
