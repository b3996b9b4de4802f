//! What the three kinds of sparse extents have in common: a directory of tables of grains. Only the entries differ.

use super::header::{Header, SECTOR};
use crate::error::{Error, Result};
use crate::limits;

/// Where the tables of a sparse extent are and what their entries mean. All numbers are bytes unless they count something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// What the subformat is called.
    pub(super) name: &'static str,
    /// Virtual length, not 0.
    pub(super) capacity: u64,
    /// Length of a grain, a power of two.
    pub(super) grain: u64,
    /// Entries of a table, not 0.
    pub(super) per_table: u64,
    /// Where the directory is.
    pub(super) directory: u64,
    /// Where its copy is, which leads to copies of the tables.
    pub(super) redundant: Option<u64>,
    /// Where the embedded descriptor is, and its length.
    pub(super) descriptor: Option<(u64, u64)>,
    /// What entries mean.
    pub(super) entries: Entries,
}

/// What the entries of directories and tables mean. 0 is always a grain or table that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Entries {
    /// 32 bits: a sector of the file.
    Sectors {
        /// 1 means zeros.
        zeroed: bool,
        /// How grains are stored.
        stored: Stored,
    },
    /// 64 bits: a kind and a number of a table or grain, counted from the start of their regions.
    Numbers {
        /// The region of tables.
        tables: std::ops::Range<u64>,
        /// The region of grains.
        grains: std::ops::Range<u64>,
    },
}

/// How grains are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As they are.
    Plain,
    /// Compressed, behind a marker.
    Marked,
    /// Compressed, and nothing else.
    Bare,
}

/// What a directory's entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// No grain of it is here.
    Absent,
    /// All its grains are zeros.
    Zero,
    /// It is at this offset of the file.
    At(u64),
}

/// What a table's entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grain {
    /// Not in this extent.
    Absent,
    /// Zeros.
    Zero,
    /// Stored at this offset of the file.
    At(u64),
}

/// The entry that means zeros, where there is one.
const ZEROED: u64 = 1;

impl Layout {
    /// The layout of a hosted sparse extent.
    pub(super) fn hosted(header: &Header) -> Self {
        let stored = match (header.compressed, header.markers) {
            (false, _) => Stored::Plain,
            (true, true) => Stored::Marked,
            (true, false) => Stored::Bare,
        };
        Self {
            name: "sparse",
            capacity: header.capacity,
            grain: header.grain,
            per_table: header.gtes,
            directory: header.gd.unwrap_or(0),
            redundant: header.rgd.filter(|rgd| *rgd != 0),
            descriptor: header.descriptor.map(|(at, len)| (at, u64::try_from(len).unwrap_or(u64::MAX))),
            entries: Entries::Sectors { zeroed: header.zeroed_grains, stored },
        }
    }

    /// Number of grains, the last partial one included.
    pub(super) fn grains(&self) -> u64 {
        self.capacity.div_ceil(self.grain)
    }

    /// Number of tables.
    pub(super) fn tables(&self) -> u64 {
        self.grains().div_ceil(self.per_table)
    }

    /// Entries of table `number` that stand for grains of the disk: the last table is not used to its end.
    pub(super) fn used_entries(&self, number: u64) -> u64 {
        let before = number.saturating_mul(self.per_table);
        self.grains().saturating_sub(before).min(self.per_table)
    }

    /// Bytes of grain `index` that the disk uses: the last grain may be longer than that.
    pub(super) fn used_bytes(&self, index: u64) -> u64 {
        self.capacity.saturating_sub(index.saturating_mul(self.grain)).min(self.grain)
    }

    /// Bytes of an entry.
    pub(super) fn width(&self) -> u64 {
        match self.entries {
            Entries::Sectors { .. } => 4,
            Entries::Numbers { .. } => 8,
        }
    }

    /// How grains are stored.
    pub(super) fn stored(&self) -> Stored {
        match self.entries {
            Entries::Sectors { stored, .. } => stored,
            Entries::Numbers { .. } => Stored::Plain,
        }
    }

    /// Checks what every subformat must keep to.
    ///
    /// # Errors
    /// `vmdk.header` for impossible sizes, `disk.too-large`, `vmdk.directory` for too many tables.
    pub(super) fn check(&self, tables_left: u64) -> Result<()> {
        let largest = u64::try_from(limits::MAX_UNIT).unwrap_or(u64::MAX);
        if self.capacity == 0 {
            return Err(Error::corrupt("vmdk.header", "the extent has no capacity"));
        }
        if self.capacity > limits::MAX_DISK_LEN {
            return Err(Error::limit("disk.too-large", "the disk is too large")
                .expected(format!("at most {:#x} bytes", limits::MAX_DISK_LEN))
                .found(format!("{:#x}", self.capacity)));
        }
        if !self.grain.is_power_of_two() || self.grain > largest || self.per_table == 0 {
            return Err(Error::corrupt("vmdk.header", "the grain size is impossible")
                .expected("a power of two up to 2 MiB")
                .found(format!("{:#x} bytes", self.grain)));
        }
        if self.tables() > tables_left {
            return Err(Error::limit("vmdk.directory", "the disk has too many grain tables")
                .expected(format!("at most {}", limits::MAX_VMDK_TABLES))
                .found(self.tables()));
        }
        Ok(())
    }

    /// What the directory's `entry` for table `number` means, for a file of `file_len` bytes. `None` when it is impossible.
    pub(super) fn table(&self, number: u64, entry: u64, file_len: u64) -> Option<Table> {
        let len = self.used_entries(number).saturating_mul(self.width());
        let at = match &self.entries {
            Entries::Sectors { zeroed, .. } => match entry {
                0 => return Some(Table::Absent),
                ZEROED if *zeroed => return Some(Table::Zero),
                _ => entry.checked_mul(SECTOR)?,
            },
            Entries::Numbers { tables, .. } => {
                if entry == 0 {
                    return Some(Table::Absent);
                }
                if entry >> 32 != 0x1000_0000 {
                    return None;
                }
                let table = self.per_table.checked_mul(self.width())?;
                let at = tables.start.checked_add((entry & 0xffff_ffff).checked_mul(table)?)?;
                (at.checked_add(table)? <= tables.end).then_some(at)?
            }
        };
        (at.checked_add(len)? <= file_len).then_some(Table::At(at))
    }

    /// What a table's `entry` for grain `index` means, for a file of `file_len` bytes. `None` when it is impossible.
    pub(super) fn grain(&self, index: u64, entry: u64, file_len: u64) -> Option<Grain> {
        let used = self.used_bytes(index);
        let (at, least) = match &self.entries {
            Entries::Sectors { zeroed, stored } => match entry {
                0 => return Some(Grain::Absent),
                ZEROED if *zeroed => return Some(Grain::Zero),
                _ if *stored == Stored::Plain => (entry.checked_mul(SECTOR)?, used),
                _ => (entry.checked_mul(SECTOR)?, SECTOR.min(used)),
            },
            Entries::Numbers { grains, .. } => match entry >> 60 {
                0 if entry == 0 => return Some(Grain::Absent),
                1 | 2 => return Some(Grain::Zero),
                3 => {
                    let number = (entry & 0x0fff_0000_0000_0000) >> 48 | (entry & 0x0000_ffff_ffff_ffff) << 12;
                    let at = grains.start.checked_add(number.checked_mul(self.grain)?)?;
                    ((at.checked_add(used)? <= grains.end).then_some(at)?, used)
                }
                _ => return None,
            },
        };
        (at.checked_add(least)? <= file_len).then_some(Grain::At(at))
    }
}
