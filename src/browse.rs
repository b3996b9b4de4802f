//! A guest's files for people: walked, searched, hashed, archived, copied out and compared, by the guest's own mount points.
//!
//! Everything here reads a [`Tree`] and never follows a link on its own, so that a walk stays where it began. What cannot be
//! read is told to the caller, who goes on with the rest.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{Read, Write};
use std::ops::{ControlFlow, Range};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result, escape_bytes};
use crate::fs::Tree;
use crate::fs::tree::{FileReader, Found, cause};
use crate::session::Session;

pub mod archive;
pub mod compare;
pub mod copy;
pub mod walk;

pub use walk::{Step, walk};

/// Bytes that are read of a file at once.
const PIECE: usize = 256 << 10;

/// Copies the regular file `file` to `to`, and gives how many bytes that were.
pub fn read_to(tree: &Tree, file: &Found, session: &Session, to: &mut dyn Write) -> Result<u64> {
    each_piece(tree, file, session, |piece| {
        to.write_all(piece).map_err(|e| Error::write("writing what was read of the guest", e))
    })
}

/// The SHA-256 digest of the regular file `file`.
pub fn sha256(tree: &Tree, file: &Found, session: &Session) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    each_piece(tree, file, session, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok(hasher.finalize().into())
}

/// Hands the content of `file` to `take` in order, and gives its length.
fn each_piece(tree: &Tree, file: &Found, session: &Session, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let mut reader = tree.reader(file)?;
    let mut buf = vec![0; PIECE];
    let mut total = 0_u64;
    loop {
        session.check()?;
        let read = reader.read(&mut buf).map_err(|e| cause(e, |e| Error::unreadable("cannot read a guest file", e)))?;
        let Some(piece) = buf.get(..read).filter(|piece| !piece.is_empty()) else { return Ok(total) };
        take(piece)?;
        total = total.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
}

/// Bytes of a file whose map is asked for at once: a moment's work, after which a session may end.
const WINDOW: u64 = 16 << 30;

/// Parts of a file that are asked for at once.
const PARTS: usize = 1024;

/// Hands the parts of a file that are no holes to `take` in order, some at a time; two of them may touch. It ends when `take` wants
/// no more.
fn each_part(
    reader: &FileReader,
    session: &Session,
    mut take: impl FnMut(Range<u64>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let size = reader.size();
    let window = WINDOW.max(size / 1024);
    let mut at = 0;
    while at < size {
        session.check()?;
        let end = at.saturating_add(window).min(size);
        let mut parts: Vec<Range<u64>> = Vec::new();
        reader.data_ranges(at..end, &mut |part| {
            parts.push(part);
            if parts.len() < PARTS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        at = parts.last().filter(|_| parts.len() >= PARTS).map_or(end, |part| part.end);
        for part in parts {
            if take(part)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Hands the bytes of a part of a file to `take`, with the place of each piece.
fn each_piece_of(
    reader: &FileReader,
    part: Range<u64>,
    session: &Session,
    mut take: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut buf = vec![0; PIECE];
    let mut at = part.start;
    while at < part.end {
        session.check()?;
        let len = usize::try_from(part.end.saturating_sub(at)).unwrap_or(PIECE).min(PIECE);
        let piece = buf.get_mut(..len).unwrap_or_default();
        reader.read_exact_at(piece, at)?;
        take(at, piece)?;
        at = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// The same error, of a file of the guest.
fn of(file: &Found) -> impl Fn(Error) -> Error + '_ {
    |error| error.at(escape_bytes(&file.path))
}

#[cfg(test)]
mod tests;
