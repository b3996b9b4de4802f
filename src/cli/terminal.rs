//! Questions on the terminal whose answers are not shown.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::session::{Ask, Secret, Session};

/// Bytes of an answer: what cryptsetup reads of a passphrase at most.
const LONGEST: u64 = 512 << 10;

/// The user at the terminal, who is asked for secrets that turn out to be needed.
#[derive(Debug)]
struct Person;

impl Ask for Person {
    fn ask(&self, what: &str, session: &Session) -> Result<Secret> {
        let cannot = |error: std::io::Error| {
            Error::new(Kind::Usage, "http.login", "a secret cannot be asked for on the terminal").because(error)
        };
        question(what, &|| session.check(), &cannot).map(Secret::new)
    }
}

/// Whoever can be asked: nobody, unless somebody sits there who sees what is asked.
pub(super) fn person() -> Option<Arc<dyn Ask>> {
    let sees = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    sees.then(|| Arc::new(Person) as Arc<dyn Ask>)
}

/// Asks on the terminal, whatever standard input and output are, without showing what is typed.
///
/// # Errors
/// Those of `check`, which is asked now and then; `failed` makes those of the terminal.
pub(super) fn question(
    what: &str,
    check: &dyn Fn() -> Result<()>,
    failed: &dyn Fn(std::io::Error) -> Error,
) -> Result<Vec<u8>> {
    let mut silent = Silent::open().map_err(failed)?;
    // In one piece, since a log may be shown on the same terminal.
    let question = format!("{}: ", crate::error::escape(what));
    silent.terminal.write_all(question.as_bytes()).map_err(failed)?;
    while !silent.is_ready().map_err(failed)? {
        check()?;
    }
    silent.line().map_err(failed)
}

/// A terminal that shows nothing of what is typed, until it is dropped.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn open() -> std::io::Result<Self> {
        let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&terminal)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }

    /// Waits a moment for a line to be typed, and says whether one was.
    fn is_ready(&self) -> std::io::Result<bool> {
        const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        match poll(&mut [PollFd::new(&self.terminal, PollFlags::IN)], Some(&NAP)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The line that was typed, without its end.
    fn line(&mut self) -> std::io::Result<Vec<u8>> {
        let mut line = Zeroizing::new(Vec::new());
        BufReader::new(&self.terminal).take(LONGEST).read_until(b'\n', &mut line)?;
        Ok(line.strip_suffix(b"\n").unwrap_or(&line).to_vec())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        let _ = writeln!(self.terminal);
    }
}
