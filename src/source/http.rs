//! Files on web servers (RFC 9110): found once, then read by ranges.
//!
//! The first request asks for the front of the file. Its answer gives the length, whether ranges work, and what identifies the
//! file's state, which every later answer must fit. Redirections are resolved there, once and by our own rules ([`redirect`]); all
//! later requests go to where they led. A body is taken as it is or not at all: compressed ones are neither asked for nor accepted.

use std::fmt::Debug;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::location::Address;
use super::remote::retry::{Clock, Retry, SystemClock};
use super::remote::{Failure, Found, Remote, Transport};
use super::runtime::{Runtime, within};
use crate::disk::{Checked, Fingerprint, Traffic};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::{Patience, Session};

pub(super) mod answer;
pub(super) mod client;
mod login;
pub(super) mod redirect;
mod stream;

use answer::{Identity, Part};
use client::Clients;
use login::Login;
pub(super) use login::is_here;
use redirect::Guard;

pub use stream::WebStream;

/// Bytes of the first request: a block of the cache, which holds what formats are recognised by.
const FRONT: u64 = 256 << 10;

/// Opens the file at `address`.
///
/// # Errors
/// `http.no-ranges` when the server gives it as a whole only, `http.missing`, `http.denied`, `http.redirect` and others of the
/// network, all without any secret.
pub(super) fn open(address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    find(address, session).map_err(|error| error.at(address))
}

fn find(address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    let clock = SystemClock::new();
    let origin = Fingerprint::of(&[address.url().as_str().as_bytes()]);
    let go = |front| Line::to(address, front, &clock, session);
    let (web, found, _) = Web::find(Named { address: address.clone(), origin }, &clock, go)?;
    Ok(Checked::wrap(Remote::new(Box::new(web), found, Arc::new(clock), session)?))
}

/// Opens the file at `address` to be read forward only, once.
///
/// # Errors
/// As [`open`].
pub fn stream(address: &Address, session: &Arc<Session>) -> Result<WebStream> {
    let clock = SystemClock::new();
    WebStream::begin(address, &clock, session).map_err(|error| error.at(address))
}

/// What a kind of server has of its own: who we are to it, how it is held to one state of a file, and what its refusals mean.
pub(super) trait Dialect: Debug + Send + Sync + 'static {
    /// A word for it.
    fn kind(&self) -> &'static str {
        "http"
    }

    /// Makes a request out, as one of ours.
    fn sign<'a>(&'a self, request: RequestBuilder) -> Signed<'a>;

    /// Whether redirections are followed, to other servers as nobody.
    fn follows(&self) -> bool {
        true
    }

    /// What has the server answer only while the file is what it was when it gave the front with these headers.
    fn binding(&self, _front: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
        None
    }

    /// What an answer without the file means, by its beginning too; nothing if it is what it is everywhere.
    fn refusal(&self, _answer: &Refusal) -> Option<Failure> {
        None
    }
}

/// A request on its way to be sent.
pub(super) type Signed<'a> = Pin<Box<dyn Future<Output = Result<RequestBuilder, Failure>> + 'a>>;

/// An answer without the file.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The beginning of what the server says to it.
    pub(super) body: Vec<u8>,
}

/// A file as the user named it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) address: Address,
    /// A digest of the whole of it.
    pub(super) origin: Fingerprint,
}

/// A file on a web server.
#[derive(Debug)]
pub(super) struct Web {
    /// Another one once what a redirection led to has expired.
    line: Mutex<Arc<Line>>,
    file: Named,
    identity: Identity,
}

