//! Transaction logs: which sectors of a hive's bins are newer in a log than in the hive.
//!
//! Until Windows 8, a log (of two, the newer one) is a base block, `DIRT`, a bitmap of the sectors that were to be written, and those
//! sectors. Since Windows 8.1, it is a base block and entries `HvLE`, each with pages and two digests; Windows writes to one of two
//! logs until the hive is written out, and then to the other, so that both can be needed, one after the other.
//!
//! Nothing is copied: a recovery is a map from sectors to their places in the logs.

use std::collections::HashMap;

use super::base::{self, BaseBlock, FileType};
use super::bytes::{Bytes, read_up_to};
use super::marvin::Marvin32;
use crate::disk::bytes::{is_at, le32, le64, long, size};
use crate::error::Result;
use crate::limits;

/// Bytes of a sector.
pub(super) const SECTOR: u64 = 512;
pub(super) const SECTOR_SIZE: usize = 512;

/// Where logs go on after their base block.
const FIRST: u64 = 512;

/// What logs add to a hive.
#[derive(Debug)]
pub(super) struct Recovery {
    /// The base block of the last log, which is newer than the hive's.
    pub(super) base: BaseBlock,
    /// Bytes of all bins.
    pub(super) bins: u32,
    pub(super) logs: Vec<Box<dyn Bytes>>,
    /// By their number from the first bin on.
    pub(super) sectors: HashMap<u32, Place>,
    /// How many entries were applied.
    pub(super) entries: u32,
}

/// Where a sector is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Index in [`Recovery::logs`].
    pub(super) log: u8,
    pub(super) offset: u32,
}

/// What `logs` add to the hive that begins with `hive`, which was not written out to its end; `None` when none of them fits.
pub(super) fn find(hive: &BaseBlock, logs: Vec<Box<dyn Bytes>>) -> Result<Option<Recovery>> {
    let mut usable = Vec::new();
    for log in logs {
        let head = read_up_to(&*log, 0, base::LENGTH)?;
        let base = BaseBlock::parse(&head);
        let is_log = head.len() == base::LENGTH && head.starts_with(b"regf") && !base.is_dirty();
        let kind = base.file_type().filter(|kind| is_log && base.check(*kind).is_ok());
        if let Some(kind @ (FileType::OldLog | FileType::NewLog)) = kind {
            usable.push((kind, base, log));
        }
    }
    // A hive that a newer Windows has opened has logs of the newer format; what is left of older ones is stale.
    if usable.iter().any(|(kind, ..)| *kind == FileType::NewLog) {
        usable.retain(|(kind, ..)| *kind == FileType::NewLog);
        return new_logs(hive, usable.into_iter().map(|(_, base, log)| (base, log)).collect());
    }
    let newest = usable.into_iter().rev().max_by_key(|(_, base, _)| base.written);
    newest.map_or(Ok(None), |(_, base, log)| old_log(hive, base, log))
}

/// A log of the format before Windows 8.1.
fn old_log(hive: &BaseBlock, base: BaseBlock, log: Box<dyn Bytes>) -> Result<Option<Recovery>> {
    if hive.is_valid() && base.written < hive.written {
        return Ok(None);
    }
    // A bit for each sector, eight sectors for each page.
    let bitmap = base.bins.checked_div(4096).unwrap_or(0);
    let vector = read_up_to(&*log, FIRST, size(u64::from(bitmap).saturating_add(4)))?;
    let Some(bits) = vector.strip_prefix(b"DIRT") else { return Ok(None) };
    let mut sectors = HashMap::new();
    let mut offset = FIRST.saturating_add(u64::from(bitmap)).saturating_add(4).next_multiple_of(SECTOR);
    for (byte, first) in bits.iter().zip((0_u32..).step_by(8)) {
        for bit in (0..8_u32).filter(|bit| byte >> bit & 1 == 1) {
            let end = offset.saturating_add(SECTOR);
            if end > log.len() || sectors.len() >= limits::MAX_HIVE_DIRTY {
                return Ok(None);
            }
            let Ok(at) = u32::try_from(offset) else { return Ok(None) };
            sectors.insert(first.saturating_add(bit), Place { log: 0, offset: at });
            offset = end;
        }
    }
    if long(bits.len()) < u64::from(bitmap) || sectors.is_empty() {
        return Ok(None);
    }
    Ok(Some(Recovery { bins: base.bins, base, logs: vec![log], sectors, entries: 1 }))
}

/// One or two logs of the format since Windows 8.1.
fn new_logs(hive: &BaseBlock, mut usable: Vec<(BaseBlock, Box<dyn Bytes>)>) -> Result<Option<Recovery>> {
    usable.truncate(2);
    // The one that was begun first comes first. Sequence numbers wrap around.
    if let [(first, _), (second, _)] = &*usable
        && second.primary_sequence.wrapping_sub(first.primary_sequence) >> 31 == 1
    {
        usable.reverse();
    }
    if !hive.is_valid() {
        // Where Windows cannot tell what the hive has already, it uses the newer log only.
        usable = usable.pop().into_iter().collect();
    }
    let mut found: Option<Recovery> = None;
    let mut expected = None;
    for (base, log) in usable {
        let begun = base.primary_sequence;
        let is_old = begun.wrapping_sub(hive.secondary_sequence) >> 31 == 1;
        if (hive.is_valid() && is_old) || expected.is_some_and(|expected| expected != begun) {
            continue;
        }
        let number = found.as_ref().map_or(0, |_| 1);
        let mut recovery = found.take().unwrap_or_else(|| Recovery {
            bins: base.bins,
            base: base.clone(),
            logs: Vec::new(),
            sectors: HashMap::new(),
            entries: 0,
        });
        let before = recovery.entries;
        let next = apply(&mut recovery, number, begun, &*log)?;
        recovery.logs.push(log);
        if recovery.entries > before {
            recovery.base = base;
            expected = Some(next);
        }
        found = Some(recovery);
    }
    Ok(found.filter(|recovery| recovery.entries > 0))
}

