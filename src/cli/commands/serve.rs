//! `serve`: the flattened disk over NBD, read-only, until a signal.

use std::sync::Arc;

use hyper2kvm_nbd::{Server, is_loopback};
use serde_json::json;

use super::Context;
use crate::cli::args::ServeArgs;
use crate::cli::signals;
use crate::error::{Error, Result};
use crate::pipeline::export::DiskExport;
use crate::pipeline::source;

pub(super) fn run(args: &ServeArgs, context: &Context) -> Result<()> {
    let from = &args.source;
    let single = source::open_disk(&from.src, from.disk.as_deref(), &context.global.open_options(), &context.session)?;
    let disk = single.disk.disk();
    let len = disk.len();
    let mut builder = Server::builder().export(args.export.clone(), Arc::new(DiskExport(disk)));
    if let Some(path) = &args.unix {
        builder = builder.unix(path);
    }
    if let Some(address) = args.tcp {
        if !is_loopback(&address) && !args.i_know_this_is_open {
            return Err(Error::refused("serve.open", "anyone who reaches that address could read the disk")
                .at(address)
                .hint("serve on 127.0.0.1 or a Unix socket, or say --i-know-this-is-open"));
        }
        builder = builder.tcp(address);
        if args.i_know_this_is_open {
            builder = builder.open_to_network();
        }
    }
    if context.global.dry_run {
        return context.output.result(&json!({ "dry_run": true, "virtual_size": len }), "would serve the disk");
    }
    let server = builder.start().map_err(|e| Error::failed("serve.start", "the server cannot start").because(e))?;
    let server = Arc::new(server);
    let stop = Arc::downgrade(&server);
    signals::cancel_on_signal(&context.session, move || {
        if let Some(server) = stop.upgrade() {
            server.shutdown();
        }
    })?;
    announce(&server, &args.export, len, context)?;
    server.wait();
    let stats = server.stats();
    tracing::info!(?stats, "the server has stopped");
    Ok(())
}

fn announce(server: &Server, export: &str, len: u64, context: &Context) -> Result<()> {
    let uris = server.uris(export);
    let mut text = String::new();
    for uri in &uris {
        text.push_str(&format!("serving {uri}\n  nbdinfo --map '{uri}'\n  nbdcopy '{uri}' disk.raw\n"));
        text.push_str(&format!("  qemu-img convert -O qcow2 '{uri}' disk.qcow2\n"));
    }
    context.output.result(&json!({ "serving": uris, "virtual_size": len, "read_only": true }), &text)
}