/// How requests reach the file. Not shown: an address may have a secret in it.
pub(super) struct Line {
    runtime: Arc<Runtime>,
    session: Arc<Session>,
    clients: Clients,
    guard: Guard,
    patience: Patience,
    url: Url,
    is_redirected: bool,
    /// That of nobody once a redirection led to another server.
    dialect: Arc<dyn Dialect>,
    /// Goes with each request once the file is found.
    binding: Option<(HeaderName, HeaderValue)>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// The answer to the first request.
pub(super) enum First {
    /// The front of the file.
    Part(Identity, HeaderMap, Vec<u8>),
    /// The file as a whole, though a part was asked for.
    Whole(Response),
    /// It is elsewhere.
    Moved(Url),
}

impl Web {
    /// Finds the file, to whose part in a range `go` leads, and reads its front. Gives what is known of it, and the headers that came with that.
    pub(super) fn find(
        file: Named,
        clock: &dyn Clock,
        go: impl FnOnce(Option<Range<u64>>) -> Result<(Line, First, u64)>,
    ) -> Result<(Self, Found, HeaderMap)> {
        let began = clock.now();
        let (mut line, first, requests) = go(Some(0..FRONT))?;
        let First::Part(identity, headers, head) = first else {
            return Err(Error::unsupported("http.no-ranges", "the server gives the file as a whole only, without ranges")
                .hint("convert can read raw disks and stream-optimized VMDKs so; for everything else, download the file first"));
        };
        line.binding = line.dialect.binding(&headers);
        if !identity.is_known() {
            let address = &file.address;
            tracing::warn!(
                "{address}: the server does not tell when the file changes, so that it is not noticed either"
            );
        }
        let nanoseconds = u64::try_from(clock.now().saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
        let traffic = Traffic { requests, bytes: head.len() as u64, retries: 0, nanoseconds, waited: nanoseconds };
        let found = Found { len: identity.len, fingerprint: identity.fingerprint(), head, traffic };
        let line = Mutex::new(Arc::new(line));
        Ok((Self { line, file, identity }, found, headers))
    }

    /// The way to the file.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fetch_by(&self, line: &Line, range: &Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        line.wait(line.patience.limit(range.end - range.start), async {
            let response = line.send(Some(range)).await?;
            match response.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                    let len = self.identity.judge(response.status(), response.headers(), range)?;
                    line.body(response, len, take).await
                }
                _ => Err(line.refused(response).await),
            }
        })
    }

    /// Goes to the user's address once more: signed addresses, to which servers redirect, are good for a while only.
    ///
    /// # Errors
    /// `source.changed` when another file is found there, and those of finding it.
    fn renew(&self, expired: &Arc<Line>) -> Result<Arc<Line>, Failure> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&line, expired) {
            let address = &self.file.address;
            tracing::info!("what {address} redirected to does not let us in any more: asking again where it is");
            let found = Line::to(address, Some(0..1), &SystemClock::new(), &expired.session);
            let (found, first, _) = found.map_err(Failure::Final)?;
            let First::Part(identity, ..) = first else { return Err(Failure::Final(answer::changed())) };
            self.identity.is(&identity).map_err(Failure::Final)?;
            *line = Arc::new(found);
        }
        Ok(Arc::clone(&line))
    }
}

impl Transport for Web {
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let line = self.line();
        match self.fetch_by(&line, &range, take) {
            Err(Failure::Final(error)) if line.is_redirected && error.code() == "http.denied" => {
                self.fetch_by(&*self.renew(&line)?, &range, take)
            }
            done => done,
        }
    }

    fn describe(&self) -> (&'static str, String) {
        (self.line().dialect.kind(), self.file.address.to_string())
    }

    fn origin(&self) -> Option<Fingerprint> {
        self.identity.is_known().then(|| Fingerprint::of(&[&self.file.origin.0, &self.identity.fingerprint().0]))
    }
}

impl Line {
    /// Goes to the file at `address` and to wherever that leads. Gives the number of requests, too. A server that wants to know more of
    /// a user whose name is known is asked again with his password.
    fn to(
        address: &Address,
        range: Option<Range<u64>>,
        clock: &dyn Clock,
        session: &Arc<Session>,
    ) -> Result<(Self, First, u64)> {
        let go = || Self::plain(address, session)?.find(range.clone(), clock);
        match go() {
            Err(error) if error.code() == "http.denied" && login::ask(address, session)? => go(),
            found => found,
        }
    }

