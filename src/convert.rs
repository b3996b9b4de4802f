//! The one pass: reads the final disk once, writes the output, reads that back, and only then gives it its name.
//!
//! ```text
//! extents ─► plan ─► read, find zeros, digest, encode (all threads) ─► place and write (in order) ─► sync
//!                                                                                                     │
//!                                     rename, sync the directory ◄── compare digests ◄── read back ◄──┘
//! ```
//!
//! [`run`] does all of it. For several disks, [`prepare`] each, then copy and verify each, and seal them only when all of them
//! are verified. Whatever is dropped before it is sealed leaves nothing behind.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Checked, Concat, Disk, Fingerprint, Zero};
use crate::error::{Error, Kind, Result};
use crate::limits::MAX_DISK_LEN;
use crate::session::Session;

mod copy;
mod digest;
mod ordered;
mod output;
mod plan;
mod progress;
mod seal;
mod sink;
mod space;
mod target;
mod verify;

pub use progress::{Phase, Progress, Update};
pub use sink::qcow2::Qcow2Options;
pub use sink::raw::RawOptions;
pub use space::check_space;
pub use target::{Format, TARGETS, Target};

use copy::Pace;
use digest::Content;
use output::Output;
use seal::Partial;
use sink::Sink;

/// What to write and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the output, with the options of its own.
    pub format: Format,
    /// Virtual size of the output in bytes, if it is to be larger than the source; whole sectors.
    pub size: Option<u64>,
    /// Whether the output is read back and compared before it gets its name.
    pub verify: bool,
    /// Whether an existing output is replaced.
    pub force: bool,
    /// Most bytes to read from the source in a second.
    pub rate_limit: Option<NonZeroU64>,
}

impl Default for Options {
    fn default() -> Self {
        Self { format: Format::default(), size: None, verify: true, force: false, rate_limit: None }
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The output under its final name.
    pub path: PathBuf,
    /// Virtual size of the output in bytes: the source's, rounded up to whole sectors.
    pub len: u64,
    /// Bytes of the disk that went where.
    pub bytes: Bytes,
    /// Length of the output file in bytes, tables included.
    pub file_len: u64,
    /// Digest of the disk's content as it was read, in hexadecimal. It depends on the content only, not on formats, holes or
    /// the order of reading; [`Verification::Passed`] says that the output has the same one.
    pub digest: String,
    /// Whether the output was read back.
    pub verification: Verification,
    /// How long each phase took.
    pub times: Times,
}

/// Where the bytes of a disk went. `read` + `hole` is the whole disk. `read` is `written` + `zero`, or less where clusters
/// are larger than 64 KiB and so are written with zeros that were never read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Read from the source.
    pub read: u64,
    /// Written to the output, tables not counted.
    pub written: u64,
    /// Read, found to be zeros, and left out.
    pub zero: u64,
    /// Known to be zeros and never read.
    pub hole: u64,
}

/// Whether an output was verified. A digest of the output, taken by its own map through its own reader, equals the digest of
/// what was read, and its tables are those that were written: the output is what was read. That the source's map told the
/// truth is not proven by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// It was not asked for.
    Off,
    /// It holds what was read.
    Passed,
}

/// How long each phase took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Walking the source's map and checking the space.
    pub plan: Duration,
    /// Reading and writing.
    pub copy: Duration,
    /// Waiting for the output to be durable.
    pub sync: Duration,
    /// Reading the output back.
    pub verify: Duration,
    /// Giving it its name.
    pub seal: Duration,
}

/// Converts `source` into the file `target`. Nothing appears under that name unless all of it succeeds.
///
/// # Errors
/// Those of [`prepare`], [`Prepared::copy`], [`Copied::verify`] and [`Verified::seal`].
pub fn run(
    source: Arc<dyn Disk>,
    target: &Path,
    options: &Options,
    session: &Arc<Session>,
    progress: &dyn Progress,
) -> Result<Outcome> {
    prepare(source, target, options, session, progress)?.copy(progress)?.verify(progress)?.seal(progress)
}

/// Claims `target`, walks the source's map and checks that there is room, before the first byte is written.
///
/// # Errors
/// `output.exists`, `output.locked`, `output.stale`, `output.space`, `convert.size`, those of the format's options and those of
/// reading the map.
pub fn prepare(
    source: Arc<dyn Disk>,
    target: &Path,
    options: &Options,
    session: &Arc<Session>,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let output = Partial::create(target, options.force)?;
    prepare_output(source, Arc::new(output), options, session, progress)
}

/// [`prepare`] for an output that is claimed already.
fn prepare_output(
    source: Arc<dyn Disk>,
    output: Arc<dyn Output>,
    options: &Options,
    session: &Arc<Session>,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let start = Instant::now();
    progress.update(&Update::start(Phase::Plan, 0));
    let (given, fingerprint) = (Arc::clone(&source), source.fingerprint()?);
    let source = grown(source, options.size)?;
    let mut sink = options.format.sink(source.len())?;
    let free = output.free_space()?;
    let needs = space::needs(&*source, &*sink, free, session).map_err(|error| match error.kind() {
        Kind::NoSpace => error.at(output.name()),
        _ => error,
    })?;
    sink.begin(&*output)?;
    Ok(Prepared {
        job: Job {
            source,
            given,
            fingerprint,
            output,
            options: options.clone(),
            session: Arc::clone(session),
            times: Times { plan: start.elapsed(), ..Times::default() },
        },
        sink,
        needs,
    })
}

