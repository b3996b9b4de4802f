//! Runs of clusters, as mapping pairs.

use super::corrupt;
use crate::error::{Error, Result};
use crate::limits;

/// Clusters that lie one after the other, or that do not lie anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The first cluster of the file in it.
    pub(super) vcn: u64,
    /// Where that lies on the volume; `None` for a hole.
    pub(super) lcn: Option<u64>,
    pub(super) len: u64,
}

/// Decodes mapping pairs that begin at cluster `vcn` of a file on a volume of `clusters`. What cluster follows.
pub(super) fn decode(pairs: &[u8], vcn: u64, clusters: u64, runs: &mut Vec<Run>) -> Result<u64> {
    let (mut next, mut place) = (vcn, 0_i64);
    let mut rest = pairs;
    // A header of zero is the end.
    while let Some((sizes, after)) = rest.split_first().filter(|(sizes, _)| **sizes != 0) {
        let (len_size, place_size) = (usize::from(sizes & 0xf), usize::from(sizes >> 4));
        let (len, after) = after.split_at_checked(len_size).ok_or_else(cut)?;
        let (step, after) = after.split_at_checked(place_size).ok_or_else(cut)?;
        let len = signed(len).and_then(|len| u64::try_from(len).ok()).filter(|len| *len > 0);
        let len = len.ok_or_else(|| corrupt("a run of clusters has an impossible length"))?;
        let lcn = if place_size == 0 {
            None
        } else {
            let step = signed(step).ok_or_else(|| corrupt("a run of clusters has an impossible place"))?;
            place = place.checked_add(step).ok_or_else(|| corrupt("a run of clusters has an impossible place"))?;
            let lcn = u64::try_from(place).ok().filter(|lcn| lcn.checked_add(len).is_some_and(|end| end <= clusters));
            Some(lcn.ok_or_else(|| corrupt("a run of clusters lies outside of the volume").found(place))?)
        };
        if runs.len() >= limits::MAX_NTFS_RUNS {
            return Err(Error::limit("ntfs.limit", "a file is in too many pieces").found(runs.len()));
        }
        runs.push(Run { vcn: next, lcn, len });
        // No file has more clusters than bytes can be counted.
        next = next
            .checked_add(len)
            .filter(|next| *next < 1 << 52)
            .ok_or_else(|| corrupt("a file has too many clusters"))?;
        rest = after;
    }
    Ok(next)
}

fn cut() -> Error {
    corrupt("the runs of an attribute are cut off")
}

/// A number of up to eight bytes; `None` for none or more.
fn signed(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last()? & 0x80 != 0;
    let mut whole = if negative { [0xff; 8] } else { [0; 8] };
    whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(pairs: &[u8]) -> Result<(Vec<Run>, u64)> {
        let mut runs = Vec::new();
        let next = decode(pairs, 0, 1000, &mut runs)?;
        Ok((runs, next))
    }

    #[test]
    fn runs_follow_each_other_forward_and_back() {
        let (runs, next) = decoded(&[0x21, 5, 100, 0, 0x01, 3, 0x11, 2, 0xfe, 0]).unwrap();
        let run = |vcn, lcn, len| Run { vcn, lcn, len };
        assert_eq!(runs, [run(0, Some(100), 5), run(5, None, 3), run(8, Some(98), 2)]);
        assert_eq!(next, 10);
    }

    #[test]
    fn runs_that_cannot_be_are_refused() {
        for pairs in [
            &[0x11, 5][..],
            &[0x11, 0, 1, 0],
            &[0x11, 0x80, 1, 0],
            &[0x11, 1, 0x80, 0],
            &[0x21, 5, 0xe5, 3, 0],
            &[0x10, 1, 0],
            &[0x19, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
            &[0x08, 1, 1, 1, 1, 1, 1, 1, 1, 0],
        ] {
            assert!(decoded(pairs).is_err(), "{pairs:?}");
        }
        // At the end of the volume is still inside.
        assert!(decoded(&[0x21, 5, 0xe3, 3, 0]).is_ok());
    }

    #[test]
    fn runs_have_a_bound() {
        let mut runs = vec![Run { vcn: 0, lcn: None, len: 1 }; limits::MAX_NTFS_RUNS - 1];
        decode(&[0x01, 1, 0], 0, 10, &mut runs).unwrap();
        assert_eq!(decode(&[0x01, 1, 0], 0, 10, &mut runs).unwrap_err().code(), "ntfs.limit");
    }
}
