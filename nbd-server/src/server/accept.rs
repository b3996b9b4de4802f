//! Accepting and negotiating, on one thread with tokio; idle sockets cost no thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{AbortHandle, JoinSet};

use super::Shared;
use super::connection;
use super::listen::{Listener, SocketFile};
use super::stream::Stream;
use crate::limits::MAX_HANDSHAKES;
use crate::protocol::{Handshake, Session, Step};

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
    Unix(tokio::net::UnixListener, #[expect(dead_code, reason = "removes the file when dropped")] SocketFile),
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

/// What a handshake leaves for the transmission.
struct Agreed {
    session: Session,
    permit: OwnedSemaphorePermit,
    /// Bytes received beyond the handshake's end.
    received: Vec<u8>,
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
        Ok(Ok(Some(agreed))) => transmit(shared, stream, agreed),
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "handshake failed");
    }
    drop(entry);
}

async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, stream: &mut S) -> io::Result<Option<Agreed>> {
    let (mut handshake, mut output) = Handshake::new(Arc::clone(&shared.catalogue));
    let mut received = Vec::new();
    let mut permit = None;
    loop {
        if !output.is_empty() {
            stream.write_all(&output).await?;
            output.clear();
        }
        let mut admit = || {
            permit = Arc::clone(&shared.slots).try_acquire_owned().ok();
            permit.is_some()
        };
        let (used, step) = handshake.advance(&received, &mut output, &mut admit);
        received.drain(..used.min(received.len()));
        match step {
            Step::More => {
                received.reserve(4096);
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(None);
                }
            }
            Step::Next => {}
            Step::Transmit(session) => {
                stream.write_all(&output).await?;
                return Ok(permit.map(|permit| Agreed { session, permit, received }));
            }
            Step::Close => {
                stream.write_all(&output).await?;
                stream.shutdown().await?;
                return Ok(None);
            }
        }
    }
}

/// Moves the connection to a thread of its own.
fn transmit(shared: Arc<Shared>, stream: Accepted, agreed: Agreed) -> io::Result<()> {
    let stream = match stream {
        Accepted::Tcp(stream) => {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            Stream::Tcp(stream)
        }
        Accepted::Unix(stream) => {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            Stream::Unix(stream)
        }
    };
    let stream = Arc::new(stream);
    let registered = Registered { id: shared.live.add(Arc::clone(&stream)), shared };
    thread::Builder::new().name("nbd-reader".into()).spawn(move || {
        let Agreed { session, permit, received } = agreed;
        connection::run(&registered.shared, &stream, session, &received);
        drop(stream);
        drop(permit);
        drop(registered);
    })?;
    Ok(())
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
