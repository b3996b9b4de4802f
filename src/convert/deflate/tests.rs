use flate2::{Decompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::block::Writer;
use super::parse::PIECE;
use super::split::{self, Counts};
use super::symbols::{DISTANCES, END, LENGTHS, LITLENS, MAX_MATCH, Token};
use super::*;

mod reader;

const NO_LIMIT: usize = usize::MAX / 2;

fn encode(level: Level, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = Encoder::new(level).encode(input, &mut out, NO_LIMIT);
    assert_eq!(len, Some(out.len()));
    out
}

/// flate2's decoder, which is not to be relied on for how far back a match may start.
fn zlib(stream: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(len + 1);
    let status = Decompress::new(false).decompress_vec(stream, &mut out, FlushDecompress::Finish).ok()?;
    (status == Status::StreamEnd).then_some(out)
}

fn libdeflate(stream: &[u8], len: usize) -> Option<Vec<u8>> {
    // One byte more, so that output that is too long is noticed.
    let mut out = vec![0; len + 1];
    let written = libdeflater::Decompressor::new().deflate_decompress(stream, &mut out).ok()?;
    out.truncate(written);
    Some(out)
}

#[track_caller]
fn check(input: &[u8]) {
    check_stream(&encode(Level::Fast, input), input);
    if input.len() < 10_000 {
        check_stream(&encode(Level::Best, input), input);
    }
}

#[track_caller]
fn check_stream(stream: &[u8], input: &[u8]) {
    assert!(reader::inflate(stream, WINDOW).is_some_and(|out| out == input), "strict, {} bytes", input.len());
    assert!(zlib(stream, input.len()).is_some_and(|out| out == input), "zlib, {} bytes", input.len());
    assert!(libdeflate(stream, input.len()).is_some_and(|out| out == input), "libdeflate, {} bytes", input.len());
}

/// Numbers that look random and are the same each time.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Lines of a few words, with numbers.
fn text(len: usize) -> Vec<u8> {
    let words = ["cluster", "of", "the", "image", "a", "block", "is", "mapped", "at", "offset", "zero"];
    let noise = noise(7, len);
    let mut all = Vec::new();
    for (at, &byte) in noise.iter().enumerate() {
        all.extend_from_slice(words[usize::from(byte) % words.len()].as_bytes());
        all.extend_from_slice(if byte < 20 { b"\n" } else { b" " });
        if byte > 240 {
            all.extend_from_slice(at.to_string().as_bytes());
        }
    }
    all.truncate(len);
    all
}

#[test]
fn the_oracle_refuses_a_match_from_farther_away() {
    let mut input = noise(1, 5000);
    input.extend_from_within(..400);
    let mut far = vec![0; 10_000];
    let len = libdeflater::Compressor::default().deflate_compress(&input, &mut far).unwrap();
    assert!(len < 5100, "the match from 5000 bytes back is used");
    assert!(reader::inflate(&far[..len], 5000) == Some(input));
    assert!(reader::inflate(&far[..len], 4999).is_none());
}

#[test]
fn small_inputs_come_back() {
    check(b"");
    for len in 1..40 {
        check(&vec![0; len]);
        check(&noise(3, len));
        check(&text(len));
        check(&b"abc".repeat(len));
    }
}

#[test]
fn inputs_of_all_kinds_and_lengths_come_back() {
    for len in [255, 256, 257, 258, 259, 4095, 4096, 4097, 8191, 8192, 65_279, 65_535, 65_536, 65_537, 130_000, 2 << 20]
    {
        check(&vec![0; len]);
        check(&vec![0xff; len]);
        check(&noise(5, len));
        check(&text(len));
        check(&(0..len).map(|at| at as u8).collect::<Vec<_>>());
        check(&(0..len).map(|at| (at / 3 * 7) as u8).collect::<Vec<_>>());
        // Nothing but matches from one byte farther than the window.
        check(&noise(6, 4097).into_iter().cycle().take(len).collect::<Vec<_>>());
    }
}

#[test]
fn the_largest_clusters_come_back() {
    for input in [noise(5, 2 << 20), text(2 << 20)] {
        let stream = encode(Level::Fast, &input);
        assert!(libdeflate(&stream, input.len()).is_some_and(|out| out == input));
    }
}

/// How many bytes more it takes to have the last `len` of `input` twice, `distance` apart.
fn cost_of_copy(input: &[u8], distance: usize, len: usize) -> usize {
    let mut longer = input.to_vec();
    longer.extend_from_within(input.len() - distance..input.len() - distance + len);
    check(&longer);
    encode(Level::Fast, &longer).len() - encode(Level::Fast, input).len()
}

#[test]
fn matches_reach_exactly_as_far_as_the_window() {
    let input: Vec<u8> = noise(9, 5000).iter().map(|byte| byte % 64).collect();
    let costs = [1000, 4095, 4096, 4097].map(|distance| cost_of_copy(&input, distance, 200));
    assert!(costs[..3].iter().all(|&cost| cost < 20) && costs[3] > 100, "{costs:?}");
}

#[test]
fn a_large_input_is_one_window() {
    // A copy right across the border of two pieces.
    let input: Vec<u8> = noise(11, (64 << 10) - 1000).iter().map(|byte| byte % 64).collect();
    assert!(cost_of_copy(&input, 4000, 2000) < 60);
}

#[test]
fn random_parts_are_not_searched_and_others_are() {
    let words = text(20_000);
    let mixed = [&words[..], &noise(37, 64 << 10), &words[..]].concat();
    check(&mixed);
    let alone = 2 * encode(Level::Fast, &words).len() + (64 << 10);
    assert!(encode(Level::Fast, &mixed).len() < alone + 2000);
    let mut parser = Parser::new(Level::Fast);
    let parsed = parser.parse(&[], &mixed[..PIECE]);
    assert!(parsed.tokens.len() < PIECE && expand(parsed.tokens) == mixed[..PIECE]);
}

/// What `tokens` stand for.
fn expand(tokens: &[Token]) -> Vec<u8> {
    let mut out = Vec::new();
    for token in tokens {
        if let Ok(byte) = u8::try_from(token.index()) {
            out.push(byte);
            continue;
        }
        let distance = token.distance_less_one() as usize + 1;
        assert!(distance <= out.len() && distance <= WINDOW);
        (0..token.index() - 256 + 3).for_each(|_| out.push(out[out.len() - distance]));
    }
    out
}

/// A stream of one block.
fn block_of(tokens: &[Token]) -> Vec<u8> {
    let mut counts = Counts { litlens: [0; LITLENS], distances: [0; DISTANCES] };
    counts.litlens[END] = 1;
    for token in tokens {
        match token.index().checked_sub(256) {
            None => counts.litlens[token.index()] += 1,
            Some(len) => {
                counts.litlens[257 + usize::from(LENGTHS[len].0)] += 1;
                counts.distances[token.distance_symbol()] += 1;
            }
        }
    }
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, NO_LIMIT);
    writer.block(&counts, tokens, &expand(tokens), true).unwrap();
    writer.finish().unwrap();
    out
}

