//! Whole conversions in simulated worlds: web server, retries, cache, read-ahead, image, copy, journal, verification. A seed makes a
//! world: what lies on the server, what it is converted to, and what goes wrong at which bytes.
//!
//! Trouble is tied to bytes of the file and not to the order of requests, so that a seed comes to the same end however threads take
//! turns: the undisturbed result, or a stop with the code of the one trouble that lasts, after which another run gets there.

use std::path::Path;
use std::sync::OnceLock;

use reqwest::StatusCode;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, RETRY_AFTER};

use super::super::super::http::answer::Identity;
use super::*;
use crate::cache::BLOCK;
use crate::chain::Image;
use crate::convert::{self, Format, Options, Outcome, RawOptions, Verification, VmdkOptions};
use crate::disk::Memory;
use crate::format::{Ask, vmdk};
use crate::session::{Budget, Policy};
use crate::testing::noise;

/// Tries after a failed one: more than there is trouble that passes.
const RETRIES: u32 = 30;

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The connection is cut at the byte.
    Cut,
    /// Nothing more comes from the byte on.
    Stall,
    /// It ends at the byte, and says so at the beginning.
    Part,
    /// It ends at the byte, and does not say so.
    Short,
    /// A status, and for how many seconds the server wants to be left alone.
    Status(u16, Option<u64>),
    /// Another part of the file.
    Elsewhere,
    /// All of the file.
    Whole,
    /// Another length than that of its range.
    Lying,
    /// Compressed.
    Packed,
    /// Of the file with another tag.
    Tag,
    /// Of a longer file.
    Longer,
    /// That there is no such range any more.
    Shorter,
    /// The user wants it to end.
    Cancel,
}

/// What passes, if it is tried again.
const PASSING: [Fault; 11] = [
    Fault::Cut,
    Fault::Cut,
    Fault::Stall,
    Fault::Part,
    Fault::Short,
    Fault::Status(503, None),
    Fault::Status(429, Some(7)),
    Fault::Elsewhere,
    Fault::Whole,
    Fault::Lying,
    Fault::Packed,
];

/// What does not, with the code that a run ends with, and its exit code.
const LASTING: [(Fault, &str, u8); 15] = [
    (Fault::Cut, "http.connection", 3),
    (Fault::Stall, "http.silent", 3),
    (Fault::Short, "source.short", 3),
    (Fault::Status(500, None), "http.busy", 3),
    (Fault::Status(503, Some(301)), "http.busy", 3),
    (Fault::Status(403, None), "http.denied", 3),
    (Fault::Status(404, None), "http.missing", 3),
    (Fault::Status(418, None), "http.status", 3),
    (Fault::Elsewhere, "http.range", 3),
    (Fault::Lying, "http.range", 3),
    (Fault::Packed, "http.encoding", 3),
    (Fault::Tag, "source.changed", 3),
    (Fault::Longer, "source.changed", 3),
    (Fault::Shorter, "source.changed", 3),
    (Fault::Cancel, "session.interrupted", 7),
];

/// A fault of the answers that have the byte `at`, so many times.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    at: u64,
    left: u32,
    fault: Fault,
}

/// A web server with one file.
#[derive(Debug)]
struct Server {
    bytes: Arc<Vec<u8>>,
    identity: Identity,
    clock: Arc<Virtual>,
    session: Arc<Session>,
    /// By their bytes.
    troubles: Mutex<Vec<Trouble>>,
    /// Bytes that it sent.
    sent: Arc<AtomicU64>,
}

impl Server {
    /// What goes wrong with an answer for `range`.
    fn trouble(&self, range: &Range<u64>) -> Option<Trouble> {
        let mut troubles = self.troubles.lock().unwrap();
        // An answer without a byte is none.
        let is_nothing = |trouble: &Trouble| trouble.fault == Fault::Part && trouble.at == range.start;
        let is_met = |trouble: &Trouble| trouble.left > 0 && range.contains(&trouble.at) && !is_nothing(trouble);
        let met = troubles.iter_mut().find(|trouble| is_met(trouble))?;
        met.left -= 1;
        Some(*met)
    }

