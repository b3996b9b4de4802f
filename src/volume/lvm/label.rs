//! The label of a physical volume and its metadata areas (`lvm2`: `lib/label/label.h`, `lib/format_text/layout.h`).

use std::ops::Range;

use super::text::Section;
use crate::disk::bytes::{is_at, le32, le64, long, size};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits;

/// The label is in one of the first four sectors.
const LABEL_SECTORS: usize = 4;
const SECTOR: usize = 512;
const MDA_HEADER: u64 = 512;
const MDA_MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
const INITIAL_CRC: u32 = 0xf597_a6cf;
/// Of a `raw_locn`: what it points at is not to be used.
const RAW_LOCN_IGNORED: u32 = 1;
/// Metadata areas of one physical volume: LVM writes two at most.
const MAX_AREAS: usize = 8;

/// What a physical volume says of itself.
#[derive(Clone, Debug)]
pub(super) struct Label {
    /// 32 characters, without dashes.
    pub(super) uuid: String,
    /// The metadata that its areas hold, of the group that it belongs to.
    pub(super) copies: Vec<Section>,
    /// What is wrong with areas that could not be used.
    pub(super) problems: Vec<Error>,
}

/// LVM's checksum: CRC-32 that starts from a number of its own and is not inverted.
pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!INITIAL_CRC);
    parts.iter().for_each(|part| hasher.update(part));
    !hasher.finalize()
}

/// Reads the label of a physical volume, and the metadata that it has.
///
/// # Errors
/// `lvm.label` when there is none with a right checksum.
pub(super) fn read(disk: &dyn Disk) -> Result<Label> {
    let len = (LABEL_SECTORS.saturating_mul(SECTOR)).min(size(disk.len()));
    let head = read_vec(disk, 0, len)?;
    let mut failure = Error::corrupt("lvm.label", "there is no LVM label");
    for (number, sector) in head.chunks_exact(SECTOR).enumerate() {
        if !is_at(sector, 0, b"LABELONE") || !is_at(sector, 24, b"LVM2 001") {
            continue;
        }
        let offset = long(number.saturating_mul(SECTOR));
        let found = checksum(&[sector.get(20..).unwrap_or_default()]);
        if le64(sector, 8) != long(number) || le32(sector, 16) != found {
            failure = Error::corrupt("lvm.label", "the LVM label's checksum or place is wrong")
                .offset(offset)
                .expected(format!("{:#x}", le32(sector, 16)))
                .found(format!("{found:#x}"));
            continue;
        }
        let header = sector.get(size(u64::from(le32(sector, 20)))..).unwrap_or_default();
        return pv_header(disk, header).map_err(|error| error.offset(offset));
    }
    Err(failure)
}

/// `pv_header`: the UUID, the device's size, and two lists of areas, each ended by one without an offset.
fn pv_header(disk: &dyn Disk, header: &[u8]) -> Result<Label> {
    let uuid = header.first_chunk::<32>().filter(|uuid| uuid.iter().all(u8::is_ascii_graphic));
    let uuid = uuid.ok_or_else(|| Error::corrupt("lvm.label", "a physical volume has no UUID"))?;
    let mut label =
        Label { uuid: String::from_utf8_lossy(uuid).into_owned(), copies: Vec::new(), problems: Vec::new() };
    let mut areas = header.get(40..).unwrap_or_default().chunks_exact(16);
    let data = areas.by_ref().take_while(|area| le64(area, 0) != 0).count();
    if data == 0 || data > MAX_AREAS {
        return Err(Error::corrupt("lvm.label", "a physical volume's list of areas is damaged"));
    }
    for area in areas.take_while(|area| le64(area, 0) != 0).take(MAX_AREAS) {
        let range = le64(area, 0)..le64(area, 0).saturating_add(le64(area, 8));
        match metadata(disk, &range) {
            Ok(Some(copy)) => label.copies.push(copy),
            Ok(None) => {}
            Err(error) => label.problems.push(error.offset(range.start)),
        }
    }
    Ok(label)
}

/// The text that a metadata area's header (`mda_header`) points at; nothing when there is none or it is to be ignored.
fn metadata(disk: &dyn Disk, area: &Range<u64>) -> Result<Option<Section>> {
    let wrong = |what: &str| Error::corrupt("lvm.metadata", format!("an LVM metadata area {what}"));
    let len = area.end.saturating_sub(area.start);
    if area.end > disk.len() || len < MDA_HEADER.saturating_mul(2) {
        return Err(wrong("is not inside its physical volume"));
    }
    let header = read_vec(disk, area.start, SECTOR)?;
    let found = checksum(&[header.get(4..).unwrap_or_default()]);
    if le32(&header, 0) != found {
        return Err(wrong("has a header with a wrong checksum")
            .expected(format!("{:#x}", le32(&header, 0)))
            .found(format!("{found:#x}")));
    }
    if !is_at(&header, 4, MDA_MAGIC) || le32(&header, 20) != 1 || le64(&header, 24) != area.start {
        return Err(wrong("has a header that is not its own"));
    }
    let (offset, text_len) = (le64(&header, 40), le64(&header, 48));
    let (expected, flags) = (le32(&header, 56), le32(&header, 60));
    if offset == 0 || flags & RAW_LOCN_IGNORED != 0 {
        return Ok(None);
    }
    if text_len > limits::MAX_LVM_TEXT {
        return Err(Error::limit("lvm.metadata", "LVM's text metadata is too long")
            .expected(format!("at most {} bytes", limits::MAX_LVM_TEXT))
            .found(text_len));
    }
    // The header's own size field must agree with the label's, or it would tell where the ring begins anew.
    let ring = len.min(le64(&header, 32));
    if offset < MDA_HEADER || offset >= ring || text_len > ring.saturating_sub(MDA_HEADER) {
        return Err(wrong("points outside of itself"));
    }
    let first = text_len.min(ring.saturating_sub(offset));
    let mut text = read_vec(disk, area.start.saturating_add(offset), size(first))?;
    if first < text_len {
        // The ring begins behind the header again.
        let rest = text_len.saturating_sub(first);
        text.extend(read_vec(disk, area.start.saturating_add(MDA_HEADER), size(rest))?);
    }
    let found = checksum(&[&text]);
    if found != expected {
        return Err(wrong("holds text with a wrong checksum")
            .expected(format!("{expected:#x}"))
            .found(format!("{found:#x}")));
    }
    Section::parse(&text).map(Some)
}
