//! The free space tree (`btrfs_free_space_info`): kept as the extents leave it, in the form that each block group has it in.

use super::super::key::{Key, id, kind};
use super::super::{Core, corrupt};
use super::space::Room;
use crate::disk::bytes::{le32, put32, size};
use crate::disk::ranges::RangeSet;
use crate::error::Result;

/// `BTRFS_FREE_SPACE_USING_BITMAPS`.
const USING_BITMAPS: u32 = 1;

impl Core {
    /// Whether there is a free space tree that is true.
    pub(super) fn has_free_tree(&self) -> bool {
        self.writing.trees.contains_key(&id::FREE_SPACE_TREE)
    }

    /// Brings the free space tree up to date with a block group.
    pub(super) fn store_free(&mut self, start: u64) -> Result<()> {
        let group = self.writing.space.0.get(&start);
        let Some((len, room)) = group.and_then(|group| Some((group.len, group.room.as_ref()?))) else { return Ok(()) };
        if room.stored == room.free {
            return Ok(());
        }
        let Room { stored, free, .. } = room;
        let key = Key::new(start, kind::FREE_SPACE_INFO, len);
        let tree = self.tree(id::FREE_SPACE_TREE)?;
        let info = self.store.get(tree, key)?;
        let mut info = info.filter(|info| info.len() == 8).ok_or_else(|| wrong(start))?;
        let mut edits =
            if le32(&info, 4) & USING_BITMAPS == 0 { self.extents(stored, free)? } else { self.bitmaps(stored, free)? };
        put32(&mut info, 0, u32::try_from(free.len()).unwrap_or(u32::MAX));
        edits.push((key, Some(info)));
        if let Some(room) = self.writing.space.0.get_mut(&start).and_then(|group| group.room.as_mut()) {
            room.stored = room.free.clone();
        }
        edits.into_iter().try_for_each(|(key, item)| self.set(id::FREE_SPACE_TREE, key, item))
    }

    /// One item for each range.
    fn extents(&self, stored: &RangeSet, free: &RangeSet) -> Result<Vec<(Key, Option<Vec<u8>>)>> {
        let tree = self.tree(id::FREE_SPACE_TREE)?;
        let key = |range: &std::ops::Range<u64>| {
            Key::new(range.start, kind::FREE_SPACE_EXTENT, range.end.saturating_sub(range.start))
        };
        let mut edits = Vec::new();
        for range in stored.iter().filter(|range| free.containing(range.start).as_ref() != Some(range)) {
            if self.store.get(tree, key(&range))?.is_none() {
                return Err(wrong(range.start));
            }
            edits.push((key(&range), None));
        }
        let new = free.iter().filter(|range| stored.containing(range.start).as_ref() != Some(range));
        edits.extend(new.map(|range| (key(&range), Some(Vec::new()))));
        Ok(edits)
    }

    /// A bit for each sector.
    fn bitmaps(&self, stored: &RangeSet, free: &RangeSet) -> Result<Vec<(Key, Option<Vec<u8>>)>> {
        let tree = self.tree(id::FREE_SPACE_TREE)?;
        let sector = u64::from(self.store.sb.sectorsize);
        let mut changed = RangeSet::default();
        for (one, other) in [(stored, free), (free, stored)] {
            let differ = one.iter().filter(|range| other.containing(range.start).as_ref() != Some(range));
            differ.for_each(|range| changed.insert(range));
        }
        let mut edits: Vec<(Key, Option<Vec<u8>>)> = Vec::new();
        for range in changed.iter() {
            let mut at = range.start;
            while at < range.end {
                let found = self.store.floor(tree, Key::new(at, u8::MAX, u64::MAX))?;
                let is_it =
                    |key: &Key| key.kind == kind::FREE_SPACE_BITMAP && at.saturating_sub(key.objectid) < key.offset;
                let (key, item) = found.filter(|(key, _)| is_it(key)).ok_or_else(|| wrong(at))?;
                let end = key.objectid.saturating_add(key.offset);
                if edits.last().is_none_or(|(last, _)| *last != key) {
                    edits.push((key, Some(bitmap(key.objectid..end, item.len(), sector, free))));
                }
                at = end;
            }
        }
        Ok(edits)
    }
}

/// The bitmap of `range`.
fn bitmap(range: std::ops::Range<u64>, len: usize, sector: u64, free: &RangeSet) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let index = |at: u64| at.saturating_sub(range.start).checked_div(sector).unwrap_or(0);
    let mut at = range.start;
    while at < range.end {
        let found = free.containing(at).or_else(|| free.next_start(at).and_then(|start| free.containing(start)));
        let Some(found) = found.filter(|found| found.start < range.end) else { break };
        for bit in index(found.start.max(range.start))..index(found.end.min(range.end)) {
            if let Some(byte) = bytes.get_mut(size(bit / 8)) {
                *byte |= 1_u8.wrapping_shl(u32::try_from(bit % 8).unwrap_or(0));
            }
        }
        at = found.end;
    }
    bytes
}

fn wrong(at: u64) -> crate::error::Error {
    corrupt("the free space tree contradicts the extents").offset(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_has_a_bit_for_each_free_sector() {
        let mut free = RangeSet::default();
        [0..8192, 12288..16384, 4096 * 15..4096 * 40].into_iter().for_each(|range| free.insert(range));
        assert_eq!(bitmap(4096..4096 * 17, 2, 4096, &free), [0b101, 0b1100_0000]);
        assert_eq!(bitmap(1 << 20..(1 << 20) + 32768, 1, 4096, &free), [0]);
    }
}