    /// Status and head of the answer for `range`, and where its body begins.
    fn answer(&self, range: &Range<u64>, trouble: Option<Trouble>) -> (StatusCode, HeaderMap, u64) {
        let (mut status, mut headers, mut part, mut total) =
            (StatusCode::PARTIAL_CONTENT, head(), range.clone(), self.bytes.len() as u64);
        let mut len = None;
        match trouble.map(|trouble| (trouble.fault, trouble.at)) {
            Some((Fault::Part, at)) => part.end = at,
            Some((Fault::Status(code, after), _)) => {
                status = StatusCode::from_u16(code).unwrap();
                headers.extend(after.map(|after| (RETRY_AFTER, HeaderValue::from(after))));
                return (status, headers, 0);
            }
            Some((Fault::Elsewhere, _)) => part = part.start - 1..part.end - 1,
            Some((Fault::Whole, _)) => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(total));
                return (StatusCode::OK, headers, 0);
            }
            Some((Fault::Lying, _)) => len = Some(part.end - part.start + 1),
            Some((Fault::Packed, _)) => _ = headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            Some((Fault::Tag, _)) => _ = headers.insert(ETAG, HeaderValue::from_static("\"2\"")),
            Some((Fault::Longer, _)) => total += 1,
            Some((Fault::Shorter, at)) => {
                headers.insert(CONTENT_RANGE, format!("bytes */{at}").parse().unwrap());
                return (StatusCode::RANGE_NOT_SATISFIABLE, headers, 0);
            }
            _ => {}
        }
        let said = format!("bytes {}-{}/{total}", part.start, part.end - 1);
        headers.insert(CONTENT_RANGE, said.parse().unwrap());
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len.unwrap_or(part.end - part.start)));
        (status, headers, part.start)
    }
}

