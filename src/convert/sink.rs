//! What an output format does: it says where each piece of the disk goes in the file, and writes its own tables.

use std::fmt::Debug;

use super::output::Output;
use crate::disk::Disk;
use crate::error::Result;

pub(super) mod qcow2;
pub(super) mod raw;

/// A format that is written, chunk by chunk.
pub(super) trait Sink: Debug + Send {
    /// Bytes of the unit in which pieces are given; a power of two, at most [`super::plan::CHUNK`].
    fn granule(&self) -> u64;

    /// An upper bound of what the file takes beyond the data, for `data` bytes in `windows` windows.
    fn overhead(&self, data: u64, windows: u64) -> u64;

    /// Readies the file, before anything else is written.
    fn begin(&mut self, output: &dyn Output) -> Result<()>;

    /// Finds a place for each piece of the chunk that starts at `start` on the disk. Calls come in the order of the plan.
    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()>;

    /// Writes what is left to write, after the last piece; gives the length of the file.
    fn finish(&mut self, output: &dyn Output) -> Result<u64>;

    /// Whether `file`, read back after [`Sink::finish`], has every table as it was written. The data is compared elsewhere.
    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool>;
}

/// Bytes of a chunk that are not all zeros: whole granules, but for the end of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte, from the start of the chunk.
    pub(super) start: usize,
    /// Number of bytes.
    pub(super) len: usize,
    /// Where they go in the file.
    pub(super) host: u64,
}
