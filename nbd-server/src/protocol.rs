//! The protocol without any I/O: bytes in, bytes out. Sockets are someone else's job, which makes it easy to test and fuzz.
//!
//! A server's side of a connection is a [`Handshake`] over a [`Catalogue`], fed until it yields a [`Session`], and then a
//! stream of [`Request`]s, each answered by [`respond`]. Names in capitals are the specification's
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>). All numbers on the wire are big-endian.

mod assemble;
pub mod constants;
mod dial;
mod handshake;
mod respond;
mod session;
pub(crate) mod wire;

pub use assemble::{Assembly, Body, ReplyHeader, Take, Want};
pub use dial::{Channel, Dial, Listed, Terms, Wishes};
pub use handshake::{Catalogue, ExportInfo, Handshake, Step, Tls};
pub use respond::{Outbox, Wire, conclude, respond};
pub use session::{Action, Request, Session, Style};
