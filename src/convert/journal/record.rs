//! Records as bytes.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Header, MAX_JOURNAL_RECORD, Piece};
use crate::convert::sink::Form;

/// Bytes of a record before its kind: length of kind and body, and their checksum.
pub(super) const FRAME: usize = 8;

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
    /// Its digest; none when all of it is zeros.
    pub(in crate::convert) digest: Option<[u8; 32]>,
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
    fn encode(&self, body: &mut Vec<u8>) {
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        body.extend(self.chunk.to_le_bytes());
        body.extend(self.read.to_le_bytes());
        body.push(u8::from(self.digest.is_some()));
        body.extend(self.digest.iter().flatten());
        for piece in &self.pieces {
            body.extend(short(piece.start));
            body.extend(short(piece.len));
            body.extend(piece.host.to_le_bytes());
            body.extend(form_number(piece.form).to_le_bytes());
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let chunk = u64::from_le_bytes(fields.take()?);
        let read = u32::from_le_bytes(fields.take()?);
        let digest = match fields.take()? {
            [0] => None,
            [1] => Some(fields.take()?),
            [_] => return None,
        };
        let mut pieces = Vec::new();
        let mut end = 0;
        while !fields.0.is_empty() {
            let mut number = || usize::try_from(u32::from_le_bytes(fields.take()?)).ok();
            let (start, len) = (number()?, number()?);
            let host = u64::from_le_bytes(fields.take()?);
            let form = form(u32::from_le_bytes(fields.take()?));
            if start < end || len == 0 {
                return None;
            }
            end = start.checked_add(len)?;
            pieces.push(Piece { start, len, form, host });
        }
        let chunk_len = usize::try_from(crate::convert::plan::CHUNK).ok()?;
        (end <= chunk_len).then_some(Self { chunk, read, digest, pieces })
    }
}

/// A form as a number: the bytes that it takes, none for zeros and the largest number for plain bytes.
const fn form_number(form: Form) -> u32 {
    match form {
        Form::Plain => u32::MAX,
        Form::Encoded(bytes) => bytes,
        Form::Zero => 0,
    }
}

/// The form of a number.
const fn form(number: u32) -> Form {
    match number {
        u32::MAX => Form::Plain,
        0 => Form::Zero,
        bytes => Form::Encoded(bytes),
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
}

#[cfg(test)]
mod tests;
