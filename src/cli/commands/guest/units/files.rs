//! `guest units --cat`, `--dependencies` and `--check`: what units' files say.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{Inside, Lines};
use super::{Patterns, none, scope};
use crate::cli::args::guest::UnitsArgs;
use crate::cli::commands::Context;
use crate::error::{Error, Kind, Result, escape, escape_whole};
use crate::inspect::systemd::zones::Zones;
use crate::inspect::systemd::{Dependency, Graph, Loaded, Origin};
use crate::limits;

/// The guest's units, with those among them that are asked for.
pub(super) fn graph(args: &UnitsArgs, inside: &Inside, context: &Context) -> Result<Graph> {
    let graph = Graph::read(&inside.tree, scope(args))?;
    if graph.units.values().all(|unit| unit.path.is_none()) {
        return Err(none());
    }
    if !context.output.is_json() {
        crate::cli::commands::guest::log::tell(&graph.notes, context);
    }
    Ok(graph)
}

/// The units that fit by any of their names.
fn chosen<'g>(graph: &'g Graph, patterns: &Patterns) -> Result<Vec<&'g Loaded>> {
    let fits = |unit: &&Loaded| [&unit.name].into_iter().chain(&unit.aliases).any(|name| patterns.fit(name));
    let units: Vec<&Loaded> = graph.units.values().filter(fits).collect();
    if units.is_empty() {
        return Err(Error::new(Kind::NotFound, "units.absent", "the guest has no such unit")
            .hint("guest units SRC lists those that have files"));
    }
    Ok(units)
}

pub(super) fn cat(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<()> {
    if args.pattern.is_empty() {
        return Err(Error::new(Kind::Usage, "units.pattern", "--cat needs the name of a unit"));
    }
    let inside = Inside::open(&args.inside, context)?;
    let graph = graph(args, &inside, context)?;
    let (mut json, mut texts): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for unit in chosen(&graph, patterns)? {
        let mut files: Vec<Value> = Vec::new();
        for path in unit.path.iter().chain(&unit.drop_ins) {
            let Some(content) = inside.tree.read(path, limits::MAX_GUEST_CONFIG)? else { continue };
            let content = String::from_utf8_lossy(&content).into_owned();
            let shown = |line: &str| line.split('\t').map(escape_whole).collect::<Vec<_>>().join("\t");
            let lines = content.lines().map(shown).collect::<Vec<_>>().join("\n");
            texts.push(format!("# {}\n{lines}", escape(path)));
            files.push(json!({ "path": path, "content": content }));
        }
        json.push(json!({ "name": unit.name, "aliases": unit.aliases, "masked": unit.is_masked, "files": files }));
    }
    if context.output.is_json() {
        return context.output.json(&json!({ "units": json, "notes": graph.notes }));
    }
    let mut out = Lines::new();
    out.line(&texts.join("\n\n"))?;
    out.finish()
}

pub(super) fn dependencies(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let graph = graph(args, &inside, context)?;
    let units = match args.pattern.is_empty() {
        true => graph.find("default.target").into_iter().collect(),
        false => chosen(&graph, patterns)?,
    };
    let (mut json, mut texts): (Vec<Value>, Vec<String>) = (Vec::new(), Vec::new());
    for unit in units {
        let all: Vec<(&str, &str, &Dependency)> = match args.reverse {
            true => graph
                .reverse(&unit.name)
                .into_iter()
                .map(|(by, one)| (one.kind.words().1, by.name.as_str(), one))
                .collect(),
            false => unit.dependencies.iter().map(|one| (one.kind.words().0, one.unit.as_str(), one)).collect(),
        };
        let rows: Vec<[String; 3]> =
            all.iter().map(|(word, name, one)| [(*word).to_owned(), escape(name), origin(&one.origin)]).collect();
        let title = if unit.is_masked { format!("{} (masked)", escape(&unit.name)) } else { escape(&unit.name) };
        texts.push(format!("{title}\n{}", super::tables::rows(&rows, "  ")));
        let all: Vec<Value> =
            all.iter().map(|(word, name, one)| json!({ "kind": word, "unit": name, "origin": one.origin })).collect();
        json.push(json!({ "name": unit.name, "aliases": unit.aliases, "masked": unit.is_masked, "dependencies": all }));
    }
    context.output.result(&json!({ "units": json, "reverse": args.reverse, "notes": graph.notes }), &texts.join("\n"))
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::File { path, line } => format!("{}:{line}", escape(path)),
        Origin::Link { path } => escape(path),
        Origin::Default => "by default".to_owned(),
        Origin::Implied => "implied".to_owned(),
    }
}

pub(super) fn check(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<ExitCode> {
    let inside = Inside::open(&args.inside, context)?;
    let graph = graph(args, &inside, context)?;
    let zones = Zones::read(&inside.tree, Timestamp::now())?;
    let mut problems = Vec::new();
    let units = chosen(&graph, patterns)?;
    for unit in &units {
        context.session.check()?;
        problems.extend(graph.check(unit, &inside.tree, &zones)?);
    }
    // A file of several units, of instances or of all of a kind, is told once.
    problems.sort();
    problems.dedup();
    let line = |line: Option<u32>| line.map(|line| format!(":{line}")).unwrap_or_default();
    let lines: Vec<String> = problems
        .iter()
        .map(|one| format!("{}{}: {}\n", escape(&one.path), line(one.line), escape(&one.what)))
        .collect();
    let text = format!("{}{} units looked at, {} problems.\n", lines.concat(), units.len(), problems.len());
    let json = json!({ "units": units.len(), "problems": problems, "notes": graph.notes });
    context.output.result(&json, &text)?;
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(Kind::Corrupt.exit_code()) })
}
