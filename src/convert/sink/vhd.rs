//! The VHD format, by Microsoft's "Virtual Hard Disk Image Format Specification", version 1.0.
//!
//! ```text
//! fixed      disk │ footer
//! dynamic    copy of the footer │ header │ block allocation table │ bitmap, block │ bitmap, block │ … │ footer
//! ```
//!
//! A dynamic disk's blocks are as large as a chunk. Their data begins at a multiple of 4 KiB, which the format allows and old
//! writers did not care for.

use super::table::BlockTable;
use super::{Make, Output, Piece, Shape, Sink};
use crate::convert::plan::{CHUNK, WINDOW};
use crate::disk::bytes::put;
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Kind, Result};

/// The page of every file system that has holes, and of the disks below.
const GRANULE: u64 = 4096;

/// Bytes of a block.
const BLOCK: u64 = CHUNK;

/// Bytes of a block's bitmap: a bit for each sector.
const BITMAP: u64 = BLOCK / 512 / 8;

/// Where the table begins: behind the footer's copy and the header.
const TABLE: u64 = 512 + 1024;

/// The largest disk that entries of 32 bits can address with every implementation.
const MAX_DYNAMIC: u64 = 2040 << 30;

/// How a VHD is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhdOptions {
    /// Every byte at its own offset, as Azure wants it, or blocks where there is data.
    pub subformat: VhdSubformat,
}

/// What sort of VHD is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VhdSubformat {
    /// Blocks where there is data.
    Dynamic,
    /// Every byte at its own offset, and a size of whole mebibytes: what Azure takes.
    #[default]
    Fixed,
}

impl VhdOptions {
    /// The disk's size is rounded up to a multiple of this.
    pub(in crate::convert) const fn size_unit(&self) -> u64 {
        match self.subformat {
            VhdSubformat::Dynamic => 512,
            VhdSubformat::Fixed => 1 << 20,
        }
    }
}

/// Writes a VHD.
#[derive(Debug)]
pub(in crate::convert) struct VhdSink {
    len: u64,
    subformat: VhdSubformat,
    footer: [u8; 512],
    /// The end of what is in use.
    next: u64,
    table: BlockTable,
}

impl VhdSink {
    /// A disk of `make.len` bytes.
    ///
    /// # Errors
    /// `convert.size` when the format cannot hold it.
    pub(in crate::convert) fn new(make: &Make, options: &VhdOptions) -> Result<Self> {
        let dynamic = options.subformat == VhdSubformat::Dynamic;
        if make.sector_size.bytes() != 512 {
            return Err(Error::new(Kind::Usage, "convert.size", "a VHD has sectors of 512 bytes")
                .found(make.sector_size.bytes())
                .hint("VHDX can have others"));
        }
        if dynamic && make.len > MAX_DYNAMIC {
            return Err(Error::new(Kind::Usage, "convert.size", "the disk is too large for a dynamic VHD")
                .expected(format!("at most {MAX_DYNAMIC} bytes"))
                .found(make.len)
                .hint("VHDX holds up to 64 TiB"));
        }
        let table_end = TABLE + make.len.div_ceil(BLOCK) * 4;
        Ok(Self {
            len: make.len,
            subformat: options.subformat,
            footer: footer(make, dynamic),
            next: if dynamic { table_end.next_multiple_of(512) } else { make.len },
            table: BlockTable::new(TABLE, 4, 0xff),
        })
    }

    fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK)
    }

    /// The dynamic disk header.
    fn header(&self) -> [u8; 1024] {
        let mut header = [0; 1024];
        let blocks = u32::try_from(self.blocks()).unwrap_or(u32::MAX);
        put(&mut header, 0, b"cxsparse");
        put(&mut header, 8, &u64::MAX.to_be_bytes());
        put(&mut header, 16, &TABLE.to_be_bytes());
        put(&mut header, 24, &0x1_0000_u32.to_be_bytes());
        put(&mut header, 28, &blocks.to_be_bytes());
        put(&mut header, 32, &u32::try_from(BLOCK).unwrap_or(0).to_be_bytes());
        let sum = checksum(&header);
        put(&mut header, 36, &sum.to_be_bytes());
        header
    }

    /// Stores a block: its bitmap says that every sector is here. Gives where its data goes.
    fn block(&mut self, output: &dyn Output) -> Result<u64> {
        let data = (self.next + BITMAP).next_multiple_of(GRANULE);
        output.write_at(&[0xff; BITMAP as usize], data - BITMAP)?;
        self.next = data + BLOCK;
        Ok(data)
    }
}

impl Sink for VhdSink {
    fn shape(&self) -> Shape {
        Shape::of(GRANULE)
    }

    fn overhead(&self, data: u64, _windows: u64) -> u64 {
        match self.subformat {
            VhdSubformat::Fixed => GRANULE,
            VhdSubformat::Dynamic => {
                // Each piece of data may lie in a block of its own, whose bitmap takes a page.
                let blocks = (data / GRANULE).min(self.blocks());
                TABLE + (self.blocks() * 4).next_multiple_of(512) + (blocks + 2) * GRANULE
            }
        }
    }

