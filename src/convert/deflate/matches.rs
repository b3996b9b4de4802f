//! Finds where the bytes at a place were before: chains of places with the same hash, in tables that fit a core's own cache.

use super::WINDOW;
use super::symbols::{MAX_MATCH, MIN_MATCH};

/// Bytes that are looked at in one go, the window before them included: what 16 bits can number.
pub(super) const PIECE: usize = 1 << 16;

/// Bytes behind a piece, so that loads need no check.
const SLACK: usize = MAX_MATCH + 14;

const HASH_BITS: u32 = 15;
const HASH3_BITS: u32 = 12;

type Buffer = [u8; PIECE + SLACK];

/// When to stop looking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Places tried in vain where there is no match yet.
    pub(super) first: u32,
    /// Places tried in vain for a match that is longer than one that starts a byte before.
    pub(super) second: u32,
    /// A match of this length is good enough.
    pub(super) nice: usize,
}

/// Bytes that were there before; no match has fewer than [`MIN_MATCH`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Match {
    pub(super) len: usize,
    pub(super) distance: u32,
}

/// A piece of the input with the places of the bytes seen so far. Places are visited in order, none twice.
///
/// Places are 16-bit numbers, and none is taken at its word: a place is a match only if it lies in the window and its bytes are
/// the same, so that it does no harm that empty tables name place 0.
#[derive(Debug)]
pub(super) struct Matches {
    bytes: Box<Buffer>,
    len: usize,
    /// The last place whose four bytes have this hash.
    heads: Box<[u16; 1 << HASH_BITS]>,
    /// The place before with the same hash, of each place in the window.
    chain: Box<[u16; WINDOW]>,
    /// The last place whose three bytes have this hash.
    threes: Box<[u16; 1 << HASH3_BITS]>,
}

impl Matches {
    pub(super) fn new() -> Self {
        Self {
            bytes: Box::new([0; PIECE + SLACK]),
            len: 0,
            heads: Box::new([0; 1 << HASH_BITS]),
            chain: Box::new([0; WINDOW]),
            threes: Box::new([0; 1 << HASH3_BITS]),
        }
    }

    /// Begins with `input`, which `before` precedes; both together have at most [`PIECE`] bytes.
    pub(super) fn begin(&mut self, before: &[u8], input: &[u8]) {
        self.len = before.len() + input.len();
        self.bytes[..before.len()].copy_from_slice(before);
        self.bytes[before.len()..self.len].copy_from_slice(input);
        self.bytes[self.len..self.len + SLACK].fill(0);
        self.heads.fill(0);
        self.chain.fill(0);
        self.threes.fill(0);
        for place in 0..before.len() {
            self.skip(place as u16);
        }
    }

    #[inline(always)]
    pub(super) fn byte(&self, place: u16) -> u8 {
        self.bytes[usize::from(place)]
    }

    /// Visits `place` without a look.
    #[inline(always)]
    pub(super) fn skip(&mut self, place: u16) {
        self.visit(place);
    }

    /// Visits `place` and gives the best match there, of length 0 if there is none.
    #[inline(always)]
    pub(super) fn find(&mut self, place: u16, effort: Effort) -> Match {
        let (last, three) = self.visit(place);
        let found = self.longer(place, last, MIN_MATCH, effort.first);
        if found.len != 0 {
            return found;
        }
        let back = back(place, three);
        let differ = load64(&self.bytes, place.into()) ^ load64(&self.bytes, three.into());
        if back < WINDOW as u32 && differ << 40 == 0 {
            return self.cut(place, MIN_MATCH, back);
        }
        Match::default()
    }

    /// Visits `place` and gives the longest match there if it has more than `than` bytes.
    #[inline(always)]
    pub(super) fn find_longer(&mut self, place: u16, than: usize, effort: Effort) -> Match {
        let (last, _) = self.visit(place);
        self.longer(place, last, than, effort.second)
    }

    /// Puts `place` into the tables; gives the last ones that they had for its four and for its three bytes.
    #[inline(always)]
    fn visit(&mut self, place: u16) -> (u16, u16) {
        let here = load32(&self.bytes, place.into());
        let head = &mut self.heads[(here.wrapping_mul(0x9E37_79B1) >> (32 - HASH_BITS)) as usize];
        let three = &mut self.threes[((here << 8).wrapping_mul(0x9E37_79B1) >> (32 - HASH3_BITS)) as usize];
        let before = (*head, *three);
        self.chain[usize::from(place) % WINDOW] = before.0;
        (*head, *three) = (place, place);
        before
    }

    /// The longest match of more than `than` bytes on the chain from `at` on, until `tries` places brought none.
    #[inline(always)]
    fn longer(&self, place: u16, mut at: u16, than: usize, tries: u32) -> Match {
        let mut best = Match::default();
        // A longer match has these four bytes in common; they end where the best so far does not go on.
        let mut from = (than - MIN_MATCH) & 255;
        let mut wanted = load32(&self.bytes, usize::from(place) + from);
        let mut left = tries;
        while left != 0 {
            left -= 1;
            let back = back(place, at);
            if back >= WINDOW as u32 {
                break;
            }
            if load32(&self.bytes, usize::from(at) + from) == wanted {
                let len = same_bytes(&self.bytes, place, at);
                if len >= from + 4 {
                    best = Match { len, distance: back };
                    left = tries;
                    if len >= MAX_MATCH {
                        break;
                    }
                    from = (len - MIN_MATCH) & 255;
                    wanted = load32(&self.bytes, usize::from(place) + from);
                }
            }
            let next = self.chain[usize::from(at) % WINDOW];
            if next >= at {
                // The entry belongs to a later place by now, or is the last one.
                break;
            }
            at = next;
        }
        if best.len == 0 { best } else { self.cut(place, best.len, best.distance) }
    }

    /// A match that does not go beyond the input, `back` + 1 bytes behind `place`.
    #[inline(always)]
    fn cut(&self, place: u16, len: usize, back: u32) -> Match {
        Match { len: len.min(MAX_MATCH).min(self.len - usize::from(place)), distance: back + 1 }
    }
}

/// How far `at` lies behind `place`, less one. What does not lie behind it comes out beyond any window.
#[inline(always)]
fn back(place: u16, at: u16) -> u32 {
    u32::from(place.wrapping_sub(at).wrapping_sub(1))
}

/// How many bytes are the same from both places on; at least [`MAX_MATCH`] stands for any more.
#[inline(always)]
fn same_bytes(bytes: &Buffer, one: u16, other: u16) -> usize {
    let mut len = 0;
    while len < MAX_MATCH {
        let differ = load64(bytes, usize::from(one) + len) ^ load64(bytes, usize::from(other) + len);
        if differ != 0 {
            return len + differ.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    len
}

// Both are compiled without a check where `at` is known to be small enough.

#[inline(always)]
fn load32(bytes: &Buffer, at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[inline(always)]
fn load64(bytes: &Buffer, at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map_or(0, u64::from_le_bytes)
}
