//! crypttab: encrypted devices named by the bus get names that stay.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::{Draft, Vital};
use super::spec::{is_unstable, volume};
use super::text::edit_lines;
use crate::error::{Result, escape};
use crate::inspect::Machine;
use crate::inspect::fstab::fields;

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/crypttab")? else { return Ok(()) };
    let (content, kept) = edit(draft.machine(), &text);
    for device in kept {
        draft.leave(&path, format!("{} keeps its name", escape(&device)), "it names no disk of this machine");
    }
    let why = "disks have other names on virtio";
    draft.edit("crypttab", &path, content, "name encrypted devices by what stays", why, Vital::Yes)
}

/// A crypttab with its devices named by what stays, and the names that could not be changed.
pub(super) fn edit(machine: &Machine, text: &[u8]) -> (Vec<u8>, Vec<String>) {
    let mut kept = Vec::new();
    let content = edit_lines(text, |_, line| {
        let range = fields(line).get(1)?.clone();
        let device = line.get(range.clone())?;
        if !is_unstable(device) {
            return None;
        }
        let Some(new) = stable(machine, line, device) else {
            kept.push(device.to_owned());
            return None;
        };
        Some(format!("{}{new}{}", line.get(..range.start)?, line.get(range.end..)?))
    });
    (content, kept)
}

/// A LUKS volume has a UUID of its own. A device that is encrypted anew at each boot has nothing but its partition's.
fn stable(machine: &Machine, line: &str, device: &str) -> Option<String> {
    let volume = volume(machine, device)?;
    let is_volatile = ["/dev/urandom", "/dev/random"].iter().any(|key| line.contains(key));
    match (&volume.fs_uuid, &volume.partuuid) {
        (Some(uuid), _) if volume.fs_kind.as_deref() == Some("crypto_LUKS") && !is_volatile => {
            Some(format!("UUID={uuid}"))
        }
        (_, Some(partuuid)) => Some(format!("/dev/disk/by-partuuid/{partuuid}")),
        _ => None,
    }
}
