//! Objects in stores: S3 and what speaks like it, Google Cloud Storage and Azure's blobs.
//!
//! They are files on web servers ([`super::http`]) whose requests are signed, which are held to one state of the object by the
//! server itself, and whose refusals have words of their own. Nothing redirects: a store that sends us elsewhere has the bucket in
//! another region, and the user is told which.

use std::sync::Arc;

use reqwest::header::{ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH};
use reqwest::{RequestBuilder, Url};

use super::http::{Dialect, Line, Named, Refusal, Signed, Web};
use super::location::{Address, Protocol, unescape_bytes};
use super::remote::retry::SystemClock;
use super::remote::{Failure, Remote, Transport};
use crate::disk::{Checked, Fingerprint};
use crate::error::{Error, Kind, Result};
use crate::session::Session;

mod azure;
mod context;
mod google;
mod pages;
mod profile;
mod refusal;
mod s3;
mod signature;
mod upload;

use signature::Sign;

pub(crate) use upload::{Stored, Upload};

/// Opens the object at `address`.
///
/// # Errors
/// `object.missing`, `object.denied`, `object.archived`, `object.region` and others of stores, and those of web servers, all without
/// any secret.
pub(super) fn open(address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    find(address, session).map_err(|error| error.at(address))
}

fn find(address: &Address, session: &Arc<Session>) -> Result<Arc<Checked<Remote>>> {
    let Place { url, speaker } = Place::of(address, session)?;
    let origin = Fingerprint::of(&[address.url().as_str().as_bytes(), url.as_str().as_bytes()]);
    let line = Line::new(url, Arc::new(speaker), session)?;
    let clock = SystemClock::new();
    let (web, found, headers) =
        Web::find(Named { address: address.clone(), origin }, &clock, |front| line.find(front, &clock))?;
    let transport: Box<dyn Transport> = match pages::are_in(&headers) {
        true => Box::new(pages::PageBlob::new(web)),
        false => Box::new(web),
    };
    Ok(Checked::wrap(Remote::new(transport, found, Arc::new(clock), session)?))
}

/// Where an object is, and how its store is spoken to.
struct Place {
    url: Url,
    speaker: Speaker,
}

impl Place {
    fn of(address: &Address, session: &Arc<Session>) -> Result<Self> {
        match address.protocol() {
            Protocol::Azure => azure::place(address, session),
            Protocol::Google => google::place(address, session),
            _ => s3::place(address, session),
        }
    }
}

/// The stores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    Azure,
    Google,
    S3,
}

/// What speaks to one store.
#[derive(Debug)]
struct Speaker {
    store: Store,
    /// Where we think that the bucket is.
    region: Option<String>,
    signature: Arc<dyn Sign>,
}

impl Dialect for Speaker {
    fn kind(&self) -> &'static str {
        match self.store {
            Store::Azure => "azblob",
            Store::Google => "gs",
            Store::S3 => "s3",
        }
    }

    fn sign<'a>(&'a self, request: RequestBuilder) -> Signed<'a> {
        Box::pin(async move {
            let (client, request) = request.build_split();
            let mut request = request.map_err(|_| Failure::Final(unsendable()))?;
            if self.store == Store::Azure {
                request.headers_mut().insert("x-ms-version", HeaderValue::from_static(azure::VERSION));
            }
            self.signature.sign(&mut request).await?;
            Ok(RequestBuilder::from_parts(client, request))
        })
    }

    fn follows(&self) -> bool {
        false
    }

    fn binding(&self, front: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
        const GENERATION: &str = "x-goog-generation";
        match front.get(GENERATION).filter(|_| self.store == Store::Google) {
            Some(generation) => Some((HeaderName::from_static("x-goog-if-generation-match"), generation.clone())),
            None => front.get(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")).map(|tag| (IF_MATCH, tag.clone())),
        }
    }

    fn refusal(&self, answer: &Refusal) -> Option<Failure> {
        refusal::failure(answer, self.region.as_deref(), self.signature.is_nobody())
    }
}

fn unsendable() -> Error {
    Error::new(Kind::Usage, "source.address", "no request can be made of this address")
}

/// The bucket or account that an address names, and the path in it as it is meant.
fn names(address: &Address) -> Result<(&str, Vec<u8>)> {
    let url = address.url();
    let bucket = url.host_str().unwrap_or_default();
    let path = unescape_bytes(url.path().strip_prefix('/').unwrap_or_default());
    if path.is_empty() || path.ends_with(b"/") {
        return Err(Error::new(Kind::Usage, "source.address", "the address names a folder, and not an object")
            .expected(format!("{}://{bucket}/NAME", url.scheme())));
    }
    Ok((bucket, path))
}

/// The address of the store that the user gave, or that of the cloud.
///
/// # Errors
/// `source.address` for what is no address of a web server.
fn endpoint(text: &str) -> Result<Url> {
    let wrong = || {
        Error::new(Kind::Usage, "source.address", "the endpoint is not the address of a web server")
            .expected("http(s)://HOST[:PORT][/PATH], with --endpoint-url or in the environment")
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) || !is_plain {
        return Err(wrong());
    }
    Ok(url)
}

/// `base` with `path` behind its own, each byte that is no plain letter escaped, and `query` if there is one.
fn join(base: &Url, path: &[u8], query: Option<&str>) -> Result<Url> {
    use std::fmt::Write;
    let mut text = base.as_str().trim_end_matches('/').to_owned();
    text.push('/');
    for &byte in path {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => _ = write!(text, "%{byte:02X}"),
        }
    }
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    Url::parse(&text).map_err(|_| unsendable())
}

#[cfg(test)]
mod tests;
