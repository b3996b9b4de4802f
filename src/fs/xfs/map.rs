//! Where a file's blocks are ("Data Extents"): lists of extents in the inode, and B+trees of them.

use std::ops::Range;

use super::node::{Fork, Format, Node};
use super::view::View;
use super::{block, corrupt};
use crate::disk::bytes::{be16, be32, be64, long, size};
use crate::error::Result;
use crate::limits;

/// Bytes of an extent record, and of a key and a pointer in a node.
pub(super) const RECORD: usize = 16;
const KEY: usize = 8;

/// A run of a file's blocks, from the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it is; a hole if nowhere.
    pub(super) block: Option<u64>,
    /// Allocated, but nothing was written.
    pub(super) unwritten: bool,
    /// Blocks; never 0.
    pub(super) count: u64,
}

/// An extent record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block of the file.
    pub(super) startoff: u64,
    /// Where that is.
    pub(super) startblock: u64,
    pub(super) blockcount: u64,
    /// Allocated, but nothing was written.
    pub(super) unwritten: bool,
}

impl Extent {
    /// Record `index` of `records`: 1 bit flag, 54 bits of offset, 52 of block, 21 of count.
    pub(super) fn at(records: &[u8], index: usize) -> Self {
        let at = index.saturating_mul(RECORD);
        let (l0, l1) = (be64(records, at), be64(records, at.saturating_add(8)));
        Self {
            unwritten: l0 >> 63 != 0,
            startoff: l0 >> 9 & ((1 << 54) - 1),
            startblock: (l0 & 0x1ff) << 43 | l1 >> 21,
            blockcount: l1 & 0x1f_ffff,
        }
    }

    /// The record.
    pub(super) fn record(self) -> [u8; RECORD] {
        let flag = if self.unwritten { 1 << 63 } else { 0 };
        let l0 = flag | (self.startoff & ((1 << 54) - 1)) << 9 | self.startblock >> 43;
        let l1 = (self.startblock & ((1 << 43) - 1)) << 21 | self.blockcount & 0x1f_ffff;
        (u128::from(l0) << 64 | u128::from(l1)).to_be_bytes()
    }

    /// The block of the file after it.
    pub(super) fn end(self) -> u64 {
        self.startoff.saturating_add(self.blockcount)
    }

    /// The part of it from block `from` to block `to` of the file.
    pub(super) fn clip(self, from: u64, to: u64) -> Option<Self> {
        let (start, end) = (self.startoff.max(from), self.end().min(to));
        (start < end).then(|| Self {
            startoff: start,
            startblock: self.startblock.saturating_add(start.saturating_sub(self.startoff)),
            blockcount: end.saturating_sub(start),
            ..self
        })
    }
}

/// The piece from `block` on in `count` sorted records; what follows them starts at `upper`.
fn in_records(records: &[u8], count: usize, block: u64, upper: u64) -> Piece {
    let after = first_above(count, block, |index| Extent::at(records, index).startoff);
    if let Some(index) = after.checked_sub(1) {
        let extent = Extent::at(records, index);
        let skip = block.saturating_sub(extent.startoff);
        if skip < extent.blockcount {
            return Piece {
                block: Some(extent.startblock.saturating_add(skip)),
                unwritten: extent.unwritten,
                count: extent.blockcount.saturating_sub(skip),
            };
        }
    }
    let end = if after < count { Extent::at(records, after).startoff } else { upper };
    hole(block, end)
}

fn hole(from: u64, to: u64) -> Piece {
    Piece { block: None, unwritten: false, count: to.saturating_sub(from).max(1) }
}

/// The first of `count` ascending keys that is greater than `wanted`.
pub(super) fn first_above(count: usize, wanted: u64, key: impl Fn(usize) -> u64) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if key(middle) <= wanted { low = middle.saturating_add(1) } else { high = middle }
    }
    low
}

/// Where the search goes on from a node.
struct Branch {
    child: u64,
    /// The first key after it.
    upper: u64,
}

/// Keys and pointers of a node: `count` of the `max` that it has room for.
fn branch(area: &[u8], count: usize, max: usize, block: u64, upper: u64) -> Result<Branch, Piece> {
    let key = |index: usize| be64(area, index.saturating_mul(KEY));
    let after = first_above(count, block, key);
    let upper = if after < count { upper.min(key(after)) } else { upper };
    let Some(index) = after.checked_sub(1) else {
        return Err(hole(block, upper));
    };
    let child = be64(area, max.saturating_add(index).saturating_mul(KEY));
    Ok(Branch { child, upper })
}

