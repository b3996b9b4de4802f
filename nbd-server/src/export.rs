//! What a server serves: the trait, and the errors that a client can be told.

use std::fmt;
use std::io;
use std::ops::{ControlFlow, Range};

/// A fixed number of bytes that many threads may read, and write if it says so, at once.
///
/// The server checks every range before it calls: offsets lie inside `size()`, are aligned to `minimum_block()`, and no length
/// is zero. Calls come from blocking threads that belong to no async runtime, many at a time. A panic in a call fails that
/// request only.
pub trait Export: Send + Sync {
    /// Size in bytes, at most `i64::MAX`; constant while the value lives.
    fn size(&self) -> u64;

    /// Fills all of `buf` from `offset`, or fails; never short.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<(), Error>;

    /// Tells what `range` consists of, from metadata only: lengths in order, from `range.start` on. Neighbours may be of
    /// one kind, and the last may reach beyond the range. What is left out counts as data. Stops when `visit` breaks.
    ///
    /// It must be cheap: it is asked for every large read too.
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), Error> {
        let _ = visit(Extent { length: range.end.saturating_sub(range.start), kind: Allocation::Data });
        Ok(())
    }

    /// A hint that `range` will be read soon. Returns at once.
    fn prefetch(&self, _range: Range<u64>) {}

    /// Whether a read of `range` is likely to wait for nothing: neither a network, nor a disk, nor a long computation. Of several
    /// requests that arrive at once, those that are not quick go to other threads. A hint; the server also learns from the
    /// time that reads take, but a rare slow one among many quick ones would hold these up.
    fn is_quick(&self, _range: Range<u64>) -> bool {
        true
    }

    /// The request size in bytes that suits the export best: a grain or cluster. Clients are told the next power of two between
    /// 512 bytes and 32 MiB.
    fn preferred_block(&self) -> u32 {
        4096
    }

    /// The smallest unit in bytes that can be addressed: a power of two up to 64 KiB, of which `size()` is a multiple. Requests that
    /// are not aligned to it are refused.
    fn minimum_block(&self) -> u32 {
        1
    }

    /// One line for people, shown by listings.
    fn description(&self) -> String {
        String::new()
    }

    /// Whether one client may use several connections at once, see the same bytes on all, and flush on any of them what it wrote
    /// on others. True of every export without a cache for each connection.
    fn is_multi_conn(&self) -> bool {
        true
    }

    /// Whether clients may write. The methods below are called only if so.
    fn is_writable(&self) -> bool {
        false
    }

    /// Writes all of `buf` at `offset`, or fails. It may lie in a cache until [`Self::flush`].
    fn write_at(&self, _buf: &[u8], _offset: u64) -> Result<(), Error> {
        Err(Error::read_only())
    }

    /// Makes `range` read as zeros. [`Errno::NotSup`] lets the server write zeros instead, unless the client wants zeroing to be
    /// fast or not at all; then nothing may have changed.
    fn zero(&self, _range: Range<u64>, _how: Zero) -> Result<(), Error> {
        Err(Error::new(Errno::NotSup, "zeros must be written"))
    }

    /// Whether [`Self::trim`] does something.
    fn can_trim(&self) -> bool {
        false
    }

    /// A hint that nobody needs the bytes of `range` any more; what they read as afterwards is undefined.
    fn trim(&self, _range: Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    /// Returns once everything whose writing has returned before is on stable storage.
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The same for one range only, for requests that want it (FUA).
    fn persist(&self, _range: Range<u64>) -> Result<(), Error> {
        self.flush()
    }

    /// Meta contexts besides `base:allocation`, at most [`crate::limits::MAX_CONTEXTS`]; constant while the value lives.
    fn contexts(&self) -> Vec<Context> {
        Vec::new()
    }

    /// What `range` consists of in the context of this index in [`Self::contexts`]; as [`Self::extents`]. What is left out has
    /// flags of 0.
    fn status(&self, _context: usize, _range: Range<u64>, _visit: &mut VisitStatus<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// How to make zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zero {
    /// Whether the range may become a hole; otherwise it shall keep taking up space.
    pub may_punch: bool,
    /// Whether to fail with [`Errno::NotSup`] at once unless it is faster than writing zeros.
    pub fast: bool,
}

/// A meta context that an export has besides `base:allocation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// A namespace, a colon, and a name within it, such as `qemu:dirty-bitmap:monday`: at most 4096 bytes in all.
    pub name: String,
    /// What becomes of a block that consists of several extents.
    pub combine: Combine,
}

