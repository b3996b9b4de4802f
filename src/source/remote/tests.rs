//! A simulated network on a clock of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::cache::BlockCache;
use crate::disk::Checked;
use crate::session::{Access, Patience};

mod copy;

/// A clock that only moves when someone sleeps or a request takes its time; its chance comes from a seed.
#[derive(Debug)]
struct Virtual {
    nanoseconds: AtomicU64,
    seed: AtomicU64,
}

impl Virtual {
    fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self { nanoseconds: AtomicU64::new(0), seed: AtomicU64::new(seed) })
    }

    fn pass(&self, time: Duration) {
        self.nanoseconds.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Virtual {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn sleep(&self, time: Duration, session: &Session) -> Result<()> {
        session.check()?;
        self.pass(time);
        Ok(())
    }

    fn random(&self) -> u64 {
        let next = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }
}

/// What a request of the simulated network does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// All of it.
    Whole,
    /// Bytes until the connection is cut.
    Cut(usize),
    /// Fewer bytes than asked for, as if that were all.
    Less(usize),
    /// Nothing until the deadline.
    Stall,
    /// The server is busy, and says for how many seconds.
    Busy(Option<u64>),
    /// The file is another one now.
    Changed,
}

#[derive(Debug)]
struct Simulated {
    bytes: Arc<Vec<u8>>,
    clock: Arc<Virtual>,
    /// What comes next; then chance decides.
    script: Mutex<Vec<Act>>,
    /// Of a hundred requests, how many fail by chance.
    bad: u64,
    /// Bytes that the other side sent.
    sent: Arc<AtomicU64>,
}

impl Simulated {
    fn act(&self, len: usize) -> Act {
        let mut script = self.script.lock().unwrap();
        if !script.is_empty() {
            return script.remove(0);
        }
        let dice = self.clock.random();
        if dice % 100 >= self.bad {
            return Act::Whole;
        }
        let part = usize::try_from(dice >> 32).unwrap() % (len + 1);
        match (dice >> 16) % 4 {
            0 => Act::Cut(part),
            1 => Act::Less(part),
            2 => Act::Stall,
            _ => Act::Busy((dice >> 20 & 1 == 1).then_some(3)),
        }
    }
}

impl Transport for Simulated {
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        let part = &self.bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        let error = |code: &'static str| Error::new(Kind::Unreadable, code, "simulated");
        self.clock.pass(Duration::from_millis(50));
        let mut give = |len: usize| {
            for piece in part[..len].chunks(10_000) {
                self.clock.pass(Duration::from_micros(400));
                self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                take(piece);
            }
        };
        match self.act(part.len()) {
            Act::Whole => give(part.len()),
            Act::Less(len) => give(len.min(part.len())),
            Act::Cut(len) => {
                give(len.min(part.len()));
                return Err(Failure::again(error("http.connection")));
            }
            Act::Stall => {
                self.clock.pass(Duration::from_secs(30));
                return Err(Failure::again(error("http.silent")));
            }
            Act::Busy(seconds) => {
                let after = seconds.map(Duration::from_secs);
                return Err(Failure::Again { error: error("http.busy"), after });
            }
            Act::Changed => return Err(Failure::Final(error("source.changed"))),
        }
        Ok(())
    }

    fn describe(&self) -> (&'static str, String) {
        ("simulated", "net".into())
    }
}

struct World {
    remote: Arc<Checked<Remote>>,
    clock: Arc<Virtual>,
    bytes: Arc<Vec<u8>>,
    sent: Arc<AtomicU64>,
    session: Arc<Session>,
}

fn world(len: usize, head: usize, script: &[Act], bad: u64, seed: u64) -> World {
    let session = Session::with_defaults();
    session.give_access(Access { patience: Patience { retries: 5, ..Patience::default() }, ..Access::default() });
    let clock = Virtual::new(seed);
    let bytes: Arc<Vec<u8>> = Arc::new((0..len).map(|i| (i * 31 + i / 251) as u8).collect());
    let sent = Arc::new(AtomicU64::new(0));
    let transport = Simulated {
        bytes: Arc::clone(&bytes),
        clock: Arc::clone(&clock),
        script: Mutex::new(script.to_vec()),
        bad,
        sent: Arc::clone(&sent),
    };
    let found = Found {
        len: len as u64,
        fingerprint: Fingerprint::of(&[b"1"]),
        head: bytes[..head].to_vec(),
        traffic: Traffic::default(),
    };
    let clock_of = Arc::clone(&clock) as Arc<dyn Clock>;
    let remote = Checked::wrap(Remote::new(Box::new(transport), found, clock_of, &session).unwrap());
    World { remote, clock, bytes, sent, session }
}

fn read(world: &World, range: Range<usize>) -> Result<()> {
    let mut buf = vec![0; range.len()];
    world.remote.read_at(&mut buf, range.start as u64)?;
    assert_eq!(buf, world.bytes[range]);
    Ok(())
}

#[test]
fn a_cut_is_resumed_at_the_byte() {
    let world = world(1 << 20, 0, &[Act::Cut(300_000), Act::Less(5), Act::Cut(0), Act::Whole], 0, 1);
    read(&world, 0..1 << 20).unwrap();
    let traffic = world.remote.traffic().unwrap();
    assert_eq!((traffic.requests, traffic.bytes), (4, 1 << 20));
    assert_eq!(world.sent.load(Ordering::Relaxed), 1 << 20, "nothing is sent twice");
}

