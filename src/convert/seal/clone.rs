//! Sharing of file ranges: the one place of this module that needs `unsafe`, since rustix can share whole files only.
#![allow(unsafe_code, reason = "an ioctl that rustix has no function for")]

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct CloneRange {
    src_fd: i64,
    src_offset: u64,
    src_length: u64,
    dest_offset: u64,
}

/// `FICLONERANGE` of `linux/fs.h`.
const FICLONERANGE: Opcode = opcode::write::<CloneRange>(0x94, 13);

/// Has `to` share `len` bytes of `from` at `from_offset` as its own at `offset`. All of them are multiples of the file system's
/// block, and `len` is not 0.
pub(super) fn clone_range(to: &File, offset: u64, from: &File, from_offset: u64, len: u64) -> Result<(), Errno> {
    let range = CloneRange {
        src_fd: i64::from(from.as_raw_fd()),
        src_offset: from_offset,
        src_length: len,
        dest_offset: offset,
    };
    // SAFETY: the kernel reads one `file_clone_range` behind the pointer, which is what `Setter` passes, and changes no memory of
    // this process; `from` is open for the whole call.
    unsafe { ioctl(to, Setter::<FICLONERANGE, CloneRange>::new(range)) }
}
