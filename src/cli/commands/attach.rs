//! `attach` and `detach`: the flattened disks and their partitions as loop devices, by FUSE, for as long as a process in the
//! background serves them.

use std::process::ExitCode;
use std::sync::Arc;

use hyper2kvm_fuse::{Files, Mount, Options};
use serde_json::{Value, json};

use super::mount::{from_mount, named};
use super::{Context, device};
use crate::cli::args::{AttachArgs, DetachArgs};
use crate::cli::signals;
use crate::error::{Error, Kind, Result, escape};
use crate::pipeline::device::Devices;
use crate::pipeline::export::{DiskFile, data_bytes};
use crate::pipeline::source;

mod background;
mod loops;
mod state;

use background::Started;
use loops::Loops;
use state::{Attached, Record};

pub(super) fn attach(args: &AttachArgs, context: &Context) -> Result<ExitCode> {
    only_root()?;
    if context.global.dry_run {
        let devices = device::open(&args.device, context)?;
        let json = json!({ "dry_run": true, "exports": device::list(&devices) });
        return context.output.result(&json, &device::text(&devices, context)).map(|()| ExitCode::SUCCESS);
    }
    if !args.foreground {
        return match background::start(context)? {
            Started::Attached(record) => {
                context.output.result(&record.json(), &text(&record)).map(|()| ExitCode::SUCCESS)
            }
            Started::Failed(code) => Ok(code),
        };
    }
    serve(args, context).map(|()| ExitCode::SUCCESS)
}

/// Attaches, says so, and stays until a signal comes.
fn serve(args: &AttachArgs, context: &Context) -> Result<()> {
    let (sender, asked) = std::sync::mpsc::channel();
    signals::cancel_on_signal(&context.session, move || {
        let _ = sender.send(());
    })?;
    let devices = device::open(&args.device, context)?;
    let attached = Attached::new(&source::shown(&args.device.guest.src))?;
    let mut files = Files::new();
    for (name, view) in named(&devices) {
        files = files.with_allocated(name, Arc::new(DiskFile(view.clone())), data_bytes(&*view.disk)?);
    }
    let writable = args.device.is_writable();
    let name = source::shown(&args.device.guest.src).into_iter().next().unwrap_or_default();
    let options = Options { name, writable, ..Options::default() };
    let mount = Mount::new(files, &attached.mount_point(), &options).map_err(from_mount)?;
    // From here on, whatever happens, the loop devices go first, then the mount, then the record.
    let loops = attach_all(&devices, &attached, writable)?;
    let record = attached.record(&loops.names(), !writable)?;
    context.output.result(&record.json(), &text(&record))?;
    let _ = asked.recv();
    drop(loops);
    mount.unmount().map_err(from_mount)?;
    drop(attached);
    Ok(())
}

fn attach_all(devices: &Devices, attached: &Attached, writable: bool) -> Result<Loops> {
    let mut loops = Loops::default();
    let exports = devices.views().map(|(name, _)| name);
    for ((file, view), export) in named(devices).into_iter().zip(exports) {
        let sector = view.disk.sector_size().bytes();
        loops.add(&export, &attached.mount_point().join(file), sector, !writable)?;
    }
    Ok(loops)
}

pub(super) fn detach(args: &DetachArgs, context: &Context) -> Result<()> {
    let records = state::all()?;
    if args.list {
        let json: Vec<Value> = records.iter().map(Record::json).collect();
        let shown: String = records.iter().map(text).collect();
        let shown = if shown.is_empty() { "nothing is attached\n".to_owned() } else { shown };
        return context.output.result(&json!({ "attached": json }), &shown);
    }
    only_root()?;
    let Some(wanted) = &args.device else {
        return Err(Error::new(Kind::Usage, "attach.unknown", "no device was named").hint("hyper2kvm detach --list"));
    };
    let wanted = std::fs::canonicalize(wanted).unwrap_or_else(|_| wanted.clone());
    // A dead process's device may have been freed by hand, and be another's now.
    let found = records.iter().filter(|record| record.has(&wanted)).max_by_key(|record| record.is_alive());
    let record = found.ok_or_else(|| {
        Error::new(Kind::Usage, "attach.unknown", "no such device was attached by this program")
            .path(&wanted)
            .hint("hyper2kvm detach --list")
    })?;
    loops::must_not_be_used(record.devices.iter().map(|(_, device)| device.as_path()))?;
    record.end()?;
    context.output.result(&json!({ "detached": record.json() }), "detached")
}

/// Loop devices are for root.
fn only_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::refused("attach.root", "loop devices need root")
        .hint("run it with sudo; or `hyper2kvm mount` and `hyper2kvm serve`, which need no rights"))
}

fn text(record: &Record) -> String {
    let mut text = String::new();
    for (name, device) in &record.devices {
        let source = record.sources.join(" ");
        let dead = if record.is_alive() { "" } else { "  dead: its process is gone; detach clears it" };
        text.push_str(&format!("{}  {name} of {}{dead}\n", device.display(), escape(&source)));
    }
    text
}
