//! File entries: what a file is and where its content lies (ECMA-167, 4/14.9, 4/14.17; UDF 2.3.6, 3.3.3).

use std::ops::ControlFlow;

use super::volume::Volume;
use super::{Place, corrupt, feature, tag};
use crate::disk::bytes::{array, le16, le32, le64, long, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::calendar::Moment;
use crate::fs::pages::Pages;
use crate::fs::parts::Parts;
use crate::fs::{FileKind, Timestamp};
use crate::limits;

/// Entries that may stand for one another, on media that are written once.
const HOPS: usize = 16;

/// The owner or group of what has none, as in the kernel.
const NOBODY: u32 = 65534;

/// A part of a file.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// Bytes of the file before it.
    before: u64,
    len: u64,
    /// Where it lies; nowhere for a hole.
    place: Option<Place>,
}

/// Where a file's content lies. What is missing at its end is zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents(Vec<Extent>);

/// What lies at a byte of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Bytes that follow.
    pub(super) left: u64,
    /// How far into what; nowhere for a hole.
    pub(super) place: Option<(u64, Place)>,
}

/// A file's content.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// It lies in the entry itself.
    Embedded(Vec<u8>),
    Extents(Extents),
}

/// A file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) blocks: u64,
    /// Access, modification, attributes.
    pub(super) times: [Timestamp; 3],
    pub(super) created: Option<Timestamp>,
    pub(super) device: Option<(u32, u32)>,
    pub(super) content: Content,
}

impl Extents {
    /// Those of the file whose entry is at `place`: one that holds metadata.
    pub(super) fn of_file(pages: &Pages, volume: &Volume, place: Place) -> Result<Self> {
        let (entry, at) = find(pages, volume, place)?;
        match content(pages, volume, &entry, at)? {
            Content::Extents(extents) if !extents.0.is_empty() => Ok(extents),
            _ => Err(corrupt("the metadata lies nowhere").found(place.block)),
        }
    }

    /// What lies at byte `at`.
    pub(super) fn at(&self, at: u64) -> Option<Part> {
        let after = self.0.partition_point(|extent| extent.before <= at);
        let extent = self.0.get(after.checked_sub(1)?)?;
        let within = at.checked_sub(extent.before).filter(|within| *within < extent.len)?;
        Some(Part { left: extent.len.saturating_sub(within), place: extent.place.map(|place| (within, place)) })
    }

    /// Adds to `parts` what is no hole.
    pub(super) fn data(&self, parts: &mut Parts<'_>) -> ControlFlow<()> {
        let mut held = self.0.iter().filter(|extent| extent.place.is_some());
        held.try_for_each(|extent| parts.add(extent.before..extent.before.saturating_add(extent.len)))
    }

    fn push(&mut self, len: u64, place: Option<Place>) -> Result<u64> {
        if self.0.len() >= limits::MAX_UDF_EXTENTS {
            return Err(Error::limit("udf.limit", "a file is in too many pieces").found(self.0.len()));
        }
        let before = self.0.last().map_or(0, |extent| extent.before.saturating_add(extent.len));
        self.0.push(Extent { before, len, place });
        Ok(before.saturating_add(len))
    }

    /// Linux leaves the last extent as long as it was when a file grows within its last block: what the file has beyond lies there.
    fn fill_last_block(&mut self, block: u64) {
        if let Some(last) = self.0.last_mut().filter(|last| last.place.is_some()) {
            last.len = last.len.checked_next_multiple_of(block).unwrap_or(last.len);
        }
    }
}

