//! A file on another machine as a disk: whatever carries the bytes, asking again after failures, going on at the byte that came
//! last, and counting happen here, once.
//!
//! A [`Transport`] makes one request and checks one answer. It is blocking and small, so that a simulated one on a clock of its own
//! stands for any network in tests.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::map::{Map, Run};
use crate::disk::{Disk, Extent, ExtentKind, Fingerprint, Hints, Latency, Traffic, Visit};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::session::Session;

pub(super) mod retry;

use super::network::{Counted, Network};
use retry::{Clock, Retry};

/// Preferred size of a request: over a usual line, latency is a small part of the time that so many bytes take.
const PREFERRED: u32 = 4 << 20;

/// What carries requests to one file and brings bytes.
pub(super) trait Transport: Debug + Send + Sync + 'static {
    /// Gives the bytes of `range`, which lies inside the file and is not empty, to `take`: in order from its start on, in parts of
    /// any size. Whoever gives less than all fails. Every wait inside has an end.
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure>;

    /// Fills `buf` with what lies at `offset`, as [`Transport::fetch`] does, and tells `came` of each part as it is there.
    fn fill(&self, offset: u64, buf: &mut [u8], came: &mut dyn FnMut(usize)) -> Result<(), Failure> {
        let mut filled = 0;
        self.fetch(offset..offset + buf.len() as u64, &mut |part| {
            let room = buf.len() - filled;
            let taken = part.len().min(room);
            if let (Some(to), Some(from)) = (buf.get_mut(filled..filled + taken), part.get(..taken)) {
                to.copy_from_slice(from);
                filled += taken;
                came(taken);
            }
        })
    }

    /// What the file consists of, from the start of `range` on, which is not empty: for all of it or a part from its start. Nothing
    /// when the other side does not tell.
    fn told(&self, _range: Range<u64>) -> Result<Option<Vec<Run>>, Failure> {
        Ok(None)
    }

    /// A word for the kind, and what messages call the file: without any secret.
    fn describe(&self) -> (&'static str, String);

    /// A digest of the whole address and of the file's state, where no change of the file could pass unnoticed: see
    /// [`Disk::origin`].
    fn origin(&self) -> Option<Fingerprint> {
        None
    }
}

/// Why a request brought less than was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may work another time.
    Again {
        /// What happened.
        error: Error,
        /// How long the other side wants to be left alone.
        after: Option<Duration>,
    },
    /// It will not.
    Final(Error),
}

impl Failure {
    /// A failure that may pass.
    pub(super) const fn again(error: Error) -> Self {
        Self::Again { error, after: None }
    }

    /// Where it happened.
    pub(super) fn at(self, place: impl std::fmt::Display) -> Self {
        match self {
            Self::Again { error, after } => Self::Again { error: error.at(place), after },
            Self::Final(error) => Self::Final(error.at(place)),
        }
    }
}

/// A file of another machine, whose length and state are known and must stay.
#[derive(Debug)]
pub struct Remote {
    transport: Box<dyn Transport>,
    len: u64,
    fingerprint: Fingerprint,
    /// The first bytes, which came when the file was opened.
    head: Vec<u8>,
    session: Arc<Session>,
    clock: Arc<dyn Clock>,
    counted: Arc<Counted>,
    /// What the other side told about holes.
    map: Map,
}

/// What is known of a file once it is found.
#[derive(Debug)]
pub(super) struct Found {
    /// Its length in bytes.
    pub(super) len: u64,
    /// What tells whether it changed.
    pub(super) fingerprint: Fingerprint,
    /// Its first bytes, as many as came along.
    pub(super) head: Vec<u8>,
    /// What finding it took.
    pub(super) traffic: Traffic,
}

impl Remote {
    /// The file that `transport` leads to.
    ///
    /// # Errors
    /// `source.empty` and `disk.too-large`, as for files of this host.
    pub(super) fn new(
        transport: Box<dyn Transport>,
        found: Found,
        clock: Arc<dyn Clock>,
        session: &Arc<Session>,
    ) -> Result<Self> {
        let Found { len, fingerprint, head, traffic } = found;
        let label = || transport.describe().1;
        if len == 0 {
            return Err(Error::new(Kind::Unreadable, "source.empty", "the source is empty")
                .at(label())
                .hint("check that the upload or export finished"));
        }
        if len > limits::MAX_DISK_LEN {
            return Err(Error::limit("disk.too-large", "the source is too large")
                .at(label())
                .expected(format!("at most {:#x} bytes", limits::MAX_DISK_LEN))
                .found(format!("{len:#x}")));
        }
        let counted = Network::of(session).add(transport.describe(), traffic);
        let (session, map) = (Arc::clone(session), Map::default());
        Ok(Self { transport, len, fingerprint, head, session, clock, counted, map })
    }

