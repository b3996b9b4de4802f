//! `inspect`: facts about the guests inside.

use serde_json::json;

use super::Context;
use crate::cli::args::InspectArgs;
use crate::cli::output::table;
use crate::cli::size::Size;
use crate::error::{Result, escape};
use crate::pipeline::guest::{Guest, System};
use crate::pipeline::inspection::Inspection;
use crate::pipeline::migrate::Machine;

mod deep;

pub(super) fn run(args: &InspectArgs, context: &Context) -> Result<()> {
    let sources = &args.guest.src;
    let machine = Machine::open(sources, &args.guest.disks.open_options(&context.global)?, &context.session)?;
    let mut guest = machine.look(&context.session, None)?;
    if args.deep {
        guest.look_deeper()?;
    }
    if args.xml {
        guest.installed()?;
        return context.output.line(guest.inspector_xml().trim_end());
    }
    let inspection = Inspection::of(sources, &machine, &guest);
    context.output.result(&json!(inspection), &text_of(&guest, context))
}

fn text_of(guest: &Guest, context: &Context) -> String {
    let mut text = String::new();
    match guest.system() {
        Some(system) => text.push_str(&system_text(system, context)),
        None => text.push_str("no operating system found\n"),
    }
    text.push_str(&context.output.bold("volumes\n"));
    for volume in &guest.machine.volumes {
        let disk = guest.machine.disks.get(volume.disk).map_or("?", |disk| disk.name.as_str());
        let number = volume.partition.map(|number| number.to_string()).unwrap_or_default();
        let kind = volume.fs_kind.as_deref().unwrap_or("unknown");
        let spec = volume.stable_spec().unwrap_or_default();
        text.push_str(&format!(
            "  {disk}{number:4} {:>10}  {kind:8} {}\n",
            Size(volume.size).to_string(),
            escape(&spec)
        ));
    }
    for note in &guest.notes {
        text.push_str(&format!("note: {}\n", escape(note)));
    }
    text
}

fn system_text(system: &System, context: &Context) -> String {
    let Some(facts) = system.facts.linux() else { return String::new() };
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((format!("  {key}"), escape(&value)));
        }
    };
    row("system", facts.os.pretty_name.clone().or_else(|| facts.os.id.clone()));
    row("host name", facts.hostname.clone());
    row("architecture", facts.arch.clone());
    row("packages", facts.packaging.format.map(str::to_owned));
    for kernel in &facts.kernels {
        row("kernel", Some(kernel.image.clone()));
    }
    for loader in &facts.bootloaders {
        row("boot loader", Some(format!("{:?} ({})", loader.kind, loader.config)));
    }
    for nic in &facts.nics {
        row("interface", Some(nic.name.clone()));
    }
    for tool in &facts.tools {
        row("tools", Some(tool.path.clone()));
    }
    for mount in &system.root.mounts {
        row("mounted", Some(mount.at.clone()));
    }
    let further = system.deep.as_ref().map(|facts| deep::text(facts, context.output)).unwrap_or_default();
    format!("{}\n{}{further}", context.output.bold("guest"), table(&rows))
}
