//! The files inside an image by which its programs look for devices: the same edits as in the guest's own.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::super::draft::Draft;
use super::super::names::Names;
use super::super::spec::is_unstable;
use super::super::text::edit_lines;
use super::super::{crypttab, lvm, raid};
use crate::error::Result;
use crate::initramfs::image::{Image, Node};
use crate::inspect::fstab::fields;

/// Files that replace those of an image.
#[derive(Default)]
pub(super) struct Settings {
    /// Path, permissions and content.
    pub(super) files: Vec<(String, u32, Vec<u8>)>,
    /// Symbolic links: path and target.
    pub(super) links: Vec<(String, &'static str)>,
}

impl Settings {
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.links.is_empty()
    }

    pub(super) fn names(&self) -> Vec<&str> {
        let files = self.files.iter().map(|(path, _, _)| path);
        files.chain(self.links.iter().map(|(path, _)| path)).map(String::as_str).collect()
    }
}

/// What must be replaced in `image`.
pub(super) fn of(draft: &Draft<'_>, image: &Image, names: &mut Names<'_>) -> Result<Settings> {
    let mut settings = Settings::default();
    for (path, mode, content) in image.settings() {
        let new = edit(draft, path, content, names);
        if new != content {
            settings.files.push((path.to_owned(), mode, new));
        }
    }
    devices_file(image, &mut settings);
    settings.links = masks(image);
    Ok(settings)
}

fn edit(draft: &Draft<'_>, path: &str, content: &[u8], names: &mut Names<'_>) -> Vec<u8> {
    match path {
        "etc/lvm/lvm.conf" | "etc/lvm/lvmlocal.conf" => lvm::edit(content),
        "etc/mdadm.conf" | "etc/mdadm/mdadm.conf" => raid::edit(content).content,
        "etc/crypttab" | "etc/crypttab.initramfs" | "cryptroot/crypttab" => crypttab::edit(draft.machine(), content).0,
        "etc/fstab" => edit_lines(content, |_, line| {
            let range = fields(line).into_iter().next()?;
            let new = names.value("fstab", line.get(range.clone())?, true)?;
            Some(format!("{}{new}{}", line.get(..range.start)?, line.get(range.end..)?))
        }),
        _ if path.contains("/devexists-") => edit_lines(content, |_, line| quoted(line, names)),
        // Variables of shell scripts: initramfs-tools' and, in `config`, those of SUSE's mkinitrd.
        _ if path.starts_with("conf/") || path.starts_with("config/") => {
            edit_lines(content, |_, line| assignment(line, names))
        }
        _ => edit_lines(content, |_, line| names.options(line, true)),
    }
}

/// `RESUME=/dev/sda5`, `rootdev="/dev/sda1"`; or a line of `cryptroot`, `target=…,source=/dev/sda5`.
fn assignment(line: &str, names: &mut Names<'_>) -> Option<String> {
    if line.starts_with("target=") {
        return names.list(line);
    }
    let (key, value) = line.split_once('=')?;
    let known = match key.trim() {
        "ROOT" | "rootdev" => "root",
        "RESUME" | "resumedev" => "resume",
        "journaldev" | "blockdev" => "device",
        _ => return None,
    };
    let bare = value.trim().trim_matches(['"', '\'']);
    let new = names.value(known, bare, true)?;
    let (before, after) = value.split_once(bare)?;
    Some(format!("{key}={before}{new}{after}"))
}

/// A line of dracut's waiting for a device, `[ -e "/dev/sda2" ]`.
fn quoted(line: &str, names: &Names<'_>) -> Option<String> {
    let (before, rest) = line.split_once('"')?;
    let (device, after) = rest.split_once('"')?;
    Some(format!("{before}\"{}\"{after}", names.path(device)?))
}

/// Devices that dracut's systemd waits for by a name that is gone: their units are masked, so that nothing waits.
fn masks(image: &Image) -> Vec<(String, &'static str)> {
    const DIR: &str = "etc/systemd/system/";
    let wanted = image.nodes().filter_map(|(name, _)| {
        let (wants, unit) = std::str::from_utf8(name).ok()?.strip_prefix(DIR)?.split_once('/')?;
        let device =
            unit.strip_suffix(".device").filter(|_| wants.ends_with(".wants") || wants.ends_with(".requires"))?;
        is_unstable(&device_path(device)).then(|| format!("{DIR}{unit}"))
    });
    let mut units: Vec<String> = wanted.collect();
    units.sort_unstable();
    units.dedup();
    units.retain(|unit| image.node(unit) != Some(&Node::Link(b"/dev/null".to_vec())));
    units.into_iter().map(|unit| (unit, "/dev/null")).collect()
}

/// The device that a unit is for (systemd.unit(5)): `dev-disk-by\x2dpath-x` is `/dev/disk/by-path/x`.
fn device_path(unit: &str) -> String {
    format!("/{}", unit.replace('-', "/").replace("\\x2d", "-").replace("\\x3a", ":"))
}

/// LVM looks at nothing but the devices in its file, if there is one; those are told by what the old machine had.
fn devices_file(image: &Image, settings: &mut Settings) {
    const LOCAL: &str = "etc/lvm/lvmlocal.conf";
    if image.node("etc/lvm/devices/system.devices").is_none() {
        return;
    }
    let known = image.settings().find(|(path, _, _)| *path == LOCAL);
    let content = known.map_or(&[][..], |(_, _, content)| content);
    if let Some(new) = lvm::without_devices_file(content) {
        settings.files.retain(|(path, _, _)| path != LOCAL);
        settings.files.push((LOCAL.to_owned(), 0o644, lvm::edit(&new)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_tell_their_devices() {
        for (unit, path) in [
            ("dev-sda2", "/dev/sda2"),
            ("dev-disk-by\\x2dpath-pci\\x2d0000:03:00.0", "/dev/disk/by-path/pci-0000:03:00.0"),
            ("dev-mapper-vg\\x2droot", "/dev/mapper/vg-root"),
        ] {
            assert_eq!(device_path(unit), path);
        }
    }
}
