//! LVM's configuration: filters that let the disks through under their names on any bus.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use std::ops::Range;

use super::draft::{Draft, Vital};
use super::spec::is_disk_pattern;
use super::text::{add_lines, edit_lines};
use crate::error::Result;

const WHY: &str = "disks have other names on virtio, and LVM does not see those that its filter does not let through";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    for path in ["/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf"] {
        let Some((path, text)) = draft.read(path)? else { continue };
        let content = edit(&text);
        draft.edit("lvm", &path, content, "let the filter see disks under any bus's names", WHY, Vital::Yes)?;
    }
    devices_file(draft)
}

/// With a file of devices LVM looks at nothing else, and tells them by serial numbers and places of the old machine.
fn devices_file(draft: &mut Draft<'_>) -> Result<()> {
    const LOCAL: &str = "/etc/lvm/lvmlocal.conf";
    let Some((_, devices)) = draft.read("/etc/lvm/devices/system.devices")? else { return Ok(()) };
    if !String::from_utf8_lossy(&devices).lines().any(|line| line.contains("PVID=")) {
        return Ok(());
    }
    let (what, why) = ("switch the file of devices off", "it tells disks by what only the old machine had");
    let old = draft.read(LOCAL)?;
    let Some(new) = without_devices_file(old.as_ref().map_or(&[][..], |(_, text)| text)) else { return Ok(()) };
    match old {
        Some((path, _)) => draft.edit("lvm", &path, new, what, why, Vital::Yes),
        None => draft.create("lvm", LOCAL, &String::from_utf8_lossy(&new), what, why),
    }
}

/// `lvmlocal.conf` with the file of devices switched off; `None` when it says so already.
pub(super) fn without_devices_file(text: &[u8]) -> Option<Vec<u8>> {
    let lines = String::from_utf8_lossy(text);
    let is_off = lines.lines().any(|line| line.split_ascii_whitespace().collect::<String>() == "use_devicesfile=0");
    (!is_off).then(|| add_lines(text, ["devices {", "\tuse_devicesfile = 0", "}"]))
}

/// Where in the file a line is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the array of a filter.
    Filter,
    /// In one that is switched off.
    Off,
    /// Elsewhere.
    Outside,
}

/// `lvm.conf` with its filters made to fit any bus: `sda` in a pattern becomes `[hsv]da`. A filter that names disks by what only
/// the old machine had is switched off, since nothing would pass it.
pub(super) fn edit(text: &[u8]) -> Vec<u8> {
    let off = hopeless(text);
    let mut state = State::Outside;
    edit_lines(text, |number, line| {
        let begins = state == State::Outside && is_filter(line);
        if begins {
            state = if off.contains(&number) { State::Off } else { State::Filter };
        }
        let (now, ends) = (state, state != State::Outside && is_end(line, begins));
        if ends {
            state = State::Outside;
        }
        match now {
            State::Outside => None,
            State::Off => (!line.trim().is_empty() && !line.trim_start().starts_with('#')).then(|| format!("#{line}")),
            State::Filter => edit_patterns(line),
        }
    })
}

/// The lines on which filters begin that name disks by what no other machine has.
fn hopeless(text: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut begun = None;
    edit_lines(text, |number, line| {
        let begins = begun.is_none() && is_filter(line);
        if begins {
            begun = Some(number);
        }
        if let Some(start) = begun {
            if strings(line).iter().any(|range| line.get(range.clone()).is_some_and(is_lost)) && !found.contains(&start)
            {
                found.push(start);
            }
            if is_end(line, begins) {
                begun = None;
            }
        }
        None
    });
    found
}

/// Whether a line begins an array of patterns that says which devices there are.
fn is_filter(line: &str) -> bool {
    let key = line.split('=').next().unwrap_or_default().trim();
    line.contains('=') && matches!(key, "filter" | "global_filter" | "devices/filter" | "devices/global_filter")
}

/// Whether an array ends on a line. A single pattern needs no brackets.
fn is_end(line: &str, begins: bool) -> bool {
    let bare = without_strings(line);
    bare.contains(']') || (begins && !bare.contains('['))
}

fn without_strings(line: &str) -> String {
    let mut bare = String::new();
    let mut at = 0;
    for range in strings(line) {
        bare.push_str(line.get(at..range.start).unwrap_or_default());
        at = range.end;
    }
    bare.push_str(line.get(at..).unwrap_or_default());
    bare.split('#').next().unwrap_or_default().to_owned()
}

/// The strings of a line, without their quotes, up to a comment.
fn strings(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut start, mut escaped) = (None, false);
    for (at, c) in line.char_indices() {
        match (start, c) {
            (None, '#') => break,
            (None, '"') => start = Some(at.saturating_add(1)),
            (Some(_), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(from), '"') if !escaped => {
                found.push(from..at);
                start = None;
            }
            _ => {}
        }
        escaped = false;
    }
    found
}

fn edit_patterns(line: &str) -> Option<String> {
    let (mut out, mut at, mut changed) = (String::new(), 0, false);
    for range in strings(line) {
        let Some(new) = on_any_bus(line.get(range.clone())?) else { continue };
        out.push_str(line.get(at..range.start)?);
        out.push_str(&new);
        (at, changed) = (range.end, true);
    }
    out.push_str(line.get(at..)?);
    changed.then_some(out)
}

