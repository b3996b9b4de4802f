//! Keys: what every item of every tree is sorted by.

use crate::disk::bytes::{le64, u8_at};

/// Bytes of a key on disk.
pub(super) const LEN: usize = 17;

/// A `btrfs_disk_key`: object, kind of item, and what the kind makes of the rest. Sorts as the trees do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) objectid: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl Key {
    pub(super) const fn new(objectid: u64, kind: u8, offset: u64) -> Self {
        Self { objectid, kind, offset }
    }

    /// The key at `at`; zeros past the end.
    pub(super) fn read(bytes: &[u8], at: usize) -> Self {
        Self {
            objectid: le64(bytes, at),
            kind: u8_at(bytes, at.saturating_add(8)),
            offset: le64(bytes, at.saturating_add(9)),
        }
    }

    /// The key before; `None` before the first one of all.
    pub(super) const fn previous(self) -> Option<Self> {
        let Self { objectid, kind, offset } = self;
        if let Some(offset) = offset.checked_sub(1) {
            return Some(Self { objectid, kind, offset });
        }
        if let Some(kind) = kind.checked_sub(1) {
            return Some(Self { objectid, kind, offset: u64::MAX });
        }
        match objectid.checked_sub(1) {
            Some(objectid) => Some(Self { objectid, kind: u8::MAX, offset: u64::MAX }),
            None => None,
        }
    }

    /// Whether this is an item of `kind` of `objectid`.
    pub(super) const fn is(self, objectid: u64, kind: u8) -> bool {
        self.objectid == objectid && self.kind == kind
    }
}

/// Kinds of items (`BTRFS_*_KEY`).
pub(super) mod kind {
    pub(in super::super) const INODE_ITEM: u8 = 1;
    pub(in super::super) const INODE_REF: u8 = 12;
    pub(in super::super) const INODE_EXTREF: u8 = 13;
    pub(in super::super) const XATTR_ITEM: u8 = 24;
    pub(in super::super) const DIR_LOG_INDEX: u8 = 72;
    pub(in super::super) const DIR_ITEM: u8 = 84;
    pub(in super::super) const DIR_INDEX: u8 = 96;
    pub(in super::super) const EXTENT_DATA: u8 = 108;
    pub(in super::super) const EXTENT_CSUM: u8 = 128;
    pub(in super::super) const ROOT_ITEM: u8 = 132;
    pub(in super::super) const ROOT_BACKREF: u8 = 144;
    pub(in super::super) const ROOT_REF: u8 = 156;
    pub(in super::super) const EXTENT_ITEM: u8 = 168;
    pub(in super::super) const METADATA_ITEM: u8 = 169;
    pub(in super::super) const TREE_BLOCK_REF: u8 = 176;
    pub(in super::super) const EXTENT_DATA_REF: u8 = 178;
    pub(in super::super) const SHARED_BLOCK_REF: u8 = 182;
    pub(in super::super) const SHARED_DATA_REF: u8 = 184;
    pub(in super::super) const BLOCK_GROUP_ITEM: u8 = 192;
    pub(in super::super) const FREE_SPACE_INFO: u8 = 198;
    pub(in super::super) const FREE_SPACE_EXTENT: u8 = 199;
    pub(in super::super) const FREE_SPACE_BITMAP: u8 = 200;
    pub(in super::super) const DEV_EXTENT: u8 = 204;
    pub(in super::super) const DEV_ITEM: u8 = 216;
    pub(in super::super) const CHUNK_ITEM: u8 = 228;
    pub(in super::super) const QGROUP_STATUS: u8 = 240;
    pub(in super::super) const DEV_REPLACE: u8 = 250;
}

/// Objects with a number of their own (`BTRFS_*_OBJECTID`).
pub(super) mod id {
    pub(in super::super) const ROOT_TREE: u64 = 1;
    pub(in super::super) const EXTENT_TREE: u64 = 2;
    pub(in super::super) const CHUNK_TREE: u64 = 3;
    pub(in super::super) const DEV_TREE: u64 = 4;
    /// The top-level subvolume.
    pub(in super::super) const FS_TREE: u64 = 5;
    pub(in super::super) const CSUM_TREE: u64 = 7;
    pub(in super::super) const QUOTA_TREE: u64 = 8;
    pub(in super::super) const FREE_SPACE_TREE: u64 = 10;
    pub(in super::super) const BLOCK_GROUP_TREE: u64 = 11;
    pub(in super::super) const TREE_LOG: u64 = 6_u64.wrapping_neg();
    pub(in super::super) const TREE_RELOC: u64 = 8_u64.wrapping_neg();
    pub(in super::super) const EXTENT_CSUM: u64 = 10_u64.wrapping_neg();
    /// The first number of a subvolume, an inode (the root directory's) and a chunk.
    pub(in super::super) const FIRST_FREE: u64 = 256;
    pub(in super::super) const LAST_FREE: u64 = 256_u64.wrapping_neg();
    pub(in super::super) const DEV_ITEMS: u64 = 1;
}

/// Whether a tree is a subvolume (`is_fstree`): the highest 16 bits belong to quota groups.
pub(super) const fn is_subvolume(id: u64) -> bool {
    id == id::FS_TREE || (id >= id::FIRST_FREE && id <= id::LAST_FREE && id >> 48 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_carry_over() {
        for (a, b) in [
            (Key::new(1, 2, 3), Key::new(1, 2, 4)),
            (Key::new(1, 2, u64::MAX), Key::new(1, 3, 0)),
            (Key::new(1, u8::MAX, u64::MAX), Key::new(2, 0, 0)),
        ] {
            assert_eq!(b.previous(), Some(a));
            assert!(a < b);
        }
        assert_eq!(Key::new(0, 0, 0).previous(), None);
    }
}
