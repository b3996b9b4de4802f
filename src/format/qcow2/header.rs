//! The header (specification, "Header"), parsed from bytes.

use std::num::NonZeroU64;

use super::beyond;
use super::extensions::Extensions;
use crate::error::{Error, Result, escape_bytes};
use crate::limits::{MAX_DISK_LEN, MAX_QCOW2_L1_ENTRIES};

/// The first four bytes.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Bytes of the longest header that has fields we know.
pub(super) const LONGEST: u64 = 112;

/// Bytes of a version 2 header; a version 3 header says its own length.
const V2_LENGTH: u32 = 72;

const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Autoclear feature bits: what a writer that does not know them clears.
const BITMAPS: u64 = 1 << 0;
const RAW_EXTERNAL: u64 = 1 << 1;

/// Smallest `cluster_bits` with extended L2 entries: a 32nd of a cluster is at least a sector.
const MIN_EXTENDED_BITS: u32 = 14;

/// How clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Raw deflate.
    Zlib,
    /// Zstandard frames.
    Zstd,
}

impl Compression {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
        }
    }
}

/// A header that cannot be wrong any more, in the specification's terms.
#[derive(Clone, Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Where the backing file's name lies, and its length; an offset of 0 means none.
    pub(super) backing_file: (u64, u32),
    /// `1 << cluster_bits`: 512 bytes to 2 MiB.
    pub cluster_size: NonZeroU64,
    /// `cluster_bits`.
    pub cluster_bits: u32,
    /// The current state of the disk.
    pub(super) state: State,
    crypt_method: u32,
    pub(super) refcount_table_offset: u64,
    pub(super) refcount_table_clusters: u32,
    /// Number of internal snapshots.
    pub nb_snapshots: u32,
    pub(super) snapshots_offset: u64,
    incompatible_features: u64,
    autoclear_features: u64,
    /// A refcount has `1 << refcount_order` bits.
    pub(super) refcount_order: u32,
    pub(super) header_length: u32,
    /// How compressed clusters are stored.
    pub compression: Compression,
    /// Length of the file that the header is in.
    pub(super) file_len: u64,
}

impl Header {
    /// Parses the first bytes of a file of `file_len` bytes.
    pub(super) fn parse(head: &[u8], file_len: u64) -> Result<Self> {
        if !head.starts_with(&MAGIC) {
            return Err(Error::corrupt("qcow2.header", "not a qcow2 image")
                .offset(0)
                .expected("the magic bytes QFI\\xfb")
                .found(escape_bytes(head.get(..4).unwrap_or(head))));
        }
        let version = u32_at(head, 4)?;
        if !matches!(version, 2 | 3) {
            return Err(Error::unsupported("qcow2.version", "an unknown version of qcow2")
                .offset(4)
                .expected("2 or 3")
                .found(version)
                .hint("version 1 can be converted with qemu-img first"));
        }
        let cluster_bits = u32_at(head, 20)?;
        let cluster_size = (9..=21).contains(&cluster_bits).then(|| 1_u64.checked_shl(cluster_bits)).flatten();
        let cluster_size = cluster_size
            .and_then(NonZeroU64::new)
            .ok_or_else(|| bad("cluster_bits", 20).expected("9 to 21").found(cluster_bits))?;
        let mut header = Self {
            version,
            backing_file: (u64_at(head, 8)?, u32_at(head, 16)?),
            cluster_size,
            cluster_bits,
            state: State { size: u64_at(head, 24)?, l1_size: u32_at(head, 36)?, l1_table_offset: u64_at(head, 40)? },
            crypt_method: u32_at(head, 32)?,
            refcount_table_offset: u64_at(head, 48)?,
            refcount_table_clusters: u32_at(head, 56)?,
            nb_snapshots: u32_at(head, 60)?,
            snapshots_offset: u64_at(head, 64)?,
            incompatible_features: 0,
            autoclear_features: 0,
            refcount_order: 4,
            header_length: V2_LENGTH,
            compression: Compression::Zlib,
            file_len,
        };
        if version == 3 {
            header.parse_v3(head)?;
        }
        header.state.validate(&header, [24, 36, 40])?;
        Ok(header)
    }

    fn parse_v3(&mut self, head: &[u8]) -> Result<()> {
        self.incompatible_features = u64_at(head, 72)?;
        self.autoclear_features = u64_at(head, 88)?;
        let refcount_order = u32_at(head, 96)?;
        if refcount_order > 6 {
            return Err(bad("refcount_order", 96).expected("0 to 6").found(refcount_order));
        }
        self.refcount_order = refcount_order;
        self.header_length = u32_at(head, 100)?;
        let fits = u64::from(self.header_length) <= self.cluster_size.get();
        if self.header_length < 104 || !self.header_length.is_multiple_of(8) || !fits {
            return Err(bad("header_length", 100)
                .expected("a multiple of 8 from 104 to the cluster size")
                .found(self.header_length));
        }
        let compression_type = if self.header_length > 104 { byte_at(head, 104)? } else { 0 };
        if (compression_type != 0) != (self.incompatible_features & COMPRESSION != 0) {
            return Err(bad("compression_type", 104)
                .expected("not 0 exactly if incompatible feature bit 3 is set")
                .found(compression_type));
        }
        self.compression = match compression_type {
            0 => Compression::Zlib,
            1 => Compression::Zstd,
            other => {
                return Err(Error::unsupported("qcow2.compression", "an unknown compression type")
                    .offset(104)
                    .expected("0 (zlib) or 1 (zstd)")
                    .found(other));
            }
        };
        self.validate_subclusters()
    }

