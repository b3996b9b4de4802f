//! Persistent bitmaps (specification, "Bitmaps"): directory, tables, and clusters of bits, the least significant first.

use std::num::NonZeroU64;
use std::ops::{ControlFlow, Range};

use super::entry::{OFFSET, invalid};
use super::extensions::BitmapsExtension;
use super::header::{Header, u32_at, u64_at};
use super::{Qcow2, beyond, bytes_at};
use crate::disk::Disk;
use crate::error::{Error, Result, escape_bytes};
use crate::format::Bitmap;
use crate::limits::{MAX_QCOW2_BITMAP_DIRECTORY, MAX_QCOW2_BITMAPS, MAX_QCOW2_L1_ENTRIES};

/// Bytes of a directory entry before its extra data and name.
const FIXED: usize = 24;

const IN_USE: u32 = 1 << 0;
const AUTO: u32 = 1 << 1;
/// Extra data that this reader does not know may be ignored.
const EXTRA_DATA_COMPATIBLE: u32 = 1 << 2;

/// The only type there is: a dirty tracking bitmap.
const DIRTY_TRACKING: u8 = 1;

/// Bit 0 of a table entry without a cluster: all ones.
const ALL_ONES: u64 = 1;

/// The bitmaps that the image keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) bitmaps: Vec<Bitmap>,
    /// Of each bitmap.
    pub(super) tables: Vec<Table>,
}

/// A bitmap's table: an entry for each of its clusters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) offset: u64,
    pub(super) entries: u32,
}

/// The bits of one cluster of a bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    Zeros,
    Ones,
    /// In the cluster at this offset.
    At(u64),
}

impl Directory {
    pub(super) fn read(file: &dyn Disk, header: &Header, extension: &BitmapsExtension) -> Result<Self> {
        let BitmapsExtension { nb_bitmaps, bitmap_directory_size: len, bitmap_directory_offset: offset } = *extension;
        if nb_bitmaps > MAX_QCOW2_BITMAPS || len > MAX_QCOW2_BITMAP_DIRECTORY {
            return Err(Error::limit("qcow2.bitmap", "there are too many bitmaps")
                .expected(format!("at most {MAX_QCOW2_BITMAPS} in {MAX_QCOW2_BITMAP_DIRECTORY} bytes"))
                .found(format!("{nb_bitmaps} in {len}")));
        }
        if offset % header.cluster_size != 0 {
            return Err(wrong("the directory of bitmaps is not aligned", offset));
        }
        let bytes = bytes_at(file, offset, len)?;
        let mut directory = Self { offset, len, ..Self::default() };
        let mut rest = bytes.as_slice();
        for _ in 0..nb_bitmaps {
            let at = offset.saturating_add(len).saturating_sub(u64::try_from(rest.len()).unwrap_or(0));
            rest = directory.entry(rest, header, at)?;
        }
        Ok(directory)
    }

    /// Takes the entry that `bytes` begin with, and gives those behind it.
    fn entry<'a>(&mut self, bytes: &'a [u8], header: &Header, at: u64) -> Result<&'a [u8]> {
        let Some([kind, granularity_bits, name0, name1]) = bytes.get(16..20) else {
            return Err(wrong("the directory of bitmaps ends within an entry", at));
        };
        let table = Table { offset: u64_at(bytes, 0)?, entries: u32_at(bytes, 8)? };
        let flags = u32_at(bytes, 12)?;
        let extra_len = usize::try_from(u32_at(bytes, 20)?).unwrap_or(usize::MAX);
        let name_at = FIXED.saturating_add(extra_len);
        let name_end = name_at.saturating_add(usize::from(u16::from_be_bytes([*name0, *name1])));
        let padded = name_end.checked_next_multiple_of(8).unwrap_or(usize::MAX);
        let (Some(name), Some(rest)) = (bytes.get(name_at..name_end), bytes.get(padded..)) else {
            return Err(wrong("the directory of bitmaps ends within an entry", at));
        };
        let granularity = 1_u64.checked_shl(u32::from(*granularity_bits)).filter(|_| *granularity_bits <= 62);
        let Some(granularity) = granularity else {
            return Err(wrong("a bitmap's granularity is not valid", at).found(granularity_bits));
        };
        if *kind != DIRTY_TRACKING || flags & !(IN_USE | AUTO | EXTRA_DATA_COMPATIBLE) != 0 {
            return Err(wrong("a bitmap is of an unknown kind", at).found(format!("type {kind}, flags {flags:#x}")));
        }
        if extra_len > 0 && flags & EXTRA_DATA_COMPATIBLE == 0 {
            return Err(wrong("a bitmap needs extra data that is not known here", at));
        }
        table.validate(header, at)?;
        self.bitmaps.push(Bitmap {
            name: escape_bytes(name),
            granularity,
            in_use: flags & IN_USE != 0,
            auto: flags & AUTO != 0,
        });
        self.tables.push(table);
        Ok(rest)
    }
}

