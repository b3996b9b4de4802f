//! An OVA (DMTF DSP0243 2.1.1): a tar archive of a descriptor, stream-optimized VMDKs and a manifest.
//!
//! ```text
//! header │ descriptor, with room │ header │ disk │ header │ disk │ … │ header │ manifest │ end
//! ```
//!
//! The disks of a machine come as one, each at the start of a chunk, and zeros in between ([`OvaOptions::disks`]). The descriptor
//! is the first member and says how long the others are, so it is written last, into room that is kept for it, and so are all
//! headers.

use sha2::{Digest, Sha256};

use super::vmdk::{Grains, VmdkOptions, VmdkSink};
use super::{Encoder, Make, Output, Piece, Shape, Sink};
use crate::container::ovf::{self, Ovf, Written};
use crate::container::tar;
use crate::convert::plan::CHUNK;
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Kind, Result};

const BLOCK: u64 = 512;

/// Bytes that are hashed at a time.
const PART: u64 = 1 << 20;

/// How an OVA is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvaOptions {
    /// What the members are called, before their suffixes: plain characters, some 80 at most.
    pub stem: String,
    /// The machine; what it says of disks is not used.
    pub machine: Box<Ovf>,
    /// The disks in their order; none stands for one of which nothing is known.
    pub disks: Vec<OvaDisk>,
    /// How hard to compress: [`VmdkOptions::level`].
    pub level: u8,
}

/// A disk of an OVA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OvaDisk {
    /// Bytes: whole sectors.
    pub len: u64,
    /// Bus, position of the controller in the machine's list, and address on it.
    pub attached: Option<(ovf::Bus, usize, u32)>,
}

impl Default for OvaOptions {
    fn default() -> Self {
        let level = VmdkOptions::default().level;
        Self { stem: "machine".to_owned(), machine: Box::default(), disks: Vec::new(), level }
    }
}

impl OvaOptions {
    /// The disks on one of `len` bytes that holds all of them.
    fn disks(&self, len: u64) -> Vec<OvaDisk> {
        if self.disks.is_empty() { vec![OvaDisk { len, attached: None }] } else { self.disks.clone() }
    }

    /// Where each disk begins and ends on the one of `len` bytes that holds all of them.
    pub(in crate::convert) fn ranges(&self, len: u64) -> Vec<std::ops::Range<u64>> {
        let mut next = 0_u64;
        let disks = self.disks(len).into_iter().map(|disk| {
            let start = next.next_multiple_of(CHUNK);
            next = start.saturating_add(disk.len);
            start..next
        });
        disks.collect()
    }

    /// The name of the disk number `index`.
    pub(in crate::convert) fn disk_name(&self, index: usize) -> String {
        format!("{}-disk{}.vmdk", self.stem, index + 1)
    }
}

/// Writes an OVA.
#[derive(Debug)]
pub(in crate::convert) struct OvaSink {
    make: Make,
    options: OvaOptions,
    disks: Vec<OvaDisk>,
    /// Where the disks begin on the one that holds all of them.
    starts: Vec<u64>,
    /// Room for the descriptor.
    room: u64,
    /// Members that are written or being written.
    members: Vec<Member>,
    manifest: String,
    /// The end of what is in use.
    next: u64,
}

/// A disk's member.
#[derive(Debug)]
struct Member {
    /// Where its header is.
    at: u64,
    /// Bytes of it, 0 until it is finished.
    len: u64,
    sink: VmdkSink,
}

impl OvaSink {
    /// The disks of `options` side by side on one of `make.len` bytes.
    ///
    /// # Errors
    /// `convert.size` when a VMDK cannot hold one of them, or they are not what `make` says.
    pub(in crate::convert) fn new(make: &Make, options: &OvaOptions) -> Result<Self> {
        let ranges = options.ranges(make.len);
        if ranges.last().is_none_or(|last| last.end != make.len) {
            return Err(Error::new(Kind::Usage, "convert.size", "the disks of an OVA cannot get another size"));
        }
        let mut sink = Self {
            make: make.clone(),
            options: options.clone(),
            disks: options.disks(make.len),
            starts: ranges.iter().map(|range| range.start).collect(),
            room: 0,
            members: Vec::new(),
            manifest: String::new(),
            next: 0,
        };
        sink.room = (sink.descriptor(&|_| u64::MAX).len() as u64).next_multiple_of(BLOCK);
        sink.next = BLOCK + sink.room;
        for index in 0..sink.disks.len() {
            sink.vmdk(index, 0)?;
        }
        Ok(sink)
    }

    /// What writes disk number `index` from `base` on.
    fn vmdk(&self, index: usize, base: u64) -> Result<VmdkSink> {
        let disk = self.disks.get(index).ok_or_else(|| Error::failed("convert.size", "there is no such disk"))?;
        let label = format!("ova disk {index}");
        let identity = *blake3::keyed_hash(&self.make.identity, label.as_bytes()).as_bytes();
        let make = Make { len: disk.len, identity, name: self.options.disk_name(index), ..self.make.clone() };
        VmdkSink::at(base, &make, &VmdkOptions { level: self.options.level })
    }

    /// The descriptor, for files of so many bytes.
    fn descriptor(&self, size: &dyn Fn(usize) -> u64) -> String {
        let disk = |(index, disk): (usize, &OvaDisk)| Written {
            href: self.options.disk_name(index),
            size: size(index),
            capacity: disk.len,
            attached: disk.attached,
        };
        let disks: Vec<Written> = self.disks.iter().enumerate().map(disk).collect();
        ovf::write(&self.options.machine, &disks)
    }

