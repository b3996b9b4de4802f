//! LZNT1, by which NTFS compresses files ([MS-XCA] 2.5).

use crate::disk::bytes::le16;

/// Bytes that a chunk decodes to.
const CHUNK: usize = 4096;

/// Decodes into `out`; what the input does not fill is zeros. `None` when it is damaged.
pub(super) fn decode(input: &[u8], out: &mut [u8]) -> Option<()> {
    out.fill(0);
    let mut rest = input;
    for chunk in out.chunks_mut(CHUNK) {
        let header = le16(rest, 0);
        if header == 0 {
            return Some(());
        }
        let len = usize::from(header & 0xfff).checked_add(1)?;
        let (bytes, after) = rest.get(2..)?.split_at_checked(len)?;
        if header & 0x8000 == 0 {
            chunk.get_mut(..len)?.copy_from_slice(bytes);
        } else {
            decode_chunk(bytes, chunk)?;
        }
        rest = after;
    }
    Some(())
}

fn decode_chunk(bytes: &[u8], out: &mut [u8]) -> Option<()> {
    let (mut rest, mut done) = (bytes, 0_usize);
    while let [flags, after @ ..] = rest {
        rest = after;
        for bit in 0..8 {
            if rest.is_empty() {
                return Some(());
            }
            if flags >> bit & 1 == 0 {
                let (byte, after) = rest.split_first()?;
                *out.get_mut(done)? = *byte;
                done = done.checked_add(1)?;
                rest = after;
                continue;
            }
            let token = le16(rest.get(..2)?, 0);
            rest = rest.get(2..)?;
            // The further into the chunk, the more bits tell how far back.
            let back_bits = done.checked_sub(1)?.checked_ilog2().map_or(4, |log| log.saturating_add(1).max(4));
            let len_bits = 16_u32.checked_sub(back_bits)?;
            let back = usize::from(token.checked_shr(len_bits)?).checked_add(1)?;
            let len = usize::from(token & 1_u16.checked_shl(len_bits)?.wrapping_sub(1)).checked_add(3)?;
            let from = done.checked_sub(back)?;
            for index in 0..len {
                let byte = *out.get(from.checked_add(index)?)?;
                *out.get_mut(done)? = byte;
                done = done.checked_add(1)?;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of [MS-XCA] 3.3.
    #[test]
    fn the_example_of_the_specification() {
        let input = [
            0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0, 0x45,
            0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88, 0x05, 0xb4,
            0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe, 0x00, 0x9e, 0x00,
            0x04, 0x01, 0x18, 0x90, 0x00,
        ];
        let mut out = vec![0; 142];
        decode(&input, &mut out).unwrap();
        let text = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(text));
    }

    #[test]
    fn damage_is_noticed() {
        let mut out = vec![0; 8192];
        for input in [&[0x05, 0xb0, 1][..], &[0x02, 0xb0, 1, 0, 0], &[0x01, 0xb0, 1, 5], &[]] {
            let _ = decode(input, &mut out);
        }
        assert_eq!(decode(&[0x02, 0xb0, 1, 0, 0], &mut out), None);
        assert_eq!(decode(&[0x05, 0xb0, 1], &mut out), None);
        assert_eq!(decode(&[0x03, 0xb0, 2, 7, 0xff, 0xff], &mut out), None);
        assert_eq!(decode(&[0, 0], &mut out), Some(()));
    }
}
