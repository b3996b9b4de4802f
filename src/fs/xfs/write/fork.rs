//! The two forks of an inode: taken apart, and put together again so that both have room ("Data Extents", "Attribute Fork").
//! A tree of extents is built anew in the blocks of the old one.

use super::Writer;
use super::reverse::ATTR_FORK;
use super::tree::{BMBT, UNWRITTEN};
use crate::disk::bytes::{be16, be32, be64, long, put, put_be32, put_be64, size};
use crate::error::{Error, Result};
use crate::fs::xfs::map::{Extent, RECORD};
use crate::fs::xfs::node::{Fork, Format, Node};
use crate::fs::xfs::{block, corrupt};
use crate::limits;

/// Blocks of the longest extent.
pub(super) const MAX_EXTENT: u64 = (1 << 21) - 1;
/// Bytes of the smallest root of a tree of extents, in eights.
const SMALLEST_ROOT: usize = 24;
/// Bytes that the kernel leaves each fork at least where there are two: roots of three and of two rows.
const LEAST_DATA: usize = 52;
const LEAST_ATTR: usize = 36;
const KEY: usize = 8;

/// The blocks of a fork.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// Ascending, none empty, none of two that could be one.
    pub(super) extents: Vec<Extent>,
    /// Blocks of the tree of extents.
    pub(super) tables: Vec<u64>,
}

impl Map {
    /// Whether it is not too large to be held.
    fn check(&self, node: &Node) -> Result<()> {
        if self.extents.len().max(self.tables.len()) > limits::MAX_XFS_EXTENTS {
            return Err(Error::limit("xfs.limit", format!("inode {} has too many extents", node.number)));
        }
        Ok(())
    }

    /// Adds an extent behind all others.
    pub(super) fn push(&mut self, extent: Extent) {
        if extent.blockcount == 0 {
            return;
        }
        if let Some(last) = self.extents.last_mut()
            && last.end() == extent.startoff
            && last.startblock.saturating_add(last.blockcount) == extent.startblock
            && last.unwritten == extent.unwritten
            && last.blockcount.saturating_add(extent.blockcount) <= MAX_EXTENT
        {
            last.blockcount = last.blockcount.saturating_add(extent.blockcount);
            return;
        }
        self.extents.push(extent);
    }
}

/// What a fork holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// There is no such fork.
    Absent,
    /// A device number, or nothing: of what is neither file, directory nor link.
    Device(Vec<u8>),
    Local(Vec<u8>),
    Mapped(Map),
}

impl Body {
    /// Bytes that it takes in the inode if it has room.
    fn wanted(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::Device(_) => 8,
            Self::Local(bytes) => bytes.len(),
            Self::Mapped(map) => map.extents.len().saturating_mul(RECORD),
        }
    }

    /// Bytes that it takes at least.
    fn least(&self) -> usize {
        match self {
            Self::Mapped(_) => self.wanted().min(SMALLEST_ROOT),
            _ => self.wanted(),
        }
    }

    fn blocks(&self) -> u64 {
        match self {
            Self::Mapped(map) => {
                map.extents.iter().map(|extent| extent.blockcount).fold(long(map.tables.len()), u64::saturating_add)
            }
            _ => 0,
        }
    }
}