#[test]
fn what_came_when_it_was_opened_is_not_asked_for() {
    let world = world(100_000, 60_000, &[], 0, 1);
    read(&world, 10..59_000).unwrap();
    assert_eq!(world.sent.load(Ordering::Relaxed), 0);
    read(&world, 50_000..100_000).unwrap();
    assert_eq!(world.sent.load(Ordering::Relaxed), 40_000);
}

#[test]
fn patience_ends_and_progress_renews_it() {
    let stalled = world(100, 0, &[Act::Stall; 20], 0, 1);
    let error = read(&stalled, 0..100).unwrap_err();
    assert_eq!((error.code(), error.kind().exit_code()), ("http.silent", 3));
    assert!(error.next().unwrap().contains("6 tries"), "{:?}", error.next());
    assert!(stalled.clock.now() < Duration::from_secs(6 * 30 + 40), "{:?}", stalled.clock.now());
    let (cuts, enough) = ([Act::Cut(100_000); 30], 100_000 * 31);
    read(&world(enough, 0, &cuts, 0, 1), 0..enough).unwrap();
    let bytewise = world(100, 0, &[Act::Cut(1); 50], 0, 1);
    assert_eq!(read(&bytewise, 0..100).unwrap_err().code(), "http.connection", "a byte a time is no progress");
}

#[test]
fn the_server_says_when_to_come_back() {
    let short = world(100, 0, &[Act::Busy(Some(7))], 0, 1);
    read(&short, 0..100).unwrap();
    assert!(short.clock.now() >= Duration::from_secs(7));
    let bound = limits::MAX_RETRY_AFTER.as_secs();
    read(&world(100, 0, &[Act::Busy(Some(bound))], 0, 1), 0..100).unwrap();
    let long = world(100, 0, &[Act::Busy(Some(bound + 1))], 0, 1);
    assert!(read(&long, 0..100).unwrap_err().next().unwrap().contains("run the same command then"));
}

#[test]
fn a_changed_source_and_a_cancelled_session_end_it_at_once() {
    let changed = world(100, 0, &[Act::Changed], 0, 1);
    let error = read(&changed, 0..100).unwrap_err();
    assert_eq!((error.code(), error.kind().exit_code()), ("source.changed", 3));
    assert_eq!(changed.remote.traffic().unwrap().requests, 1);
    let cancelled = world(100, 0, &[], 0, 1);
    cancelled.session.cancel();
    assert_eq!(read(&cancelled, 0..100).unwrap_err().code(), "session.interrupted");
}

#[test]
fn a_large_read_is_split() {
    let len = limits::MAX_REMOTE_REQUEST * 2 + 1;
    let big = world(len, 0, &[], 0, 1);
    read(&big, 0..len).unwrap();
    assert_eq!(big.remote.traffic().unwrap().requests, 3);
    for (len, requests) in [(limits::MAX_REMOTE_REQUEST - 1, 1), (limits::MAX_REMOTE_REQUEST, 1)] {
        let world = world(len, 0, &[], 0, 1);
        read(&world, 0..len).unwrap();
        assert_eq!(world.remote.traffic().unwrap().requests, requests);
    }
}

#[test]
fn empty_and_endless_files_are_refused() {
    let make = |len| {
        let transport = Simulated {
            bytes: Arc::default(),
            clock: Virtual::new(1),
            script: Mutex::default(),
            bad: 0,
            sent: Arc::default(),
        };
        let found = Found { len, fingerprint: Fingerprint::of(&[]), head: Vec::new(), traffic: Traffic::default() };
        Remote::new(Box::new(transport), found, Virtual::new(1), &Session::with_defaults()).map(|_| ())
    };
    assert_eq!(make(0).unwrap_err().code(), "source.empty");
    assert!(make(limits::MAX_DISK_LEN).is_ok());
    assert_eq!(make(limits::MAX_DISK_LEN + 1).unwrap_err().code(), "disk.too-large");
}

/// Cache, retries and readers on a network that fails often: always the same bytes or an error, and with little lost each is sent
/// once.
#[test]
fn seeds_of_a_bad_network() {
    let seeds = seeds(40);
    let (count, mut failed) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let len = 3_000_001;
        let world = world(len, 100_000, &[], 10 + seed % 30, seed);
        let cache = BlockCache::wrap(Arc::<Checked<Remote>>::clone(&world.remote), &world.session);
        let mut at = 0;
        while at < len {
            let count = usize::try_from(world.clock.random() % 900_000).unwrap().clamp(1, len - at);
            let mut buf = vec![0; count];
            match cache.read_at(&mut buf, at as u64) {
                Ok(()) => assert_eq!(buf, world.bytes[at..at + count], "seed {seed} at {at}"),
                Err(error) => {
                    assert_eq!(error.kind(), Kind::Unreadable, "seed {seed}");
                    failed += 1;
                }
            }
            at += count;
        }
        assert!(world.sent.load(Ordering::Relaxed) <= (len as u64) * 2, "seed {seed}");
        assert!(world.clock.now() < Duration::from_secs(3600), "seed {seed}");
    }
    assert!(failed < count || count == 1, "{failed} of {count}");
}

/// The seeds that worlds are made of: as many as `usual` from 0 on, or as `HYPER2KVM_SEEDS` has it, as a number or `FIRST..END`.
fn seeds(usual: u64) -> Range<u64> {
    let Ok(said) = std::env::var("HYPER2KVM_SEEDS") else { return 0..usual };
    let number =
        |text: &str| text.parse().unwrap_or_else(|_| panic!("HYPER2KVM_SEEDS={said} is no number and no range"));
    said.split_once("..").map_or_else(|| 0..number(&said), |(first, end)| number(first)..number(end))
}
