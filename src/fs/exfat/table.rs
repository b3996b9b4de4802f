//! The table of clusters, and what lies in a chain of them.

use super::{Exfat, LIMIT, corrupt};
use crate::disk::bytes::le32;
use crate::error::{Error, Result};
use crate::fs::clusters::Chain;

/// An entry from which on values say something other than a next cluster.
const BAD: u32 = 0xffff_fff7;
const END: u32 = 0xffff_ffff;

impl Exfat {
    /// The cluster after `cluster` by the table; `None` at the end of a chain.
    pub(super) fn next(&self, cluster: u32) -> Result<Option<u32>> {
        let at = self.boot.table.saturating_add(u64::from(cluster).saturating_mul(4));
        match le32(&self.pages.bytes(at, 4)?, 0) {
            END => Ok(None),
            next if next < BAD && self.boot.numbers().contains(&next) => Ok(Some(next)),
            next => Err(corrupt("a chain of clusters leads out of the file system").offset(at).found(next)),
        }
    }

    /// The first `count` clusters of the chain that starts at `first`.
    pub(super) fn chain(&self, first: u32, count: u32) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut next = (count > 0).then_some(first);
        while let Some(cluster) = next {
            chain.push(cluster, LIMIT)?;
            next = if chain.len() < count { self.next(cluster)? } else { None };
        }
        if !chain.is_straight() {
            return Err(corrupt("a chain of clusters comes back to itself").found(first));
        }
        if chain.len() < count {
            return Err(corrupt("a file has too few clusters").expected(count).found(chain.len()));
        }
        Ok(chain)
    }

    /// The chain that starts at `first`, up to its end, which comes after at most `most` clusters.
    pub(super) fn whole_chain(&self, first: u32, most: u64) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut next = Some(first);
        while let Some(cluster) = next {
            if chain.len() >= self.boot.clusters {
                return Err(corrupt("a chain of clusters never ends").found(first));
            }
            if u64::from(chain.len()) >= most {
                return Err(Error::limit(LIMIT, "a directory is too large").found(chain.len()));
            }
            chain.push(cluster, LIMIT)?;
            next = self.next(cluster)?;
        }
        Ok(chain)
    }

    /// The clusters that hold `len` bytes from `first` on, which lie one after the other where `straight` says so.
    pub(super) fn clusters(&self, first: u32, len: u64, straight: bool) -> Result<Chain> {
        let count = len.div_ceil(self.boot.heap.cluster.get());
        let numbers = self.boot.numbers();
        let fits = count == 0 || numbers.contains(&first);
        let count = u32::try_from(count).ok().filter(|count| fits && *count <= self.boot.clusters);
        let count = count.ok_or_else(|| corrupt("a file cannot be that large").found(len))?;
        if !straight {
            return self.chain(first, count);
        }
        if count > 0 && first.checked_add(count).is_none_or(|end| end > numbers.end) {
            return Err(corrupt("a file reaches out of the file system").found(first));
        }
        Ok(Chain::straight(first, count))
    }
}
