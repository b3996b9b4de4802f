//! An object of S3 that is being written: parts in any order, of which the store makes the object at once, or never.
//!
//! The store is sent the digest of each part with it and takes no other bytes for it (`x-amz-content-sha256`). Whatever is given up
//! is aborted, so that no parts stay that nobody sees and somebody pays for; after a kill only the bucket's own rule for unfinished
//! uploads does that.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use sha2::{Digest, Sha256};

use super::super::http::Line;
use super::super::location::{Address, Protocol};
use super::super::network::{Counted, Network};
use super::super::remote::Failure;
use super::super::remote::retry::{Clock, Retry, SystemClock};
use super::Place;
use crate::disk::Traffic;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::Session;

/// How long a store may take to make an object of all its parts.
const ASSEMBLY: Duration = Duration::from_secs(600);

/// How long is waited for the store to forget an upload, when the run ends anyway.
const FAREWELL: Duration = Duration::from_secs(10);

/// An upload that the store knows of.
pub(crate) struct Upload {
    line: Line,
    url: Url,
    id: String,
    address: Address,
    clock: SystemClock,
    session: Arc<Session>,
    counted: Arc<Counted>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A part that the store has, as it calls it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// From 1 on.
    pub(crate) number: u32,
    tag: String,
}

impl Upload {
    /// Begins to write the object at `address`, which must not exist unless `force`.
    ///
    /// # Errors
    /// `output.exists`, `convert.destination` for other stores, and those of the store.
    pub(crate) fn begin(address: &Address, force: bool, session: &Arc<Session>) -> Result<Self> {
        Self::begin_unplaced(address, force, session).map_err(|error| error.at(address))
    }

    fn begin_unplaced(address: &Address, force: bool, session: &Arc<Session>) -> Result<Self> {
        if address.protocol() != Protocol::S3 || address.url().query().is_some() {
            return Err(Error::new(Kind::Usage, "convert.destination", "nothing is written to such an address")
                .expected("s3://BUCKET/KEY"));
        }
        let Place { url, speaker } = Place::of(address, session)?;
        let line = Line::new(url.clone(), Arc::new(speaker), session)?;
        let counted = Network::of(session).add(("s3", address.to_string()), Traffic::default());
        let (address, session) = (address.clone(), Arc::clone(session));
        let mut upload = Self { line, url, id: String::new(), address, clock: SystemClock::new(), session, counted };
        if !force && upload.exists()? {
            return Err(Error::new(Kind::Exists, "output.exists", "the object exists already")
                .hint("choose another name, or give --force to replace it"));
        }
        upload.id = upload.initiate()?;
        Ok(upload)
    }

    /// Where it goes.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Whether there is such an object.
    fn exists(&self) -> Result<bool> {
        self.ask(0, async |line| {
            let response = line.exchange(line.request(Method::HEAD, self.url.clone())).await?;
            match response.status() {
                StatusCode::OK => Ok(true),
                StatusCode::NOT_FOUND => Ok(false),
                _ => Err(line.refused(response).await),
            }
        })
    }

    fn initiate(&self) -> Result<String> {
        let mut url = self.url.clone();
        url.set_query(Some("uploads"));
        self.ask(0, async |line| {
            let request = signed(line.request(Method::POST, url.clone()), &Bytes::new());
            let body = answered(line, line.exchange(request).await?).await?;
            let id = || {
                let document = roxmltree::Document::parse(std::str::from_utf8(&body).ok()?).ok()?;
                let node = document.root_element().children().find(|node| node.tag_name().name() == "UploadId")?;
                node.text().map(str::trim).filter(|id| (1..=4096).contains(&id.len())).map(str::to_owned)
            };
            id().ok_or_else(|| Failure::Final(odd("the object store does not name the upload")))
        })
    }

