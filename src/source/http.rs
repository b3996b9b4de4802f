//! Files on web servers (RFC 9110): found once, then read by ranges.
//!
//! The first request asks for the front of the file. Its answer gives the length, whether ranges work, and what identifies the
//! file's state, which every later answer must fit. Redirections are resolved there, once and by our own rules ([`redirect`]); all
//! later requests go to where they led. A body is taken as it is or not at all: compressed ones are neither asked for nor accepted.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Response, StatusCode, Url};

use super::location::Address;
use super::remote::retry::{Clock, Retry, SystemClock};
use super::remote::{Failure, Found, Remote, Transport};
use super::runtime::{Runtime, within};
use crate::disk::{Checked, Fingerprint, Traffic};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::{Patience, Session};

pub(super) mod answer;
mod client;
mod login;
mod redirect;
mod stream;

use answer::{Identity, Part};
use client::Clients;
use login::Login;
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
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (web, head, traffic) = Web::find(address, &*clock, session).map_err(|error| error.at(address))?;
    let fingerprint = web.identity.fingerprint();
    if !web.identity.is_known() {
        tracing::warn!("{address}: the server does not tell when the file changes, so that it is not noticed either");
    }
    let found = Found { len: web.identity.len, fingerprint, head, traffic };
    Ok(Checked::wrap(Remote::new(Box::new(web), found, clock, session)?))
}

/// Opens the file at `address` to be read forward only, once.
///
/// # Errors
/// As [`open`].
pub fn stream(address: &Address, session: &Arc<Session>) -> Result<WebStream> {
    let clock = SystemClock::new();
    WebStream::begin(address, &clock, session).map_err(|error| error.at(address))
}

/// A file on a web server.
#[derive(Debug)]
struct Web {
    /// Another one once what a redirection led to has expired.
    line: Mutex<Arc<Line>>,
    address: Address,
    identity: Identity,
}

/// How requests reach the file. Not shown: an address may have a secret in it.
struct Line {
    runtime: Arc<Runtime>,
    session: Arc<Session>,
    clients: Clients,
    patience: Patience,
    url: Url,
    is_redirected: bool,
    /// Nothing once a redirection led to another server.
    login: Option<Login>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// The answer to the first request.
enum First {
    /// The front of the file.
    Part(Identity, Vec<u8>),
    /// The file as a whole, though a part was asked for.
    Whole(Response),
    /// It is elsewhere.
    Moved(Url),
}

impl Web {
    /// Finds the file and reads its front. Gives what that took, too.
    fn find(address: &Address, clock: &dyn Clock, session: &Arc<Session>) -> Result<(Self, Vec<u8>, Traffic)> {
        let began = clock.now();
        let (line, first, requests) = Line::find(address, Some(0..FRONT), clock, session)?;
        let First::Part(identity, head) = first else {
            return Err(Error::unsupported("http.no-ranges", "the server gives the file as a whole only, without ranges")
                .hint("convert can read raw disks and stream-optimized VMDKs so; for everything else, download the file first"));
        };
        let nanoseconds = u64::try_from(clock.now().saturating_sub(began).as_nanos()).unwrap_or(u64::MAX);
        let traffic = Traffic { requests, bytes: head.len() as u64, retries: 0, nanoseconds, waited: nanoseconds };
        let line = Mutex::new(Arc::new(line));
        Ok((Self { line, address: address.clone(), identity }, head, traffic))
    }

    fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fetch_by(&self, line: &Line, range: &Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        line.wait(line.patience.limit(range.end - range.start), async {
            let response = line.send(Some(range)).await?;
            let len = self.identity.judge(response.status(), response.headers(), range)?;
            line.body(response, len, take).await
        })
    }

    /// Goes to the user's address once more: signed addresses, to which servers redirect, are good for a while only.
    ///
    /// # Errors
    /// `source.changed` when another file is found there, and those of finding it.
    fn renew(&self, expired: &Arc<Line>) -> Result<Arc<Line>, Failure> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&line, expired) {
            tracing::info!("what {} redirected to does not let us in any more: asking again where it is", self.address);
            let found = Line::find(&self.address, Some(0..1), &SystemClock::new(), &expired.session);
            let (found, first, _) = found.map_err(Failure::Final)?;
            let First::Part(identity, _) = first else { return Err(Failure::Final(answer::changed())) };
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
        ("http", self.address.to_string())
    }

