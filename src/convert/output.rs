//! The output file as the sinks see it, so that tests can fail each call or write something wrong.

use std::fmt::Debug;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::journal::Sealing;
use crate::disk::Disk;
use crate::error::Result;

/// A file that is being written, without its final name.
pub(super) trait Output: Debug + Send + Sync {
    /// The final name, for messages.
    fn name(&self) -> String;

    /// The file system's device number, when that is known.
    fn device(&self) -> Option<u64>;

    /// Bytes that it can have at most, when that is known beforehand.
    fn capacity(&self) -> Option<u64> {
        None
    }

    /// Bytes that may still be written to its file system, when that is known.
    fn free_space(&self) -> Result<Option<u64>>;

    /// Bytes of its file system that the file has already, from an earlier run.
    fn allocated(&self) -> u64 {
        0
    }

    /// Where its journal is kept, if a later run can go on with it.
    fn log(&self) -> Option<&dyn Log> {
        None
    }

    /// Says whether the file stays when it is dropped unfinished, for a later run to go on with. At first it does not.
    fn keep(&self, _keep: bool) {}

    /// Stores all of `data`.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Whether it can share bytes with `from`: then the unit of which offsets and lengths must be multiples.
    fn shares(&self, _from: &File) -> Option<u64> {
        None
    }

    /// Has its `len` bytes at `offset` be those of `from` at `from_offset`, without moving any: whole units, not none of them.
    /// `false` when that cannot be.
    fn share(&self, _from: &File, _from_offset: u64, _offset: u64, _len: u64) -> Result<bool> {
        Ok(false)
    }

    /// A hint that `range` is complete: writing it to the medium may begin.
    fn written(&self, range: Range<u64>);

    /// Sets the length of the file.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Sets the length of the file and has its file system keep room for all of it.
    fn allocate(&self, len: u64) -> Result<()>;

    /// What the sinks may take for granted.
    fn surface(&self) -> Surface {
        Surface::Empty
    }

    /// Waits until all of it is durable. After a failure nothing that was written can be trusted.
    fn sync(&self) -> Result<()>;

    /// [`Output::sync`] for what is needed to read the data, while others write.
    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    /// The file as a disk to read, not from the page cache as far as that can be had.
    fn reopen(&self) -> Result<Arc<dyn Disk>>;

    /// Gives the file its final name, durably, and says which. Replaces a file of that name only if `force`.
    fn publish(&self, force: bool) -> Result<PathBuf>;

    /// What tells the finished file from any other, before and after it gets its name.
    fn sealing(&self) -> Result<Option<Sealing>> {
        Ok(None)
    }

    /// Removes the journal of a file that has its name.
    fn forget(&self) {}
}

/// What is there before the first byte is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Surface {
    /// An empty file: what is not written reads as zeros.
    Empty,
    /// A device with whatever was on it. What is not written becomes zeros, up to the length that is set; that costs most where
    /// writes do not ascend.
    Used,
    /// An object of a store: what is not written reads as zeros, and takes its time like everything else. Writes ascend, but for the
    /// beginning, which is kept to the end.
    Parts,
    /// A pipe: bytes can only be appended. What is left out on the way, up to the length that is set, becomes zeros.
    Stream,
}

/// The bytes of a journal.
pub(super) trait Log: Debug + Send + Sync {
    /// Reads from `offset`; short only at the end. Gives the number of bytes.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize>;

    /// Stores all of `data`.
    fn write_at(&self, data: &[u8], offset: u64) -> Result<()>;

    /// Drops what is behind `len`.
    fn truncate(&self, len: u64) -> Result<()>;

    /// Waits until all of it is durable, and so is the way to find it.
    fn sync(&self) -> Result<()>;
}
