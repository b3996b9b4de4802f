//! The guest's own initramfs tools: their next run must keep what an image was given.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::{Draft, Vital};
use super::text::add_lines;
use crate::error::Result;

const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "virtio_scsi"];
const WHY: &str = "the guest's next initramfs would lack them again";

/// Plans the settings. `lacked` tells whether any image had no virtio drivers.
pub(super) fn plan(draft: &mut Draft<'_>, lacked: bool) -> Result<()> {
    initramfs_tools(draft, lacked)?;
    if lacked && (draft.tree().exists("/usr/bin/dracut")? || draft.tree().exists("/sbin/dracut")?) {
        let content = format!("add_drivers+=\" {} \"\n", MODULES.join(" "));
        draft.create("initramfs", "/etc/dracut.conf.d/hyper2kvm.conf", &content, "keep virtio in new images", WHY)?;
    }
    Ok(())
}

fn initramfs_tools(draft: &mut Draft<'_>, lacked: bool) -> Result<()> {
    let policy = policy(draft)?;
    // MODULES=dep finds out by itself what it runs on; what it found elsewhere does not count.
    if policy.as_deref() != Some("list") && !(policy.as_deref() == Some("dep") && lacked) {
        return Ok(());
    }
    let path = "/etc/initramfs-tools/modules";
    let Some((path, text)) = draft.read(path)? else {
        let content = format!("{}\n", MODULES.join("\n"));
        return draft.create("initramfs", path, &content, "list virtio drivers", WHY);
    };
    let listed = String::from_utf8_lossy(&text);
    let has = |module: &str| {
        listed
            .lines()
            .any(|line| line.split_ascii_whitespace().next().is_some_and(|word| word.replace('-', "_") == module))
    };
    let missing: Vec<&str> = MODULES.iter().copied().filter(|module| !has(module)).collect();
    let content = add_lines(&text, missing.iter().copied());
    let what = format!("list {}", missing.join(", "));
    draft.edit("initramfs", &path, content, &what, WHY, Vital::No)
}

/// The value of `MODULES` that counts: the last one, of the files in the order in which the tool reads them.
fn policy(draft: &mut Draft<'_>) -> Result<Option<String>> {
    let mut paths = vec!["/etc/initramfs-tools/initramfs.conf".to_owned()];
    for entry in draft.tree().list("/etc/initramfs-tools/conf.d")? {
        paths.extend(entry.text().map(|name| format!("/etc/initramfs-tools/conf.d/{name}")));
    }
    let mut policy = None;
    for path in paths {
        let Some((_, text)) = draft.read(&path)? else { continue };
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some(value) = line.trim().strip_prefix("MODULES=") {
                policy = Some(value.trim_matches(['"', '\'']).to_owned());
            }
        }
    }
    Ok(policy)
}
