//! How long a wait goes on.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::{Error, Kind, Result};

/// Says that whatever is under way is to end. It is asked a few times a second by those who wait.
#[derive(Clone)]
pub struct Stop(Arc<dyn Fn() -> bool + Send + Sync>);

impl Stop {
    /// When `ask` says so.
    #[must_use]
    pub fn when(ask: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stop")
    }
}

/// What ends a wait.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Longest silence of the server.
    pub(super) patience: Duration,
    pub(super) stop: Option<Stop>,
}

impl Watch {
    /// Fails when there was nothing since `since` for too long, or when the caller has asked to give up.
    pub(super) fn check(&self, since: Instant, patience: Duration) -> Result<()> {
        self.check_stop()?;
        if since.elapsed() >= patience { Err(io::Error::from(io::ErrorKind::TimedOut).into()) } else { Ok(()) }
    }

    pub(super) fn check_stop(&self) -> Result<()> {
        match &self.stop {
            Some(Stop(ask)) if ask() => Err(Error::new(Kind::Stopped, "it was asked to stop")),
            _ => Ok(()),
        }
    }
}
