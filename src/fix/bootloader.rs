//! Boot loaders: `root=` and `resume=` on every kernel's command line name what stays, now and after the guest's own tools
//! write the configuration anew.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::collections::BTreeMap;

use super::draft::{Draft, Vital};
use super::spec::{is_unstable, volume};
use super::text::{edit_lines, edit_options};
use crate::error::{Result, escape};
use crate::inspect::bootloader::Keyword;
use crate::inspect::{Bootloader, BootloaderKind, Machine, Volume};

const KEYS: &[&str] = &["root", "resume", "boot"];
const WHY: &str = "disks have other names on virtio";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    for bootloader in &draft.facts().bootloaders {
        match bootloader.kind {
            BootloaderKind::Uki => draft.leave(
                &bootloader.config,
                "the unified kernel image keeps its command line and initramfs",
                "it may be signed; changing it is not supported yet",
            ),
            BootloaderKind::Lilo => draft.leave(
                &bootloader.config,
                "LILO's configuration keeps device names",
                "what it boots is in its map, which only the guest's own lilo can write",
            ),
            BootloaderKind::SystemdBoot => {}
            _ => config(draft, bootloader)?,
        }
    }
    for dir in ["/boot/grub", "/boot/grub2"] {
        grubenv(draft, &format!("{dir}/grubenv"))?;
        device_map(draft, &format!("{dir}/device.map"))?;
    }
    command_lines(draft)?;
    defaults(draft)
}

/// One file of a boot loader.
fn config(draft: &mut Draft<'_>, bootloader: &Bootloader) -> Result<()> {
    let Some((path, text)) = draft.read(&bootloader.config)? else { return Ok(()) };
    let with_initrd: BTreeMap<usize, bool> = draft
        .facts()
        .boot_entries
        .iter()
        .filter(|entry| entry.config == bootloader.config)
        .map(|entry| (entry.line, !entry.initrds.is_empty()))
        .collect();
    let mut names = Names::new(draft);
    let mut has_initrd = true;
    let content = edit_lines(&text, |number, line| {
        let keyword = Keyword::of(bootloader.kind, line);
        if keyword == Keyword::Kernel {
            has_initrd = with_initrd.get(&number).copied().unwrap_or(true);
        }
        let has_options =
            matches!(keyword, Keyword::Kernel | Keyword::Options) || line.trim_start().starts_with("set kernelopts=");
        if has_options { names.edit(line, has_initrd) } else { None }
    });
    let unknown = names.unknown;
    report(draft, &path, unknown);
    draft.edit("bootloader", &path, content, "name the root by UUID on every kernel's command line", WHY, Vital::Yes)
}

/// Command lines that the guest's tools put into new entries.
fn command_lines(draft: &mut Draft<'_>) -> Result<()> {
    for (path, prefix) in [("/etc/kernel/cmdline", ""), ("/etc/initramfs-tools/conf.d/resume", "RESUME=")] {
        let Some((path, text)) = draft.read(path)? else { continue };
        let mut names = Names::new(draft);
        let content = edit_lines(&text, |_, line| match line.strip_prefix(prefix).filter(|_| !prefix.is_empty()) {
            Some(value) => Some(format!("{prefix}{}", names.stable("resume", value.trim(), true)?)),
            None if line.trim_start().starts_with('#') => None,
            None => names.edit(line, true),
        });
        let unknown = names.unknown;
        report(draft, &path, unknown);
        draft.edit("bootloader", &path, content, "name devices by UUID", WHY, Vital::No)?;
    }
    Ok(())
}

/// `/etc/default/grub`: what grub-mkconfig takes over, and the switch that makes it write device names.
fn defaults(draft: &mut Draft<'_>) -> Result<()> {
    let mut paths = vec!["/etc/default/grub".to_owned()];
    for entry in draft.tree().list("/etc/default/grub.d")? {
        paths.extend(
            entry.text().filter(|name| name.ends_with(".cfg")).map(|name| format!("/etc/default/grub.d/{name}")),
        );
    }
    for path in paths {
        let Some((path, text)) = draft.read(&path)? else { continue };
        let mut names = Names::new(draft);
        let content = edit_lines(&text, |_, line| {
            let start = line.trim_start();
            if start.starts_with("GRUB_DISABLE_LINUX_UUID=") {
                let value = start.split_once('=').map(|(_, value)| value.trim_matches(['"', '\'', ' ', '\t']));
                return (value == Some("true")).then(|| format!("#{line}"));
            }
            if start.starts_with("GRUB_CMDLINE_") { names.edit(line, true) } else { None }
        });
        let unknown = names.unknown;
        report(draft, &path, unknown);
        let what = "let grub-mkconfig name the root by UUID";
        draft.edit(
            "bootloader",
            &path,
            content,
            what,
            "the guest's next update-grub would bring back the old name",
            Vital::No,
        )?;
    }
    Ok(())
}

