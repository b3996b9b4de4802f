//! `revert`: what a migration changed in the guest, undone.

use std::num::NonZeroU64;

use super::{Context, convert};
use crate::cli::args::{RevertArgs, Switch};
use crate::cli::progress::Shown;
use crate::cli::signals;
use crate::error::{Result, escape};
use crate::pipeline::revert::{self, Request, Reverted};

pub(super) fn run(args: &RevertArgs, context: &Context) -> Result<()> {
    signals::cancel_on_signal(&context.session, || ())?;
    let request = Request {
        report: args.report.clone(),
        output: args.output.clone(),
        force: args.force,
        keep_free_space: args.keep_free_space,
        verify: context.global.verify == Switch::On,
        rate_limit: context.global.rate_limit.and_then(|rate| NonZeroU64::new(rate.0)),
    };
    let shown = Shown::new(&context.global, &context.session);
    let reverted = revert::run(&request, &context.session, &shown)?;
    drop(shown);
    context.output.result(&reverted.to_json(), &text(&reverted, context))
}

fn text(reverted: &Reverted, context: &Context) -> String {
    let mut text = String::new();
    if reverted.paths.is_empty() {
        text.push_str("nothing to undo\n");
    }
    for path in &reverted.paths {
        text.push_str(&format!("{} {}\n", context.output.bold("restored"), escape(path)));
    }
    for outcome in &reverted.outcomes {
        text.push_str(&format!("{}\n", convert::outcome_text(outcome)));
    }
    text
}
