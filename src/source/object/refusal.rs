//! What stores say when they do not give an object: a code in a header or in a small XML document.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName};

use super::super::http::Refusal;
use super::super::http::answer::{busy, changed};
use super::super::remote::Failure;
use crate::error::{Error, Kind};

/// What a refusal means to a request that was meant for `region` and was `anonymous` or not; nothing if it is what it is everywhere.
pub(super) fn failure(answer: &Refusal, region: Option<&str>, anonymous: bool) -> Option<Failure> {
    let said = Said::of(answer);
    if let Some(elsewhere) = said.elsewhere(answer, region) {
        return Some(Failure::Final(elsewhere));
    }
    let status = answer.status;
    let error = |code, what: &str| {
        let word = if said.code.is_empty() { String::new() } else { format!(" {}", said.code) };
        Error::new(Kind::Unreadable, code, what).found(format!("status {}{word}", status.as_u16()))
    };
    Some(Failure::Final(match said.code.as_str() {
        "SlowDown" | "ServerBusy" | "RequestTimeout" | "OperationTimedOut" | "InternalError" => {
            return Some(busy(status, &answer.headers));
        }
        "InvalidObjectState" | "BlobArchived" | "BlobBeingRehydrated" => {
            error("object.archived", "the object is archived, so that the store cannot give it now")
                .hint("restore it in the store first, which can take hours")
        }
        "RequestTimeTooSkewed" => error("object.clock", "this machine's clock differs too much from the store's")
            .hint("set the clock, for example by NTP"),
        "NoSuchBucket" | "ContainerNotFound" => error("object.missing", "there is no such bucket or container"),
        "ConditionNotMet" | "PreconditionFailed" => changed(),
        "PublicAccessNotPermitted" => denied(error("object.denied", DENIED), anonymous),
        _ => match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => denied(error("object.denied", DENIED), anonymous),
            StatusCode::NOT_FOUND => error("object.missing", "there is no such object in the bucket"),
            StatusCode::PRECONDITION_FAILED => changed(),
            StatusCode::BAD_REQUEST if is_about_us(&said.code) => denied(error("object.denied", DENIED), anonymous),
            _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => return None,
            _ => error("object.status", "the object store gives an unexpected answer"),
        },
    }))
}

const DENIED: &str = "the object store does not give the object to us";

fn denied(error: Error, anonymous: bool) -> Error {
    error.hint(match anonymous {
        true => "no credentials were found, so it was asked as nobody (hyper2kvm help object.denied)",
        false => "see whose credentials are used, and what these may read (hyper2kvm help object.denied)",
    })
}

/// Codes that S3 gives with status 400 for credentials that it does not take.
fn is_about_us(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "InvalidToken"
            | "TokenRefreshRequired"
            | "InvalidAccessKeyId"
            | "AuthorizationHeaderMalformed"
    )
}

/// The words of a refusal.
#[derive(Debug, Default)]
struct Said {
    code: String,
    region: Option<String>,
}

impl Said {
    fn of(answer: &Refusal) -> Self {
        let of_header = |name| word(text(&answer.headers, name)?);
        let text = std::str::from_utf8(&answer.body).ok().and_then(|text| roxmltree::Document::parse(text).ok());
        let of_body = |name: &str| {
            let root = text.as_ref()?.root_element();
            word(root.children().find(|node| node.tag_name().name() == name)?.text()?)
        };
        let code = of_header("x-ms-error-code").or_else(|| of_body("Code")).unwrap_or_default();
        Self { code, region: of_header("x-amz-bucket-region").or_else(|| of_body("Region")) }
    }

