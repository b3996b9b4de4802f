//! The base block, with which hives and their logs begin.

use crate::disk::bytes::{le32, le64};
use crate::error::{Error, Result};
use crate::fs::Timestamp;
use crate::limits;

/// Bytes of a base block that mean something.
pub(super) const LENGTH: usize = 512;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileType {
    Primary,
    /// A bitmap of sectors and the sectors, as before Windows 8.1.
    OldLog,
    /// Entries with pages.
    NewLog,
}

/// A base block. Fields in the specification's order.
#[derive(Clone, Debug)]
pub(super) struct BaseBlock {
    pub(super) primary_sequence: u32,
    pub(super) secondary_sequence: u32,
    pub(super) written: u64,
    major: u32,
    pub(super) minor: u32,
    file_type: u32,
    file_format: u32,
    /// Offset of the root key's cell.
    pub(super) root: u32,
    /// Bytes of all bins.
    pub(super) bins: u32,
    clustering: u32,
    pub(super) name: String,
    pub(super) checksum: u32,
    pub(super) computed: u32,
}

impl BaseBlock {
    /// Takes the fields out of the first 512 bytes of a file that begins with `regf`.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let name = bytes.get(48..112).unwrap_or_default();
        Self {
            primary_sequence: le32(bytes, 4),
            secondary_sequence: le32(bytes, 8),
            written: le64(bytes, 12),
            major: le32(bytes, 20),
            minor: le32(bytes, 24),
            file_type: le32(bytes, 28),
            file_format: le32(bytes, 32),
            root: le32(bytes, 36),
            bins: le32(bytes, 40),
            clustering: le32(bytes, 44),
            name: super::value::text(name),
            checksum: le32(bytes, 508),
            computed: checksum(bytes),
        }
    }

    /// Whether the checksum is right: nothing else of the block can be trusted otherwise.
    pub(super) fn is_valid(&self) -> bool {
        self.checksum == self.computed
    }

    /// Whether a write was under way.
    pub(super) fn is_dirty(&self) -> bool {
        !self.is_valid() || self.primary_sequence != self.secondary_sequence
    }

    pub(super) fn file_type(&self) -> Option<FileType> {
        match self.file_type {
            0 => Some(FileType::Primary),
            1 | 2 => Some(FileType::OldLog),
            6 => Some(FileType::NewLog),
            _ => None,
        }
    }

    /// Whether the block is one that this program reads.
    pub(super) fn check(&self, kind: FileType) -> Result<()> {
        if self.major != 1 || !(2..=6).contains(&self.minor) || self.file_format != 1 || self.clustering != 1 {
            return Err(Error::unsupported("hive.version", "a registry hive of a format that is not read")
                .expected("version 1.2 to 1.6")
                .found(format!("version {}.{}, format {}", self.major, self.minor, self.file_format)));
        }
        if self.file_type() != Some(kind) {
            return Err(Error::unsupported(
                "hive.version",
                "this file is a log of a registry hive, not the hive itself",
            )
            .hint("name the file without .LOG1 or .LOG2"));
        }
        if self.bins == 0 || !self.bins.is_multiple_of(4096) || u64::from(self.bins) > limits::MAX_HIVE {
            return Err(Error::corrupt("hive.corrupt", "a size of the hive's bins that is impossible")
                .offset(40)
                .expected(format!("a multiple of 4096 up to {}", limits::MAX_HIVE))
                .found(self.bins));
        }
        Ok(())
    }
}

/// Exclusive or of the first 127 words, with the two values left out that could be mistaken for none.
fn checksum(bytes: &[u8]) -> u32 {
    match (0..127_usize).fold(0, |sum, index| sum ^ le32(bytes, index.saturating_mul(4))) {
        0 => 1,
        u32::MAX => u32::MAX.wrapping_sub(1),
        sum => sum,
    }
}

/// A FILETIME: 100 ns since 1601.
pub(super) fn time(filetime: u64) -> Timestamp {
    /// Seconds from 1601 to 1970.
    const EPOCH: i64 = 11_644_473_600;
    let (seconds, rest) = (filetime.checked_div(10_000_000), filetime.checked_rem(10_000_000));
    Timestamp {
        seconds: i64::try_from(seconds.unwrap_or(0)).unwrap_or(i64::MAX).saturating_sub(EPOCH),
        nanoseconds: u32::try_from(rest.unwrap_or(0)).unwrap_or(0).saturating_mul(100),
    }
}
