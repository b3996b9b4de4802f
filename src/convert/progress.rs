//! What a conversion tells while it runs, for bars and JSON lines alike.

use super::Bytes;

/// Told as a conversion goes on, from several threads but never from two at once.
pub trait Progress: Sync {
    /// Something happened; often, so whoever prints should skip most of these. Must return quickly.
    fn update(&self, update: &Update);
}

/// Tells nobody.
impl Progress for () {
    fn update(&self, _update: &Update) {}
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// What is being done.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes to do in this phase; 0 when it is not measured in bytes.
    pub total: u64,
    /// Where the bytes of the disk went so far.
    pub bytes: Bytes,
}

impl Update {
    /// The first one of a phase.
    #[must_use]
    pub fn start(phase: Phase, total: u64) -> Self {
        Self { phase, done: 0, total, bytes: Bytes::default() }
    }
}

/// The phases, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Looking inside the guest and planning what it needs.
    Inspect,
    /// Applying that.
    Fix,
    /// Walking the source's map.
    Plan,
    /// Reading and writing.
    Copy,
    /// Waiting for the output to be durable.
    Sync,
    /// Reading the output back.
    Verify,
    /// Giving it its name.
    Seal,
}

impl Phase {
    /// The phase's name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Fix => "fix",
            Self::Plan => "plan",
            Self::Copy => "copy",
            Self::Sync => "sync",
            Self::Verify => "verify",
            Self::Seal => "seal",
        }
    }
}
