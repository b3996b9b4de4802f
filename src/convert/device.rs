//! An output that has some content and no name: a block device of this host, or an export of an NBD server.
//!
//! It has no name that could appear at the end, so its beginning takes that part: the first [`HEAD`] bytes, where every
//! partition table and image header lies, and all that tells what is on a device, are zeros until everything else is written,
//! durable and verified. A run that dies leaves a device on which nothing is found. There is no place for a journal: the same
//! command begins again.
//!
//! Whatever was on the device before is still there, so what a sink leaves out is zeroed: everything below [`State::end`] was
//! written or zeroed, by whatever way the [`Medium`] has for that.

use std::fmt::Debug;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::output::{Output, Surface};
use crate::disk::{Checked, Concat, Disk, Memory, Slice};
use crate::error::{Error, Kind, Result};
use crate::session::Session;
use crate::source::Address;

mod block;
mod export;
mod writers;

pub(super) use block::is_device;

use block::Block;
use export::Export;

/// Bytes at the beginning of a device that are written last.
const HEAD: u64 = 1 << 20;

/// Bytes that are zeroed by one call, after which cancellation is looked at.
const ZERO: u64 = 256 << 20;

/// Where bytes are kept. Ranges lie inside.
trait Medium: Debug + Send + Sync {
    /// What it is called.
    fn name(&self) -> String;

    /// A word for it.
    fn noun(&self) -> &'static str;

    /// In bytes.
    fn len(&self) -> u64;

    /// Stores `data`; by the next [`Medium::sync`] at the latest it is known whether that worked.
    fn write(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Makes a range that is not empty read as zeros.
    fn zero(&self, range: Range<u64>) -> Result<()>;

    /// Waits until all of it is durable.
    fn sync(&self) -> Result<()>;

    /// Reads what is kept, not what was meant to be.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// All of it as a disk to read, not from the page cache as far as that can be had.
    fn reopen(&self) -> Result<Arc<dyn Disk>>;
}

/// A device that is being written.
#[derive(Debug)]
pub(super) struct Device {
    medium: Box<dyn Medium>,
    session: Arc<Session>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the device is to begin with.
    head: Vec<u8>,
    /// Where the part ends that was written or zeroed; 0 before the first byte of the device was touched.
    end: u64,
    /// Bytes that the output has.
    used: u64,
}

impl Device {
    /// Claims the device at `path`, all of which is to be overwritten by what is read from `source`.
    pub(super) fn claim(path: &Path, force: bool, source: &dyn Disk, session: &Arc<Session>) -> Result<Self> {
        Ok(Self::new(Box::new(Block::claim(path, force, source, session)?), session))
    }

    /// Claims the export at `address`, as [`Device::claim`] does; `verify` says that all of it is read back before its beginning is
    /// written.
    pub(super) fn claim_export(
        address: &Address,
        force: bool,
        verify: bool,
        source: &dyn Disk,
        session: &Arc<Session>,
    ) -> Result<Self> {
        Ok(Self::new(Box::new(Export::claim(address, force, verify, source, session)?), session))
    }

