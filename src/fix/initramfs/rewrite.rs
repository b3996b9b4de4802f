//! The last part of an image, packed anew with more in it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::Read;

use super::super::Change;
use super::super::draft::Draft;
use crate::error::{Error, Result};
use crate::initramfs::codec::Codec;
use crate::initramfs::image::Image;
use crate::limits;

/// The change that packs the last part of the image at `path` with `archive` behind what it has. The file keeps its length where that
/// is enough, and what is left over is zero; not so for LZ4 and LZMA, whose end kernels do not find for certain if something follows.
///
/// # Errors
/// What [`content`] gives.
pub(super) fn plan(draft: &Draft<'_>, path: &str, image: &Image, archive: &[u8]) -> Result<Change> {
    if draft.size_of(path)? > limits::MAX_INITRAMFS_REWRITE {
        return Err(too_large());
    }
    let old = draft.tree().read(path, limits::MAX_INITRAMFS_REWRITE)?.ok_or_else(unread)?;
    let mut new = content(&old, image, archive)?;
    if new.len() < old.len() && !matches!(image.end.codec, Some(Codec::Lz4 | Codec::Lzma)) {
        new.resize(old.len(), 0);
    }
    Ok(Change::patch(&old, &new))
}

/// The image whose bytes are `old` with its last part packed anew, in the same compression, and `archive` in it.
///
/// # Errors
/// `initramfs.size` for an image that is larger than [`limits::MAX_INITRAMFS_REWRITE`], packed or not; what decoding it gives.
pub(super) fn content(old: &[u8], image: &Image, archive: &[u8]) -> Result<Vec<u8>> {
    let most = limits::MAX_INITRAMFS_REWRITE;
    if image.end.decoded > most {
        return Err(too_large());
    }
    let start = usize::try_from(image.end.start).map_err(|_| unread())?;
    let (Some(codec), Some((before, packed))) = (image.end.codec, old.split_at_checked(start)) else {
        return Err(unread());
    };
    let mut content = Vec::new();
    codec.decoder(packed)?.take(most).read_to_end(&mut content).map_err(|error| unread().because(error))?;
    content.resize(content.len().next_multiple_of(4), 0);
    content.extend(archive);
    let mut new = before.to_vec();
    new.extend(codec.encode_small(&content)?);
    Ok(new)
}

fn too_large() -> Error {
    Error::limit("initramfs.size", "the initramfs is too large to be packed anew")
        .expected(limits::MAX_INITRAMFS_REWRITE)
}

fn unread() -> Error {
    Error::corrupt("initramfs.decode", "the initramfs cannot be packed anew")
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "limits are far from the ends of their types")]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_packed_anew_as_the_limit() {
        let most = limits::MAX_INITRAMFS_REWRITE;
        let code = |decoded: u64| {
            let mut image = Image::default();
            image.end.decoded = decoded;
            content(&[], &image, &[]).unwrap_err().code()
        };
        // What is not too large has no compression here.
        assert_eq!((code(most - 1), code(most)), ("initramfs.decode", "initramfs.decode"));
        assert_eq!(code(most + 1), "initramfs.size");
    }
}
