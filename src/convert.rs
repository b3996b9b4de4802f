//! The one pass: reads the final disk once, writes the output, reads that back, and only then gives it its name.
//!
//! ```text
//! extents ─► plan ─► read, find zeros, digest, encode (all threads) ─► place and write (in order) ─► sync
//!                                                                                                     │
//!                                     rename, sync the directory ◄── compare digests ◄── read back ◄──┘
//! ```
//!
//! [`run`] does all of it. For several disks, [`prepare`] each, then copy and verify each, and seal them only when all of them
//! are verified. What was written is noted in a journal beside the output, so that a run that was killed, or that ended with an
//! error that may pass ([`is_resumable`]), is gone on with by the next one; after any other error nothing is left behind.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::disk::{Checked, Concat, Disk, Feed, Fingerprint, Zero};
use crate::error::{Error, Kind, Result};
use crate::limits::MAX_DISK_LEN;
use crate::session::Session;
use crate::source::Address;

mod copy;
pub mod deflate;
mod device;
mod digest;
mod gather;
mod increment;
mod journal;
mod ordered;
mod output;
mod plan;
mod progress;
#[doc(hidden)]
pub mod replay;
mod seal;
mod share;
mod sink;
mod space;
mod stream;
mod target;
mod upload;
mod verify;

pub use progress::{Phase, Progress, Update};
pub use sink::ova::{OvaDisk, OvaOptions};
pub use sink::qcow2::{BackingName, Compression, Preallocation, Qcow2Options};
pub use sink::raw::{RawOptions, RawPreallocation};
pub use sink::vdi::VdiOptions;
pub use sink::vhd::{VhdOptions, VhdSubformat};
pub use sink::vhdx::VhdxOptions;
pub use sink::vmdk::VmdkOptions;
pub use space::check_space;
pub use target::{Format, TARGETS, Target, side_by_side};

use copy::Copy;
use device::Device;
use gather::{Gather, Passing};
use increment::Increment;
use journal::{Header, Interval, Journal, Scribe};
use output::{Output, Surface};
use seal::Partial;
use share::Sharing;
use sink::{Make, Sink};
use stream::Stream;
use upload::Object;

/// What to write and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Format of the output, with the options of its own.
    pub format: Format,
    /// The disk in the backing file that the format's options name; only what differs from it is written.
    pub base: Option<Arc<dyn Disk>>,
    /// Virtual size of the output in bytes, if it is to be larger than the source; whole sectors.
    pub size: Option<u64>,
    /// Whether the output is read back and compared before it gets its name.
    pub verify: bool,
    /// Whether an existing output is replaced.
    pub force: bool,
    /// Whether what an unfinished run left is discarded instead of gone on with.
    pub restart: bool,
    /// Most bytes to read from the source in a second.
    pub rate_limit: Option<NonZeroU64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            format: Format::default(),
            base: None,
            size: None,
            verify: true,
            force: false,
            restart: false,
            rate_limit: None,
        }
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
    /// the order of reading; [`Verification::Passed`] says that the output has the same one. Nothing when some of it was not
    /// read but shared with the source's file, which happens only when verification is off.
    pub digest: Option<String>,
    /// Whether the output was read back.
    pub verification: Verification,
    /// How long each phase took.
    pub times: Times,
}

/// Where the bytes of a disk went. `read` + `resumed` + `hole` is the whole disk, but for what is shared without being read, when
/// verification is off. What was read is `written`, `shared` or `zero`; where clusters are larger than 64 KiB, zeros that were
/// never read are written with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Read from the source.
    pub read: u64,
    /// Written to the output, tables not counted.
    pub written: u64,
    /// Shared with the source's file by the file system, instead of being written.
    pub shared: u64,
    /// Read, found to be zeros, and left out.
    pub zero: u64,
    /// Known to be zeros and never read.
    pub hole: u64,
    /// Read by an earlier run that did not get to its end, and not again.
    pub resumed: u64,
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

/// Converts `source` into the file or device `target`. Nothing appears under that name unless all of it succeeds.
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

