//! Who signs, against a stand-in for those who give tokens.

use std::sync::Mutex;

use bytes::Bytes;
use reqsign_core::{Context, FileRead, HttpSend, StaticEnv};
use reqwest::{Method, Request};

use super::signature::Signature;
use super::*;
use crate::session::{Access, ObjectAccess};
use crate::source::runtime::Runtime;

/// Files that are not there, but for one.
#[derive(Debug)]
struct OneFile(&'static str);

impl FileRead for OneFile {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        match path {
            "/key.json" => Ok(self.0.into()),
            _ => Err(reqsign_core::Error::config_invalid("no such file")),
        }
    }
}

/// Gives a token for whatever is asked, and keeps that.
#[derive(Clone, Debug, Default)]
struct Tokens(Arc<Mutex<Vec<(String, String)>>>);

impl HttpSend for Tokens {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let body = String::from_utf8_lossy(request.body()).into_owned();
        self.0.lock().unwrap().push((request.uri().to_string(), body));
        let answer = r#"{"access_token": "canary-token", "expires_in": 3600, "token_type": "Bearer"}"#;
        Ok(http::Response::new(Bytes::from_static(answer.as_bytes())))
    }
}

const USER: &str =
    r#"{"type": "authorized_user", "client_id": "id", "client_secret": "canary-1", "refresh_token": "canary-2"}"#;

/// Nobody's key: made for this test.
const ACCOUNT: &str = "{\"type\": \"service_account\", \"client_email\": \"me@lab.example\", \"private_key\": \"-----BEGIN PRIVATE KEY-----\\nMIICeAIBADANBgkqhkiG9w0BAQEFAASCAmIwggJeAgEAAoGBAKs/q+nsR8RQjyzW\\nSHZeGcD11Tue1Cvwzcy1wOVqjL2vd39kHwo+1JmCZk5zuKN5Agmv4X7ZBhjSA67A\\nQ5aZkXmUUd5d2H4SRe8LmT/qcEbCIuWYO9FsVEpM7JWwxUMTHjskIXC8ZkFWA1rh\\ns/224+VyoUMZL6xuSuj8YjwHzFLhAgMBAAECgYEAkQRIRr2qQJqfxC5qCqLBWGBV\\nhDmKHvO6s2IuyZgjOvZ+UUit6HUwgBanIERq1TRB/4YLhOmvehFOwQtbsQq230UF\\ngXnfvKa6CC52nEoetrnN4po//Gi8fK+CM6l+LwTRDa3R5KjixjT9PxoB556sE0wR\\nY/pTOEaCE5gCG/8nKskCQQDdjjQeBSUew4CMtYFviLV+YufcjxM4+ldEJSEB6Znz\\nWE1Nc/mdowSEotlb2YH3zm4qStjpVm5x3bMgI+wGHnarAkEAxd9IuDaofeh9YihX\\ngqGF6jHVKJIPQyHVPFrpZaBUJvDq+YGMqIMWVHcnfnyf0NEYcXPj5qgfW8MLZQqV\\ntYRMowJBANyU9RyiYLfFS5pMJ6dFA/XmQRRdunSzAelN0hQWYPlfg+9GNVKV+CyZ\\n+jAxWO3Ar/wZcua179YcNXgda6MX92sCQA+yceNjOqSaX+/8gUy0oZn9kApi4+EQ\\newkJsUBFosdgD1PxygXIOGpE9ZYcLtVy8Px3FBpFNg+ifnHqkAvRTf8CQQDS+Z4i\\ntXI2qu70fJ4FKmBLviBkX7QkzSGhPceNcNPBygbsEuuhz5qZYjVS1Yh+rNZ02bbg\\njXPULJVchP0yZMLF\\n-----END PRIVATE KEY-----\\n\"}";

