//! Runs QEMU and watches it. The only file of the library that starts programs.
#![allow(clippy::disallowed_methods, reason = "a boot test runs QEMU")]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::console::{Console, Shown};
use super::signs::{Meaning, Signs};
use super::{BootReport, BootTest, Seen, Verdict};
use crate::error::{Error, Result, escape_bytes};
use crate::limits::{MAX_CONSOLE_LOG, MAX_QEMU_MESSAGE};
use crate::session::child::forward;
use crate::session::{Session, VARIABLES};

/// QEMU's names: everywhere, and on RHEL.
const PROGRAMS: &[&str] = &["qemu-system-x86_64", "/usr/libexec/qemu-kvm"];

/// Makes the kernel kill QEMU when this process ends, however it does; part of util-linux.
const LEASH: &[&str] = &["setpriv", "--pdeathsig", "KILL", "--"];

/// How long a guest is silent before an unended line is taken for a prompt: longer than an emulated guest on a busy host
/// takes between two bytes of one line.
const SILENCE: Duration = Duration::from_secs(1);

/// How often a stop is noticed.
const TICK: Duration = Duration::from_millis(200);

/// How long the console is read on behind a sign of death, for the log.
const AFTERMATH: Duration = Duration::from_secs(2);

/// A QEMU that is installed.
#[derive(Debug)]
pub(super) struct Qemu {
    /// What to run, before QEMU's own arguments.
    program: Vec<OsString>,
    version: String,
}

impl Qemu {
    /// The first that answers.
    pub(super) fn find() -> Result<Self> {
        for program in PROGRAMS {
            let leashed: Vec<_> = LEASH.iter().chain([program]).map(OsString::from).collect();
            for program in [leashed, vec![OsString::from(program)]] {
                if let Some(version) = version(&program) {
                    return Ok(Self { program, version });
                }
            }
        }
        Err(Error::failed("boot.qemu-missing", "qemu-system-x86_64 is not installed")
            .hint("install the package qemu-system-x86 (Debian, Fedora) or qemu-x86 (SUSE)"))
    }
}

/// The first line of what `program --version` prints.
fn version(program: &[OsString]) -> Option<String> {
    let (name, arguments) = program.split_first()?;
    let Output { status, stdout, .. } = Command::new(name).args(arguments).arg("--version").output().ok()?;
    let line = stdout.split(|&byte| byte == b'\n').next().filter(|line| status.success() && !line.is_empty())?;
    Some(escape_bytes(line))
}

/// Runs `qemu` until there is a verdict.
pub(super) fn watch(
    session: &Session,
    test: &BootTest,
    qemu: &Qemu,
    arguments: &[OsString],
    signs: Signs,
) -> Result<BootReport> {
    let log = Log::create(&test.console)?;
    let line: Vec<&OsStr> = qemu.program.iter().chain(arguments).map(OsString::as_os_str).collect();
    let mut watch = Watch {
        started: Instant::now(),
        heard: Instant::now(),
        guest: Guest::start(&line)?,
        log,
        console: Console::new(signs),
        matched: Vec::new(),
        death: None,
        milestones: Vec::new(),
    };
    let verdict = watch.until_verdict(session, test.timeout)?;
    let seconds = watch.seconds();
    let hint = hint(verdict, &watch);
    Ok(BootReport {
        verdict,
        matched: watch.matched,
        death: watch.death,
        milestones: watch.milestones,
        seconds,
        console: test.console.clone(),
        console_bytes: watch.log.seen,
        qemu: qemu.version.clone(),
        command: line.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        hint,
    })
}

fn hint(verdict: Verdict, watch: &Watch) -> Option<String> {
    let started = watch.milestones.iter().any(|seen| seen.sign == "kernel" || seen.sign == "init");
    match verdict {
        Verdict::Timeout if !started => Some(
            "only the serial console is watched: a guest that does not print there (console=ttyS0) shows no sign of life"
                .to_owned(),
        ),
        Verdict::Timeout => Some("it may only be slow: try a longer timeout".to_owned()),
        _ => None,
    }
}

struct Watch {
    started: Instant,
    /// When the guest last printed.
    heard: Instant,
    guest: Guest,
    log: Log,
    console: Console,
    matched: Vec<Seen>,
    death: Option<Seen>,
    milestones: Vec<Seen>,
}

impl Watch {
    fn until_verdict(&mut self, session: &Session, timeout: Duration) -> Result<Verdict> {
        loop {
            session.check()?;
            let Some(left) = timeout.checked_sub(self.started.elapsed()) else { return Ok(Verdict::Timeout) };
            let ended = self.read(left.min(TICK))?;
            if self.matched.len() >= self.console.signs().needed() {
                return Ok(Verdict::Booted);
            }
            if self.death.is_some() {
                self.read_on(session)?;
                return Ok(Verdict::Dead);
            }
            if ended {
                self.guest.check_exit()?;
                return Ok(Verdict::Exited);
            }
        }
    }

