//! Known bytes, written in every format by the program, and read and checked by qemu-img.

use std::path::Path;

use super::content;
use crate::support::{Lab, Run, tools};

/// An output: the program's flags, and qemu-img's name of the format.
const WRITTEN: &[(&[&str], &str)] = &[
    (&["--to", "qcow2"], "qcow2"),
    (&["--to", "qcow2", "--cluster-size", "4K"], "qcow2"),
    (&["--to", "qcow2", "--cluster-size", "2M"], "qcow2"),
    (&["--to", "qcow2", "--compress", "zlib"], "qcow2"),
    (&["--to", "qcow2", "--compress", "zlib", "--cluster-size", "2M"], "qcow2"),
    (&["--to", "qcow2", "--compress", "zstd"], "qcow2"),
    (&["--to", "qcow2", "--extended-l2"], "qcow2"),
    (&["--to", "qcow2", "--preallocation", "metadata"], "qcow2"),
    (&["--to", "qcow2", "--preallocation", "falloc"], "qcow2"),
    (&["--to", "raw"], "raw"),
    (&["--to", "vdi"], "vdi"),
    (&["--to", "vhd", "--subformat", "dynamic"], "vpc"),
    (&["--to", "vhd", "--subformat", "fixed"], "vpc"),
    (&["--to", "vhdx"], "vhdx"),
    (&["--to", "vmdk"], "vmdk"),
    (&["--to", "vmdk", "--subformat", "streamOptimized", "--compress", "zlib:9"], "vmdk"),
];

#[test]
fn what_is_written_reads_as_what_it_was_made_of() {
    for content in content::all() {
        let lab = Lab::new();
        let raw = lab.file("content.raw", &content.bytes);
        for (flags, format) in WRITTEN {
            let name = format!("{flags:?}: {}", content.name);
            let image = lab.path("image");
            Run::new(["convert", "--format", "raw"].iter().chain(*flags)).arg(&raw).arg(&image).success();
            check(format, &image);
            let back = lab.path("back.raw");
            tools::to_raw(format, &image, &back);
            let mut read = std::fs::read(&back).expect("what qemu-img read");
            assert!(read.len() >= content.bytes.len(), "{name}: too short");
            assert!(read[content.bytes.len()..].iter().all(|byte| *byte == 0), "{name}: something follows");
            read.truncate(content.bytes.len());
            assert!(read == content.bytes, "{name}: other bytes");
            std::fs::remove_file(image).expect("removing");
        }
    }
}

/// qemu-img's own check, where it has one for the format.
fn check(format: &str, image: &Path) {
    if matches!(format, "qcow2" | "vhdx" | "vmdk" | "vdi") {
        tools::ok("qemu-img", ["check", "-q", "-f", format].map(Path::new).into_iter().chain([image]));
    }
}