/// What flags describe several extents together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Those that all have, as in `base:allocation`: flags are promises.
    All,
    /// Those that any has, as in a dirty bitmap: flags are warnings.
    Any,
    /// The largest number, as in `qemu:allocation-depth`.
    Largest,
}

impl Combine {
    pub(crate) fn apply(self, a: u64, b: u64) -> u64 {
        match self {
            Self::All => a & b,
            Self::Any => a | b,
            Self::Largest => a.max(b),
        }
    }
}

/// What [`Export::status`] calls for each extent.
pub type VisitStatus<'a> = dyn FnMut(Status) -> ControlFlow<()> + 'a;

/// A run of bytes with the same flags in some meta context, which starts where the one before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// In bytes.
    pub length: u64,
    /// What they mean is the context's business. Clients without extended headers are told the lower 32 bits, so contexts
    /// should not need more.
    pub flags: u64,
}

/// What [`Export::extents`] calls for each extent.
pub type Visit<'a> = dyn FnMut(Extent) -> ControlFlow<()> + 'a;

/// A run of bytes of one kind, which starts where the one before it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// In bytes.
    pub length: u64,
    /// What is there.
    pub kind: Allocation,
}

/// What an extent holds, as the meta context `base:allocation` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Bytes that must be read.
    Data,
    /// Zeros that take up space or are stated explicitly.
    Zero,
    /// Nothing is allocated; reads as zeros.
    Hole,
}

impl Allocation {
    /// What flags of `base:allocation` stand for. A hole that does not read as zeros is data to a reader.
    #[must_use]
    pub const fn of(flags: u64) -> Self {
        match flags & 3 {
            3 => Self::Hole,
            2 => Self::Zero,
            _ => Self::Data,
        }
    }

    /// Whether it reads as zeros.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self, Self::Zero | Self::Hole)
    }

    /// The flags of `base:allocation`: 1 is `NBD_STATE_HOLE`, 2 is `NBD_STATE_ZERO`.
    #[must_use]
    pub const fn flags(self) -> u32 {
        match self {
            Self::Data => 0,
            Self::Zero => 2,
            Self::Hole => 3,
        }
    }
}

/// The error numbers of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Errno {
    /// `NBD_EPERM`: not permitted, as a write to a read-only export.
    Perm,
    /// `NBD_EIO`: the bytes cannot be had.
    Io,
    /// `NBD_ENOMEM`: no memory for the request.
    NoMem,
    /// `NBD_EINVAL`: the request makes no sense.
    Inval,
    /// `NBD_ENOSPC`: no space left.
    NoSpc,
    /// `NBD_EOVERFLOW`: the answer would be too large.
    Overflow,
    /// `NBD_ENOTSUP`: not supported.
    NotSup,
    /// `NBD_ESHUTDOWN`: the server is shutting down.
    Shutdown,
}

impl Errno {
    /// As it stands in a reply.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Io => 5,
            Self::NoMem => 12,
            Self::Inval => 22,
            Self::NoSpc => 28,
            Self::Overflow => 75,
            Self::NotSup => 95,
            Self::Shutdown => 108,
        }
    }

    /// What a number in a reply stands for; numbers that the protocol does not know are [`Self::Inval`], as it has it.
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            1 => Self::Perm,
            5 => Self::Io,
            12 => Self::NoMem,
            28 => Self::NoSpc,
            75 => Self::Overflow,
            95 => Self::NotSup,
            108 => Self::Shutdown,
            _ => Self::Inval,
        }
    }
}

/// Why a request failed: a number for the client's program and a line for its user.
///
/// The message travels to the client, so it should say nothing about this host that the client may not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    message: String,
}

impl Error {
    /// An error with a number and a message.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into() }
    }

    /// [`Errno::Io`] with a message: the usual one.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(Errno::Io, message)
    }

    pub(crate) fn read_only() -> Self {
        Self::new(Errno::Perm, "the export is read-only")
    }

    /// The number.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.errno
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (NBD error {})", self.message, self.errno.number())
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let errno = match error.kind() {
            io::ErrorKind::PermissionDenied => Errno::Perm,
            io::ErrorKind::OutOfMemory => Errno::NoMem,
            io::ErrorKind::InvalidInput => Errno::Inval,
            io::ErrorKind::StorageFull => Errno::NoSpc,
            io::ErrorKind::Unsupported => Errno::NotSup,
            _ => Errno::Io,
        };
        Self::new(errno, error.to_string())
    }
}
