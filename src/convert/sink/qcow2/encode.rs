//! Compressed clusters: raw deflate with a window of 4 KiB, or zstd frames.

use super::options::Compression;
use crate::convert::deflate;
use crate::convert::sink::Encoder;
use crate::error::{Error, Result};

/// What encodes clusters by `compression`.
pub(super) fn encoder(compression: Compression) -> Result<Box<dyn Encoder>> {
    Ok(match compression {
        Compression::Zlib(level) => Box::new(Deflate(deflate::Encoder::new(deflate::Level::of(level)))),
        Compression::Zstd(level) => Box::new(Zstd(
            zstd::bulk::Compressor::new(i32::from(level))
                .map_err(|error| Error::failed("convert.encode", "cannot set up zstd").because(error))?,
        )),
    })
}

/// Encoded clusters that are not smaller by a sector are left as they are: reading them costs time and saves nothing.
fn limit(granule: &[u8]) -> usize {
    granule.len().saturating_sub(512)
}

struct Deflate(deflate::Encoder);

impl Encoder for Deflate {
    fn encode(&mut self, _offset: u64, granule: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        Ok(self.0.encode(granule, out, limit(granule)).is_some())
    }
}

struct Zstd(zstd::bulk::Compressor<'static>);

impl Encoder for Zstd {
    fn encode(&mut self, _offset: u64, granule: &[u8], out: &mut Vec<u8>) -> Result<bool> {
        let start = out.len();
        out.resize(start + limit(granule), 0);
        // The only failure is that it does not fit.
        let len = self.0.compress_to_buffer(granule, out.get_mut(start..).unwrap_or_default());
        out.truncate(start + len.as_ref().map_or(0, |len| *len));
        Ok(len.is_ok())
    }
}
