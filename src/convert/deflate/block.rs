//! Writes blocks (RFC 1951, 3.2.3 to 3.2.7): with a code of their own, or stored where that is no longer.

use super::huffman;
use super::split::Counts;
use super::symbols::{DISTANCES, END, LENGTH_EXTRA, LENGTHS, LITLENS, Token, distance_extra};

/// Longest stored block.
const MAX_STORED: usize = 0xffff;

/// The order in which the lengths of the codes of code lengths are given.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Writes a stream of at most `limit` bytes behind what `out` has.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    /// Bits that do not make a whole byte yet.
    bits: u64,
    count: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, limit: usize) -> Self {
        let end = out.len().saturating_add(limit);
        Self { out, end, bits: 0, count: 0 }
    }

    /// Writes `tokens`, which stand for `input` and have `counts`; nothing if the stream gets too long.
    pub(super) fn block(&mut self, counts: &Counts, tokens: &[Token], input: &[u8], last: bool) -> Option<()> {
        let codes = Codes::new(counts);
        let header = Header::new(&codes);
        let bytes = (3 + header.bits() + codes.bits(counts)).div_ceil(8);
        let stored = input.len() + stored_blocks(input.len()) * 5;
        if self.out.len() + bytes.min(stored) > self.end {
            return None;
        }
        if stored < bytes {
            self.stored(input, last);
        } else {
            self.put(0b100 | u32::from(last), 3);
            header.write(self);
            self.tokens(&codes, tokens, bytes);
        }
        Some(())
    }

    /// Fills the last byte.
    pub(super) fn finish(&mut self) -> Option<()> {
        self.align();
        (self.out.len() <= self.end).then_some(())
    }

    fn align(&mut self) {
        self.put(0, self.count.wrapping_neg() & 7);
    }

    /// Appends up to 16 bits, first bit lowest.
    fn put(&mut self, bits: u32, count: u32) {
        self.bits |= u64::from(bits) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.out.push(self.bits as u8);
            self.bits >>= 8;
            self.count -= 8;
        }
    }

    fn stored(&mut self, input: &[u8], last: bool) {
        let count = stored_blocks(input.len());
        for number in 0..count {
            let part = &input[number * MAX_STORED..input.len().min((number + 1) * MAX_STORED)];
            self.put(u32::from(last && number + 1 == count), 3);
            self.align();
            let len = part.len() as u16;
            self.out.extend_from_slice(&len.to_le_bytes());
            self.out.extend_from_slice(&(!len).to_le_bytes());
            self.out.extend_from_slice(part);
        }
    }

    /// Writes tokens that take at most `bytes` bytes, and the end of the block.
    fn tokens(&mut self, codes: &Codes, tokens: &[Token], bytes: usize) {
        let (first, second) = (codes.of_indexes(), codes.of_distances());
        let start = self.out.len();
        self.out.resize(start + bytes + 8, 0);
        let room = &mut self.out[start..];
        let (mut bits, mut count, mut at) = (self.bits, self.count, 0);
        for token in tokens {
            // Fewer than 8 bits are left from before, and a token has at most 45: 15 + 5 and 15 + 10.
            let index = first[token.index()];
            bits |= u64::from(index & 0xff_ffff) << count;
            count += index >> 24;
            let distance = &second[token.distance_symbol()];
            let extra = token.distance_less_one() & u32::from(distance.mask);
            bits |= (u64::from(distance.word) | u64::from(extra) << distance.bits) << count;
            count += u32::from(distance.all_bits);
            if let Some(to) = room.get_mut(at..at + 8) {
                to.copy_from_slice(&bits.to_le_bytes());
            }
            at += count as usize / 8;
            bits >>= count & !7;
            count &= 7;
        }
        self.out.truncate(start + at);
        (self.bits, self.count) = (bits, count);
        self.put(first[512] & 0xff_ffff, first[512] >> 24);
    }
}

/// How many blocks `len` bytes take; there is one for no bytes, too.
const fn stored_blocks(len: usize) -> usize {
    if len == 0 { 1 } else { len.div_ceil(MAX_STORED) }
}

/// The lengths of the codes of a block.
struct Codes {
    litlens: [u8; LITLENS],
    distances: [u8; DISTANCES],
}

/// What is written for a distance symbol.
#[derive(Clone, Copy, Default)]
struct Distance {
    word: u16,
    bits: u8,
    /// With the bits behind the symbol.
    all_bits: u8,
    /// Of the bits behind the symbol.
    mask: u16,
}

impl Codes {
    fn new(counts: &Counts) -> Self {
        let mut codes = Self { litlens: [0; LITLENS], distances: [0; DISTANCES] };
        huffman::lengths(&counts.litlens, huffman::MAX_BITS, &mut codes.litlens);
        huffman::lengths(&counts.distances, huffman::MAX_BITS, &mut codes.distances);
        codes
    }

