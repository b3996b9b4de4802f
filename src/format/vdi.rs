//! VDI, the format of VirtualBox, version 1.1: static, dynamic and differencing disks. There is no public specification; the fields
//! are named as in VirtualBox's `VDICore.h`.
//!
//! ```text
//! header ─► block map ─► blocks, each behind its extra bytes
//! ```
//!
//! A differencing disk knows its parent by UUIDs only. VirtualBox names a snapshot's file after its UUID, so a parent that is a
//! snapshot itself lies beside the disk under that name; for a base of another name, the user maps that name to it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::sync::Arc;

use uuid::Uuid;

use crate::disk::bytes::{array, le32, le64, text};
use crate::disk::{Disk, read_vec};
use crate::error::{Error, Result};
use crate::limits::MAX_DISK_LEN;
use crate::source::{Reference, Role};

use super::pages::Pages;
use super::{Ask, Finding, Head, Layer, Parent, Place, Report, Run, Sample, Severity};

const SIGNATURE: [u8; 4] = [0x7f, 0x10, 0xda, 0xbe];
const SIGNATURE_AT: usize = 0x40;
const HEADER_LEN: usize = 0x1c8;

/// A map entry for a block that is not stored.
const FREE: u32 = u32::MAX;
/// A map entry for a block of zeros.
const ZERO: u32 = u32::MAX - 1;

/// Whether the file has VDI's signature behind its line of text.
#[must_use]
pub fn probe(sample: &Sample) -> bool {
    sample.has(SIGNATURE_AT, &SIGNATURE)
}

/// Reads the header.
///
/// # Errors
/// `vdi.*`, or those of reading.
pub fn open(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    let name = file.name();
    read(file, ask).map_err(|error| error.at(name))
}

fn read(file: Arc<dyn Disk>, ask: &Ask<'_>) -> Result<Head> {
    if ask.snapshot.is_some() {
        return Err(Error::unsupported("format.snapshot", "a VDI keeps its snapshots in files of their own"));
    }
    let header = Header::read(&*file)?;
    let parent = header.parent();
    let layer = Vdi { pages: Pages::new(Arc::clone(&file), ask.session, truncated), files: [file], header };
    Ok(Head { parent, ..Head::complete(Arc::new(layer)) })
}

fn truncated(offset: u64) -> Error {
    Error::corrupt("vdi.truncated", "a block or the map lies past the end of the file")
        .offset(offset)
        .hint("the image was probably cut short; get it again")
}

/// The header, its fields checked against each other and the file.
#[derive(Clone, Debug)]
struct Header {
    /// `u32Type`.
    kind: Kind,
    /// `szComment`.
    comment: Option<String>,
    /// `offBlocks`: the map.
    map: u64,
    /// `offData`: the first block.
    data: u64,
    /// `cbDisk`.
    size: u64,
    /// `cbBlock`: a power of two.
    block: u64,
    /// `cbBlockExtra`: bytes before each block.
    extra: u64,
    /// `cBlocks`.
    blocks: u64,
    /// `cBlocksAllocated`.
    allocated: u32,
    /// `uuidCreate`.
    id: Uuid,
    /// `uuidModify`: changes whenever the disk is written.
    modification: Uuid,
    /// `uuidLinkage`: the parent's `uuidCreate`.
    linkage: Uuid,
    /// `uuidParentModify`: the parent's `uuidModify` when the disk was made.
    parent_modification: Uuid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dynamic,
    Static,
    Differencing,
}

