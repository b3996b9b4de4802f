//! Services: enabled, disabled and masked by links, as systemctl does it; by links of run levels elsewhere.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{FIX, Services, WHY, absent, bad_value};
use crate::error::{Error, Result};
use crate::fix::draft::Draft;
use crate::fix::runlevel;
use crate::fs::FileKind;
use crate::inspect::Init;
use crate::inspect::network::Ini;
use crate::limits;

const UNITS: &str = "/etc/systemd/system";

/// Where packages and administrators put units, in the order in which systemd prefers them.
const UNIT_DIRS: &[&str] = &[UNITS, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Units that enabling one enables too (`Also=`), at most.
const MAX_ALSO: usize = 32;

pub(super) fn plan(draft: &mut Draft<'_>, services: &Services) -> Result<()> {
    let is_systemd = matches!(draft.facts().init, Init::Systemd(_));
    for name in services.enable.iter().chain(&services.disable).chain(&services.mask) {
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte));
        if name.is_empty() || !is_name || name.starts_with(['.', '-']) || name.len() > 255 {
            return Err(bad_value("name of a service", name));
        }
    }
    if let Some(name) = services.enable.iter().find(|name| services.disable.contains(name)) {
        return Err(bad_value("service that is either enabled or disabled", name));
    }
    if !is_systemd {
        services.disable.iter().try_for_each(|name| off(draft, name))?;
        if let Some(name) = services.mask.first() {
            return Err(absent("only systemd masks services", name));
        }
        return services.enable.iter().try_for_each(|name| by_run_level(draft, name));
    }
    for name in &services.enable {
        let mut pending = vec![full_name(name)];
        let mut seen: Vec<String> = Vec::new();
        while let Some(unit) = pending.pop() {
            if seen.contains(&unit) || seen.len() >= MAX_ALSO {
                continue;
            }
            let also = enable(draft, &unit, seen.is_empty())?;
            pending.extend(also.into_iter().map(|name| full_name(&name)));
            seen.push(unit);
        }
    }
    services.disable.iter().try_for_each(|name| disable(draft, name))?;
    services.mask.iter().try_for_each(|name| mask(draft, &full_name(name)))
}

/// Without systemd, or with a script that systemd makes a unit of.
fn off(draft: &mut Draft<'_>, name: &str) -> Result<()> {
    let script = format!("/etc/init.d/{name}");
    if !draft.has_file(&script)? {
        return Err(absent("the guest has no such script", &script));
    }
    runlevel::off(draft, FIX, name, WHY).map(drop)
}

/// Removes the links that start a unit at boot, and its aliases.
fn disable(draft: &mut Draft<'_>, name: &str) -> Result<()> {
    let unit = full_name(name);
    let template = unit.split_once('@').and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
    let mut is_there = false;
    for dir in UNIT_DIRS {
        for file in [Some(&unit), template.as_ref()].into_iter().flatten() {
            is_there |= draft.tree().find_link(format!("{dir}/{file}"))?.is_some();
        }
    }
    if !is_there {
        return off(draft, name);
    }
    for dir in UNIT_DIRS.iter().skip(1) {
        if let Some(link) = wanting(draft, dir, &unit)?.first() {
            return Err(Error::unsupported(
                "inject.impossible",
                "a service that its package starts cannot be disabled",
            )
            .at(link)
            .found(unit)
            .hint("mask it"));
        }
    }
    let mut links = wanting(draft, UNITS, &unit)?;
    for entry in draft.tree().list(UNITS)?.iter().filter(|entry| entry.kind == FileKind::Symlink) {
        let Some(alias) = entry.text() else { continue };
        let path = format!("{UNITS}/{alias}");
        let target = draft.tree().read_link(&path)?.unwrap_or_default();
        if target.rsplit(|byte| *byte == b'/').next() == Some(unit.as_bytes()) {
            links.push(path);
        }
    }
    links.iter().try_for_each(|link| draft.remove(FIX, link, &format!("disable {unit}"), WHY))
}

/// The links below `dir` by which others want a unit.
fn wanting(draft: &Draft<'_>, dir: &str, unit: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in draft.tree().list(dir)? {
        let is_one = |name: &&str| [".wants", ".requires", ".upholds"].iter().any(|end| name.ends_with(end));
        let Some(name) = entry.text().filter(is_one) else { continue };
        let link = format!("{dir}/{name}/{unit}");
        if draft.tree().find_link(&link)?.is_some() {
            found.push(link);
        }
    }
    Ok(found)
}

/// A service's unit where only its name was given.
fn full_name(name: &str) -> String {
    const KINDS: &[&str] = &["service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice"];
    let is_full = name.rsplit_once('.').is_some_and(|(_, kind)| KINDS.contains(&kind));
    if is_full { name.to_owned() } else { format!("{name}.service") }
}