impl Writer<'_> {
    /// What a fork holds.
    pub(super) fn body(&self, node: &Node, fork: Fork) -> Result<Body> {
        if fork == Fork::Attr && node.fork_range(fork).is_empty() {
            return Ok(Body::Absent);
        }
        Ok(match node.format(fork)? {
            Format::Device => Body::Device(node.fork(fork).get(..8).unwrap_or_default().to_vec()),
            Format::Local => {
                let len = if fork == Fork::Data { node.size() } else { u64::from(be16(node.fork(fork), 0)) };
                Body::Local(self.view().local(node, fork, len)?.to_vec())
            }
            Format::Extents => {
                let (area, count) = (node.fork(fork), node.extents(fork));
                if count > long(area.len() / RECORD) {
                    return Err(corrupt(format!("inode {} has more extents than room", node.number)).found(count));
                }
                let mut map = Map::default();
                self.add_records(node, area, size(count), &mut map)?;
                if fork == Fork::Attr && map.extents.is_empty() { Body::Absent } else { Body::Mapped(map) }
            }
            Format::Btree => {
                let root = node.fork(fork);
                let area = root.get(4..).unwrap_or_default();
                let mut map = Map::default();
                let max = area.len() / RECORD;
                self.add_branches(node, (be16(root, 0), usize::from(be16(root, 2))), max, area, &mut map)?;
                Body::Mapped(map)
            }
        })
    }

    /// The blocks of a fork that has blocks.
    pub(super) fn map_of(&self, node: &Node, fork: Fork) -> Result<Map> {
        match self.body(node, fork)? {
            Body::Mapped(map) => Ok(map),
            Body::Absent => Ok(Map::default()),
            _ => Err(corrupt(format!("a fork of inode {} that should have blocks has none", node.number))),
        }
    }

    fn add_records(&self, node: &Node, area: &[u8], count: usize, map: &mut Map) -> Result<()> {
        for index in 0..count {
            let extent = Extent::at(area, index);
            let after = map.extents.last().is_none_or(|last| last.end() <= extent.startoff);
            if extent.blockcount == 0 || !after {
                return Err(corrupt(format!("the extents of inode {} are not in order", node.number)));
            }
            self.sb.run(extent.startblock, extent.blockcount)?;
            map.push(extent);
        }
        map.check(node)
    }

    /// Adds what is below the `count` pointers of a node of `level`.
    fn add_branches(
        &self,
        node: &Node,
        (level, count): (u16, usize),
        max: usize,
        area: &[u8],
        map: &mut Map,
    ) -> Result<()> {
        let wrong = || corrupt(format!("the extents of inode {} contradict themselves", node.number));
        if level == 0 || level > limits::MAX_XFS_LEVELS || count == 0 || count > max {
            return Err(wrong());
        }
        let below = level.saturating_sub(1);
        for index in 0..count {
            let child = be64(area, max.saturating_add(index).saturating_mul(KEY));
            map.tables.push(child);
            map.check(node)?;
            if long(map.tables.len()) > self.sb.dblocks {
                return Err(Error::limit("xfs.limit", format!("inode {} has too many extents", node.number)));
            }
            let bytes = self.view().block_of(child, node.number)?;
            let (magic, header) = self.bmbt();
            let area = bytes.get(header..).unwrap_or_default();
            let (count, max) = (usize::from(be16(&bytes, 6)), area.len() / RECORD);
            if be32(&bytes, 0) != magic || be16(&bytes, 4) != below || count > max {
                return Err(wrong());
            }
            if below == 0 {
                self.add_records(node, area, count, map)?;
            } else {
                self.add_branches(node, (below, count), max, area, map)?;
            }
        }
        Ok(())
    }

    /// The magic number of a block of a tree of extents, and the bytes before its rows.
    fn bmbt(&self) -> (u32, usize) {
        if self.sb.has_crc() { (block::BMAP_V5, 72) } else { (block::BMAP_V4, 24) }
    }

    /// Where the attribute fork has to begin, in eights of bytes, so that both forks have room; none if there is no such place.
    pub(super) fn fork_offset(&self, node: &Node, data: &Body, attr: &Body) -> Option<u8> {
        let room = node.room();
        let (data_wanted, attr_wanted) = (data.wanted(), attr.wanted());
        if *attr == Body::Absent {
            return (data.least() <= room).then_some(0);
        }
        let fits = |data: usize, attr: usize, offset: usize| {
            let here = offset.saturating_mul(8);
            data <= here && here.saturating_add(attr.max(LEAST_ATTR)) <= room && offset < room / 8
        };
        if matches!(data, Body::Device(_)) {
            return fits(data_wanted, attr.least(), 1).then_some(1);
        }
        let before = |attr: usize| room.saturating_sub(attr.max(LEAST_ATTR)) / 8;
        let present = node.fork_offset();
        let usual = if node.raw.len() == 256 { room.saturating_sub(36) / 8 } else { 24 };
        // Without attr2, it stays where it is.
        let fixed = if present == 0 { usual } else { present };
        for (data, attr) in [
            (data_wanted, attr_wanted),
            (data_wanted, attr.least()),
            (data.least(), attr_wanted),
            (data.least(), attr.least()),
        ] {
            for offset in [present, usual, before(attr)] {
                if fits(data.max(LEAST_DATA), attr, offset) && (self.sb.features.has_attr2() || offset == fixed) {
                    return u8::try_from(offset).ok();
                }
            }
        }
        None
    }

    /// Puts both forks into `node`, which is not stored. Where trees of extents are needed, they are stored.
    pub(super) fn put_bodies(&mut self, node: &mut Node, mut data: Body, mut attr: Body) -> Result<()> {
        let offset = self.fork_offset(node, &data, &attr);
        let offset = offset.ok_or_else(|| super::full(format!("inode {} has no room for its forks", node.number)))?;
        node.set_fork_offset(offset);
        for (fork, body) in [(Fork::Data, &mut data), (Fork::Attr, &mut attr)] {
            let room = node.fork_range(fork).len();
            let (format, count, bytes) = match body {
                Body::Absent => (Format::Extents, 0, Vec::new()),
                Body::Device(bytes) => (Format::Device, 0, bytes.clone()),
                Body::Local(bytes) => (Format::Local, 0, bytes.clone()),
                Body::Mapped(map) => {
                    let count = map.extents.len();
                    let (format, bytes) = self.records(node.number, fork, map, room)?;
                    (format, count, bytes)
                }
            };
            node.set_fork(fork, format, &bytes);
            node.set_extents(fork, long(count));
        }
        node.set_blocks(data.blocks().saturating_add(attr.blocks()));
        Ok(())
    }

    /// What a fork of `room` bytes holds of `map`.
    fn records(&mut self, number: u64, fork: Fork, map: &mut Map, room: usize) -> Result<(Format, Vec<u8>)> {
        let mut rows: Vec<[u8; RECORD]> = map.extents.iter().map(|extent| extent.record()).collect();
        if rows.len().saturating_mul(RECORD) <= room {
            self.tables(number, fork, map, 0)?;
            return Ok((Format::Extents, rows.concat()));
        }
        let (magic, header) = self.bmbt();
        let most = self.sb.block_len().saturating_sub(header) / RECORD;
        let in_root = room.saturating_sub(4) / RECORD;
        let mut levels = vec![rows.len().div_ceil(most.max(1))];
        while let Some(count) = levels.last().copied().filter(|count| *count > in_root) {
            levels.push(count.div_ceil(most.max(1)));
        }
        self.tables(number, fork, map, levels.iter().copied().fold(0, usize::saturating_add))?;
        let mut places = map.tables.clone().into_iter();
        for (level, count) in (0_u16..).zip(&levels) {
            let here: Vec<u64> = places.by_ref().take(*count).collect();
            rows = self.level(number, (magic, header, level), &rows, &here)?;
        }
        let mut root = vec![0; room];
        put(&mut root, 0, &u16::try_from(levels.len()).unwrap_or(0).to_be_bytes());
        put(&mut root, 2, &u16::try_from(rows.len()).unwrap_or(0).to_be_bytes());
        put_rows(&mut root, 4, in_root, &rows);
        Ok((Format::Btree, root))
    }

    /// Stores one level of a tree in the blocks `places`, evenly; gives the rows of the level above.
    fn level(
        &mut self,
        number: u64,
        (magic, header, level): (u32, usize, u16),
        rows: &[[u8; RECORD]],
        places: &[u64],
    ) -> Result<Vec<[u8; RECORD]>> {
        let mut above = Vec::with_capacity(places.len());
        let mut rest = rows;
        for (index, place) in places.iter().enumerate() {
            let share = rest.len().div_ceil(places.len().saturating_sub(index).max(1));
            let (now, later) = rest.split_at_checked(share).unwrap_or((rest, &[]));
            rest = later;
            let offset = self.sb.run(*place, 1)?;
            let mut bytes = self.empty_block();
            put_be32(&mut bytes, 0, magic);
            put(&mut bytes, 4, &level.to_be_bytes());
            put(&mut bytes, 6, &u16::try_from(now.len()).unwrap_or(0).to_be_bytes());
            let beside = |index: Option<usize>| index.and_then(|index| places.get(index)).copied().unwrap_or(u64::MAX);
            put_be64(&mut bytes, 8, beside(index.checked_sub(1)));
            put_be64(&mut bytes, 16, beside(index.checked_add(1)));
            self.describe(&mut bytes, offset, number);
            if level == 0 {
                put(&mut bytes, header, &now.concat());
            } else {
                let most = bytes.len().saturating_sub(header) / RECORD;
                put_rows(&mut bytes, header, most, now);
            }
            self.put(offset, bytes)?;
            let first = now.first().copied().unwrap_or([0; RECORD]);
            let key = if level == 0 { Extent::at(&first, 0).startoff } else { be64(&first, 0) };
            let mut row = [0; RECORD];
            put_be64(&mut row, 0, key);
            put_be64(&mut row, 8, *place);
            above.push(row);
        }
        Ok(above)
    }

    /// Brings the blocks of a tree of extents to `count`.
    fn tables(&mut self, number: u64, fork: Fork, map: &mut Map, count: usize) -> Result<()> {
        let offset = if fork == Fork::Attr { BMBT | ATTR_FORK } else { BMBT };
        while map.tables.len() > count {
            let Some(fsbno) = map.tables.pop() else { break };
            let run = self.run_at(fsbno, 1)?;
            self.remove_owner(run, number, offset)?;
            self.release(run)?;
        }
        while map.tables.len() < count {
            let run = self.allocate(self.goal(number), 1)?;
            self.add_owner(run, number, offset)?;
            map.tables.push(self.fsbno(run));
        }
        Ok(())
    }

    /// Where blocks of an inode should be, if nothing else is known: in its group.
    pub(super) fn goal(&self, number: u64) -> u64 {
        let block = number.wrapping_shr(self.sb.inopblog);
        block.wrapping_shr(self.sb.agblklog).wrapping_shl(self.sb.agblklog)
    }

    /// Takes `len` blocks for block `logical` of a fork and what follows, in one run or several.
    pub(super) fn fill(&mut self, number: u64, fork: Fork, logical: u64, len: u64, goal: u64) -> Result<Vec<Extent>> {
        let mut taken: Vec<Extent> = Vec::new();
        let end = logical.saturating_add(len);
        let (mut at, mut goal) = (logical, goal);
        while at < end {
            let run = self.allocate(goal, end.saturating_sub(at))?;
            let (startblock, blockcount) = (self.fsbno(run), u64::from(run.len));
            self.add_owner(run, number, owner_offset(fork, at, false))?;
            taken.push(Extent { startoff: at, startblock, blockcount, unwritten: false });
            at = at.saturating_add(blockcount);
            goal = startblock.saturating_add(blockcount);
        }
        Ok(taken)
    }

    /// Gives up the blocks of an extent; those that no other file has are free then.
    pub(super) fn drop_extent(&mut self, number: u64, fork: Fork, extent: Extent) -> Result<()> {
        let run = self.run_at(extent.startblock, extent.blockcount)?;
        self.remove_owner(run, number, owner_offset(fork, extent.startoff, extent.unwritten))?;
        let alone = if fork == Fork::Data { self.unshare(run)? } else { vec![run] };
        alone.into_iter().try_for_each(|run| self.release(run))
    }

    /// Gives up everything in a fork.
    pub(super) fn drop_map(&mut self, number: u64, fork: Fork, mut map: Map) -> Result<()> {
        for extent in std::mem::take(&mut map.extents) {
            self.drop_extent(number, fork, extent)?;
        }
        self.tables(number, fork, &mut map, 0)
    }
}

