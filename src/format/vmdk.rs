//! VMware's VMDK: monolithic and split, sparse and flat, stream-optimized (Virtual Disk Format 5.0), and ESX's COWD and seSparse.
//!
//! A disk is a list of extents, which a text descriptor names. A sparse file that holds a whole disk has the descriptor inside.
//! A snapshot's descriptor names its parent, and the content id that the parent had when it was taken.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod check;
mod cowd;
mod descriptor;
mod forward;
mod grain;
mod header;
mod layer;
mod layout;
mod parent;
mod sesparse;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::cowd::CowdHeader;
use self::descriptor::{Descriptor, ExtentLine, Storage};
use self::forward::Markers;
use self::header::{Header, SECTOR};
use self::layer::{Extent, Kind, Opened, Vmdk};
use self::layout::Layout;
use self::sesparse::SeSparseHeader;
use self::tables::Grains;
use super::{Ask, Head, Layer, Sample};
use crate::disk::{Disk, Feed, Stream, read_vec};
use crate::error::{Error, Result};
use crate::limits;
use crate::session::{Policy, Session};
use crate::source::Reference;

/// Whether the file is a sparse extent or a descriptor.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(0, b"KDMV")
        || sample.has(0, cowd::MAGIC)
        || sample.has(0, sesparse::MAGIC)
        || descriptor::probe(&sample.head)
}

/// Reads the header and the descriptor.
///
/// # Errors
/// `vmdk.*` codes, or those of reading.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    ask.without_snapshots()?;
    let start = read_vec(&*file, 0, usize::try_from(file.len()).unwrap_or(usize::MAX).min(header::LEN))?;
    if start.starts_with(cowd::MAGIC) || start.starts_with(sesparse::MAGIC) {
        return Err(one_part());
    }
    let Some(bytes) = start.first_chunk().filter(|bytes| bytes.starts_with(b"KDMV")) else {
        return described(&file, &Descriptor::parse(&whole(&*file)?)?, ask.session);
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
        return described(&file, &descriptor, ask.session);
    }
    check_embedded(&descriptor, &ask.session.policy)?;
    let parent = parent::of(&descriptor, &file.name())?;
    let (kind, grains) = open_hosted(Arc::clone(&file), header, limits::MAX_VMDK_TABLES, ask.session, 1)?;
    let len = grains.layout().capacity;
    let extents = vec![Extent { start: 0, len, storage: Opened::Sparse { file: 0, kind, grains: Box::new(grains) } }];
    Ok(Head { parent, ..Head::complete(Arc::new(Vmdk { len, extents, files: vec![file], descriptor })) })
}

/// Reads a stream-optimized disk forward.
///
/// # Errors
/// `feed.format` for other kinds, and `vmdk.*` codes.
pub fn feed(stream: Box<dyn Stream>, session: &Session) -> Result<Box<dyn Feed>> {
    Ok(Box::new(Markers::open(stream, &session.policy)?))
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
fn described(file: &Arc<dyn Disk>, descriptor: &Descriptor, session: &Arc<Session>) -> Result<Head> {
    let parent = parent::of(descriptor, &file.name())?;
    if descriptor.extents.is_empty() {
        return Err(Error::corrupt("vmdk.descriptor", "the descriptor lists no extent"));
    }
    let len = descriptor.len()?;
    let mut names: Vec<Reference> = Vec::new();
    let mut numbers = Vec::with_capacity(descriptor.extents.len());
    for line in &descriptor.extents {
        numbers.push(match &line.storage {
            _ if !line.readable => 0,
            Storage::Zero => 0,
            Storage::Flat { file, .. } | Storage::Sparse { file } => number_of(&mut names, file),
        });
    }
    let (descriptor, session) = (descriptor.clone(), Arc::clone(session));
    let build = move |files: Vec<Arc<dyn Disk>>| -> Result<Arc<dyn Layer>> {
        let extents = open_extents(&descriptor.extents, &numbers, &files, &session)?;
        Ok(Arc::new(Vmdk { len, extents, files, descriptor }))
    };
    Ok(Head { extents: names, parent, build: Box::new(build) })
}

/// The number of a file among those to open, each once.
fn number_of(names: &mut Vec<Reference>, file: &Reference) -> usize {
    names.iter().position(|known| known == file).unwrap_or_else(|| {
        names.push(file.clone());
        names.len().saturating_sub(1)
    })
}

fn open_extents(
    lines: &[ExtentLine],
    numbers: &[usize],
    files: &[Arc<dyn Disk>],
    session: &Session,
) -> Result<Vec<Extent>> {
    let mut start = 0_u64;
    let mut tables_left = limits::MAX_VMDK_TABLES;
    let mut extents = Vec::with_capacity(lines.len());
    let among = u64::try_from(lines.len()).unwrap_or(u64::MAX);
    for (line, number) in lines.iter().zip(numbers) {
        let len = line.sectors.saturating_mul(SECTOR);
        let storage = match &line.storage {
            _ if !line.readable => Opened::Zero,
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
                let disk = file_of(files, *number, file)?;
                let (kind, grains) =
                    open_sparse(Arc::clone(disk), tables_left, session, among).map_err(|error| error.at(file))?;
                tables_left = tables_left.saturating_sub(grains.layout().tables());
                if grains.layout().capacity < len {
                    let found = format!("{:#x}", grains.layout().capacity);
                    return Err(too_short(file).expected(format!("{len:#x} bytes")).found(found));
                }
                Opened::Sparse { file: *number, kind, grains: Box::new(grains) }
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

/// Opens a file of grains of whatever kind: descriptors and headers need not agree about that, and the header knows.
fn open_sparse(file: Arc<dyn Disk>, tables_left: u64, session: &Session, among: u64) -> Result<(Kind, Grains)> {
    let start = read_vec(&*file, 0, usize::try_from(file.len()).unwrap_or(usize::MAX).min(header::LEN))?;
    if start.starts_with(cowd::MAGIC) {
        let header = CowdHeader::read(&*file, tables_left)?;
        return Ok((Kind::Cowd { unclean: header.unclean }, Grains::open(file, header.layout, session, among)?));
    }
    if start.starts_with(sesparse::MAGIC) {
        let header = SeSparseHeader::read(&*file, tables_left)?;
        return Ok((Kind::SeSparse, Grains::open(file, header.layout, session, among)?));
    }
    let bytes =
        start.first_chunk().ok_or_else(|| Error::corrupt("vmdk.header", "the extent is shorter than its header"))?;
    open_hosted(file, Header::parse(bytes)?, tables_left, session, among)
}

fn open_hosted(
    file: Arc<dyn Disk>,
    header: Header,
    tables_left: u64,
    session: &Session,
    among: u64,
) -> Result<(Kind, Grains)> {
    let header = match header.gd {
        Some(_) => header,
        None => tables::with_footer(&*file, header)?,
    };
    let layout = Layout::hosted(&header);
    layout.check(tables_left)?;
    let grains = Grains::open(file, layout, session, among)?;
    Ok((Kind::Hosted { version: header.version, unclean: header.unclean }, grains))
}

fn too_short(file: &Reference) -> Error {
    Error::corrupt("vmdk.extent", "an extent is shorter than the descriptor says").at(file)
}
