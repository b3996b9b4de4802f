//! The program under test: a builder that reads like a sentence, and what came out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::Lab;

/// Longer than any one run takes, even of an unoptimized build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// A run of `hyper2kvm` to be.
pub(crate) struct Run {
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    wrappers: Vec<OsString>,
    folder: Option<PathBuf>,
    program: PathBuf,
    stdin: Option<File>,
    patience: Duration,
}

impl Run {
    /// `hyper2kvm ARGS`.
    pub(crate) fn new<I>(args: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Self {
            args: args.into_iter().map(|arg| arg.as_ref().to_owned()).collect(),
            env: Vec::new(),
            wrappers: Vec::new(),
            folder: None,
            program: PathBuf::from(env!("CARGO_BIN_EXE_hyper2kvm")),
            stdin: None,
            patience: PATIENCE,
        }
    }

    /// With one more argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With more arguments.
    pub(crate) fn args<const N: usize>(self, args: [&str; N]) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// With a variable in the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// With that on standard input.
    pub(crate) fn stdin(mut self, file: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(File::from(file.into()));
        self
    }

    /// In a folder.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// As another user, without any other group or capability. The program is copied into `lab`, since a checkout may lie where that
    /// user cannot go.
    pub(crate) fn user(mut self, uid: u32, lab: &Lab) -> Self {
        let copy = lab.path("hyper2kvm");
        if !copy.exists() {
            // By another process: a copy made here could be open for writing in what another test forks just then, and a program that
            // is open for writing cannot be run.
            let copied = Command::new("install").args(["-m", "755"]).args([&self.program, &copy]).status();
            assert!(copied.is_ok_and(|status| status.success()), "copying the program into the lab");
        }
        self.program = copy;
        let [reuid, regid] = ["--reuid", "--regid"].map(|flag| format!("{flag}={uid}"));
        self.wrap(["setpriv", &reuid, &regid, "--clear-groups", "--inh-caps=-all"])
    }

    /// Under `strace -f`, for the given system calls, with its log in `log`.
    pub(crate) fn strace(self, calls: &str, log: &Path) -> Self {
        let log = log.to_owned();
        self.wrap(["strace", "-f", "-qq", "-y", "-s", "4096", "-e", &format!("trace={calls}"), "-o"]).wrap([log])
    }

    /// To be killed as it makes the `nth` call of one kind, before that has an effect; strace's log goes to `log`.
    pub(crate) fn killed_at(self, call: &str, nth: u32, log: &Path) -> Self {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={nth}"));
        self.wrap(["strace", "-f", "-qq", "-e", &trace, "-e", &inject, "-o"]).wrap([log])
    }

    /// On a terminal of its own, where the lines of `answers` are typed, one each time that a secret is asked for. What the terminal
    /// showed is standard output then.
    pub(crate) fn typing(self, answers: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parts/typed.py");
        self.wrap(["python3".as_ref(), script.as_ref(), answers.as_os_str()])
    }

    /// Under `prlimit`, for example `--as=268435456`.
    pub(crate) fn limit(self, limit: &str) -> Self {
        self.wrap(["prlimit", limit])
    }

    fn wrap<I>(mut self, words: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.wrappers.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Starts it and gives the handle, for tests that kill or talk to it.
    pub(crate) fn start(self) -> Running {
        let mut words = self.wrappers;
        words.push(self.program.into_os_string());
        words.extend(self.args);
        let line = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env).env_remove("HYPER2KVM_LOG");
        // Cargo's, for build products; the program as installed runs without.
        command.env_remove("LD_LIBRARY_PATH");
        command.stdin(self.stdin.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
        Running { child: Some(child), line, patience: self.patience }
    }

    /// Runs it to its end, whatever that is.
    pub(crate) fn ran(self) -> Ran {
        self.start().wait()
    }

    /// Runs it; it must succeed.
    pub(crate) fn success(self) -> Ran {
        self.ran().exits_with(0)
    }

    /// Runs it; it must fail with this exit code and say why, without a panic.
    pub(crate) fn fails_with(self, code: i32) -> Ran {
        let ran = self.ran().exits_with(code);
        assert!(!ran.stderr.trim().is_empty(), "{} failed without a word", ran.line);
        ran
    }
}

/// A run under way. It is killed when dropped.
pub(crate) struct Running {
    child: Option<Child>,
    line: String,
    patience: Duration,
}

impl Running {
    /// Whether it has not ended by itself.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.as_mut().expect("it runs").try_wait(), Ok(None))
    }

    /// SIGKILL, as the kernel's out-of-memory killer or a power cut would have it.
    pub(crate) fn kill(mut self) -> Ran {
        let child = self.child.as_mut().expect("it runs");
        child.kill().expect("killing");
        self.wait()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGTERM, and its end.
    pub(crate) fn terminate(self) -> Ran {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("it runs"));
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ran {
        let mut child = self.child.take().expect("it runs");
        let stdout = gather(child.stdout.take());
        let stderr = gather(child.stderr.take());
        let start = Instant::now();
        let mut peak = 0;
        let status = loop {
            peak = peak.max(high_water(child.id()));
            if let Some(status) = child.try_wait().expect("waiting") {
                break status;
            }
            if start.elapsed() > self.patience {
                let _ = child.kill();
                panic!("{} still ran after {:?}", self.line, self.patience);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().expect("a reader"));
        let ran = Ran { line: self.line.clone(), status, stdout, stderr, peak };
        assert!(!ran.stderr.contains("panicked at"), "{ran}");
        ran
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn gather<R: Read + Send + 'static>(stream: Option<R>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The most memory that a process ever had resident, in bytes. The kernel keeps the mark, so sampling misses only what grew
/// in the last milliseconds.
fn high_water(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What a run left.
pub(crate) struct Ran {
    /// The command line.
    pub(crate) line: String,
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// What it said.
    pub(crate) stdout: String,
    /// What it said of errors, and its log.
    pub(crate) stderr: String,
    /// The most memory it had resident, in bytes.
    pub(crate) peak: u64,
}

impl Ran {
    /// It ended with this exit code.
    pub(crate) fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self}");
        self
    }

    /// Standard output has this text.
    pub(crate) fn stdout_contains(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "{text:?} is not in the output of {self}");
        self
    }

    /// Standard error has this text.
    pub(crate) fn stderr_contains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in the errors of {self}");
        self
    }

    /// The error has this stable code, which the program explains.
    pub(crate) fn code(self, code: &str) -> Self {
        let ran = self.stderr_contains(code);
        Run::new(["help", code]).success();
        ran
    }

    /// Standard output as one JSON object.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}) in the output of {self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}`, which ended with {}\n-- stdout\n{}\n-- stderr\n{}",
            self.line, self.status, self.stdout, self.stderr
        )
    }
}