    fn begin(&mut self, output: &dyn Output) -> Result<()> {
        match self.subformat {
            VhdSubformat::Fixed => output.set_len(self.len),
            VhdSubformat::Dynamic => output.write_at(&self.header(), 512),
        }
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        if self.subformat == VhdSubformat::Fixed {
            pieces.iter_mut().for_each(|piece| piece.host = start + piece.start as u64);
            return Ok(());
        }
        self.table.close(start / WINDOW * (WINDOW / BLOCK), output)?;
        if pieces.is_empty() {
            return Ok(());
        }
        let data = self.block(output)?;
        let sector = u32::try_from((data - BITMAP) / 512).unwrap_or(u32::MAX);
        self.table.set(start / BLOCK, &sector.to_be_bytes());
        pieces.iter_mut().for_each(|piece| piece.host = data + piece.start as u64);
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        if self.subformat == VhdSubformat::Dynamic {
            self.table.close(self.blocks(), output)?;
            output.write_at(&self.footer, 0)?;
        }
        output.write_at(&self.footer, self.next)?;
        output.set_len(self.next + 512)?;
        Ok(self.next + 512)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        if file.len() != self.next + 512 || read_vec(file, self.next, 512)? != self.footer {
            return Ok(false);
        }
        if self.subformat == VhdSubformat::Fixed {
            return Ok(true);
        }
        let ends = read_vec(file, 0, TABLE as usize)?;
        if ends.get(..512) != Some(&self.footer[..]) || ends.get(512..) != Some(&self.header()[..]) {
            return Ok(false);
        }
        self.table.is_intact(file, &mut |entry| {
            let sector = u32::from_be_bytes(entry.try_into().unwrap_or([0; 4]));
            let bitmap = read_vec(file, u64::from(sector) * 512, BITMAP as usize)?;
            Ok(bitmap.iter().all(|byte| *byte == 0xff))
        })
    }
}

/// The footer.
fn footer(make: &Make, dynamic: bool) -> [u8; 512] {
    let mut footer = [0; 512];
    let (cylinders, heads, sectors) = geometry(make.len / 512);
    put(&mut footer, 0, b"conectix");
    put(&mut footer, 8, &2_u32.to_be_bytes());
    put(&mut footer, 12, &0x1_0000_u32.to_be_bytes());
    put(&mut footer, 16, &if dynamic { 512 } else { u64::MAX }.to_be_bytes());
    // With this creator every reader goes by the size and not by the geometry, which is only near it.
    put(&mut footer, 28, b"win ");
    put(&mut footer, 32, &0x000a_0000_u32.to_be_bytes());
    put(&mut footer, 36, b"Wi2k");
    put(&mut footer, 40, &make.len.to_be_bytes());
    put(&mut footer, 48, &make.len.to_be_bytes());
    put(&mut footer, 56, &cylinders.to_be_bytes());
    put(&mut footer, 58, &[heads, sectors]);
    put(&mut footer, 60, &if dynamic { 3_u32 } else { 2 }.to_be_bytes());
    put(&mut footer, 68, &make.id("vhd unique id"));
    let sum = checksum(&footer);
    put(&mut footer, 64, &sum.to_be_bytes());
    footer
}

/// Cylinders, heads and sectors a track that come to at most `sectors`, as the specification's appendix derives them.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(65_535 * 16 * 255);
    let (per_track, heads) = if total > 65_535 * 16 * 63 {
        (255, 16)
    } else {
        let cylinders_heads = total / 17;
        let heads = cylinders_heads.div_ceil(1024).max(4);
        if cylinders_heads < heads * 1024 && heads <= 16 {
            (17, heads)
        } else if total / 31 < 16 * 1024 {
            (31, 16)
        } else {
            (63, 16)
        }
    };
    let cylinders = total / per_track / heads;
    let small = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    (u16::try_from(cylinders).unwrap_or(u16::MAX), small(heads), small(per_track))
}

/// The one's complement of the sum of all bytes; the checksum's own are zeros.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_geometry_is_that_of_the_specification() {
        assert_eq!(geometry(65_535 * 16 * 255), (65_535, 16, 255));
        assert_eq!(geometry(u64::MAX), (65_535, 16, 255));
        assert_eq!(geometry(20_480), (301, 4, 17));
        assert_eq!(geometry(8192), (120, 4, 17));
        // 127 GiB, Virtual PC's favourite.
        assert_eq!(geometry(127 << 21), (65_278, 16, 255));
        for sectors in [1, 17, 1000, 1 << 20, 1 << 25, 1 << 30] {
            let (cylinders, heads, per_track) = geometry(sectors);
            assert!(u64::from(cylinders) * u64::from(heads) * u64::from(per_track) <= sectors);
        }
    }
}