    /// The descriptor's member: header, text, and line ends up to the end of its room.
    fn first(&self) -> Vec<u8> {
        let mut bytes = tar::header(&format!("{}.ovf", self.options.stem), self.room).to_vec();
        let size = |index: usize| self.members.get(index).map_or(0, |member: &Member| member.len);
        bytes.extend_from_slice(self.descriptor(&size).as_bytes());
        bytes.resize(usize::try_from(BLOCK + self.room).unwrap_or(0), b'\n');
        bytes
    }

    /// The manifest's member and the end of the archive.
    fn last(&self) -> Vec<u8> {
        let len = self.manifest.len() as u64;
        let mut bytes = tar::header(&format!("{}.mf", self.options.stem), len).to_vec();
        bytes.extend_from_slice(self.manifest.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize) + 2 * BLOCK as usize, 0);
        bytes
    }

    /// Begins disks until that of number `index` is the last one, and ends those before it.
    fn go_to(&mut self, index: usize, output: &dyn Output) -> Result<()> {
        while self.members.len() <= index {
            self.end_last(output)?;
            let mut sink = self.vmdk(self.members.len(), self.next + BLOCK)?;
            sink.begin(output)?;
            self.members.push(Member { at: self.next, len: 0, sink });
        }
        Ok(())
    }

    fn end_last(&mut self, output: &dyn Output) -> Result<()> {
        if let Some(member) = self.members.last_mut() {
            self.next = member.sink.end(output)?;
            member.len = self.next - member.at - BLOCK;
        }
        Ok(())
    }

    /// A line for each file, the digests taken from what was written.
    fn manifest(&self, first: &[u8], output: &dyn Output) -> Result<String> {
        let text = first.get(BLOCK as usize..).unwrap_or_default();
        let mut manifest = line(&format!("{}.ovf", self.options.stem), Sha256::new_with_prefix(text));
        let file = output.reopen()?;
        for (index, member) in self.members.iter().enumerate() {
            let mut digest = Sha256::new();
            let (mut at, end) = (member.at + BLOCK, member.at + BLOCK + member.len);
            while at < end {
                let part = read_vec(&*file, at, usize::try_from(PART.min(end - at)).unwrap_or(0))?;
                digest.update(&part);
                at += part.len() as u64;
            }
            manifest.push_str(&line(&self.options.disk_name(index), digest));
        }
        Ok(manifest)
    }
}

/// A line of a manifest.
fn line(name: &str, digest: Sha256) -> String {
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("SHA256({name})= {digest}\n")
}

/// The disk that holds the byte at `at`, of those that begin at `starts`.
fn disk_at(starts: &[u64], at: u64) -> usize {
    starts.partition_point(|start| *start <= at).saturating_sub(1)
}

impl Sink for OvaSink {
    fn shape(&self) -> Shape {
        VmdkSink::SHAPE
    }

    fn encoder(&self) -> Result<Option<Box<dyn Encoder>>> {
        Ok(Some(Box::new(Side { grains: Grains::new(self.options.level), starts: self.starts.clone() })))
    }

    fn overhead(&self, data: u64, windows: u64) -> u64 {
        let each = (0..self.disks.len()).filter_map(|index| self.vmdk(index, 0).ok());
        let tables: u64 = each.map(|sink| BLOCK + sink.overhead(0, windows)).sum();
        let grains = self.vmdk(0, 0).map_or(0, |sink| sink.overhead(data, windows));
        let manifest = (self.disks.len() as u64 + 1) * BLOCK;
        self.next.saturating_add(tables).saturating_add(grains).saturating_add(manifest + 4 * BLOCK)
    }

    fn begin(&mut self, output: &dyn Output) -> Result<()> {
        self.go_to(0, output)
    }

    fn place(&mut self, start: u64, pieces: &mut [Piece], output: &dyn Output) -> Result<()> {
        let index = disk_at(&self.starts, start);
        self.go_to(index, output)?;
        let before = self.starts.get(index).copied().unwrap_or(0);
        match self.members.last_mut() {
            Some(member) => member.sink.place(start - before, pieces, output),
            None => Ok(()),
        }
    }

    fn finish(&mut self, output: &dyn Output) -> Result<u64> {
        self.go_to(self.disks.len().saturating_sub(1), output)?;
        self.end_last(output)?;
        let first = self.first();
        self.manifest = self.manifest(&first, output)?;
        let last = self.last();
        output.write_at(&last, self.next)?;
        for (index, member) in self.members.iter().enumerate() {
            output.write_at(&tar::header(&self.options.disk_name(index), member.len), member.at)?;
        }
        output.write_at(&first, 0)?;
        let end = self.next + last.len() as u64;
        output.set_len(end)?;
        Ok(end)
    }

    fn tables_are_intact(&self, file: &dyn Disk) -> Result<bool> {
        let (first, last) = (self.first(), self.last());
        if file.len() != self.next + last.len() as u64
            || read_vec(file, 0, first.len())? != first
            || read_vec(file, self.next, last.len())? != last
        {
            return Ok(false);
        }
        for (index, member) in self.members.iter().enumerate() {
            let header = tar::header(&self.options.disk_name(index), member.len);
            if read_vec(file, member.at, BLOCK as usize)? != header || !member.sink.is_intact(file)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Compresses grains of disks that lie side by side: each counts from the start of its own.
struct Side {
    grains: Grains,
    starts: Vec<u64>,
}

impl Encoder for Side {
    fn encode(&mut self, offset: u64, granule: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let start = self.starts.get(disk_at(&self.starts, offset)).copied().unwrap_or(0);
        self.grains.encode(offset - start, granule, out)
    }
}