fn context(file: &'static str, tokens: &Tokens) -> Context {
    let env = [("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), "/key.json".to_owned())].into();
    let env = StaticEnv { home_dir: None, envs: env };
    Context::new().with_env(env).with_file_read(OneFile(file)).with_http_send(tokens.clone())
}

/// Signs a request to `url` twice; what the second one says of us.
fn sign(context: Context, access: &Access, url: &str) -> Result<Option<String>, Failure> {
    let way = reqsign_google::RequestSigner::new("storage");
    let places = google::places(access, false).unwrap();
    let signature = Signature::new(context, places, way, None);
    let session = Session::with_defaults();
    let once = || {
        let mut request = Request::new(Method::GET, Url::parse(url).unwrap());
        Runtime::of(&session).wait(&session, signature.sign(&mut request)).unwrap()?;
        assert!(!format!("{request:?}{signature:?}").contains("canary"));
        Ok(request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned()))
    };
    once()?;
    once()
}

#[test]
fn google_gives_a_token_for_files_of_users_and_of_services_once() {
    for (file, expected) in [(USER, "canary-2"), (ACCOUNT, "assertion=")] {
        let tokens = Tokens::default();
        let signed = sign(context(file, &tokens), &Access::default(), "https://storage.googleapis.com/b/o").unwrap();
        assert_eq!(signed.as_deref(), Some("Bearer canary-token"));
        let asked = tokens.0.lock().unwrap().clone();
        assert_eq!(asked.len(), 1, "{expected}");
        assert_eq!(asked[0].0, "https://oauth2.googleapis.com/token");
        assert!(asked[0].1.contains(expected));
    }
}

#[test]
fn what_cannot_be_used_is_said_without_its_content() {
    for file in ["canary", "{\"type\": \"canary\"}", "{\"type\": \"service_account\", \"private_key\": \"canary\"}"] {
        let context = context(file, &Tokens::default());
        let Failure::Final(error) = sign(context, &Access::default(), "https://h/").unwrap_err() else {
            panic!("{file}")
        };
        assert_eq!(error.code(), "object.credentials");
        assert!(!error.to_json().to_string().contains("canary"), "{file}");
    }
}

#[test]
fn tokens_do_not_go_over_a_network_in_plain_text() {
    let token = Some(crate::session::Secret::new(b"canary-token".into()));
    let access = Access { token, ..Access::default() };
    let to = |url| sign(context("", &Tokens::default()), &access, url);
    assert!(to("http://127.0.0.1:1/b/o").unwrap().is_some());
    let Failure::Final(error) = to("http://lab.example/b/o").unwrap_err() else { panic!("it is final") };
    assert_eq!(error.code(), "http.plain");
}

#[test]
fn nobody_signs_nothing() {
    let objects = ObjectAccess { anonymous: true, ..ObjectAccess::default() };
    let access = Access { objects, ..Access::default() };
    assert_eq!(sign(context(USER, &Tokens::default()), &access, "https://h/").unwrap(), None);
}

#[test]
fn requests_are_held_to_the_state_that_was_found() {
    let headers = |pairs: &[(&'static str, &str)]| {
        let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        pairs.iter().map(pair).collect::<HeaderMap>()
    };
    let binding = |store, pairs: &[(&'static str, &str)]| {
        let (name, value) = nobody_at(store).binding(&headers(pairs))?;
        Some(format!("{name}: {}", value.to_str().unwrap()))
    };
    let both = [("etag", "\"1\""), ("x-goog-generation", "7")];
    assert_eq!(binding(Store::S3, &both).as_deref(), Some("if-match: \"1\""));
    assert_eq!(binding(Store::Azure, &both).as_deref(), Some("if-match: \"1\""));
    assert_eq!(binding(Store::Google, &both).as_deref(), Some("x-goog-if-generation-match: 7"));
    assert_eq!(binding(Store::S3, &[("etag", "W/\"1\"")]), None);
}

#[test]
fn azures_requests_have_a_version() {
    let speaker = nobody_at(Store::Azure);
    let session = Session::with_defaults();
    let url = Url::parse("https://a.blob.core.windows.net/c/b").unwrap();
    let line = Line::new(url.clone(), Arc::new(nobody_at(Store::Azure)), &session).unwrap();
    let request = line.request(Method::GET, url);
    let signed = Runtime::of(&session).wait(&session, speaker.sign(request)).unwrap().unwrap().build().unwrap();
    assert_eq!(signed.headers().get("x-ms-version").unwrap(), azure::VERSION);
}

fn nobody_at(store: Store) -> Speaker {
    let way = reqsign_google::RequestSigner::new("storage");
    let signature = Signature::new(Context::new(), Vec::new(), way, None);
    Speaker { store, region: None, signature: Arc::new(signature) }
}
