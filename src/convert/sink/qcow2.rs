//! The qcow2 format, version 3: clusters packed in the order of the plan, nothing leaked.
//!
//! ```text
//! cluster 0   1 …          … then window by window …                                        at the end
//! ┌────────┬──────────┬──────┬────────────┬──────┬───────────┬─────────────────┬─────┬────────────────┬─────────────────┐
//! │ header │ L1 table │ data │ compressed │ data │ L2 tables │ refcount blocks │  …  │ refcount table │ refcount blocks │
//! └────────┴──────────┴──────┴────────────┴──────┴───────────┴─────────────────┴─────┴────────────────┴─────────────────┘
//!   written last
//! ```
//!
//! Zeros stay unallocated, or are said to be zeros where a backing file has something else. With preallocation the layout is
//! another, see [`fixed`]. Memory: the L2 tables of one window, at most 4 MiB, and the refcounts of what may still change.

use std::collections::BTreeMap;

use super::{Encoder, Form, Piece, Shape, Sink, Zeros};
use crate::convert::output::Output;
use crate::convert::plan::WINDOW;
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::limits::{MAX_QCOW2_L1_ENTRIES, MAX_QCOW2_REFCOUNT_BLOCKS};

mod encode;
mod fixed;
mod header;
mod options;
mod packed;
mod refcounts;

pub(in crate::convert) use fixed::Qcow2Fixed;
pub use options::{BackingName, Compression, Preallocation, Qcow2Options};

use header::Fields;
use packed::Packed;
use refcounts::Refcounts;

/// Bit 63 of an entry: the cluster's refcount is exactly one.
const COPIED: u64 = 1 << 63;

/// Bit 62 of an L2 entry: the cluster is compressed.
const COMPRESSED: u64 = 1 << 62;

/// Bit 0 of an L2 entry that has no subclusters: all zeros.
const ALL_ZEROS: u64 = 1;

/// Bytes of the unit that a compressed cluster's descriptor counts in.
const SECTOR: u64 = 512;

/// Writes a qcow2 image.
#[derive(Debug)]
pub(in crate::convert) struct Qcow2Sink {
    len: u64,
    options: Qcow2Options,
    cluster: u64,
    l1_entries: u64,
    /// The first cluster that is not in use, as an offset.
    next: u64,
    packed: Packed,
    /// L2 tables that may still change, by their L1 index.
    tables: BTreeMap<u64, Vec<u8>>,
    /// Of each L1 entry that was written, in order, with its index and its table.
    digest: blake3::Hasher,
    refcounts: Refcounts,
}

/// The number of entries of the L1 table for a disk of `len` bytes.
///
/// # Errors
/// `convert.cluster` when the tables would be larger than readers accept.
fn l1_entries(len: u64, options: &Qcow2Options) -> Result<u64> {
    let cluster = options.cluster_size;
    let entries = len.div_ceil(span(options));
    // Data fills the image at most once; tables and what stays free between runs add less than one part in sixteen.
    let refcount_blocks = (len / cluster + len / cluster / 16 + 64).div_ceil(cluster / 2);
    if entries > u64::from(MAX_QCOW2_L1_ENTRIES) || refcount_blocks > MAX_QCOW2_REFCOUNT_BLOCKS {
        return Err(Error::new(Kind::Usage, "convert.cluster", "the disk is too large for this cluster size")
            .found(format!("{len} bytes with clusters of {cluster}"))
            .hint("choose a larger cluster size"));
    }
    Ok(entries)
}

/// Bytes of the disk that one L2 table maps.
const fn span(options: &Qcow2Options) -> u64 {
    options.cluster_size * (options.cluster_size / options.entry())
}

