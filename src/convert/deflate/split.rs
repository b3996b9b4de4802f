//! Where blocks begin and end: neighbouring segments share a block if one code for both costs less than two.

use super::parse::{MAX_SEGMENTS, Segment};
use super::symbols::{DISTANCES, END, LENGTHS, LITLENS};

/// How often each symbol occurs in a block.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    pub(super) litlens: [u32; LITLENS],
    pub(super) distances: [u32; DISTANCES],
}

/// A block of a piece.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) counts: Counts,
    /// Tokens and bytes of the piece up to the end of the block.
    pub(super) tokens_end: usize,
    pub(super) bytes_end: usize,
    cost: u64,
}

/// The blocks of a piece; an empty one has one block.
pub(super) fn blocks(segments: &[Segment]) -> Vec<Block> {
    let mut blocks = Vec::with_capacity(MAX_SEGMENTS);
    blocks.extend(segments.iter().map(Block::of));
    if blocks.is_empty() {
        blocks.push(Block::new(Counts { litlens: [0; LITLENS], distances: [0; DISTANCES] }, 0, 0));
    }
    join(&mut blocks);
    blocks
}

/// Joins the two neighbours that gain most by it until none do.
fn join(blocks: &mut Vec<Block>) {
    let mut pairs: Vec<Block> = blocks.windows(2).map(|pair| pair[0].and(&pair[1])).collect();
    loop {
        let gain = |at: usize, pair: &Block| (blocks[at].cost + blocks[at + 1].cost).checked_sub(pair.cost);
        let gains = pairs.iter().enumerate().filter_map(|(at, pair)| Some((gain(at, pair)?, at)));
        let Some((_, at)) = gains.max() else { return };
        blocks[at] = pairs.remove(at);
        blocks.remove(at + 1);
        if at > 0 {
            pairs[at - 1] = blocks[at - 1].and(&blocks[at]);
        }
        if at + 1 < blocks.len() {
            pairs[at] = blocks[at].and(&blocks[at + 1]);
        }
    }
}

impl Block {
    fn new(mut counts: Counts, tokens_end: usize, bytes_end: usize) -> Self {
        counts.litlens[END] = 1;
        let cost = counts.cost();
        Self { counts, tokens_end, bytes_end, cost }
    }

    fn of(segment: &Segment) -> Self {
        let mut counts = Counts { litlens: [0; LITLENS], distances: [0; DISTANCES] };
        let (literals, lengths) = segment.tokens.split_at(256);
        for (count, &times) in counts.litlens.iter_mut().zip(literals) {
            *count = times.into();
        }
        for (&times, &(symbol, _)) in lengths.iter().zip(&LENGTHS) {
            counts.litlens[END + 1 + usize::from(symbol)] += u32::from(times);
        }
        for (count, &times) in counts.distances.iter_mut().zip(&segment.distances) {
            *count = times.into();
        }
        Self::new(counts, segment.tokens_end, segment.bytes_end)
    }

    /// This block and `next` as one.
    fn and(&self, next: &Self) -> Self {
        let mut counts = self.counts.clone();
        counts.litlens.iter_mut().zip(&next.counts.litlens).for_each(|(count, more)| *count += more);
        counts.distances.iter_mut().zip(&next.counts.distances).for_each(|(count, more)| *count += more);
        Self::new(counts, next.tokens_end, next.bytes_end)
    }
}

impl Counts {
    /// About how many bits the block takes, in 256ths, without those behind symbols, which are the same in any block.
    fn cost(&self) -> u64 {
        const HEADER: u64 = 60 << 8;
        entropy(&self.litlens) + entropy(&self.distances) + HEADER
    }
}

/// The least that symbols that occur so often take, and about 4 bits for each in the header.
fn entropy(counts: &[u32]) -> u64 {
    const SYMBOL: u64 = 4 << 8;
    let (mut total, mut bits, mut header) = (0, 0, 0);
    for &count in counts {
        total += count;
        bits += u64::from(count) * log2(count);
        header += u64::from(count != 0) * SYMBOL;
    }
    u64::from(total) * log2(total) - bits + header
}

/// The logarithm of a number in 256ths; 0 for 0.
#[inline(always)]
fn log2(number: u32) -> u64 {
    let shift = (32 - number.leading_zeros()).saturating_sub(12);
    u64::from(LOG2[(number >> shift) as usize & 4095]) + u64::from(shift << 8)
}

static LOG2: [u16; 4096] = logarithms();

const fn logarithms() -> [u16; 4096] {
    let mut all = [0; 4096];
    let mut number: usize = 1;
    while number < all.len() {
        let whole = number.ilog2();
        // Between 1 and 2 with 30 bits behind the point. Squared, it is above 2 if the next bit of its logarithm is set.
        let mut rest = (number as u64) << (30 - whole);
        let mut log = whole as u16;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest * rest) >> 30;
            let set = rest >> 31;
            rest >>= set;
            log = log << 1 | set as u16;
            bit += 1;
        }
        all[number] = log;
        number += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_right_to_a_256th() {
        for number in (1..5000).chain([1 << 16, (1 << 20) - 1]) {
            let exact = f64::from(number).log2() * 256.0;
            assert!((log2(number) as f64 - exact).abs() <= 1.5, "{number}");
        }
        assert_eq!(log2(0), 0);
    }

    fn segment(symbols: std::ops::Range<usize>, number: usize) -> Segment {
        let end = (number + 1) * 8192;
        let mut segment = Segment { tokens: [0; 512], distances: [0; 32], tokens_end: end, bytes_end: end };
        symbols.clone().for_each(|symbol| segment.tokens[symbol] = (8192 / symbols.len()) as u16);
        segment
    }

    #[test]
    fn blocks_end_where_the_data_changes() {
        let segments = [0..64, 0..64, 0..64, 128..192, 128..192, 0..8, 0..8, 0..8];
        let segments: Vec<_> = segments.into_iter().enumerate().map(|(at, symbols)| segment(symbols, at)).collect();
        let ends: Vec<_> = blocks(&segments).iter().map(|block| block.bytes_end / 8192).collect();
        assert_eq!(ends, [3, 5, 8]);
    }

    #[test]
    fn segments_that_are_alike_make_one_block() {
        let segments: Vec<_> = (0..8).map(|at| segment(0..200, at)).collect();
        let blocks = blocks(&segments);
        assert_eq!((blocks.len(), blocks[0].tokens_end), (1, 65536));
        assert_eq!(blocks[0].counts.litlens[END], 1);
        assert_eq!(blocks[0].counts.litlens[..200].iter().sum::<u32>(), 8 * 200 * (8192 / 200));
    }
}
