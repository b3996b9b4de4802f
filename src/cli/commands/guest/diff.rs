//! `guest diff`: what differs between two guests.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Inside, Lines, shown};
use crate::browse::compare::{Change, Difference, Options, Side, compare};
use crate::cli::args::guest::DiffArgs;
use crate::cli::commands::Context;
use crate::error::{Kind, Result};

pub(super) fn run(args: &DiffArgs, context: &Context) -> Result<ExitCode> {
    let was = Inside::open(&args.inside, context)?;
    let is = Inside::open(&args.other(), context)?;
    let tops = (was.find(&args.path)?, is.find(&args.path)?);
    let options = Options { content: !args.no_content, times: args.times };
    let (mut lines, mut json, mut count) = (Lines::new(), Vec::new(), 0_u64);
    let sides = (Side { tree: &was.tree, top: &tops.0 }, Side { tree: &is.tree, top: &tops.1 });
    compare(sides.0, sides.1, options, &context.session, &mut |difference| {
        count = count.saturating_add(1);
        if context.output.is_json() {
            json.push(json_of(&difference));
            return Ok(());
        }
        lines.line(&line_of(&difference))
    })?;
    if context.output.is_json() {
        context.output.json(&json!({ "differences": json }))?;
    } else {
        lines.finish()?;
    }
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::from(Kind::Mismatch.exit_code()) })
}

fn line_of(difference: &Difference) -> String {
    let path = shown(&difference.path);
    match &difference.change {
        Change::Added => format!("+ {path}"),
        Change::Removed => format!("- {path}"),
        Change::Changed(what) => format!("* {path}  ({})", what.join(", ")),
    }
}

fn json_of(difference: &Difference) -> Value {
    let (change, what): (_, &[&str]) = match &difference.change {
        Change::Added => ("added", &[]),
        Change::Removed => ("removed", &[]),
        Change::Changed(what) => ("changed", what),
    };
    json!({ "path": super::text(&difference.path), "change": change, "what": what })
}
