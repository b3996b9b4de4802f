//! Refcounts of 16 bits: counted while clusters are given out, and written block by block once a block cannot change any more.

use std::collections::BTreeMap;

use crate::convert::output::Output;
use crate::disk::Disk;
use crate::error::{Error, Result};

/// Largest count of one cluster.
pub(super) const MOST: u16 = u16::MAX;

/// How many uses each cluster of the file has.
///
/// Memory: two bytes for each cluster between the first that may still change and the last, and eight for each block: one block
/// counts 32,768 clusters of the default size.
#[derive(Debug)]
pub(super) struct Refcounts {
    cluster: u64,
    /// Blocks that may still change, by their number.
    open: BTreeMap<u64, Vec<u8>>,
    /// Where each block is; nothing while it is open.
    places: Vec<u64>,
    /// Of each block that was written, in order.
    digest: blake3::Hasher,
    /// Where the table is and how many clusters it has, once it is written.
    table: (u64, u64),
}

impl Refcounts {
    pub(super) fn new(cluster: u64) -> Self {
        Self { cluster, open: BTreeMap::new(), places: Vec::new(), digest: blake3::Hasher::new(), table: (0, 0) }
    }

    /// Clusters that one block counts.
    const fn per_block(&self) -> u64 {
        self.cluster / 2
    }

    /// Counts one more use of each of `clusters` clusters from number `first` on.
    pub(super) fn add(&mut self, first: u64, clusters: u64) {
        for number in first..first + clusters {
            if let Some(count) = self.count_mut(number) {
                *count = u16::from_be_bytes(*count).saturating_add(1).to_be_bytes();
            }
        }
    }

    /// How many uses cluster `number` has, if it may still change.
    pub(super) fn get(&mut self, number: u64) -> u16 {
        self.count_mut(number).map_or(0, |count| u16::from_be_bytes(*count))
    }

    fn count_mut(&mut self, number: u64) -> Option<&mut [u8; 2]> {
        let per_block = self.per_block();
        let len = usize::try_from(self.cluster).unwrap_or(0);
        let block = self.open.entry(number / per_block).or_insert_with(|| vec![0; len]);
        block.as_chunks_mut().0.get_mut(usize::try_from(number % per_block).unwrap_or(usize::MAX))
    }

    /// Whether there is a block that counts clusters before number `floor` only, so that it can be written with
    /// [`Refcounts::write_next`].
    pub(super) fn has_complete(&self, floor: u64) -> bool {
        self.open.first_key_value().is_some_and(|(number, _)| (number + 1).saturating_mul(self.per_block()) <= floor)
    }

    /// Writes the first open block to `host`, which is counted already.
    pub(super) fn write_next(&mut self, host: u64, output: &dyn Output) -> Result<()> {
        let Some((number, block)) = self.open.pop_first() else { return Ok(()) };
        output.write_at(&block, host)?;
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.places.resize(index + 1, 0);
        if let Some(place) = self.places.get_mut(index) {
            *place = host;
        }
        self.digest.update(&block);
        Ok(())
    }

    /// How many clusters the table takes, and how many blocks are yet to be written, when `next` clusters are in use before
    /// either has a place.
    pub(super) fn needs(&self, next: u64) -> (u64, u64) {
        let written = self.places.len() as u64;
        let (mut table, mut blocks) = (0, 0);
        loop {
            let needed = (next + table + blocks).div_ceil(self.per_block());
            if needed <= written + blocks && (needed * 8).div_ceil(self.cluster) <= table {
                return (table, blocks);
            }
            blocks = needed - written;
            table = (needed * 8).div_ceil(self.cluster);
        }
    }

    /// Writes the table to `host` and the open blocks behind it. All of them are counted already.
    pub(super) fn finish(&mut self, host: u64, table: u64, output: &dyn Output) -> Result<()> {
        let mut at = host + table * self.cluster;
        while !self.open.is_empty() {
            self.write_next(at, output)?;
            at += self.cluster;
        }
        self.table = (host, table);
        self.each_table_cluster(&mut |bytes, at| output.write_at(bytes, at).map(|()| true))
    }

    /// Where the table is, and how many clusters it has.
    pub(super) const fn table(&self) -> (u64, u64) {
        self.table
    }

    /// Calls `each` with every cluster of the table and its offset, until that gives `false`.
    fn each_table_cluster(&self, each: &mut dyn FnMut(&[u8], u64) -> Result<bool>) -> Result<()> {
        let mut bytes = vec![0; usize::try_from(self.cluster).unwrap_or(0)];
        let per_cluster = bytes.len() / 8;
        for number in 0..self.table.1 {
            let skipped = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(per_cluster);
            bytes.fill(0);
            let places = self.places.iter().skip(skipped);
            bytes.as_chunks_mut().0.iter_mut().zip(places).for_each(|(entry, place)| *entry = place.to_be_bytes());
            if !each(&bytes, self.table.0 + number * self.cluster)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether `file` has the table and the blocks as they were written.
    pub(super) fn are_intact(&self, file: &dyn Disk) -> Result<bool> {
        let mut found = vec![0; usize::try_from(self.cluster).unwrap_or(0)];
        let mut intact = true;
        self.each_table_cluster(&mut |bytes, at| {
            file.read_at(&mut found, at)?;
            intact &= found == bytes;
            Ok(intact)
        })?;
        let mut digest = blake3::Hasher::new();
        for place in self.places.iter().filter(|place| **place != 0) {
            file.read_at(&mut found, *place)?;
            digest.update(&found);
        }
        Ok(intact && digest.finalize() == self.digest.finalize())
    }

    /// A failure that cannot be: a count that would not fit.
    pub(super) fn overflow(at: u64) -> Error {
        Error::failed("convert.refcount", "a cluster of the output would have too many uses").offset(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_blocks_count_themselves() {
        for cluster in [4096, 65_536] {
            for next in (1..40_000_u64).step_by(37).chain([2047, 2048, 32_767, 32_768, 1 << 31]) {
                let refcounts = Refcounts::new(cluster);
                let (table, blocks) = refcounts.needs(next);
                assert!((next + table + blocks).div_ceil(refcounts.per_block()) <= blocks);
                assert!(blocks * 8 <= table * cluster);
                assert!(blocks.saturating_sub(1) * refcounts.per_block() < next + table + blocks, "no block too many");
            }
        }
    }
}
