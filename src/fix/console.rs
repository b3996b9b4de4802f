//! Where the guest talks to people: Xen's consoles become the serial port, and X gets a driver for the graphics card that there is.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::{Draft, Vital};
use super::text::{add_lines, edit_lines};
use crate::error::Result;
use crate::initramfs::modules::{Lists, modules_dir};

const FIX: &str = "console";

/// Xen's consoles. KVM's machines get a serial port.
const XEN: &[&str] = &["hvc0", "xvc0"];
const SERIAL: &str = "ttyS0";
const WHY: &str = "Xen's console is not there on KVM, and a serial port is";

/// The value of `console=` on a kernel's command line as it must be; `None` when it stays.
pub(super) fn option(value: &str) -> Option<String> {
    XEN.contains(&value).then(|| SERIAL.to_owned())
}

pub(super) fn plan(draft: &mut Draft<'_>) -> Result<()> {
    logins_of_systemd(draft)?;
    inittab(draft)?;
    securetty(draft)?;
    for name in XEN {
        let Some((path, text)) = draft.read(&format!("/etc/init/{name}.conf"))? else { continue };
        let content = edit_lines(&text, |_, line| on_serial(line));
        draft.edit(FIX, &path, content, "ask for a login at the serial port", WHY, Vital::No)?;
    }
    display(draft)
}

/// Links that start `serial-getty@hvc0.service`.
fn logins_of_systemd(draft: &mut Draft<'_>) -> Result<()> {
    const DIR: &str = "/etc/systemd/system/getty.target.wants";
    let (link, what) = (format!("{DIR}/serial-getty@{SERIAL}.service"), "ask for a login at the serial port");
    let mut is_there = draft.tree().find_link(&link)?.is_some();
    for name in XEN {
        let old = format!("{DIR}/serial-getty@{name}.service");
        if draft.tree().find_link(&old)?.is_none() {
            continue;
        }
        if is_there {
            draft.remove(FIX, &old, "do not ask for a login there", WHY)?;
        } else {
            draft.rename(FIX, &old, &link, what, WHY)?;
            is_there = true;
        }
    }
    Ok(())
}

/// `inittab`: gettys of Xen's consoles. A second one on the serial port would be in the way of the first.
fn inittab(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/inittab")? else { return Ok(()) };
    let lines = String::from_utf8_lossy(&text).into_owned();
    let is_active = |line: &str| !line.trim_start().starts_with('#');
    let mut is_there = lines.lines().any(|line| is_active(line) && words(line).any(|word| word == SERIAL));
    let content = edit_lines(&text, |_, line| {
        let new = getty(line).filter(|_| is_active(line))?;
        Some(if std::mem::replace(&mut is_there, true) { format!("#{line}") } else { new })
    });
    draft.edit(FIX, &path, content, "ask for a login at the serial port", WHY, Vital::No)
}

/// `securetty`: root may log in at the serial port where it may at Xen's console.
fn securetty(draft: &mut Draft<'_>) -> Result<()> {
    let Some((path, text)) = draft.read("/etc/securetty")? else { return Ok(()) };
    let lines = String::from_utf8_lossy(&text).into_owned();
    let has = |name: &str| lines.lines().any(|line| line.trim() == name);
    if has(SERIAL) || !XEN.iter().any(|name| has(name)) {
        return Ok(());
    }
    draft.edit(FIX, &path, add_lines(&text, [SERIAL]), "let root log in at the serial port", WHY, Vital::No)
}

/// A line of `inittab` with Xen's consoles replaced. System V's init takes no name of a line that has more than four letters, and the
/// name means nothing to it; busybox's, for which there are no run levels, takes it for the console.
fn getty(line: &str) -> Option<String> {
    match line.split_once(':') {
        Some((id, rest)) if !rest.starts_with(':') => Some(format!("{id}:{}", on_serial(rest)?)),
        _ => on_serial(line),
    }
}

/// A line with Xen's consoles replaced; `None` when it has none.
fn on_serial(line: &str) -> Option<String> {
    let found = words(line).find(|word| XEN.contains(word))?;
    Some(line.replace(found, SERIAL))
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_ascii_alphanumeric())
}

/// Drivers of X for graphics cards that KVM's machines do not have.
const CARDS: &[&str] =
    &["amdgpu", "ati", "cirrus", "fglrx", "intel", "nouveau", "nvidia", "radeon", "vboxvideo", "vmware"];

/// Where X's drivers are.
const DRIVERS: &[&str] = &[
    "/usr/lib/xorg/modules/drivers",
    "/usr/lib64/xorg/modules/drivers",
    "/usr/lib/x86_64-linux-gnu/xorg/modules/drivers",
];

