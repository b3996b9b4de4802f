//! A qcow2 image in which every cluster has its place: all tables in front, then the disk as it is.
//!
//! ```text
//! ┌────────┬──────────┬────────────────┬─────────────────┬───────────┬────────────────────────────┐
//! │ header │ L1 table │ refcount table │ refcount blocks │ L2 tables │ the disk, byte for byte    │
//! └────────┴──────────┴────────────────┴─────────────────┴───────────┴────────────────────────────┘
//! ```
//!
//! What has no data is a hole of the file, space that the file system keeps, or zeros, by [`Preallocation`].

use super::header::{Fields, header};
use super::options::{Preallocation, Qcow2Options};
use super::{COPIED, l1_entries};
use crate::convert::output::Output;
use crate::convert::sink::{Filler, Order, Piece, Shape, Sink, Zeros};
use crate::disk::Disk;
use crate::error::Result;

/// The page of every file system that has holes.
const GRANULE: u64 = 4096;

/// Writes a qcow2 image with preallocation.
#[derive(Debug)]
pub(in crate::convert) struct Qcow2Fixed {
    len: u64,
    options: Qcow2Options,
    /// Numbers of entries and clusters.
    l1_entries: u64,
    l1: u64,
    refcount_table: u64,
    refcount_blocks: u64,
    clusters: u64,
    /// Where the disk begins in the file.
    data: u64,
    filler: Filler,
}

impl Qcow2Fixed {
    /// An image of `len` bytes.
    ///
    /// # Errors
    /// `convert.*` when the options are impossible, or for this length.
    pub(in crate::convert) fn new(len: u64, options: &Qcow2Options) -> Result<Self> {
        options.validate()?;
        let cluster = options.cluster_size;
        let l1_entries = l1_entries(len, options)?;
        let (l1, clusters) = ((l1_entries * 8).div_ceil(cluster), len.div_ceil(cluster));
        let (mut refcount_table, mut refcount_blocks) = (1, 1);
        loop {
            let all = 1 + l1 + refcount_table + refcount_blocks + l1_entries + clusters;
            let blocks = all.div_ceil(cluster / 2);
            let table = (blocks * 8).div_ceil(cluster);
            if blocks <= refcount_blocks && table <= refcount_table {
                break;
            }
            (refcount_blocks, refcount_table) = (blocks.max(refcount_blocks), table.max(refcount_table));
        }
        let data = (1 + l1 + refcount_table + refcount_blocks + l1_entries) * cluster;
        let filler = Filler::new(data);
        let options = options.clone();
        Ok(Self { len, options, l1_entries, l1, refcount_table, refcount_blocks, clusters, data, filler })
    }

    fn file_len(&self) -> u64 {
        self.data + self.clusters * self.options.cluster_size
    }

    /// Calls `each` with every cluster before the data and its offset, the header last, until that gives `false`.
    fn each_table_cluster(&self, each: &mut dyn FnMut(&[u8], u64) -> Result<bool>) -> Result<()> {
        let cluster = self.options.cluster_size;
        let mut at = cluster;
        let refcount_table = at + self.l1 * cluster;
        let blocks = refcount_table + self.refcount_table * cluster;
        let tables = blocks + self.refcount_blocks * cluster;
        let mut bytes = vec![0; usize::try_from(cluster).unwrap_or(0)];
        let mut fill = |count: u64, entries: u64, width: usize, entry: &dyn Fn(u64, &mut [u8])| -> Result<bool> {
            let per_cluster = cluster / width as u64;
            for number in 0..count {
                bytes.fill(0);
                let indices = number * per_cluster..entries.min((number + 1) * per_cluster);
                bytes.chunks_exact_mut(width).zip(indices).for_each(|(to, index)| entry(index, to));
                if !each(&bytes, at)? {
                    return Ok(false);
                }
                at += cluster;
            }
            Ok(true)
        };
        let put = |to: &mut [u8], value: u64| to.iter_mut().zip(value.to_be_bytes()).for_each(|(to, byte)| *to = byte);
        let width = usize::try_from(self.options.entry()).unwrap_or(8);
        let go_on = fill(self.l1, self.l1_entries, 8, &|index, to| put(to, (tables + index * cluster) | COPIED))?
            && fill(self.refcount_table, self.refcount_blocks, 8, &|index, to| put(to, blocks + index * cluster))?
            && fill(self.refcount_blocks, self.file_len() / cluster, 2, &|_, to| to.copy_from_slice(&[0, 1]))?
            && fill(self.l1_entries, self.clusters, width, &|index, to| {
                put(to, (self.data + index * cluster) | COPIED);
                if let Some(bitmap) = to.get_mut(8..) {
                    put(bitmap, u64::from(u32::MAX));
                }
            })?;
        if go_on {
            let fields = Fields {
                size: self.len,
                l1_entries: self.l1_entries,
                l1_offset: cluster,
                refcount_table: (refcount_table, self.refcount_table),
            };
            let mut first = header(&self.options, &fields);
            first.resize(usize::try_from(cluster).unwrap_or(0), 0);
            each(&first, 0)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.options.preallocation == Preallocation::Full
    }
}

impl Sink for Qcow2Fixed {
    fn shape(&self) -> Shape {
        if self.is_full() {
            return Shape { granule: GRANULE, order: Order::Disk, zeros: Zeros::Plain };
        }
        Shape::of(GRANULE)
    }

    fn overhead(&self, data: u64, _windows: u64) -> u64 {
        match self.options.preallocation {
            Preallocation::Off | Preallocation::Metadata => self.data,
            Preallocation::Falloc | Preallocation::Full => (self.file_len() + 16 * GRANULE).saturating_sub(data),
        }
    }

    fn begin(&mut self, output: &dyn Output) -> Result<()> {
        if self.options.preallocation == Preallocation::Metadata {
            output.set_len(self.file_len())
        } else {
            output.allocate(self.file_len())
        }
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        for piece in pieces {
            piece.host = self.data + start + piece.start as u64;
            if self.is_full() {
                self.filler.piece(piece.host, piece.len as u64, output)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        if self.is_full() {
            self.filler.piece(self.file_len(), 0, output)?;
        }
        self.each_table_cluster(&mut |bytes, at| output.write_at(bytes, at).map(|()| true))?;
        Ok(self.file_len())
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        let mut intact = file.len() == self.file_len();
        let mut found = vec![0; usize::try_from(self.options.cluster_size).unwrap_or(0)];
        self.each_table_cluster(&mut |bytes, at| {
            if intact {
                file.read_at(&mut found, at)?;
                intact = found == bytes;
            }
            Ok(intact)
        })?;
        Ok(intact)
    }
}
