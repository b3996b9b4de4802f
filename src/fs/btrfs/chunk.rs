//! Chunks: which bytes of which devices hold a range of the logical address space (`btrfs_chunk`).

use std::collections::BTreeMap;
use std::ops::Range;

use super::corrupt;
use super::key::{self, Key, id, kind};
use crate::disk::bytes::{array, le16, le64, long, put, put16, put32};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes of a chunk item before its stripes, and of each stripe.
pub(super) const HEAD: usize = 48;
pub(super) const STRIPE: usize = 32;
/// Bytes that lie together on one device (`BTRFS_STRIPE_LEN`).
pub(super) const STRIPE_LEN: u64 = 64 << 10;

pub(super) const DATA: u64 = 1;
pub(super) const SYSTEM: u64 = 1 << 1;
pub(super) const METADATA: u64 = 1 << 2;
pub(super) const TYPES: u64 = DATA | SYSTEM | METADATA;
/// Profiles that the driver knows; none of them set is `single`.
const PROFILES: u64 = 0xff << 3;

/// How a chunk spreads over devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Dup,
    Raid0,
    Raid1,
    Raid10,
    Raid1C3,
    Raid1C4,
    Raid5,
    Raid6,
    Single,
}

impl Profile {
    const fn new(bits: u64) -> Option<Self> {
        Some(match bits & PROFILES {
            0 => Self::Single,
            0x8 => Self::Raid0,
            0x10 => Self::Raid1,
            0x20 => Self::Dup,
            0x40 => Self::Raid10,
            0x80 => Self::Raid5,
            0x100 => Self::Raid6,
            0x200 => Self::Raid1C3,
            0x400 => Self::Raid1C4,
            _ => return None,
        })
    }

    /// As `btrfs filesystem df` writes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dup => "DUP",
            Self::Raid0 => "RAID0",
            Self::Raid1 => "RAID1",
            Self::Raid10 => "RAID10",
            Self::Raid1C3 => "RAID1C3",
            Self::Raid1C4 => "RAID1C4",
            Self::Raid5 => "RAID5",
            Self::Raid6 => "RAID6",
            Self::Single => "single",
        }
    }

    /// Stripes that a new chunk has at least and at most, the step from one possible number to the next, and how many of them lie on
    /// one device. Nothing for what is not written.
    pub(super) const fn shape(self) -> Option<Shape> {
        let (least, most, step, each) = match self {
            Self::Single => (1, 1, 1, 1),
            Self::Dup => (2, 2, 2, 2),
            Self::Raid1 => (2, 2, 2, 1),
            Self::Raid1C3 => (3, 3, 3, 1),
            Self::Raid1C4 => (4, 4, 4, 1),
            Self::Raid0 => (2, usize::MAX, 1, 1),
            Self::Raid10 => (4, usize::MAX, 2, 1),
            Self::Raid5 | Self::Raid6 => return None,
        };
        Some(Shape { least, most, step, each })
    }

    /// Of several profiles for one kind of content, new chunks get the one that the kernel takes: the highest.
    pub(super) const fn rank(self) -> u8 {
        match self {
            Self::Single => 0,
            Self::Raid0 => 1,
            Self::Dup => 2,
            Self::Raid1 => 3,
            Self::Raid10 => 4,
            Self::Raid5 => 5,
            Self::Raid1C3 => 6,
            Self::Raid6 => 7,
            Self::Raid1C4 => 8,
        }
    }

    /// Stripes of parity.
    const fn parity(self) -> u64 {
        match self {
            Self::Raid5 => 1,
            Self::Raid6 => 2,
            _ => 0,
        }
    }

    /// Whether a chunk may have so many stripes.
    const fn allows(self, stripes: usize) -> bool {
        match self {
            Self::Single => stripes == 1,
            Self::Dup | Self::Raid1 => stripes == 2,
            Self::Raid1C3 => stripes == 3,
            Self::Raid1C4 => stripes == 4,
            Self::Raid0 => stripes >= 1,
            Self::Raid10 => stripes >= 2 && stripes.is_multiple_of(2),
            Self::Raid5 => stripes >= 2,
            Self::Raid6 => stripes >= 3,
        }
    }
}

/// How many stripes a new chunk may have; see [`Profile::shape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) step: usize,
    pub(super) each: usize,
}

/// A range of logical addresses and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) len: u64,
    /// [`DATA`], [`METADATA`], [`SYSTEM`] and the profile's bit.
    pub(super) flags: u64,
    pub(super) profile: Profile,
    pub(super) stripes: Vec<Stripe>,
}