    /// The way to a file on a web server.
    fn plain(address: &Address, session: &Arc<Session>) -> Result<Self> {
        let login = Login::for_address(address, session.access())?;
        Self::new(redirect::without_user(address.url()), Arc::new(login), session)
    }

    /// A way to `url`, whose server is spoken to in `dialect`.
    pub(super) fn new(url: Url, dialect: Arc<dyn Dialect>, session: &Arc<Session>) -> Result<Self> {
        let access = session.access();
        let guard = Guard::new(&url);
        let clients = Clients::new(access, &guard, true)?;
        let (runtime, session, patience) = (Runtime::of(session), Arc::clone(session), access.patience);
        let (is_redirected, binding) = (false, None);
        Ok(Self { runtime, session, clients, guard, patience, url, is_redirected, dialect, binding })
    }

    /// Goes to the file, or its part in `range`, and to wherever that leads. Gives the number of requests, too.
    pub(super) fn find(mut self, range: Option<Range<u64>>, clock: &dyn Clock) -> Result<(Self, First, u64)> {
        let session = Arc::clone(&self.session);
        let (mut requests, mut redirects) = (0, 0);
        let mut retry = Retry::new(self.patience);
        loop {
            requests += 1;
            match self.first(range.as_ref()) {
                Ok(First::Moved(target)) => {
                    redirects += 1;
                    if redirects > limits::MAX_REDIRECTS {
                        return Err(redirect::refused("the server redirects for ever"));
                    }
                    self.follow(target)?;
                }
                Ok(first) => return Ok((self, first, requests)),
                Err(failure) => retry.wait(failure, clock, &session)?,
            }
        }
    }

    /// Goes to another place, as nobody if it is another server.
    fn follow(&mut self, target: Url) -> Result<()> {
        self.guard.allow(&self.url, &target)?;
        if !redirect::is_same_origin(&self.url, &target) {
            self.dialect = Arc::new(None::<Login>);
            self.clients = Clients::new(self.session.access(), &self.guard, false)?;
        }
        tracing::info!("redirected to {}", target.host_str().unwrap_or_default());
        (self.url, self.is_redirected) = (target, true);
        Ok(())
    }

    /// Asks for the front of the file, or for all of it.
    fn first(&self, range: Option<&Range<u64>>) -> Result<First, Failure> {
        let wanted = range.map_or(0, |range| range.end - range.start);
        self.wait(self.patience.limit(wanted), async {
            let response = self.send(range).await?;
            let headers = response.headers();
            match (response.status(), range) {
                (status, _) if self.dialect.follows() && status.is_redirection() && headers.contains_key(LOCATION) => {
                    redirect::target(&self.url, headers).map(First::Moved).map_err(Failure::Final)
                }
                (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                    let part = Part::of(headers, range).map_err(Failure::Final)?;
                    let (identity, headers) = (Identity::of(headers, part.total), headers.clone());
                    let mut head = Vec::new();
                    // What is cut off here is asked for again as the first read.
                    let len = part.range.end - part.range.start;
                    match self.body(response, len, &mut |part| head.extend_from_slice(part)).await {
                        Err(failure) if head.is_empty() => Err(failure),
                        _ => Ok(First::Part(identity, headers, head)),
                    }
                }
                (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => Err(Failure::Final(answer::no_front(headers))),
                (StatusCode::OK, _) => {
                    answer::check_encoding(headers).map_err(Failure::Final)?;
                    Ok(First::Whole(response))
                }
                _ => Err(self.refused(response).await),
            }
        })
    }

    /// Waits for `work`, which gives up all of its requests when it takes longer than `limit`.
    pub(super) fn wait<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let done = self.runtime.wait(&self.session, within(limit, work)).map_err(Failure::Final)?;
        done.unwrap_or_else(|| Err(Failure::again(silent("the answer takes too long"))))
    }

    /// Sends a request for `range`, or for all, and waits for the head of the answer.
    async fn send(&self, range: Option<&Range<u64>>) -> Result<Response, Failure> {
        let request = self.request(Method::GET, self.url.clone()).headers(headers(range));
        self.exchange(request).await
    }

