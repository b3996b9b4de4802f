//! What an output format does: it says where each piece of the disk goes in the file, and writes its own tables.
//!
//! The engine reads a chunk, looks for zeros, cuts what is left into pieces of whole granules and has them encoded, all of it on
//! many threads. Then, one chunk at a time and in the order of the plan, [`Sink::place`] says where the pieces go and the engine
//! writes them, before the next chunk is placed. So a format may append, and needs to know nothing of threads.
//!
//! | the format wants | it says |
//! |---|---|
//! | fixed places (raw, VHD fixed) | hosts that follow from `start`; [`Sink::begin`] sets the length, [`Sink::finish`] writes the footer |
//! | blocks larger than a chunk (VHDX) | a map of blocks to places of its own; a piece lies anywhere in a block, the rest of which is a hole |
//! | encoded units (compressed clusters, grains) | [`Sink::encoder`]; pieces then come one granule each, with [`Form::Encoded`] |
//! | a file without a way back (pipes, streamOptimized) | [`Order::Disk`], and hosts that ascend without a gap, its own writes included |
//! | zeros in the file, not holes | [`Zeros::Plain`] |
//! | zeros that hide a backing file | [`Zeros::Explicit`] |

use std::fmt::Debug;

use super::output::{Output, Surface};
use crate::disk::bytes::array;
use crate::disk::{Disk, Fingerprint, SectorSize};
use crate::error::Result;

mod filler;
pub(super) mod ova;
pub(super) mod qcow2;
pub(super) mod raw;
mod table;
pub(super) mod vdi;
pub(super) mod vhd;
pub(super) mod vhdx;
pub(super) mod vmdk;

use filler::Filler;

/// What a sink is made for.
#[derive(Clone, Debug)]
pub(super) struct Make {
    /// Bytes of the disk: whole sectors, not 0.
    pub(super) len: u64,
    /// The disk's logical sector size.
    pub(super) sector_size: SectorSize,
    /// What the ids of the output are made of: the same for the same source and name, so that the same command makes the same
    /// file, and two outputs are two disks to whoever registers them.
    pub(super) identity: [u8; 32],
    /// The name that the file will have, without its directory.
    pub(super) name: String,
    /// What is there before the first byte is written.
    pub(super) surface: Surface,
}

impl Make {
    /// What a sink is made for that writes `disk` to `output`.
    pub(super) fn of(disk: &dyn Disk, output: &dyn Output) -> Result<Self> {
        let name = output.name();
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        let identity = Fingerprint::of(&[&disk.fingerprint()?.0, name.as_bytes()]).0;
        let surface = output.surface();
        Ok(Self { len: disk.len(), sector_size: disk.sector_size(), identity, name, surface })
    }

    /// A UUID's bytes, for what `label` says.
    pub(super) fn id(&self, label: &str) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.identity, label.as_bytes());
        uuid::Builder::from_random_bytes(array(hash.as_bytes(), 0)).into_uuid().into_bytes()
    }
}

/// A format that is written, chunk by chunk.
pub(super) trait Sink: Debug + Send {
    /// How pieces are to be cut; the same at every call.
    fn shape(&self) -> Shape;

    /// What encodes granules, if the format has an encoded form. Called once for each thread.
    fn encoder(&self) -> Result<Option<Box<dyn Encoder>>> {
        Ok(None)
    }

    /// An upper bound of what the file takes beyond the data, for `data` bytes in `windows` windows.
    fn overhead(&self, data: u64, windows: u64) -> u64;

    /// Readies the file, before anything else is written.
    fn begin(&mut self, output: &dyn Output) -> Result<()>;

    /// Finds a place for each piece of the chunk that starts at `start` on the disk. Calls come in the order of the plan, each
    /// after the pieces of the one before it were written. Windows ascend, and so do chunks where the shape says so.
    ///
    /// What it answers and writes depends on nothing but the calls so far, with their pieces' ranges and forms: never on the
    /// bytes, the time, a thread or what is in the file. So a run that goes on where another ended repeats the calls from the
    /// journal, without the bytes, and comes to the same places; tables written twice that way are the same both times.
    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()>;

    /// Writes what is left to write, after the last piece; gives the length of the file.
    fn finish(&mut self, output: &dyn Output) -> Result<u64>;

    /// Whether `file`, read back after [`Sink::finish`], has every table as it was written. The data is compared elsewhere.
    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool>;
}

/// How a format wants its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of the unit in which pieces are given; a power of two, at most [`super::plan::CHUNK`].
    pub(super) granule: u64,
    /// The order in which chunks come.
    pub(super) order: Order,
    /// What becomes of granules that are all zeros.
    pub(super) zeros: Zeros,
}

impl Shape {
    /// Pieces of whole granules in any order, zeros left out: what most formats want.
    pub(super) const fn of(granule: u64) -> Self {
        Self { granule, order: Order::Source, zeros: Zeros::Skip }
    }
}

/// The order in which chunks come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// As the source holds them, within a window.
    Source,
    /// Ascending.
    Disk,
}

/// What becomes of granules that are all zeros. Chunks of which the source's map says that they are holes never come; a format
/// that needs their zeros in the file writes them itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeros {
    /// They are left out.
    Skip,
    /// They are given as [`Form::Zero`] where the backing file has something else, and left out where it has zeros too.
    Explicit,
    /// They are given as [`Form::Plain`], so that the chunks that come are whole.
    Plain,
}

/// Bytes of a chunk that go into the file in one form: whole granules, but for the end of the disk. Pieces of a chunk ascend
/// and do not overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// First byte, from the start of the chunk.
    pub(super) start: usize,
    /// Number of bytes of the disk.
    pub(super) len: usize,
    /// What the file gets.
    pub(super) form: Form,
    /// Where it goes in the file; [`Sink::place`] says it.
    pub(super) host: u64,
}

impl Piece {
    /// Bytes that the file gets.
    pub(super) const fn stored(&self) -> u64 {
        match self.form {
            Form::Plain => self.len as u64,
            Form::Encoded(bytes) => bytes as u64,
            Form::Zero => 0,
        }
    }
}

/// What the file gets for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The bytes as they are.
    Plain,
    /// As many bytes that stand for one granule, which is whole: what lies behind the disk's end was taken for zeros.
    Encoded(u32),
    /// Nothing: the tables are to say that it is zeros.
    Zero,
}

/// Encodes granules, on one thread.
pub(super) trait Encoder {
    /// Appends to `out` what stands in the file for `granule`, which starts at `offset` on the disk and is whole. `false` says
    /// that it is written as it is; what was appended then does not count.
    ///
    /// The bytes depend on nothing but the arguments.
    fn encode(&mut self, offset: u64, granule: &[u8], out: &mut Vec<u8>) -> Result<bool>;
}
