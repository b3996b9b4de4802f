//! What `serve` and `mount` share: the disks of a machine as devices.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, plan};
use crate::cli::args::DeviceArgs;
use crate::cli::size::Size;
use crate::error::{Result, escape};
use crate::pipeline::device::{Devices, Request};

/// Opens what the arguments name.
pub(super) fn open(args: &DeviceArgs, context: &Context) -> Result<Devices> {
    let request = Request {
        sources: args.guest.src.clone(),
        open: args.guest.disks.open_options(&context.global)?,
        fix: args.fix,
        writable: args.is_writable(),
        overlays: args.overlay.clone(),
        spill: args.spill_dir.clone().unwrap_or_else(spill_dir),
    };
    Devices::open(&request, &context.session)
}

/// Where temporary files go that may grow large: `/tmp` is often memory.
pub(super) fn spill_dir() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// Every disk, partition and volume, as `docs/json.md` has it.
pub(super) fn list(devices: &Devices) -> Value {
    devices.views().map(|(name, view)| json!({ "name": name, "virtual_size": view.disk.len() })).collect()
}

/// What was fixed, and what there is.
pub(super) fn text(devices: &Devices, context: &Context) -> String {
    let mut text = plan_text(devices, context);
    for device in &devices.disks {
        text.push_str(&format!("{}: {}, {}\n", device.name, escape(&device.label), Size(device.whole.disk.len())));
        for part in &device.partitions {
            text.push_str(&format!("  {}/p{}: {}\n", device.name, part.number, Size(part.view.disk.len())));
        }
    }
    for volume in &devices.volumes {
        text.push_str(&format!(
            "{}: {}, {}\n",
            escape(&volume.name),
            escape(&volume.path),
            Size(volume.view.disk.len())
        ));
    }
    devices.notes.iter().for_each(|note| text.push_str(&format!("note: {}\n", escape(note))));
    text
}

/// What was fixed, if anything was to be.
pub(super) fn plan_text(devices: &Devices, context: &Context) -> String {
    devices.plan.as_ref().map(|plan| plan::text(plan, context)).unwrap_or_default()
}
