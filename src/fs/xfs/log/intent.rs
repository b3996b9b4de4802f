//! What the log says was begun ("Log Item Types", intents): one item tells several parts, in the byte order of the machine.

use super::damaged;
use super::item::INTENTS;
use super::transaction::Item;
use crate::disk::bytes::{le16, le32, le64};
use crate::error::Result;
use crate::fs::xfs::attr::{PARENT, Raw};

/// Bytes before the parts.
const HEADER: usize = 16;
/// What is done to a name that a file knows.
const SET: u32 = 4;
const REMOVE: u32 = 5;
const REPLACE: u32 = 6;
/// Bytes of such a name's value: a directory and its generation.
const POINTER: usize = 12;
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

/// A name that a file forgets, learns, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fs::xfs) struct Pointers {
    /// The file, and its generation.
    pub(in crate::fs::xfs) inode: u64,
    pub(in crate::fs::xfs) generation: u32,
    pub(in crate::fs::xfs) old: Option<Raw>,
    pub(in crate::fs::xfs) new: Option<Raw>,
}

/// One thing that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A file's own knowledge of its names changes.
    Rename(Pointers),
}

/// What an item tells; none if it is of a kind that only the kernel finishes.
pub(super) fn parse(item: &Item) -> Result<Option<Vec<Intent>>> {
    let [free, owners, counts, maps, attributes, _] = INTENTS.map(|(kind, _)| kind);
    if item.kind() == attributes {
        return Ok(pointers(item)?.map(|pointers| vec![Intent::Rename(pointers)]));
    }
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

/// `xfs_attri_log_format` and its regions: names, then values. Other attributes are only begun on kernels made for it.
fn pointers(item: &Item) -> Result<Option<Pointers>> {
    let bytes = item.description();
    let [old, new] = match le32(bytes, 24) {
        SET => [false, true],
        REMOVE => [true, false],
        REPLACE => [true, true],
        _ => return Ok(None),
    };
    let both = old && new;
    let name_len = |is_new: bool| match (both, is_new) {
        (false, _) => le32(bytes, 28),
        (true, false) => u32::from(le16(bytes, 28)),
        (true, true) => u32::from(le16(bytes, 30)),
    };
    let count = if both { 2 } else { 1 };
    let pointer = |is_new: bool| {
        let at = if both && is_new { 2 } else { 1 };
        let name = item.region(at).get(..usize::try_from(name_len(is_new)).unwrap_or(usize::MAX));
        let value = item.region(at.saturating_add(count)).get(..POINTER);
        let (Some(name @ [_, ..]), Some(value)) = (name.filter(|name| name.len() < 256), value) else {
            return Err(damaged("what it says was begun is impossible"));
        };
        Ok(Raw { flags: PARENT, name: name.to_vec(), value: value.to_vec() })
    };
    Ok(Some(Pointers {
        inode: le64(bytes, 16),
        generation: le32(bytes, 4),
        old: old.then(|| pointer(false)).transpose()?,
        new: new.then(|| pointer(true)).transpose()?,
    }))
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
        assert_eq!(parse(&item(0x1236, 2, &wide.repeat(2))).unwrap(), Some(vec![freed.clone(); 2]));
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
        for (kind, flags) in [(0x1240, 1 << 28 | 1), (0x1240, 9), (0x1244, 1 << 29 | 1), (0x1244, 3), (0x1248, 1)] {
            assert_eq!(told(kind, flags), None, "{kind:x} {flags:x}");
        }
        for (flags, intent) in (1_u32..).zip([Intent::Share, Intent::Unshare, Intent::Stage, Intent::Unstage]) {
            let part = Part { start: 9, len: 3, ..plain(&[]) };
            let bytes = [&wide[..12], &flags.to_le_bytes()].concat();
            assert_eq!(parse(&item(0x1242, 1, &bytes)).unwrap(), Some(vec![intent(part)]));
        }
    }

    #[test]
    fn names_that_files_know_are_told() {
        let value = |inode: u8| [[0; 7].as_slice(), &[inode, 0, 0, 0, 9]].concat();
        let begun = |op: u32, names: [u16; 2], regions: &[&[u8]]| {
            let mut bytes = [0x1246_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat();
            bytes.extend(77_u32.to_le_bytes());
            for word in [1_u64, 131] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(op.to_le_bytes());
            names.iter().for_each(|len| bytes.extend(len.to_le_bytes()));
            bytes.extend([12, 0, 0, 0, 8, 0, 0, 0]);
            let mut item = Item::default();
            item.regions = [&bytes[..]].iter().chain(regions).map(|region| region.to_vec()).collect();
            parse(&item).map_err(|error| error.code())
        };
        let raw = |name: &[u8], inode| Raw { flags: PARENT, name: name.to_vec(), value: value(inode) };
        let told = |old, new| Ok(Some(vec![Intent::Rename(Pointers { inode: 131, generation: 77, old, new })]));
        // Regions are as long as words.
        assert_eq!(begun(4, [3, 0], &[b"one\0", &value(1)]), told(None, Some(raw(b"one", 1))));
        assert_eq!(begun(5, [3, 0], &[b"one\0", &value(1)]), told(Some(raw(b"one", 1)), None));
        let both: [&[u8]; 4] = [b"one\0", b"other\0\0\0", &value(1), &value(2)];
        assert_eq!(begun(6, [3, 5], &both), told(Some(raw(b"one", 1)), Some(raw(b"other", 2))));
        assert_eq!(begun(1, [3, 0], &[b"one\0", b"value"]), Ok(None));
        let long = [b'x'; 256];
        for (names, regions) in [
            ([0, 0], [&b"one\0"[..], &value(1)]),
            ([5, 0], [b"one\0", &value(1)]),
            ([256, 0], [&long, &value(1)]),
            ([3, 1], [b"one\0", &value(1)]),
            ([3, 0], [b"one\0", &value(1)[..11]]),
        ] {
            assert_eq!(begun(4, names, &regions), Err("xfs.log"), "{names:?}");
        }
        assert_eq!(begun(6, [3, 5], &both[..3]), Err("xfs.log"));
        assert_eq!(begun(6, [3, 0], &both), Err("xfs.log"));
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
