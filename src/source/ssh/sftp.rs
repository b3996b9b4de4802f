//! A client of the SSH File Transfer Protocol on any stream of bytes: many requests at once, each with its own waiter.
//!
//! One task reads answers and gives each to whoever asked, one writes requests. What breaks the protocol ends the stream for all.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::super::remote::Failure;
use super::super::runtime::within;
use super::silent;
use crate::error::{Error, Kind};
use crate::limits;

mod file;
pub(super) mod packet;

pub(super) use file::{File, Identity};
use packet::{Reply, Request, Status, code};

/// Bytes that every server gives at once, and what one gives at most that says it can give more.
const READ: u32 = 32 << 10;
const MOST: u32 = 256 << 10;

/// Bytes of a packet beside the data in it.
const AROUND: u32 = 1 << 10;

/// A stream on which a server of files answers.
pub(super) struct Sftp {
    shared: Arc<Shared>,
    /// Bytes that the server gives at once.
    most: u32,
    tasks: [JoinHandle<()>; 2],
}

impl fmt::Debug for Sftp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sftp").field("most", &self.most).finish_non_exhaustive()
    }
}

struct Shared {
    pending: Mutex<Pending>,
    requests: mpsc::UnboundedSender<Vec<u8>>,
    next: AtomicU32,
    /// Bytes that answers on their way may have.
    outstanding: AtomicU64,
    start: Instant,
    /// When something came last, in nanoseconds since the start.
    heard: AtomicU64,
    silence: Duration,
}

#[derive(Default)]
struct Pending {
    waiters: HashMap<u32, Waiter>,
    /// Why there will be no more answers.
    end: Option<End>,
}

struct Waiter {
    sender: oneshot::Sender<Reply>,
    /// Bytes that the answer may have.
    room: u32,
}

/// Why a stream ended.
#[derive(Clone, Debug)]
enum End {
    Closed(String),
    Broken(&'static str),
}

impl End {
    fn error(&self) -> Error {
        match self {
            Self::Closed(why) => lost().found(why),
            Self::Broken(what) => broken(what),
        }
    }
}

/// A request that is under way.
struct Asked {
    receiver: oneshot::Receiver<Reply>,
    at: Instant,
}

impl Sftp {
    /// Greets the server at the other end of `stream`, which has so long for that, and may be silent for so long later.
    pub(super) async fn start<S>(stream: S, patience: Duration, silence: Duration) -> Result<Self, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (input, mut output) = tokio::io::split(stream);
        let mut input = BufReader::with_capacity(64 << 10, input);
        let greeted = within(patience, async {
            output.write_all(&packet::init()).await.map_err(|error| End::Closed(error.to_string()))?;
            output.flush().await.map_err(|error| End::Closed(error.to_string()))?;
            let (kind, body) = greeting(&mut input).await?;
            packet::greeting(kind, &body).ok_or(End::Broken("a greeting that is none, or of another version"))
        });
        let greeted = greeted.await.ok_or_else(|| Failure::again(silent("the server does not greet")))?;
        let knows_limits = greeted.map_err(|end| Failure::again(end.error()))?;
        let (requests, mut queue) = mpsc::unbounded_channel::<Vec<u8>>();
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            requests,
            next: AtomicU32::new(1),
            outstanding: AtomicU64::new(0),
            start: Instant::now(),
            heard: AtomicU64::new(0),
            silence,
        });
        let (reading, writing) = (Arc::clone(&shared), Arc::clone(&shared));
        let reader = tokio::spawn(async move { reading.answers(&mut input).await });
        let writer = tokio::spawn(async move {
            while let Some(packet) = queue.recv().await {
                let written = async {
                    output.write_all(&packet).await?;
                    if queue.is_empty() { output.flush().await } else { Ok(()) }
                };
                if let Err(error) = written.await {
                    return writing.end(End::Closed(error.to_string()));
                }
            }
        });
        let mut sftp = Self { shared, most: READ, tasks: [reader, writer] };
        if knows_limits {
            sftp.learn_limits().await?;
        }
        Ok(sftp)
    }

    async fn learn_limits(&mut self) -> Result<(), Failure> {
        if let Reply::Extended(body) = self.call(Request::Limits).await?
            && let Some(limit) = packet::read_limit(&body)
        {
            self.most = u32::try_from(limit).unwrap_or(MOST).clamp(1 << 10, MOST);
        }
        Ok(())
    }

    /// Sends a request.
    fn ask(&self, request: Request<'_>) -> Asked {
        let (sender, receiver) = oneshot::channel();
        let room = match request {
            Request::Read(_, _, len) => len.saturating_add(AROUND),
            _ => limits::MAX_SFTP_REPLY,
        };
        let shared = &self.shared;
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let mut pending = shared.pending();
        // Dropping the sender tells the waiter.
        if pending.end.is_none() {
            shared.outstanding.fetch_add(room.into(), Ordering::Relaxed);
            pending.waiters.insert(id, Waiter { sender, room });
            drop(pending);
            // If nobody takes it, the stream has ended, which the waiter is told.
            let _ = shared.requests.send(request.encode(id));
        }
        Asked { receiver, at: Instant::now() }
    }

    /// Waits for the answer, as long as the server says anything at all.
    async fn answer(&self, asked: Asked) -> Result<Reply, Failure> {
        let Asked { mut receiver, at } = asked;
        loop {
            let heard = self.shared.start + Duration::from_nanos(self.shared.heard.load(Ordering::Relaxed));
            let left = (heard.max(at) + self.shared.silence).saturating_duration_since(Instant::now());
            match within(left, &mut receiver).await {
                Some(Ok(reply)) => return Ok(reply),
                Some(Err(_)) => return Err(Failure::again(self.error())),
                None if left.is_zero() => {
                    let silent = "the server stopped answering";
                    self.shared.end(End::Closed(silent.to_owned()));
                    return Err(Failure::again(super::silent(silent)));
                }
                None => {}
            }
        }
    }

    /// Sends a request and waits for its answer.
    async fn call(&self, request: Request<'_>) -> Result<Reply, Failure> {
        self.answer(self.ask(request)).await
    }

    /// Whether nothing will come any more.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.pending().end.is_some()
    }

    /// Bytes that answers on their way may have.
    pub(super) fn outstanding(&self) -> u64 {
        self.shared.outstanding.load(Ordering::Relaxed)
    }

    /// Has the stream be of no more use to anybody.
    fn break_off(&self, what: &'static str) -> Failure {
        self.shared.end(End::Broken(what));
        Failure::again(broken(what))
    }

    fn error(&self) -> Error {
        self.shared.pending().end.as_ref().map_or_else(lost, End::error)
    }
}

