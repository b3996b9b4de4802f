//! What was set up for the old hypervisor and fails or waits on another: shared folders in fstab, modules that are loaded at boot,
//! kudzu.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::FIX;
use crate::error::Result;
use crate::fix::draft::{Draft, Vital};
use crate::fix::runlevel;
use crate::fix::text::edit_lines;
use crate::inspect::Init;
use crate::inspect::fstab::{entry, fields};

/// File systems that the old hypervisor shares with its guests.
const SHARES: &[&str] = &["vmhgfs", "fuse.vmhgfs-fuse", "vboxsf", "prl_fs", "prlfs"];

/// Modules that cannot be loaded without their hypervisor, or only serve it; each `-` is an `_`.
const MODULES: &[&str] = &[
    "hv_balloon",
    "hv_netvsc",
    "hv_sock",
    "hv_storvsc",
    "hv_utils",
    "hv_vmbus",
    "hyperv_fb",
    "hyperv_keyboard",
    "prl_eth",
    "prl_fs",
    "prl_fs_freeze",
    "prl_tg",
    "vboxguest",
    "vboxsf",
    "vboxvideo",
    "vmblock",
    "vmhgfs",
    "vmmemctl",
    "vmsync",
    "vmw_balloon",
    "vmxnet",
    "xen_blkfront",
    "xen_evtchn",
    "xen_gntalloc",
    "xen_gntdev",
    "xen_kbdfront",
    "xen_netfront",
    "xenfs",
];

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    shares(draft)?;
    loaded(draft, "/etc/modules")?;
    let mut own: Vec<String> = Vec::new();
    for name in names(draft, "/etc/modules-load.d")? {
        loaded(draft, &format!("/etc/modules-load.d/{name}"))?;
        own.push(name);
    }
    for dir in ["/usr/lib/modules-load.d", "/lib/modules-load.d"] {
        for name in names(draft, dir)? {
            if !own.contains(&name) {
                packaged(draft, &format!("{dir}/{name}"), &name)?;
                own.push(name);
            }
        }
    }
    if !matches!(draft.facts().init, Init::Systemd(_)) {
        runlevel::off(draft, FIX, "kudzu", "it finds other hardware at the first boot, and asks what to do with it")?;
    }
    Ok(())
}

fn names(draft: &Draft<'_>, dir: &str) -> Result<Vec<String>> {
    let listed = draft.tree().list(dir)?;
    let names = listed.iter().filter_map(|entry| entry.text()).filter(|name| name.ends_with(".conf"));
    Ok(names.map(str::to_owned).collect())
}

/// Shared folders are not mounted at boot any more.
fn shares(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/fstab")? else { return Ok(()) };
    let content = edit_lines(&text, |number, line| {
        let entry = entry(line, number)?;
        if !SHARES.contains(&entry.kind.as_str()) || entry.has_option("noauto") {
            return None;
        }
        let ranges = fields(line);
        let Some(options) = ranges.get(3) else {
            let kind = ranges.get(2)?;
            return Some(format!("{} defaults,noauto{}", line.get(..kind.end)?, line.get(kind.end..)?));
        };
        Some(format!("{},noauto{}", line.get(..options.end)?, line.get(options.end..)?))
    });
    let what = "do not mount folders that the old hypervisor shares";
    draft.edit(FIX, &path, content, what, "no other hypervisor has them, and the boot would stop there", Vital::No)
}

const WHY: &str = "they cannot be loaded without the old hypervisor";

/// A list of modules that the administrator may change.
fn loaded(draft: &mut Draft<'_>, path: &str) -> Result<()> {
    let Some((path, text)) = draft.read(path)? else { return Ok(()) };
    let content = without(&text);
    draft.edit(FIX, &path, content, "do not load modules of the old hypervisor", WHY, Vital::No)
}

/// A list that a package brought: one of the same name in `/etc` stands in its place.
fn packaged(draft: &mut Draft<'_>, path: &str, name: &str) -> Result<()> {
    let Some((path, text)) = draft.read(path)? else { return Ok(()) };
    let content = without(&text);
    if content == text {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&content);
    let what = format!("stand in place of {path}, without modules of the old hypervisor");
    draft.create(FIX, &format!("/etc/modules-load.d/{name}"), &text, &what, WHY)
}

fn without(text: &[u8]) -> Vec<u8> {
    edit_lines(text, |_, line| {
        let name = line.split_ascii_whitespace().next()?.replace('-', "_");
        MODULES.contains(&name.as_str()).then(|| format!("#{line}"))
    })
}
