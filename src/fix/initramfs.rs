//! Gives an initramfs the virtio drivers that its kernel needs to find its root on KVM, without running any program of the
//! guest.
//!
//! First the image is read as the kernel reads it. If the drivers are there, or built into the kernel, nothing is touched.
//! Otherwise a segment is appended: the missing modules, uncompressed, and a module index of the union of what the image has
//! and what it gets. Nothing in the image is changed, so cutting the file at its old length undoes it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{Draft, Vital};
use super::{Change, Left};
use crate::error::{Error, Kind, Result, escape};
use crate::initramfs::codec::{self, Codec};
use crate::initramfs::cpio;
use crate::initramfs::image::{self, Image};
use crate::initramfs::modules::{Lists, Module, modules_dir, plain_path};
use crate::initramfs::{Held, TRANSPORTS, look};
use crate::inspect::Kernel;
use crate::limits;

/// Plans the segments for every kernel. Gives whether any image lacked drivers.
pub(super) fn plan(draft: &mut Draft<'_>) -> Result<bool> {
    let mut lacked = false;
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for kernel in draft.facts().kernels.clone() {
        if kernel.unified {
            check_unified(draft, &kernel)?;
        } else if kernel.initramfs.is_empty() {
            check_builtin(draft, &kernel)?;
        }
        for path in &kernel.initramfs {
            if seen.insert(path.clone()) {
                lacked |= plan_image(draft, &kernel, path)?;
            }
        }
    }
    Ok(lacked)
}

/// A kernel without an initramfs must have everything built in.
fn check_builtin(draft: &mut Draft<'_>, kernel: &Kernel) -> Result<()> {
    let lists = match &kernel.modules {
        Some(dir) => Lists::builtin_of_guest(draft.tree(), dir)?,
        None => Lists::default(),
    };
    if TRANSPORTS.iter().any(|name| !lists.is_builtin(name)) {
        draft.left(Left {
            path: kernel.image.clone(),
            what: "the kernel has no initramfs that could be given virtio drivers".to_owned(),
            why: "its drivers for virtio are not known to be built in; without them it finds no root on virtio"
                .to_owned(),
            stops_boot: true,
        });
    }
    Ok(())
}

/// The initramfs inside a unified kernel image cannot be given anything.
fn check_unified(draft: &mut Draft<'_>, kernel: &Kernel) -> Result<()> {
    let contents = look(draft.tree(), &kernel.image, kernel.release.as_deref())?;
    if !contents.can_boot_virtio() {
        let lacks = format!("its initramfs lacks {}", contents.missing.join(", "));
        draft.left(Left {
            path: kernel.image.clone(),
            what: "the initramfs inside the unified kernel image is not given virtio drivers".to_owned(),
            why: contents.problem.unwrap_or(lacks),
            stops_boot: true,
        });
    }
    Ok(())
}

fn plan_image(draft: &mut Draft<'_>, kernel: &Kernel, path: &str) -> Result<bool> {
    let why = match examine(draft, kernel, path) {
        Ok(Verdict::Complete) => return Ok(false),
        Ok(Verdict::Lacks { segment, modules }) => {
            let what = format!("append {} drivers and an index of them: {}", modules.len(), modules.join(" "));
            let why = "without them it finds no disk on virtio";
            let change = Change::Append { size_before: draft.size_of(path)?, content: segment };
            draft.act("initramfs", path, what, why, change, Vital::Yes)?;
            return Ok(true);
        }
        Ok(Verdict::Cannot(why)) => why,
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => error.to_string(),
        Err(error) => return Err(error.at(path)),
    };
    draft.left(Left {
        path: path.to_owned(),
        what: "the initramfs is not given virtio drivers".to_owned(),
        why,
        stops_boot: true,
    });
    Ok(true)
}

enum Verdict {
    /// It has all that it needs, or is no image of a root (microcode).
    Complete,
    /// This is to be appended.
    Lacks { segment: Vec<u8>, modules: Vec<String> },
    /// It lacks drivers, and why it cannot get them.
    Cannot(String),
}

