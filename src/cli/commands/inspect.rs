//! `inspect`: facts about the guests inside.

use serde_json::{Value, json};

use super::Context;
use crate::cli::args::GuestArgs;
use crate::cli::output::table;
use crate::cli::size::Size;
use crate::error::{Result, escape};
use crate::pipeline::guest::{Guest, System};
use crate::pipeline::migrate::Machine;
use crate::volume::Table;

pub(super) fn run(args: &GuestArgs, context: &Context) -> Result<()> {
    let machine = Machine::open(&args.src, &args.disks.open_options(&context.global)?, &context.session)?;
    let guest = machine.look(&context.session, None)?;
    context.output.result(&json_of(args, &guest), &text_of(&guest, context))
}

fn json_of(args: &GuestArgs, guest: &Guest) -> Value {
    json!({
        "sources": args.src,
        "machine": guest.machine,
        "partition_tables": guest.tables.iter().map(|table| table.as_ref().map(table_json)).collect::<Vec<_>>(),
        "firmware": if guest.looks_like_uefi() { "uefi" } else { "bios" },
        "guest": guest.system().map(guest_json),
        "other_guests": guest.systems.iter().skip(1).map(guest_json).collect::<Vec<_>>(),
        "notes": guest.notes,
    })
}

fn guest_json(system: &System) -> Value {
    json!({ "root_volume": system.root.volume, "mounts": system.root.mounts, "facts": system.facts })
}

fn table_json(table: &Table) -> Value {
    let partitions: Vec<Value> = table
        .partitions
        .iter()
        .map(|partition| {
            json!({
                "number": partition.number,
                "offset": partition.range.start,
                "length": partition.range.end.saturating_sub(partition.range.start),
                "type": partition.type_id,
                "type_name": partition.type_name,
                "bootable": partition.bootable,
                "partuuid": partition.partuuid,
                "label": partition.label,
            })
        })
        .collect();
    json!({
        "kind": table.kind.name(),
        "id": table.id,
        "sector_size": table.sector_size.bytes(),
        "partitions": partitions,
        "problems": table.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
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
    format!("{}\n{}", context.output.bold("guest"), table(&rows))
}
