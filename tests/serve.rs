//! `serve`: other programs' NBD clients see the flattened disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::run::Running;
use crate::support::tools::Piece;
use crate::support::{Lab, NOBODY, Run, Variant, tools};

mod clients;
mod exports;
mod fixed;
mod kept;
mod stress;
mod writable;

/// A server on a Unix socket in `lab`, run by a plain user.
struct Server {
    running: Running,
    socket: PathBuf,
}

impl Server {
    fn start(source: &Path, lab: &Lab) -> Self {
        Self::start_with(source, &[], lab)
    }

    /// With more arguments.
    fn start_with(source: &Path, args: &[&str], lab: &Lab) -> Self {
        let home = lab.folder_of(NOBODY, "run");
        let source = lab.link(source, "source.img");
        let socket = home.join("nbd.sock");
        let run = Run::new(["serve".as_ref(), source.as_os_str(), "--unix".as_ref(), socket.as_os_str()]);
        let run = args.iter().fold(run, Run::arg).env("TMPDIR", &home);
        let mut running = run.user(NOBODY, lab).start();
        wait_for(|| socket.exists() || !running.is_alive());
        assert!(running.is_alive(), "the server ended: {}", running.wait());
        Self { running, socket }
    }

    fn uri(&self) -> String {
        self.uri_of("")
    }

    fn uri_of(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.socket.display())
    }
}

/// A raw disk of 16 MiB in `lab`: an MBR with two partitions, and bytes of which no two sectors are the same, with gaps.
fn small_disk(lab: &Lab) -> PathBuf {
    let mut bytes = vec![0; 16 << 20];
    for (index, sector) in bytes.chunks_mut(512).enumerate().filter(|(index, _)| index % 1024 < 512) {
        sector.fill(u8::try_from(index % 251).expect("a byte"));
        sector[..8].copy_from_slice(&(index as u64).to_le_bytes());
    }
    bytes[..512].fill(0);
    for (entry, (start, count)) in [(2048_u32, 8192_u32), (10240, 16384)].into_iter().enumerate() {
        let at = 446 + 16 * entry;
        bytes[at + 4] = 0x83;
        bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    }
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    lab.file("small.raw", bytes)
}

/// A disk image of `format` with the bytes of `raw`.
fn image_of(raw: &Path, format: &str, lab: &Lab) -> PathBuf {
    let image = lab.path(&format!("small.{format}"));
    let args = ["convert", "-f", "raw", "-O", format].map(Path::new).into_iter().chain([raw, image.as_path()]);
    tools::ok("qemu-img", args);
    image
}

fn wait_for(mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_client_reads_the_same_disk() {
    let lab = Lab::new();
    let server = Server::start(&Variant::Plain.ova(), &lab);
    let raw = Variant::Plain.raw();

    let info = tools::ok("nbdinfo", ["--json", &server.uri()]);
    let info: serde_json::Value = serde_json::from_str(&info).expect("nbdinfo prints JSON");
    let export = &info["exports"][0];
    assert_eq!(export["export-size"], 3_u64 << 30);
    assert_eq!(export["is_read_only"], true);
    assert_eq!(info["structured"], true);

    let copy = lab.path("nbdcopy.raw");
    tools::ok("nbdcopy", [server.uri().as_ref(), copy.as_os_str()]);
    tools::assert_same_content(("raw", &raw), ("raw", &copy));
    std::fs::remove_file(copy).expect("removing");

    tools::assert_same_content(("raw", &raw), ("raw", Path::new(&server.uri())));
}

#[test]
fn the_map_is_that_of_the_image() {
    let lab = Lab::new();
    let server = Server::start(&Variant::Plain.ova(), &lab);
    let map = tools::ok("nbdinfo", ["--map", "--json", &server.uri()]);
    let map: serde_json::Value = serde_json::from_str(&map).expect("nbdinfo prints JSON");
    // Bit 0: a hole. Bit 1: reads as zeros.
    let served = map.as_array().expect("a list").iter().map(|extent| {
        let number = |name: &str| extent[name].as_u64().expect("a number");
        Piece { start: number("offset"), length: number("length"), data: number("type") & 2 == 0 }
    });
    assert_eq!(tools::merge(served), tools::map("vmdk", &Variant::Plain.vmdk("stream")));
}

#[test]
fn a_server_on_loopback_ends_when_asked() {
    let lab = Lab::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    let address = format!("127.0.0.1:{port}");
    let mut running = Run::new(["serve", "--tcp", &address]).arg(Variant::Plain.vmdk("sparse")).start();
    wait_for(|| std::net::TcpStream::connect(&address).is_ok() || !running.is_alive());
    assert_eq!(tools::ok("nbdinfo", ["--size", &format!("nbd://{address}")]).trim(), (3_u64 << 30).to_string());
    let start = Instant::now();
    running.terminate();
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(lab);
}

#[test]
fn the_socket_is_private_and_goes_away() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new();
    let Server { running, socket } = Server::start(&Variant::Plain.ova(), &lab);
    assert_eq!(socket.metadata().expect("the socket").permissions().mode() & 0o777, 0o600);
    running.terminate();
    assert!(!socket.exists());
}

#[test]
fn other_addresses_than_loopback_are_refused() {
    Run::new(["serve", "--tcp", "0.0.0.0:0"]).arg(Variant::Plain.vmdk("sparse")).fails_with(5).code("serve.open");
    Run::new(["serve"]).arg(Variant::Plain.vmdk("sparse")).fails_with(2).code("serve.address");
}