impl Qcow2Sink {
    /// An image of `len` bytes, without preallocation.
    ///
    /// # Errors
    /// `convert.*` when the options are impossible, or for this length.
    pub(in crate::convert) fn new(len: u64, options: &Qcow2Options) -> Result<Self> {
        options.validate()?;
        let (cluster, l1_entries) = (options.cluster_size, l1_entries(len, options)?);
        let mut sink = Self {
            len,
            options: options.clone(),
            cluster,
            l1_entries,
            next: 0,
            packed: Packed::default(),
            tables: BTreeMap::new(),
            digest: blake3::Hasher::new(),
            refcounts: Refcounts::new(cluster),
        };
        sink.allocate(cluster);
        sink.allocate(l1_entries * 8);
        sink.packed.close(cluster, &mut sink.next);
        Ok(sink)
    }

    /// Whole clusters for `bytes` bytes, right behind what is in use.
    fn allocate(&mut self, bytes: u64) -> u64 {
        let host = self.next;
        self.next += bytes.next_multiple_of(self.cluster);
        self.refcounts.add(host / self.cluster, (self.next - host) / self.cluster);
        host
    }

    /// A place for a compressed cluster of `bytes` bytes.
    fn pack(&mut self, bytes: u64) -> Result<u64> {
        if self.refcounts.get(self.packed.at() / self.cluster) == refcounts::MOST {
            self.packed.skip_cluster(self.cluster);
        }
        let host = self.packed.place(bytes, self.cluster, &mut self.next);
        let (first, last) = (host / self.cluster, (host + bytes - 1) / self.cluster);
        if self.refcounts.get(last) == refcounts::MOST {
            return Err(Refcounts::overflow(host));
        }
        self.refcounts.add(first, last - first + 1);
        Ok(host)
    }

    /// Where the L1 table is.
    const fn l1_offset(&self) -> u64 {
        self.cluster
    }

    /// The L2 entry of the cluster of the disk in which `at` lies: descriptor, and bitmap if entries have one.
    fn entry_mut(&mut self, at: u64) -> Option<&mut [[u8; 8]]> {
        let words = usize::try_from(self.options.entry() / 8).unwrap_or(1);
        let per_table = self.cluster / self.options.entry();
        let number = at / self.cluster;
        let len = usize::try_from(self.cluster).unwrap_or(0);
        let table = self.tables.entry(number / per_table).or_insert_with(|| vec![0; len]);
        let index = usize::try_from(number % per_table).unwrap_or(usize::MAX).saturating_mul(words);
        table.as_chunks_mut().0.get_mut(index..index.saturating_add(words))
    }

    /// Notes that the bytes of the disk from `at` to `end`, of one cluster, are in the host cluster at `host`.
    fn map_plain(&mut self, at: u64, end: u64, host: u64) {
        let bits = self.subclusters(at, end);
        match self.entry_mut(at) {
            Some([entry]) => *entry = (host | COPIED).to_be_bytes(),
            Some([entry, bitmap]) => {
                *entry = (host | COPIED).to_be_bytes();
                *bitmap = (u64::from_be_bytes(*bitmap) | bits).to_be_bytes();
            }
            _ => {}
        }
    }

    /// Notes that the bytes of the disk from `at` to `end`, of one cluster, are zeros.
    fn map_zeros(&mut self, at: u64, end: u64) {
        let bits = self.subclusters(at, end) << 32;
        match self.entry_mut(at) {
            Some([entry]) => *entry = ALL_ZEROS.to_be_bytes(),
            Some([_, bitmap]) => *bitmap = (u64::from_be_bytes(*bitmap) | bits).to_be_bytes(),
            _ => {}
        }
    }

    /// Notes that the cluster of the disk at `at` is compressed to `bytes` bytes at `host`.
    fn map_compressed(&mut self, at: u64, host: u64, bytes: u64) {
        // Bits 0 to x-1: where it starts; x to 61: sectors that it takes beyond the first one that it touches.
        let x = 62 - (self.cluster.trailing_zeros() - 8);
        let sectors = (host + bytes - 1) / SECTOR - host / SECTOR;
        let descriptor = COMPRESSED | sectors << x | host;
        if let Some([entry, ..]) = self.entry_mut(at) {
            *entry = descriptor.to_be_bytes();
        }
    }

