//! The raw format: every byte at its own offset, zeros left out as holes of the file where it can have some.

use super::{Filler, Order, Piece, Shape, Sink, Zeros};
use crate::convert::output::{Output, Surface};
use crate::disk::Disk;
use crate::error::Result;

/// The page of every file system that has holes.
const GRANULE: u64 = 4096;

/// How a raw disk is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawOptions {
    /// What becomes of zeros.
    pub preallocation: RawPreallocation,
}

/// What becomes of a raw disk's zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RawPreallocation {
    /// They are holes of the file.
    #[default]
    Off,
    /// The file system keeps room for them.
    Falloc,
    /// They are written.
    Full,
}

/// Writes a raw disk.
#[derive(Debug)]
pub(in crate::convert) struct RawSink {
    len: u64,
    options: RawOptions,
    surface: Surface,
    filler: Filler,
}

impl RawSink {
    /// A disk of `len` bytes.
    pub(in crate::convert) fn new(len: u64, options: &RawOptions, surface: Surface) -> Self {
        Self { len, options: options.clone(), surface, filler: Filler::new(0) }
    }

    /// Whether zeros are written as the data is.
    fn is_full(&self) -> bool {
        self.options.preallocation == RawPreallocation::Full && self.surface == Surface::Empty
    }
}

impl Sink for RawSink {
    fn shape(&self) -> Shape {
        if self.is_full() {
            return Shape { granule: GRANULE, order: Order::Disk, zeros: Zeros::Plain };
        }
        // Where there is something, or no way back, the output makes zeros of what is left out between two pieces.
        let order = if self.surface == Surface::Empty { Order::Source } else { Order::Disk };
        Shape { order, ..Shape::of(GRANULE) }
    }

    fn overhead(&self, data: u64, _windows: u64) -> u64 {
        match self.options.preallocation {
            _ if self.surface != Surface::Empty => self.len.saturating_sub(data),
            RawPreallocation::Off => 0,
            // Whole pages, and the file system's own list of them.
            _ => (self.len.next_multiple_of(GRANULE) + 16 * GRANULE).saturating_sub(data),
        }
    }

    fn begin(&mut self, output: &dyn Output) -> Result<()> {
        match self.options.preallocation {
            _ if self.surface != Surface::Empty => Ok(()),
            RawPreallocation::Off => output.set_len(self.len),
            RawPreallocation::Falloc | RawPreallocation::Full => output.allocate(self.len),
        }
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        for piece in pieces {
            piece.host = start + piece.start as u64;
            if self.is_full() {
                self.filler.piece(piece.host, piece.len as u64, output)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        if self.is_full() {
            self.filler.piece(self.len, 0, output)?;
        }
        if self.surface != Surface::Empty {
            output.set_len(self.len)?;
        }
        Ok(self.len)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        Ok(file.len() == self.len)
    }
}
