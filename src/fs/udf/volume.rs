//! From the anchor to the root directory: the descriptors of the volume, and what its partitions map to (UDF 2.2; ECMA-167, 3
//! and 4/3).

use std::collections::BTreeMap;

use super::node::Extents;
use super::{Place, Udf, corrupt, feature, geometry, names, tag};
use crate::disk::bytes::{array, is_at, le16, le32, long, size, u8_at};
use crate::error::{Error, Result};
use crate::fs::pages::Pages;
use crate::limits;

/// Sizes of sectors, the usual one first.
const SECTORS: [u64; 5] = [2048, 512, 4096, 1024, 8192];

/// Sequences of descriptors that may continue each other.
const SEQUENCES: usize = 16;

/// The longest sequence that is read. The standard asks for 16 sectors.
const SEQUENCE: u32 = 256;

/// What a number of a partition in addresses stands for.
#[derive(Debug)]
pub(super) enum Map {
    /// Blocks that lie one after the other.
    Plain { start: u64, len: u64 },
    /// The same in packets of `packet` blocks, of which some lie elsewhere, by their first block.
    Sparable { start: u64, len: u64, packet: u32, moved: BTreeMap<u32, u32> },
    /// The content of a file.
    Metadata(Extents),
}

/// What the descriptors say.
#[derive(Debug)]
pub(super) struct Volume {
    /// Bytes of a block.
    pub(super) block: u64,
    pub(super) label: Option<String>,
    /// From the identifier of the set of volumes, as `blkid` makes it.
    pub(super) uuid: Option<String>,
    /// The version of UDF in two decimal parts of a byte each.
    pub(super) revision: u16,
    pub(super) maps: Vec<Map>,
    /// The descriptor of the set of files.
    files: Place,
    /// Where the state of the volume is told: first sector and bytes.
    integrity: (u32, u32),
}

/// The state of a volume.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Whether it was in use.
    pub(super) open: bool,
    pub(super) free: Option<u64>,
}

/// Descriptors of a sequence that count: those with the highest number.
#[derive(Debug, Default)]
struct Found {
    primary: Option<Vec<u8>>,
    logical: Option<Vec<u8>>,
    partitions: BTreeMap<u16, Vec<u8>>,
}

impl Volume {
    pub(super) fn read(pages: &Pages) -> Result<Self> {
        let (sector, anchor) = anchor(pages)?;
        let main = sequence(pages, sector, le32(&anchor, 20), le32(&anchor, 16));
        let main = main.and_then(|found| Self::new(pages, sector, &found));
        main.or_else(|error| {
            let reserve = sequence(pages, sector, le32(&anchor, 28), le32(&anchor, 24));
            reserve.and_then(|found| Self::new(pages, sector, &found)).map_err(|_| error)
        })
    }

    fn new(pages: &Pages, sector: u64, found: &Found) -> Result<Self> {
        let primary = found.primary.as_ref().ok_or_else(|| corrupt("there is no primary volume descriptor"))?;
        let logical = found.logical.as_ref().ok_or_else(|| corrupt("there is no logical volume descriptor"))?;
        if u64::from(le32(logical, 212)) != sector {
            return Err(geometry("blocks have another size than sectors").expected(sector).found(le32(logical, 212)));
        }
        let mut volume = Self {
            block: sector,
            label: names::dstring(logical.get(84..212).unwrap_or_default()),
            uuid: names::dstring(primary.get(72..200).unwrap_or_default()).and_then(|set| names::uuid(set.as_bytes())),
            revision: le16(logical, 240),
            maps: Vec::new(),
            files: Place::long(logical, 248),
            integrity: (le32(logical, 436), le32(logical, 432)),
        };
        volume.read_maps(pages, logical, found)?;
        Ok(volume)
    }

