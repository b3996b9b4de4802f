//! `inspect`: facts about the guests inside.

use serde_json::json;

use super::Context;
use crate::cli::args::InspectArgs;
use crate::error::Result;
use crate::pipeline::inspection::Inspection;
use crate::pipeline::migrate::Machine;

mod deep;
mod linux;
mod text;
mod windows;

pub(super) fn run(args: &InspectArgs, context: &Context) -> Result<()> {
    let sources = &args.guest.src;
    let machine = Machine::open(sources, &args.guest.disks.open_options(&context.global)?, &context.session)?;
    let mut guest = machine.look(&context.session, None)?;
    if args.deep {
        guest.look_deeper()?;
    }
    if args.xml {
        guest.installed()?;
        return context.output.line(guest.inspector_xml()?.trim_end());
    }
    let inspection = Inspection::of(sources, &machine, &guest);
    context.output.result(&json!(inspection), &text::of(&guest, inspection.firmware, context.output))
}
