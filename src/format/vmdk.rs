//! VMware's VMDK: monolithic and split, sparse and flat, and stream-optimized (Virtual Disk Format 5.0).
//!
//! A disk is a list of extents, which a text descriptor names. A sparse file that holds a whole disk has the descriptor inside.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod descriptor;
mod grain;
mod header;
mod sparse;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::descriptor::{Descriptor, ExtentLine, Storage};
use self::header::{Header, SECTOR};
use self::sparse::SparseExtent;
use super::{Ask, Head, Layer, Place, Run, Sample, Unit};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::Policy;
use crate::source::Reference;

/// Whether the file is a sparse extent or a descriptor.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(0, b"KDMV") || descriptor::probe(&sample.head)
}

/// Reads the header and the descriptor.
///
/// # Errors
/// `vmdk.*` codes, or those of reading.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    ask.without_snapshots()?;
    let start = read_vec(&*file, 0, usize::try_from(file.len()).unwrap_or(usize::MAX).min(header::LEN))?;
    let Some(bytes) = start.first_chunk().filter(|bytes| bytes.starts_with(b"KDMV")) else {
        return described(&Descriptor::parse(&whole(&*file)?)?);
    };
    let header = Header::parse(bytes)?;
    let Some((offset, size)) = header.descriptor else { return Err(one_part()) };
    if offset.checked_add(u64::try_from(size).unwrap_or(u64::MAX)).is_none_or(|end| end > file.len()) {
        return Err(
            Error::corrupt("vmdk.descriptor", "the embedded descriptor lies outside of the file").offset(offset)
        );
    }
    let text = read_vec(&*file, offset, size)?;
    if text.first() == Some(&0) {
        return Err(one_part());
    }
    let descriptor = Descriptor::parse(&text).map_err(|error| error.at("embedded descriptor"))?;
    if header.capacity == 0 {
        return described(&descriptor);
    }
    refuse_parent(&descriptor)?;
    check_embedded(&descriptor, &ask.session.policy)?;
    let extent = SparseExtent::open(Arc::clone(&file), header, limits::MAX_VMDK_TABLES)?;
    let len = extent.header().capacity;
    let extents = vec![Extent { start: 0, len, storage: Opened::Sparse { file: 0, extent } }];
    Ok(Head::complete(Arc::new(Vmdk { len, extents, files: vec![file], descriptor })))
}

/// A sparse file without a descriptor, or with room for one that is not used.
fn one_part() -> Error {
    Error::corrupt("vmdk.descriptor", "this is one part of a disk")
        .hint("name the disk's descriptor, the small .vmdk file beside it")
}

/// A whole file that holds a descriptor only.
fn whole(file: &dyn Disk) -> Result<Vec<u8>> {
    let len = usize::try_from(file.len()).unwrap_or(usize::MAX);
    if len > limits::MAX_VMDK_DESCRIPTOR {
        return Err(Error::limit("vmdk.descriptor", "the descriptor is too large")
            .expected(format!("at most {} bytes", limits::MAX_VMDK_DESCRIPTOR))
            .found(len));
    }
    read_vec(file, 0, len)
}

fn refuse_parent(descriptor: &Descriptor) -> Result<()> {
    if !descriptor.has_parent() {
        return Ok(());
    }
    let hint = descriptor.parent_hint.as_deref().map_or_else(String::new, crate::error::escape_bytes);
    Err(Error::unsupported("vmdk.parent", "the disk is a snapshot that needs its parent, which is not handled")
        .found(hint)
        .hint("consolidate the snapshots, or export the machine as OVF"))
}