    /// The subclusters of one cluster from `at` to `end`, as bits; those behind the disk's end go with the last one.
    fn subclusters(&self, at: u64, end: u64) -> u64 {
        let unit = self.cluster / 32;
        let end = if end >= self.len { end.next_multiple_of(self.cluster) } else { end };
        let start = at - at % self.cluster;
        let (first, last) = ((at - start) / unit, (end - start).div_ceil(unit));
        ((1 << last) - 1) & !((1 << first) - 1)
    }

    /// Places a plain piece at `at` on the disk. `open` is the cluster that the piece before it ended in, and its host.
    fn place_plain(&mut self, at: u64, len: u64, open: &mut Option<(u64, u64)>) -> u64 {
        let mut placed = None;
        let end = at + len;
        let mut from = at;
        while from < end {
            let cluster = from - from % self.cluster;
            let to = end.min(cluster + self.cluster);
            let host = match *open {
                Some((known, host)) if known == cluster => host,
                _ => self.allocate(self.cluster),
            };
            *open = Some((cluster, host));
            self.map_plain(from, to, host);
            placed.get_or_insert(host + (from - cluster));
            from = to;
        }
        placed.unwrap_or(self.next)
    }

    /// Writes the L2 tables that map nothing from `start` of the disk on, and the refcount blocks that will not change.
    fn close_tables(&mut self, start: u64, output: &dyn Output) -> Result<()> {
        while let Some(first) = self.tables.first_entry()
            && (first.key() + 1).saturating_mul(span(&self.options)) <= start
        {
            let (index, table) = first.remove_entry();
            let host = self.allocate(self.cluster);
            let entry = (host | COPIED).to_be_bytes();
            output.write_at(&table, host)?;
            output.write_at(&entry, self.l1_offset() + index * 8)?;
            add_table(&mut self.digest, index, entry, &table);
        }
        while self.refcounts.has_complete(self.packed.floor(self.next).min(self.next) / self.cluster) {
            let host = self.allocate(self.cluster);
            self.refcounts.write_next(host, output)?;
        }
        Ok(())
    }

    /// Whether the L1 table in `file` and the L2 tables that it names are those that were written.
    fn mapping_is_intact(&self, file: &dyn Disk) -> Result<bool> {
        let mut digest = blake3::Hasher::new();
        let len = usize::try_from(self.cluster).unwrap_or(0);
        let (mut l1, mut table) = (vec![0; len], vec![0; len]);
        let per_cluster = self.cluster / 8;
        for number in 0..self.l1_entries.div_ceil(per_cluster) {
            file.read_at(&mut l1, self.l1_offset() + number * self.cluster)?;
            for (index, entry) in (number * per_cluster..).zip(l1.as_chunks().0).filter(|(_, entry)| **entry != [0; 8])
            {
                let host = u64::from_be_bytes(*entry) & !COPIED;
                if index >= self.l1_entries || host.checked_add(self.cluster).is_none_or(|end| end > self.next) {
                    return Ok(false);
                }
                file.read_at(&mut table, host)?;
                add_table(&mut digest, index, *entry, &table);
            }
        }
        Ok(digest.finalize() == self.digest.finalize())
    }

    /// The header cluster.
    fn header(&self) -> Vec<u8> {
        let refcount_table = self.refcounts.table();
        let fields =
            Fields { size: self.len, l1_entries: self.l1_entries, l1_offset: self.l1_offset(), refcount_table };
        let mut cluster = header::header(&self.options, &fields);
        cluster.resize(usize::try_from(self.cluster).unwrap_or(0), 0);
        cluster
    }
}

/// Adds an L1 entry and the table that it names to a digest.
fn add_table(digest: &mut blake3::Hasher, index: u64, entry: [u8; 8], table: &[u8]) {
    digest.update(&index.to_le_bytes()).update(&entry).update(table);
}