impl Table {
    fn validate(self, header: &Header, at: u64) -> Result<()> {
        if self.entries > MAX_QCOW2_L1_ENTRIES {
            return Err(Error::limit("qcow2.bitmap", "a bitmap's table is too large")
                .offset(at)
                .expected(format!("at most {MAX_QCOW2_L1_ENTRIES} entries"))
                .found(self.entries));
        }
        if self.offset % header.cluster_size != 0 {
            return Err(wrong("a bitmap's table is not aligned", at));
        }
        let end = u64::from(self.entries).checked_mul(8).and_then(|len| self.offset.checked_add(len));
        if end.is_none_or(|end| end > header.file_len) {
            return Err(beyond(self.offset));
        }
        Ok(())
    }

    /// Where entry `index` lies.
    pub(super) fn entry_at(self, index: u64) -> u64 {
        self.offset.saturating_add(index.saturating_mul(8))
    }
}

impl Bits {
    /// Parses the table entry that lies `at` in the file.
    pub(super) fn parse(raw: u64, header: &Header, at: u64) -> Result<Self> {
        match (raw & OFFSET, raw & !OFFSET) {
            (0, 0) => Ok(Self::Zeros),
            (0, ALL_ONES) => Ok(Self::Ones),
            (offset, 0) if offset % header.cluster_size == 0 => Ok(Self::At(offset)),
            _ => Err(invalid("an entry of a bitmap's table is not valid", raw, at)),
        }
    }
}

impl Qcow2 {
    /// Visits the ranges that bitmap `index` says were written, in order and joined, from the byte of bits on that has `from`.
    pub(super) fn visit_dirty(
        &self,
        index: usize,
        from: u64,
        visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    ) -> Result<()> {
        let found = self.bitmaps.bitmaps.get(index).zip(self.bitmaps.tables.get(index));
        let (bitmap, table) = found.ok_or_else(|| wrong("there is no such bitmap", 0))?;
        if bitmap.in_use {
            return Err(wrong("the bitmap was not saved when the image was last written", table.offset));
        }
        let mut joined = Joined { visit, pending: None };
        let span = self.header.cluster_size.get().saturating_mul(8).saturating_mul(bitmap.granularity);
        let eight = NonZeroU64::new(bitmap.granularity.saturating_mul(8)).unwrap_or(NonZeroU64::MIN);
        let first = from.checked_div(span).unwrap_or(0);
        for number in first..u64::from(table.entries) {
            let start = number.saturating_mul(span);
            if start >= self.header.state.size {
                break;
            }
            let at = table.entry_at(number);
            let raw = u64::from_be_bytes(self.pages.entry(at)?);
            let end = start.saturating_add(span).min(self.header.state.size);
            let flow = match Bits::parse(raw, &self.header, at)? {
                Bits::Zeros => ControlFlow::Continue(()),
                Bits::Ones => joined.add(start..end),
                Bits::At(cluster) => {
                    let skipped = from.saturating_sub(start) / eight;
                    let start = start.saturating_add(skipped.saturating_mul(eight.get()));
                    self.visit_bits(cluster, skipped, start..end, bitmap.granularity, &mut joined)?
                }
            };
            if flow.is_break() {
                return Ok(());
            }
        }
        joined.finish();
        Ok(())
    }

    /// The bits in the cluster at `cluster` from byte `from` on, which stand for `range`.
    fn visit_bits(
        &self,
        cluster: u64,
        from: u64,
        range: Range<u64>,
        granularity: u64,
        joined: &mut Joined<'_>,
    ) -> Result<ControlFlow<()>> {
        let mut start = range.start;
        let mut at = cluster.saturating_add(from);
        let end = cluster.saturating_add(self.header.cluster_size.get());
        while start < range.end && at < end {
            let entries = self.pages.entries(at)?;
            let most = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let bytes = entries.bytes();
            let bytes = bytes.get(..most).unwrap_or(bytes);
            for byte in bytes {
                for bit in 0..8_u32 {
                    let next = start.saturating_add(granularity).min(range.end);
                    let set = byte.checked_shr(bit).unwrap_or(0) & 1 == 1;
                    if set && start < next && joined.add(start..next).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    start = next;
                }
                if start >= range.end {
                    break;
                }
            }
            at = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Makes neighbouring ranges one.
struct Joined<'a> {
    visit: &'a mut dyn FnMut(Range<u64>) -> ControlFlow<()>,
    pending: Option<Range<u64>>,
}

impl Joined<'_> {
    fn add(&mut self, range: Range<u64>) -> ControlFlow<()> {
        match &mut self.pending {
            Some(last) if last.end == range.start => {
                last.end = range.end;
                ControlFlow::Continue(())
            }
            pending => match pending.replace(range) {
                Some(last) => (self.visit)(last),
                None => ControlFlow::Continue(()),
            },
        }
    }

    fn finish(self) {
        if let Some(last) = self.pending {
            let _ = (self.visit)(last);
        }
    }
}

fn wrong(what: &str, offset: u64) -> Error {
    Error::corrupt("qcow2.bitmap", what).offset(offset)
}
