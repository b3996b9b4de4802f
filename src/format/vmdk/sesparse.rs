//! The header of a seSparse extent, ESXi's snapshots since 6.5. There is no public specification; what is known of it: all
//! fields are 64 bits and little endian, offsets and sizes are in sectors.

use std::ops::Range;

use super::header::{SECTOR, u64_at};
use super::layout::{Entries, Layout};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::limits;

/// `magic` of the constant header: its first eight bytes.
pub(super) const MAGIC: &[u8; 8] = &0xcafe_babe_u64.to_le_bytes();

/// `magic` of the volatile header.
const VOLATILE_MAGIC: u64 = 0xcafe_cafe;

/// `version`.
const VERSION: u64 = 0x2_0000_0001;

/// Length of either header in bytes.
const LEN: usize = 512;

/// The only grain size that VMware makes, in sectors, and the sectors of a table that it makes for it.
const GEOMETRY: (u64, u64) = (8, 64);

/// A header whose fields were checked against each other and against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeSparseHeader {
    /// Where things are.
    pub(super) layout: Layout,
}

impl SeSparseHeader {
    /// Reads both headers of `file`. At most `tables_left` tables are allowed.
    ///
    /// # Errors
    /// `vmdk.header`, `vmdk.version`, `vmdk.directory`, `vmdk.journal`, or those of reading.
    pub(super) fn read(file: &dyn Disk, tables_left: u64) -> Result<Self> {
        let (header, volatile) = Self::parse(&block(file, 0)?, file.len(), tables_left)?;
        check_journal(&block(file, volatile)?, volatile)?;
        Ok(header)
    }

    /// The header and the place of the volatile one.
    fn parse(bytes: &[u8; LEN], file_len: u64, tables_left: u64) -> Result<(Self, u64)> {
        let field = |at| u64_at(bytes, at);
        let impossible = |what: &str, at: usize| {
            let offset = u64::try_from(at).unwrap_or(0);
            Error::corrupt("vmdk.header", what).offset(offset).found(format!("{:#x}", field(at)))
        };
        if !bytes.starts_with(MAGIC) {
            return Err(impossible("the magic number is wrong", 0).expected("0xcafebabe"));
        }
        if field(8) != VERSION {
            return Err(Error::unsupported("vmdk.version", "the version is not known")
                .offset(8)
                .expected("2.1")
                .found(format!("{:#x}", field(8))));
        }
        if (field(24), field(32)) != GEOMETRY || field(40) != 0 {
            return Err(Error::unsupported("vmdk.version", "the seSparse extent is of a kind that is not known")
                .offset(24)
                .expected("grains of 8 sectors, tables of 64, no flags")
                .found(format!("{}, {}, {:#x}", field(24), field(32), field(40))));
        }
        let bytes_at =
            |at: usize| field(at).checked_mul(SECTOR).ok_or_else(|| impossible("an offset is impossible", at));
        let region = |at: usize| -> Result<Range<u64>> {
            let (start, len) = (bytes_at(at)?, bytes_at(at.saturating_add(8))?);
            let end = start.checked_add(len).ok_or_else(|| impossible("a region's size is impossible", at))?;
            if start == 0 { Err(impossible("a region lies in the header", at)) } else { Ok(start..end) }
        };
        let (directory, tables, grains) = (region(128)?, region(144)?, region(192)?);
        let layout = Layout {
            name: "seSparse",
            capacity: bytes_at(16)?,
            grain: bytes_at(24)?,
            per_table: bytes_at(32)? / 8,
            directory: directory.start,
            redundant: None,
            descriptor: None,
            entries: Entries::Numbers { tables, grains },
        };
        layout.check(tables_left.min(limits::MAX_VMDK_TABLES))?;
        let needed = directory.start.saturating_add(layout.tables().saturating_mul(8));
        if needed > directory.end || needed > file_len {
            return Err(Error::corrupt("vmdk.directory", "the grain directory is shorter than the disk needs")
                .offset(directory.start)
                .expected(format!("an end of at least {needed:#x}"))
                .found(format!("{:#x}", directory.end.min(file_len))));
        }
        Ok((Self { layout }, region(80)?.start))
    }
}

/// A journal that was not replayed holds changes that the tables lack.
fn check_journal(volatile: &[u8; LEN], offset: u64) -> Result<()> {
    if u64_at(volatile, 0) != VOLATILE_MAGIC {
        return Err(Error::corrupt("vmdk.header", "the volatile header's magic number is wrong")
            .offset(offset)
            .expected(format!("{VOLATILE_MAGIC:#x}"))
            .found(format!("{:#x}", u64_at(volatile, 0))));
    }
    if u64_at(volatile, 24) != 0 {
        return Err(Error::unsupported("vmdk.journal", "the snapshot was not closed: its journal waits to be replayed")
            .offset(offset.saturating_add(24))
            .hint("shut the machine down properly, or open and close the disk on the ESXi host: vmkfstools -x check DISK.vmdk"));
    }
    Ok(())
}

