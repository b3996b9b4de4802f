//! `mount`: the flattened disk as a read-only file, until it is unmounted or a signal comes.

use std::sync::Arc;

use hyper2kvm_fuse::{Ended, Files, Mount, Options};
use serde_json::json;

use super::Context;
use crate::cli::args::MountArgs;
use crate::cli::signals;
use crate::error::{Error, Result};
use crate::pipeline::export::{DiskFile, data_bytes};
use crate::pipeline::source;

/// The name of the flattened disk in the mount.
const FILE: &str = "disk.raw";

pub(super) fn run(args: &MountArgs, context: &Context) -> Result<()> {
    let from = &args.source;
    let single = source::open_disk(&from.src, from.disk.as_deref(), &context.global.open_options(), &context.session)?;
    let disk = single.disk.disk();
    let len = disk.len();
    if context.global.dry_run {
        return context.output.result(&json!({ "dry_run": true, "virtual_size": len }), "would mount the disk");
    }
    let files = Files::new().with_allocated(FILE, Arc::new(DiskFile(Arc::clone(&disk))), data_bytes(&*disk)?);
    let options = Options { name: from.src.clone(), ..Options::default() };
    let mount = Mount::new(files, &args.dir, &options).map_err(from_mount)?;
    let stopper = mount.stopper();
    signals::cancel_on_signal(&context.session, move || stopper.stop())?;
    let file = args.dir.join(FILE);
    let json =
        json!({ "mounted": args.dir.display().to_string(), "file": file.display().to_string(), "virtual_size": len });
    let text = format!("mounted {}\nunmount with: fusermount3 -u {}", file.display(), args.dir.display());
    context.output.result(&json, &text)?;
    match mount.wait().map_err(from_mount)? {
        Ended::Unmounted => Ok(()),
        Ended::Busy => context.output.text("unmounted while files were open; they fail from now on"),
    }
}

/// A mount's error, with its code, place and hint.
fn from_mount(error: hyper2kvm_fuse::Error) -> Error {
    let mut told = Error::failed(error.code(), error.what()).path(error.dir());
    if let Some(hint) = error.hint() {
        told = told.hint(hint);
    }
    told.because(error)
}
