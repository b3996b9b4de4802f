//! `guest units`: the units of systemd, whether they are enabled, and what they say.

use std::process::ExitCode;

use globset::{GlobBuilder, GlobMatcher};
use serde_json::json;

use super::Inside;
use crate::cli::args::guest::UnitsArgs;
use crate::cli::commands::Context;
use crate::error::{Error, Kind, Result, escape};
use crate::inspect::systemd::{Preset, Scope, Unit, Units};

mod clock;
mod files;
mod tables;

pub(super) fn run(args: &UnitsArgs, context: &Context) -> Result<ExitCode> {
    let patterns = Patterns::parse(&args.pattern)?;
    if args.check {
        return files::check(args, &patterns, context);
    }
    if !args.timespan.is_empty() {
        clock::spans(args, context)
    } else if !args.calendar.is_empty() {
        clock::calendars(args, context)
    } else if args.cat {
        files::cat(args, &patterns, context)
    } else if args.dependencies {
        files::dependencies(args, &patterns, context)
    } else if args.timers {
        tables::timers(args, &patterns, context)
    } else if args.sockets {
        tables::sockets(args, &patterns, context)
    } else if args.mounts {
        tables::mounts(args, &patterns, context)
    } else {
        list(args, &patterns, context)
    }
    .map(|()| ExitCode::SUCCESS)
}

fn list(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let Units { mut units, default_target, notes } = Units::read_scope(&inside.tree, scope(args))?;
    if units.is_empty() {
        return Err(none());
    }
    units.retain(|unit| {
        patterns.fit(&unit.name) && (args.state.is_empty() || args.state.iter().any(|state| state == unit.state.name()))
    });
    if context.output.is_json() {
        let json = json!({ "default_target": default_target, "units": units, "notes": notes });
        return context.output.json(&json);
    }
    super::log::tell(&notes, context);
    context.output.text(&table(&units))
}

const fn scope(args: &UnitsArgs) -> Scope {
    if args.user { Scope::User } else { Scope::System }
}

fn none() -> Error {
    Error::new(Kind::NotFound, "units.none", "the guest has no units of systemd")
        .hint("hyper2kvm inspect tells what runs as its first process")
}

/// Which units are asked for: all, when none are named.
struct Patterns(Vec<(GlobMatcher, bool)>);

impl Patterns {
    fn parse(texts: &[String]) -> Result<Self> {
        let patterns = texts.iter().map(|text| {
            let glob = GlobBuilder::new(text).build();
            glob.map(|glob| (glob.compile_matcher(), text.ends_with(".service"))).map_err(|error| {
                Error::new(Kind::Usage, "units.pattern", "this is no pattern of units").found(text).because(error)
            })
        });
        patterns.collect::<Result<_>>().map(Self)
    }

    /// A service may be named without its suffix.
    fn fit(&self, name: &str) -> bool {
        let short = name.strip_suffix(".service");
        let fits = |(pattern, has_suffix): &(GlobMatcher, bool)| {
            pattern.is_match(name) || (!has_suffix && short.is_some_and(|short| pattern.is_match(short)))
        };
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

fn table(units: &[Unit]) -> String {
    let names: Vec<String> = units.iter().map(|unit| escape(&unit.name)).collect();
    let name = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(9);
    let state = units.iter().map(|unit| unit.state.name().len()).max().unwrap_or(0).max(5);
    let mut text = format!("{:name$} {:state$} PRESET\n", "UNIT FILE", "STATE");
    for (unit, shown) in units.iter().zip(&names) {
        let preset = match unit.preset {
            Some(Preset::Enabled) => "enabled",
            Some(Preset::Disabled) => "disabled",
            Some(Preset::Ignored) => "ignored",
            None => "-",
        };
        text.push_str(&format!("{:name$} {:state$} {preset}\n", shown, unit.state.name()));
    }
    text.push_str(&format!("\n{} unit files listed.\n", units.len()));
    text
}
