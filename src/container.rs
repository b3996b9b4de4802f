//! Packages of several files, read in place: a member is a range of the package, and nothing is ever extracted.

pub mod bundle;
mod bzip2;
pub mod digests;
mod gzip;
pub mod manifest;
pub mod ova;
pub mod ovf;
pub mod packed;
pub mod tar;
pub mod vmx;
mod xz;
mod zstd;

pub use bundle::{Bundle, Members};
pub use digests::Digests;
pub use manifest::Manifest;
pub use ova::Ova;
pub use ovf::Ovf;
pub use packed::{Compression, Packed};
