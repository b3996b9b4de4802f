//! The log ("Journaling Log"): a ring of records, each stamped with the number of its turn (cycle) in every basic block. What
//! it holds from its tail to its head is replayed in two passes, as the kernel does: first the buffers that were freed are
//! noted, then all else is put in place, newer than what is there or not at all.

use super::store::{BASIC, Store};
use super::superblock::Superblock;
use super::unsupported;
use crate::disk::bytes::{be32, long, size};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits;

use record::Header;

mod head;
mod inode;
mod intent;
mod item;
mod record;
mod replay;
mod settle;
#[cfg(test)]
pub(super) mod testing;
mod transaction;

pub(super) use head::End;
pub(super) use intent::{Intent, Part, Pointers};
pub(super) use replay::Replay;

/// What a log sequence number is made of: the turn of the ring, and the basic block in it.
pub(super) fn lsn(cycle: u32, block: u32) -> u64 {
    u64::from(cycle) << 32 | u64::from(block)
}

/// The parts of a log sequence number.
fn parts(lsn: u64) -> (u32, u32) {
    let [a, b, c, d, low @ ..] = lsn.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(low))
}

/// A log on its volume.
pub(super) struct Log<'a> {
    disk: &'a dyn Disk,
    /// Byte of the volume where it starts.
    start: u64,
    /// Basic blocks.
    blocks: u32,
    uuid: [u8; 16],
    /// Records carry a checksum that counts.
    has_crc: bool,
    is_v2: bool,
    /// Bytes that every record begins at a multiple of.
    unit: u32,
}

/// What has to be done with a log.
pub(super) enum State {
    /// Nothing.
    Clean,
    /// All from the tail to the head has to be replayed.
    Dirty(End),
}

impl<'a> Log<'a> {
    /// The log of the file system `sb` on `disk`.
    pub(super) fn new(disk: &'a dyn Disk, sb: &Superblock) -> Result<Self> {
        let Some((first, blocks)) = sb.log() else {
            return Err(unsupported("the log is on another device").hint("mount and unmount it in the guest"));
        };
        let start = sb.run(first, u64::from(blocks)).map_err(|_| damaged("it lies outside of the file system"))?;
        let count = sb.bytes(u64::from(blocks)) / BASIC;
        let blocks = u32::try_from(count).ok().filter(|blocks| (64..=limits::MAX_XFS_LOG).contains(blocks));
        let blocks = blocks.ok_or_else(|| damaged("its size is impossible").found(count))?;
        Ok(Self {
            disk,
            start,
            blocks,
            uuid: sb.uuid(),
            has_crc: sb.has_crc(),
            is_v2: sb.features.has_log_v2(),
            unit: sb.log_unit(),
        })
    }

    /// Replays what the log holds into `store`, in memory.
    pub(super) fn replay(&self, end: &End, store: &mut Store, sb: &Superblock) -> Result<Replay> {
        let mut replay = Replay::new(sb);
        self.each_transaction(end, &mut |transaction| replay.note_cancelled(&transaction))?;
        self.each_transaction(end, &mut |transaction| replay.apply(store, &transaction))?;
        replay.finish(store)?;
        Ok(replay)
    }

    /// The `count` basic blocks from `block` on, around the end of the ring.
    fn read(&self, block: u32, count: u32) -> Result<Vec<u8>> {
        let before = count.min(self.blocks.saturating_sub(block));
        let mut bytes = read_vec(self.disk, self.place(block), bytes_of(before))?;
        if count > before {
            bytes.extend(read_vec(self.disk, self.start, bytes_of(count.saturating_sub(before)))?);
        }
        Ok(bytes)
    }

    fn place(&self, block: u32) -> u64 {
        self.start.saturating_add(u64::from(block).saturating_mul(BASIC))
    }

    /// The block `count` blocks after `block`.
    fn after(&self, block: u32, count: u32) -> u32 {
        let sum = u64::from(block).saturating_add(u64::from(count));
        u32::try_from(sum.checked_rem(u64::from(self.blocks)).unwrap_or(0)).unwrap_or(0)
    }

    /// The block `count` blocks before `block`; `count` is at most the log's length.
    fn before(&self, block: u32, count: u32) -> u32 {
        self.after(block, self.blocks.saturating_sub(count))
    }

    /// Blocks from `from` forward to `to`; a whole turn if they are the same.
    fn distance(&self, from: u32, to: u32) -> u32 {
        match self.before(to, from) {
            0 => self.blocks,
            distance => distance,
        }
    }

    /// Blocks that may be under way to the disk at once, in any order.
    fn window(&self) -> u32 {
        let window = if self.is_v2 { 4096 } else { 512 };
        window.min(self.blocks)
    }

    /// Visits the records from the tail to the head, each with its data.
    fn each_record(&self, end: &End, visit: &mut dyn FnMut(&Header, &[u8]) -> Result<()>) -> Result<()> {
        let mut block = end.tail;
        let mut left = self.distance(end.tail, end.head);
        while left > 0 {
            let header = self.header(block)?.ok_or_else(|| damaged("a record is missing").found(block))?;
            let len = header.blocks();
            if len > left {
                return Err(damaged("a record reaches over its head").found(block));
            }
            visit(&header, &self.data(&header)?)?;
            block = self.after(block, len);
            left = left.saturating_sub(len);
        }
        Ok(())
    }
}

/// The turn that a basic block was written in.
fn cycle_of(block: &[u8]) -> u32 {
    match be32(block, 0) {
        record::MAGIC => be32(block, 4),
        cycle => cycle,
    }
}

fn bytes_of(blocks: u32) -> usize {
    size(u64::from(blocks).saturating_mul(BASIC))
}

/// Basic blocks that `bytes` take.
fn blocks_of(bytes: u32) -> u32 {
    bytes.div_ceil(512)
}

/// The log contradicts itself.
fn damaged(what: &str) -> Error {
    Error::corrupt("xfs.log", format!("the log cannot be replayed: {what}"))
}

/// The log holds too much to be held in memory.
fn too_much(held: usize) -> Error {
    Error::limit("xfs.limit", "the log holds too much").found(long(held))
}
