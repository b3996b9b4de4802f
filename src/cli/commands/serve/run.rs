//! `--run`: a command that uses the server, whose end is the server's.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, ExitStatus};

use hyper2kvm_nbd::Server;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Stop;
use crate::error::{Error, Result};

/// Runs `command` by the shell, with where the server is in its environment, and shuts the server down after it. Gives the
/// command's exit code. A signal to this process is passed on to the shell by `stop`.
pub(super) fn with_server(command: &str, server: &Server, export: &str, stop: &Stop) -> Result<ExitCode> {
    let uris = server.uris(export);
    let uri = uris.first().cloned().unwrap_or_default();
    let failed = |what: &str| Error::failed("serve.run", what.to_owned()).found(command);
    #[allow(clippy::disallowed_methods, reason = "the user's own command, as typed")]
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command).env("uri", &uri).env("exportname", export);
    if let Some(socket) = super::hints::socket_of(&uri) {
        shell.env("unixsocket", socket);
    }
    if let Some(address) = server.tcp_address() {
        shell.env("port", address.port().to_string());
    }
    let mut child = shell.spawn().map_err(|e| failed("the shell cannot be run").because(e))?;
    let handle = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(handle) = handle.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        let _ = stop.command.set(handle);
    }
    let status = child.wait().map_err(|e| failed("waiting for the command failed").because(e))?;
    server.shutdown();
    server.wait();
    Ok(ExitCode::from(code(status)))
}

/// As shells have it: the exit code, or 128 and the number of the signal.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_the_commands() {
        assert_eq!([0, 7 << 8, 15].map(|raw| code(ExitStatus::from_raw(raw))), [0, 7, 143]);
    }
}
