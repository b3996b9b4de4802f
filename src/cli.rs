//! The command line: one binary, one file a command.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use crate::error::Kind;

mod access;
pub mod args;
mod commands;
mod help;
pub mod keys;
mod output;
mod progress;
mod signals;
pub mod size;
mod terminal;

use args::{Cli, Global};
use output::Output;

/// Parses the arguments, runs the command, prints an error if there is one, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let _ = usage.print();
            return ExitCode::from(if usage.use_stderr() { Kind::Usage.exit_code() } else { 0 });
        }
    };
    start_logging(&cli.global);
    let output = Output::new(&cli.global, cli.command.takes_stdout());
    match commands::run(&cli.command, &cli.global, output) {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

/// Logs go to standard error: by `-v`, or by `HYPER2KVM_LOG` in tracing's filter syntax.
fn start_logging(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        // Of an unmount by someone else, the usual end of a mount, fuser warns.
        (false, 0) => "warn,fuser=error",
        (false, 1) => "hyper2kvm=info,hyper2kvm_fuse=info,hyper2kvm_nbd=info,warn",
        (false, 2) => "debug",
        (false, _) => "trace",
    };
    let mut filter = tracing_subscriber::EnvFilter::try_from_env("HYPER2KVM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // Addresses and headers have secrets in them, and what carries them logs them as they are.
    for carrier in [
        "h2",
        "hyper",
        "hyper_util",
        "hyper_rustls",
        "reqsign_aws_core",
        "reqsign_aws_v4",
        "reqsign_azure_storage",
        "reqsign_core",
        "reqsign_google",
        "reqwest",
        "rustls",
        "tower",
        "tower_http",
    ] {
        if let Ok(quiet) = format!("{carrier}=warn").parse() {
            filter = filter.add_directive(quiet);
        }
    }
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
