//! The refcounts that an image keeps (specification, "Host cluster management"): a table of blocks of numbers.

use super::super::Qcow2;
use super::super::entry::invalid;
use crate::error::Result;

/// Bits 9 to 63 of a table entry: a block's offset.
const BLOCK: u64 = !0x1ff;

/// Refcounts given at once: 64 KiB of memory.
const SOME: u64 = 8192;

/// The refcount table of an image, which lies in the file.
#[derive(Clone, Copy)]
pub(super) struct Refcounts<'a> {
    layer: &'a Qcow2,
    offset: u64,
    len: u64,
}

impl<'a> Refcounts<'a> {
    pub(super) fn new(layer: &'a Qcow2, offset: u64, len: u64) -> Self {
        Self { layer, offset, len }
    }

    /// Entries of the table.
    pub(super) fn blocks(self) -> u64 {
        self.len / 8
    }

    /// Refcounts of a block.
    fn block_entries(self) -> u64 {
        let bits = self.layer.header.cluster_size.get().saturating_mul(8);
        bits.checked_shr(self.layer.header.refcount_order).unwrap_or(0).max(1)
    }

    /// Where block `index` lies, if there is one.
    pub(super) fn block(self, index: u64) -> Result<Option<u64>> {
        if index >= self.blocks() {
            return Ok(None);
        }
        let at = self.offset.saturating_add(index.saturating_mul(8));
        let raw = u64::from_be_bytes(self.layer.pages.entry(at)?);
        let block = raw & BLOCK;
        if raw & !BLOCK != 0 || block % self.layer.header.cluster_size != 0 {
            return Err(invalid("an entry of the refcount table is not valid", raw, at));
        }
        if block >= self.layer.header.file_len {
            return Err(super::beyond(block).found("a refcount block"));
        }
        Ok((block != 0).then_some(block))
    }

    /// The refcount of the cluster at `host`; `None` where the block cannot be read.
    pub(super) fn of(self, host: u64) -> Result<Option<u64>> {
        let number = host / self.layer.header.cluster_size;
        Ok(self.some_until(number, number.saturating_add(1), 1)?.first().copied())
    }

    /// The refcounts of clusters from `start` on: at least one, at most to `end`. Those of blocks that cannot be read are 0.
    pub(super) fn some_from(self, start: u64, end: u64) -> Result<Vec<u64>> {
        self.some_until(start, end, SOME)
    }

    fn some_until(self, start: u64, end: u64, most: u64) -> Result<Vec<u64>> {
        let entries = self.block_entries();
        let within = start.checked_rem(entries).unwrap_or(0);
        let wanted = end.saturating_sub(start).min(most).min(entries.saturating_sub(within));
        let mut some = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
        let Ok(Some(block)) = self.block(start.checked_div(entries).unwrap_or(0)) else {
            some.resize(usize::try_from(wanted).unwrap_or(0), 0);
            return Ok(some);
        };
        let order = self.layer.header.refcount_order;
        for index in within..within.saturating_add(wanted) {
            some.push(self.entry(block, index, order)?);
        }
        Ok(some)
    }

    /// Number `index` of the block at `block`. Those of less than a byte lie from the least significant bit on.
    fn entry(self, block: u64, index: u64, order: u32) -> Result<u64> {
        let bits = 1_u64.checked_shl(order).unwrap_or(64);
        let bit = index.saturating_mul(bits);
        let at = block.saturating_add(bit / 8);
        let pages = &self.layer.pages;
        Ok(match order {
            0..=2 => {
                let [byte] = pages.entry(at)?;
                let mask = 1_u64.checked_shl(u32::try_from(bits).unwrap_or(8)).unwrap_or(0).saturating_sub(1);
                u64::from(byte).checked_shr(u32::try_from(bit % 8).unwrap_or(0)).unwrap_or(0) & mask
            }
            3 => u64::from(u8::from_be_bytes(pages.entry(at)?)),
            4 => u64::from(u16::from_be_bytes(pages.entry(at)?)),
            5 => u64::from(u32::from_be_bytes(pages.entry(at)?)),
            _ => u64::from_be_bytes(pages.entry(at)?),
        })
    }
}
