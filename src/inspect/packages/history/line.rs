//! Logs that have a line for each change.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::{Change, word};

/// `2024-01-02 10:20:30 upgrade NAME:ARCH OLD NEW`; `<none>` is no version.
pub(super) fn dpkg(line: &str) -> Option<Change> {
    let mut words = line.split(' ');
    let time = word(line.get(..19)?)?.replacen(' ', "T", 1);
    let action = match words.nth(2)? {
        "install" => "install",
        "upgrade" => "upgrade",
        "remove" => "remove",
        "purge" => "purge",
        _ => return None,
    };
    let (name, arch) = words.next()?.split_once(':')?;
    let mut version = || words.next().filter(|version| *version != "<none>").and_then(word);
    let (old, new) = (version(), version());
    let (version, from) = if new.is_some() { (new, old) } else { (old, None) };
    Some(Change { time, action, name: word(name)?, arch: word(arch), version, from, automatic: None })
}

/// `[2024-01-02T10:20:30+0000] [ALPM] upgraded NAME (OLD -> NEW)`; before 2015 `[2014-01-02 10:20]`.
pub(super) fn pacman(line: &str) -> Option<Change> {
    let (time, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let rest = rest.strip_prefix("[ALPM] ").unwrap_or(rest);
    let (action, rest) = rest.split_once(' ')?;
    let action = match action {
        "installed" => "install",
        "upgraded" => "upgrade",
        "downgraded" => "downgrade",
        "reinstalled" => "reinstall",
        "removed" => "remove",
        _ => return None,
    };
    let (name, versions) = rest.strip_suffix(')')?.split_once(" (")?;
    let (from, version) = match versions.split_once(" -> ") {
        Some((old, new)) => (word(old), new),
        None => (None, versions),
    };
    let time = word(time)?.replacen(' ', "T", 1);
    Some(Change { time, action, name: word(name)?, arch: None, version: word(version), from, automatic: None })
}

/// `2024-01-02 10:20:30|install|NAME|VERSION-RELEASE|ARCH|…`.
pub(super) fn zypp(line: &str) -> Option<Change> {
    let mut fields = line.split('|');
    let time = word(fields.next()?)?.replacen(' ', "T", 1);
    let action = match fields.next()?.trim() {
        "install" => "install",
        "remove" => "remove",
        _ => return None,
    };
    let mut next = || fields.by_ref().next().and_then(word);
    let (name, version, arch) = (next()?, next(), next());
    // Who asked for it; nobody did where another package needs it.
    let automatic = fields.next().filter(|_| action == "install").map(str::is_empty);
    Some(Change { time, action, name, version, arch, from: None, automatic })
}

/// `2024-01-02T10:20:30+0000 SUBDEBUG Installed: NAME-VERSION-RELEASE.ARCH`.
pub(super) fn dnf(line: &str) -> Option<Change> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let (time, _level) = (word(words.next()?)?, words.next()?);
    rpm(time, words.next()?, words.next()?)
}

/// `Jan 02 10:20:30 Updated: NAME-VERSION-RELEASE.ARCH`.
pub(super) fn yum(line: &str) -> Option<Change> {
    let (time, rest) = line.split_at_checked(15)?;
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    rpm(word(time)?, words.next()?, words.next()?)
}

fn rpm(time: String, action: &str, package: &str) -> Option<Change> {
    let action = match action {
        "Installed:" => "install",
        "Upgrade:" | "Updated:" => "upgrade",
        "Downgrade:" => "downgrade",
        "Reinstall:" => "reinstall",
        "Erase:" | "Erased:" | "Removed:" => "remove",
        _ => return None,
    };
    // yum names what it erased alone, and puts an epoch before the name.
    let mut parts = package.rsplitn(3, '-');
    let (last, version, name) = (parts.next()?, parts.next(), parts.next());
    let (Some(version), Some(name)) = (version, name) else {
        return Some(Change { time, action, name: word(package)?, ..Change::default() });
    };
    let (release, arch) = last.rsplit_once('.').unwrap_or((last, ""));
    let (epoch, name) = match name.split_once(':') {
        Some((epoch, name)) => (format!("{epoch}:"), name),
        None => (String::new(), name),
    };
    let version = word(&format!("{epoch}{version}-{release}"));
    Some(Change { time, action, name: word(name)?, arch: word(arch), version, from: None, automatic: None })
}
