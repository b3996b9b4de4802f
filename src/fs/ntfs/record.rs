//! File records: fixups, attributes, and those that lie in other records.

use std::collections::BTreeSet;

use super::runs::{self, Run};
use super::stream::{Mapped, Stream};
use super::{Ntfs, corrupt, feature};
use crate::disk::bytes::{array, is_at, le16, le32, le64, long, size, u8_at};
use crate::error::{Error, Kind, Result};
use crate::limits;

/// Bytes that share one fixup, whatever the sectors are.
const STRIDE: usize = 512;

/// The kinds of attributes that are read.
pub(super) const STANDARD_INFORMATION: u32 = 0x10;
const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const FILE_NAME: u32 = 0x30;
pub(super) const VOLUME_NAME: u32 = 0x60;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xa0;
pub(super) const BITMAP: u32 = 0xb0;
pub(super) const REPARSE_POINT: u32 = 0xc0;

/// The number of a record without its sequence number.
pub(super) fn number(reference: u64) -> u64 {
    reference & 0xffff_ffff_ffff
}

/// Puts back the bytes that fixups replaced in a structure that begins with `magic`.
pub(super) fn fix(bytes: &mut [u8], magic: [u8; 4], place: u64) -> Result<()> {
    if !is_at(bytes, 0, &magic) {
        return Err(corrupt("a record does not begin as it should").offset(place));
    }
    let (offset, count) = (usize::from(le16(bytes, 4)), usize::from(le16(bytes, 6)));
    let strides = bytes.len() / STRIDE;
    let end = offset.saturating_add(count.saturating_mul(2));
    if count != strides.saturating_add(1) || end > STRIDE.saturating_sub(2) || offset % 2 != 0 {
        return Err(corrupt("the fixups of a record cannot be").offset(place).found(count));
    }
    let table = bytes.get(offset..end).unwrap_or_default().to_vec();
    for (stride, original) in bytes.chunks_exact_mut(STRIDE).zip(table.chunks_exact(2).skip(1)) {
        let last = stride.get_mut(STRIDE.saturating_sub(2)..).unwrap_or_default();
        if !table.starts_with(last) {
            return Err(corrupt("a record was not written as a whole").offset(place));
        }
        last.copy_from_slice(original);
    }
    Ok(())
}

/// One attribute as it lies in a record.
#[derive(Clone, Debug)]
pub(super) struct Attribute {
    pub(super) kind: u32,
    pub(super) name: Vec<u16>,
    flags: u16,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Resident(Vec<u8>),
    /// The first cluster of this piece, its runs, and the sizes, which the first piece tells.
    Mapped {
        first: u64,
        pairs: Vec<u8>,
        unit: u8,
        len: u64,
        valid: u64,
    },
}

/// A file: its record and all attributes.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) number: u64,
    pub(super) is_directory: bool,
    pub(super) attributes: Vec<Attribute>,
}

impl File {
    /// The value of a small attribute without a name.
    pub(super) fn value(&self, kind: u32) -> Option<&[u8]> {
        let of_kind = |attribute: &&Attribute| attribute.kind == kind && attribute.name.is_empty();
        self.attributes.iter().find(of_kind).and_then(|attribute| match &attribute.body {
            Body::Resident(value) => Some(value.as_slice()),
            Body::Mapped { .. } => None,
        })
    }

    /// The values of all attributes of a kind.
    pub(super) fn values(&self, kind: u32) -> impl Iterator<Item = &[u8]> {
        self.attributes.iter().filter(move |attribute| attribute.kind == kind).filter_map(|attribute| match &attribute
            .body
        {
            Body::Resident(value) => Some(value.as_slice()),
            Body::Mapped { .. } => None,
        })
    }

    /// An attribute as one sequence of bytes; `None` when there is none.
    pub(super) fn stream(&self, kind: u32, name: &[u16], ntfs: &Ntfs) -> Result<Option<Stream>> {
        self.stream_in(kind, name, ntfs.boot.clusters)
    }

    pub(super) fn stream_in(&self, kind: u32, name: &[u16], clusters: u64) -> Result<Option<Stream>> {
        let mut pieces: Vec<&Attribute> =
            self.attributes.iter().filter(|one| one.kind == kind && one.name == name).collect();
        pieces.sort_by_key(|piece| match piece.body {
            Body::Mapped { first, .. } => first,
            Body::Resident(_) => 0,
        });
        let Some(head) = pieces.first() else { return Ok(None) };
        let (unit, len, valid) = match &head.body {
            Body::Resident(value) => return Ok(Some(Stream::Resident(value.clone()))),
            Body::Mapped { unit, len, valid, .. } => (*unit, *len, *valid),
        };
        let mut runs: Vec<Run> = Vec::new();
        let mut next = 0_u64;
        for piece in &pieces {
            let Body::Mapped { first, pairs, .. } = &piece.body else {
                return Err(corrupt("an attribute is in its record and outside of it").at(self.place()));
            };
            if *first != next {
                return Err(corrupt("a piece of an attribute is missing").at(self.place()).expected(next).found(first));
            }
            next = runs::decode(pairs, next, clusters, &mut runs).map_err(|error| error.at(self.place()))?;
        }
        Ok(Some(Stream::Mapped(Mapped { runs, unit, len, valid: valid.min(len), flags: head.flags })))
    }

    pub(super) fn place(&self) -> String {
        format!("file record {}", self.number)
    }
}

/// The header of a record.
struct Raw {
    bytes: Vec<u8>,
    base: u64,
}

