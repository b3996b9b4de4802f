//! Content of files: inline while it is short, else in new extents with their checksums. Nothing is compressed.

use std::ops::ControlFlow;

use super::super::Core;
use super::super::dir::Target;
use super::super::extent::{Body, Extent, HEAD};
use super::super::inode::{Item, NODATASUM, VERITY};
use super::super::key::{Key, kind};
use super::super::log::extents::part;
use super::super::{corrupt, not_a};
use super::Undo;
use crate::disk::bytes::{long, put, size};
use crate::error::{Error, Result};
use crate::fs::FileKind;

/// The longest content that goes into the tree: `max_inline`, as the kernel sets it when nothing is said.
const MAX_INLINE: usize = 2048;
/// The longest file whose content is moved out of the tree to append to it. One that is inline and longer than a sector was made
/// longer, and written again before anything else happened to it.
const MOVED: u64 = 1 << 20;
/// Bytes that are sealed and written at once.
const STEP: usize = 1 << 20;

impl Core {
    /// A regular file that may be changed.
    pub(super) fn writable_file(&self, file: Target) -> Result<Item> {
        let item = self.writable(file)?;
        if item.kind() != Some(FileKind::Regular) || item.nlink() == 0 {
            return Err(not_a(file.inode, "a regular file"));
        }
        if item.flags() & VERITY != 0 {
            return Err(Error::unsupported("btrfs.feature", format!("inode {} is sealed by verity", file.inode)));
        }
        Ok(item)
    }

    /// Replaces the whole content.
    pub(in super::super) fn replace_content(&mut self, file: Target, content: &[u8]) -> Result<()> {
        let mut item = self.writable_file(file)?;
        self.fill_file(file, &mut item, content)?;
        self.put_inode(file, item)
    }

    /// Appends to the content.
    pub(in super::super) fn append_content(&mut self, file: Target, content: &[u8]) -> Result<()> {
        let mut item = self.writable_file(file)?;
        if content.is_empty() {
            return Ok(());
        }
        let (len, sector) = (item.size(), u64::from(self.store.sb.sectorsize));
        let new_len = len.checked_add(long(content.len())).filter(|len| i64::try_from(*len).is_ok());
        let new_len = new_len.ok_or_else(|| super::full(format!("inode {} becomes too long", file.inode)))?;
        // What is inline is short, and moves out if need be.
        let from = if self.is_inline(file)? { 0 } else { len.saturating_sub(len.checked_rem(sector).unwrap_or(0)) };
        if len.saturating_sub(from) > MOVED {
            let what = format!("inode {} is long and begins with content in the tree", file.inode);
            return Err(Error::unsupported("btrfs.feature", what)
                .expected(format!("at most {MOVED} bytes"))
                .found(len));
        }
        let mut tail = vec![0; size(len.saturating_sub(from))];
        self.read_file(file, &mut tail, from)?;
        tail.extend_from_slice(content);
        if from == 0 {
            self.fill_file(file, &mut item, &tail)?;
            return self.put_inode(file, item);
        }
        let dropped = self.drop_extents(file, from)?;
        let written = self.write_extents(file, &item, from, &tail)?;
        item.set_nbytes(item.nbytes().saturating_sub(dropped).saturating_add(written));
        item.set_size(new_len);
        self.put_inode(file, item)
    }

    fn is_inline(&self, file: Target) -> Result<bool> {
        let tree = self.tree(file.volume)?;
        let item = self.store.get(tree, Key::new(file.inode, kind::EXTENT_DATA, 0))?;
        let Some(item) = item else { return Ok(false) };
        Ok(matches!(Extent::parse(0, &item, self.store.sb.sectorsize)?.body, Body::Inline { .. }))
    }

    /// Gives a file, which keeps nothing of what it had, its content.
    pub(super) fn fill_file(&mut self, file: Target, item: &mut Item, content: &[u8]) -> Result<()> {
        self.drop_extents(file, 0)?;
        let inline = MAX_INLINE.min(size(u64::from(self.store.sb.sectorsize)).saturating_sub(1));
        let inline = inline.min(self.max_item()?.saturating_sub(HEAD));
        let written = if content.is_empty() {
            0
        } else if content.len() <= inline || item.kind() == Some(FileKind::Symlink) {
            self.put_inline(file, content)?;
            long(content.len())
        } else {
            self.write_extents(file, item, 0, content)?
        };
        item.set_nbytes(written);
        item.set_size(long(content.len()));
        Ok(())
    }

