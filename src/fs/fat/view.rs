//! The volume as it is, and an edit on top of it that is stored as a whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::boot::Boot;
use crate::disk::DiskMut;
use crate::disk::bytes::long;
use crate::error::Result;
use crate::fs::pages::{PAGE, Pages, pieces};

/// What is known of the free clusters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// Free clusters, once they were counted.
    pub(super) free: Option<u32>,
    /// Where the search for the next one starts.
    pub(super) next: u32,
}

/// The file system at one moment, with changes that [`View::commit`] stores. A view that is dropped changes nothing.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) pages: &'a Pages,
    pub(super) boot: &'a Boot,
    pub(super) room: Room,
    changed: BTreeMap<u64, Arc<Vec<u8>>>,
    /// Content, which goes to clusters that nothing else uses: offset and bytes.
    content: Vec<(u64, Vec<u8>)>,
}

impl<'a> View<'a> {
    pub(super) fn new(pages: &'a Pages, boot: &'a Boot, room: Room) -> Self {
        Self { pages, boot, room, changed: BTreeMap::new(), content: Vec::new() }
    }

    /// Fills `buf` with metadata from `offset`.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.pages.read(buf, offset)?;
        if self.changed.is_empty() {
            return Ok(());
        }
        for (number, within, at) in pieces(offset, buf.len()) {
            let page = self.changed.get(&number).and_then(|page| page.get(within));
            if let (Some(to), Some(from)) = (buf.get_mut(at), page) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// `N` bytes of metadata at `offset`.
    pub(super) fn array<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Changes metadata at `offset`.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        for (number, within, at) in pieces(offset, bytes.len()) {
            let page = match self.changed.remove(&number) {
                Some(page) => page,
                None => self.pages.page(number)?,
            };
            let page = self.changed.entry(number).or_insert(page);
            if let (Some(to), Some(from)) = (Arc::make_mut(page).get_mut(within), bytes.get(at)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    /// Has content written at `offset` when everything else is known to succeed.
    pub(super) fn write_content(&mut self, bytes: Vec<u8>, offset: u64) {
        self.content.push((offset, bytes));
    }

    /// Bytes of each piece of content that waits.
    #[cfg(test)]
    pub(super) fn content_lens(&self) -> Vec<usize> {
        self.content.iter().map(|(_, bytes)| bytes.len()).collect()
    }

    /// Stores all changes. What is known of the free clusters then.
    pub(super) fn commit(mut self, disk: &dyn DiskMut) -> Result<Room> {
        self.put_fs_info()?;
        for (number, page) in &self.changed {
            let offset = number.saturating_mul(PAGE);
            self.pages.forget(offset..offset.saturating_add(PAGE));
            disk.write_at(page, offset)?;
        }
        // Content comes last: a page may hold some of what was there before.
        for (offset, bytes) in &self.content {
            self.pages.forget(*offset..offset.saturating_add(long(bytes.len())));
            disk.write_at(bytes, *offset)?;
        }
        Ok(self.room)
    }
}
