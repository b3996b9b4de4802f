//! The compressions that a kernel may find in an initramfs: told by their first bytes, decoded as a stream, and those that a
//! segment can be appended to, encoded.
//!
//! Memory is bounded by [`limits::MAX_DECODE_WINDOW`]; how much comes out is bounded by whoever reads.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::{self, BufRead, Read, Write};

use crate::error::{Error, Result};
use crate::limits;

/// A compression format (the kernel's `lib/decompress.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Codec {
    /// bzip2.
    Bzip2,
    /// gzip.
    Gzip,
    /// LZ4 in its legacy frame, which has no end mark.
    Lz4,
    /// LZMA alone.
    Lzma,
    /// LZO in lzop's frame, with a check of the content for each block, as the kernel wants it.
    Lzo,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

const LZ4_MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];

/// Bytes that one LZ4 block of the legacy frame holds at most.
const LZ4_BLOCK: usize = 8 << 20;

impl Codec {
    /// The codec that the first bytes of a segment belong to.
    pub(crate) fn detect(start: &[u8]) -> Option<Self> {
        let magics: [(&[u8], Self); 8] = [
            (&[0x1f, 0x8b], Self::Gzip),
            (&[0x1f, 0x9e], Self::Gzip),
            (b"BZh", Self::Bzip2),
            (&[0x5d, 0, 0], Self::Lzma),
            (&[0xfd, b'7', b'z', b'X', b'Z', 0], Self::Xz),
            (&[0x89, b'L', b'Z', b'O'], Self::Lzo),
            (&LZ4_MAGIC, Self::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
        ];
        magics.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, codec)| *codec)
    }

    /// The name for people.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bzip2 => "bzip2",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }

    /// Whether the kernel goes on reading right behind a segment of this codec.
    pub(crate) const fn can_continue(self) -> bool {
        // The kernel stops anywhere near the end of LZMA alone.
        !matches!(self, Self::Lzma)
    }

    /// A stream of what one segment holds. It takes exactly the segment's bytes from `input`.
    pub(crate) fn decoder<'a, R: BufRead + 'a>(self, input: R) -> Result<Box<dyn Read + 'a>> {
        let window = limits::MAX_DECODE_WINDOW;
        let memory = u64::from(window).saturating_add(1 << 20);
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(input)),
            Self::Lz4 => Box::new(Lz4::new(input)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(memory, 0).map_err(setup)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Self::Lzma => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(memory).map_err(setup)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(setup)?.single_frame();
                decoder.window_log_max(window.ilog2()).map_err(setup)?;
                Box::new(decoder)
            }
            Self::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(input)),
            Self::Lzo => Box::new(super::lzop::Decoder::new(input)),
        })
    }

    /// `content` as one segment of this codec, quickly rather than small. LZO only stores.
    pub(crate) fn encode(self, content: &[u8]) -> Result<Vec<u8>> {
        self.encode_with(content, false)
    }

    /// `content` as one segment of this codec, as small as the kernel's decoder and memory allow.
    pub(crate) fn encode_small(self, content: &[u8]) -> Result<Vec<u8>> {
        self.encode_with(content, true)
    }

    fn encode_with(self, content: &[u8], small: bool) -> Result<Vec<u8>> {
        let level = |fast: u32, best: u32| if small { best } else { fast };
        let encoded = match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level(6, 9)));
                encoder.write_all(content).and_then(|()| encoder.finish())
            }
            Self::Zstd => zstd::bulk::compress(content, if small { 19 } else { 6 }),
            // The kernel's decoder knows no check but CRC32.
            Self::Xz => liblzma::stream::Stream::new_easy_encoder(level(1, 6), liblzma::stream::Check::Crc32)
                .map_err(io::Error::from)
                .and_then(|stream| {
                    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                    encoder.write_all(content).and_then(|()| encoder.finish())
                }),
            Self::Lz4 => Ok(encode_lz4(content)),
            Self::Lzma => liblzma::stream::LzmaOptions::new_preset(6)
                .and_then(|options| liblzma::stream::Stream::new_lzma_encoder(&options))
                .map_err(io::Error::from)
                .and_then(|stream| {
                    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
                    encoder.write_all(content).and_then(|()| encoder.finish())
                }),
            Self::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(6));
                encoder.write_all(content).and_then(|()| encoder.finish())
            }
            Self::Lzo => Ok(super::lzop::stored(content)),
        };
        encoded.map_err(setup)
    }
}

