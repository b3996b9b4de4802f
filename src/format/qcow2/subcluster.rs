//! Extended L2 entries (specification, "Extended L2 Entries"): a second word tells of each 32nd of a cluster whether it is here.

use std::num::NonZeroU64;

use super::entry::{Entry, invalid};
use super::header::Header;
use crate::error::Result;

/// Subclusters of a cluster.
const COUNT: u64 = 32;

/// An entry with its bitmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) entry: Entry,
    /// Bit x: subcluster x is in the host cluster.
    allocated: u32,
    /// Bit x: subcluster x reads as zeros.
    zero: u32,
}

impl Extended {
    /// Parses the entry of 16 bytes that lies `at` in the file.
    pub(super) fn parse(raw: u128, header: &Header, at: u64) -> Result<Self> {
        let [descriptor, bitmap] = [raw >> 64, raw & u128::from(u64::MAX)].map(|word| u64::try_from(word).unwrap_or(0));
        let [zero, allocated] =
            [bitmap >> 32, bitmap & u64::from(u32::MAX)].map(|word| u32::try_from(word).unwrap_or(0));
        let entry = Entry::parse(descriptor, header, at)?;
        let wrong = match entry {
            Entry::Compressed { .. } => bitmap != 0,
            Entry::Unallocated => allocated != 0,
            _ => allocated & zero != 0,
        };
        if wrong {
            return Err(invalid("an L2 entry and its subcluster bitmap contradict each other", bitmap, at));
        }
        Ok(Self { entry, allocated, zero })
    }

    /// What is at `within` of the cluster, and for how many bytes that stays so, at most to the end of the cluster. The offset of
    /// data is that of the cluster.
    pub(super) fn run(self, within: u64, cluster: NonZeroU64) -> (Entry, u64) {
        if let Entry::Compressed { .. } = self.entry {
            return (self.entry, cluster.get().saturating_sub(within));
        }
        let size = NonZeroU64::new(cluster.get() / COUNT).unwrap_or(NonZeroU64::MIN);
        let first = within / size;
        let kind = self.kind(first);
        let mut next = first.saturating_add(1);
        while next < COUNT && self.kind(next) == kind {
            next = next.saturating_add(1);
        }
        (kind, next.saturating_mul(size.get()).saturating_sub(within))
    }

    fn kind(self, subcluster: u64) -> Entry {
        let bit = u32::try_from(subcluster).ok().and_then(|shift| 1_u32.checked_shl(shift)).unwrap_or(0);
        if self.zero & bit != 0 {
            Entry::Zero
        } else if self.allocated & bit != 0 {
            self.entry
        } else {
            Entry::Unallocated
        }
    }
}
