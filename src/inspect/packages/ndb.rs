//! rpm's own database, ndb, as SUSE uses it: slots that say which blocks of 16 bytes hold a package's header.
//!
//! All numbers are little-endian. The file begins with 32 bytes: `RpmP`, the version 0, a generation, the number of pages
//! of slots, the next package's number. Slots fill these pages: `Slot`, package, first block, number of blocks; no first block
//! in a free one. A blob is `BlbS`, package, generation, length, the header, padding, and at its end a checksum, the length
//! again and `BlbE`.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::rpm::corrupt;
use crate::disk::bytes::{is_at, le32, size};
use crate::error::{Error, Result};
use crate::fs::Tree;
use crate::limits;

const HEADER: usize = 32;
const SLOT: usize = 16;
const BLOCK: u64 = 16;
const PAGE: u64 = 4096;
/// What is around a header: four numbers before it, three after it.
const AROUND: u64 = 28;

/// Visits the headers in the order of their slots.
pub(super) fn headers(tree: &Tree, path: &str, visit: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let Some(file) = tree.open(path)? else { return Ok(()) };
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    if !is_at(&header, 0, b"RpmP") {
        return Err(corrupt("no database of rpm").expected("RpmP"));
    }
    if le32(&header, 4) != 0 {
        return Err(Error::unsupported("rpm.version", "a newer version of rpm's database").found(le32(&header, 4)));
    }
    // Every header has blocks of its own, so all of them are no longer than the file.
    let mut left = file.size();
    let mut page = vec![0; size(PAGE)];
    for index in 0..u64::from(le32(&header, 12)) {
        let at = index.saturating_mul(PAGE);
        file.read_exact_at(&mut page, at)?;
        for slot in page.chunks_exact(SLOT).skip(if index == 0 { HEADER.wrapping_div(SLOT) } else { 0 }) {
            if !is_at(slot, 0, b"Slot") {
                return Err(corrupt("a slot without its mark").offset(at).expected("Slot"));
            }
            let (package, first, count) = (le32(slot, 4), u64::from(le32(slot, 8)), u64::from(le32(slot, 12)));
            if first == 0 {
                continue;
            }
            let (offset, length) = (first.saturating_mul(BLOCK), count.saturating_mul(BLOCK));
            let damaged = |what| corrupt(what).offset(offset);
            left = left.checked_sub(length).ok_or_else(|| damaged("headers that share bytes"))?;
            if length > limits::MAX_DATABASE_ROW {
                return Err(Error::limit("rpm.header", "a package's header that is too long")
                    .expected(format!("at most {} bytes", limits::MAX_DATABASE_ROW))
                    .found(length));
            }
            let mut blob = vec![0; size(length)];
            file.read_exact_at(&mut blob, offset)?;
            let inside = u64::from(le32(&blob, 12));
            let tail = blob.len().saturating_sub(8);
            let whole = is_at(&blob, 0, b"BlbS")
                && le32(&blob, 4) == package
                && inside.saturating_add(AROUND).div_ceil(BLOCK) == count
                && u64::from(le32(&blob, tail)) == inside
                && blob.ends_with(b"BlbE");
            let header = blob.get(16..16_usize.saturating_add(size(inside))).filter(|_| whole);
            visit(header.ok_or_else(|| damaged("a header that its slot contradicts"))?)?;
        }
    }
    Ok(())
}
