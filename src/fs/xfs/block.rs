//! What every metadata block of version 5 says of itself, and where, by its magic number: checksum, place, owner, file
//! system and the log sequence number (LSN) of its last change.

use crate::disk::bytes::{array, be16, be32, be64, put, put_be64};
use crate::error::{Error, Result};

use super::corrupt;

/// Where the checksum of a superblock is.
pub(super) const SUPERBLOCK_CRC: usize = 224;
/// Where the checksum of a version 3 inode is.
pub(super) const INODE_CRC: usize = 100;

pub(super) const BNO_V4: u32 = 0x4142_5442;
pub(super) const BNO_V5: u32 = 0x4142_3342;
pub(super) const BMAP_V4: u32 = 0x424d_4150;
pub(super) const BMAP_V5: u32 = 0x424d_4133;
pub(super) const REFCOUNT: u32 = 0x5233_4643;
pub(super) const AGF: u32 = 0x5841_4746;
pub(super) const AGI: u32 = 0x5841_4749;
pub(super) const AGFL: u32 = 0x5841_464c;
pub(super) const SYMLINK: u32 = 0x5853_4c4d;
pub(super) const ATTR_REMOTE: u32 = 0x5841_524d;
pub(super) const DIR_BLOCK_V4: u32 = 0x5844_3242;
pub(super) const DIR_BLOCK_V5: u32 = 0x5844_4233;
pub(super) const DIR_DATA_V4: u32 = 0x5844_3244;
pub(super) const DIR_DATA_V5: u32 = 0x5844_4433;
pub(super) const NODE_V4: u16 = 0xfebe;
pub(super) const NODE_V5: u16 = 0x3ebe;
pub(super) const LEAF1_V4: u16 = 0xd2f1;
pub(super) const LEAF1_V5: u16 = 0x3df1;
pub(super) const LEAFN_V4: u16 = 0xd2ff;
pub(super) const LEAFN_V5: u16 = 0x3dff;
pub(super) const ATTR_LEAF_V4: u16 = 0xfbee;
pub(super) const ATTR_LEAF_V5: u16 = 0x3bee;

/// Free space by size, inodes, free inodes, reverse map, reference counts, directory free index: of version 5.
const SHORT_V5: [u32; 6] = [BNO_V5, 0x4142_3343, 0x4941_4233, 0x4649_4233, 0x524d_4233, REFCOUNT];
const DIR_FREE_V5: u32 = 0x5844_4633;

/// Where a block says what of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) crc: usize,
    pub(super) lsn: usize,
    pub(super) uuid: usize,
    /// Its place in units of 512 bytes.
    pub(super) blkno: Option<usize>,
    /// The inode or, if it is short, the allocation group that it belongs to.
    pub(super) owner: Option<usize>,
    pub(super) short_owner: bool,
}

/// The layout of a block of version 5; none if it is of no kind that describes itself.
pub(super) fn layout(bytes: &[u8]) -> Option<Layout> {
    let layout = |crc, lsn, uuid, blkno, owner| Layout { crc, lsn, uuid, blkno, owner, short_owner: false };
    match be32(bytes, 0) {
        magic if SHORT_V5.contains(&magic) => {
            Some(Layout { short_owner: true, ..layout(52, 24, 32, Some(16), Some(48)) })
        }
        BMAP_V5 => Some(layout(64, 32, 40, Some(24), Some(56))),
        AGF => Some(layout(216, 208, 64, None, None)),
        AGI => Some(layout(312, 320, 296, None, None)),
        AGFL => Some(layout(32, 24, 8, None, None)),
        SYMLINK | ATTR_REMOTE => Some(layout(12, 48, 16, Some(40), Some(32))),
        DIR_BLOCK_V5 | DIR_DATA_V5 | DIR_FREE_V5 => Some(layout(4, 16, 24, Some(8), Some(40))),
        _ => match be16(bytes, 8) {
            NODE_V5 | LEAF1_V5 | LEAFN_V5 | ATTR_LEAF_V5 => Some(layout(12, 24, 32, Some(16), Some(48))),
            _ => None,
        },
    }
}

