//! A connected socket in blocking mode, used by several threads at once, with or without TLS.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
        self.send_while(bytes, &|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends all of `bytes`. Each time that nothing could be sent for as long as the socket waits, `patient` is told since when, and
    /// says whether to go on.
    pub(crate) fn send_while(&self, bytes: &[u8], patient: &dyn Fn(Instant) -> io::Result<()>) -> io::Result<()> {
        let Some(secret) = &self.tls else { return self.socket.send_while(bytes, patient) };
        let mut records = lock(&secret.sending);
        for piece in bytes.chunks(64 << 10) {
            records.clear();
            lock(&secret.tls).send(piece, &mut records)?;
            self.socket.send_while(&records, patient)?;
        }
        Ok(())
    }

    /// How long a call waits for the peer before it fails with [`io::ErrorKind::WouldBlock`].
    pub(crate) fn set_wait(&self, wait: Duration) -> io::Result<()> {
        self.socket.set_wait(wait)
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
        self.send_while(bytes, &|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn send_while(&self, mut bytes: &[u8], patient: &dyn Fn(Instant) -> io::Result<()>) -> io::Result<()> {
        let mut since = Instant::now();
        while !bytes.is_empty() {
            let sent = match self {
                Self::Tcp(stream) => (&*stream).write(bytes),
                Self::Unix(stream) => (&*stream).write(bytes),
                Self::Pair(_, output) => (&*output).write(bytes),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => (bytes, since) = (&bytes[len..], Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_wait(&error) => patient(since)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn set_wait(&self, wait: Duration) -> io::Result<()> {
        let set = |socket: SockRef<'_>| {
            socket.set_read_timeout(Some(wait))?;
            socket.set_write_timeout(Some(wait))
        };
        match self {
            Self::Tcp(stream) => set(SockRef::from(stream)),
            Self::Unix(stream) => set(SockRef::from(stream)),
            Self::Pair(..) => Ok(()),
        }
    }
}

/// Whether nothing went wrong but that the peer is slow.
pub(crate) fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
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
