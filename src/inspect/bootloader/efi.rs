//! The programs on EFI system partitions.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use serde::Serialize;

use super::ESPS;
use crate::error::Result;
use crate::fs::FileKind;
use crate::initramfs::unified::Program;
use crate::inspect::Reader;
use crate::limits;

/// A program that firmware can start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EfiProgram {
    /// Its path in the guest.
    pub path: String,
    /// What it is, by its name.
    pub kind: EfiProgramKind,
    /// Whether it carries a signature for Secure Boot.
    pub signed: bool,
}

/// What an EFI program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EfiProgramKind {
    /// `\EFI\BOOT\BOOT<arch>.EFI`, which firmware starts when it knows of nothing else.
    Fallback,
    /// GRUB.
    Grub,
    /// Limine.
    Limine,
    /// The part of shim that enrols keys.
    MokManager,
    /// Anything else.
    Other,
    /// rEFInd.
    Refind,
    /// Shim, which Microsoft signs and which starts what the distribution signs.
    Shim,
    /// systemd-boot.
    SystemdBoot,
    /// Windows' boot manager.
    Windows,
}

impl EfiProgramKind {
    fn of(dir: &str, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let starts = |prefix: &str| name.starts_with(prefix);
        if dir.eq_ignore_ascii_case("BOOT") && starts("boot") {
            Self::Fallback
        } else if starts("shim") {
            Self::Shim
        } else if starts("grub") || starts("core.efi") {
            Self::Grub
        } else if starts("mm") || starts("mokmanager") {
            Self::MokManager
        } else if starts("systemd-boot") {
            Self::SystemdBoot
        } else if starts("bootmgfw") {
            Self::Windows
        } else if starts("refind") {
            Self::Refind
        } else if starts("limine") {
            Self::Limine
        } else {
            Self::Other
        }
    }
}

pub(in crate::inspect) fn programs(reader: &mut Reader<'_>) -> Result<Vec<EfiProgram>> {
    let mut found: Vec<EfiProgram> = Vec::new();
    for esp in ESPS {
        for dir in reader.tree.list(format!("{esp}/EFI"))? {
            let Some(vendor) = dir.text().filter(|name| dir.kind == FileKind::Directory && *name != "Linux") else {
                continue;
            };
            for listed in reader.tree.list(format!("{esp}/EFI/{vendor}"))? {
                let Some(name) = listed.text().filter(|_| listed.kind == FileKind::Regular) else { continue };
                if !name.to_ascii_lowercase().ends_with(".efi") {
                    continue;
                }
                if found.len() >= limits::MAX_EFI_PROGRAMS {
                    let note = format!("only the first {} EFI programs are considered", limits::MAX_EFI_PROGRAMS);
                    reader.notes.push(note);
                    return Ok(found);
                }
                let path = format!("{esp}/EFI/{vendor}/{name}");
                let signed = Program::open(reader.tree, &path)?.is_some_and(|program| program.signed);
                found.push(EfiProgram { kind: EfiProgramKind::of(vendor, name), path, signed });
            }
        }
    }
    Ok(found)
}