/// The descriptor inside a sparse file describes that file: it must list one sparse extent. Its name is not used. Some writers
/// put a path there, so one that goes down is accepted; one that leads elsewhere is what a forged file has, and is refused unless
/// the user vouches for that place.
fn check_embedded(descriptor: &Descriptor, policy: &Policy) -> Result<()> {
    let [ExtentLine { storage: Storage::Sparse { file }, .. }] = descriptor.extents.as_slice() else {
        return Err(Error::refused(
            "reference.refused",
            "the descriptor inside the file names other files than itself",
        )
        .at("embedded descriptor")
        .expected("one sparse extent"));
    };
    let down = file.name.split(|b| *b == b'/').all(|part| Reference::new(part, file.role).is_plain());
    let dirs = policy.allow_dirs.iter().map(|dir| dir.as_os_str().as_encoded_bytes());
    let mut places = dirs.chain(policy.map_path.iter().map(|(old, _)| old.as_bytes()));
    if down || places.any(|place| !place.is_empty() && file.name.starts_with(place)) {
        return Ok(());
    }
    Err(Error::refused("reference.refused", "the descriptor inside the file names a file elsewhere")
        .at(file)
        .hint("if you trust the image, allow the place with --allow-dir DIR or --map-path OLD=NEW; it is not opened"))
}

/// The disk that a descriptor describes, whose extents are other files.
fn described(descriptor: &Descriptor) -> Result<Head> {
    refuse_parent(descriptor)?;
    if descriptor.extents.is_empty() {
        return Err(Error::corrupt("vmdk.descriptor", "the descriptor lists no extent"));
    }
    let len = descriptor.len()?;
    let mut names: Vec<Reference> = Vec::new();
    let mut numbers = Vec::with_capacity(descriptor.extents.len());
    for line in &descriptor.extents {
        numbers.push(match &line.storage {
            Storage::Zero => 0,
            Storage::Flat { file, .. } | Storage::Sparse { file } => number_of(&mut names, file),
        });
    }
    let descriptor = descriptor.clone();
    let build = move |files: Vec<Arc<dyn Disk>>| -> Result<Arc<dyn Layer>> {
        let extents = open_extents(&descriptor.extents, &numbers, &files)?;
        Ok(Arc::new(Vmdk { len, extents, files, descriptor }))
    };
    Ok(Head { extents: names, parent: None, build: Box::new(build) })
}

/// The number of a file among those to open, each once.
fn number_of(names: &mut Vec<Reference>, file: &Reference) -> usize {
    names.iter().position(|known| known == file).unwrap_or_else(|| {
        names.push(file.clone());
        names.len().saturating_sub(1)
    })
}

fn open_extents(lines: &[ExtentLine], numbers: &[usize], files: &[Arc<dyn Disk>]) -> Result<Vec<Extent>> {
    let mut start = 0_u64;
    let mut tables_left = limits::MAX_VMDK_TABLES;
    let mut extents = Vec::with_capacity(lines.len());
    for (line, number) in lines.iter().zip(numbers) {
        let len = line.sectors.saturating_mul(SECTOR);
        let storage = match &line.storage {
            Storage::Zero => Opened::Zero,
            Storage::Flat { file, offset } => {
                let offset = offset.saturating_mul(SECTOR);
                let disk = file_of(files, *number, file)?;
                if offset.checked_add(len).is_none_or(|end| end > disk.len()) {
                    return Err(too_short(file)
                        .expected(format!("{len:#x} bytes"))
                        .found(format!("{:#x}", disk.len())));
                }
                Opened::Flat { file: *number, offset }
            }
            Storage::Sparse { file } => {
                let extent =
                    open_sparse(file_of(files, *number, file)?, tables_left).map_err(|error| error.at(file))?;
                tables_left = tables_left.saturating_sub(extent.tables());
                if extent.header().capacity < len {
                    let found = format!("{:#x}", extent.header().capacity);
                    return Err(too_short(file).expected(format!("{len:#x} bytes")).found(found));
                }
                Opened::Sparse { file: *number, extent }
            }
        };
        extents.push(Extent { start, len, storage });
        start = start.saturating_add(len);
    }
    Ok(extents)
}

fn file_of<'a>(files: &'a [Arc<dyn Disk>], number: usize, name: &Reference) -> Result<&'a Arc<dyn Disk>> {
    files.get(number).ok_or_else(|| Error::failed("format.unit", "an extent was not opened").at(name))
}

