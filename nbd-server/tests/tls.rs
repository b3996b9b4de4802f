//! TLS, on both sides and with peers: certificates come from openssl, made anew for each run.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use hyper2kvm_nbd::client::{Client as Remote, Kind, Options};
use hyper2kvm_nbd::protocol::constants::*;
use hyper2kvm_nbd::{Allocation, ClientCertificates, Export, Server, TlsServer};
use tempfile::TempDir;

use crate::client::{Client, FIXED, contexts, details};
use crate::fixture::{Memory, serve_with};
use crate::peers::run;
use crate::remote::Disk;

/// An authority with certificates for a server on localhost and for a client.
pub(crate) fn certificates() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let sign = |name: &str, subject: &str, extensions: &str| {
        let at = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
        let (key, cert, config) = (at(&format!("{name}-key.pem")), at(&format!("{name}-cert.pem")), at("openssl.cnf"));
        let text = format!("[req]\ndistinguished_name = name\nx509_extensions = ext\n[name]\n[ext]\n{extensions}\n");
        std::fs::write(&config, text).unwrap();
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        let (ca_cert, ca_key) = (at("ca-cert.pem"), at("ca-key.pem"));
        let by = if name == "ca" { vec![] } else { vec!["-CA", &ca_cert, "-CAkey", &ca_key] };
        let own = ["-config", &config, "-keyout", &key, "-out", &cert, "-subj", subject];
        openssl(&[&new[..], &by, &own].concat());
    };
    sign("ca", "/CN=test authority", "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign");
    let names = "subjectAltName = DNS:localhost,IP:127.0.0.1";
    sign(
        "server",
        "/CN=localhost",
        &format!("basicConstraints = critical,CA:FALSE\n{names}\nextendedKeyUsage = serverAuth"),
    );
    sign("client", "/CN=a client", "basicConstraints = critical,CA:FALSE\nextendedKeyUsage = clientAuth");
    folder
}

fn openssl(args: &[&str]) {
    #[allow(clippy::disallowed_methods, reason = "a test makes certificates")]
    let output = Command::new("openssl").args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn secret_server(folder: &Path, clients: ClientCertificates) -> Server {
    let tls = TlsServer::from_folder(folder, clients).unwrap();
    let disk: Arc<dyn Export> = Arc::new(Disk::new(4 << 20));
    Server::builder().export("disk", disk).tcp("127.0.0.1:0".parse().unwrap()).tls(tls).start().unwrap()
}

fn uri(server: &Server, host: &str, folder: Option<&Path>) -> String {
    let port = server.tcp_address().unwrap().port();
    let certificates = folder.map(|folder| format!("?tls-certificates={}", folder.display())).unwrap_or_default();
    format!("nbds://{host}:{port}/disk{certificates}")
}

#[test]
fn our_client_and_server_talk_in_secret() {
    let folder = certificates();
    for clients in [ClientCertificates::Required, ClientCertificates::Ignored] {
        let server = secret_server(folder.path(), clients);
        assert!(server.uri().starts_with("nbds://127.0.0.1:"));
        for host in ["localhost", "127.0.0.1"] {
            let remote = Remote::connect(&uri(&server, host, Some(folder.path()))).unwrap();
            let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 249) as u8).collect();
            remote.write_at(&bytes, 77, false).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        let mut read = vec![0; bytes.len()];
                        remote.read_at(&mut read, 77).unwrap();
                        assert!(read == bytes);
                    });
                }
            });
        }
    }
}

#[test]
fn whoever_does_not_prove_who_they_are_is_refused() {
    let (ours, theirs) = (certificates(), certificates());
    let server = secret_server(ours.path(), ClientCertificates::Required);
    let kind = |uri: &str| Remote::with_options(uri.parse().unwrap(), Options::default()).unwrap_err().kind();
    assert_eq!(kind(&uri(&server, "localhost", Some(theirs.path()))), Kind::Tls, "a server of another authority");
    let wrong_name = format!("{}&tls-hostname=example.org", uri(&server, "localhost", Some(ours.path())));
    assert_eq!(kind(&wrong_name), Kind::Tls, "a server with another name");
    assert_eq!(kind(&uri(&server, "localhost", None)), Kind::Tls, "no certificates at all");
    let open = uri(&server, "localhost", None).replace("nbds", "nbd");
    assert_eq!(kind(&open), Kind::Refused, "no TLS");
    let nameless = tempfile::tempdir().unwrap();
    std::fs::copy(ours.path().join("ca-cert.pem"), nameless.path().join("ca-cert.pem")).unwrap();
    let error = Remote::connect(&uri(&server, "localhost", Some(nameless.path()))).unwrap_err();
    assert!(matches!(error.kind(), Kind::Tls | Kind::Lost), "a client without a certificate: {error}");
    Remote::connect(&uri(&server, "localhost", Some(ours.path()))).unwrap();
    let (_folder, _path, open_server) = serve_with(Memory::mixed(), |builder| builder);
    let downgraded = open_server.uri().replace("nbd+", "nbds+") + "&tls-hostname=x&tls-certificates=";
    assert_eq!(kind(&format!("{downgraded}{}", ours.path().display())), Kind::Refused, "a server without TLS");
}