fn examine(draft: &Draft<'_>, kernel: &Kernel, path: &str) -> Result<Verdict> {
    let tree = draft.tree();
    let file =
        tree.open(path)?.ok_or_else(|| Error::new(Kind::NotFound, "guest.not-found", "no such file").at(path))?;
    if file.size() > limits::MAX_INITRAMFS {
        return Ok(Verdict::Cannot(format!("it has {} bytes, more than any real one", file.size())));
    }
    let image = image::read(file)?;
    if image.is_early() {
        return Ok(Verdict::Complete);
    }
    let Some(held) = Held::of(&image, kernel.release.as_deref(), kernel.modules.is_some()) else {
        return Ok(Verdict::Cannot("the release of its kernel is not known".to_owned()));
    };
    let guest_dir = modules_dir(tree, &held.release)?;
    let builtin = match &guest_dir {
        Some(dir) => Lists::builtin_of_guest(tree, dir)?,
        None => Lists::default(),
    };
    let has = |name: &str| held.has(name) || builtin.is_builtin(name);
    let missing: Vec<&str> = TRANSPORTS.iter().copied().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Ok(Verdict::Complete);
    }
    let guest = match &guest_dir {
        Some(dir) => Lists::of_guest(tree, dir)?,
        None => Lists::default(),
    };
    let absent: Vec<&str> = missing.iter().copied().filter(|name| guest.module(name).is_none()).collect();
    let (Some(guest_dir), true) = (&guest_dir, absent.is_empty()) else {
        return Ok(Verdict::Cannot(format!(
            "the kernel {} has no module {}",
            escape(&held.release),
            absent.join(", ")
        )));
    };
    if !image.can_load() {
        return Ok(Verdict::Cannot("it has no program that loads modules by itself".to_owned()));
    }
    let added: Vec<&Module> = guest.closure(missing).into_iter().filter(|module| !has(&module.name)).collect();
    let lists = guest.union(&held.lists, &held.modules, &added);
    let segment = build(draft, &image, &held.dir, guest_dir, &added, &lists)?;
    match join(&image, segment)? {
        Some(segment) => {
            Ok(Verdict::Lacks { segment, modules: added.iter().map(|module| module.name.clone()).collect() })
        }
        None => Ok(Verdict::Cannot("the kernel does not read on behind its last, compressed part".to_owned())),
    }
}

fn build(
    draft: &Draft<'_>,
    image: &Image,
    image_dir: &str,
    guest_dir: &str,
    added: &[&Module],
    lists: &Lists,
) -> Result<Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for module in added {
        let from = format!("{guest_dir}/{}", module.path);
        let content = draft.tree().read(&from, limits::MAX_MODULE)?;
        let content = content.ok_or_else(|| {
            Error::corrupt("initramfs.module-missing", "a module that modules.dep names is not there").at(&from)
        })?;
        let content = codec::module(&module.path, content).map_err(|error| error.at(&from))?;
        if !content.starts_with(b"\x7fELF") {
            return Err(Error::corrupt("initramfs.module-missing", "a module is no ELF file").at(&from));
        }
        files.insert(format!("{image_dir}/{}", plain_path(&module.path)), content);
    }
    for (name, content) in lists.files()? {
        files.insert(format!("{image_dir}/{name}"), content);
    }
    let mut writer = cpio::Writer::default();
    let mut dirs: BTreeSet<String> = BTreeSet::new();
    for path in files.keys() {
        for (at, _) in path.match_indices('/') {
            let dir = path.get(..at).unwrap_or_default();
            if image.node(dir).is_none() && dirs.insert(dir.to_owned()) {
                writer.dir(dir)?;
            }
        }
    }
    for (path, content) in &files {
        writer.file(path, content)?;
    }
    writer.finish()
}

/// What to append so that the kernel reads `segment` behind the image; `None` when it would not get there.
fn join(image: &Image, segment: Vec<u8>) -> Result<Option<Vec<u8>>> {
    let end = image.end;
    let aligned = |size: u64| usize::try_from(size.wrapping_neg() % 4).unwrap_or(0);
    match end.codec {
        // No end mark: what follows at once is read as the next frame, and its content continues the first one's.
        Some(Codec::Lz4) if !end.decoded.is_multiple_of(4) => Ok(None),
        Some(Codec::Lz4) if end.padding == 0 => Codec::Lz4.encode(&segment).map(Some),
        Some(codec) if codec.can_continue() => {
            let mut appended = vec![0; aligned(end.size)];
            appended.extend(codec.encode(&segment)?);
            Ok(Some(appended))
        }
        Some(_) => Ok(None),
        None => {
            let mut appended = vec![0; aligned(end.size)];
            appended.extend(segment);
            Ok(Some(appended))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(codec: Option<Codec>, size: u64, decoded: u64, padding: u64) -> Image {
        let mut image = Image::default();
        image.end = image::End { size, codec, decoded, padding };
        image
    }

    #[test]
    fn a_segment_starts_where_the_kernel_looks_for_it() {
        let raw = join(&end(None, 510, 0, 0), b"070701".to_vec()).unwrap().unwrap();
        assert_eq!(raw, b"\0\x00070701");
        let zstd = join(&end(Some(Codec::Zstd), 513, 512, 0), b"070701".to_vec()).unwrap().unwrap();
        assert_eq!(Codec::detect(&zstd[3..]), Some(Codec::Zstd));
        // LZ4 has no end mark: nothing may lie between the frames.
        let lz4 = join(&end(Some(Codec::Lz4), 513, 512, 0), b"070701".to_vec()).unwrap().unwrap();
        assert_eq!(Codec::detect(&lz4), Some(Codec::Lz4));
        let padded = join(&end(Some(Codec::Lz4), 513, 512, 8), b"070701".to_vec()).unwrap().unwrap();
        assert_eq!(Codec::detect(&padded[3..]), Some(Codec::Lz4));
        for image in [end(Some(Codec::Lz4), 513, 510, 0), end(Some(Codec::Lzma), 512, 512, 0)] {
            assert_eq!(join(&image, Vec::new()).unwrap(), None);
        }
    }
}
