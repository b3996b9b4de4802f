//! What finding credentials may use of this host and of the network: the variables that were given, files of a bounded size, and
//! requests with an end. No program is started, and a cloud's metadata service is asked only if the user said so.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqsign_core::{Context, Env, Error as SignError, FileRead, HttpSend};
use reqwest::Url;

use super::super::http::client::Clients;
use super::super::http::is_here;
use super::super::http::redirect::{Guard, literal};
use super::super::runtime::within;
use crate::limits;
use crate::session::{ObjectAccess, Session};

/// How long a request for credentials may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the session lets the search for credentials use.
pub(super) fn context(session: &Arc<Session>) -> Context {
    let objects = session.access().objects.clone();
    let sender = Sender { session: Arc::clone(session), clients: OnceLock::new() };
    Context::new().with_env(Variables(objects)).with_file_read(Files).with_http_send(sender)
}

/// The variables of the environment as the session has them.
#[derive(Debug)]
struct Variables(ObjectAccess);

impl Env for Variables {
    fn var(&self, key: &str) -> Option<String> {
        self.0.variable(key).map(str::to_owned)
    }

    fn vars(&self) -> HashMap<String, String> {
        self.0.variables.keys().filter_map(|name| Some((name.clone(), self.var(name)?))).collect()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        self.0.home.clone()
    }
}

/// Files of this host.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        read(Path::new(path)).map_err(|error| SignError::config_invalid("cannot read a file").with_source(error))
    }
}

/// The whole of a file that the user or the usual chain names.
#[allow(clippy::disallowed_methods, reason = "credentials are files of the user's, and no disk images")]
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limits::MAX_CREDENTIAL_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::MAX_CREDENTIAL_FILE {
        return Err(std::io::Error::other("the file is larger than any with credentials can be"));
    }
    Ok(bytes)
}

/// Requests to those who give credentials.
struct Sender {
    session: Arc<Session>,
    clients: OnceLock<Option<Clients>>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Sender {
    fn clients(&self, url: &Url) -> Option<&Clients> {
        let make = || Clients::new(self.session.access(), &Guard::new(url), false).ok();
        self.clients.get_or_init(make).as_ref()
    }

    /// Whether a request may go there: encrypted, or no farther than this host; to a cloud's metadata if that was asked for.
    fn may(&self, url: &Url) -> bool {
        let is_near = literal(url).is_some() || url.host_str() == Some("metadata.google.internal");
        let instance = self.session.access().objects.instance;
        url.scheme() == "https" || is_here(url) || (instance && is_near)
    }
}

impl HttpSend for Sender {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let failed = |what: &str| SignError::unexpected(what).set_retryable(true);
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|_| failed("no address"))?;
        if !self.may(&url) {
            return Err(SignError::config_invalid("credentials would be asked for without encryption"));
        }
        tracing::info!("asking {} for credentials", url.host_str().unwrap_or_default());
        let clients = self.clients(&url).ok_or_else(|| SignError::config_invalid("no client"))?;
        let request = clients.next().request(parts.method, url).headers(parts.headers).body(body);
        let exchange = async {
            let mut response = request.send().await.ok()?;
            let (status, headers) = (response.status(), response.headers().clone());
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.ok()? {
                body.extend_from_slice(&chunk);
                if body.len() > limits::MAX_OBJECT_ANSWER {
                    return None;
                }
            }
            let mut answer = http::Response::new(Bytes::from(body));
            (*answer.status_mut(), *answer.headers_mut()) = (status, headers);
            Some(answer)
        };
        within(PATIENCE, exchange)
            .await
            .flatten()
            .ok_or_else(|| failed("the one who gives credentials does not answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Access;

    #[test]
    fn files_are_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (len, fits) in [(-1, true), (0, true), (1, false)] {
            file.as_file().set_len(limits::MAX_CREDENTIAL_FILE.strict_add_signed(len)).unwrap();
            assert_eq!(read(file.path()).is_ok(), fits);
        }
    }

    #[test]
    fn metadata_is_asked_only_if_the_user_said_so() {
        let may = |instance, text: &str| {
            let session = Session::with_defaults();
            let objects = ObjectAccess { instance, ..ObjectAccess::default() };
            session.give_access(Access { objects, ..Access::default() });
            Sender { session, clients: OnceLock::new() }.may(&Url::parse(text).unwrap())
        };
        for text in ["http://169.254.169.254/latest", "http://metadata.google.internal/x"] {
            assert_eq!((may(false, text), may(true, text)), (false, true), "{text}");
        }
        for text in ["https://sts.amazonaws.com/", "http://127.0.0.1:1/"] {
            assert!(may(false, text), "{text}");
        }
        assert!(!may(true, "http://sts.example/"));
    }
}
