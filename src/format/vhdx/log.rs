//! The log: changes of metadata that were begun and may not have reached their place ([MS-VHDX] 2.3). It is replayed into memory;
//! the file is never written.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use uuid::Uuid;

use super::header::Header;
use crate::disk::bytes::{array, is_at, le32, le64, put, put32};
use crate::disk::ranges::RangeSet;
use crate::disk::{Disk, Extent, ExtentKind, Fingerprint, Hints, SectorSize, Visit, read_vec};
use crate::error::{Error, Result};
use crate::limits::{MAX_VHDX_LOG, MAX_VHDX_REPLAYED, MAX_VHDX_SIZE};

/// The unit of the log, and of what it changes.
const SECTOR: u64 = 4096;
const SECTOR_LEN: usize = 4096;

/// Times the length of the log that may be read while its entries are sought. A sound entry is looked at once or twice; stale ones
/// belong to another log.
const MOST_READ: u64 = 8;

/// The file as it is once its log is replayed.
#[derive(Debug)]
pub(super) struct Replayed {
    file: Arc<dyn Disk>,
    len: u64,
    /// Changed sectors by number; a number is in at most one of both.
    sectors: BTreeMap<u64, Box<[u8; SECTOR_LEN]>>,
    zeros: RangeSet,
    /// Entries that were applied.
    pub(super) entries: usize,
}

/// Replays the log that `header` names.
///
/// # Errors
/// `vhdx.log` when there is no valid sequence of entries or the file is shorter than it says, or those of reading.
pub(super) fn replay(file: &Arc<dyn Disk>, header: &Header) -> Result<Replayed> {
    let length = header.log.end.saturating_sub(header.log.start);
    if length > MAX_VHDX_LOG {
        return Err(Error::limit("vhdx.log", "the log is too large")
            .offset(header.log.start)
            .expected(format!("at most {MAX_VHDX_LOG:#x} bytes"))
            .found(format!("{length:#x}")));
    }
    let mut log = Log {
        file: &**file,
        start: header.log.start,
        length,
        guid: header.log_guid,
        left: length.saturating_mul(MOST_READ),
        has_entries: false,
    };
    let sequence = log.active()?;
    let Some((_, head)) = sequence.last().copied() else {
        if log.has_entries {
            return Err(log.bad("the log has no valid sequence of entries"));
        }
        // QEMU names the log before it writes the first entry: nothing was begun yet.
        return Ok(Replayed::nothing(file));
    };
    let (tail, len) = (head.tail, head.last_file_offset.max(file.len()));
    if file.len() < head.flushed_file_offset || len > MAX_VHDX_SIZE.saturating_mul(2) {
        return Err(log
            .bad("the file is shorter than its log says")
            .expected(format!("at least {:#x} bytes", head.flushed_file_offset))
            .found(format!("{:#x}", file.len()))
            .hint("the image was cut short; get it again"));
    }
    let mut replayed = Replayed { len, ..Replayed::nothing(file) };
    for (at, _) in sequence.iter().skip_while(|(at, _)| *at != tail) {
        let entry = log.entry(*at)?.ok_or_else(|| log.bad("an entry changed while the log was read"))?;
        entry.apply(&mut replayed, &log)?;
        replayed.entries = replayed.entries.saturating_add(1);
    }
    Ok(replayed)
}

/// The log's place, and how much of it may still be read.
struct Log<'a> {
    file: &'a dyn Disk,
    start: u64,
    length: u64,
    guid: Uuid,
    left: u64,
    /// Whether an entry of this log was seen, valid or not.
    has_entries: bool,
}

/// What the search needs of a valid entry.
#[derive(Clone, Copy, Debug)]
struct Summary {
    sequence_number: u64,
    /// Where the oldest entry that is needed begins.
    tail: u64,
    length: u64,
    flushed_file_offset: u64,
    last_file_offset: u64,
}

/// A valid entry.
struct Entry {
    summary: Summary,
    bytes: Vec<u8>,
}

