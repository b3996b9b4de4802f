//! What a format driver is: it answers where the bytes at an offset live, and reads nothing else.
//!
//! One [`crate::chain`] reader does bounds, recursion into parents, zero fill and the unit cache for all of them.

use std::fmt::Debug;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use crate::disk::{Disk, Feed, SectorSize, Stream};
use crate::error::{Error, Result};
use crate::session::Session;
use crate::source::Reference;

mod bitmap;
mod dirty;
mod finding;
mod pages;
pub mod probe;
pub mod qcow2;
pub mod raw;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;
mod windows;

pub use dirty::Bitmap;
pub use finding::{Finding, Report, Severity};
pub use probe::{FORMATS, Sample};

/// A format as the static table [`FORMATS`] lists it.
#[derive(Debug)]
pub struct Driver {
    /// The name that `--format` takes and `info` prints.
    pub name: &'static str,
    /// What the format is, for `--help` and the documentation.
    pub about: &'static str,
    /// Whether a file that begins (and ends) like this is of this format. Looks at magic numbers only.
    pub probe: fn(&Sample) -> bool,
    /// Reads the file's own header and says which other files the layer needs.
    pub open: fn(Arc<dyn Disk>, &Ask<'_>) -> Result<Head>,
    /// Reads a file that comes forward only, where the format allows that.
    pub feed: Option<OpenFeed>,
}

/// Reads the front of a stream, and gives the disk in it.
pub type OpenFeed = fn(Box<dyn Stream>, &Session) -> Result<Box<dyn Feed>>;

/// What a driver is asked for along with a file.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The run.
    pub session: &'a Arc<Session>,
    /// The state to read instead of the current one, by name or id, where the format keeps several (`--snapshot`). Only the
    /// topmost layer is ever asked for one; a driver without snapshots refuses.
    pub snapshot: Option<&'a str>,
}

impl<'a> Ask<'a> {
    /// For the current state.
    #[must_use]
    pub const fn current(session: &'a Arc<Session>) -> Self {
        Self { session, snapshot: None }
    }

    /// Refuses to look for a snapshot, for a format that keeps none.
    ///
    /// # Errors
    /// `format.snapshot` when one is asked for.
    pub fn without_snapshots(&self) -> Result<()> {
        match self.snapshot {
            None => Ok(()),
            Some(name) => {
                Err(Error::unsupported("format.snapshot", "the image's format keeps no snapshots in a file")
                    .found(name))
            }
        }
    }
}

/// A layer whose header is read and whose other files are yet to be opened: a driver names them, it cannot open them.
pub struct Head {
    /// Other files that hold bytes of this layer, each once.
    pub extents: Vec<Reference>,
    /// The layer below, if there is one.
    pub parent: Option<Parent>,
    /// Makes the layer, given the opened `extents` in their order.
    pub build: Box<Build>,
}

/// The layer below another, as that one describes it.
pub struct Parent {
    /// Names under which it may be found, the best first; never empty.
    pub names: Vec<Reference>,
    /// Whether an opened layer is the one that was meant: by its content id, its UUID or whatever else the format keeps.
    pub accept: Box<Accept>,
}

/// Tells whether a layer is the one that was meant.
pub type Accept = dyn Fn(&dyn Layer) -> Result<()> + Send;

impl Parent {
    /// A parent of which nothing but its name is known.
    #[must_use]
    pub fn by_name(name: Reference) -> Self {
        Self { names: vec![name], accept: Box::new(|_| Ok(())) }
    }
}

impl Debug for Parent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parent").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Makes a layer of opened files.
pub type Build = dyn FnOnce(Vec<Arc<dyn Disk>>) -> Result<Arc<dyn Layer>> + Send;

impl Head {
    /// The head of a layer that needs no other file.
    #[must_use]
    pub fn complete(layer: Arc<dyn Layer>) -> Self {
        Self { extents: Vec::new(), parent: None, build: Box::new(|_| Ok(layer)) }
    }
}

