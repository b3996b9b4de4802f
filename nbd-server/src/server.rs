//! The server: binds, starts its threads, and ends them.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::export::Export;
use crate::limits::{
    HANDSHAKE_DEADLINE, MAX_CONNECTIONS, MAX_CONTEXTS, MAX_EXPORTS, MAX_MINIMUM_BLOCK, MAX_SIZE, MAX_STRING,
    SHUTDOWN_GRACE,
};
use crate::protocol::{Catalogue, ExportInfo};
use crate::stream::Socket;
use crate::tls::TlsServer;

mod accept;
mod buffers;
mod connection;
mod inbox;
mod listen;
mod live;
mod negotiate;
mod queue;
mod stats;

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
    inherited: Vec<OwnedFd>,
    connections: Vec<(OwnedFd, OwnedFd)>,
    tls: Option<TlsServer>,
    open_network: bool,
    max_connections: usize,
    handshake_deadline: Duration,
}

/// What all threads of a server share.
struct Shared {
    exports: Vec<Arc<dyn Export>>,
    catalogue: Arc<Catalogue>,
    handshake_deadline: Duration,
    tls: Option<TlsServer>,
    /// Whether more clients can come.
    listens: bool,
    /// Connections that the server was started with and that have not ended.
    given: AtomicUsize,
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
            inherited: Vec::new(),
            connections: Vec::new(),
            tls: None,
            open_network: false,
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
        self.addresses.iter().filter_map(|address| address.uri(export, self.shared.tls.is_some())).collect()
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

    /// Whether no export was added yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.exports.is_empty()
    }

    /// Listens on a Unix socket that only this user can connect to (mode 0600). A socket that a dead server left there is
    /// replaced; anything else is not. The socket is removed at the end.
    pub fn unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.unix.push(path.into());
        self
    }

    /// Listens on a TCP address; port 0 lets the system choose. Addresses beyond [`is_loopback`] need [`Self::tls`] with
    /// [`crate::ClientCertificates::Required`], or [`Self::open_to_network`].
    pub fn tcp(mut self, address: SocketAddr) -> Self {
        self.tcp.push(address);
        self
    }

    /// Accepts from a socket that listens already, such as one of [`crate::systemd_sockets`]. Its file, if it has one, stays.
    pub fn inherited(mut self, socket: OwnedFd) -> Self {
        self.inherited.push(socket);
        self
    }

    /// Serves one client that is connected already, by pipes or by a socket (then both are the same): standard input and output of a
    /// program that a client starts. Without addresses, the server shuts down when the last of these connections ends. A
    /// shutdown cannot interrupt pipes.
    pub fn connection(mut self, input: OwnedFd, output: OwnedFd) -> Self {
        self.connections.push((input, output));
        self
    }

    /// Lets nobody do anything before TLS, on any address.
    pub fn tls(mut self, tls: TlsServer) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Lets everyone who reaches an address use the exports without a certificate, also from other machines. Without this,
    /// [`Self::start`] refuses such addresses.
    pub const fn open_to_network(mut self) -> Self {
        self.open_network = true;
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
    /// `InvalidInput` for exports or addresses that make no sense, `PermissionDenied` for addresses that everyone could connect to,
    /// `AddrInUse` where another server answers, and whatever binding a socket can fail with.
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
        for socket in self.inherited {
            listeners.push(Listener::inherited(socket)?);
        }
        for listener in &listeners {
            let authenticates = self.tls.as_ref().is_some_and(TlsServer::authenticates);
            if !(self.open_network || authenticates || listener.is_local()?) {
                let why = "an address that other machines reach needs TLS with certificates of clients, or the word that it shall be open to all";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
        }
        let addresses = listeners.iter().map(Listener::address).collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared {
            exports: self.exports.into_iter().map(|(_, export)| export).collect(),
            catalogue: Arc::new(Catalogue::new(infos)),
            handshake_deadline: self.handshake_deadline,
            tls: self.tls,
            listens: !listeners.is_empty(),
            given: AtomicUsize::new(0),
            slots: Arc::new(Semaphore::new(self.max_connections.min(Semaphore::MAX_PERMITS))),
            live: Live::default(),
            buffers: Buffers::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
        });
        // All are counted before the first can end, so that it does not take the server with it.
        let given: Vec<Socket> =
            self.connections.into_iter().map(|(i, o)| Socket::Pair(File::from(i), File::from(o))).collect();
        shared.given.store(given.len(), Ordering::SeqCst);
        for socket in given {
            accept::serve_given(&shared, socket)?;
        }
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
        if self.unix.is_empty() && self.tcp.is_empty() && self.inherited.is_empty() && self.connections.is_empty() {
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
        for (_, export) in &self.exports {
            let block = export.minimum_block();
            if export.size() > MAX_SIZE {
                return invalid("an export is larger than 8 EiB - 1");
            }
            if !block.is_power_of_two() || block > MAX_MINIMUM_BLOCK || !export.size().is_multiple_of(block.into()) {
                return invalid("a minimum block size is no power of two up to 64 KiB that divides the export's size");
            }
            let contexts = export.contexts();
            let named = |name: &str| name.len() <= MAX_STRING && name.contains(':') && !name.contains('\0');
            if contexts.len() > MAX_CONTEXTS || !contexts.iter().all(|context| named(&context.name)) {
                return invalid("an export has more than 63 meta contexts, or one without a namespace");
            }
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