#[test]
fn every_length_and_distance_is_written_right() {
    let mut tokens: Vec<_> = noise(13, 4096).into_iter().map(Token::literal).collect();
    tokens.extend((3..=MAX_MATCH).map(|len| Token::copy(len, (len * 15) as u32)));
    tokens.extend((1..=4096).map(|distance| Token::copy(3 + distance % 256, distance as u32)));
    check_stream(&block_of(&tokens), &expand(&tokens));
    // Codes of a single length and distance.
    for len in [3, 10, 11, 257, MAX_MATCH] {
        for distance in [1, 4, 5, 4096] {
            let mut tokens: Vec<_> = text(4096).into_iter().map(Token::literal).collect();
            tokens.push(Token::copy(len, distance));
            check_stream(&block_of(&tokens), &expand(&tokens));
        }
    }
}

#[test]
fn blocks_with_the_longest_codes_come_back() {
    // Counts that grow like Fibonacci's numbers make the longest codes: they have to be cut to 15 bits.
    let (mut tokens, mut counts) = (Vec::new(), (1, 1));
    for byte in 0..22 {
        tokens.extend((0..counts.0).map(|_| Token::literal(byte)));
        counts = (counts.1, counts.0 + counts.1);
    }
    check_stream(&block_of(&tokens), &expand(&tokens));
}

