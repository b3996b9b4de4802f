//! The guest's own initramfs tools: their next run must keep what an image was given.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::{Draft, Vital};
use super::text::{add_lines, edit_lines};
use crate::error::Result;

const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "virtio_scsi"];
const WHY: &str = "the guest's next initramfs would lack them again";
const WHAT: &str = "keep virtio in new images";

/// Plans the settings. `lacked` tells whether any image had no virtio drivers.
pub(super) fn plan(draft: &mut Draft<'_>, lacked: bool) -> Result<()> {
    initramfs_tools(draft, lacked)?;
    dracut_policy(draft)?;
    if !lacked {
        return Ok(());
    }
    dracut(draft)?;
    mkinitcpio(draft)?;
    mkinitfs(draft)?;
    suse(draft)?;
    make_initrd(draft)?;
    booster(draft)
}

fn dracut(draft: &mut Draft<'_>) -> Result<()> {
    if !draft.tree().exists("/usr/bin/dracut")? && !draft.tree().exists("/sbin/dracut")? {
        return Ok(());
    }
    let content = format!("add_drivers+=\" {} \"\n", MODULES.join(" "));
    draft.create("initramfs", "/etc/dracut.conf.d/hyper2kvm.conf", &content, WHAT, WHY)
}

/// dracut waits for devices by the kind of name that it is told to prefer.
fn dracut_policy(draft: &mut Draft<'_>) -> Result<()> {
    let mut paths = vec!["/etc/dracut.conf".to_owned()];
    for entry in draft.tree().list("/etc/dracut.conf.d")? {
        paths.extend(
            entry.text().filter(|name| name.ends_with(".conf")).map(|name| format!("/etc/dracut.conf.d/{name}")),
        );
    }
    for path in paths {
        let Some((path, text)) = draft.read(&path)? else { continue };
        let content = edit_lines(&text, |_, line| {
            let value = line.trim_start().strip_prefix("persistent_policy=")?.trim_matches(['"', '\'', ' ', '\t']);
            matches!(value, "by-path" | "by-id").then(|| format!("#{line}"))
        });
        let why = "the guest's next initramfs would wait for a disk by its place or serial number";
        draft.edit("initramfs", &path, content, "let dracut name devices by UUID", why, Vital::No)?;
    }
    Ok(())
}

/// `MODULES` of `mkinitcpio.conf`, an array of bash; old files have a string. Where several lines set it, the last one counts.
fn mkinitcpio(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/mkinitcpio.conf")? else { return Ok(()) };
    let listed = String::from_utf8_lossy(&text).into_owned();
    let last = listed.lines().enumerate().filter(|(_, line)| array(line).is_some()).last();
    let content = match last {
        Some((index, _)) => {
            edit_lines(&text, |number, line| if number == index.saturating_add(1) { into_array(line) } else { None })
        }
        None => add_lines(&text, [format!("MODULES=({})", MODULES.join(" ")).as_str()]),
    };
    draft.edit("initramfs", &path, content, WHAT, WHY, Vital::No)
}

/// The words of `MODULES=(a b)` or `MODULES="a b"`, which must end on the same line.
fn array(line: &str) -> Option<Vec<&str>> {
    let rest = line.trim().strip_prefix("MODULES=")?;
    let open = rest.chars().next()?;
    let close = match open {
        '(' => ')',
        '"' | '\'' => open,
        _ => return None,
    };
    let (inside, _) = rest.get(1..)?.split_once(close)?;
    Some(inside.split_ascii_whitespace().collect())
}

fn into_array(line: &str) -> Option<String> {
    let words = array(line)?;
    let missing = missing(&words);
    let end = line.find(')').or_else(|| line.rfind(['"', '\'']))?;
    let (before, after) = line.split_at_checked(end)?;
    let blank = if words.is_empty() || before.ends_with(' ') { "" } else { " " };
    (!missing.is_empty()).then(|| format!("{before}{blank}{}{after}", missing.join(" ")))
}

/// `features` of Alpine's mkinitfs, of which `virtio` is one.
fn mkinitfs(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/mkinitfs/mkinitfs.conf")? else { return Ok(()) };
    let content = edit_lines(&text, |_, line| {
        let inside = line.strip_prefix("features=\"")?.split_once('"')?.0;
        let has = inside.split_ascii_whitespace().any(|word| word == "virtio");
        (!has).then(|| line.replacen(inside, format!("{inside} virtio").trim_start(), 1)).filter(|_| !inside.is_empty())
    });
    draft.edit("initramfs", &path, content, WHAT, WHY, Vital::No)
}

/// `INITRD_MODULES` of SUSE before dracut.
fn suse(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/sysconfig/kernel")? else { return Ok(()) };
    let content = edit_lines(&text, |_, line| {
        let inside = line.strip_prefix("INITRD_MODULES=\"")?.split_once('"')?.0;
        let missing = missing(&inside.split_ascii_whitespace().collect::<Vec<_>>());
        let all = [inside.trim_end(), &missing.join(" ")].join(" ");
        (!missing.is_empty()).then(|| format!("INITRD_MODULES=\"{}\"", all.trim_start()))
    });
    draft.edit("initramfs", &path, content, WHAT, WHY, Vital::No)
}

/// ALT's make-initrd reads makefiles.
fn make_initrd(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/initrd.mk")? else { return Ok(()) };
    let listed = String::from_utf8_lossy(&text).into_owned();
    let added =
        listed.lines().filter_map(|line| line.trim().strip_prefix("MODULES_")?.split_once('=').map(|(_, rest)| rest));
    let words: Vec<&str> = added.flat_map(str::split_ascii_whitespace).collect();
    let missing = missing(&words);
    if missing.is_empty() {
        return Ok(());
    }
    let content = add_lines(&text, [format!("MODULES_ADD += {}", missing.join(" ")).as_str()]);
    draft.edit("initramfs", &path, content, WHAT, WHY, Vital::No)
}

/// booster's settings are YAML: one line is certain, another form is not.
fn booster(draft: &mut Draft<'_>) -> Result<()> {
    if !draft.tree().exists("/usr/bin/booster")? {
        return Ok(());
    }
    let path = "/etc/booster.yaml";
    let Some((path, text)) = draft.read(path)? else {
        return draft.create("initramfs", path, &format!("modules: {}\n", MODULES.join(",")), WHAT, WHY);
    };
    let listed = String::from_utf8_lossy(&text).into_owned();
    let has_modules = listed.lines().any(|line| line.starts_with("modules:"));
    let content = if has_modules {
        edit_lines(&text, |_, line| {
            let words: Vec<&str> = line.strip_prefix("modules:")?.split(',').map(str::trim).collect();
            let missing = missing(&words);
            (!missing.is_empty() && !words.contains(&"")).then(|| format!("{line},{}", missing.join(",")))
        })
    } else {
        add_lines(&text, [format!("modules: {}", MODULES.join(",")).as_str()])
    };
    draft.edit("initramfs", &path, content, WHAT, WHY, Vital::No)
}

/// The modules that are not among `words`.
fn missing(words: &[&str]) -> Vec<&'static str> {
    let has = |module: &str| words.iter().any(|word| word.replace('-', "_") == module);
    MODULES.iter().copied().filter(|module| !has(module)).collect()
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
