//! A file's extents (`btrfs_file_extent_item`), and the three ways in which they may be compressed.

use std::io::Read;

use super::{corrupt, lzo};
use crate::disk::bytes::{le16, le64, long, size, u8_at};
use crate::error::{Error, Result};
use crate::limits;

/// Bytes before an extent's place or its own content.
pub(super) const HEAD: usize = 21;
/// Bytes of an extent that is not inline.
const LEN: usize = 53;

/// How an extent is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Compression {
    Lzo,
    Zlib,
    Zstd,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent<'a> {
    /// Where it starts in the file.
    pub(super) start: u64,
    /// Bytes of the file that it covers.
    pub(super) len: u64,
    pub(super) body: Body<'a>,
}

/// What a part of a file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body<'a> {
    /// A hole.
    Hole,
    /// Content inside the item, with its length when it is decoded.
    Inline { bytes: &'a [u8], compression: Option<Compression>, decoded: u64 },
    /// Allocated and not written: zeros.
    Prealloc(Data),
    /// Content elsewhere.
    Regular(Data),
}

/// Content outside of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data {
    /// Logical address and length of all of it.
    pub(super) bytenr: u64,
    pub(super) disk_len: u64,
    /// Where in it, decoded, this part starts.
    pub(super) offset: u64,
    /// Its length when it is decoded.
    pub(super) ram_bytes: u64,
    pub(super) compression: Option<Compression>,
}

impl<'a> Extent<'a> {
    /// Checks the extent at `start` of a file.
    pub(super) fn parse(start: u64, item: &'a [u8], sectorsize: u32) -> Result<Self> {
        let bad = |what: &str| corrupt(format!("an extent of a file {what}"));
        if item.len() < HEAD {
            return Err(bad("is cut off"));
        }
        let compression = match u8_at(item, 16) {
            0 => None,
            1 => Some(Compression::Zlib),
            2 => Some(Compression::Lzo),
            3 => Some(Compression::Zstd),
            other => return Err(unknown("compression", u64::from(other))),
        };
        if u8_at(item, 17) != 0 || le16(item, 18) != 0 {
            return Err(unknown("encryption", u64::from(u8_at(item, 17))));
        }
        let (ram_bytes, is_prealloc) = (le64(item, 8), u8_at(item, 20) == 2);
        if u8_at(item, 20) == 0 {
            let bytes = item.get(HEAD..).unwrap_or_default();
            let decoded = if compression.is_some() { ram_bytes } else { long(bytes.len()) };
            if start != 0 || decoded > long(limits::MAX_BTRFS_UNIT) {
                return Err(bad("is inline at an impossible place"));
            }
            return Ok(Self { start, len: decoded, body: Body::Inline { bytes, compression, decoded } });
        }
        if item.len() != LEN || u8_at(item, 20) > 2 {
            return Err(bad("is of an unknown kind"));
        }
        let data =
            Data { bytenr: le64(item, 21), disk_len: le64(item, 29), offset: le64(item, 37), ram_bytes, compression };
        let len = le64(item, 45);
        let sector = u64::from(sectorsize);
        let aligned = [start, data.bytenr, data.disk_len, data.offset, len];
        if len == 0
            || aligned.iter().any(|value| value.checked_rem(sector) != Some(0))
            || start.checked_add(len).is_none()
        {
            return Err(bad("lies at an impossible place"));
        }
        if data.bytenr == 0 {
            return Ok(Self { start, len, body: Body::Hole });
        }
        let all = if compression.is_some() { ram_bytes } else { data.disk_len };
        if data.offset.checked_add(len).is_none_or(|end| end > all) || data.bytenr.checked_add(data.disk_len).is_none()
        {
            return Err(bad("reaches outside of its content"));
        }
        if compression.is_some() && data.disk_len.max(ram_bytes) > long(limits::MAX_BTRFS_UNIT) {
            let error = Error::limit("btrfs.limit", "a compressed extent is too large");
            return Err(error.expected(limits::MAX_BTRFS_UNIT).found(data.disk_len.max(ram_bytes)));
        }
        Ok(Self { start, len, body: if is_prealloc { Body::Prealloc(data) } else { Body::Regular(data) } })
    }

