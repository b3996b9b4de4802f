//! The boot regions: where the tables, the root directory and the clusters lie (specification, section 3).

use std::num::NonZeroU64;
use std::ops::Range;

use super::{corrupt, geometry};
use crate::disk::bytes::{is_at, le16, le32, le64, long, u8_at};
use crate::error::Result;
use crate::fs::clusters::{FIRST, Heap};
use crate::fs::pages::Pages;

/// Bytes of a boot sector that are read.
const LEN: usize = 512;

/// Sectors of a boot region that its checksum covers; the checksum fills the one behind.
const COVERED: u64 = 11;

/// The first sector of the second boot region.
const BACKUP: u64 = 12;

const FLAG_SECOND_TABLE: u16 = 1;
const FLAG_DIRTY: u16 = 2;

/// What the boot sector says.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    /// Where clusters lie.
    pub(super) heap: Heap,
    /// Number of clusters.
    pub(super) clusters: u32,
    /// Where the table that counts begins.
    pub(super) table: u64,
    /// Which of two bitmaps counts.
    pub(super) bitmap: u8,
    /// The first cluster of the root directory.
    pub(super) root: u32,
    pub(super) serial: u32,
    /// Major and minor number of the specification.
    pub(super) revision: (u8, u8),
    pub(super) dirty: bool,
    /// Bytes that the file system covers.
    pub(super) size: u64,
}

impl Boot {
    /// The numbers of all clusters.
    pub(super) fn numbers(&self) -> Range<u32> {
        FIRST..self.clusters.saturating_add(FIRST)
    }
}

/// What the boot region says, or the second one where the first is damaged; whether it is the second.
pub(super) fn find(pages: &Pages) -> Result<(Boot, bool)> {
    let first = region(pages, 0);
    let Err(error) = first else { return first.map(|boot| (boot, false)) };
    // However large sectors are.
    for sector in [512_u64, 1024, 2048, 4096] {
        if let Ok(boot) = region(pages, sector.saturating_mul(BACKUP)) {
            return Ok((boot, true));
        }
    }
    Err(error)
}

fn region(pages: &Pages, at: u64) -> Result<Boot> {
    let bytes = pages.bytes(at, LEN)?;
    if !is_at(&bytes, 3, b"EXFAT   ") || !is_at(&bytes, 510, &[0x55, 0xaa]) {
        return Err(corrupt("the boot sector does not name exFAT").offset(at));
    }
    let sector = match u8_at(&bytes, 108) {
        shift @ 9..=12 => 1_u64.wrapping_shl(u32::from(shift)),
        shift => return Err(geometry("sectors have an impossible size").offset(at.saturating_add(108)).found(shift)),
    };
    let boot = parse(&bytes, sector, pages.volume_len())?;
    let covered = pages.bytes(at, usize::try_from(sector.saturating_mul(COVERED)).unwrap_or(0))?;
    let expected = le32(&pages.bytes(at.saturating_add(long(covered.len())), 4)?, 0);
    // The flags and the use in percent change while the volume is in use.
    let fixed = covered.iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
    let sum = checksum(fixed.map(|(_, byte)| *byte));
    if sum != expected {
        return Err(corrupt("the checksum of the boot region is wrong").offset(at).expected(expected).found(sum));
    }
    Ok(boot)
}

fn parse(bytes: &[u8], sector: u64, volume: u64) -> Result<Boot> {
    let per_cluster = 1_u64.checked_shl(u32::from(u8_at(bytes, 109))).unwrap_or(0);
    let cluster = per_cluster.saturating_mul(sector);
    let cluster = NonZeroU64::new(cluster).filter(|cluster| cluster.get() <= 32 << 20);
    let cluster = cluster.ok_or_else(|| geometry("clusters have an impossible size").offset(109))?;
    let size = le64(bytes, 72).saturating_mul(sector);
    if size == 0 || size > volume {
        return Err(geometry("the file system is larger than its volume").expected(size).found(volume));
    }
    let place = |at: usize| u64::from(le32(bytes, at)).saturating_mul(sector);
    let (tables, table_len, start) = (place(80), place(84), place(88));
    let clusters = le32(bytes, 92);
    let heap_len = u64::from(clusters).saturating_mul(cluster.get());
    if clusters == 0 || clusters > 0xffff_fff5 || start.saturating_add(heap_len) > size {
        return Err(geometry("there are more clusters than the volume holds").offset(92).found(clusters));
    }
    let flags = le16(bytes, 106);
    let count = match u8_at(bytes, 110) {
        count @ (1 | 2) => u64::from(count),
        count => return Err(geometry("an impossible number of tables").offset(110).found(count)),
    };
    let needed = u64::from(clusters).saturating_add(u64::from(FIRST)).saturating_mul(4);
    if table_len < needed || tables.saturating_add(table_len.saturating_mul(count)) > start {
        return Err(geometry("the tables of clusters do not fit").offset(80).expected(needed).found(table_len));
    }
    let second = count == 2 && flags & FLAG_SECOND_TABLE != 0;
    let boot = Boot {
        heap: Heap { start, cluster },
        clusters,
        table: if second { tables.saturating_add(table_len) } else { tables },
        bitmap: u8::from(second),
        root: le32(bytes, 96),
        serial: le32(bytes, 100),
        revision: (u8_at(bytes, 105), u8_at(bytes, 104)),
        dirty: flags & FLAG_DIRTY != 0,
        size,
    };
    if !boot.numbers().contains(&boot.root) {
        return Err(geometry("the root directory is no cluster of this volume").offset(96).found(boot.root));
    }
    Ok(boot)
}

/// The sum of section 3.4, and of the table of upper case.
pub(super) fn checksum(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0_u32, |sum, byte| sum.rotate_right(1).wrapping_add(u32::from(byte)))
}
