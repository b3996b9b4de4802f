//! What the log says was begun ("Log Item Types", intents): one item tells several parts, in the byte order of the machine.

use super::damaged;
use super::item::INTENTS;
use super::transaction::Item;
use crate::disk::bytes::{le32, le64};
use crate::error::Result;

/// Bytes before the parts.
const HEADER: usize = 16;
/// Of a part's flags, what is to be done.
const KIND: u32 = 0xff;

/// A run of blocks that something is to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs::xfs) struct Part {
    /// The first block, by its number in the file system.
    pub(in crate::fs::xfs) start: u64,
    pub(in crate::fs::xfs) len: u64,
    /// Who has it, and from which of the owner's blocks on.
    pub(in crate::fs::xfs) owner: u64,
    pub(in crate::fs::xfs) offset: u64,
    /// Of the attribute fork.
    pub(in crate::fs::xfs) is_attr: bool,
    /// A block of a tree of extents.
    pub(in crate::fs::xfs) is_bmbt: bool,
    pub(in crate::fs::xfs) is_unwritten: bool,
}

/// One thing that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs::xfs) enum Intent {
    /// Blocks are freed, if they have an owner still or not.
    Free(Part),
    /// The reverse map gets a record, or loses one, or an extent is written or unwritten as said.
    AddOwner(Part),
    RemoveOwner(Part),
    Convert(Part),
    /// Blocks get one more owner, or one less; they become room for copies, or are that no more.
    Share(Part),
    Unshare(Part),
    Stage(Part),
    Unstage(Part),
    /// An inode gets blocks, or loses them.
    Map(Part),
    Unmap(Part),
}

/// What an item tells; none if it is of a kind that only the kernel finishes.
pub(super) fn parse(item: &Item) -> Result<Option<Vec<Intent>>> {
    let [free, owners, counts, maps, ..] = INTENTS.map(|(kind, _)| kind);
    let bytes = item.description();
    let count = usize::try_from(le32(bytes, 4)).unwrap_or(usize::MAX);
    let area = bytes.get(HEADER..).unwrap_or_default();
    let each = area.len().checked_div(count).unwrap_or(0);
    let impossible = || damaged("what it says was begun is impossible");
    if count == 0 || each.checked_mul(count) != Some(area.len()) {
        return Err(impossible());
    }
    let of = |kind: u16| item.kind() == kind;
    match each {
        // 12 on 32-bit machines.
        12 | 16 if of(free) => {}
        16 if of(counts) => {}
        32 if of(owners) || of(maps) => {}
        _ if of(free) || of(owners) || of(counts) || of(maps) => return Err(impossible()),
        _ => return Ok(None),
    }
    area.chunks_exact(each)
        .map(|part| match item.kind() {
            kind if kind == free => Ok(Some(Intent::Free(plain(part)))),
            kind if kind == counts => Ok(count_of(part)),
            kind if kind == owners => Ok(owner_of(part)),
            _ => Ok(map_of(part)),
        })
        .collect()
}

fn plain(bytes: &[u8]) -> Part {
    Part {
        start: le64(bytes, 0),
        len: u64::from(le32(bytes, 8)),
        owner: 0,
        offset: 0,
        is_attr: false,
        is_bmbt: false,
        is_unwritten: false,
    }
}

/// `xfs_phys_extent`.
fn count_of(bytes: &[u8]) -> Option<Intent> {
    let part = plain(bytes);
    match le32(bytes, 12) {
        1 => Some(Intent::Share(part)),
        2 => Some(Intent::Unshare(part)),
        3 => Some(Intent::Stage(part)),
        4 => Some(Intent::Unstage(part)),
        _ => None,
    }
}

/// `xfs_map_extent`, with the flags of a fork of attributes, of a block of a tree, and of an unwritten extent.
fn mapped(bytes: &[u8], [attr, bmbt, unwritten]: [u32; 3]) -> Option<(u32, Part)> {
    let flags = le32(bytes, 28);
    let part = Part {
        owner: le64(bytes, 0),
        start: le64(bytes, 8),
        offset: le64(bytes, 16),
        len: u64::from(le32(bytes, 24)),
        is_attr: flags & attr != 0,
        is_bmbt: flags & bmbt != 0,
        is_unwritten: flags & unwritten != 0,
    };
    (flags & !(KIND | attr | bmbt | unwritten) == 0).then_some((flags & KIND, part))
}