impl Drop for Sftp {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits. The first reason counts.
    fn end(&self, end: End) {
        let mut pending = self.pending();
        pending.end.get_or_insert(end);
        pending.waiters.clear();
    }

    fn heard(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// Gives answers to those who wait for them, until the stream ends.
    async fn answers<R: AsyncRead + Unpin>(&self, input: &mut R) {
        while self.receive(input).await.is_ok() {}
    }

    async fn receive<R: AsyncRead + Unpin>(&self, input: &mut R) -> Result<(), ()> {
        let mut waiter = None;
        let received = self.packet(input, &mut waiter).await;
        match (received, waiter) {
            // Who does not wait any more does not want it.
            (Ok(reply), Some(waiter)) => _ = waiter.sender.send(reply),
            (Ok(_), None) => {}
            (Err(end), waiter) => {
                self.end(end);
                // Not before it can be told why.
                drop(waiter);
                return Err(());
            }
        }
        Ok(())
    }

    /// The next answer, and who waits for it.
    async fn packet<R: AsyncRead + Unpin>(&self, input: &mut R, waiter: &mut Option<Waiter>) -> Result<Reply, End> {
        let len = length(input).await?;
        self.heard();
        let mut head = [0; 5];
        input.read_exact(&mut head).await.map_err(closed)?;
        let [kind, id @ ..] = head;
        *waiter = self.pending().waiters.remove(&u32::from_be_bytes(id));
        let room = waiter.as_ref().map(|waiter| waiter.room).ok_or(End::Broken("an answer that nobody asked for"))?;
        self.outstanding.fetch_sub(room.into(), Ordering::Relaxed);
        let len = len.checked_sub(5).filter(|len| *len <= room).ok_or(End::Broken("an answer of a wrong length"))?;
        let mut body = vec![0; usize::try_from(len).unwrap_or(0)];
        let mut filled = 0;
        while let Some(rest) = body.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match input.read(rest).await.map_err(closed)? {
                0 => return Err(End::Closed("in the middle of an answer".to_owned())),
                count => filled += count,
            }
            self.heard();
        }
        Reply::parse(kind, body).ok_or(End::Broken("an answer that is none"))
    }
}

/// The length of the next packet.
async fn length<R: AsyncRead + Unpin>(input: &mut R) -> Result<u32, End> {
    let mut len = [0; 4];
    input.read_exact(&mut len).await.map_err(closed)?;
    Ok(u32::from_be_bytes(len))
}

async fn greeting<R: AsyncRead + Unpin>(input: &mut BufReader<ReadHalf<R>>) -> Result<(u8, Vec<u8>), End> {
    let len = length(input).await?;
    if !(5..=limits::MAX_SFTP_REPLY).contains(&len) {
        // Start-up files of a shell that print something are what this mostly is.
        return Err(End::Broken("something that is no greeting, like the words of a shell"));
    }
    let kind = input.read_u8().await.map_err(closed)?;
    let mut body = vec![0; usize::try_from(len).unwrap_or(0).saturating_sub(1)];
    input.read_exact(&mut body).await.map_err(closed)?;
    Ok((kind, body))
}

fn closed(error: std::io::Error) -> End {
    End::Closed(error.to_string())
}

fn lost() -> Error {
    Error::new(Kind::Unreadable, "ssh.connection", "the connection to the server ended")
}

fn broken(what: &str) -> Error {
    Error::new(Kind::Unreadable, "ssh.protocol", "the server does not keep to the protocol of files (SFTP 3)")
        .found(what)
}

/// An answer by which the server refuses, as a failure.
fn refusal(status: &Status) -> Failure {
    let error = |code, what: &str| Error::new(Kind::Unreadable, code, what);
    let said = if status.message.is_empty() { format!("status {}", status.code) } else { status.message.clone() };
    match status.code {
        code::NO_SUCH_FILE => Failure::Final(error("ssh.missing", "there is no such file on the server")),
        code::PERMISSION_DENIED => Failure::Final(
            error("ssh.denied", "the user may not read the file on the server")
                .hint("log in as one who may: ssh://USER@HOST/PATH, or --login"),
        ),
        code::EOF | code::FAILURE => Failure::again(error("ssh.failed", "the server cannot read the file").found(said)),
        _ => Failure::Final(error("ssh.failed", "the server cannot read the file").found(said)),
    }
}

#[cfg(test)]
mod tests;
