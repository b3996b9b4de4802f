//! What the values of keys are, as far as it is certain.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use crate::error::Result;
use crate::inspect::systemd::calendar::Calendar;
use crate::inspect::systemd::file::boolean;
use crate::inspect::systemd::names::shape;
use crate::inspect::systemd::time;
use crate::inspect::systemd::zones::Zones;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not looked at.
    Any,
    Bool,
    Calendar,
    Octal,
    Span,
    Units,
}

/// Values of which there are only some.
const CHOICES: [(&str, &str, &[&str]); 4] = [
    ("Service", "Type", &["simple", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle", "exec"]),
    ("Service", "Restart", &["no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always"]),
    ("Service", "NotifyAccess", &["none", "main", "exec", "all"]),
    ("", "KillMode", &["control-group", "process", "mixed", "none"]),
];

/// What is wrong with a value, if anything certainly is. What holds a specifier is not looked at.
pub(super) fn fault(section: &str, key: &str, value: &str, kind: Kind, zones: &Zones<'_>) -> Result<Option<String>> {
    if value.is_empty() || value.contains('%') {
        return Ok(None);
    }
    let choices = CHOICES.iter().find(|(of, name, _)| *name == key && (of.is_empty() || *of == section));
    if let Some((_, _, choices)) = choices {
        let is_fine = choices.contains(&value);
        return Ok((!is_fine).then(|| format!("is none of {}", choices.join(", "))));
    }
    Ok(match kind {
        Kind::Any => None,
        Kind::Bool => boolean(value).is_none().then(|| "is neither yes nor no".to_owned()),
        Kind::Calendar => match Calendar::parse(value, zones) {
            Ok(_) => None,
            Err(error) if error.code() == "units.calendar" => Some("is no calendar expression".to_owned()),
            Err(error) => return Err(error),
        },
        Kind::Octal => {
            let is_fine = u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777);
            (!is_fine).then(|| "is no mode in octal".to_owned())
        }
        Kind::Span => time::span(value).is_none().then(|| "is no span of time".to_owned()),
        Kind::Units => {
            let odd = value.split_whitespace().find(|word| shape(word).is_none());
            odd.map(|word| format!("names {word}, which is no unit"))
        }
    })
}
