//! The header of an overlay file, and the empty image behind it (qcow2 specification, "Header").

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CLUSTER, L2_SPAN, REFCOUNTS};
use crate::error::{Error, Result};
use crate::limits;

/// Incompatible feature bit 4: extended L2 entries.
const EXTENDED_L2: u64 = 1 << 4;

/// Bytes of the header: all of version 3's fields, up to the padding behind the compression type.
const LENGTH: u32 = 112;

/// Header extension with the backing file's format.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// What lies below an overlay, as QEMU understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    /// A path, or `json:` and QEMU's options.
    pub name: String,
    /// QEMU's name of the format.
    pub format: &'static str,
}

/// Where things are in an overlay file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    size: u64,
    backing: Backing,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u64,
    pub(super) refcounts_offset: u64,
    /// Entries of the refcount table.
    pub(super) refcount_blocks: u64,
    /// Where the first cluster of a new image can go.
    pub(super) first_free: u64,
}

impl Header {
    /// The header of a new overlay of `size` bytes: header, refcount table, refcount block, L1 table, in this order.
    pub(super) fn new(size: u64, backing: &Backing) -> Result<Self> {
        let l1_entries = size.div_ceil(L2_SPAN);
        if !size.is_multiple_of(512) || l1_entries > u64::from(limits::MAX_QCOW2_L1_ENTRIES) {
            return Err(
                Error::unsupported("overlay.size", "a disk of this size cannot have a kept overlay").found(size)
            );
        }
        if backing.name.len() > limits::MAX_QCOW2_BACKING_NAME.try_into().unwrap_or(usize::MAX) {
            return Err(Error::unsupported("overlay.backing", "the name of the source is too long for a qcow2 image"));
        }
        let l1_clusters = l1_entries.saturating_mul(8).div_ceil(CLUSTER).max(1);
        let l1_offset = CLUSTER.saturating_mul(3);
        Ok(Self {
            size,
            backing: backing.clone(),
            l1_offset,
            l1_entries,
            refcounts_offset: CLUSTER,
            refcount_blocks: CLUSTER / 8,
            first_free: l1_offset.saturating_add(l1_clusters.saturating_mul(CLUSTER)),
        })
    }

    /// Writes an empty image. The magic comes last, so that what a crash leaves is no image.
    pub(super) fn create(&self, file: &File) -> io::Result<()> {
        file.set_len(self.first_free)?;
        let block = CLUSTER.saturating_mul(2);
        file.write_all_at(&block.to_be_bytes(), self.refcounts_offset)?;
        let clusters = usize::try_from(self.first_free.checked_div(CLUSTER).unwrap_or(0).min(REFCOUNTS)).unwrap_or(0);
        file.write_all_at(&[0, 1].repeat(clusters), block)?;
        file.sync_data()?;
        file.write_all_at(&self.to_bytes(), 0)?;
        file.sync_all()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
        let mut extensions = Vec::new();
        extensions.extend(BACKING_FORMAT.to_be_bytes());
        extensions.extend(number(self.backing.format.len()));
        extensions.extend(self.backing.format.bytes());
        extensions.resize(extensions.len().next_multiple_of(8), 0);
        extensions.extend([0; 8]); // end of the header extensions
        let name_at = u64::from(LENGTH).saturating_add(u64::try_from(extensions.len()).unwrap_or(0));
        let mut bytes = Vec::with_capacity(2048);
        bytes.extend(b"QFI\xfb"); // magic
        bytes.extend(3_u32.to_be_bytes()); // version
        bytes.extend(name_at.to_be_bytes()); // backing_file_offset
        bytes.extend(number(self.backing.name.len())); // backing_file_size
        bytes.extend(CLUSTER.trailing_zeros().to_be_bytes()); // cluster_bits
        bytes.extend(self.size.to_be_bytes()); // size
        bytes.extend([0; 4]); // crypt_method
        bytes.extend(u32::try_from(self.l1_entries).unwrap_or(u32::MAX).to_be_bytes()); // l1_size
        bytes.extend(self.l1_offset.to_be_bytes()); // l1_table_offset
        bytes.extend(self.refcounts_offset.to_be_bytes()); // refcount_table_offset
        bytes.extend(1_u32.to_be_bytes()); // refcount_table_clusters
        bytes.extend([0; 12]); // nb_snapshots, snapshots_offset
        bytes.extend(EXTENDED_L2.to_be_bytes()); // incompatible_features
        bytes.extend([0; 16]); // compatible and autoclear features
        bytes.extend(4_u32.to_be_bytes()); // refcount_order
        bytes.extend(LENGTH.to_be_bytes()); // header_length
        bytes.extend([0; 8]); // compression_type, padding
        bytes.extend(extensions);
        bytes.extend(self.backing.name.bytes());
        bytes
    }