/// Where an output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// A file or block device.
    Path(&'a Path),
    /// An export of an NBD server, as a device is one.
    Export(&'a Address),
    /// An object of S3.
    Object(&'a Address),
    /// Standard output, which cannot be read back: [`Options::verify`] says nothing then.
    Stdout,
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Place<'a> {
    fn from(path: &'a P) -> Self {
        Self::Path(path.as_ref())
    }
}

/// Claims `target`, walks the source's map and checks that there is room, before the first byte is written.
///
/// # Errors
/// `output.exists`, `output.locked`, `output.in-use`, `output.stale`, `output.space`, `output.terminal`, `convert.stream` when the
/// format needs a way back and there is none, `convert.size`, those of the format's options and those of reading the map.
pub fn prepare<'a>(
    source: Arc<dyn Disk>,
    target: impl Into<Place<'a>>,
    options: &Options,
    session: &Arc<Session>,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let (output, options) = claim(target.into(), &*source, options, session)?;
    let ends = Ends::new(source, Arc::clone(&output));
    prepare_output(ends, &options, Interval::default(), session, progress).inspect_err(|error| give_up(&*output, error))
}

/// [`prepare`] for a disk that comes forward only. A later run cannot go on with it. Its length is what it says itself, else
/// [`Options::size`] exactly.
///
/// # Errors
/// `feed.length` when neither is known, `convert.options` for an increment, and those of [`prepare`].
pub fn prepare_feed<'a>(
    feed: Box<dyn Feed>,
    target: impl Into<Place<'a>>,
    options: &Options,
    session: &Arc<Session>,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let len = feed.disk_len().or(options.size).ok_or_else(|| {
        Error::new(Kind::Usage, "feed.length", "nothing says how long the disk is before it ended")
            .at(feed.name())
            .hint("give its length with --size, or save it to a file and name that as the source")
    })?;
    if options.base.is_some() {
        return Err(Error::new(
            Kind::Usage,
            "convert.options",
            "an increment needs a source that can be asked what it holds",
        )
        .at(feed.name()));
    }
    let source: Arc<dyn Disk> = Checked::wrap(Passing { len, name: feed.name() });
    let size = options.size.filter(|_| feed.disk_len().is_some());
    let options = Options { restart: true, size, ..options.clone() };
    let (output, options) = claim(target.into(), &*source, &options, session)?;
    let ends = Ends { source, feed: Some(Gather::new(feed, len)), output };
    prepare_output(ends, &options, Interval::default(), session, progress)
}

/// The output for a copy of `source`, and the options as far as they can be had there.
fn claim(
    target: Place<'_>,
    source: &dyn Disk,
    options: &Options,
    session: &Arc<Session>,
) -> Result<(Arc<dyn Output>, Options)> {
    let mut options = options.clone();
    let output: Arc<dyn Output> = match target {
        Place::Stdout => {
            options.format.check(Surface::Stream)?;
            options.verify = false;
            Arc::new(Stream::stdout(session)?)
        }
        Place::Export(address) => {
            options.format.check(Surface::Used)?;
            Arc::new(Device::claim_export(address, options.force, options.verify, source, session)?)
        }
        Place::Object(address) => {
            options.format.check(Surface::Parts)?;
            let len = source.len().max(options.size.unwrap_or(0));
            Arc::new(Object::claim(address, options.force, source, len, session)?)
        }
        Place::Path(path) if device::is_device(path) => {
            options.format.check(Surface::Used)?;
            Arc::new(Device::claim(path, options.force, source, session)?)
        }
        Place::Path(path) => Arc::new(Partial::create(path, options.force, options.restart)?),
    };
    Ok((output, options))
}

/// What is copied, and where to.
struct Ends {
    source: Arc<dyn Disk>,
    /// What gives the source's bytes, if it cannot be read itself.
    feed: Option<Gather>,
    output: Arc<dyn Output>,
}

impl Ends {
    fn new(source: Arc<dyn Disk>, output: Arc<dyn Output>) -> Self {
        Self { source, feed: None, output }
    }
}

/// [`prepare`] for an output that is claimed already.
fn prepare_output(
    Ends { source, feed, output }: Ends,
    options: &Options,
    interval: Interval,
    session: &Arc<Session>,
    progress: &dyn Progress,
) -> Result<Prepared> {
    let start = Instant::now();
    progress.update(&Update::start(Phase::Plan, 0));
    let mut source = grown(source, options.size, options.format.size_unit())?;
    if let Some(base) = &options.base {
        source = Checked::wrap(Increment { top: source, base: Arc::clone(base) });
    }
    if let Some(most) =
        output.capacity().filter(|most| matches!(options.format, Format::Raw(_)) && source.len() > *most)
    {
        return Err(Error::new(Kind::NoSpace, "output.space", "the output is smaller than the disk")
            .at(output.name())
            .expected(format!("at least {} bytes", source.len()))
            .found(most)
            .hint("choose a larger one, or let this one grow"));
    }
    let fingerprint = source.fingerprint()?;
    let sharing = match options.format.takes_plain() && options.base.is_none() && feed.is_none() {
        true => Sharing::find(&*source, &*output, !options.verify),
        false => Sharing::default(),
    };
    let journal = match feed {
        Some(_) => None,
        None => {
            let identity = options.identity(&sharing);
            open_journal(&*output, (source.len(), fingerprint), identity, session)?
        }
    };
    let mut sink = options.format.sink(&Make::of(&*source, &*output)?)?;
    let free = output.free_space()?.map(|free| free.saturating_add(output.allocated()));
    // What an increment or a feed takes is known when all is read.
    let free = free.filter(|_| options.base.is_none() && feed.is_none());
    let needs = space::needs(&*source, &*sink, &sharing, free, session).map_err(|error| match error.kind() {
        Kind::NoSpace => error.at(output.name()),
        _ => error,
    })?;
    sink.begin(&*output)?;
    Ok(Prepared {
        job: Job {
            source,
            fingerprint,
            output,
            options: options.clone(),
            session: Arc::clone(session),
            times: Times { plan: start.elapsed(), ..Times::default() },
        },
        sink,
        sharing,
        needs,
        journal: journal.map(|journal| (journal, interval)),
        feed,
    })
}