#[test]
fn nothing_works_before_tls() {
    let folder = certificates();
    let server = secret_server(folder.path(), ClientCertificates::Ignored);
    let mut client = Client::tcp(server.tcp_address().unwrap());
    client.greet(FIXED);
    for option in [OPT_LIST, OPT_STRUCTURED_REPLY, OPT_EXTENDED_HEADERS, 0xfeed] {
        assert_eq!(client.kinds(option, &[]), [REP_ERR_TLS_REQD]);
    }
    assert_eq!(client.kinds(OPT_GO, &details(b"disk", &[])), [REP_ERR_TLS_REQD]);
    assert_eq!(client.kinds(OPT_SET_META_CONTEXT, &contexts("disk", &["base:allocation"])), [REP_ERR_TLS_REQD]);
    client.send_option(OPT_EXPORT_NAME, b"disk");
    assert!(client.is_closed());
}

/// CVE-2021-3716: options that somebody on the way slips in behind STARTTLS must not count, nor be answered.
#[test]
fn words_in_the_open_behind_starttls_end_the_connection() {
    let folder = certificates();
    let server = secret_server(folder.path(), ClientCertificates::Ignored);
    let mut client = Client::tcp(server.tcp_address().unwrap());
    client.greet(FIXED);
    let mut bytes = Vec::new();
    for option in [OPT_STARTTLS, OPT_STRUCTURED_REPLY] {
        bytes.extend(IHAVEOPT.to_be_bytes());
        bytes.extend(option.to_be_bytes());
        bytes.extend(0_u32.to_be_bytes());
    }
    client.send(&bytes);
    assert_eq!(client.option_reply().kind, REP_ACK);
    assert!(client.is_closed());
}

#[test]
fn a_server_without_tls_says_so() {
    let (_folder, path, _server) = serve_with(Memory::new(&[(512, Allocation::Data)]), |builder| builder);
    let mut client = Client::greeted(&path);
    assert_eq!(client.kinds(OPT_STARTTLS, &[]), [REP_ERR_POLICY]);
    client.go("disk");
}

#[test]
fn addresses_that_others_reach_need_tls_or_a_word() {
    let folder = certificates();
    let builder = || Server::builder().export("", Arc::new(Memory::mixed())).tcp("0.0.0.0:0".parse().unwrap());
    assert_eq!(builder().start().unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    drop(builder().open_to_network().start().unwrap());
    let with = |clients| builder().tls(TlsServer::from_folder(folder.path(), clients).unwrap());
    drop(with(ClientCertificates::Required).start().unwrap());
    // Secret, but for everyone.
    let error = with(ClientCertificates::Ignored).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    drop(with(ClientCertificates::Ignored).open_to_network().start().unwrap());
}

#[test]
fn qemu_and_libnbd_talk_to_us_in_secret() {
    let folder = certificates();
    let server = secret_server(folder.path(), ClientCertificates::Required);
    let port = server.tcp_address().unwrap().port().to_string();
    let credentials = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", folder.path().display());
    let image = format!("driver=nbd,host=localhost,port={port},export=disk,tls-creds=tls0");
    run(
        "qemu-io",
        &["--object", &credentials, "--image-opts", "-c", "write -P 7 1M 64k", "-c", "read -P 7 1M 64k", &image],
    );
    let script = format!(
        "h.set_tls(nbd.TLS_REQUIRE)\nh.set_tls_certificates({:?})\nh.connect_tcp('localhost', '{port}')\n\
         assert h.pread(65536, 1 << 20) == bytearray([7]) * 65536\nassert h.get_tls_negotiated()\nh.shutdown()",
        folder.path()
    );
    run("nbdsh", &["-c", "h.set_export_name('disk')", "-c", &script]);
}

#[test]
fn we_talk_to_nbdkit_and_qemu_nbd_in_secret() {
    let folder = certificates();
    let certificates = format!("--tls-certificates={}", folder.path().display());
    let use_it = |uri: &str| {
        let uri = format!("{uri}?tls-certificates={}&tls-hostname=localhost", folder.path().display());
        let remote = Remote::connect(&uri).unwrap();
        remote.write_at(&[5; 100_000], 12_345, false).unwrap();
        let mut read = [0; 100_000];
        remote.read_at(&mut read, 12_345).unwrap();
        assert_eq!(read, [5; 100_000]);
        assert!(Remote::connect(&uri.replace("nbds", "nbd")).is_err());
    };
    let nbdkit = crate::servers::nbdkit(&["--tls=require", "--tls-verify-peer", &certificates, "memory", "1M"]);
    use_it(&nbdkit.tcp_uri("nbds"));
    let image = folder.path().join("image.raw");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let object = format!("tls-creds-x509,id=tls0,endpoint=server,verify-peer=on,dir={}", folder.path().display());
    let qemu = crate::servers::qemu_nbd(&["--object", &object, "--tls-creds", "tls0", image.to_str().unwrap()]);
    use_it(&qemu.tcp_uri("nbds"));
}
