//! What one command run shares: memory budget, cancellation, clock, policy, randomness.

use std::any::Any;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::limits;

mod access;
pub(crate) mod child;
mod keys;
mod private;

pub use access::{Access, Addressing, Ask, Asked, ObjectAccess, Patience, SshAccess, Thumbprint, VARIABLES};
pub use keys::{Keys, Secret};
pub use private::PrivateFolder;

/// Given at open to everything that reads, fixes or writes.
#[derive(Debug)]
pub struct Session {
    /// How much memory each use may hold.
    pub budget: Budget,
    /// What an image may make us open.
    pub policy: Policy,
    /// Worker threads for decoding and copying; at least 1.
    pub jobs: usize,
    moment: OnceLock<Moment>,
    /// What a fresh moment takes for the time.
    epoch: OnceLock<i64>,
    cancelled: AtomicBool,
    streaming: AtomicBool,
    serving: AtomicBool,
    keys: OnceLock<Keys>,
    access: OnceLock<Access>,
    shared: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl Session {
    /// A session with the given budget and policy, the current time and a fresh seed.
    #[must_use]
    pub fn new(budget: Budget, policy: Policy, jobs: usize) -> Arc<Self> {
        Arc::new(Self {
            budget,
            policy,
            jobs: jobs.max(1),
            moment: OnceLock::new(),
            epoch: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            streaming: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            keys: OnceLock::new(),
            access: OnceLock::new(),
            shared: Mutex::default(),
        })
    }

    /// A session for tests and simple library use: default budget, strict policy, one job a core.
    #[must_use]
    pub fn with_defaults() -> Arc<Self> {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new(Budget::new(limits::DEFAULT_BUDGET), Policy::default(), jobs)
    }

    /// The run's time and seed: fresh at first use, or those of the run that this one resumes.
    pub fn moment(&self) -> Moment {
        *self.moment.get_or_init(|| {
            let fresh = Moment::fresh();
            Moment { now: self.epoch.get().copied().unwrap_or(fresh.now), ..fresh }
        })
    }

    /// Has the run take `now` for the time, once, so that two runs write the same into guests. One that resumes another keeps the
    /// time of that.
    pub fn pretend(&self, now: i64) {
        let _ = self.epoch.set(now);
    }

    /// Goes on as the run that began at `moment`, so that whatever depends on time or randomness comes out the same. Gives the
    /// moment that holds: another one when time or randomness was asked for before.
    pub fn resume(&self, moment: Moment) -> Moment {
        *self.moment.get_or_init(|| moment)
    }

    /// The time that every fix writes, seconds since the epoch; constant for the run, and for those that resume it.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.moment().now
    }

    /// Sixteen bytes that depend only on the run's seed and `label`.
    #[must_use]
    pub fn random(&self, label: &str) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.moment().seed, label.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(hash.as_bytes().split_at(16).0);
        bytes
    }

    /// Asks all work of this session to stop soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// An [`crate::error::Kind::Interrupted`] error once [`Session::cancel`] was called. Long loops call this.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// From now on reads are one pass over the data: caches keep what they hold and let new blocks go first.
    pub fn begin_streaming(&self) {
        self.streaming.store(true, Ordering::Relaxed);
    }

    /// Whether [`Session::begin_streaming`] was called.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming.load(Ordering::Relaxed)
    }

    /// From now on others read where and as much as they like: what the host keeps in memory anyway is read as it is asked for, and
    /// not in larger blocks.
    pub fn begin_serving(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Whether [`Session::begin_serving`] was called.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    /// Gives the run the keys of encrypted volumes, once.
    pub fn give_keys(&self, keys: Keys) {
        let _ = self.keys.set(keys);
    }

    /// The keys of encrypted volumes.
    pub fn keys(&self) -> &Keys {
        self.keys.get_or_init(Keys::default)
    }

    /// Gives the run what lets it in at remote sources, once.
    pub fn give_access(&self, access: Access) {
        let _ = self.access.set(access);
    }

    /// What lets the run in at remote sources.
    pub fn access(&self) -> &Access {
        self.access.get_or_init(Access::default)
    }

    /// The session's one value of type `T`, made at first use: what several sources share, such as a cache's memory.
    /// `make` must not call this.
    pub fn shared<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        let mut shared = self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = shared.iter().find_map(|value| Arc::clone(value).downcast().ok()) {
            return found;
        }
        let value = Arc::new(make(self));
        shared.push(Arc::clone(&value) as Arc<dyn Any + Send + Sync>);
        value
    }
}

/// What makes two runs differ: when they began, and their randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the epoch.
    pub now: i64,
    /// What [`Session::random`] derives everything from.
    pub seed: [u8; 32],
}

