//! Runs guestfish and talks with it. The only file of this module that starts a program and opens files.
#![allow(clippy::disallowed_methods, reason = "the appliance is run by guestfish, and files go to and from it")]

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result, escape};
use crate::limits::{MAX_APPLIANCE_ANSWER, MAX_APPLIANCE_MESSAGE};
use crate::session::child::forward;
use crate::session::{Session, VARIABLES};

/// guestfish, first as one that the kernel kills when this process ends, however it does; `setpriv` is part of util-linux.
const PROGRAMS: &[&[&str]] = &[&["setpriv", "--pdeathsig", "KILL", "--", "guestfish"], &["guestfish"]];

/// How often a stop is noticed.
const TICK: Duration = Duration::from_millis(200);

/// The longest silence behind a command: an emulated appliance takes a minute or two to start on a busy host.
const SILENCE: Duration = Duration::from_secs(900);

/// A guestfish that runs; killed when dropped, and the appliance with it.
#[derive(Debug)]
pub(super) struct Guestfish {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    /// What guestfish says beside its answers. A file, so that all of it is there when an answer has ended.
    messages: File,
    heard: u64,
    /// What ends an answer: a line that nobody can know before.
    end: String,
    folder: PathBuf,
}

/// What came of a command.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) printed: Vec<u8>,
    /// What guestfish says went wrong; empty when nothing did.
    pub(super) complaint: String,
}

impl Guestfish {
    /// Starts guestfish, but not its appliance. `folder` is private, and gets what passes between the two.
    pub(super) fn start(folder: &Path, is_emulated: bool) -> Result<Self> {
        let mut missing = Error::failed("appliance.missing", "guestfish is not installed")
            .hint("install libguestfs-tools (Debian), guestfs-tools (Fedora, SUSE)");
        for program in PROGRAMS {
            match Self::run(program, folder, is_emulated) {
                Ok(mut running) => {
                    // setpriv itself starts well where guestfish is missing.
                    if running.ask(&["version".to_owned()], &Session::with_defaults()).is_ok() {
                        return Ok(running);
                    }
                }
                Err(cause) => missing = missing.because(cause),
            }
        }
        Err(missing)
    }

