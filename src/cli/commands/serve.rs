//! `serve`: the flattened disks over NBD, until a signal, or until the command that uses them has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, Weak};

use hyper2kvm_nbd::{Builder, ClientCertificates, Server, TlsServer, is_loopback, systemd_sockets};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::json;

use super::{Context, device};
use crate::cli::args::ServeArgs;
use crate::cli::signals;
use crate::error::{Error, Kind, Result, escape};
use crate::pipeline::device::{Device, Devices};
use crate::pipeline::export::DiskExport;
use crate::session::PrivateFolder;

mod hints;
mod run;

pub(super) fn run(args: &ServeArgs, context: &Context) -> Result<ExitCode> {
    // Its folder goes away after the server.
    let folder = if is_for_command_only(args) { Some(PrivateFolder::new()?) } else { None };
    let builder = addresses(args, folder.as_ref())?;
    let devices = device::open(&args.device, context)?;
    let builder = exports(builder, &devices, &args.export);
    if context.global.dry_run {
        let size = first(&devices)?.whole.disk.len();
        let json = json!({ "dry_run": true, "virtual_size": size, "exports": device::list(&devices) });
        return context.output.result(&json, &device::text(&devices, context)).map(|()| ExitCode::SUCCESS);
    }
    // Before the first address is there: whoever sees that may send a signal.
    let stop = Arc::new(Stop::default());
    let stopped = Arc::clone(&stop);
    signals::cancel_on_signal(&context.session, move || stopped.stop())?;
    let server = Arc::new(builder.start().map_err(not_started)?);
    let _ = stop.server.set(Arc::downgrade(&server));
    context.session.check()?;
    let code = match &args.run {
        Some(command) => run::with_server(command, &server, &args.export, &stop)?,
        None => {
            // With --stdio, standard output is the client's.
            if !args.stdio {
                announce(&server, args, &devices, context)?;
            }
            server.wait();
            ExitCode::SUCCESS
        }
    };
    let stats = server.stats();
    tracing::info!(?stats, "the server has stopped");
    Ok(code)
}

/// What a signal ends.
#[derive(Default)]
struct Stop {
    server: OnceLock<Weak<Server>>,
    /// A handle on the command that is run, and not its number, which may be another's by the time a signal comes.
    command: OnceLock<OwnedFd>,
}

impl Stop {
    /// Ends the command, and the server with it; without one, the server.
    fn stop(&self) {
        if let Some(command) = self.command.get() {
            let _ = pidfd_send_signal(command, Signal::TERM);
        } else if let Some(server) = self.server.get().and_then(Weak::upgrade) {
            server.shutdown();
        }
    }
}

/// The exports: the first disk under the name that was asked for, then everything by its own name.
fn exports(mut builder: Builder, devices: &Devices, default: &str) -> Builder {
    for device in &devices.disks {
        if builder.is_empty() {
            builder = builder.export(default, Arc::new(DiskExport::new(device.whole.clone(), describe(device, None))));
        }
        let parts = device.partitions.iter().map(|part| (Some(part.number), &part.view));
        for (number, view) in [(None, &device.whole)].into_iter().chain(parts) {
            let name = number.map_or_else(|| device.name.clone(), |number| format!("{}/p{number}", device.name));
            if name != default {
                builder = builder.export(name, Arc::new(DiskExport::new(view.clone(), describe(device, number))));
            }
        }
    }
    for volume in devices.volumes.iter().filter(|volume| volume.name != default) {
        let export = DiskExport::new(volume.view.clone(), volume.path.clone());
        builder = builder.export(volume.name.clone(), Arc::new(export));
    }
    builder
}

/// One line for people, without anything of this host but the file's name.
fn describe(device: &Device, partition: Option<u32>) -> String {
    let label = escape(&device.label);
    partition.map_or_else(|| label.clone(), |number| format!("partition {number} of {label}"))
}

/// Whether nobody but the command that is run needs to reach the server.
fn is_for_command_only(args: &ServeArgs) -> bool {
    args.run.is_some() && args.unix.is_none() && args.tcp.is_none()
}

/// A server with the addresses that the arguments name, and no exports.
fn addresses(args: &ServeArgs, folder: Option<&PrivateFolder>) -> Result<Builder> {
    let mut builder = Server::builder();
    let inherited =
        systemd_sockets().map_err(|e| usage("the sockets that systemd passed cannot be used").because(e))?;
    let given = args.unix.is_some() || args.tcp.is_some() || args.stdio || folder.is_some() || !inherited.is_empty();
    if !given {
        return Err(usage("no address to serve on").hint("--unix PATH, --tcp ADDR:PORT, --stdio or --run COMMAND"));
    }
    for socket in inherited {
        builder = builder.inherited(socket);
    }
    if let Some(folder) = folder {
        builder = builder.unix(folder.socket());
    }
    if let Some(path) = &args.unix {
        builder = builder.unix(path);
    }
    if args.stdio {
        let taken = |e| usage("standard input and output cannot be served on").because(e);
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(taken)?;
        let output = std::io::stdout().as_fd().try_clone_to_owned().map_err(taken)?;
        builder = builder.connection(input, output);
    }
    if let Some(address) = args.tcp {
        let authenticated = args.tls_certificates.is_some() && !args.tls_any_client;
        if !(is_loopback(&address) || authenticated || args.i_know_this_is_open) {
            return Err(Error::refused("serve.open", "anyone who reaches that address could read the disk")
                .at(address)
                .hint("demand certificates with --tls-certificates DIR, serve on 127.0.0.1 or a Unix socket, or say --i-know-this-is-open"));
        }
        builder = builder.tcp(address);
    }
    if let Some(folder) = &args.tls_certificates {
        let clients = if args.tls_any_client { ClientCertificates::Ignored } else { ClientCertificates::Required };
        let tls = TlsServer::from_folder(folder, clients);
        builder = builder.tls(
            tls.map_err(|e| Error::failed("serve.tls", "the certificates cannot be used").path(folder).because(e))?,
        );
    }
    Ok(if args.i_know_this_is_open { builder.open_to_network() } else { builder })
}

fn usage(what: &str) -> Error {
    Error::new(Kind::Usage, "serve.address", what)
}

fn not_started(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::PermissionDenied && error.raw_os_error().is_none() {
        return Error::refused("serve.open", "a socket that systemd passed is open to other machines")
            .hint("demand certificates with --tls-certificates DIR, or say --i-know-this-is-open")
            .because(error);
    }
    Error::failed("serve.start", "the server cannot start").because(error)
}

fn first(devices: &Devices) -> Result<&Device> {
    devices.disks.first().ok_or_else(|| Error::unsupported("source.no-disk", "the source has no disk"))
}

fn announce(server: &Server, args: &ServeArgs, devices: &Devices, context: &Context) -> Result<()> {
    let uris = server.uris(&args.export);
    let writable = args.device.is_writable();
    let mut shown = device::text(devices, context);
    for uri in &uris {
        shown.push_str(&format!("serving {uri}\n"));
    }
    if let Some(uri) = uris.first() {
        shown.push_str(&hints::of(uri, server, args, writable));
    }
    let json = json!({
        "serving": uris,
        "virtual_size": first(devices)?.whole.disk.len(),
        "read_only": !writable,
        "exports": device::list(devices),
        "plan": devices.plan,
    });
    context.output.result(&json, &shown)
}
