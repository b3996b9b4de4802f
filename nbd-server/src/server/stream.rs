//! A connected socket in blocking mode, used by several threads at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// A connected socket in blocking mode.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Waits for bytes; 0 at the end.
    pub(super) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let received = match self {
                Self::Tcp(stream) => (&*stream).read(buf),
                Self::Unix(stream) => (&*stream).read(buf),
            };
            match received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&*stream).write_all(bytes),
            Self::Unix(stream) => (&*stream).write_all(bytes),
        }
    }

    /// Makes a blocked call in another thread return. An error means that the peer was faster.
    pub(super) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}