/// A chunk's part on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stripe {
    pub(super) devid: u64,
    pub(super) offset: u64,
    pub(super) uuid: [u8; 16],
}

/// Bytes that lie together on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) stripe: Stripe,
    pub(super) physical: u64,
    pub(super) len: u64,
}

impl Chunk {
    /// Checks the item of the chunk at logical address `start`; as many bytes as it has stripes may follow.
    pub(super) fn parse(start: u64, bytes: &[u8], sectorsize: u32) -> Result<(Self, usize)> {
        let bad = |what: &str| Error::corrupt("btrfs.chunk", what.to_owned()).offset(start);
        let (len, flags) = (le64(bytes, 0), le64(bytes, 24));
        let count = usize::from(le16(bytes, 44));
        let used = HEAD.saturating_add(count.saturating_mul(STRIPE));
        let list = bytes.get(HEAD..used).ok_or_else(|| bad("a chunk that is cut off"))?;
        let profile = Profile::new(flags).ok_or_else(|| bad("a chunk of several profiles"))?;
        let sector = u64::from(sectorsize);
        let aligned = [start, len].iter().all(|value| value.checked_rem(sector) == Some(0));
        if len == 0 || !aligned || start.checked_add(len).is_none() || le64(bytes, 16) != STRIPE_LEN {
            return Err(bad("a chunk at an impossible place"));
        }
        if flags & TYPES == 0 || flags & !(TYPES | PROFILES) != 0 || !profile.allows(count) {
            return Err(bad("a chunk of an unknown kind").found(format!("{flags:#x} with {count} stripes")));
        }
        if profile == Profile::Raid10 && le16(bytes, 46) != 2 {
            return Err(bad("a RAID10 chunk whose halves are not two"));
        }
        let stripes = list.chunks_exact(STRIPE).map(|bytes| Stripe {
            devid: le64(bytes, 0),
            offset: le64(bytes, 8),
            uuid: array(bytes, 16),
        });
        let chunk = Self { start, len, flags, profile, stripes: stripes.collect() };
        if chunk.stripes.iter().any(|stripe| stripe.offset.checked_add(chunk.stripe_len()).is_none()) {
            return Err(bad("a chunk that lies outside of its devices"));
        }
        Ok((chunk, used))
    }

    /// Its item, as the kernel makes it.
    pub(super) fn encode(&self, sectorsize: u32) -> Vec<u8> {
        let mut item = vec![0; HEAD];
        for (at, value) in [(0, self.len), (8, id::EXTENT_TREE), (16, STRIPE_LEN), (24, self.flags)] {
            put(&mut item, at, &value.to_le_bytes());
        }
        let align = u32::try_from(STRIPE_LEN).unwrap_or(0);
        for (at, value) in [(32, align), (36, align), (40, sectorsize)] {
            put32(&mut item, at, value);
        }
        put16(&mut item, 44, u16::try_from(self.stripes.len()).unwrap_or(u16::MAX));
        put16(&mut item, 46, if self.profile == Profile::Raid10 { 2 } else { 1 });
        for stripe in &self.stripes {
            item.extend(stripe.devid.to_le_bytes());
            item.extend(stripe.offset.to_le_bytes());
            item.extend(stripe.uuid);
        }
        item
    }

    /// Copies that there are of everything.
    pub(super) fn copies(&self) -> usize {
        match self.profile {
            Profile::Raid0 | Profile::Single => 1,
            Profile::Raid10 => 2,
            // The second one is what the others and the parity tell.
            Profile::Raid5 | Profile::Raid6 => 2,
            _ => self.stripes.len(),
        }
    }

    /// Whether a copy that is lost can be told from the others.
    pub(super) const fn has_parity(&self) -> bool {
        self.profile.parity() != 0
    }

    /// Bytes of a device for each logical byte, as a fraction.
    pub(super) fn factor(&self) -> (u64, u64) {
        match self.profile {
            Profile::Raid5 | Profile::Raid6 => (long(self.stripes.len()), self.data_stripes()),
            _ => (long(self.copies()), 1),
        }
    }

    /// Stripes whose bytes differ.
    pub(super) fn data_stripes(&self) -> u64 {
        let count = long(self.stripes.len());
        match self.profile {
            Profile::Raid0 => count,
            Profile::Raid10 => count / 2,
            Profile::Raid5 | Profile::Raid6 => count.saturating_sub(self.profile.parity()).max(1),
            _ => 1,
        }
    }

