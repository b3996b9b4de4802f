//! Where bytes come from: a file or block device of this host, a file on another machine, and the names by which images refer to
//! other files.

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::Result;
use crate::session::Session;

mod file;
mod http;
mod location;
mod map;
pub(crate) mod nbd;
mod network;
mod object;
mod pipe;
mod reference;
mod remote;
mod runtime;
mod ssh;
mod tls;

pub use file::FileSource;
pub use http::{WebStream, stream as stream_web};
pub use location::{Address, Location, Protocol};
pub use network::{Network, Spoken};
pub(crate) use object::{Stored, Upload};
pub use pipe::Pipe;
pub use reference::{Reference, Role, has_scheme};
pub use remote::Remote;
#[doc(hidden)]
pub use ssh::tried as ssh_tried;

/// Opens the file at `address`, in the way of its scheme.
///
/// # Errors
/// Those of the network and of the server, all without any secret.
pub fn open_remote(address: &Address, session: &Arc<Session>) -> Result<Arc<dyn Disk>> {
    match address.protocol() {
        Protocol::Azure | Protocol::Google | Protocol::S3 => Ok(object::open(address, session)?),
        Protocol::Http => Ok(http::open(address, session)?),
        Protocol::Nbd => Ok(nbd::open(address, session)?),
        Protocol::Ssh => Ok(ssh::open(address, session)?),
    }
}
