//! `plan`: what `migrate` would change, and what it would leave.

use serde_json::json;

use super::Context;
use crate::cli::args::GuestArgs;
use crate::error::{Result, escape};
use crate::fix::Plan;
use crate::pipeline::migrate::Machine;

pub(super) fn run(args: &GuestArgs, context: &Context) -> Result<()> {
    let machine = Machine::open(&args.src, &args.disks.open_options(&context.global)?, &context.session)?;
    let planned = machine.plan(&context.session, None)?;
    let json = json!({ "sources": args.src, "plan": planned.plan, "notes": planned.guest.notes });
    context.output.result(&json, &text(&planned.plan, context))
}

/// The plan for people.
pub(super) fn text(plan: &Plan, context: &Context) -> String {
    let mut text = String::new();
    if plan.is_empty() {
        text.push_str("nothing to change\n");
    }
    for action in &plan.actions {
        let (path, what) = (escape(&action.path), escape(&action.what));
        text.push_str(&format!("{} {path}: {what}\n", context.output.bold("change")));
        text.push_str(&format!("       {}\n", escape(&action.why)));
    }
    for left in &plan.left {
        let (path, what) = (escape(&left.path), escape(&left.what));
        text.push_str(&format!("{} {path}: {what}\n", context.output.yellow("leave ")));
        text.push_str(&format!("       {}\n", escape(&left.why)));
    }
    text
}
