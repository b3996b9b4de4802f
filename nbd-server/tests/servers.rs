//! The client against other people's servers.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hyper2kvm_nbd::client::{Client, Kind, Options, Style};
use hyper2kvm_nbd::{Export, Server, Zero};

use crate::fixture::socket;
use crate::peers::run;
use crate::remote::Disk;

/// A server of another make on a port of its own, killed at the end.
pub(crate) struct Peer {
    child: Child,
    port: u16,
}

impl Peer {
    fn start(program: &str, args: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port_text = port.to_string();
        #[allow(clippy::disallowed_methods, reason = "a test runs the peers that it talks to")]
        let mut command = Command::new(program);
        command.args(args.iter().map(|arg| if *arg == "PORT" { port_text.as_str() } else { arg }));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut peer = Self { child, port };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if peer.child.try_wait().unwrap().is_some() || Instant::now() > end {
                let mut said = String::new();
                peer.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
                panic!("{program} {args:?} does not listen: {said}");
            }
            thread::sleep(Duration::from_millis(20));
        }
        peer
    }

    pub(crate) fn tcp_uri(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}/", self.port)
    }

    fn connect(&self, style: Style) -> Client {
        let options = Options { style, ..Options::default() };
        Client::with_options(self.tcp_uri("nbd").parse().unwrap(), options).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn nbdkit(args: &[&str]) -> Peer {
    Peer::start("nbdkit", &[&["-f", "-i", "127.0.0.1", "-p", "PORT"], args].concat())
}

pub(crate) fn qemu_nbd(args: &[&str]) -> Peer {
    Peer::start("qemu-nbd", &[&["-t", "-f", "raw", "-e", "8", "-b", "127.0.0.1", "-p", "PORT"], args].concat())
}

/// Writes, zeroes and trims, and reads back by many threads.
fn exercise(client: &Client) {
    let size = client.size() as usize;
    let mut want: Vec<u8> = (0..size).map(|at| (at / 512 % 250) as u8 + 1).collect();
    client.write_at(&want, 0, false).unwrap();
    let how = Zero { may_punch: true, fast: false };
    client.zero(1 << 20..2 << 20, how, true).unwrap();
    want[1 << 20..2 << 20].fill(0);
    client.write_at(&[0xaa; 512], (1 << 20) + 4096, true).unwrap();
    want[(1 << 20) + 4096..][..512].fill(0xaa);
    client.flush().unwrap();
    thread::scope(|scope| {
        for seed in 0..8_usize {
            let want = &want;
            scope.spawn(move || {
                for round in 0..40_usize {
                    let offset = (seed * 40 + round) * 12_288 % (size - 65_536);
                    let mut read = vec![0; 65_536];
                    client.read_at(&mut read, offset as u64).unwrap();
                    assert!(read == want[offset..offset + 65_536], "{offset}");
                }
            });
        }
    });
    let mut zeros = 0;
    client
        .extents(0..client.size(), &mut |extent| {
            zeros += if extent.kind.is_zero() { extent.length } else { 0 };
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(zeros <= 1 << 20, "{zeros}");
}

#[test]
fn nbdkit_memory_and_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.raw");
    std::fs::write(&file, vec![1; 4 << 20]).unwrap();
    for args in [&["memory", "4M"][..], &["file", file.to_str().unwrap()]] {
        let server = nbdkit(args);
        for style in [Style::Simple, Style::Structured, Style::Extended] {
            let client = server.connect(style);
            assert_eq!(client.terms().style, style.min(Style::Structured), "nbdkit 1.32 has no extended headers");
            exercise(&client);
        }
    }
}

#[test]
fn qemu_nbd_in_every_style() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk.raw");
    std::fs::write(&file, vec![1; 4 << 20]).unwrap();
    let server = qemu_nbd(&[file.to_str().unwrap()]);
    for style in [Style::Simple, Style::Structured, Style::Extended] {
        let client = server.connect(style);
        assert_eq!(client.terms().style, style);
        exercise(&client);
    }
}

#[test]
fn errors_of_the_server_are_told() {
    let server = nbdkit(&["--filter=error", "memory", "1M", "error-pread=ENOSPC", "error-pread-rate=100%"]);
    let error = server.connect(Style::Extended).read_at(&mut [0; 512], 0).unwrap_err();
    assert!(matches!(error.kind(), Kind::Export(_)), "{error}");
}

#[test]
fn slow_servers_are_waited_for_until_patience_ends() {
    let server = nbdkit(&["--filter=delay", "memory", "1M", "rdelay=300ms"]);
    let started = Instant::now();
    let client = server.connect(Style::Extended);
    thread::scope(|scope| {
        for at in 0..16 {
            let client = &client;
            scope.spawn(move || client.read_at(&mut [0; 512], at * 512).unwrap());
        }
    });
    assert!(started.elapsed() < Duration::from_secs(4), "all at once");
    let options = Options { patience: Duration::from_millis(100), retry_for: Duration::ZERO, ..Options::default() };
    let hasty = Client::with_options(server.tcp_uri("nbd").parse().unwrap(), options).unwrap();
    assert!(matches!(hasty.read_at(&mut [0; 512], 0).unwrap_err().kind(), Kind::TimedOut | Kind::Lost));
}

/// The contexts that qemu has besides base:allocation.
#[test]
fn dirty_bitmaps_and_depths_of_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (base, top) = (at("base.qcow2"), at("top.qcow2"));
    run("qemu-img", &["create", "-q", "-f", "qcow2", &base, "4M"]);
    run("qemu-io", &["-c", "write -P 1 0 1M", &base]);
    run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", &base, "-F", "qcow2", &top]);
    run("qemu-img", &["bitmap", "--add", &top, "monday"]);
    run("qemu-io", &["-c", "write -P 2 2M 64k", &top]);
    let server = Peer::start(
        "qemu-nbd",
        &["-t", "-r", "-f", "qcow2", "-A", "-B", "monday", "-b", "127.0.0.1", "-p", "PORT", &top],
    );
    let contexts = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:monday"];
    for style in [Style::Structured, Style::Extended] {
        let options = Options { style, contexts: contexts.map(String::from).to_vec(), ..Options::default() };
        let client = Client::with_options(server.tcp_uri("nbd").parse().unwrap(), options).unwrap();
        let told = |context: &str| {
            let mut told = Vec::new();
            client
                .status(context, 0..client.size(), &mut |status| {
                    told.push((status.length, status.flags));
                    ControlFlow::Continue(())
                })
                .unwrap();
            told
        };
        const M: u64 = 1 << 20;
        assert_eq!(told("qemu:dirty-bitmap:monday"), [(2 * M, 0), (64 << 10, 1), (2 * M - (64 << 10), 0)]);
        assert_eq!(told("qemu:allocation-depth"), [(M, 2), (M, 0), (64 << 10, 1), (2 * M - (64 << 10), 0)]);
        assert_eq!(told("base:allocation")[0], (M, 0));
    }
}

/// Our server behind qemu-storage-daemon, and that behind our client.
#[test]
fn qemu_storage_daemon_in_between() {
    let disk = Arc::new(Disk::new(4 << 20));
    let (folder, path) = socket();
    let _server = Server::builder().export("disk", Arc::clone(&disk) as Arc<dyn Export>).unix(&path).start().unwrap();
    let node = format!("driver=nbd,node-name=n,server.type=unix,server.path={},export=disk", path.display());
    let out = folder.path().join("qsd.sock");
    let listen = format!("addr.type=unix,addr.path={}", out.display());
    #[allow(clippy::disallowed_methods, reason = "a test runs the peers that it talks to")]
    let child = Command::new("qemu-storage-daemon")
        .args(["--blockdev", &node, "--nbd-server", &listen, "--export", "nbd,id=e,node-name=n,name=disk,writable=on"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _peer = Peer { child, port: 0 };
    let uri = format!("nbd+unix:///disk?socket={}", out.display());
    let options = Options { wait_for: Duration::from_secs(20), ..Options::default() };
    let client = Client::with_options(uri.parse().unwrap(), options).unwrap();
    exercise(&client);
    assert_eq!(disk.bytes.lock().unwrap()[..512], [1; 512]);
}