    fn origin(&self) -> Option<Fingerprint> {
        let whole = self.address.url().as_str().as_bytes();
        self.identity.is_known().then(|| Fingerprint::of(&[whole, &self.identity.fingerprint().0]))
    }
}

impl Line {
    /// Goes to the file at `address` and to wherever that leads. Gives the number of requests, too. A server that wants to know more of
    /// a user whose name is known is asked again with his password.
    fn find(
        address: &Address,
        range: Option<Range<u64>>,
        clock: &dyn Clock,
        session: &Arc<Session>,
    ) -> Result<(Self, First, u64)> {
        match Self::follow(address, range.clone(), clock, session) {
            Err(error) if error.code() == "http.denied" && login::ask(address, session)? => {
                Self::follow(address, range, clock, session)
            }
            found => found,
        }
    }

    fn follow(
        address: &Address,
        range: Option<Range<u64>>,
        clock: &dyn Clock,
        session: &Arc<Session>,
    ) -> Result<(Self, First, u64)> {
        let access = session.access();
        let login = Login::for_address(address, access)?;
        let guard = Guard::new(address);
        let mut line = Self {
            runtime: Runtime::of(session),
            session: Arc::clone(session),
            clients: Clients::new(access, &guard, true)?,
            patience: access.patience,
            url: redirect::without_user(address.url()),
            is_redirected: false,
            login,
        };
        let (mut requests, mut redirects) = (0, 0);
        let mut retry = Retry::new(access.patience);
        loop {
            requests += 1;
            match line.first(range.as_ref()) {
                Ok(First::Moved(target)) => {
                    redirects += 1;
                    if redirects > limits::MAX_REDIRECTS {
                        return Err(redirect::refused("the server redirects for ever"));
                    }
                    guard.allow(&line.url, &target)?;
                    if !redirect::is_same_origin(&line.url, &target) {
                        line.login = None;
                        line.clients = Clients::new(access, &guard, false)?;
                    }
                    tracing::info!("redirected to {}", target.host_str().unwrap_or_default());
                    (line.url, line.is_redirected) = (target, true);
                }
                Ok(first) => return Ok((line, first, requests)),
                Err(failure) => retry.wait(failure, clock, session)?,
            }
        }
    }

    /// Asks for the front of the file, or for all of it.
    fn first(&self, range: Option<&Range<u64>>) -> Result<First, Failure> {
        let wanted = range.map_or(0, |range| range.end - range.start);
        self.wait(self.patience.limit(wanted), async {
            let response = self.send(range).await?;
            let headers = response.headers();
            match (response.status(), range) {
                (status, _) if status.is_redirection() && headers.contains_key(LOCATION) => {
                    redirect::target(&self.url, headers).map(First::Moved).map_err(Failure::Final)
                }
                (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                    let part = Part::of(headers, range).map_err(Failure::Final)?;
                    let identity = Identity::of(headers, part.total);
                    let mut head = Vec::new();
                    // What is cut off here is asked for again as the first read.
                    let len = part.range.end - part.range.start;
                    match self.body(response, len, &mut |part| head.extend_from_slice(part)).await {
                        Err(failure) if head.is_empty() => Err(failure),
                        _ => Ok(First::Part(identity, head)),
                    }
                }
                (StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => Err(Failure::Final(answer::no_front(headers))),
                (StatusCode::OK, _) => {
                    answer::check_encoding(headers).map_err(Failure::Final)?;
                    Ok(First::Whole(response))
                }
                (status, _) => Err(answer::failure(status, headers)),
            }
        })
    }

    /// Waits for `work`, which gives up all of its requests when it takes longer than `limit`.
    fn wait<T>(&self, limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let done = self.runtime.wait(&self.session, within(limit, work)).map_err(Failure::Final)?;
        done.unwrap_or_else(|| Err(Failure::again(silent("the answer takes too long"))))
    }

    /// Sends a request for `range`, or for all, and waits for the head of the answer.
    async fn send(&self, range: Option<&Range<u64>>) -> Result<Response, Failure> {
        let mut request = self.client().get(self.url.clone()).headers(headers(range));
        if let Some(login) = &self.login {
            request = login.apply(request);
        }
        match within(self.patience.silence, request.send()).await {
            Some(result) => result.map_err(|error| client::failure(error, false)),
            None => Err(Failure::again(silent("the server does not answer"))),
        }
    }

    fn client(&self) -> &Client {
        self.clients.next()
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
