//! The header cluster's fields and extensions (specification, "Header" and "Header extensions").

use super::options::{Compression, Qcow2Options};

/// Bytes of the header: all of version 3's fields, up to the padding behind the compression type.
const HEADER_LENGTH: u32 = 112;

/// Refcounts of 16 bits.
const REFCOUNT_ORDER: u32 = 4;

/// Incompatible features: bit 3, the compression type is not zlib; bit 4, extended L2 entries.
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Header extension with the backing file's format.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// What the header says besides the options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) size: u64,
    pub(super) l1_entries: u64,
    pub(super) l1_offset: u64,
    /// Offset, and number of clusters.
    pub(super) refcount_table: (u64, u64),
}

/// The header and what belongs behind it: at most 1,300 bytes, which fit into every cluster.
pub(super) fn header(options: &Qcow2Options, fields: &Fields) -> Vec<u8> {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
    let zstd = matches!(options.compression, Some(Compression::Zstd(_)));
    let features = if zstd { COMPRESSION_TYPE } else { 0 } | if options.extended_l2 { EXTENDED_L2 } else { 0 };
    let extensions = extensions(options);
    let (backing_at, backing_len) = match &options.backing {
        Some(backing) => (u64::from(HEADER_LENGTH) + extensions.len() as u64, backing.file.len() as u64),
        None => (0, 0),
    };
    let mut header = Vec::with_capacity(2048);
    header.extend(b"QFI\xfb"); // magic
    header.extend(3_u32.to_be_bytes()); // version
    header.extend(backing_at.to_be_bytes()); // backing_file_offset
    header.extend(number(backing_len)); // backing_file_size
    header.extend(options.cluster_size.trailing_zeros().to_be_bytes()); // cluster_bits
    header.extend(fields.size.to_be_bytes()); // size
    header.extend([0; 4]); // crypt_method
    header.extend(number(fields.l1_entries)); // l1_size
    header.extend(fields.l1_offset.to_be_bytes()); // l1_table_offset
    header.extend(fields.refcount_table.0.to_be_bytes()); // refcount_table_offset
    header.extend(number(fields.refcount_table.1)); // refcount_table_clusters
    header.extend([0; 12]); // nb_snapshots, snapshots_offset
    header.extend(features.to_be_bytes()); // incompatible_features
    header.extend([0; 16]); // compatible and autoclear features
    header.extend(REFCOUNT_ORDER.to_be_bytes()); // refcount_order
    header.extend(HEADER_LENGTH.to_be_bytes()); // header_length
    header.push(u8::from(zstd)); // compression_type
    header.extend([0; 7]); // padding
    header.extend(extensions);
    header.extend(options.backing.iter().flat_map(|backing| backing.file.bytes()));
    header
}

fn extensions(options: &Qcow2Options) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(backing) = &options.backing {
        bytes.extend(BACKING_FORMAT.to_be_bytes());
        bytes.extend(u32::try_from(backing.format.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(backing.format.bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend([0; 8]); // end of the header extensions
    bytes
}
