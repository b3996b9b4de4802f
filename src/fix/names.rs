//! Names of devices in files and on command lines: those that another bus changes become names that stay.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::console;
use super::draft::Draft;
use super::spec::{is_unstable, volume};
use super::text::edit_options;
use crate::error::{Result, escape};
use crate::inspect::{Machine, Volume};

/// Options of a kernel's command line whose value is a device: of the kernel itself, dracut, initramfs-tools, Debian's
/// cryptsetup, mkinitcpio's and mkinitfs's encryption, genkernel, systemd.
const KEYS: &[&str] = &[
    "root",
    "resume",
    "boot",
    "cryptdevice",
    "cryptroot",
    "crypt_root",
    "crypt_swap",
    "mount.usr",
    "real_resume",
    "real_root",
    "rootpartition",
    "swap",
];

/// Options whose value is a list, `KEY=VALUE` with commas between.
const LISTS: &[&str] = &["cryptopts"];

/// How a file system is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `/dev/disk/by-uuid/…`, which programs that know no tags open like any device.
    Path,
    /// `UUID=…`.
    Tag,
}

/// Translates device names, and keeps those that it cannot.
pub(super) struct Names<'a> {
    machine: &'a Machine,
    root: Option<&'a Volume>,
    style: Style,
    /// Names that stay although they do not keep their meaning, with the option that has them.
    unknown: Vec<String>,
}

impl<'a> Names<'a> {
    pub(super) fn new(draft: &Draft<'a>) -> Result<Self> {
        let machine = draft.machine();
        let style = if knows_tags(draft)? { Style::Tag } else { Style::Path };
        Ok(Self { machine, root: machine.volumes.get(draft.root().volume), style, unknown: Vec::new() })
    }

    /// A kernel's command line, or a line that holds one, with its devices translated; `None` when nothing changes.
    pub(super) fn options(&mut self, line: &str, has_initrd: bool) -> Option<String> {
        let plain = KEYS.iter().fold(None, |edited: Option<String>, key| {
            let line = edited.as_deref().unwrap_or(line);
            edit_options(line, &[key], |value| self.value(key, value, has_initrd)).or(edited)
        });
        let listed = LISTS.iter().fold(plain, |edited, key| {
            let line = edited.as_deref().unwrap_or(line);
            edit_options(line, &[key], |value| self.list(value)).or(edited)
        });
        edit_options(listed.as_deref().unwrap_or(line), &["console"], console::option).or(listed)
    }

    /// The same for a line whose first word is `KEY=KEY=VALUE`.
    pub(super) fn assigned_options(&mut self, line: &str) -> Option<String> {
        let (start, rest) = line.split_once('=')?;
        Some(format!("{start}={}", self.options(rest, true)?))
    }

    /// What to write for the value of `key`. Without an initramfs the kernel itself looks for its root, and knows partitions by
    /// `PARTUUID=` only.
    pub(super) fn value(&mut self, key: &str, value: &str, has_initrd: bool) -> Option<String> {
        // `/dev/sda2:name:options`; names by path have colons of their own.
        let has_parts = key.starts_with("crypt") && !value.starts_with("/dev/disk/by-path/");
        let end = value.find(':').filter(|_| has_parts).unwrap_or(value.len());
        let (device, rest) = value.split_at_checked(end)?;
        if !is_unstable(device) {
            return None;
        }
        let named = volume(self.machine, device);
        let volume = if matches!(key, "root" | "real_root" | "rootpartition") { named.or(self.root) } else { named };
        let stable =
            volume.and_then(|volume| if has_initrd { self.name(volume) } else { self.machine.partuuid(volume) });
        if stable.is_none() {
            self.keep(format!("{key}={value}"));
        }
        Some(format!("{}{rest}", stable?))
    }

    /// `target=name,source=/dev/sda5,key=none`.
    pub(super) fn list(&mut self, value: &str) -> Option<String> {
        let mut changed = false;
        let words: Vec<String> = value
            .split(',')
            .map(|word| {
                let new = word.strip_prefix("source=").and_then(|device| self.value("source", device, true));
                changed |= new.is_some();
                new.map_or_else(|| word.to_owned(), |new| format!("source={new}"))
            })
            .collect();
        changed.then(|| words.join(","))
    }

    fn name(&self, volume: &Volume) -> Option<String> {
        let tag = self.machine.stable_spec(volume)?;
        Some(match (self.style, tag.split_once('=')) {
            (Style::Path, Some(("UUID", value))) => format!("/dev/disk/by-uuid/{value}"),
            (Style::Path, Some(("PARTUUID", value))) => format!("/dev/disk/by-partuuid/{value}"),
            _ => tag,
        })
    }

    /// The volume that `device` means, as it is called on any bus.
    pub(super) fn path(&self, device: &str) -> Option<String> {
        let volume = volume(self.machine, device)?;
        Some(match self.machine.stable_spec(volume)?.split_once('=') {
            Some(("UUID", value)) => format!("/dev/disk/by-uuid/{value}"),
            Some((_, value)) => format!("/dev/disk/by-partuuid/{value}"),
            None => volume.mapper.clone()?,
        })
    }

    fn keep(&mut self, what: String) {
        if !self.unknown.contains(&what) {
            self.unknown.push(what);
        }
    }

    /// Lists in the plan what could not be translated in `path`.
    pub(super) fn report(self, draft: &mut Draft<'_>, path: &str) {
        for option in self.unknown {
            draft.leave(
                path,
                format!("{} is not changed", escape(&option)),
                "it names no disk of this machine that has a lasting name",
            );
        }
    }
}

/// The mkinitrd of SUSE before dracut waits for a device by its path.
fn knows_tags(draft: &Draft<'_>) -> Result<bool> {
    let tree = draft.tree();
    let is_old_suse = tree.exists("/etc/SuSE-release")? && tree.exists("/sbin/mkinitrd")?;
    Ok(!is_old_suse || tree.exists("/usr/bin/dracut")? || tree.exists("/sbin/dracut")?)
}