    /// Fills `buf` with what lies at `offset`, by as many requests as that takes.
    fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut retry = Retry::new(self.session.access().patience);
        let mut filled = 0;
        while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            self.session.check()?;
            let (at, wanted) = (offset + filled as u64, rest.len());
            let (result, count) = self.request(rest, at);
            filled += count;
            retry.progress(count as u64);
            let failure = match result {
                Ok(()) if count == wanted || count as u64 >= limits::REMOTE_PROGRESS => continue,
                Ok(()) => Failure::again(self.short()),
                Err(failure) => failure,
            };
            let located = |error: Error| error.at(self.transport.describe().1).offset(at + count as u64);
            retry.wait(failure, &*self.clock, &self.session).map_err(located)?;
            self.counted.add(Traffic { retries: 1, ..Traffic::default() });
        }
        Ok(())
    }

    /// One request for `buf`; how much of it came.
    fn request(&self, buf: &mut [u8], offset: u64) -> (Result<(), Failure>, usize) {
        let began = self.clock.now();
        let (mut count, mut first) = (0, None);
        let result = self.transport.fill(offset, buf, &mut |came| {
            first.get_or_insert_with(|| self.clock.now());
            count += came;
        });
        self.count(began, first, count as u64);
        (result, count)
    }

    /// Counts a request that began at `began`, whose first byte came at `first`, and that brought so many `bytes`.
    fn count(&self, began: Duration, first: Option<Duration>, bytes: u64) {
        let now = self.clock.now();
        let since = |from: Duration| u64::try_from(now.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
        let nanoseconds = since(began);
        let waited = nanoseconds - first.map_or(0, since);
        self.counted.add(Traffic { requests: 1, bytes, retries: 0, nanoseconds, waited });
    }

    /// The run of the file that has byte `at`, as far as the other side tells; to the end if it does not.
    fn run_at(&self, at: u64) -> Result<(Range<u64>, ExtentKind)> {
        if let Some(known) = self.map.at(at, self.len) {
            return Ok(known);
        }
        let mut retry = Retry::new(self.session.access().patience);
        loop {
            self.session.check()?;
            let began = self.clock.now();
            let result = self.transport.told(at..self.len);
            match result {
                // Who tells nothing was not asked.
                Ok(None) => return Ok(self.map.learn(at, self.len, None)),
                Ok(runs) => {
                    self.count(began, None, 0);
                    return Ok(self.map.learn(at, self.len, runs));
                }
                Err(failure) => {
                    self.count(began, None, 0);
                    let located = |error: Error| error.at(self.transport.describe().1).offset(at);
                    retry.wait(failure, &*self.clock, &self.session).map_err(located)?;
                    self.counted.add(Traffic { retries: 1, ..Traffic::default() });
                }
            }
        }
    }

    fn short(&self) -> Error {
        Error::new(Kind::Unreadable, "source.short", "the answer ended before what was asked for")
    }
}

impl Disk for Remote {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let known = usize::try_from(offset).ok().and_then(|start| self.head.get(start..)).unwrap_or_default();
        let known = known.get(..known.len().min(buf.len())).unwrap_or_default();
        let (front, rest) = buf.split_at_mut(known.len());
        front.copy_from_slice(known);
        let mut at = offset + known.len() as u64;
        for part in rest.chunks_mut(limits::MAX_REMOTE_REQUEST) {
            self.fetch(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (run, kind) = self.run_at(at)?;
            let end = run.end.min(range.end);
            if visit(Extent { range: at..end, kind, depth: 0, place: Some(at) }).is_break() {
                break;
            }
            at = end;
        }
        Ok(())
    }

    fn hints(&self) -> Hints {
        Hints { preferred: PREFERRED, latency: Latency::Remote }
    }

    fn fingerprint(&self) -> Result<Fingerprint> {
        Ok(self.fingerprint)
    }

    fn describe(&self) -> (&'static str, String) {
        self.transport.describe()
    }

    fn origin(&self) -> Option<Fingerprint> {
        self.transport.origin()
    }

    fn traffic(&self) -> Option<Traffic> {
        Some(self.counted.snapshot())
    }
}

#[cfg(test)]
mod tests;
