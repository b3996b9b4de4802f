//! `info`: what a source is.

use serde_json::{Value, json};

use super::Context;
use crate::chain::{Opened, OpenedDisk};
use crate::cli::args::SourceArgs;
use crate::cli::output::table;
use crate::cli::size::Size;
use crate::container::ovf::{Firmware, Ovf};
use crate::disk::Disk;
use crate::error::{Result, escape};
use crate::pipeline::{describe_machine, source};

pub(super) fn run(args: &SourceArgs, context: &Context) -> Result<()> {
    let opened = source::open_one(&args.src, args.disk.as_deref(), &context.global.open_options(), &context.session)?;
    context.output.result(&json_of(&opened), &text_of(&opened, context))
}

fn json_of(opened: &Opened) -> Value {
    json!({
        "source": opened.location.to_string(),
        "container": opened.container,
        "disks": opened.disks.iter().map(disk_json).collect::<Vec<_>>(),
        "machine": opened.machine.as_ref().map(describe_machine),
        "safety": safety(opened),
        "notes": opened.notes,
    })
}

fn disk_json(disk: &OpenedDisk) -> Value {
    let layers: Vec<Value> = disk
        .image
        .inner()
        .layers()
        .map(|layer| {
            let facts: serde_json::Map<String, Value> =
                layer.facts().into_iter().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
            json!({
                "format": layer.format(),
                "virtual_size": layer.len(),
                "unit_size": layer.unit_size(),
                "files": layer.files().iter().map(|file| file.name()).collect::<Vec<_>>(),
                "facts": facts,
            })
        })
        .collect();
    json!({
        "name": disk.name,
        "virtual_size": disk.image.len(),
        "sector_size": disk.image.sector_size().bytes(),
        "layers": layers,
    })
}

/// Whether the source stands alone, and every file that was opened for it.
fn safety(opened: &Opened) -> Value {
    let files: Vec<String> = opened.sources.iter().map(|file| file.name()).collect();
    let verdict = if files.len() <= 1 { "self-contained" } else { "refers-to-other-files" };
    json!({ "verdict": verdict, "files": files })
}

fn text_of(opened: &Opened, context: &Context) -> String {
    let mut text = format!("{}\n", context.output.bold(&escape(&opened.location.to_string())));
    if let Some(machine) = &opened.machine {
        text.push_str(&table(&machine_rows(machine)));
    }
    for (index, disk) in opened.disks.iter().enumerate() {
        text.push_str(&format!("disk {}: {}, {}\n", index + 1, escape(&disk.name), Size(disk.image.len())));
        for (depth, layer) in disk.image.inner().layers().enumerate() {
            if depth > 0 {
                let files: Vec<String> = layer.files().iter().map(|file| escape(&file.name())).collect();
                text.push_str(&format!("based on: {}\n", files.join(", ")));
            }
            let mut rows = vec![("  format".to_owned(), layer.format().to_owned())];
            rows.push(("  unit".to_owned(), Size(layer.unit_size()).to_string()));
            rows.extend(layer.facts().into_iter().map(|(key, value)| (format!("  {key}"), escape(&value))));
            text.push_str(&table(&rows));
        }
    }
    if opened.sources.len() > 1 {
        text.push_str("refers to other files:\n");
        text.extend(opened.sources.iter().map(|file| format!("  {}\n", escape(&file.name()))));
    } else {
        text.push_str("self-contained\n");
    }
    for note in &opened.notes {
        text.push_str(&format!("note: {}\n", escape(note)));
    }
    text
}

fn machine_rows(machine: &Ovf) -> Vec<(String, String)> {
    let mut rows = vec![("  machine".to_owned(), escape(&machine.name))];
    let mut row =
        |key: &str, value: Option<String>| rows.extend(value.map(|value| (format!("  {key}"), escape(&value))));
    row("system", machine.os_type.clone());
    row("cpus", machine.cpus.map(|cpus| cpus.to_string()));
    row("memory", machine.memory.map(|memory| Size(memory).to_string()));
    row("firmware", Some(if machine.firmware == Firmware::Uefi { "uefi" } else { "bios" }.to_owned()));
    for nic in &machine.nics {
        row("nic", nic.model.clone());
    }
    rows
}
