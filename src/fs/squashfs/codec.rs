//! The compressions that a squashfs may be made with; each block is a stream of its own.

use std::io::{self, Read};

use super::corrupt;
use crate::disk::bytes::{long, size};
use crate::error::{Error, Result};
use crate::fs::lzo;

/// Memory that decoding LZMA may take: for the largest block, 1 MiB, it needs some more than that for its window. mksquashfs takes
/// a dictionary of at most the block's size.
const LZMA_MEMORY: u64 = 16 << 20;

/// Largest window of a Zstandard frame, as a power of two: that of its best level, which a small block never fills.
const ZSTD_WINDOW: u32 = 27;

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    Gzip,
    Lzma,
    Lzo,
    Xz,
    Lz4,
    Zstd,
}

impl Codec {
    /// By the superblock's number.
    pub(super) fn of(compression: u16) -> Result<Self> {
        Ok(match compression {
            1 => Self::Gzip,
            2 => Self::Lzma,
            3 => Self::Lzo,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            _ => {
                let error = Error::unsupported("squashfs.feature", "a squashfs with an unknown compression");
                return Err(error.found(compression));
            }
        })
    }

    /// As `mksquashfs -comp` calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Decodes a block to at most `max` bytes; one that has more is damaged.
    pub(super) fn decode(self, input: &[u8], max: usize) -> Result<Vec<u8>> {
        self.try_decode(input, max).map_err(|error| corrupt("a compressed block is damaged").because(error))
    }

    fn try_decode(self, input: &[u8], max: usize) -> io::Result<Vec<u8>> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        match self {
            Self::Gzip => {
                let mut output = vec![0; max];
                let len = libdeflater::Decompressor::new().zlib_decompress(input, &mut output);
                output.truncate(len.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?);
                Ok(output)
            }
            Self::Lzo => lzo::stream(input, max).ok_or_else(damaged),
            Self::Lz4 => {
                let mut output = vec![0; max];
                let len = lz4_flex::block::decompress_into(input, &mut output);
                output.truncate(len.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?);
                Ok(output)
            }
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(LZMA_MEMORY, 0)?;
                all(liblzma::bufread::XzDecoder::new_stream(input, stream), max)
            }
            Self::Lzma => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(LZMA_MEMORY)?;
                all(liblzma::bufread::XzDecoder::new_stream(input, stream), max)
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(ZSTD_WINDOW)?;
                all(decoder, max)
            }
        }
    }
}

/// All of a stream, if that is at most `max` bytes.
fn all(stream: impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut output = Vec::with_capacity(max);
    stream.take(long(max).saturating_add(1)).read_to_end(&mut output)?;
    if output.len() > max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(output)
}

/// A block's length as it is stored, with a bit that says that it is not compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) len: usize,
    pub(super) is_plain: bool,
}

impl Stored {
    /// That of a block of data or fragments; `None` for one of zeros.
    pub(super) fn data(word: u32) -> Option<Self> {
        let len = size(u64::from(word & 0x00ff_ffff));
        (len > 0).then_some(Self { len, is_plain: word & 1 << 24 != 0 })
    }
}
