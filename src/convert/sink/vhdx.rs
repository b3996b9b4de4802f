//! The VHDX format, by [MS-VHDX], as a dynamic disk with an empty log.
//!
//! ```text
//! 0            1 MiB   2 MiB       3 MiB                     multiples of 1 MiB
//! │ identifier │ log   │ metadata  │ block allocation table │ block │ block │ …
//! │ 2 headers  │ empty
//! │ 2 region tables
//! ```

use uuid::Uuid;

use super::table::BlockTable;
use super::{Make, Output, Piece, Shape, Sink};
use crate::convert::plan::{CHUNK, WINDOW};
use crate::disk::bytes::{put, put16, put32};
use crate::disk::{Disk, SectorSize, read_vec};
use crate::error::{Error, Kind, Result};
use crate::limits::MAX_VHDX_SIZE;

const MIB: u64 = 1 << 20;
const LOG: u64 = MIB;
const METADATA: u64 = 2 * MIB;
const TABLE: u64 = 3 * MIB;

/// Where the values of the metadata's items begin in their region.
const ITEMS: usize = 64 << 10;

/// The page of every file system that has holes.
const GRANULE: u64 = 4096;

/// Disks larger than this get larger blocks, so that the table stays small.
const LARGE: u64 = 4 << 40;

/// A block's entry: PAYLOAD_BLOCK_FULLY_PRESENT.
const PRESENT: u64 = 6;

const BAT_REGION: u128 = 0x2dc2_7766_f623_4200_9d64_115e_9bfd_4a08;
const METADATA_REGION: u128 = 0x8b7c_a206_4790_4b9a_b8fe_575f_050f_886e;
const FILE_PARAMETERS: u128 = 0xcaa1_6737_fa36_4d43_b3b6_33f0_aa44_e76b;
const VIRTUAL_DISK_SIZE: u128 = 0x2fa5_4224_cd1b_4876_b211_5dbe_d83b_f4b8;
const VIRTUAL_DISK_ID: u128 = 0xbeca_12ab_b2e6_4523_93ef_c309_e000_c746;
const LOGICAL_SECTOR_SIZE: u128 = 0x8141_bf1d_a96f_4709_ba47_f233_a8fa_ab5f;
const PHYSICAL_SECTOR_SIZE: u128 = 0xcda3_48c7_445d_4471_9cc9_e988_5251_c556;

/// `IsVirtualDisk` and `IsRequired` of a metadata item.
const OF_THE_DISK: u32 = 6;
/// `IsRequired`.
const OF_THE_FILE: u32 = 4;

/// How a VHDX is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhdxOptions {}

/// Writes a VHDX.
#[derive(Debug)]
pub(in crate::convert) struct VhdxSink {
    len: u64,
    sector_size: SectorSize,
    block: u64,
    /// Payload blocks for each sector bitmap entry of the table.
    chunk_ratio: u64,
    /// `FileWriteGuid`, `DataWriteGuid` and `VirtualDiskId`.
    ids: [[u8; 16]; 3],
    /// The end of what is in use.
    next: u64,
    table: BlockTable,
}

impl VhdxSink {
    /// A disk of `make.len` bytes.
    ///
    /// # Errors
    /// `convert.size` when the format cannot hold it.
    pub(in crate::convert) fn new(make: &Make, _options: &VhdxOptions) -> Result<Self> {
        if make.len > MAX_VHDX_SIZE {
            return Err(Error::new(Kind::Usage, "convert.size", "the disk is too large for a VHDX")
                .expected(format!("at most {MAX_VHDX_SIZE} bytes"))
                .found(make.len));
        }
        let block = if make.len > LARGE { 32 * MIB } else { CHUNK };
        let mut sink = Self {
            len: make.len,
            sector_size: make.sector_size,
            block,
            chunk_ratio: (make.sector_size.bytes() << 23) / block,
            ids: ["vhdx file write", "vhdx data write", "vhdx disk"].map(|label| make.id(label)),
            next: 0,
            table: BlockTable::new(TABLE, 8, 0),
        };
        sink.next = TABLE + sink.table_len();
        Ok(sink)
    }

    /// The number of a block's entry: each `chunk_ratio` of them are followed by one for a sector bitmap.
    const fn index(&self, block: u64) -> u64 {
        block + block / self.chunk_ratio
    }

    /// Entries of the table.
    fn entries(&self) -> u64 {
        self.index(self.len.div_ceil(self.block) - 1) + 1
    }

    /// Bytes of the table's region.
    fn table_len(&self) -> u64 {
        (self.entries() * 8).next_multiple_of(MIB)
    }

    /// Where the bytes of the disk from `at` on go, to the end of their chunk.
    fn host(&mut self, at: u64) -> u64 {
        let index = self.index(at / self.block);
        let stored = self.table.get(index).and_then(|entry| entry.try_into().ok()).map(u64::from_le_bytes);
        let start = match stored {
            Some(entry) => entry & !(MIB - 1),
            None => {
                let start = self.next;
                self.next += self.block;
                self.table.set(index, &(start | PRESENT).to_le_bytes());
                start
            }
        };
        start + at % self.block
    }