impl Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Head").field("extents", &self.extents).field("parent", &self.parent).finish_non_exhaustive()
    }
}

/// One layer of an image, opened: its page tables answer where bytes live.
pub trait Layer: Debug + Send + Sync + 'static {
    /// The format's name, as `info` prints it: `vmdk`, `qcow2`, `raw`.
    fn format(&self) -> &'static str;

    /// What a child keeps to recognise its parent by: a content id, a UUID, in the format's own notation.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Virtual size in bytes.
    fn len(&self) -> u64;

    /// Whether the layer has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Logical sector size.
    fn sector_size(&self) -> SectorSize {
        SectorSize::B512
    }

    /// Size in bytes of the unit of allocation (grain, cluster, block).
    fn unit_size(&self) -> u64;

    /// Where the bytes at `offset` live, for a run of 1 to `max` bytes; the run may be shorter than what lies there, never
    /// longer than `max`. `offset + max` is at most [`Layer::len`] and `max` is not 0. Reads page tables only.
    fn map(&self, offset: u64, max: u64) -> Result<Run>;

    /// Reads and decodes a unit that [`Layer::map`] gave, filling `out`, which is `unit.len` bytes long. The default is for
    /// layers that never give one.
    fn decode(&self, unit: &Unit, _out: &mut [u8]) -> Result<()> {
        Err(Error::failed("format.unit", format!("{} has no encoded units", self.format())).offset(unit.start))
    }

    /// The byte sources that `Place::Data` and units index.
    fn files(&self) -> &[Arc<dyn Disk>];

    /// What else `info` tells, as key and value, in the format's own terms.
    fn facts(&self) -> Vec<(&'static str, String)>;

    /// What the layer remembers of ranges that were written.
    fn bitmaps(&self) -> &[Bitmap] {
        &[]
    }

    /// Visits the ranges that bitmap `bitmap` of [`Layer::bitmaps`] says were written, in order and joined, from about the byte
    /// `from` on, until `visit` breaks. The first may begin before `from`, and is then not all of what was written there.
    fn dirty(&self, bitmap: usize, _from: u64, _visit: &mut dyn FnMut(Range<u64>) -> ControlFlow<()>) -> Result<()> {
        Err(Error::failed("format.unit", format!("{} has no bitmap {bitmap}", self.format())))
    }

    /// Walks the whole layer's encoded units and data runs in the order in which they lie in the source, for sources where
    /// that is the fast order. The default says that virtual order is as good.
    fn in_source_order(&self) -> bool {
        true
    }

    /// Verifies metadata and reports everything that is wrong, until `found` breaks; the `check` command. An error means that
    /// the check itself could not be done. The default finds nothing to verify.
    fn check(&self, _found: &mut Report<'_>) -> Result<()> {
        Ok(())
    }
}

/// A run of bytes in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Length in bytes, not 0.
    pub len: u64,
    /// Where they live.
    pub place: Place,
}

/// Where bytes live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// As they are, in `files()[file]` at `offset`.
    Data {
        /// Index into [`Layer::files`].
        file: usize,
        /// Offset of the run's first byte.
        offset: u64,
    },
    /// Inside a unit that must be decoded whole.
    Encoded(Unit),
    /// Not in this layer: the parent's bytes, or zeros where there is no parent or it is shorter.
    Parent,
    /// Zeros that this layer states.
    Zero,
}

/// A unit that is stored encoded: a compressed grain or cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Virtual offset of its first byte.
    pub start: u64,
    /// Decoded length in bytes, at most [`crate::limits::MAX_UNIT`]. The last unit may reach past the layer's end.
    pub len: u32,
    /// Index into [`Layer::files`].
    pub file: usize,
    /// Offset in that file of its first stored byte; identifies the unit within the layer.
    pub offset: u64,
    /// Stored bytes to read from there: exact, or an upper bound.
    pub stored: u32,
}