    /// Takes what the guest prints within `wait`; true when it will print no more.
    fn read(&mut self, wait: Duration) -> Result<bool> {
        let (shown, ended) = match self.guest.output.recv_timeout(wait) {
            Ok(bytes) => {
                self.log.write(&bytes)?;
                self.heard = Instant::now();
                (self.console.feed(&bytes), false)
            }
            Err(RecvTimeoutError::Timeout) if self.heard.elapsed() < SILENCE => (Vec::new(), false),
            Err(RecvTimeoutError::Timeout) => (self.console.idle(), false),
            Err(RecvTimeoutError::Disconnected) => (self.console.idle(), true),
        };
        for shown in shown {
            self.note(shown);
        }
        Ok(ended)
    }

    fn note(&mut self, shown: Shown) {
        let Some((sign, meaning)) = self.console.signs().name(shown.sign) else { return };
        let seen = Seen { sign: sign.to_owned(), line: shown.line, seconds: self.seconds() };
        match meaning {
            Meaning::Death => {
                self.death.get_or_insert(seen);
            }
            Meaning::Life => self.matched.push(seen),
            Meaning::Milestone => self.milestones.push(seen),
        }
    }

    /// Keeps a little more of the console: the lines behind a panic say the most.
    fn read_on(&mut self, session: &Session) -> Result<()> {
        let until = Instant::now().checked_add(AFTERMATH);
        while until.is_some_and(|until| Instant::now() < until) && !self.read(TICK)? {
            session.check()?;
        }
        Ok(())
    }

    fn seconds(&self) -> f64 {
        (self.started.elapsed().as_secs_f64() * 10.0).round() / 10.0
    }
}

/// QEMU while it runs; killed when dropped.
struct Guest {
    child: Child,
    output: Receiver<Vec<u8>>,
    messages: Option<JoinHandle<Vec<u8>>>,
}

impl Guest {
    fn start(line: &[&OsStr]) -> Result<Self> {
        let failed = |cause| Error::failed("boot.qemu", "QEMU cannot be started").because(cause);
        let (program, arguments) = line.split_first().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
        // A guest's console reads nothing: an open pipe keeps QEMU from polling one that has ended.
        let mut command = Command::new(program);
        VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (sender, output) = mpsc::sync_channel(16);
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let guest = Self { child, output, messages: stderr.map(|stderr| std::thread::spawn(|| keep_end(stderr))) };
        if let Some(stdout) = stdout {
            std::thread::spawn(move || forward(stdout, |chunk| sender.send(chunk).is_ok()));
        }
        Ok(guest)
    }

