//! Space in block groups: what is free, what may be allocated now, and what is free only after the transaction.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};

use super::super::chunk::{self, Chunk, Profile, STRIPE_LEN};
use super::super::free::SUPERBLOCK;
use super::super::key::{Key, id, kind};
use super::super::superblock::OFFSETS;
use super::super::{Core, corrupt, limit};
use super::full;
use crate::disk::ranges::RangeSet;
use crate::error::Result;
use crate::limits;

/// Bytes of one data extent at most (`BTRFS_MAX_EXTENT_SIZE`).
pub(super) const MAX_EXTENT: u64 = 128 << 20;
/// Ranges shorter than this are small pieces.
const SMALL: u64 = 1 << 20;

/// All block groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Space(pub(super) BTreeMap<u64, Group>);

/// A block group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) len: u64,
    pub(super) flags: u64,
    copies: usize,
    /// Bytes that nothing may lie in.
    barred: u64,
    /// Bytes in use, and how many its item says there are.
    pub(super) used: u64,
    pub(super) stored: u64,
    /// What is known of its extents; nothing until something in it changes.
    pub(super) room: Option<Room>,
}

/// The free ranges of a block group.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    /// As the free space tree has them.
    pub(super) stored: RangeSet,
    /// As they will be after the transaction.
    pub(super) free: RangeSet,
    /// Those that nothing on disk needs any more.
    usable: RangeSet,
    /// Where superblocks lie.
    barred: Vec<Range<u64>>,
    is_changed: bool,
}

impl Space {
    pub(super) fn insert(&mut self, chunk: &Chunk, used: u64) {
        let barred = barred_bytes(chunk);
        let (len, flags, copies) = (chunk.len, chunk.flags, chunk.copies());
        self.0.insert(chunk.start, Group { len, flags, copies, barred, used, stored: used, room: None });
    }

    /// Adds the group of a chunk that nothing is in.
    pub(super) fn insert_new(&mut self, chunk: &Chunk) {
        let mut room = Room { barred: barred(chunk), ..Room::default() };
        for set in [&mut room.stored, &mut room.free, &mut room.usable] {
            set.insert(chunk.start..chunk.end());
        }
        room.barred.iter().for_each(|barred| room.usable.remove(barred.clone()));
        self.insert(chunk, 0);
        if let Some(group) = self.0.get_mut(&chunk.start) {
            group.room = Some(room);
        }
    }

    /// The start of the group that holds `bytenr`.
    fn at(&self, bytenr: u64) -> Result<u64> {
        let found = self.0.range(..=bytenr).next_back();
        let found = found.filter(|(start, group)| bytenr.saturating_sub(**start) < group.len);
        found.map(|(start, _)| *start).ok_or_else(|| corrupt("an extent that no block group holds").offset(bytenr))
    }

    fn edit(&mut self, range: &Range<u64>, change: impl FnOnce(&mut Room)) -> Result<&mut Group> {
        let start = self.at(range.start)?;
        let group = self.0.get_mut(&start).filter(|group| range.end <= start.saturating_add(group.len));
        let group = group.ok_or_else(|| corrupt("an extent leaves its block group").offset(range.start))?;
        let room = group.room.get_or_insert_default();
        room.is_changed = true;
        change(room);
        Ok(group)
    }

    /// Marks `range`, whose group is known, as in use.
    pub(super) fn take(&mut self, range: &Range<u64>) -> Result<()> {
        let group = self.edit(range, |room| {
            room.free.remove(range.clone());
            room.usable.remove(range.clone());
        })?;
        group.used = group.used.saturating_add(range.end.saturating_sub(range.start));
        Ok(())
    }

    /// Frees `range`: from the next transaction on, or at once if nothing on disk ever led to it.
    pub(super) fn release(&mut self, range: &Range<u64>, at_once: bool) -> Result<()> {
        let group = self.edit(range, |room| {
            room.free.insert(range.clone());
            if at_once {
                room.usable.insert(range.clone());
            }
            room.barred.iter().for_each(|barred| room.usable.remove(barred.clone()));
        })?;
        group.used = group.used.saturating_sub(range.end.saturating_sub(range.start));
        Ok(())
    }

    /// Keeps `range` as it is on disk until the transaction is stored, although it is free.
    pub(super) fn pin(&mut self, range: &Range<u64>) -> Result<()> {
        self.edit(range, |room| room.usable.remove(range.clone())).map(drop)
    }

    /// What was freed in a transaction that is stored now may be allocated.
    pub(super) fn unpin(&mut self) {
        let rooms = self.0.values_mut().filter_map(|group| group.room.as_mut());
        for room in rooms.filter(|room| room.is_changed) {
            room.is_changed = false;
            room.usable = room.free.clone();
            room.barred.iter().for_each(|barred| room.usable.remove(barred.clone()));
        }
    }

