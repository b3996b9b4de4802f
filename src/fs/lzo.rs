//! LZO1X, decoded within bounds (`Documentation/staging/lzo.rst` of the kernel).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::disk::bytes::le16;

/// Distance that ends a stream when the shortest one is asked for.
const FAR: usize = 16384;

/// Decodes one stream of at most `max` bytes; `None` when it is damaged, decodes to more, or is not all of `input`.
pub(crate) fn stream(input: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut lzo = Lzo { input, output: Vec::with_capacity(max), max };
    // What came before: 0 to 3 literals behind a match, or 4 for a run of literals.
    let mut state = 0;
    if let Some(first @ 18..) = input.first().copied() {
        lzo.byte()?;
        let count = usize::from(first).checked_sub(17)?;
        lzo.literals(count)?;
        state = count.min(4);
    }
    loop {
        let code = usize::from(lzo.byte()?);
        let (distance, len, literals) = match code {
            0..16 if state == 0 => {
                let count = if code == 0 { lzo.long(15)? } else { code };
                lzo.literals(count.checked_add(3)?)?;
                state = 4;
                continue;
            }
            0..16 => {
                let near = code >> 2 | usize::from(lzo.byte()?) << 2;
                if state == 4 { (near.checked_add(2049)?, 3, code & 3) } else { (near.checked_add(1)?, 2, code & 3) }
            }
            16..32 => {
                let len = if code & 7 == 0 { lzo.long(7)? } else { code & 7 };
                let word = lzo.word()?;
                let distance = FAR.checked_add((code & 8) << 11)?.checked_add(word >> 2)?;
                if distance == FAR {
                    return lzo.input.is_empty().then_some(lzo.output);
                }
                (distance, len.checked_add(2)?, word & 3)
            }
            32..64 => {
                let len = if code & 31 == 0 { lzo.long(31)? } else { code & 31 };
                let word = lzo.word()?;
                ((word >> 2).checked_add(1)?, len.checked_add(2)?, word & 3)
            }
            _ => {
                let near = (code >> 2 & 7) | usize::from(lzo.byte()?) << 3;
                (near.checked_add(1)?, (code >> 5).checked_add(1)?, code & 3)
            }
        };
        lzo.repeat(distance, len)?;
        lzo.literals(literals)?;
        state = literals;
    }
}

struct Lzo<'a> {
    input: &'a [u8],
    output: Vec<u8>,
    max: usize,
}

impl Lzo<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.input.split_first()?;
        self.input = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<usize> {
        let (word, rest) = self.input.split_at_checked(2)?;
        self.input = rest;
        Some(usize::from(le16(word, 0)))
    }

    /// A length that did not fit: zeros count 255 each.
    fn long(&mut self, base: usize) -> Option<usize> {
        let mut len = base;
        loop {
            match self.byte()? {
                0 => len = len.checked_add(255)?,
                last => return len.checked_add(usize::from(last)),
            }
        }
    }

    fn literals(&mut self, count: usize) -> Option<()> {
        let (bytes, rest) = self.input.split_at_checked(count)?;
        if self.output.len().checked_add(count)? > self.max {
            return None;
        }
        self.output.extend_from_slice(bytes);
        self.input = rest;
        Some(())
    }

    fn repeat(&mut self, distance: usize, len: usize) -> Option<()> {
        let start = self.output.len().checked_sub(distance)?;
        if self.output.len().checked_add(len)? > self.max {
            return None;
        }
        for at in start..start.checked_add(len)? {
            let byte = *self.output.get(at)?;
            self.output.push(byte);
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;

    #[test]
    fn literals_and_matches_of_every_kind() {
        // 4 literals, then a match of 3 bytes at distance 4 with one literal behind it, and the end.
        let short = [21, b'a', b'b', b'c', b'd', 64 | 3 << 2 | 1, 0, b'!', 17, 0, 0];
        assert_eq!(stream(&short, 100).unwrap(), b"abcdabc!");
        // A long run of literals; a long match of what lies next to it; a match of 2 bytes behind a literal.
        let mut long = vec![0, 2];
        long.extend((0..20).map(|value| b'a' + value));
        long.extend([32, 9, 1, 0, b'Z', 1 << 2, 0, 17, 0, 0]);
        let mut expected: Vec<u8> = (0..20).map(|value| b'a' + value).collect();
        expected.extend([b't'; 42]);
        expected.extend(b"ZtZ");
        assert_eq!(stream(&long, 100).unwrap(), expected);
        assert_eq!(stream(&long, expected.len()).unwrap(), expected);
        assert!(stream(&long, expected.len() - 1).is_none());
    }

    #[test]
    fn hostile_streams_end() {
        for bytes in [
            &[][..],
            &[0],
            &[0, 0, 0, 0],
            &[255, 1, 2],
            &[18, b'a', 64, 0],
            &[18, b'a', 64, 255, 17, 0, 0],
            &[17, 0],
            &[17, 0, 0, 1],
            &[18, b'a', 32, 0, 0, 0, 0],
        ] {
            assert!(stream(bytes, 4096).is_none(), "{bytes:?}");
        }
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..64).map(|_| noise()).collect();
            assert!(stream(&bytes, 4096).is_none_or(|output| output.len() <= 4096));
        }
    }
}