    fn put_inline(&mut self, file: Target, content: &[u8]) -> Result<()> {
        let mut item = vec![0; HEAD];
        put(&mut item, 0, &self.transaction().to_le_bytes());
        put(&mut item, 8, &long(content.len()).to_le_bytes());
        item.extend_from_slice(content);
        if item.len() > self.max_item()? {
            return Err(super::full("what is to be stored in the tree is too long").found(content.len()));
        }
        self.set(file.volume, Key::new(file.inode, kind::EXTENT_DATA, 0), Some(item))
    }

    /// Writes `content` to free space and has the file refer to it from `start` on, which begins a sector and has nothing at or
    /// after it. Bytes that this allocates.
    fn write_extents(&mut self, file: Target, item: &Item, start: u64, content: &[u8]) -> Result<u64> {
        let sector = u64::from(self.store.sb.sectorsize);
        let mut rest = content;
        let mut at = start;
        while !rest.is_empty() {
            let want = long(rest.len()).checked_next_multiple_of(sector).unwrap_or(u64::MAX);
            let range = self.allocate_data(want)?;
            let len = range.end.saturating_sub(range.start);
            self.writing.undo.push(Undo::Data(range.clone()));
            self.writing.fresh.insert(range.start, len);
            let (now, later) = rest.split_at_checked(size(len)).unwrap_or((rest, &[]));
            self.write_data(range.start, now, item.flags() & NODATASUM == 0)?;
            let mut extent = vec![0; HEAD];
            put(&mut extent, 0, &self.transaction().to_le_bytes());
            put(&mut extent, 8, &len.to_le_bytes());
            put(&mut extent, 20, &[1]);
            [range.start, len, 0, len].iter().for_each(|value| extent.extend(value.to_le_bytes()));
            self.set(file.volume, Key::new(file.inode, kind::EXTENT_DATA, at), Some(extent))?;
            at = at.saturating_add(len);
            rest = later;
        }
        Ok(at.saturating_sub(start))
    }

    /// Writes whole sectors, the last one filled up with zeros.
    fn write_data(&mut self, start: u64, content: &[u8], summed: bool) -> Result<()> {
        let sector = size(u64::from(self.store.sb.sectorsize));
        let (mut at, mut sums) = (start, Vec::new());
        for step in content.chunks(STEP) {
            let mut bytes = step.to_vec();
            bytes.resize(step.len().checked_next_multiple_of(sector).unwrap_or(step.len()), 0);
            self.store.devices.write(&self.store.chunks, &bytes, at)?;
            if summed {
                sums.extend(bytes.chunks(sector).flat_map(|sector| self.store.sb.checksum.of(sector)));
            }
            at = at.saturating_add(long(bytes.len()));
        }
        if summed { self.put_sums(start, &sums) } else { self.remove_sums(start..at) }
    }

    /// Takes everything from `from` on, which begins a sector, out of a file. Allocated bytes that it had there.
    fn drop_extents(&mut self, file: Target, from: u64) -> Result<u64> {
        let tree = self.tree(file.volume)?;
        let before = self.store.floor(tree, Key::new(file.inode, kind::EXTENT_DATA, from))?;
        let before = before.filter(|(key, _)| key.is(file.inode, kind::EXTENT_DATA));
        let first = before.map_or(from, |(key, _)| key.offset);
        let (mut edits, mut dropped) = (Vec::new(), 0_u64);
        self.store.scan_kind(tree, (file.inode, kind::EXTENT_DATA, first), &mut |at, item| {
            let extent = Extent::parse(at, item, self.store.sb.sectorsize)?;
            if extent.end() <= from {
                return Ok(ControlFlow::Continue(()));
            }
            let kept = from.saturating_sub(at);
            if extent.body != Body::Hole {
                dropped = dropped.saturating_add(extent.len.saturating_sub(kept));
            }
            let key = Key::new(file.inode, kind::EXTENT_DATA, at);
            if kept > 0 && matches!(extent.body, Body::Inline { .. }) {
                return Err(corrupt(format!("inode {} has more after what is inline", file.inode)));
            }
            edits.push((key, (kept > 0).then(|| part(item, 0, kept))));
            Ok(ControlFlow::Continue(()))
        })?;
        edits.into_iter().try_for_each(|(key, item)| self.set(file.volume, key, item))?;
        Ok(dropped)
    }

    /// Bytes that an item has at most.
    pub(super) fn max_item(&self) -> Result<usize> {
        Ok(self.writing.mold()?.room().saturating_sub(super::super::node::ITEM))
    }
}