    /// Groups that hold what `kind` says, those of most copies and most room first.
    fn candidates(&self, kind: u64) -> Vec<u64> {
        let mut all: Vec<(u64, &Group)> = self.of(kind).map(|(start, group)| (*start, group)).collect();
        all.sort_by_key(|(start, group)| {
            let free = group.len.saturating_sub(group.used);
            (std::cmp::Reverse(group.copies), std::cmp::Reverse(free), *start)
        });
        all.into_iter().map(|(start, _)| start).collect()
    }

    fn of(&self, kind: u64) -> impl Iterator<Item = (&u64, &Group)> {
        self.0.iter().filter(move |(_, group)| group.flags & kind != 0)
    }

    /// Bytes that can be used and are not, in groups of this kind.
    pub(super) fn unused(&self, kind: u64) -> u64 {
        self.of(kind).map(|(_, group)| group.len.saturating_sub(group.used).saturating_sub(group.barred)).sum()
    }

    /// Bytes in use in groups that hold metadata.
    pub(super) fn metadata_used(&self) -> u64 {
        self.of(chunk::METADATA).map(|(_, group)| group.used).sum()
    }

    /// Bytes in use in all groups.
    pub(super) fn used(&self) -> u64 {
        self.0.values().map(|group| group.used).fold(0, u64::saturating_add)
    }
}

impl Core {
    /// Reads what is free in the group that holds `bytenr`, unless that is known.
    pub(super) fn know(&mut self, bytenr: u64) -> Result<u64> {
        let start = self.writing.space.at(bytenr)?;
        if self.writing.space.0.get(&start).is_some_and(|group| group.room.is_some()) {
            return Ok(start);
        }
        let chunk = self.store.chunks.at(start)?.clone();
        let mut room = self.free_in(&chunk)?;
        room.barred = barred(&chunk);
        room.usable = room.free.clone();
        room.stored = room.free.clone();
        room.barred.iter().for_each(|barred| room.usable.remove(barred.clone()));
        let group = self.writing.space.0.get_mut(&start);
        let group = group.ok_or_else(|| corrupt("a chunk without a block group").offset(start))?;
        let free: u64 = room.free.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        if group.len.saturating_sub(free) != group.used {
            let error = corrupt("a block group does not say what its extents do");
            return Err(error.offset(start).expected(group.used).found(group.len.saturating_sub(free)));
        }
        group.room = Some(room);
        Ok(start)
    }

    /// The gaps between the extents of a chunk.
    fn free_in(&self, chunk: &Chunk) -> Result<Room> {
        let nodesize = u64::from(self.store.sb.nodesize);
        let (mut room, mut next) = (Room::default(), chunk.start);
        self.store.scan(self.tree(id::EXTENT_TREE)?, Key::new(chunk.start, 0, 0), &mut |key, _| {
            if key.objectid >= chunk.end() {
                return Ok(ControlFlow::Break(()));
            }
            let len = match key.kind {
                kind::EXTENT_ITEM => key.offset,
                kind::METADATA_ITEM => nodesize,
                _ => return Ok(ControlFlow::Continue(())),
            };
            let end = key.objectid.checked_add(len).filter(|end| *end <= chunk.end() && key.objectid >= next);
            let end =
                end.ok_or_else(|| corrupt("two extents overlap, or one leaves its chunk").offset(key.objectid))?;
            add_gap(&mut room.free, next..key.objectid)?;
            next = end;
            Ok(ControlFlow::Continue(()))
        })?;
        room.free.insert(next..chunk.end());
        Ok(room)
    }

    /// Allocates a node of a tree in a group of `kind`, in a new one if need be.
    pub(in super::super) fn allocate_node(&mut self, kind: u64) -> Result<u64> {
        loop {
            if let Some(at) = self.find_node(kind)? {
                return Ok(at);
            }
            if !self.grow(kind)? {
                return Err(full("the file system has no room for its metadata"));
            }
        }
    }

