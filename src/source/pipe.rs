//! Standard input, or what stands behind a descriptor that can only be read forward.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::disk::Stream;
use crate::error::{Error, Kind, Result};
use crate::session::Session;

/// How long a read waits before it looks whether the session was cancelled.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// A pipe, socket, terminal or file that is read from where it stands.
#[derive(Debug)]
pub struct Pipe {
    file: File,
    label: String,
    at: u64,
    session: Arc<Session>,
}

impl Pipe {
    /// Standard input.
    ///
    /// # Errors
    /// `source.terminal` when it is one, and `source.read` when it is closed.
    pub fn stdin(session: &Arc<Session>) -> Result<Self> {
        if rustix::termios::isatty(io::stdin()) {
            return Err(Error::new(Kind::Usage, "source.terminal", "a disk is not read from a terminal")
                .at("standard input")
                .hint("pipe it in, or name a file"));
        }
        let fd = io::stdin().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|error| Error::unreadable("cannot read standard input", error).at("standard input"))?;
        Ok(Self::new(fd, "standard input", session))
    }

    /// What `fd` gives, under the name `label`.
    #[must_use]
    pub fn new(fd: OwnedFd, label: impl Into<String>, session: &Arc<Session>) -> Self {
        Self { file: File::from(fd), label: label.into(), at: 0, session: Arc::clone(session) }
    }

    /// Waits until there are bytes or the end, and notices when the session is cancelled meanwhile.
    fn wait(&self) -> Result<()> {
        loop {
            self.session.check()?;
            let mut fds = [PollFd::new(&self.file, PollFlags::IN)];
            match poll(&mut fds, Some(&NAP)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // What cannot be waited for answers at once.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

impl Stream for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            self.wait()?;
            match self.file.read(buf) {
                Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => {
                    return Err(Error::unreadable("cannot read the stream", error).at(&self.label).offset(self.at));
                }
                Ok(count) => {
                    self.at += count as u64;
                    return Ok(count);
                }
            }
        }
    }

    fn name(&self) -> String {
        self.label.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::read_full;
    use std::io::Write;

    #[test]
    fn bytes_come_in_order_until_the_writer_closes() {
        let (reader, mut writer) = io::pipe().unwrap();
        let thread = std::thread::spawn(move || {
            for part in [&b"one "[..], b"two ", b"three"] {
                writer.write_all(part).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        let mut pipe = Pipe::new(reader.into(), "test", &Session::with_defaults());
        let mut buf = [0; 64];
        let count = read_full(&mut pipe, &mut buf).unwrap();
        assert_eq!(&buf[..count], b"one two three");
        assert_eq!((pipe.read(&mut buf).unwrap(), pipe.name().as_str()), (0, "test"));
        thread.join().unwrap();
    }

    #[test]
    fn a_silent_writer_does_not_keep_an_interrupted_session() {
        let (reader, _writer) = io::pipe().unwrap();
        let session = Session::with_defaults();
        session.cancel();
        let mut pipe = Pipe::new(reader.into(), "test", &session);
        assert_eq!(pipe.read(&mut [0; 8]).unwrap_err().code(), "session.interrupted");
    }
}
