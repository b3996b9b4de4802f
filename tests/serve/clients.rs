//! Other people's clients, reading: nbdfuse, qemu-storage-daemon, nbdkit and fio; tests/serve.rs has nbdinfo, nbdcopy and qemu-img.

use std::process::{Child, Command, Stdio};

use super::exports::nbdsh;
use super::{Server, image_of, small_disk, wait_for};
use crate::support::{Lab, tools};

/// A process that is killed when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, args: &[&str]) -> Killed {
    let child = Command::new(program).args(args).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    Killed(
        child.unwrap_or_else(|error| panic!("cannot run {program}, which scripts/install-deps.sh installs: {error}")),
    )
}

#[test]
fn nbdfuse_mounts_it() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let server = Server::start(&image_of(&raw, "vmdk", &lab), &lab);
    let point = lab.folder("nbdfuse");
    let file = point.join("disk.raw");
    let path = file.display().to_string();
    let fuse = start("nbdfuse", &["-r", &path, &server.uri()]);
    wait_for(|| file.exists());
    tools::assert_same_content(("raw", &raw), ("raw", &file));
    tools::ok("fusermount3", ["-u".as_ref(), point.as_os_str()]);
    drop(fuse);
}

#[test]
fn qemu_storage_daemon_exports_it_on() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let server = Server::start(&image_of(&raw, "vmdk", &lab), &lab);
    let socket = lab.path("qsd.sock");
    let path = socket.display();
    let daemon = start(
        "qemu-storage-daemon",
        &[
            "--blockdev",
            &format!("driver=nbd,node-name=disk,read-only=on,server.type=unix,server.path={}", server.socket.display()),
            "--nbd-server",
            &format!("addr.type=unix,addr.path={path}"),
            "--export",
            "type=nbd,id=disk,node-name=disk,name=disk",
        ],
    );
    wait_for(|| tools::output("nbdinfo", ["--size", &format!("nbd+unix:///disk?socket={path}")]).status.success());
    let copy = lab.path("copy.raw");
    tools::ok("nbdcopy", [format!("nbd+unix:///disk?socket={path}").as_ref(), copy.as_os_str()]);
    tools::assert_same_content(("raw", &raw), ("raw", &copy));
    drop(daemon);
}

#[test]
fn nbdkit_serves_it_on() {
    let lab = Lab::new();
    let raw = small_disk(&lab);
    let server = Server::start(&image_of(&raw, "qcow2", &lab), &lab);
    let copy = lab.path("copy.raw");
    let command = format!("nbdcopy \"$uri\" {}", copy.display());
    tools::ok("nbdkit", ["-U", "-", "-r", "nbd", &format!("uri={}", server.uri()), "--run", &command]);
    tools::assert_same_content(("raw", &raw), ("raw", &copy));
}

#[test]
fn fio_reads_at_depth_32() {
    let lab = Lab::new();
    let server = Server::start(&image_of(&small_disk(&lab), "vmdk", &lab), &lab);
    let uri = format!("--uri={}", server.uri());
    let args = ["--name=read", "--ioengine=nbd", &uri, "--rw=randread", "--bs=4k", "--iodepth=32", "--io_size=16m"];
    let told = tools::ok("fio", args.into_iter().chain(["--size=16m", "--output-format=terse"]));
    assert_eq!(told.trim().split(';').nth(4), Some("0"), "no error in {told}");
}

#[test]
fn nbdsh_finds_the_bytes_and_no_way_to_write() {
    let lab = Lab::new();
    let server = Server::start(&image_of(&small_disk(&lab), "vmdk", &lab), &lab);
    let script = format!(
        "h.connect_uri({:?})\nassert h.is_read_only()\nassert h.pread(8, 4096 * 512) == (4096).to_bytes(8, 'little')\n\
         h.set_strict_mode(0)\n\
         try:\n    h.pwrite(b'x' * 512, 0)\n    assert False\nexcept nbd.Error as error:\n    assert error.errno == 'EPERM', error\n\
         h.shutdown()",
        server.uri()
    );
    nbdsh(&script);
}
