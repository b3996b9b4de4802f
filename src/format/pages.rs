//! Page tables of images, read in pages through a bounded cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits::MAX_CHAIN_DEPTH;
use crate::session::Session;

/// Bytes of one page: 8,192 entries of 8 bytes, so a page of an L2 table of qcow2's default cluster size is the whole table.
pub(super) const PAGE: u64 = 64 << 10;

/// Recently used pages of one file.
#[derive(Debug)]
pub(super) struct Pages {
    file: Arc<dyn Disk>,
    most: usize,
    /// The error for an offset past the end of the file.
    beyond: fn(u64) -> Error,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    /// Pages by number, with the time of their last use.
    pages: HashMap<u64, (u64, Arc<[u8]>)>,
    clock: u64,
}

/// The bytes of a table from some offset to the end of its page.
#[derive(Debug)]
pub(super) struct Entries {
    page: Arc<[u8]>,
    from: usize,
}

impl Entries {
    /// The bytes as they are.
    pub(super) fn bytes(&self) -> &[u8] {
        self.page.get(self.from..).unwrap_or_default()
    }

    /// As entries of `N` bytes.
    pub(super) fn of<const N: usize>(&self) -> impl Iterator<Item = [u8; N]> {
        self.bytes().as_chunks().0.iter().copied()
    }
}

impl Pages {
    /// A cache within the share of the budget that one layer of the longest chain may have: at least two pages, for instance
    /// one of an L1 table and one of an L2 table.
    pub(super) fn new(file: Arc<dyn Disk>, session: &Session, beyond: fn(u64) -> Error) -> Self {
        Self::shared(file, session, 1, beyond)
    }

    /// As [`Pages::new`], for one of `among` files of a layer, which share what the layer may have.
    pub(super) fn shared(file: Arc<dyn Disk>, session: &Session, among: u64, beyond: fn(u64) -> Error) -> Self {
        let sharers = u64::from(MAX_CHAIN_DEPTH).saturating_mul(among.max(1));
        let share = session.budget.metadata().checked_div(sharers).unwrap_or(0);
        let most = usize::try_from(share / PAGE).unwrap_or(usize::MAX).max(2);
        Self { file, most, beyond, cache: Mutex::default() }
    }

    /// The entries from `offset`, a multiple of their size, to the end of its page or of the file.
    pub(super) fn entries(&self, offset: u64) -> Result<Entries> {
        if offset >= self.file.len() {
            return Err((self.beyond)(offset));
        }
        let page = self.page(offset / PAGE)?;
        Ok(Entries { page, from: usize::try_from(offset % PAGE).unwrap_or(usize::MAX) })
    }

    /// One entry of `N` bytes at `offset`, which does not cross a page.
    pub(super) fn entry<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        self.entries(offset)?.of().next().ok_or_else(|| (self.beyond)(offset))
    }

    fn page(&self, number: u64) -> Result<Arc<[u8]>> {
        if let Some(page) = self.lock().get(number) {
            return Ok(page);
        }
        let start = number.checked_mul(PAGE).ok_or_else(|| (self.beyond)(number))?;
        let len = self.file.len().saturating_sub(start).min(PAGE);
        let mut page = vec![0; usize::try_from(len).unwrap_or(0)];
        self.file.read_at(&mut page, start)?;
        let page: Arc<[u8]> = page.into();
        self.lock().put(number, Arc::clone(&page), self.most);
        Ok(page)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cache {
    fn get(&mut self, number: u64) -> Option<Arc<[u8]>> {
        self.clock = self.clock.wrapping_add(1);
        let (used, page) = self.pages.get_mut(&number)?;
        *used = self.clock;
        Some(Arc::clone(page))
    }

    fn put(&mut self, number: u64, page: Arc<[u8]>, most: usize) {
        while self.pages.len() >= most {
            let Some(oldest) = self.pages.iter().min_by_key(|(_, (used, _))| *used).map(|(number, _)| *number) else {
                break;
            };
            self.pages.remove(&oldest);
        }
        self.pages.insert(number, (self.clock, page));
    }
}
