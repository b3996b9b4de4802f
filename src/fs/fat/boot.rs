//! The boot sector: where the tables, the root directory and the clusters lie.

use std::num::NonZeroU64;
use std::ops::Range;

use super::corrupt;
use crate::disk::bytes::{is_at, le16, le32, text, u8_at};
use crate::error::{Error, Result};
use crate::fs::clusters::{FIRST, Heap};

/// Bytes of the part of a boot sector that is read.
pub(super) const LEN: usize = 512;

/// Bytes of a directory entry.
pub(super) const SLOT: u64 = 32;

/// How wide the entries of the table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
        }
    }

    /// Bits of an entry that count; the upper four of FAT32 are kept as they are.
    pub(super) const fn mask(self) -> u32 {
        match self {
            Self::Fat12 => 0xfff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0x0fff_ffff,
        }
    }

    /// Bits of an entry on the disk.
    pub(super) const fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }
}

/// Where the root directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// A region of its own, in bytes of the volume.
    Region(Range<u64>),
    /// A chain of clusters.
    Chain(u32),
}

/// What the boot sector says (Microsoft, "FAT: General Overview of On-Disk Format", section "Boot Sector and BPB").
#[derive(Clone, Debug)]
pub(super) struct Boot {
    pub(super) width: Width,
    /// `BPB_BytsPerSec`.
    pub(super) sector: NonZeroU64,
    /// Bytes of a cluster.
    pub(super) cluster: NonZeroU64,
    /// Number of clusters.
    pub(super) clusters: u32,
    /// Bytes that the file system covers.
    pub(super) size: u64,
    /// Where the tables begin that are written, the one that is read first.
    pub(super) tables: Vec<u64>,
    pub(super) root: Root,
    /// Where cluster 2 begins.
    pub(super) data: u64,
    /// Where the FSInfo sector is, if there is one.
    pub(super) fs_info: Option<u64>,
    /// `BS_VolID`.
    pub(super) serial: u32,
    /// `BS_VolLab`, unless it says that there is none.
    pub(super) label: Option<String>,
    /// The dirty bit that the kernel sets while it has the volume mounted.
    pub(super) mounted: bool,
}

impl Boot {
    /// Parses the boot sector of a volume of `volume` bytes.
    pub(super) fn parse(bytes: &[u8], volume: u64) -> Result<Self> {
        if !is_at(bytes, 510, &[0x55, 0xaa]) {
            return Err(corrupt("the boot sector has no signature").offset(510));
        }
        let raw = Raw::parse(bytes)?;
        let sector = raw.sector.get();
        let sectors = |count: u64| count.saturating_mul(sector);
        let root_len = u64::from(raw.root_entries).saturating_mul(SLOT);
        let table = raw.table_sectors;
        let root_start = raw.reserved.saturating_add(raw.tables.saturating_mul(table));
        let data = root_start.saturating_add(root_len.div_ceil(sector));
        let clusters = raw.total.checked_sub(data).map_or(0, |left| left / raw.per_cluster);
        if clusters == 0 {
            return Err(geometry("there is no room for clusters").found(raw.total));
        }
        let width = match clusters {
            _ if raw.is_32 => Width::Fat32,
            0..=4084 => Width::Fat12,
            _ => Width::Fat16,
        };
        // The table may have room for less, or for more.
        let entries = sectors(table).saturating_mul(8).checked_div(width.bits()).unwrap_or(0);
        let highest = u64::from(width.mask()).saturating_sub(9);
        let clusters = clusters.min(entries.saturating_sub(u64::from(FIRST))).min(highest);
        let size = sectors(raw.total);
        if size > volume {
            return Err(geometry("the file system is larger than its volume").expected(size).found(volume));
        }
        let root = match width {
            Width::Fat32 => Root::Chain(raw.root_cluster),
            Width::Fat12 | Width::Fat16 => {
                let start = sectors(root_start);
                Root::Region(start..start.saturating_add(root_len))
            }
        };
        let table_at = |index: u64| sectors(raw.reserved.saturating_add(table.saturating_mul(index)));
        let active = raw.active.filter(|active| *active < raw.tables);
        Ok(Self {
            width,
            sector: raw.sector,
            cluster: NonZeroU64::new(sectors(raw.per_cluster.get())).ok_or_else(|| geometry("clusters are empty"))?,
            clusters: u32::try_from(clusters).map_err(|_| geometry("there are too many clusters"))?,
            size,
            tables: active.map_or_else(|| (0..raw.tables).map(table_at).collect(), |one| vec![table_at(one)]),
            root,
            data: sectors(data),
            fs_info: raw.fs_info.filter(|at| *at < raw.reserved).map(sectors),
            serial: raw.serial,
            label: raw.label,
            mounted: raw.mounted,
        })
    }

