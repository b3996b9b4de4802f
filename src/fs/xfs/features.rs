//! The feature bits of the superblock: their names, and what this driver makes of each.

use crate::fs::flags;

pub(super) const VERSION_NUMBITS: u16 = 0x000f;
pub(super) const VERSION_ATTR: u16 = 0x0010;
pub(super) const VERSION_QUOTA: u16 = 0x0040;
pub(super) const VERSION_ALIGN: u16 = 0x0080;
pub(super) const VERSION_LOGV2: u16 = 0x0400;
pub(super) const VERSION_DIRV2: u16 = 0x2000;
pub(super) const VERSION_BORG: u16 = 0x4000;
pub(super) const VERSION_MOREBITS: u16 = 0x8000;

pub(super) const VERSION2_LAZYSBCOUNT: u32 = 0x2;
pub(super) const VERSION2_FTYPE: u32 = 0x200;

pub(super) const VERSION2_ATTR2: u32 = 0x8;

const RO_COMPAT_FINOBT: u32 = 0x1;
const RO_COMPAT_RMAPBT: u32 = 0x2;
const RO_COMPAT_REFLINK: u32 = 0x4;
const RO_COMPAT_INOBTCNT: u32 = 0x8;
pub(super) const INCOMPAT_FTYPE: u32 = 0x1;
pub(super) const INCOMPAT_SPARSE: u32 = 0x2;
pub(super) const INCOMPAT_META_UUID: u32 = 0x4;
pub(super) const INCOMPAT_BIGTIME: u32 = 0x8;
pub(super) const INCOMPAT_NEEDSREPAIR: u32 = 0x10;
pub(super) const INCOMPAT_NREXT64: u32 = 0x20;
pub(super) const INCOMPAT_PARENT: u32 = 0x80;

/// Incompatible features that reading knows: ftype, sparse inodes, meta_uuid, bigtime, needsrepair, nrext64, exchange,
/// parent pointers.
const INCOMPAT_READ: u32 = 0xff;
/// Read-only compatible features whose log records this driver knows: finobt, rmapbt, reflink, inobtcount.
const RO_COMPAT_KNOWN: u32 = 0xf;
/// Features of the log that this driver knows: logged extended attributes.
const LOG_INCOMPAT_KNOWN: u32 = 0x1;

const VERSION: &[(u32, &str)] = &[
    (0x0010, "attr"),
    (0x0020, "nlink"),
    (0x0040, "quota"),
    (0x0080, "align"),
    (0x0100, "dalign"),
    (0x0200, "shared"),
    (0x0400, "logv2"),
    (0x0800, "sector"),
    (0x1000, "extflg"),
    (0x2000, "dirv2"),
    (0x4000, "ascii-ci"),
];
const VERSION2: &[(u32, &str)] =
    &[(0x2, "lazy-count"), (0x8, "attr2"), (0x10, "parent"), (0x80, "projid32bit"), (0x100, "crc"), (0x200, "ftype")];
const RO_COMPAT: &[(u32, &str)] = &[(0x1, "finobt"), (0x2, "rmapbt"), (0x4, "reflink"), (0x8, "inobtcount")];
const INCOMPAT: &[(u32, &str)] = &[
    (0x1, "ftype"),
    (0x2, "sparse"),
    (0x4, "meta_uuid"),
    (0x8, "bigtime"),
    (0x10, "needsrepair"),
    (0x20, "nrext64"),
    (0x40, "exchange"),
    (0x80, "parent"),
    (0x100, "metadir"),
    (0x200, "zoned"),
    (0x400, "zone-gaps"),
];

/// The feature words of a superblock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) version: u16,
    pub(super) features2: u32,
    pub(super) ro_compat: u32,
    pub(super) incompat: u32,
    pub(super) log_incompat: u32,
}

impl Features {
    /// Whether all metadata carries checksums: version 5.
    pub(super) fn has_crc(&self) -> bool {
        self.version & VERSION_NUMBITS == 5
    }

    /// Whether directory entries tell the kind of file.
    pub(super) fn has_ftype(&self) -> bool {
        if self.has_crc() { self.incompat & INCOMPAT_FTYPE != 0 } else { self.features2() & VERSION2_FTYPE != 0 }
    }

    /// Whether the superblock's counters are only right after a clean unmount.
    pub(super) fn has_lazy_count(&self) -> bool {
        self.has_crc() || self.features2() & VERSION2_LAZYSBCOUNT != 0
    }

