//! Sector bitmaps of differencing disks: a bit a sector; 1 means that the sector is here and not in the parent.

use crate::error::Result;

use super::pages::Pages;

/// Which bit of a byte stands for the first of its eight sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The most significant one, as in VHD.
    Descending,
    /// The least significant one, as in VHDX.
    Ascending,
}

impl Order {
    const fn mask(self, bit: u64) -> u8 {
        match self {
            Self::Descending => 0x80 >> (bit % 8),
            Self::Ascending => 1 << (bit % 8),
        }
    }
}

/// Whether bit `first` of the bitmap at `at` is set, and for how many bits that stays so: 1 to `most`, which is not 0.
pub(super) fn run(pages: &Pages, at: u64, first: u64, most: u64, order: Order) -> Result<(bool, u64)> {
    let here = bit(pages, at, first, order)?;
    let same = if here { u8::MAX } else { 0 };
    let end = first.saturating_add(most);
    let mut next = first.saturating_add(1);
    while next < end {
        if next.is_multiple_of(8) {
            next = next.saturating_add(whole_bytes(pages, at, next, end, same)?);
        }
        if next >= end || bit(pages, at, next, order)? != here {
            break;
        }
        next = next.saturating_add(1);
    }
    Ok((here, next.min(end).saturating_sub(first)))
}

/// Bits from `next` on, a multiple of 8, in bytes that are all `same`.
fn whole_bytes(pages: &Pages, at: u64, next: u64, end: u64, same: u8) -> Result<u64> {
    let entries = pages.entries(at.saturating_add(next / 8))?;
    let most = usize::try_from(end.saturating_sub(next) / 8).unwrap_or(usize::MAX);
    let count = entries.bytes().iter().take(most).take_while(|byte| **byte == same).count();
    Ok(u64::try_from(count).unwrap_or(0).saturating_mul(8))
}

fn bit(pages: &Pages, at: u64, bit: u64, order: Order) -> Result<bool> {
    let [byte] = pages.entry(at.saturating_add(bit / 8))?;
    Ok(byte & order.mask(bit) != 0)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests build their input")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Checked, Memory};
    use crate::error::Error;
    use crate::session::Session;

    proptest! {
        #[test]
        fn runs_are_as_long_as_they_are(bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(255), any::<u8>()], 1..40), first in 0_u64..400, most in 1_u64..400, descending: bool) {
            let bits = bytes.len() as u64 * 8;
            let first = first % bits;
            let most = most.min(bits - first);
            let order = if descending { Order::Descending } else { Order::Ascending };
            let set = |bit: u64| {
                let byte = bytes[usize::try_from(bit / 8).unwrap()];
                let bit = if descending { 7 - bit % 8 } else { bit % 8 };
                byte >> bit & 1 == 1
            };
            let beyond = |offset| Error::corrupt("vhd.truncated", "beyond").offset(offset);
            let pages = Pages::new(Checked::wrap(Memory::new(bytes.clone())), &Session::with_defaults(), beyond);
            let (here, count) = run(&pages, 0, first, most, order).unwrap();
            let expected = (first..first + most).take_while(|bit| set(*bit) == set(first)).count();
            prop_assert_eq!((here, count), (set(first), expected as u64));
        }
    }
}
