//! Unified kernel images as boot entries.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::parse::file_id;
use super::{BootEntry, BootloaderKind};
use crate::error::Result;
use crate::initramfs::unified::Program;
use crate::inspect::Reader;
use crate::inspect::os::{self, bounded};

/// Bytes of a section of text. Command lines have at most 4,096 on any architecture, and os-release has less.
const LONGEST_TEXT: usize = 64 << 10;

/// What the image at `path` boots; `None` when it is none.
pub(super) fn entry(reader: &mut Reader<'_>, path: &str) -> Result<Option<BootEntry>> {
    let Some(mut program) = Program::open(reader.tree, path)?.filter(Program::is_unified) else { return Ok(None) };
    let mut text = |name| program.text(name, LONGEST_TEXT);
    let release = text(".osrel")?.map(|text| os::parse(&text)).unwrap_or_default();
    let options = text(".cmdline")?.unwrap_or_default();
    let version = text(".uname")?.map(|version| bounded(&version)).filter(|version| !version.is_empty());
    Ok(Some(BootEntry {
        kind: BootloaderKind::Uki,
        config: path.to_owned(),
        id: file_id(path),
        title: release.pretty_name,
        kernel: path.to_owned(),
        options,
        version,
        ..BootEntry::default()
    }))
}