/// The journal of `output`, begun or gone on with; `disk` is the source's length and fingerprint, `identity` that of the options.
fn open_journal(
    output: &dyn Output,
    disk: (u64, Fingerprint),
    identity: String,
    session: &Session,
) -> Result<Option<Journal>> {
    let Some(log) = output.log() else { return Ok(None) };
    if let Some(moment) = journal::moment(log)? {
        session.resume(moment);
        output.keep(true);
    }
    let header = Header::new(identity, disk.0, disk.1, session.moment());
    let journal = Journal::open(log, &header).map_err(|error| error.at(output.name()))?;
    if journal.chunks.count == 0 {
        output.set_len(0)?;
    }
    Ok(Some(journal))
}

/// Whether the same command can go on after such an error. What is left for it is removed in all other cases.
#[must_use]
pub fn is_resumable(error: &Error) -> bool {
    match error.kind() {
        Kind::Unreadable => error.code() != "source.changed",
        Kind::Exists | Kind::Failed | Kind::Interrupted | Kind::NoSpace => true,
        _ => error.code() == "resume.changed",
    }
}

/// Forgets that `target` got its name in a run that died right after: everything that belongs to it has its name, too.
pub fn forget(target: &Path) {
    seal::forget(target);
}

/// Lets `session` go on with the time and seed of the run that left one of `targets` unfinished, if there is one.
pub fn resume(targets: &[PathBuf], session: &Session) {
    if let Some(moment) = targets.iter().find_map(|target| seal::moment(target)) {
        session.resume(moment);
    }
}

/// Whether `target` got its name in a run that died before its end. [`prepare`] takes it back, unless it was changed since.
#[must_use]
pub fn is_unfinished(target: &Path) -> bool {
    seal::is_unfinished(target)
}

/// Bytes of options that a journal holds as they are; of longer ones it holds a digest.
const LONGEST_IDENTITY: usize = 512;

impl Options {
    /// What decides about the bytes of the output, as text.
    fn identity(&self, sharing: &Sharing) -> String {
        let neutral = Self { base: None, verify: true, force: false, restart: false, rate_limit: None, ..self.clone() };
        // What is not read is not searched for zeros, and has no digest.
        let unread = if sharing.unread { ", shared unread" } else { "" };
        let text = format!("{neutral:?}{unread}");
        // A package's options hold a machine, of which a stranger's descriptor says how long its names are.
        if text.len() <= LONGEST_IDENTITY { text } else { format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()) }
    }
}

/// The disk with zeros behind it, up to `size` or to the next sector, since no guest can be given part of one, or multiple of
/// `unit`, a power of two.
fn grown(source: Arc<dyn Disk>, size: Option<u64>, unit: u64) -> Result<Arc<dyn Disk>> {
    let len = source.len();
    if len == 0 {
        return Err(Error::unsupported("convert.empty", "the disk has no bytes").at(source.name()));
    }
    let sector = source.sector_size().bytes().max(unit);
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
    /// Its fingerprint before the first byte was read.
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
    sharing: Sharing,
    needs: space::Needs,
    journal: Option<(Journal, Interval)>,
    feed: Option<Gather>,
}

impl Prepared {
    /// What is being written, for whoever has to give it up for a reason of their own.
    #[must_use]
    pub fn unfinished(&self) -> Unfinished {
        Unfinished(Arc::clone(&self.job.output))
    }

    /// Copies everything and waits until it is durable.
    ///
    /// # Errors
    /// Those of reading and writing, `source.changed`, and interruption.
    pub fn copy(self, progress: &dyn Progress) -> Result<Copied> {
        let output = Arc::clone(&self.job.output);
        self.try_copy(progress).inspect_err(|error| give_up(&*output, error))
    }