impl Log<'_> {
    /// The valid sequence with the highest sequence number ([MS-VHDX] 2.3.2): the offsets of its entries within the log.
    fn active(&mut self) -> Result<Vec<(u64, Summary)>> {
        let mut best: Vec<(u64, Summary)> = Vec::new();
        let mut at = 0_u64;
        while at < self.length {
            let sequence = self.sequence(at)?;
            let Some((_, head)) = sequence.last().copied() else {
                at = at.saturating_add(SECTOR);
                continue;
            };
            let total: u64 = sequence.iter().map(|(_, entry)| entry.length).sum();
            let valid = sequence.iter().any(|(at, _)| *at == head.tail);
            let newer = best.last().is_none_or(|(_, best)| head.sequence_number > best.sequence_number);
            if valid && newer {
                best = sequence;
            }
            // One that runs past the end of the log goes on at its front, where it was looked for already.
            at = at.saturating_add(total);
        }
        Ok(best)
    }

    /// The entries from `at` on whose sequence numbers follow each other.
    fn sequence(&mut self, at: u64) -> Result<Vec<(u64, Summary)>> {
        let mut found: Vec<(u64, Summary)> = Vec::new();
        let (mut next, mut total) = (at, 0_u64);
        while let Some(entry) = self.entry(next)? {
            let follows = found
                .last()
                .is_none_or(|(_, last)| last.sequence_number.checked_add(1) == Some(entry.summary.sequence_number));
            total = total.saturating_add(entry.summary.length);
            if !follows || total > self.length {
                break;
            }
            found.push((next, entry.summary));
            next = self.wrapped(next.saturating_add(entry.summary.length));
        }
        Ok(found)
    }

    /// The entry at `at`, if it is valid.
    fn entry(&mut self, at: u64) -> Result<Option<Entry>> {
        let head = self.read(at, SECTOR)?;
        let length = u64::from(le32(&head, 8));
        let tail = u64::from(le32(&head, 12));
        let ours = is_at(&head, 0, b"loge") && Uuid::from_bytes_le(array(&head, 32)) == self.guid;
        self.has_entries |= ours;
        let plausible = ours
            && length.is_multiple_of(SECTOR)
            && (SECTOR..=self.length).contains(&length)
            && tail.is_multiple_of(SECTOR)
            && tail < self.length
            && le64(&head, 16) > 0;
        if !plausible {
            return Ok(None);
        }
        let mut bytes = self.read(at, length)?;
        let stored = le32(&bytes, 4);
        put32(&mut bytes, 4, 0);
        if crc32c::crc32c(&bytes) != stored {
            return Ok(None);
        }
        let summary = Summary {
            sequence_number: le64(&bytes, 16),
            tail,
            length,
            flushed_file_offset: le64(&bytes, 48),
            last_file_offset: le64(&bytes, 56),
        };
        Ok(Some(Entry { summary, bytes }))
    }

    /// Bytes of the log, which is a ring.
    fn read(&mut self, at: u64, len: u64) -> Result<Vec<u8>> {
        self.left = self.left.checked_sub(len).ok_or_else(|| self.bad("the log's entries overlap without end"))?;
        let first = len.min(self.length.saturating_sub(at));
        let size = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = read_vec(self.file, self.start.saturating_add(at), size(first))?;
        if first < len {
            bytes.extend(read_vec(self.file, self.start, size(len.saturating_sub(first)))?);
        }
        Ok(bytes)
    }

    fn wrapped(&self, at: u64) -> u64 {
        if at >= self.length { at.saturating_sub(self.length) } else { at }
    }

    fn bad(&self, what: &str) -> Error {
        Error::corrupt("vhdx.log", what).offset(self.start)
    }
}

