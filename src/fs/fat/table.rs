//! The file allocation table: entries, chains, free clusters.

use std::ops::{ControlFlow, Range};

use super::boot::Width;
use super::view::View;
use super::{LIMIT, corrupt, full};
use crate::disk::bytes::{le16, le32, long, put32, size};
use crate::error::Result;
use crate::fs::clusters::{Chain, FIRST};
use crate::limits;

/// Entries looked at in one read.
const STEP: u32 = 64 << 10;

/// What an entry of the table says about its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Free,
    Cluster(u32),
    End,
    /// Bad, or no cluster of this file system.
    Wrong(u32),
}

impl View<'_> {
    /// Where the entry of `cluster` is in a table that begins at `table`, and its bytes.
    fn entry_at(&self, table: u64, cluster: u32) -> u64 {
        let bits = u64::from(cluster).saturating_mul(self.boot.width.bits());
        table.saturating_add(bits / 8)
    }

    /// The entry of `cluster` in the table that is read.
    pub(super) fn entry(&self, cluster: u32) -> Result<u32> {
        let table = self.boot.tables.first().copied().unwrap_or(0);
        let at = self.entry_at(table, cluster);
        Ok(match self.boot.width {
            Width::Fat32 => u32::from_le_bytes(self.array(at)?) & Width::Fat32.mask(),
            Width::Fat16 => u32::from(u16::from_le_bytes(self.array(at)?)),
            Width::Fat12 => half(u16::from_le_bytes(self.array(at)?), cluster),
        })
    }

    /// What `entry` says.
    fn meaning(&self, entry: u32) -> Next {
        let end = self.boot.width.mask().saturating_sub(7);
        match entry {
            0 => Next::Free,
            _ if entry >= end => Next::End,
            _ if self.boot.numbers().contains(&entry) => Next::Cluster(entry),
            _ => Next::Wrong(entry),
        }
    }

    /// Makes `value` the entry of `cluster` in every table.
    pub(super) fn set_entry(&mut self, cluster: u32, value: u32) -> Result<()> {
        for table in &self.boot.tables {
            let at = self.entry_at(*table, cluster);
            match self.boot.width {
                Width::Fat32 => {
                    let kept = u32::from_le_bytes(self.array(at)?) & !Width::Fat32.mask();
                    self.write(&(kept | value & Width::Fat32.mask()).to_le_bytes(), at)?;
                }
                Width::Fat16 => self.write(&u16::try_from(value).unwrap_or(u16::MAX).to_le_bytes(), at)?,
                Width::Fat12 => {
                    let both = u16::from_le_bytes(self.array(at)?);
                    let value = u16::try_from(value & 0xfff).unwrap_or(0);
                    let both = if cluster.is_multiple_of(2) { both & 0xf000 | value } else { both & 0xf | value << 4 };
                    self.write(&both.to_le_bytes(), at)?;
                }
            }
        }
        Ok(())
    }

    /// The chain that starts at `first`; at most `most` clusters of it.
    pub(super) fn chain(&self, first: u32, most: u32) -> Result<Chain> {
        let mut chain = Chain::default();
        let mut next = if first == 0 { Next::End } else { self.meaning(first) };
        while chain.len() < most {
            match next {
                Next::End => break,
                Next::Cluster(cluster) => {
                    if chain.len() >= self.boot.clusters {
                        return Err(corrupt("a chain of clusters never ends").found(first));
                    }
                    chain.push(cluster, LIMIT)?;
                    next = self.meaning(self.entry(cluster)?);
                }
                Next::Free => return Err(corrupt("a chain of clusters leads to a free one").found(first)),
                Next::Wrong(entry) => {
                    return Err(corrupt("a chain of clusters leads out of the file system").found(entry));
                }
            }
        }
        if !chain.is_straight() {
            return Err(corrupt("a chain of clusters comes back to itself").found(first));
        }
        Ok(chain)
    }

    /// Frees the clusters of `chain` from `len` on.
    pub(super) fn cut(&mut self, chain: &mut Chain, len: u32) -> Result<()> {
        let freed: Vec<u32> = chain.from(len).collect();
        self.count()?;
        for cluster in &freed {
            self.set_entry(*cluster, 0)?;
        }
        self.room.free = self.room.free.map(|free| free.saturating_add(u32::try_from(freed.len()).unwrap_or(0)));
        chain.truncate(len);
        if let Some(last) = len.checked_sub(1).and_then(|last| chain.at(last)) {
            self.set_entry(last.0, self.boot.width.mask())?;
        }
        Ok(())
    }

    /// Makes `chain` longer, up to `len` clusters.
    pub(super) fn extend(&mut self, chain: &mut Chain, len: u32) -> Result<()> {
        let more = len.saturating_sub(chain.len());
        if more > self.count()? {
            let free = u64::from(self.count()?).saturating_mul(self.boot.cluster.get());
            return Err(full("the file system has no room left").found(free));
        }
        let mut last = chain.len().checked_sub(1).and_then(|last| chain.at(last)).map(|(cluster, _)| cluster);
        for _ in 0..more {
            let cluster = self.take(last)?;
            if let Some(last) = last {
                self.set_entry(last, cluster)?;
            }
            chain.push(cluster, LIMIT)?;
            last = Some(cluster);
        }
        Ok(())
    }

    /// Takes a free cluster, which then ends a chain: the one after `last`, if it is free.
    fn take(&mut self, last: Option<u32>) -> Result<u32> {
        let numbers = self.boot.numbers();
        let after = last.map(|last| last.saturating_add(1)).filter(|next| numbers.contains(next));
        let start = after.or(Some(self.room.next)).filter(|next| numbers.contains(next)).unwrap_or(FIRST);
        for cluster in (start..numbers.end).chain(numbers.start..start) {
            if self.entry(cluster)? == 0 {
                self.set_entry(cluster, self.boot.width.mask())?;
                self.room.free = self.room.free.map(|free| free.saturating_sub(1));
                self.room.next = cluster.saturating_add(1);
                return Ok(cluster);
            }
        }
        Err(full("the file system has no room left"))
    }

    /// The number of free clusters, from the table.
    pub(super) fn count(&mut self) -> Result<u32> {
        if let Some(free) = self.room.free {
            return Ok(free);
        }
        let mut free = 0_u32;
        self.free_runs(&mut |run| {
            free = free.saturating_add(run.end.saturating_sub(run.start));
            ControlFlow::Continue(())
        })?;
        self.room.free = Some(free);
        Ok(free)
    }

    /// Visits the free clusters, ascending, neighbours together. The table is read past the cache and without the changes of
    /// this view.
    pub(super) fn free_runs(&self, visit: &mut dyn FnMut(Range<u32>) -> ControlFlow<()>) -> Result<()> {
        let numbers = self.boot.numbers();
        let mut run = numbers.start..numbers.start;
        let mut at = 0_u32;
        while at < numbers.end {
            let until = numbers.end.min(at.saturating_add(STEP));
            let table = self.table_part(0, at, until)?;
            for cluster in at.max(FIRST)..until {
                if self.entry_in(&table, at, cluster) == 0 {
                    if run.end != cluster {
                        if !run.is_empty() && visit(run.clone()).is_break() {
                            return Ok(());
                        }
                        run.start = cluster;
                    }
                    run.end = cluster.saturating_add(1);
                }
            }
            at = until;
        }
        if !run.is_empty() {
            let _ = visit(run);
        }
        Ok(())
    }

    /// Whether all tables say the same.
    pub(super) fn tables_agree(&self) -> Result<bool> {
        let end = self.boot.numbers().end;
        let mut at = 0_u32;
        while at < end {
            let until = end.min(at.saturating_add(STEP));
            let first = self.table_part(0, at, until)?;
            for index in 1..self.boot.tables.len() {
                let other = self.table_part(index, at, until)?;
                if (at.max(FIRST)..until).any(|one| self.entry_in(&first, at, one) != self.entry_in(&other, at, one)) {
                    return Ok(false);
                }
            }
            at = until;
        }
        Ok(true)
    }

    /// The bytes of a table that hold the entries from `at`, which is even, to `until`.
    fn table_part(&self, index: usize, at: u32, until: u32) -> Result<Vec<u8>> {
        let table = self.boot.tables.get(index).copied().unwrap_or(0);
        let bits = |entry: u32| u64::from(entry).saturating_mul(self.boot.width.bits());
        let (start, end) = (bits(at) / 8, bits(until).div_ceil(8));
        let mut bytes = vec![0; size(end.saturating_sub(start))];
        self.pages.content(&mut bytes, table.saturating_add(start))?;
        Ok(bytes)
    }

    fn entry_in(&self, part: &[u8], at: u32, cluster: u32) -> u32 {
        let index = size(u64::from(cluster.saturating_sub(at)));
        match self.boot.width {
            Width::Fat32 => le32(part, index.saturating_mul(4)) & Width::Fat32.mask(),
            Width::Fat16 => u32::from(le16(part, index.saturating_mul(2))),
            Width::Fat12 => half(le16(part, index.saturating_add(index / 2)), cluster),
        }
    }

    /// Whether the volume says that it was left in order: by the flags of the table's second entry and of the boot sector.
    pub(super) fn is_clean(&self) -> Result<bool> {
        let (entry, both) = match self.boot.width {
            Width::Fat12 => return Ok(!self.boot.mounted),
            Width::Fat16 => (self.entry(1)?, 0xc000),
            Width::Fat32 => (self.entry(1)?, 0x0c00_0000),
        };
        Ok(!self.boot.mounted && entry & both == both)
    }

    /// The free clusters and the next one to try, as FSInfo has them.
    pub(super) fn fs_info(&self) -> Result<Option<(u32, u32)>> {
        let Some(at) = self.boot.fs_info else { return Ok(None) };
        let info: [u8; 512] = self.array(at)?;
        let magic = le32(&info, 0) == 0x4161_5252 && le32(&info, 484) == 0x6141_7272 && le32(&info, 508) == 0xaa55_0000;
        Ok(magic.then(|| (le32(&info, 488), le32(&info, 492))))
    }

    /// Brings FSInfo up to date, where there is one that could be told.
    pub(super) fn put_fs_info(&mut self) -> Result<()> {
        let (Some(at), Some(free), Some(_)) = (self.boot.fs_info, self.room.free, self.fs_info()?) else {
            return Ok(());
        };
        let mut fields = [0; 8];
        put32(&mut fields, 0, free);
        put32(&mut fields, 4, if self.boot.numbers().contains(&self.room.next) { self.room.next } else { FIRST });
        if self.array::<8>(at.saturating_add(488))? != fields {
            self.write(&fields, at.saturating_add(488))?;
        }
        Ok(())
    }

    /// Clusters that hold `len` bytes.
    pub(super) fn clusters_of(&self, len: u64) -> u32 {
        u32::try_from(len.div_ceil(self.boot.cluster.get())).unwrap_or(u32::MAX)
    }

    /// Has `content` written at `offset` of the clusters of `chain`, and zeros after it up to the end of its last cluster.
    pub(super) fn put_content(&mut self, chain: &Chain, offset: u64, content: &[u8]) {
        let cluster = self.boot.cluster;
        let mut done = 0_usize;
        while done < content.len() {
            let at = offset.saturating_add(long(done));
            let index = u32::try_from(at / cluster).unwrap_or(u32::MAX);
            let Some((first, len)) = chain.at(index) else { return };
            let room = u64::from(len).saturating_mul(cluster.get()).saturating_sub(at % cluster);
            let piece = size(room.min(limits::FS_WRITE)).min(content.len().saturating_sub(done));
            let end = done.saturating_add(piece);
            let mut bytes = content.get(done..end).unwrap_or_default().to_vec();
            let stop = at.saturating_add(long(piece));
            if end == content.len() {
                let padded = stop.checked_next_multiple_of(cluster.get()).unwrap_or(stop);
                bytes.resize(bytes.len().saturating_add(size(padded.saturating_sub(stop))), 0);
            }
            self.write_content(bytes, self.boot.place(first).saturating_add(at % cluster));
            done = end;
        }
    }
}

/// A 12-bit entry: the lower half of two bytes for even clusters, the upper one for odd ones.
fn half(both: u16, cluster: u32) -> u32 {
    u32::from(if cluster.is_multiple_of(2) { both & 0xfff } else { both >> 4 })
}
