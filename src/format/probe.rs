//! What format a file has: decided once, by magic numbers, and never guessed. Raw is recognised by a partition table, or by
//! a file system that fills the disk.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

use super::{Driver, qcow2, raw, vdi, vhd, vhdx, vmdk};

/// Every format that can be read, in the order in which `--help` lists them.
pub static FORMATS: &[Driver] = &[
    Driver {
        name: "qcow2",
        about: "QEMU's format, versions 2 and 3",
        probe: qcow2::probe,
        open: qcow2::open,
        feed: None,
    },
    Driver {
        name: "raw",
        about: "the bytes of the disk as they are",
        probe: raw::probe,
        open: raw::open,
        feed: Some(raw::feed),
    },
    Driver {
        name: "vdi",
        about: "VirtualBox: static, dynamic, differencing",
        probe: vdi::probe,
        open: vdi::open,
        feed: None,
    },
    Driver {
        name: "vhd",
        about: "Virtual PC, Hyper-V and Azure: fixed, dynamic, differencing",
        probe: vhd::probe,
        open: vhd::open,
        feed: None,
    },
    Driver {
        name: "vhdx",
        about: "Hyper-V since 2012: fixed, dynamic, differencing; a log is replayed in memory",
        probe: vhdx::probe,
        open: vhdx::open,
        feed: None,
    },
    Driver {
        name: "vmdk",
        about: "VMware: sparse, flat, split, stream-optimized, snapshots (COWD, seSparse)",
        probe: vmdk::probe,
        open: vmdk::open,
        feed: Some(vmdk::feed),
    },
];

/// Bytes from the front that magic numbers are looked for in: btrfs has its own behind the first 64 KiB.
const HEAD: usize = 68 << 10;

/// Bytes from the end.
const TAIL: usize = 1536;

/// The first and last bytes of a file.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Length of the file in bytes.
    pub len: u64,
    /// Its first bytes, up to 68 KiB.
    pub head: Vec<u8>,
    /// Its last bytes, up to 1,536.
    pub tail: Vec<u8>,
}

impl Sample {
    /// Takes a sample of `disk`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn take(disk: &dyn Disk) -> Result<Self> {
        let len = disk.len();
        let all = usize::try_from(len).unwrap_or(usize::MAX);
        let tail = all.min(TAIL);
        let tail_start = len.saturating_sub(u64::try_from(tail).unwrap_or(0));
        Ok(Self { len, head: read_vec(disk, 0, all.min(HEAD))?, tail: read_vec(disk, tail_start, tail)? })
    }

    /// Whether `magic` is at `offset` from the front.
    #[must_use]
    pub fn has(&self, offset: usize, magic: &[u8]) -> bool {
        self.head.get(offset..).is_some_and(|rest| rest.starts_with(magic))
    }

    /// Whether `magic` is at `back` bytes before the end.
    #[must_use]
    pub fn has_before_end(&self, back: usize, magic: &[u8]) -> bool {
        let start = self.tail.len().checked_sub(back);
        start.and_then(|start| self.tail.get(start..)).is_some_and(|rest| rest.starts_with(magic))
    }
}

/// The driver named `name`.
///
/// # Errors
/// A usage error that lists the names.
pub fn by_name(name: &str) -> Result<&'static Driver> {
    // QEMU's name of VHD, which qcow2 images keep for their backing file.
    let name = if name == "vpc" { "vhd" } else { name };
    FORMATS.iter().find(|driver| driver.name == name).ok_or_else(|| {
        let names: Vec<&str> = FORMATS.iter().map(|driver| driver.name).collect();
        Error::new(crate::Kind::Usage, "format.name", "no such format").found(name).expected(names.join(", "))
    })
}

/// The one format that `sample` has.
///
/// # Errors
/// `format.unknown` when no magic number fits, `format.ambiguous` when several do, and `format.unsupported` for a format that
/// is recognised and not handled.
pub fn detect(sample: &Sample) -> Result<&'static Driver> {
    let ours: Vec<&Driver> = FORMATS.iter().filter(|driver| (driver.probe)(sample)).collect();
    match (ours.as_slice(), marks(sample).as_slice()) {
        ([driver], [_]) => Ok(driver),
        (_, []) => Err(Error::unsupported("format.unknown", "no disk image format is recognised")
            .hint("if it is a raw disk without a partition table, say so: --format raw")),
        ([], [name]) => Err(Error::unsupported("format.unsupported", format!("{name} is not handled"))),
        (_, names) => Err(ambiguous(&names.join(", "))),
    }
}

