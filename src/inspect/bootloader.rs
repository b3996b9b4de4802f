//! Boot loaders: which there are, which files configure them, what those files boot, and which of it by default.
//!
//! GRUB 2 (`grub.cfg`), GRUB Legacy (`menu.lst`), Boot Loader Specification entries, systemd-boot, unified kernel images,
//! extlinux, LILO, rEFInd, Limine, zipl. Scripts are not run: a line that starts a kernel is taken as it stands.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod default;
mod efi;
mod others;
mod parse;
mod uki;
mod version;

use std::collections::BTreeMap;

use serde::Serialize;

use super::Reader;
use crate::error::Result;
use crate::fs::Tree;
use crate::fs::tree::Found;
use crate::limits;

pub(super) use efi::programs as efi_programs;
pub use efi::{EfiProgram, EfiProgramKind};
pub(crate) use parse::Keyword;

/// A boot loader's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bootloader {
    /// Which boot loader.
    pub kind: BootloaderKind,
    /// The file that configures it; for Boot Loader Specification entries, one of them.
    pub config: String,
    /// What it is told to boot, as written: an index, a title, a pattern.
    pub default: Option<String>,
    /// Variables of GRUB's environment block beside its configuration.
    pub variables: BTreeMap<String, String>,
}

/// A boot loader, or a form of its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum BootloaderKind {
    /// A Boot Loader Specification entry, read by systemd-boot and by Fedora's GRUB.
    Bls,
    /// SYSLINUX and its relatives.
    Extlinux,
    /// GRUB 2.
    #[default]
    Grub2,
    /// GRUB 0.97.
    GrubLegacy,
    /// LILO. What it boots was written to its map when it was installed.
    Lilo,
    /// Limine.
    Limine,
    /// rEFInd. It also finds kernels and boot loaders by itself.
    Refind,
    /// systemd-boot; its entries are Boot Loader Specification entries and unified kernel images.
    SystemdBoot,
    /// A unified kernel image: kernel, command line and initramfs in one EFI program.
    Uki,
    /// zipl of IBM Z. What it boots was written to its map when it was run last.
    Zipl,
}

impl BootloaderKind {
    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bls => "boot loader entry",
            Self::Extlinux => "extlinux",
            Self::Grub2 => "GRUB 2",
            Self::GrubLegacy => "GRUB Legacy",
            Self::Lilo => "LILO",
            Self::Limine => "Limine",
            Self::Refind => "rEFInd",
            Self::SystemdBoot => "systemd-boot",
            Self::Uki => "unified kernel image",
            Self::Zipl => "zipl",
        }
    }
}

/// One kernel that a boot loader can start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BootEntry {
    /// The form of the configuration that it is in.
    pub kind: BootloaderKind,
    /// The file that says so.
    pub config: String,
    /// The line that names the kernel, from 1; 0 for a unified kernel image.
    pub line: usize,
    /// What the boot loader knows it by: GRUB's `--id`, a label, a file name.
    pub id: Option<String>,
    /// The menu title.
    pub title: Option<String>,
    /// The kernel as written.
    pub kernel: String,
    /// Initramfs images as written.
    pub initrds: Vec<String>,
    /// The kernel's command line as written.
    pub options: String,
    /// The kernel's release, where the entry tells.
    pub version: Option<String>,
    /// Whether its boot loader starts it when nobody chooses.
    pub default: bool,
    /// What its files are sorted by in menus.
    #[serde(skip)]
    pub(crate) sort: Sort,
    /// Where it stands in the menu, from the outermost one inwards.
    #[serde(skip)]
    pub(crate) place: Vec<Step>,
}

/// What the Boot Loader Specification sorts entries by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) key: Option<String>,
    pub(crate) machine_id: Option<String>,
}

/// One menu on the way to an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its place in the menu above, from 0.
    pub(crate) index: usize,
    /// Its title.
    pub(crate) title: String,
    /// Its id.
    pub(crate) id: Option<String>,
}

const FIXED: &[(BootloaderKind, &str)] = &[
    (BootloaderKind::Grub2, "/boot/grub/grub.cfg"),
    (BootloaderKind::Grub2, "/boot/grub2/grub.cfg"),
    (BootloaderKind::Grub2, "/boot/grub/custom.cfg"),
    (BootloaderKind::Grub2, "/boot/grub2/custom.cfg"),
    (BootloaderKind::GrubLegacy, "/boot/grub/grub.conf"),
    (BootloaderKind::GrubLegacy, "/boot/grub/menu.lst"),
    (BootloaderKind::Extlinux, "/boot/extlinux/extlinux.conf"),
    (BootloaderKind::Extlinux, "/boot/extlinux.conf"),
    (BootloaderKind::Extlinux, "/boot/syslinux/syslinux.cfg"),
    (BootloaderKind::Lilo, "/etc/lilo.conf"),
    (BootloaderKind::Zipl, "/etc/zipl.conf"),
    (BootloaderKind::Refind, "/boot/refind_linux.conf"),
    (BootloaderKind::Limine, "/limine.conf"),
    (BootloaderKind::Limine, "/limine/limine.conf"),
    (BootloaderKind::Limine, "/boot/limine/limine.conf"),
    (BootloaderKind::Limine, "/limine.cfg"),
    (BootloaderKind::Limine, "/limine/limine.cfg"),
    (BootloaderKind::Limine, "/boot/limine/limine.cfg"),
];

