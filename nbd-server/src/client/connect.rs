//! From a URI to a connection that transmits.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::error::{Error, Kind, Result};
use super::uri::{Transport, Uri};
use super::watch::Watch;
use crate::limits::CLIENT_NAP;
use crate::protocol::{Channel, Dial, Listed, Wishes};
use crate::stream::{Socket, Stream, receive_through, start_tls};
use crate::tls::{Tls, TlsClient};

/// What it takes to connect.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) uri: Uri,
    pub(super) tls: Option<TlsClient>,
    pub(super) wishes: Wishes,
    pub(super) watch: Watch,
    /// Until a socket is connected, the name's address found included.
    pub(super) connect_within: Duration,
}

impl Route {
    /// Connects and agrees on everything.
    pub(super) fn connect(&self) -> Result<Connection> {
        self.aside(Self::dial)
    }

    pub(super) fn list(&self) -> Result<Vec<Listed>> {
        self.aside(|route| {
            let channel = Plain(route.socket()?);
            if route.uri.tls { route.dial_secret(channel)?.list() } else { Dial::greet(channel)?.list() }
        })
    }

    /// Has a thread of its own do it. Whoever looks up names cannot be hurried, so it may be left behind.
    fn aside<T: Send + 'static>(&self, what: impl FnOnce(&Self) -> Result<T> + Send + 'static) -> Result<T> {
        let began = Instant::now();
        let most = self.connect_within.saturating_add(self.watch.patience);
        let (sender, receiver) = channel();
        let route = self.clone();
        thread::Builder::new().name("nbd-connect".into()).spawn(move || drop(sender.send(what(&route))))?;
        loop {
            match receiver.recv_timeout(CLIENT_NAP) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => self.watch.check(began, most)?,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::new(Kind::Connect, "the thread that connects to the NBD server ended"));
                }
            }
        }
    }

    fn dial(&self) -> Result<Connection> {
        let channel = Plain(self.socket()?);
        if !self.uri.tls {
            let (terms, Plain(socket)) = Dial::greet(channel)?.go(&self.wishes)?;
            return Connection::new(Stream::new(socket, None), terms, self.watch.clone());
        }
        let (terms, Secret { socket, tls }) = self.dial_secret(channel)?.go(&self.wishes)?;
        Connection::new(Stream::new(socket, Some(tls)), terms, self.watch.clone())
    }

    fn dial_secret(&self, channel: Plain) -> Result<Dial<Secret>> {
        let missing = || Error::new(Kind::Tls, "nbds:// needs certificates: say tls-certificates=FOLDER in the URI");
        let client = match (&self.tls, &self.uri.certificates) {
            (Some(client), _) => client.clone(),
            (None, Some(folder)) => TlsClient::from_folder(folder).map_err(|error| tls_error(&error))?,
            (None, None) => return Err(missing()),
        };
        let name = match (&self.uri.server_name, &self.uri.transport) {
            (Some(name), _) => name,
            (None, Transport::Tcp(host, _)) => host,
            (None, Transport::Unix(_)) => {
                return Err(Error::new(Kind::Tls, "TLS over a Unix socket needs tls-hostname=NAME in the URI"));
            }
        };
        let session = client.session(name).map_err(|error| tls_error(&error))?;
        Dial::greet(channel)?.start_tls(|Plain(socket)| {
            let tls = start_tls(session, &socket).map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => tls_error(&error),
                _ => error.into(),
            })?;
            Ok(Secret { socket, tls })
        })
    }

    fn socket(&self) -> Result<Socket> {
        let unreachable = |error: io::Error| {
            Error::new(Kind::Connect, format!("cannot connect to the NBD server at {}: {error}", self.uri.transport))
        };
        match &self.uri.transport {
            Transport::Unix(path) => {
                let socket = Socket::Unix(UnixStream::connect(path).map_err(unreachable)?);
                socket.set_wait(self.watch.patience).map_err(unreachable)?;
                Ok(socket)
            }
            Transport::Tcp(host, port) => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port).to_socket_addrs().map_err(unreachable)? {
                    match TcpStream::connect_timeout(&address, self.connect_within) {
                        Ok(stream) => {
                            stream.set_nodelay(true).map_err(unreachable)?;
                            let socket = Socket::Tcp(stream);
                            socket.set_wait(self.watch.patience).map_err(unreachable)?;
                            return Ok(socket);
                        }
                        Err(error) => last = error,
                    }
                }
                Err(unreachable(last))
            }
        }
    }
}

fn tls_error(error: &io::Error) -> Error {
    Error::new(Kind::Tls, format!("TLS with the NBD server failed: {error}"))
}

/// A channel in the open.
struct Plain(Socket);

/// A channel within TLS.
struct Secret {
    socket: Socket,
    tls: Tls,
}

impl Channel for Plain {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.send(bytes)
    }

    fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        fill(buf, |rest| self.0.receive(rest))
    }
}

impl Channel for Secret {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut records = Vec::new();
        self.tls.send(bytes, &mut records)?;
        self.socket.send(&records)
    }

    fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        fill(buf, |rest| receive_through(&mut self.tls, &self.socket, rest))
    }
}

fn fill(mut buf: &mut [u8], mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
    while !buf.is_empty() {
        let len = receive(buf)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf = &mut buf[len..];
    }
    Ok(())
}