    /// Reads the header of an overlay that was made by [`Header::create`], and may have been written by QEMU since.
    pub(super) fn read(file: &File, size: u64, backing: &Backing) -> Result<Self> {
        let other = |what: &str| {
            Error::unsupported("overlay.other", what.to_owned())
                .hint("give another file, which will be made, to --overlay")
        };
        let len = file.metadata().map_err(|e| Error::write("looking at the overlay", e))?.len();
        let mut head = vec![0; usize::try_from(len.min(CLUSTER)).unwrap_or(0)];
        file.read_exact_at(&mut head, 0).map_err(|e| Error::write("reading the overlay's header", e))?;
        let u32_at =
            |at: usize| head.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_be_bytes(*bytes));
        let u64_at =
            |at: usize| head.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u64::from_be_bytes(*bytes));
        let is_ours = head.starts_with(b"QFI\xfb")
            && (u32_at(4), u32_at(20), u32_at(32)) == (Some(3), Some(CLUSTER.trailing_zeros()), Some(0))
            && (u64_at(72), u32_at(96)) == (Some(EXTENDED_L2), Some(4));
        if !is_ours {
            return Err(other(
                "the file is no overlay that this program made, or has been changed in a way that it cannot go on from",
            )
            .expected("a qcow2 image with extended L2 entries, clusters of 64 KiB and no other features"));
        }
        if u32_at(60) != Some(0) {
            return Err(other("the overlay has internal snapshots"));
        }
        let name = u64_at(8).zip(u32_at(16)).and_then(|(at, len)| {
            let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
            head.get(at..at.checked_add(len)?)
        });
        if name != Some(backing.name.as_bytes()) || u64_at(24) != Some(size) {
            return Err(other("the overlay belongs to another source")
                .expected(&backing.name)
                .found(String::from_utf8_lossy(name.unwrap_or_default())));
        }
        let field = |value: Option<u64>| value.ok_or_else(|| other("the overlay's header is cut off"));
        let table_clusters = field(u32_at(56).map(u64::from))?;
        let found = Self {
            size,
            backing: backing.clone(),
            l1_offset: field(u64_at(40))?,
            l1_entries: field(u32_at(36).map(u64::from))?,
            refcounts_offset: field(u64_at(48))?,
            refcount_blocks: table_clusters.saturating_mul(CLUSTER / 8),
            first_free: 0,
        };
        let inside = |at: u64, entries: u64| {
            at.is_multiple_of(CLUSTER) && at.checked_add(entries.saturating_mul(8)).is_some_and(|end| end <= len)
        };
        let sound = found.l1_entries >= size.div_ceil(L2_SPAN)
            && found.l1_entries <= u64::from(limits::MAX_QCOW2_L1_ENTRIES)
            && found.refcount_blocks <= limits::MAX_QCOW2_REFCOUNT_BLOCKS
            && inside(found.l1_offset, found.l1_entries)
            && inside(found.refcounts_offset, found.refcount_blocks);
        if sound { Ok(found) } else { Err(other("the overlay's tables are not where they can be")) }
    }
}