    fn find_node(&mut self, kind: u64) -> Result<Option<u64>> {
        let nodesize = u64::from(self.store.sb.nodesize);
        for start in self.writing.space.candidates(kind) {
            let group = self.writing.space.0.get(&start);
            if group.is_none_or(|group| group.len.saturating_sub(group.used) < nodesize) {
                continue;
            }
            self.know(start)?;
            let room = self.writing.space.0.get(&start).and_then(|group| group.room.as_ref());
            let fit = |range: Range<u64>| {
                let at = range.start.checked_next_multiple_of(nodesize)?;
                (at.checked_add(nodesize)? <= range.end).then_some(at)
            };
            if let Some(at) = room.and_then(|room| room.usable.iter().find_map(fit)) {
                self.writing.space.take(&(at..at.saturating_add(nodesize)))?;
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Allocates room for data: `want` bytes together, or else the longest range that there is. A new group is made before what is
    /// free is used in small pieces, as long as that leaves room for metadata.
    pub(super) fn allocate_data(&mut self, want: u64) -> Result<Range<u64>> {
        let want = want.min(MAX_EXTENT);
        let len = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let mut best = self.find_data(want)?;
        if best.as_ref().is_none_or(|best| len(best) < want.min(SMALL)) && self.grow_data()? {
            best = self.find_data(want)?;
        }
        let best = best.ok_or_else(|| full("the file system has no room for the content of a file"))?;
        let range = best.start..best.end.min(best.start.saturating_add(want));
        self.writing.space.take(&range)?;
        Ok(range)
    }

    /// The first range of `want` bytes that is free for data, or the longest one.
    fn find_data(&mut self, want: u64) -> Result<Option<Range<u64>>> {
        let mut best: Option<Range<u64>> = None;
        let len = |range: &Range<u64>| range.end.saturating_sub(range.start);
        let sector = u64::from(self.store.sb.sectorsize);
        for start in self.writing.space.candidates(chunk::DATA) {
            if self.writing.space.0.get(&start).is_none_or(|group| group.used >= group.len) {
                continue;
            }
            self.know(start)?;
            let room = self.writing.space.0.get(&start).and_then(|group| group.room.as_ref());
            for range in room.iter().flat_map(|room| room.usable.iter()) {
                let at = range.start.checked_next_multiple_of(sector).unwrap_or(range.end).min(range.end);
                let range = at..range.end.saturating_sub(range.end.checked_rem(sector).unwrap_or(0)).max(at);
                if best.as_ref().is_none_or(|best| len(best) < len(&range)) {
                    best = Some(range);
                }
                if best.as_ref().is_some_and(|best| len(best) >= want) {
                    break;
                }
            }
            if best.as_ref().is_some_and(|best| len(best) >= want) {
                break;
            }
        }
        Ok(best.filter(|best| !best.is_empty()))
    }
}

/// Bytes of a chunk that nothing may lie in.
pub(super) fn barred_bytes(chunk: &Chunk) -> u64 {
    let mut set = RangeSet::default();
    for range in barred(chunk) {
        set.insert(range.start.max(chunk.start)..range.end.min(chunk.end()).max(chunk.start));
    }
    set.iter().map(|range| range.end.saturating_sub(range.start)).sum()
}

/// Logical addresses of a chunk whose copies would cover a superblock, or lie where one could be read by mistake.
fn barred(chunk: &Chunk) -> Vec<Range<u64>> {
    let mut barred = Vec::new();
    if let Some(first) = OFFSETS.first() {
        barred.push(0..*first);
    }
    for (stripe, at) in chunk.stripes.iter().flat_map(|stripe| OFFSETS.map(|at| (stripe, at))) {
        let reach = stripe.offset.saturating_add(chunk.stripe_len());
        if at.saturating_add(SUPERBLOCK) <= stripe.offset || at >= reach {
            continue;
        }
        let (first, last) = (at.saturating_sub(stripe.offset), at.saturating_add(SUPERBLOCK).min(reach));
        let last = last.saturating_sub(stripe.offset);
        let range = match chunk.profile {
            Profile::Raid0 | Profile::Raid10 | Profile::Raid5 | Profile::Raid6 => {
                // The rows that it touches.
                let row = STRIPE_LEN.saturating_mul(chunk.data_stripes());
                (first / STRIPE_LEN).saturating_mul(row)..last.div_ceil(STRIPE_LEN).saturating_mul(row)
            }
            _ => first..last,
        };
        barred.push(chunk.start.saturating_add(range.start)..chunk.start.saturating_add(range.end));
    }
    barred
}

/// Notes a gap, as long as there are not too many.
fn add_gap(free: &mut RangeSet, gap: Range<u64>) -> Result<()> {
    free.insert(gap);
    if free.len() > limits::MAX_BTRFS_GAPS {
        return Err(limit("the free space of a block group is in too many pieces", limits::MAX_BTRFS_GAPS));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn a_block_group_has_as_many_gaps_as_the_limit() {
        let mut free = RangeSet::default();
        let most = u64::try_from(limits::MAX_BTRFS_GAPS).unwrap();
        for number in 0..most {
            add_gap(&mut free, number * 2..number * 2 + 1).unwrap();
        }
        // No gap at all is none more.
        add_gap(&mut free, 7..7).unwrap();
        assert_eq!(add_gap(&mut free, most * 2..most * 2 + 1).unwrap_err().code(), "btrfs.limit");
    }
}
