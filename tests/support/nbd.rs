//! NBD servers of other makes for one test.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server on a Unix socket, killed at the end.
pub(crate) struct Server {
    child: Child,
    socket: PathBuf,
}

impl Server {
    /// nbdkit with `args` behind its own.
    pub(crate) fn nbdkit<I: AsRef<std::ffi::OsStr>>(socket: &Path, args: impl IntoIterator<Item = I>) -> Self {
        let mut command = Command::new("nbdkit");
        command.args(["-f", "-U"]).arg(socket).args(args);
        Self::start(command, socket)
    }

    /// qemu-nbd of an image in a format, for eight clients.
    pub(crate) fn qemu(socket: &Path, format: &str, image: &Path, args: &[&str]) -> Self {
        let mut command = Command::new("qemu-nbd");
        command.args(["-t", "-e", "8", "-f", format, "-k"]).arg(socket).args(args).arg(image);
        Self::start(command, socket)
    }

    fn start(mut command: Command, socket: &Path) -> Self {
        let _ = std::fs::remove_file(socket);
        let child = command.stdin(Stdio::null()).spawn().expect("nbdkit and qemu-utils: scripts/install-deps.sh");
        let mut server = Self { child, socket: socket.to_owned() };
        for _ in 0..6000 {
            if UnixStream::connect(socket).is_ok() {
                return server;
            }
            assert!(server.child.try_wait().expect("waiting").is_none(), "{command:?} ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{command:?} does not listen");
    }

    /// The address of an export.
    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    /// Ends it in the friendly way, so that it writes what it kept.
    pub(crate) fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.child.wait().expect("waiting");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
