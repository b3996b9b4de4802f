//! The system's `ssh` in place of our own connection: for what only that knows (GSSAPI, smart cards, `ProxyCommand`, certificates).

use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::UnixStream;

use super::super::remote::Failure;
use super::sftp::Sftp;
use crate::error::Error;
use crate::session::{Patience, VARIABLES};

/// A program whose standard input and output are the server's of files. Ends with the value.
pub(super) struct Program {
    pub(super) sftp: Sftp,
    _child: Running,
}

struct Running(Child);

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sftp.fmt(f)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts `program`, which may ask at the terminal and say on standard error why it fails.
    pub(super) async fn start(program: &Path, words: &[String], patience: Patience) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            let error =
                Error::failed("ssh.program", "cannot start the program that connects").path(program).because(error);
            Failure::Final(error)
        };
        let (ours, theirs) = Socket::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let output = theirs.try_clone().map_err(failed)?;
        let child = Running(spawn(program, words, theirs.into(), output.into()).map_err(failed)?);
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        // A user may have to type something there.
        let sftp = Sftp::start(stream, patience.silence.saturating_mul(4), patience.silence).await?;
        Ok(Self { sftp, _child: child })
    }
}

#[allow(clippy::disallowed_methods, reason = "the user named this program, and it runs nothing of the guest")]
fn spawn(program: &Path, words: &[String], input: OwnedFd, output: OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    command.args(words).stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::inherit()).spawn()
}