fn owner_of(bytes: &[u8]) -> Option<Intent> {
    let (kind, part) = mapped(bytes, [1 << 31, 1 << 30, 1 << 29])?;
    match kind {
        1 | 2 | 7 => Some(Intent::AddOwner(part)),
        3 | 4 | 8 => Some(Intent::RemoveOwner(part)),
        5 | 6 => Some(Intent::Convert(part)),
        _ => None,
    }
}

fn map_of(bytes: &[u8]) -> Option<Intent> {
    let (kind, part) = mapped(bytes, [1 << 31, 0, 1 << 30])?;
    match kind {
        1 => Some(Intent::Map(part)),
        2 => Some(Intent::Unmap(part)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: u16, count: u32, parts: &[u8]) -> Item {
        let mut bytes = [kind.to_le_bytes(), 1_u16.to_le_bytes()].concat();
        bytes.extend(count.to_le_bytes());
        bytes.extend([7; 8]);
        bytes.extend_from_slice(parts);
        let mut item = Item::default();
        item.regions.push(bytes);
        item
    }

    fn map_extent(owner: u64, start: u64, offset: u64, len: u32, flags: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = [owner, start, offset].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend([len, flags].iter().flat_map(|word| word.to_le_bytes()));
        bytes
    }

    #[test]
    fn each_kind_is_told() {
        let wide = [9_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat();
        let narrow = &wide[..12];
        let freed = Intent::Free(Part { start: 9, len: 3, ..plain(&[]) });
        assert_eq!(parse(&item(0x1236, 2, &wide.repeat(2))).unwrap(), Some(vec![freed; 2]));
        assert_eq!(parse(&item(0x1236, 3, &narrow.repeat(3))).unwrap(), Some(vec![freed; 3]));
        let part = Part { start: 5, len: 6, owner: 131, offset: 77, ..plain(&[]) };
        let told = |kind, flags| parse(&item(kind, 1, &map_extent(131, 5, 77, 6, flags))).unwrap();
        assert_eq!(told(0x1240, 1), Some(vec![Intent::AddOwner(part)]));
        assert_eq!(told(0x1240, 8 | 1 << 31), Some(vec![Intent::RemoveOwner(Part { is_attr: true, ..part })]));
        assert_eq!(told(0x1240, 6 | 1 << 29), Some(vec![Intent::Convert(Part { is_unwritten: true, ..part })]));
        assert_eq!(told(0x1240, 3 | 1 << 30), Some(vec![Intent::RemoveOwner(Part { is_bmbt: true, ..part })]));
        assert_eq!(told(0x1244, 1 | 1 << 30), Some(vec![Intent::Map(Part { is_unwritten: true, ..part })]));
        assert_eq!(told(0x1244, 2), Some(vec![Intent::Unmap(part)]));
        // Realtime extents, and what nobody knows.
        for (kind, flags) in [(0x1240, 1 << 28 | 1), (0x1240, 9), (0x1244, 1 << 29 | 1), (0x1244, 3), (0x1246, 1)] {
            assert_eq!(told(kind, flags), None, "{kind:x} {flags:x}");
        }
        for (flags, intent) in (1_u32..).zip([Intent::Share, Intent::Unshare, Intent::Stage, Intent::Unstage]) {
            let part = Part { start: 9, len: 3, ..plain(&[]) };
            let bytes = [&wide[..12], &flags.to_le_bytes()].concat();
            assert_eq!(parse(&item(0x1242, 1, &bytes)).unwrap(), Some(vec![intent(part)]));
        }
    }

    #[test]
    fn lengths_that_do_not_fit_are_damage() {
        for (kind, count, len) in
            [(0x1236, 0, 0), (0x1236, 1, 15), (0x1236, u32::MAX, 16), (0x1240, 1, 16), (0x1242, 2, 16), (0x1244, 3, 32)]
        {
            assert_eq!(parse(&item(kind, count, &vec![1; len])).unwrap_err().code(), "xfs.log", "{kind:x} {count}");
        }
    }
}
