//! The file's first mebibyte: headers and region tables, each in two copies. All fields are little endian.

use std::ops::Range;

use uuid::Uuid;

use crate::disk::bytes::{array, le16, le32, le64, put32};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};

/// Alignment of everything that a region table or the BAT points at.
pub(super) const MIB: u64 = 1 << 20;

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const HEADER_LEN: usize = 4 << 10;
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const REGION_TABLE_LEN: usize = 64 << 10;

/// Most entries of a region table, as [MS-VHDX] has it.
const MAX_REGIONS: u32 = 2047;

const BAT: Uuid = Uuid::from_u128(0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08);
const METADATA: Uuid = Uuid::from_u128(0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e);

/// The current header ([MS-VHDX] 2.2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// `SequenceNumber`.
    pub(super) sequence_number: u64,
    /// `DataWriteGuid`: changes with the disk's content.
    pub(super) data_write_guid: Uuid,
    /// `LogGuid`: that of the log's entries; nil when the log is empty.
    pub(super) log_guid: Uuid,
    /// `LogOffset` and `LogLength`.
    pub(super) log: Range<u64>,
}

/// The two regions that a disk must have ([MS-VHDX] 2.2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Regions {
    pub(super) bat: Range<u64>,
    pub(super) metadata: Range<u64>,
}

/// Which copies of a structure are sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copies(pub(super) [bool; 2]);

impl Header {
    /// Reads the header that is current: of the sound ones, that with the higher sequence number.
    ///
    /// # Errors
    /// `vhdx.header`, or those of reading.
    pub(super) fn read(file: &dyn Disk) -> Result<(Self, Copies)> {
        let [first, second] = HEADERS.map(|at| Self::parse(file, at));
        let (first, second) = (first?, second?);
        let copies = Copies([first.is_some(), second.is_some()]);
        let header = match (first, second) {
            (Some(first), Some(second)) if first.sequence_number == second.sequence_number && first != second => {
                return Err(Error::corrupt("vhdx.header", "the two headers have one sequence number and differ")
                    .offset(HEADERS[1])
                    .found(second.sequence_number));
            }
            (Some(first), Some(second)) if second.sequence_number > first.sequence_number => second,
            (Some(header), _) | (None, Some(header)) => header,
            (None, None) => {
                return Err(Error::corrupt("vhdx.header", "neither of the two headers is sound")
                    .offset(HEADERS[0])
                    .hint("the image was probably cut short or overwritten; get it again"));
            }
        };
        Ok((header, copies))
    }

    /// The header at `at`; `None` when its signature or checksum is wrong.
    fn parse(file: &dyn Disk, at: u64) -> Result<Option<Self>> {
        let Some(bytes) = summed(file, at, HEADER_LEN, b"head")? else { return Ok(None) };
        let bad = |what: &str, field: u64| Error::unsupported("vhdx.version", what).offset(at.saturating_add(field));
        let (log_version, version) = (le16(&bytes, 64), le16(&bytes, 66));
        if version != 1 {
            return Err(bad("the version of the file is not known", 66).expected(1).found(version));
        }
        let log_guid = Uuid::from_bytes_le(array(&bytes, 48));
        if log_version != 0 && !log_guid.is_nil() {
            return Err(bad("the version of the log is not known", 64).expected(0).found(log_version));
        }
        let (length, offset) = (u64::from(le32(&bytes, 68)), le64(&bytes, 72));
        let end = offset.checked_add(length);
        let aligned = length.is_multiple_of(MIB) && offset.is_multiple_of(MIB);
        let log = match end {
            Some(end) if log_guid.is_nil() || (aligned && offset >= MIB && length > 0 && end <= file.len()) => {
                offset..end
            }
            _ => {
                return Err(Error::corrupt("vhdx.header", "the log lies where it cannot be")
                    .offset(at.saturating_add(68))
                    .expected(format!("whole mebibytes within {:#x}", file.len()))
                    .found(format!("{length:#x} bytes at {offset:#x}")));
            }
        };
        Ok(Some(Self {
            sequence_number: le64(&bytes, 8),
            data_write_guid: Uuid::from_bytes_le(array(&bytes, 32)),
            log_guid,
            log,
        }))
    }
}

