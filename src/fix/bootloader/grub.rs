//! GRUB beside its menus: the environment block, the map of disks, what update-grub and grub-mkconfig take over.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::super::draft::{Draft, Vital};
use super::super::names::Names;
use super::super::spec::is_unstable;
use super::super::text::edit_lines;
use crate::error::Result;
use crate::inspect::BootloaderKind;

/// Bytes of an environment block.
const BLOCK: usize = 1024;

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let mut dirs = vec!["/boot/grub".to_owned(), "/boot/grub2".to_owned()];
    for bootloader in &draft.facts().bootloaders {
        let dir = bootloader.config.rsplit_once('/').map_or("", |(dir, _)| dir);
        if bootloader.kind == BootloaderKind::Grub2 && !dirs.iter().any(|known| known == dir) {
            dirs.push(dir.to_owned());
        }
    }
    for dir in dirs {
        environment(draft, &format!("{dir}/grubenv"))?;
        device_map(draft, &format!("{dir}/device.map"))?;
    }
    defaults(draft)
}

/// Whether a line that starts no kernel holds a command line all the same: a variable of GRUB 2, and in GRUB Legacy the comment
/// in which Debian's update-grub keeps what it writes into new entries.
pub(super) fn holds_options(kind: BootloaderKind, line: &str) -> bool {
    let line = line.trim_start();
    match kind {
        BootloaderKind::Grub2 => ["set kernelopts=", "set rootpartition=", "set default_kernelopts="]
            .iter()
            .any(|start| line.starts_with(start)),
        BootloaderKind::GrubLegacy => {
            line.starts_with("# kopt=") || line.starts_with("# kopt_") || line.starts_with("# defoptions=")
        }
        _ => false,
    }
}

/// `/etc/default/grub`: what grub-mkconfig takes over, and the switches that make it write device names.
fn defaults(draft: &mut Draft<'_>) -> Result<()> {
    let mut paths = vec!["/etc/default/grub".to_owned()];
    for entry in draft.tree().list("/etc/default/grub.d")? {
        paths.extend(
            entry.text().filter(|name| name.ends_with(".cfg")).map(|name| format!("/etc/default/grub.d/{name}")),
        );
    }
    for path in paths {
        let Some((path, text)) = draft.read(&path)? else { continue };
        let mut names = Names::new(draft)?;
        let content = edit_lines(&text, |_, line| {
            let start = line.trim_start();
            if start.starts_with("GRUB_DISABLE_LINUX_UUID=") {
                let value = start.split_once('=').map(|(_, value)| value.trim_matches(['"', '\'', ' ', '\t']));
                return (value == Some("true")).then(|| format!("#{line}"));
            }
            if start.starts_with("GRUB_CMDLINE_") { names.options(line, true) } else { None }
        });
        names.report(draft, &path);
        let what = "let grub-mkconfig name the root by UUID";
        let why = "the guest's next update-grub would bring back the old name";
        draft.edit("bootloader", &path, content, what, why, Vital::No)?;
    }
    Ok(())
}

/// GRUB's environment block: exactly 1024 bytes, filled up with `#`.
fn environment(draft: &mut Draft<'_>, path: &str) -> Result<()> {
    let Some((path, text)) = draft.read(path)? else { return Ok(()) };
    if text.len() != BLOCK || !text.starts_with(b"# GRUB Environment Block\n") {
        return Ok(());
    }
    let mut names = Names::new(draft)?;
    let content = edit_lines(&text, |_, line| {
        let (name, _) = line.split_once('=')?;
        let has_options = matches!(name, "kernelopts" | "tuned_params" | "rootpartition");
        if name == "rootpartition" {
            names.options(line, true)
        } else {
            names.assigned_options(line).filter(|_| has_options)
        }
    });
    names.report(draft, &path);
    let Some(content) = filled(content) else {
        draft.leave(
            &path,
            "the kernel options keep device names",
            "the new ones do not fit into GRUB's environment block",
        );
        return Ok(());
    };
    draft.edit("bootloader", &path, content, "name the root by UUID in the kernel options", WHY, Vital::Yes)
}

/// An environment block of the right length; `None` when its variables do not fit.
fn filled(mut block: Vec<u8>) -> Option<Vec<u8>> {
    while block.len() > BLOCK && block.ends_with(b"#") {
        block.pop();
    }
    if block.len() > BLOCK {
        return None;
    }
    block.resize(BLOCK, b'#');
    Some(block)
}

/// GRUB 2 finds the disks by itself when its map does not name them. GRUB Legacy needs its map only to be installed anew.
fn device_map(draft: &mut Draft<'_>, path: &str) -> Result<()> {
    let is_grub2 = draft.facts().bootloaders.iter().any(|bootloader| bootloader.kind == BootloaderKind::Grub2);
    let Some((path, text)) = draft.read(path)? else { return Ok(()) };
    let mut named = false;
    let content = edit_lines(&text, |_, line| {
        let device = line.trim_start().strip_prefix('(')?.split_ascii_whitespace().nth(1)?;
        named |= is_unstable(device);
        (is_grub2 && is_unstable(device)).then(|| format!("#{line}"))
    });
    if named && !is_grub2 {
        let why =
            "only grub-install reads it; the disks are called /dev/vda and so on if they are attached to virtio-blk";
        draft.leave(&path, "the map of GRUB Legacy's disks keeps their names", why);
    }
    let why = "the disks that it names are not there on virtio, and grub-install would fail";
    draft.edit("bootloader", &path, content, "comment out device names", why, Vital::No)
}

const WHY: &str = "disks have other names on virtio";
