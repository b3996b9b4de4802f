//! Extents in a log: they take the place of what overlaps them.

use std::ops::ControlFlow;

use super::super::extent::{Body, Extent};
use super::super::features::INCOMPAT_NO_HOLES;
use super::super::key::{Key, kind};
use super::super::{corrupt, limit};
use super::Replay;
use crate::disk::bytes::{le64, put};
use crate::error::Result;
use crate::limits;

/// Where `offset` and `num_bytes` of an extent item are.
const OFFSET: usize = 37;
const NUM_BYTES: usize = 45;

impl Replay<'_> {
    pub(super) fn extent(&mut self, key: Key, item: &[u8]) -> Result<()> {
        let inode = key.objectid;
        self.require(inode)?;
        let sectorsize = self.store.sb.sectorsize;
        let extent = Extent::parse(key.offset, item, sectorsize)?;
        let is_inline = matches!(extent.body, Body::Inline { .. });
        if !is_inline && self.store.get(&self.tree, key)?.as_deref() == Some(item) {
            return Ok(());
        }
        let sector = u64::from(sectorsize);
        let end = extent.end().checked_next_multiple_of(sector).unwrap_or(u64::MAX);
        let dropped = self.drop_extents(inode, extent.start, end)?;
        let added = if extent.body == Body::Hole { 0 } else { extent.len };
        if extent.body != Body::Hole || self.store.sb.incompat & INCOMPAT_NO_HOLES == 0 {
            self.put(key, item.to_vec());
        }
        if let Body::Regular(data) | Body::Prealloc(data) = &extent.body {
            let used = match data.compression {
                Some(_) => data.bytenr..data.bytenr.saturating_add(data.disk_len),
                None => {
                    let start = data.bytenr.saturating_add(data.offset);
                    start..start.saturating_add(extent.len)
                }
            };
            self.take_sums(used.start, used.end);
        }
        self.edit(inode, |inode| inode.set_nbytes(inode.nbytes().saturating_add(added).saturating_sub(dropped)))
    }

    /// Takes `start..end` out of a file's extents. How many allocated bytes that were.
    pub(super) fn drop_extents(&mut self, inode: u64, start: u64, end: u64) -> Result<u64> {
        let mut old = Vec::new();
        let before = self.store.floor(&self.tree, Key::new(inode, kind::EXTENT_DATA, start))?;
        let from = before.filter(|(key, _)| key.is(inode, kind::EXTENT_DATA)).map_or(start, |(key, _)| key.offset);
        self.store.scan_kind(&self.tree, (inode, kind::EXTENT_DATA, from), &mut |at, item| {
            if at >= end {
                return Ok(ControlFlow::Break(()));
            }
            old.push((at, item.to_vec()));
            if old.len() > limits::MAX_BTRFS_LOG / limits::BTRFS_LOG_ITEM {
                return Err(limit("a log that drops too many extents", limits::MAX_BTRFS_LOG));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut dropped = 0_u64;
        for (at, item) in old {
            let extent = Extent::parse(at, &item, self.store.sb.sectorsize)?;
            if extent.end() <= start {
                continue;
            }
            let cut = at.max(start)..extent.end().min(end);
            let is_whole = cut.start == at && cut.end == extent.end();
            if matches!(extent.body, Body::Inline { .. }) && !is_whole {
                return Err(corrupt(format!("a log replaces a part of the content of inode {inode}")));
            }
            if extent.body != Body::Hole {
                dropped = dropped.saturating_add(cut.end.saturating_sub(cut.start));
            }
            let key = |at| Key::new(inode, kind::EXTENT_DATA, at);
            self.set(key(at), None);
            if at < cut.start {
                self.put(key(at), part(&item, 0, cut.start.saturating_sub(at)));
            }
            if cut.end < extent.end() {
                let skip = cut.end.saturating_sub(at);
                self.put(key(cut.end), part(&item, skip, extent.end().saturating_sub(cut.end)));
            }
        }
        Ok(dropped)
    }
}

/// The item of a part of an extent that is not inline.
pub(in super::super) fn part(item: &[u8], skip: u64, len: u64) -> Vec<u8> {
    let mut part = item.to_vec();
    let is_hole = le64(item, 21) == 0;
    let offset = if is_hole { 0 } else { le64(item, OFFSET).saturating_add(skip) };
    put(&mut part, OFFSET, &offset.to_le_bytes());
    put(&mut part, NUM_BYTES, &len.to_le_bytes());
    part
}
