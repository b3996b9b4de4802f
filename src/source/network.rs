//! What went over the network in a run, source by source.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::Traffic;
use crate::session::Session;

/// The sources on other machines that a run opened.
#[derive(Debug, Default)]
pub struct Network(Mutex<Vec<Arc<Counted>>>);

/// What went over the network for one source so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// A word for the kind, as in `explain`.
    pub kind: &'static str,
    /// What messages call the source: without any secret.
    pub name: String,
    /// Requests, bytes and times.
    pub traffic: Traffic,
}

impl Network {
    /// That of the session's sources.
    pub fn of(session: &Session) -> Arc<Self> {
        session.shared(|_| Self::default())
    }

    /// Counts for one more source, which has had `traffic` already.
    pub(super) fn add(&self, (kind, name): (&'static str, String), traffic: Traffic) -> Arc<Counted> {
        let counted = Arc::new(Counted::new(kind, name, traffic));
        self.all().push(Arc::clone(&counted));
        counted
    }

    /// Each source, in the order in which they were opened.
    #[must_use]
    pub fn sources(&self) -> Vec<Spoken> {
        let spoken = |counted: &Arc<Counted>| Spoken {
            kind: counted.kind,
            name: counted.name.clone(),
            traffic: counted.snapshot(),
        };
        self.all().iter().map(spoken).collect()
    }

    /// All sources together; nothing if there is none.
    #[must_use]
    pub fn total(&self) -> Option<Traffic> {
        let add = |sum: Traffic, one: Traffic| Traffic {
            requests: sum.requests + one.requests,
            bytes: sum.bytes + one.bytes,
            retries: sum.retries + one.retries,
            nanoseconds: sum.nanoseconds + one.nanoseconds,
            waited: sum.waited + one.waited,
        };
        self.all().iter().map(|counted| counted.snapshot()).reduce(add)
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Counted>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source's counters.
#[derive(Debug)]
pub(super) struct Counted {
    kind: &'static str,
    name: String,
    requests: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    nanoseconds: AtomicU64,
    waited: AtomicU64,
}

impl Counted {
    fn new(kind: &'static str, name: String, traffic: Traffic) -> Self {
        Self {
            kind,
            name,
            requests: traffic.requests.into(),
            bytes: traffic.bytes.into(),
            retries: traffic.retries.into(),
            nanoseconds: traffic.nanoseconds.into(),
            waited: traffic.waited.into(),
        }
    }

    /// Adds what one request took.
    pub(super) fn add(&self, traffic: Traffic) {
        self.requests.fetch_add(traffic.requests, Ordering::Relaxed);
        self.bytes.fetch_add(traffic.bytes, Ordering::Relaxed);
        self.retries.fetch_add(traffic.retries, Ordering::Relaxed);
        self.nanoseconds.fetch_add(traffic.nanoseconds, Ordering::Relaxed);
        self.waited.fetch_add(traffic.waited, Ordering::Relaxed);
    }

    /// What there was so far.
    pub(super) fn snapshot(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            nanoseconds: self.nanoseconds.load(Ordering::Relaxed),
            waited: self.waited.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_counted_each_and_together() {
        let network = Network::default();
        assert_eq!(network.total(), None);
        let began = Traffic { requests: 1, bytes: 10, retries: 0, nanoseconds: 7, waited: 5 };
        let one = network.add(("http", "https://a/x".into()), began);
        network.add(("ssh", "ssh://b/y".into()), began);
        one.add(Traffic { requests: 1, bytes: 100, retries: 1, nanoseconds: 70, waited: 50 });
        let names: Vec<_> = network.sources().into_iter().map(|source| (source.name, source.traffic.bytes)).collect();
        assert_eq!(names, [("https://a/x".to_owned(), 110), ("ssh://b/y".to_owned(), 10)]);
        let total = Traffic { requests: 3, bytes: 120, retries: 1, nanoseconds: 84, waited: 60 };
        assert_eq!(network.total(), Some(total));
    }
}
