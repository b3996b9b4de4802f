//! The journal of an unfinished output, `NAME.journal` beside `NAME.partial`: what is in the file so far, so that a later run
//! goes on where this one ended.
//!
//! ```text
//! length, u32 LE │ CRC-32C of kind and body, u32 LE │ kind, u8 │ body
//! ───────────────┴──────────────────────────────────┴──────────┴─────────────────────────────────────────────
//!   1 header    JSON: what makes it the same command on the same source; first, and once
//!   2 run       process id, u32: who writes the output from here on
//!   3 chunk     a chunk that is in the file: number, digests, what became of its granules and where they are
//!   4 durable   number of chunk records, u64: those were synced, the journal with them
//!   5 sealing   inode, length, time of change: the file is complete and is about to get its name
//! ```
//!
//! Chunks stand in the order of the plan, each after its bytes were written, so playing them back to a sink brings it to where it
//! was. What a crash tore is at the end, and ends the journal. Chunks after the last `durable` may be missing in the file after
//! a power cut: they are read back from it and compared with their digests, up to the first that differs.

use serde::{Deserialize, Serialize};

use super::output::Log;
use super::sink::{Form, Piece};
use crate::disk::Fingerprint;
use crate::error::{Error, Kind, Result};
use crate::limits::MAX_JOURNAL_RECORD;
use crate::session::Moment;

mod record;
mod scan;
mod scribe;

pub(super) use record::{Chunk, Record, Sealing};
pub(super) use scan::{Journal, Records, holder, moment, read_sealing};
pub(super) use scribe::{Interval, Scribe};

/// Version of the format, and of how sinks place what they are given.
const VERSION: u32 = 2;

/// What must be the same for a run to go on.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Header {
    version: u32,
    program: String,
    /// Format and options of the output.
    options: String,
    /// Length of the disk in bytes.
    len: u64,
    /// What identifies the source and what fixes made of it.
    source: [u8; 32],
    now: i64,
    seed: [u8; 32],
}

impl Header {
    pub(super) fn new(options: String, len: u64, source: Fingerprint, moment: Moment) -> Self {
        let program = env!("CARGO_PKG_VERSION").to_owned();
        Self { version: VERSION, program, options, len, source: source.0, now: moment.now, seed: moment.seed }
    }

    /// When the run began that wrote it, and its seed.
    fn moment(&self) -> Moment {
        Moment { now: self.now, seed: self.seed }
    }

    /// Refuses to go on with what `self` began as what `now` would be.
    fn check(&self, now: &Self) -> Result<()> {
        let (kind, what) = if (self.version, &self.program) != (now.version, &now.program) {
            (Kind::Usage, "another version of this program began the unfinished output")
        } else if self.options != now.options {
            (Kind::Usage, "the unfinished output was begun with other options")
        } else if (self.len, self.source) != (now.len, now.source) {
            (
                Kind::Unreadable,
                "the source, or what is taken of it, is not what it was when the unfinished output was begun",
            )
        } else if self.moment() != now.moment() {
            (Kind::Usage, "another command began the unfinished output")
        } else {
            return Ok(());
        };
        let error = Error::new(kind, "resume.changed", what)
            .hint("run the command as it was, or begin again with --restart, which discards what was done");
        Err(if self.options == now.options { error } else { error.expected(&self.options).found(&now.options) })
    }
}
