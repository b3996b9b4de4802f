//! New block groups where those of one kind are full and devices have room that no chunk takes: a chunk, its part of each device,
//! and its group, in all the trees that tell of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::super::chunk::{self, Chunk, STRIPE, STRIPE_LEN, Stripe};
use super::super::features::COMPAT_RO_BLOCK_GROUP_TREE;
use super::super::free::RESERVED;
use super::super::key::{self, Key, id, kind};
use super::super::superblock::SYS_CHUNKS_LEN;
use super::super::{Core, corrupt};
use super::Undo;
use super::build::encode;
use super::space::barred_bytes;
use crate::disk::bytes::{array, le64, long, put, put32, size};
use crate::disk::ranges::RangeSet;
use crate::error::Result;
use crate::limits;

/// Stripes are at least this long. The kernel makes shorter ones, of which nobody has any use.
const LEAST: u64 = 1 << 20;
/// The longest stripes and chunks of each kind, as in the kernel.
const DATA: (u64, u64) = (1 << 30, 10 << 30);
const METADATA: (u64, u64) = (256 << 20, 256 << 20);
const LARGE_METADATA: (u64, u64) = (1 << 30, 1 << 30);
const SYSTEM: (u64, u64) = (32 << 20, 64 << 20);
/// File systems of more bytes have [`LARGE_METADATA`].
const LARGE: u64 = 50 << 30;

/// What no chunk takes of each device, with the device's UUID.
#[derive(Clone, Debug)]
pub(super) struct Rooms(BTreeMap<u64, ([u8; 16], RangeSet)>);

impl Rooms {
    fn take(&mut self, chunk: &Chunk) {
        for stripe in &chunk.stripes {
            if let Some((_, room)) = self.0.get_mut(&stripe.devid) {
                room.remove(stripe.offset..stripe.offset.saturating_add(chunk.stripe_len()));
            }
        }
    }

    /// The longest free range of each device, the longest of all first.
    fn longest(&self, each: usize) -> Vec<Hole> {
        let hole = |(devid, (uuid, room)): (&u64, &([u8; 16], RangeSet))| {
            let ranges = room.iter().filter_map(|range| {
                let start = range.start.checked_next_multiple_of(STRIPE_LEN)?;
                Some((range.end.checked_sub(start)?.checked_div(long(each))?, start))
            });
            let (len, offset) = ranges.max_by_key(|(len, start)| (*len, std::cmp::Reverse(*start)))?;
            (len >= LEAST).then_some(Hole { devid: *devid, uuid: *uuid, offset, len })
        };
        let mut holes: Vec<Hole> = self.0.iter().filter_map(hole).collect();
        holes.sort_by_key(|hole| (std::cmp::Reverse(hole.len), hole.devid));
        holes
    }
}

/// Room on a device for stripes that are `len` bytes long.
struct Hole {
    devid: u64,
    uuid: [u8; 16],
    offset: u64,
    len: u64,
}

/// How long stripes and chunks may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    /// As long as the kernel makes them.
    Usual,
    /// Longer ones, to see in few steps how much there is room for.
    Wide,
}

impl Core {
    /// Adds a block group of `kind`. Whether there was room for one.
    pub(in super::super) fn grow(&mut self, kind: u64) -> Result<bool> {
        let rooms = self.rooms()?;
        match self.next_chunk(&rooms, kind, Bound::Usual) {
            Some(chunk) => self.add_chunk(&chunk),
            None => Ok(false),
        }
    }

    /// The same for data, unless metadata needs the room.
    pub(super) fn grow_data(&mut self) -> Result<bool> {
        let mut rooms = self.rooms()?;
        let Some(chunk) = self.next_chunk(&rooms, chunk::DATA, Bound::Usual) else { return Ok(false) };
        rooms.take(&chunk);
        let needed = self.metadata_needed(0, 0).saturating_mul(2).saturating_add(self.reserve_of_nodes());
        if chunk.flags & chunk::METADATA == 0 && self.metadata_in(&rooms) < needed {
            return Ok(false);
        }
        self.add_chunk(&chunk)
    }

