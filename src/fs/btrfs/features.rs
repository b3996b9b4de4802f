//! Feature bits, by the names that `/sys/fs/btrfs/features` gives them.

use crate::error::{Error, Result};

pub(super) const INCOMPAT_NO_HOLES: u64 = 1 << 9;
pub(super) const INCOMPAT_METADATA_UUID: u64 = 1 << 10;
pub(super) const INCOMPAT_MIXED_BACKREF: u64 = 1;
pub(super) const INCOMPAT_EXTENDED_IREF: u64 = 1 << 6;
pub(super) const INCOMPAT_SKINNY_METADATA: u64 = 1 << 8;
const INCOMPAT_SIMPLE_QUOTA: u64 = 1 << 16;
pub(super) const COMPAT_RO_FREE_SPACE_TREE: u64 = 1;
pub(super) const COMPAT_RO_FREE_SPACE_TREE_VALID: u64 = 1 << 1;
pub(super) const COMPAT_RO_BLOCK_GROUP_TREE: u64 = 1 << 3;

const INCOMPAT: &[(u32, &str)] = &[
    (0, "mixed_backref"),
    (1, "default_subvol"),
    (2, "mixed_groups"),
    (3, "compress_lzo"),
    (4, "compress_zstd"),
    (5, "big_metadata"),
    (6, "extended_iref"),
    (7, "raid56"),
    (8, "skinny_metadata"),
    (9, "no_holes"),
    (10, "metadata_uuid"),
    (11, "raid1c34"),
    (12, "zoned"),
    (13, "extent_tree_v2"),
    (14, "raid_stripe_tree"),
    (16, "simple_quota"),
    (17, "remap_tree"),
];

const COMPAT_RO: &[(u32, &str)] =
    &[(0, "free_space_tree"), (1, "free_space_tree_valid"), (2, "verity"), (3, "block_group_tree")];

/// Features that change where things lie, of which the driver knows the name only.
const UNREADABLE: u64 = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17;

/// The names of all features that are set.
pub(super) fn names(incompat: u64, compat_ro: u64) -> Vec<String> {
    let mut names = of(incompat, INCOMPAT);
    names.extend(of(compat_ro, COMPAT_RO));
    names
}

/// Refuses what cannot be read, by name.
pub(super) fn check(incompat: u64) -> Result<()> {
    let known = INCOMPAT.iter().fold(0, |bits, (bit, _)| bits | 1_u64.wrapping_shl(*bit));
    let bad = incompat & (UNREADABLE | !known);
    if bad == 0 {
        return Ok(());
    }
    let what = format!("the file system has features that cannot be read: {}", of(bad, INCOMPAT).join(" "));
    Err(Error::unsupported("btrfs.feature", what))
}

/// Whether every feature that matters to who writes is known.
pub(super) fn all_known(compat_ro: u64) -> bool {
    COMPAT_RO.iter().fold(compat_ro, |bits, (bit, _)| bits & !1_u64.wrapping_shl(*bit)) == 0
}

/// Refuses to write where that takes more than reading, by name.
pub(super) fn check_writable(incompat: u64, compat_ro: u64) -> Result<()> {
    let mut bad = of(incompat & INCOMPAT_SIMPLE_QUOTA, INCOMPAT);
    let known = COMPAT_RO.iter().fold(0, |bits, (bit, _)| bits | 1_u64.wrapping_shl(*bit));
    bad.extend(of(compat_ro & !known, COMPAT_RO));
    if incompat & INCOMPAT_MIXED_BACKREF == 0 {
        bad.push("back references of before 2009".to_owned());
    }
    if bad.is_empty() {
        return Ok(());
    }
    let what = format!("the file system has features that cannot be written: {}", bad.join(" "));
    Err(Error::unsupported("btrfs.feature", what))
}

fn of(bits: u64, table: &[(u32, &str)]) -> Vec<String> {
    let is_set = |bit: &u32| bits & 1_u64.wrapping_shl(*bit) != 0;
    let name = |bit: u32| {
        let name = table.iter().find(|(known, _)| *known == bit).map(|(_, name)| (*name).to_owned());
        name.unwrap_or_else(|| format!("bit_{bit}"))
    };
    (0..u64::BITS).filter(is_set).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named() {
        assert!(check_writable(1 | 1 << 9, 15).is_ok());
        for (incompat, compat_ro, name) in [(1 | 1 << 16, 0, "simple_quota"), (1, 1 << 4, "bit_4"), (0, 0, "2009")] {
            let error = check_writable(incompat, compat_ro).unwrap_err();
            assert!(error.to_string().ends_with(name), "{error}");
        }
    }

    #[test]
    fn features_are_named_and_refused_by_name() {
        assert_eq!(names(1 << 9 | 1, 1 << 3), ["mixed_backref", "no_holes", "block_group_tree"]);
        assert!(check(0xfff).is_ok() && check(1 << 16).is_ok());
        for (bit, name) in
            [(12, "zoned"), (13, "extent_tree_v2"), (14, "raid_stripe_tree"), (15, "bit_15"), (63, "bit_63")]
        {
            let error = check(1 << bit | 1).unwrap_err();
            assert_eq!(error.code(), "btrfs.feature");
            assert!(error.to_string().ends_with(name), "{error}");
        }
        assert!(all_known(15) && !all_known(16));
    }
}
