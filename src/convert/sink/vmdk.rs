//! The VMDK format, by VMware's "Virtual Disk Format 5.0", stream-optimized: what OVF packages hold, and what ESXi takes.
//!
//! ```text
//! header │ descriptor │ 512 grains │ table │ 512 grains │ table │ … │ directory │ footer │ end
//! ```
//!
//! Every grain is compressed, behind a marker of its place on the disk. A table follows its grains and the directory follows the
//! tables, each behind a marker, so that the file is written without a way back: the header says that the footer knows where the
//! directory is.

use super::{Encoder, Form, Make, Order, Output, Piece, Shape, Sink, Zeros};
use crate::convert::deflate;
use crate::disk::bytes::{le32, put, put16, put32};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Kind, Result};
use crate::limits::MAX_VMDK_TABLES;

mod descriptor;
#[cfg(test)]
mod tests;

const SECTOR: u64 = 512;

/// The page of a file system.
const PAGE: u64 = 4096;

/// Bytes of a grain.
const GRAIN: u64 = 64 << 10;

/// Entries of a grain table.
const ENTRIES: u64 = 512;

/// Bytes of a grain table.
const TABLE: usize = ENTRIES as usize * 4;

/// Bytes of the disk that a grain table is for.
const SPAN: u64 = ENTRIES * GRAIN;

/// Where the descriptor is.
const DESCRIPTOR: u64 = SECTOR;

/// Bytes kept for the descriptor: QEMU reads as much of it.
const DESCRIPTOR_LEN: u64 = 20 * SECTOR;

/// Where the grains begin: `overHead`.
const DATA: u64 = 64 << 10;

/// `gdOffset` of a header whose footer tells.
const GD_AT_END: u64 = u64::MAX;

/// Bytes of a grain's marker: its first sector and how many bytes follow.
const MARKER: usize = 12;

/// Most bytes that a marker, deflate's stored blocks, zlib's checksum and whole sectors add to a grain.
const GRAIN_EXTRA: u64 = 2 * SECTOR;

/// What else a marker can stand before.
const GRAIN_TABLE: u32 = 1;
const GRAIN_DIRECTORY: u32 = 2;
const FOOTER: u32 = 3;

/// How a VMDK is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmdkOptions {
    /// How hard to compress: 1 to 9, or 0 to store the bytes as they are in the form of compressed ones.
    pub level: u8,
}

impl Default for VmdkOptions {
    fn default() -> Self {
        Self { level: 6 }
    }
}

/// Writes a stream-optimized VMDK.
#[derive(Debug)]
pub(in crate::convert) struct VmdkSink {
    len: u64,
    level: u8,
    /// Where the VMDK begins in the file: it may be a member of an archive.
    base: u64,
    descriptor: String,
    /// The end of what is in use.
    next: u64,
    /// Sectors of the tables that are in the file, 0 for tables without a grain.
    directory: Vec<u32>,
    /// The table after those, as far as its grains came.
    table: Box<[u8; TABLE]>,
    /// Of all tables that are in the file.
    digest: blake3::Hasher,
}

impl VmdkSink {
    /// What the format wants.
    pub(super) const SHAPE: Shape = Shape { granule: GRAIN, order: Order::Disk, zeros: Zeros::Skip };

    /// A disk of `make.len` bytes.
    ///
    /// # Errors
    /// `convert.size` when the format cannot hold it.
    pub(in crate::convert) fn new(make: &Make, options: &VmdkOptions) -> Result<Self> {
        Self::at(0, make, options)
    }

    /// As [`VmdkSink::new`], for a VMDK that begins at `base` of the file.
    ///
    /// # Errors
    /// `convert.size` when the format cannot hold it.
    pub(super) fn at(base: u64, make: &Make, options: &VmdkOptions) -> Result<Self> {
        let most = MAX_VMDK_TABLES * SPAN;
        if make.sector_size.bytes() != SECTOR || make.len > most {
            return Err(Error::new(Kind::Usage, "convert.size", "a VMDK cannot hold such a disk")
                .expected(format!("at most {most} bytes, in sectors of {SECTOR}"))
                .found(format!("{} bytes in sectors of {}", make.len, make.sector_size.bytes())));
        }
        Ok(Self {
            len: make.len,
            level: options.level,
            base,
            descriptor: descriptor::text(make),
            next: base + DATA,
            directory: Vec::new(),
            table: Box::new([0; TABLE]),
            digest: blake3::Hasher::new(),
        })
    }

    /// Number of tables.
    fn tables(&self) -> u64 {
        self.len.div_ceil(SPAN)
    }

    /// Bytes of the directory, in whole sectors.
    fn directory_len(&self) -> u64 {
        (self.tables() * 4).next_multiple_of(SECTOR)
    }