    /// Bytes for metadata that there are now or would be in new groups.
    pub(super) fn metadata_left(&self) -> Result<u64> {
        Ok(self.metadata_in(&self.rooms()?))
    }

    fn metadata_in(&self, rooms: &Rooms) -> u64 {
        let unused = self.writing.space.unused(chunk::METADATA);
        unused.saturating_add(self.growth(&mut rooms.clone(), chunk::METADATA, u64::MAX))
    }

    /// Bytes of new groups of `kind` for which there is room, until it is `enough`.
    fn growth(&self, rooms: &mut Rooms, kind: u64, enough: u64) -> u64 {
        let mut sum = 0_u64;
        while sum < enough
            && let Some(chunk) = self.next_chunk(rooms, kind, Bound::Wide)
        {
            rooms.take(&chunk);
            sum = sum.saturating_add(chunk.len.saturating_sub(barred_bytes(&chunk)));
        }
        sum
    }

    /// Bytes that the content of files can still take, with the metadata that it brings.
    pub(in super::super) fn available(&self) -> Result<u64> {
        let rooms = self.rooms()?;
        let unused = self.writing.space.unused(chunk::DATA);
        let (mut low, mut high) = (0, unused.saturating_add(self.growth(&mut rooms.clone(), chunk::DATA, u64::MAX)));
        let sector = u64::from(self.store.sb.sectorsize);
        while high.saturating_sub(low) >= sector {
            let middle = low.midpoint(high).saturating_add(1);
            if self.has_room_for(middle, &rooms) {
                low = middle;
            } else {
                high = middle.saturating_sub(1);
            }
        }
        Ok(low.saturating_sub(low.checked_rem(sector).unwrap_or(0)))
    }

    /// Whether so many bytes of content have a place, and what they bring.
    fn has_room_for(&self, content: u64, rooms: &Rooms) -> bool {
        let sb = &self.store.sb;
        let sectors = content.checked_div(u64::from(sb.sectorsize)).unwrap_or(0);
        let sums = sectors.saturating_mul(long(sb.checksum.len()));
        // An item of the file and one of checksums for each extent; those are seldom shorter than this, nor an item of checksums.
        let extents = (content / (1 << 20)).saturating_add(1);
        let items = extents.saturating_mul(2).saturating_add(sums / (1 << 12));
        let bytes = sums.saturating_add(items.saturating_mul(long(limits::BTRFS_LOG_ITEM)));
        let needed = self.metadata_needed(size(items), size(bytes)).saturating_mul(2);
        let needed = needed.saturating_add(self.reserve_of_nodes());
        let (unused, mut rooms) = (self.writing.space.unused(chunk::DATA), rooms.clone());
        if self.is_mixed() {
            let all = content.saturating_add(needed);
            return unused.saturating_add(self.growth(&mut rooms, chunk::DATA, all)) >= all;
        }
        let more = content.saturating_sub(unused);
        self.growth(&mut rooms, chunk::DATA, more) >= more && self.metadata_in(&rooms) >= needed
    }

    pub(super) fn is_mixed(&self) -> bool {
        const MIXED: u64 = chunk::DATA | chunk::METADATA;
        self.writing.space.0.values().any(|group| group.flags & MIXED == MIXED)
    }