    fn new(medium: Box<dyn Medium>, session: &Arc<Session>) -> Self {
        let head = vec![0; usize::try_from(HEAD.min(medium.len())).unwrap_or(0)];
        Self { medium, session: Arc::clone(session), state: Mutex::new(State { head, end: 0, used: 0 }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_end(&self, end: Option<u64>) -> Result<()> {
        let len = self.medium.len();
        if end.is_some_and(|end| end <= len) {
            return Ok(());
        }
        Err(Error::new(Kind::NoSpace, "output.space", format!("the {} is too small", self.medium.noun()))
            .at(self.name())
            .expected(format!("at least {} bytes", end.unwrap_or(u64::MAX)))
            .found(len)
            .hint("choose a larger one, or let this one grow"))
    }

    /// Zeros the beginning durably before anything else is written: what was found there does not fit what will follow.
    fn begin(&self, state: &mut State) -> Result<()> {
        if state.end == 0 {
            let head = state.head.len() as u64;
            self.zero(0..head)?;
            self.sync()?;
            state.end = head;
        }
        Ok(())
    }

    /// Stores `data` behind the beginning. What lies between that and what was written before becomes zeros.
    fn write_body(&self, data: &[u8], offset: u64, state: &mut State) -> Result<()> {
        self.begin(state)?;
        self.zero_up_to(offset, state)?;
        self.medium.write(data, offset)?;
        state.end = state.end.max(offset + data.len() as u64);
        Ok(())
    }

    fn zero_up_to(&self, offset: u64, state: &mut State) -> Result<()> {
        if offset > state.end {
            self.zero(state.end..offset)?;
            state.end = offset;
        }
        Ok(())
    }

    /// Makes `range` read as zeros.
    fn zero(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            self.session.check()?;
            let end = range.end.min(at - at % ZERO + ZERO);
            self.medium.zero(at..end)?;
            at = end;
        }
        Ok(())
    }
}

impl Output for Device {
    fn name(&self) -> String {
        self.medium.name()
    }

    fn device(&self) -> Option<u64> {
        None
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(Some(self.medium.len()))
    }

    fn capacity(&self) -> Option<u64> {
        Some(self.medium.len())
    }

    fn surface(&self) -> Surface {
        Surface::Used
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.check_end(offset.checked_add(data.len() as u64))?;
        let mut state = self.state();
        let head = state.head.len();
        let start = usize::try_from(offset).map_or(head, |offset| offset.min(head));
        let (first, rest) = data.split_at((head - start).min(data.len()));
        if let Some(place) = state.head.get_mut(start..start + first.len()) {
            place.copy_from_slice(first);
        }
        if rest.is_empty() { Ok(()) } else { self.write_body(rest, offset + first.len() as u64, &mut state) }
    }

    fn written(&self, _range: Range<u64>) {}

    /// Zeros what the output has and nobody wrote. What lies behind it is not part of it and stays, but for the mebibytes at both
    /// ends, so that no backup of an old partition table and no old label is found there.
    fn set_len(&self, len: u64) -> Result<()> {
        self.check_end(Some(len))?;
        let mut state = self.state();
        self.begin(&mut state)?;
        self.zero_up_to(len, &mut state)?;
        state.used = len;
        let (end, all) = (state.end, self.medium.len());
        self.zero(end..(end + HEAD).min(all))?;
        self.zero(all.saturating_sub(HEAD).max(end)..all)
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        self.medium.sync()
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        let device = self.medium.reopen()?;
        let state = self.state();
        let mut head = state.head.clone();
        head.truncate(usize::try_from(state.used).unwrap_or(usize::MAX));
        let head_len = head.len() as u64;
        let head: Arc<dyn Disk> = Checked::wrap(Memory::new(head));
        let rest = Slice::new(self.name(), device, head_len..state.used.max(head_len))?;
        Ok(Checked::wrap(Concat::new(self.name(), vec![head, Checked::wrap(rest)])))
    }

    fn publish(&self, _force: bool) -> Result<PathBuf> {
        let state = self.state();
        self.medium.write(&state.head, 0)?;
        self.sync()?;
        let mut found = vec![0; state.head.len()];
        self.medium.read(&mut found, 0)?;
        if found != state.head {
            return Err(Error::new(
                Kind::Mismatch,
                "verify.mismatch",
                format!("the {} does not hold what was written", self.medium.noun()),
            )
            .at(self.name())
            .offset(0)
            .hint("check the device and this machine's memory, and run the command again"));
        }
        Ok(PathBuf::from(self.medium.name()))
    }
}

#[cfg(test)]
impl Device {
    /// A file that stands in for a device; `punches` says whether the kernel can make zeros there.
    pub(super) fn stand_in(path: &Path, punches: bool, session: &Arc<Session>) -> Self {
        Self::new(Box::new(Block::stand_in(path, punches, session)), session)
    }
}
