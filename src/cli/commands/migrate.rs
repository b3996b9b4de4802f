//! `migrate`: the whole pipeline.

use std::num::NonZeroU64;

use serde_json::json;

use super::{Context, convert, plan};
use crate::cli::args::{Bus, MigrateArgs, PlanArgs, Switch};
use crate::cli::progress::Shown;
use crate::cli::signals;
use crate::error::{Error, Kind, Result};
use crate::libvirt;
use crate::pipeline::migrate::{self, Migrated, Request};

pub(super) fn run(args: &MigrateArgs, context: &Context) -> Result<()> {
    if context.global.dry_run {
        return plan::run(&PlanArgs { guest: args.guest.clone(), fixes: args.fixes.clone() }, context);
    }
    signals::cancel_on_signal(&context.session, || ())?;
    let request = Request {
        sources: args.guest.src.clone(),
        open: args.guest.disks.open_options(&context.global)?,
        output: args.output.clone(),
        name: args.name.clone(),
        force: args.force,
        restart: args.restart,
        keep_free_space: args.keep_free_space,
        verify: context.global.verify == Switch::On,
        rate_limit: context.global.rate_limit.and_then(|rate| NonZeroU64::new(rate.0)),
        bus: bus(args.bus)?,
        network: args.network.clone(),
        fixes: args.fixes.options()?,
    };
    let shown = Shown::new(&context.global, &context.session);
    let migrated = migrate::run(&request, &context.session, &shown)?;
    drop(shown);
    context.output.result(&migrated.json, &text(&migrated, context))
}

fn bus(bus: Bus) -> Result<libvirt::DiskBus> {
    match bus {
        Bus::VirtioBlk => Ok(libvirt::DiskBus::VirtioBlk),
        Bus::VirtioScsi => Ok(libvirt::DiskBus::VirtioScsi),
        Bus::Sata => Ok(libvirt::DiskBus::Sata),
        Bus::Ide | Bus::Pvscsi => {
            Err(Error::new(Kind::Usage, "usage.bus", "migrated machines use virtio-blk, virtio-scsi or sata"))
        }
    }
}

fn text(migrated: &Migrated, context: &Context) -> String {
    let mut text = plan::text(&migrated.plan, context);
    for outcome in &migrated.outcomes {
        text.push_str(&format!("{}\n", convert::outcome_text(outcome)));
    }
    text.push_str(&format!("domain XML: {}\n", migrated.xml.display()));
    text.push_str(&format!("report:     {}\n", migrated.report.display()));
    if let Some(first) = migrated.outcomes.first() {
        text.push_str(&format!("boot it:    hyper2kvm test {}\n", first.path.display()));
    }
    let seconds = migrated.json.pointer("/pipeline/duration_seconds").unwrap_or(&json!(0)).to_string();
    text.push_str(&format!("{} in {seconds} s\n", context.output.green("done")));
    text
}
