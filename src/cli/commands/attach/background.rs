//! The process in the background: this program again, which serves until it is detached.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{CWD, Mode, OFlags};

use super::state::Record;
use crate::cli::commands::Context;
use crate::error::{Error, Result};

/// What became of it.
pub(super) enum Started {
    /// It has attached this, and serves it.
    Attached(Record),
    /// It has failed with this code, and said why.
    Failed(ExitCode),
}

/// Starts it with this process's own arguments, and returns once it has attached or failed.
pub(super) fn start(context: &Context) -> Result<Started> {
    let failed = |what: &str| Error::failed("attach.background", what.to_owned());
    let program = std::env::current_exe().map_err(|e| failed("this program cannot be found").because(e))?;
    // What it says of errors is shown here; later nobody reads it, and a pipe would end with this process.
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let log = rustix::fs::openat(CWD, std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR);
    let mut log = log.map(File::from).map_err(|e| failed("there is no place for its messages").because(e))?;
    let errors = log.try_clone().map_err(|e| failed("there is no place for its messages").because(e))?;
    #[allow(clippy::disallowed_methods, reason = "this program itself")]
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("--foreground");
    if !context.output.is_json() {
        command.arg("--json");
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    // Ctrl-C in this terminal is not for it.
    command.process_group(0);
    let mut child = command.spawn().map_err(|e| failed("it cannot be started").because(e))?;
    // One line is all that it ever says.
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut said);
        read.map_err(|e| failed("it cannot be listened to").because(e))?;
    }
    if let Some(record) = Record::parse(&said) {
        return Ok(Started::Attached(record));
    }
    let status = child.wait().map_err(|e| failed("it cannot be waited for").because(e))?;
    let mut why = String::new();
    let _ = log.rewind().and_then(|()| log.read_to_string(&mut why));
    context.output.errors(&why);
    if context.output.is_json() {
        context.output.line(said.trim_end())?;
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Started::Failed(ExitCode::from(code)))
}