    /// The error for a bucket that lies elsewhere.
    fn elsewhere(&self, answer: &Refusal, region: Option<&str>) -> Option<Error> {
        let there = self.region.as_deref().filter(|there| region.is_some_and(|here| here != *there));
        let moved = answer.status.is_redirection() || self.code == "IllegalLocationConstraintException";
        if there.is_none() && !moved {
            return None;
        }
        let error = Error::new(Kind::Unreadable, "object.region", "the bucket is in another region");
        let error = region.map(|here| error.clone().expected(here)).unwrap_or(error);
        Some(match there {
            Some(there) => error.found(there).hint(format!("run the command with AWS_REGION={there}")),
            None => error.hint("set AWS_REGION to the region of the bucket, or --endpoint-url to where it is"),
        })
    }
}

/// What can be a code or the name of a region, and nothing else.
fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    fits.then(|| text.to_owned())
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(HeaderName::from_static(name))?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, headers: &[(&'static str, &str)], body: &str) -> Refusal {
        let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Refusal { status, headers: headers.iter().map(pair).collect(), body: body.into() }
    }

    fn code(status: u16, headers: &[(&'static str, &str)], body: &str) -> Option<&'static str> {
        failure(&refusal(status, headers, body), Some("r1"), false).map(|failure| match failure {
            Failure::Final(error) => error.code(),
            Failure::Again { error, .. } => error.code(),
        })
    }

    fn xml(code: &str, more: &str) -> String {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code>{more}</Error>")
    }

    #[test]
    fn codes_say_what_is_wrong() {
        for (status, word, expected) in [
            (400, "ExpiredToken", "object.denied"),
            (400, "RequestTimeout", "http.busy"),
            (400, "Strange", "object.status"),
            (403, "AccessDenied", "object.denied"),
            (403, "InvalidObjectState", "object.archived"),
            (403, "RequestTimeTooSkewed", "object.clock"),
            (404, "NoSuchBucket", "object.missing"),
            (404, "NoSuchKey", "object.missing"),
            (412, "PreconditionFailed", "source.changed"),
            (503, "SlowDown", "http.busy"),
        ] {
            assert_eq!(code(status, &[], &xml(word, "")), Some(expected), "{word}");
        }
        for (status, word, expected) in [
            (409, "BlobArchived", "object.archived"),
            (409, "PublicAccessNotPermitted", "object.denied"),
            (412, "ConditionNotMet", "source.changed"),
            (503, "ServerBusy", "http.busy"),
        ] {
            assert_eq!(code(status, &[("x-ms-error-code", word)], ""), Some(expected), "{word}");
        }
        for (status, expected) in
            [(401, Some("object.denied")), (404, Some("object.missing")), (412, Some("source.changed")), (502, None)]
        {
            for body in ["", "<Error>", "no XML", "<!DOCTYPE a [<!ENTITY b \"c\">]><Error><Code>&b;</Code></Error>"] {
                assert_eq!(code(status, &[], body), expected, "{status} {body}");
            }
        }
    }

    #[test]
    fn buckets_of_other_regions_are_named() {
        let moved = xml("PermanentRedirect", "<Endpoint>b.s3.evil.example</Endpoint>");
        assert_eq!(code(301, &[("x-amz-bucket-region", "r2")], &moved), Some("object.region"));
        assert_eq!(code(307, &[], &moved), Some("object.region"));
        let malformed = xml("AuthorizationHeaderMalformed", "<Region>r2</Region>");
        assert_eq!(code(400, &[], &malformed), Some("object.region"));
        assert_eq!(code(400, &[], &xml("AuthorizationHeaderMalformed", "<Region>r1</Region>")), Some("object.denied"));
        let failure = failure(&refusal(400, &[], &malformed), Some("r1"), false).unwrap();
        let Failure::Final(error) = failure else { panic!("{failure:?}") };
        assert_eq!(error.next(), Some("run the command with AWS_REGION=r2"));
    }

    #[test]
    fn words_are_short_and_plain() {
        assert_eq!(word(" NoSuchKey\n").as_deref(), Some("NoSuchKey"));
        for text in ["", "a b", "a\u{1b}[2J", &"a".repeat(65), "r.evil.example"] {
            assert_eq!(word(text), None);
        }
    }
}
