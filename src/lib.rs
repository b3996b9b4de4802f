//! Any virtual disk as one flat array of bytes; everything else is done to that array while it streams past, once.
//!
//! ```text
//!  source        cache            container     format        chain          overlay         users of the flat disk
//!  file     ──►  bytes at     ──► ova/tar  ──►  vmdk,    ──►  Image:    ──►  copy-on-    ──► NBD export, FUSE file
//!                source offsets,                qcow2,        layers,        write           volume → fs → inspect → fix
//!                merged,                        raw           one read       (the fixes)     trim → convert → sink
//!                single flight                                loop
//! ```
//!
//! Every box takes `Arc<dyn Disk>` and gives `Arc<dyn Disk>` ([`disk::Disk`]), so order is data. Arrows between modules point
//! one way (`docs/architecture.md`); a test reads the `use crate::` lines and fails on a wrong one.

pub mod appliance;
pub mod boot;
pub mod browse;
pub mod cache;
pub mod chain;
pub mod cli;
pub mod container;
pub mod convert;
pub mod disk;
pub mod error;
pub mod fix;
pub mod format;
pub mod fs;
pub mod hive;
pub mod initramfs;
pub mod inspect;
pub mod libvirt;
pub mod limits;
pub mod overlay;
pub mod pipeline;
pub mod session;
pub mod source;
#[cfg(test)]
mod testing;
pub mod volume;
mod xml;

/// The page's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../docs/guestfs.md")]
struct Guestfs;

pub use error::{Error, Kind, Result};