/// The offset of a reverse mapping for block `logical` of a fork.
pub(super) fn owner_offset(fork: Fork, logical: u64, unwritten: bool) -> u64 {
    let flags = if fork == Fork::Attr { ATTR_FORK } else { 0 } | if unwritten { UNWRITTEN } else { 0 };
    logical | flags
}

/// Puts keys and, behind the room for `most` of them, pointers.
fn put_rows(bytes: &mut [u8], at: usize, most: usize, rows: &[[u8; RECORD]]) {
    let pointers = at.saturating_add(most.saturating_mul(KEY));
    for (index, row) in rows.iter().enumerate() {
        let (key, pointer) = row.split_at_checked(KEY).unwrap_or_default();
        put(bytes, at.saturating_add(index.saturating_mul(KEY)), key);
        put(bytes, pointers.saturating_add(index.saturating_mul(KEY)), pointer);
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_as_many_extents_as_the_limit() {
        let node = Node { number: 128, raw: Vec::new() };
        let extent = Extent { startoff: 0, startblock: 8, blockcount: 1, unwritten: false };
        let most = limits::MAX_XFS_EXTENTS;
        for (count, expected) in [(most - 1, Ok(())), (most, Ok(())), (most + 1, Err("xfs.limit"))] {
            let extents = Map { extents: vec![extent; count], tables: Vec::new() };
            let tables = Map { extents: Vec::new(), tables: vec![8; count] };
            for map in [extents, tables] {
                assert_eq!(map.check(&node).map_err(|error| error.code()), expected, "{count}");
            }
        }
    }
}
