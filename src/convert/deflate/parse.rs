//! Turns a piece of the input into literals and matches, and counts them.

use std::ops::Range;

use super::Level;
use super::matches::{Effort, Match, Matches};
use super::symbols::{MIN_MATCH, Token};

pub(super) use super::matches::PIECE;

/// Bytes of the parts whose symbols are counted on their own: blocks begin and end between them.
const SEGMENT: usize = 8 << 10;

/// Bytes at the start of a segment that are always searched for matches.
const PROBE: usize = 1 << 10;

/// Most segments of a piece.
pub(super) const MAX_SEGMENTS: usize = PIECE / SEGMENT;

/// How often each token index and distance symbol occurs in a part of a piece.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) tokens: [u16; 512],
    pub(super) distances: [u16; 32],
    /// Tokens and bytes of the piece up to the end of the segment.
    pub(super) tokens_end: usize,
    pub(super) bytes_end: usize,
}

impl Segment {
    const EMPTY: Self = Self { tokens: [0; 512], distances: [0; 32], tokens_end: 0, bytes_end: 0 };

    fn has_matches(&self) -> bool {
        self.distances.iter().any(|&count| count != 0)
    }

    /// Counts a literal.
    #[inline(always)]
    fn literal(&mut self, byte: u8) -> Token {
        self.tokens[usize::from(byte)] += 1;
        Token::literal(byte)
    }

    /// Counts a match.
    #[inline(always)]
    fn copy(&mut self, found: Match) -> Token {
        let token = Token::copy(found.len, found.distance);
        self.tokens[token.index()] += 1;
        self.distances[token.distance_symbol()] += 1;
        token
    }
}

/// What [`Parser::parse`] found.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) segments: &'a [Segment],
}

/// The memory of parsing.
#[derive(Debug)]
pub(super) struct Parser {
    matches: Matches,
    effort: Effort,
    /// As many as a piece can have, so that adding one needs no check; `count` of them are in use.
    tokens: Box<[Token; PIECE]>,
    count: usize,
    segments: Vec<Segment>,
}

impl Parser {
    pub(super) fn new(level: Level) -> Self {
        let effort = match level {
            Level::Fast => Effort { first: 8, second: 2, nice: 32 },
            Level::Best => Effort { first: 256, second: 256, nice: 258 },
        };
        let (tokens, segments) = (Box::new([Token::literal(0); PIECE]), Vec::with_capacity(MAX_SEGMENTS));
        Self { matches: Matches::new(), effort, tokens, count: 0, segments }
    }

    /// Parses `input`; matches may start in `before`. Both together have at most [`PIECE`] bytes.
    pub(super) fn parse(&mut self, before: &[u8], input: &[u8]) -> Parsed<'_> {
        self.matches.begin(before, input);
        self.count = 0;
        self.segments.clear();
        let len = before.len() + input.len();
        let mut place = before.len();
        while place < len {
            let end = len.min(place / SEGMENT * SEGMENT + SEGMENT);
            let mut segment = Segment::EMPTY;
            place = self.search(place..end.min(place + PROBE), len, &mut segment);
            // Encrypted, compressed: a search finds nothing, and a block of it will be stored.
            if place < end && !segment.has_matches() && is_even(&input[place - before.len()..end - before.len()]) {
                place = self.take(place..end, &mut segment);
            } else {
                place = self.search(place..end, len, &mut segment);
            }
            segment.tokens_end = self.count;
            segment.bytes_end = place - before.len();
            self.segments.push(segment);
        }
        Parsed { tokens: &self.tokens[..self.count], segments: &self.segments }
    }

    /// Takes all of `range` as literals.
    fn take(&mut self, range: Range<usize>, segment: &mut Segment) -> usize {
        let matches = &self.matches;
        let end = range.end;
        for (token, place) in self.tokens[self.count..].iter_mut().zip(range) {
            *token = segment.literal(matches.byte(place as u16));
            self.count += 1;
        }
        end
    }

    /// Parses until the end of `range`; the last match may go beyond. Gives the place behind it.
    fn search(&mut self, range: Range<usize>, len: usize, segment: &mut Segment) -> usize {
        let (effort, matches, tokens) = (self.effort, &mut self.matches, &mut self.tokens);
        let mut count = self.count;
        let mut add = |token| {
            tokens[count % PIECE] = token;
            count += 1;
        };
        let mut place = range.start;
        while place < range.end {
            let mut found = matches.find(place as u16, effort);
            if found.len < MIN_MATCH {
                add(segment.literal(matches.byte(place as u16)));
                place += 1;
                continue;
            }
            let mut visited = place + 1;
            while found.len < effort.nice && visited < len {
                let next = matches.find_longer(visited as u16, found.len, effort);
                visited += 1;
                if !is_better(next, found) {
                    break;
                }
                add(segment.literal(matches.byte(place as u16)));
                place += 1;
                found = next;
            }
            add(segment.copy(found));
            place += found.len;
            for inside in visited..place {
                matches.skip(inside as u16);
            }
        }
        self.count = count;
        place
    }
}

/// Whether all bytes occur about equally often: as in random data, within what chance makes of so few.
fn is_even(bytes: &[u8]) -> bool {
    let mut counts = [0_u64; 256];
    bytes.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let squares: u64 = counts.iter().map(|count| count * count).sum();
    let len = bytes.len() as u64;
    // Random bytes come to about `len` above the least there can be.
    squares <= len * len / 256 * 9 / 8 + len
}

/// Whether `next`, one byte on, is worth the literal before it.
#[inline(always)]
fn is_better(next: Match, found: Match) -> bool {
    let bits = |distance: u32| i64::from(32 - distance.leading_zeros());
    let longer = next.len as i64 - found.len as i64;
    next.len >= MIN_MATCH && 4 * longer + bits(found.distance) - bits(next.distance) > 2
}