    fn read_maps(&mut self, pages: &Pages, logical: &[u8], found: &Found) -> Result<()> {
        let table = logical.get(440..).and_then(|rest| rest.get(..size(u64::from(le32(logical, 264)))));
        let mut rest = table.ok_or_else(|| corrupt("the partition maps are longer than their descriptor"))?;
        let mut numbers = Vec::new();
        for _ in 0..le32(logical, 268).min(limits::MAX_UDF_PARTITIONS) {
            let len = usize::from(u8_at(rest, 1));
            let (map, after) = rest.split_at_checked(len).filter(|(map, _)| map.len() >= 6).unwrap_or_default();
            let physical = |number: u16| {
                let partition = found.partitions.get(&number);
                let partition = partition.ok_or_else(|| corrupt("a partition is missing").found(number))?;
                Ok((u64::from(le32(partition, 188)), u64::from(le32(partition, 192))))
            };
            let name = map.get(5..28).unwrap_or_default();
            let (number, map) = match (u8_at(map, 0), len) {
                (1, 6) => {
                    let number = le16(map, 4);
                    let (start, len) = physical(number)?;
                    (number, Map::Plain { start, len })
                }
                (2, 64) if name.starts_with(b"*UDF Sparable Partition") => {
                    let number = le16(map, 38);
                    let (start, len) = physical(number)?;
                    let packet = u32::from(le16(map, 40));
                    if packet == 0 {
                        return Err(geometry("packets are empty"));
                    }
                    (number, Map::Sparable { start, len, packet, moved: self.moved(pages, map) })
                }
                (2, 64) if name.starts_with(b"*UDF Metadata Partition") => {
                    let number = le16(map, 38);
                    let below = numbers.iter().position(|known| *known == number);
                    let below = below.and_then(|below| u16::try_from(below).ok());
                    let below = below.ok_or_else(|| corrupt("the metadata lies in no partition").found(number))?;
                    let file =
                        |at: usize| Extents::of_file(pages, self, Place { partition: below, block: le32(map, at) });
                    (number, Map::Metadata(file(40).or_else(|error| file(44).map_err(|_| error))?))
                }
                (2, 64) if name.starts_with(b"*UDF Virtual Partition") => {
                    return Err(feature("a volume that is written in sessions, by way of a virtual partition"));
                }
                _ => return Err(feature("an unknown kind of partition").found(u8_at(map, 0))),
            };
            numbers.push(number);
            self.maps.push(map);
            rest = after;
        }
        Ok(())
    }

    /// The packets that were moved, by the first of the tables that is sound.
    fn moved(&self, pages: &Pages, map: &[u8]) -> BTreeMap<u32, u32> {
        let count = usize::from(u8_at(map, 42).min(4));
        for at in (0..count).map(|table| le32(map, table.saturating_mul(4).saturating_add(48))) {
            let place = u64::from(at).saturating_mul(self.block);
            let Ok(head) = pages.bytes(place, 56) else { continue };
            let entries = usize::from(le16(&head, 48));
            let Ok(bytes) = pages.bytes(place, entries.saturating_mul(8).saturating_add(56)) else { continue };
            if tag::kind(&bytes) != Some(0) || !is_at(&bytes, 17, b"*UDF Sparing Table") {
                continue;
            }
            let pairs = bytes.get(56..).unwrap_or_default().chunks_exact(8).map(|pair| (le32(pair, 0), le32(pair, 4)));
            // The last numbers stand for packets that are free or bad.
            return pairs.filter(|(from, _)| *from < 0xffff_fff0).collect();
        }
        BTreeMap::new()
    }

    /// Where a block lies on the volume, in bytes, and how many follow it there.
    pub(super) fn locate(&self, place: Place) -> Result<(u64, u64)> {
        let outside = || corrupt("an address lies outside of its partition").found(place.block);
        let map = self.maps.get(usize::from(place.partition)).ok_or_else(outside)?;
        let block = u64::from(place.block);
        match map {
            Map::Plain { start, len } | Map::Sparable { start, len, .. } if block >= *len => {
                Err(outside().expected(format!("less than {len} from {start}")))
            }
            Map::Plain { start, len } => {
                Ok((start.saturating_add(block).saturating_mul(self.block), len.saturating_sub(block)))
            }
            Map::Sparable { start, packet, moved, .. } => {
                let within = place.block.checked_rem(*packet).unwrap_or(0);
                let first = place.block.saturating_sub(within);
                let at = match moved.get(&first) {
                    Some(at) => u64::from(*at).saturating_add(u64::from(within)),
                    None => start.saturating_add(block),
                };
                Ok((at.saturating_mul(self.block), u64::from(packet.saturating_sub(within))))
            }
            Map::Metadata(extents) => {
                let found = extents.at(block.saturating_mul(self.block)).ok_or_else(outside)?;
                let Some((within, below)) = found.place else { return Err(outside()) };
                // A metadata file lies in a partition that is none.
                let skipped =
                    within.checked_div(self.block).and_then(|blocks| u32::try_from(blocks).ok()).unwrap_or(u32::MAX);
                let (at, follow) = self.locate(below.further(skipped))?;
                Ok((at, follow.min(found.left.checked_div(self.block).unwrap_or(0))))
            }
        }
    }

    /// The root directory.
    pub(super) fn root(&self, pages: &Pages) -> Result<Place> {
        let set = tag::expect(pages, self.locate(self.files)?.0, size(self.block), self.files.block, tag::FILE_SET)?;
        Ok(Place::long(&set, 400))
    }

    /// Bytes from the start of the volume to the end of the last partition.
    pub(super) fn end(&self) -> u64 {
        let ends = self.maps.iter().map(|map| match map {
            Map::Plain { start, len } | Map::Sparable { start, len, .. } => start.saturating_add(*len),
            Map::Metadata(_) => 0,
        });
        ends.max().unwrap_or(0).saturating_mul(self.block)
    }