impl Transport for Server {
    fn fetch(&self, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
        self.clock.pass(Duration::from_millis(50));
        let trouble = self.trouble(&range);
        let (status, headers, start) = self.answer(&range, trouble);
        let len = self.identity.judge(status, &headers, &range)?;
        let fault = trouble.map(|trouble| trouble.fault);
        let end = match trouble {
            Some(Trouble { at, fault: Fault::Cut | Fault::Stall | Fault::Short, .. }) => at,
            _ => start + len,
        };
        for piece in self.bytes[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()].chunks(16 << 10) {
            self.clock.pass(Duration::from_micros(700));
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            take(piece);
        }
        let again = |code| Err(Failure::again(Error::new(Kind::Unreadable, code, "simulated")));
        match fault {
            Some(Fault::Cut) => again("http.connection"),
            Some(Fault::Stall) => {
                self.clock.pass(Duration::from_secs(30));
                again("http.silent")
            }
            Some(Fault::Short) => again("source.short"),
            Some(Fault::Cancel) => {
                self.session.cancel();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn describe(&self) -> (&'static str, String) {
        ("http", "http://simulated/".into())
    }
}

/// What all good answers say of the file's state.
fn head() -> HeaderMap {
    [(ETAG, HeaderValue::from_static("\"1\""))].into_iter().collect()
}

/// What is converted, and what becomes of it undisturbed.
struct Case {
    /// The file on the server.
    file: Arc<Vec<u8>>,
    is_vmdk: bool,
    options: Options,
    /// The file that a conversion ends with.
    result: Vec<u8>,
}

impl Case {
    /// All of them, made once.
    fn all() -> &'static [Self] {
        static ALL: OnceLock<Vec<Case>> = OnceLock::new();
        ALL.get_or_init(|| {
            let parts =
                [noise(1, 2 << 20), vec![0; 3 << 20], noise(2, (2 << 20) + 700), vec![7; 1 << 20], noise(3, 512)];
            let raw = Arc::new(parts.concat());
            let stored = Options { format: Format::Vmdk(VmdkOptions { level: 0 }), ..Options::default() };
            let stored = Arc::new(converted(Checked::wrap(Memory::new(raw.to_vec())), &stored));
            let flat = Options { format: Format::Raw(RawOptions::default()), ..Options::default() };
            let mut all = Vec::new();
            for (file, is_vmdk) in [(&raw, false), (&stored, true)] {
                for options in [flat.clone(), Options::default()] {
                    let memory = Checked::wrap(Memory::new(file.to_vec()));
                    let disk = opened(memory, is_vmdk, &Session::with_defaults()).unwrap();
                    let result = converted(disk, &options);
                    all.push(Self { file: Arc::clone(file), is_vmdk, options, result });
                }
            }
            all
        })
    }
}

/// What lies in a file.
fn opened(file: Arc<dyn Disk>, is_vmdk: bool, session: &Arc<Session>) -> Result<Arc<dyn Disk>> {
    if !is_vmdk {
        return Ok(file);
    }
    let layer = (vmdk::open(file, &Ask::current(session))?.build)(Vec::new())?;
    Ok(Checked::wrap(Image::new(vec![layer], session)?))
}

/// The file that a conversion of `disk` ends with.
fn converted(disk: Arc<dyn Disk>, options: &Options) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    convert::run(disk, &path, options, &Session::with_defaults(), &()).unwrap();
    bytes_of(&path)
}

fn bytes_of(path: &Path) -> Vec<u8> {
    #[allow(clippy::disallowed_methods, reason = "a test reads its own file")]
    std::fs::read(path).unwrap()
}

/// How a run ended, when that was, and how many bytes the server sent.
struct Ended {
    result: Result<Outcome>,
    time: Duration,
    sent: u64,
}

/// Converts `case` to `path` over a network with `troubles`.
fn attempt(case: &Case, troubles: Vec<Trouble>, chance: &Virtual, path: &Path) -> Ended {
    let jobs = usize::try_from(chance.random() % 4).unwrap() + 1;
    let session = Session::new(Budget::new(0), Policy::default(), jobs);
    session.give_access(Access { patience: Patience { retries: RETRIES, ..Patience::default() }, ..Access::default() });
    let (clock, sent) = (Virtual::new(chance.random()), Arc::new(AtomicU64::new(0)));
    let len = case.file.len() as u64;
    let identity = Identity::of(&head(), len);
    let found = Found {
        len,
        fingerprint: identity.fingerprint(),
        head: case.file[..usize::try_from(BLOCK).unwrap()].to_vec(),
        traffic: Traffic::default(),
    };
    let server = Server {
        bytes: Arc::clone(&case.file),
        identity,
        clock: Arc::clone(&clock),
        session: Arc::clone(&session),
        troubles: Mutex::new(troubles),
        sent: Arc::clone(&sent),
    };
    let remote = Remote::new(Box::new(server), found, Arc::clone(&clock) as Arc<dyn Clock>, &session).unwrap();
    let cache = BlockCache::wrap(Checked::wrap(remote), &session);
    let result = opened(cache, case.is_vmdk, &session).and_then(|disk| {
        session.begin_streaming();
        convert::run(disk, path, &case.options, &session, &())
    });
    Ended { result, time: clock.now(), sent: sent.load(Ordering::Relaxed) }
}

/// Trouble that passes, at any bytes that are not known from the beginning.
fn passing(chance: &Virtual, len: u64) -> Vec<Trouble> {
    let count = chance.random() % 8;
    let trouble = |_| {
        let fault = PASSING[usize::try_from(chance.random()).unwrap() % PASSING.len()];
        Trouble { at: place(chance, len), left: u32::try_from(chance.random() % 3).unwrap() + 1, fault }
    };
    (0..count).map(trouble).collect()
}

fn place(chance: &Virtual, len: u64) -> u64 {
    BLOCK + chance.random() % (len - BLOCK)
}

/// One world, from its beginning to the undisturbed result.
fn play(seed: u64) {
    let chance = Virtual::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let cases = Case::all();
    let case = &cases[usize::try_from(chance.random()).unwrap() % cases.len()];
    let len = case.file.len() as u64;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    // Up to three runs are stopped, and each finds what the one before it left.
    for number in 0..chance.random() % 4 {
        let (fault, code, exit) = LASTING[usize::try_from(chance.random()).unwrap() % LASTING.len()];
        let mut troubles = passing(&chance, len);
        troubles.push(Trouble { at: place(&chance, len), left: u32::MAX, fault });
        troubles.sort_by_key(|trouble| trouble.at);
        match attempt(case, troubles, &chance, &path).result {
            // What lasts may lie where an earlier run has been.
            Ok(outcome) if number > 0 && outcome.bytes.resumed > 0 => {
                assert!(bytes_of(&path) == case.result, "another result");
                return;
            }
            Ok(outcome) => panic!("{fault:?} did not stop it: {outcome:?}"),
            Err(error) => assert_eq!((error.code(), error.kind().exit_code()), (code, exit), "{error:?}"),
        }
        assert!(!path.exists());
    }
    let mut troubles = passing(&chance, len);
    troubles.sort_by_key(|trouble| trouble.at);
    let ended = attempt(case, troubles.clone(), &chance, &path);
    let outcome = ended.result.unwrap_or_else(|error| panic!("{error:?} with {troubles:?}"));
    assert_eq!(outcome.verification, Verification::Passed);
    assert!(bytes_of(&path) == case.result, "another result with {troubles:?}");
    assert!(ended.sent <= len, "{} bytes of {len} were sent", ended.sent);
    assert!(ended.time < Duration::from_secs(3600), "{:?}", ended.time);
}

#[test]
fn seeds_of_conversions_over_a_bad_network() {
    for seed in seeds(60) {
        if std::panic::catch_unwind(|| play(seed)).is_err() {
            panic!("seed {seed} fails; HYPER2KVM_SEEDS={seed}..{} has it again", seed + 1);
        }
    }
}
