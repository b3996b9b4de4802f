//! Items: what the log calls them, and the descriptions that this driver reads, all in the byte order of the machine.

use super::damaged;
use super::transaction::Item;
use crate::disk::bytes::{be32, le16, le32, le64};
use crate::error::Result;

pub(super) const INODE: u16 = 0x123b;
pub(super) const BUFFER: u16 = 0x123c;
pub(super) const DQUOT: u16 = 0x123d;
pub(super) const QUOTAOFF: u16 = 0x123e;
pub(super) const ICREATE: u16 = 0x123f;
/// What will be done, and what was: extents to free, reverse map, reference counts, mapping, attributes, exchanges.
pub(super) const INTENTS: [(u16, &str); 6] = [
    (0x1236, "extents are to be freed"),
    (0x1240, "the reverse map is to be updated"),
    (0x1242, "reference counts are to be updated"),
    (0x1244, "extents are to be mapped"),
    (0x1246, "attributes are to be changed"),
    (0x1248, "extents are to be exchanged"),
];
/// Of the intents, those that change no file: free space, reverse map and reference counts.
pub(super) const INVISIBLE: [u16; 3] = [0x1236, 0x1240, 0x1242];

/// Flags of a buffer: it holds inodes, of which only the lists of unlinked ones count; it was freed; it holds quotas.
pub(super) const INODE_BUFFER: u16 = 0x1;
pub(super) const CANCEL: u16 = 0x2;
pub(super) const QUOTA_BUFFER: u16 = 0x4 | 0x8 | 0x10;
/// What a buffer holds, in the upper five bits of its flags: inodes, a superblock, nothing known.
pub(super) const TYPE_UNKNOWN: u16 = 0;
pub(super) const TYPE_INODES: u16 = 8;
pub(super) const TYPE_SUPERBLOCK: u16 = 18;
/// Bytes that one bit of a buffer's map stands for.
pub(super) const CHUNK: usize = 128;
/// Basic blocks of the largest buffer.
const MAX_BUFFER: u16 = 128;

/// A place in basic blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) block: u64,
    pub(super) len: u32,
}

/// A description of a buffer (`xfs_buf_log_format`).
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    pub(super) flags: u16,
    pub(super) place: Place,
    /// First chunk and count of each run of chunks that were logged.
    pub(super) runs: Vec<(usize, usize)>,
}

impl Buffer {
    pub(super) fn parse(item: &Item) -> Result<Self> {
        let bytes = item.description();
        let (flags, len, block) = (le16(bytes, 4), le16(bytes, 6), le64(bytes, 8));
        let words = usize::try_from(le32(bytes, 16)).unwrap_or(usize::MAX);
        let map = words.checked_mul(4).and_then(|len| bytes.get(20..)?.get(..len));
        let Some(map) = map.filter(|_| (1..=MAX_BUFFER).contains(&len)) else {
            return Err(damaged("the description of a buffer is impossible"));
        };
        let place = Place { block, len: u32::from(len) };
        Ok(Self { flags, place, runs: runs(map) })
    }

    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// What it holds (`XFS_BLFT_…`).
    pub(super) fn content(&self) -> u16 {
        self.flags >> 11
    }
}

/// Runs of bits that are set.
fn runs(map: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let bits = map.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    for (chunk, _) in bits.enumerate().filter(|(_, is_set)| *is_set) {
        match runs.last_mut() {
            Some((start, count)) if start.saturating_add(*count) == chunk => *count = count.saturating_add(1),
            _ => runs.push((chunk, 1)),
        }
    }
    runs
}

/// A description of an inode (`xfs_inode_log_format`), as 64-bit machines write it or as 32-bit ones do.
#[derive(Clone, Copy, Debug)]
pub(super) struct InodeItem {
    pub(super) regions: u16,
    pub(super) fields: u32,
    pub(super) number: u64,
    pub(super) device: u32,
    pub(super) place: Place,
    /// Bytes from the start of its buffer.
    pub(super) offset: u32,
}

impl InodeItem {
    pub(super) fn parse(item: &Item) -> Result<Self> {
        let bytes = item.description();
        let (number, device, block) = match bytes.len() {
            56 => (16, 24, 40_usize),
            52 => (12, 20, 36),
            other => return Err(damaged("the description of an inode has an impossible length").found(other)),
        };
        let len = le32(bytes, block.saturating_add(8));
        if !(1..=u32::from(MAX_BUFFER)).contains(&len) {
            return Err(damaged("the description of an inode is impossible"));
        }
        Ok(Self {
            regions: le16(bytes, 2),
            fields: le32(bytes, 4),
            number: le64(bytes, number),
            device: le32(bytes, device),
            place: Place { block: le64(bytes, block), len },
            offset: le32(bytes, block.saturating_add(12)),
        })
    }
}

/// New inodes (`xfs_icreate_log`), whose fields are big-endian.
#[derive(Clone, Copy, Debug)]
pub(super) struct Created {
    pub(super) agno: u32,
    pub(super) agbno: u32,
    pub(super) count: u32,
    pub(super) inode_len: u32,
    pub(super) blocks: u32,
    pub(super) generation: u32,
}

impl Created {
    pub(super) fn parse(item: &Item) -> Self {
        let bytes = item.description();
        Self {
            agno: be32(bytes, 4),
            agbno: be32(bytes, 8),
            count: be32(bytes, 12),
            inode_len: be32(bytes, 16),
            blocks: be32(bytes, 20),
            generation: be32(bytes, 24),
        }
    }
}

/// An intent's or its end's identifier.
pub(super) fn identifier(item: &Item) -> u64 {
    le64(item.description(), 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_over_bytes() {
        assert_eq!(runs(&[0b1000_0001, 0b11, 0, 0b1000_0000]), [(0, 1), (7, 3), (31, 1)]);
        assert_eq!(runs(&[]), []);
    }
}