    /// The header, or the footer, which knows where the directory is.
    fn header(&self, directory: u64) -> [u8; 512] {
        let mut header = [0; 512];
        put(&mut header, 0, b"KDMV");
        put32(&mut header, 4, 3); // version: that of compressed grains
        put32(&mut header, 8, 1 | 1 << 16 | 1 << 17); // flags: line ends can be checked, compressed, markers
        for (at, sectors) in [
            (12, self.len / SECTOR), // capacity
            (20, GRAIN / SECTOR),
            (28, DESCRIPTOR / SECTOR),
            (36, DESCRIPTOR_LEN / SECTOR),
            (56, directory),
            (64, DATA / SECTOR), // overHead
        ] {
            put(&mut header, at, &sectors.to_le_bytes());
        }
        put32(&mut header, 44, ENTRIES as u32);
        put(&mut header, 73, b"\n \r\n");
        put16(&mut header, 77, 1); // compressAlgorithm: deflate
        header
    }

    /// What is before the first grain.
    fn front(&self) -> Vec<u8> {
        let mut front = vec![0; DATA as usize];
        put(&mut front, 0, &self.header(GD_AT_END));
        put(&mut front, DESCRIPTOR as usize, self.descriptor.as_bytes());
        front
    }

    /// The directory's bytes.
    fn directory(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.directory.iter().flat_map(|sector| sector.to_le_bytes()).collect();
        bytes.resize(usize::try_from(self.directory_len()).unwrap_or(0), 0);
        bytes
    }

    /// What is behind the last table: the directory, footer and end, for a directory whose marker is at `at`.
    fn back(&self, at: u64) -> [Vec<u8>; 3] {
        let directory = [&marker(self.directory_len(), GRAIN_DIRECTORY)[..], &self.directory()].concat();
        let footer = [marker(SECTOR, FOOTER), self.header((at + SECTOR - self.base) / SECTOR)].concat();
        [directory, footer, vec![0; SECTOR as usize]]
    }

    /// Appends `bytes`.
    fn append(&mut self, bytes: &[u8], output: &dyn Output) -> Result<()> {
        output.write_at(bytes, self.next)?;
        self.next += bytes.len() as u64;
        Ok(())
    }

    /// The sector of the VMDK at `at` of the file.
    fn sector(&self, at: u64) -> Result<u32> {
        u32::try_from((at - self.base) / SECTOR).map_err(|_| {
            Error::new(Kind::Usage, "convert.size", "the VMDK becomes larger than its tables can say")
                .expected("at most 2 TiB of compressed data")
                .hint("write it in another format, such as qcow2")
        })
    }

    /// Writes the tables before number `table`.
    fn close(&mut self, table: u64, output: &dyn Output) -> Result<()> {
        while (self.directory.len() as u64) < table {
            if self.table.iter().all(|byte| *byte == 0) {
                self.directory.push(0);
                continue;
            }
            let bytes = [&marker(TABLE as u64, GRAIN_TABLE)[..], &self.table[..]].concat();
            self.directory.push(self.sector(self.next + SECTOR)?);
            self.digest.update(&bytes);
            self.append(&bytes, output)?;
            self.table.fill(0);
        }
        Ok(())
    }

    /// Writes what follows the last grain; gives where the VMDK ends.
    pub(super) fn end(&mut self, output: &dyn Output) -> Result<u64> {
        self.close(self.tables(), output)?;
        for part in self.back(self.next) {
            self.append(&part, output)?;
        }
        Ok(self.next)
    }

    /// Whether `file` has all of the VMDK where it was written, as far as it is not data.
    pub(super) fn is_intact(&self, file: &dyn Disk) -> Result<bool> {
        if file.len() < self.next || read_vec(file, self.base, DATA as usize)? != self.front() {
            return Ok(false);
        }
        let (mut at, mut digest) = (self.base + DATA, blake3::Hasher::new());
        for (number, sector) in (0..).zip(&self.directory).filter(|(_, sector)| **sector != 0) {
            match self.walk(at, number, *sector, &mut digest, file)? {
                Some(end) => at = end,
                None => return Ok(false),
            }
        }
        let back = self.back(at).concat();
        let ends = at + back.len() as u64 == self.next && read_vec(file, at, back.len())? == back;
        Ok(ends && digest.finalize() == self.digest.finalize())
    }