/// X's configuration, where it names a driver: without one it would find the card by itself.
fn display(draft: &mut Draft<'_>) -> Result<()> {
    let mut paths = vec!["/etc/X11/xorg.conf".to_owned(), "/etc/X11/xorg.conf-4".to_owned()];
    for entry in draft.tree().list("/etc/X11/xorg.conf.d")? {
        let name = entry.text().filter(|name| name.ends_with(".conf"));
        paths.extend(name.map(|name| format!("/etc/X11/xorg.conf.d/{name}")));
    }
    for path in paths {
        let Some((path, text)) = draft.read(&path)? else { continue };
        if !names_a_card(&text) {
            continue;
        }
        match driver(draft)? {
            Some(driver) => {
                let what = format!("let X drive the graphics card by {driver}");
                let why = "the old hypervisor's card is not there on KVM, and X would not start";
                draft.edit(FIX, &path, with_driver(&text, driver), &what, why, Vital::No)?;
            }
            None => draft.leave(
                &path,
                "X's configuration names a graphics card that is not there on KVM",
                "no driver of the guest's is known to fit the one that is",
            ),
        }
    }
    Ok(())
}

fn names_a_card(text: &[u8]) -> bool {
    with_driver(text, "modesetting") != text
}

/// The text with the driver of each `Device` section replaced that is for another card, and the place on the bus switched off.
fn with_driver(text: &[u8], driver: &str) -> Vec<u8> {
    let lines = String::from_utf8_lossy(text).into_owned();
    let mut foreign: Vec<(usize, usize)> = Vec::new();
    let (mut start, mut is_foreign) = (None, false);
    for (number, line) in (1_usize..).zip(lines.split('\n')) {
        match setting(line) {
            Some((key, value)) if key == "section" => {
                start = value.eq_ignore_ascii_case("device").then_some(number);
                is_foreign = false;
            }
            Some((key, value)) if key == "driver" && start.is_some() => {
                is_foreign |= CARDS.iter().any(|card| value.eq_ignore_ascii_case(card));
            }
            Some((key, _)) if key == "endsection" => {
                foreign.extend(start.take().filter(|_| is_foreign).map(|start| (start, number)));
            }
            _ => {}
        }
    }
    edit_lines(text, |number, line| {
        foreign.iter().find(|(start, end)| (*start..*end).contains(&number))?;
        match setting(line)? {
            (key, value) if key == "driver" => {
                Some(line.replacen(&format!("\"{value}\""), &format!("\"{driver}\""), 1))
            }
            (key, _) if key == "busid" => Some(format!("#{line}")),
            _ => None,
        }
    })
}

/// The key, in lower case, and the first quoted value of a line of xorg.conf(5).
fn setting(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    let (key, rest) = line.split_once(|c: char| c.is_whitespace() || c == '"').unwrap_or((line, ""));
    if key.is_empty() || key.starts_with('#') {
        return None;
    }
    let at = line.find('"').map(|at| at.saturating_add(1));
    let value = at.and_then(|at| line.get(at..)?.split('"').next()).unwrap_or(rest.trim());
    Some((key.to_ascii_lowercase(), value))
}

/// X's driver for the graphics card of the new machine, where the guest has one.
fn driver(draft: &Draft<'_>) -> Result<Option<&'static str>> {
    let has = |name: &str| -> Result<bool> {
        for dir in DRIVERS {
            if draft.tree().is_file(format!("{dir}/{name}_drv.so"))? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if has("modesetting")? && has_kernel_driver(draft)? {
        return Ok(Some("modesetting"));
    }
    // The video BIOS that it calls is not there under UEFI.
    if !draft.machine().uefi && has("vesa")? {
        return Ok(Some("vesa"));
    }
    Ok(if has("fbdev")? { Some("fbdev") } else { None })
}

/// Whether the kernel that is started by default drives QEMU's VGA card.
fn has_kernel_driver(draft: &Draft<'_>) -> Result<bool> {
    let kernels = &draft.facts().kernels;
    let Some(kernel) = kernels.iter().find(|kernel| kernel.default).or(kernels.first()) else { return Ok(false) };
    let dir = match (&kernel.modules, &kernel.release) {
        (Some(dir), _) => Some(dir.clone()),
        (None, Some(release)) => modules_dir(draft.tree(), release)?,
        (None, None) => None,
    };
    let Some(dir) = dir else { return Ok(false) };
    let (lists, builtin) = (Lists::of_guest(draft.tree(), &dir)?, Lists::builtin_of_guest(draft.tree(), &dir)?);
    Ok(["bochs", "bochs_drm"].iter().any(|name| lists.module(name).is_some() || builtin.is_builtin(name)))
}

#[cfg(test)]
mod tests;
