//! What device mapper's RAID target writes of its legs (`drivers/md/dm-raid.c`, `struct dm_raid_superblock`).

use crate::disk::bytes::{le32, le64};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

const MAGIC: u32 = 0x6452_6d44;
/// Fields behind the first 64 bytes are there.
const FEATURE_V190: u32 = 1;
const RESHAPE_ACTIVE: u32 = 1;
/// A leg that is wholly in sync.
const ALL: u64 = u64::MAX;

/// A leg's superblock.
#[derive(Clone, Copy, Debug)]
pub(super) struct LegState {
    events: u64,
    failed: u64,
    recovered: u64,
    resynced: u64,
}

impl LegState {
    /// Reads the superblock of a metadata volume; nothing where there is none yet, since the volume was never active.
    pub(super) fn read(meta: &dyn Disk) -> Result<Option<Self>> {
        if meta.len() < 512 {
            return Ok(None);
        }
        let bytes = read_vec(meta, 0, 512)?;
        if le32(&bytes, 0) != MAGIC {
            return Ok(None);
        }
        let has_new_fields = le32(&bytes, 4) & FEATURE_V190 != 0;
        if has_new_fields && (le32(&bytes, 60) & RESHAPE_ACTIVE != 0 || le64(&bytes, 96) != 0) {
            return Err(Error::unsupported("lvm.reshape", "a volume is being reshaped, or keeps room for it")
                .hint("let the reshape end in the guest; lvs -o+raid_sync_action shows it"));
        }
        Ok(Some(Self {
            events: le64(&bytes, 16),
            failed: le64(&bytes, 24),
            recovered: le64(&bytes, 32),
            resynced: le64(&bytes, 40),
        }))
    }
}

/// Which legs hold what the volume holds, by the superblocks of those that have one.
pub(super) fn in_sync(legs: &[Option<LegState>]) -> Vec<bool> {
    let Some(newest) = legs.iter().flatten().max_by_key(|leg| leg.events) else {
        return vec![true; legs.len()];
    };
    let is_good = |(number, leg): (u32, &Option<LegState>)| {
        let has_failed = newest.failed.checked_shr(number).unwrap_or(0) & 1 != 0;
        let is_fresh = |leg: &LegState| leg.events.saturating_add(1) >= newest.events && leg.recovered == ALL;
        // A leg without a superblock among others that have one was added and not filled yet.
        !has_failed && leg.as_ref().is_some_and(is_fresh)
    };
    (0_u32..).zip(legs).map(is_good).collect()
}

/// Whether parity is right everywhere.
pub(super) fn is_resynced(legs: &[Option<LegState>]) -> bool {
    legs.iter().flatten().max_by_key(|leg| leg.events).is_none_or(|leg| leg.resynced == ALL)
}