    /// Bytes that the chunk has on each device.
    pub(super) fn stripe_len(&self) -> u64 {
        self.len.checked_div(self.data_stripes()).unwrap_or(self.len)
    }

    pub(super) fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }

    /// Where copy `copy` of the byte at `logical`, which is in the chunk, lies, and how many follow it there.
    pub(super) fn place(&self, logical: u64, copy: usize) -> Option<Piece> {
        let offset = logical.checked_sub(self.start)?;
        let left = self.len.checked_sub(offset)?;
        let data = self.data_stripes();
        let (index, physical, len) = match self.profile {
            Profile::Raid0 | Profile::Raid10 | Profile::Raid5 | Profile::Raid6 => {
                let (number, within) = (offset / STRIPE_LEN, offset % STRIPE_LEN);
                let (row, column) = (number.checked_div(data)?, number.checked_rem(data)?);
                let index = match self.profile {
                    Profile::Raid0 => column,
                    Profile::Raid10 => column.checked_mul(2)?.checked_add(long(copy))?,
                    _ => row.checked_add(column)?.checked_rem(long(self.stripes.len()))?,
                };
                (index, row.checked_mul(STRIPE_LEN)?.checked_add(within)?, STRIPE_LEN.checked_sub(within)?)
            }
            _ => (long(copy), offset, left),
        };
        let stripe = *self.stripes.get(usize::try_from(index).ok()?)?;
        Some(Piece { stripe, physical: stripe.offset.checked_add(physical)?, len: len.min(left) })
    }

    /// For a byte of RAID5 or 6: where the bytes lie whose exclusive or it is.
    pub(super) fn parity_of(&self, logical: u64) -> Option<Vec<Piece>> {
        let offset = logical.checked_sub(self.start)?;
        let (number, within) = (offset / STRIPE_LEN, offset % STRIPE_LEN);
        let (data, all) = (self.data_stripes(), long(self.stripes.len()));
        let (row, column) = (number.checked_div(data)?, number.checked_rem(data)?);
        let physical = row.checked_mul(STRIPE_LEN)?.checked_add(within)?;
        let len = STRIPE_LEN.checked_sub(within)?;
        // The columns of a row are its data and the first parity, wherever they lie.
        let others = (0..=data).filter(|other| *other != column);
        let piece = |other: u64| {
            let stripe = *self.stripes.get(usize::try_from(row.checked_add(other)?.checked_rem(all)?).ok()?)?;
            Some(Piece { stripe, physical: stripe.offset.checked_add(physical)?, len })
        };
        others.map(piece).collect()
    }
}

/// All chunks.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks(BTreeMap<u64, Chunk>);

