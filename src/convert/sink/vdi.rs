//! The VDI format, version 1.1, as a dynamic disk: header, block map, blocks of 1 MiB, all of them aligned to 1 MiB.

use super::table::BlockTable;
use super::{Make, Output, Piece, Shape, Sink};
use crate::convert::plan::WINDOW;
use crate::disk::bytes::{put, put32};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Kind, Result};

/// The page of every file system that has holes.
const GRANULE: u64 = 4096;

/// Bytes of a block: the only size that QEMU reads.
const BLOCK: u64 = 1 << 20;

/// Where the map begins, and the alignment of the blocks.
const MAP: u64 = 512;

const HEADER_LEN: usize = 0x200;

/// How a VDI is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VdiOptions {}

/// Writes a VDI.
#[derive(Debug)]
pub(in crate::convert) struct VdiSink {
    len: u64,
    ids: [[u8; 16]; 2],
    /// Where the blocks begin.
    data: u64,
    /// Blocks that are stored.
    stored: u32,
    table: BlockTable,
}

impl VdiSink {
    /// A disk of `make.len` bytes.
    ///
    /// # Errors
    /// `convert.size` when the format cannot hold it.
    pub(in crate::convert) fn new(make: &Make, _options: &VdiOptions) -> Result<Self> {
        let blocks = make.len.div_ceil(BLOCK);
        let data = (MAP + blocks * 4).next_multiple_of(BLOCK);
        if make.sector_size.bytes() != 512 || u32::try_from(data).is_err() {
            return Err(Error::new(Kind::Usage, "convert.size", "a VDI cannot hold such a disk")
                .expected("sectors of 512 bytes, and a map that lies within 4 GiB")
                .found(format!("{} bytes in sectors of {}", make.len, make.sector_size.bytes())));
        }
        let ids = ["vdi create", "vdi modify"].map(|label| make.id(label));
        Ok(Self { len: make.len, ids, data, stored: 0, table: BlockTable::new(MAP, 4, 0xff) })
    }

    fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK)
    }

    fn end(&self) -> u64 {
        self.data + u64::from(self.stored) * BLOCK
    }

    /// Where the bytes of the disk from `at` on go; all of them lie in one block.
    fn host(&mut self, at: u64) -> u64 {
        let block = at / BLOCK;
        let number = match self.table.get(block).and_then(|entry| entry.try_into().ok()) {
            Some(entry) => u32::from_le_bytes(entry),
            None => {
                let number = self.stored;
                self.stored += 1;
                self.table.set(block, &number.to_le_bytes());
                number
            }
        };
        self.data + u64::from(number) * BLOCK + at % BLOCK
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        put(&mut header, 0, b"<<< Oracle VM VirtualBox Disk Image >>>\n");
        for (at, value) in [
            (0x40, 0xbeda_107f),
            (0x44, 0x1_0001),
            (0x48, 0x190),
            (0x4c, 1),
            (0x154, number(MAP)),
            (0x158, number(self.data)),
            (0x168, 512),
            (0x178, number(BLOCK)),
            (0x180, number(self.blocks())),
            (0x184, self.stored),
        ] {
            put32(&mut header, at, value);
        }
        put(&mut header, 0x170, &self.len.to_le_bytes());
        put(&mut header, 0x188, &self.ids[0]);
        put(&mut header, 0x198, &self.ids[1]);
        header
    }
}

impl Sink for VdiSink {
    fn shape(&self) -> Shape {
        Shape::of(GRANULE)
    }

    fn overhead(&self, _data: u64, _windows: u64) -> u64 {
        self.data
    }

    fn begin(&mut self, _output: &dyn Output) -> Result<()> {
        Ok(())
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        self.table.close(start / WINDOW * (WINDOW / BLOCK), output)?;
        for piece in pieces {
            let first = start + piece.start as u64;
            piece.host = self.host(first);
            // A piece may lie in both blocks of its chunk: these are stored one after the other.
            self.host(first + piece.len as u64 - 1);
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        self.table.close(self.blocks(), output)?;
        output.write_at(&self.header(), 0)?;
        output.set_len(self.end())?;
        Ok(self.end())
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        let sound = file.len() == self.end() && read_vec(file, 0, HEADER_LEN)? == self.header();
        Ok(sound && self.table.is_intact(file, &mut |_| Ok(true))?)
    }
}
