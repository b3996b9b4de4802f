//! Azure: `azblob://ACCOUNT/CONTAINER/BLOB`.

use std::collections::BTreeMap;
use std::sync::Arc;

use reqsign_azure_storage::{
    ClientSecretCredentialProvider, Credential, ImdsCredentialProvider, RequestSigner, StaticCredentialProvider,
    WorkloadIdentityCredentialProvider,
};
use reqwest::Url;

use super::context::context;
use super::signature::{Places, Sign, Signature, unusable};
use super::{Place, Speaker, Store, endpoint, join, names};
use crate::error::{Error, Kind, Result};
use crate::session::{Access, Session};
use crate::source::Address;

/// The version of the protocol (`x-ms-version`): the oldest that has all that is used here.
pub(super) const VERSION: &str = "2021-12-02";

/// The account of emulators, whose key everybody knows.
const EMULATED: &str = "devstoreaccount1";

/// Where the object at `address` is.
pub(super) fn place(address: &Address, session: &Arc<Session>) -> Result<Place> {
    let (account, path) = names(address)?;
    if !path.contains(&b'/') {
        return Err(Error::new(Kind::Usage, "source.address", "the address names no blob")
            .expected("azblob://ACCOUNT/CONTAINER/BLOB"));
    }
    let access = session.access();
    let settings = Settings::of(access, account)?;
    let base = settings.base(account)?;
    let url = join(&base, &path, address.url().query())?;
    // One account for one address, so that nobody's key goes to another's.
    let way = RequestSigner::new();
    let signature: Arc<dyn Sign> =
        Arc::new(Signature::new(context(session), places(access, account, &settings)?, way, None));
    Ok(Place { url, speaker: Speaker { store: Store::Azure, region: None, signature } })
}

/// What the environment says of one account.
struct Settings {
    endpoint: Option<String>,
    suffix: String,
    key: Option<String>,
    token: Option<String>,
}

impl Settings {
    /// A connection string counts if it is of this account, and so does `AZURE_STORAGE_KEY` with `AZURE_STORAGE_ACCOUNT`.
    fn of(access: &Access, account: &str) -> Result<Self> {
        let objects = &access.objects;
        let variable = |name| objects.variable(name).map(str::to_owned);
        let connection = variable("AZURE_STORAGE_CONNECTION_STRING").map(|text| connection(&text)).transpose()?;
        let connection = connection.unwrap_or_default();
        let mut connection =
            if connection.get("accountname").is_none_or(|name| name == account) { connection } else { BTreeMap::new() };
        let mut of_connection = |name: &str| connection.remove(name);
        let is_ours = variable("AZURE_STORAGE_ACCOUNT").is_none_or(|named| named == account);
        let of_account = |name| variable(name).filter(|_| is_ours);
        Ok(Self {
            endpoint: objects.endpoint.clone().or_else(|| of_connection("blobendpoint")),
            suffix: of_connection("endpointsuffix").unwrap_or_else(|| "core.windows.net".to_owned()),
            key: of_connection("accountkey").or_else(|| of_account("AZURE_STORAGE_KEY")),
            token: of_connection("sharedaccesssignature").or_else(|| of_account("AZURE_STORAGE_SAS_TOKEN")),
        })
    }

    /// The address before the container. Emulators have all accounts at one place.
    fn base(&self, account: &str) -> Result<Url> {
        if !account.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err(
                Error::new(Kind::Usage, "source.address", "the address names no account of Azure").found(account)
            );
        }
        let Some(given) = &self.endpoint else {
            return endpoint(&format!("https://{account}.blob.{}", self.suffix));
        };
        let url = endpoint(given)?;
        let has_account = url.path().trim_matches('/') == account || account != EMULATED;
        if has_account { Ok(url) } else { join(&url, account.as_bytes(), None) }
    }
}

/// `NAME=VALUE;NAME=VALUE`; names are taken in lower case.
fn connection(text: &str) -> Result<BTreeMap<String, String>> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    let pairs = text.split(';').filter(|part| !part.trim().is_empty()).map(pair);
    let pairs: Option<BTreeMap<_, _>> = pairs.collect();
    let mut pairs = pairs.ok_or_else(|| unusable("AZURE_STORAGE_CONNECTION_STRING is no connection string"))?;
    if pairs.get("usedevelopmentstorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        pairs.entry("accountname".into()).or_insert_with(|| EMULATED.into());
        pairs.entry("blobendpoint".into()).or_insert_with(|| format!("http://127.0.0.1:10000/{EMULATED}"));
    }
    Ok(pairs)
}

