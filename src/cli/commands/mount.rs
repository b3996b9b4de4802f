//! `mount`: the flattened disks and their partitions as files, until they are unmounted or a signal comes.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use hyper2kvm_fuse::{Ended, Files, Mount, Options, Stopper, Tree};
use serde_json::{Value, json};

use super::{Context, device};
use crate::cli::args::MountArgs;
use crate::cli::signals;
use crate::error::{Error, Result, escape};
use crate::pipeline::device::{Device, Devices, View, Volume};
use crate::pipeline::export::{DiskFile, TextFile, data_bytes};
use crate::pipeline::migrate::Machine;
use crate::pipeline::source;
use crate::pipeline::view::GuestView;

pub(super) fn run(args: &MountArgs, context: &Context) -> Result<()> {
    if args.files {
        return guest(args, context);
    }
    let devices = device::open(&args.device, context)?;
    let info = info(&devices, args);
    if context.global.dry_run {
        return context.output.result(&json!({ "dry_run": true, "disks": info["disks"] }), "would mount the disks");
    }
    let mut files = Files::new();
    for (name, view) in named(&devices) {
        files = files.with_allocated(name, Arc::new(DiskFile(view.clone())), data_bytes(&*view.disk)?);
    }
    let files = files.with("info.json", Arc::new(TextFile(format!("{info:#}\n"))));
    let writable = args.device.is_writable();
    serve(files, args, writable, context, || announce(&args.dir, &devices, &info, context))
}

/// The guest's own files.
fn guest(args: &MountArgs, context: &Context) -> Result<()> {
    let open = args.device.guest.disks.open_options(&context.global)?;
    let machine = Machine::open(&args.device.guest.src, &open, &context.session)?;
    let spill = args.device.spill_dir.clone().unwrap_or_else(device::spill_dir);
    let guest = machine.look(&context.session, Some(&spill))?;
    let tree = guest.files(args.part, args.volume.as_deref())?;
    let points: Vec<_> = tree.mounts().map(|(at, fs)| (String::from_utf8_lossy(at), fs.facts().kind)).collect();
    let place = args.dir.display().to_string();
    let file_systems: Vec<Value> = points.iter().map(|(at, kind)| json!({ "mount_point": at, "type": kind })).collect();
    let json =
        json!({ "sources": source::shown(&args.device.guest.src), "mounted": place, "file_systems": file_systems });
    if context.global.dry_run {
        return context
            .output
            .result(&json!({ "dry_run": true, "file_systems": file_systems }), "would mount the guest");
    }
    let mut text = String::new();
    for (at, kind) in &points {
        text.push_str(&format!("mounted {place}{} ({kind})\n", escape(at.trim_end_matches('/'))));
    }
    text.push_str(&format!("unmount with: fusermount3 -u {place}"));
    serve(GuestView::new(tree)?, args, false, context, || context.output.result(&json, &text))
}

/// Shows `tree` until it is unmounted or a signal comes.
fn serve<T: Tree>(
    tree: T,
    args: &MountArgs,
    writable: bool,
    context: &Context,
    announce: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let name = source::shown(&args.device.guest.src).into_iter().next().unwrap_or_default();
    // Names and contents never change, so the kernel may keep what it has read.
    let options = Options { name, writable, page_cache: args.files, ..Options::default() };

    // Before the mount is there: whoever sees that may send a signal.
    let stop: Arc<OnceLock<Stopper>> = Arc::default();
    let stopper = Arc::clone(&stop);
    signals::cancel_on_signal(&context.session, move || stopper.get().into_iter().for_each(Stopper::stop))?;
    let mount = Mount::new(tree, &args.dir, &options).map_err(from_mount)?;
    let _ = stop.set(mount.stopper());
    context.session.check()?;
    announce()?;
    match mount.wait().map_err(from_mount)? {
        Ended::Unmounted => Ok(()),
        Ended::Busy => context.output.text("unmounted while files were open; they fail from now on"),
    }
}

/// Every file with its name: `disk` with its partitions, or `disk1` … where there are several.
pub(super) fn named(devices: &Devices) -> Vec<(String, &View)> {
    let mut files = Vec::new();
    for device in &devices.disks {
        let stem = stem(devices, device);
        files.push((format!("{stem}.raw"), &device.whole));
        files.extend(device.partitions.iter().map(|part| (format!("{stem}-p{}.raw", part.number), &part.view)));
    }
    for volume in &devices.volumes {
        let file = volume_file(volume, |name| files.iter().any(|(taken, _)| taken == name));
        files.push((file, &volume.view));
    }
    files
}

/// The name of a volume's file: that of its device, as device mapper writes it, or one like it that is not taken.
fn volume_file(volume: &Volume, is_taken: impl Fn(&str) -> bool) -> String {
    let path = &volume.path;
    let name =
        path.strip_prefix("/dev/mapper/").or_else(|| path.strip_prefix("/dev/")).unwrap_or(path).replace('/', "_");
    let numbered = (2_u64..).map(|number| format!("{name}.{number}.raw"));
    std::iter::once(format!("{name}.raw")).chain(numbered).find(|name| !is_taken(name)).unwrap_or(name)
}

fn stem<'a>(devices: &Devices, device: &'a Device) -> &'a str {
    if devices.disks.len() == 1 { "disk" } else { &device.name }
}

/// What `info.json` says (`docs/json.md`).
fn info(devices: &Devices, args: &MountArgs) -> Value {
    let disk = |device: &Device| {
        let stem = stem(devices, device);
        let partitions = device.partitions.iter().map(|part| {
            json!({
                "file": format!("{stem}-p{}.raw", part.number),
                "number": part.number,
                "offset": part.offset,
                "size": part.view.disk.len(),
            })
        });
        json!({
            "file": format!("{stem}.raw"),
            "source": device.label,
            "virtual_size": device.whole.disk.len(),
            "sector_size": device.whole.disk.sector_size().bytes(),
            "partitions": partitions.collect::<Vec<_>>(),
        })
    };
    let names = named(devices);
    let first = names.len().saturating_sub(devices.volumes.len());
    let volumes = devices.volumes.iter().zip(names.iter().skip(first)).map(|(volume, (file, _))| {
        json!({ "file": file, "name": volume.name, "path": volume.path, "size": volume.view.disk.len() })
    });
    json!({
        "volumes": volumes.collect::<Vec<_>>(),
        "notes": devices.notes,
        "sources": source::shown(&args.device.guest.src),
        "read_only": !args.device.is_writable(),
        "disks": devices.disks.iter().map(disk).collect::<Vec<_>>(),
        "plan": devices.plan,
    })
}

fn announce(dir: &Path, devices: &Devices, info: &Value, context: &Context) -> Result<()> {
    let place = dir.display();
    let mut json = info.clone();
    if let Value::Object(fields) = &mut json {
        fields.insert("mounted".to_owned(), json!(place.to_string()));
    }
    let mut text = device::plan_text(devices, context);
    for (name, _) in named(devices) {
        text.push_str(&format!("mounted {place}/{}\n", escape(&name)));
    }
    text.push_str(&format!("unmount with: fusermount3 -u {place}"));
    context.output.result(&json, &text)
}

/// A mount's error, with its code, place and hint.
pub(super) fn from_mount(error: hyper2kvm_fuse::Error) -> Error {
    let mut told = Error::failed(error.code(), error.what()).path(error.dir());
    if let Some(hint) = error.hint() {
        told = told.hint(hint);
    }
    told.because(error)
}
