//! Records as bytes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Form, Header, MAX_JOURNAL_RECORD, Piece};
use crate::limits::MAX_UNIT;

/// Bytes of a record before its kind: length of kind and body, and their checksum.
pub(super) const FRAME: usize = 8;

/// Bytes that one encoded granule may take: an encoder may make it larger, though not by much.
const MAX_ENCODED: usize = 2 * MAX_UNIT;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::convert) enum Record {
    Header(Box<Header>),
    Run { pid: u32 },
    Chunk(Chunk),
    Durable { chunks: u64 },
    Sealing(Sealing),
}

/// A chunk that is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::convert) struct Chunk {
    /// Its number.
    pub(in crate::convert) chunk: u64,
    /// Bytes of the source that were read for it.
    pub(in crate::convert) read: u32,
    /// Bytes that were shared with the source's file without being read: there is no digest of them.
    pub(in crate::convert) unread: u32,
    /// Bytes that are shared with the source's file, those included.
    pub(in crate::convert) shared: u32,
    /// Its digest; none when all of it is zeros, or when some of it was not read.
    pub(in crate::convert) digest: Option<[u8; 32]>,
    /// Digest of what is in the file for it, if that is not its bytes as they are.
    pub(in crate::convert) stored: Option<[u8; 32]>,
    /// What of it is in the file, and where.
    pub(in crate::convert) pieces: Vec<Piece>,
}

/// A complete output as it was when it was about to get its name; renaming changes none of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::convert) struct Sealing {
    pub(in crate::convert) inode: u64,
    pub(in crate::convert) len: u64,
    /// Seconds and nanoseconds.
    pub(in crate::convert) modified: (i64, i64),
}

impl Record {
    /// The record in its frame.
    pub(in crate::convert) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Self::Header(header) => {
                body.push(1);
                // Numbers and a short text: there is nothing that could fail.
                body.extend(serde_json::to_vec(header).unwrap_or_default());
            }
            Self::Run { pid } => {
                body.push(2);
                body.extend(pid.to_le_bytes());
            }
            Self::Chunk(chunk) => {
                body.push(3);
                chunk.encode(&mut body);
            }
            Self::Durable { chunks } => {
                body.push(4);
                body.extend(chunks.to_le_bytes());
            }
            Self::Sealing(Sealing { inode, len, modified }) => {
                body.push(5);
                body.extend(inode.to_le_bytes());
                body.extend(len.to_le_bytes());
                body.extend(modified.0.to_le_bytes());
                body.extend(modified.1.to_le_bytes());
            }
        }
        let mut bytes = Vec::with_capacity(body.len().saturating_add(FRAME));
        bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(crc32c::crc32c(&body).to_le_bytes());
        bytes.extend(body);
        bytes
    }

    /// The length of kind and body that a frame gives, if that is possible.
    pub(super) fn body_len(frame: [u8; FRAME]) -> Option<usize> {
        let (len, _) = frame.split_first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| (1..=MAX_JOURNAL_RECORD).contains(len))
    }

    /// The record with that frame and body; none when it is not whole.
    pub(super) fn decode(frame: [u8; FRAME], body: &[u8]) -> Option<Self> {
        let (_, crc) = frame.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (kind, body) = body.split_first()?;
        let mut rest = Fields(body);
        let record = match kind {
            1 => return Some(Self::Header(serde_json::from_slice(body).ok()?)),
            2 => Self::Run { pid: u32::from_le_bytes(rest.take()?) },
            3 => Self::Chunk(Chunk::decode(&mut rest)?),
            4 => Self::Durable { chunks: u64::from_le_bytes(rest.take()?) },
            5 => Self::Sealing(Sealing {
                inode: u64::from_le_bytes(rest.take()?),
                len: u64::from_le_bytes(rest.take()?),
                modified: (i64::from_le_bytes(rest.take()?), i64::from_le_bytes(rest.take()?)),
            }),
            _ => return None,
        };
        rest.0.is_empty().then_some(record)
    }
}

impl Chunk {
    /// Whether a disk of `len` bytes has it.
    pub(super) fn fits(&self, len: u64) -> bool {
        let start = self.chunk.checked_mul(crate::convert::plan::CHUNK);
        let left = start.and_then(|start| len.checked_sub(start)).unwrap_or(0);
        let end = self.pieces.last().map_or(0, |last| last.start.saturating_add(last.len));
        left > 0 && u64::try_from(end).is_ok_and(|end| end <= left)
    }

    fn encode(&self, body: &mut Vec<u8>) {
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        body.extend(self.chunk.to_le_bytes());
        for bytes in [self.read, self.unread, self.shared] {
            body.extend(bytes.to_le_bytes());
        }
        for digest in [&self.digest, &self.stored] {
            body.push(u8::from(digest.is_some()));
            body.extend(digest.iter().flatten());
        }
        for piece in &self.pieces {
            body.extend(short(piece.start));
            body.extend(short(piece.len));
            let form = match piece.form {
                Form::Plain => 0,
                Form::Encoded(len) => len,
                Form::Zero => u32::MAX,
            };
            body.extend(form.to_le_bytes());
            body.extend(piece.host.to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let chunk = u64::from_le_bytes(fields.take()?);
        let mut number = || fields.take().map(u32::from_le_bytes);
        let (read, unread, shared) = (number()?, number()?, number()?);
        let (digest, stored) = (fields.digest()?, fields.digest()?);
        let mut pieces = Vec::new();
        let mut end = 0;
        while !fields.0.is_empty() {
            let mut number = || usize::try_from(u32::from_le_bytes(fields.take()?)).ok();
            let (start, len) = (number()?, number()?);
            let form = match u32::from_le_bytes(fields.take()?) {
                0 => Form::Plain,
                u32::MAX => Form::Zero,
                len if usize::try_from(len).is_ok_and(|len| len <= MAX_ENCODED) => Form::Encoded(len),
                _ => return None,
            };
            let host = u64::from_le_bytes(fields.take()?);
            if start < end || len == 0 {
                return None;
            }
            end = start.checked_add(len)?;
            pieces.push(Piece { start, len, form, host });
        }
        let chunk_len = usize::try_from(crate::convert::plan::CHUNK).ok()?;
        (end <= chunk_len).then_some(Self { chunk, read, unread, shared, digest, stored, pieces })
    }
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    /// A digest that may be missing.
    fn digest(&mut self) -> Option<Option<[u8; 32]>> {
        match self.take()? {
            [0] => Some(None),
            [1] => Some(Some(self.take()?)),
            [_] => None,
        }
    }
}

#[cfg(test)]
mod tests;
