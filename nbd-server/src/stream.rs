//! A connected socket in blocking mode, used by several threads at once, with or without TLS.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::SockRef;

use crate::tls::Tls;

/// Ciphertext that is received at once: a record of the largest size and its head.
const RECORD: usize = (16 << 10) + 512;

/// A connected socket in blocking mode. One thread at a time may receive, while others send.
pub(crate) struct Stream {
    socket: Socket,
    tls: Option<Secret>,
}

/// What a stream runs over.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// What is received comes from the first and what is sent goes to the second: pipes, or a socket twice.
    Pair(File, File),
}

struct Secret {
    tls: Mutex<Tls>,
    /// Held while records are made and sent, so that they leave in order.
    sending: Mutex<Vec<u8>>,
}

impl Stream {
    pub(crate) fn new(socket: Socket, tls: Option<Tls>) -> Self {
        let secret = |tls| Secret { tls: Mutex::new(tls), sending: Mutex::default() };
        Self { socket, tls: tls.map(secret) }
    }

    /// Waits for bytes; 0 at the end.
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(secret) = &self.tls else { return self.socket.receive(buf) };
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(len) = lock(&secret.tls).receive(buf)? {
                return Ok(len);
            }
            let mut records = [0; RECORD];
            let len = self.socket.receive(&mut records)?;
            if len == 0 {
                return Ok(0);
            }
            lock(&secret.tls).feed(&records[..len]);
        }
    }

    /// Sends all of `bytes`.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let Some(secret) = &self.tls else { return self.socket.send(bytes) };
        let mut records = lock(&secret.sending);
        for piece in bytes.chunks(64 << 10) {
            records.clear();
            lock(&secret.tls).send(piece, &mut records)?;
            self.socket.send(&records)?;
        }
        Ok(())
    }

    /// Makes a blocked call in another thread return, except with pipes. An error means that the peer was faster.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match &self.socket {
            Socket::Tcp(stream) => stream.shutdown(how),
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Pair(input, output) => {
                let _ = SockRef::from(output).shutdown(how);
                SockRef::from(input).shutdown(how)
            }
        };
    }
}

impl Socket {
    pub(crate) fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let received = match self {
                Self::Tcp(stream) => (&*stream).read(buf),
                Self::Unix(stream) => (&*stream).read(buf),
                Self::Pair(input, _) => (&*input).read(buf),
            };
            match received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => (&*stream).write_all(bytes),
            Self::Unix(stream) => (&*stream).write_all(bytes),
            Self::Pair(_, output) => (&*output).write_all(bytes),
        }
    }
}

/// Shakes hands; returns the session once it is secret.
pub(crate) fn start_tls(mut tls: Tls, socket: &Socket) -> io::Result<Tls> {
    let mut buf = [0; 4096];
    loop {
        let mut records = Vec::new();
        let done = tls.handshake(&mut records);
        socket.send(&records)?;
        if done? {
            return Ok(tls);
        }
        let len = socket.receive(&mut buf)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        tls.feed(&buf[..len]);
    }
}

/// Waits for bytes that come through TLS; 0 at the end.
pub(crate) fn receive_through(tls: &mut Tls, socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
    let mut records = [0; 4096];
    loop {
        if let Some(len) = tls.receive(buf)? {
            return Ok(len);
        }
        let len = socket.receive(&mut records)?;
        if len == 0 {
            return Ok(0);
        }
        tls.feed(&records[..len]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
