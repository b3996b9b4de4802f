//! `plan`: what `migrate` would change, and what it would leave.

use serde_json::json;

use super::Context;
use crate::cli::args::PlanArgs;
use crate::cli::size::Size;
use crate::error::{Result, escape};
use crate::fix::Plan;
use crate::pipeline::migrate::Machine;
use crate::pipeline::needs::Needs;
use crate::pipeline::source;

pub(super) fn run(args: &PlanArgs, context: &Context) -> Result<()> {
    let (args, fixes) = (&args.guest, args.fixes.options()?);
    let machine = Machine::open(&args.src, &args.disks.open_options(&context.global)?, &context.session)?;
    let planned = machine.plan(&fixes, &context.session, None)?;
    let needs = Needs::of(&planned, false)?;
    let json = json!({ "sources": source::shown(&args.src), "plan": planned.plan, "needs": needs, "notes": planned.guest.notes });
    context.output.result(&json, &(text(&planned.plan, context) + &needs_text(&needs, context)))
}

fn needs_text(needs: &Needs, context: &Context) -> String {
    let mut text = format!(
        "{} {} to read and write, and {} of free space for the result\n",
        context.output.bold("needs "),
        Size(needs.data_bytes),
        Size(needs.free_space),
    );
    if let Some(time) = &needs.time {
        text.push_str(&format!(
            "       reading alone takes about {:.0} s at {}/s, measured with {} of it\n",
            time.read_seconds.ceil(),
            Size(time.bytes_per_second),
            Size(time.sampled_bytes),
        ));
    }
    if !needs.will_boot {
        text.push_str(&context.output.yellow("       what is left keeps the guest from booting on virtio\n"));
    }
    text
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
    let buses: Vec<&str> = plan.hardware.disk_buses.iter().map(|bus| bus.name()).collect();
    if buses.first().is_some_and(|first| *first != "virtio-blk") {
        let kernel = escape(plan.hardware.kernel.as_deref().unwrap_or_default());
        let line = format!("{kernel} finds its root on {} only\n", buses.join(" and "));
        text.push_str(&format!("{} {line}", context.output.yellow("disks ")));
    }
    for left in &plan.left {
        let (path, what) = (escape(&left.path), escape(&left.what));
        text.push_str(&format!("{} {path}: {what}\n", context.output.yellow("leave ")));
        text.push_str(&format!("       {}\n", escape(&left.why)));
    }
    text
}
