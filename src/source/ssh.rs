//! Files on SSH servers: read through SFTP, by many requests at once on few connections.
//!
//! All files on one server share its connections, of which there are as many as are kept busy. A file is opened once on each, and
//! must be the same there: its length, owner, mode and time of change, which are asked for after each read, too.

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, MutexGuard};

use super::location::Address;
use super::remote::retry::{Clock, Retry, SystemClock};
use super::remote::{Failure, Found, Remote, Transport};
use super::runtime::{Runtime, within};
use crate::disk::{Checked, Fingerprint, Traffic};
use crate::error::{Error, Kind, Result};
use crate::session::{Patience, Session};

mod config;
mod connect;
mod hosts;
mod login;
mod program;
mod route;
mod sftp;
#[doc(hidden)]
pub mod tried;

use connect::{Connection, Way};
use program::Program;
use route::Place;
use sftp::{File, Identity, Sftp};

/// Bytes of the first read: a block of the cache, which holds what formats are recognised by.
const FRONT: u64 = 256 << 10;

/// Connections to one server at most: a lost packet holds up all that comes after it on one.
const LINES: usize = 4;

/// Bytes that are on their way on a connection before another one is made.
const BUSY: u64 = 12 << 20;

/// Opens the file at `address`.
///
/// # Errors
/// `ssh.host-key` for a server of which nothing is known, `ssh.login`, `ssh.missing`, `ssh.denied` and others of the network, all
/// without any secret.
pub(super) fn open(address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (file, found) = Remoted::find(address, &*clock, session).map_err(|error| error.at(address))?;
    if !file.identity.is_known() {
        tracing::warn!("{address}: the server does not tell when the file changes, so that it is not noticed either");
    }
    Ok(Checked::wrap(Remote::new(Box::new(file), found, clock, session)?))
}

/// The servers of a session.
#[derive(Debug, Default)]
struct Servers(SyncMutex<HashMap<String, Arc<Server>>>);

/// A server with its connections.
struct Server {
    how: How,
    lines: [Mutex<Line>; LINES],
    /// Whether it gave no further connection.
    is_full: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

/// How a connection is made.
enum How {
    Own(Box<Way>),
    Program(PathBuf, Vec<String>, Patience),
}

/// A place for a connection.
#[derive(Debug, Default)]
struct Line {
    link: Option<Arc<Link>>,
    /// When it last could not be made, and why.
    failed: Option<(Instant, Error)>,
}

#[derive(Debug)]
enum Link {
    Own(Connection),
    Program(Program),
}

impl Link {
    fn sftp(&self) -> &Sftp {
        match self {
            Self::Own(connection) => &connection.sftp,
            Self::Program(program) => &program.sftp,
        }
    }
}

impl Line {
    fn live(&self) -> Option<&Arc<Link>> {
        self.link.as_ref().filter(|link| !link.sftp().has_ended())
    }
}

impl Servers {
    /// The server of `place`, with connections that others made.
    fn server(&self, place: &Place, session: &Session) -> Result<Arc<Server>> {
        let access = session.access();
        let (name, how): (String, Box<dyn FnOnce() -> Result<How>>) = match &access.ssh.program {
            Some(program) => {
                let words = place.words(access);
                (format!("{words:?}"), Box::new(|| Ok(How::Program(program.clone(), words, access.patience))))
            }
            None => {
                let hops = route::hops(place, access)?;
                (format!("{hops:?}"), Box::new(|| Ok(How::Own(Box::new(Way::new(hops, access)?)))))
            }
        };
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(&name) {
            return Ok(Arc::clone(server));
        }
        let server = Arc::new(Server { how: how()?, lines: Default::default(), is_full: false.into() });
        servers.insert(name, Arc::clone(&server));
        Ok(server)
    }
}

impl Server {
    /// A connection that has time: one of those that there are, or another one. Gives its number, too.
    async fn link(&self) -> Result<(usize, Arc<Link>), Failure> {
        use std::sync::atomic::Ordering::Relaxed;
        let mut least: Option<(u64, usize, Arc<Link>)> = None;
        let (mut free, mut is_growing) = (None, false);
        for (number, line) in self.lines.iter().enumerate() {
            let Ok(line) = line.try_lock() else {
                is_growing = true;
                continue;
            };
            let Some(link) = line.live() else {
                free.get_or_insert(number);
                continue;
            };
            let load = link.sftp().outstanding();
            if least.as_ref().is_none_or(|(least, ..)| load < *least) {
                least = Some((load, number, Arc::clone(link)));
            }
        }
        let Some((load, number, link)) = least else { return self.connect(0).await.map(|link| (0, link)) };
        let Some(free) = free.filter(|_| load >= BUSY && !is_growing && !self.is_full.load(Relaxed)) else {
            return Ok((number, link));
        };
        match self.connect(free).await {
            Ok(link) => Ok((free, link)),
            Err(failure) => {
                tracing::info!("no further connection: {failure:?}");
                self.is_full.store(true, Relaxed);
                Ok((number, link))
            }
        }
    }

    /// Asks the user for what was missing to be let in. Whether there is something new.
    fn ask(&self, session: &Session) -> Result<bool> {
        match &self.how {
            How::Own(way) => way.ask(session),
            How::Program(..) => Ok(false),
        }
    }

