//! Logs made by hand.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "tests build their input"
)]

use std::sync::Arc;

use super::Log;
use crate::disk::{Checked, Memory};
use crate::fs::xfs::superblock::Superblock;

pub(in crate::fs::xfs) const START: u8 = 1;

/// An operation of transaction `number`.
pub(in crate::fs::xfs) fn op(number: u32, flags: u8, body: &[u8]) -> (u32, u8, Vec<u8>) {
    (number, flags, body.to_vec())
}

/// An image whose log is written on.
pub(in crate::fs::xfs) struct Builder {
    disk: Arc<Checked<Memory>>,
    sb: Superblock,
    /// The first record that was added, and the last, as blocks of the log.
    first: Option<(u32, u32)>,
    last: u32,
    head: (u32, u32),
}

impl Builder {
    /// After what mkfs left.
    pub(in crate::fs::xfs) fn new(image: &[u8]) -> Self {
        let disk = Checked::wrap(Memory::new(image.to_vec()));
        let sb = Superblock::read(&*disk).unwrap();
        let mut builder = Self { disk, sb, first: None, last: 0, head: (0, 0) };
        let log = builder.log();
        let head = log.head().unwrap().unwrap();
        let last = log.previous(head).unwrap().unwrap();
        (builder.last, builder.head) = (last.block, (last.cycle, head));
        builder
    }

    /// In a log whose next record begins `distance` blocks before its end.
    pub(in crate::fs::xfs) fn near_the_end(image: &[u8], distance: u32) -> Self {
        let builder = Self::new(image);
        let log = builder.log();
        let mut all = vec![0; super::bytes_of(log.blocks)];
        for (block, piece) in (0..).zip(all.chunks_mut(512)) {
            log.stamp(piece, (1, block), 0);
        }
        crate::disk::DiskMut::write_at(&*builder.disk, &all, log.start).unwrap();
        let head = (1, log.blocks - distance);
        Self { head, ..builder }
    }

    fn log(&self) -> Log<'_> {
        Log::new(&*self.disk, &self.sb).unwrap()
    }

    /// Adds a record.
    pub(in crate::fs::xfs) fn record(&mut self, operations: &[(u32, u8, Vec<u8>)]) {
        let mut data = Vec::new();
        for (number, flags, body) in operations {
            data.extend(number.to_be_bytes());
            data.extend((body.len() as u32).to_be_bytes());
            data.extend([0x69, *flags, 0, 0]);
            data.extend(body);
        }
        let log = self.log();
        let mut record = log.compose(self.head, self.last, &data, operations.len() as u32).unwrap();
        let tail = self.first.unwrap_or(self.head);
        crate::disk::bytes::put(&mut record, 24, &super::lsn(tail.0, tail.1).to_be_bytes());
        if log.has_crc {
            let len = crate::disk::bytes::be32(&record, 12);
            let sum = super::record::crc(&record, 1, len, 328);
            crate::disk::bytes::put(&mut record, 32, &sum.to_le_bytes());
        }
        log.write(&*self.disk, self.head.1, &record).unwrap();
        let next = log.after(self.head.1, (record.len() / 512) as u32);
        let cycle = self.head.0 + u32::from(next <= self.head.1);
        (self.first, self.last, self.head) = (Some(tail), self.head.1, (cycle, next));
    }

    /// Byte of the image where the next record begins.
    pub(in crate::fs::xfs) fn next(&self) -> usize {
        self.log().place(self.head.1) as usize
    }

    /// Byte of the image where the first record that was added begins.
    pub(in crate::fs::xfs) fn first(&self) -> usize {
        self.log().place(self.first.unwrap().1) as usize
    }

    pub(in crate::fs::xfs) fn image(&self) -> Vec<u8> {
        self.disk.inner().snapshot()
    }
}
