//! The boot sector, and where the master file table begins.

use std::num::NonZeroU64;

use super::{corrupt, geometry};
use crate::disk::bytes::{is_at, le16, le64, u8_at};
use crate::error::Result;
use crate::fs::pages::Pages;

/// Bytes of the boot sector that are read.
const LEN: usize = 512;

/// What the boot sector says.
#[derive(Clone, Debug)]
pub(super) struct Boot {
    /// Bytes of a cluster.
    pub(super) cluster: NonZeroU64,
    /// Number of clusters.
    pub(super) clusters: u64,
    /// Where the master file table and the copy of its first records begin, in bytes.
    pub(super) mft: u64,
    pub(super) mirror: u64,
    /// Bytes of a file record.
    pub(super) record: usize,
    pub(super) serial: u64,
    /// Bytes that the file system covers.
    pub(super) size: u64,
}

/// The boot sector, or its copy in the last sector where the first one is damaged; whether it is the copy.
pub(super) fn find(pages: &Pages) -> Result<(Boot, bool)> {
    let volume = pages.volume_len();
    let first = pages.bytes(0, LEN).and_then(|bytes| parse(&bytes, volume));
    let Err(error) = first else { return first.map(|boot| (boot, false)) };
    let last = volume.saturating_sub(512) & !511;
    let copy = pages.bytes(last, LEN).and_then(|bytes| parse(&bytes, volume));
    copy.map(|boot| (boot, true)).map_err(|_| error)
}

fn parse(bytes: &[u8], volume: u64) -> Result<Boot> {
    if !is_at(bytes, 3, b"NTFS    ") {
        return Err(corrupt("the boot sector does not name NTFS").offset(3));
    }
    let sector = u64::from(le16(bytes, 11));
    if !(sector.is_power_of_two() && (256..=4096).contains(&sector)) {
        return Err(geometry("sectors have an impossible size").offset(11).found(sector));
    }
    // More than 128 stands for a negative power of two.
    let per_cluster = match u8_at(bytes, 13) {
        count @ 0..=0x80 => u64::from(count),
        power => 1_u64.checked_shl(256_u32.saturating_sub(u32::from(power))).unwrap_or(0),
    };
    let cluster = per_cluster.saturating_mul(sector);
    if !cluster.is_power_of_two() || cluster > 2 << 20 {
        return Err(geometry("clusters have an impossible size").offset(13).found(cluster));
    }
    let cluster = NonZeroU64::new(cluster).ok_or_else(|| geometry("clusters are empty"))?;
    let size = le64(bytes, 40).saturating_mul(sector);
    if size == 0 || size > volume {
        return Err(geometry("the file system is larger than its volume").expected(size).found(volume));
    }
    let record = match i8::from_le_bytes([u8_at(bytes, 64)]) {
        count @ 1.. => u64::from(count.unsigned_abs()).saturating_mul(cluster.get()),
        power => 1_u64.checked_shl(u32::from(power.unsigned_abs())).unwrap_or(0),
    };
    if !(record.is_power_of_two() && (512..=65536).contains(&record)) {
        return Err(geometry("file records have an impossible size").offset(64).found(record));
    }
    let place = |at: usize| le64(bytes, at).saturating_mul(cluster.get());
    let (mft, mirror) = (place(48), place(56));
    if mft == 0 || mft >= size {
        return Err(geometry("the master file table lies outside of the file system").offset(48).found(mft));
    }
    Ok(Boot {
        cluster,
        clusters: size / cluster,
        mft,
        mirror,
        record: usize::try_from(record).unwrap_or(0),
        serial: le64(bytes, 72),
        size,
    })
}
