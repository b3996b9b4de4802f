//! An output that can only be appended to: standard output. What a sink leaves out becomes zeros on the way, nothing is read back,
//! and there is no journal.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::output::{Output, Surface};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::session::Session;

/// Bytes that a pipe takes without blocking when it says that it can take any.
const PIPE_WRITE: usize = 4096;

/// Bytes handed to the kernel at a time when it never waits for a reader.
const FILE_WRITE: usize = 64 << 10;

/// How long a write waits for the reader before it looks whether the session was cancelled.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A pipe, socket or file that is written from where it stands.
#[derive(Debug)]
pub(super) struct Stream {
    fd: OwnedFd,
    label: &'static str,
    is_file: bool,
    /// Bytes that were written.
    at: Mutex<u64>,
    session: Arc<Session>,
}

impl Stream {
    /// Standard output, if it is not a terminal.
    pub(super) fn stdout(session: &Arc<Session>) -> Result<Self> {
        let stdout = io::stdout();
        if rustix::termios::isatty(&stdout) {
            return Err(Error::new(Kind::Usage, "output.terminal", "a disk is not written to a terminal")
                .at("standard output")
                .hint("pipe it into another program, or name a file"));
        }
        let fd = stdout.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|error| Error::write("cannot use standard output", error).at("standard output"))?;
        Ok(Self::new(fd, "standard output", session))
    }

    /// What `fd` takes, under the name `label`.
    pub(super) fn new(fd: OwnedFd, label: &'static str, session: &Arc<Session>) -> Self {
        let is_file =
            rustix::fs::fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Self { fd, label, is_file, at: Mutex::new(0), session: Arc::clone(session) }
    }

    /// Waits until a write of [`PIPE_WRITE`] bytes does not block, and notices when the session is cancelled meanwhile.
    fn wait(&self) -> Result<()> {
        loop {
            self.session.check()?;
            if self.is_file {
                return Ok(());
            }
            let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
            match poll(&mut fds, Some(&NAP)) {
                Ok(0) | Err(Errno::INTR) => {}
                // What cannot be waited for answers at once.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }

    fn append(&self, data: &[u8], at: &mut u64) -> Result<()> {
        let most = if self.is_file { FILE_WRITE } else { PIPE_WRITE };
        let mut rest = data;
        while !rest.is_empty() {
            self.wait()?;
            match rustix::io::write(&self.fd, &rest[..rest.len().min(most)]) {
                Ok(count) => {
                    rest = &rest[count..];
                    *at += count as u64;
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(self.failed(errno, *at)),
            }
        }
        Ok(())
    }

    fn failed(&self, errno: Errno, at: u64) -> Error {
        let error = match errno {
            Errno::PIPE | Errno::CONNRESET => {
                Error::failed("output.closed", "whoever read the output closed it before its end")
                    .hint("see what the program at the other end of the pipe says")
            }
            errno => Error::write("cannot write the output", errno.into()),
        };
        error.at(self.label).offset(at)
    }

    fn fill(&self, end: u64, at: &mut u64) -> Result<()> {
        static ZEROS: [u8; FILE_WRITE] = [0; FILE_WRITE];
        while *at < end {
            let len = usize::try_from(end - *at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.append(&ZEROS[..len], at)?;
        }
        Ok(())
    }
}

impl Output for Stream {
    fn name(&self) -> String {
        self.label.to_owned()
    }

    fn device(&self) -> Option<u64> {
        None
    }

    fn free_space(&self) -> Result<Option<u64>> {
        Ok(None)
    }

    fn surface(&self) -> Surface {
        Surface::Stream
    }

    fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if offset < *at {
            return Err(Error::failed("output.order", "the format wants to go back in what only goes forward")
                .at(self.label)
                .expected(format!("an offset of at least {:#x}", *at))
                .found(format!("{offset:#x}")));
        }
        self.fill(offset, &mut at)?;
        self.append(data, &mut at)
    }

    fn written(&self, _range: Range<u64>) {}

    fn set_len(&self, len: u64) -> Result<()> {
        self.fill(len, &mut self.at.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn allocate(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        match rustix::fs::fsync(&self.fd) {
            // Pipes have no such operation.
            Ok(()) | Err(Errno::INVAL | Errno::ROFS | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(self.failed(errno, 0)),
        }
    }

    fn reopen(&self) -> Result<Arc<dyn Disk>> {
        Err(Error::unsupported("convert.stream", "what went into a pipe cannot be read back").at(self.label))
    }

    fn publish(&self, _force: bool) -> Result<PathBuf> {
        Ok(PathBuf::from("-"))
    }
}