    fn run(program: &[&str], folder: &Path, is_emulated: bool) -> std::io::Result<Self> {
        let messages = folder.join("messages");
        let writer = File::create(&messages)?;
        let (name, arguments) = program.split_first().ok_or(ErrorKind::InvalidInput)?;
        let mut command = Command::new(name);
        VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        // Debugging would mix with the messages.
        for name in ["LIBGUESTFS_DEBUG", "LIBGUESTFS_TRACE", "GUESTFISH_INIT", "GUESTFISH_PS1", "GUESTFISH_OUTPUT"] {
            command.env_remove(name);
        }
        if std::env::var_os("LIBGUESTFS_BACKEND").is_none() {
            command.env("LIBGUESTFS_BACKEND", "direct");
        }
        if is_emulated {
            command.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
        }
        // What errors are called is looked at.
        command.env("LC_ALL", "C").args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(writer);
        let mut child = command.spawn()?;
        let (sender, output) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || forward(stdout, |chunk| sender.send(chunk).is_ok()));
        }
        let [a, b] = [(); 2].map(|()| RandomState::new().hash_one("answer"));
        Ok(Self {
            input: child.stdin.take(),
            child,
            output,
            messages: File::open(messages)?,
            heard: 0,
            end: format!("end-{a:016x}{b:016x}"),
            folder: folder.to_owned(),
        })
    }

    /// Runs one command after another, and gives what they print together.
    ///
    /// # Errors
    /// `appliance.lost` when guestfish ends or says nothing any more. What a command complains about is no error here.
    pub(super) fn ask(&mut self, commands: &[String], session: &Session) -> Result<Answer> {
        let mut text = String::new();
        for command in commands {
            // With the hyphen an error does not end guestfish.
            text.push('-');
            text.push_str(command);
            text.push('\n');
        }
        text.push_str(&format!("echo {}\n", self.end));
        let input = self.input.as_mut().ok_or_else(|| lost("guestfish was ended"))?;
        let sent = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        let printed = match sent {
            Ok(()) => self.listen(session),
            Err(cause) => Err(lost("guestfish takes no more commands").because(cause)),
        };
        let complaint = self.complaint()?;
        let printed = printed.map_err(|error| if complaint.is_empty() { error } else { error.found(&complaint) })?;
        Ok(Answer { printed, complaint })
    }

    /// What is printed up to the end of the answer.
    fn listen(&mut self, session: &Session) -> Result<Vec<u8>> {
        let end = format!("{}\n", self.end).into_bytes();
        let (mut printed, mut since) = (Vec::new(), Instant::now());
        loop {
            session.check()?;
            match self.output.recv_timeout(TICK) {
                Ok(bytes) => {
                    printed.extend_from_slice(&bytes);
                    since = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) if since.elapsed() < SILENCE => continue,
                Err(RecvTimeoutError::Timeout) => return Err(lost("guestfish does not answer any more")),
                Err(RecvTimeoutError::Disconnected) => return Err(lost("guestfish has ended")),
            }
            if printed.ends_with(&end) {
                printed.truncate(printed.len().saturating_sub(end.len()));
                return Ok(printed);
            }
            if printed.len() > MAX_APPLIANCE_ANSWER {
                return Err(lost("guestfish answers with more than makes sense"));
            }
        }
    }

    /// What was said since the last time.
    fn complaint(&mut self) -> Result<String> {
        let failed = |cause| lost("guestfish's messages cannot be read").because(cause);
        self.messages.seek(SeekFrom::Start(self.heard)).map_err(failed)?;
        let mut said = Vec::new();
        (&self.messages).take(MAX_APPLIANCE_MESSAGE).read_to_end(&mut said).map_err(failed)?;
        self.heard = self.messages.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(complaints(&String::from_utf8_lossy(&said)))
    }

    /// The path of the file `name` that passes between the two.
    pub(super) fn passing(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Gives guestfish a file to read, and its path.
    pub(super) fn hand_over(&self, content: &[u8]) -> Result<PathBuf> {
        let path = self.passing("in");
        let written = File::create(&path).and_then(|mut file| file.write_all(content));
        written.map_err(|cause| Error::write("writing for the appliance", cause).path(&path))?;
        Ok(path)
    }

    /// What guestfish wrote to the file `name`, at most `max` bytes, or nothing when it wrote nothing. The file goes.
    pub(super) fn take(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let path = self.passing(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(lost("what the appliance wrote cannot be read").because(cause)),
        };
        let _ = std::fs::remove_file(&path);
        let mut content = Vec::new();
        let read = file.take(max.saturating_add(1)).read_to_end(&mut content);
        read.map_err(|cause| lost("what the appliance wrote cannot be read").because(cause))?;
        if u64::try_from(content.len()).unwrap_or(u64::MAX) > max {
            return Err(lost("the appliance wrote more than makes sense"));
        }
        Ok(Some(content))
    }

    /// Ends guestfish, which unmounts everything and ends the appliance.
    pub(super) fn finish(&mut self, session: &Session) -> Result<()> {
        let answer = self.ask(&["umount-all".to_owned(), "shutdown".to_owned()], session)?;
        self.input = None;
        if answer.complaint.is_empty() {
            return Ok(());
        }
        Err(lost("the appliance did not end well").found(answer.complaint))
    }
}