/// Makes the links of a unit's `[Install]`, and gives what it wants to be enabled too.
fn enable(draft: &mut Draft<'_>, unit: &str, is_asked_for: bool) -> Result<Vec<String>> {
    // An instance `a@b.service` is made from the template `a@.service`.
    let template = unit.split_once('@').and_then(|(name, rest)| Some(format!("{name}@.{}", rest.rsplit_once('.')?.1)));
    let mut found = None;
    for file in [Some(unit), template.as_deref()].into_iter().flatten() {
        for dir in UNIT_DIRS {
            let path = format!("{dir}/{file}");
            if draft.tree().read_link(&path)?.is_some_and(|target| target == b"/dev/null") {
                return Err(Error::unsupported("inject.impossible", "a service that is masked cannot be enabled")
                    .at(path)
                    .found(unit));
            }
            if found.is_none() && draft.has_file(&path)? {
                found = draft.read(&path)?.map(|(_, text)| (path, text));
            }
        }
    }
    let Some((path, text)) = found else {
        return if is_asked_for { Err(absent("the guest has no such unit", unit)) } else { Ok(Vec::new()) };
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let ini = Ini::parse(&text);
    let words = |key: &'static str| -> Vec<String> {
        let words = ini.all("Install", key).flat_map(str::split_ascii_whitespace);
        words.take(limits::MAX_NIC_VALUES).map(str::to_owned).collect()
    };
    let mut links: Vec<String> = Vec::new();
    for (key, end) in [("WantedBy", "wants"), ("RequiredBy", "requires"), ("UpheldBy", "upholds")] {
        links.extend(words(key).iter().map(|target| format!("{UNITS}/{target}.{end}/{unit}")));
    }
    links.extend(words("Alias").iter().map(|alias| format!("{UNITS}/{alias}")));
    if links.is_empty() && is_asked_for && words("Also").is_empty() {
        return Err(absent("the unit says nothing of when it is to be started, so enabling it would do nothing", unit));
    }
    for link in links {
        let is_plain = link.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@/".contains(&byte));
        if !is_plain || link.contains("/../") {
            return Err(bad_value("name of a unit without specifiers", &link));
        }
        draft.link(FIX, &link, &path, &format!("enable {unit}"), WHY)?;
    }
    Ok(words("Also"))
}

fn mask(draft: &mut Draft<'_>, unit: &str) -> Result<()> {
    let path = format!("{UNITS}/{unit}");
    match draft.tree().read_link(&path)? {
        Some(target) if target == b"/dev/null" => Ok(()),
        None if draft.tree().find_link(&path)?.is_none() => {
            draft.link(FIX, &path, "/dev/null", &format!("mask {unit}"), WHY)
        }
        _ => Err(Error::unsupported("inject.impossible", "a unit that the administrator put there cannot be masked")
            .at(&path)
            .found(unit)),
    }
}

/// Without systemd: OpenRC's run level `default`, or the links of System V's run levels.
pub(super) fn by_run_level(draft: &mut Draft<'_>, name: &str) -> Result<()> {
    let script = format!("/etc/init.d/{name}");
    if !draft.has_file(&script)? {
        return Err(absent("the guest has no such script", &script));
    }
    let what = format!("start {name} at boot");
    if draft.tree().is_dir("/etc/runlevels/default")? {
        return draft.link(FIX, &format!("/etc/runlevels/default/{name}"), &script, &what, WHY);
    }
    let (levels, order) = levels(draft, &script)?;
    let mut is_linked = false;
    for level in levels.chars() {
        for dir in ["/etc/rc.d", "/etc/init.d", "/etc"] {
            let dir = format!("{dir}/rc{level}.d");
            // A link may lead from one of these places to another.
            let canonical = draft.tree().find(&dir)?.and_then(|found| found.text().map(str::to_owned));
            let Some(canonical) = canonical else { continue };
            let is_start =
                |link: &str| link.strip_prefix('S').and_then(|rest| rest.get(2..)).is_some_and(|link| link == name);
            let listed = draft.tree().list(&canonical)?;
            let has_one = listed.iter().filter_map(|entry| entry.text()).any(is_start);
            if !has_one {
                draft.link(FIX, &format!("{canonical}/S{order}{name}"), &script, &what, WHY)?;
            }
            is_linked = true;
            break;
        }
    }
    if is_linked { Ok(()) } else { Err(absent("the guest has no folders of run levels", name)) }
}

/// Run levels and place of a script: `# chkconfig: 2345 90 10`, or last in the usual ones.
fn levels(draft: &mut Draft<'_>, script: &str) -> Result<(String, String)> {
    let text = draft.read(script)?.map(|(_, text)| text).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let header = text.lines().find_map(|line| line.trim_start_matches('#').trim().strip_prefix("chkconfig:"));
    let mut words = header.unwrap_or_default().split_ascii_whitespace();
    let is_digits = |word: &&str| !word.is_empty() && word.len() <= 7 && word.bytes().all(|byte| byte.is_ascii_digit());
    let levels = words.next().filter(is_digits).unwrap_or("2345").to_owned();
    let order = words.next().filter(|word| is_digits(word) && word.len() == 2).unwrap_or("99").to_owned();
    Ok((levels, order))
}
