//! What lies on a flat disk: the partition table, the signatures of file systems and volume formats, and their free space.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::disk::{Disk, SectorSize};
use crate::error::{Error, Result};
use crate::limits;

mod gpt;
mod letters;
pub mod luks;
pub mod lvm;
mod mbr;
pub mod md;
pub mod parity;
pub mod signature;
pub mod stack;
pub mod trim;
mod types;

pub(crate) use letters::letters;

/// Reads the partition table of `disk`. `None` means that there is none: the whole disk may be one volume.
///
/// The protective MBR decides as in Linux: a GPT counts when an entry of type `0xee` points at it, or when sector 0 holds no
/// MBR at all; otherwise the MBR counts. The disk's own sector size is tried first, then the other one.
///
/// # Errors
/// When the disk cannot be read. A damaged table is not an error: see [`Table::problems`].
pub fn scan(disk: &Arc<dyn Disk>) -> Result<Option<Table>> {
    let own = disk.sector_size();
    let other = if own == SectorSize::B512 { SectorSize::B4096 } else { SectorSize::B512 };
    let mbr = mbr::read(&**disk, own)?;
    let protective = mbr.as_ref().is_some_and(mbr::Mbr::is_protective);
    if protective || mbr.is_none() {
        for size in [own, other] {
            if let Some(mut table) = gpt::read(&**disk, size)? {
                if size != own {
                    table.problems.push(Problem::SectorSize { table: size.bytes(), disk: own.bytes() });
                }
                match &mbr {
                    None => table.problems.push(Problem::NoProtectiveMbr),
                    Some(mbr) if mbr.is_hybrid() => table.problems.push(Problem::HybridMbr),
                    Some(_) => {}
                }
                return Ok(Some(table.judged(disk.len())));
            }
        }
    }
    match mbr {
        Some(mbr) if !mbr.is_empty() => Ok(Some(mbr.table(&**disk)?.judged(disk.len()))),
        _ => Ok(None),
    }
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which format it has.
    pub kind: TableKind,
    /// The disk's identity: eight hex digits for MBR, a GUID in lower case for GPT.
    pub id: String,
    /// The sector size that its addresses count in.
    pub sector_size: SectorSize,
    /// The partitions in Linux's order of numbers.
    pub partitions: Vec<Partition>,
    /// What is wrong or unusual; empty for a sound table.
    pub problems: Vec<Problem>,
}

impl Table {
    /// The partition with Linux's `number`.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number)
    }

    /// Whether a partition may be written to: it must lie on the disk and overlap no other.
    ///
    /// # Errors
    /// `volume.overlap` or `volume.outside`, which say why not.
    pub fn check_writable(&self, number: u32) -> Result<()> {
        for problem in &self.problems {
            match *problem {
                Problem::Overlap { first, second } if first == number || second == number => {
                    return Err(Error::refused("volume.overlap", problem.to_string()));
                }
                Problem::Outside { number: outside } if outside == number => {
                    return Err(Error::refused("volume.outside", problem.to_string()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds what can only be said of the table as a whole.
    fn judged(mut self, disk_len: u64) -> Self {
        self.partitions.sort_by_key(|partition| partition.number);
        for partition in &self.partitions {
            if partition.range.end > disk_len {
                self.problems.push(Problem::Outside { number: partition.number });
            }
        }
        let mut by_start: Vec<&Partition> = self.partitions.iter().filter(|p| p.role != Role::Extended).collect();
        by_start.sort_by_key(|partition| (partition.range.start, partition.number));
        let mut furthest: Option<&Partition> = None;
        for partition in by_start {
            if let Some(before) = furthest.filter(|before| before.range.end > partition.range.start) {
                self.problems.push(Problem::Overlap {
                    first: before.number.min(partition.number),
                    second: before.number.max(partition.number),
                });
            }
            if furthest.is_none_or(|before| before.range.end < partition.range.end) {
                furthest = Some(partition);
            }
        }
        self
    }
}

/// The format of a partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// Master boot record, the `dos` table.
    Mbr,
}

impl TableKind {
    /// `gpt` or `mbr`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpt => "gpt",
            Self::Mbr => "mbr",
        }
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Linux's number: the slot for GPT and primary MBR partitions, from 5 for logical ones.
    pub number: u32,
    /// Bytes of the disk. Not empty; may reach past the end of the disk, which is then among the problems.
    pub range: Range<u64>,
    /// Two hex digits for MBR (`83`), a GUID in lower case for GPT.
    pub type_id: String,
    /// What the type is called, if it is a well-known one.
    pub type_name: Option<&'static str>,
    /// MBR: the active flag. GPT: the legacy BIOS bootable attribute.
    pub bootable: bool,
    /// As Linux writes it in `/dev/disk/by-partuuid`.
    pub partuuid: String,
    /// The GPT name.
    pub label: Option<String>,
    /// Its place in an MBR; `Primary` for GPT.
    pub role: Role,
}

/// A partition's place in an MBR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The container of the logical partitions.
    Extended,
    /// Inside the extended partition.
    Logical,
    /// In the table itself.
    Primary,
}

/// Something wrong or unusual about a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// GPT: the backup header was used, since the primary one is damaged.
    BackupUsed,
    /// GPT: the primary header does not name the last sector as its backup's place; the disk was grown or cut.
    BackupNotAtEnd,
    /// An entry whose end lies before its start, or outside of what its table allows. It is left out.
    BadEntry {
        /// Its number.
        number: u32,
    },
    /// MBR: the chain of extended boot records is damaged or loops; the rest is left out.
    BrokenChain {
        /// The sector it was about to read.
        sector: u64,
    },
    /// The MBR lists more than the protective entry; Linux goes by the GPT.
    HybridMbr,
    /// A GPT whose protective MBR is missing; Linux does not look at it.
    NoProtectiveMbr,
    /// The partition reaches past the end of the disk.
    Outside {
        /// Its number.
        number: u32,
    },
    /// Two partitions share bytes.
    Overlap {
        /// The lower number.
        first: u32,
        /// The higher number.
        second: u32,
    },
    /// The table counts in another sector size than the disk.
    SectorSize {
        /// In bytes.
        table: u64,
        /// In bytes.
        disk: u64,
    },
    /// More partitions than are listed.
    TooMany,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackupUsed => f.write_str("the primary GPT header is damaged; its backup was used"),
            Self::BackupNotAtEnd => f.write_str("the GPT's backup header is not at the end of the disk"),
            Self::BadEntry { number } => write!(f, "the entry of partition {number} is not valid"),
            Self::BrokenChain { sector } => {
                write!(f, "the chain of extended boot records is damaged at sector {sector}")
            }
            Self::HybridMbr => f.write_str("the MBR lists partitions beside the protective one; the GPT counts"),
            Self::NoProtectiveMbr => f.write_str("the GPT has no protective MBR"),
            Self::Outside { number } => write!(f, "partition {number} reaches past the end of the disk"),
            Self::Overlap { first, second } => write!(f, "partitions {first} and {second} overlap"),
            Self::SectorSize { table, disk } => {
                write!(f, "the table counts in sectors of {table} bytes, the disk has sectors of {disk}")
            }
            Self::TooMany => write!(f, "more than {} partitions; the rest is left out", limits::MAX_PARTITIONS),
        }
    }
}