/// Verifies a block of version 5 that was read from byte `offset` of the volume and belongs to `owner`.
pub(super) fn verify(bytes: &[u8], offset: u64, uuid: &[u8; 16], owner: Option<u64>) -> Result<()> {
    let Some(layout) = layout(bytes) else {
        return Err(corrupt("a metadata block has an unknown magic number").offset(offset).found(be32(bytes, 0)));
    };
    if !crc_is_right(bytes, layout.crc) {
        return Err(Error::corrupt("xfs.checksum", "the checksum of a metadata block is wrong").offset(offset));
    }
    if array::<16>(bytes, layout.uuid) != *uuid {
        return Err(corrupt("a metadata block belongs to another file system").offset(offset));
    }
    let place = offset >> 9;
    if let Some(found) = layout.blkno.map(|at| be64(bytes, at)).filter(|found| *found != place) {
        return Err(corrupt("a metadata block belongs elsewhere").offset(offset).expected(place).found(found));
    }
    let found = layout.owner.map(|at| if layout.short_owner { u64::from(be32(bytes, at)) } else { be64(bytes, at) });
    match (found, owner) {
        (Some(found), Some(owner)) if found != owner => {
            Err(corrupt("a metadata block belongs to something else").offset(offset).expected(owner).found(found))
        }
        _ => Ok(()),
    }
}

/// Whether the checksum at `at` is that of all of `bytes`.
pub(super) fn crc_is_right(bytes: &[u8], at: usize) -> bool {
    u32::from_le_bytes(array(bytes, at)) == crc(bytes, at)
}

/// Brings the checksum at `at` up to date.
pub(super) fn seal(bytes: &mut [u8], at: usize) {
    let sum = crc(bytes, at);
    put(bytes, at, &sum.to_le_bytes());
}

/// Notes in a block of version 5 that it was last changed by `lsn`.
pub(super) fn stamp(bytes: &mut [u8], layout: Layout, lsn: u64) {
    put_be64(bytes, layout.lsn, lsn);
    seal(bytes, layout.crc);
}

/// CRC-32C of `bytes` with the four at `at` taken as 0.
fn crc(bytes: &[u8], at: usize) -> u32 {
    let (head, rest) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    let sum = crc32c::crc32c_append(crc32c::crc32c(head), &[0; 4]);
    crc32c::crc32c_append(sum, rest.get(4..).unwrap_or_default())
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
    use crate::disk::bytes::{put_be32, put_be64};

    fn sealed(magic: u32) -> Vec<u8> {
        let mut bytes = vec![7; 512];
        put_be32(&mut bytes, 0, magic);
        let layout = layout(&bytes).unwrap();
        put(&mut bytes, layout.uuid, &[9; 16]);
        if let Some(at) = layout.blkno {
            put_be64(&mut bytes, at, 8);
        }
        match layout.owner {
            Some(at) if layout.short_owner => put_be32(&mut bytes, at, 3),
            Some(at) => put_be64(&mut bytes, at, 3),
            None => {}
        }
        stamp(&mut bytes, layout, 77);
        bytes
    }

    #[test]
    fn what_a_block_says_of_itself_must_be_true() {
        for magic in [BNO_V5, BMAP_V5, SYMLINK, ATTR_REMOTE, DIR_BLOCK_V5, DIR_FREE_V5] {
            let good = sealed(magic);
            verify(&good, 4096, &[9; 16], Some(3)).unwrap();
            verify(&good, 4096, &[9; 16], None).unwrap();
            assert!(verify(&good, 8192, &[9; 16], Some(3)).is_err());
            assert!(verify(&good, 4096, &[8; 16], Some(3)).is_err());
            assert!(verify(&good, 4096, &[9; 16], Some(4)).is_err());
            let mut bad = good.clone();
            bad[500] ^= 1;
            assert_eq!(verify(&bad, 4096, &[9; 16], Some(3)).unwrap_err().code(), "xfs.checksum");
        }
        assert!(verify(&[0; 512], 0, &[0; 16], None).is_err());
        assert!(verify(&[], 0, &[0; 16], None).is_err());
    }
}