    /// Refuses subclusters that are smaller than a sector.
    fn validate_subclusters(&self) -> Result<()> {
        if self.has_subclusters() && self.cluster_bits < MIN_EXTENDED_BITS {
            return Err(bad("cluster_bits", 20)
                .expected(format!("at least {MIN_EXTENDED_BITS} with extended L2 entries"))
                .found(self.cluster_bits));
        }
        Ok(())
    }

    /// Refuses what would be read wrongly. Needs the extensions for the names of unknown features.
    pub(super) fn refuse_unhandled(&self, extensions: &Extensions) -> Result<()> {
        if self.crypt_method != 0 {
            return Err(Error::unsupported("qcow2.encrypted", "the image is encrypted")
                .offset(32)
                .hint("decrypt it first: qemu-img convert with --image-opts and the key's secret"));
        }
        let bits = self.incompatible_features;
        if bits & CORRUPT != 0 {
            return Err(Error::corrupt(
                "qcow2.corrupt-bit",
                "the image is marked as corrupt by the program that wrote it",
            )
            .offset(72)
            .hint("repair a copy of it: qemu-img check -r all COPY"));
        }
        if bits & DATA_FILE != 0 && extensions.data_file.is_none() {
            return Err(Error::corrupt(
                "qcow2.data-file",
                "the image keeps its data in another file and does not name it",
            )
            .offset(72));
        }
        let unknown = bits & !(DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2);
        if unknown != 0 {
            return Err(Error::unsupported("qcow2.features", "the image needs features that are not known here")
                .offset(72)
                .found(extensions.names_of(unknown)));
        }
        Ok(())
    }

    /// Whether refcounts may be stale.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.incompatible_features & DIRTY != 0
    }

    /// Whether the data lies in another file.
    pub(super) const fn has_data_file(&self) -> bool {
        self.incompatible_features & DATA_FILE != 0
    }

    /// Whether the data file is the disk byte for byte, so that it can be read without this image.
    pub(super) const fn is_data_file_raw(&self) -> bool {
        self.autoclear_features & RAW_EXTERNAL != 0
    }

    /// Whether L2 entries have a second word, for 32 subclusters.
    pub(super) const fn has_subclusters(&self) -> bool {
        self.incompatible_features & EXTENDED_L2 != 0
    }

    /// Whether the persistent bitmaps agree with the data: a writer that does not know them clears this.
    pub(super) const fn has_sound_bitmaps(&self) -> bool {
        self.autoclear_features & BITMAPS != 0
    }

    /// Bytes of an L2 entry.
    pub(super) const fn l2_entry_size(&self) -> u64 {
        if self.has_subclusters() { 16 } else { 8 }
    }

    /// Bytes of the virtual disk that one L2 table maps: a table is one cluster of entries.
    pub(super) fn l2_span(&self) -> NonZeroU64 {
        let entries = self.cluster_size.get().checked_div(self.l2_entry_size());
        self.cluster_size.saturating_mul(entries.and_then(NonZeroU64::new).unwrap_or(NonZeroU64::MIN))
    }
}

/// One state of the disk: the current one, or that of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// Virtual size in bytes.
    pub(super) size: u64,
    pub(super) l1_table_offset: u64,
    /// Entries of the L1 table.
    pub(super) l1_size: u32,
}

impl State {
    /// The virtual size is bounded, and the L1 table covers it and lies in the file. `places` says where in the file size, length
    /// of the table and its offset are written.
    pub(super) fn validate(&self, header: &Header, places: [u64; 3]) -> Result<()> {
        let [size_at, entries_at, offset_at] = places;
        if self.size > MAX_DISK_LEN {
            return Err(Error::limit("disk.too-large", "the virtual size is too large")
                .offset(size_at)
                .expected(format!("at most {MAX_DISK_LEN:#x}"))
                .found(format!("{:#x}", self.size)));
        }
        if self.l1_size > MAX_QCOW2_L1_ENTRIES {
            return Err(Error::limit("qcow2.l1", "the L1 table is too large")
                .offset(entries_at)
                .expected(format!("at most {MAX_QCOW2_L1_ENTRIES} entries"))
                .found(self.l1_size));
        }
        let needed = self.size.div_ceil(header.l2_span().get());
        if u64::from(self.l1_size) < needed {
            return Err(bad("l1_size", entries_at)
                .expected(format!("at least {needed} for the virtual size"))
                .found(self.l1_size));
        }
        if self.l1_table_offset % header.cluster_size != 0 {
            return Err(bad("l1_table_offset", offset_at)
                .expected("a multiple of the cluster size")
                .found(format!("{:#x}", self.l1_table_offset)));
        }
        let end = needed.checked_mul(8).and_then(|bytes| self.l1_table_offset.checked_add(bytes));
        if end.is_none_or(|end| end > header.file_len) {
            return Err(beyond(self.l1_table_offset).expected(format!("at most {:#x}", header.file_len)));
        }
        Ok(())
    }

    /// Where L1 entry `index` lies in the file.
    pub(super) fn l1_entry_at(&self, index: u64) -> Result<u64> {
        let at = index.checked_mul(8).and_then(|bytes| self.l1_table_offset.checked_add(bytes));
        at.ok_or_else(|| beyond(self.l1_table_offset))
    }
}

pub(super) fn bad(field: &str, offset: u64) -> Error {
    Error::corrupt("qcow2.header", format!("the header's {field} is not valid")).offset(offset)
}

fn short() -> Error {
    Error::corrupt("qcow2.truncated", "the file ends inside the header")
        .hint("the image was probably cut short; get it again")
}

fn byte_at(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().ok_or_else(short)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u32::from_be_bytes(*field)).ok_or_else(short)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u64::from_be_bytes(*field)).ok_or_else(short)
}
