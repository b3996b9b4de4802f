//! A segment for an initramfs, and where the kernel looks for it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet};

use super::super::draft::Draft;
use super::Drivers;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::initramfs::codec::{self, Codec};
use crate::initramfs::cpio;
use crate::initramfs::image::Image;
use crate::initramfs::modules::{Module, plain_path};
use crate::limits;

/// An archive that comes behind what an image has.
pub(super) struct Segment {
    pub(super) archive: Vec<u8>,
    /// The modules in it.
    pub(super) modules: Vec<String>,
}

/// The archive of the modules `added`, of the lists of all modules, and of the changed files.
pub(super) fn build(
    draft: &Draft<'_>,
    image: &Image,
    drivers: Option<&Drivers>,
    added: &[&Module],
    settings: &Settings,
) -> Result<Segment> {
    let mut files: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    if let Some(drivers) = drivers.filter(|_| !added.is_empty()) {
        let (dir, guest_dir) = (&drivers.held.dir, &drivers.guest_dir);
        for module in added {
            files.insert(format!("{dir}/{}", plain_path(&module.path)), (0o644, content(draft, guest_dir, module)?));
        }
        let lists = drivers.guest.union(&drivers.held.lists, &drivers.held.modules, added);
        for (name, content) in lists.files()? {
            files.insert(format!("{dir}/{name}"), (0o644, content));
        }
    }
    files.extend(settings.files.iter().map(|(path, mode, content)| (path.clone(), (*mode, content.clone()))));
    let mut writer = cpio::Writer::default();
    let mut dirs: BTreeSet<String> = BTreeSet::new();
    for path in files.keys().chain(settings.links.iter().map(|(path, _)| path)) {
        for (at, _) in path.match_indices('/') {
            let dir = path.get(..at).unwrap_or_default();
            if image.node(dir).is_none() && dirs.insert(dir.to_owned()) {
                writer.dir(dir)?;
            }
        }
    }
    for (path, (mode, content)) in &files {
        writer.file_with(path, *mode, content)?;
    }
    for (path, target) in &settings.links {
        writer.link(path, target)?;
    }
    Ok(Segment { archive: writer.finish()?, modules: added.iter().map(|module| module.name.clone()).collect() })
}

/// A module of the guest, uncompressed.
fn content(draft: &Draft<'_>, dir: &str, module: &Module) -> Result<Vec<u8>> {
    let from = format!("{dir}/{}", module.path);
    let content = draft.tree().read(&from, limits::MAX_MODULE)?;
    let missing = |what| Error::corrupt("initramfs.module-missing", what).at(&from);
    let content = content.ok_or_else(|| missing("a module that modules.dep names is not there"))?;
    let content = codec::module(&module.path, content).map_err(|error| error.at(&from))?;
    if content.starts_with(b"\x7fELF") { Ok(content) } else { Err(missing("a module is no ELF file")) }
}

/// What to append so that the kernel reads `archive` behind the image; `None` when it would not get there.
pub(super) fn join(image: &Image, archive: &[u8]) -> Result<Option<Vec<u8>>> {
    let end = image.end;
    let aligned = |size: u64| usize::try_from(size.wrapping_neg() % 4).unwrap_or(0);
    match end.codec {
        // No end mark: what follows at once is read as the next frame, and its content continues the first one's.
        Some(Codec::Lz4) if !end.decoded.is_multiple_of(4) => Ok(None),
        Some(Codec::Lz4) if end.padding == 0 => Codec::Lz4.encode(archive).map(Some),
        Some(codec) if codec.can_continue() => {
            let mut appended = vec![0; aligned(end.size)];
            // A plain archive is smaller than one that LZO only stores.
            appended.extend(if codec == Codec::Lzo { archive.to_vec() } else { codec.encode(archive)? });
            Ok(Some(appended))
        }
        Some(_) => Ok(None),
        None => {
            let mut appended = vec![0; aligned(end.size)];
            appended.extend(archive);
            Ok(Some(appended))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initramfs::image;

    fn end(codec: Option<Codec>, size: u64, decoded: u64, padding: u64) -> Image {
        let mut image = Image::default();
        image.end = image::End { start: 0, size, codec, decoded, padding };
        image
    }

    #[test]
    fn a_segment_starts_where_the_kernel_looks_for_it() {
        let raw = join(&end(None, 510, 0, 0), b"070701").unwrap().unwrap();
        assert_eq!(raw, b"\0\x00070701");
        for codec in [Codec::Bzip2, Codec::Gzip, Codec::Xz, Codec::Zstd] {
            let packed = join(&end(Some(codec), 513, 512, 0), b"070701").unwrap().unwrap();
            assert_eq!(Codec::detect(&packed[3..]), Some(codec));
        }
        let lzo = join(&end(Some(Codec::Lzo), 513, 512, 0), b"070701").unwrap().unwrap();
        assert_eq!(lzo, b"\0\0\x00070701");
        // LZ4 has no end mark: nothing may lie between the frames.
        let lz4 = join(&end(Some(Codec::Lz4), 513, 512, 0), b"070701").unwrap().unwrap();
        assert_eq!(Codec::detect(&lz4), Some(Codec::Lz4));
        let padded = join(&end(Some(Codec::Lz4), 513, 512, 8), b"070701").unwrap().unwrap();
        assert_eq!(Codec::detect(&padded[3..]), Some(Codec::Lz4));
        for image in [end(Some(Codec::Lz4), 513, 510, 0), end(Some(Codec::Lzma), 512, 512, 0)] {
            assert_eq!(join(&image, b"").unwrap(), None);
        }
    }
}