/// Adds the entries of a log up to the first that is not whole or not the next. Gives the number of the one that would follow.
fn apply(recovery: &mut Recovery, number: u8, begun: u32, log: &dyn Bytes) -> Result<u32> {
    let (mut offset, mut sequence) = (FIRST, begun);
    while let Some(entry) = Entry::read(log, offset, sequence)? {
        if recovery.sectors.len().saturating_add(entry.places.len()) > limits::MAX_HIVE_DIRTY {
            break;
        }
        for (sector, at) in entry.places {
            recovery.sectors.insert(sector, Place { log: number, offset: at });
        }
        recovery.bins = entry.bins;
        recovery.entries = recovery.entries.saturating_add(1);
        offset = offset.saturating_add(entry.size);
        sequence = sequence.wrapping_add(1);
    }
    Ok(sequence)
}

/// An entry of a log: pages of the hive.
struct Entry {
    size: u64,
    bins: u32,
    /// Sectors of the bins, and where they are in the log.
    places: Vec<(u32, u32)>,
}

/// Bytes of an entry before its list of pages.
const HEAD: usize = 40;

impl Entry {
    /// The entry at `offset` of a log; `None` when there is none that is whole and has the number `sequence`.
    fn read(log: &dyn Bytes, offset: u64, sequence: u32) -> Result<Option<Self>> {
        let head = read_up_to(log, offset, HEAD)?;
        let (size, bins, count) = (u64::from(le32(&head, 4)), le32(&head, 16), u64::from(le32(&head, 20)));
        let is_possible = head.len() == HEAD
            && is_at(&head, 0, b"HvLE")
            && size >= SECTOR
            && size.is_multiple_of(SECTOR)
            && size <= limits::MAX_HIVE_LOG_ENTRY
            && offset.saturating_add(size) <= log.len()
            && bins != 0
            && bins.is_multiple_of(4096)
            && u64::from(bins) <= limits::MAX_HIVE
            && count != 0
            && count.saturating_mul(8).saturating_add(long(HEAD)) <= size
            && le32(&head, 12) == sequence;
        if !is_possible || !has_right_digests(log, offset, size, &head)? {
            return Ok(None);
        }
        let places = Self::places(log, offset, size, bins, count)?;
        Ok(places.map(|places| Self { size, bins, places }))
    }

    fn places(log: &dyn Bytes, offset: u64, size: u64, bins: u32, count: u64) -> Result<Option<Vec<(u32, u32)>>> {
        let list_length = count.saturating_mul(8);
        let from = offset.saturating_add(long(HEAD));
        let list = read_up_to(log, from, crate::disk::bytes::size(list_length))?;
        let (mut places, mut at, end) = (Vec::new(), from.saturating_add(list_length), offset.saturating_add(size));
        for page in list.chunks_exact(8) {
            let (to, length) = (le32(page, 0), le32(page, 4));
            let next = at.saturating_add(u64::from(length));
            let is_possible = to.is_multiple_of(512)
                && length.is_multiple_of(512)
                && to.checked_add(length).is_some_and(|end| end <= bins)
                && next <= end;
            if !is_possible {
                return Ok(None);
            }
            let first = to.checked_div(512).unwrap_or(0);
            for sector in 0..length.checked_div(512).unwrap_or(0) {
                let Ok(place) = u32::try_from(at) else { return Ok(None) };
                places.push((first.saturating_add(sector), place));
                at = at.saturating_add(SECTOR);
            }
        }
        Ok(Some(places))
    }
}

/// Whether an entry is what was written: Hash-2 covers its first 32 bytes, Hash-1 all after the first 40.
fn has_right_digests(log: &dyn Bytes, offset: u64, size: u64, head: &[u8]) -> Result<bool> {
    const PIECE: u64 = 64 << 10;
    let mut digest = Marvin32::default();
    digest.update(head.get(..32).unwrap_or_default());
    if digest.finish(&[]) != le64(head, 32) {
        return Ok(false);
    }
    let mut digest = Marvin32::default();
    let (mut at, end) = (offset.saturating_add(long(HEAD)), offset.saturating_add(size));
    while at < end {
        let length = end.saturating_sub(at).min(PIECE);
        let piece = read_up_to(log, at, crate::disk::bytes::size(length))?;
        if long(piece.len()) != length {
            return Ok(false);
        }
        digest.update(&piece);
        at = at.saturating_add(length);
    }
    // Sizes are multiples of 512, so that 40 less is one of four.
    Ok(digest.finish(&[]) == le64(head, 24))
}