    /// The structures with fixed places: their offsets and bytes.
    fn fixed(&self) -> [(u64, Vec<u8>); 6] {
        let regions = self.regions();
        [
            (0, identifier()),
            (64 << 10, self.header(1)),
            (128 << 10, self.header(2)),
            (192 << 10, regions.clone()),
            (256 << 10, regions),
            (METADATA, self.metadata()),
        ]
    }

    fn header(&self, sequence: u64) -> Vec<u8> {
        let mut header = vec![0; 4096];
        put(&mut header, 0, b"head");
        put(&mut header, 8, &sequence.to_le_bytes());
        put(&mut header, 16, &self.ids[0]);
        put(&mut header, 32, &self.ids[1]);
        put16(&mut header, 66, 1); // Version
        put32(&mut header, 68, u32::try_from(MIB).unwrap_or(0)); // LogLength
        put(&mut header, 72, &LOG.to_le_bytes());
        summed(header)
    }

    fn regions(&self) -> Vec<u8> {
        let mut table = vec![0; 64 << 10];
        put(&mut table, 0, b"regi");
        put32(&mut table, 8, 2);
        for (at, guid, offset, len) in [(16, BAT_REGION, TABLE, self.table_len()), (48, METADATA_REGION, METADATA, MIB)]
        {
            put(&mut table, at, &Uuid::from_u128(guid).to_bytes_le());
            put(&mut table, at + 16, &offset.to_le_bytes());
            put32(&mut table, at + 24, u32::try_from(len).unwrap_or(u32::MAX));
            put32(&mut table, at + 28, 1); // Required
        }
        summed(table)
    }

    fn metadata(&self) -> Vec<u8> {
        let block = u32::try_from(self.block).unwrap_or(0);
        let sector = u32::try_from(self.sector_size.bytes()).unwrap_or(0);
        let items: [(u128, u32, Vec<u8>); 5] = [
            (FILE_PARAMETERS, OF_THE_FILE, [block.to_le_bytes(), [0; 4]].concat()),
            (VIRTUAL_DISK_SIZE, OF_THE_DISK, self.len.to_le_bytes().to_vec()),
            (VIRTUAL_DISK_ID, OF_THE_DISK, self.ids[2].to_vec()),
            (LOGICAL_SECTOR_SIZE, OF_THE_DISK, sector.to_le_bytes().to_vec()),
            (PHYSICAL_SECTOR_SIZE, OF_THE_DISK, 4096_u32.to_le_bytes().to_vec()),
        ];
        let mut region = vec![0; ITEMS + 4096];
        put(&mut region, 0, b"metadata");
        put16(&mut region, 10, 5);
        let mut offset = ITEMS;
        for (number, (guid, flags, value)) in items.into_iter().enumerate() {
            let entry = 32 + 32 * number;
            put(&mut region, entry, &Uuid::from_u128(guid).to_bytes_le());
            put32(&mut region, entry + 16, u32::try_from(offset).unwrap_or(0));
            put32(&mut region, entry + 20, u32::try_from(value.len()).unwrap_or(0));
            put32(&mut region, entry + 24, flags);
            put(&mut region, offset, &value);
            offset += value.len();
        }
        region
    }
}

/// The file identifier, with the name of this program.
fn identifier() -> Vec<u8> {
    let mut bytes = b"vhdxfile".to_vec();
    bytes.extend("hyper2kvm".encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(64 << 10, 0);
    bytes
}

/// With the CRC-32C of it all in its second field.
fn summed(mut bytes: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&bytes);
    put32(&mut bytes, 4, sum);
    bytes
}

impl Sink for VhdxSink {
    fn shape(&self) -> Shape {
        Shape::of(GRANULE)
    }

    fn overhead(&self, _data: u64, _windows: u64) -> u64 {
        TABLE + self.table_len()
    }

    fn begin(&mut self, _output: &dyn Output) -> Result<()> {
        Ok(())
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        self.table.close(self.index(start / WINDOW * (WINDOW / self.block)), output)?;
        for piece in pieces {
            piece.host = self.host(start + piece.start as u64);
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        self.table.close(self.entries(), output)?;
        // The identifier and the headers come last: without them it is no VHDX.
        for (at, bytes) in self.fixed().iter().rev() {
            output.write_at(bytes, *at)?;
        }
        output.set_len(self.next)?;
        Ok(self.next)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        if file.len() != self.next {
            return Ok(false);
        }
        for (at, bytes) in self.fixed() {
            if read_vec(file, at, bytes.len())? != bytes {
                return Ok(false);
            }
        }
        self.table.is_intact(file, &mut |_| Ok(true))
    }
}
