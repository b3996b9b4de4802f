//! What the guest takes the hardware clock for, and what its command lines say of clocks.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::draft::Draft;
use crate::error::Result;
use crate::inspect::Init;

/// Whether the hardware clock keeps local time: adjtime(5), or what distributions had before they used that.
pub(super) fn is_local(draft: &mut Draft<'_>) -> Result<bool> {
    let adjtime = text(draft, "/etc/adjtime")?;
    match adjtime.lines().nth(2).map(str::trim) {
        Some("LOCAL") => return Ok(true),
        Some("UTC") => return Ok(false),
        // systemd looks nowhere else.
        _ if matches!(draft.facts().init, Init::Systemd(_)) => return Ok(false),
        _ => {}
    }
    const FILES: &[(&str, &str, &[&str])] = &[
        ("/etc/sysconfig/clock", "UTC", &["false", "no", "0"]),
        ("/etc/sysconfig/clock", "HWCLOCK", &["--localtime", "-l"]),
        ("/etc/default/rcS", "UTC", &["no"]),
        ("/etc/conf.d/hwclock", "clock", &["local"]),
        ("/etc/rc.conf", "HARDWARECLOCK", &["localtime"]),
    ];
    for (path, key, local) in FILES {
        let text = text(draft, path)?;
        let values = text.lines().filter_map(|line| line.trim().split_once('=').filter(|(name, _)| name == key));
        let value = values.map(|(_, value)| value.trim().trim_matches(['"', '\''])).next_back();
        if value.is_some_and(|value| local.iter().any(|word| value.eq_ignore_ascii_case(word))) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn text(draft: &mut Draft<'_>, path: &str) -> Result<String> {
    Ok(draft.read(path)?.map(|(_, text)| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default())
}

/// Says what a kernel is told of clocks: advice of other hypervisors' vendors, and in the way of KVM's own.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in &draft.facts().boot_entries {
        for word in entry.options.split_ascii_whitespace() {
            let is_known = match word.split_once('=') {
                Some(("clocksource", source)) => source != "kvm-clock",
                Some(("clock" | "divider", _)) => true,
                None => matches!(word, "notsc" | "no-kvmclock"),
                Some(_) => false,
            };
            if is_known {
                found.push((entry.config.clone(), word.to_owned()));
            }
        }
    }
    for (path, word) in found {
        let why = "the guest works with it, but keeps time better without";
        draft.leave(&path, format!("{word} on the kernel's command line"), why);
    }
}
