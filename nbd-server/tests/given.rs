//! Servers that are started by others: sockets of systemd, and connections that are there already.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hyper2kvm_nbd::client::Client as Remote;
use hyper2kvm_nbd::{Export, Server, systemd_sockets};

use crate::fixture::{Memory, socket};
use crate::peers::run;

fn memory() -> Arc<dyn Export> {
    Arc::new(Memory::mixed())
}

#[test]
fn sockets_that_listen_already_are_served() {
    let (_folder, path) = socket();
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let server =
        Server::builder().export("disk", memory()).inherited(unix.into()).inherited(tcp.into()).start().unwrap();
    let uris = server.uris("disk");
    assert_eq!(uris.len(), 2);
    for uri in &uris {
        let mut read = [0; 64];
        Remote::connect(uri).unwrap().read_at(&mut read, 0).unwrap();
        assert_eq!(read, Memory::mixed().bytes[..64]);
    }
    drop(server);
    assert!(path.exists(), "the file is not ours");
}

#[test]
fn sockets_that_do_not_listen_are_refused() {
    let (one, _other) = UnixStream::pair().unwrap();
    let error = Server::builder().export("", memory()).inherited(one.into()).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let error = Server::builder().export("", memory()).inherited(open.into()).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn without_systemd_there_are_no_sockets() {
    assert_eq!(systemd_sockets().unwrap().len(), 0);
}

#[test]
fn a_connection_is_served_to_its_end_and_the_server_with_it() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let both = (OwnedFd::from(theirs.try_clone().unwrap()), OwnedFd::from(theirs));
    let server = Server::builder().export("disk", memory()).connection(both.0, both.1).start().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut client = &ours;
    let mut greeting = [0; 18];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"NBDMAGICIHAVEOPT\0\x03");
    client.write_all(&[&3_u32.to_be_bytes()[..], b"IHAVEOPT", &[0, 0, 0, 1, 0, 0, 0, 4], b"disk"].concat()).unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    client.write_all(&crate::client::request(0, 0, 5, 0, 64)).unwrap();
    let mut reply = [0; 80];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply[16..], Memory::mixed().bytes[..64]);
    drop(ours);
    server.wait();
}

#[test]
fn pipes_will_do() {
    let (request_reader, mut request_writer) = std::io::pipe().unwrap();
    let (mut reply_reader, reply_writer) = std::io::pipe().unwrap();
    let server = Server::builder().export("", memory()).connection(request_reader.into(), reply_writer.into()).start();
    let server = server.unwrap();
    reply_reader.read_exact(&mut [0; 18]).unwrap();
    request_writer.write_all(&[&3_u32.to_be_bytes()[..], b"IHAVEOPT", &[0, 0, 0, 2, 0, 0, 0, 0]].concat()).unwrap();
    let mut acknowledged = [0; 20];
    reply_reader.read_exact(&mut acknowledged).unwrap();
    assert_eq!(acknowledged[12..16], [0, 0, 0, 1]);
    server.wait();
}

/// This test's own program, started as systemd and libnbd would start a server.
#[test]
fn systemd_and_libnbd_start_servers() {
    let program = std::env::current_exe().unwrap();
    let program = program.to_str().unwrap();
    let command = [program, "--ignored", "--exact", "given::serves_what_it_was_started_with", "--nocapture"];
    let words = command.map(|word| format!("{word:?}")).join(", ");
    let check = "assert h.pread(64, 1048576 - 64)[-1] != 0 and h.get_size() == 4194816\nh.shutdown()";
    run("nbdsh", &["-c", &format!("h.connect_systemd_socket_activation([{words}])"), "-c", check]);
}

#[test]
#[ignore = "the server that another test of make test starts"]
fn serves_what_it_was_started_with() {
    let sockets = systemd_sockets().unwrap();
    assert_eq!(sockets.len(), 1);
    assert_eq!(systemd_sockets().unwrap().len(), 0, "each is handed out once");
    let server = sockets.into_iter().fold(Server::builder().export("", memory()), |builder, fd| builder.inherited(fd));
    let server = server.start().unwrap();
    // libnbd ends its servers with a signal; this is for when it does not.
    std::thread::sleep(Duration::from_secs(20));
    drop(server);
}

#[test]
fn a_wrong_number_of_sockets_is_an_error() {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "LISTEN_PID=$$ LISTEN_FDS=1 exec {} --ignored --exact given::serves_what_it_was_started_with 3>&-",
        program.display()
    );
    #[allow(clippy::disallowed_methods, reason = "a test starts itself as systemd would")]
    let output = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success(), "descriptor 3 is not open");
}