/// The names of all formats whose mark is in `sample`.
#[must_use]
pub fn marks(sample: &Sample) -> Vec<&'static str> {
    let ours = FORMATS.iter().filter(|driver| (driver.probe)(sample)).map(|driver| driver.name);
    ours.chain(FOREIGN.iter().filter(|(_, probe)| probe(sample)).map(|(name, _)| *name)).collect()
}

/// The error for a file that has the marks of several formats.
#[must_use]
pub fn ambiguous(names: &str) -> Error {
    Error::unsupported("format.ambiguous", "the file has the marks of several formats")
        .found(names)
        .hint("name the format that it really has with --format; a guest can forge such marks in its own disk")
}

/// Whether a sample bears the mark of a format.
type Mark = fn(&Sample) -> bool;

/// Formats that are recognised so as to say so, and so that they are never taken for something else.
const FOREIGN: &[(&str, Mark)] = &[
    ("a Parallels image", |sample| sample.has(0, b"WithoutFreeSpace") || sample.has(0, b"WithouFreSpacExt")),
    ("a QED image", |sample| sample.has(0, b"QED\0")),
    ("the end of a VHD image", ends_like_vhd),
    ("a bzip2 file", |sample| sample.has(0, b"BZh") && sample.has(4, &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59])),
    ("a gzip file", |sample| sample.has(0, &[0x1f, 0x8b, 8])),
    ("an xz file", |sample| sample.has(0, &[0xfd, b'7', b'z', b'X', b'Z', 0])),
    ("a zip archive", |sample| sample.has(0, b"PK\x03\x04")),
    ("a zstd file", |sample| sample.has(0, &[0x28, 0xb5, 0x2f, 0xfd])),
    ("an ELF program", |sample| sample.has(0, b"\x7fELF")),
];

/// A footer that is not a sound VHD's: the file was cut, or its guest wrote that.
fn ends_like_vhd(sample: &Sample) -> bool {
    !vhd::probe(sample) && (sample.has_before_end(512, b"conectix") || sample.has_before_end(511, b"conectix"))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn sample(parts: &[(usize, &[u8])], len: usize) -> Sample {
        let mut bytes = vec![0; len];
        for (at, part) in parts {
            bytes[*at..*at + part.len()].copy_from_slice(part);
        }
        Sample::take(&crate::disk::Memory::new(bytes)).unwrap()
    }

    #[test]
    fn names_are_unique() {
        let names: HashSet<&str> = FORMATS.iter().map(|driver| driver.name).collect();
        assert_eq!(names.len(), FORMATS.len());
        assert!(FORMATS.iter().all(|driver| by_name(driver.name).is_ok() && !driver.about.is_empty()));
        assert_eq!(by_name("vpc").unwrap().name, "vhd");
        assert_eq!(by_name("floppy").unwrap_err().kind().exit_code(), 2);
    }

    #[test]
    fn raw_is_never_a_fallback() {
        for text in [&b"root:x:0:0:root:/root:/bin/bash\n"[..], b"", b"\0"] {
            let sample = sample(&[(0, text)], text.len().max(1));
            assert_eq!(detect(&sample).unwrap_err().code(), "format.unknown");
        }
    }

    #[test]
    fn a_fixed_vhd_is_not_raw() {
        let mbr = crate::format::raw::tests::mbr();
        assert_eq!(detect(&sample(&[(0, &mbr)], 1 << 20)).unwrap().name, "raw");
        let polyglot = sample(&[(0, &mbr), ((1 << 20) - 512, b"conectix")], 1 << 20);
        assert_eq!(detect(&polyglot).unwrap_err().code(), "format.ambiguous");
    }

    #[test]
    fn what_is_not_handled_is_named() {
        let error = detect(&sample(&[(0, b"QED\0")], 1 << 20)).unwrap_err();
        assert_eq!(error.code(), "format.unsupported");
        assert!(error.to_string().contains("QED"), "{error}");
    }
}
