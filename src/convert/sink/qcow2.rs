//! The qcow2 format, version 3: packed clusters in the order of the plan, every refcount one, nothing leaked.
//!
//! ```text
//! cluster 0   1 …          … then window by window …                         at the end
//! ┌────────┬──────────┬──────────────┬───────────┬──────────┬─────────┬────────────────┬─────────────────┐
//! │ header │ L1 table │ data         │ L2 tables │ data     │ L2 …    │ refcount table │ refcount blocks │
//! └────────┴──────────┴──────────────┴───────────┴──────────┴─────────┴────────────────┴─────────────────┘
//!   written last
//! ```
//!
//! There is no backing file, so zeros stay unallocated. Memory: the L2 tables of one window, at most 2 MiB.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::{Piece, Shape, Sink};
use crate::convert::output::Output;
use crate::convert::plan::{CHUNK, WINDOW};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::limits::{MAX_QCOW2_L1_ENTRIES, MAX_QCOW2_REFCOUNT_BLOCKS};

/// Bit 63 of an entry: the cluster's refcount is exactly one.
const COPIED: u64 = 1 << 63;

/// Bytes of the header: all of version 3's fields, without the compression type, which is needed only if it is not zlib.
const HEADER_LENGTH: u32 = 104;

/// Refcounts of 16 bits.
const REFCOUNT_ORDER: u32 = 4;

/// How a qcow2 image is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qcow2Options {
    /// Bytes of a cluster: a power of two from 4 KiB to 2 MiB.
    pub cluster_size: u64,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self { cluster_size: 64 << 10 }
    }
}

impl Qcow2Options {
    fn validate(&self) -> Result<()> {
        if self.cluster_size.is_power_of_two() && (4 << 10..=CHUNK).contains(&self.cluster_size) {
            return Ok(());
        }
        Err(Error::new(Kind::Usage, "convert.cluster", "the cluster size is not possible")
            .expected("a power of two from 4 KiB to 2 MiB")
            .found(self.cluster_size))
    }
}

/// Writes a qcow2 image.
#[derive(Debug)]
pub(in crate::convert) struct Qcow2Sink {
    len: u64,
    cluster: u64,
    l1_entries: u64,
    /// The first cluster that is not in use, as an offset.
    next: u64,
    /// L2 tables that may still change, by their L1 index.
    tables: BTreeMap<u64, Vec<u8>>,
    /// Of each L1 entry that was written, in order, with its index and its table.
    digest: blake3::Hasher,
    refcounts: Refcounts,
}

/// Where the refcounts are: offsets, and numbers of clusters.
#[derive(Clone, Copy, Debug, Default)]
struct Refcounts {
    table_at: u64,
    table: u64,
    blocks_at: u64,
    blocks: u64,
}

/// What [`Qcow2Sink::fixed_clusters`] calls.
type EachCluster<'a> = dyn FnMut(&[u8], u64) -> Result<ControlFlow<()>> + 'a;

impl Qcow2Sink {
    /// An image of `len` bytes.
    ///
    /// # Errors
    /// `convert.cluster` when the cluster size is impossible or the tables would be larger than readers accept.
    pub(in crate::convert) fn new(len: u64, options: &Qcow2Options) -> Result<Self> {
        options.validate()?;
        let cluster = options.cluster_size;
        let l1_entries = len.div_ceil(span(cluster));
        // Data fills the image at most once; tables add less than one part in a hundred.
        let refcount_blocks = (len / cluster + len / cluster / 100 + 64).div_ceil(cluster / 2);
        if l1_entries > u64::from(MAX_QCOW2_L1_ENTRIES) || refcount_blocks > MAX_QCOW2_REFCOUNT_BLOCKS {
            return Err(Error::new(Kind::Usage, "convert.cluster", "the disk is too large for this cluster size")
                .found(format!("{len} bytes with clusters of {cluster}"))
                .hint("choose a larger cluster size"));
        }
        let (tables, digest, refcounts) = (BTreeMap::new(), blake3::Hasher::new(), Refcounts::default());
        let mut sink = Self { len, cluster, l1_entries, next: cluster, tables, digest, refcounts };
        sink.allocate(l1_entries * 8);
        Ok(sink)
    }

    /// Whole clusters for `bytes` bytes, right behind what is in use.
    fn allocate(&mut self, bytes: u64) -> u64 {
        let host = self.next;
        self.next += bytes.next_multiple_of(self.cluster);
        host
    }

    /// Where the L1 table is.
    const fn l1_offset(&self) -> u64 {
        self.cluster
    }

    /// Notes that the clusters of the disk from `at` on are those of the file from `host` on.
    fn map(&mut self, at: u64, host: u64, clusters: u64) {
        let per_table = self.cluster / 8;
        for step in 0..clusters {
            let number = at / self.cluster + step;
            let len = usize::try_from(self.cluster).unwrap_or(0);
            let table = self.tables.entry(number / per_table).or_insert_with(|| vec![0; len]);
            let index = usize::try_from(number % per_table).unwrap_or(0);
            let entry = (host + step * self.cluster) | COPIED;
            if let Some(slot) = table.as_chunks_mut().0.get_mut(index) {
                *slot = entry.to_be_bytes();
            }
        }
    }

    /// Writes the L2 tables that map nothing from `start` of the disk on.
    fn close_tables(&mut self, start: u64, output: &dyn Output) -> Result<()> {
        while let Some(first) = self.tables.first_entry()
            && (first.key() + 1).saturating_mul(span(self.cluster)) <= start
        {
            let (index, table) = first.remove_entry();
            let host = self.allocate(self.cluster);
            let entry = (host | COPIED).to_be_bytes();
            output.write_at(&table, host)?;
            output.write_at(&entry, self.l1_offset() + index * 8)?;
            add_table(&mut self.digest, index, entry, &table);
        }
        Ok(())
    }