    /// What no chunk takes of the devices, if the trees of chunks and devices agree on that.
    fn rooms(&self) -> Result<Rooms> {
        let mut rooms = BTreeMap::new();
        let mut found = Vec::new();
        for device in self.store.devices.iter() {
            let len = self.device_lens.get(&device.devid).copied();
            let len = len.ok_or_else(|| corrupt(format!("there is no item of device {}", device.devid)))?;
            let mut room = RangeSet::default();
            room.insert(RESERVED..len.min(device.disk.len()).max(RESERVED));
            rooms.insert(device.devid, (device.uuid, room));
            let tree = self.tree(id::DEV_TREE)?;
            self.store.scan_kind(tree, (device.devid, kind::DEV_EXTENT, 0), &mut |offset, item| {
                found.push((device.devid, offset, le64(item, 24), le64(item, 16)));
                let is_fine = found.len() <= limits::MAX_BTRFS_CHUNKS.saturating_mul(64);
                Ok(if is_fine { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        let mut rooms = Rooms(rooms);
        let mut expected = Vec::new();
        for chunk in self.store.chunks.iter() {
            let extents = chunk.stripes.iter();
            expected.extend(extents.map(|stripe| (stripe.devid, stripe.offset, chunk.stripe_len(), chunk.start)));
            rooms.take(chunk);
        }
        found.sort_unstable();
        expected.sort_unstable();
        if found == expected {
            Ok(rooms)
        } else {
            Err(corrupt("the trees of chunks and devices contradict each other"))
        }
    }

    /// The chunk of `kind` that the kernel would make next, or one that is longer.
    fn next_chunk(&self, rooms: &Rooms, kind: u64, bound: Bound) -> Option<Chunk> {
        let like = self.store.chunks.iter().filter(|chunk| chunk.flags & kind != 0);
        let like = like.max_by_key(|chunk| (chunk.profile.rank(), std::cmp::Reverse(chunk.stripes.len())))?;
        let (flags, profile) = (like.flags, like.profile);
        let shape = profile.shape()?;
        let holes = rooms.longest(shape.each);
        let count = holes.len().saturating_mul(shape.each).min(shape.most).min(self.most_stripes(kind));
        let count = count.saturating_sub(count.checked_rem(shape.step)?);
        // There may be fewer stripes than usual where that is so already.
        if count < shape.least.min(like.stripes.len()) || count == 0 {
            return None;
        }
        let taken = holes.get(..count.checked_div(shape.each)?)?;
        let mut chunk = Chunk { start: self.next_start()?, len: 0, flags, profile, stripes: Vec::new() };
        chunk.stripes = taken.iter().flat_map(|hole| (0..shape.each).map(move |_| hole.stripe())).collect();
        let data = chunk.data_stripes();
        let (stripe, whole) = self.longest_stripe(flags, bound);
        let stripe = stripe.min(whole.checked_div(data)?).max(LEAST).min(taken.last()?.len);
        let stripe = stripe.saturating_sub(stripe.checked_rem(STRIPE_LEN)?);
        chunk.len = stripe.checked_mul(data)?;
        for (index, place) in chunk.stripes.iter_mut().enumerate() {
            let before = long(index.checked_rem(shape.each)?).checked_mul(stripe)?;
            place.offset = place.offset.checked_add(before)?;
        }
        chunk.start.checked_add(chunk.len)?;
        Some(chunk)
    }

    /// How long a stripe and a chunk of this kind may be.
    fn longest_stripe(&self, flags: u64, bound: Bound) -> (u64, u64) {
        let all: u64 = self.device_lens.values().copied().fold(0, u64::saturating_add);
        let (stripe, whole) = match flags {
            flags if flags & chunk::DATA != 0 => DATA,
            flags if flags & chunk::SYSTEM != 0 => SYSTEM,
            _ if all > LARGE => LARGE_METADATA,
            _ => METADATA,
        };
        match bound {
            Bound::Usual => (stripe, whole.min(all / 10)),
            Bound::Wide => (stripe.max(all / 64), u64::MAX),
        }
    }

    /// How many stripes an item has room for, and for a chunk that is needed to read the others the superblock.
    fn most_stripes(&self, kind: u64) -> usize {
        let item = self.max_item().unwrap_or(0);
        let left = SYS_CHUNKS_LEN.saturating_sub(self.store.sb.sys_chunks.len()).saturating_sub(key::LEN);
        let room = if kind & chunk::SYSTEM != 0 { item.min(left) } else { item };
        room.saturating_sub(chunk::HEAD) / STRIPE
    }

    /// Where the next chunk starts: chunks do not take the place of earlier ones.
    fn next_start(&self) -> Option<u64> {
        let is_room = self.store.chunks.len() < limits::MAX_BTRFS_CHUNKS;
        is_room.then(|| self.store.chunks.end().checked_next_multiple_of(STRIPE_LEN)).flatten()
    }

    fn add_chunk(&mut self, chunk: &Chunk) -> Result<bool> {
        self.writing.undo.push(Undo::Chunk { start: chunk.start, sys_len: self.store.sb.sys_chunks.len() });
        self.store.chunks.insert(chunk.clone())?;
        self.writing.space.insert_new(chunk);
        let item = chunk.encode(self.store.sb.sectorsize);
        let place = Key::new(id::FIRST_FREE, kind::CHUNK_ITEM, chunk.start);
        if chunk.flags & chunk::SYSTEM != 0 {
            self.store.sb.sys_chunks.extend(encode(place));
            self.store.sb.sys_chunks.extend(&item);
        }
        self.set(id::CHUNK_TREE, place, Some(item))?;
        chunk.stripes.iter().try_for_each(|stripe| self.add_dev_extent(chunk, stripe))?;
        let mut group = vec![0; 24];
        put(&mut group, 8, &id::FIRST_FREE.to_le_bytes());
        put(&mut group, 16, &chunk.flags.to_le_bytes());
        let has_own = self.store.sb.compat_ro & COMPAT_RO_BLOCK_GROUP_TREE != 0;
        let tree = if has_own { id::BLOCK_GROUP_TREE } else { id::EXTENT_TREE };
        self.set(tree, Key::new(chunk.start, kind::BLOCK_GROUP_ITEM, chunk.len), Some(group))?;
        if self.has_free_tree() {
            let mut info = vec![0; 8];
            put32(&mut info, 0, 1);
            self.set(id::FREE_SPACE_TREE, Key::new(chunk.start, kind::FREE_SPACE_INFO, chunk.len), Some(info))?;
            let extent = Key::new(chunk.start, kind::FREE_SPACE_EXTENT, chunk.len);
            self.set(id::FREE_SPACE_TREE, extent, Some(Vec::new()))?;
        }
        Ok(true)
    }

    /// Says what a device has of a chunk, and how much of it is in use now.
    fn add_dev_extent(&mut self, chunk: &Chunk, stripe: &Stripe) -> Result<()> {
        let mut extent = vec![0; 48];
        let values = [id::CHUNK_TREE, id::FIRST_FREE, chunk.start, chunk.stripe_len()];
        let bytes: Vec<u8> = values.into_iter().flat_map(u64::to_le_bytes).collect();
        put(&mut extent, 0, &bytes);
        put(&mut extent, 32, &self.writing.mold()?.chunk_tree_uuid);
        self.set(id::DEV_TREE, Key::new(stripe.devid, kind::DEV_EXTENT, stripe.offset), Some(extent))?;
        let key = Key::new(id::DEV_ITEMS, kind::DEV_ITEM, stripe.devid);
        let item = self.store.get(self.tree(id::CHUNK_TREE)?, key)?;
        let item = item.filter(|item| item.len() >= 98 && array::<16>(item, 66) == stripe.uuid);
        let mut item = item.ok_or_else(|| corrupt(format!("the item of device {} is damaged", stripe.devid)))?;
        let used = le64(&item, 16).saturating_add(chunk.stripe_len());
        put(&mut item, 16, &used.to_le_bytes());
        self.set(id::CHUNK_TREE, key, Some(item))
    }

    /// Bytes of each device that chunks take.
    pub(super) fn device_use(&self) -> BTreeMap<u64, u64> {
        let mut used: BTreeMap<u64, u64> = BTreeMap::new();
        for chunk in self.store.chunks.iter() {
            for stripe in &chunk.stripes {
                let bytes = used.entry(stripe.devid).or_default();
                *bytes = bytes.saturating_add(chunk.stripe_len());
            }
        }
        used
    }
}

impl Hole {
    const fn stripe(&self) -> Stripe {
        Stripe { devid: self.devid, offset: self.offset, uuid: self.uuid }
    }
}