    /// Whether the grains and the table that ends at `sector` follow each other from `at` on in `file`, without anything in
    /// between. Gives where the table ends.
    fn walk(
        &self,
        at: u64,
        number: u64,
        sector: u32,
        digest: &mut blake3::Hasher,
        file: &dyn Disk,
    ) -> Result<Option<u64>> {
        let start = self.base + u64::from(sector) * SECTOR;
        let end = start + TABLE as u64;
        if start < at + SECTOR || end > file.len() {
            return Ok(None);
        }
        let bytes = read_vec(file, start - SECTOR, SECTOR as usize + TABLE)?;
        digest.update(&bytes);
        let mut at = at;
        for (index, entry) in (number * ENTRIES..).zip(bytes.split_at(SECTOR as usize).1.chunks_exact(4)) {
            let sector = u64::from(le32(entry, 0));
            if sector == 0 {
                continue;
            }
            let Some(len) = grain_len(file, at, start)?.filter(|_| self.base + sector * SECTOR == at) else {
                return Ok(None);
            };
            if read_vec(file, at, 8)? != (index * GRAIN / SECTOR).to_le_bytes() {
                return Ok(None);
            }
            at += len;
        }
        Ok((at + SECTOR == start).then_some(end))
    }
}

/// Bytes that the grain at `at` takes, in whole sectors, if its last one ends in zeros and before `end`.
fn grain_len(file: &dyn Disk, at: u64, end: u64) -> Result<Option<u64>> {
    if at + SECTOR > end {
        return Ok(None);
    }
    let used = MARKER as u64 + u64::from(le32(&read_vec(file, at, MARKER)?, 8));
    let len = used.next_multiple_of(SECTOR);
    if at + len > end {
        return Ok(None);
    }
    let rest = read_vec(file, at + used, usize::try_from(len - used).unwrap_or(0))?;
    Ok(rest.iter().all(|byte| *byte == 0).then_some(len))
}

/// A marker before `len` bytes of something that is not a grain.
fn marker(len: u64, kind: u32) -> [u8; 512] {
    let mut marker = [0; 512];
    put(&mut marker, 0, &(len / SECTOR).to_le_bytes());
    put32(&mut marker, 12, kind);
    marker
}

impl Sink for VmdkSink {
    fn shape(&self) -> Shape {
        Self::SHAPE
    }

    fn encoder(&self) -> Result<Option<Box<dyn Encoder>>> {
        Ok(Some(Box::new(Grains::new(self.level))))
    }

    fn overhead(&self, data: u64, _windows: u64) -> u64 {
        let grains = data / GRAIN;
        let tables = self.tables().min(grains) * (SECTOR + TABLE as u64);
        // The directory's marker, the footer with its own, the end; and a file ends with a whole page.
        DATA + grains * GRAIN_EXTRA + tables + self.directory_len() + 4 * SECTOR + PAGE
    }

    fn begin(&mut self, output: &dyn Output) -> Result<()> {
        output.write_at(&self.front(), self.base)
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        // A chunk lies within one table.
        self.close(start / SPAN, output)?;
        for piece in pieces {
            let Form::Encoded(stored) = piece.form else {
                return Err(Error::failed("convert.encode", "a grain was not compressed"));
            };
            let sector = self.sector(self.next)?;
            let grain = (start + piece.start as u64) / GRAIN % ENTRIES;
            put32(&mut self.table[..], grain as usize * 4, sector);
            piece.host = self.next;
            self.next += u64::from(stored);
        }
        Ok(())
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        let end = self.end(output)?;
        output.set_len(end)?;
        Ok(end)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        Ok(file.len() == self.next && self.is_intact(file)?)
    }
}
/// Compresses grains, in the order of the format: marker, zlib data (RFC 1950), zeros to the end of the sector.
pub(super) struct Grains(Option<deflate::Encoder>);

impl Grains {
    /// By [`VmdkOptions::level`].
    pub(super) fn new(level: u8) -> Self {
        Self((level > 0).then(|| deflate::Encoder::new(deflate::Level::of(level))))
    }
}

impl Encoder for Grains {
    fn encode(&mut self, offset: u64, granule: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        /// Deflate with a window of 32 KiB, which takes in smaller ones; no dictionary.
        const ZLIB: [u8; 2] = [0x78, 0x01];
        let start = out.len();
        out.extend_from_slice(&(offset / SECTOR).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&ZLIB);
        let most = granule.len() + GRAIN_EXTRA as usize;
        let encoded = self.0.as_mut().and_then(|encoder| encoder.encode(granule, out, most));
        if encoded.is_none() {
            store(granule, out);
        }
        out.extend_from_slice(&libdeflater::adler32(granule).to_be_bytes());
        let size = out.len() - start - MARKER;
        if let Some(marker) = out.get_mut(start..) {
            put32(marker, 8, u32::try_from(size).unwrap_or(u32::MAX));
        }
        out.resize(start + (out.len() - start).next_multiple_of(SECTOR as usize), 0);
        Ok(true)
    }
}

/// Appends deflate's stored blocks (RFC 1951, 3.2.4), which hold `bytes` as they are.
fn store(bytes: &[u8], out: &mut Vec<u8>) {
    let mut parts = bytes.chunks(0xffff).peekable();
    while let Some(part) = parts.next() {
        let len = part.len() as u16;
        out.push(u8::from(parts.peek().is_none()));
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(part);
    }
}
