//! The header (specification, "Header") and its extensions, parsed from bytes.

use std::num::NonZeroU64;

use super::beyond;
use crate::error::{Error, Result, escape_bytes};
use crate::limits::{MAX_DISK_LEN, MAX_QCOW2_BACKING_NAME, MAX_QCOW2_L1_ENTRIES};

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

/// Header extension types.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const EXTERNAL_DATA_FILE: u32 = 0x4441_5441;

/// Bytes of one entry of the feature name table: type, bit number, name.
const FEATURE_ENTRY: usize = 48;

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
    /// Virtual size in bytes.
    pub size: u64,
    crypt_method: u32,
    l1_table_offset: u64,
    /// Number of internal snapshots, which are not read.
    pub nb_snapshots: u32,
    incompatible_features: u64,
    header_length: u32,
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
            size: u64_at(head, 24)?,
            crypt_method: u32_at(head, 32)?,
            l1_table_offset: u64_at(head, 40)?,
            nb_snapshots: u32_at(head, 60)?,
            incompatible_features: 0,
            header_length: V2_LENGTH,
            compression: Compression::Zlib,
            file_len,
        };
        if version == 3 {
            header.parse_v3(head)?;
        }
        header.validate_l1(u32_at(head, 36)?)?;
        Ok(header)
    }

    fn parse_v3(&mut self, head: &[u8]) -> Result<()> {
        self.incompatible_features = u64_at(head, 72)?;
        let refcount_order = u32_at(head, 96)?;
        if refcount_order > 6 {
            return Err(bad("refcount_order", 96).expected("0 to 6").found(refcount_order));
        }
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
        Ok(())
    }

    /// The virtual size is bounded, and the L1 table covers it and lies in the file.
    fn validate_l1(&self, l1_size: u32) -> Result<()> {
        if self.size > MAX_DISK_LEN {
            return Err(Error::limit("disk.too-large", "the virtual size is too large")
                .offset(24)
                .expected(format!("at most {MAX_DISK_LEN:#x}"))
                .found(format!("{:#x}", self.size)));
        }
        if l1_size > MAX_QCOW2_L1_ENTRIES {
            return Err(Error::limit("qcow2.l1", "the L1 table is too large")
                .offset(36)
                .expected(format!("at most {MAX_QCOW2_L1_ENTRIES} entries"))
                .found(l1_size));
        }
        let needed = self.size.div_ceil(self.l2_span().get());
        if u64::from(l1_size) < needed {
            return Err(bad("l1_size", 36).expected(format!("at least {needed} for the virtual size")).found(l1_size));
        }
        if self.l1_table_offset % self.cluster_size != 0 {
            return Err(bad("l1_table_offset", 40)
                .expected("a multiple of the cluster size")
                .found(format!("{:#x}", self.l1_table_offset)));
        }
        let end = needed.checked_mul(8).and_then(|bytes| self.l1_table_offset.checked_add(bytes));
        if end.is_none_or(|end| end > self.file_len) {
            return Err(beyond(self.l1_table_offset).expected(format!("at most {:#x}", self.file_len)));
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
        if bits & DATA_FILE != 0 {
            let name = extensions.data_file.as_deref().map_or_else(|| "no name".to_owned(), escape_bytes);
            return Err(Error::unsupported("qcow2.data-file", "the data lies in an external data file")
                .offset(72)
                .found(name)
                .hint("convert it first with qemu-img into an image that holds its data"));
        }
        if bits & EXTENDED_L2 != 0 {
            return Err(Error::unsupported("qcow2.extended-l2", "the image uses subclusters (extended L2 entries)")
                .offset(72)
                .hint("convert it first with qemu-img and extended_l2=off"));
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

    /// Bytes of the virtual disk that one L2 table maps: a table is one cluster of 8-byte entries.
    pub(super) fn l2_span(&self) -> NonZeroU64 {
        let eighth = NonZeroU64::new(self.cluster_size.get() / 8).unwrap_or(NonZeroU64::MIN);
        self.cluster_size.saturating_mul(eighth)
    }

    /// Where L1 entry `index` lies in the file.
    pub(super) fn l1_entry_at(&self, index: u64) -> Result<u64> {
        let at = index.checked_mul(8).and_then(|bytes| self.l1_table_offset.checked_add(bytes));
        at.ok_or_else(|| beyond(self.l1_table_offset))
    }
}

/// What follows the header in the first cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    /// The backing file's name as written.
    pub(super) backing_file: Option<Vec<u8>>,
    /// The backing file's format.
    pub(super) backing_format: Option<String>,
    data_file: Option<Vec<u8>>,
    /// Names of incompatible feature bits.
    feature_names: Vec<(u8, String)>,
}

impl Extensions {
    /// Parses `cluster`, the file's first cluster.
    pub(super) fn parse(cluster: &[u8], header: &Header) -> Result<Self> {
        let mut extensions = Self { backing_file: backing_file(cluster, header)?, ..Self::default() };
        let mut at = usize::try_from(header.header_length).unwrap_or(usize::MAX);
        // Extensions end at the name of the backing file, when it lies behind them.
        let name_at = usize::try_from(header.backing_file.0).ok().filter(|name_at| *name_at >= at);
        let cluster = cluster.get(..name_at.unwrap_or(cluster.len())).unwrap_or(cluster);
        while let Some((kind, data, next)) = extension(cluster, at)? {
            match kind {
                BACKING_FORMAT => extensions.backing_format = Some(escape_bytes(data)),
                EXTERNAL_DATA_FILE => extensions.data_file = Some(data.to_vec()),
                FEATURE_NAMES => extensions.feature_names = feature_names(data),
                _ => {}
            }
            at = next;
        }
        Ok(extensions)
    }

    /// Names of the incompatible features in `bits`, for a message.
    fn names_of(&self, bits: u64) -> String {
        let name = |bit: u8| match self.feature_names.iter().find(|(known, _)| *known == bit) {
            Some((_, name)) => format!("bit {bit} ({name})"),
            None => format!("bit {bit}"),
        };
        let set = (0..64_u8).filter(|bit| bits.checked_shr(u32::from(*bit)).unwrap_or(0) & 1 == 1);
        set.map(name).collect::<Vec<_>>().join(", ")
    }
}

/// The extension at `at`: type, data, and where the next one is. `None` at the end of the list or of the cluster.
fn extension(cluster: &[u8], at: usize) -> Result<Option<(u32, &[u8], usize)>> {
    let Some(data_at) = at.checked_add(8).filter(|data_at| *data_at <= cluster.len()) else { return Ok(None) };
    let kind = u32_at(cluster, at)?;
    if kind == END {
        return Ok(None);
    }
    let len = u32_at(cluster, at.saturating_add(4))?;
    let end = usize::try_from(len).ok().and_then(|len| data_at.checked_add(len));
    let Some(data) = end.and_then(|end| cluster.get(data_at..end)) else {
        return Err(Error::corrupt("qcow2.header", "a header extension is longer than the first cluster")
            .offset(u64::try_from(at).unwrap_or(u64::MAX))
            .found(format!("{len:#x} bytes")));
    };
    let next = data.len().checked_next_multiple_of(8).and_then(|padded| data_at.checked_add(padded));
    Ok(Some((kind, data, next.unwrap_or(usize::MAX))))
}

fn backing_file(cluster: &[u8], header: &Header) -> Result<Option<Vec<u8>>> {
    let (offset, len) = header.backing_file;
    if offset == 0 {
        return Ok(None);
    }
    if len == 0 || len > MAX_QCOW2_BACKING_NAME {
        return Err(bad("backing_file_size", 16).expected(format!("1 to {MAX_QCOW2_BACKING_NAME}")).found(len));
    }
    let start = usize::try_from(offset).ok();
    let end = start.and_then(|start| start.checked_add(usize::try_from(len).ok()?));
    let name = start.zip(end).and_then(|(start, end)| cluster.get(start..end));
    match name {
        Some(name) => Ok(Some(name.to_vec())),
        None => {
            Err(bad("backing_file_offset", 8).expected("a name inside the first cluster").found(format!("{offset:#x}")))
        }
    }
}

/// Names of incompatible features (type 0) in a feature name table; at most 64.
fn feature_names(table: &[u8]) -> Vec<(u8, String)> {
    let entries = table.chunks_exact(FEATURE_ENTRY).filter_map(|entry| {
        let (kind, bit) = (entry.first()?, entry.get(1)?);
        let name = entry.get(2..)?.split(|byte| *byte == 0).next()?;
        (*kind == 0).then(|| (*bit, escape_bytes(name)))
    });
    entries.take(64).collect()
}

fn bad(field: &str, offset: u64) -> Error {
    Error::corrupt("qcow2.header", format!("the header's {field} is not valid")).offset(offset)
}

fn short() -> Error {
    Error::corrupt("qcow2.truncated", "the file ends inside the header")
        .hint("the image was probably cut short; get it again")
}

fn byte_at(bytes: &[u8], at: usize) -> Result<u8> {
    bytes.get(at).copied().ok_or_else(short)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u32::from_be_bytes(*field)).ok_or_else(short)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map(|field| u64::from_be_bytes(*field)).ok_or_else(short)
}