impl Ntfs {
    /// The record `number`, fixed up.
    fn raw(&self, number: u64) -> Result<Raw> {
        let len = self.boot.record;
        let offset = number.checked_mul(long(len)).ok_or_else(|| missing(number))?;
        let mut bytes = vec![0; len];
        if offset.checked_add(long(len)).is_none_or(|end| end > self.mft.len()) {
            return Err(missing(number));
        }
        self.read_mapped(&self.mft, &mut bytes, offset)?;
        header(bytes, offset)
    }

    /// A file by the number of its record.
    pub(super) fn file(&self, number: u64) -> Result<File> {
        let raw = self.raw(number)?;
        if le16(&raw.bytes, 22) & 1 == 0 {
            return Err(missing(number));
        }
        if raw.base != 0 {
            return Err(missing(number));
        }
        let mut file = File {
            number,
            is_directory: le16(&raw.bytes, 22) & 2 != 0,
            attributes: attributes(&raw.bytes).map_err(|error| error.at(format!("file record {number}")))?,
        };
        let Some(list) = file.stream(ATTRIBUTE_LIST, &[], self)? else { return Ok(file) };
        let len = list.len();
        if len > limits::MAX_NTFS_ATTRIBUTE_LIST {
            return Err(Error::limit("ntfs.limit", "a list of attributes is too large").at(file.place()).found(len));
        }
        let mut bytes = vec![0; size(len)];
        self.read_stream(&list, &mut bytes, 0)?;
        for other in others(&bytes, number)? {
            let raw = self.raw(other)?;
            if number_of_base(&raw) != number || le16(&raw.bytes, 22) & 1 == 0 {
                return Err(corrupt("a list of attributes names a record of another file")
                    .at(file.place())
                    .found(other));
            }
            file.attributes.extend(attributes(&raw.bytes).map_err(|error| error.at(format!("file record {other}")))?);
        }
        Ok(file)
    }
}

fn number_of_base(raw: &Raw) -> u64 {
    number(raw.base)
}

/// The records other than `own` that a list of attributes names.
fn others(list: &[u8], own: u64) -> Result<BTreeSet<u64>> {
    let mut others = BTreeSet::new();
    let mut rest = list;
    while rest.len() >= 26 {
        let len = usize::from(le16(rest, 4));
        let Some((entry, after)) = rest.split_at_checked(len).filter(|_| len >= 24) else {
            return Err(corrupt("an entry of a list of attributes has an impossible length").found(len));
        };
        others.insert(number(le64(entry, 16)));
        rest = after;
    }
    others.remove(&own);
    Ok(others)
}

/// The first record of the master file table, by which all others are found, or its copy.
pub(super) fn bootstrap(pages: &crate::fs::pages::Pages, boot: &super::boot::Boot) -> Result<File> {
    let read = |place: u64| -> Result<File> {
        let raw = header(pages.bytes(place, boot.record)?, place)?;
        Ok(File { number: 0, is_directory: false, attributes: attributes(&raw.bytes)? })
    };
    read(boot.mft).or_else(|error| read(boot.mirror).map_err(|_| error))
}

fn header(mut bytes: Vec<u8>, place: u64) -> Result<Raw> {
    fix(&mut bytes, *b"FILE", place)?;
    Ok(Raw { base: le64(&bytes, 32), bytes })
}

/// The attributes of a record.
pub(super) fn attributes(record: &[u8]) -> Result<Vec<Attribute>> {
    let used = size(u64::from(le32(record, 24)));
    let start = usize::from(le16(record, 20));
    let attributes = record.get(start..used).filter(|_| start >= 42);
    let mut rest = attributes.ok_or_else(|| corrupt("the attributes of a record reach out of it").found(used))?;
    let mut found = Vec::new();
    while rest.len() >= 8 && le32(rest, 0) != u32::MAX {
        let len = size(u64::from(le32(rest, 4)));
        let Some((bytes, after)) = rest.split_at_checked(len).filter(|_| len >= 24) else {
            return Err(corrupt("an attribute has an impossible length").found(len));
        };
        found.push(attribute(bytes)?);
        rest = after;
    }
    Ok(found)
}

fn attribute(bytes: &[u8]) -> Result<Attribute> {
    let outside = || corrupt("a part of an attribute lies outside of it");
    let name_at = usize::from(le16(bytes, 10));
    let name_len = usize::from(u8_at(bytes, 9)).saturating_mul(2);
    let name = bytes.get(name_at..name_at.saturating_add(name_len)).ok_or_else(outside)?;
    let body = if u8_at(bytes, 8) == 0 {
        let (len, at) = (size(u64::from(le32(bytes, 16))), usize::from(le16(bytes, 20)));
        Body::Resident(bytes.get(at..at.saturating_add(len)).ok_or_else(outside)?.to_vec())
    } else {
        let pairs = bytes.get(usize::from(le16(bytes, 32))..).ok_or_else(outside)?;
        if bytes.len() < 64 {
            return Err(outside());
        }
        Body::Mapped {
            first: le64(bytes, 16),
            pairs: pairs.to_vec(),
            unit: u8_at(bytes, 34),
            len: le64(bytes, 48),
            valid: le64(bytes, 56),
        }
    };
    let name = name.chunks_exact(2).map(|pair| u16::from_le_bytes(array(pair, 0))).collect();
    Ok(Attribute { kind: le32(bytes, 0), name, flags: le16(bytes, 12), body })
}

/// A file that is not there.
pub(super) fn missing(number: u64) -> Error {
    Error::new(Kind::NotFound, "ntfs.not-found", "no such file").at(format!("file record {number}"))
}

/// Why the content of a file with these flags cannot be read.
pub(super) fn refuse_flags(flags: u16) -> Result<()> {
    match flags {
        _ if flags & 0x4000 != 0 => Err(feature("a file is encrypted (EFS)")),
        _ if flags & 0xff > 1 => Err(feature("a file is compressed in an unknown way").found(flags)),
        _ => Ok(()),
    }
}