/// Where credentials may be: a token of this run first, then what is for this account alone, then what is for all.
fn places(access: &Access, account: &str, settings: &Settings) -> Result<Places<Credential>> {
    if access.objects.anonymous {
        return Ok(Vec::new());
    }
    let mut places: Places<Credential> = Vec::new();
    if let Some(token) = &access.token {
        let token = std::str::from_utf8(token.expose()).map_err(|_| unusable("the token is no text"))?;
        places.push(Box::new(match token.contains("sig=") {
            true => shared(token),
            false => StaticCredentialProvider::new_bearer_token(token),
        }));
    }
    if let Some(key) = &settings.key {
        places.push(Box::new(StaticCredentialProvider::new_shared_key(account, key)));
    }
    if let Some(token) = &settings.token {
        places.push(Box::new(shared(token)));
    }
    places.push(Box::new(ClientSecretCredentialProvider::new()));
    places.push(Box::new(WorkloadIdentityCredentialProvider::new()));
    if access.objects.instance {
        places.push(Box::new(ImdsCredentialProvider::new()));
    }
    Ok(places)
}

/// A shared access signature, which goes into the address of each request.
fn shared(token: &str) -> StaticCredentialProvider {
    StaticCredentialProvider::new_sas_token(token.trim().trim_start_matches('?'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{ObjectAccess, Secret};

    fn found(address: &str, variables: &[(&str, &str)]) -> Result<String> {
        let session = Session::with_defaults();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).into()))).collect();
        session.give_access(Access {
            objects: ObjectAccess { variables, ..ObjectAccess::default() },
            ..Access::default()
        });
        place(&Address::parse(address)?, &session).map(|place| place.url.to_string())
    }

    #[test]
    fn accounts_are_found_where_they_are_said_to_be() {
        let emulator = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=canary==;BlobEndpoint=http://127.0.0.1:1/devstoreaccount1;";
        let china = "AccountName=a;AccountKey=canary;EndpointSuffix=core.chinacloudapi.cn";
        let connection = |text| [("AZURE_STORAGE_CONNECTION_STRING", text)];
        for (address, variables, expected) in [
            ("azblob://acc/c/d/a%20b.vhd", &[][..], "https://acc.blob.core.windows.net/c/d/a%20b.vhd"),
            (
                "azblob://a/c/b?snapshot=2026-01-01T00:00:00Z",
                &connection(china),
                "https://a.blob.core.chinacloudapi.cn/c/b?snapshot=2026-01-01T00:00:00Z",
            ),
            ("azblob://devstoreaccount1/c/b", &connection(emulator), "http://127.0.0.1:1/devstoreaccount1/c/b"),
            ("azblob://other/c/b", &connection(emulator), "https://other.blob.core.windows.net/c/b"),
            (
                "azblob://devstoreaccount1/c/b",
                &connection("UseDevelopmentStorage=true"),
                "http://127.0.0.1:10000/devstoreaccount1/c/b",
            ),
        ] {
            assert_eq!(found(address, variables).unwrap(), expected);
        }
        for (address, variables, code) in [
            ("azblob://a/c", &[][..], "source.address"),
            ("azblob://a.evil.example/c/b", &[], "source.address"),
            ("azblob://a/c/b", &connection("canary"), "object.credentials"),
        ] {
            let error = found(address, variables).unwrap_err();
            assert_eq!(error.code(), code, "{address}");
            assert!(!error.to_json().to_string().contains("canary"));
        }
    }

    #[test]
    fn keys_are_for_their_own_account() {
        let key = |account: &str, variables: &[(&str, &str)]| {
            let variables =
                variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).into()))).collect();
            let objects = ObjectAccess { variables, ..ObjectAccess::default() };
            Settings::of(&Access { objects, ..Access::default() }, account).unwrap().key
        };
        let variables = [("AZURE_STORAGE_ACCOUNT", "a"), ("AZURE_STORAGE_KEY", "k")];
        assert_eq!((key("a", &variables).as_deref(), key("b", &variables)), (Some("k"), None));
        let variables =
            [("AZURE_STORAGE_CONNECTION_STRING", "AccountName=a;AccountKey=x=="), ("AZURE_STORAGE_KEY", "k")];
        assert_eq!((key("a", &variables).as_deref(), key("b", &variables).as_deref()), (Some("x=="), Some("k")));
    }
}
