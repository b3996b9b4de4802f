//! What is left in the log after a replay was stored: a record that says that the file system was unmounted or, where the
//! kernel has inodes to remove or changes to finish, one that makes it do so when it mounts the file system next.

use super::head::End;
use super::item::{self, CHUNK};
use super::replay::Replay;
use super::transaction::{TRANSACTION_HEADER, TRANSACTION_MAGIC};
use super::{Log, blocks_of, cycle_of};
use crate::disk::DiskMut;
use crate::disk::bytes::{long, put_be32, size};
use crate::error::Result;
use crate::fs::xfs::unsupported;

/// Who operations are from.
const TRANSACTION: u8 = 0x69;
const LOG: u8 = 0xaa;
const START: u8 = 0x01;
const COMMIT: u8 = 0x02;
const UNMOUNT: u8 = 0x20;
const UNMOUNT_MAGIC: [u8; 8] = [0x6e, 0x55, 0, 0, 0, 0, 0, 0];
/// The number of our only transaction.
const NUMBER: u32 = 0x6832_6b76;
/// The type of all transactions of today's kernels.
const CHECKPOINT: u32 = 40;
/// Bytes of a superblock that are logged.
const SUPERBLOCK: usize = 384;

/// Operations of a record.
#[derive(Default)]
struct Operations {
    bytes: Vec<u8>,
    count: u32,
}

impl Operations {
    fn add(&mut self, client: u8, flags: u8, body: &[u8]) {
        let mut header = [0; 12];
        put_be32(&mut header, 0, NUMBER);
        put_be32(&mut header, 4, u32::try_from(body.len()).unwrap_or(u32::MAX));
        crate::disk::bytes::put(&mut header, 8, &[client, flags]);
        self.bytes.extend(header);
        self.bytes.extend_from_slice(body);
        self.count = self.count.saturating_add(1);
    }
}

impl Log<'_> {
    /// The record that is to follow what was replayed, with its place in the log. `superblock` is its new sector; the kernel
    /// has something to do if `has_leftovers` or intents are left.
    pub(in crate::fs::xfs) fn last_words(
        &self,
        end: &End,
        replay: &Replay,
        superblock: &[u8],
        has_leftovers: bool,
    ) -> Result<Vec<u8>> {
        let mut operations = Operations::default();
        if has_leftovers || replay.intents().next().is_some() {
            transaction(&mut operations, replay, superblock);
        } else {
            operations.add(LOG, UNMOUNT, &UNMOUNT_MAGIC);
        }
        self.compose((end.cycle, end.head), end.last, &operations.bytes, operations.count)
            .ok_or_else(|| unsupported("the log holds too many changes that were not finished"))
    }

    /// Stores `record` at the head, and blocks of an earlier turn after it, so that what was on its way to the disk when the
    /// machine stopped is never taken for what comes after the head.
    pub(in crate::fs::xfs) fn settle(&self, end: &End, record: &[u8], target: &dyn DiskMut) -> Result<()> {
        self.write(target, end.head, record)?;
        let len = blocks_of(u32::try_from(record.len()).unwrap_or(u32::MAX));
        let head = self.after(end.head, len);
        let cycle = end.cycle.saturating_add(u32::from(head <= end.head));
        let window = self.window().min(self.blocks.saturating_sub(len));
        let mut distance = 0;
        while distance < window {
            let block = self.after(head, distance);
            let count = 128.min(window.saturating_sub(distance)).min(self.blocks.saturating_sub(block));
            let mut bytes = self.read(block, count)?;
            let mut changed = false;
            for (block, piece) in (block..).zip(bytes.chunks_mut(512)) {
                let expected = if block >= head { cycle.saturating_sub(1) } else { cycle };
                if cycle_of(piece) != expected {
                    piece.fill(0);
                    if expected > 0 {
                        self.stamp(piece, (expected, block), super::lsn(end.cycle, end.head));
                    }
                    changed = true;
                }
            }
            if changed {
                self.write(target, block, &bytes)?;
            }
            distance = distance.saturating_add(count);
        }
        Ok(())
    }

    pub(super) fn write(&self, target: &dyn DiskMut, block: u32, bytes: &[u8]) -> Result<()> {
        let before = size(u64::from(self.blocks.saturating_sub(block)).saturating_mul(512)).min(bytes.len());
        let (now, around) = bytes.split_at_checked(before).unwrap_or_default();
        target.write_at(now, self.place(block))?;
        if around.is_empty() { Ok(()) } else { target.write_at(around, self.start) }
    }
}

/// A transaction with the superblock, since one without any item cannot be replayed, and all that is not finished.
fn transaction(operations: &mut Operations, replay: &Replay, superblock: &[u8]) {
    let count = u32::try_from(replay.intents().count()).unwrap_or(u32::MAX).saturating_add(1);
    let mut header = Vec::with_capacity(TRANSACTION_HEADER);
    for word in [TRANSACTION_MAGIC, CHECKPOINT, NUMBER, count] {
        header.extend(word.to_le_bytes());
    }
    operations.add(TRANSACTION, START, &[]);
    operations.add(TRANSACTION, 0, &header);
    operations.add(TRANSACTION, 0, &superblock_description(superblock.len()));
    operations.add(TRANSACTION, 0, superblock.get(..SUPERBLOCK).unwrap_or_default());
    for region in replay.intents().flat_map(|item| &item.regions) {
        operations.add(TRANSACTION, 0, region);
    }
    operations.add(TRANSACTION, COMMIT, &[]);
}

/// The description of a buffer that is the superblock's sector of `len` bytes, the first chunks of which were logged.
fn superblock_description(len: usize) -> Vec<u8> {
    let words = len.div_ceil(CHUNK.saturating_mul(32)).max(1);
    let mut out = Vec::new();
    for half in [item::BUFFER, 2, item::TYPE_SUPERBLOCK << 11, u16::try_from(len / 512).unwrap_or(u16::MAX)] {
        out.extend(half.to_le_bytes());
    }
    out.extend([0; 8]);
    out.extend(u32::try_from(words).unwrap_or(u32::MAX).to_le_bytes());
    let mut map = vec![0; words.saturating_mul(4)];
    // Three chunks: SUPERBLOCK bytes.
    crate::disk::bytes::put(&mut map, 0, &[0b111]);
    out.extend(map);
    debug_assert_eq!(long(SUPERBLOCK), long(CHUNK).saturating_mul(3));
    out
}