/// Names of configurations beside the program that reads them.
const BESIDE: &[(BootloaderKind, &str)] = &[
    (BootloaderKind::Grub2, "grub.cfg"),
    (BootloaderKind::GrubLegacy, "grub.conf"),
    (BootloaderKind::Refind, "refind.conf"),
    (BootloaderKind::Limine, "limine.conf"),
];

/// Files that are looked at. One that names no kernel counts too.
const MAX_CONFIGS: usize = 2 * limits::MAX_BOOT_ENTRIES;

/// Where EFI system partitions are mounted, and `/boot` for an extended boot loader partition.
pub(crate) const ESPS: &[&str] = &["/boot/efi", "/efi", "/boot"];

pub(super) fn find(reader: &mut Reader<'_>) -> Result<Vec<Bootloader>> {
    let mut found: Vec<Bootloader> = Vec::new();
    let mut add = |tree: &Tree, kind, path: &str| -> Result<()> {
        let Some(config) = tree.find(path)?.and_then(|found| found.text().map(str::to_owned)) else { return Ok(()) };
        if found.len() < MAX_CONFIGS && tree.is_file(&config)? && found.iter().all(|known| known.config != config) {
            found.push(Bootloader { kind, config, ..Bootloader::default() });
        }
        Ok(())
    };
    for (kind, path) in FIXED {
        add(reader.tree, *kind, path)?;
    }
    for esp in ESPS {
        for vendor in reader.tree.list(format!("{esp}/EFI"))? {
            if let Some(name) = vendor.text() {
                for (kind, file) in BESIDE {
                    add(reader.tree, *kind, &format!("{esp}/EFI/{name}/{file}"))?;
                }
            }
        }
        for name in ["limine.conf", "limine.cfg"] {
            add(reader.tree, BootloaderKind::Limine, &format!("{esp}/{name}"))?;
        }
        add(reader.tree, BootloaderKind::SystemdBoot, &format!("{esp}/loader/loader.conf"))?;
        for path in reader.files(&format!("{esp}/EFI/Linux"), ".efi")? {
            add(reader.tree, BootloaderKind::Uki, &path)?;
        }
        for path in reader.files(&format!("{esp}/loader/entries"), ".conf")? {
            add(reader.tree, BootloaderKind::Bls, &path)?;
        }
    }
    Ok(found)
}

/// What the boot loaders boot. Tells each of them what it is told to boot by default.
pub(super) fn entries(reader: &mut Reader<'_>, bootloaders: &mut [Bootloader]) -> Result<Vec<BootEntry>> {
    let mut all = Vec::new();
    let mut menus = Vec::new();
    for bootloader in bootloaders.iter_mut() {
        if bootloader.kind == BootloaderKind::Uki {
            all.extend(uki::entry(reader, &bootloader.config)?);
        } else if let Some(text) = reader.text(&bootloader.config)? {
            if bootloader.kind == BootloaderKind::Grub2 {
                bootloader.variables = environment(reader, &bootloader.config)?;
            }
            bootloader.default = default::wanted(bootloader, &text);
            all.extend(parse::parse(&text, bootloader));
            if bootloader.kind != BootloaderKind::Bls {
                menus.push((bootloader.clone(), default::Menu::of(bootloader, &text)));
            }
        }
        if all.len() > limits::MAX_BOOT_ENTRIES {
            all.truncate(limits::MAX_BOOT_ENTRIES);
            reader.notes.push(format!("only the first {} boot entries are considered", limits::MAX_BOOT_ENTRIES));
            break;
        }
    }
    for (bootloader, menu) in &menus {
        default::mark(reader, bootloader, menu, &mut all)?;
    }
    Ok(all)
}

/// GRUB's environment block in the directory of its configuration, or in `/boot/grub2` as Fedora has it.
fn environment(reader: &mut Reader<'_>, config: &str) -> Result<BTreeMap<String, String>> {
    let dir = config.rsplit_once('/').map_or("", |(dir, _)| dir);
    for path in [format!("{dir}/grubenv"), "/boot/grub2/grubenv".to_owned(), "/boot/grub/grubenv".to_owned()] {
        let Some(text) = reader.text(&path)?.filter(|text| text.starts_with("# GRUB Environment Block\n")) else {
            continue;
        };
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
        return Ok(lines.map(|(key, value)| (key.to_owned(), value.replace("\\\\", "\\"))).collect());
    }
    Ok(BTreeMap::new())
}

/// The file that a boot loader means by `path`: paths are relative to the file system that it boots from, which is `/boot`
/// or the root, and on btrfs may start with a subvolume.
pub(crate) fn locate(tree: &Tree, path: &str) -> Result<Option<Found>> {
    // `(hd0,1)/x` of GRUB, `boot():/x` and `boot:///x` of Limine.
    let path = path.rsplit_once(')').map_or(path, |(_, path)| path.trim_start_matches(':'));
    let path = path.split_once(":///").map_or(path, |(_, path)| path);
    let has_boot = tree.mounts().any(|(at, _)| at == b"/boot");
    let prefixes = if has_boot { ["/boot", "", "/boot/efi", "/efi"] } else { ["", "/boot", "/boot/efi", "/efi"] };
    let mut rest = path.trim_start_matches('/');
    if rest.is_empty() {
        return Ok(None);
    }
    for _ in 0..3 {
        for prefix in prefixes {
            if let Some(found) = tree.find(format!("{prefix}/{rest}"))? {
                return Ok(Some(found));
            }
        }
        match rest.split_once('/') {
            Some((_, after)) => rest = after.trim_start_matches('/'),
            None => break,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
