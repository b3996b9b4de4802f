//! Chunks out of what comes forward only: pieces of a [`Feed`] are put together to chunks, in the disk's order.

use super::plan::{BLOCK, Blocks, CHUNK, Task};
use crate::disk::feed::{Content, Piece};
use crate::disk::{Disk, Extent, ExtentKind, Feed, Fingerprint, Visit};
use crate::error::{Error, Kind, Result};

/// The chunks of a feed.
#[derive(Debug)]
pub(super) struct Gather {
    feed: Box<dyn Feed>,
    /// Length of the disk that it brings.
    len: u64,
    /// What is left of the piece at hand.
    left: Option<Piece>,
    /// Behind the last byte that came.
    end: u64,
}

impl Gather {
    pub(super) const fn new(feed: Box<dyn Feed>, len: u64) -> Self {
        Self { feed, len, left: None, end: 0 }
    }

    /// The next chunk that has data, whole as it is on a disk of `len` bytes, which may be longer.
    pub(super) fn next(&mut self, len: u64) -> Result<Option<(Task, Vec<u8>)>> {
        let mut chunk: Option<(Task, Vec<u8>)> = None;
        while let Some(Piece { offset, content }) = self.piece()? {
            let Content::Data(data) = content else { continue };
            let number = offset / CHUNK;
            let (task, bytes) = chunk.get_or_insert_with(|| {
                let len = CHUNK.min(len - number * CHUNK);
                (Task { chunk: number, blocks: Blocks::default() }, vec![0; usize::try_from(len).unwrap_or(0)])
            });
            if task.chunk != number {
                self.left = Some(Piece { offset, content: Content::Data(data) });
                break;
            }
            let start = usize::try_from(offset - number * CHUNK).unwrap_or(usize::MAX);
            let fit = data.len().min(bytes.len() - start);
            bytes[start..start + fit].copy_from_slice(&data[..fit]);
            for block in start as u64 / BLOCK..((start + fit) as u64).div_ceil(BLOCK) {
                task.blocks.insert(u32::try_from(block).unwrap_or(0));
            }
            if fit < data.len() {
                let rest = Content::Data(data[fit..].to_vec());
                self.left = Some(Piece { offset: offset + fit as u64, content: rest });
                break;
            }
        }
        Ok(chunk)
    }

    /// The piece at hand, or the next one, which must lie behind all others.
    fn piece(&mut self) -> Result<Option<Piece>> {
        if let Some(left) = self.left.take() {
            return Ok(Some(left));
        }
        let Some(piece) = self.feed.next_piece()? else {
            let ended = self.feed.disk_len().is_none() && self.end != self.len;
            return if ended { Err(self.ended()) } else { Ok(None) };
        };
        if piece.offset < self.end {
            return Err(Error::unsupported(
                "feed.order",
                "the disk comes out of order, which only a file can be read in",
            )
            .at(self.feed.name())
            .offset(piece.offset)
            .expected(format!("{:#x} or more", self.end))
            .hint("save it to a file, and name that as the source"));
        }
        self.end = piece.end();
        if self.end > self.len {
            return Err(self.longer());
        }
        Ok(Some(piece))
    }

    fn ended(&self) -> Error {
        self.wrong("feed.short", "the disk ended too early").hint("what wrote it failed, or --size is not its length")
    }

    fn longer(&self) -> Error {
        self.wrong("feed.long", "the disk is longer than it should be").hint("give its length with --size")
    }

    fn wrong(&self, code: &'static str, what: &str) -> Error {
        Error::new(Kind::Unreadable, code, what)
            .at(self.feed.name())
            .expected(format!("{:#x} bytes", self.len))
            .found(format!("{:#x}", self.end))
    }
}

/// What stands for a disk that comes by a feed: its length and name. It cannot be read.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) len: u64,
    pub(super) name: String,
}

impl Disk for Passing {
    fn len(&self) -> u64 {
        self.len
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn read_at(&self, _buf: &mut [u8], offset: u64) -> Result<()> {
        Err(Error::failed("feed.again", "what comes forward only cannot be read again").at(&self.name).offset(offset))
    }

    fn extents(&self, range: std::ops::Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        if !range.is_empty() {
            let _ = visit(Extent { range, kind: ExtentKind::Data, depth: 0, place: None });
        }
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(Fingerprint::of(&[self.name.as_bytes(), &self.len.to_le_bytes()]))
    }

    fn describe(&self) -> (&'static str, String) {
        ("feed", self.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces that were made up.
    #[derive(Debug)]
    struct Made(std::vec::IntoIter<Piece>, Option<u64>);

    impl Feed for Made {
        fn disk_len(&self) -> Option<u64> {
            self.1
        }

        fn next_piece(&mut self) -> Result<Option<Piece>> {
            Ok(self.0.next())
        }

        fn name(&self) -> String {
            "made".into()
        }
    }

    fn data(offset: u64, len: usize) -> Piece {
        Piece { offset, content: Content::Data((0..len).map(|at| (at % 250 + 1) as u8).collect()) }
    }

    /// The disk of `len` bytes that the chunks make, each of which ascends.
    fn gathered(pieces: Vec<Piece>, says: Option<u64>, len: u64) -> Result<Vec<u8>> {
        let mut gather = Gather::new(Box::new(Made(pieces.into_iter(), says)), len);
        let (mut disk, mut before) = (vec![0; len as usize], None);
        while let Some((task, bytes)) = gather.next(len)? {
            assert!(before < Some(task.chunk) && !task.blocks.is_empty());
            before = Some(task.chunk);
            let range = task.range(len);
            assert_eq!(bytes.len() as u64, range.end - range.start);
            for run in task.blocks.ranges(bytes.len()) {
                disk[range.start as usize..][run.clone()].copy_from_slice(&bytes[run]);
            }
        }
        Ok(disk)
    }

    proptest! {
        #[test]
        fn chunks_hold_what_the_pieces_held(parts in proptest::collection::vec((0_u64..3 << 20, 1_usize..700_000, any::<bool>()), 0..12)) {
            let (mut pieces, mut expected) = (Vec::new(), Vec::new());
            for (gap, len, zero) in parts {
                expected.resize(expected.len() + gap as usize, 0);
                let piece = data(expected.len() as u64, len);
                let Content::Data(bytes) = &piece.content else { unreachable!() };
                if zero {
                    expected.resize(expected.len() + len, 0);
                    pieces.push(Piece { content: Content::Zero(len as u64), ..piece });
                } else {
                    expected.extend(bytes);
                    pieces.push(piece);
                }
            }
            let len = expected.len() as u64 + 77;
            expected.resize(len as usize, 0);
            prop_assert!(gathered(pieces, Some(len), len).unwrap() == expected);
        }
    }

    #[test]
    fn what_is_out_of_order_or_of_another_length_is_an_error() {
        let code = |pieces, says, len| gathered(pieces, says, len).unwrap_err().code();
        assert_eq!(code(vec![data(CHUNK, 10), data(0, 10)], Some(9 << 20), 9 << 20), "feed.order");
        assert_eq!(code(vec![data(0, 10), data(9, 10)], Some(9 << 20), 9 << 20), "feed.order");
        assert_eq!(code(vec![data(0, 10), data(10, 10)], None, 19), "feed.long");
        assert_eq!(code(vec![data(0, 10), data(10, 10)], None, 21), "feed.short");
        assert!(gathered(vec![data(0, 10), data(10, 10)], None, 20).is_ok());
    }
}
