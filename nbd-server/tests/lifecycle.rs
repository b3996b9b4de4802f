//! How a server starts and ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hyper2kvm_nbd::limits::{MAX_CONTEXTS, MAX_EXPORTS, MAX_MINIMUM_BLOCK, MAX_STRING};
use hyper2kvm_nbd::protocol::constants::*;
use hyper2kvm_nbd::{Allocation, Combine, Context, Error, Export, Server, is_loopback};

use crate::client::{Client, FIXED};
use crate::fixture::{Memory, Slow, serve, socket};

fn small() -> Arc<Memory> {
    Arc::new(Memory::new(&[(512, Allocation::Data)]))
}

#[test]
fn a_socket_is_private_and_removed_at_the_end() {
    let (_folder, path, server) = serve(Memory::mixed());
    let metadata = fs::symlink_metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(server.uri(), format!("nbd+unix:///?socket={}", path.display()));
    drop(server);
    assert!(!path.exists());
}

#[test]
fn a_dead_servers_socket_is_replaced() {
    let (_folder, path) = socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _server = Server::builder().export("", small()).unix(&path).start().unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    Client::ready(&path);
}

#[test]
fn a_live_servers_socket_is_not() {
    let (_folder, path, server) = serve(Memory::mixed());
    let error = Server::builder().export("", small()).unix(&path).start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(Client::greeted(&path).go("disk").0, Memory::mixed().size());
    drop(server);
    assert!(!path.exists());
}

#[test]
fn another_file_is_not_replaced() {
    let (folder, path) = socket();
    fs::write(&path, "precious").unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(folder.path().join("nowhere"), &link).unwrap();
    for path in [&path, &link, &folder.path().to_owned()] {
        let error = Server::builder().export("", small()).unix(path).start().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 8);
}

#[test]
fn a_socket_that_someone_else_made_stays() {
    let (_folder, path, server) = serve(Memory::mixed());
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(server);
    assert!(path.exists());
}

#[test]
fn a_path_that_cannot_be_bound_is_an_error() {
    let (folder, _) = socket();
    for path in [folder.path().join("no/such/folder"), folder.path().join("x".repeat(200))] {
        let error = Server::builder().export("", small()).unix(&path).start().unwrap_err();
        assert!(error.to_string().contains("cannot listen on"), "{error}");
    }
}