    /// Bits of all tokens with `counts`, and the end of the block.
    fn bits(&self, counts: &Counts) -> usize {
        let all = |counts: &[u32], bits: &mut dyn Iterator<Item = u8>| -> usize {
            counts.iter().zip(bits).map(|(&count, bits)| count as usize * usize::from(bits)).sum()
        };
        all(&counts.litlens, &mut self.litlens.iter().copied())
            + all(&counts.litlens[END + 1..], &mut LENGTH_EXTRA.iter().copied())
            + all(&counts.distances, &mut self.distances.iter().copied())
            + all(&counts.distances, &mut (0..DISTANCES).map(distance_extra))
    }

    /// What is written for each token index, and last for the end of the block: in 24 bits, their number above them.
    fn of_indexes(&self) -> [u32; 513] {
        let mut words = [0; LITLENS];
        huffman::words(&self.litlens, &mut words);
        let word = |symbol: usize| u32::from(words[symbol]) | u32::from(self.litlens[symbol]) << 24;
        let mut all = [0; 513];
        for (literal, entry) in all[..256].iter_mut().enumerate() {
            *entry = word(literal);
        }
        for (entry, &(symbol, extra)) in all[256..512].iter_mut().zip(&LENGTHS) {
            let plain = word(END + 1 + usize::from(symbol));
            let extra_bits = u32::from(LENGTH_EXTRA[usize::from(symbol)]);
            *entry = (plain | u32::from(extra) << (plain >> 24)) + (extra_bits << 24);
        }
        all[512] = word(END);
        all
    }

    /// What is written for each distance symbol; nothing for a literal's.
    fn of_distances(&self) -> [Distance; 32] {
        let mut words = [0; DISTANCES];
        huffman::words(&self.distances, &mut words);
        let mut all = [Distance::default(); 32];
        for (symbol, entry) in all[..DISTANCES].iter_mut().enumerate() {
            let (bits, extra) = (self.distances[symbol], distance_extra(symbol));
            *entry = Distance { word: words[symbol], bits, all_bits: bits + extra, mask: (1 << extra) - 1 };
        }
        all
    }
}

/// The lengths of a block's codes, themselves encoded (RFC 1951, 3.2.7).
struct Header {
    litlens: usize,
    distances: usize,
    /// Symbols, and what the bits behind them say.
    symbols: Vec<(u8, u8)>,
    /// The code of these symbols, and how many of [`ORDER`] are given.
    lengths: [u8; 19],
    given: usize,
}

impl Header {
    fn new(codes: &Codes) -> Self {
        let litlens = used(&codes.litlens).max(END + 1);
        let distances = used(&codes.distances).max(1);
        let mut symbols = Vec::with_capacity(LITLENS + DISTANCES);
        // Runs may go over from one to the other.
        let mut all = [0; LITLENS + DISTANCES];
        all[..litlens].copy_from_slice(&codes.litlens[..litlens]);
        all[litlens..litlens + distances].copy_from_slice(&codes.distances[..distances]);
        for run in all[..litlens + distances].chunk_by(|one, other| one == other) {
            add_run(run[0], run.len(), &mut symbols);
        }
        let mut counts = [0; 19];
        symbols.iter().for_each(|&(symbol, _)| counts[usize::from(symbol)] += 1);
        let mut lengths = [0; 19];
        huffman::lengths(&counts, 7, &mut lengths);
        let given = used(&ORDER.map(|symbol| lengths[symbol])).max(4);
        Self { litlens, distances, symbols, lengths, given }
    }

    fn bits(&self) -> usize {
        let bits =
            |&(symbol, _): &(u8, u8)| usize::from(self.lengths[usize::from(symbol)]) + repeat_bits(symbol) as usize;
        14 + 3 * self.given + self.symbols.iter().map(bits).sum::<usize>()
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.put((self.litlens - 257) as u32, 5);
        writer.put((self.distances - 1) as u32, 5);
        writer.put((self.given - 4) as u32, 4);
        for &symbol in &ORDER[..self.given] {
            writer.put(self.lengths[symbol].into(), 3);
        }
        let mut words = [0; 19];
        huffman::words(&self.lengths, &mut words);
        for &(symbol, repeat) in &self.symbols {
            writer.put(words[usize::from(symbol)].into(), self.lengths[usize::from(symbol)].into());
            writer.put(repeat.into(), repeat_bits(symbol));
        }
    }
}

/// How many entries there are up to the last that is not zero.
fn used(lengths: &[u8]) -> usize {
    lengths.iter().rposition(|&length| length != 0).map_or(0, |last| last + 1)
}

/// Adds `run` times `length`.
fn add_run(length: u8, mut run: usize, symbols: &mut Vec<(u8, u8)>) {
    let mut repeat = |symbol: u8, least: usize, most: usize, run: &mut usize| {
        while *run >= least {
            let now = most.min(*run);
            symbols.push((symbol, (now - least) as u8));
            *run -= now;
        }
    };
    if length == 0 {
        repeat(18, 11, 138, &mut run);
        repeat(17, 3, 10, &mut run);
    } else if run > 3 {
        repeat(length, 1, 1, &mut 1);
        run -= 1;
        repeat(16, 3, 6, &mut run);
    }
    repeat(length, 1, 1, &mut run);
}

/// Bits behind a symbol of a code length.
const fn repeat_bits(symbol: u8) -> u32 {
    match symbol {
        16 => 2,
        17 => 3,
        18 => 7,
        _ => 0,
    }
}
