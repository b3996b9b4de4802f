//! The segments of LZO1X in which btrfs keeps an extent.

use super::corrupt;
use crate::disk::bytes::{le32, size};
use crate::error::Result;
use crate::fs::lzo::stream;

/// Decodes an extent: its length, then segments, each of which decodes to at most one sector. The head of a segment never crosses
/// the end of a sector of the input.
pub(super) fn decode(input: &[u8], max: usize, sector: usize) -> Result<Vec<u8>> {
    let damaged = || corrupt("an extent compressed with LZO is damaged");
    let total = size(u64::from(le32(input, 0)));
    let input = input.get(..total).filter(|input| input.len() >= 4).ok_or_else(damaged)?;
    let (mut at, mut output) = (4_usize, Vec::new());
    while output.len() < max {
        let left = sector.saturating_sub(at.checked_rem(sector).unwrap_or(0));
        if left < 4 {
            at = at.saturating_add(left);
        }
        if at >= input.len() {
            break;
        }
        let start = at.saturating_add(4);
        let end = start.saturating_add(size(u64::from(le32(input, at))));
        let segment = input.get(start..end).filter(|segment| !segment.is_empty()).ok_or_else(damaged)?;
        let room = sector.min(max.saturating_sub(output.len()));
        output.extend(stream(segment, room).ok_or_else(damaged)?);
        at = end;
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_extents_end() {
        for seed in 0..2000 {
            let _ = decode(&crate::testing::noise(seed, 64), 1 << 17, 4096);
        }
    }

    #[test]
    fn damaged_segments() {
        let segment = [18, b'a', 17, 0, 0];
        let mut extent = vec![13, 0, 0, 0, 5, 0, 0, 0];
        extent.extend(segment);
        assert_eq!(decode(&extent, 4096, 4096).unwrap(), b"a");
        for (at, value) in [(0, 14), (0, 12), (0, 2), (4, 0), (4, 6), (7, 255)] {
            let mut bytes = extent.clone();
            bytes[at] = value;
            assert_eq!(decode(&bytes, 4096, 4096).unwrap_err().code(), "btrfs.corrupt", "{at}");
        }
        assert!(decode(&[], 4096, 4096).is_err());
    }
}
