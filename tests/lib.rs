//! The integration tests: the program as its users run it, against real guests and other implementations.
//!
//! Each file is one subject. [`support`] holds the builder that runs the program, the fixture guests, and the oracles: QEMU,
//! e2fsck, kernel mounts, strace. A test whose program or fixture is missing fails; it never skips.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests run other programs, read files, and fail by panicking; clippy's exemption covers only #[test] functions"
)]

mod support;

mod architecture;
mod attach;
mod boot;
mod browse;
mod btrfs;
mod calendar;
mod check;
mod cli;
mod convert;
mod deflate;
mod docs;
mod escapes;
mod exfat;
mod ext;
mod facts;
mod fat;
mod file_disk;
mod files;
mod guest;
mod hive;
mod hostile;
mod http;
mod inject;
mod inspect;
mod iso;
mod journal;
mod kill;
mod libvirt;
mod matrix;
mod memory;
mod migrate;
mod mount;
mod nbd;
mod network;
mod ntfs;
mod objects;
mod package;
mod packages;
mod pipes;
mod places;
mod remote;
mod secrets;
mod serve;
mod sharing;
mod sparse;
mod squashfs;
mod ssh;
mod strace;
mod syslog;
mod udf;
mod units;
mod vmdk;
mod volume;
mod volumes;
mod xfs;
mod zoo;
