//! What an answer says of itself: which part of which file it is, and in which state that was (RFC 9110, sections 8, 14 and 15).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED,
    RETRY_AFTER,
};

use super::super::remote::Failure;
use crate::disk::Fingerprint;
use crate::error::{Error, Kind};

/// A part of a file, as an answer gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The bytes that it has, never none.
    pub(super) range: Range<u64>,
    /// Length of the file.
    pub(super) total: u64,
}

impl Part {
    /// What a 206 with `headers` brings to a request for `wanted`: bytes from its start on, and not more than was asked for.
    ///
    /// # Errors
    /// `http.range` when it is another part, and `http.encoding` when it is compressed.
    pub(super) fn of(headers: &HeaderMap, wanted: &Range<u64>) -> Result<Self, Error> {
        check_encoding(headers)?;
        let kind = text(headers, &CONTENT_TYPE).unwrap_or_default();
        if kind.trim_start().to_ascii_lowercase().starts_with("multipart/byteranges") {
            return Err(not_the_range("several ranges"));
        }
        let said = text(headers, &CONTENT_RANGE).ok_or_else(|| not_the_range("nothing"))?;
        let part = parse_range(said).ok_or_else(|| not_the_range(said))?;
        let end = wanted.end.min(part.total);
        if part.range.start != wanted.start || part.range.end > end {
            return Err(not_the_range(said).expected(format!("bytes {}-{}", wanted.start, end.saturating_sub(1))));
        }
        let len = part.range.end.saturating_sub(part.range.start);
        match text(headers, &CONTENT_LENGTH).map(str::parse::<u64>) {
            Some(said) if said != Ok(len) => Err(not_the_range("a length that is not the range's")),
            _ => Ok(part),
        }
    }
}

/// `bytes FIRST-LAST/TOTAL`.
fn parse_range(text: &str) -> Option<Part> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last, total) = (number(first)?, number(last)?, number(total)?);
    let end = last.checked_add(1)?;
    (first < end && end <= total).then_some(Part { range: first..end, total })
}

/// Digits and nothing else: `parse` takes a sign, too.
fn number(text: &str) -> Option<u64> {
    let digits = text.trim();
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What identifies a file's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source) struct Identity {
    /// Length in bytes.
    pub(super) len: u64,
    /// Its strong entity tag.
    tag: Option<String>,
    /// When it was changed last, as the server writes that.
    modified: Option<String>,
}

impl Identity {
    pub(in crate::source) fn of(headers: &HeaderMap, len: u64) -> Self {
        let modified = text(headers, &LAST_MODIFIED).map(str::to_owned);
        Self { len, tag: strong_tag(headers), modified }
    }

    /// Whether a change can be noticed otherwise than by the length.
    pub(super) const fn is_known(&self) -> bool {
        self.tag.is_some() || self.modified.is_some()
    }

    pub(in crate::source) fn fingerprint(&self) -> Fingerprint {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
        Fingerprint::of(&[b"http", &self.len.to_le_bytes(), &optional(&self.tag), &optional(&self.modified)])
    }

    /// How many bytes of an answer's body are what a request for `range` asked for: from its start on, of the file as it was.
    ///
    /// # Errors
    /// `http.range` and `http.encoding` for another body, `source.changed`, and those of [`failure`].
    pub(in crate::source) fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        range: &Range<u64>,
    ) -> Result<u64, Failure> {
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let part = Part::of(headers, range).map_err(Failure::again)?;
                self.check(headers, Some(&part)).map_err(Failure::Final)?;
                Ok(part.range.end.saturating_sub(part.range.start))
            }
            StatusCode::OK => {
                self.check(headers, None).map_err(Failure::Final)?;
                if *range != (0..self.len) {
                    return Err(Failure::again(not_the_range("all of the file")));
                }
                check_encoding(headers).map_err(Failure::Final)?;
                Ok(self.len)
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.check_unsatisfied(headers).map_err(Failure::Final)?;
                Err(Failure::again(not_the_range("that there is no such range")))
            }
            _ => Err(failure(status, headers)),
        }
    }

    /// Finds an answer to be of the file as it was.
    ///
    /// # Errors
    /// `source.changed`.
    pub(super) fn check(&self, headers: &HeaderMap, part: Option<&Part>) -> Result<(), Error> {
        let len = match part {
            Some(part) => Some(part.total),
            None => text(headers, &CONTENT_LENGTH).and_then(number),
        };
        self.is(&Self::of(headers, len.unwrap_or(self.len)))
    }

    /// Finds the file to be as it was.
    ///
    /// # Errors
    /// `source.changed`.
    pub(super) fn is(&self, now: &Self) -> Result<(), Error> {
        if now.len != self.len {
            return Err(changed().expected(format!("{} bytes", self.len)).found(now.len));
        }
        let same = match (&self.tag, &now.tag) {
            (Some(before), Some(now)) => before == now,
            // Servers behind one name need not agree on tags, and give the time then.
            _ => self.modified.is_none() || now.modified.is_none() || self.modified == now.modified,
        };
        if same { Ok(()) } else { Err(changed()) }
    }

    /// Finds an answer that the range is not there to be about the file as it was.
    ///
    /// # Errors
    /// `source.changed` when it is shorter now.
    pub(super) fn check_unsatisfied(&self, headers: &HeaderMap) -> Result<(), Error> {
        match unsatisfied_len(headers) {
            Some(len) if len != self.len => Err(changed().expected(format!("{} bytes", self.len)).found(len)),
            _ => Ok(()),
        }
    }
}

