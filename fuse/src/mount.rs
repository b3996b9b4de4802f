//! Mount, wait, unmount.

use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, Reason};
use crate::kernel::{self, Unmounter};
use crate::place;
use crate::tree::Tree;

/// How long [`Mount::wait`] stays after a stop while other programs still hold files open.
const GRACE: Duration = Duration::from_secs(2);

/// How to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads that answer the kernel: how many reads are under way at once. At least 2, so that a slow read does not
    /// hold up `ls`.
    pub threads: NonZeroUsize,
    /// Whether the kernel keeps what was read. Otherwise every read comes here, in requests of up to 1 MiB, which for a
    /// stream through a large file is several times faster than the page cache's 128 KiB (`README.md` has numbers). Turn
    /// it on for many small files.
    pub page_cache: bool,
    /// Whether files that are [`crate::File::is_writable`] can be written; otherwise the kernel lets nobody try.
    pub writable: bool,
    /// What the mount table shows as the source.
    pub name: String,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let threads = NonZeroUsize::new(cores.saturating_mul(2).clamp(4, 16)).unwrap_or(NonZeroUsize::MIN);
        Self { threads, page_cache: false, writable: false, name: "hyper2kvm".to_owned() }
    }
}

/// A tree that is mounted. Dropping it unmounts.
#[derive(Debug)]
pub struct Mount {
    shared: Arc<Shared>,
}

/// Unmounts from another thread, such as the one that waits for signals.
#[derive(Clone, Debug)]
pub struct Stopper {
    shared: Arc<Shared>,
}

/// How a mount came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left of it.
    Unmounted,
    /// It is gone from the directory, but other programs hold files of it open: they fail once this process exits.
    Busy,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    unmounter: Mutex<Unmounter>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the threads that answer the kernel ended with.
    served: Option<io::Result<()>>,
    /// What the first [`Stopper::stop`] came to.
    stopped: Option<Result<(), Error>>,
}

impl Mount {
    /// Shows `tree` in the empty directory `dir`, read-only unless the options say otherwise, without devices and set-user-id programs, to this user alone.
    /// Returns once the mount answers.
    ///
    /// # Errors
    /// A [`Reason`] for each thing that stands in the way.
    pub fn new(tree: impl Tree, dir: &Path, options: &Options) -> Result<Self, Error> {
        let resolved = place::check(dir)?;
        place::check_device(dir)?;
        let mut session = kernel::mount(tree, &resolved, options).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => Error::new(Reason::HelperMissing, dir),
            _ => Error::new(Reason::Mount, dir).because(cause),
        })?;
        let shared = Arc::new(Shared {
            dir: resolved,
            unmounter: Mutex::new(session.unmounter()),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let served = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("fuse".to_owned())
            .spawn(move || {
                let result = session.run();
                lock(&served.state).served = Some(result);
                served.changed.notify_all();
            })
            .map_err(|cause| Error::new(Reason::Mount, dir).because(cause))?;
        Ok(Self { shared })
    }

    /// A handle that unmounts.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { shared: Arc::clone(&self.shared) }
    }

    /// Blocks until the mount has ended: by `fusermount3 -u`, `umount` or [`Stopper::stop`].
    ///
    /// # Errors
    /// [`Reason::Session`] when the kernel connection broke, [`Reason::Unmount`] when a stop failed.
    pub fn wait(self) -> Result<Ended, Error> {
        let shared = &self.shared;
        let state = lock(&shared.state);
        let state = shared
            .changed
            .wait_while(state, |state| state.served.is_none() && state.stopped.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = shared
            .changed
            .wait_timeout_while(state, GRACE, |state| state.served.is_none() && matches!(state.stopped, Some(Ok(()))))
            .unwrap_or_else(PoisonError::into_inner);
        let stopped = state.stopped.replace(Ok(()));
        match (state.served.take(), stopped) {
            (Some(Err(cause)), _) => Err(Error::new(Reason::Session, &shared.dir).because(cause)),
            (Some(Ok(())), _) => Ok(Ended::Unmounted),
            (None, Some(Err(error))) => Err(error),
            (None, _) => Ok(Ended::Busy),
        }
    }

    /// Unmounts, and waits as [`Mount::wait`] does.
    ///
    /// # Errors
    /// As [`Mount::wait`].
    pub fn unmount(self) -> Result<Ended, Error> {
        self.stopper().stop();
        self.wait()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl Stopper {
    /// Unmounts; a mount that is in use leaves its directory at once and ends with its last user. Does nothing the second
    /// time, and nothing to a mount that has ended. [`Mount::wait`] tells how it went.
    pub fn stop(&self) {
        self.shared.stop();
    }
}

impl Shared {
    fn stop(&self) {
        let mut unmounter = lock(&self.unmounter);
        {
            let state = lock(&self.state);
            if state.served.is_some() || state.stopped.is_some() {
                return;
            }
        }
        let result =
            self.unmount(&mut unmounter).map_err(|cause| Error::new(Reason::Unmount, &self.dir).because(cause));
        lock(&self.state).stopped = Some(result);
        self.changed.notify_all();
    }

    fn unmount(&self, unmounter: &mut Unmounter) -> io::Result<()> {
        unmounter.unmount(&self.dir)?;
        if place::is_mounted(&self.dir)? {
            return Err(io::Error::other("the directory is still a mount point"));
        }
        Ok(())
    }
}

/// The lock, also when a thread panicked while it held it: no invariant spans two fields.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