impl Entry {
    /// Does what the entry says: its descriptors, then, sector by sector, the data of those that have any.
    fn apply(&self, to: &mut Replayed, log: &Log<'_>) -> Result<()> {
        let count = usize::try_from(le32(&self.bytes, 24)).unwrap_or(usize::MAX);
        let descriptors = count.checked_mul(32).and_then(|len| len.checked_add(64));
        let data_at = descriptors.and_then(|len| len.checked_next_multiple_of(SECTOR_LEN));
        let (Some(data_at), Some(end)) = (data_at.filter(|at| *at <= self.bytes.len()), descriptors) else {
            return Err(log.bad("an entry has more descriptors than it can hold").found(count));
        };
        let mut data = self.bytes.get(data_at..).unwrap_or_default().chunks_exact(SECTOR_LEN);
        for descriptor in self.bytes.get(64..end).unwrap_or_default().chunks_exact(32) {
            let offset = le64(descriptor, 16);
            if le64(descriptor, 24) != self.summary.sequence_number || !offset.is_multiple_of(SECTOR) {
                return Err(log.bad("a descriptor is not one of its entry"));
            }
            if is_at(descriptor, 0, b"zero") {
                to.zero(offset, le64(descriptor, 8)).ok_or_else(|| log.bad("zeros lie past the end of the file"))?;
            } else if is_at(descriptor, 0, b"desc") {
                let sector = data.next().and_then(|sector| self.sector(descriptor, sector));
                let sector = sector.ok_or_else(|| log.bad("the data of a descriptor is missing or torn"))?;
                to.put(offset, sector).ok_or_else(|| log.bad("data lies past the end of the file"))?;
                if to.sectors.len() > MAX_VHDX_REPLAYED {
                    return Err(Error::limit("vhdx.log", "the log changes too much").offset(log.start));
                }
            } else {
                return Err(log.bad("a descriptor is of a kind that is not known"));
            }
        }
        Ok(())
    }

    /// A sector as it was logged: its first eight and last four bytes are in the descriptor.
    fn sector(&self, descriptor: &[u8], data: &[u8]) -> Option<Box<[u8; SECTOR_LEN]>> {
        let sequence = u64::from(le32(data, 4)) << 32 | u64::from(le32(data, SECTOR_LEN - 4));
        if !is_at(data, 0, b"data") || sequence != self.summary.sequence_number {
            return None;
        }
        let mut sector = Box::new([0; SECTOR_LEN]);
        put(&mut *sector, 0, descriptor.get(8..16)?);
        put(&mut *sector, 8, data.get(8..SECTOR_LEN - 4)?);
        put(&mut *sector, SECTOR_LEN - 4, descriptor.get(4..8)?);
        Some(sector)
    }
}

impl Replayed {
    fn nothing(file: &Arc<dyn Disk>) -> Self {
        let (sectors, zeros) = (BTreeMap::new(), RangeSet::default());
        Self { file: Arc::clone(file), len: file.len(), sectors, zeros, entries: 0 }
    }

    fn put(&mut self, offset: u64, sector: Box<[u8; SECTOR_LEN]>) -> Option<()> {
        let end = offset.checked_add(SECTOR).filter(|end| *end <= self.len.next_multiple_of(SECTOR))?;
        let number = offset / SECTOR;
        self.zeros.remove(number..end / SECTOR);
        self.sectors.insert(number, sector);
        Some(())
    }

    fn zero(&mut self, offset: u64, length: u64) -> Option<()> {
        let end = offset.checked_add(length).filter(|end| *end <= self.len.next_multiple_of(SECTOR))?;
        let range = offset / SECTOR..end / SECTOR;
        let hidden: Vec<u64> = self.sectors.range(range.clone()).map(|(number, _)| *number).collect();
        for number in hidden {
            self.sectors.remove(&number);
        }
        self.zeros.insert(range);
        Some(())
    }

    /// What bytes from `offset` on are like, and to where: at most `end`.
    fn run(&self, offset: u64, end: u64) -> (Source<'_>, u64) {
        let number = offset / SECTOR;
        let upto = |sector: u64| sector.saturating_mul(SECTOR).min(end);
        if let Some(sector) = self.sectors.get(&number) {
            return (Source::Logged(sector), upto(number.saturating_add(1)));
        }
        if let Some(zeros) = self.zeros.containing(number) {
            return (Source::Zeros, upto(zeros.end));
        }
        if offset >= self.file.len() {
            return (Source::Zeros, self.next_change(number).map_or(end, upto));
        }
        let unchanged = self.next_change(number).map_or(end, upto);
        (Source::File, unchanged.min(self.file.len()))
    }