fn block(file: &dyn Disk, at: u64) -> Result<[u8; LEN]> {
    let mut bytes = [0; LEN];
    if at.checked_add(512).is_none_or(|end| end > file.len()) {
        return Err(Error::corrupt("vmdk.header", "a header lies outside of the file").offset(at));
    }
    file.read_at(&mut bytes, at)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
pub(super) mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    /// What a grain of the builder is.
    #[derive(Clone, Debug)]
    pub(in crate::format::vmdk) enum Is {
        Unmapped,
        Zero,
        Data(Vec<u8>),
    }

    pub(in crate::format::vmdk) fn poke(file: &mut [u8], at: usize, value: u64) {
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// A seSparse file: sectors 0 and 1 headers, directory at 8, tables at 16, grains behind them, stored in the order given.
    pub(in crate::format::vmdk) fn build(sectors: u64, grains: &[(u64, Is)]) -> Vec<u8> {
        let tables = sectors.div_ceil(8).div_ceil(4096);
        let grains_at = 16 + tables * 64;
        let mut file = vec![0; (grains_at * 512) as usize];
        let stored = grains.iter().filter(|(_, is)| matches!(is, Is::Data(_))).count() as u64;
        let fields = [
            (8, VERSION),
            (16, sectors),
            (24, 8),
            (32, 64),
            (80, 1),
            (88, 1),
            (96, 2),
            (104, 2),
            (112, 4),
            (120, 2),
            (128, 8),
            (136, 8),
            (144, 16),
            (152, tables * 64),
            (160, 6),
            (168, 1),
            (176, 7),
            (184, 1),
            (192, grains_at),
            (200, stored * 8),
        ];
        file[..8].copy_from_slice(MAGIC);
        for (at, value) in fields {
            poke(&mut file, at, value);
        }
        poke(&mut file, 512, VOLATILE_MAGIC);
        let (mut next, mut next_table) = (0_u64, 0_u64);
        for (index, is) in grains {
            let directory = 8 * 512 + (index / 4096 * 8) as usize;
            let entry = u64::from_le_bytes(file[directory..directory + 8].try_into().unwrap());
            let table = if entry == 0 {
                poke(&mut file, directory, 0x1000_0000 << 32 | next_table);
                next_table += 1;
                next_table - 1
            } else {
                entry & 0xffff_ffff
            };
            let value = match is {
                Is::Unmapped => 1 << 60,
                Is::Zero => 2 << 60,
                Is::Data(bytes) => {
                    file.extend(bytes);
                    next += 1;
                    3 << 60 | ((next - 1) & 0xfff) << 48 | (next - 1) >> 12
                }
            };
            poke(&mut file, (16 * 512 + table * 32768 + index % 4096 * 8) as usize, value);
        }
        file
    }

    fn read(bytes: Vec<u8>) -> Result<SeSparseHeader> {
        SeSparseHeader::read(&*Checked::wrap(Memory::new(bytes)), limits::MAX_VMDK_TABLES)
    }

    #[test]
    fn a_good_header_parses() {
        let layout = read(build(70_000, &[(1, Is::Zero)])).unwrap().layout;
        assert_eq!((layout.capacity, layout.grain, layout.per_table, layout.tables()), (70_000 * 512, 4096, 4096, 3));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let cases: &[(usize, u64, &str)] = &[
            (0, 0xcafe_cafe, "vmdk.header"),
            (8, 0x1_0000_0001, "vmdk.version"),
            (16, 0, "vmdk.header"),
            (16, u64::MAX, "vmdk.header"),
            (16, 1 << 40, "vmdk.directory"),
            (16, (64 << 41) + 1, "disk.too-large"),
            (16, 17 << 20, "vmdk.directory"),
            (24, 16, "vmdk.version"),
            (32, 0, "vmdk.version"),
            (40, 1, "vmdk.version"),
            (80, 0, "vmdk.header"),
            (80, 1 << 40, "vmdk.header"),
            (80, 2, "vmdk.header"),
            (128, 0, "vmdk.header"),
            (128, u64::MAX / 512, "vmdk.header"),
            (136, 0, "vmdk.directory"),
            (144, 1 << 60, "vmdk.header"),
            (192, 0, "vmdk.header"),
            (512, 0, "vmdk.header"),
            (536, 1, "vmdk.journal"),
        ];
        for (at, value, code) in cases {
            let mut bytes = build(70_000, &[]);
            poke(&mut bytes, *at, *value);
            assert_eq!(read(bytes).unwrap_err().code(), *code, "{at} {value:#x}");
        }
        let good = build(70_000, &[]);
        for len in 1..8 * 512 + 24 {
            assert!(read(good[..len].to_vec()).is_err(), "cut at {len}");
        }
        assert!(read(good[..8 * 512 + 24].to_vec()).is_ok());
    }
}
