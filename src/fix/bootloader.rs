//! Boot loaders: `root=` and `resume=` on every kernel's command line name what stays, now and after the guest's own tools
//! write the configuration anew. Each file is edited where it lies, whichever firmware it is for; none is made of another.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

mod grub;

use std::collections::BTreeMap;

use super::draft::{Draft, Vital};
use super::names::Names;
use super::text::edit_lines;
use crate::error::Result;
use crate::inspect::bootloader::Keyword;
use crate::inspect::{Bootloader, BootloaderKind};

const WHY: &str = "disks have other names on virtio";

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    for bootloader in &draft.facts().bootloaders {
        match bootloader.kind {
            BootloaderKind::Lilo | BootloaderKind::Zipl => draft.leave(
                &bootloader.config,
                format!("{}'s configuration keeps device names", bootloader.kind.name()),
                "what it boots is in its map, which only the guest's own program can write",
            ),
            BootloaderKind::SystemdBoot | BootloaderKind::Uki => {}
            _ => config(draft, bootloader)?,
        }
    }
    grub::plan(draft)?;
    command_lines(draft)
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
    let mut names = Names::new(draft)?;
    let mut has_initrd = with_initrd.values().all(|has| *has);
    let content = edit_lines(&text, |number, line| {
        let keyword = Keyword::of(bootloader.kind, line);
        if keyword == Keyword::Kernel {
            has_initrd = with_initrd.get(&number).copied().unwrap_or(true);
        }
        let has_options =
            matches!(keyword, Keyword::Kernel | Keyword::Options) || grub::holds_options(bootloader.kind, line);
        if has_options { names.options(line, has_initrd) } else { None }
    });
    names.report(draft, &path);
    draft.edit("bootloader", &path, content, "name the root by UUID on every kernel's command line", WHY, Vital::Yes)
}

/// What a line of a file must start with to hold a command line.
struct Source {
    path: &'static str,
    starts: &'static [&'static str],
}

/// Files of which the guest's tools make command lines for new entries.
const SOURCES: &[Source] = &[
    Source { path: "/etc/kernel/cmdline", starts: &[""] },
    Source { path: "/etc/cmdline", starts: &[""] },
    // extlinux of Debian, u-boot of Debian, extlinux of Alpine.
    Source { path: "/etc/default/extlinux", starts: &["EXTLINUX_PARAMETERS="] },
    Source { path: "/etc/default/u-boot", starts: &["U_BOOT_PARAMETERS=", "U_BOOT_ROOT="] },
    Source { path: "/etc/update-extlinux.conf", starts: &["default_kernel_opts=", "root="] },
    // SUSE.
    Source {
        path: "/etc/sysconfig/bootloader",
        starts: &["DEFAULT_APPEND=", "FAILSAFE_APPEND=", "XEN_KERNEL_APPEND=", "DEFAULT_VGA="],
    },
    Source { path: "/boot/photon.cfg", starts: &["photon_cmdline="] },
    Source { path: "/boot/systemd.cfg", starts: &["systemd_cmdline="] },
    Source { path: "/etc/dracut.conf", starts: &["kernel_cmdline"] },
];

/// Directories of such files.
const SOURCE_DIRS: &[(&str, Source)] = &[
    ("/etc/cmdline.d", Source { path: ".conf", starts: &[""] }),
    ("/etc/kernel/cmdline.d", Source { path: ".conf", starts: &[""] }),
    ("/etc/dracut.conf.d", Source { path: ".conf", starts: &["kernel_cmdline"] }),
    ("/etc/kernel", Source { path: "cmdline-", starts: &[""] }),
];

/// Command lines that the guest's tools put into new entries.
fn command_lines(draft: &mut Draft<'_>) -> Result<()> {
    for source in SOURCES {
        command_line(draft, source.path, source.starts)?;
    }
    for (dir, source) in SOURCE_DIRS {
        for listed in draft.tree().list(dir)? {
            let name = listed.text().filter(|name| name.ends_with(source.path) || name.starts_with(source.path));
            if let Some(name) = name {
                command_line(draft, &format!("{dir}/{name}"), source.starts)?;
            }
        }
    }
    let Some((path, text)) = draft.read("/etc/initramfs-tools/conf.d/resume")? else { return Ok(()) };
    let mut names = Names::new(draft)?;
    let content = edit_lines(&text, |_, line| {
        let value = line.strip_prefix("RESUME=")?;
        Some(format!("RESUME={}", names.value("resume", value.trim(), true)?))
    });
    names.report(draft, &path);
    draft.edit("bootloader", &path, content, "name devices by UUID", WHY, Vital::No)
}

fn command_line(draft: &mut Draft<'_>, path: &str, starts: &[&str]) -> Result<()> {
    let Some((path, text)) = draft.read(path)? else { return Ok(()) };
    let mut names = Names::new(draft)?;
    let content = edit_lines(&text, |_, line| {
        let start = line.trim_start();
        let is_one = !start.starts_with('#') && starts.iter().any(|wanted| start.starts_with(wanted));
        if is_one { names.options(line, true) } else { None }
    });
    names.report(draft, &path);
    draft.edit("bootloader", &path, content, "name devices by UUID", WHY, Vital::No)
}
