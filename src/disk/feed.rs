//! What can only be read forward: bytes that come once, in their own order. A pipe is one; so is a decompressor that knows no
//! seek points.
//!
//! A [`Stream`] is a file's bytes in order. A [`Feed`] is a disk's content: a format that can be decoded on the way (raw, a
//! stream-optimized VMDK) makes one from a stream. A feed can be converted and nothing else.

use std::fmt::Debug;
use std::sync::Arc;

use super::Disk;
use crate::error::Result;

/// The bytes of a file, in order, once.
pub trait Stream: Debug + Send {
    /// Fills `buf` as far as bytes are there, at least one; 0 is the end.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize>;

    /// What messages call the thing that has these bytes.
    fn name(&self) -> String;
}

/// Fills all of `buf`, or as much as there is until the end.
pub fn read_full(stream: &mut dyn Stream, buf: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest)? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The content of a disk, once. What no piece covers is zeros.
pub trait Feed: Debug + Send {
    /// Length of the disk in bytes, where that is known before the end.
    fn disk_len(&self) -> Option<u64>;

    /// The next piece, never empty; nothing at the end. Pieces do not overlap. Those of a file's own bytes ascend; a format may
    /// give them in any order.
    fn next_piece(&mut self) -> Result<Option<Piece>>;

    /// What messages call the thing that the content comes from.
    fn name(&self) -> String;
}

/// Some bytes of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where they lie on the disk.
    pub offset: u64,
    /// What is there.
    pub content: Content,
}

/// What a piece of a disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Data(Vec<u8>),
    /// As many zeros.
    Zero(u64),
}

impl Piece {
    /// First byte behind the piece.
    #[must_use]
    pub fn end(&self) -> u64 {
        let len = match &self.content {
            Content::Data(bytes) => bytes.len() as u64,
            Content::Zero(len) => *len,
        };
        self.offset.saturating_add(len)
    }
}

/// Bytes of one piece of a raw disk: a chunk of the copy engine is made of a few.
const PIECE: usize = 256 << 10;

/// A raw disk that comes as a stream.
#[derive(Debug)]
pub struct RawFeed {
    stream: Box<dyn Stream>,
    next: u64,
}

impl RawFeed {
    /// The disk whose bytes are those of `stream`.
    #[must_use]
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, next: 0 }
    }
}

impl Feed for RawFeed {
    fn disk_len(&self) -> Option<u64> {
        None
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        let mut bytes = vec![0; PIECE];
        let count = read_full(&mut *self.stream, &mut bytes)?;
        bytes.truncate(count);
        if bytes.is_empty() {
            return Ok(None);
        }
        let piece = Piece { offset: self.next, content: Content::Data(bytes) };
        self.next = piece.end();
        Ok(Some(piece))
    }

    fn name(&self) -> String {
        self.stream.name()
    }
}

/// A stream over bytes of a disk.
#[derive(Debug)]
pub struct DiskStream {
    disk: Arc<dyn Disk>,
    at: u64,
}

impl DiskStream {
    /// The bytes of `disk` from `at` to its end.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, at: u64) -> Self {
        Self { disk, at }
    }
}

impl Stream for DiskStream {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let left = usize::try_from(self.disk.len().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let count = buf.len().min(left);
        let (part, _) = buf.split_at_mut(count);
        self.disk.read_at(part, self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn name(&self) -> String {
        self.disk.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn a_raw_disk_comes_in_pieces_without_gaps() {
        let bytes: Vec<u8> = (0..PIECE * 2 + 77).map(|at| (at / 3 % 251) as u8).collect();
        let disk = Checked::wrap(Memory::new(bytes.clone()));
        let mut feed = RawFeed::new(Box::new(DiskStream::new(disk, 0)));
        assert_eq!(feed.disk_len(), None);
        let mut found = Vec::new();
        while let Some(piece) = feed.next_piece().unwrap() {
            assert_eq!(piece.offset, found.len() as u64);
            let Content::Data(data) = &piece.content else { panic!("no zeros here") };
            found.extend_from_slice(data);
            assert_eq!(piece.end(), found.len() as u64);
        }
        assert!(found == bytes && feed.next_piece().unwrap().is_none());
    }

    #[test]
    fn a_stream_can_begin_anywhere() {
        let disk = Checked::wrap(Memory::new(b"0123456789".to_vec()));
        let mut stream = DiskStream::new(disk, 7);
        let mut buf = [0; 8];
        assert_eq!(read_full(&mut stream, &mut buf).unwrap(), 3);
        assert_eq!(&buf[..3], b"789");
        assert_eq!(stream.read(&mut buf).unwrap(), 0);
    }
}