    /// Finds a place for the refcount table and its blocks, which count themselves.
    fn place_refcounts(&mut self) {
        let per_block = self.cluster / 2;
        let others = self.next / self.cluster;
        let (mut table, mut blocks) = (0, 0);
        loop {
            let needed = (others + table + blocks).div_ceil(per_block);
            if needed == blocks {
                break;
            }
            blocks = needed;
            table = (blocks * 8).div_ceil(self.cluster);
        }
        let table_at = self.allocate(table * self.cluster);
        let blocks_at = self.allocate(blocks * self.cluster);
        self.refcounts = Refcounts { table_at, table, blocks_at, blocks };
    }

    /// Calls `each` with the bytes and offsets of the header cluster and of the refcounts' clusters, the header last.
    fn fixed_clusters(&self, each: &mut EachCluster<'_>) -> Result<()> {
        let Refcounts { table_at, table, blocks_at, blocks } = self.refcounts;
        let mut cluster = vec![0; usize::try_from(self.cluster).unwrap_or(0)];
        let per_cluster = self.cluster / 8;
        for number in 0..table {
            cluster.fill(0);
            let entries = number * per_cluster..blocks.min((number + 1) * per_cluster);
            for (entry, block) in cluster.as_chunks_mut().0.iter_mut().zip(entries) {
                *entry = (blocks_at + block * self.cluster).to_be_bytes();
            }
            if each(&cluster, table_at + number * self.cluster)?.is_break() {
                return Ok(());
            }
        }
        let mut left = self.next / self.cluster;
        for number in 0..blocks {
            cluster.fill(0);
            let counts = left.min(self.cluster / 2);
            cluster.as_chunks_mut().0.iter_mut().zip(0..counts).for_each(|(count, _)| *count = 1_u16.to_be_bytes());
            left -= counts;
            if each(&cluster, blocks_at + number * self.cluster)?.is_break() {
                return Ok(());
            }
        }
        cluster.fill(0);
        cluster.iter_mut().zip(self.header()).for_each(|(to, byte)| *to = byte);
        each(&cluster, 0).map(|_| ())
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

    /// The header cluster's fields (specification, "Header").
    fn header(&self) -> Vec<u8> {
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
        let mut header = Vec::with_capacity(HEADER_LENGTH as usize);
        header.extend(b"QFI\xfb"); // magic
        header.extend(3_u32.to_be_bytes()); // version
        header.extend([0; 12]); // backing_file_offset, backing_file_size
        header.extend(self.cluster.trailing_zeros().to_be_bytes()); // cluster_bits
        header.extend(self.len.to_be_bytes()); // size
        header.extend([0; 4]); // crypt_method
        header.extend(number(self.l1_entries)); // l1_size
        header.extend(self.l1_offset().to_be_bytes()); // l1_table_offset
        header.extend(self.refcounts.table_at.to_be_bytes()); // refcount_table_offset
        header.extend(number(self.refcounts.table)); // refcount_table_clusters
        header.extend([0; 12]); // nb_snapshots, snapshots_offset
        header.extend([0; 24]); // incompatible, compatible and autoclear features
        header.extend(REFCOUNT_ORDER.to_be_bytes()); // refcount_order
        header.extend(HEADER_LENGTH.to_be_bytes()); // header_length
        header.extend([0; 8]); // end of the header extensions
        header
    }
}

/// Adds an L1 entry and the table that it names to a digest.
fn add_table(digest: &mut blake3::Hasher, index: u64, entry: [u8; 8], table: &[u8]) {
    digest.update(&index.to_le_bytes()).update(&entry).update(table);
}

/// Bytes of the disk that one L2 table maps.
const fn span(cluster: u64) -> u64 {
    cluster * (cluster / 8)
}

impl Sink for Qcow2Sink {
    fn shape(&self) -> Shape {
        Shape::of(self.cluster)
    }

    fn overhead(&self, data: u64, windows: u64) -> u64 {
        // A window touches the tables of its own span, or one that is larger.
        let tables = windows.saturating_mul(WINDOW.div_ceil(span(self.cluster)) * self.cluster);
        let tables = tables.min(self.l1_entries.saturating_mul(self.cluster));
        let counted = (data.saturating_add(tables).saturating_add(self.next)) / self.cluster;
        let refcounts = counted.saturating_mul(2).saturating_add(4 * self.cluster);
        self.next.saturating_add(tables).saturating_add(refcounts + refcounts / self.cluster * 8)
    }

    fn begin(&mut self, _output: &dyn Output) -> Result<()> {
        Ok(())
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        // Nothing comes any more for windows before this one.
        self.close_tables(start / WINDOW * WINDOW, output)?;
        for piece in pieces {
            piece.host = self.allocate(piece.len as u64);
            let clusters = (piece.len as u64).div_ceil(self.cluster);
            self.map(start + piece.start as u64, piece.host, clusters);
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        self.close_tables(u64::MAX, output)?;
        self.place_refcounts();
        output.set_len(self.next)?;
        self.fixed_clusters(&mut |cluster, offset| {
            output.write_at(cluster, offset)?;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(self.next)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        let mut intact = file.len() == self.next && self.mapping_is_intact(file)?;
        if !intact {
            return Ok(false);
        }
        let mut found = vec![0; usize::try_from(self.cluster).unwrap_or(0)];
        self.fixed_clusters(&mut |cluster, offset| {
            file.read_at(&mut found, offset)?;
            intact &= found == cluster;
            Ok(if intact { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(intact)
    }
}