    /// What the last descriptor of the volume's integrity says.
    pub(super) fn state(&self, pages: &Pages) -> State {
        let (mut at, mut len) = self.integrity;
        let mut last = None;
        for _ in 0..SEQUENCES {
            let found = last.clone();
            for sector in 0..(u64::from(len).checked_div(self.block).unwrap_or(0)).min(u64::from(SEQUENCE)) {
                let location = at.saturating_add(u32::try_from(sector).unwrap_or(0));
                let place = u64::from(location).saturating_mul(self.block);
                match tag::expect(pages, place, size(self.block), location, tag::INTEGRITY) {
                    Ok(bytes) => last = Some(bytes),
                    Err(_) => break,
                }
            }
            match &last {
                Some(bytes) if last != found && le32(bytes, 32) != 0 => (len, at) = (le32(bytes, 32), le32(bytes, 36)),
                _ => break,
            }
        }
        let Some(bytes) = last else { return State::default() };
        let count = size(u64::from(le32(&bytes, 72).min(limits::MAX_UDF_PARTITIONS)));
        let table = bytes.get(80..).unwrap_or_default().chunks_exact(4).take(count);
        let free = table.map(|count| le32(count, 0)).filter(|count| *count != u32::MAX);
        let blocks = free.map(u64::from).fold(0, u64::saturating_add);
        State { open: le32(&bytes, 28) != 1, free: Some(blocks.saturating_mul(self.block)) }
    }
}

/// The bytes of a sector and the anchor volume descriptor pointer, which is in two or three of a few places.
fn anchor(pages: &Pages) -> Result<(u64, Vec<u8>)> {
    for sector in SECTORS {
        let count = pages.volume_len().checked_div(sector).unwrap_or(0);
        let last = count.saturating_sub(1);
        for block in [256, last, last.saturating_sub(256), 512] {
            let Ok(location) = u32::try_from(block) else { continue };
            let place = block.saturating_mul(sector);
            if block == 0 || place.saturating_add(sector) > pages.volume_len() {
                continue;
            }
            match tag::expect(pages, place, 512, location, tag::ANCHOR) {
                Ok(bytes) => return Ok((sector, bytes)),
                Err(error) if error.kind() != crate::error::Kind::Corrupt => return Err(error),
                Err(_) => {}
            }
        }
    }
    Err(corrupt("there is no anchor volume descriptor"))
}

/// The descriptors of a sequence of `len` bytes that begins at sector `at`.
fn sequence(pages: &Pages, sector: u64, mut at: u32, mut len: u32) -> Result<Found> {
    let mut found = Found::default();
    for _ in 0..SEQUENCES {
        let mut next = None;
        for number in 0..(u64::from(len).checked_div(sector).unwrap_or(0)).min(u64::from(SEQUENCE)) {
            let location = at.saturating_add(u32::try_from(number).unwrap_or(0));
            let place = u64::from(location).saturating_mul(sector);
            // What was never written ends a sequence too.
            let Ok((kind, bytes)) = tag::read(pages, place, size(sector), location) else { break };
            match kind {
                tag::PRIMARY => newer(&mut found.primary, bytes),
                tag::LOGICAL => newer(&mut found.logical, bytes),
                tag::POINTER => newer(&mut next, bytes),
                tag::PARTITION if found.partitions.len() < size(u64::from(limits::MAX_UDF_PARTITIONS)) => {
                    let mut slot = found.partitions.remove(&le16(&bytes, 22));
                    newer(&mut slot, bytes);
                    found.partitions.extend(slot.map(|bytes| (le16(&bytes, 22), bytes)));
                }
                tag::TERMINATING => break,
                _ => {}
            }
        }
        let Some(pointer) = next else { return Ok(found) };
        (len, at) = (le32(&pointer, 20), le32(&pointer, 24));
    }
    Err(Error::limit("udf.limit", "the descriptors of the volume go on and on"))
}

/// Takes `bytes` for `slot`, unless there is a descriptor with a higher number.
fn newer(slot: &mut Option<Vec<u8>>, bytes: Vec<u8>) {
    let number = |bytes: &[u8]| u32::from_le_bytes(array(bytes, 16));
    if slot.as_ref().is_none_or(|known| number(known) <= number(&bytes)) {
        *slot = Some(bytes);
    }
}

impl Udf {
    /// Fills `buf` from byte `within` of the blocks that begin at `place`.
    pub(super) fn read_blocks(&self, place: Place, mut within: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0_usize;
        while done < buf.len() {
            let blocks = within.checked_div(self.volume.block).and_then(|blocks| u32::try_from(blocks).ok());
            let (at, follow) = self.volume.locate(place.further(blocks.unwrap_or(u32::MAX)))?;
            let skipped = within.checked_rem(self.volume.block).unwrap_or(0);
            let room = follow.saturating_mul(self.volume.block).saturating_sub(skipped);
            let end = done.saturating_add(size(room)).min(buf.len());
            if end == done {
                return Err(corrupt("an address lies outside of its partition").found(place.block));
            }
            self.pages.content(buf.get_mut(done..end).unwrap_or_default(), at.saturating_add(skipped))?;
            within = within.saturating_add(long(end.saturating_sub(done)));
            done = end;
        }
        Ok(())
    }
}