fn open_sparse(file: &Arc<dyn Disk>, tables_left: u64) -> Result<SparseExtent> {
    let start = read_vec(&**file, 0, usize::try_from(file.len()).unwrap_or(usize::MAX).min(header::LEN))?;
    let bytes =
        start.first_chunk().ok_or_else(|| Error::corrupt("vmdk.header", "the extent is shorter than its header"))?;
    let header = Header::parse(bytes)?;
    if header.capacity == 0 {
        return Err(Error::corrupt("vmdk.header", "the extent has no capacity").offset(12));
    }
    SparseExtent::open(Arc::clone(file), header, tables_left)
}

fn too_short(file: &Reference) -> Error {
    Error::corrupt("vmdk.extent", "an extent is shorter than the descriptor says").at(file)
}

/// A VMDK, opened.
#[derive(Debug)]
struct Vmdk {
    len: u64,
    /// In the order of the disk, without gaps, covering it.
    extents: Vec<Extent>,
    files: Vec<Arc<dyn Disk>>,
    descriptor: Descriptor,
}

#[derive(Debug)]
struct Extent {
    start: u64,
    len: u64,
    storage: Opened,
}

#[derive(Debug)]
enum Opened {
    Flat { file: usize, offset: u64 },
    Sparse { file: usize, extent: SparseExtent },
    Zero,
}

impl Vmdk {
    /// The extent that holds `offset`.
    fn extent(&self, offset: u64) -> Result<&Extent> {
        let after = self.extents.partition_point(|extent| extent.start <= offset);
        after
            .checked_sub(1)
            .and_then(|index| self.extents.get(index))
            .ok_or_else(|| Error::corrupt("disk.range", "there is no extent here").offset(offset))
    }

    fn sparse(&self) -> impl Iterator<Item = &SparseExtent> {
        self.extents.iter().filter_map(|extent| match &extent.storage {
            Opened::Sparse { extent, .. } => Some(extent),
            _ => None,
        })
    }
}

impl Layer for Vmdk {
    fn format(&self) -> &'static str {
        "vmdk"
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn unit_size(&self) -> u64 {
        self.sparse().map(|extent| extent.header().grain).max().unwrap_or(SECTOR)
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        let extent = self.extent(offset)?;
        let within = offset.saturating_sub(extent.start);
        let max = max.min(extent.len.saturating_sub(within));
        match &extent.storage {
            Opened::Flat { file, offset: base } => {
                Ok(Run { len: max, place: Place::Data { file: *file, offset: base.saturating_add(within) } })
            }
            Opened::Sparse { file, extent: sparse } => sparse.map(within, max, extent.start, *file),
            Opened::Zero => Ok(Run { len: max, place: Place::Zero }),
        }
    }

    fn decode(&self, unit: &Unit, out: &mut [u8]) -> Result<()> {
        let extent = self.extent(unit.start)?;
        match &extent.storage {
            Opened::Sparse { extent: sparse, .. } => {
                sparse.decode(unit.start.saturating_sub(extent.start), unit.offset, out)
            }
            _ => Err(Error::failed("format.unit", "the extent has no encoded units").offset(unit.start)),
        }
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let descriptor = &self.descriptor;
        let mut facts = Vec::new();
        let mut fact = |key, value: Option<String>| facts.extend(value.map(|value| (key, value)));
        fact("createType", descriptor.create_type.clone());
        fact("CID", descriptor.cid.map(|cid| format!("{cid:08x}")));
        fact("adapterType", descriptor.adapter.clone());
        fact("virtualHWVersion", descriptor.hardware.clone());
        fact("extents", Some(self.extents.len().to_string()));
        fact("grainSize", self.sparse().next().map(|extent| extent.header().grain.to_string()));
        fact("version", self.sparse().next().map(|extent| extent.header().version.to_string()));
        fact("compressed", self.sparse().any(|extent| extent.header().compressed).then(|| "deflate".to_owned()));
        fact("uncleanShutdown", self.sparse().any(|extent| extent.header().unclean).then(|| "true".to_owned()));
        let repaired: u64 = self.sparse().map(SparseExtent::repaired).fold(0, u64::saturating_add);
        fact("repairedTables", (repaired > 0).then(|| repaired.to_string()));
        facts
    }
}
