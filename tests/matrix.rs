//! The differential matrix: every format and subformat that can be read or written, with every kind of content, against qemu-img.
//!
//! The images are made of known bytes by qemu-img, so the bytes are the oracle for reading. Where qemu-img is itself wrong or
//! refuses, others are asked (libvhdi, libvmdk), or the tests beside the drivers hold builders and other readers.

mod chains;
mod content;
mod differencing;
mod reading;
mod writing;