impl Node {
    pub(super) fn read(pages: &Pages, volume: &Volume, place: Place) -> Result<Self> {
        let (entry, at) = find(pages, volume, place)?;
        let icb = |offset: usize| offset.saturating_add(16);
        let kind = match u8_at(&entry, icb(11)) {
            4 => FileKind::Directory,
            0 | 5 | 249 => FileKind::Regular,
            6 => FileKind::BlockDevice,
            7 => FileKind::CharDevice,
            9 => FileKind::Fifo,
            10 => FileKind::Socket,
            12 => FileKind::Symlink,
            other => return Err(feature("a file of an unknown type").found(other)),
        };
        let (permissions, flags) = (le32(&entry, 44), u32::from(le16(&entry, icb(18))));
        let mode = permissions & 0o7 | permissions >> 2 & 0o70 | permissions >> 4 & 0o700;
        // Set-user-ID, set-group-ID and sticky are the bits 6 to 8.
        let special = [(0x40, 0o4000), (0x80, 0o2000), (0x100, 0o1000)];
        let special = special.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |sum, (_, bit)| sum | bit);
        let extended = is_extended(&entry);
        let (blocks, times) = if extended { (72, [80, 92, 116]) } else { (64, [72, 84, 96]) };
        let owner = |id: u32| if id == u32::MAX { NOBODY } else { id };
        let device = matches!(kind, FileKind::BlockDevice | FileKind::CharDevice);
        Ok(Self {
            kind,
            mode: mode | special,
            uid: owner(le32(&entry, 36)),
            gid: owner(le32(&entry, 40)),
            // The name of a directory within itself is not counted there.
            links: u32::from(le16(&entry, 48)).saturating_add(u32::from(kind == FileKind::Directory)),
            size: le64(&entry, 56),
            blocks: le64(&entry, blocks),
            times: times.map(|at| time(array(&entry, at))),
            created: extended.then(|| time(array(&entry, 104))),
            device: if device { numbers(&entry) } else { None },
            content: content(pages, volume, &entry, at)?,
        })
    }
}

fn is_extended(entry: &[u8]) -> bool {
    le16(entry, 0) == tag::EXTENDED_FILE_ENTRY
}

/// Bytes before the extended attributes of an entry, of these, and of the allocation descriptors behind them.
fn parts(entry: &[u8]) -> (usize, usize, usize) {
    let start = if is_extended(entry) { 216_usize } else { 176 };
    let len = |back: usize| size(u64::from(le32(entry, start.saturating_sub(back))));
    (start, len(8), len(4))
}

/// The entry of the file at `place`, and where it was found. Where media are written once, others may stand for it.
fn find(pages: &Pages, volume: &Volume, mut place: Place) -> Result<(Vec<u8>, Place)> {
    for _ in 0..HOPS {
        let block = size(volume.block);
        let (kind, entry) = tag::read(pages, volume.locate(place)?.0, block, place.block)?;
        if !matches!(kind, tag::FILE_ENTRY | tag::EXTENDED_FILE_ENTRY) {
            return Err(corrupt("there is no file entry").found(kind));
        }
        match le16(&entry, 20) {
            4 => return Ok((entry, place)),
            4096 => {
                let next = place.further(1);
                let indirect = volume.locate(next).and_then(|(at, _)| tag::read(pages, at, block, next.block));
                match indirect {
                    Ok((tag::INDIRECT_ENTRY, bytes)) if le32(&bytes, 36) != 0 => place = Place::long(&bytes, 36),
                    _ => return Ok((entry, place)),
                }
            }
            strategy => return Err(feature("an unknown strategy of entries").found(strategy)),
        }
    }
    Err(Error::limit("udf.limit", "too many file entries stand for one another"))
}

fn content(pages: &Pages, volume: &Volume, entry: &[u8], place: Place) -> Result<Content> {
    let (start, attributes, len) = parts(entry);
    let descriptors = entry.get(start..).and_then(|rest| rest.get(attributes..)).and_then(|rest| rest.get(..len));
    let descriptors = descriptors.ok_or_else(|| corrupt("a file entry is longer than its block").found(place.block))?;
    let file_size = le64(entry, 56);
    let step = match le16(entry, 34) & 7 {
        0 => 8_usize,
        1 => 16,
        3 if long(len) < file_size => return Err(corrupt("a file is longer than its entry").found(file_size)),
        3 => return Ok(Content::Embedded(descriptors.get(..size(file_size)).unwrap_or_default().to_vec())),
        other => return Err(feature("extended allocation descriptors").found(other)),
    };
    let mut extents = Extents::default();
    let mut bytes = descriptors.to_vec();
    for _ in 0..=limits::MAX_UDF_CONTINUATIONS {
        let mut next = None;
        for one in bytes.chunks_exact(step) {
            let raw = le32(one, 0);
            let len = u64::from(raw & 0x3fff_ffff);
            let at = if step == 16 { Place::long(one, 0) } else { Place { block: le32(one, 4), ..place } };
            if len == 0 {
                break;
            }
            match raw >> 30 {
                3 => {
                    next = Some(at);
                    break;
                }
                kind => {
                    if extents.push(len, (kind == 0).then_some(at))? >= file_size {
                        return Ok(Content::Extents(extents));
                    }
                }
            }
        }
        let Some(at) = next else {
            extents.fill_last_block(volume.block);
            return Ok(Content::Extents(extents));
        };
        let block = tag::expect(pages, volume.locate(at)?.0, size(volume.block), at.block, tag::ALLOCATION_EXTENT)?;
        let len = size(u64::from(le32(&block, 20)));
        let rest = block.get(24..).and_then(|rest| rest.get(..len));
        bytes = rest.ok_or_else(|| corrupt("allocation descriptors are longer than their block").found(len))?.to_vec();
    }
    Err(Error::limit("udf.limit", "a file is in too many pieces"))
}