    fn next_change(&self, number: u64) -> Option<u64> {
        let sector = self.sectors.range(number..).next().map(|(number, _)| *number);
        sector.into_iter().chain(self.zeros.next_start(number)).min()
    }
}

/// Where bytes come from.
enum Source<'a> {
    File,
    Logged(&'a [u8; SECTOR_LEN]),
    Zeros,
}

impl Disk for Replayed {
    fn len(&self) -> u64 {
        self.len
    }

    fn sector_size(&self) -> SectorSize {
        self.file.sector_size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let end = at.saturating_add(u64::try_from(rest.len()).unwrap_or(u64::MAX));
            let (source, to) = self.run(at, end);
            let len = usize::try_from(to.saturating_sub(at)).unwrap_or(usize::MAX).min(rest.len());
            let (part, after) = std::mem::take(&mut rest).split_at_mut(len);
            match source {
                Source::File => self.file.read_at(part, at)?,
                Source::Zeros => part.fill(0),
                Source::Logged(sector) => {
                    let from = usize::try_from(at % SECTOR).unwrap_or(0);
                    let logged = sector.get(from..).and_then(|rest| rest.get(..len)).unwrap_or_default();
                    part.copy_from_slice(logged);
                }
            }
            rest = after;
            at = to;
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut at = range.start;
        let mut flow = ControlFlow::Continue(());
        while at < range.end && flow.is_continue() {
            let (source, to) = self.run(at, range.end);
            match source {
                Source::File => self.file.extents(at..to, &mut |extent| {
                    flow = visit(extent);
                    flow
                })?,
                Source::Logged(_) => {
                    flow = visit(Extent { range: at..to, kind: ExtentKind::Data, depth: 0, place: None });
                }
                Source::Zeros => {
                    flow = visit(Extent { range: at..to, kind: ExtentKind::Zero, depth: 0, place: None });
                }
            }
            at = to;
        }
        Ok(())
    }

    fn prefetch(&self, range: Range<u64>) {
        self.file.prefetch(range.start..range.end.min(self.file.len()));
    }

    fn hints(&self) -> Hints {
        self.file.hints()
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        self.file.fingerprint()
    }

    fn describe(&self) -> (&'static str, String) {
        ("log", format!("{} entries of a VHDX log, replayed in memory", self.entries))
    }

    fn name(&self) -> String {
        self.file.name()
    }

    fn below(&self) -> Vec<Arc<dyn Disk>> {
        vec![Arc::clone(&self.file)]
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::super::tests::{Change, LOG_GUID, log_entry};
    use super::*;
    use crate::disk::{Checked, Memory};

    #[test]
    fn as_many_sectors_are_kept_as_the_limit() {
        let guid = Uuid::from_bytes_le(LOG_GUID);
        let bytes = log_entry(1, 0, 1 << 30, &[1, 2].map(|at| Change::Put(at * SECTOR, Box::new([0; SECTOR_LEN]))));
        let file: Arc<dyn Disk> = Checked::wrap(Memory::new(bytes));
        let mut log = Log { file: &*file, start: 0, length: file.len(), guid, left: 1 << 20, has_entries: false };
        let entry = log.entry(0).unwrap().expect("an entry");
        for (before, fits) in
            [(MAX_VHDX_REPLAYED - 3, true), (MAX_VHDX_REPLAYED - 2, true), (MAX_VHDX_REPLAYED - 1, false)]
        {
            let mut to = Replayed { len: 1 << 30, ..Replayed::nothing(&file) };
            for number in 100..100 + u64::try_from(before).unwrap() {
                to.put(number * SECTOR, Box::new([0; SECTOR_LEN])).unwrap();
            }
            let code = entry.apply(&mut to, &log).map_or_else(|error| error.code(), |()| "ok");
            assert_eq!(code, if fits { "ok" } else { "vhdx.log" }, "{before}");
        }
    }
}