    /// Whether files may share blocks.
    pub(super) fn has_reflink(&self) -> bool {
        self.has_crc() && self.ro_compat & RO_COMPAT_REFLINK != 0
    }

    /// Whether chunks of inodes with free ones have a tree of their own.
    pub(super) fn has_finobt(&self) -> bool {
        self.has_crc() && self.ro_compat & RO_COMPAT_FINOBT != 0
    }

    /// Whether groups know the owners of their blocks.
    pub(super) fn has_rmapbt(&self) -> bool {
        self.has_crc() && self.ro_compat & RO_COMPAT_RMAPBT != 0
    }

    /// Whether groups count the blocks of their trees of inodes.
    pub(super) fn has_inobt_counts(&self) -> bool {
        self.has_crc() && self.ro_compat & RO_COMPAT_INOBTCNT != 0
    }

    /// Whether chunks may lack some of their inodes.
    pub(super) fn has_sparse_inodes(&self) -> bool {
        self.has_crc() && self.incompat & INCOMPAT_SPARSE != 0
    }

    /// Whether files know their directories and names.
    pub(super) fn has_parent(&self) -> bool {
        self.has_crc() && self.incompat & INCOMPAT_PARENT != 0
    }

    /// Whether chunks of inodes are aligned.
    pub(super) fn has_alignment(&self) -> bool {
        self.version & VERSION_ALIGN != 0
    }

    /// `di_flags2` of new inodes: the forms of times and of counters of extents.
    pub(super) fn new_inode_flags(&self) -> u64 {
        let flag = |feature: u32, flag: u64| if self.incompat & feature != 0 { flag } else { 0 };
        flag(INCOMPAT_BIGTIME, super::node::FLAG2_BIGTIME) | flag(INCOMPAT_NREXT64, super::node::FLAG2_NREXT64)
    }

    /// Whether the attribute fork may begin anywhere in an inode.
    pub(super) fn has_attr2(&self) -> bool {
        self.has_crc() || self.features2() & VERSION2_ATTR2 != 0
    }

    /// Whether log records may have more than one header block.
    pub(super) fn has_log_v2(&self) -> bool {
        self.version & VERSION_LOGV2 != 0
    }

    /// Whether names are looked up without regard to the case of ASCII letters.
    pub(super) fn has_ascii_ci(&self) -> bool {
        self.version & VERSION_BORG != 0
    }

    fn features2(&self) -> u32 {
        if self.version & VERSION_MOREBITS == 0 { 0 } else { self.features2 }
    }

    /// The names of all features, as `xfs_info` and the kernel call them.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = vec![format!("v{}", self.version & VERSION_NUMBITS)];
        names.extend(flags::names(u32::from(self.version & !(VERSION_NUMBITS | VERSION_MOREBITS)), VERSION, "version"));
        names.extend(flags::names(self.features2(), VERSION2, "features2-"));
        if self.has_crc() {
            names.extend(flags::names(self.ro_compat, RO_COMPAT, "ro_compat-"));
            names.extend(flags::names(self.incompat, INCOMPAT, "incompat-"));
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// The features that keep this driver from reading.
    pub(super) fn unreadable(&self) -> Vec<String> {
        if self.has_crc() { flags::names(self.incompat & !INCOMPAT_READ, INCOMPAT, "incompat-") } else { Vec::new() }
    }

    /// The features that keep this driver from replaying the log, and from believing what is free.
    pub(super) fn unknown(&self) -> Vec<String> {
        if !self.has_crc() {
            return Vec::new();
        }
        let mut names = flags::names(self.ro_compat & !RO_COMPAT_KNOWN, RO_COMPAT, "ro_compat-");
        names.extend(flags::names(self.log_incompat & !LOG_INCOMPAT_KNOWN, &[], "log_incompat-"));
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names_and_verdicts() {
        let v5 = Features { version: 0xb4a5, features2: 0x18a, ro_compat: 0x15, incompat: 0x10b, log_incompat: 2 };
        let names = v5.names().join(" ");
        assert_eq!(
            names,
            "v5 nlink align logv2 extflg dirv2 lazy-count attr2 projid32bit crc finobt reflink ro_compat-4 ftype \
             sparse bigtime metadir"
        );
        assert_eq!(v5.unreadable(), ["metadir"]);
        assert_eq!(v5.unknown(), ["ro_compat-4", "log_incompat-1"]);
        let v4 = Features { version: 0x3424, incompat: 0xffff, ..Features::default() };
        assert!(!v4.has_crc() && !v4.has_ftype() && v4.unreadable().is_empty());
    }
}
