//! Why something with a server went wrong.

use std::fmt;
use std::io;

use crate::export::Errno;

/// Why something with a server went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The URI is not one.
    Uri,
    /// The server cannot be reached.
    Connect,
    /// The server has no such export.
    Missing,
    /// The server does not want to: TLS comes first, or a policy of its own.
    Refused,
    /// The server does not prove who it is, or the certificates are of no use.
    Tls,
    /// The server broke the protocol. It is not asked again.
    Protocol,
    /// The connection ended.
    Lost,
    /// Nothing came for too long.
    TimedOut,
    /// The server is back, but serves something else.
    Changed,
    /// The caller had asked to give up.
    Stopped,
    /// Writes may be lost: the connection broke after them and before a flush.
    Unflushed,
    /// The caller asked for what the export cannot do.
    Unsupported,
    /// The server could not carry the request out.
    Export(Errno),
}

/// A result with the client's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn protocol(message: impl fmt::Display) -> Self {
        Self::new(Kind::Protocol, format!("the NBD server broke the protocol: {message}"))
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same may work over a new connection.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Connect | Kind::Lost | Kind::TimedOut | Kind::Export(Errno::Shutdown))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return own.clone();
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self::new(Kind::TimedOut, "the NBD server has not answered in time")
            }
            io::ErrorKind::UnexpectedEof => Self::new(Kind::Lost, "the NBD server closed the connection"),
            io::ErrorKind::InvalidData => Self::new(Kind::Tls, format!("TLS with the NBD server failed: {error}")),
            _ => Self::new(Kind::Lost, format!("the connection to the NBD server broke: {error}")),
        }
    }
}
