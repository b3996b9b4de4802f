//! What a compressed data object holds.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::Read;

use crate::error::{Error, Result};
use crate::limits;

const XZ: u8 = 1;
const LZ4: u8 = 2;
const ZSTD: u8 = 4;

/// Puts the content of a data object with these `flags` into `out`, from the bytes `stored`.
pub(super) fn decode(flags: u8, stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    match flags & (XZ | LZ4 | ZSTD) {
        0 => out.extend_from_slice(stored),
        XZ => read_all(&mut xz(stored)?, out)?,
        LZ4 => lz4(stored, out)?,
        ZSTD => zstd(stored, out)?,
        several => return Err(broken().found(format!("the flags {several:#x}"))),
    }
    if out.len() > limits::MAX_JOURNAL_DATA {
        return Err(too_large());
    }
    Ok(())
}

fn xz(stored: &[u8]) -> Result<impl Read + '_> {
    let memory = u64::from(limits::MAX_DECODE_WINDOW).saturating_mul(2);
    let stream = liblzma::stream::Stream::new_stream_decoder(memory, 0).map_err(|error| broken().because(error))?;
    Ok(liblzma::bufread::XzDecoder::new_stream(stored, stream))
}

/// Eight bytes with the length of the content, then one LZ4 block.
fn lz4(stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let (length, block) = stored.split_first_chunk().ok_or_else(broken)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| too_large())?;
    if length > limits::MAX_JOURNAL_DATA {
        return Err(too_large());
    }
    // LZ4 makes of a byte at most 255.
    if length > block.len().saturating_add(1).saturating_mul(255) {
        return Err(broken());
    }
    out.resize(length, 0);
    let written = lz4_flex::block::decompress_into(block, out).map_err(|error| broken().because(error))?;
    if written != length {
        return Err(broken().expected(length).found(written));
    }
    Ok(())
}

fn zstd(stored: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut decoder = ::zstd::stream::read::Decoder::with_buffer(stored).map_err(|error| broken().because(error))?;
    let window = limits::MAX_DECODE_WINDOW.ilog2();
    decoder.window_log_max(window).map_err(|error| broken().because(error))?;
    read_all(&mut decoder, out)
}

fn read_all(from: &mut dyn Read, out: &mut Vec<u8>) -> Result<()> {
    let most = u64::try_from(limits::MAX_JOURNAL_DATA).unwrap_or(u64::MAX).saturating_add(1);
    from.take(most).read_to_end(out).map(drop).map_err(|error| broken().because(error))
}

fn broken() -> Error {
    Error::corrupt("journal.compressed", "a compressed field of a journal cannot be decoded")
}

pub(super) fn too_large() -> Error {
    Error::limit("journal.field-size", "a field of a journal is larger than any that makes sense")
        .expected(format!("at most {} bytes", limits::MAX_JOURNAL_DATA))
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, clippy::as_conversions, reason = "tests build their input")]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(flags: u8, content: &[u8]) -> Vec<u8> {
        match flags {
            XZ => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            LZ4 => [&(content.len() as u64).to_le_bytes(), &*lz4_flex::block::compress(content)].concat(),
            ZSTD => ::zstd::stream::encode_all(content, 1).unwrap(),
            _ => content.to_vec(),
        }
    }

    #[test]
    fn every_compression_up_to_its_bound() {
        let most = limits::MAX_JOURNAL_DATA;
        for flags in [0, XZ, LZ4, ZSTD] {
            let mut out = b"before".to_vec();
            decode(flags, &packed(flags, b"MESSAGE=hello"), &mut out).unwrap();
            assert_eq!(out, b"MESSAGE=hello");
            decode(flags, &packed(flags, &vec![b'x'; most - 1]), &mut out).unwrap();
            decode(flags, &packed(flags, &vec![b'x'; most]), &mut out).unwrap();
            assert_eq!(out.len(), most);
            let error = decode(flags, &packed(flags, &vec![b'x'; most + 1]), &mut out).unwrap_err();
            assert_eq!(error.code(), "journal.field-size", "{flags}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_an_error() {
        let mut out = Vec::new();
        let mut lying = packed(LZ4, b"MESSAGE=hello");
        lying[7] = 0x7f;
        assert_eq!(decode(LZ4, &lying, &mut out).unwrap_err().code(), "journal.field-size");
        lying[7] = 0;
        lying[2] = 1;
        assert_eq!(decode(LZ4, &lying, &mut out).unwrap_err().code(), "journal.compressed");
        for flags in [XZ, LZ4, ZSTD] {
            let good = packed(flags, b"MESSAGE=hello");
            for cut in 0..good.len() - 1 {
                assert!(decode(flags, &good[..cut], &mut out).is_err(), "{flags} {cut}");
            }
        }
        assert!(decode(XZ | ZSTD, b"", &mut out).is_err());
    }
}
