//! Unified kernel images: the command line and the initramfs in them, where nobody has signed them.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::io::Read;

use super::super::draft::{Draft, Vital};
use super::super::names::Names;
use super::super::text::edit_lines;
use super::super::{Change, Left};
use super::segment::{self, Segment};
use super::{Examined, Served, describe, examine, rewrite};
use crate::error::{Error, Kind, Result};
use crate::fs::Tree;
use crate::initramfs::builtin;
use crate::initramfs::image::Image;
use crate::initramfs::unified::{Program, rebuild};
use crate::inspect::Kernel;
use crate::limits;

const CMDLINE: &str = ".cmdline";
const INITRD: &str = ".initrd";

pub(super) fn plan(draft: &mut Draft<'_>, kernel: &Kernel) -> Result<Served> {
    match try_plan(draft, kernel) {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Limit | Kind::Unsupported) => {
            leave(draft, kernel, error.to_string());
            Ok(Served { lacked: true, buses: None })
        }
        other => other.map_err(|error| error.at(&kernel.image)),
    }
}

fn leave(draft: &mut Draft<'_>, kernel: &Kernel, why: String) {
    draft.left(Left {
        path: kernel.image.clone(),
        what: "the unified kernel image keeps its command line and its initramfs".to_owned(),
        why,
        stops_boot: true,
    });
}

fn try_plan(draft: &mut Draft<'_>, kernel: &Kernel) -> Result<Served> {
    let Some(program) = Program::open(draft.tree(), &kernel.image)? else { return Ok(Served::default()) };
    let (signed, has_initrd) = (program.signed, program.count(INITRD) > 0);
    let mut replaced: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut whats = Vec::new();
    if let Some(cmdline) = cmdline(draft, kernel, has_initrd)? {
        replaced.push((CMDLINE, cmdline));
        whats.push("name the root by UUID on its command line".to_owned());
    }
    let mut served = Served::default();
    if has_initrd {
        let old = section(draft.tree(), &kernel.image, INITRD)?;
        let size = u64::try_from(old.len()).unwrap_or(u64::MAX);
        let examined = examine(draft, kernel, size, old.as_slice())?;
        let Examined { image, before, after, lacked, wanted, problem, names, settings } = examined;
        names.report(draft, &kernel.image);
        if let Some(problem) = problem {
            leave(draft, kernel, problem);
        }
        served.lacked = lacked;
        served.buses = Some(if wanted.is_some() && !signed { after } else { before }).filter(|buses| !buses.is_empty());
        if let Some(segment) = wanted {
            whats.push(describe(&segment, &settings));
            replaced.push((INITRD, joined(&old, &image, &segment)?));
        }
    } else if !builtin(draft.tree(), kernel.release.as_deref())?.is_empty() {
        leave(draft, kernel, "it has no initramfs, and its drivers for virtio are not known to be built in".to_owned());
    }
    if replaced.is_empty() {
        return Ok(served);
    }
    let old = draft.tree().read(&kernel.image, limits::MAX_INITRAMFS_REWRITE)?;
    let old = old.ok_or_else(|| Error::corrupt("initramfs.decode", "the unified kernel image cannot be read"))?;
    let change = Change::patch(&old, &rebuild(&old, &replaced)?);
    let why = "without it the kernel finds no root on virtio";
    draft.act("initramfs", &kernel.image, whats.join("; "), why, change, Vital::Yes)?;
    Ok(served)
}

/// The command line with its devices named by what stays; `None` when that changes nothing.
fn cmdline(draft: &mut Draft<'_>, kernel: &Kernel, has_initrd: bool) -> Result<Option<Vec<u8>>> {
    let old = section(draft.tree(), &kernel.image, CMDLINE)?;
    let text = old.strip_suffix(b"\0").unwrap_or(&old);
    let mut names = Names::new(draft)?;
    let new = edit_lines(text, |_, line| names.options(line, has_initrd));
    names.report(draft, &kernel.image);
    Ok((new != text).then_some(new))
}

/// A section's content; nothing when there is no such section.
fn section(tree: &Tree, path: &str, name: &str) -> Result<Vec<u8>> {
    let stream = match Program::open(tree, path)? {
        Some(program) => program.stream(name)?,
        None => None,
    };
    let Some((size, stream)) = stream else { return Ok(Vec::new()) };
    if size > limits::MAX_INITRAMFS_REWRITE {
        return Err(Error::limit("initramfs.size", "a section of the unified kernel image is too large to be changed"));
    }
    let mut content = Vec::new();
    let unread = |error| {
        crate::fs::tree::cause(error, |error| {
            Error::corrupt("initramfs.decode", "a section of the unified kernel image cannot be read").because(error)
        })
    };
    stream.take(size).read_to_end(&mut content).map_err(unread)?;
    Ok(content)
}

/// The initramfs `old` with the segment behind or in it.
fn joined(old: &[u8], image: &Image, segment: &Segment) -> Result<Vec<u8>> {
    match segment::join(image, &segment.archive)? {
        Some(appended) => Ok([old, &appended].concat()),
        None => rewrite::content(old, image, &segment.archive),
    }
}