impl Sink for Qcow2Sink {
    fn shape(&self) -> Shape {
        let granule = if self.options.compression.is_some() { self.cluster } else { self.options.unit() };
        let zeros = if self.options.backing.is_some() { Zeros::Explicit } else { Zeros::Skip };
        Shape { zeros, ..Shape::of(granule) }
    }

    fn encoder(&self) -> Result<Option<Box<dyn Encoder>>> {
        self.options.compression.map(encode::encoder).transpose()
    }

    fn overhead(&self, data: u64, windows: u64) -> u64 {
        // A window touches the tables of its own span, or one that is larger.
        let tables = windows.saturating_mul(WINDOW.div_ceil(span(&self.options)) * self.cluster);
        let tables = tables.min(self.l1_entries.saturating_mul(self.cluster));
        // Subclusters: a cluster has a place as soon as one of them has. Runs of compressed clusters lose less than a part of 16.
        let slack = data / 16 + 4 * self.cluster;
        let counted = (data.saturating_add(slack).saturating_add(tables).saturating_add(self.next)) / self.cluster;
        let refcounts = counted.saturating_mul(2).saturating_add(4 * self.cluster);
        let slack = if self.options.compression.is_some() { slack } else { 0 };
        self.next.saturating_add(tables).saturating_add(slack).saturating_add(refcounts + refcounts / self.cluster * 8)
    }

    fn begin(&mut self, _output: &dyn Output) -> Result<()> {
        Ok(())
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        // Nothing comes any more for windows before this one.
        self.close_tables(start / WINDOW * WINDOW, output)?;
        // All that is compressed first, so that one run takes it.
        for piece in pieces.iter_mut() {
            let at = start + piece.start as u64;
            match piece.form {
                Form::Encoded(bytes) => {
                    piece.host = self.pack(u64::from(bytes))?;
                    self.map_compressed(at, piece.host, u64::from(bytes));
                }
                Form::Zero => {
                    let (mut from, end) = (at, at + piece.len as u64);
                    while from < end {
                        let to = end.min(from - from % self.cluster + self.cluster);
                        self.map_zeros(from, to);
                        from = to;
                    }
                }
                Form::Plain => {}
            }
        }
        let mut open = None;
        for piece in pieces.iter_mut().filter(|piece| piece.form == Form::Plain) {
            piece.host = self.place_plain(start + piece.start as u64, piece.len as u64, &mut open);
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        self.packed.close(self.cluster, &mut self.next);
        self.close_tables(u64::MAX, output)?;
        let (table, blocks) = self.refcounts.needs(self.next / self.cluster);
        let at = self.allocate((table + blocks) * self.cluster);
        output.set_len(self.next)?;
        self.refcounts.finish(at, table, output)?;
        output.write_at(&self.header(), 0)?;
        Ok(self.next)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        if file.len() != self.next || !self.mapping_is_intact(file)? || !self.refcounts.are_intact(file)? {
            return Ok(false);
        }
        let mut found = vec![0; usize::try_from(self.cluster).unwrap_or(0)];
        file.read_at(&mut found, 0)?;
        Ok(found == self.header())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_large_as_readers_take_it() {
        let code = |cluster_size: u64, clusters: u64| {
            let options = Qcow2Options { cluster_size, ..Qcow2Options::default() };
            l1_entries(cluster_size * clusters, &options).map_or_else(|error| error.code(), |_| "ok")
        };
        // With clusters of 4 KiB refcounts end before tables do; the part that is not data is counted in.
        let counted = |clusters: u64| clusters + clusters / 16 + 64;
        let most = MAX_QCOW2_REFCOUNT_BLOCKS * 2048;
        let mut clusters = (most - 64) / 17 * 16;
        while counted(clusters + 1) <= most {
            clusters += 1;
        }
        assert_eq!(
            [clusters - 1, clusters, clusters + 1].map(|count| code(4096, count)),
            ["ok", "ok", "convert.cluster"]
        );
    }
}