impl Drop for Guestfish {
    fn drop(&mut self) {
        // libguestfs has a process that ends the appliance when guestfish is gone. Both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The errors among messages.
fn complaints(messages: &str) -> String {
    let error = |line: &str| match line.split_once("libguestfs: error: ") {
        Some((_, error)) => Some(error.to_owned()),
        None => line.starts_with("guestfish: ").then(|| line.to_owned()),
    };
    let errors: Vec<String> = messages.lines().filter_map(error).collect();
    escape(&errors.join("; "))
}

fn lost(what: &str) -> Error {
    Error::failed("appliance.lost", what).hint("libguestfs-test-tool tells whether appliances run on this host")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::child::CHUNK;

    /// Something that answers as guestfish does.
    fn fake(script: &str) -> (tempfile::TempDir, Guestfish) {
        let folder = tempfile::tempdir().unwrap();
        let reads = format!("while read -r word rest; do case $word in echo) echo \"$rest\";; {script} esac; done");
        let running = Guestfish::run(&["sh", "-c", &reads], folder.path(), true).unwrap();
        (folder, running)
    }

    fn asked(fake: &mut Guestfish, commands: &[&str]) -> Result<Answer> {
        fake.ask(&commands.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), &Session::with_defaults())
    }

    #[test]
    fn errors_are_told_from_what_else_is_said() {
        let said = "libguestfs: warning: x\n*stdin*:6: libguestfs: error: lstatns: /v0: No such file\nDo:\n  export\n\
                    libguestfs: error: run failed\nguestfish: no\u{1b}[0m\n";
        assert_eq!(complaints(said), "lstatns: /v0: No such file; run failed; guestfish: no\\u{1b}[0m");
        assert_eq!(complaints("libguestfs: warning: nothing\n"), "");
    }

    #[test]
    fn each_answer_has_its_own_output_and_complaints() {
        let script = "-say) printf '%s' \"$rest\";; -fail) echo \"libguestfs: error: $rest\" >&2;;";
        let (_folder, mut fake) = fake(script);
        let answer = asked(&mut fake, &["say a", "fail b", "say c"]).unwrap();
        assert_eq!((answer.printed.as_slice(), answer.complaint.as_str()), (&b"ac"[..], "b"));
        let answer = asked(&mut fake, &["fail x", "fail y"]).unwrap();
        assert_eq!((answer.printed.as_slice(), answer.complaint.as_str()), (&b""[..], "x; y"));
        let answer = asked(&mut fake, &[]).unwrap();
        assert_eq!((answer.printed.as_slice(), answer.complaint.as_str()), (&b""[..], ""));
    }

    #[test]
    fn one_that_ends_is_an_error_with_its_last_words() {
        let (_folder, mut fake) = fake("-die) echo 'libguestfs: error: gone' >&2; exit 1;;");
        let error = asked(&mut fake, &["die"]).unwrap_err();
        assert_eq!(error.code(), "appliance.lost");
        assert!(error.to_string().contains("gone"), "{error}");
        assert_eq!(asked(&mut fake, &["say"]).unwrap_err().code(), "appliance.lost");
    }

    #[test]
    fn a_program_that_is_missing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Guestfish::run(&["/nowhere/guestfish"], folder.path(), true).is_err());
    }

    #[test]
    fn a_stop_is_noticed() {
        let (_folder, mut fake) = fake("-wait) sleep 60;;");
        let session = Session::with_defaults();
        session.cancel();
        let error = fake.ask(&["wait".to_owned()], &session).unwrap_err();
        assert_eq!(error.code(), "session.interrupted");
    }

    #[test]
    fn answers_and_messages_are_bounded() {
        let script = "-much) head -c $rest /dev/zero;; -moan) head -c $rest /dev/zero >&2; echo >&2; \
                      echo 'libguestfs: error: last' >&2;;";
        let (_folder, mut fake) = fake(script);
        for len in [MAX_APPLIANCE_ANSWER - 1, MAX_APPLIANCE_ANSWER] {
            // The line at the end comes with the last bytes, or after them.
            let most = len.saturating_sub(CHUNK);
            assert_eq!(asked(&mut fake, &[&format!("much {most}")]).unwrap().printed.len(), most);
        }
        assert_eq!(asked(&mut fake, &["moan 100"]).unwrap().complaint, "last");
        assert_eq!(asked(&mut fake, &[&format!("moan {MAX_APPLIANCE_MESSAGE}")]).unwrap().complaint, "");
        assert_eq!(asked(&mut fake, &["moan 0"]).unwrap().complaint, "last");
        let error = asked(&mut fake, &[&format!("much {}", MAX_APPLIANCE_ANSWER + CHUNK)]).unwrap_err();
        assert_eq!(error.code(), "appliance.lost");
    }

    #[test]
    fn files_that_pass_are_taken_once_and_bounded() {
        let (folder, fake) = fake("");
        let path = fake.hand_over(b"content").unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"content");
        for (max, taken) in [(3, Ok(Some(b"abc".to_vec()))), (4, Ok(Some(b"abc".to_vec()))), (2, Err("appliance.lost"))]
        {
            std::fs::write(folder.path().join("out"), "abc").unwrap();
            assert_eq!(fake.take("out", max).map_err(|error| error.code()), taken);
            assert_eq!(fake.take("out", max).unwrap(), None);
        }
    }
}