    /// Where the file was found.
    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// Waits for `work` that brings an answer of at most `len` bytes.
    pub(super) fn answer<T>(
        &self,
        len: usize,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.wait(self.patience.limit(len as u64), work(self))
    }

    /// Waits for `work` even if the session is cancelled; nothing if it takes longer than `limit`.
    pub(super) fn anyway<T>(&self, limit: Duration, work: impl AsyncFnOnce(&Self) -> T) -> Option<T> {
        self.runtime.finish(within(limit, work(self)))?
    }

    /// A request that the server answers only while the file is as it was found.
    pub(super) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.clients.next().request(method, url);
        match &self.binding {
            Some((name, value)) => request.header(name, value),
            None => request,
        }
    }

    /// Signs and sends a request, and waits for the head of the answer.
    pub(super) async fn exchange(&self, request: RequestBuilder) -> Result<Response, Failure> {
        self.exchange_for(self.patience.silence, request).await
    }

    /// [`Line::exchange`] for a request whose answer may take `time`, because of what it carries or has the server do.
    pub(super) async fn exchange_for(&self, time: Duration, request: RequestBuilder) -> Result<Response, Failure> {
        let request = self.dialect.sign(request).await?;
        match within(time, request.send()).await {
            Some(result) => result.map_err(|error| client::failure(error, false)),
            None => Err(Failure::again(silent("the server does not answer"))),
        }
    }

    /// What an answer without the file means.
    pub(super) async fn refused(&self, response: Response) -> Failure {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = self.beginning(response).await;
        let refusal = Refusal { status, headers, body };
        self.dialect.refusal(&refusal).unwrap_or_else(|| answer::failure(refusal.status, &refusal.headers))
    }

    /// All of an answer's body; nothing if it is longer than any should be.
    pub(super) async fn all(&self, mut response: Response) -> Result<Option<Vec<u8>>, Failure> {
        let mut body = Vec::new();
        loop {
            let Some(chunk) = within(self.patience.silence, response.chunk()).await else {
                return Err(Failure::again(silent("the server stopped in the middle of an answer")));
            };
            match chunk.map_err(|error| client::failure(error, true))? {
                None => return Ok(Some(body)),
                Some(chunk) if body.len() + chunk.len() > limits::MAX_OBJECT_ANSWER => return Ok(None),
                Some(chunk) => body.extend_from_slice(&chunk),
            }
        }
    }

    /// As much of an answer's body as comes, up to a bound.
    async fn beginning(&self, mut response: Response) -> Vec<u8> {
        let mut body = Vec::new();
        while let Some(Ok(Some(chunk))) = within(self.patience.silence, response.chunk()).await {
            let room = limits::MAX_REFUSAL.saturating_sub(body.len());
            body.extend(chunk.iter().take(room));
            if chunk.len() >= room {
                break;
            }
        }
        body
    }

    /// Takes `len` bytes of an answer. What is longer is cut.
    async fn body(&self, mut response: Response, len: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let mut left = len;
        while left > 0 {
            let Some(chunk) = within(self.patience.silence, response.chunk()).await else {
                return Err(Failure::again(silent("the server stopped in the middle of an answer")));
            };
            let Some(chunk) = chunk.map_err(|error| client::failure(error, true))? else {
                return Err(Failure::again(Error::new(
                    Kind::Unreadable,
                    "source.short",
                    "the answer ended before what was asked for",
                )));
            };
            let count = usize::try_from(left).map_or(chunk.len(), |left| chunk.len().min(left));
            take(chunk.get(..count).unwrap_or_default());
            left -= count as u64;
        }
        Ok(())
    }
}

fn headers(range: Option<&Range<u64>>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(range) = range
        && let Ok(value) = HeaderValue::from_str(&format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
    {
        headers.insert(RANGE, value);
    }
    headers
}

fn silent(what: &str) -> Error {
    Error::new(Kind::Unreadable, "http.silent", what)
}

#[cfg(test)]
mod tests;