    /// The clusters' numbers.
    pub(super) fn numbers(&self) -> Range<u32> {
        FIRST..self.clusters.saturating_add(FIRST)
    }

    /// Where a cluster begins.
    pub(super) fn place(&self, cluster: u32) -> u64 {
        self.heap().place(cluster)
    }

    /// Where clusters lie.
    pub(super) fn heap(&self) -> Heap {
        Heap { start: self.data, cluster: self.cluster }
    }
}

/// The fields, checked one by one.
struct Raw {
    sector: NonZeroU64,
    per_cluster: NonZeroU64,
    reserved: u64,
    tables: u64,
    table_sectors: u64,
    root_entries: u16,
    total: u64,
    is_32: bool,
    active: Option<u64>,
    root_cluster: u32,
    fs_info: Option<u64>,
    serial: u32,
    label: Option<String>,
    mounted: bool,
}

impl Raw {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let sector = le16(bytes, 11);
        if !(sector.is_power_of_two() && (512..=4096).contains(&sector)) {
            return Err(geometry("sectors have an impossible size").offset(11).found(sector));
        }
        let per_cluster = u8_at(bytes, 13);
        if !per_cluster.is_power_of_two() {
            return Err(geometry("clusters have an impossible number of sectors").offset(13).found(per_cluster));
        }
        let (reserved, tables, short) = (le16(bytes, 14), u8_at(bytes, 16), le16(bytes, 22));
        // FAT32 says so by having no number of sectors where the older ones have it.
        let is_32 = short == 0;
        let table_sectors = if is_32 { le32(bytes, 36) } else { u32::from(short) };
        if reserved == 0 || tables == 0 || table_sectors == 0 {
            return Err(geometry("there is no boot sector or no table").offset(14));
        }
        if is_32 && le16(bytes, 42) != 0 {
            return Err(
                Error::unsupported("fat.feature", "a version of FAT32 that is not known").found(le16(bytes, 42))
            );
        }
        let total = match le16(bytes, 19) {
            0 => le32(bytes, 32),
            total => u32::from(total),
        };
        let flags = le16(bytes, 40);
        // BS_Reserved1, BS_BootSig, BS_VolID and BS_VolLab.
        let extended = bytes.get(if is_32 { 65 } else { 37 }..).unwrap_or_default();
        let label = extended.get(6..17).filter(|_| u8_at(extended, 1) == 0x29).and_then(text);
        Ok(Self {
            sector: NonZeroU64::new(u64::from(sector)).ok_or_else(|| geometry("sectors are empty"))?,
            per_cluster: NonZeroU64::new(u64::from(per_cluster)).ok_or_else(|| geometry("clusters are empty"))?,
            reserved: u64::from(reserved),
            tables: u64::from(tables),
            table_sectors: u64::from(table_sectors),
            root_entries: if is_32 { 0 } else { le16(bytes, 17) },
            total: u64::from(total),
            is_32,
            active: (is_32 && flags & 0x80 != 0).then_some(u64::from(flags & 0xf)),
            root_cluster: le32(bytes, 44),
            fs_info: Some(u64::from(le16(bytes, 48))).filter(|at| is_32 && !matches!(at, 0 | 0xffff)),
            serial: if matches!(u8_at(extended, 1), 0x28 | 0x29) { le32(extended, 2) } else { 0 },
            label: label.filter(|label| label != "NO NAME"),
            mounted: u8_at(extended, 0) & 1 != 0,
        })
    }
}

fn geometry(what: &str) -> Error {
    Error::corrupt("fat.geometry", what)
}
