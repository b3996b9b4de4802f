//! The raw format: every byte at its own offset, zeros left out as holes of the file.

use super::{Piece, Shape, Sink};
use crate::convert::output::Output;
use crate::disk::Disk;
use crate::error::Result;

/// The page of every file system that has holes.
const GRANULE: u64 = 4096;

/// How a raw disk is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {}

/// Writes a raw disk.
#[derive(Debug)]
pub(in crate::convert) struct RawSink {
    len: u64,
}

impl RawSink {
    /// A disk of `len` bytes.
    pub(in crate::convert) const fn new(len: u64, _options: &RawOptions) -> Self {
        Self { len }
    }
}

impl Sink for RawSink {
    fn shape(&self) -> Shape {
        Shape::of(GRANULE)
    }

    fn overhead(&self, _data: u64, _windows: u64) -> u64 {
        0
    }

    fn begin(&mut self, output: &dyn Output) -> Result<()> {
        output.set_len(self.len)
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], _output: &dyn Output) -> Result<()> {
        for piece in pieces {
            piece.host = start + piece.start as u64;
        }
        Ok(())
    }

    fn finish(&mut self, _output: &dyn Output) -> Result<u64> {
        Ok(self.len)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        Ok(file.len() == self.len)
    }
}