#[test]
fn a_limit_is_kept_to_the_byte() {
    for input in [text(30_000), noise(17, 30_000), vec![0; 30_000], text(200_000)] {
        let mut encoder = Encoder::new(Level::Fast);
        let whole = encode(Level::Fast, &input);
        for limit in [0, 1, 5, whole.len() / 2, whole.len() - 1] {
            let mut out = b"before".to_vec();
            assert_eq!(encoder.encode(&input, &mut out, limit), None, "{limit} of {}", whole.len());
            assert_eq!(out, b"before");
        }
        let mut out = b"before".to_vec();
        assert_eq!(encoder.encode(&input, &mut out, whole.len()), Some(whole.len()));
        assert_eq!(&out[6..], whole);
    }
}

#[test]
fn random_bytes_grow_by_a_few_bytes_only() {
    for len in [1, 100, 65_536, 2 << 20] {
        assert!(encode(Level::Fast, &noise(19, len)).len() <= len + 5 + len / 4096);
    }
}

#[test]
fn zeros_take_next_to_nothing() {
    assert!(encode(Level::Fast, &[0; 65_536]).len() < 120);
}

#[test]
fn the_same_input_gives_the_same_bytes_whatever_came_before() {
    let inputs = [text(65_536), noise(23, 100_000), vec![7; 50_000], text(3000), vec![1, 2, 3]];
    let mut used = Encoder::new(Level::Fast);
    for input in inputs.iter().chain(inputs.iter().rev()) {
        let mut out = Vec::new();
        used.encode(input, &mut out, NO_LIMIT);
        assert!(out == encode(Level::Fast, input));
    }
}

#[test]
fn it_is_no_larger_than_zlib_at_level_6() {
    let text = [include_str!("block.rs"), include_str!("matches.rs"), include_str!("tests.rs")].concat().into_bytes();
    let mixed = [&text[..9000], &noise(29, 3000), &[0; 5000], &text[9000..20_000], &noise(31, 9000)].concat();
    for input in [text, mixed] {
        let mut zlib = flate2::Compress::new_with_window_bits(flate2::Compression::new(6), false, 12);
        let mut out = Vec::with_capacity(100_000);
        zlib.compress_vec(&input, &mut out, flate2::FlushCompress::Finish).unwrap();
        let sizes = [Level::Best, Level::Fast].map(|level| encode(level, &input).len());
        assert!(sizes[0] <= sizes[1] && sizes[1] <= out.len(), "{sizes:?} and {}", out.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 20 } else { 1000 }))]

    /// Copies of what was there before, from any distance, between new bytes of few or many kinds.
    #[test]
    fn anything_comes_back(
        parts in prop::collection::vec((any::<u64>(), 0_usize..200, 1_usize..9000, 0_usize..700, 1_u8..=255), 0..30),
        level in prop::sample::select(vec![Level::Fast, Level::Best]),
    ) {
        let mut input = Vec::new();
        for (seed, new, distance, len, kinds) in parts {
            input.extend(noise(seed, new).into_iter().map(|byte| byte % kinds));
            if distance <= input.len() {
                (0..len).for_each(|_| input.push(input[input.len() - distance]));
            }
        }
        check_stream(&encode(level, &input), &input);
    }

    /// The tokens of every piece stand for the piece, and its counts are theirs.
    #[test]
    fn tokens_stand_for_the_input(seed: u64, len in 0_usize..3000, kinds in 1_u8..20, level in prop::sample::select(vec![Level::Fast, Level::Best])) {
        let input: Vec<u8> = noise(seed, len).into_iter().map(|byte| byte % kinds).collect();
        let mut parser = Parser::new(level);
        let parsed = parser.parse(&[], &input);
        prop_assert_eq!(expand(parsed.tokens), input);
        let blocks = split::blocks(parsed.segments);
        let counted: u32 = blocks.iter().map(|block| block.counts.litlens.iter().sum::<u32>() - 1).sum();
        prop_assert_eq!(counted as usize, parsed.tokens.len());
        prop_assert_eq!(blocks.last().unwrap().bytes_end, len);
    }
}
