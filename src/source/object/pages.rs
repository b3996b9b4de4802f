//! Page blobs of Azure: disks of which only some pages were ever written. The store tells which, so that holes are not fetched.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::super::http::Web;
use super::super::map::Run;
use super::super::remote::{Failure, Transport};
use crate::disk::{ExtentKind, Fingerprint};
use crate::error::{Error, Kind, Result};
use crate::limits;

/// Whether an object with these headers consists of pages.
pub(super) fn are_in(headers: &HeaderMap) -> bool {
    headers.get("x-ms-blob-type").is_some_and(|kind| kind == "PageBlob")
}

/// A blob of pages.
#[derive(Debug)]
pub(super) struct PageBlob {
    web: Web,
    /// Bytes about which one question is asked: the more pages, the fewer.
    window: AtomicU64,
}

impl PageBlob {
    pub(super) fn new(web: Web) -> Self {
        Self { web, window: AtomicU64::new(u64::MAX) }
    }

    /// Asks for the pages in `range`; nothing if the answer is too long.
    fn ask(&self, range: &Range<u64>) -> Result<Option<Vec<Run>>, Failure> {
        let line = self.web.line();
        let mut url = line.url().clone();
        url.query_pairs_mut().append_pair("comp", "pagelist");
        let last = range.end.saturating_sub(1);
        line.answer(limits::MAX_OBJECT_ANSWER, async |line| {
            let request = line.request(Method::GET, url.clone());
            let response = line.exchange(request.header("x-ms-range", format!("bytes={}-{last}", range.start))).await?;
            if response.status() != StatusCode::OK {
                return Err(line.refused(response).await);
            }
            line.all(response).await?.map(|body| parse(&body, range).ok_or_else(odd)).transpose()
        })
    }
}

/// About how much to ask when the answer about `window` bytes is too long; nothing if that is as little as it gets.
fn narrower(window: u64) -> Option<u64> {
    (window > limits::MIN_PAGE_WINDOW).then(|| (window / 8).max(limits::MIN_PAGE_WINDOW))
}

/// The answer makes no sense.
fn odd() -> Failure {
    Failure::again(Error::new(Kind::Unreadable, "object.answer", "the object store's list of pages makes no sense"))
}

/// The runs of `range` by a list of the pages in it, which ascend.
fn parse(body: &[u8], range: &Range<u64>) -> Option<Vec<Run>> {
    let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}');
    let document = roxmltree::Document::parse(text).ok()?;
    let root = document.root_element();
    if root.tag_name().name() != "PageList" {
        return None;
    }
    let mut runs = Vec::new();
    let mut at = range.start;
    for page in root.children().filter(|node| node.tag_name().name() == "PageRange") {
        let number = |name: &str| {
            let node = page.children().find(|node| node.tag_name().name() == name)?;
            node.text()?.trim().parse::<u64>().ok()
        };
        let (start, end) = (number("Start")?, number("End")?.checked_add(1)?);
        // A page may begin before what was asked about, and end behind it.
        let (start, end) = (start.max(range.start), end.min(range.end));
        if start < at || end <= start {
            return None;
        }
        push(&mut runs, start.saturating_sub(at), ExtentKind::Hole);
        push(&mut runs, end.saturating_sub(start), ExtentKind::Data);
        at = end;
    }
    push(&mut runs, range.end.saturating_sub(at), ExtentKind::Hole);
    Some(runs)
}

fn push(runs: &mut Vec<Run>, len: u64, kind: ExtentKind) {
    if len > 0 {
        runs.push(Run { len, kind });
    }
}

impl Transport for PageBlob {
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.web.fetch(range, take)
    }

    fn told(&self, range: Range<u64>) -> Result<Option<Vec<Run>>, Failure> {
        let len = range.end.saturating_sub(range.start);
        let mut window = self.window.load(Ordering::Relaxed).min(len);
        loop {
            if let Some(runs) = self.ask(&(range.start..range.start.saturating_add(window)))? {
                return Ok(Some(runs));
            }
            let Some(narrower) = narrower(window) else {
                return Ok(Some(vec![Run { len: window, kind: ExtentKind::Data }]));
            };
            window = narrower;
            self.window.store(window, Ordering::Relaxed);
        }
    }

    fn describe(&self) -> (&'static str, String) {
        self.web.describe()
    }

    fn origin(&self) -> Option<Fingerprint> {
        self.web.origin()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(pages: &str, range: Range<u64>) -> Option<Vec<(u64, bool)>> {
        let body = format!("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><PageList>{pages}</PageList>");
        let runs = parse(body.as_bytes(), &range)?;
        Some(runs.into_iter().map(|run| (run.len, run.kind == ExtentKind::Data)).collect())
    }

    fn page(start: u64, end: u64) -> String {
        format!("<PageRange><Start>{start}</Start><End>{end}</End></PageRange>")
    }

    #[test]
    fn what_is_between_pages_is_a_hole() {
        assert_eq!(runs("", 0..1024), Some(vec![(1024, false)]));
        let two = page(512, 1023) + &page(4096, 4607);
        assert_eq!(
            runs(&two, 0..8192),
            Some(vec![(512, false), (512, true), (3072, false), (512, true), (3584, false)])
        );
        assert_eq!(runs(&page(0, 8191), 512..1024), Some(vec![(512, true)]), "it is cut to what was asked about");
        assert_eq!(runs("<ClearRange><Start>0</Start><End>511</End></ClearRange>", 0..512), Some(vec![(512, false)]));
    }

    #[test]
    fn questions_become_narrower_down_to_a_bound() {
        let least = limits::MIN_PAGE_WINDOW;
        assert_eq!((narrower(least - 1), narrower(least), narrower(least + 1)), (None, None, Some(least)));
        assert_eq!(narrower(least * 80), Some(least * 10));
    }

    #[test]
    fn nonsense_is_no_list() {
        for pages in [
            page(512, 1023) + &page(0, 511),
            page(0, 1023) + &page(512, 2047),
            page(1024, 511),
            page(0, u64::MAX),
            page(1 << 40, 1 << 41),
            "<PageRange><Start>0</Start></PageRange>".into(),
            "<PageRange><Start>-1</Start><End>x</End></PageRange>".into(),
        ] {
            assert_eq!(runs(&pages, 0..8192), None, "{pages}");
        }
        for body in [&b""[..], b"\xff", b"<Other/>", b"<PageList>"] {
            assert_eq!(parse(body, &(0..512)), None);
        }
    }
}
