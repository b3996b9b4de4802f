//! S3: `s3://BUCKET/KEY` on AWS, or on a server that speaks like it.

use std::sync::Arc;

use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider, EnvCredentialProvider,
    IMDSv2CredentialProvider, ProfileCredentialProvider, RequestSigner, SSOCredentialProvider,
};
use reqwest::Url;

use super::context::context;
use super::profile::Profile;
use super::signature::{Places, Sign, Signature};
use super::{Place, Speaker, Store, endpoint, join, names};
use crate::error::{Error, Kind, Result};
use crate::session::{Addressing, ObjectAccess, Session};
use crate::source::Address;

/// Where AWS keeps what nobody placed.
const DEFAULT_REGION: &str = "us-east-1";

/// What a run has for S3: one configuration, one search for credentials.
#[derive(Debug)]
struct S3 {
    region: String,
    endpoint: Option<String>,
    signature: Arc<Signature<Credential>>,
}

impl S3 {
    fn of(session: &Arc<Session>) -> Arc<Self> {
        session.shared(|_| Self::new(session))
    }

    fn new(session: &Arc<Session>) -> Self {
        let objects = &session.access().objects;
        let profile = Profile::of(objects);
        let variable = |name| objects.variable(name).map(str::to_owned);
        let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).or(profile.region);
        let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let endpoint = objects.endpoint.clone();
        let endpoint = endpoint.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
        let named = variable("AWS_PROFILE").filter(|_| !objects.anonymous).map(|name| format!("profile {name}"));
        let way = RequestSigner::new("s3", &region);
        let signature = Signature::new(context(session), places(objects), way, named);
        Self { region, endpoint: endpoint.or(profile.endpoint), signature: Arc::new(signature) }
    }
}

/// Where AWS's own programs look, but for other programs, which are not run, and for the machine's role, unless that was asked for.
fn places(objects: &ObjectAccess) -> Places<Credential> {
    if objects.anonymous {
        return Vec::new();
    }
    let mut places: Places<Credential> = vec![
        Box::new(EnvCredentialProvider::new()),
        Box::new(ProfileCredentialProvider::new()),
        Box::new(SSOCredentialProvider::default()),
        Box::new(AssumeRoleWithWebIdentityCredentialProvider::default()),
    ];
    if objects.instance {
        places.push(Box::new(ECSCredentialProvider::default()));
        places.push(Box::new(IMDSv2CredentialProvider::default()));
    }
    places
}

/// Where the object at `address` is.
pub(super) fn place(address: &Address, session: &Arc<Session>) -> Result<Place> {
    let (bucket, key) = names(address)?;
    let s3 = S3::of(session);
    let (base, in_path) = base(bucket, &s3, session.access().objects.addressing)?;
    let path = if in_path { [bucket.as_bytes(), b"/", &key].concat() } else { key };
    let url = join(&base, &path, address.url().query())?;
    let signature: Arc<dyn Sign> = Arc::clone(&s3.signature) as Arc<dyn Sign>;
    Ok(Place { url, speaker: Speaker { store: Store::S3, region: Some(s3.region.clone()), signature } })
}

/// The address before the path, and whether the bucket belongs into the path.
fn base(bucket: &str, s3: &S3, addressing: Addressing) -> Result<(Url, bool)> {
    let region = &s3.region;
    if region.is_empty() || !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Error::new(Kind::Usage, "source.address", "the region is none").found(region));
    }
    let mut url = match &s3.endpoint {
        Some(given) => endpoint(given)?,
        None => {
            let of_china = if region.starts_with("cn-") { ".cn" } else { "" };
            endpoint(&format!("https://s3.{region}.amazonaws.com{of_china}"))?
        }
    };
    // A certificate for *.s3.REGION.amazonaws.com is for one label, in lower case.
    let is_label = bucket.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let in_path = match addressing {
        Addressing::Auto => s3.endpoint.is_some() || !is_label,
        Addressing::Path => true,
        Addressing::Virtual => false,
    };
    if !in_path {
        let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
        url.set_host(Some(&host)).map_err(|_| {
            Error::new(Kind::Usage, "source.address", "the bucket's name cannot be a part of a host's name")
                .found(bucket)
                .hint("give --s3-addressing path")
        })?;
    }
    Ok((url, in_path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Access, Secret};

    fn url(address: &str, variables: &[(&str, &str)], objects: ObjectAccess) -> Result<String> {
        let session = Session::with_defaults();
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).into()))).collect();
        let objects = ObjectAccess { variables, ..objects };
        session.give_access(Access { objects, ..Access::default() });
        place(&Address::parse(address)?, &session).map(|place| place.url.to_string())
    }

    #[test]
    fn buckets_are_found_where_they_are_said_to_be() {
        let plain = || ObjectAccess::default();
        let region = [("AWS_REGION", "eu-north-1")];
        let lab = [("AWS_ENDPOINT_URL", "http://lab:9000/x/"), ("AWS_DEFAULT_REGION", "r1")];
        let virtual_host = || ObjectAccess { addressing: Addressing::Virtual, ..plain() };
        for (address, variables, objects, expected) in [
            ("s3://b-1/d/a b+.raw", &[][..], plain(), "https://b-1.s3.us-east-1.amazonaws.com/d/a%20b%2B.raw"),
            ("s3://b.c/k?versionId=7", &region, plain(), "https://s3.eu-north-1.amazonaws.com/b.c/k?versionId=7"),
            (
                "s3://b/%C3%A9%25/x",
                &[("AWS_REGION", "cn-1")],
                plain(),
                "https://b.s3.cn-1.amazonaws.com.cn/%C3%A9%25/x",
            ),
            ("s3://b/k", &lab, plain(), "http://lab:9000/x/b/k"),
            ("s3://b/k", &lab, virtual_host(), "http://b.lab:9000/x/k"),
            ("s3://b/k", &lab, ObjectAccess { endpoint: Some("https://o".into()), ..plain() }, "https://o/b/k"),
        ] {
            assert_eq!(url(address, variables, objects).unwrap(), expected);
        }
        for (address, variables) in [
            ("s3://b/", &[][..]),
            ("s3://b", &[]),
            ("s3://b/d/", &[]),
            ("s3://b/k", &[("AWS_REGION", "x.evil.example/")]),
            ("s3://b/k", &[("AWS_ENDPOINT_URL", "file:///etc/passwd")]),
            ("s3://b/k", &[("AWS_ENDPOINT_URL", "https://me:canary@h")]),
        ] {
            let error = url(address, variables, plain()).unwrap_err();
            assert_eq!(error.code(), "source.address", "{address}");
            assert!(!error.to_json().to_string().contains("canary"));
        }
    }
}