    /// Where it ends in the file.
    pub(super) const fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

fn unknown(what: &str, found: u64) -> Error {
    Error::unsupported("btrfs.feature", format!("an extent of a file has an unknown {what}")).found(found)
}

/// Decodes `input` to `len` bytes; what the encoder did not write is zeros.
pub(super) fn decode(compression: Compression, input: &[u8], len: u64, sectorsize: u32) -> Result<Vec<u8>> {
    let max = size(len).min(limits::MAX_BTRFS_UNIT);
    let damaged = |error: std::io::Error| corrupt("a compressed extent is damaged").because(error);
    let mut output = Vec::with_capacity(max);
    match compression {
        Compression::Lzo => output = lzo::decode(input, max, size(u64::from(sectorsize)))?,
        Compression::Zlib => {
            let decoder = flate2::bufread::ZlibDecoder::new(input);
            decoder.take(long(max)).read_to_end(&mut output).map_err(damaged)?;
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(damaged)?.single_frame();
            decoder.window_log_max(limits::MAX_BTRFS_UNIT.ilog2()).map_err(damaged)?;
            decoder.take(long(max)).read_to_end(&mut output).map_err(damaged)?;
        }
    }
    output.resize(max, 0);
    Ok(output)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests build their input")]
mod tests {
    use super::*;
    use crate::disk::bytes::put;

    fn item(kind: u8, compression: u8, ram: u64, place: [u64; 4]) -> Vec<u8> {
        let mut item = vec![0; LEN];
        put(&mut item, 8, &ram.to_le_bytes());
        item[16] = compression;
        item[20] = kind;
        for (index, value) in place.iter().enumerate() {
            put(&mut item, 21 + index * 8, &value.to_le_bytes());
        }
        item
    }

    fn code(start: u64, item: &[u8]) -> &'static str {
        Extent::parse(start, item, 4096).map_or_else(|error| error.code(), |_| "none")
    }

    #[test]
    fn hostile_extents() {
        let good = item(1, 0, 8192, [4096, 8192, 4096, 4096]);
        assert_eq!(code(0, &good), "none");
        for len in 0..good.len() {
            assert_eq!(code(0, &good[..len]), "btrfs.corrupt");
        }
        for (start, item, expected) in [
            (1, good.clone(), "btrfs.corrupt"),
            (u64::MAX - 4095, good.clone(), "btrfs.corrupt"),
            (0, item(3, 0, 8192, [4096, 8192, 0, 4096]), "btrfs.corrupt"),
            (0, item(1, 4, 8192, [4096, 8192, 0, 4096]), "btrfs.feature"),
            (0, item(1, 0, 8192, [4096, 8192, 0, 0]), "btrfs.corrupt"),
            (0, item(1, 0, 8192, [4096, 8192, 8192, 4096]), "btrfs.corrupt"),
            (0, item(1, 0, 8192, [4096, 4096, 0, 8192]), "btrfs.corrupt"),
            (0, item(1, 0, 8192, [u64::MAX - 4095, 4096, 0, 4096]), "btrfs.corrupt"),
            (0, item(1, 1, 1 << 18, [4096, 4096, 0, 4096]), "btrfs.limit"),
            (0, item(1, 1, 4096, [4096, 1 << 18, 0, 4096]), "btrfs.limit"),
            (4096, item(0, 0, 32, [0; 4]), "btrfs.corrupt"),
            (0, item(0, 1, 1 << 18, [0; 4]), "btrfs.corrupt"),
        ] {
            assert_eq!(code(start, &item), expected, "{start} {item:?}");
        }
        let mut encrypted = good;
        encrypted[17] = 1;
        assert_eq!(code(0, &encrypted), "btrfs.feature");
    }

    #[test]
    fn a_compressed_extent_has_a_largest_size() {
        let unit = long(limits::MAX_BTRFS_UNIT);
        for (len, expected) in [(unit - 4096, "none"), (unit, "none"), (unit + 4096, "btrfs.limit")] {
            assert_eq!(code(0, &item(1, 3, len, [4096, 4096, 0, 4096])), expected);
        }
    }

    #[test]
    fn what_is_compressed_is_decoded_and_never_grows() {
        let plain: Vec<u8> = (0..40_000_u32).flat_map(|value| (value / 7).to_le_bytes()).take(100_000).collect();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut zlib, &plain).unwrap();
        let mut zlib = zlib.finish().unwrap();
        let mut zstd = zstd::bulk::compress(&plain, 3).unwrap();
        for (kind, bytes) in [(Compression::Zlib, &mut zlib), (Compression::Zstd, &mut zstd)] {
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
            assert_eq!(decode(kind, bytes, 100_000, 4096).unwrap(), plain);
            assert_eq!(decode(kind, bytes, 4096, 4096).unwrap(), plain[..4096]);
            let mut padded = plain.clone();
            padded.resize(102_400, 0);
            assert_eq!(decode(kind, bytes, 102_400, 4096).unwrap(), padded);
            assert!(decode(kind, &bytes[..bytes.len() / 2], 100_000, 4096).is_err());
            assert!(decode(kind, b"", 4096, 4096).is_err());
            assert!(decode(kind, &[0x55; 4096], 4096, 4096).is_err());
        }
    }
}
