//! Google Cloud Storage: `gs://BUCKET/OBJECT`, through its XML interface, which is much like S3's.

use std::sync::Arc;

use reqsign_core::{Context, ProvideCredential};
use reqsign_google::{
    Credential, EnvCredentialProvider, RequestSigner, ServiceAccountTokenCredentialProvider, TokenCredentialProvider,
    VmMetadataCredentialProvider, WellKnownCredentialProvider,
};

use super::context::context;
use super::signature::{Places, Sign, Signature, unusable};
use super::{Place, Speaker, Store, endpoint, join, names};
use crate::error::Result;
use crate::session::{Access, Session};
use crate::source::Address;

/// What tokens are asked for: reading, and nothing else.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_only";

/// What a run has for Google: one search for credentials.
#[derive(Debug)]
struct Google(Arc<Signature<Credential>>);

/// Where the object at `address` is.
pub(super) fn place(address: &Address, session: &Arc<Session>) -> Result<Place> {
    let (bucket, object) = names(address)?;
    let access = session.access();
    let emulator = access.objects.variable("STORAGE_EMULATOR_HOST");
    let emulator = emulator.map(|host| if host.contains("://") { host.to_owned() } else { format!("http://{host}") });
    let is_emulated = access.objects.endpoint.is_none() && emulator.is_some();
    let base = access.objects.endpoint.clone().or(emulator);
    let base = endpoint(base.as_deref().unwrap_or("https://storage.googleapis.com"))?;
    let path = [bucket.as_bytes(), b"/", &object].concat();
    let url = join(&base, &path, address.url().query())?;
    let places = places(access, is_emulated)?;
    let google = session.shared(|_| {
        let way = RequestSigner::new("storage").with_scope(SCOPE);
        let named = access.objects.variable("GOOGLE_APPLICATION_CREDENTIALS").filter(|_| !places.is_empty());
        Google(Arc::new(Signature::new(context(session), places, way, named.map(str::to_owned))))
    });
    let signature: Arc<dyn Sign> = Arc::clone(&google.0) as Arc<dyn Sign>;
    Ok(Place { url, speaker: Speaker { store: Store::Google, region: None, signature } })
}

/// Where Google's own programs look, but for the machine's role, unless that was asked for. Emulators are asked as nobody.
pub(super) fn places(access: &Access, is_emulated: bool) -> Result<Places<Credential>> {
    if access.objects.anonymous || is_emulated {
        return Ok(Vec::new());
    }
    let mut places: Places<Credential> = Vec::new();
    if let Some(token) = &access.token {
        let token = std::str::from_utf8(token.expose()).map_err(|_| unusable("the token is no text"))?;
        places.push(Box::new(TokenCredentialProvider::new(token)));
    }
    places.push(Box::new(WithToken(EnvCredentialProvider::new().with_scope(SCOPE))));
    places.push(Box::new(WithToken(WellKnownCredentialProvider::new().with_scope(SCOPE))));
    if access.objects.instance {
        places.push(Box::new(VmMetadataCredentialProvider::new()));
    }
    Ok(places)
}

/// A place whose service accounts are exchanged for a token at once, which is kept; the signer would do that for each request.
#[derive(Debug)]
struct WithToken<P>(P);

impl<P: ProvideCredential<Credential = Credential>> ProvideCredential for WithToken<P> {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> reqsign_core::Result<Option<Credential>> {
        let found = self.0.provide_credential(context).await?;
        match found.as_ref().and_then(|found| found.service_account.clone()) {
            Some(account) => {
                let exchange = ServiceAccountTokenCredentialProvider::new(account).with_scope(SCOPE);
                exchange.provide_credential(context).await
            }
            None => Ok(found),
        }
    }
}
