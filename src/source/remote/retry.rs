//! Asking again: how often, how long in between, and on which clock.

use std::fmt::Debug;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use super::Failure;
use crate::error::Result;
use crate::limits;
use crate::session::{Patience, Session};

/// Time and chance. Not the session's randomness: asking for that fixes the moment of a run, which may yet turn out to resume
/// another one.
pub(in crate::source) trait Clock: Debug + Send + Sync + 'static {
    /// Time since some point, never less than before.
    fn now(&self) -> Duration;

    /// Lets `time` pass, or fails as soon as the session is cancelled.
    fn sleep(&self, time: Duration, session: &Session) -> Result<()>;

    /// Any number.
    fn random(&self) -> u64;
}

/// The clock on the wall, and the system's chance.
#[derive(Debug)]
pub(in crate::source) struct SystemClock {
    start: Instant,
}

impl SystemClock {
    pub(in crate::source) fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration, session: &Session) -> Result<()> {
        const NAP: Duration = Duration::from_millis(50);
        let end = self.now().saturating_add(time);
        loop {
            session.check()?;
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(NAP));
        }
    }

    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// Bytes a second that any server must give on the whole, beside the silence that it may keep.
const SLOWEST: u64 = 16 << 10;

impl Patience {
    /// How long requests for `len` bytes may take: a server that gives a byte now and then is no better than a silent one.
    pub(in crate::source) fn limit(self, len: u64) -> Duration {
        self.silence.saturating_mul(2).saturating_add(Duration::from_secs(len / SLOWEST))
    }
}

/// How often it failed since it last got on.
#[derive(Debug)]
pub(in crate::source) struct Retry {
    patience: Patience,
    failures: u32,
    /// Bytes that came since a failure was counted.
    progress: u64,
}

impl Retry {
    pub(in crate::source) const fn new(patience: Patience) -> Self {
        Self { patience, failures: 0, progress: 0 }
    }

    /// Notes that bytes came. Enough of them make up for all failures before: each must be worth a request, or a source that gives
    /// a byte a time would be asked for ever.
    pub(in crate::source) const fn progress(&mut self, bytes: u64) {
        self.progress = self.progress.saturating_add(bytes);
        if self.progress >= limits::REMOTE_PROGRESS {
            self.failures = 0;
        }
    }

    /// Waits until the time for another try, or gives the error when there will be none.
    pub(in crate::source) fn wait(&mut self, failure: Failure, clock: &dyn Clock, session: &Session) -> Result<()> {
        let (error, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Again { error, after } => (error, after),
        };
        self.progress = 0;
        self.failures = self.failures.saturating_add(1);
        let too_long = after.filter(|after| *after > limits::MAX_RETRY_AFTER);
        if let Some(after) = too_long {
            let asked =
                format!("the server wants to be asked again in {} s; run the same command then", after.as_secs());
            return Err(error.hint(asked));
        }
        if self.failures > self.patience.retries {
            return Err(match error.next() {
                Some(_) => error,
                None => error.hint(format!(
                    "{} tries in a row brought nothing; run the same command again when the network is better, or allow more \
                     with --net-retries and --net-timeout",
                    self.failures
                )),
            });
        }
        let time = pause(self.failures, clock.random()).max(after.unwrap_or_default());
        tracing::info!(failures = self.failures, milliseconds = time.as_millis(), "asking again: {error:?}");
        clock.sleep(time, session)
    }
}

/// The pause before try `number`: twice the one before, up to a bound; between half of that and all of it by chance, so that many
/// who failed at once do not come back at once.
fn pause(number: u32, chance: u64) -> Duration {
    const FIRST: Duration = Duration::from_millis(250);
    const LONGEST: Duration = Duration::from_secs(10);
    let whole = FIRST.saturating_mul(1 << number.saturating_sub(1).min(10)).min(LONGEST);
    let half = whole / 2;
    half.saturating_add(half.mul_f64((chance >> 40) as f64 / (1_u64 << 24) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let milliseconds = |number, chance| pause(number, chance).as_millis();
        assert_eq!((milliseconds(1, 0), milliseconds(2, 0), milliseconds(3, 0)), (125, 250, 500));
        assert_eq!(milliseconds(1, u64::MAX), 249);
        assert_eq!(milliseconds(40, 0), 5000);
        assert!(pause(u32::MAX, u64::MAX) <= Duration::from_secs(10));
    }

    #[test]
    fn only_enough_bytes_make_up_for_failures() {
        let enough = limits::REMOTE_PROGRESS;
        for (bytes, failures) in [(enough - 1, 3), (enough, 0), (enough + 1, 0)] {
            let mut retry = Retry::new(Patience::default());
            retry.failures = 3;
            retry.progress(1);
            retry.progress(bytes - 1);
            assert_eq!(retry.failures, failures, "{bytes} bytes");
        }
    }

    #[test]
    fn sleeping_ends_with_the_session() {
        let session = Session::with_defaults();
        let clock = SystemClock::new();
        clock.sleep(Duration::from_millis(1), &session).unwrap();
        assert!(clock.now() >= Duration::from_millis(1));
        session.cancel();
        assert_eq!(clock.sleep(Duration::from_secs(1000), &session).unwrap_err().code(), "session.interrupted");
    }
}
