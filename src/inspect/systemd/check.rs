//! Looks for what systemd would not take in the files of units: unknown sections and keys, values that cannot be, units that lack
//! what they need, programs that are not there.
//!
//! Certain faults only. Values of most keys, what is inside of command lines, and whether units wait for each other in a circle
//! are not looked at; keys that begin with `X-` are nobody's business.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)]

use super::file::{BAD_HEADER, Problem, list, words};
use super::load::{Graph, Loaded};
use super::tables::LISTENS;
use super::zones::Zones;
use crate::error::Result;
use crate::fs::Tree;

mod keys;
mod values;

use values::Kind;

impl Graph {
    /// What is wrong with a unit.
    pub fn check(&self, unit: &Loaded, tree: &Tree, zones: &Zones<'_>) -> Result<Vec<Problem>> {
        let mut problems: Vec<Problem> = unit
            .odd_lines
            .iter()
            .map(|(path, line, what)| Problem { path: path.clone(), line: Some(*line), what: what.clone() })
            .collect();
        for (path, setting) in &unit.settings {
            if let Some(what) = fault(unit, &setting.section, &setting.key, &setting.value, zones)? {
                problems.push(Problem { path: path.clone(), line: Some(setting.line), what });
            }
        }
        problems.extend(programs(unit, tree)?);
        let is_read = !unit.odd_lines.iter().any(|(_, _, what)| what == BAD_HEADER);
        if unit.path.is_some() && !unit.is_masked && is_read {
            let whole = |what: &str| Problem { path: unit.name.clone(), line: None, what: what.to_owned() };
            problems.extend(lacks(unit).into_iter().map(whole));
        }
        Ok(problems)
    }
}

/// What is wrong with one setting.
fn fault(unit: &Loaded, section: &str, key: &str, value: &str, zones: &Zones<'_>) -> Result<Option<String>> {
    if section.starts_with("X-") || key.starts_with("X-") {
        return Ok(None);
    }
    let own = keys::section(unit.suffix());
    let is_header = key.is_empty();
    let kind = match section {
        _ if is_header => return Ok(unknown_section(unit, section)),
        "Unit" => keys::kind(&[keys::UNIT], key),
        "Install" => keys::kind(&[keys::INSTALL], key),
        section => match own.filter(|(name, _)| *name == section) {
            Some((_, all)) => keys::kind(all, key),
            None => return Ok(None),
        },
    };
    Ok(match kind {
        None => Some(format!("the key {key} is unknown in [{section}]")),
        Some(Kind::Any) if !["Type", "Restart", "NotifyAccess", "KillMode"].contains(&key) => None,
        Some(kind) => values::fault(section, key, value, kind, zones)?.map(|what| format!("{key}={value} {what}")),
    })
}

fn unknown_section(unit: &Loaded, section: &str) -> Option<String> {
    let own = keys::section(unit.suffix()).map(|(name, _)| name);
    let is_known = ["Unit", "Install"].contains(&section) || own == Some(section);
    (!is_known).then(|| format!("the section [{section}] is unknown in a {}", unit.suffix()))
}

const COMMANDS: [&str; 8] = [
    "ExecCondition",
    "ExecStart",
    "ExecStartPre",
    "ExecStartPost",
    "ExecReload",
    "ExecStop",
    "ExecStopPre",
    "ExecStopPost",
];

/// Programs that the guest has not.
fn programs(unit: &Loaded, tree: &Tree) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    // In another root, it is another file.
    let is_elsewhere = ["RootDirectory", "RootImage", "ExtensionImages", "ExtensionDirectories", "MountImages"]
        .iter()
        .any(|key| unit.settings.iter().any(|(_, setting)| setting.key == *key));
    if is_elsewhere || has_failing_condition(unit, tree)? {
        return Ok(problems);
    }
    for (path, setting) in unit.settings.iter().filter(|(_, setting)| COMMANDS.contains(&setting.key.as_str())) {
        let command = setting.value.trim_start_matches(['@', ':', '+', '!', '|']);
        let Some(program) = words(command).into_iter().next() else { continue };
        let Some(program) = unit.expanded(&program).filter(|program| program.starts_with('/')) else { continue };
        if !tree.is_file(&program)? {
            let what = format!("{}: {program} is not there", setting.key);
            problems.push(Problem { path: path.clone(), line: Some(setting.line), what });
        }
    }
    Ok(problems)
}

/// Whether the unit will not start for want of a file.
fn has_failing_condition(unit: &Loaded, tree: &Tree) -> Result<bool> {
    for key in ["ConditionPathExists", "ConditionFileIsExecutable", "ConditionFileNotEmpty", "ConditionPathIsDirectory"]
    {
        for path in unit.list("Unit", key) {
            let path = unit.expanded(path).filter(|path| path.starts_with('/'));
            if let Some(path) = path
                && !tree.exists(&path)?
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What a unit of its kind must have and has not.
fn lacks(unit: &Loaded) -> Vec<&'static str> {
    let has = |section: &str, keys: &[&str]| keys.iter().any(|key| !unit.list(section, key).is_empty());
    let lacks = |is_there: bool, what: &'static str| (!is_there).then_some(what);
    match unit.suffix() {
        "service" => service(unit),
        "socket" => lacks(has("Socket", &LISTENS), "there is no Listen… setting").into_iter().collect(),
        "timer" => {
            let times =
                ["OnCalendar", "OnActiveSec", "OnBootSec", "OnStartupSec", "OnUnitActiveSec", "OnUnitInactiveSec"];
            let on_change =
                unit.is_on("Timer", "OnClockChange", false) || unit.is_on("Timer", "OnTimezoneChange", false);
            lacks(has("Timer", &times) || on_change, "there is no On… setting").into_iter().collect()
        }
        "path" => {
            let paths = ["PathExists", "PathExistsGlob", "PathChanged", "PathModified", "DirectoryNotEmpty"];
            lacks(has("Path", &paths), "there is no path to watch").into_iter().collect()
        }
        "mount" => lacks(unit.value("Mount", "What").is_some(), "there is no What=").into_iter().collect(),
        "swap" => lacks(unit.value("Swap", "What").is_some(), "there is no What=").into_iter().collect(),
        _ => Vec::new(),
    }
}

fn service(unit: &Loaded) -> Vec<&'static str> {
    let commands = |key: &str| list(unit.all("Service", key)).len();
    let starts = commands("ExecStart");
    let by_itself = match (unit.value("Service", "BusName"), starts) {
        (Some(_), _) => "dbus",
        (None, 0) => "oneshot",
        (None, _) => "simple",
    };
    let kind = unit.value("Service", "Type").unwrap_or(by_itself);
    let mut faults = Vec::new();
    if starts == 0 && unit.value("Unit", "SuccessAction").is_none() {
        if commands("ExecStop") == 0 {
            faults.push("there is no ExecStart=, ExecStop= or SuccessAction=");
        } else if kind != "oneshot" {
            faults.push("there is no ExecStart=, which only Type=oneshot can do without");
        } else if !unit.is_on("Service", "RemainAfterExit", false) {
            faults.push("there is no ExecStart=, no SuccessAction= and no RemainAfterExit=yes");
        }
    }
    if starts > 1 && kind != "oneshot" {
        faults.push("there is more than one ExecStart=, which only Type=oneshot can have");
    }
    if kind == "dbus" && unit.value("Service", "BusName").is_none() {
        faults.push("Type=dbus needs BusName=");
    }
    faults
}