    fn try_copy(self, progress: &dyn Progress) -> Result<Copied> {
        let Self { mut job, mut sink, sharing, needs, journal, feed } = self;
        let start = Instant::now();
        job.session.begin_streaming();
        let (rate, total) = (job.options.rate_limit, needs.read);
        let (source, base, output) = (&*job.source, job.options.base.as_deref(), &job.output);
        let copy = Copy { source, sink: &mut *sink, output, base, sharing: &sharing, total, rate, journal, feed };
        let (copied, scribe) = copy.run(&job.session, progress)?;
        if job.source.fingerprint()? != job.fingerprint {
            return Err(Error::new(Kind::Unreadable, "source.changed", "the source changed while it was copied")
                .at(job.source.name())
                .hint("convert a snapshot, or stop what writes to it"));
        }
        let file_len = sink.finish(&*job.output)?;
        job.times.copy = start.elapsed();

        let start = Instant::now();
        progress.update(&Update::start(Phase::Sync, 0));
        match &scribe {
            Some(scribe) => scribe.finish()?,
            None => job.output.sync()?,
        }
        job.times.sync = start.elapsed();
        Ok(Copied { job, sink, file_len, scribe, copied })
    }
}

/// An output that is being written.
#[derive(Debug)]
pub struct Unfinished(Arc<dyn Output>);

impl Unfinished {
    /// Removes the output when it is dropped, if the same command cannot go on after `error`.
    pub fn give_up(&self, error: &Error) {
        give_up(&*self.0, error);
    }
}

/// Removes what was done when no later run can go on with it.
fn give_up(output: &dyn Output, error: &Error) {
    if !is_resumable(error) {
        output.keep(false);
    }
}

/// An output that is complete and durable, and has no name yet.
#[derive(Debug)]
pub struct Copied {
    job: Job,
    sink: Box<dyn Sink>,
    file_len: u64,
    scribe: Option<Scribe>,
    copied: copy::Done,
}

impl Copied {
    /// Reads the output back by its own map and compares it with what was read, unless that is turned off.
    ///
    /// # Errors
    /// `verify.mismatch` with the first range that differs, those of reading, and interruption.
    pub fn verify(self, progress: &dyn Progress) -> Result<Verified> {
        let output = Arc::clone(&self.job.output);
        self.try_verify(progress).inspect_err(|error| give_up(&*output, error))
    }

    fn try_verify(mut self, progress: &dyn Progress) -> Result<Verified> {
        let Some(content) = self.copied.content.as_ref().filter(|_| self.job.options.verify) else {
            return Ok(Verified { copied: self, verification: Verification::Off });
        };
        let start = Instant::now();
        let job = &self.job;
        let file = job.output.reopen()?;
        let back = job.options.format.open(Arc::clone(&file), job.options.base.as_ref(), &job.session)?;
        verify::content(&*job.source, &*back, content, self.copied.stored, &job.session, progress)?;
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
    /// Gives the output its name, durably, and forgets how it came about.
    ///
    /// # Errors
    /// Those of [`Verified::name`].
    pub fn seal(self, progress: &dyn Progress) -> Result<Outcome> {
        Ok(self.name(progress)?.commit())
    }

    /// Gives the output its name, durably. A run that dies before [`Named::commit`] is gone on with by the next one.
    ///
    /// # Errors
    /// `output.exists` when the name was taken meanwhile, and those of the file system.
    pub fn name(self, progress: &dyn Progress) -> Result<Named> {
        let Self { copied: Copied { mut job, file_len, scribe, copied, .. }, verification } = self;
        let start = Instant::now();
        progress.update(&Update::start(Phase::Seal, 0));
        if let Some(scribe) = scribe {
            scribe.sealing()?;
        }
        let path = job.output.publish(job.options.force)?;
        job.times.seal = start.elapsed();
        let (len, bytes) = (job.source.len(), copied.bytes);
        let digest = copied.content.map(|content| blake3::Hash::from_bytes(content.total()).to_hex().to_string());
        let outcome = Outcome { path, len, bytes, file_len, digest, verification, times: job.times };
        Ok(Named { outcome, output: job.output })
    }
}

/// An output that has its name, while those that belong to it may not.
#[derive(Debug)]
pub struct Named {
    outcome: Outcome,
    output: Arc<dyn Output>,
}

impl Named {
    /// What was done.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Forgets how the output came about: everything that belongs to it has its name.
    #[must_use]
    pub fn commit(self) -> Outcome {
        self.output.forget();
        self.outcome
    }
}

#[cfg(test)]
mod tests;
