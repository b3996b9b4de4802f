//! Entries of the L1 and L2 tables (specification, "Cluster mapping").

use std::num::NonZeroU64;

use super::header::Header;
use crate::error::{Error, Result};

/// Bits 9 to 55 of an entry: a host offset.
pub(super) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Bit 63: the refcount is exactly one. Says nothing to a reader.
pub(super) const COPIED: u64 = 1 << 63;

/// Bit 62 of an L2 entry.
const COMPRESSED: u64 = 1 << 62;

/// Bit 0 of an L2 entry of version 3: reads as zeros.
const ZERO: u64 = 1;

/// The unit of a compressed cluster's length.
const SECTOR: u64 = 512;

/// What an L2 entry says of its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing here: the backing file's bytes.
    Unallocated,
    /// Zeros, whatever the backing file has.
    Zero,
    /// As it is, at this host offset.
    Data(u64),
    /// Compressed, at this host offset, in at most `stored` bytes.
    Compressed { offset: u64, stored: u64 },
}

impl Entry {
    /// Parses the entry that lies `at` in the file.
    pub(super) fn parse(raw: u64, header: &Header, at: u64) -> Result<Self> {
        if raw & COMPRESSED != 0 {
            if header.has_data_file() {
                return Err(invalid("an L2 entry of an image with a data file names a compressed cluster", raw, at));
            }
            return Ok(Self::compressed(raw, header));
        }
        // With subclusters the bitmap says what reads as zeros.
        let allowed = OFFSET | COPIED | if header.version >= 3 && !header.has_subclusters() { ZERO } else { 0 };
        if raw & !allowed != 0 {
            return Err(invalid("an L2 entry has reserved bits set", raw, at));
        }
        if raw & ZERO != 0 {
            return Ok(Self::Zero);
        }
        match raw & OFFSET {
            // In a data file a cluster may lie at its very beginning.
            0 if !(header.has_data_file() && raw & COPIED != 0) => Ok(Self::Unallocated),
            offset if offset % header.cluster_size == 0 => Ok(Self::Data(offset)),
            _ => Err(invalid("an L2 entry's cluster is not aligned", raw, at)),
        }
    }

    /// "Compressed Clusters Descriptor": with x = 62 - (cluster_bits - 8), bits 0 to x-1 are the offset, bits x to 61 the
    /// number of sectors beyond the one that the offset is in.
    fn compressed(raw: u64, header: &Header) -> Self {
        // cluster_bits is 9 to 21, so x is 49 to 61.
        let x = 70_u32.saturating_sub(header.cluster_bits);
        let mask = 1_u64.checked_shl(x).unwrap_or(0).saturating_sub(1);
        let offset = raw & mask;
        let additional = (raw & (COMPRESSED.saturating_sub(1))).checked_shr(x).unwrap_or(0);
        let stored = additional.saturating_add(1).saturating_mul(SECTOR).saturating_sub(offset % SECTOR);
        Self::Compressed { offset, stored }
    }

    /// Whether `next` is the same kind of cluster and, for data, lies right behind this one.
    pub(super) fn continues_with(self, next: Self, cluster: NonZeroU64) -> bool {
        match (self, next) {
            (Self::Data(offset), Self::Data(next)) => offset.checked_add(cluster.get()) == Some(next),
            (Self::Zero, Self::Zero) | (Self::Unallocated, Self::Unallocated) => true,
            _ => false,
        }
    }
}

/// The host offset of the L2 table that the L1 entry at `at` names, if it names one.
pub(super) fn l2_table(raw: u64, header: &Header, at: u64) -> Result<Option<u64>> {
    if raw & !(OFFSET | COPIED) != 0 {
        return Err(invalid("an L1 entry has reserved bits set", raw, at));
    }
    match raw & OFFSET {
        0 => Ok(None),
        offset if offset % header.cluster_size == 0 => Ok(Some(offset)),
        _ => Err(invalid("an L1 entry's table is not aligned", raw, at)),
    }
}

pub(super) fn invalid(what: &str, raw: u64, at: u64) -> Error {
    Error::corrupt("qcow2.entry", what).offset(at).found(format!("{raw:#018x}"))
}
