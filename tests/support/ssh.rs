//! OpenSSH's server for one test: on loopback, with everything of it in the test's own folder.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Lab, Run, tools};

/// A running sshd, which lets in whoever has the private key `key` of its folder, as the user who runs the tests.
pub(crate) struct Sshd {
    child: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Sshd {
    /// Starts it, with more lines of configuration.
    pub(crate) fn start(lab: &Lab, name: &str, more: &str) -> Self {
        Self::start_by(Command::new("/usr/sbin/sshd"), lab, name, more)
    }

    /// Starts one to which root has this password: in a mount namespace of its own, where other files lie over those of `/etc`.
    pub(crate) fn start_with_password(lab: &Lab, name: &str, more: &str, password: &str) -> Self {
        let digest = tools::ok("openssl", ["passwd", "-6", password]);
        let shadow = lab.file(&format!("{name}-shadow"), format!("root:{}:19000:0:99999:7:::\n", digest.trim()));
        let allowed = "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_permit.so\n";
        let pam = lab.file(&format!("{name}-pam"), allowed);
        let script = "mount --bind \"$0\" /etc/shadow && mount --bind \"$1\" /etc/pam.d/sshd && shift && exec /usr/sbin/sshd \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).args([shadow, pam]);
        Self::start_by(command, lab, name, more)
    }

    fn start_by(mut command: Command, lab: &Lab, name: &str, more: &str) -> Self {
        let folder = lab.folder(name);
        let path = |name: &str| folder.join(name).display().to_string();
        for (file, kind, passphrase) in [
            ("host", "ed25519", ""),
            ("host-rsa", "rsa", ""),
            ("key", "ed25519", ""),
            ("locked", "ed25519", PASSPHRASE),
            ("rsa", "rsa", ""),
            ("ecdsa", "ecdsa", ""),
            ("stranger", "ed25519", ""),
        ] {
            tools::ok("ssh-keygen", ["-q", "-t", kind, "-N", passphrase, "-C", "", "-f", &path(file)]);
        }
        let public = ["key.pub", "locked.pub", "rsa.pub", "ecdsa.pub"];
        let keys: String = public.map(|name| fs::read_to_string(path(name)).expect("a key")).concat();
        fs::write(path("authorized"), keys).expect("writing");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port();
        let config = format!(
            "{more}\nListenAddress 127.0.0.1:{port}\nHostKey {host}\nHostKey {rsa}\nAuthorizedKeysFile {keys}\n\
             PidFile {pid}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nUseDNS no\nLogLevel VERBOSE\nMaxStartups 100\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n",
            host = path("host"),
            rsa = path("host-rsa"),
            keys = path("authorized"),
            pid = path("pid"),
        );
        fs::write(path("config"), config).expect("writing");
        fs::create_dir_all("/run/sshd").expect("the folder that sshd separates its privileges in");
        command.args(["-D", "-f", &path("config"), "-E", &path("log")]);
        let child = command.stdin(Stdio::null()).spawn().expect("sshd is needed: scripts/install-deps.sh");
        let mut sshd = Self { child, folder, port };
        sshd.write_known_hosts(&["host"]);
        sshd.wait();
        sshd
    }

    fn wait(&mut self) {
        for _ in 0..6000 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            let ended = self.child.try_wait().expect("waiting");
            assert!(ended.is_none(), "sshd ended: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sshd does not listen");
    }

    /// Makes the file `known` hold these keys of the server.
    pub(crate) fn write_known_hosts(&self, names: &[&str]) {
        let line = |name: &&str| {
            let key = fs::read_to_string(self.file(&format!("{name}.pub"))).expect("a key");
            format!("[127.0.0.1]:{} {key}", self.port)
        };
        fs::write(self.file("known"), names.iter().map(line).collect::<String>()).expect("writing");
    }

    /// A file of the server's own: `key`, `known`, `log`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The digest of its key.
    pub(crate) fn host_key(&self) -> String {
        let line = tools::ok("ssh-keygen", [Path::new("-lf"), &self.file("host.pub")]);
        line.split(' ').nth(1).expect("a digest").to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// The address of a file.
    pub(crate) fn url(&self, path: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, path.display())
    }

    /// A run that knows the server and has the key.
    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.run_with("key", args)
    }

    /// A run that knows the server and has no key.
    pub(crate) fn run_without_key(&self, args: &[&str]) -> Run {
        let run = Run::new(args).env("HOME", "/nonexistent").env("SSH_AUTH_SOCK", "");
        run.arg("--ssh-config").arg("/dev/null").arg("--ssh-known-hosts").arg(self.file("known"))
    }

    /// A run that knows the server and has another key.
    pub(crate) fn run_with(&self, key: &str, args: &[&str]) -> Run {
        self.run_without_key(args).arg("--ssh-identity").arg(self.file(key))
    }
}

/// What the key `locked` is encrypted with, which must never be seen anywhere.
pub(crate) const PASSPHRASE: &str = "canary-51d0e2";

impl Drop for Sshd {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}