    /// An error when QEMU ended by itself and not well.
    fn check_exit(&mut self) -> Result<()> {
        let status = self.child.wait().map_err(|cause| Error::failed("boot.qemu", "QEMU is lost").because(cause))?;
        if status.success() {
            return Ok(());
        }
        let messages = self.messages.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        Err(Error::failed("boot.qemu", format!("QEMU ended with {status}")).found(escape_bytes(messages.trim_ascii())))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last [`MAX_QEMU_MESSAGE`] bytes of a stream.
fn keep_end(mut from: impl Read) -> Vec<u8> {
    let mut end = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(len) = from.read(&mut chunk) {
        let Some(bytes) = chunk.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        end.extend_from_slice(bytes);
        end.drain(..end.len().saturating_sub(MAX_QEMU_MESSAGE));
    }
    end
}

/// The file that keeps what the guest prints.
struct Log {
    file: File,
    path: std::path::PathBuf,
    /// Bytes that the guest printed.
    seen: u64,
}

impl Log {
    fn create(path: &Path) -> Result<Self> {
        let file =
            File::create(path).map_err(|cause| Error::write("cannot create the console log", cause).path(path))?;
        Ok(Self { file, path: path.to_owned(), seen: 0 })
    }

    /// Appends `bytes`, up to [`MAX_CONSOLE_LOG`] in all.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let room = usize::try_from(MAX_CONSOLE_LOG.saturating_sub(self.seen)).unwrap_or(usize::MAX);
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.seen = self.seen.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.file.write_all(kept).map_err(|cause| Error::write("cannot write the console log", cause).path(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use tempfile::TempDir;

    use super::*;
    use crate::boot::{Image, ImageFormat};
    use crate::error::Kind;

    /// A stand-in for QEMU: a shell script that prints what a guest would.
    fn report(script: &str, timeout: Duration, session: &Session) -> (Result<BootReport>, TempDir) {
        let dir = TempDir::new().unwrap();
        let qemu = Qemu { program: vec!["sh".into(), "-c".into(), script.into()], version: "stand-in".to_owned() };
        let image = Image { path: "x".into(), format: ImageFormat::Raw };
        let test = BootTest { timeout, ..BootTest::new(image, dir.path().join("console.log")) };
        (watch(session, &test, &qemu, &[], Signs::new(&[]).unwrap()), dir)
    }

    fn verdict(script: &str, timeout: Duration) -> BootReport {
        report(script, timeout, &Session::with_defaults()).0.unwrap()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_prompt_is_a_boot_and_the_log_is_kept() {
        let script = "printf 'SeaBIOS\\r\\n\\033[1mhost login: '; exec sleep 100";
        let (report, dir) = report(script, LONG, &Session::with_defaults());
        let report = report.unwrap();
        assert_eq!(report.verdict, Verdict::Booted);
        assert_eq!(
            (report.matched[0].sign.as_str(), report.matched[0].line.as_str()),
            ("login-prompt", "host login: ")
        );
        assert_eq!(report.milestones[0].sign, "firmware");
        assert!(report.seconds < 10.0);
        let log = std::fs::read(dir.path().join("console.log")).unwrap();
        assert_eq!(log, b"SeaBIOS\r\n\x1b[1mhost login: ");
        assert_eq!(report.console_bytes, 25);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["verdict"], &json["death"]), (&"booted".into(), &serde_json::Value::Null));
    }

    #[test]
    fn a_panic_is_death_and_the_lines_behind_it_are_kept() {
        let script = "echo 'Kernel panic - not syncing: x'; sleep .2; echo 'end of trace'; exec sleep 100";
        let (report, dir) = report(script, LONG, &Session::with_defaults());
        let report = report.unwrap();
        assert_eq!((report.verdict, report.death.unwrap().sign.as_str()), (Verdict::Dead, "kernel-panic"));
        let log = std::fs::read_to_string(dir.path().join("console.log")).unwrap();
        assert!(log.ends_with("end of trace\n"));
    }

    #[test]
    fn silence_is_a_timeout_and_an_end_is_an_end() {
        let silent = verdict("exec sleep 100", Duration::from_millis(500));
        assert_eq!(silent.verdict, Verdict::Timeout);
        assert!(silent.hint.unwrap().contains("console=ttyS0"));
        let ended = verdict("echo Power down", LONG);
        assert_eq!((ended.verdict, ended.console_bytes), (Verdict::Exited, 11));
        assert_eq!(verdict("echo 'BOOTMARK ip=[]'", LONG).verdict, Verdict::Booted, "also when it ends at once");
    }

    #[test]
    fn a_qemu_that_fails_is_an_error_with_its_message() {
        let error = report("echo 'no such device: x' >&2; exit 1", LONG, &Session::with_defaults()).0.unwrap_err();
        assert_eq!(error.code(), "boot.qemu");
        assert!(error.to_string().contains("no such device: x"), "{error}");
    }

    #[test]
    fn a_stop_is_noticed_and_ends_the_guest() {
        let session = Session::with_defaults();
        session.cancel();
        let (report, dir) = report("echo $$; exec sleep 100", LONG, &session);
        assert_eq!(report.unwrap_err().kind(), Kind::Interrupted);
        assert!(dir.path().join("console.log").exists());
    }

    #[test]
    fn a_flood_is_cut_in_the_log_alone() {
        let dir = TempDir::new().unwrap();
        let mut log = Log::create(&dir.path().join("log")).unwrap();
        log.seen = MAX_CONSOLE_LOG - 10;
        for bytes in [&b"12345"[..], b"6789012", b"345"] {
            log.write(bytes).unwrap();
        }
        assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), b"1234567890");
        assert_eq!(log.seen, MAX_CONSOLE_LOG + 5);
        assert_eq!(keep_end(&vec![b'x'; MAX_QEMU_MESSAGE + 1][..]).len(), MAX_QEMU_MESSAGE);
        assert_eq!(keep_end(&b"abc"[..]), b"abc");
    }

    #[test]
    fn a_log_that_cannot_be_made_is_said_before_anything_starts() {
        let dir = TempDir::new().unwrap();
        let marker = dir.path().join("started");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let image = Image { path: "x".into(), format: ImageFormat::Raw };
        let test = BootTest::new(image, PathBuf::from("/nonexistent/console.log"));
        let script = format!("touch {}", marker.display());
        let qemu = Qemu { program: vec!["sh".into(), "-c".into(), script.into()], version: String::new() };
        let error = watch(&Session::with_defaults(), &test, &qemu, &[], Signs::new(&[]).unwrap()).unwrap_err();
        assert_eq!(error.code(), "output.write");
        assert!(!marker.exists());
    }

    #[test]
    fn qemu_is_found_and_ends_with_us() {
        let qemu = Qemu::find().unwrap();
        assert!(qemu.version.starts_with("QEMU emulator version"), "{}", qemu.version);
        assert_eq!(qemu.program[0], "setpriv", "util-linux is installed");
    }
}
