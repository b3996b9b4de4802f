//! `inspect`: facts about the guests inside.

use serde_json::json;

use super::Context;
use crate::cli::args::InspectArgs;
use crate::cli::output::table;
use crate::cli::size::Size;
use crate::error::{Result, escape};
use crate::inspect::windows::Hibernation;
use crate::inspect::{Facts, Windows};
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
    let facts = match &system.facts {
        Facts::Linux(facts) => facts,
        Facts::Windows(facts) => return windows_text(facts, context),
    };
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

fn windows_text(facts: &Windows, context: &Context) -> String {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            rows.push((format!("  {key}"), escape(&value)));
        }
    };
    let product = &facts.product;
    let build = product.build.as_ref().map(|build| match product.revision {
        Some(revision) => format!("build {build}.{revision}"),
        None => format!("build {build}"),
    });
    let system: Vec<String> = [product.name.clone(), product.release.clone(), build].into_iter().flatten().collect();
    row("system", Some(system.join(", ")).filter(|system| !system.is_empty()));
    row("edition", product.edition.clone());
    row("host name", facts.hostname.clone());
    row("domain", facts.domain.clone());
    row("architecture", facts.arch.clone());
    row("directory", Some(facts.system_root.clone()));
    row("control set", facts.control_set.clone());
    row("firmware", facts.firmware.map(str::to_owned));
    for loader in facts.boot.iter().flat_map(|boot| &boot.loaders).filter(|loader| loader.is_offered) {
        row("boot entry", loader.description.clone().or_else(|| loader.path.clone()));
    }
    for adapter in &facts.adapters {
        let name = adapter.name.as_deref().or(adapter.description.as_deref()).unwrap_or(&adapter.id);
        row("interface", Some(format!("{name} {}", adapter.addresses.join(" ")).trim_end().to_owned()));
    }
    for drive in &facts.drives {
        let volume = drive.volume.map_or(String::new(), |volume| format!(" (volume {volume})"));
        row("drive", Some(format!("{}:{volume}", drive.letter)));
    }
    for (hypervisor, service) in &facts.tools {
        row("tools", Some(format!("{service} ({hypervisor})")));
    }
    facts.antivirus.iter().for_each(|name| row("antivirus", Some(name.clone())));
    row("applications", Some(facts.applications.len().to_string()));
    row("services", Some(facts.services.len().to_string()));
    if facts.power.hibernation != Hibernation::Absent {
        row("hibernation", Some(format!("{:?}", facts.power.hibernation).to_lowercase()));
    }
    for hive in facts.hives.iter().filter(|hive| hive.state != "clean") {
        row("hive", Some(format!("{} ({})", hive.path, hive.state)));
    }
    facts.notes.iter().for_each(|note| row("note", Some(note.clone())));
    format!("{}\n{}", context.output.bold("guest"), table(&rows))
}
