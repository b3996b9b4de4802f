//! NBD servers of other makes for one test, and a line to them that is counted, cut and held up.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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

/// A line between a client and a server.
pub(crate) struct Line {
    socket: PathBuf,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes that went from the server to the client.
    sent: AtomicU64,
    /// After so many of them, a connection is cut; never if 0.
    cut: AtomicU64,
    /// Connections that were cut.
    cuts: AtomicU64,
    /// Nothing goes through.
    held: AtomicBool,
}

impl Line {
    /// A line at `socket` to the server at `to`.
    pub(crate) fn new(socket: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let (state, to) = (Arc::new(State::default()), to.to_owned());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&to) else { continue };
                let back = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
                let (forth, state) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || forth.carry(client, server, false));
                std::thread::spawn(move || state.carry(back.1, back.0, true));
            }
        });
        Self { socket: socket.to_owned(), state }
    }

    /// The address of an export at its other end.
    pub(crate) fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }

    /// From now on each new connection is cut after so many bytes from the server.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.state.cut.store(bytes, Ordering::Relaxed);
    }

    /// Lets nothing through, or everything again.
    pub(crate) fn hold(&self, held: bool) {
        self.state.held.store(held, Ordering::Relaxed);
    }

    /// Bytes that the server sent.
    pub(crate) fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Connections that were cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.state.cuts.load(Ordering::Relaxed)
    }
}

impl State {
    fn carry(&self, mut from: UnixStream, mut to: UnixStream, counts: bool) {
        let (mut buf, mut passed) = ([0; 16 << 10], 0);
        let cut = self.cut.load(Ordering::Relaxed);
        while let Ok(len @ 1..) = from.read(&mut buf) {
            while self.held.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(10));
            }
            if to.write_all(&buf[..len]).is_err() {
                break;
            }
            passed += len as u64;
            if counts {
                self.sent.fetch_add(len as u64, Ordering::Relaxed);
                if cut > 0 && passed >= cut {
                    self.cuts.fetch_add(1, Ordering::Relaxed);
                    break;
                }
            }
        }
        for socket in [from, to] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