/// The disk with zeros behind it, up to `size` or to the next sector: no guest can be given part of one.
fn grown(source: Arc<dyn Disk>, size: Option<u64>) -> Result<Arc<dyn Disk>> {
    let len = source.len();
    if len == 0 {
        return Err(Error::unsupported("convert.empty", "the disk has no bytes").at(source.name()));
    }
    let sector = source.sector_size().bytes();
    let least = len.next_multiple_of(sector);
    let size = size.unwrap_or(least);
    if size < least || !size.is_multiple_of(sector) || size > MAX_DISK_LEN {
        return Err(Error::new(Kind::Usage, "convert.size", "the disk cannot get this size")
            .at(source.name())
            .expected(format!("at least {least} bytes, in sectors of {sector}"))
            .found(size)
            .hint("disks grow on the way, and are never cut"));
    }
    if size == len {
        return Ok(source);
    }
    let zeros: Arc<dyn Disk> = Checked::wrap(Zero { len: size - len });
    let label = source.name();
    Ok(Checked::wrap(Concat::new(label, vec![source, zeros])))
}

/// What every stage needs.
#[derive(Debug)]
struct Job {
    /// What is copied: whole sectors.
    source: Arc<dyn Disk>,
    /// The source as it was given, and its fingerprint before the first byte was read.
    given: Arc<dyn Disk>,
    fingerprint: Fingerprint,
    output: Arc<dyn Output>,
    options: Options,
    session: Arc<Session>,
    times: Times,
}

/// An output that is claimed and known to fit.
#[derive(Debug)]
pub struct Prepared {
    job: Job,
    sink: Box<dyn Sink>,
    needs: space::Needs,
}

impl Prepared {
    /// Copies everything and waits until it is durable.
    ///
    /// # Errors
    /// Those of reading and writing, `source.changed`, and interruption.
    pub fn copy(self, progress: &dyn Progress) -> Result<Copied> {
        let Self { mut job, mut sink, needs } = self;
        let start = Instant::now();
        job.session.begin_streaming();
        let pace = Pace::new(job.options.rate_limit);
        let to: &mut dyn Sink = &mut *sink;
        let copied = copy::copy(&*job.source, (to, &*job.output), needs.read, &pace, &job.session, progress)?;
        if job.given.fingerprint()? != job.fingerprint {
            return Err(Error::new(Kind::Unreadable, "source.changed", "the source changed while it was copied")
                .at(job.source.name())
                .hint("convert a snapshot, or stop what writes to it"));
        }
        let file_len = sink.finish(&*job.output)?;
        job.times.copy = start.elapsed();

        let start = Instant::now();
        progress.update(&Update::start(Phase::Sync, 0));
        job.output.sync()?;
        job.times.sync = start.elapsed();
        Ok(Copied { job, sink, file_len, content: copied.content, bytes: copied.bytes })
    }
}

/// An output that is complete and durable, and has no name yet.
#[derive(Debug)]
pub struct Copied {
    job: Job,
    sink: Box<dyn Sink>,
    file_len: u64,
    content: Content,
    bytes: Bytes,
}

impl Copied {
    /// Reads the output back by its own map and compares it with what was read, unless that is turned off.
    ///
    /// # Errors
    /// `verify.mismatch` with the first range that differs, those of reading, and interruption.
    pub fn verify(mut self, progress: &dyn Progress) -> Result<Verified> {
        if !self.job.options.verify {
            return Ok(Verified { copied: self, verification: Verification::Off });
        }
        let start = Instant::now();
        let job = &self.job;
        let file = job.output.reopen()?;
        let back = job.options.format.open(Arc::clone(&file), &job.session)?;
        verify::content(&*job.source, &*back, &self.content, self.bytes.written, &job.session, progress)?;
        verify::tables(&*self.sink, &*file)?;
        self.job.times.verify = start.elapsed();
        Ok(Verified { copied: self, verification: Verification::Passed })
    }
}

/// An output that may get its name.
#[derive(Debug)]
pub struct Verified {
    copied: Copied,
    verification: Verification,
}

impl Verified {
    /// Gives the output its name, durably.
    ///
    /// # Errors
    /// `output.exists` when the name was taken meanwhile, and those of the file system.
    pub fn seal(self, progress: &dyn Progress) -> Result<Outcome> {
        let Self { copied: Copied { mut job, file_len, content, bytes, .. }, verification } = self;
        let start = Instant::now();
        progress.update(&Update::start(Phase::Seal, 0));
        let path = job.output.publish(job.options.force)?;
        job.times.seal = start.elapsed();
        let digest = blake3::Hash::from_bytes(content.total()).to_hex().to_string();
        Ok(Outcome { path, len: content.len(), bytes, file_len, digest, verification, times: job.times })
    }
}

#[cfg(test)]
mod tests;
