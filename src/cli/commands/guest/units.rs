//! `guest units`: the units of systemd, and whether they are enabled.

use globset::GlobBuilder;
use serde_json::json;

use super::Inside;
use crate::cli::args::guest::UnitsArgs;
use crate::cli::commands::Context;
use crate::error::{Error, Kind, Result};
use crate::inspect::systemd::{Preset, Unit, Units};

mod clock;

pub(super) fn run(args: &UnitsArgs, context: &Context) -> Result<()> {
    if !args.timespan.is_empty() {
        return clock::spans(args, context);
    }
    if !args.calendar.is_empty() {
        return clock::calendars(args, context);
    }
    let patterns = args.pattern.iter().map(|text| {
        let glob = GlobBuilder::new(text).build();
        glob.map(|glob| glob.compile_matcher()).map_err(|error| {
            Error::new(Kind::Usage, "units.pattern", "this is no pattern of units").found(text).because(error)
        })
    });
    let patterns: Vec<_> = patterns.collect::<Result<_>>()?;
    let inside = Inside::open(&args.inside, context)?;
    let Units { mut units, default_target, notes } = Units::read(&inside.tree)?;
    if units.is_empty() {
        return Err(Error::new(Kind::NotFound, "units.none", "the guest has no units of systemd")
            .hint("hyper2kvm inspect tells what runs as its first process"));
    }
    units.retain(|unit| {
        (patterns.is_empty() || patterns.iter().any(|pattern| pattern.is_match(&unit.name)))
            && (args.state.is_empty() || args.state.iter().any(|state| state == unit.state.name()))
    });
    if context.output.is_json() {
        let json = json!({ "default_target": default_target, "units": units, "notes": notes });
        return context.output.line(&json.to_string());
    }
    super::log::tell(&notes, context);
    context.output.text(&table(&units))
}

fn table(units: &[Unit]) -> String {
    let name = units.iter().map(|unit| unit.name.len()).max().unwrap_or(0).max(9);
    let state = units.iter().map(|unit| unit.state.name().len()).max().unwrap_or(0).max(5);
    let mut text = format!("{:name$} {:state$} PRESET\n", "UNIT FILE", "STATE");
    for unit in units {
        let preset = match unit.preset {
            Some(Preset::Enabled) => "enabled",
            Some(Preset::Disabled) => "disabled",
            Some(Preset::Ignored) => "ignored",
            None => "-",
        };
        text.push_str(&format!("{:name$} {:state$} {preset}\n", unit.name, unit.state.name()));
    }
    text.push_str(&format!("\n{} unit files listed.\n", units.len()));
    text
}
