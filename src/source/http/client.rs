//! The client: connections, TLS, and what its errors mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Client;

use super::super::remote::Failure;
use super::super::tls;
use super::redirect::{self, Guard, Refused};
use crate::error::{Error, Kind, Result};
use crate::session::Access;

/// Clients in turn. HTTP/2 has one connection a client, in which one lost packet holds up all answers; HTTP/1.1 has as many
/// connections as there are requests under way.
const CLIENTS: usize = 4;

/// Idle connections that are kept.
const IDLE: usize = 16;

/// Bytes of one answer, and of all on one connection, that HTTP/2 lets a server send before we said that we took them: 50 ms of 1.3
/// and 5 Gbit/s.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// Several clients that stand for one.
#[derive(Debug)]
pub(in crate::source) struct Clients {
    clients: Vec<Client>,
    next: AtomicUsize,
}

impl Clients {
    /// For the server that the user named (`own`), or for another one, which does not see the user's certificate.
    ///
    /// # Errors
    /// `http.certificate` for certificates and keys that cannot be used.
    pub(in crate::source) fn new(access: &Access, guard: &Guard, own: bool) -> Result<Self> {
        let mut tls = tls::config(access, own)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let one = || {
            let patience = access.patience;
            let builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .dns_resolver(Arc::new(guard.clone()))
                .connect_timeout(patience.connect.min(patience.silence))
                .pool_max_idle_per_host(IDLE)
                .pool_idle_timeout(Duration::from_secs(30))
                .tcp_keepalive(Duration::from_secs(15))
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .user_agent(concat!("hyper2kvm/", env!("CARGO_PKG_VERSION")));
            builder.build().map_err(|error| {
                Error::failed("source.runtime", "cannot make a client for web servers").because(cause(&error))
            })
        };
        Ok(Self { clients: (0..CLIENTS).map(|_| one()).collect::<Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// The one whose turn it is.
    #[expect(clippy::indexing_slicing, reason = "there are always as many")]
    pub(in crate::source) fn next(&self) -> &Client {
        &self.clients[self.next.fetch_add(1, Ordering::Relaxed) % self.clients.len()]
    }
}

/// What an error of the client means; `body` says that the head of an answer had come.
pub(in crate::source) fn failure(error: reqwest::Error, body: bool) -> Failure {
    let unreadable = |code, what: &str| Error::new(Kind::Unreadable, code, what).because(cause(&error));
    if find::<Refused>(&error).is_some() {
        return Failure::Final(redirect::refused(
            "the server redirects to an address of this host or of its own network",
        ));
    }
    if let Some(reason) = find::<rustls::Error>(&error) {
        let distrusted = matches!(reason, rustls::Error::InvalidCertificate(_));
        let what = if distrusted {
            "the server's certificate is not trusted"
        } else {
            "no encrypted connection to the server"
        };
        let hint = "trust its authority with --cacert FILE, or this certificate with --thumbprint DIGEST";
        let error = unreadable("http.tls", what);
        return Failure::Final(if distrusted { error.hint(hint) } else { error });
    }
    Failure::again(match (error.is_timeout(), error.is_connect(), body) {
        (true, ..) => unreadable("http.silent", "the server does not answer"),
        (_, true, _) => unreadable("http.connection", "no connection to the server"),
        (.., true) => unreadable("http.connection", "the connection ended in the middle of an answer"),
        _ => unreadable("http.connection", "the connection ended before an answer came"),
    })
}

/// The innermost message of an error. The client's own ones have addresses in them.
fn cause(error: &reqwest::Error) -> std::io::Error {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    let text = match inner.downcast_ref::<reqwest::Error>() {
        Some(_) => "the request failed".to_owned(),
        None => inner.to_string(),
    };
    std::io::Error::other(text)
}

/// The cause of type `T` in an error. Of an [`std::io::Error`] the source is that of what it holds, so that is looked at itself.
fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = error.downcast_ref::<T>().or_else(|| held.and_then(|held| find::<T>(held))) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
