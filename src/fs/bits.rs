//! Bitmaps of clusters: one bit each, the lowest of a byte first, set where something uses it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::{ControlFlow, Range};

use crate::disk::bytes::{long, size};
use crate::error::Result;

/// Bytes that are read at once.
const STEP: u64 = 256 << 10;

/// Visits the runs of zeros among the first `count` bits of a bitmap, ascending. `read` fills a buffer from a byte of the bitmap.
pub(super) fn clear_runs(
    count: u64,
    mut read: impl FnMut(&mut [u8], u64) -> Result<()>,
    visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
) -> Result<()> {
    let (mut run, mut at) = (0..0, 0_u64);
    let mut bytes = vec![0; size(count.div_ceil(8).min(STEP))];
    while at < count.div_ceil(8) {
        let len = count.div_ceil(8).saturating_sub(at).min(STEP);
        let part = bytes.get_mut(..size(len)).unwrap_or_default();
        read(part, at)?;
        for (byte, value) in (at..).zip(part.iter()).filter(|(_, value)| **value != 0xff) {
            for bit in (0..8_u64).filter(|bit| value >> bit & 1 == 0) {
                let number = byte.saturating_mul(8).saturating_add(bit);
                if number >= count {
                    break;
                }
                if run.end != number {
                    if run.start < run.end && visit(run.clone()).is_break() {
                        return Ok(());
                    }
                    run.start = number;
                }
                run.end = number.saturating_add(1);
            }
        }
        at = at.saturating_add(long(part.len()));
    }
    if run.start < run.end {
        let _ = visit(run);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_those_of_the_bits(bits in proptest::collection::vec(prop_oneof![3 => Just(true), 1 => any::<bool>()], 0..200)) {
            let byte = |chunk: &[bool]| chunk.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
            let bytes: Vec<u8> = bits.chunks(8).map(byte).collect();
            let read = |buf: &mut [u8], at: u64| {
                let from = bytes.iter().skip(size(at));
                buf.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                Ok(())
            };
            let mut clear = Vec::new();
            clear_runs(long(bits.len()), read, &mut |run| {
                clear.extend(run.clone());
                assert!(run.end == long(bits.len()) || bits[size(run.end)], "a run ends where a bit is set");
                ControlFlow::Continue(())
            })
            .unwrap();
            let expected: Vec<u64> = (0..).zip(&bits).filter(|(_, bit)| !**bit).map(|(at, _)| at).collect();
            prop_assert_eq!(clear, expected);
        }
    }
}
