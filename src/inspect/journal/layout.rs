//! Header and objects of a journal file, with the field names of "Journal File Format" (systemd's documentation).
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use crate::error::{Error, Result};

/// An identifier of 128 bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// Reads 32 hexadecimal digits, or the 36 characters of a UUID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 32 || text.len() == 36;
        uuid::Uuid::parse_str(text).ok().filter(|_| plain).map(|uuid| Self(uuid.into_bytes()))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", uuid::Uuid::from_bytes(self.0).simple())
    }
}

impl Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) const INCOMPATIBLE_XZ: u32 = 1;
pub(super) const INCOMPATIBLE_LZ4: u32 = 2;
pub(super) const INCOMPATIBLE_KEYED_HASH: u32 = 4;
pub(super) const INCOMPATIBLE_ZSTD: u32 = 8;
pub(super) const INCOMPATIBLE_COMPACT: u32 = 16;
const INCOMPATIBLE_KNOWN: u32 =
    INCOMPATIBLE_XZ | INCOMPATIBLE_LZ4 | INCOMPATIBLE_KEYED_HASH | INCOMPATIBLE_ZSTD | INCOMPATIBLE_COMPACT;

/// How a file was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Closed properly.
    Offline,
    /// Being written: the guest was running, or ended without closing it.
    Online,
    /// Closed for good, by rotation.
    Archived,
}

/// Bytes of the header that every file has, and of the largest known one.
const HEADER_MIN: usize = 208;
pub(super) const HEADER_READ: usize = 272;

/// `struct Header`. Counters that a file is too old to have are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) compatible_flags: u32,
    pub(super) incompatible_flags: u32,
    pub(super) state: State,
    pub(super) file_id: Id,
    pub(super) machine_id: Id,
    pub(super) seqnum_id: Id,
    pub(super) header_size: u64,
    pub(super) arena_size: u64,
    pub(super) data_hash_table_offset: u64,
    pub(super) data_hash_table_size: u64,
    pub(super) field_hash_table_offset: u64,
    pub(super) field_hash_table_size: u64,
    pub(super) tail_object_offset: u64,
    pub(super) n_objects: u64,
    pub(super) n_entries: u64,
    pub(super) tail_entry_seqnum: u64,
    pub(super) head_entry_seqnum: u64,
    pub(super) entry_array_offset: u64,
    pub(super) head_entry_realtime: u64,
    pub(super) tail_entry_realtime: u64,
    pub(super) n_data: Option<u64>,
    pub(super) n_fields: Option<u64>,
    pub(super) n_tags: Option<u64>,
    pub(super) n_entry_arrays: Option<u64>,
}

impl Header {
    /// Reads the first bytes of a file of `size` bytes.
    pub(super) fn parse(bytes: &[u8], size: u64) -> Result<Self> {
        if bytes.get(..8) != Some(b"LPKSHHRH") {
            return Err(Error::corrupt("journal.header", "this is no journal file").offset(0));
        }
        if bytes.len() < HEADER_MIN {
            return Err(Error::corrupt("journal.header", "a journal file ends within its header").found(bytes.len()));
        }
        let incompatible_flags = u32_at(bytes, 12)?;
        let unknown = incompatible_flags & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Error::unsupported("journal.features", "a journal file with features that are not known")
                .offset(12)
                .found(format!("{unknown:#x}")));
        }
        let state = match bytes.get(16) {
            Some(0) => State::Offline,
            Some(1) => State::Online,
            Some(2) => State::Archived,
            other => {
                return Err(Error::corrupt("journal.header", "a journal file in a state that is not known")
                    .offset(16)
                    .found(other.copied().unwrap_or_default()));
            }
        };
        let header_size = u64_at(bytes, 88)?;
        let counter = |offset: u64, at: usize| (header_size >= offset).then(|| u64_at(bytes, at)).transpose();
        let header = Self {
            compatible_flags: u32_at(bytes, 8)?,
            incompatible_flags,
            state,
            file_id: id_at(bytes, 24)?,
            machine_id: id_at(bytes, 40)?,
            seqnum_id: id_at(bytes, 72)?,
            header_size,
            arena_size: u64_at(bytes, 96)?,
            data_hash_table_offset: u64_at(bytes, 104)?,
            data_hash_table_size: u64_at(bytes, 112)?,
            field_hash_table_offset: u64_at(bytes, 120)?,
            field_hash_table_size: u64_at(bytes, 128)?,
            tail_object_offset: u64_at(bytes, 136)?,
            n_objects: u64_at(bytes, 144)?,
            n_entries: u64_at(bytes, 152)?,
            tail_entry_seqnum: u64_at(bytes, 160)?,
            head_entry_seqnum: u64_at(bytes, 168)?,
            entry_array_offset: u64_at(bytes, 176)?,
            head_entry_realtime: u64_at(bytes, 184)?,
            tail_entry_realtime: u64_at(bytes, 192)?,
            n_data: counter(216, 208)?,
            n_fields: counter(224, 216)?,
            n_tags: counter(232, 224)?,
            n_entry_arrays: counter(240, 232)?,
        };
        header.check(size)?;
        Ok(header)
    }

    fn check(&self, size: u64) -> Result<()> {
        if self.header_size < 208 || !self.header_size.is_multiple_of(8) {
            return Err(Error::corrupt("journal.header", "a journal's header has an impossible size")
                .offset(88)
                .found(self.header_size));
        }
        let end = self.header_size.checked_add(self.arena_size);
        if end.is_none_or(|end| end > size) {
            return Err(Error::corrupt("journal.header", "a journal file is shorter than its header says")
                .offset(96)
                .expected(format!("{} bytes and the header", self.arena_size))
                .found(size));
        }
        Ok(())
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.incompatible_flags & flag != 0
    }

    /// Where the objects end.
    pub(super) fn end(&self) -> u64 {
        self.header_size.saturating_add(self.arena_size)
    }
}

