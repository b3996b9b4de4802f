//! A deflate encoder (RFC 1951) for qcow2's compressed clusters, with matches of at most 4 KiB.
//!
//! qcow2 clusters are raw deflate streams, and QEMU sets its decoder up for a window of 4 KiB. Which decoders would let a match
//! from farther away pass depends on the zlib that they were built with, so no match here starts farther back. No encoder that
//! is fast enough can be told so (`docs/dependencies.md`).
//!
//! ```text
//!            matches               parse                    split                 block, huffman
//! input ──►  hash chains of  ──►   lazy choice, a    ──►    segments of 8 KiB ──► a code for each block,
//!            the last 4 KiB        token a match or         joined where one      header and tokens
//!                                  literal, counts          code costs less
//! ```
//!
//! The same input gives the same bytes, whatever the encoder was used for before.

mod block;
mod huffman;
mod matches;
mod parse;
mod split;
mod symbols;
#[cfg(test)]
mod tests;

use block::Writer;
use parse::Parser;

/// Farthest that a match may start behind the bytes that it gives: a window of 12 bits.
pub const WINDOW: usize = 1 << 12;

/// How much time to spend on the size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// About as small as zlib's level 6 with the same window, in a quarter of its time.
    #[default]
    Fast,
    /// Looks at every place where a match may start.
    Best,
}

impl Level {
    /// By the number that people give, from 1 to 9.
    #[must_use]
    pub const fn of(number: u8) -> Self {
        if number < 8 { Self::Fast } else { Self::Best }
    }
}

/// Encodes one input after the other in the same memory, about 400 KiB.
#[derive(Debug)]
pub struct Encoder {
    parser: Parser,
}

impl Encoder {
    /// An encoder for any number of inputs.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Self { parser: Parser::new(level) }
    }

    /// Appends a deflate stream that decodes to `input` to `out`, which is not changed if the stream would have more than
    /// `limit` bytes. Gives the length of the stream.
    pub fn encode(&mut self, input: &[u8], out: &mut Vec<u8>, limit: usize) -> Option<usize> {
        let start = out.len();
        let done = self.pieces(input, &mut Writer::new(out, limit));
        if done.is_none() {
            out.truncate(start);
        }
        done.map(|()| out.len() - start)
    }

    fn pieces(&mut self, input: &[u8], writer: &mut Writer<'_>) -> Option<()> {
        let mut start = 0_usize;
        loop {
            let before = &input[start.saturating_sub(WINDOW)..start];
            let end = input.len().min(start + parse::PIECE - before.len());
            let parsed = self.parser.parse(before, &input[start..end]);
            let blocks = split::blocks(parsed.segments);
            let (mut tokens, mut bytes) = (0, 0);
            for (number, block) in blocks.iter().enumerate() {
                let last = end == input.len() && number + 1 == blocks.len();
                let piece = &input[start + bytes..start + block.bytes_end];
                writer.block(&block.counts, &parsed.tokens[tokens..block.tokens_end], piece, last)?;
                (tokens, bytes) = (block.tokens_end, block.bytes_end);
            }
            if end == input.len() {
                return writer.finish();
            }
            start = end;
        }
    }
}
