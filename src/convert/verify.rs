//! The output read back through its own reader, by its own map, and compared with what was read from the source.

use std::ops::Range;

use super::copy;
use super::digest::Content;
use super::plan::{CHUNK, WINDOW};
use super::progress::Progress;
use super::sink::Sink;
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Kind, Result};
use crate::session::Session;

/// Compares `back` with `content`, which was taken from `source`. `total` is how many bytes `back` is thought to hold.
pub(super) fn content(
    source: &dyn Disk,
    back: &dyn Disk,
    content: &Content,
    total: u64,
    session: &Session,
    progress: &dyn Progress,
) -> Result<()> {
    if back.len() != content.len() {
        return Err(mismatch("the output has another length than the source", back)
            .expected(format!("{:#x} bytes", content.len()))
            .found(format!("{:#x}", back.len())));
    }
    let found = copy::digest(back, total, session, progress)?.content;
    match found.map_or(Some(0), |found| content.first_difference(&found)) {
        None => Ok(()),
        Some(window) => Err(explain(source, back, window * WINDOW..(window * WINDOW + WINDOW).min(back.len()))),
    }
}

/// Compares the tables of the output's `file` with those that were written: refcounts and flags matter to whoever writes to
/// the image, not to whoever reads it.
pub(super) fn tables(sink: &dyn Sink, file: &dyn Disk) -> Result<()> {
    if sink.tables_are_intact(file)? {
        Ok(())
    } else {
        Err(mismatch("the output's tables are not those that were written", file))
    }
}

/// Says where in `window` the two differ, by reading both again.
fn explain(source: &dyn Disk, back: &dyn Disk, window: Range<u64>) -> Error {
    let mut at = window.start;
    while at < window.end {
        let len = usize::try_from(CHUNK.min(window.end - at)).unwrap_or(0);
        let (Ok(expected), Ok(found)) = (read_vec(source, at, len), read_vec(back, at, len)) else { break };
        if let Some(range) = difference(&expected, &found) {
            return mismatch("the output does not hold what was read", back)
                .offset(at + range.start)
                .found(format!("different bytes up to {:#x}", at + range.end));
        }
        at += len as u64;
    }
    mismatch("the output does not hold what was read", back)
        .offset(window.start)
        .found("a different digest of this gibibyte, although reading both again shows no difference")
}

/// From the first byte that differs to the last.
fn difference(a: &[u8], b: &[u8]) -> Option<Range<u64>> {
    const PART: usize = 4096;
    let parts = || a.chunks(PART).zip(b.chunks(PART)).enumerate().filter(|(_, (a, b))| a != b);
    let (first, (a, b)) = parts().next()?;
    let start = a.iter().zip(b).position(|(a, b)| a != b)?;
    let (last, (a, b)) = parts().next_back()?;
    let end = a.iter().zip(b).rposition(|(a, b)| a != b)?;
    Some((first * PART + start) as u64..(last * PART + end) as u64 + 1)
}

fn mismatch(what: &str, back: &dyn Disk) -> Error {
    Error::new(Kind::Mismatch, "verify.mismatch", what)
        .at(back.name())
        .hint("nothing was given the output's name; check this machine's memory and disk, and run the command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_exact() {
        let zeros = vec![0; 20_000];
        let differing = |at: &[usize]| {
            let mut bytes = zeros.clone();
            at.iter().for_each(|at| bytes[*at] = 1);
            difference(&zeros, &bytes)
        };
        assert_eq!(differing(&[]), None);
        assert_eq!(differing(&[0]), Some(0..1));
        assert_eq!(differing(&[19_999]), Some(19_999..20_000));
        assert_eq!(differing(&[4095, 4096, 9000]), Some(4095..9001));
    }
}
