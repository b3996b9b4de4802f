//! The feature bits of the superblock: their names, and what this driver makes of each.

use crate::fs::flags;

pub(super) const COMPAT_HAS_JOURNAL: u32 = 0x4;
pub(super) const COMPAT_EXT_ATTR: u32 = 0x8;
pub(super) const COMPAT_SPARSE_SUPER2: u32 = 0x200;
pub(super) const COMPAT_ORPHAN_FILE: u32 = 0x1000;

pub(super) const INCOMPAT_FILETYPE: u32 = 0x2;
pub(super) const INCOMPAT_RECOVER: u32 = 0x4;
pub(super) const INCOMPAT_META_BG: u32 = 0x10;
pub(super) const INCOMPAT_EXTENTS: u32 = 0x40;
pub(super) const INCOMPAT_64BIT: u32 = 0x80;
pub(super) const INCOMPAT_CSUM_SEED: u32 = 0x2000;
pub(super) const INCOMPAT_LARGEDIR: u32 = 0x4000;

pub(super) const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
pub(super) const RO_COMPAT_LARGE_FILE: u32 = 0x2;
pub(super) const RO_COMPAT_HUGE_FILE: u32 = 0x8;
pub(super) const RO_COMPAT_GDT_CSUM: u32 = 0x10;
pub(super) const RO_COMPAT_DIR_NLINK: u32 = 0x20;
pub(super) const RO_COMPAT_BIGALLOC: u32 = 0x200;
pub(super) const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
pub(super) const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;
pub(super) const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// Incompatible features that reading knows: filetype, recover, meta_bg, extents, 64bit, mmp, flex_bg, ea_inode,
/// metadata_csum_seed, large_dir, inline_data, encrypt, casefold.
const INCOMPAT_READ: u32 = 0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x3_0000;
/// Read-only compatible features that writing keeps right: sparse_super, large_file, btree_dir, huge_file, uninit_bg,
/// dir_nlink, extra_isize, metadata_csum, verity, orphan_present.
const RO_COMPAT_WRITE: u32 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400 | 0x8000 | 0x1_0000;

const COMPAT: &[(u32, &str)] = &[
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (0x4, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (0x20, "dir_index"),
    (0x40, "lazy_bg"),
    (0x100, "snapshot_bitmap"),
    (0x200, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (0x1000, "orphan_file"),
];
const INCOMPAT: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x2, "filetype"),
    (0x4, "needs_recovery"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x40, "extent"),
    (0x80, "64bit"),
    (0x100, "mmp"),
    (0x200, "flex_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x2000, "metadata_csum_seed"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const RO_COMPAT: &[(u32, &str)] = &[
    (0x1, "sparse_super"),
    (0x2, "large_file"),
    (0x8, "huge_file"),
    (0x10, "uninit_bg"),
    (0x20, "dir_nlink"),
    (0x40, "extra_isize"),
    (0x80, "snapshot"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x400, "metadata_csum"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x2000, "project"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

/// The names of all features, in the order that `dumpe2fs` prints them.
pub(super) fn names(compat: u32, incompat: u32, ro_compat: u32) -> Vec<String> {
    let mut names = flags::names(compat, COMPAT, "FEATURE_C");
    names.extend(flags::names(incompat, INCOMPAT, "FEATURE_I"));
    names.extend(flags::names(ro_compat, RO_COMPAT, "FEATURE_R"));
    names
}

/// The incompatible features that keep this driver from reading.
pub(super) fn unreadable(incompat: u32) -> Vec<String> {
    flags::names(incompat & !INCOMPAT_READ, INCOMPAT, "FEATURE_I")
}

/// The features that keep this driver from writing.
pub(super) fn unwritable(ro_compat: u32) -> Vec<String> {
    flags::names(ro_compat & !RO_COMPAT_WRITE, RO_COMPAT, "FEATURE_R")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names_and_verdicts() {
        assert_eq!(names(0x24, 0x2c2, 0), ["has_journal", "dir_index", "filetype", "extent", "64bit", "flex_bg"]);
        assert_eq!(unreadable(0x4000_0001 | 0x40), ["compression", "FEATURE_I30"]);
        assert_eq!(unwritable(0x200 | 0x400), ["bigalloc"]);
    }
}