/// Undoes the compression of a module file by its name's end, bounded by [`limits::MAX_MODULE`].
pub(crate) fn module(name: &str, content: Vec<u8>) -> Result<Vec<u8>> {
    let codec = match name.rsplit_once(".ko").map(|(_, end)| end) {
        Some(".xz") => Codec::Xz,
        Some(".zst") => Codec::Zstd,
        Some(".gz") => Codec::Gzip,
        _ => return Ok(content),
    };
    let mut out = Vec::new();
    let decoder = codec.decoder(content.as_slice())?;
    let read = decoder.take(limits::MAX_MODULE.saturating_add(1)).read_to_end(&mut out);
    read.map_err(|error| Error::corrupt("initramfs.decode", "a compressed module does not decode").because(error))?;
    if u64::try_from(out.len()).unwrap_or(u64::MAX) > limits::MAX_MODULE {
        return Err(Error::limit("initramfs.module-size", "a module is larger than any real one"));
    }
    Ok(out)
}

fn setup(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed("initramfs.encode", "a compression library failed").because(error)
}

/// Reads the legacy frame: magic, then blocks with their compressed lengths. It ends at the end of the input, or at a length
/// of zero, which padding looks like.
struct Lz4<R> {
    input: R,
    block: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<R: BufRead> Lz4<R> {
    const fn new(input: R) -> Self {
        Self { input, block: Vec::new(), taken: 0, ended: false }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let mut length = [0; 4];
        while !self.ended {
            match fill(&mut self.input, &mut length)? {
                4 if length == LZ4_MAGIC => {}
                4 if length != [0; 4] => break,
                0 | 4 => self.ended = true,
                _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an LZ4 block's length is cut off")),
            }
        }
        if self.ended {
            return Ok(());
        }
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "an LZ4 block of impossible length");
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| bad())?;
        if length > lz4_flex::block::get_maximum_output_size(LZ4_BLOCK) {
            return Err(bad());
        }
        let mut packed = vec![0; length];
        self.input.read_exact(&mut packed)?;
        self.block.resize(LZ4_BLOCK, 0);
        let size = lz4_flex::block::decompress_into(&packed, &mut self.block)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.block.truncate(size);
        self.taken = 0;
        Ok(())
    }
}

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.ended && self.taken >= self.block.len() {
            self.next_block()?;
        }
        let mut rest = self.block.get(self.taken..).unwrap_or_default();
        if self.ended {
            rest = &[];
        }
        let count = rest.read(buf)?;
        self.taken = self.taken.saturating_add(count);
        Ok(count)
    }
}

/// Fills `buf` as far as the input goes, and says how far.
fn fill(input: &mut impl Read, buf: &mut [u8; 4]) -> io::Result<usize> {
    let mut filled = 0_usize;
    while let Some(rest) = buf.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest)? {
            0 => break,
            count => filled = filled.saturating_add(count),
        }
    }
    Ok(filled)
}

