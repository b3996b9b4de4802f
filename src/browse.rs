//! A guest's files for people: walked, searched, hashed, archived, copied out and compared, by the guest's own mount points.
//!
//! Everything here reads a [`Tree`] and never follows a link on its own, so that a walk stays where it began. What cannot be
//! read is told to the caller, who goes on with the rest.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{Read, Write};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::fs::tree::{Found, cause};
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

#[cfg(test)]
mod tests;