impl Header {
    fn read(file: &dyn Disk) -> Result<Self> {
        let bytes = read_vec(file, 0, usize::try_from(file.len()).unwrap_or(usize::MAX).min(HEADER_LEN))?;
        let bad = |what: &str, offset: u64| Error::corrupt("vdi.header", what).offset(offset);
        if bytes.len() < HEADER_LEN || bytes.get(SIGNATURE_AT..).is_none_or(|rest| !rest.starts_with(&SIGNATURE)) {
            return Err(bad("there is no VDI header", 0x40));
        }
        let version = le32(&bytes, 0x44);
        if version >> 16 != 1 || version & 0xffff == 0 {
            return Err(Error::unsupported("vdi.version", "the version is not known")
                .offset(0x44)
                .expected("1.1")
                .found(format!("{}.{}", version >> 16, version & 0xffff)));
        }
        let kind = match le32(&bytes, 0x4c) {
            1 => Kind::Dynamic,
            2 => Kind::Static,
            4 => Kind::Differencing,
            other => return Err(bad("the type is not known", 0x4c).expected("1, 2 or 4").found(other)),
        };
        let (sector, block, extra) = (le32(&bytes, 0x168), le32(&bytes, 0x178), le32(&bytes, 0x17c));
        if sector != 512 {
            return Err(bad("the sector size is impossible", 0x168).expected(512).found(sector));
        }
        if !block.is_power_of_two() || block < 512 {
            return Err(bad("the block size is impossible", 0x178).expected("a power of two from 512").found(block));
        }
        if !extra.is_multiple_of(512) || extra > block {
            return Err(bad("the extra bytes of a block are impossible", 0x17c).found(extra));
        }
        let header = Self {
            kind,
            comment: text(bytes.get(0x54..0x154).unwrap_or_default()),
            map: u64::from(le32(&bytes, 0x154)),
            data: u64::from(le32(&bytes, 0x158)),
            size: le64(&bytes, 0x170),
            block: u64::from(block),
            extra: u64::from(extra),
            blocks: u64::from(le32(&bytes, 0x180)),
            allocated: le32(&bytes, 0x184),
            id: Uuid::from_bytes_le(array(&bytes, 0x188)),
            modification: Uuid::from_bytes_le(array(&bytes, 0x198)),
            linkage: Uuid::from_bytes_le(array(&bytes, 0x1a8)),
            parent_modification: Uuid::from_bytes_le(array(&bytes, 0x1b8)),
        };
        header.check(file.len())?;
        Ok(header)
    }

    fn check(&self, file_len: u64) -> Result<()> {
        let bad = |what: &str, offset: u64| Error::corrupt("vdi.header", what).offset(offset);
        if self.size == 0 || !self.size.is_multiple_of(512) || self.size > MAX_DISK_LEN {
            return Err(bad("the size of the disk is impossible", 0x170).found(format!("{:#x}", self.size)));
        }
        if self.size.div_ceil(self.block) > self.blocks {
            return Err(bad("there are too few blocks for the disk", 0x180)
                .expected(format!("at least {}", self.size.div_ceil(self.block)))
                .found(self.blocks));
        }
        let map_end = self.map.saturating_add(self.blocks.saturating_mul(4));
        if !self.map.is_multiple_of(512) || self.map < 0x190 || map_end > file_len {
            return Err(bad("the block map lies outside of the file", 0x154)
                .expected(format!("within {file_len:#x} bytes"))
                .found(format!("{:#x}", self.map)));
        }
        if !self.data.is_multiple_of(512) || self.data < map_end || self.data > file_len {
            return Err(bad("the blocks begin where they cannot", 0x158).found(format!("{:#x}", self.data)));
        }
        Ok(())
    }

    fn parent(&self) -> Option<Parent> {
        if self.kind != Kind::Differencing {
            return None;
        }
        let name = format!("{{{}}}.vdi", self.linkage);
        let (id, modification) = (self.linkage, self.parent_modification);
        let hint = format!("name the right file with --map-path '{name}=PATH', or give --ignore-parent-id as well");
        let accept = move |parent: &dyn Layer| {
            let other = |what: &str| Error::corrupt("vdi.parent", what).hint(&hint);
            let Some(found) = parent.identity() else {
                return Err(other("this is not the parent that the disk was made for").found(parent.format()));
            };
            let (found_id, found_modification) = found.split_once(' ').unwrap_or((&found, ""));
            if found_id != id.to_string() {
                return Err(other("this is not the parent that the disk was made for").expected(id).found(found_id));
            }
            if !modification.is_nil() && found_modification != modification.to_string() {
                return Err(other("the parent was changed since the disk was made")
                    .expected(modification)
                    .found(found_modification));
            }
            Ok(())
        };
        Some(Parent { names: vec![Reference::new(name, Role::Parent)], accept: Box::new(accept) })
    }

    /// The offset of the map's entry for `block`.
    fn entry(&self, block: u64) -> u64 {
        self.map.saturating_add(block.saturating_mul(4))
    }

    /// Where the bytes of the stored block `number` begin.
    fn stored(&self, number: u32) -> u64 {
        let before = u64::from(number).saturating_mul(self.block.saturating_add(self.extra));
        self.data.saturating_add(before).saturating_add(self.extra)
    }
}

/// One opened disk.
#[derive(Debug)]
struct Vdi {
    files: [Arc<dyn Disk>; 1],
    pages: Pages,
    header: Header,
}

