//! A line between a client and a server, by a Unix socket or TCP, that is counted, cut and held up.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A line between a client and a server.
pub(crate) struct Line {
    place: Place,
    state: Arc<State>,
}

/// Where its end is.
enum Place {
    Socket(PathBuf),
    Port(u16),
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
    pub(crate) fn unix(socket: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let (state, to) = (Arc::new(State::default()), to.to_owned());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = UnixStream::connect(&to) {
                    State::join(&shared, client, server);
                }
            }
        });
        Self { place: Place::Socket(socket.to_owned()), state }
    }

    /// A line on loopback to the server at `port` there.
    pub(crate) fn tcp(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("its address").port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", port)) {
                    State::join(&shared, client, server);
                }
            }
        });
        Self { place: Place::Port(own), state }
    }

    /// The address of an export at its other end, by a Unix socket.
    pub(crate) fn uri(&self, export: &str) -> String {
        match &self.place {
            Place::Socket(path) => format!("nbd+unix:///{export}?socket={}", path.display()),
            Place::Port(port) => format!("nbd://127.0.0.1:{port}/{export}"),
        }
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        let Place::Port(port) = self.place else { panic!("a line by a Unix socket") };
        port
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

/// A connected socket.
trait Wire: Read + Write + Send + Sized + 'static {
    fn copy(&self) -> Self;
    fn close(&self, how: Shutdown);
    /// How a connection is cut so that what was sent before still comes.
    const CUT: Shutdown;
}

impl Wire for UnixStream {
    fn copy(&self) -> Self {
        self.try_clone().expect("a socket")
    }
    fn close(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
    const CUT: Shutdown = Shutdown::Both;
}

impl Wire for TcpStream {
    fn copy(&self) -> Self {
        self.try_clone().expect("a socket")
    }
    fn close(&self, how: Shutdown) {
        let _ = self.shutdown(how);
    }
    // What the client says meanwhile would be answered with a reset, which throws away what is on its way.
    const CUT: Shutdown = Shutdown::Write;
}

impl State {
    fn join<W: Wire>(state: &Arc<Self>, client: W, server: W) {
        let back = (client.copy(), server.copy());
        let (forth, state) = (Arc::clone(state), Arc::clone(state));
        std::thread::spawn(move || forth.ask(client, &server));
        std::thread::spawn(move || state.answer(back.1, back.0));
    }

    /// From the client to the server, to the client's end.
    fn ask<W: Wire>(&self, mut client: W, server: &W) {
        let (mut buf, mut to) = ([0; 16 << 10], server.copy());
        while let Ok(len @ 1..) = client.read(&mut buf) {
            self.wait();
            // A server that is gone does not hear it.
            let _ = to.write_all(&buf[..len]);
        }
        server.close(Shutdown::Both);
    }

    /// From the server to the client, to the server's end or until it is time to cut.
    fn answer<W: Wire>(&self, mut server: W, mut client: W) {
        let (mut buf, mut passed) = ([0; 16 << 10], 0);
        let cut = self.cut.load(Ordering::Relaxed);
        while let Ok(len @ 1..) = server.read(&mut buf) {
            self.wait();
            if client.write_all(&buf[..len]).is_err() {
                break;
            }
            passed += len as u64;
            self.sent.fetch_add(len as u64, Ordering::Relaxed);
            if cut > 0 && passed >= cut {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        server.close(Shutdown::Both);
        client.close(W::CUT);
    }

    fn wait(&self) {
        while self.held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