impl Moment {
    fn fresh() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut seed = blake3::Hasher::new();
        seed.update(&now.as_nanos().to_le_bytes());
        seed.update(&std::process::id().to_le_bytes());
        seed.update(uuid_entropy().as_bytes());
        Self { now: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), seed: *seed.finalize().as_bytes() }
    }
}

/// Address-space randomness, as a cheap extra for the seed.
fn uuid_entropy() -> String {
    let on_stack = 0_u8;
    format!("{:p}{:?}", &raw const on_stack, std::thread::current().id())
}

/// The memory budget in fixed shares, so that no use waits for another's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    total: u64,
}

impl Budget {
    /// A budget of `total` bytes, at least [`limits::MIN_BUDGET`].
    #[must_use]
    pub fn new(total: u64) -> Self {
        Self { total: total.max(limits::MIN_BUDGET) }
    }

    /// All of it, in bytes.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.total
    }

    /// Source bytes and decoded units that are kept for later: one half.
    #[must_use]
    pub const fn cache(self) -> u64 {
        self.total / 2
    }

    /// Buffers of copies and requests under way: one quarter.
    #[must_use]
    pub const fn in_flight(self) -> u64 {
        self.total / 4
    }

    /// The overlay's blocks before they spill: one eighth.
    #[must_use]
    pub const fn overlay(self) -> u64 {
        self.total / 8
    }

    /// Page tables of sources and outputs: one eighth.
    #[must_use]
    pub const fn metadata(self) -> u64 {
        self.total / 8
    }
}

/// What an image's references may make us open. The default allows plain names beside the image only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Directories beneath which references may lead (`--allow-dir`).
    pub allow_dirs: Vec<PathBuf>,
    /// Prefixes of references to replace (`--map-path OLD=NEW`).
    pub map_path: Vec<(String, PathBuf)>,
    /// Whether a parent is used though its identity is not the one that its child keeps (`--ignore-parent-id`).
    pub any_parent: bool,
    /// What reads and writes the files of guests that are looked at or fixed (`--engine`).
    pub engine: Engine,
    /// Whether a disk is read though its machine runs (`--allow-running`).
    pub allow_running: bool,
    /// What gives a VHD its size (`--vhd-size`).
    pub vhd_size: VhdSize,
}

/// What reads and writes the files of guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// This program's own drivers.
    #[default]
    Own,
    /// libguestfs, in its appliance.
    Appliance,
}

/// What gives a VHD its virtual size. Its two fields differ in disks that old programs made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VhdSize {
    /// By the program that made it: Virtual PC and old QEMU went by the geometry, the others by the current size.
    #[default]
    ByCreator,
    /// Cylinders × heads × sectors.
    Geometry,
    /// The field `Current Size`.
    Current,
}

impl VhdSize {
    /// The word for it, as `info` prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ByCreator => "creator",
            Self::Geometry => "geometry",
            Self::Current => "current size",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_depends_on_seed_and_label_only() {
        let session = Session::with_defaults();
        assert_eq!(session.random("mac"), session.random("mac"));
        assert_ne!(session.random("mac"), session.random("uuid"));
        assert_ne!(session.random("mac"), Session::with_defaults().random("mac"));
    }

    #[test]
    fn a_resumed_session_has_the_time_and_the_randomness_of_the_first() {
        let first = Session::with_defaults();
        let moment = Moment { now: 1, ..first.moment() };
        let second = Session::with_defaults();
        assert_eq!(second.resume(moment), moment);
        assert_eq!((second.now(), second.random("mac")), (1, first.random("mac")));
        assert_ne!(first.resume(moment), moment, "it is under way");
        let pretending = Session::with_defaults();
        pretending.pretend(7);
        assert_eq!(pretending.now(), 7);
        let resumed = Session::with_defaults();
        resumed.pretend(7);
        assert_eq!(resumed.resume(moment).now, 1);
    }

    #[test]
    fn a_shared_value_is_made_once() {
        let session = Session::with_defaults();
        assert_eq!(*session.shared(|_| 7_u32), 7);
        assert_eq!(*session.shared(|_| 8_u32), 7);
        assert_eq!(*session.shared(|_| 9_u64), 9);
    }

    #[test]
    fn shares_add_up_to_the_budget() {
        for total in [0, limits::MIN_BUDGET, limits::DEFAULT_BUDGET] {
            let budget = Budget::new(total);
            assert!(budget.cache() + budget.in_flight() + budget.overlay() + budget.metadata() <= budget.total());
            assert!(budget.total() >= limits::MIN_BUDGET);
        }
    }

    #[test]
    fn a_cancelled_session_says_so() {
        let session = Session::with_defaults();
        assert!(session.check().is_ok());
        session.cancel();
        assert_eq!(session.check().unwrap_err().kind().exit_code(), 7);
    }
}
