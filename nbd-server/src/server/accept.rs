//! Accepting and negotiating, on one thread with tokio; idle sockets cost no thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use super::Shared;
use super::connection;
use super::listen::{Listener, SocketFile};
use super::negotiate::{Agreed, negotiate, negotiate_blocking};
use crate::limits::MAX_HANDSHAKES;
use crate::stream::{Socket, Stream};

/// How long to wait when the system has no descriptor or memory left for another socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts from all listeners until the server stops. Handshakes that are under way then end with the runtime.
pub(super) async fn accept(shared: &Arc<Shared>, listeners: Vec<Listener>) {
    let handshakes = Arc::new(Handshakes::default());
    let mut tasks = JoinSet::new();
    for listener in listeners {
        tasks.spawn(accept_from(Arc::clone(shared), Arc::clone(&handshakes), listener));
    }
    shared.stop.notified().await;
    tasks.shutdown().await;
}

async fn accept_from(shared: Arc<Shared>, handshakes: Arc<Handshakes>, listener: Listener) {
    let listener = match Accepting::new(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        match listener.accept().await {
            Ok(stream) => handshakes.start(&shared, stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                handshakes.drop_oldest();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, #[expect(dead_code, reason = "removes the file when dropped")] Option<SocketFile>),
}

enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn new(listener: Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listener::Unix(listener, file) => Self::Unix(tokio::net::UnixListener::from_std(listener)?, file),
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let socket = socket2::SockRef::from(&stream);
                let _ = socket.set_tcp_nodelay(true).and_then(|()| socket.set_keepalive(true));
                Ok(Accepted::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

/// The sockets in their handshake, oldest first.
#[derive(Default)]
struct Handshakes {
    tasks: Mutex<BTreeMap<u64, AbortHandle>>,
    next: AtomicU64,
}

impl Handshakes {
    fn start(self: &Arc<Self>, shared: &Arc<Shared>, stream: Accepted) {
        shared.counters.count_accepted();
        if self.lock().len() >= MAX_HANDSHAKES {
            self.drop_oldest();
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { handshakes: Arc::clone(self), id };
        let task = tokio::spawn(handshake(Arc::clone(shared), stream, entry));
        self.lock().insert(id, task.abort_handle());
    }

    fn drop_oldest(&self) {
        let oldest = self.lock().pop_first();
        if let Some((_, task)) = oldest {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a handshake from the list when it ends. There is one thread only, so it cannot end before it is on the list.
struct Entry {
    handshakes: Arc<Handshakes>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.handshakes.lock().remove(&self.id);
    }
}

async fn handshake(shared: Arc<Shared>, mut stream: Accepted, entry: Entry) {
    let deadline = shared.handshake_deadline;
    let agreed = tokio::time::timeout(deadline, async {
        match &mut stream {
            Accepted::Tcp(stream) => negotiate(&shared, stream).await,
            Accepted::Unix(stream) => negotiate(&shared, stream).await,
        }
    });
    let started = match agreed.await {
        Ok(Ok(Some(agreed))) => stream.into_blocking().and_then(|socket| transmit(&shared, socket, agreed)),
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "handshake failed");
    }
    drop(entry);
}

impl Accepted {
    fn into_blocking(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Socket::Tcp(stream)
            }
            Self::Unix(stream) => {
                let stream = stream.into_std()?;
                stream.set_nonblocking(false)?;
                Socket::Unix(stream)
            }
        })
    }
}

/// Moves the connection to a thread of its own.
fn transmit(shared: &Arc<Shared>, socket: Socket, agreed: Agreed) -> io::Result<()> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("nbd-reader".into()).spawn(move || run(&shared, socket, agreed))?;
    Ok(())
}

fn run(shared: &Arc<Shared>, socket: Socket, agreed: Agreed) {
    let Agreed { session, permit, tls, received } = agreed;
    let stream = Arc::new(Stream::new(socket, tls));
    let registered = Registered { id: shared.live.add(Arc::clone(&stream)), shared: Arc::clone(shared) };
    connection::run(shared, &stream, session, &received);
    drop(stream);
    drop(permit);
    drop(registered);
}

/// Serves a connection that this process was started with, from its handshake to its end. If there is no other way to
/// connect, the end of the last such connection is the end of the server.
pub(super) fn serve_given(shared: &Arc<Shared>, socket: Socket) -> io::Result<()> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name("nbd-reader".into()).spawn(move || {
        let _last = Given(Arc::clone(&shared));
        shared.counters.count_accepted();
        match negotiate_blocking(&shared, &socket) {
            Ok(Some(agreed)) => run(&shared, socket, agreed),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "handshake failed"),
        }
    })?;
    Ok(())
}

/// Counts the connections that were given, whichever way their threads end.
struct Given(Arc<Shared>);

impl Drop for Given {
    fn drop(&mut self) {
        if self.0.given.fetch_sub(1, Ordering::SeqCst) == 1 && !self.0.listens {
            self.0.stopping.store(true, Ordering::Release);
            self.0.stop.notify_one();
        }
    }
}

/// Forgets a connection when its thread ends.
struct Registered {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if self.shared.live.remove(self.id) {
            self.shared.buffers.trim();
        }
    }
}