/// The entity tag, unless it is weak: such a one stays though bytes differ.
fn strong_tag(headers: &HeaderMap) -> Option<String> {
    text(headers, &ETAG).filter(|tag| tag.starts_with('"')).map(str::to_owned)
}

/// `bytes */TOTAL` of a 416.
fn unsatisfied_len(headers: &HeaderMap) -> Option<u64> {
    number(text(headers, &CONTENT_RANGE)?.trim().strip_prefix("bytes */")?)
}

/// Why there is no front of a file to read.
pub(super) fn no_front(headers: &HeaderMap) -> Error {
    match unsatisfied_len(headers) {
        Some(0) => Error::new(Kind::Unreadable, "source.empty", "the source is empty"),
        _ => not_the_range("that there is no such range"),
    }
}

/// Refuses a body that is not the file as it is.
///
/// # Errors
/// `http.encoding`.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    let encodings = headers.get_all(CONTENT_ENCODING);
    let foreign = encodings.iter().find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    foreign.map_or(Ok(()), |found| {
        Err(Error::new(Kind::Unreadable, "http.encoding", "the server compresses the file though it was asked not to")
            .found(String::from_utf8_lossy(found.as_bytes())))
    })
}

/// What an answer that is no part of the file means.
pub(super) fn failure(status: StatusCode, headers: &HeaderMap) -> Failure {
    let error =
        |code, what: &str| Error::new(Kind::Unreadable, code, what).found(format!("status {}", status.as_u16()));
    match status.as_u16() {
        401 | 403 | 407 => {
            let denied = error("http.denied", "the server does not give the file to us");
            Failure::Final(denied.hint(
                "log in with --login and --password-file, --token-file or --cookie-file (hyper2kvm help http.denied)",
            ))
        }
        404 | 410 => Failure::Final(error("http.missing", "there is no such file on the server")),
        408 | 425 | 429 | 500 | 502 | 503 | 504 | 509 => busy(status, headers),
        _ => Failure::Final(error("http.status", "the server gives an unexpected answer")),
    }
}

/// The server may answer later.
pub(in crate::source) fn busy(status: StatusCode, headers: &HeaderMap) -> Failure {
    let error = Error::new(Kind::Unreadable, "http.busy", "the server cannot answer now");
    Failure::Again { error: error.found(format!("status {}", status.as_u16())), after: retry_after(headers) }
}

/// How long the server wants to be left alone: seconds, or a date by its own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let said = text(headers, &RETRY_AFTER)?.trim();
    if let Some(seconds) = number(said) {
        return Some(Duration::from_secs(seconds));
    }
    let seconds = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|time| time.timestamp().as_second());
    let now = text(headers, &HeaderName::from_static("date")).and_then(seconds)?;
    Some(Duration::from_secs(u64::try_from(seconds(said)?.saturating_sub(now)).unwrap_or(0)))
}

/// The answer is not what was asked for.
pub(super) fn not_the_range(found: &str) -> Error {
    Error::new(Kind::Unreadable, "http.range", "the server answers with another part of the file than was asked for")
        .found(found)
}

