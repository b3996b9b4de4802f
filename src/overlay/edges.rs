//! What a write leaves of the units that it touches, fetched before the overlay is locked.
//!
//! A base may be slow, and nobody is to wait for it who does not need it. It never changes, so what was read of it stays true,
//! and is used where the overlay, once locked, still has nothing of its own.

use std::ops::Range;

use crate::disk::{Disk, read_vec};
use crate::error::Result;

/// Pieces of a base.
#[derive(Debug, Default)]
pub(super) struct Edges(Vec<(u64, Vec<u8>)>);

impl Edges {
    /// Reads `pieces`.
    pub(super) fn read(base: &dyn Disk, pieces: impl Iterator<Item = Range<u64>>) -> Result<Self> {
        let piece = |range: Range<u64>| {
            let len = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            Ok((range.start, read_vec(base, range.start, len)?))
        };
        pieces.map(piece).collect::<Result<_>>().map(Self)
    }

    /// What `base` has at `offset`, from the pieces if one has all of it.
    pub(super) fn copy(&self, base: &dyn Disk, buf: &mut [u8], offset: u64) -> Result<()> {
        let inside = self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(offset.checked_sub(*start)?).ok()?;
            bytes.get(from..)?.get(..buf.len())
        });
        match inside {
            Some(bytes) => buf.copy_from_slice(bytes),
            None => base.read_at(buf, offset)?,
        }
        Ok(())
    }
}

/// The parts of the units at either end of `range` that lie outside of it, in a disk of `len` bytes: at most two.
pub(super) fn beside(range: &Range<u64>, unit: u64, len: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let before = range.start / unit * unit..range.start;
    let after = range.end..range.end.next_multiple_of(unit).min(len);
    [before, after].into_iter().filter(|part| !part.is_empty())
}