impl Regions {
    /// Reads the first sound region table.
    ///
    /// # Errors
    /// `vhdx.region`, or those of reading.
    pub(super) fn read(file: &dyn Disk) -> Result<(Self, Copies)> {
        let [first, second] = REGION_TABLES.map(|at| summed(file, at, REGION_TABLE_LEN, b"regi"));
        let (first, second) = (first?, second?);
        let copies = Copies([first.is_some(), second.is_some()]);
        match (first, second) {
            (Some(table), _) => Ok((Self::parse(&table, REGION_TABLES[0], file.len())?, copies)),
            (None, Some(table)) => Ok((Self::parse(&table, REGION_TABLES[1], file.len())?, copies)),
            (None, None) => Err(Error::corrupt("vhdx.region", "neither of the two region tables is sound")
                .offset(REGION_TABLES[0])
                .hint("the image was probably cut short or overwritten; get it again")),
        }
    }

    fn parse(table: &[u8], at: u64, file_len: u64) -> Result<Self> {
        let bad = |what: &str, field: u64| Error::corrupt("vhdx.region", what).offset(at.saturating_add(field));
        let count = le32(table, 8);
        if count > MAX_REGIONS {
            return Err(bad("the region table has too many entries", 8)
                .expected(format!("at most {MAX_REGIONS}"))
                .found(count));
        }
        let (mut bat, mut metadata, mut all) = (None, None, Vec::<Range<u64>>::new());
        let count = usize::try_from(count).unwrap_or(0);
        for (number, entry) in (0_u64..).zip(table.get(16..).unwrap_or_default().chunks_exact(32).take(count)) {
            let field = number.saturating_mul(32).saturating_add(16);
            let (offset, length) = (le64(entry, 16), u64::from(le32(entry, 24)));
            let aligned = offset.is_multiple_of(MIB) && length.is_multiple_of(MIB) && length > 0 && offset >= MIB;
            let range = match offset.checked_add(length) {
                Some(end) if aligned && end <= file_len => offset..end,
                _ => {
                    return Err(bad("a region lies where it cannot be", field)
                        .expected(format!("whole mebibytes from 1 MiB to {file_len:#x}"))
                        .found(format!("{length:#x} bytes at {offset:#x}")));
                }
            };
            if all.iter().any(|other| other.start < range.end && range.start < other.end) {
                return Err(bad("two regions overlap", field).found(format!("{length:#x} bytes at {offset:#x}")));
            }
            all.push(range.clone());
            match Uuid::from_bytes_le(array(entry, 0)) {
                BAT => bat = Some(range),
                METADATA => metadata = Some(range),
                other if le32(entry, 28) & 1 == 1 => {
                    return Err(Error::unsupported("vhdx.feature", "the disk needs a region that is not known")
                        .offset(at.saturating_add(field))
                        .found(other));
                }
                _ => {}
            }
        }
        match (bat, metadata) {
            (Some(bat), Some(metadata)) => Ok(Self { bat, metadata }),
            _ => Err(bad("the region table lacks the block allocation table or the metadata", 16)),
        }
    }
}

/// The structure of `len` bytes at `at`, whose checksum is the second field; `None` when signature or checksum are wrong.
fn summed(file: &dyn Disk, at: u64, len: usize, signature: &[u8]) -> Result<Option<Vec<u8>>> {
    let end = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
    if end > file.len() {
        return Ok(None);
    }
    let mut bytes = read_vec(file, at, len)?;
    let stored = le32(&bytes, 4);
    put32(&mut bytes, 4, 0);
    Ok((bytes.starts_with(signature) && crc32c::crc32c(&bytes) == stored).then_some(bytes))
}
