//! `guest units --timers`, `--sockets` and `--mounts`.

use jiff::Timestamp;
use serde_json::json;

use super::super::Inside;
use super::Patterns;
use super::clock;
use super::files::graph;
use crate::cli::args::guest::UnitsArgs;
use crate::cli::commands::Context;
use crate::error::{Result, escape};
use crate::inspect::journal::show::time_text;
use crate::inspect::systemd::zones::Zones;

pub(super) fn timers(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let graph = graph(args, &inside, context)?;
    let zones = Zones::read(&inside.tree, Timestamp::now())?;
    let local = zones.local();
    let mut timers = graph.timers(&zones, clock::base(args, &local.rules)?)?;
    timers.retain(|timer| patterns.fit(&timer.unit));
    // The next one first, and last those of which that cannot be known.
    timers.sort_by_key(|timer| (timer.next.is_none(), timer.next, timer.unit.clone()));
    let mut table = vec![head(["NEXT", "UNIT", "ACTIVATES", "WHEN"])];
    for timer in &timers {
        let next = timer.next.map(|next| time_text(next, &local.rules, "%a %Y-%m-%d %H:%M:%S %Z"));
        let when = timer.when.iter().map(|when| escape(when)).collect::<Vec<_>>().join(" ");
        table.push([dash(next), escape(&timer.unit), dash(timer.activates.as_deref().map(escape)), when]);
    }
    let json = json!({ "time_zone": local.name, "timers": timers, "notes": graph.notes });
    context.output.result(&json, &format!("{}\n{} timers listed.\n", rows(&table, ""), timers.len()))
}

pub(super) fn sockets(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let graph = graph(args, &inside, context)?;
    let mut sockets = graph.sockets();
    sockets.retain(|socket| patterns.fit(&socket.unit));
    let mut table = vec![head(["LISTEN", "TYPE", "UNIT", "ACTIVATES"])];
    let mut json = Vec::new();
    for socket in &sockets {
        for (kind, place) in &socket.listens {
            let kind = kind.strip_prefix("Listen").unwrap_or(kind);
            table.push([
                escape(place),
                kind.to_owned(),
                escape(&socket.unit),
                dash(socket.activates.as_deref().map(escape)),
            ]);
        }
        let listens: Vec<_> =
            socket.listens.iter().map(|(kind, place)| json!({ "type": kind, "place": place })).collect();
        json.push(
            json!({ "unit": socket.unit, "activates": socket.activates, "accept": socket.accept, "listens": listens }),
        );
    }
    let text = format!("{}\n{} sockets listed.\n", rows(&table, ""), sockets.len());
    context.output.result(&json!({ "sockets": json, "notes": graph.notes }), &text)
}

pub(super) fn mounts(args: &UnitsArgs, patterns: &Patterns, context: &Context) -> Result<()> {
    let inside = Inside::open(&args.inside, context)?;
    let graph = graph(args, &inside, context)?;
    let mut mounts = graph.mounts();
    mounts.retain(|mount| patterns.fit(&mount.unit));
    let mut table = vec![head(["WHERE", "WHAT", "TYPE", "UNIT"])];
    for mount in &mounts {
        let text = |value: &Option<String>| dash(value.as_deref().map(escape));
        table.push([text(&mount.place), text(&mount.what), text(&mount.kind), escape(&mount.unit)]);
    }
    let text = format!("{}\n{} mounts listed.\n", rows(&table, ""), mounts.len());
    context.output.result(&json!({ "mounts": mounts, "notes": graph.notes }), &text)
}

fn head<const N: usize>(names: [&str; N]) -> [String; N] {
    names.map(str::to_owned)
}

fn dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

/// Columns of equal width, the last one as it is.
pub(super) fn rows<const N: usize>(rows: &[[String; N]], indent: &str) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(&format!("{indent}{}\n", cells.join("  ").trim_end()));
    }
    text
}
