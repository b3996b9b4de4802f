//! Compressed clusters: raw deflate or zstd frames that make exactly one cluster.

use std::cell::RefCell;

use super::header::Compression;
use crate::error::{Error, Result};
use crate::limits::MAX_UNIT;

/// Most bytes that a compressed cluster takes: the sector count has as many bits as give twice the largest cluster.
pub(super) const LONGEST: usize = 2 * MAX_UNIT;

/// Fills `out` from `stored`, which may have unused bytes at its end. Output cannot grow beyond `out`.
pub(super) fn cluster(compression: Compression, stored: &[u8], out: &mut [u8]) -> Result<()> {
    match compression {
        Compression::Zlib => inflate(stored, out),
        Compression::Zstd => zstd_frames(stored, out),
    }
}

fn inflate(stored: &[u8], out: &mut [u8]) -> Result<()> {
    let made = libdeflater::Decompressor::new().deflate_decompress(stored, out);
    match made {
        Ok(made) if made == out.len() => Ok(()),
        Ok(made) => Err(wrong(format!("{made} bytes")).expected(format!("{} bytes", out.len()))),
        Err(error) => Err(wrong("no valid deflate stream".to_owned()).because(error)),
    }
}

/// One frame after the other until `out` is full. Each is decoded at once, so that no window is allocated.
fn zstd_frames(mut stored: &[u8], out: &mut [u8]) -> Result<()> {
    let mut rest = out;
    while !rest.is_empty() {
        let len = zstd::zstd_safe::find_frame_compressed_size(stored).ok().filter(|len| *len > 0);
        let frame = len.and_then(|len| stored.split_at_checked(len));
        let (frame, after) = frame.ok_or_else(|| wrong("no valid zstd frame".to_owned()))?;
        let made = ZSTD.with_borrow_mut(|decoder| match decoder {
            Some(decoder) => decoder.decompress_to_buffer(frame, rest),
            none => none.insert(zstd::bulk::Decompressor::new()?).decompress_to_buffer(frame, rest),
        });
        let made = made.map_err(|error| wrong("no valid zstd frame".to_owned()).because(error))?;
        rest = rest.split_at_mut_checked(made).map(|(_, rest)| rest).unwrap_or_default();
        stored = after;
    }
    Ok(())
}

thread_local! {
    /// A decoder is larger than most clusters: each thread makes one.
    static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

fn wrong(found: String) -> Error {
    Error::corrupt("qcow2.decode", "a compressed cluster does not decode").found(found)
}