impl Chunks {
    /// The chunks that the superblock carries itself: those of the chunk tree.
    pub(super) fn of_superblock(bytes: &[u8], sectorsize: u32) -> Result<Self> {
        let mut chunks = Self::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let key = Key::read(rest, 0);
            let body = rest.get(key::LEN..).unwrap_or_default();
            if !key.is(id::FIRST_FREE, kind::CHUNK_ITEM) {
                return Err(Error::corrupt("btrfs.chunk", "the superblock's list of chunks is damaged"));
            }
            let (chunk, used) = Chunk::parse(key.offset, body, sectorsize)?;
            chunks.insert(chunk)?;
            rest = body.get(used..).unwrap_or_default();
        }
        Ok(chunks)
    }

    /// Adds a chunk, which may be there already, but with nothing else.
    pub(super) fn insert(&mut self, chunk: Chunk) -> Result<()> {
        if let Some(other) = self.0.range(..chunk.end()).next_back().map(|(_, other)| other)
            && other.end() > chunk.start
        {
            if *other == chunk {
                return Ok(());
            }
            return Err(Error::corrupt("btrfs.chunk", "two chunks overlap").offset(chunk.start));
        }
        if self.0.len() >= limits::MAX_BTRFS_CHUNKS {
            return Err(Error::limit("btrfs.limit", "a file system with too many chunks")
                .expected(format!("at most {}", limits::MAX_BTRFS_CHUNKS)));
        }
        self.0.insert(chunk.start, chunk);
        Ok(())
    }

    /// Takes a chunk away, which nothing is in.
    pub(super) fn remove(&mut self, start: u64) {
        self.0.remove(&start);
    }

    /// Where the last chunk ends.
    pub(super) fn end(&self) -> u64 {
        self.0.values().next_back().map_or(0, Chunk::end)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The chunk that holds the byte at `logical`.
    pub(super) fn at(&self, logical: u64) -> Result<&Chunk> {
        let found = self.0.range(..=logical).next_back().map(|(_, chunk)| chunk);
        found
            .filter(|chunk| logical < chunk.end())
            .ok_or_else(|| corrupt("an address that no chunk holds").offset(logical))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Chunk> {
        self.0.values()
    }

    /// Copies that there are of all bytes of `range`.
    pub(super) fn copies(&self, range: Range<u64>) -> Result<usize> {
        let mut at = range.start;
        let mut copies = usize::MAX;
        while at < range.end {
            let chunk = self.at(at)?;
            copies = copies.min(chunk.copies());
            at = chunk.end();
        }
        Ok(copies)
    }
}

/// A device as the chunk tree describes it (`btrfs_dev_item`).
#[derive(Clone, Copy, Debug)]
pub(super) struct DevItem {
    pub(super) devid: u64,
    pub(super) total_bytes: u64,
}

impl DevItem {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        Self { devid: le64(bytes, 0), total_bytes: le64(bytes, 8) }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "tests build their input")]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn item(len: u64, flags: u64, stripes: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD + stripes.len() * STRIPE];
        put(&mut bytes, 0, &len.to_le_bytes());
        put(&mut bytes, 16, &STRIPE_LEN.to_le_bytes());
        put(&mut bytes, 24, &flags.to_le_bytes());
        put16(&mut bytes, 44, u16::try_from(stripes.len()).unwrap());
        put16(&mut bytes, 46, if flags & 0x40 == 0 { 1 } else { 2 });
        for (index, (devid, offset)) in stripes.iter().enumerate() {
            put(&mut bytes, HEAD + index * STRIPE, &devid.to_le_bytes());
            put(&mut bytes, HEAD + index * STRIPE + 8, &offset.to_le_bytes());
        }
        bytes
    }

    fn chunk(len: u64, flags: u64, stripes: &[(u64, u64)]) -> Chunk {
        Chunk::parse(16 * MIB, &item(len, flags, stripes), 4096).unwrap().0
    }

    fn code(start: u64, bytes: &[u8]) -> &'static str {
        Chunk::parse(start, bytes, 4096).map_or_else(|error| error.code(), |_| "none")
    }

    #[test]
    fn every_byte_has_a_place_in_every_profile() {
        let four = [(1, MIB), (2, 2 * MIB), (3, 3 * MIB), (4, 4 * MIB)];
        for (flags, stripes, copies, data) in [
            (DATA, 1, 1, 1),
            (DATA | 0x8, 4, 1, 4),
            (DATA | 0x8, 1, 1, 1),
            (DATA | 0x10, 2, 2, 1),
            (METADATA | 0x20, 2, 2, 1),
            (DATA | 0x40, 4, 2, 2),
            (DATA | 0x200, 3, 3, 1),
            (DATA | 0x400, 4, 4, 1),
        ] {
            let chunk = chunk(data * MIB, flags, &four[..stripes]);
            assert_eq!((chunk.copies(), chunk.stripe_len()), (copies, MIB));
            let mut seen = std::collections::BTreeSet::new();
            for sector in 0..data * MIB / 4096 {
                for copy in 0..copies {
                    let piece = chunk.place(chunk.start + sector * 4096, copy).unwrap();
                    assert!(piece.len >= 4096 && piece.physical >= piece.stripe.offset);
                    assert!(piece.physical + piece.len <= piece.stripe.offset + MIB);
                    assert!(seen.insert((piece.stripe.devid, piece.physical)), "{flags:x} {sector}");
                }
                assert!(chunk.place(chunk.start + sector * 4096, copies).is_none() || copies == 1 || flags & 0x40 != 0);
            }
            assert!(chunk.place(chunk.start - 1, 0).is_none() && chunk.place(chunk.end() + 1, 0).is_none());
        }
    }

    #[test]
    fn parity_rotates() {
        let three = [(1, 0), (2, 0), (3, 0)];
        let raid5 = chunk(2 * MIB, DATA | 0x80, &three);
        let device = |stripe: u64| raid5.place(raid5.start + stripe * STRIPE_LEN, 0).unwrap().stripe.devid;
        assert_eq!([0, 1, 2, 3, 4, 5].map(device), [1, 2, 2, 3, 3, 1]);
        let others = |stripe: u64| -> Vec<u64> {
            raid5.parity_of(raid5.start + stripe * STRIPE_LEN).unwrap().iter().map(|piece| piece.stripe.devid).collect()
        };
        assert_eq!([others(0), others(1), others(2)], [vec![2, 3], vec![1, 3], vec![3, 1]]);
        let raid6 = chunk(MIB, DATA | 0x100, &three);
        assert_eq!(raid6.parity_of(raid6.start).unwrap().len(), 1);
        assert_eq!(raid6.factor(), (3, 1));
    }

    #[test]
    fn hostile_chunks() {
        let good = item(MIB, DATA, &[(1, MIB)]);
        assert_eq!(code(0, &good), "none");
        for len in 0..good.len() {
            assert_eq!(code(0, &good[..len]), "btrfs.chunk", "{len}");
        }
        for (start, len, flags, stripes) in [
            (1, MIB, DATA, 1),
            (0, 0, DATA, 1),
            (0, MIB + 1, DATA, 1),
            (u64::MAX - 4095, MIB, DATA, 1),
            (0, MIB, 0, 1),
            (0, MIB, 0x18 | DATA, 2),
            (0, MIB, 1 << 20 | DATA, 1),
            (0, MIB, DATA, 0),
            (0, MIB, DATA, 2),
            (0, MIB, DATA | 0x10, 1),
            (0, MIB, DATA | 0x40, 3),
            (0, MIB, DATA | 0x100, 2),
        ] {
            let list = vec![(1, 0); stripes];
            assert_eq!(code(start, &item(len, flags, &list)), "btrfs.chunk", "{start} {len} {flags:x} {stripes}");
        }
        assert_eq!(code(0, &item(MIB, DATA, &[(1, u64::MAX)])), "btrfs.chunk");
        let mut other_stripe_len = good.clone();
        other_stripe_len[18] = 2;
        assert_eq!(code(0, &other_stripe_len), "btrfs.chunk");
        let mut halves = item(MIB, DATA | 0x40, &[(1, 0), (2, 0)]);
        halves[46] = 0;
        assert_eq!(code(0, &halves), "btrfs.chunk");
    }

    #[test]
    fn chunks_neither_overlap_nor_leave_what_is_asked() {
        let mut chunks = Chunks::default();
        chunks.insert(chunk(MIB, DATA, &[(1, 0)])).unwrap();
        chunks.insert(chunk(MIB, DATA, &[(1, 0)])).unwrap();
        assert_eq!(chunks.insert(chunk(MIB, DATA, &[(1, 4096)])).unwrap_err().code(), "btrfs.chunk");
        assert_eq!(chunks.insert(chunk(2 * MIB, DATA, &[(1, 0)])).unwrap_err().code(), "btrfs.chunk");
        assert!(chunks.at(16 * MIB).is_ok() && chunks.at(17 * MIB - 1).is_ok());
        assert!(chunks.at(16 * MIB - 1).is_err() && chunks.at(17 * MIB).is_err());
        assert_eq!(chunks.copies(16 * MIB..17 * MIB).unwrap(), 1);
        assert!(chunks.copies(16 * MIB..17 * MIB + 1).is_err());
    }

    #[test]
    fn as_many_chunks_as_the_limit_and_no_more() {
        let mut chunks = Chunks::default();
        let add = |chunks: &mut Chunks, index: usize| {
            let bytes = item(4096, DATA, &[(1, 0)]);
            chunks.insert(Chunk::parse(long(index) * 4096, &bytes, 4096).unwrap().0)
        };
        for index in 0..limits::MAX_BTRFS_CHUNKS {
            add(&mut chunks, index).unwrap();
        }
        assert_eq!(add(&mut chunks, limits::MAX_BTRFS_CHUNKS).unwrap_err().code(), "btrfs.limit");
    }

    #[test]
    fn a_damaged_list_in_the_superblock() {
        let mut list = vec![0; key::LEN];
        list[..8].copy_from_slice(&256_u64.to_le_bytes());
        list[8] = kind::CHUNK_ITEM;
        list.extend(item(MIB, SYSTEM, &[(1, MIB)]));
        assert_eq!(Chunks::of_superblock(&list, 4096).unwrap().iter().count(), 1);
        for cut in 1..list.len() {
            assert!(Chunks::of_superblock(&list[..cut], 4096).is_err(), "{cut}");
        }
        list[8] = 0;
        assert!(Chunks::of_superblock(&list, 4096).is_err());
    }
}