/// `ObjectType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Field,
    Entry,
    DataHashTable,
    FieldHashTable,
    EntryArray,
    Tag,
}

impl Kind {
    pub(super) fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Field,
            3 => Self::Entry,
            4 => Self::DataHashTable,
            5 => Self::FieldHashTable,
            6 => Self::EntryArray,
            7 => Self::Tag,
            _ => return None,
        })
    }

    /// The fewest bytes that such an object has.
    pub(super) fn smallest(self, compact: bool) -> u64 {
        match self {
            Self::Data if compact => 73,
            Self::Data => 65,
            Self::Field => 41,
            Self::Entry => 64,
            Self::DataHashTable | Self::FieldHashTable => 32,
            Self::EntryArray if compact => 28,
            Self::EntryArray => 32,
            Self::Tag => 64,
        }
    }
}

/// Bytes of `ObjectHeader`.
pub(super) const OBJECT_HEADER: usize = 16;

/// `ObjectHeader`, with where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) offset: u64,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) size: u64,
}

/// `DataObject` without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) object: Object,
    pub(super) hash: u64,
    pub(super) next_hash_offset: u64,
    pub(super) next_field_offset: u64,
    pub(super) entry_offset: u64,
    pub(super) entry_array_offset: u64,
    pub(super) n_entries: u64,
}

impl Data {
    pub(super) const FIXED: usize = 64;

    pub(super) fn parse(object: Object, bytes: &[u8]) -> Result<Self> {
        Ok(Self {
            object,
            hash: u64_at(bytes, 16)?,
            next_hash_offset: u64_at(bytes, 24)?,
            next_field_offset: u64_at(bytes, 32)?,
            entry_offset: u64_at(bytes, 40)?,
            entry_array_offset: u64_at(bytes, 48)?,
            n_entries: u64_at(bytes, 56)?,
        })
    }
}

/// `FieldObject` without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) object: Object,
    pub(super) hash: u64,
    pub(super) next_hash_offset: u64,
    pub(super) head_data_offset: u64,
}

impl Field {
    pub(super) const FIXED: usize = 40;

    pub(super) fn parse(object: Object, bytes: &[u8]) -> Result<Self> {
        Ok(Self {
            object,
            hash: u64_at(bytes, 16)?,
            next_hash_offset: u64_at(bytes, 24)?,
            head_data_offset: u64_at(bytes, 32)?,
        })
    }
}

/// Bytes of `EntryObject` before its items.
pub(super) const ENTRY_FIXED: usize = 64;

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

pub(super) fn id_at(bytes: &[u8], at: usize) -> Result<Id> {
    array_at(bytes, at).map(Id)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().ok_or_else(|| Error::corrupt("journal.corrupt", "an object of a journal ends early"))
}
