//! Who signs requests: whoever the usual places name, or nobody where they name none.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::PoisonError;

use reqsign_core::{
    Context, ErrorKind, ProvideCredential, ProvideCredentialDyn, SignRequest, Signer, SigningCredential,
};
use reqwest::header::AUTHORIZATION;
use reqwest::{Request, Url};
use tokio::sync::OnceCell;

use super::super::http::is_here;
use super::super::remote::Failure;
use crate::error::{Error, Kind};

/// Signs requests to one store.
pub(super) trait Sign: Debug + Send + Sync {
    /// Signs `request`, or leaves it if there is nobody to sign it.
    fn sign<'a>(&'a self, request: &'a mut Request) -> Signing<'a>;

    /// Whether it is known that there is nobody.
    fn is_nobody(&self) -> bool;
}

/// A signature under way.
pub(super) type Signing<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Signatures by credentials of type `K`.
pub(super) struct Signature<K: SigningCredential> {
    signer: Signer<K>,
    chain: std::sync::Arc<Chain<K>>,
    context: Context,
    /// Whether there are credentials.
    found: OnceCell<bool>,
    /// What the user said of them, so that there must be some.
    named: Option<String>,
}

/// Where credentials may be, in order.
pub(super) type Places<K> = Vec<Box<dyn ProvideCredentialDyn<Credential = K>>>;

/// Asks each of the places.
struct Chain<K> {
    places: Places<K>,
    /// What the first look found, for the signer.
    first: Mutex<Option<K>>,
}

impl<K> Debug for Chain<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("places", &self.places.len()).finish_non_exhaustive()
    }
}

impl<K: SigningCredential> Debug for Signature<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signature").field("found", &self.found).finish_non_exhaustive()
    }
}

/// What the signer takes of a chain.
#[derive(Debug)]
struct Shared<K>(std::sync::Arc<Chain<K>>);

impl<K: SigningCredential> ProvideCredential for Shared<K> {
    type Credential = K;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<K>> {
        let first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(first) => Ok(Some(first)),
            None => self.0.ask(context).await,
        }
    }
}

impl<K: SigningCredential> Chain<K> {
    /// What the first place has that has any. A place whose credentials cannot be used is an error: whoever put them there means
    /// them.
    async fn ask(&self, context: &Context) -> reqsign_core::Result<Option<K>> {
        for place in &self.places {
            if let Some(found) = place.provide_credential_dyn(context).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl<K: SigningCredential> Signature<K> {
    /// Signatures by `way`, with what one of `places` has; `named` is what the user chose among them, if he did.
    pub(super) fn new(
        context: Context,
        places: Places<K>,
        way: impl SignRequest<Credential = K>,
        named: Option<String>,
    ) -> Self {
        let chain = std::sync::Arc::new(Chain { places, first: Mutex::default() });
        let signer = Signer::new(context.clone(), Shared(std::sync::Arc::clone(&chain)), way);
        Self { signer, chain, context, found: OnceCell::new(), named }
    }

    /// Whether there are credentials, for which all places are looked at once.
    async fn find(&self) -> Result<bool, Failure> {
        let look = async || {
            let found = self.chain.ask(&self.context).await.map_err(|error| explain(&error))?;
            let any = found.is_some();
            if let (false, Some(named)) = (any, &self.named) {
                return Err(Failure::Final(
                    unusable("there are no credentials where the environment says").found(named),
                ));
            }
            *self.chain.first.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok(any)
        };
        self.found.get_or_try_init(look).await.copied()
    }

    async fn sign_found(&self, request: &mut Request) -> Result<(), Failure> {
        if !self.find().await? {
            return Ok(());
        }
        let head = http::Request::builder().method(request.method()).uri(request.url().as_str()).body(());
        let (mut parts, ()) = head.map_err(|_| Failure::Final(super::unsendable()))?.into_parts();
        parts.headers = std::mem::take(request.headers_mut());
        let before = parts.uri.clone();
        self.signer.sign(&mut parts, None).await.map_err(|error| explain(&error))?;
        let is_bearer = parts.headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Bearer "));
        let reveals = is_bearer || parts.uri != before;
        if reveals && request.url().scheme() != "https" && !is_here(request.url()) {
            return Err(Failure::Final(
                Error::refused("http.plain", "credentials would go over the network for everybody to read")
                    .hint("use an endpoint with https://"),
            ));
        }
        if parts.uri != before {
            *request.url_mut() = Url::parse(&parts.uri.to_string()).map_err(|_| Failure::Final(super::unsendable()))?;
        }
        *request.headers_mut() = parts.headers;
        Ok(())
    }
}

impl<K: SigningCredential> Sign for Signature<K> {
    fn sign<'a>(&'a self, request: &'a mut Request) -> Signing<'a> {
        Box::pin(self.sign_found(request))
    }

    fn is_nobody(&self) -> bool {
        self.found.get() == Some(&false)
    }
}

/// What the library says, without its words where they could be those of a server.
fn explain(error: &reqsign_core::Error) -> Failure {
    let what = match error.kind() {
        ErrorKind::CredentialInvalid => "the credentials for the object store are no such, or are no longer valid",
        ErrorKind::ConfigInvalid => "a file or variable with credentials for the object store cannot be used",
        ErrorKind::PermissionDenied => "no credentials are given to us for the object store",
        ErrorKind::RequestInvalid => "the request cannot be signed",
        ErrorKind::RateLimited | ErrorKind::Unexpected => "the credentials for the object store cannot be had now",
    };
    let found = unusable(what);
    if error.is_retryable() { Failure::again(found) } else { Failure::Final(found) }
}

pub(super) fn unusable(what: &str) -> Error {
    Error::new(Kind::Usage, "object.credentials", what).hint(
        "see what the environment and the usual files have, or give --anonymous (hyper2kvm help object.credentials)",
    )
}
