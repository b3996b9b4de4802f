//! The symbols of literals, lengths and distances (RFC 1951, 3.2.5).

/// Shortest and longest match.
pub(super) const MIN_MATCH: usize = 3;
pub(super) const MAX_MATCH: usize = 258;

/// The symbol that ends a block.
pub(super) const END: usize = 256;

/// Symbols of literals, the end of a block, and lengths.
pub(super) const LITLENS: usize = 286;

/// Symbols of distances up to 4 KiB.
pub(super) const DISTANCES: usize = 24;

/// Bits behind each length symbol, from 257 on.
pub(super) const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];

/// Of each length, less [`MIN_MATCH`]: its symbol, less 257, and what the bits behind the symbol say.
pub(super) static LENGTHS: [(u8, u8); 256] = lengths();

const fn lengths() -> [(u8, u8); 256] {
    let mut all = [(0, 0); 256];
    let (mut length, mut symbol) = (0, 0);
    while length < 255 {
        let mut extra = 0;
        while extra < 1 << LENGTH_EXTRA[symbol as usize] && length < 255 {
            all[length] = (symbol, extra);
            extra += 1;
            length += 1;
        }
        symbol += 1;
    }
    // The longest has a symbol of its own.
    all[255] = (28, 0);
    all
}

/// The symbol of the distance `less_one` + 1.
#[inline(always)]
pub(super) const fn distance_symbol(less_one: u32) -> u32 {
    if less_one < 2 {
        return less_one;
    }
    let top = less_one.ilog2();
    2 * top + (less_one >> (top - 1) & 1)
}

/// Bits behind a distance symbol.
#[inline(always)]
pub(super) const fn distance_extra(symbol: usize) -> u8 {
    (symbol as u8 / 2).saturating_sub(1)
}

/// A literal or a match in 26 bits: its index, the distance less one, and the distance's symbol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token(u32);

/// Where the distance's symbol would be in a literal.
pub(super) const NO_DISTANCE: usize = 31;

impl Token {
    #[inline(always)]
    pub(super) const fn literal(byte: u8) -> Self {
        Self(byte as u32 | (NO_DISTANCE as u32) << 21)
    }

    /// A match of `len` bytes that starts `distance` bytes back.
    #[inline(always)]
    pub(super) const fn copy(len: usize, distance: u32) -> Self {
        let less_one = distance - 1;
        Self((len - MIN_MATCH + 256) as u32 | less_one << 9 | distance_symbol(less_one) << 21)
    }

    /// The literal, or the length of the match from 256 on.
    #[inline(always)]
    pub(super) const fn index(self) -> usize {
        (self.0 & 511) as usize
    }

    #[inline(always)]
    pub(super) const fn distance_less_one(self) -> u32 {
        self.0 >> 9 & 4095
    }

    /// [`NO_DISTANCE`] for a literal.
    #[inline(always)]
    pub(super) const fn distance_symbol(self) -> usize {
        (self.0 >> 21 & 31) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_specification() {
        let first = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
            227, 258,
        ];
        for (at, &(symbol, extra)) in LENGTHS.iter().enumerate() {
            let symbol = usize::from(symbol);
            assert_eq!(at + 3, first[symbol] + usize::from(extra));
            assert!(extra < 1 << LENGTH_EXTRA[symbol]);
        }
    }

    #[test]
    fn distances_are_those_of_the_specification() {
        let first = [
            1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
        ];
        for distance in 1..=4096 {
            let token = Token::copy(3, distance);
            let symbol = token.distance_symbol();
            assert!(symbol < DISTANCES && (first[symbol]..first[symbol + 1]).contains(&distance));
            let extra = token.distance_less_one() & ((1 << distance_extra(symbol)) - 1);
            assert_eq!(distance, first[symbol] + extra);
        }
    }

    #[test]
    fn tokens_hold_what_they_were_made_of() {
        assert_eq!((Token::literal(255).index(), Token::literal(0).distance_symbol()), (255, NO_DISTANCE));
        let token = Token::copy(258, 4096);
        assert_eq!((token.index(), token.distance_less_one(), token.distance_symbol()), (511, 4095, 23));
    }
}