#[test]
fn builders_that_make_no_sense_are_errors() {
    struct TooLarge;
    impl Export for TooLarge {
        fn size(&self) -> u64 {
            1 << 63
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<(), Error> {
            Ok(())
        }
    }
    let (_folder, path) = socket();
    let many = |count: usize| (0..count).fold(Server::builder(), |builder, at| builder.export(at.to_string(), small()));
    let named = |len: usize| Server::builder().export("x".repeat(len), small()).unix(&path);
    for builder in [
        Server::builder().export("", small()),
        Server::builder().unix(&path),
        Server::builder().export("a", small()).export("a", small()).unix(&path),
        Server::builder().export("a\0b", small()).unix(&path),
        Server::builder().export("a", Arc::new(TooLarge)).unix(&path),
        named(MAX_STRING + 1),
        many(MAX_EXPORTS + 1).unix(&path),
    ] {
        assert_eq!(builder.start().unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
    assert!(!path.exists());
    for builder in [named(MAX_STRING), named(MAX_STRING - 1), many(MAX_EXPORTS).unix(&path)] {
        drop(builder.start().unwrap());
    }
}

#[test]
fn exports_that_make_no_sense_are_errors() {
    struct Odd {
        size: u64,
        block: u32,
        contexts: Vec<String>,
    }
    impl Export for Odd {
        fn size(&self) -> u64 {
            self.size
        }
        fn read_at(&self, _: &mut [u8], _: u64) -> Result<(), Error> {
            Ok(())
        }
        fn minimum_block(&self) -> u32 {
            self.block
        }
        fn contexts(&self) -> Vec<Context> {
            self.contexts.iter().map(|name| Context { name: name.clone(), combine: Combine::Any }).collect()
        }
    }
    let (_folder, path) = socket();
    let starts = |size, block, contexts: Vec<String>| {
        let odd = Arc::new(Odd { size, block, contexts });
        Server::builder().export("", odd).unix(&path).start().map_err(|error| error.kind()).is_ok()
    };
    let names = |count: usize| (0..count).map(|at| format!("x:{at}")).collect::<Vec<_>>();
    for (block, ok) in [(0, false), (1, true), (3, false), (4096, true), (MAX_MINIMUM_BLOCK, true), (1 << 17, false)] {
        assert_eq!(starts(1 << 20, block, vec![]), ok, "{block}");
    }
    assert!(!starts(513, 512, vec![]));
    for (count, ok) in [(MAX_CONTEXTS - 1, true), (MAX_CONTEXTS, true), (MAX_CONTEXTS + 1, false)] {
        assert_eq!(starts(512, 1, names(count)), ok, "{count}");
    }
    assert!(!starts(512, 1, vec!["nameless".into()]));
    assert!(!starts(512, 1, vec![format!("x:{}", "y".repeat(MAX_STRING))]));
}

#[test]
fn tcp_chooses_a_port_and_says_which() {
    let server = Server::builder().export("a b", small()).tcp("127.0.0.1:0".parse().unwrap()).start().unwrap();
    let address = server.tcp_address().unwrap();
    assert_eq!(server.uris("a b"), [format!("nbd://{address}/a%20b")]);
    let mut client = Client::tcp(address);
    client.greet(FIXED);
    client.structured();
    assert_eq!(client.go("a b").0, 512);
    assert_eq!(client.read(0, 0, 3), small().bytes[..3]);
    let taken = Server::builder().export("", small()).tcp(address).start().unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn loopback_addresses_are_told_from_others() {
    for (address, expected) in [
        ("127.0.0.1:1", true),
        ("127.9.9.9:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
        ("[::ffff:10.0.0.1]:1", false),
    ] {
        assert_eq!(is_loopback(&address.parse().unwrap()), expected, "{address}");
    }
}

#[test]
fn shutdown_with_a_hundred_writes_in_flight_answers_or_breaks_each() {
    let disk = Arc::new(crate::remote::Disk::new(4 << 20));
    let (_folder, path) = socket();
    let export = Arc::clone(&disk) as Arc<dyn Export>;
    let server = Server::builder().export("disk", export).unix(&path).start().unwrap();
    let options = hyper2kvm_nbd::client::Options { retry_for: Duration::ZERO, ..Default::default() };
    let client = hyper2kvm_nbd::client::Client::with_options(server.uri().parse().unwrap(), options).unwrap();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..100_u64)
            .map(|at| {
                let client = &client;
                scope.spawn(move || {
                    let mut written = 0;
                    while client.write_at(&[at as u8 + 1; 4096], at * 4096, false).is_ok() {
                        written += 1;
                    }
                    (at, written)
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(100));
        server.shutdown();
        server.wait();
        let bytes = disk.bytes.lock().unwrap();
        for writer in writers {
            let (at, written) = writer.join().unwrap();
            let page = &bytes[at as usize * 4096..][..4096];
            assert!(written == 0 || page.iter().all(|&byte| byte == at as u8 + 1), "what was acknowledged is there");
        }
    });
}

#[test]
fn shutdown_answers_what_is_in_flight() {
    let (_folder, path, server) = serve(Slow(Duration::from_millis(100)));
    let mut clients: Vec<Client> = (0..10).map(|_| Client::ready(&path)).collect();
    for client in &mut clients {
        for cookie in 0..10 {
            client.request(CMD_READ, 0, cookie, cookie << 12, 4096);
        }
    }
    let mut idle = Client::ready(&path);
    let mut negotiating = Client::greeted(&path);
    thread::sleep(Duration::from_millis(30));
    let started = Instant::now();
    server.shutdown();
    server.wait();
    assert!(started.elapsed() < Duration::from_secs(5));
    for client in &mut clients {
        let first = client.chunk();
        assert_eq!(first.data[8..], [first.cookie as u8; 4096], "a request in flight is answered in full");
    }
    assert!(idle.is_closed() && negotiating.is_closed());
    assert!(clients.iter_mut().all(Client::is_closed));
    assert!(UnixStream::connect(&path).is_err());
    assert!(!path.exists());
    assert_eq!(server.stats().connections, 0);
}

#[test]
fn shutdown_does_not_wait_for_a_client_that_reads_nothing() {
    let (_folder, path, server) = serve(Memory::mixed());
    let mut client = Client::ready(&path);
    for cookie in 0..50 {
        client.request(CMD_READ, CMD_FLAG_DF, cookie, 0, 4 << 20);
    }
    let started = Instant::now();
    server.shutdown();
    server.wait();
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[test]
fn many_can_wait_and_any_can_shut_down() {
    let (_folder, _path, server) = serve(Memory::mixed());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| server.wait());
        }
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            server.shutdown();
            server.shutdown();
        });
    });
    server.wait();
}

#[test]
fn a_server_can_be_started_inside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (_folder, path, server) = serve(Memory::mixed());
        assert_eq!(Client::ready(&path).read(0, 0, 8), Memory::mixed().bytes[..8]);
        drop(server);
    });
}

#[test]
fn stats_count() {
    let (_folder, path, server) = serve(Memory::mixed());
    let mut client = Client::ready(&path);
    for _ in 0..5 {
        client.read(0, 0, 1000);
    }
    let stats = server.stats();
    assert_eq!((stats.accepted, stats.connections), (1, 1));
    client.request(CMD_DISC, 0, 0, 0, 0);
    assert!(client.is_closed());
    let stats = server.stats();
    assert_eq!(stats.requests, 6);
    assert_eq!(stats.bytes_sent, 5 * 1028);
}