    /// Stores part `number`.
    ///
    /// # Errors
    /// Those of the store, after all tries.
    pub(crate) fn store(&self, number: u32, bytes: &Bytes) -> Result<Stored> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("partNumber", &number.to_string()).append_pair("uploadId", &self.id);
        let tag = self.ask(bytes.len() as u64, async |line| {
            let request = signed(line.request(Method::PUT, url.clone()), bytes).body(bytes.clone());
            let time = self.session.access().patience.limit(bytes.len() as u64);
            let response = line.exchange_for(time, request).await?;
            if response.status() != StatusCode::OK {
                return Err(line.refused(response).await);
            }
            let tag = response.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            let is_plain = |tag: &String| tag.len() <= 256 && !tag.contains(['<', '>', '&']);
            tag.filter(is_plain).ok_or_else(|| Failure::again(odd("the object store does not name a part")))
        })?;
        self.counted.add(Traffic { bytes: bytes.len() as u64, ..Traffic::default() });
        Ok(Stored { number, tag })
    }

    /// Has the store make the object of `parts`, which are all that there are, in order. Without `force` it does not replace one that
    /// came meanwhile.
    ///
    /// # Errors
    /// `output.exists`, and those of the store.
    pub(crate) fn complete(&self, parts: &[Stored], force: bool) -> Result<()> {
        let mut body = "<CompleteMultipartUpload>".to_owned();
        for Stored { number, tag } in parts {
            let tag = tag.replace('"', "&quot;");
            // Writing to a string does not fail.
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let (body, mut url) = (Bytes::from(body), self.url.clone());
        url.query_pairs_mut().append_pair("uploadId", &self.id);
        let before = std::sync::atomic::AtomicBool::new(false);
        self.ask(body.len() as u64, async |line| {
            let request = signed(line.request(Method::POST, url.clone()), &body).body(body.clone());
            let request = if force { request } else { request.header(IF_NONE_MATCH, "*") };
            let asked_before = before.swap(true, std::sync::atomic::Ordering::Relaxed);
            let response = line.exchange_for(ASSEMBLY, request).await?;
            let status = response.status();
            if matches!(status, StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT) && !force {
                return Err(Failure::Final(Error::new(
                    Kind::Exists,
                    "output.exists",
                    "the object came into being meanwhile",
                )));
            }
            if status == StatusCode::NOT_FOUND && asked_before {
                // The answer to an earlier request did not come; whether that made the object is seen when it is read back.
                return Ok(());
            }
            // Some failures come as the content of a success.
            let answer = answered(line, response).await?;
            match answer.windows(7).any(|window| window == b"<Error>") {
                true => Err(Failure::again(odd("the object store could not put the object together"))),
                false => Ok(()),
            }
        })
    }

    /// Has the store forget the upload, if that can still be reached.
    pub(crate) fn abort(&self) {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("uploadId", &self.id);
        self.farewell(url, "unfinished upload");
    }

    /// Removes the object that was made.
    pub(crate) fn remove(&self) {
        self.farewell(self.url.clone(), "object that is not what was read");
    }

    /// Deletes what is at `url`, also when the run is cancelled.
    fn farewell(&self, url: Url, what: &str) {
        let gone = self.line.anyway(FAREWELL, async |line| {
            let mut request = line.request(Method::DELETE, url.clone());
            request = signed(request, &Bytes::new());
            let status = line.exchange(request).await?.status();
            if status.is_success() || status == StatusCode::NOT_FOUND { Ok(()) } else { Err(Failure::again(odd("no"))) }
        });
        if gone.is_none_or(|gone| gone.is_err()) {
            tracing::warn!("{}: the {what} may still be in the store, and has to be removed there", self.address);
        }
    }

    /// Asks until there is an answer, or no use.
    fn ask<T>(&self, len: u64, work: impl AsyncFn(&Line) -> Result<T, Failure>) -> Result<T> {
        let limit = self.session.access().patience.limit(len).saturating_add(ASSEMBLY);
        let mut retry = Retry::new(self.session.access().patience);
        loop {
            self.session.check()?;
            let began = self.clock.now();
            let answer = self.line.wait(limit, work(&self.line));
            let took = self.clock.now().saturating_sub(began).as_nanos();
            let nanoseconds = u64::try_from(took).unwrap_or(u64::MAX);
            self.counted.add(Traffic { requests: 1, nanoseconds, waited: nanoseconds, ..Traffic::default() });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) => {
                    retry.wait(failure, &self.clock, &self.session).map_err(|error| error.at(&self.address))?;
                    self.counted.add(Traffic { retries: 1, ..Traffic::default() });
                }
            }
        }
    }
}

/// A request with the digest of what it carries.
fn signed(request: RequestBuilder, body: &Bytes) -> RequestBuilder {
    let mut digest = String::new();
    for byte in Sha256::digest(body) {
        // Writing to a string does not fail.
        let _ = write!(digest, "{byte:02x}");
    }
    request.header("x-amz-content-sha256", digest)
}

/// The body of an answer that says that all is well.
async fn answered(line: &Line, response: Response) -> Result<Vec<u8>, Failure> {
    if !response.status().is_success() {
        return Err(line.refused(response).await);
    }
    line.all(response).await?.ok_or_else(|| Failure::Final(odd("the object store's answer is too long")))
}

fn odd(what: &str) -> Error {
    Error::new(Kind::Unreadable, "object.answer", what)
        .expected(format!("at most {} bytes that make sense", limits::MAX_OBJECT_ANSWER))
}