/// The numbers of a device file, in an extended attribute (ECMA-167, 4/14.10.7).
fn numbers(entry: &[u8]) -> Option<(u32, u32)> {
    let (start, len, _) = parts(entry);
    let area = entry.get(start..)?.get(..len)?;
    if tag::kind(area) != Some(tag::ATTRIBUTE_HEADER) {
        return None;
    }
    let mut rest = area.get(24..)?;
    loop {
        let len = size(u64::from(le32(rest, 8)));
        let attribute = rest.get(..len.max(12))?;
        if le32(attribute, 0) == 12 && u8_at(attribute, 4) == 1 {
            return Some((le32(attribute, 16), le32(attribute, 20)));
        }
        rest = rest.get(len.max(12)..)?;
    }
}

/// A moment (ECMA-167, 1/7.3).
fn time(stamp: [u8; 12]) -> Timestamp {
    let zone = u16::from_le_bytes(array(&stamp, 0));
    // Twelve bits with a sign: minutes that it is ahead of universal time, where it is a local time and that is known.
    let east = i64::from(i16::from_le_bytes(zone.wrapping_shl(4).to_le_bytes()) >> 4);
    let known = zone >> 12 == 1 && (-1440..=1440).contains(&east);
    let field = |at: usize| i64::from(u8_at(&stamp, at));
    let moment = Moment {
        year: i64::from(i16::from_le_bytes(array(&stamp, 2))),
        month: field(4).clamp(1, 12),
        day: field(5).max(1),
        hour: field(6),
        minute: field(7),
        second: field(8),
    };
    let parts = [field(9), field(10), field(11)].map(|part| u32::try_from(part).unwrap_or(0));
    let [centi, hundreds, micros] = parts;
    let fits = parts.iter().all(|part| *part < 100);
    let micros = centi.saturating_mul(10_000).saturating_add(hundreds.saturating_mul(100)).saturating_add(micros);
    Timestamp {
        seconds: moment.seconds().saturating_sub(if known { east.saturating_mul(60) } else { 0 }),
        nanoseconds: if fits { micros.saturating_mul(1000) } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_universal() {
        let stamp = |zone: u16, parts: [u8; 3]| {
            let [low, high] = zone.to_le_bytes();
            let [a, b, c] = parts;
            time([low, high, 0xea, 7, 11, 21, 10, 30, 5, a, b, c])
        };
        assert_eq!(stamp(0x1000, [12, 34, 56]), Timestamp { seconds: 1_795_257_005, nanoseconds: 123_456_000 });
        assert_eq!(stamp(0x1000 | 120, [0; 3]).seconds, 1_795_257_005 - 7200);
        assert_eq!(stamp(0x1000 | (0x1000 - 60), [0; 3]).seconds, 1_795_257_005 + 3600);
        // An unknown zone, and no local time.
        for zone in [0x1000 | (0x1000 - 2047), 120] {
            assert_eq!(stamp(zone, [100, 0, 0]), Timestamp { seconds: 1_795_257_005, nanoseconds: 0 });
        }
    }

    #[test]
    fn pieces_of_a_file_have_a_bound() {
        let mut extents = Extents::default();
        for _ in 0..limits::MAX_UDF_EXTENTS {
            extents.push(1, None).unwrap();
        }
        assert_eq!(extents.push(1, None).unwrap_err().code(), "udf.limit");
        assert_eq!(extents.at(long(limits::MAX_UDF_EXTENTS) - 1).unwrap().left, 1);
        assert!(extents.at(long(limits::MAX_UDF_EXTENTS)).is_none());
    }
}