    /// The connection of that number; whoever comes while it is made waits for it, and for it only once.
    async fn connect(&self, number: usize) -> Result<Arc<Link>, Failure> {
        let came = Instant::now();
        let Some(line) = self.lines.get(number) else { return Err(Failure::again(silent("there is no such line"))) };
        let mut line: MutexGuard<'_, Line> = line.lock().await;
        if let Some(link) = line.live() {
            return Ok(Arc::clone(link));
        }
        if let Some((_, error)) = line.failed.as_ref().filter(|(when, _)| *when > came) {
            return Err(Failure::again(error.clone()));
        }
        let made = match &self.how {
            How::Own(way) => way.connect().await.map(Link::Own),
            How::Program(program, words, patience) => {
                Program::start(program, words, *patience).await.map(Link::Program)
            }
        };
        match made {
            Ok(link) => {
                let link = Arc::new(link);
                *line = Line { link: Some(Arc::clone(&link)), failed: None };
                Ok(link)
            }
            Err(failure) => {
                let (Failure::Again { error, .. } | Failure::Final(error)) = &failure;
                *line = Line { link: None, failed: Some((Instant::now(), error.clone())) };
                Err(failure)
            }
        }
    }
}

/// A file on a server.
#[derive(Debug)]
struct Remoted {
    runtime: Arc<Runtime>,
    session: Arc<Session>,
    address: Address,
    path: Vec<u8>,
    server: Arc<Server>,
    identity: Identity,
    /// The file, open on each connection.
    files: [Mutex<Option<Opened>>; LINES],
}

#[derive(Clone, Debug)]
struct Opened {
    link: Arc<Link>,
    file: Arc<File>,
}

impl Remoted {
    /// Finds the file and reads its front.
    fn find(address: &Address, clock: &dyn Clock, session: &Arc<Session>) -> Result<(Self, Found)> {
        let began = clock.now();
        let runtime = Runtime::of(session);
        let place = Place::of(address)?;
        let server = session.shared(|_| Servers::default()).server(&place, session)?;
        let patience = session.access().patience;
        let mut retry = Retry::new(patience);
        let mut requests = 0;
        let (number, opened, head) = loop {
            requests += 1;
            let begun = runtime.wait(session, begin(&server, &place.path, patience))?;
            match begun {
                Ok(begun) => break begun,
                // It has said why, and would ask the user again.
                Err(Failure::Again { error, .. }) if matches!(server.how, How::Program(..)) => return Err(error),
                Err(Failure::Final(error)) if error.code() == "ssh.login" && server.ask(session)? => {}
                Err(failure) => retry.wait(failure, clock, session)?,
            }
        };
        let identity = opened.file.identity;
        let nanoseconds = u64::try_from(clock.now().saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
        let traffic =
            Traffic { requests, bytes: head.len() as u64, retries: requests - 1, nanoseconds, waited: nanoseconds };
        let found = Found { len: identity.len, fingerprint: identity.fingerprint(), head, traffic };
        let mut files: [Mutex<Option<Opened>>; LINES] = Default::default();
        if let Some(place) = files.get_mut(number) {
            *place.get_mut() = Some(opened);
        }
        let session = Arc::clone(session);
        Ok((Self { runtime, session, address: address.clone(), path: place.path, server, identity, files }, found))
    }

    /// The file on the connection of that number.
    async fn file(&self, number: usize, link: &Arc<Link>) -> Result<Arc<File>, Failure> {
        let Some(place) = self.files.get(number) else { return Err(Failure::again(silent("there is no such line"))) };
        let mut place = place.lock().await;
        if let Some(opened) = place.as_ref().filter(|opened| Arc::ptr_eq(&opened.link, link)) {
            return Ok(Arc::clone(&opened.file));
        }
        let file = Arc::new(File::open(link.sftp(), &self.path).await?);
        file.is(&self.identity).map_err(Failure::Final)?;
        *place = Some(Opened { link: Arc::clone(link), file: Arc::clone(&file) });
        Ok(file)
    }
}

/// Opens the file at `path`, and reads its front.
async fn begin(server: &Server, path: &[u8], patience: Patience) -> Result<(usize, Opened, Vec<u8>), Failure> {
    let (number, link) = server.link().await?;
    let file = Arc::new(File::open(link.sftp(), path).await?);
    let end = FRONT.min(file.identity.len);
    let mut head = Vec::new();
    let mut take = |part: &[u8]| head.extend_from_slice(part);
    match within(patience.limit(end), file.read(link.sftp(), 0..end, &mut take)).await {
        Some(Ok(())) => Ok((number, Opened { link: Arc::clone(&link), file }, head)),
        Some(Err(failure)) => Err(failure),
        None => Err(Failure::again(silent("the answer takes too long"))),
    }
}

impl Transport for Remoted {
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let patience = self.session.access().patience;
        let work = async {
            let (number, link) = self.server.link().await?;
            let file = self.file(number, &link).await?;
            let limit = patience.limit((range.end - range.start).saturating_add(link.sftp().outstanding()));
            match within(limit, file.read(link.sftp(), range, take)).await {
                Some(done) => done,
                None => Err(Failure::again(silent("the answer takes too long"))),
            }
        };
        self.runtime.wait(&self.session, work).map_err(Failure::Final)?
    }

    fn describe(&self) -> (&'static str, String) {
        ("ssh", self.address.to_string())
    }

    fn origin(&self) -> Option<Fingerprint> {
        let whole = self.address.url().as_str().as_bytes();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.identity.is_settled(now).then(|| Fingerprint::of(&[whole, &self.identity.fingerprint().0]))
    }
}

impl Drop for Remoted {
    fn drop(&mut self) {
        for opened in self.files.iter_mut().filter_map(|place| place.get_mut().take()) {
            opened.file.close(opened.link.sftp());
        }
    }
}

fn silent(what: &str) -> Error {
    Error::new(Kind::Unreadable, "ssh.silent", what)
}
