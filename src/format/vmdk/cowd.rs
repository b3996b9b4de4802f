//! The header of a `vmfsSparse` extent ("COWD"), ESX's snapshots before seSparse and Workstation's oldest disks:
//! `COWDisk_Header`, all fields 32 bits and little endian, offsets and sizes in sectors.

use super::header::{SECTOR, u32_at};
use super::layout::{Entries, Layout, Stored};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits;

/// `magicNumber`.
pub(super) const MAGIC: &[u8; 4] = b"COWD";

/// Length of the header in bytes.
const LEN: usize = 2048;

/// Entries of every grain table.
const GTES: u64 = 4096;

/// A header whose fields were checked against each other and against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CowdHeader {
    /// Where things are.
    pub(super) layout: Layout,
    /// `version`.
    pub(super) version: u32,
    /// `uncleanShutdown`.
    pub(super) unclean: bool,
}

impl CowdHeader {
    /// Reads the header of `file`. At most `tables_left` tables are allowed.
    ///
    /// # Errors
    /// `vmdk.header`, `vmdk.version`, `vmdk.directory`, or those of reading.
    pub(super) fn read(file: &dyn Disk, tables_left: u64) -> Result<Self> {
        let bytes = read_vec(file, 0, LEN.min(usize::try_from(file.len()).unwrap_or(LEN)))?;
        let Some(bytes) = bytes.first_chunk::<LEN>() else {
            return Err(Error::corrupt("vmdk.header", "the extent is shorter than its header").found(file.len()));
        };
        Self::parse(bytes, file.len(), tables_left)
    }

    fn parse(bytes: &[u8; LEN], file_len: u64, tables_left: u64) -> Result<Self> {
        let field = |at| u64::from(u32_at(bytes, at));
        let impossible = |what: &str, at: u64, found: u64| {
            Error::corrupt("vmdk.header", what).offset(at).found(format!("{found:#x}"))
        };
        if !bytes.starts_with(MAGIC) {
            return Err(impossible("the magic number is wrong", 0, field(0)).expected("COWD"));
        }
        let version = u32_at(bytes, 4);
        if version != 1 {
            return Err(Error::unsupported("vmdk.version", "the version is not known")
                .offset(4)
                .expected(1)
                .found(version));
        }
        let layout = Layout {
            name: "COWD",
            capacity: field(12).saturating_mul(SECTOR),
            grain: field(16).saturating_mul(SECTOR),
            per_table: GTES,
            directory: field(20).saturating_mul(SECTOR),
            redundant: None,
            descriptor: None,
            entries: Entries::Sectors { zeroed: false, stored: Stored::Plain },
        };
        layout.check(tables_left.min(limits::MAX_VMDK_TABLES))?;
        if layout.directory < u64::try_from(LEN).unwrap_or(u64::MAX) {
            return Err(impossible("the grain directory lies in the header", 20, field(20)));
        }
        if field(24) < layout.tables() {
            let what = "the grain directory has fewer entries than the disk needs";
            return Err(impossible(what, 24, field(24)).expected(layout.tables()));
        }
        let end = layout.directory.saturating_add(layout.tables().saturating_mul(4));
        if end > file_len {
            return Err(Error::corrupt("vmdk.directory", "the grain directory lies outside of the file")
                .offset(layout.directory)
                .expected(format!("an end of at most {file_len:#x}"))
                .found(format!("{end:#x}")));
        }
        Ok(Self { layout, version, unclean: u32_at(bytes, 1648) != 0 })
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
pub(super) mod tests {
    use super::*;
    use crate::disk::{Checked, Memory};

    /// A COWD file: grains of `grain` sectors, of which those given are stored in the order given.
    pub(in crate::format::vmdk) fn build(sectors: u32, grain: u32, grains: &[(usize, Vec<u8>)]) -> Vec<u8> {
        let tables = sectors.div_ceil(grain).div_ceil(4096);
        let mut directory = vec![0_u32; (tables as usize).next_multiple_of(128)];
        let mut file = vec![0; 2048 + directory.len() * 4];
        for (at, value) in [(4, 1), (8, 3), (12, sectors), (16, grain), (20, 4), (24, tables)] {
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        file[..4].copy_from_slice(MAGIC);
        for (index, bytes) in grains {
            let table = &mut directory[index / 4096];
            if *table == 0 {
                *table = (file.len() / 512) as u32;
                file.resize(file.len() + 16384, 0);
            }
            let entry = *table as usize * 512 + index % 4096 * 4;
            let sector = (file.len() / 512) as u32;
            file[entry..entry + 4].copy_from_slice(&sector.to_le_bytes());
            file.extend(bytes);
            file.resize(file.len().next_multiple_of(512), 0);
        }
        for (number, sector) in directory.iter().enumerate() {
            file[2048 + number * 4..][..4].copy_from_slice(&sector.to_le_bytes());
        }
        let sectors = (file.len() / 512) as u32;
        file[28..32].copy_from_slice(&sectors.to_le_bytes());
        file
    }

    fn read(bytes: Vec<u8>) -> Result<CowdHeader> {
        CowdHeader::read(&*Checked::wrap(Memory::new(bytes)), limits::MAX_VMDK_TABLES)
    }

    #[test]
    fn a_good_header_parses() {
        let header = read(build(9000, 1, &[(0, vec![1; 512])])).unwrap();
        assert_eq!((header.layout.capacity, header.layout.grain, header.layout.tables()), (9000 * 512, 512, 3));
        assert_eq!((header.layout.directory, header.unclean), (2048, false));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let cases: &[(usize, u32, &str)] = &[
            (0, 0, "vmdk.header"),
            (4, 2, "vmdk.version"),
            (12, 0, "vmdk.header"),
            (12, u32::MAX, "vmdk.header"),
            (16, 0, "vmdk.header"),
            (16, 3, "vmdk.header"),
            (16, 8192, "vmdk.header"),
            (16, u32::MAX, "vmdk.header"),
            (20, 0, "vmdk.header"),
            (20, 3, "vmdk.header"),
            (20, u32::MAX, "vmdk.directory"),
            (24, 2, "vmdk.header"),
            (24, 0, "vmdk.header"),
        ];
        for (at, value, code) in cases {
            let mut bytes = build(9000, 1, &[]);
            bytes[*at..*at + 4].copy_from_slice(&value.to_le_bytes());
            assert_eq!(read(bytes).unwrap_err().code(), *code, "{at} {value:#x}");
        }
        let good = build(9000, 1, &[]);
        for len in 1..2048 + 12 {
            assert!(read(good[..len].to_vec()).is_err(), "cut at {len}");
        }
        assert!(read(good[..2048 + 12].to_vec()).is_ok(), "tables of grains that are not there need no room");
    }
}