/// A pattern that names disks by what no other machine has: `a|^/dev/disk/by-path/…|`, `a|/dev/nvme0n1|`.
fn is_lost(pattern: &str) -> bool {
    let Some(rest) = pattern.strip_prefix('a') else { return false };
    let name = rest.get(1..).unwrap_or_default().trim_start_matches('^');
    let places = ["/dev/disk/by-path/", "/dev/disk/by-id/scsi-", "/dev/disk/by-id/wwn-", "/dev/disk/by-id/ata-"];
    places.iter().any(|place| name.starts_with(place))
        || (is_disk_pattern(name) && ["nvme", "mmcblk", "cciss", "ida/", "rd/"].iter().any(|kind| name.contains(kind)))
}

/// A pattern with the kernel's names of disks made to mean those of all buses; `None` when it has none.
fn on_any_bus(pattern: &str) -> Option<String> {
    const ANY: &str = "[hsv]d";
    let (mut out, mut rest, mut changed) = (String::new(), pattern, false);
    while let Some((at, kind)) = next_name(rest, out.chars().last()) {
        let (before, after) = rest.split_at_checked(at)?;
        out.push_str(before);
        out.push_str(ANY);
        rest = after.get(kind.len()..)?;
        changed = true;
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Where a disk's name begins: `sd`, `hd`, `vd` or `xvd` behind a slash, a delimiter or a bracket, and before what names disks.
fn next_name(text: &str, before: Option<char>) -> Option<(usize, &'static str)> {
    let mut last = before;
    for (at, c) in text.char_indices() {
        let starts = last.is_some_and(|last| matches!(last, '/' | '|' | '^' | '(' | '!' | '@' | ','));
        let kind = ["sd", "hd", "vd", "xvd"]
            .into_iter()
            .find(|kind| text.get(at..).is_some_and(|rest| rest.starts_with(kind)));
        if let Some(kind) = kind.filter(|_| starts) {
            let next = text.get(at.saturating_add(kind.len())..)?.chars().next();
            if next.is_none_or(|next| {
                matches!(next, '.' | '[' | '*' | '(' | '|' | '/' | '+' | '?') || next.is_ascii_lowercase()
            }) {
                return Some((at, kind));
            }
        }
        last = Some(c);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_fit_any_bus() {
        for (before, after) in [
            ("filter = [ \"a|^/dev/sda2$|\", \"r|.*|\" ]", "filter = [ \"a|^/dev/[hsv]da2$|\", \"r|.*|\" ]"),
            ("\tglobal_filter=[\"a/sd.*/\",\"r/.*/\"]", "\tglobal_filter=[\"a/[hsv]d.*/\",\"r/.*/\"]"),
            ("filter = \"r|/dev/sdb.*|\"", "filter = \"r|/dev/[hsv]db.*|\""),
            (
                "filter = [\n  \"a|/dev/(sda|xvdb)|\", # \"a|/dev/sdc|\"\n  \"r|.*|\"\n]\n x = \"/dev/sda\"\n",
                "filter = [\n  \"a|/dev/([hsv]da|[hsv]db)|\", # \"a|/dev/sdc|\"\n  \"r|.*|\"\n]\n x = \"/dev/sda\"\n",
            ),
            ("# filter = [ \"a|/dev/sda|\" ]\n", "# filter = [ \"a|/dev/sda|\" ]\n"),
            ("filter = [ \"a|.*/|\" ]\n", "filter = [ \"a|.*/|\" ]\n"),
            (
                "filter = [ \"a|^/dev/disk/by-path/pci-0|\", \"r|.*|\" ]\nx\n",
                "#filter = [ \"a|^/dev/disk/by-path/pci-0|\", \"r|.*|\" ]\nx\n",
            ),
            (
                "filter = [\n\"a|/dev/nvme0n1p2|\",\n\n\"r|.*|\" ]\nx = 1\n",
                "#filter = [\n#\"a|/dev/nvme0n1p2|\",\n\n#\"r|.*|\" ]\nx = 1\n",
            ),
            (
                "filter = [ \"r|/dev/cdrom|\", \"a|/dev/mapper/mpath.*|\" ]",
                "filter = [ \"r|/dev/cdrom|\", \"a|/dev/mapper/mpath.*|\" ]",
            ),
            ("scan = [ \"/dev\" ]\nsysfs_scan = 1\n", "scan = [ \"/dev\" ]\nsysfs_scan = 1\n"),
            ("filter = [ \"a|/dev/disk/by-id/lvm-pv-uuid-x|\" ]", "filter = [ \"a|/dev/disk/by-id/lvm-pv-uuid-x|\" ]"),
        ] {
            let edited = edit(before.as_bytes());
            assert_eq!(String::from_utf8(edited.clone()).unwrap(), after, "{before}");
            assert_eq!(edit(&edited), edited, "again: {before}");
        }
    }

    #[test]
    fn hostile_files_stay() {
        for content in [
            b"filter = [".as_slice(),
            b"filter = \"",
            b"filter = [ \"a|\\",
            b"\xff\0",
            b"filter",
            b"filter = [ \"\" \"a\" ]",
        ] {
            assert_eq!(edit(content), content);
        }
    }
}
