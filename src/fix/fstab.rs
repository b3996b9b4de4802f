//! fstab: device names that another bus changes become `UUID=`; lines whose disk is not there must not stop the boot.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::{Draft, Vital};
use super::spec::{is_address, is_unstable, volume};
use super::text::edit_lines;
use crate::error::Result;
use crate::inspect::fstab::{Entry, entry, fields};
use crate::inspect::{Machine, Volume};

/// What happens to a line.
enum Line {
    /// It names something else from now on.
    Spec(String),
    /// It stays, and does not stop the boot when the device is missing.
    Optional,
    /// It stays.
    Keep,
}

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/fstab")? else { return Ok(()) };
    let root = draft.machine().volumes.get(draft.root().volume);
    let entries: Vec<Entry> = draft.facts().fstab.clone();
    let mut kept: Vec<(Entry, bool)> = Vec::new();
    let mut renamed = 0_usize;
    let content = edit_lines(&text, |number, line| {
        let entry = entry(line, number)?;
        if !is_unstable(&entry.spec) {
            return None;
        }
        match decide(draft.machine(), root, &entries, &entry) {
            Line::Spec(spec) => {
                renamed = renamed.saturating_add(1);
                replace_field(line, 0, &spec)
            }
            Line::Optional => {
                kept.push((entry, true));
                add_nofail(line)
            }
            Line::Keep => {
                kept.push((entry, false));
                None
            }
        }
    });
    for (entry, made_optional) in kept {
        let what = format!("{} on {} keeps its name", entry.spec, entry.mount_point);
        let why = if made_optional {
            "it names no disk of this machine; nofail is added, so that the boot goes on without it"
        } else {
            "it names no disk of this machine; the line does not stop the boot"
        };
        draft.leave(&path, what, why);
    }
    let what = match renamed {
        0 => "add nofail where the disk is missing".to_owned(),
        count => format!("name {count} file systems by UUID"),
    };
    draft.edit("fstab", &path, content, &what, "disks have other names on virtio", Vital::Yes)
}

fn decide(machine: &Machine, root: Option<&Volume>, entries: &[Entry], entry: &Entry) -> Line {
    let named = volume(machine, &entry.spec)
        .filter(|volume| !is_address(&entry.spec) || is_plausible(machine, volume, entries, entry));
    // The file that is being read lies on `/` itself.
    let known = if entry.mount_point == "/" { named.or(root) } else { named };
    if let Some(spec) = known.and_then(|volume| machine.stable_spec(volume)) {
        return Line::Spec(spec);
    }
    if entry.mount_point == "/" || entry.has_option("nofail") || entry.has_option("noauto") {
        return Line::Keep;
    }
    Line::Optional
}

/// An address is only a hint: the file system must be of the line's kind, and no other line may mean the same volume.
fn is_plausible(machine: &Machine, volume: &Volume, entries: &[Entry], entry: &Entry) -> bool {
    let same_kind = match (volume.fs_kind.as_deref(), entry.kind.as_str()) {
        (Some(found), wanted) => wanted == "auto" || found == wanted,
        (None, _) => false,
    };
    let claims = entries.iter().filter(|other| other.line != entry.line && other.mount_point != entry.mount_point);
    let claimed = claims.filter_map(|other| machine.volumes.get(machine.resolve(&other.spec)?));
    same_kind && !claimed.into_iter().any(|other| std::ptr::eq(other, volume))
}

fn replace_field(line: &str, index: usize, new: &str) -> Option<String> {
    let range = fields(line).get(index)?.clone();
    Some(format!("{}{new}{}", line.get(..range.start)?, line.get(range.end..)?))
}

fn add_nofail(line: &str) -> Option<String> {
    let ranges = fields(line);
    if let Some(options) = ranges.get(3) {
        return replace_field(line, 3, &format!("{},nofail", line.get(options.clone())?));
    }
    let kind = ranges.get(2)?;
    Some(format!("{} defaults,nofail{}", line.get(..kind.end)?, line.get(kind.end..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_replaced_where_they_stand() {
        let line = "  /dev/sda1\t/  ext4 errors=remount-ro 0 1 # x";
        assert_eq!(replace_field(line, 0, "UUID=U").unwrap(), "  UUID=U\t/  ext4 errors=remount-ro 0 1 # x");
        assert_eq!(add_nofail(line).unwrap(), "  /dev/sda1\t/  ext4 errors=remount-ro,nofail 0 1 # x");
        assert_eq!(add_nofail("/dev/sda1 /a xfs").unwrap(), "/dev/sda1 /a xfs defaults,nofail");
        assert_eq!(add_nofail("/dev/sda1 /a"), None);
        assert_eq!(replace_field("# /dev/sda1", 0, "x"), None);
    }
}