fn encode_lz4(content: &[u8]) -> Vec<u8> {
    let mut out = LZ4_MAGIC.to_vec();
    for block in content.chunks(LZ4_BLOCK) {
        let packed = lz4_flex::block::compress(block);
        out.extend(u32::try_from(packed.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend(packed);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_it_encodes_and_takes_no_byte_more() {
        let content: Vec<u8> = (0..200_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let codecs = [Codec::Bzip2, Codec::Gzip, Codec::Lzo, Codec::Xz, Codec::Zstd];
        for (codec, small) in codecs.into_iter().flat_map(|codec| [(codec, false), (codec, true)]) {
            let mut file = codec.encode_with(&content, small).unwrap();
            assert_eq!(Codec::detect(&file), Some(codec));
            file.extend(b"behind");
            let mut input = file.as_slice();
            let mut out = Vec::new();
            codec.decoder(&mut input).unwrap().read_to_end(&mut out).unwrap();
            assert!(out == content, "{codec:?}");
            assert_eq!(input, b"behind", "{codec:?}");
        }
    }

    #[test]
    fn lz4_goes_on_through_a_second_frame_and_ends_at_zeros() {
        let content = vec![7; LZ4_BLOCK.checked_add(5).unwrap()];
        let mut file = Codec::Lz4.encode(&content).unwrap();
        assert_eq!(Codec::detect(&file), Some(Codec::Lz4));
        file.extend(Codec::Lz4.encode(b"more").unwrap());
        file.extend([0; 9]);
        let mut input = file.as_slice();
        let mut out = Vec::new();
        Codec::Lz4.decoder(&mut input).unwrap().read_to_end(&mut out).unwrap();
        assert!(out == [content, b"more".to_vec()].concat());
        assert_eq!(input, [0; 5]);
    }

    #[test]
    fn damaged_streams_are_errors_not_panics() {
        for codec in [Codec::Bzip2, Codec::Gzip, Codec::Lz4, Codec::Lzma, Codec::Lzo, Codec::Xz, Codec::Zstd] {
            let good = codec.encode(&[b'x'; 700]).unwrap();
            // Each LZ4 block is a buffer of 8 MiB.
            let step = if codec == Codec::Lz4 { 7 } else { 1 };
            for cut in (0..good.len()).step_by(step) {
                let _ = codec.decoder(&good[..cut]).unwrap().read_to_end(&mut Vec::new());
                let mut bad = good.clone();
                bad[cut] ^= 0x55;
                let _ = codec.decoder(bad.as_slice()).unwrap().take(1 << 20).read_to_end(&mut Vec::new());
            }
        }
        let mut huge = LZ4_MAGIC.to_vec();
        huge.extend([0xff; 64]);
        assert!(Codec::Lz4.decoder(huge.as_slice()).unwrap().read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn lzma_alone_is_read_as_it_is_written() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let file = Codec::Lzma.encode(&content).unwrap();
        assert_eq!(Codec::detect(&file), Some(Codec::Lzma));
        let mut out = Vec::new();
        Codec::Lzma.decoder(file.as_slice()).unwrap().read_to_end(&mut out).unwrap();
        assert!(out == content);
    }

    #[test]
    fn modules_lose_their_compression_and_nothing_else() {
        let content = b"\x7fELF...~Module signature appended~\n".to_vec();
        for (name, codec) in [("a.ko.xz", Codec::Xz), ("a.ko.zst", Codec::Zstd), ("a.ko.gz", Codec::Gzip)] {
            assert_eq!(module(name, codec.encode(&content).unwrap()).unwrap(), content, "{name}");
        }
        assert_eq!(module("a.ko", content.clone()).unwrap(), content);
        assert_eq!(module("a.ko.xz", content).unwrap_err().code(), "initramfs.decode");
    }

    #[test]
    fn a_module_as_large_as_the_limit_is_taken() {
        let limit = usize::try_from(limits::MAX_MODULE).unwrap();
        for (over, accepted) in [(-1, true), (0, true), (1, false)] {
            let zeros = vec![0; limit.checked_add_signed(over).unwrap()];
            let result = module("a.ko.zst", zstd::bulk::compress(&zeros, 1).unwrap());
            assert_eq!(
                result.map_or_else(|error| error.code().len(), |content| content.len()) == zeros.len(),
                accepted
            );
        }
    }

    #[test]
    fn a_window_above_the_limit_is_refused() {
        let frame = |log: u32| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.include_contentsize(false).unwrap();
            encoder.write_all(&[1; 4096]).unwrap();
            encoder.finish().unwrap()
        };
        let at = limits::MAX_DECODE_WINDOW.ilog2();
        for (log, accepted) in [(at.checked_sub(1).unwrap(), true), (at, true), (at.checked_add(1).unwrap(), false)] {
            let frame = frame(log);
            let result = Codec::Zstd.decoder(frame.as_slice()).unwrap().read_to_end(&mut Vec::new());
            assert_eq!(result.is_ok(), accepted, "{log}");
        }
    }
}
