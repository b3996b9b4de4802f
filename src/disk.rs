//! The central trait: a fixed number of bytes that many threads may read at once.
//!
//! Every box of the pipeline takes `Arc<dyn Disk>` and gives `Arc<dyn Disk>`, each wrapped in [`Checked`],
//! which alone checks ranges and counts bytes. Implementers may therefore assume that a range lies inside the disk.

use std::fmt::Debug;
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::error::Result;

pub(crate) mod bytes;
mod checked;
mod concat;
mod fault;
pub mod feed;
mod mapped;
mod memory;
pub(crate) mod ranges;
mod read_only;
mod slice;
mod zero;

pub use checked::{Checked, Stats, Traffic};
pub use concat::Concat;
pub use fault::{Fault, until_it_succeeds};
pub use feed::{Feed, Stream, read_full};
pub use mapped::{How, Mapped, Piece, Place};
pub use memory::Memory;
pub use read_only::ReadOnly;
pub use slice::Slice;
pub use zero::Zero;

/// A fixed number of bytes that many threads may read at once.
///
/// There is no write method here: what a source gives can only be read.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Length in bytes; constant while the value lives.
    fn len(&self) -> u64;

    /// Whether the disk has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logical sector size, a fact of the machine that the disk belonged to.
    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }

    /// Fills all of `buf` from `offset`, or fails; never short. The range lies inside the disk.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// Tells what `range` consists of, from metadata only: contiguous extents in order, exactly covering `range`;
    /// neighbours may be of one kind. Stops early when `visit` breaks.
    fn extents(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<()>;

    /// Visits where the bytes of `range` live in the boxes of [`Disk::below`], by their index: every copy of them. What is visited
    /// holds nothing but those bytes, so it is as free as they are. Nothing is visited where that cannot be said.
    fn homes(&self, _range: Range<u64>, _visit: &mut dyn FnMut(usize, Range<u64>)) {}

    /// Where the bytes from the start of `range` on, which is not empty, lie as they are in a file of this host: for all of `range`
    /// or a part from its start, never none of it. Nothing where they do not, or where somebody must see them pass.
    fn host(&self, _range: Range<u64>) -> Result<Option<HostRange>> {
        Ok(None)
    }

    /// A hint that `range` will be read soon. Returns at once.
    fn prefetch(&self, _range: Range<u64>) {}

    /// Preferred I/O size and latency class.
    fn hints(&self) -> Hints {
        Hints::default()
    }

    /// Different means changed; equal proves nothing.
    fn fingerprint(&self) -> Result<Fingerprint>;

    /// What this box is, for `explain`: a word for the kind and a label for the thing.
    fn describe(&self) -> (&'static str, String);

    /// What messages call the thing that has these bytes: a file or member. A box that only passes bytes on gives the name of
    /// what is below it.
    fn name(&self) -> String {
        self.describe().1
    }

    /// The boxes that this one reads from.
    fn below(&self) -> Vec<Arc<dyn Disk>> {
        Vec::new()
    }

    /// Bytes and calls so far, where they are counted.
    fn stats(&self) -> Option<Stats> {
        None
    }

    /// For a source on another machine: a digest of its whole address and of its state. The same in a later run only if the bytes
    /// are; nothing where a change of the source could pass unnoticed.
    fn origin(&self) -> Option<Fingerprint> {
        None
    }

    /// What went over the network so far, for a source on another machine.
    fn traffic(&self) -> Option<Traffic> {
        None
    }
}

/// What [`Disk::extents`] calls for each extent.
pub type Visit<'a> = dyn FnMut(Extent) -> ControlFlow<()> + 'a;

/// A disk that may change: overlays, memory, and boxes that pass writes on to them. No source is one.
pub trait DiskMut: Disk {
    /// Stores all of `data` at `offset`, inside the disk.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Makes `range` read as zeros.
    fn zero(&self, range: Range<u64>) -> Result<()>;

    /// Makes what was written durable, as far as the disk is.
    fn flush(&self) -> Result<()>;

    /// Whether writes can succeed at all.
    fn can_write(&self) -> bool {
        true
    }
}

/// Bytes as they are in a file of this host.
#[derive(Clone, Debug)]
pub struct HostRange {
    /// The file or device, open for reading.
    pub file: Arc<File>,
    /// Where they begin in it.
    pub offset: u64,
    /// How many there are, never none.
    pub len: u64,
}

/// A run of bytes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the disk, never empty.
    pub range: Range<u64>,
    /// What is there.
    pub kind: ExtentKind,
    /// Layers of the image chain below the topmost that the bytes come from; 0 is the top.
    pub depth: u32,
    /// Where the bytes start in the source that holds them, for reading in the source's order. Encoded bytes give the start
    /// of their unit.
    pub place: Option<u64>,
}

/// What an extent holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that must be read.
    Data,
    /// Zeros that some layer states explicitly.
    Zero,
    /// Nothing is allocated; reads as zeros.
    Hole,
}

impl ExtentKind {
    /// Whether the extent reads as zeros without a read.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        matches!(self, Self::Zero | Self::Hole)
    }
}

/// Logical sector size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SectorSize {
    /// 512 bytes.
    #[default]
    B512,
    /// 4096 bytes.
    B4096,
}

impl SectorSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

/// How a disk likes to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// Preferred request size in bytes; a grain or cluster for image formats.
    pub preferred: u32,
    /// How long a small read takes.
    pub latency: Latency,
}

impl Default for Hints {
    fn default() -> Self {
        Self { preferred: 64 << 10, latency: Latency::Local }
    }
}

/// The order of magnitude of a small read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latency {
    /// Nanoseconds.
    Memory,
    /// Microseconds.
    Local,
    /// Milliseconds.
    Remote,
}

/// A digest of what identifies a source's state (device, inode, size, mtime, ETag …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a list of facts.
    #[must_use]
    pub fn of(facts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for fact in facts {
            hasher.update(&(fact.len() as u64).to_le_bytes());
            hasher.update(fact);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The fingerprint of a box that reads from several others.
    pub fn of_disks<'a>(disks: impl IntoIterator<Item = &'a Arc<dyn Disk>>) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        for disk in disks {
            hasher.update(&disk.fingerprint()?.0);
        }
        Ok(Self(*hasher.finalize().as_bytes()))
    }
}

/// Visits `range` as one extent of `kind`.
pub fn whole(range: Range<u64>, kind: ExtentKind, place: Option<u64>, visit: &mut Visit<'_>) {
    if !range.is_empty() {
        let _ = visit(Extent { range, kind, depth: 0, place });
    }
}

/// All extents of `range` in a vector, for callers that know it to be short.
pub fn collect_extents(disk: &dyn Disk, range: Range<u64>) -> Result<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    disk.extents(range, &mut |extent| {
        extents.push(extent);
        ControlFlow::Continue(())
    })?;
    Ok(extents)
}

/// A disk that may change as one that is read.
#[must_use]
pub fn readable(disk: &Arc<dyn DiskMut>) -> Arc<dyn Disk> {
    let disk: Arc<dyn DiskMut> = Arc::clone(disk);
    disk
}

/// Reads `len` bytes at `offset` into a new vector. The caller bounds `len`.
pub fn read_vec(disk: &dyn Disk, offset: u64, len: usize) -> Result<Vec<u8>> {
    let mut buf = vec![0; len];
    disk.read_at(&mut buf, offset)?;
    Ok(buf)
}
