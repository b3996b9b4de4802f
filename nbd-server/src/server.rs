//! The server: binds, starts its threads, and ends them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::export::Export;
use crate::limits::{HANDSHAKE_DEADLINE, MAX_CONNECTIONS, MAX_EXPORTS, MAX_SIZE, MAX_STRING, SHUTDOWN_GRACE};
use crate::protocol::{Catalogue, ExportInfo};

mod accept;
mod buffers;
mod connection;
mod inbox;
mod listen;
mod live;
mod queue;
mod stats;
mod stream;

pub use listen::is_loopback;
pub use stats::Stats;

use buffers::Buffers;
use listen::{Address, Listener};
use live::Live;
use stats::Counters;

/// A running server. Dropping it shuts it down and waits for its end.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<Address>,
    ended: Arc<Ended>,
}

/// What a server is made of; see [`Server::builder`].
#[must_use]
pub struct Builder {
    exports: Vec<(String, Arc<dyn Export>)>,
    unix: Vec<PathBuf>,
    tcp: Vec<SocketAddr>,
    max_connections: usize,
    handshake_deadline: Duration,
}

/// What all threads of a server share.
struct Shared {
    exports: Vec<Arc<dyn Export>>,
    catalogue: Arc<Catalogue>,
    handshake_deadline: Duration,
    /// One permit for each connection past its handshake.
    slots: Arc<Semaphore>,
    live: Live,
    buffers: Buffers,
    counters: Counters,
    stopping: AtomicBool,
    stop: Notify,
}

impl Server {
    /// A server without exports and addresses; it needs at least one of each.
    pub const fn builder() -> Builder {
        Builder {
            exports: Vec::new(),
            unix: Vec::new(),
            tcp: Vec::new(),
            max_connections: MAX_CONNECTIONS,
            handshake_deadline: HANDSHAKE_DEADLINE,
        }
    }

    /// The URI of the default export at the first address, as libnbd and qemu take it.
    #[must_use]
    pub fn uri(&self) -> String {
        self.uris("").into_iter().next().unwrap_or_default()
    }

    /// The URIs of an export at every address.
    #[must_use]
    pub fn uris(&self, export: &str) -> Vec<String> {
        self.addresses.iter().map(|address| address.uri(export)).collect()
    }

    /// The first TCP address, with the port that the system chose if it was given as 0.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(Address::tcp)
    }

    /// What has happened so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.counters.stats(self.shared.live.len())
    }

    /// Begins to shut down and returns at once: no more connections, no more requests; those in flight are answered.
    pub fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.stop.notify_one();
    }

    /// Waits until the server has shut down. Sockets are closed under requests that take longer than
    /// [`SHUTDOWN_GRACE`], and a thread that hangs in an export for twice that time is left behind.
    pub fn wait(&self) {
        self.ended.wait();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("uris", &self.uris("")).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown();
        self.wait();
    }
}

impl Builder {
    /// Adds an export. Names are at most 4096 bytes long, without NUL, and all different. The first export is the default one:
    /// clients that give no name get it, unless another is named "".
    pub fn export(mut self, name: impl Into<String>, export: Arc<dyn Export>) -> Self {
        self.exports.push((name.into(), export));
        self
    }

    /// Listens on a Unix socket that only this user can connect to (mode 0600). A socket that a dead server left there is
    /// replaced; anything else is not. The socket is removed at the end.
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix.push(path.into());
        self
    }

    /// Listens on a TCP address; port 0 lets the system choose. There is no authentication, so an address that
    /// [`is_loopback`] does not hold for lets everyone on the network read the exports.
    pub fn tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push(address);
        self
    }

    /// How many connections can be past their handshake at once; [`MAX_CONNECTIONS`] by default. Further clients are told that
    /// they are too many.
    pub const fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max;
        self
    }

    /// How long a handshake may take; [`HANDSHAKE_DEADLINE`] by default.
    pub const fn handshake_deadline(mut self, deadline: Duration) -> Self {
        self.handshake_deadline = deadline;
        self
    }

    /// Binds the addresses and starts to accept. When it returns, clients can connect.
    ///
    /// # Errors
    /// `InvalidInput` for exports or addresses that make no sense, `AddrInUse` where another server answers, and whatever
    /// binding a socket can fail with.
    pub fn start(self) -> io::Result<Server> {
        self.check()?;
        let infos = self.exports.iter().map(|(name, export)| ExportInfo::of(name, &**export)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut listeners = Vec::new();
        for path in &self.unix {
            listeners.push(Listener::unix(path)?);
        }
        for address in &self.tcp {
            listeners.push(Listener::tcp(*address)?);
        }
        let addresses = listeners.iter().map(Listener::address).collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared {
            exports: self.exports.into_iter().map(|(_, export)| export).collect(),
            catalogue: Arc::new(Catalogue::new(infos)),
            handshake_deadline: self.handshake_deadline,
            slots: Arc::new(Semaphore::new(self.max_connections.min(Semaphore::MAX_PERMITS))),
            live: Live::default(),
            buffers: Buffers::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
        });
        let ended = Arc::new(Ended::default());
        let end = AtEnd(Arc::clone(&ended));
        let server = Arc::clone(&shared);
        thread::Builder::new().name("nbd-accept".into()).spawn(move || {
            let _end = end;
            runtime.block_on(accept::accept(&server, listeners));
            drop(runtime);
            server.live.finish(SHUTDOWN_GRACE);
        })?;
        Ok(Server { shared, addresses, ended })
    }

    fn check(&self) -> io::Result<()> {
        let invalid = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        if self.exports.is_empty() || self.exports.len() > MAX_EXPORTS {
            return invalid("a server needs between 1 and 1024 exports");
        }
        if self.unix.is_empty() && self.tcp.is_empty() {
            return invalid("a server needs an address");
        }
        let mut names: Vec<&str> = self.exports.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid("two exports have the same name");
        }
        if names.iter().any(|name| name.len() > MAX_STRING || name.contains('\0')) {
            return invalid("an export name is longer than 4096 bytes or contains NUL");
        }
        if self.exports.iter().any(|(_, export)| export.size() > MAX_SIZE) {
            return invalid("an export is larger than 8 EiB - 1");
        }
        Ok(())
    }
}

/// Tells waiters that the server's main thread has ended.
#[derive(Default)]
struct Ended {
    flag: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    fn wait(&self) {
        let flag = self.flag.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(flag, |ended| !*ended));
    }
}

/// Sets [`Ended`], whichever way the thread ends.
struct AtEnd(Arc<Ended>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        *self.0.flag.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}
