//! What follows the header in the first cluster (specification, "Header extensions").

use super::header::{Header, bad, u32_at, u64_at};
use crate::error::{Error, Result, escape_bytes};
use crate::limits::MAX_QCOW2_BACKING_NAME;

/// Header extension types.
const END: u32 = 0;
const BACKING_FORMAT: u32 = 0xe279_2aca;
const FEATURE_NAMES: u32 = 0x6803_f857;
const EXTERNAL_DATA_FILE: u32 = 0x4441_5441;
const BITMAPS: u32 = 0x2385_2875;

/// Bytes of one entry of the feature name table: type, bit number, name.
const FEATURE_ENTRY: usize = 48;

/// Where the persistent bitmaps are listed (specification, "Bitmaps extension").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BitmapsExtension {
    pub(super) nb_bitmaps: u32,
    pub(super) bitmap_directory_size: u64,
    pub(super) bitmap_directory_offset: u64,
}

impl BitmapsExtension {
    fn parse(data: &[u8]) -> Result<Self> {
        Ok(Self {
            nb_bitmaps: u32_at(data, 0)?,
            bitmap_directory_size: u64_at(data, 8)?,
            bitmap_directory_offset: u64_at(data, 16)?,
        })
    }
}

/// What follows the header in the first cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    /// The backing file's name as written.
    pub(super) backing_file: Option<Vec<u8>>,
    /// The backing file's format.
    pub(super) backing_format: Option<String>,
    /// The data file's name as written.
    pub(super) data_file: Option<Vec<u8>>,
    /// Where the persistent bitmaps are listed.
    pub(super) bitmaps: Option<BitmapsExtension>,
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
                BITMAPS => extensions.bitmaps = Some(BitmapsExtension::parse(data)?),
                FEATURE_NAMES => extensions.feature_names = feature_names(data),
                _ => {}
            }
            at = next;
        }
        Ok(extensions)
    }

    /// Names of the incompatible features in `bits`, for a message.
    pub(super) fn names_of(&self, bits: u64) -> String {
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
