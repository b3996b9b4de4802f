//! Addresses to listen on.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Sockets that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Whether an address can be reached from this machine only. Without TLS the server listens on no other unless it is told that
/// this is meant.
#[must_use]
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// A bound socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// With the file to remove, if it is ours.
    Unix(UnixListener, Option<SocketFile>),
}

/// Where clients find a listener.
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// A socket without a name that others could use.
    Unnamed,
}

/// The file of a Unix socket, removed at the end if it is still the same.
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Listener {
    pub(super) fn tcp(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).map_err(|error| explain(error, &address))?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp(listener))
    }

    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let bound = match bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => remove_stale(&path).and_then(|()| bind(&path)),
            result => result,
        };
        bound.map_err(|error| explain(error, &path.display()))
    }

    /// Takes a socket that listens already.
    pub(super) fn inherited(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        let invalid = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        if !socket.is_listener()? {
            return Err(invalid("an inherited socket does not listen; with systemd, this needs Accept=no"));
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        if address.as_socket().is_some() {
            Ok(Self::Tcp(TcpListener::from(socket)))
        } else if address.is_unix() {
            Ok(Self::Unix(UnixListener::from(OwnedFd::from(socket)), None))
        } else {
            Err(invalid("an inherited socket is neither TCP nor Unix"))
        }
    }

    /// Whether only this machine can connect.
    pub(super) fn is_local(&self) -> io::Result<bool> {
        Ok(match self {
            Self::Tcp(listener) => is_loopback(&listener.local_addr()?),
            Self::Unix(..) => true,
        })
    }

    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => Ok(Address::Tcp(listener.local_addr()?)),
            Self::Unix(_, Some(file)) => Ok(Address::Unix(file.path.clone())),
            Self::Unix(listener, None) => {
                let path = listener.local_addr()?.as_pathname().map(Path::to_owned);
                Ok(path.map_or(Address::Unnamed, Address::Unix))
            }
        }
    }
}

impl Address {
    /// As <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md> has it.
    pub(super) fn uri(&self, export: &str, tls: bool) -> Option<String> {
        let export = encode(export.as_bytes());
        let scheme = if tls { "nbds" } else { "nbd" };
        match self {
            Self::Tcp(address) => Some(format!("{scheme}://{address}/{export}")),
            Self::Unix(path) => {
                Some(format!("{scheme}+unix:///{export}?socket={}", encode(path.as_os_str().as_bytes())))
            }
            Self::Unnamed => None,
        }
    }

    pub(super) const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            _ => None,
        }
    }
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let file = Self { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
        if metadata.permissions().mode() & 0o777 == 0o600 {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket cannot be made private"))
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if same && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket stays behind");
        }
    }
}

/// Binds a new socket file with mode 0600. Linux takes the mode from the unbound socket, so it is never wider.
fn bind(path: &Path) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let unbound = File::from(OwnedFd::from(socket));
    unbound.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(unbound));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Listener::Unix(UnixListener::from(OwnedFd::from(socket)), Some(file)))
}

/// Removes the socket of a server that is dead: nobody answers. The lock on the folder keeps two servers from taking each
/// other's new socket for the old one.
fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |why| io::Error::new(io::ErrorKind::AddrInUse, why);
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(in_use("the file exists and is not a socket"));
    }
    #[allow(clippy::disallowed_methods, reason = "a folder is opened to lock it; nothing is read")]
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    if matches!(folder.try_lock(), Err(fs::TryLockError::WouldBlock)) {
        return Err(in_use("another server is starting in this folder"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(in_use("another server listens there")),
    }
}

/// Percent-encodes what a URI does not take literally. Slashes stay.
fn encode(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut encoded = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn explain(error: io::Error, what: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {what}: {error}"))
}
