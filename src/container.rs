//! Packages of several files, read in place: a member is a range of the package, and nothing is ever extracted.

pub mod digests;
pub mod manifest;
pub mod ova;
pub mod ovf;
pub mod tar;

pub use digests::Digests;
pub use manifest::Manifest;
pub use ova::Ova;
pub use ovf::Ovf;