pub(in crate::source) fn changed() -> Error {
    Error::new(Kind::Unreadable, "source.changed", "the file was replaced on the server while it was read")
        .hint("run the command again, from the beginning, when nobody writes to it")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn only_the_part_that_was_asked_for_is_taken() {
        let good = [("bytes 10-19/100", 10..20), ("bytes 10-14/100", 10..15), ("bytes 10-10/11", 10..11)];
        for (said, range) in good {
            assert_eq!(Part::of(&headers(&[("content-range", said)]), &(10..20)).unwrap().range, range);
        }
        let wrong = [
            "bytes 0-9/100",
            "bytes 11-19/100",
            "bytes 10-20/100",
            "bytes 10-19/*",
            "bytes 10-19/15",
            "bytes 19-10/100",
            "bytes +10-19/100",
            "bytes 10-/100",
            "bytes -10/100",
            "bytes 10-18446744073709551615/18446744073709551615",
            "octets 10-19/100",
            "",
            "10-19/100",
            "bytes */100",
            "bytes 10-19",
            "bytes 10 - 19 / 1 00",
        ];
        for said in wrong {
            assert_eq!(
                Part::of(&headers(&[("content-range", said)]), &(10..20)).unwrap_err().code(),
                "http.range",
                "{said}"
            );
        }
        for (name, value, code) in [
            ("content-length", "9", "http.range"),
            ("content-length", "-1", "http.range"),
            ("content-type", "Multipart/byteranges; boundary=x", "http.range"),
            ("content-encoding", "gzip", "http.encoding"),
            ("content-encoding", "identity, br", "http.encoding"),
        ] {
            let headers = headers(&[("content-range", "bytes 10-19/100"), (name, value)]);
            assert_eq!(Part::of(&headers, &(10..20)).unwrap_err().code(), code, "{value}");
        }
        let fine = headers(&[
            ("content-range", "bytes 10-19/100"),
            ("content-length", "10"),
            ("content-encoding", "Identity"),
        ]);
        assert!(Part::of(&fine, &(10..20)).is_ok());
    }

    #[test]
    fn a_change_is_noticed() {
        let before = headers(&[("etag", "\"1\""), ("last-modified", "A")]);
        let identity = Identity::of(&before, 100);
        let part = Part { range: 0..10, total: 100 };
        let check = |pairs: &[(&'static str, &str)], part: &Part| identity.check(&headers(pairs), Some(part));
        assert!(check(&[("etag", "\"1\""), ("last-modified", "B")], &part).is_ok(), "the tag decides");
        assert!(check(&[("etag", "W/\"2\""), ("last-modified", "A")], &part).is_ok());
        assert!(check(&[], &part).is_ok());
        for pairs in [&[("etag", "\"2\""), ("last-modified", "A")][..], &[("last-modified", "B")]] {
            assert_eq!(check(pairs, &part).unwrap_err().code(), "source.changed");
        }
        assert_eq!(check(&[("etag", "\"1\"")], &Part { total: 101, ..part }).unwrap_err().code(), "source.changed");
        let whole = headers(&[("content-length", "99")]);
        assert_eq!(identity.check(&whole, None).unwrap_err().code(), "source.changed");
        let short = headers(&[("content-range", "bytes */50")]);
        assert_eq!(identity.check_unsatisfied(&short).unwrap_err().code(), "source.changed");
        assert!(identity.check_unsatisfied(&headers(&[("content-range", "bytes */100")])).is_ok());
        assert!(identity.is_known() && !Identity::of(&headers(&[("etag", "W/\"1\"")]), 1).is_known());
        assert_ne!(identity.fingerprint(), Identity::of(&before, 101).fingerprint());
    }

    #[test]
    fn servers_say_when_to_come_back_in_two_ways() {
        let after = |pairs: &[(&'static str, &str)]| retry_after(&headers(pairs)).map(|time| time.as_secs());
        assert_eq!(after(&[("retry-after", "120")]), Some(120));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(after(&[("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT"), date]), Some(23));
        assert_eq!(after(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT"), date]), Some(0));
        assert_eq!(after(&[("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT")]), None);
        assert_eq!(after(&[("retry-after", "soon")]), None);
        assert_eq!(after(&[]), None);
    }

    #[test]
    fn statuses_are_told_apart() {
        let failure = |status: u16| failure(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        for (status, code) in [(401, "http.denied"), (403, "http.denied"), (404, "http.missing"), (418, "http.status")]
        {
            assert!(matches!(failure(status), Failure::Final(error) if error.code() == code), "{status}");
        }
        for status in [429, 500, 502, 503, 504] {
            assert!(matches!(failure(status), Failure::Again { error, .. } if error.code() == "http.busy"), "{status}");
        }
    }
}