impl View<'_> {
    /// What a fork has from its block `block` on.
    pub(super) fn map(&self, node: &Node, fork: Fork, block: u64) -> Result<Piece> {
        match node.format(fork)? {
            Format::Extents => {
                let area = node.fork(fork);
                let count = node.extents(fork);
                if count > long(area.len() / RECORD) {
                    return Err(corrupt(format!("inode {} has more extents than room", node.number)).found(count));
                }
                Ok(in_records(area, size(count), block, u64::MAX))
            }
            Format::Btree => self.in_btree(node, fork, block),
            Format::Device | Format::Local => {
                Err(corrupt(format!("a fork of inode {} that should have blocks has none", node.number)))
            }
        }
    }

    fn in_btree(&self, node: &Node, fork: Fork, block: u64) -> Result<Piece> {
        let root = node.fork(fork);
        let (levels, count) = (be16(root, 0), usize::from(be16(root, 2)));
        let area = root.get(4..).unwrap_or_default();
        let max = area.len() / RECORD;
        if levels == 0 || levels > limits::MAX_XFS_LEVELS || count == 0 || count > max {
            return Err(corrupt(format!("the root of inode {}'s extents contradicts itself", node.number)));
        }
        let mut next = branch(area, count, max, block, u64::MAX);
        for level in (0..levels).rev() {
            let Branch { child, upper } = match next {
                Ok(branch) => branch,
                Err(hole) => return Ok(hole),
            };
            let bytes = self.block_of(child, node.number)?;
            let (magic, header) = if self.sb.has_crc() { (block::BMAP_V5, 72) } else { (block::BMAP_V4, 24) };
            let area = bytes.get(header..).unwrap_or_default();
            let (count, max) = (usize::from(be16(&bytes, 6)), area.len() / RECORD);
            if be32(&bytes, 0) != magic || be16(&bytes, 4) != level || count == 0 || count > max {
                return Err(corrupt(format!("the extents of inode {} contradict themselves", node.number))
                    .offset(self.sb.run(child, 1)?));
            }
            if level == 0 {
                return Ok(in_records(area, count, block, upper));
            }
            next = branch(area, count, max, block, upper);
        }
        Err(corrupt(format!("the extents of inode {} have no leaves", node.number)))
    }

    /// The bytes of a file that lie together from byte `at` on, and whether they are anything but a hole.
    pub(super) fn part(&self, node: &Node, at: u64) -> Result<(Range<u64>, bool)> {
        let block = at.wrapping_shr(self.sb.blocklog);
        let piece = self.map(node, Fork::Data, block)?;
        // What has no end in the map has none in the file either.
        let end = block.saturating_add(piece.count).saturating_mul(self.sb.bytes(1));
        Ok((at..end, piece.block.is_some() && !piece.unwritten))
    }

    /// Fills `buf` from byte `offset` of a file; holes and what was never written are zeros.
    pub(super) fn read_content(&self, node: &Node, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        let mut at = offset;
        while !rest.is_empty() {
            let block = at.wrapping_shr(self.sb.blocklog);
            let piece = self.map(node, Fork::Data, block)?;
            let skip = at.saturating_sub(self.sb.bytes(block));
            let len = size(self.sb.bytes(piece.count).saturating_sub(skip)).min(rest.len());
            let (now, later) = std::mem::take(&mut rest).split_at_mut_checked(len).unwrap_or_default();
            match piece.block.filter(|_| !piece.unwritten) {
                Some(fsbno) => self.store.read(now, self.sb.run(fsbno, piece.count)?.saturating_add(skip))?,
                None => now.fill(0),
            }
            rest = later;
            at = at.saturating_add(long(len));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]
mod tests {
    use super::*;

    fn record(startoff: u64, startblock: u64, blockcount: u64, unwritten: bool) -> [u8; 16] {
        let l0 = u64::from(unwritten) << 63 | startoff << 9 | startblock >> 43;
        let l1 = startblock << 21 | blockcount;
        let mut out = [0; 16];
        out[..8].copy_from_slice(&l0.to_be_bytes());
        out[8..].copy_from_slice(&l1.to_be_bytes());
        out
    }

    #[test]
    fn records_cover_what_they_say() {
        let records = [record(3, 0x8_0000_0000_0001, 2, false), record(9, 50, 1, true)].concat();
        let piece = |block| in_records(&records, 2, block, 100);
        assert_eq!(piece(0), hole(0, 3));
        assert_eq!(piece(4), Piece { block: Some(0x8_0000_0000_0002), unwritten: false, count: 1 });
        assert_eq!(piece(5), hole(5, 9));
        assert_eq!(piece(9), Piece { block: Some(50), unwritten: true, count: 1 });
        assert_eq!(piece(10), hole(10, 100));
        assert_eq!(in_records(&[], 0, 7, u64::MAX).count, u64::MAX - 7);
    }

    proptest::proptest! {
        #[test]
        fn pieces_agree_with_a_list(gaps in proptest::collection::vec((0_u64..5, 1_u64..5), 0..20), block in 0_u64..120) {
            let (mut records, mut list, mut at) = (Vec::new(), vec![None; 200], 0_u64);
            for (index, (gap, len)) in gaps.iter().enumerate() {
                at += gap;
                records.extend(record(at, index as u64 * 1000, *len, false));
                for block in 0..*len {
                    list[(at + block) as usize] = Some(index as u64 * 1000 + block);
                }
                at += len;
            }
            let piece = in_records(&records, gaps.len(), block, 200);
            for step in 0..piece.count.min(200 - block) {
                proptest::prop_assert_eq!(list[(block + step) as usize], piece.block.map(|first| first + step));
            }
        }
    }
}