/// GRUB's environment block: exactly 1024 bytes, filled up with `#`.
fn grubenv(draft: &mut Draft<'_>, path: &str) -> Result<()> {
    let Some((path, text)) = draft.read(path)? else { return Ok(()) };
    if text.len() != 1024 || !text.starts_with(b"# GRUB Environment Block\n") {
        return Ok(());
    }
    let mut names = Names::new(draft);
    let mut content =
        edit_lines(&text, |_, line| if line.starts_with("kernelopts=") { names.edit_words(line) } else { None });
    let unknown = names.unknown;
    report(draft, &path, unknown);
    while content.len() > 1024 && content.ends_with(b"#") {
        content.pop();
    }
    if content.len() > 1024 {
        draft.leave(
            &path,
            "the kernel options keep device names",
            "the new ones do not fit into GRUB's environment block",
        );
        return Ok(());
    }
    content.resize(1024, b'#');
    draft.edit("bootloader", &path, content, "name the root by UUID in the kernel options", WHY, Vital::Yes)
}

/// GRUB 2 finds the disks by itself when its map does not name them.
fn device_map(draft: &mut Draft<'_>, path: &str) -> Result<()> {
    let is_grub2 = draft.facts().bootloaders.iter().any(|bootloader| bootloader.kind == BootloaderKind::Grub2);
    let Some((path, text)) = draft.read(path)?.filter(|_| is_grub2) else { return Ok(()) };
    let content = edit_lines(&text, |_, line| {
        let device = line.trim_start().strip_prefix('(')?.split_ascii_whitespace().nth(1)?;
        is_unstable(device).then(|| format!("#{line}"))
    });
    let why = "the disks that it names are not there on virtio, and grub-install would fail";
    draft.edit("bootloader", &path, content, "comment out device names", why, Vital::No)
}

fn report(draft: &mut Draft<'_>, path: &str, unknown: Vec<String>) {
    for option in unknown {
        draft.leave(
            path,
            format!("{} is not changed", escape(&option)),
            "it names no disk of this machine that has a lasting name",
        );
    }
}

/// Translates device names on command lines, and keeps those that it cannot.
struct Names<'a> {
    machine: &'a Machine,
    root: Option<&'a Volume>,
    unknown: Vec<String>,
}

impl<'a> Names<'a> {
    fn new(draft: &Draft<'a>) -> Self {
        let machine = draft.machine();
        Self { machine, root: machine.volumes.get(draft.root().volume), unknown: Vec::new() }
    }

    fn edit(&mut self, line: &str, has_initrd: bool) -> Option<String> {
        KEYS.iter().fold(None, |edited: Option<String>, key| {
            let line = edited.as_deref().unwrap_or(line);
            edit_options(line, &[key], |value| self.stable(key, value, has_initrd)).or(edited)
        })
    }

    /// The same for a line whose first word is `KEY=KEY=VALUE`.
    fn edit_words(&mut self, line: &str) -> Option<String> {
        let (start, rest) = line.split_once('=')?;
        Some(format!("{start}={}", self.edit(rest, true)?))
    }

    /// What to write for a device name. Without an initramfs the kernel itself looks for its root, and knows partitions by
    /// `PARTUUID=` only.
    fn stable(&mut self, key: &str, value: &str, has_initrd: bool) -> Option<String> {
        if !is_unstable(value) {
            return None;
        }
        let named = volume(self.machine, value);
        let volume = if key == "root" { named.or(self.root) } else { named };
        let stable = volume.and_then(|volume| {
            let partuuid = volume.partuuid.as_ref().map(|partuuid| format!("PARTUUID={partuuid}"));
            if has_initrd { volume.stable_spec() } else { partuuid }
        });
        if stable.is_none() {
            self.unknown.push(format!("{key}={value}"));
        }
        stable
    }
}
