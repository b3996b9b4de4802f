//! An output that does wrong, once, at a call that is chosen.

use super::*;
use crate::convert::journal::Sealing;

/// What to do to the calls of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mischief {
    /// Fails call number n.
    Fail(u64),
    /// Fails sync number n, counting syncs only.
    FailSync(u64),
    /// Changes one byte of write number n.
    Flip(u64),
    /// Leaves write number n out.
    Skip(u64),
    /// Puts write number n where the one before it went, and that one where this one should go.
    Swap(u64),
    /// Repeats write number n at the place of write n + 1 as well.
    Repeat(u64),
    /// Has this much room.
    Room(u64),
}

#[derive(Debug)]
pub(super) struct Mischievous {
    pub(super) partial: Partial,
    pub(super) mischief: Mischief,
    pub(super) calls: Arc<AtomicU64>,
    pub(super) last: Mutex<(Vec<u8>, u64)>,
}

impl Mischievous {
    fn call(&self) -> Result<u64> {
        if matches!(self.mischief, Mischief::FailSync(_)) {
            return Ok(u64::MAX);
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.mischief == Mischief::Fail(call) {
            return Err(Error::write("injected", std::io::ErrorKind::StorageFull.into()));
        }
        Ok(call)
    }
}

impl Output for Mischievous {
    fn name(&self) -> String {
        self.partial.name()
    }

    fn device(&self) -> Option<u64> {
        self.partial.device()
    }

    fn log(&self) -> Option<&dyn Log> {
        Some(self)
    }

    fn keep(&self, keep: bool) {
        self.partial.keep(keep);
    }

    fn sealing(&self) -> Result<Option<Sealing>> {
        self.call()?;
        self.partial.sealing()
    }

    fn forget(&self) {
        self.partial.forget();
    }

    fn free_space(&self) -> Result<Option<u64>> {
        self.call()?;
        match self.mischief {
            Mischief::Room(room) => Ok(Some(room)),
            _ => self.partial.free_space(),
        }
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let call = self.call()?;
        let mut data = data.to_vec();
        let mut last = self.last.lock().unwrap();
        let previous = std::mem::replace(&mut *last, (data.clone(), offset));
        match self.mischief {
            Mischief::Flip(n) if n == call => data[0] ^= 1,
            Mischief::Skip(n) if n == call => return Ok(()),
            Mischief::Swap(n) if n == call => {
                self.partial.write_at(&data, previous.1)?;
                return self.partial.write_at(&previous.0, offset);
            }
            Mischief::Repeat(n) if n + 1 == call => data = previous.0,
            _ => {}
        }
        self.partial.write_at(&data, offset)
    }

    fn shares(&self, _from: &File) -> Option<u64> {
        Some(4096)
    }

    fn share(&self, from: &File, from_offset: u64, offset: u64, len: u64) -> Result<bool> {
        self.call()?;
        // Here and there, the file system has a reason of its own.
        if offset >> 20 & 3 == 3 {
            return Ok(false);
        }
        self.partial.write_at(&bytes_at(from, from_offset, len), offset).map(|()| true)
    }

    fn written(&self, range: Range<u64>) {
        self.partial.written(range);
    }

    fn allocate(&self, len: u64) -> Result<()> {
        self.call()?;
        self.partial.allocate(len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.call()?;
        self.partial.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        if let Mischief::FailSync(n) = self.mischief
            && self.calls.fetch_add(1, Ordering::Relaxed) == n
        {
            return Err(Error::write("injected", std::io::ErrorKind::Other.into()));
        }
        // No test pulls the plug, and hundreds of these would be slow.
        self.call().map(|_| ())
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        self.call()?;
        self.partial.reopen()
    }

    fn publish(&self, force: bool) -> Result<PathBuf> {
        self.call()?;
        self.partial.publish(force)
    }
}

impl Log for Mischievous {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.call()?;
        self.journal().read_at(buf, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.call()?;
        self.journal().write_at(data, offset)
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.call()?;
        self.journal().truncate(len)
    }

    fn sync(&self) -> Result<()> {
        self.call().map(|_| ())
    }
}

impl Mischievous {
    fn journal(&self) -> &dyn Log {
        self.partial.log().unwrap()
    }
}

/// A conversion on one thread, so that calls come in order, with `mischief`.
pub(super) fn with_mischief(
    model: &Arc<Model>,
    path: &Path,
    options: &Options,
    mischief: Mischief,
    calls: &Arc<AtomicU64>,
) -> Result<Outcome> {
    let partial = Partial::create(path, false, false)?;
    let output = Mischievous { partial, mischief, calls: Arc::clone(calls), last: Mutex::default() };
    let session = Session::new(Budget::new(0), Policy::default(), 1);
    let prepared =
        prepare_output(Ends::new(checked(model), Arc::new(output)), options, Interval::default(), &session, &())?;
    prepared.copy(&())?.verify(&())?.seal(&())
}