impl Vdi {
    /// Where the block `block`, stored as `number`, begins; all of it that the disk uses lies in the file.
    fn place(&self, block: u64, number: u32) -> Result<u64> {
        let [file] = &self.files;
        let at = self.header.stored(number);
        let used = self.header.size.saturating_sub(block.saturating_mul(self.header.block)).min(self.header.block);
        match at.checked_add(used) {
            Some(end) if end <= file.len() => Ok(at),
            _ => Err(truncated(at).expected(format!("an end of at most {:#x}", file.len()))),
        }
    }
}

impl Layer for Vdi {
    fn format(&self) -> &'static str {
        "vdi"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{} {}", self.header.id, self.header.modification))
    }

    fn len(&self) -> u64 {
        self.header.size
    }

    fn unit_size(&self) -> u64 {
        self.header.block
    }

    fn map(&self, offset: u64, max: u64) -> Result<Run> {
        let size = self.header.block;
        let block = offset.checked_div(size).unwrap_or(0);
        let within = offset.checked_rem(size).unwrap_or(0);
        let entries = self.pages.entries(self.header.entry(block))?;
        let mut entries = entries.of().map(u32::from_le_bytes);
        let first = entries.next().ok_or_else(|| truncated(self.header.map))?;
        let place = match first {
            FREE => Place::Parent,
            ZERO => Place::Zero,
            number => Place::Data { file: 0, offset: self.place(block, number)?.saturating_add(within) },
        };
        let stored = !matches!(first, FREE | ZERO);
        let mut len = size.saturating_sub(within);
        for (distance, entry) in (1_u32..).zip(entries) {
            let next = block.saturating_add(u64::from(distance));
            let follows = match stored {
                // Extra bytes lie between blocks, so only without them do neighbours make one run.
                true => {
                    self.header.extra == 0
                        && !matches!(entry, FREE | ZERO)
                        && first.checked_add(distance) == Some(entry)
                        && self.place(next, entry).is_ok()
                }
                false => entry == first,
            };
            if len >= max || !follows {
                break;
            }
            len = len.saturating_add(size);
        }
        Ok(Run { len: len.min(max), place })
    }

    fn files(&self) -> &[Arc<dyn Disk>] {
        &self.files
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let header = &self.header;
        let kind = match header.kind {
            Kind::Dynamic => "dynamic",
            Kind::Static => "static",
            Kind::Differencing => "differencing",
        };
        let mut facts = vec![
            ("type", kind.to_owned()),
            ("block_size", header.block.to_string()),
            ("blocks", header.blocks.to_string()),
            ("blocks_allocated", header.allocated.to_string()),
            ("uuid", header.id.to_string()),
        ];
        if header.kind == Kind::Differencing {
            facts.push(("parent_uuid", header.linkage.to_string()));
        }
        facts.extend(header.comment.clone().map(|comment| ("comment", comment)));
        facts
    }

    fn check(&self, found: &mut Report<'_>) -> Result<()> {
        let header = &self.header;
        let mut used: Vec<u32> = Vec::new();
        let mut block = 0_u64;
        while block < header.size.div_ceil(header.block) {
            for entry in self.pages.entries(header.entry(block))?.of().map(u32::from_le_bytes) {
                if block >= header.size.div_ceil(header.block) {
                    break;
                }
                if !matches!(entry, FREE | ZERO) {
                    match self.place(block, entry) {
                        Ok(_) => used.push(entry),
                        Err(error) if found(Finding::new(Severity::Corruption, error.to_string())).is_break() => {
                            return Ok(());
                        }
                        Err(_) => {}
                    }
                }
                block = block.saturating_add(1);
            }
        }
        used.sort_unstable();
        for pair in used.windows(2) {
            if let [before, after] = *pair
                && before == after
            {
                let finding = Finding::new(Severity::Corruption, "two entries of the map name one block");
                if found(finding.offset(header.stored(after))).is_break() {
                    return Ok(());
                }
            }
        }
        let count = u32::try_from(used.len()).unwrap_or(u32::MAX);
        if count < header.allocated {
            let lost = header.allocated.saturating_sub(count);
            let _ = found(Finding::new(Severity::Leak, format!("{lost} allocated blocks are not in the map")));
        } else if count > header.allocated {
            let _ = found(Finding::new(Severity::Note, "the map names more blocks than the header counts"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests;
