//! The host name, wherever the guest keeps it.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{FIX, WHY, bad_value};
use crate::error::Result;
use crate::fix::draft::{Draft, Put, Vital};
use crate::fix::text::edit_lines;

/// Files with a line that sets it, and the key of that line.
const KEYS: &[(&str, &str)] = &[("/etc/sysconfig/network", "HOSTNAME"), ("/etc/conf.d/hostname", "hostname")];

pub(super) fn plan(draft: &mut Draft<'_>, name: &str) -> Result<()> {
    if !is_host_name(name) {
        return Err(bad_value("host name", name));
    }
    let what = format!("call the host {name}");
    let mut is_set = false;
    for (path, key) in KEYS {
        let Some((path, text)) = draft.read(path)? else { continue };
        let new = edit_lines(&text, |_, line| {
            let (found, _) = line.split_once('=')?;
            (found.trim() == *key).then(|| format!("{key}=\"{name}\""))
        });
        is_set |= new != text || String::from_utf8_lossy(&text).contains(&format!("{key}=\"{name}\""));
        draft.edit(FIX, &path, new, &what, WHY, Vital::No)?;
    }
    let content = format!("{name}\n").into_bytes();
    for path in ["/etc/HOSTNAME", "/etc/hostname"] {
        let is_there = draft.tree().is_file(path)?;
        if is_there || path == "/etc/hostname" && !is_set {
            draft.put(FIX, path, &Put::new(0o644), content.clone(), &what, WHY)?;
            is_set = true;
        }
    }
    hosts(draft, name)
}

/// Debian's line for the host's own name in `/etc/hosts`.
fn hosts(draft: &mut Draft<'_>, name: &str) -> Result<()> {
    let Some(old) = draft.facts().hostname.clone().filter(|old| !old.is_empty() && old != name) else { return Ok(()) };
    let Some((path, text)) = draft.read("/etc/hosts")? else { return Ok(()) };
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let (old_short, new_short) = (short(&old), short(name));
    let new = edit_lines(&text, |_, line| {
        let (address, names) = line.split_once([' ', '\t'])?;
        let (names, comment) = names.split_once('#').map_or((names, None), |(names, rest)| (names, Some(rest)));
        let words: Vec<&str> = names.split_ascii_whitespace().collect();
        if address != "127.0.1.1" || !words.iter().any(|word| *word == old || *word == old_short) {
            return None;
        }
        let blank = line.get(address.len()..)?.chars().next()?;
        let mut renamed: Vec<&str> = Vec::new();
        for word in words {
            let word = if word == old {
                name
            } else if word == old_short {
                &new_short
            } else {
                word
            };
            if !renamed.contains(&word) {
                renamed.push(word);
            }
        }
        let comment = comment.map(|text| format!(" #{text}")).unwrap_or_default();
        Some(format!("{address}{blank}{}{comment}", renamed.join(" ")))
    });
    draft.edit(FIX, &path, new, &format!("call the host {name}"), WHY, Vital::No)
}

/// Labels of letters, digits and inner hyphens with dots between them, 64 bytes at most (hostname(7)).
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 64 && name.split('.').all(is_label)
}
